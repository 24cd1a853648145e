"""The two processes that serve on this machine, each of which starts the other when it dies.

A supervisor owns the listening socket. It starts the service below it, and starts it again when it
dies; callers wait in the socket's backlog meanwhile. When the supervisor dies, the service starts
another one and hands the socket over. Each holds one end of a pair of sockets, and learns of the
other's death by the end of that stream: there is no polling, and a process that died before anybody
looked counts, too.

Which model is served is in `service/desired.json`; the service follows that file by itself.
"""

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from filelock import FileLock, Timeout

from ... import UsageError
from ...atomic_file import atomic_write
from ...config.delivery import DELIVERY, Service, load_delivery, service_environment
from ...delivery.service_folder import SERVICE, read_json
from ...listening import listening_socket

RUNNING = SERVICE / "supervisor.json"
SETTINGS = SERVICE / "settings.json"  # that the service was last started with
LOCK = SERVICE / "supervisor.lock"  # whoever holds it is the supervisor
BACKLOG = 1_024  # callers that wait while no service runs
MAX_LOG_BYTES = 10_000_000
PORT_TIMEOUT_S = 10.0  # for our own service, without a supervisor, to start another one
LOCK_TIMEOUT_S = 5.0
EARLY_DEATH_S = 10.0  # a service that dies sooner is started again after a pause
MAX_PAUSE_S = 5.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where what listens everywhere is reached


class Running(TypedDict):
    """What a supervisor writes about itself.

    Attributes:
        pid: The process ID of the supervisor.
        service: That of the service.
        url: Where the service is reached from this machine.
        code: `code_digest()` when the service was started; releases before 0.4 did not write it.
    """

    pid: int
    service: int
    port: int
    url: str
    code: NotRequired[str | None]


def running() -> Running | None:
    """Return what the supervisor has written about itself; None if none runs."""
    with suppress(Timeout), FileLock(LOCK, timeout=0):
        # The next one holds the lock before it writes: until then this must not be taken for it,
        # though the process ID be that of a zombie (in a container without an init), or of another.
        if read_json(RUNNING).get("pid"):
            write_json(RUNNING, read_json(RUNNING) | {"pid": None})
        return None
    content = read_json(RUNNING)
    return cast(Running, content) if is_alive(content.get("pid")) else None


def code_digest() -> str:
    """Return a digest of the runtime's code, by which a service of another release is told."""
    # Not stamp.digest, which imports Polars: the supervisor stays small.
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def is_alive(pid: Any) -> bool:
    """Return whether there is a process."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def supervise(service: int, listening: int, pair: int | None = None) -> None:
    """Keep a service running until SIGTERM.

    Args:
        service: The process ID of a service that runs already, and holds the other end of `pair`.
        listening: The socket to serve, as the number of an open file.
        pair: A socket whose stream ends when the service does; None: there is no service yet.
    """
    is_stopping = False
    child: subprocess.Popen[bytes] | None = None
    early_deaths = 0
    code = read_json(RUNNING).get("code")  # of a service that runs already
    service_end = None if pair is None else socket.socket(fileno=pair)

    def stop(_signal: int, _frame: object) -> None:
        nonlocal is_stopping
        is_stopping = True
        with suppress(ProcessLookupError):
            os.kill(service, signal.SIGTERM)
        signal.alarm(int(_service_settings().drain_seconds) + 5)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(service, signal.SIGKILL))
    with (
        suppress(Timeout),
        FileLock(LOCK, timeout=LOCK_TIMEOUT_S),
        socket.socket(fileno=listening) as listener,
    ):
        host, port = listener.getsockname()[:2]
        url = f"http://{_address(LOOPBACK.get(host, host), port)}"
        while not is_stopping:
            start = time.monotonic()
            if service_end is None:
                service_end, supervisor_end = socket.socketpair()
                code = code_digest()
                with supervisor_end:
                    child = start_process("serve", listening, supervisor_end.fileno())
                service = child.pid
            signal.signal(signal.SIGTERM, stop)
            record: Running = {
                "pid": os.getpid(),
                "service": service,
                "port": port,
                "url": url,
                "code": code,
            }
            write_json(RUNNING, record)
            _wait_for_end(service_end)
            service_end = None
            if child:
                child.wait()
            if time.monotonic() < start + EARLY_DEATH_S:
                early_deaths += 1
            else:
                early_deaths = 0
            if early_deaths > 1 and not is_stopping:
                time.sleep(min(MAX_PAUSE_S, 2.0**early_deaths / 10))


def serve(_: int, listening: int, pair: int) -> None:
    """Be the service below a supervisor.

    Args:
        listening: The socket to serve, as the number of an open file.
        pair: A socket whose stream ends when the supervisor does.
    """
    from ...isolation.confinement import keep_out

    keep_out()
    listener = socket.socket(fileno=listening)
    parent = socket.socket(fileno=pair)
    # The service closes its own copy of the listener to drain.
    ends = (parent, listener.dup())
    threading.Thread(target=replace_supervisor, args=ends, daemon=True).start()
    from ... import serving  # not earlier, for a supervisor may die while this takes its time

    serving.serve(None, _service_settings(), sock=listener)


def replace_supervisor(parent: socket.socket, listening: socket.socket) -> None:
    """Start another supervisor whenever the one that holds the other end of `parent` dies."""
    while True:
        _wait_for_end(parent)
        parent, supervisor_end = socket.socketpair()
        with supervisor_end:
            child = start_process(
                "supervise", listening.fileno(), supervisor_end.fileno(), service=os.getpid()
            )
        threading.Thread(target=child.wait, daemon=True).start()  # or it would stay a zombie
        time.sleep(1)  # one that dies at once does not make this a busy loop


def start_process(role: str, *fds: int, service: int = 0) -> "subprocess.Popen[bytes]":
    """Start this package as a process of its own, with open sockets handed to it.

    Args:
        role: `serve` or `supervise`.
        fds: The sockets, as numbers of open files.
        service: The process ID of the service beside a new supervisor.
    """
    command = [sys.executable, "-m", __package__, role, str(service), *map(str, fds)]
    log_path = SERVICE / f"{role}.log"
    is_short = not log_path.exists() or log_path.stat().st_size < MAX_LOG_BYTES
    # Neither a job's token, nor the mark that GitHub's runner ends all processes of a job by.
    environment = service_environment()
    with log_path.open("ab" if is_short else "wb") as log:
        # A session of its own: the Ctrl-C of a deployer does not reach it.
        return subprocess.Popen(
            command,
            env=environment,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens to a port.

    Raises:
        UsageError: The port is taken.
    """
    until = time.monotonic() + PORT_TIMEOUT_S
    while True:
        try:
            return listening_socket(host, port, BACKLOG)
        except OSError as error:
            # Our own service may hold it, if it has lost its supervisor and is starting another.
            is_ours = error.errno == errno.EADDRINUSE and is_alive(
                read_json(RUNNING).get("service")
            )
            if not is_ours or time.monotonic() > until:
                raise UsageError(
                    f"{_address(host, port)} cannot be listened to ({error.strerror}): end what "
                    f"has it, or change service.port in {DELIVERY}"
                ) from None
            time.sleep(0.2)


def write_json(path: Path, content: object) -> None:
    """Write a small JSON file whole, or not at all."""
    with atomic_write(path) as new:
        new.write_text(json.dumps(content), "utf-8")


def _service_settings() -> Service:
    """Return those of `config/delivery.yaml`; while that is broken, the last ones that were not."""
    try:
        current = load_delivery().service
    except UsageError as error:
        if not SETTINGS.exists():
            raise
        sys.stderr.write(f"ml: {error}; until then the previous settings hold\n")
        return Service.model_validate(read_json(SETTINGS))
    write_json(SETTINGS, current.model_dump())
    return current


def _wait_for_end(other: socket.socket) -> None:
    """Wait for the end of the process that holds the other end of a pair."""
    with other, suppress(ConnectionError):
        other.recv(1)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
