"""Programs of a project, each in a process of its own that has what is slow to import already.

`ml` is a second of imports and a few milliseconds of work. A server imports once what the project's
code imports from elsewhere, forgets the project's code again, and forks for each program: this has
its own arguments, folder, environment, output and exit code, and imports the code of its folder.
"""

from __future__ import annotations

import atexit
import compileall
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

# What jobs import beside a project's pipeline, when they come to it: DVC and what it needs, MLflow,
# formats of models, and the tools of a commit.
TOOLS = (
    *("alembic.command", "alembic.config", "dulwich.repo", "dvc.cli.parser", "dvc.repo.artifacts"),
    *("dvc.repo.graph", "dvc.repo.index", "dvc.repo.reproduce", "dvc.repo.stage", "dvc_render"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.sqlalchemy_store"),
    *("networkx", "onnx", "onnxruntime", "pandera.polars", "pre_commit.main", "pytest"),
    *("ruamel.yaml", "scmrepo.git", "sklearn.ensemble", "sklearn.linear_model", "skops.io"),
)
ML = "from rung_runtime.cli import main\nmain()"

processor_time = 0.0  # seconds that the programs used which have ended; none is this one's child


@cache
def server(project: Path) -> Server:
    """Return the server of an installed project, the same for each call."""
    return Server(project / ".venv/bin/python", project / "src")


class Server:
    """Run programs by the Python of an environment; it ends when this process does."""

    def __init__(self, python: Path, source: Path) -> None:
        """Start the process, and wait until it has imported what the code in a folder does."""
        self.folder = tempfile.TemporaryDirectory(prefix="warm-")
        self.address = str(Path(self.folder.name, "socket"))
        self.process = subprocess.Popen(
            [str(python), __file__, self.address, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n", "the server has not started"
        atexit.register(self.end)

    def end(self) -> None:
        """End the process, which waits for the end of its standard input."""
        self.process.communicate()
        self.folder.cleanup()

    def start(self, code: str, *argv: str, cwd: Path, env: dict[str, str]) -> Program:
        """Start code as `python -c` does; argv begins with the program's name."""
        stdout = tempfile.TemporaryFile(dir=self.folder.name)  # noqa: SIM115
        stderr = tempfile.TemporaryFile(dir=self.folder.name)  # noqa: SIM115
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        request = {"code": code, "argv": argv, "cwd": str(cwd), "env": env}
        socket.send_fds(connection, [b" "], [stdout.fileno(), stderr.fileno()])
        connection.sendall(json.dumps(request).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):  # byte by byte: the program may have ended by now
            line += connection.recv(1) or b"none\n"
        return Program(argv, int(line), connection, stdout, stderr)


@dataclass
class Program:
    """A program that was started."""

    argv: tuple[str, ...]
    pid: int
    connection: socket.socket
    stdout: IO[bytes]
    stderr: IO[bytes]
    ended: subprocess.CompletedProcess[str] | None = None

    def wait(self, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """Wait for the end, and return the exit code and what was written.

        Raises:
            TimeoutError: It has not ended in so many seconds.
        """
        global processor_time
        if self.ended is None:
            self.connection.settimeout(timeout)
            returncode, seconds = self.connection.recv(64).split()
            self.connection.close()
            processor_time += float(seconds)
            written = []
            for file in (self.stdout, self.stderr):
                file.seek(0)
                written.append(file.read().decode())
                file.close()
            self.ended = subprocess.CompletedProcess(self.argv, int(returncode), *written)
        return self.ended

    def kill(self) -> None:
        """End it by SIGKILL, unless it has ended."""
        if self.ended is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def serve(address: str, source: str) -> None:
    """Answer requests until standard input ends."""
    preload(source)
    os.fsync = lambda fd: None  # no test pulls the plug
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the forks below ended
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return answer(connection)
            connection.close()
    return None


def preload(source: str) -> None:
    """Import all that a project's pipeline imports, and keep what is not the project's own."""
    sys.path.insert(0, source)
    package = "rung_runtime"
    for name in ("cli.app", "model_package", "registry", "config.delivery", "config.drift"):
        with suppress(ModuleNotFoundError):  # what only a higher level has
            import_module(f"{package}.{name}")
    for name in ("fastapi.responses", "httpx", "prometheus_client.parser", "requests", "uvicorn"):
        with suppress(ModuleNotFoundError):  # what only a service imports
            import_module(name)
    pipeline = import_module(f"{package}.pipeline").__path__
    for module in pkgutil.iter_modules(pipeline):
        import_module(f"{package}.pipeline.{module.name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    sys.path.remove(source)


def answer(connection: socket.socket) -> None:
    """Start the program that a request describes, and reply with its exit code and what it used."""
    _, (stdout, stderr), _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    program = os.fork()
    if program:
        connection.sendall(f"{program}\n".encode())
        _, status, usage = os.wait4(program, 0)
        seconds = usage.ru_utime + usage.ru_stime
        connection.sendall(f"{os.waitstatus_to_exitcode(status)} {seconds:.3f}".encode())
        os._exit(0)
    for opened, number in ((os.open(os.devnull, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
        os.dup2(opened, number)
    connection.detach()
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))
    sys.argv[:] = request["argv"]
    returncode = execute(request["code"])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(returncode)  # to take so many modules apart would last half a second


def execute(code: str) -> int:
    """Execute code as a program, and return its exit code as Python would."""
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def import_all(source: str) -> None:
    """Import all that a project's jobs import, so that its bytecode is there."""
    with suppress(Exception):  # it may be no project
        preload(source)
    for name in TOOLS:
        with suppress(Exception):  # not all are in each environment
            import_module(name)
    if mlflow := sys.modules.get("mlflow"):  # whose migrations of a database are no modules
        compileall.compile_dir(Path(str(mlflow.__file__)).parent / "store/db_migrations", quiet=2)


if __name__ == "__main__":
    # The folder of this file holds modules whose names may be those of others.
    sys.path.pop(0)
    if sys.argv[1] == "--import":
        import_all(sys.argv[2])
    else:
        serve(*sys.argv[1:])
