"""A registry keeps what it was given, whichever adapter keeps it and whatever breaks."""

from __future__ import annotations

import hashlib
import http.client
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Copy, need
from hosts.registry import free_port, serving
from rung_runtime import RefusedError, UsageError
from rung_runtime.records import (
    Champion,
    Compared,
    GateDocument,
    Interval,
    MetricsDocument,
    NotCompared,
    PackageDocument,
)
from rung_runtime.registry import locks, registration
from rung_runtime.testing.registry import RegistryContract

slow = pytest.mark.slow  # no project is installed, but a server or a database is asked
KINDS = ["folder", "remote", "mlflow"]
MARKED = ["folder", pytest.param("remote", marks=slow), pytest.param("mlflow", marks=slow)]
kinds = pytest.mark.parametrize("kind", MARKED)
FACTS = {
    "commit": "c0ffee",
    "data_digest": "sha256:0123456789",
    "metric": "roc_auc",
    "value": "0.75",
    "low": "0.74",
    "high": "0.76",
    "verdict": "passed",
}


# --- a place with a registry -----------------------------------------------------------------


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def package(folder: Path, n: int) -> dict[str, Any]:
    """A package as a registry sees it: files, and a manifest that names them."""
    files = {
        "contract.json": b'{"task": "binary"}',
        "gate.json": b"{}",
        "model.skops": b"model %d " % n * 1_000,
        "problem/features.py": b"x = %d\n" % n,
    }
    (folder / "problem").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: sha(content) for name, content in files.items()}
    whole = sha(json.dumps(digests, sort_keys=True).encode())
    manifest = {
        "version": f"20260101-12000{n}-{whole[7:15]}",
        "created": f"2026-01-01T12:00:0{n}.000+00:00",
        "package_digest": whole,
        "model_digest": digests["model.skops"],
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


@dataclass
class Place:
    """A project's folder, of which the registry is all that there is."""

    path: Path
    kind: str
    registry: ModuleType
    where: str
    storage: Path
    manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def adapter(self) -> ModuleType:
        adapter = "mlflow" if self.kind == "mlflow" else "oci"
        return importlib.import_module(f"rung_runtime.adapters.registry_{adapter}")

    @property
    def client(self) -> ModuleType:
        return importlib.import_module("rung_runtime.oci_client")

    def configure(self, where: str) -> None:
        """Configure where the registry is."""
        project = importlib.import_module("rung_runtime.project")
        adapter = "mlflow" if self.kind == "mlflow" else "oci"
        (self.path / "pyproject.toml").write_text(f'[tool.rung]\nregistry = "{adapter}"\n')
        project._read.cache_clear()
        (self.path / "config").mkdir(exist_ok=True)
        (self.path / "config/delivery.yaml").write_text(json.dumps({"registry": where}))

    def push(self, n: int, compared_with: str = "first") -> str:
        """Push package n; its version."""
        folder = self.path / f"package-{n}"
        manifest = (
            json.loads((folder / "manifest.json").read_text())
            if folder.exists()
            else package(folder, n)
        )
        facts = FACTS | {"compared_with": compared_with}
        self.registry.open_registry().push(folder, manifest, facts)
        return str(manifest["version"])

    def digest(self, n: int) -> str:
        manifest = json.loads((self.path / f"package-{n}/manifest.json").read_text())
        return str(manifest["package_digest"])

    def names(self) -> list[str]:
        return [entry.version for entry in self.registry.open_registry().versions()]

    def serves(self, version: str, like: int) -> None:
        """The champion is this version, and whole."""
        assert self.registry.current_champion().version == version
        to = self.path / "fetched"
        shutil.rmtree(to, ignore_errors=True)
        self.registry.open_registry().fetch(version, to)
        assert content(to) == content(self.path / f"package-{like}")
        assert not [p for p in self.path.iterdir() if p.name.startswith(".fetched")]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def set_timing(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Change the timing of leases; what is not named is as usual."""
    monkeypatch.setattr(locks, "TIMING", locks.LeaseTiming(**seconds))


@pytest.fixture(scope="session")
def registry(module: Callable[[str], ModuleType]) -> ModuleType:
    """Return the module `registry`."""
    return module("registry")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Debian's docker-registry, a real one, on loopback: its address, and where it stores."""
    folder = tmp_path_factory.mktemp("docker-registry")
    with serving(folder) as address:
        yield address, folder / "store"


numbers = itertools.count()


@pytest.fixture
def place(
    registry: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> New:
    """Make a place with a registry of a kind, and go there; MLflow has its tables already."""

    def place(kind: str, tables: bool = True) -> Place:
        where = "registry"
        storage = tmp_path / "registry"
        if kind == "remote":
            address, store = request.getfixturevalue("host")
            name = f"team/model-{os.getpid()}-{next(numbers)}"
            where = f"oci+http://{address}/{name}"
            storage = store / "docker/registry/v2"
        if kind == "mlflow" and tables:
            shutil.copy(request.getfixturevalue("mlflow_tables"), tmp_path / "mlflow.db")
        made = Place(tmp_path, kind, registry, where, storage)
        made.configure(where)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if kind == "remote":
            set_timing(monkeypatch, max_write_s=0.1)  # loopback is fast
        return made

    return place


New = Callable[..., Place]


# --- what every adapter promises -------------------------------------------------------------


@pytest.mark.parametrize("kind", MARKED)
class TestContract(RegistryContract):
    """The promises of every registry, which adapters of others inherit, too."""

    @pytest.fixture
    def open_registry(self, place: New, kind: str) -> Callable[[], Any]:
        opened: Callable[[], Any] = place(kind).registry.open_registry
        return opened


def test_a_registry_that_forgets_what_it_was_given_does_not_keep_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control of the contract's tests: each finds the fault that it is there for."""

    class Forgetful:
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def versions(self) -> list[Any]:
            return []

        def version(self, name: str) -> str:
            return name

        def push(self, *_: Any) -> None:
            """Keep nothing."""

        def get(self, note: str) -> str:
            return ""

        def lock(self) -> Any:
            return nullcontext(lambda: None)

    registry = Forgetful()
    contract = RegistryContract()
    for name, test in vars(RegistryContract).items():
        if name.startswith("test_"):
            folder = (
                {"tmp_path": tmp_path / name} if "tmp_path" in signature(test).parameters else {}
            )
            (tmp_path / name).mkdir()
            with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
                test(contract, lambda: registry, **folder)


@kinds
def test_what_is_not_there_is_said(place: New, kind: str) -> None:
    project = place(kind)
    with pytest.raises(UsageError, match="ml register"):
        project.registry.find()
    project.push(1), project.push(2)
    with pytest.raises(UsageError, match="2 versions"):
        project.registry.find("20260101")
    with pytest.raises(UsageError, match="no version nothing"):
        project.registry.open_registry().fetch("nothing", project.path / "out")
    assert not (project.path / "out").exists()
    assert project.registry.current_champion() is None
    with pytest.raises(UsageError, match="nothing"):
        project.registry.open_registry().point("champion", "nothing")
    assert project.registry.current_champion() is None


@kinds
def test_the_champion_goes_forward_and_back(
    place: New, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = place(kind)
    registry = project.registry
    a = project.push(1)
    with pytest.raises(RefusedError, match="no champion"):
        registry.rollback()
    assert registry.promote(a).version == a
    b = project.push(2, project.digest(1))
    late = project.push(3, "sha256:somebody")
    assert registry.promote(b[-8:]).version == b
    assert registry.promote(b).version == b  # it is already: nothing changes
    c = project.push(4, project.digest(2))
    assert registry.promote(c).version == c
    assert [entry.version for entry in registry.history(registry.open_registry())] == [a, b, c]
    (entry, *_) = json.loads(registry.open_registry().get("history"))
    assert {"at", "by", "commit"} < set(entry)
    with pytest.raises(RefusedError, match="another champion"):
        registry.promote(late)
    with pytest.raises(RefusedError, match=f"rollback --to {a}"):
        registry.promote(a)
    assert registry.rollback() == (c, b)
    assert registry.current_champion().version == b
    assert registry.rollback() == (b, a)
    with pytest.raises(RefusedError, match="no champion"):
        registry.rollback()
    assert registry.promote(b).version == b  # it was compared with a
    assert registry.promote(c).version == c
    assert registry.rollback(a) == (c, a)
    registry.print_versions()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [a, b, late, c]
    assert ["champion" in line for line in lines] == [True, False, False, False]
    assert "roc_auc 0.75 (0.74 to 0.76)  commit c0ffee" in lines[0]


@kinds
def test_a_registry_without_models_says_so_and_lists_nothing(
    place: New, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = place(kind)
    project.registry.print_versions()
    listed, hint = capsys.readouterr()
    assert listed == ""
    assert "ml register" in hint


@kinds
def test_a_promotion_that_was_cut_off_is_not_history(place: New, kind: str) -> None:
    project = place(kind)
    registry = project.registry
    a = project.push(1)
    registry.promote(a)
    lost = project.push(2, project.digest(1))
    entries = [*json.loads(registry.open_registry().get("history")), {"version": lost}]
    # And killed before the alias moved.
    registry.open_registry().set("history", json.dumps(entries))
    assert [entry.version for entry in registry.history(registry.open_registry())] == [a]
    b = project.push(3, project.digest(1))
    registry.promote(b)
    assert registry.rollback() == (b, a)


@kinds
def test_the_pipeline_sees_the_champion_change_and_only_that(place: New, kind: str) -> None:
    project = place(kind)
    pointer = project.path / project.registry.POINTER
    assert project.registry.refresh_champion_pointer() is None
    assert json.loads(pointer.read_text()) is None
    project.registry.promote(project.push(1))
    champion = project.registry.refresh_champion_pointer()
    assert json.loads(pointer.read_text()) == project.registry.reference(champion)
    before = pointer.stat().st_mtime_ns
    project.push(2)
    project.registry.refresh_champion_pointer()
    assert pointer.stat().st_mtime_ns == before


# --- two at once -----------------------------------------------------------------------------

PROMOTES = """
import pathlib, sys, time
sys.path[:0] = [path for path in sys.argv[4].split(":")]
from importlib import import_module
registry = import_module(sys.argv[1])
locks = import_module(f"{sys.argv[1]}.locks")
locks.TIMING = locks.LeaseTiming(max_write_s=0.3)
promotion = import_module(f"{sys.argv[1]}.promotion")
seen = promotion.current_champion
def champion():
    found = seen()
    pathlib.Path(f"ready-{sys.argv[2]}").touch()
    while not pathlib.Path(f"ready-{sys.argv[3]}").exists():
        time.sleep(0.01)
    return found
promotion.current_champion = champion
try:
    print(registry.promote(sys.argv[2]))
except registry.Conflict as error:
    sys.exit(f"conflict: {error}")
"""


@kinds
def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(place: New, kind: str) -> None:
    project = place(kind)
    project.registry.promote(project.push(1))
    rivals = [project.push(2, project.digest(1)), project.push(3, project.digest(1))]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTES, project.registry.__name__, *pair, ":".join(sys.path)],
            cwd=project.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair in (rivals, rivals[::-1])
    ]
    outputs = [process.communicate(timeout=180) for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes) == [0, 1], outputs
    winner = rivals[codes.index(0)]
    assert outputs[codes.index(1)][1].startswith(f"conflict: {winner} became the champion"), outputs
    assert project.registry.current_champion().version == winner
    history = project.registry.history(project.registry.open_registry())
    assert [entry.version for entry in history][1:] == [winner]


class Notes(dict[str, str]):
    """Notes in memory, slow at random, for the lease alone."""

    def __init__(self, waits: Callable[[], float]) -> None:
        super().__init__()
        self.waits = waits

    def get(self, note: str, *_: Any) -> str | None:  # type: ignore[override]
        time.sleep(self.waits())
        return super().get(note)

    def set(self, note: str, text: str) -> None:
        time.sleep(self.waits())
        self[note] = text
        time.sleep(self.waits())


@slow
def test_two_never_hold_a_lease(registry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    r = random.Random(7)
    # What a late write leaves expires with the lease.
    set_timing(monkeypatch, max_write_s=0.06, ttl_s=0.5)
    # Some writes take longer than that: whoever made one must not enter.
    notes = Notes(lambda: r.choice([0.0, 0.002, 0.01, 0.05]))
    inside = 0
    most = 0
    entered = 0
    own = threading.Lock()

    def many() -> None:
        nonlocal inside, most, entered
        for _ in range(4):
            with registry.lease(notes):
                with own:
                    inside += 1
                    most = max(most, inside)
                    entered = entered + 1
                time.sleep(0.01)
                with own:
                    inside -= 1

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 16)
    assert notes["lock"] == ""


def test_a_lease_of_one_who_died_ends_and_a_late_holder_stops_writing(
    registry: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes(lambda: 0.0)
    timing = {"max_write_s": 0.02, "ttl_s": 0.4, "write_window_s": 0.1}
    set_timing(monkeypatch, **timing, acquire_timeout_s=0.2)
    notes["lock"] = "dead"
    with pytest.raises(UsageError, match="another command"), registry.lease(notes):
        pass
    set_timing(monkeypatch, **timing, acquire_timeout_s=2.0)
    began = time.monotonic()
    with registry.lease(notes) as still:
        assert 0.4 < time.monotonic() - began < 1
        still()
        time.sleep(0.15)
        with pytest.raises(UsageError, match="too slow"):
            still()
    assert notes["lock"] != ""  # it may be another's by now


# --- killed ----------------------------------------------------------------------------------


def forked(does: Callable[[], object]) -> int:
    """Do it in a process of its own; how that ended, as os.waitstatus_to_exitcode says."""
    pid = os.fork()
    if not pid:
        try:
            does()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def deadly(project: Place, moment: int) -> None:
    """Kill this process before its nth change to the registry, or its nth request to a remote."""
    left = moment

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if project.kind == "remote":
        ask = project.client.Remote._ask

        def counted(*args: Any, **kwargs: Any) -> Any:
            count()
            return ask(*args, **kwargs)

        project.client.Remote._ask = counted
        return
    if project.kind == "mlflow":
        import sqlalchemy

        for event in ("before_cursor_execute", "commit"):
            sqlalchemy.event.listen(sqlalchemy.Engine, event, lambda *_: count())

    def hook(event: str, args: Any) -> None:
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or writes:
            count()

    sys.addaudithook(hook)


# Of the moments of a promotion, make test tries so few, and make nightly all. MLflow takes a
# second for each.
EVERY_SO_MANY = {"folder": 5, "remote": 4, "mlflow": 37}


@pytest.mark.slow  # a process for each moment
@kinds
def test_killed_at_any_moment_it_stays_readable_with_the_old_champion_or_the_new(
    place: New, kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    project = place(kind)
    versions = [""] * 2
    if kind == "remote":
        set_timing(monkeypatch, max_write_s=0.1, ttl_s=0.4)  # of one who was killed
    importlib.import_module("rung_runtime.model_package")
    for heavy in ["model_registry", "tracking"] * (kind == "mlflow"):  # so that children have it
        importlib.import_module(f"mlflow.store.{heavy}.sqlalchemy_store")

    def start() -> None:
        project.registry.promote(project.push(1))

    def goes_on(moment: int) -> None:
        deadly(project, moment)
        project.registry.promote(project.push(2, project.digest(1)))

    def looks() -> None:
        champion = project.registry.current_champion().version
        assert champion in versions
        project.serves(champion, 1 + (champion == versions[1]))
        assert set(project.names()) <= set(versions)

    def ends() -> None:
        project.registry.promote(project.push(2, project.digest(1)))
        project.serves(versions[1], 2)
        project.registry.rollback()

    for n in (1, 2):
        versions[n - 1] = package(project.path / f"package-{n}", n)["version"]
    assert forked(start) == 0
    killed = 0
    survived = False
    # Each start of MLflow takes a second, and it makes hundreds of changes.
    nightly = request.config.getoption("tier") == "nightly"
    steps = dict.fromkeys(EVERY_SO_MANY, 1) if nightly else EVERY_SO_MANY
    moments = range(1, 9_999, steps[kind])
    shutil.copytree(
        project.path, project.path.with_name(f"{project.path.name}-before"), symlinks=True
    )
    for moment in moments:
        if kind != "remote":  # each begins without version 2
            for name in ("registry", "mlflow.db", "mlartifacts"):
                old = project.path.with_name(f"{project.path.name}-before") / name
                shutil.rmtree(project.path / name, ignore_errors=True)
                if old.is_dir():
                    shutil.copytree(old, project.path / name)
                elif old.exists():
                    shutil.copy(old, project.path / name)
        ended = forked(lambda: goes_on(moment))  # noqa: B023
        assert ended in (0, -signal.SIGKILL)
        assert forked(looks) == 0, f"after a kill at {moment}"
        killed = killed + (ended != 0)
        survived = ended == 0
        if survived:
            break
        if kind == "remote" or moment % 5 == 1:
            assert forked(ends) == 0, f"after a kill at {moment}"
    assert survived, "never came to its end: the moments do not cover it"
    assert killed > 5


# --- a disk that is full ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MARKED[0], MARKED[2]])
def test_a_full_disk_leaves_the_registry_as_it_was(place: New, kind: str) -> None:
    project = place(kind, tables=False)
    disk = project.path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and a system that lets it")
    try:
        project.configure("disk/registry" if kind == "folder" else "model")
        for name in ("mlflow.db", "mlartifacts"):
            (project.path / name).symlink_to(disk / name)
        (disk / "mlartifacts").mkdir()
        first = project.push(1)
        project.registry.promote(first)
        package(project.path / "package-2", 2)
        for spare in (0, 4_096, 8_192, 12_288):
            fill(disk / "full", spare)
            with pytest.raises(UsageError) as refused:
                project.push(2, project.digest(1))
            assert "\n" not in str(refused.value)
            assert project.names() == [first]
            project.serves(first, 1)
        (disk / "full").unlink()
        second = project.push(2, project.digest(1))
        fill(disk / "full", 0)
        with pytest.raises(UsageError):
            project.registry.promote(second)
        project.serves(first, 1)
        (disk / "full").unlink()
        project.registry.promote(second)
        project.serves(second, 2)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path, spare: int) -> None:
    """Fill the disk of a file, but for some bytes."""
    path.unlink(missing_ok=True)
    free = os.statvfs(path.parent)
    path.write_bytes(b"x" * (free.f_bavail * free.f_frsize - spare))


# --- a registry that fails -------------------------------------------------------------------


@dataclass
class Faulty:
    """A stand-in: passes requests on to the real registry, but for those that are to fail."""

    address: str
    fault: Callable[[int, str, str], str] = lambda *_: ""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def where(self, real: str) -> str:
        return f"oci+http://127.0.0.1:{self.port}/{real.split('/', 3)[3]}"

    def start(self) -> ThreadingHTTPServer:
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def pass_on(self) -> None:
                faulty.requests.append(f"{self.command} {self.path}")
                how = faulty.fault(len(faulty.requests), self.command, self.path)
                length = int(self.headers.get("Content-Length") or 0)
                if how == "hang":
                    time.sleep(3)
                if how in ("hang", "cut"):
                    self.rfile.read(length // 2)
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                body = self.rfile.read(length)
                if how.isdigit():
                    self.send_response(int(how))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(faulty.address, timeout=20)
                if how == "half upload":
                    upstream.putrequest(self.command, self.path)
                    upstream.putheader("Content-Length", str(length))
                    upstream.putheader("Content-Type", "application/octet-stream")
                    upstream.endheaders(body[: length // 2])
                    time.sleep(0.1)
                    upstream.close()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                sent = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                upstream.request(self.command, self.path, body or None, sent)
                answer = upstream.getresponse()
                payload = answer.read()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in ("connection", "date", "transfer-encoding"):
                        self.send_header(key, value)
                self.end_headers()
                self.wfile.write(payload[: len(payload) // 2] if how == "half" else payload)
                if how == "half":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                upstream.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = pass_on  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@pytest.fixture
def faulty(place: New, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Place, Faulty]]:
    """A remote registry with a champion, behind a stand-in that can fail."""
    project = place("remote")
    between = Faulty(project.where.split("/")[2])
    server = between.start()
    for part in (project.client.connection, project.client.remote):
        monkeypatch.setattr(part, "sleep", lambda _: None)
    set_timing(monkeypatch, max_write_s=0.1, ttl_s=0.3)
    project.configure(between.where(project.where))
    project.registry.promote(project.push(1))
    yield project, between
    server.shutdown()
    server.server_close()


@slow
@pytest.mark.parametrize("how", ["500", "429", "403", "cut", "half"])
def test_a_registry_that_fails_from_any_request_on_keeps_its_champion(
    faulty: tuple[Place, Faulty], how: str, request: pytest.FixtureRequest
) -> None:
    project, between = faulty
    step = 1 if request.config.getoption("tier") == "nightly" else 4
    first = project.registry.current_champion().version
    package(project.path / "package-2", 2)
    for moment in range(1, 99, step):
        between.requests.clear()
        between.fault = lambda n, *_, begin=moment: how if n >= begin else ""
        reason = ""
        try:
            project.registry.promote(project.push(2, project.digest(1)))
        except UsageError as error:
            reason = str(error)
        assert "\n" not in reason
        assert not reason or reason.startswith(("oci+http://127.0.0.1", "another command holds"))
        assert len(between.requests) < moment + 40
        between.fault = lambda *_: ""
        finished = len(between.requests) < moment
        champion = project.registry.current_champion().version
        project.serves(champion, 1 + (champion != first))
        assert set(project.names()) <= {first, package_version(project, 2)}
        if finished:
            break
        if champion != first:  # only what follows the move has failed, or its answer was lost
            project.registry.rollback()
    assert moment > 10
    assert champion == package_version(project, 2)


def package_version(project: Place, n: int) -> str:
    return str(json.loads((project.path / f"package-{n}/manifest.json").read_text())["version"])


@slow
@pytest.mark.parametrize("how", ["500", "503", "429", "cut", "half", "half upload"])
def test_a_fault_that_passes_is_tried_again(faulty: tuple[Place, Faulty], how: str) -> None:
    project, between = faulty
    kinds = {"half": ["GET"], "half upload": ["PUT"]}.get(how, ["GET", "HEAD", "POST", "PUT"])

    failed: list[str] = []
    matching = itertools.count()

    def fault(n: int, method: str, path: str) -> str:
        upload = how != "half upload" or "/uploads/" in path
        if method not in kinds or not upload or next(matching) % 3:
            return ""
        failed.append(path)
        return how

    package(project.path / "package-2", 2)
    between.requests.clear()
    between.fault = fault
    second = project.push(2, project.digest(1))
    project.registry.promote(second)
    assert failed, between.requests
    between.fault = lambda *_: ""
    project.serves(second, 2)


def test_trying_again_has_a_limit(faulty: tuple[Place, Faulty]) -> None:
    project, between = faulty
    between.fault = lambda *_: "503"
    between.requests.clear()
    with pytest.raises(UsageError, match="does not answer"):
        project.registry.current_champion()
    assert len(between.requests) == 1 + project.client.limits.RETRIES


def test_a_registry_that_hangs_or_is_not_there_is_not_waited_for(
    faulty: tuple[Place, Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, between = faulty
    monkeypatch.setattr(project.client.limits, "ANSWER", 0.2)
    between.fault = lambda *_: "hang"
    began = time.monotonic()
    with pytest.raises(UsageError, match="does not answer"):
        project.registry.current_champion()
    assert time.monotonic() - began < 5
    project.configure(f"oci+http://127.0.0.1:{free_port()}/team/model")
    with pytest.raises(UsageError, match="does not answer"):
        project.registry.current_champion()


@slow
def test_an_mlflow_server_that_is_not_there_is_said(
    place: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = place("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1"):
        project.registry.current_champion()


# --- damaged ---------------------------------------------------------------------------------


def stored(project: Place, data: bytes) -> list[Path]:
    """The files in which a registry keeps some content."""
    folder = {"folder": project.path / "registry", "mlflow": project.path / "mlartifacts"}.get(
        project.kind
    )
    if folder:
        return [p for p in folder.rglob("*") if p.is_file() and p.read_bytes() == data]
    digest = hashlib.sha256(data).hexdigest()
    return [project.storage / "blobs/sha256" / digest[:2] / digest / "data"]


@kinds
@pytest.mark.parametrize("how", ["changed", "cut off", "gone"])
def test_a_damaged_file_is_never_served(place: New, kind: str, how: str) -> None:
    project = place(kind)
    version = project.push(8)
    other = project.push(9)
    (file,) = stored(project, b"model 8 " * 1_000)
    whole = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[:-3] + (b"" if how == "cut off" else b"???"))
    project.registry.open_registry().fetch(other, project.path / "out")
    before = content(project.path / "out")
    with pytest.raises(UsageError) as refused:
        project.registry.open_registry().fetch(version, project.path / "out")
    assert (sha(whole) if kind != "mlflow" else version) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert content(project.path / "out") == before
    assert not [p for p in project.path.iterdir() if p.name.startswith(".out")]
    assert set(project.names()) == {version, other}
    if kind == "folder":  # the same package again makes it whole
        project.push(8)
    else:
        file.write_bytes(whole)
    project.registry.open_registry().fetch(version, project.path / "out")
    assert content(project.path / "out") == content(project.path / "package-8")


@pytest.mark.parametrize("kind", MARKED[:2])
def test_a_damaged_manifest_is_never_believed(place: New, kind: str) -> None:
    project = place(kind)
    version = project.push(7)
    project.registry.promote(version)
    _, manifest = project.registry.open_registry().store.manifest(version)
    (file,) = stored(project, manifest)
    file.write_bytes(manifest.replace(b"roc_auc", b"roc_auk"))
    for asks in (
        project.registry.current_champion,
        project.registry.open_registry().versions,
        lambda: project.registry.open_registry().fetch(version, project.path / "out"),
    ):
        with pytest.raises(UsageError, match=sha(manifest)):
            asks()
    assert not (project.path / "out").exists()


def test_a_damaged_index_is_said_and_a_tag_that_was_moved_is_not_followed(place: New) -> None:
    project = place("folder")
    first = project.push(1)
    second = project.push(2)
    index = project.path / "registry/index.json"
    before = index.read_text()
    index.write_text(before[: len(before) // 2])
    with pytest.raises(UsageError, match="is damaged"):
        project.registry.open_registry().versions()
    index.write_text(before.replace(f'"{first}"', '"gone"').replace(f'"{second}"', f'"{first}"'))
    with pytest.raises(UsageError, match=f"no version {first}"):
        project.registry.open_registry().fetch(first, project.path / "out")
    assert not (project.path / "out").exists()


def forged(place: New) -> tuple[Place, Any, str, dict[str, Any]]:
    """Give a registry in a folder, a version that is in it, and its manifest, to be falsified."""
    project = place("folder")
    version = project.push(1)
    registry = project.registry.open_registry()
    _, manifest = registry.store.manifest(version)
    return project, registry, version, json.loads(manifest)


@pytest.mark.parametrize("title", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "", "."])
def test_a_name_that_leads_outside_is_refused(place: New, title: str) -> None:
    project, registry, version, evil = forged(place)
    evil["layers"][0]["annotations"]["org.opencontainers.image.title"] = title
    registry.store.tag(version, json.dumps(evil).encode(), evil["artifactType"])
    with pytest.raises(UsageError, match=re.escape(f"outside of it: {title}")):
        registry.fetch(version, project.path / "to/out")
    assert not list(project.path.rglob("evil"))
    assert not list((project.path / "to").iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", "mine"),
        ("problem/mine.py", "mine"),
        ("gate.json", "edited by hand"),
        ("manifest.json", '{"name": "My web app", "icons": []}'),
        ("manifest.json", "not even JSON"),
    ],
)
def test_a_folder_with_what_no_package_brought_is_not_replaced(
    place: New, tmp_path: Path, name: str, content: str
) -> None:
    project = place("folder")
    registry = project.registry
    folder = tmp_path / "folder"
    registry.require_replaceable(folder)
    folder.mkdir()
    registry.require_replaceable(folder)
    shutil.rmtree(folder)
    project.push(1)
    shutil.copytree(tmp_path / "package-1", folder)
    registry.require_replaceable(folder)
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match="name another folder"):
        registry.require_replaceable(folder)
    (tmp_path / "link").symlink_to(folder)
    for other in (tmp_path / "link", folder / name):
        with pytest.raises(UsageError, match="is a file or a link"):
            registry.require_replaceable(other)


def test_a_fetch_into_the_folder_of_a_package_that_is_not_registered_keeps_it(
    place: New, module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    project = place("folder")
    version = project.push(1)
    model = tmp_path / "artifacts/model"
    manifest = package(model, 2)
    before = content(model)
    fetch = module("cli.registry").fetch
    with pytest.raises(UsageError, match=r"artifacts/model has a package that the registry does"):
        fetch(version, model)
    for claimed in (version, "../registry", ""):  # its digest decides, not what it calls itself
        (model / "manifest.json").write_text(json.dumps(manifest | {"version": claimed}))
        with pytest.raises(UsageError, match="the registry does not have"):
            fetch(version, model)
    (model / "manifest.json").write_bytes(before["manifest.json"])
    assert content(model) == before
    project.registry.open_registry().push(model, manifest, FACTS)
    fetch(version, model)
    assert content(model) == content(tmp_path / "package-1")


@pytest.mark.slow
def test_a_fetch_after_a_run_that_was_not_registered_keeps_its_model(
    ran: Callable[[int, str], Copy], place: New, tmp_path: Path
) -> None:
    version = place("folder").push(1)
    copy = ran(1, "multiclass").again(tmp_path / "copy")
    config = copy.path / "config/delivery.yaml"
    text = re.sub(r"(?m)^registry: \S+", f"registry: {tmp_path / 'registry'}", config.read_text())
    config.write_text(text)
    before = content(copy.path / "artifacts/model")
    refused = copy.ml("fetch", version, "--to", "artifacts/model", exits=2).stderr
    assert "`ml register` it first, or name another folder" in " ".join(refused.split())
    assert content(copy.path / "artifacts/model") == before
    own = copy.ml("register", exits=0).stdout.strip()
    copy.ml("fetch", version, "--to", "artifacts/model", exits=0)
    copy.ml("fetch", own, "--to", "artifacts/model", exits=0)
    assert content(copy.path / "artifacts/model") == before


def test_code_that_no_digest_covers_is_not_fetched(place: New) -> None:
    project, registry, version, evil = forged(place)
    artifact = importlib.import_module("rung_runtime.adapters.registry_oci.artifact")
    # It would be imported in the place of problem/features.py.
    more = artifact.descriptor(b"1/0", "text/plain")
    more["annotations"] = {"org.opencontainers.image.title": "problem/features/__init__.py"}
    registry.store.put(b"1/0")
    evil["layers"].append(more)
    registry.store.tag(version, json.dumps(evil).encode(), evil["artifactType"])
    with pytest.raises(UsageError, match="damaged"):
        registry.fetch(version, project.path / "to/out")
    assert not (project.path / "to/out").exists()


@pytest.mark.parametrize("name", ["../../evil", ".hidden", "/tmp/evil", "a b", "", "a" * 129])
def test_a_version_that_is_no_name_of_a_folder_is_refused(place: New, name: str) -> None:
    project, registry, _, evil = forged(place)
    evil["annotations"]["org.opencontainers.image.version"] = name
    for tag in (name, "champion"):
        registry.store.tag(tag, json.dumps(evil).encode(), evil["artifactType"])
    with pytest.raises(UsageError, match="not the name of a version"):
        project.registry.current_champion()
    with pytest.raises(UsageError, match="not the name of a version"):
        registry.fetch(name, project.path / "to" / "out")
    del evil["annotations"]
    registry.store.tag("champion", json.dumps(evil).encode(), evil["artifactType"])
    with pytest.raises(UsageError, match="not of a model"):
        registry.alias("champion")


def test_a_champion_that_is_gone_is_not_taken_for_none(place: New) -> None:
    project = place("folder")
    version = project.push(1)
    project.registry.promote(version)
    index = project.path / "registry/index.json"
    whole = json.loads(index.read_text())
    named = "org.opencontainers.image.ref.name"
    kept = [e for e in whole["manifests"] if e["annotations"][named] != version]
    index.write_text(json.dumps(whole | {"manifests": kept}))
    for ask in (project.registry.current_champion, project.registry.refresh_champion_pointer):
        with pytest.raises(UsageError, match=f"{version} is gone"):
            ask()


# --- other tools read it ---------------------------------------------------------------------


def tool(*command: str) -> str:
    need(command[0])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_and_oras_read_what_we_write_and_we_what_skopeo_copies(
    place: New, host: tuple[str, Path], tmp_path: Path
) -> None:
    import oras.client  # type: ignore[import-untyped]

    project = place("folder")
    version = project.push(1)
    project.registry.promote(version)
    assert json.loads(Path("registry/oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    raw = json.loads(tool("skopeo", "inspect", "--raw", f"oci:registry:{version}"))
    assert raw["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert raw["annotations"]["vnd.rung.metric"] == "roc_auc"
    assert len(raw["layers"]) == 5
    assert raw["annotations"]["org.opencontainers.image.revision"] == "c0ffee"
    assert raw["annotations"]["org.opencontainers.image.created"] == "2026-01-01T12:00:01.000+00:00"
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in raw["layers"]]
    assert "problem/features.py" in titles
    note = json.loads(tool("skopeo", "inspect", "--raw", "oci:registry:note-history"))
    assert note["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    copied = f"{host[0]}/copied/model-{os.getpid()}"
    for tag in (version, "champion", "note-history"):
        tool(
            "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false",
            f"oci:registry:{tag}", f"docker://{copied}:{tag}",
        )  # fmt: skip
    client = oras.client.OrasClient(hostname=host[0], insecure=True)
    client.pull(target=f"{copied}:champion", outdir=str(tmp_path / "pulled"))
    assert content(tmp_path / "pulled") == content(project.path / "package-1")
    project.configure(f"oci+http://{copied}")
    project.serves(version, 1)
    assert len(project.registry.history(project.registry.open_registry())) == 1


def test_a_registry_that_asks_who_you_are_is_told_from_the_docker_login(
    place: New, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    project = place("folder")
    folder = tmp_path_factory.mktemp("auth")
    (folder / "who").write_text(tool("htpasswd", "-Bbn", "us", "secret"))
    asks = {"htpasswd": {"realm": "ours", "path": str(folder / "who")}}
    with serving(folder, auth=asks) as address:
        project.configure(f"oci+http://{address}/team/model")
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        for password, works in {"wrong": False, "secret": True}.items():
            login = {"auth": base64.b64encode(f"us:{password}".encode()).decode()}
            (folder / "config.json").write_text(json.dumps({"auths": {address: login}}))
            if works:
                set_timing(monkeypatch, max_write_s=0.5)
                project.registry.promote(project.push(1))
                project.serves(project.names()[0], 1)
            else:
                with pytest.raises(UsageError, match="401"):
                    project.push(1)


# --- ml register -----------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_package_that_the_gate_passed_is_registered(
    ran: Callable[[int, str], Copy], tmp_path: Path
) -> None:
    copy = ran(1, "multiclass").again(tmp_path / "copy")
    manifest = json.loads((copy.path / "artifacts/model/manifest.json").read_text())
    model = copy.path / "artifacts/model/model.skops"
    whole = model.read_bytes()
    model.write_bytes(whole + b"x")
    assert "artifacts/model" in copy.ml("register", exits=2).stderr
    model.write_bytes(whole)
    gate = copy.path / "artifacts/gate.json"
    before = gate.read_bytes()
    gate.write_bytes(before.replace(b'"passed"', b'"refused"'))
    copy.ml("register", exits=2)  # edited by hand
    gate.unlink()
    assert "artifacts/gate.json" in copy.ml("register", exits=2).stderr
    gate.write_bytes(before)
    assert copy.ml("register", exits=0).stdout.strip() == manifest["version"]
    copy.ml("register", exits=0)
    listed = copy.ml("models", exits=0).stdout.splitlines()
    assert len(listed) == 1
    metrics = copy.read("evaluate")
    assert f"{metrics['metric']} {metrics['metrics'][metrics['metric']]['value']:.6g}" in listed[0]
    assert copy.ml("promote", exits=0).stdout.strip() == manifest["version"]
    assert "champion" in copy.ml("models", exits=0).stdout
    config = copy.path / "config/gate.yaml"
    config.write_text(config.read_text().replace("log_loss: ", "log_loss: -"))
    copy.ml("run", exits=1)
    assert "has not passed" in copy.ml("register", exits=1).stderr


def documents_of(manifest: dict[str, Any], comparison: Any) -> dict[Any, Any]:
    """Return by its type each document that registering a package reads."""
    gate = GateDocument.model_construct(
        verdict="passed",
        model_digest=manifest["model_digest"],
        comparison=comparison,
        commit=None,
        data_digest="sha256:data",
    )
    interval = Interval(value=0.75, low=0.7, high=None)
    metrics = MetricsDocument.model_construct(
        metric="roc_auc", task="binary", metrics={"roc_auc": interval}
    )
    package = PackageDocument.model_construct(package_digest=manifest["package_digest"])
    return {GateDocument: gate, MetricsDocument: metrics, PackageDocument: package}


def test_a_package_that_is_not_the_one_the_gate_judged_is_refused(
    place: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = place("folder")
    manifest = package(project.path / "artifacts/model", 1)
    (project.path / "artifacts/gate.json").write_bytes(b"{}")
    champion = Champion.model_construct(version="v", package_digest="sha256:of the champion")
    comparison = Compared.model_construct(kind="compared", champion=champion)
    documents = documents_of(manifest, comparison)
    for kind, key, value in [
        (GateDocument, "verdict", "refused"),
        (GateDocument, "model_digest", "sha256:another"),
        (GateDocument, "comparison", None),
        (PackageDocument, "package_digest", "sha256:another"),
    ]:
        changed = {**documents, kind: documents[kind].model_copy(update={key: value})}
        monkeypatch.setattr(registration, "read", changed.__getitem__)
        with pytest.raises(RefusedError):
            project.registry.register()
    monkeypatch.setattr(registration, "read", documents.__getitem__)
    (project.path / "artifacts/gate.json").write_bytes(b'{"judged": "again"}')
    with pytest.raises(RefusedError, match="ml run"):
        project.registry.register()
    assert project.names() == []
    (project.path / "artifacts/gate.json").write_bytes(b"{}")
    version = project.registry.register()
    assert (version.version, version.facts["compared_with"]) == (
        manifest["version"],
        "sha256:of the champion",
    )
    assert version.facts["commit"] == "none"
    assert (version.facts["low"], version.facts["high"]) == ("0.7", "unknown")


def test_the_champion_that_came_out_again_is_no_new_version(
    place: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each run would deploy another one, and the same drift start another training."""
    project = place("folder")
    first = project.push(1)
    project.registry.promote(first)

    def again(changed: str) -> Any:
        folder = project.path / "artifacts/model"
        shutil.rmtree(folder, ignore_errors=True)
        manifest = package(folder, 1)
        (folder / changed).write_bytes(b'{"judged": "again"}')
        manifest["files"][changed] = sha((folder / changed).read_bytes())
        whole = sha(json.dumps(manifest["files"], sort_keys=True).encode())
        manifest |= {"package_digest": whole, "version": f"20260101-120001-{whole[7:15]}"}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        shutil.copy(folder / "gate.json", project.path / "artifacts/gate.json")
        champion = project.registry.reference(project.registry.current_champion())
        comparison = NotCompared.model_construct(
            kind="same", champion=Champion.model_construct(**champion)
        )
        documents = documents_of(manifest, comparison)
        monkeypatch.setattr(registration, "read", documents.__getitem__)
        return project.registry.register()

    assert again("gate.json").version == first
    assert project.names() == [first]
    new = again("contract.json").version  # the same model, and other rows are let through
    assert new != first
    assert sorted(project.names()) == sorted([first, new])
