"""The comment of a request, whatever the API answers and whoever else writes there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hosts.api import ACCESS, TOKEN, Api, Comment
from hosts.jobs import api, runner
from rung_runtime import UsageError

__all__ = ["api", "runner"]
Import = Callable[[str], ModuleType]
Runner = Callable[..., None]
names = pytest.mark.parametrize("name", ["github", "gitlab"])
OF = {"github": "Team/Project/pull/1", "gitlab": "1/merge_requests/1"}
LONGEST = {"github": 65_536, "gitlab": 1_000_000}


@pytest.fixture
def forge(module: Import) -> ModuleType:
    return module("ci_platform")


@names
@pytest.mark.parametrize("letter", ["a", "ü", "❌", "𝄞"])
def test_a_report_that_is_too_long_keeps_its_verdict_and_the_jobs(
    name: str, letter: str, runner: Runner, forge: ModuleType, api: Api
) -> None:
    runner(name)
    line = letter * 90 + "\n"
    tail = "\n## Jobs\n\n| `candidate` | ❌ failure |\n"
    for lines in (10, 30_000):
        text = f"# Predicting `late`\n\n❌ The gate refused this model.\n\n{line * lines}"
        assert forge.require_platform().comment(text, tail) is None
        (comment,) = api.comments
        assert comment.startswith(f"{forge.MARK}\n# Predicting `late`\n\n❌ The gate refused")
        assert comment.endswith(tail)
        assert len(comment.encode()) <= LONGEST[name]
        assert ("The rest is cut" in comment) == (lines == 30_000)
        assert all(part == line.strip() for part in comment.splitlines() if letter * 2 in part)


def test_a_tail_that_is_too_long_is_cut_as_well(module: Import) -> None:
    fit = module("escaping").fit
    for text, tail in (
        ("v\n" * 10, "t\n" * 9_000),
        ("v\n" * 9_000, "t\n" * 9_000),
        ("v" * 9_000, ""),
    ):
        whole = fit(text, 4_096, tail)
        assert whole.startswith("v")
        assert len(whole.encode()) <= 4_096


@names
@pytest.mark.parametrize(
    "odd",
    [
        {"body": None, "user": None, "author": None},
        {"body": None},
        {"user": None, "author": None},
        {"user": "ghost", "author": "ghost"},
        {"id": None},
        None,
        "text",
    ],
)
def test_comments_of_those_who_are_gone_are_read_over(
    name: str, odd: Any, runner: Runner, forge: ModuleType, api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runner(name)
    paged = api.paged

    def with_odd(thread: str, call: Any) -> list[Any]:
        marked = {"id": 77, "body": f"{forge.MARK}\nforged", "user": {}, "author": {}}
        first = [marked | odd if isinstance(odd, dict) else odd]
        return (
            [*first, *paged(thread, call)] if call.query.get("page") == "1" else paged(thread, call)
        )

    monkeypatch.setattr(api, "paged", with_odd)
    for text in ("refused", "passed"):
        assert forge.require_platform().comment(text) is None
    assert api.comments == [f"{forge.MARK}\npassed"]


def test_another_bot_that_took_our_first_words_does_not_silence_us(
    runner: Runner, forge: ModuleType, api: Api
) -> None:
    runner("github")
    api.notes.append(Comment(1, OF["github"], f"{forge.MARK}\nall is well", another=True))
    for text in ("refused", "refused again"):
        assert forge.require_platform().comment(text) is None
    assert api.comments == [f"{forge.MARK}\nall is well", f"{forge.MARK}\nrefused again"]


@names
def test_a_locked_conversation_is_a_sentence_and_no_failure(
    name: str, runner: Runner, forge: ModuleType, api: Api
) -> None:
    runner(name)
    api.locked = True
    assert "locked" in forge.require_platform().comment("passed")
    assert api.comments == []


def event(tmp_path: Path, head: dict[str, Any] | None) -> None:
    base = {"repo": {"full_name": "Team/Project"}}
    request = {"head": head, "base": base, "locked": False}
    (tmp_path / "event.json").write_text(json.dumps({"number": 1, "pull_request": request}))


@pytest.mark.parametrize("head", [{"repo": {"full_name": "fork/Project"}}, {"repo": None}, None])
def test_a_fork_on_github_is_a_sentence_and_no_failure(
    head: dict[str, Any] | None, runner: Runner, forge: ModuleType, api: Api, tmp_path: Path
) -> None:
    runner("github")
    api.may_write = False
    event(tmp_path, head)
    assert "fork" in forge.require_platform().comment("passed")
    event(tmp_path, {"repo": {"full_name": "Team/Project"}})
    with pytest.raises(UsageError, match="not accessible by integration"):
        forge.require_platform().comment("passed")


def test_a_request_of_a_fork_on_gitlab_has_its_notes_where_it_would_be_merged(
    runner: Runner, forge: ModuleType, api: Api
) -> None:
    fork = {
        "CI_PROJECT_ID": "2",
        "CI_MERGE_REQUEST_PROJECT_ID": "1",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2",
    }
    runner("gitlab", **fork)
    assert forge.require_platform().comment("passed") is None
    assert [note.thread for note in api.notes] == ["1/merge_requests/1"]
    for token in ("", "the fork's own"):
        runner("gitlab", GITLAB_TOKEN=token, **fork)
        assert "fork" in forge.require_platform().comment("passed")
        assert forge.require_platform().jobs() == {}


@names
def test_pages_without_an_end_end(
    name: str, runner: Runner, forge: ModuleType, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(name)
    page = [Comment(n, OF[name], "chatter", human=True).shown() for n in range(1, 101)]
    monkeypatch.setattr(api, "paged", lambda thread, call: page)
    assert forge.require_platform().comment("passed") is None
    assert len(api.calls) <= forge.api.MAX_PAGES + 5


@names
@pytest.mark.parametrize("answer", [{"message": "an object"}, "text", 7, b"<html>", b"[" * 100_000])
def test_an_answer_that_is_no_list_is_a_sentence(
    name: str, answer: Any, runner: Runner, forge: ModuleType, api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runner(name)
    monkeypatch.setattr(api, "paged", lambda thread, call: answer)
    with pytest.raises(UsageError):
        forge.require_platform().comment("passed")


@pytest.mark.parametrize("answer", [[], {"id": []}, "text", 7, None, [{"id": 1}], [7], [{}]])
def test_odd_answers_of_gitlab_about_jobs_and_users_are_no_bug(
    answer: Any, runner: Runner, forge: ModuleType, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner("gitlab")
    monkeypatch.setenv("CI_PIPELINE_ID", "7")
    monkeypatch.setattr(api, "answer", lambda *_: (200, answer))
    platform = forge.require_platform()
    for ask in (platform.jobs, partial(platform.comment, "passed")):
        with suppress(UsageError):
            assert ask() in ({}, None)


def test_a_job_of_gitlab_whose_status_is_odd_is_left_out(
    runner: Runner, forge: ModuleType, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner("gitlab")
    monkeypatch.setenv("CI_PIPELINE_ID", "7")
    jobs = [{"name": "train", "status": "failed"}, {"name": "a", "status": []}, {"name": "b"}, 7]
    monkeypatch.setattr(api, "answer", lambda *_: (200, jobs))
    assert forge.require_platform().jobs() == {"train": "failure"}


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[str]]]:
    """Serve an answer to whatever is asked: the port, and what was sent."""
    sent: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent.append(f"{self.command} {self.path}\n{self.headers}\n{body.decode()}")
            answer(self)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_PATCH = take  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_port, sent
    finally:
        server.shutdown()
        server.server_close()


ACTS: dict[str, Callable[[Any], object]] = {
    "comment": lambda platform: platform.comment("passed"),  # its first request is a GET
    "train": lambda platform: platform.train(),  # a POST, on GitLab with the token in its body
}
TOKENS = {
    ("github", "comment"): TOKEN,
    ("github", "train"): TOKEN,
    ("gitlab", "comment"): ACCESS,
    ("gitlab", "train"): TOKEN,
}


@names
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_does_not_follow_a_redirect_to_another_host(
    status: int, act: str, name: str, runner: Runner, forge: ModuleType
) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", f"http://127.0.0.1:{thief}{handler.path}")

    with (
        server(lambda handler: handler.send_response(200)) as (thief, stolen),
        server(redirect) as (
            port,
            sent,
        ),
    ):
        url = f"http://127.0.0.1:{port}"
        runner(name, GITHUB_API_URL=url, CI_API_V4_URL=url)
        with pytest.raises(UsageError, match=f"answers {status}"):
            ACTS[act](forge.require_platform())
        assert TOKENS[name, act] in sent[0]
        assert sent[0].startswith("POST" if act == "train" else "GET")
    assert stolen == []


@names
@pytest.mark.parametrize("act", ACTS)
def test_a_token_of_a_job_does_not_travel_in_clear(
    act: str, name: str, runner: Runner, forge: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "git.test" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.delenv("ML_PLAIN_HTTP", raising=False)
    with server(lambda handler: handler.send_response(418)) as (port, sent):
        url = f"http://git.test:{port}"
        runner(name, GITHUB_API_URL=url, CI_API_V4_URL=url)
        with pytest.raises(
            UsageError, match=r"tokens are sent encrypted only: use https://git\.test"
        ):
            ACTS[act](forge.require_platform())
        assert sent == []
        monkeypatch.setenv("ML_PLAIN_HTTP", "git.test")
        with pytest.raises(UsageError, match="answers 418"):
            ACTS[act](forge.require_platform())
        assert TOKENS[name, act] in sent[0]


@names
def test_what_an_api_answers_cannot_write_lines_of_the_log(
    name: str, runner: Runner, forge: ModuleType, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(name)

    def refuses(*_: Any) -> tuple[int, Any]:
        return 422, {"message": "no\n::error::owned\x1b[8m" + "x" * 10_000}

    monkeypatch.setattr(api, "answer", refuses)
    with pytest.raises(UsageError, match="answers 422") as error:
        forge.require_platform().comment("passed")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1_000


@names
def test_a_job_without_its_variables_is_a_sentence(
    name: str, runner: Runner, forge: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner(name)
    variables = {
        "github": ["GITHUB_REPOSITORY", "GITHUB_EVENT_PATH"],
        "gitlab": ["CI_PROJECT_ID", "CI_PIPELINE_ID"],
    }[name]
    for variable in variables:
        runner(name)
        monkeypatch.delenv(variable)
        with pytest.raises(UsageError, match=variable):
            (forge.require_platform().jobs(), forge.require_platform().comment("passed"))


@pytest.mark.parametrize("jobs", ["[]", "{", '{"a": 1}', '{"a": {}}', "7"])
def test_results_of_jobs_that_are_none_are_a_sentence(
    jobs: str, runner: Runner, forge: ModuleType
) -> None:
    runner("github", ML_JOBS=jobs)
    with pytest.raises(UsageError, match="ML_JOBS"):
        forge.require_platform().jobs()


def test_a_notice_is_one_command_whatever_it_says(
    runner: Runner, forge: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    runner("github")
    forge.require_platform().notice("50% done\n::error::owned\x1b[0m")
    assert capsys.readouterr().out == "::notice::50%25 done%0A::error::owned\\x1b[0m\n"
