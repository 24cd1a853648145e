"""GitHub, and its Enterprise Server. API: https://docs.github.com/rest.

Gitea and Forgejo run the same workflows, with the same variables.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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

# "Body is too long (maximum is 65536 characters)", says the API; in bytes it is shorter, if at all.
MAX_COMMENT_BYTES = 65_536


class Github:
    """See `Platform`. The token of a job is in GITHUB_TOKEN, where the workflow puts it."""

    name = "GitHub"

    def __init__(self, env: dict[str, str]):
        self.workspace = Path(env.get("GITHUB_WORKSPACE", "."))
        self.token = env.get("GITHUB_TOKEN", "")
        self.user = env.get("GITHUB_ACTOR", "")
        self.repository = variable(env, "GITHUB_REPOSITORY")
        self.url = f"{env.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{self.repository}"
        self.event = Path(env.get("GITHUB_EVENT_PATH", ""))
        self.results = env.get("ML_JOBS") or "{}"
        self.server = env.get("GITHUB_SERVER_URL") or "https://github.com"
        # Gitea's runner sets the first; Forgejo's, which descends from it, either of them.
        names = ("GITEA_ACTIONS", "FORGEJO_ACTIONS")
        self.is_gitea = any(env.get(name, "").lower() == "true" for name in names)

    def registry_prefix(self) -> str:
        return f"{self._registry()}/{self.repository}".lower()

    def _registry(self) -> str:
        """Return the container registry of the server that runs this job, never that of another.

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
            return "this is not a pull request"
        pull_request = event.get("pull_request") or {}
        try:
            self._write(int(number), {"body": render_comment(text, tail, MAX_COMMENT_BYTES)})
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            if "locked" in error.reason.lower() or pull_request.get("locked"):
                return "the conversation of the pull request is locked: the job's summary has it"
            if _is_fork(pull_request):
                return "the pull request is from a fork, whose jobs may not write comments"
            raise
        return None

    def train(self) -> None:
        self._call("POST", "dispatches", {"event_type": "train"})

    def notice(self, text: str) -> None:
        # https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts
        data = visible(text, keep="\r\n").replace("%", "%25").replace("\r", "%0D")
        runner_log.command(f"::notice::{data}".replace("\n", "%0A"))

    def _event(self) -> dict[str, Any]:
        """Return the event that started the workflow."""
        try:
            event = json.loads(self.event.read_text("utf-8"))
        except (OSError, ValueError):
            raise UsageError(
                "GITHUB_EVENT_PATH does not name a JSON file: run this in a job"
            ) from None
        return event if isinstance(event, dict) else {}

    def _write(self, number: int, content: dict[str, str]) -> None:
        """Replace the report, or write the first one."""
        comments = f"issues/{number}/comments?per_page=100&page="
        for comment in pages(lambda page: self._call("GET", f"{comments}{page}")):
            if not is_marked(comment) or author_field(comment, "user", "type") != "Bot":
                continue
            try:
                self._call("PATCH", f"issues/comments/{comment['id']}", content)
            except ApiError as error:
                # The comment is another bot's, with the same words. A token that may not write at
                # all is refused below.
                if error.status not in (403, 404):
                    raise
            else:
                return
        self._call("POST", f"issues/{number}/comments", content)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        return call_api(method, f"{self.url}/{path}", headers, body)


def _is_fork(pull_request: dict[str, Any]) -> bool:
    """Check whether a pull request comes from another repository, even one deleted since."""
    names = []
    for end in ("head", "base"):
        repository = (pull_request.get(end) or {}).get("repo") or {}
        names.append(repository.get("full_name"))
    return bool(pull_request) and names[0] != names[1]


def detect() -> Github | None:
    """Return the platform, if this process is one of its jobs."""
    return Github(dict(os.environ)) if os.environ.get("GITHUB_ACTIONS") == "true" else None
