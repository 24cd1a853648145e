"""Target `local`: a service on this machine that outlives the death of each of its processes.

A supervisor owns the listening socket. It starts the service below it, and again when that dies;
callers wait in the socket's backlog meanwhile. When the supervisor dies, the service starts another
and hands the socket over. Each holds one end of a pair of sockets, and is told of the other's death
by the end of that stream: no polling, and a process that died before anybody looked counts, too.

Which model it should be is in `service/desired.json`; the service follows that file by itself.
"""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ... import RefusedError, UsageError, settings
from ...delivery import MODELS, STATE, ask, read

DESIRED, RUNNING = STATE / "desired.json", STATE / "supervisor.json"
SETTINGS = STATE / "settings.json"  # that the service was last started with
LOCK = STATE / "supervisor.lock"  # whoever holds it is the supervisor
PATIENCE = 60.0  # seconds, for a model to be loaded and to answer
BACKLOG = 1_024  # callers that wait while no service runs
QUICK, SLOWEST = 10.0, 5.0  # seconds: who dies sooner is started again later, at most so much


class Local:
    """See `delivery.Target`."""

    name, promotes = "local", True

    def check(self, image: str | None) -> None:
        service, found = settings.delivery().service, running()
        if not found:
            _bound(service.host, service.port).close()
        elif service.port not in (0, found["port"]):
            said = f"the service listens to {found['url']}, {settings.DELIVERY} says"
            raise UsageError(f"{said} {service.port}: `ml stop` it first")

    def asked(self) -> str | None:
        return read(DESIRED).get("version")

    def serves(self, version: str, digest: str) -> bool:
        with suppress(OSError, ValueError, LookupError):
            url, asked = running()["url"], self.asked()
            return asked == version and bool(ask(f"{url}/version")[1]["package_digest"] == digest)
        return False

    def switch(self, version: str, digest: str) -> None:
        """Have the package in `service/models/` served: a running service goes over to it.

        Raises:
            UsageError: As `check`.
            RefusedError: It is not served within `PATIENCE`; the model before still is, if any.
        """
        before = read(DESIRED)
        if (before.get("version"), before.get("package_digest")) != (version, digest):
            now: dict[str, Any] = {"folder": str(MODELS / version), "version": version}
            now["package_digest"] = digest
            back = {
                "previous": before.get("folder"),
                "previous_digest": before.get("package_digest"),
            }
            if before.get("version") == version:  # in another package, or told without a digest
                back = {key: before.get(key) for key in back}
            _write(DESIRED, now | back)
        until, said = time.monotonic() + PATIENCE, "no answer"
        while time.monotonic() < until and version not in said:
            self.ensure()
            if self.serves(version, digest):
                return
            with suppress(OSError, ValueError, LookupError):
                said = ask(running()["url"] + "/version")[1]["error"] or said
            time.sleep(0.1)
        raise RefusedError(f"{version} is not served: {said} (see {STATE}/serve.log)")

    def undo(self, version: str | None, digest: str | None) -> None:
        if not version or not digest:
            self.stop()
        elif version != self.asked():  # else it served already, and nothing better is known
            self.switch(version, digest)

    def ensure(self) -> None:
        if running() or not DESIRED.exists():
            return
        service = settings.delivery().service
        with _bound(service.host, service.port) as listening:
            _start("supervise", listening.fileno())
        until = time.monotonic() + PATIENCE
        while not running():
            if time.monotonic() > until:
                raise RefusedError(f"the supervisor does not start: see {STATE}/supervise.log")
            time.sleep(0.05)

    def stop(self) -> bool:
        """End supervisor and service, after the requests they have; tell whether they ran."""
        found = running()
        while now := running():
            with suppress(ProcessLookupError):
                os.kill(now["pid"], signal.SIGTERM)
            time.sleep(0.2)
        DESIRED.unlink(missing_ok=True)
        return bool(found)

    @contextmanager
    def opened(self) -> Iterator[str]:
        if not (found := running()):
            raise RefusedError("no service runs: `ml deploy` starts one")
        yield found["url"]


def running() -> dict[str, Any]:
    """What the supervisor says of itself: `pid`, `service` (pid), `port`, `url`; or {}."""
    with suppress(Timeout), FileLock(LOCK, timeout=0):
        return {}
    found = read(RUNNING)  # of one that is dead, while the next one is about to write it
    return found if _alive(found.get("pid")) else {}


def supervise(service: int, listening: int, pair: int | None = None) -> None:
    """Keep a service running until SIGTERM.

    Args:
        service: The process ID of a service that runs already, and holds the other end of `pair`.
        listening: The socket to serve, as the number of an open file.
    """
    stopping, child, deaths = False, None, 0
    other = None if pair is None else socket.socket(fileno=pair)

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        with suppress(ProcessLookupError):
            os.kill(service, signal.SIGTERM)
        signal.alarm(int(_settings().drain_seconds) + 5)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(service, signal.SIGKILL))
    with suppress(Timeout), FileLock(LOCK, timeout=5), socket.socket(fileno=listening) as port:
        host, number = port.getsockname()[:2]
        url = f"http://{_at({'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host), number)}"
        while not stopping:
            began = time.monotonic()
            if other is None:
                other, theirs = socket.socketpair()
                with theirs:
                    child = _start("serve", listening, theirs.fileno())
                service = child.pid
            signal.signal(signal.SIGTERM, stop)
            found = {"pid": os.getpid(), "service": service, "port": number, "url": url}
            _write(RUNNING, found)
            _gone(other)
            other = None
            if child:
                child.wait()
            deaths = deaths + 1 if time.monotonic() < began + QUICK else 0
            if deaths > 1 and not stopping:
                time.sleep(min(SLOWEST, 2.0**deaths / 10))


def serve(_: int, listening: int, pair: int) -> None:
    """Be the service below a supervisor."""
    port = socket.socket(fileno=listening)
    ends = socket.socket(fileno=pair), port.dup()  # the service closes its own to drain
    threading.Thread(target=watch_parent, args=ends, daemon=True).start()
    from ... import serving  # here, for a supervisor may die while this takes its time

    serving.serve(None, _settings(), sock=port)


def _settings() -> settings.Service:
    """Those of `config/delivery.yaml`; while that is broken, those of before: something serves."""
    try:
        found = settings.delivery().service
    except UsageError as wrong:
        if not SETTINGS.exists():
            raise
        sys.stderr.write(f"ml: {wrong}; until then the settings of before hold\n")
        return settings.Service.model_validate(read(SETTINGS))
    _write(SETTINGS, found.model_dump())
    return found


def watch_parent(parent: socket.socket, listening: socket.socket) -> None:
    """Start another supervisor whenever the one that holds the other end of `parent` dies."""
    while True:
        _gone(parent)
        parent, theirs = socket.socketpair()
        with theirs:
            child = _start("supervise", listening.fileno(), theirs.fileno(), beside=os.getpid())
        threading.Thread(target=child.wait, daemon=True).start()  # no zombie of it
        time.sleep(1)  # one that dies at once is no busy loop


def _gone(other: socket.socket) -> None:
    """Wait for the end of the process that holds the other end of a pair."""
    with other, suppress(ConnectionError):
        other.recv(1)


def _start(role: str, *fds: int, beside: int = 0) -> "subprocess.Popen[bytes]":
    """Start this module as a process of its own, with open sockets handed to it."""
    command = [sys.executable, "-m", __package__, role, str(beside), *map(str, fds)]
    path = STATE / f"{role}.log"
    mode = "ab" if not path.exists() or path.stat().st_size < 10_000_000 else "wb"
    # Neither a job's token, nor the mark by which GitHub's runner ends all of a job with it.
    env = settings.service_environment()
    with path.open(mode) as log:
        # A session of its own: the Ctrl-C of a deployer is not theirs.
        return subprocess.Popen(
            command, env=env, pass_fds=fds, stdin=-3, stdout=log, stderr=log, start_new_session=True
        )


def _bound(host: str, port: int) -> socket.socket:
    """Listen to a port; of one that is taken, UsageError says so."""
    until = time.monotonic() + 10
    while True:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            # Our own service may hold it, that has lost its supervisor and is starting another.
            ours = error.errno == errno.EADDRINUSE and _alive(read(RUNNING).get("service"))
            if not ours or time.monotonic() > until:
                said = f"{_at(host, port)} cannot be listened to ({error.strerror})"
                todo = f"end what has it, or change service.port in {settings.DELIVERY}"
                raise UsageError(f"{said}: {todo}") from None
            time.sleep(0.2)
        else:
            return listening


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _alive(pid: int | None) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid or 0, 0)
        return bool(pid)
    return False


def _write(path: Path, content: dict[str, Any]) -> None:
    # Not artifacts.atomic_write, which brings Polars: the supervisor stays small.
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps(content), "utf-8")
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)
