"""One process for the steps of `ml run`, which imports once what all of them need.

DVC starts a process for each stage, and two thirds of its time would go into imports. With the
address of this process in its environment, `ml train` has it fork: the fork is the step, with the
arguments, folder, environment and output of its client, and the client ends as the step does.

Under `dvc repro`, and where a process cannot be forked safely (macOS, Windows), there is no such
process, and each step imports for itself.
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
from typing import NamedTuple

from . import STEP_RUNNER

MAX_ADDRESS_BYTES = 100  # of a socket, which Linux limits to 108
CRASHED = 70  # of a step, by an exception that `main` did not handle; 1 would be a refusal
INTERRUPTED = 130  # the exit code that shells give to Ctrl-C
RUNNER_WAS_KILLED = 70  # the exit code of a step whose runner did not answer
# What is slow to import, and no more than that: a pool of threads that was started, as pandera
# starts that of Polars, would not survive a fork.
SLOW = (
    "polars",
    f"{__package__}.artifacts",  # with pydantic, and the models of all documents
    "scipy.stats",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.inspection",
    "sklearn.model_selection",
    "rich.progress",
    "jinja2",
)
# These only beside a step, and so not at all if nothing is stale: skops imports all of
# scikit-learn, for most of a second in which no step could begin.
BESIDE_STEPS = ("skops.io", "onnx")


class Request(NamedTuple):
    """What a client passes to the runner, besides its stdin, stdout and stderr."""

    argv: list[str]
    folder: str
    environment: dict[str, str]


@contextmanager
def start(main: Callable[[], None]) -> Iterator[dict[str, str]]:
    """Run steps in forks of one process, for as long as the context lasts.

    Args:
        main: What a step calls; it finds its arguments in `sys.argv`.

    Yields:
        The variables that steps need to find the process; none if it cannot be forked.
    """
    with tempfile.TemporaryDirectory(prefix="ml-run-") as folder:
        address = str(Path(folder, "socket"))
        if not hasattr(os, "pidfd_open") or len(os.fsencode(address)) > MAX_ADDRESS_BYTES:
            yield {}
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            # The read end is readable once the write end is closed, as it is when we end.
            read_end, write_end = os.pipe()
            sys.stdout.flush()
            sys.stderr.flush()
            server = os.fork()
            if not server:
                os.close(write_end)
                with suppress(BaseException):
                    _serve(listener, read_end, main)
                os._exit(0)
            os.close(read_end)
        try:
            yield {STEP_RUNNER: address}
        finally:
            os.close(write_end)
            os.waitpid(server, 0)


def delegate() -> None:
    """Have the runner of this `ml run` perform this command, and end as it does.

    Returns only if there is no runner any more; the command then has to be performed here.

    Raises:
        SystemExit: The command has ended.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ[STEP_RUNNER])
        except OSError:
            return
        request = Request(sys.argv, str(Path.cwd()), dict(os.environ))
        socket.send_fds(connection, [b" "], [0, 1, 2])
        connection.sendall(json.dumps(request._asdict()).encode() + b"\n")
        with connection.makefile() as response:
            code = int(response.readline() or RUNNER_WAS_KILLED)
    if code < 0:  # it was ended by a signal, as for want of memory
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


def _serve(listener: socket.socket, read_end: int, main: Callable[[], None]) -> None:
    """Answer clients, one after the other, as DVC runs stages, until the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is meant for the step
    names = [*SLOW, *BESIDE_STEPS]
    while listener in _ready([listener, read_end], names, keep=len(BESIDE_STEPS)):
        with listener.accept()[0] as client:
            _answer(client, main, names)


def _ready(
    watched: list[socket.socket | int], names: list[str], keep: int = 0
) -> list[socket.socket | int]:
    """Wait until one of these can be read, and import meanwhile.

    So the first steps, which need little, run beside the imports for others.

    Args:
        watched: Sockets and files.
        names: The modules still to be imported, which are removed once they are.
        keep: How many of them, the last ones, are not imported now.
    """
    while len(names) > keep:
        if ready := select.select(watched, [], [], 0)[0]:
            return ready
        with suppress(Exception):  # a step that needs it will tell
            import_module(names.pop(0))
    return select.select(watched, [], [])[0]


def _answer(client: socket.socket, main: Callable[[], None], names: list[str]) -> None:
    """Run a client's step in a fork, and send its exit code."""
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as lines:
        request = Request(**json.loads(lines.readline()))
    step = os.fork()
    if not step:
        os._exit(_perform(request, files, main))
    for file in files:
        os.close(file)
    step_end = os.pidfd_open(step)
    if step_end not in _ready([step_end, client], names):
        os.kill(step, signal.SIGKILL)  # as its client was
    os.close(step_end)
    _, status = os.waitpid(step, 0)
    with suppress(OSError):
        client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _perform(request: Request, files: list[int], main: Callable[[], None]) -> int:
    """Run the step as a process of its own would, and return its exit code."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        del os.environ[STEP_RUNNER]  # else the step would delegate itself again
        sys.argv[:] = request.argv
        main()
    except SystemExit as exit_:
        if isinstance(exit_.code, int):
            return exit_.code
        return 0 if exit_.code is None else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:
        traceback.print_exc()
        return CRASHED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
