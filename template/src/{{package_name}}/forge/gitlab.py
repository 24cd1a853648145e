"""GitLab. API: https://docs.gitlab.com/api."""

import os
from pathlib import Path
from typing import Any

from . import MARK, ask


class Gitlab:
    """See `Forge`.

    A job's own token starts pipelines and opens the registry. Notes, and how jobs ended, take a
    project access token with the scope `api`, in the variable GITLAB_TOKEN.
    """

    name = "GitLab"

    def __init__(self, env: dict[str, str]):
        self.workspace, self.env = Path(env["CI_PROJECT_DIR"]), env
        self.url = f"{env['CI_API_V4_URL']}/projects/{env['CI_PROJECT_ID']}"
        self.token = {"PRIVATE-TOKEN": env.get("GITLAB_TOKEN", "")}

    def place(self) -> str:
        return self.env["CI_REGISTRY_IMAGE"].lower()

    def credentials(self) -> tuple[str, str] | None:
        user, password = (self.env.get(f"CI_REGISTRY_{n}", "") for n in ("USER", "PASSWORD"))
        return (user, password) if password else None

    def jobs(self) -> dict[str, str]:
        if not self.token["PRIVATE-TOKEN"]:
            return {}
        path = f"pipelines/{self.env['CI_PIPELINE_ID']}/jobs?per_page=100"
        ended = {"success": "success", "failed": "failure", "skipped": "skipped"}
        found = {job["name"]: ended.get(job["status"], "") for job in self._ask("GET", path)}
        return {name: result for name, result in found.items() if result}

    def comment(self, text: str) -> str | None:
        if (number := self.env.get("CI_MERGE_REQUEST_IID")) is None:
            return "this is no merge request"
        if not self.token["PRIVATE-TOKEN"]:
            return "the variable GITLAB_TOKEN has no project access token (scope api)"
        notes, page, found = f"merge_requests/{number}/notes", 1, list[Any]()
        while len(part := self._ask("GET", f"{notes}?per_page=100&page={page}")):
            found, page = [*found, *part], page + 1
        me = ask("GET", f"{self.env['CI_API_V4_URL']}/user", self.token)["id"]
        own = [one["id"] for one in found if MARK in one["body"] and one["author"]["id"] == me]
        body = {"body": f"{MARK}\n{text}"}
        self._ask("PUT" if own else "POST", f"{notes}/{own[0]}" if own else notes, body)
        return None

    def train(self) -> None:
        token, ref = self.env["CI_JOB_TOKEN"], self.env["CI_DEFAULT_BRANCH"]
        ask("POST", f"{self.url}/trigger/pipeline", {}, {"token": token, "ref": ref})

    def notice(self, text: str) -> None:
        print(f"\033[1;33m{text}\033[0m")  # noqa: T201 seen among the lines of a log

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(method, f"{self.url}/{path}", self.token, body)


def opened() -> Gitlab | None:
    return Gitlab(dict(os.environ)) if "CI_API_V4_URL" in os.environ else None
