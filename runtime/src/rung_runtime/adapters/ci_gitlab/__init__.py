"""GitLab. API: https://docs.gitlab.com/api."""

import os
from pathlib import Path
from typing import Any

from ... import UsageError, runner_log
from ...ci_platform import ApiError, ask, body, is_marked, of_author, pages, variable
from ...escaping import visible

# Of characters: MAX_TEXT_SIZE_LIMIT in GitLab's lib/gitlab/database.rb.
LONGEST = 1_000_000


class Gitlab:
    """See `Forge`.

    A job's own token starts pipelines and opens the registry. Notes, and how jobs ended, take a
    project access token with the scope `api`, in the variable GITLAB_TOKEN.
    """

    name = "GitLab"

    def __init__(self, env: dict[str, str]):
        self.workspace, self.env = Path(env.get("CI_PROJECT_DIR", ".")), env
        self.api = variable(env, "CI_API_V4_URL")
        self.token = {"PRIVATE-TOKEN": env.get("GITLAB_TOKEN", "")}

    def place(self) -> str:
        if not (image := self.env.get("CI_REGISTRY_IMAGE")):
            raise UsageError(
                "this GitLab project has no container registry (CI_REGISTRY_IMAGE is not set): "
                "turn it on in the project's settings, or set ML_REGISTRY to oci://HOST/NAME"
            )
        return image.lower()

    def credentials(self) -> tuple[str, str] | None:
        user, password = (self.env.get(f"CI_REGISTRY_{n}", "") for n in ("USER", "PASSWORD"))
        return (user, password) if password else None

    def jobs(self) -> dict[str, str]:
        if not self.token["PRIVATE-TOKEN"]:
            return {}
        pipeline = f"pipelines/{variable(self.env, 'CI_PIPELINE_ID')}/jobs?per_page=100"
        try:
            jobs = self._ask("GET", self._project(), pipeline)
        except ApiError as error:
            # The pipeline of a fork is the fork's, where the token of this project sees nothing.
            if self._is_fork() and error.status in (401, 403, 404):
                return {}
            raise
        ended = {"success": "success", "failed": "failure", "skipped": "skipped"}
        results = {str(job["name"]): ended.get(job["status"], "") for job in jobs}
        return {name: result for name, result in results.items() if result}

    def comment(self, text: str, tail: str = "") -> str | None:
        if (number := self.env.get("CI_MERGE_REQUEST_IID")) is None:
            return "this is no merge request"
        if not self.token["PRIVATE-TOKEN"]:
            if self._is_fork():
                return "the merge request is from a fork, whose jobs have no GITLAB_TOKEN"
            return "the variable GITLAB_TOKEN has no project access token (scope api)"
        try:
            self._write(number, {"body": body(text, tail, LONGEST)})
        except ApiError as error:
            if error.status not in (401, 403, 404):
                raise
            if self._is_fork():
                return (
                    "the merge request is from a fork, whose GITLAB_TOKEN may not write notes here"
                )
            if self._is_locked(number):
                return "the discussion of the merge request is locked: the job's log has the report"
            raise
        return None

    def train(self) -> None:
        token = variable(self.env, "CI_JOB_TOKEN")
        ref = variable(self.env, "CI_DEFAULT_BRANCH")
        ask(
            "POST",
            f"{self.api}/projects/{self._project()}/trigger/pipeline",
            {},
            {"token": token, "ref": ref},
        )

    def notice(self, text: str) -> None:
        # Seen among the lines of a log.
        runner_log.command(
            "\n".join(f"\033[1;33m{visible(line)}\033[0m" for line in text.split("\n"))
        )

    def _project(self) -> str:
        """The number of the project whose pipeline this is."""
        return variable(self.env, "CI_PROJECT_ID")

    def _target(self) -> str:
        """The number of the project that a merge request would change, where its notes are."""
        return self.env.get("CI_MERGE_REQUEST_PROJECT_ID") or self._project()

    def _is_fork(self) -> bool:
        source = self.env.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") or self._target()
        return source != self._target() or self._project() != self._target()

    def _is_locked(self, number: str) -> bool:
        """Tell whether only members of the project may write notes, if that can be asked."""
        try:
            request = self._ask("GET", self._target(), f"merge_requests/{number}")
        except ApiError:
            return False
        return isinstance(request, dict) and bool(request.get("discussion_locked"))

    def _write(self, number: str, content: dict[str, str]) -> None:
        """Replace the report, or write the first one."""
        project, notes = self._target(), f"merge_requests/{number}/notes"
        me = (ask("GET", f"{self.api}/user", self.token) or {}).get("id")
        for note in pages(
            lambda page: self._ask("GET", project, f"{notes}?per_page=100&page={page}")
        ):
            if is_marked(note) and me and of_author(note, "author", "id") == me:
                self._ask("PUT", project, f"{notes}/{note['id']}", content)
                return
        self._ask("POST", project, notes, content)

    def _ask(self, method: str, project: str, path: str, body: Any = None) -> Any:
        return ask(method, f"{self.api}/projects/{project}/{path}", self.token, body)


def opened() -> Gitlab | None:
    return Gitlab(dict(os.environ)) if "CI_API_V4_URL" in os.environ else None
