"""GitLab. API: https://docs.gitlab.com/api."""

import os
from pathlib import Path
from typing import Any

from ... import UsageError, runner_log
from ...ci_platform import (
    ApiError,
    author_field,
    call_api,
    is_marked,
    pages,
    render_comment,
    variable,
)
from ...escaping import visible

# In characters, MAX_TEXT_SIZE_LIMIT in GitLab's lib/gitlab/database.rb.
MAX_COMMENT_BYTES = 1_000_000


class Gitlab:
    """See `Platform`.

    A job's own token starts pipelines and opens the registry. Notes, and the results of jobs, need
    a project access token with the scope `api`, in the variable GITLAB_TOKEN.
    """

    name = "GitLab"

    def __init__(self, env: dict[str, str]):
        self.workspace = Path(env.get("CI_PROJECT_DIR", "."))
        self.env = env
        self.api = variable(env, "CI_API_V4_URL")
        self.token = {"PRIVATE-TOKEN": env.get("GITLAB_TOKEN", "")}

    def registry_prefix(self) -> str:
        if not (image := self.env.get("CI_REGISTRY_IMAGE")):
            raise UsageError(
                "this GitLab project has no container registry (CI_REGISTRY_IMAGE is not set): "
                "turn it on in the project's settings, or set ML_REGISTRY to oci://HOST/NAME"
            )
        return image.lower()

    def credentials(self) -> tuple[str, str] | None:
        user = self.env.get("CI_REGISTRY_USER", "")
        password = self.env.get("CI_REGISTRY_PASSWORD", "")
        return (user, password) if password else None

    def jobs(self) -> dict[str, str]:
        if not self.token["PRIVATE-TOKEN"]:
            return {}
        pipeline = f"pipelines/{variable(self.env, 'CI_PIPELINE_ID')}/jobs?per_page=100"
        try:
            jobs = self._call("GET", self._project(), pipeline)
        except ApiError as error:
            # The pipeline of a fork is the fork's, where the token of this project sees nothing.
            if self._is_fork() and error.status in (401, 403, 404):
                return {}
            raise
        if not isinstance(jobs, list):
            raise UsageError("the API answers with something else than a list of jobs")
        results_by_status = {"success": "success", "failed": "failure", "skipped": "skipped"}
        return {
            str(job["name"]): results_by_status[str(job.get("status"))]
            for job in jobs
            if isinstance(job, dict) and "name" in job
            if str(job.get("status")) in results_by_status
        }

    def comment(self, text: str, tail: str = "") -> str | None:
        if (number := self.env.get("CI_MERGE_REQUEST_IID")) is None:
            return "this is not a merge request"
        if not self.token["PRIVATE-TOKEN"]:
            if self._is_fork():
                return "the merge request is from a fork, whose jobs have no GITLAB_TOKEN"
            return "the variable GITLAB_TOKEN has no project access token (scope api)"
        try:
            self._write(number, {"body": render_comment(text, tail, MAX_COMMENT_BYTES)})
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
        call_api(
            "POST",
            f"{self.api}/projects/{self._project()}/trigger/pipeline",
            {},
            {"token": token, "ref": ref},
        )

    def notice(self, text: str) -> None:
        # In color, to stand out from the other lines of the log.
        runner_log.command(
            "\n".join(f"\033[1;33m{visible(line)}\033[0m" for line in text.split("\n"))
        )

    def _project(self) -> str:
        """Return the number of the project whose pipeline this is."""
        return variable(self.env, "CI_PROJECT_ID")

    def _target(self) -> str:
        """Return the number of the project that a merge request would change: it has the notes."""
        return self.env.get("CI_MERGE_REQUEST_PROJECT_ID") or self._project()

    def _is_fork(self) -> bool:
        source = self.env.get("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") or self._target()
        return source != self._target() or self._project() != self._target()

    def _is_locked(self, number: str) -> bool:
        """Check whether only members of the project may write notes, as far as the API tells."""
        try:
            request = self._call("GET", self._target(), f"merge_requests/{number}")
        except ApiError:
            return False
        return isinstance(request, dict) and bool(request.get("discussion_locked"))

    def _write(self, number: str, content: dict[str, str]) -> None:
        """Replace the report, or write the first one."""
        project = self._target()
        notes = f"merge_requests/{number}/notes"
        user = call_api("GET", f"{self.api}/user", self.token)
        user_id = user.get("id") if isinstance(user, dict) else None
        for note in pages(
            lambda page: self._call("GET", project, f"{notes}?per_page=100&page={page}")
        ):
            if is_marked(note) and user_id and author_field(note, "author", "id") == user_id:
                self._call("PUT", project, f"{notes}/{note['id']}", content)
                return
        self._call("POST", project, notes, content)

    def _call(self, method: str, project: str, path: str, body: Any = None) -> Any:
        return call_api(method, f"{self.api}/projects/{project}/{path}", self.token, body)


def detect() -> Gitlab | None:
    """Return the platform, if this process is one of its jobs."""
    return Gitlab(dict(os.environ)) if "CI_API_V4_URL" in os.environ else None
