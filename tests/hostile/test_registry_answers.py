"""A registry that is busy, slow, immutable or hostile: bounds, reasons, and no upload sent anew."""

from __future__ import annotations

import email.utils
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rung_runtime import UsageError
from standins import mlflow_models
from standins.registry import Registry, Request, Response, error, serving, sha
from test_registry import FACTS, package

Import = Callable[[str], ModuleType]
NAME = "team/models"


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Serve a registry whose answers a test chooses."""
    with serving(Registry()) as served:
        yield served


@pytest.fixture
def slept() -> list[float]:
    """The seconds that ours would have waited."""
    return []


@pytest.fixture
def client(
    module: Import, slept: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Import the client; it does not sleep."""
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    imported = module("oci_client")
    for part in (imported.connection, imported.remote):
        monkeypatch.setattr(part, "sleep", slept.append)
    return imported


@pytest.fixture
def remote(client: ModuleType, registry: Registry) -> Any:
    """Open it."""
    return client.Remote(f"oci+http://{registry.address}/{NAME}")


# --- busy ------------------------------------------------------------------------------------


def busy(after: str | None, times: int = 99) -> Callable[[Request], Response | None]:
    """Refuse so many requests with 429."""
    left = itertools.count()
    more = {} if after is None else {"Retry-After": after}

    def answer(_: Request) -> Response | None:
        if next(left) < times:
            return error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit", **more)
        return None

    return answer


@pytest.mark.parametrize(("after", "seconds"), [("7", 7.0), ("0", 0.0), (None, 0.5), ("x", 0.5)])
def test_who_is_asked_to_wait_waits(
    registry: Registry, remote: Any, slept: list[float], after: str | None, seconds: float
) -> None:
    registry.answers = busy(after, times=1)
    assert remote.tags() == []
    assert slept == [seconds]


def test_a_date_to_wait_for_is_understood(
    registry: Registry, remote: Any, slept: list[float]
) -> None:
    registry.answers = busy(email.utils.formatdate(time.time() + 9, usegmt=True), times=1)
    assert remote.tags() == []
    assert 5 < slept[0] < 10
    registry.answers = busy("Thu, 01 Jan 1970 00:00:00 GMT", times=1)
    assert remote.tags() == []
    assert slept[1:] == [0.0]


@pytest.mark.parametrize("after", ["3600", "999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_who_is_asked_to_wait_too_long_says_so_at_once(
    registry: Registry, remote: Any, client: ModuleType, slept: list[float], after: str
) -> None:
    registry.answers = busy(after)
    with pytest.raises(UsageError, match=r"429 .*: You have reached .*: try in \d+ s"):
        remote.tags()
    assert (len(registry.requests), slept) == (1, [])


@pytest.mark.parametrize("after", ["1e9", "-1", "\u0661", "nan", "", "9" * 99, "Mon, 99 Foo"])
def test_a_time_to_wait_that_is_none_is_ours(
    registry: Registry, remote: Any, client: ModuleType, slept: list[float], after: str
) -> None:
    value = after.encode("utf-8").decode("latin-1")
    registry.answers = busy(value)
    with pytest.raises(UsageError, match="pull rate limit"):
        remote.tags()
    assert len(registry.requests) == 1 + client.limits.RETRIES
    assert slept == [0.5, 1.0, 2.0]


# --- slow ------------------------------------------------------------------------------------


def late(registry: Registry, *, commits: bool, part: str) -> threading.Event:
    """Answer uploads only when the test is over, whether they were taken or not."""
    over = threading.Event()

    def answer(request: Request) -> Response | None:
        if request.method != "PUT" or part not in request.path:
            return None
        if commits:
            registry.answers = lambda _: None
            registry.answer(request)
            registry.requests.pop()
            registry.answers = answer
        over.wait(30)
        return Response(201)

    registry.answers = answer
    return over


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("commits", [True, False], ids=["taken", "not taken"])
def test_an_upload_that_is_answered_late_is_sent_once(
    registry: Registry, remote: Any, client: ModuleType, monkeypatch: pytest.MonkeyPatch,
    part: str, commits: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(client.limits, "COMMIT", 0.3)
    over = late(registry, commits=commits, part=part)

    def act() -> None:
        if part == "/blobs/":
            remote.put(b"content")
        else:
            remote.tag("champion", b"{}", "")

    try:
        if commits:
            act()
        else:
            with pytest.raises(UsageError, match=r"has not confirmed|does not answer"):
                act()
    finally:
        over.set()
    assert registry.count("PUT", part) == 1


def test_an_upload_whose_connection_breaks_is_sent_three_times_at_most(
    registry: Registry, remote: Any, client: ModuleType
) -> None:
    def breaks(request: Request) -> Response | None:
        if request.method == "PUT":
            raise OSError
        return None

    registry.answers = breaks
    with pytest.raises(UsageError, match="does not answer"):
        remote.put(b"content")
    assert registry.count("PUT") == 3


def test_time_limits_grow_with_size(
    registry: Registry, remote: Any, client: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seconds: list[float] = []
    exchange = remote._exchange

    def watched(method: str, *args: Any) -> Any:
        if method == "PUT":
            seconds.append(args[-2])
        return exchange(method, *args)

    remote._exchange = watched
    for size in (10, 10_000_000):
        remote.put(b"x" * size)
    assert seconds[1] >= seconds[0] + 90
    # What arrives slowly and steadily arrives.
    monkeypatch.setattr(client.limits, "ANSWER", 0.4)
    monkeypatch.setattr(client.limits, "RATE", 4.0)

    def steadily() -> Iterator[bytes]:
        for _ in range(9):
            time.sleep(0.1)
            yield b"x"

    registry.answers = lambda _: Response(200, {}, steadily())
    digest = sha(b"x" * 9)
    assert remote.download(digest, 9, tmp_path / "out") == digest


def test_a_file_that_is_said_to_be_huge_gets_no_more_time(
    registry: Registry, remote: Any, client: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(client.limits, "ANSWER", 0.3)
    monkeypatch.setattr(client.limits, "RETRIES", 0)
    registry.answers = lambda _: Response(200, {}, drips())
    for size, reason in ((10**9, "not done in time"), (10**15, "too many")):
        with pytest.raises(UsageError, match=reason):
            remote.download("sha256:" + "0" * 64, size, tmp_path / "out")
    assert len(registry.requests) == 1


def drips() -> Iterator[bytes]:
    """Send a byte now and then, without an end."""
    while True:
        time.sleep(0.05)
        yield b" "


HEADS = ["body", "chunks", "headers", "status"]


@pytest.mark.parametrize("where", HEADS)
def test_an_answer_that_drips_ends(
    client: ModuleType, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """By a clock of our own: a socket's timeout begins anew with each byte."""
    import socket

    monkeypatch.setattr(client.limits, "ANSWER", 0.3)
    monkeypatch.setattr(client.limits, "CONNECT", 0.3)
    monkeypatch.setattr(client.limits, "RETRIES", 1)
    head = {
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0",
        "headers": b"HTTP/1.1 200 OK\r\nX-Long: ",
        "status": b"HTTP/1.1 200 ",
    }[where]
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(peer,), daemon=True).start()

        def talk(peer: socket.socket) -> None:
            try:
                peer.recv(2**16)
                peer.sendall(head)
                while not over.wait(0.05):
                    peer.sendall(b"0")
            except OSError:
                pass
            peer.close()

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        try:
            with pytest.raises(UsageError, match="does not answer: it is not done in time"):
                client.Remote(f"oci+http://127.0.0.1:{port}/{NAME}").tags()
        finally:
            over.set()


# --- large, endless --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["tags/list", "manifests/champion", "blobs/sha256", "error"])
def test_a_body_without_an_end_is_not_read(
    registry: Registry, remote: Any, client: ModuleType, tmp_path: Path, part: str
) -> None:
    sent = itertools.count()
    block = b" " * 2**18

    def endless() -> Iterator[bytes]:
        while next(sent) < 4_000:  # 1 GB
            yield block

    status = 400 if part == "error" else 200
    registry.answers = lambda _: Response(status, {}, endless())
    acts = {
        "tags/list": remote.tags,
        "manifests/champion": lambda: remote.manifest("champion"),
        "blobs/sha256": lambda: remote.download("sha256:" + "0" * 64, 9, tmp_path / "out"),
        "error": lambda: remote.put(b"content"),
    }
    with pytest.raises(UsageError, match=r"more than \d+ bytes|answers 400") as refused:
        acts[part]()
    assert len(str(refused.value)) < 1_000
    assert len(registry.requests) == 1
    assert next(sent) < 400  # what the system's buffers take


def paged(link: str) -> Callable[[Request], Response | None]:
    """Answer each page of tags with a next one."""
    count = itertools.count()

    def answer(_: Request) -> Response:
        return Response(200, {"Link": link.format(next(count))}, b'{"tags": ["a"]}')

    return answer


@pytest.mark.parametrize(
    "link",
    [
        f'</v2/{NAME}/tags/list?n=1000>; rel="next"',
        f'</v2/{NAME}/tags/list?last={{}}>; rel="next"',
        f'<http://[/v2/{NAME}/tags/list?last={{}}>; rel="next"',
        '<?last={}>; rel="next"',
        '</etc/passwd>; rel="next"',
        '<https://other.test/x>; rel="next"',
    ],
)
def test_pages_of_tags_end(
    registry: Registry, remote: Any, client: ModuleType, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setattr(client.limits, "MAX_PAGES", 5)
    registry.answers = paged(link)
    try:
        assert remote.tags() == ["a"]
    except UsageError as refused:
        assert "list of tags" in str(refused)  # noqa: PT017
    assert len(registry.requests) <= 5


def test_many_pages_that_end_are_read(registry: Registry, remote: Any) -> None:
    for n in range(2_345):
        registry.manifests[NAME, f"v{n}"] = b"{}"
    assert len(remote.tags()) == 2_345
    assert len(registry.requests) == 3


def test_a_registry_with_a_smaller_page_is_asked_for_what_it_gives(
    registry: Registry, remote: Any
) -> None:
    registry.manifests[NAME, "v1"] = b"{}"

    def answer(request: Request) -> Response | None:
        small = "n=1000" in request.path
        return error(400, "PAGINATION_NUMBER_INVALID", "n is too large") if small else None

    registry.answers = answer
    assert remote.tags() == ["v1"]


LISTS = [
    b"",
    b"[]",
    b"null",
    b"{",
    b'{"tags": 7}',
    b'{"tags": {}}',
    b'{"tags": "abc"}',
    b"[" * 99_999,
]


@pytest.mark.parametrize("body", LISTS, ids=lambda body: body[:12].decode())
def test_a_list_of_tags_that_is_none_is_a_sentence(
    registry: Registry, remote: Any, client: ModuleType, body: bytes
) -> None:
    registry.answers = lambda _: Response(200, {}, body)
    with pytest.raises(UsageError, match="list of tags is malformed"):
        remote.tags()


def test_tags_that_are_none_are_left_out(registry: Registry, remote: Any) -> None:
    odd: list[Any] = [None, 7, {}, "", "..", "../x", "a/b", "a b", "\0", "x" * 129, "ok", "ok"]
    registry.answers = lambda _: Response(200, {}, json.dumps({"tags": odd}).encode())
    assert remote.tags() == ["ok"]
    registry.answers = lambda _: Response(200, {}, b'{"tags": null}')
    assert remote.tags() == []


def test_redirects_end(registry: Registry, remote: Any, client: ModuleType) -> None:
    count = itertools.count()
    registry.answers = lambda _: Response(307, {"Location": f"/v2/{next(count)}"})
    with pytest.raises(UsageError, match="redirects without an end"):
        remote.tags()
    assert len(registry.requests) <= client.limits.MAX_REDIRECTS + 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x?y", "champion\n", "sha256:0", "\0"])
def test_a_name_that_is_none_is_not_asked_for(registry: Registry, remote: Any, name: str) -> None:
    assert remote.manifest(name) is None
    assert registry.requests == []


# --- reasons ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "TAG_INVALID", "The image tag 'champion' already exists and cannot be overwritten"),
        (
            412,
            "PRECONDITION",
            "Failed to process request due to 'champion' configured as immutable",
        ),
        (409, "TAG_IMMUTABLE", "tag is immutable"),
    ],
)
def test_a_tag_that_may_not_move_is_told_with_the_reason(
    registry: Registry, remote: Any, client: ModuleType, status: int, code: str, message: str
) -> None:
    registry.answers = lambda r: error(status, code, message) if r.method == "PUT" else None
    with pytest.raises(UsageError, match="must be free to move") as refused:
        remote.tag("champion", b"{}", "")
    assert f"{code}: {message}" in str(refused.value)
    assert registry.count("PUT") == 1


BODIES = [
    (b"", ""), (b"\0\x1b[31m::error::x\nnext", "::error::x next"), (b"<html>" + b"x" * 9_999, ""),
    (b"[]", ""), (b"null", ""), (b'{"errors": null}', ""), (b'{"errors": [7]}', ""),
    (b'{"errors": [{"message": ["a"]}]}', '["a"]'), (b'{"errors": {"a": 1}}', ""),
    (b"\xff" * 9_999, ""), (b"[" * 60_000, ""), (b'{"message": "in words"}', "in words"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "reason"), BODIES, ids=lambda x: str(x)[:20])
def test_a_reason_is_one_line_whatever_was_sent(
    registry: Registry, remote: Any, client: ModuleType, body: bytes, reason: str
) -> None:
    kind = "text/html" if body.startswith(b"<") else "text/plain"
    registry.answers = lambda _: Response(418, {"Content-Type": kind}, body)
    with pytest.raises(UsageError, match="answers 418") as refused:
        remote.tags()
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 500
    assert reason in message


@pytest.mark.parametrize(
    "answer",
    [
        Response(202), Response(202, {"Location": ""}), Response(202, {"Location": "http://["}),
        Response(202, {"Location": "ftp://127.0.0.1/x"}), Response(200), Response(404),
        Response(202, {"Location": "http://127.0.0.1:99999/x"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.headers}",
)  # fmt: skip
def test_an_upload_that_is_not_opened_is_a_sentence(
    registry: Registry, remote: Any, client: ModuleType, answer: Response
) -> None:
    registry.answers = lambda request: answer if request.method == "POST" else None
    with pytest.raises(UsageError) as refused:
        remote.put(b"content")
    assert str(refused.value).isprintable()
    assert registry.count("PUT") == 0


# --- how many requests -----------------------------------------------------------------------

CHAMPIONS = 10


def named(about: dict[str, Any], count: int) -> list[tuple[str, str]]:
    """Return the names and digests of so many versions, of which the first is a package."""
    versions = [(about["version"], about["package_digest"])]
    for n in range(count - 1):
        name = f"20250101-{n:06}-{n:08x}"
        versions.append((name, sha(name.encode())))
    return versions


def compared_with(versions: list[tuple[str, str]], n: int) -> str:
    """Return what a version was compared with: ten come one after the other, then all others."""
    return versions[min(n, CHAMPIONS) - 1][1] if n else "first"


def filled(registry: Registry, where: ModuleType, path: Path, count: int) -> list[tuple[str, str]]:
    """Fill a registry with so many versions, of which one package was pushed."""
    about = package(path / f"package of {count}", 1)
    opened = where.open_registry()
    opened.push(path / f"package of {count}", about, FACTS | {"compared_with": "first"})
    whole = registry.manifests[NAME, about["version"]].decode()
    versions = named(about, count)
    for n, (name, digest) in enumerate(versions[1:], 1):
        other = whole.replace(about["version"], name).replace(about["package_digest"], digest)
        other = other.replace('"first"', f'"{compared_with(versions, n)}"')
        registry.manifests[NAME, name] = registry.manifests[NAME, sha(other.encode())] = (
            other.encode()
        )
    return versions


def commands(where: ModuleType, versions: list[tuple[str, str]]) -> dict[str, Callable[[], object]]:
    """Return what asks a registry, in this order; the first version is the champion in the end."""
    names = [name for name, _ in versions]
    first = names[0]
    last = names[CHAMPIONS - 1]
    before = names[CHAMPIONS - 2]
    acts: dict[str, Callable[[], object]] = {
        "find": where.find,
        "find a part": lambda: where.find(first[-8:]),
        "find nothing": lambda: where.find("20"),
        "promote": lambda: where.promote(first),
        "champion": where.current_champion,
    }
    for name in names[1:CHAMPIONS]:
        acts[f"promote {name}"] = partial(where.promote, name)
    return acts | {
        "promote another": lambda: where.promote(names[-1]),
        "rollback": lambda: expect(where.rollback(), names[-1], last),
        "rollback by reference": lambda: expect(
            where.rollback("@".join(versions[CHAMPIONS - 2])), last, before
        ),
        "promote again": lambda: where.promote(last),
        "rollback over ten champions": lambda: expect(where.rollback(first), last, first),
        "models": where.print_versions,
    }


def expect(change: tuple[str, str], before: str, after: str) -> None:
    """See that a rollback went from one version to another."""
    assert change == (before, after)


def cost(acts: dict[str, Callable[[], object]], requests: list[Any]) -> dict[str, list[Any]]:
    """Run commands, and return the requests that each of them sends."""
    costs = {}
    for name, act in acts.items():
        requests.clear()
        try:
            act()
        except UsageError as refused:
            assert "part of" in str(refused)  # noqa: PT017
        costs[name] = list(requests)
    return costs


@pytest.fixture
def where(
    client: ModuleType, module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return the module of registries, in a project whose lease costs the same each time."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("{}")
    free = nullcontext(lambda: None)  # else it costs more where the machine is busy
    for adapter in ("registry_oci.registry", "registry_mlflow"):
        monkeypatch.setattr(module(f"adapters.{adapter}"), "lease", lambda _: free)
    return module("registry")


def test_a_command_costs_the_same_however_many_versions_there_are(
    where: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    costs: dict[int, dict[str, int]] = {}
    for count in (30, 300):
        with serving(Registry()) as registry:
            monkeypatch.setenv("ML_REGISTRY", f"oci+http://{registry.address}/{NAME}")
            versions = filled(registry, where, tmp_path, count)
            first = versions[0][0]
            acts = commands(where, versions)
            acts["fetch"] = partial(where.open_registry().fetch, first, tmp_path / "out")
            costs[count] = {name: len(sent) for name, sent in cost(acts, registry.requests).items()}
            listed = capsys.readouterr().out.splitlines()
            assert len(listed) == count
            has_facts = [line.split()[0] for line in listed if "roc_auc" in line]
            assert len(has_facts) == where.NEWEST
            assert [line.split()[0] for line in listed if "champion" in line] == [first]
    print(costs)
    assert costs[30] == costs[300]
    assert max(costs[300].values()) < 40


@pytest.mark.slow  # imports MLflow
def test_with_mlflow_only_further_pages_of_versions_cost_more(
    where: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\nregistry = "mlflow"\n')
    monkeypatch.setenv("ML_REGISTRY", "models")
    about = package(tmp_path / "package", 1)
    costs = []
    for count, page in ((30, 1_000), (300, 1_000), (300, 100)):
        with mlflow_models.serving(mlflow_models.Models(page)) as server:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
            versions = named(about, count)
            for n, (name, digest) in enumerate(versions):
                facts = FACTS | {"compared_with": compared_with(versions, n)}
                tags = {key: about[key] for key in ("created", "model_digest")}
                tags |= {"version": name, "package_digest": digest}
                server.add("models", tags | facts)
            costs.append(cost(commands(where, versions), server.requests))
            assert len(capsys.readouterr().out.splitlines()) == count
    few, many, paged = costs
    counts = {name: len(requests) for name, requests in few.items()}
    print(counts)
    assert counts == {name: len(requests) for name, requests in many.items()}
    assert max(counts.values()) < 40
    for name, requests in paged.items():
        searches = [fields for _, path, fields in requests if path == "model-versions/search"]
        further = [fields for fields in searches if "page_token" in fields]
        assert len(further) * 3 == len(searches) * 2, name  # each search has three pages
        assert len(requests) - len(further) == counts[name], name
