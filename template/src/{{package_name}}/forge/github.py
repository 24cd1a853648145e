"""GitHub, and its Enterprise Server. API: https://docs.github.com/rest."""

import json
import os
from pathlib import Path
from typing import Any

from . import MARK, ask


class Github:
    """See `Forge`. The token of a job is in GITHUB_TOKEN, where the workflow puts it."""

    name = "GitHub"

    def __init__(self, env: dict[str, str]):
        self.workspace, self.token = Path(env["GITHUB_WORKSPACE"]), env.get("GITHUB_TOKEN", "")
        self.user, self.repository = env.get("GITHUB_ACTOR", ""), env["GITHUB_REPOSITORY"]
        self.url = f"{env.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{self.repository}"
        self.event = Path(env.get("GITHUB_EVENT_PATH", ""))
        self.results = env.get("ML_JOBS") or "{}"

    def place(self) -> str:
        return f"ghcr.io/{self.repository}".lower()

    def credentials(self) -> tuple[str, str] | None:
        return (self.user, self.token) if self.token else None

    def jobs(self) -> dict[str, str]:
        return {name: found["result"] for name, found in json.loads(self.results).items()}

    def comment(self, text: str) -> str | None:
        if (number := json.loads(self.event.read_text("utf-8")).get("number")) is None:
            return "this is no pull request"
        page, found = 1, list[Any]()
        while len(part := self._ask("GET", f"issues/{number}/comments?per_page=100&page={page}")):
            found, page = [*found, *part], page + 1
        own = [one["id"] for one in found if MARK in one["body"] and one["user"]["type"] == "Bot"]
        if own:
            self._ask("PATCH", f"issues/comments/{own[0]}", {"body": f"{MARK}\n{text}"})
        else:
            self._ask("POST", f"issues/{number}/comments", {"body": f"{MARK}\n{text}"})
        return None

    def train(self) -> None:
        self._ask("POST", "dispatches", {"event_type": "train"})

    def notice(self, text: str) -> None:
        print(f"::notice::{text}")  # noqa: T201 a command to the runner

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        return ask(method, f"{self.url}/{path}", headers, body)


def opened() -> Github | None:
    return Github(dict(os.environ)) if os.environ.get("GITHUB_ACTIONS") == "true" else None
