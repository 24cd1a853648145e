"""One process for the steps of `ml run`, which imports once what all of them need.

DVC starts a process for each stage, and two thirds of its time would go into imports. With the
address of this one in its environment, `ml train` has it fork: the fork is the step, with the
arguments, folder, environment and output of its client, and the client ends as the step does.

Under `dvc repro`, and where a process cannot be forked safely (macOS, Windows), nothing of this is
there, and each step imports for itself.
"""

import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from . import STEP_RUNNER

LONGEST = 100  # bytes of a socket's address, which Linux limits to 108
# What is slow to import, and no more than that: a pool of threads that has begun, as pandera begins
# that of Polars, would not survive a fork.
SLOW = (
    "polars",
    "scipy.stats",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.inspection",
    "sklearn.model_selection",
    "skops.io",
    "jsonschema",
    "rich.progress",
)


@contextmanager
def start(main: Callable[[], None]) -> Iterator[dict[str, str]]:
    """Run steps in forks of one process, for as long as the context lasts.

    Args:
        main: What a step calls; it finds its arguments in `sys.argv`.

    Yields:
        The variables that steps need to find the process; none where there is none.
    """
    with tempfile.TemporaryDirectory(prefix="ml-run-") as folder:
        address = str(Path(folder, "socket"))
        if not hasattr(os, "pidfd_open") or len(os.fsencode(address)) > LONGEST:
            yield {}
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            running, end = os.pipe()  # at its end when this process is
            sys.stdout.flush()
            sys.stderr.flush()
            server = os.fork()
            if not server:
                os.close(end)
                with suppress(BaseException):
                    _serve(listener, running, main)
                os._exit(0)
            os.close(running)
        try:
            yield {STEP_RUNNER: address}
        finally:
            os.close(end)
            os.waitpid(server, 0)


def delegate() -> None:
    """Have the runner of this `ml run` perform this command, and end as it does.

    Returns only if there is no runner any more, as the command then has to be performed here.

    Raises:
        SystemExit: The command has ended.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[STEP_RUNNER])
        except OSError:
            return
        request = {"argv": sys.argv, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(connection, [b" "], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answer:
            code = int(answer.readline() or 70)  # the runner was killed
    if code < 0:  # by a signal, as for want of memory
        with suppress(OSError):  # of SIGKILL that cannot be said, and need not be
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


def _serve(listener: socket.socket, running: int, main: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the step
    for name in SLOW:
        with suppress(ImportError):
            import_module(name)
    # One after the other, as DVC runs stages.
    watched: list[socket.socket | int] = [listener, running]
    while listener in select.select(watched, [], [])[0]:
        with listener.accept()[0] as client:
            _answer(client, main)


def _answer(client: socket.socket, main: Callable[[], None]) -> None:
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as lines:
        request = json.loads(lines.readline())
    step = os.fork()
    if not step:
        os._exit(_perform(request, files, main))
    for file in files:
        os.close(file)
    ended = os.pidfd_open(step)
    watched: list[socket.socket | int] = [ended, client]
    if ended not in select.select(watched, [], [])[0]:
        os.kill(step, signal.SIGKILL)  # as its client was
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(step, 0)[1])
    with suppress(OSError):
        client.sendall(f"{code}\n".encode())


def _perform(request: dict[str, Any], files: list[int], main: Callable[[], None]) -> int:
    """Run the step as a process of its own would, and return its exit code."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        del os.environ[STEP_RUNNER]  # this is where it led to
        sys.argv[:] = request["argv"]
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
