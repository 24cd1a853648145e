"""One loopback server for what pipelines ask of GitHub's, GitLab's and OSV's APIs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "token-of-the-job"  # GitHub's GITHUB_TOKEN, GitLab's CI_JOB_TOKEN
ACCESS = "token-of-the-project"  # GitLab's project access token
TRIGGER = "token-of-the-trigger"  # GitLab's pipeline trigger token

Answer = tuple[int, Any]


class RefusedError(Exception):
    """What the API answers when it will not."""

    def __init__(self, status: int, message: str) -> None:
        """Keep the status and the sentence."""
        super().__init__(message)
        self.status = status


@dataclass
class Call:
    """One request, as an answer needs it."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    content: bytes
    tokens: set[str]
    base: str


@dataclass
class Comment:
    """A comment of an issue or a note of a merge request."""

    number: int
    thread: str
    body: str
    edits: int = 0
    human: bool = False
    another: bool = False  # of another bot

    def shown(self) -> dict[str, Any]:
        """As both APIs show it."""
        who: dict[str, Any] = {"login": "github-actions[bot]", "username": "project_bot"}
        who |= {"type": "User", "id": 8} if self.human else {"type": "Bot", "id": 7}
        return {
            "id": self.number,
            "body": self.body,
            "user": who,
            "author": who,
            "system": False,
            "html_url": f"https://example.invalid/{self.thread}#{self.number}",
        }


@dataclass
class Api:
    """The stand-in and what it was told. Tests read the lists, and change what it may.

    It leaves out whatever the kit does not ask for; an unknown path is answered with 404 and kept
    in `unknown`, so that a test sees a request that nobody foresaw.
    """

    visibility: str = "public"
    notes: list[Comment] = field(default_factory=list)
    dispatched: list[dict[str, Any]] = field(default_factory=list)
    schedules: list[dict[str, Any]] = field(default_factory=list)
    may_set_variables: str = "no_one_allowed"  # by name, of a pipeline that they start
    packages: dict[str, bytes] = field(default_factory=dict)
    vulnerable: dict[str, str] = field(default_factory=dict)  # package -> what is known of it
    may_write: bool = True  # a fork's token may not
    locked: bool = False  # the conversation: none but members may write
    jobs: Callable[[], dict[str, str]] = dict  # of GitLab's pipeline that runs now: their status
    unknown: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Serve on a free port of loopback."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = api.answer(self.command, self.path, self.headers, content)
                plain = isinstance(body, bytes)
                data = body if plain else b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                kind = "application/octet-stream" if plain else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Looks that often whether it is to stop, for which each test would wait.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        """Serve already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The root; GitHub's API is here, GitLab's at /api/v4, OSV's at /osv."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def comments(self) -> list[str]:
        """The bodies, in the order in which the comments were made."""
        return [note.body for note in self.notes]

    def answer(
        self, method: str, target: str, headers: Message[str, str], content: bytes
    ) -> Answer:
        """Answer a request: status and body."""
        parts = urlsplit(target)
        authorization = headers.get("Authorization", "").split()
        tokens = {authorization[-1] if authorization else ""}
        for name in ("PRIVATE-TOKEN", "JOB-TOKEN"):
            if headers.get(name):
                tokens.add(f"{name} {headers[name]}")
        path = re.sub(r"^/api/v3(?=/)", "", parts.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        body = read(content, headers.get("Content-Type", ""))
        call = Call(method, path, query, body, content, tokens, self.url)
        with self._lock:
            self.calls.append(f"{method} {path}")
            for verb, pattern, answer in ROUTES:
                if verb == method and (match := re.fullmatch(pattern, path)):
                    try:
                        return answer(self, call, *map(unquote, match.groups()))
                    except RefusedError as refused:
                        return refused.status, {"message": str(refused)}
            self.unknown.append(f"{method} {path}")
            return HTTPStatus.NOT_FOUND, {"message": "404 Not Found"}

    def note(self, number: str) -> Comment:
        """Find a comment."""
        for note in self.notes:
            if note.number == int(number):
                return note
        raise RefusedError(404, "404 Note Not Found")

    # What each request needs of its token.

    def github(self, call: Call, write: bool = False) -> None:
        """A job's token; a fork's may only read."""
        if TOKEN not in call.tokens:
            raise RefusedError(401, "Bad credentials")
        if write and not self.may_write:
            raise RefusedError(403, "Resource not accessible by integration")

    def gitlab(self, call: Call, job: bool = False) -> None:
        """A project's access token; the job's own may do little, and no notes."""
        if f"PRIVATE-TOKEN {ACCESS}" in call.tokens or ACCESS in call.tokens:
            return
        if not (job and f"JOB-TOKEN {TOKEN}" in call.tokens):
            raise RefusedError(401, "401 Unauthorized")

    # GitHub.

    def comment(self, call: Call, repository: str, issue: str) -> Answer:
        """Add a comment to a pull request."""
        self.github(call, write=True)
        if self.locked:
            raise RefusedError(403, "Unable to create comment because issue is locked.")
        fits(call, 65_536, 422, "Body is too long (maximum is 65536 characters)")
        return 201, self.add(f"{repository}/pull/{issue}", call.body)

    def commented(self, call: Call, repository: str, issue: str) -> Answer:
        """List a pull request's comments."""
        self.github(call)
        return 200, self.paged(f"{repository}/pull/{issue}", call)

    def edit(self, call: Call, repository: str, number: str) -> Answer:
        """Change a comment; that of another app is not this one's to change."""
        self.github(call, write=True)
        if self.note(number).another:
            raise RefusedError(403, "Resource not accessible by integration")
        fits(call, 65_536, 422, "Body is too long (maximum is 65536 characters)")
        return 200, self.change(number, call.body)

    def event(self, call: Call, repository: str) -> Answer:
        """Keep a repository_dispatch."""
        self.github(call, write=True)
        if not call.body.get("event_type"):
            raise RefusedError(422, "Invalid request: event_type is missing")
        payload = call.body.get("client_payload", {})
        self.dispatched.append({"kind": call.body["event_type"], "payload": payload})
        return 204, None

    # GitLab.

    def add_note(self, call: Call, project: str, request: str) -> Answer:
        """Add a note to a merge request."""
        self.gitlab(call)
        if self.locked:
            raise RefusedError(403, "403 Forbidden")
        fits(call, 1_000_000, 400, "note is too long (maximum is 1000000 characters)")
        return 201, self.add(f"{project}/merge_requests/{request}", call.body)

    def list_notes(self, call: Call, project: str, request: str) -> Answer:
        """List a merge request's notes."""
        self.gitlab(call)
        return 200, self.paged(f"{project}/merge_requests/{request}", call)

    def edit_note(self, call: Call, project: str, request: str, number: str) -> Answer:
        """Change a note."""
        self.gitlab(call)
        fits(call, 1_000_000, 400, "note is too long (maximum is 1000000 characters)")
        return 200, self.change(number, call.body)

    def trigger(self, call: Call, project: str) -> Answer:
        """Keep a pipeline that a trigger token asks for; it needs no other."""
        if call.body.get("token") not in (TRIGGER, TOKEN):
            raise RefusedError(404, "404 Not Found")
        if not call.body.get("ref"):
            raise RefusedError(400, "ref is missing")
        matches = (re.fullmatch(r"variables\[(\w+)\]", key) for key in call.body)
        payload = {match[1]: call.body[match[0]] for match in matches if match}
        payload |= call.body.get("variables", {})
        # The platform knows no kinds of trigger: one without a name means what the kit's all mean.
        self.dispatched.append({"kind": payload.get("EVENT", "train"), "payload": payload})
        return 201, {"id": len(self.dispatched), "web_url": f"{call.base}/pipelines"}

    def repository(self, call: Call, repository: str) -> Answer:
        """Show GitHub's repository."""
        self.github(call)
        return 200, {"full_name": repository, "visibility": self.visibility}

    def user(self, call: Call) -> Answer:
        """Show whose token it is."""
        self.gitlab(call)
        return 200, Comment(0, "", "").shown()["author"]

    def project(self, call: Call, project: str) -> Answer:
        """Show the project."""
        self.gitlab(call)
        return 200, {
            "id": 1,
            "default_branch": "main",
            "path_with_namespace": unquote(project),
            "ci_pipeline_variables_minimum_override_role": self.may_set_variables,
        }

    def request(self, call: Call, project: str, number: str) -> Answer:
        """Show a merge request."""
        self.gitlab(call)
        return 200, {"iid": int(number), "discussion_locked": self.locked}

    def list_jobs(self, call: Call, project: str, pipeline: str) -> Answer:
        """Show how the jobs of the pipeline are."""
        self.gitlab(call)
        return 200, [{"name": name, "status": status} for name, status in self.jobs().items()]

    def list_schedules(self, call: Call, project: str) -> Answer:
        """List pipeline schedules."""
        self.gitlab(call)
        return 200, self.schedules

    def add_schedule(self, call: Call, project: str) -> Answer:
        """Make a pipeline schedule."""
        self.gitlab(call)
        for key in ("description", "ref", "cron"):
            if not call.body.get(key):
                raise RefusedError(400, f"{key} is missing")
        made = {"id": len(self.schedules) + 1, "active": True, **call.body}
        self.schedules.append(made)
        return 201, made

    def schedule(self, call: Call, project: str, number: str) -> Answer:
        """Show a pipeline schedule, or change it."""
        self.gitlab(call)
        for schedule in self.schedules:
            if schedule["id"] == int(number):
                if call.method == "PUT":
                    schedule |= call.body
                return 200, schedule
        raise RefusedError(404, "404 Pipeline Schedule Not Found")

    def put_package(self, call: Call, project: str, name: str) -> Answer:
        """Keep a file of the generic package registry."""
        self.gitlab(call, job=True)
        self.packages[name] = call.content
        return 201, {"message": "201 Created"}

    def get_package(self, call: Call, project: str, name: str) -> Answer:
        """Give a file of the generic package registry."""
        self.gitlab(call, job=True)
        if name not in self.packages:
            raise RefusedError(404, "404 Package Not Found")
        return 200, self.packages[name]

    # OSV, which `uv audit` asks.

    def vulnerabilities(self, call: Call) -> Answer:
        """Say which of many packages have something known of them."""
        names = [query["package"]["name"] for query in call.body["queries"]]
        known = [[{"id": self.vulnerable[n]}] if n in self.vulnerable else [] for n in names]
        return 200, {"results": [{"vulns": ids} if ids else {} for ids in known]}

    def vulnerability(self, call: Call, identity: str) -> Answer:
        """Show what is known."""
        for name, known in self.vulnerable.items():
            if known == identity:
                when = "2026-01-01T00:00:00Z"
                ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
                package = {"name": name, "ecosystem": "PyPI"}
                return 200, {
                    "id": identity,
                    "summary": f"Something about {name}",
                    "modified": when,
                    "published": when,
                    "affected": [{"package": package, "ranges": ranges}],
                }
        raise RefusedError(404, "Bug not found.")

    # Both.

    def add(self, thread: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add a comment."""
        if not body.get("body"):
            raise RefusedError(422, "Validation Failed: body is missing")
        self.notes.append(Comment(len(self.notes) + 1, thread, body["body"]))
        return self.notes[-1].shown()

    def change(self, number: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change a comment."""
        note = self.note(number)
        note.body = body["body"]
        note.edits = note.edits + 1
        return note.shown()

    def paged(self, thread: str, call: Call) -> list[dict[str, Any]]:
        """Comments of one request, a page of them: thirty or so where nothing else is asked."""
        size = min(int(call.query.get("per_page", 30)), 100)
        start = (int(call.query.get("page", 1)) - 1) * size
        return [note.shown() for note in self.notes if note.thread == thread][start : start + size]


def fits(call: Call, most: int, status: int, message: str) -> None:
    """Refuse a comment that is too long."""
    if len(call.body.get("body", "")) > most:
        raise RefusedError(status, message)


def read(content: bytes, kind: str) -> dict[str, Any]:
    """Read a body that is JSON, a form or the parts of one; else there is nothing to read."""
    if "json" in kind:
        try:
            body = json.loads(content or b"{}")
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}
    text = content.decode("utf-8", "replace")
    if "boundary=" in kind:
        return dict(re.findall(r'name="([^"]+)"\r?\n\r?\n(.*?)\r?\n--', text, re.DOTALL))
    if "urlencoded" in kind:
        return {key: values[-1] for key, values in parse_qs(text).items()}
    return {}


REPOSITORY = r"/repos/([^/]+/[^/]+)"
PROJECT = r"/api/v4/projects/([^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", REPOSITORY, Api.repository),
    ("GET", rf"{REPOSITORY}/issues/(\d+)/comments", Api.commented),
    ("POST", rf"{REPOSITORY}/issues/(\d+)/comments", Api.comment),
    ("PATCH", rf"{REPOSITORY}/issues/comments/(\d+)", Api.edit),
    ("POST", rf"{REPOSITORY}/dispatches", Api.event),
    ("GET", r"/api/v4/user", Api.user),
    ("GET", PROJECT, Api.project),
    ("GET", rf"{PROJECT}/pipelines/(\d+)/jobs", Api.list_jobs),
    ("GET", rf"{PROJECT}/merge_requests/(\d+)", Api.request),
    ("GET", rf"{PROJECT}/merge_requests/(\d+)/notes", Api.list_notes),
    ("POST", rf"{PROJECT}/merge_requests/(\d+)/notes", Api.add_note),
    ("PUT", rf"{PROJECT}/merge_requests/(\d+)/notes/(\d+)", Api.edit_note),
    ("POST", rf"{PROJECT}/trigger/pipeline", Api.trigger),
    ("GET", rf"{PROJECT}/pipeline_schedules", Api.list_schedules),
    ("POST", rf"{PROJECT}/pipeline_schedules", Api.add_schedule),
    ("GET", rf"{PROJECT}/pipeline_schedules/(\d+)", Api.schedule),
    ("PUT", rf"{PROJECT}/pipeline_schedules/(\d+)", Api.schedule),
    ("PUT", rf"{PROJECT}/packages/generic/(.+)", Api.put_package),
    ("GET", rf"{PROJECT}/packages/generic/(.+)", Api.get_package),
    ("POST", r"/osv/v1/querybatch", Api.vulnerabilities),
    ("GET", r"/osv/v1/vulns/([^/]+)", Api.vulnerability),
]
