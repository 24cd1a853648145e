"""GitHub, and its Enterprise Server. API: https://docs.github.com/rest.

Gitea and Forgejo run the same workflows, with the same variables.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ... import UsageError, runner_log
from ...ci_platform import ApiError, ask, body, is_marked, of_author, pages, variable
from ...escaping import visible

# "Body is too long (maximum is 65536 characters)", says the API; in bytes it is shorter, if at all.
LONGEST = 65_536


class Github:
    """See `Forge`. The token of a job is in GITHUB_TOKEN, where the workflow puts it."""

    name = "GitHub"

    def __init__(self, env: dict[str, str]):
        self.workspace, self.token = (
            Path(env.get("GITHUB_WORKSPACE", ".")),
            env.get("GITHUB_TOKEN", ""),
        )
        self.user, self.repository = env.get("GITHUB_ACTOR", ""), variable(env, "GITHUB_REPOSITORY")
        self.url = f"{env.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{self.repository}"
        self.event = Path(env.get("GITHUB_EVENT_PATH", ""))
        self.results = env.get("ML_JOBS") or "{}"
        self.server = env.get("GITHUB_SERVER_URL") or "https://github.com"
        # Gitea's runner says so, and Forgejo's, which descends from it, by either name.
        names = ("GITEA_ACTIONS", "FORGEJO_ACTIONS")
        self.is_gitea = any(env.get(name, "").lower() == "true" for name in names)

    def place(self) -> str:
        return f"{self._registry()}/{self.repository}".lower()

    def _registry(self) -> str:
        """The container registry of the server that this job is of, and of no other.

        https://docs.github.com/en/enterprise-server/packages/working-with-a-github-packages-registry,
        https://docs.gitea.com/usage/packages/container.
        """
        try:
            parts = urlsplit(self.server)
            port = parts.port
        except ValueError:
            raise UsageError(f"GITHUB_SERVER_URL: {self.server} is not an address") from None
        host = parts.hostname or ""
        if not host or (host == "github.com" and self.is_gitea):
            raise UsageError(f"GITHUB_SERVER_URL: {self.server} is not the address of this server")
        if host == "github.com":
            return "ghcr.io"
        address = f"{host}:{port}" if port else host
        return address if self.is_gitea else f"containers.{address}"

    def credentials(self) -> tuple[str, str] | None:
        return (self.user, self.token) if self.token else None

    def jobs(self) -> dict[str, str]:
        try:
            return {name: str(job["result"]) for name, job in json.loads(self.results).items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UsageError("ML_JOBS is not what toJSON(needs) gives: set it in the job") from None

    def comment(self, text: str, tail: str = "") -> str | None:
        event = self._event()
        if (number := event.get("number")) is None:
            return "this is no pull request"
        request = event.get("pull_request") or {}
        try:
            self._write(int(number), {"body": body(text, tail, LONGEST)})
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            if "locked" in error.reason.lower() or request.get("locked"):
                return "the conversation of the pull request is locked: the job's summary has it"
            if _is_fork(request):
                return "the pull request is from a fork, whose jobs may not write comments"
            raise
        return None

    def train(self) -> None:
        self._ask("POST", "dispatches", {"event_type": "train"})

    def notice(self, text: str) -> None:
        # https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
        data = visible(text, keep="\r\n").replace("%", "%25").replace("\r", "%0D")
        runner_log.command(f"::notice::{data}".replace("\n", "%0A"))

    def _event(self) -> dict[str, Any]:
        """What started the workflow."""
        try:
            event = json.loads(self.event.read_text("utf-8"))
        except (OSError, ValueError):
            raise UsageError("GITHUB_EVENT_PATH names no file of JSON: run this in a job") from None
        return event if isinstance(event, dict) else {}

    def _write(self, number: int, content: dict[str, str]) -> None:
        """Replace the report, or write the first one."""
        comments = f"issues/{number}/comments?per_page=100&page="
        for comment in pages(lambda page: self._ask("GET", f"{comments}{page}")):
            if not is_marked(comment) or of_author(comment, "user", "type") != "Bot":
                continue
            try:
                self._ask("PATCH", f"issues/comments/{comment['id']}", content)
            except ApiError as error:
                # That of another bot, which had the same words. A token that may not write at all
                # is told so below.
                if error.status not in (403, 404):
                    raise
            else:
                return
        self._ask("POST", f"issues/{number}/comments", content)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        return ask(method, f"{self.url}/{path}", headers, body)


def _is_fork(request: dict[str, Any]) -> bool:
    """Tell whether a pull request comes from another repository, be it deleted since."""
    ends = (request.get(end) or {} for end in ("head", "base"))
    head, base = ((end.get("repo") or {}).get("full_name") for end in ends)
    return bool(request) and head != base


def opened() -> Github | None:
    return Github(dict(os.environ)) if os.environ.get("GITHUB_ACTIONS") == "true" else None
