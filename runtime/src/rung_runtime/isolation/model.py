"""Model: a package that answers from a process of its own, in the place of `inference.Model`.

Nothing of the package is imported here. What comes back is read as numbers and short texts; a
package that answers wrongly is a package that predicts wrongly, and no more.
"""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import RefusedError, UsageError
from ..config import Data
from ..model_package import Model, verified
from ..registry.checkout import is_runner
from . import environment

LONGEST = 1_000_000  # bytes of the facts of an answer
# What is written meanwhile by us: copies of packages, which count by their digest, and Git's and
# DVC's own state. Hooks and settings in .git are looked at.
OURS = [Path(name) for name in ("artifacts/champion", ".dvc/tmp", ".git/index", ".git/objects")]
Floats = NDArray[np.float64]


class PackageError(Exception):
    """The code of a package failed, or answered what is no answer."""


@dataclass(frozen=True)
class IsolatedModel(Model):
    """What a package answers with, from its own process."""

    process: "subprocess.Popen[bytes]" = field(repr=False)
    unconfined: str  # why its process is not confined; "" if it is

    def failures(self, rows: pl.DataFrame) -> list[dict[str, Any]]:
        """See `Model.failures`.

        Raises:
            PackageError: Its rules fail.
        """
        answer, _ = self._ask("failures", rows)
        failures = answer.get("failures")
        if not isinstance(failures, list) or not all(map(_is_failure, failures)):
            raise PackageError("its rules name failures in a form that is none")
        return failures

    def predict(self, rows: pl.DataFrame) -> Floats:
        """See `Model.predict`.

        Raises:
            PackageError: Its code fails, or predicts another number of rows.
        """
        return self._numbers("predict", rows, rows.height)

    def out_of_fold(self, rows: pl.DataFrame, data: Data, count: int) -> Floats:
        """Return what its recipe predicts of (n, …) rows out of fold: see `recipes.out_of_fold`.

        Args:
            rows: Typed rows, with their target.
            data: The contract that the target is read by, and the folds are made by.
            count: How many rows are predicted.

        Raises:
            PackageError: Its code fails, or predicts another number of rows.
        """
        return self._numbers("out_of_fold", rows, count, data=data.model_dump())

    def _numbers(self, do: str, rows: pl.DataFrame, count: int, **more: Any) -> Floats:
        classes = len(self.data.classes)
        shape = (count,) if self.data.task == "regression" else (count, classes)
        size = 8 * int(np.prod(shape))
        answer, body = self._ask(do, rows, size, **more)
        if answer.get("shape") != list(shape) or len(body) != size:
            raise PackageError(f"it predicts another shape than {shape}")
        return np.frombuffer(body, "<f8").reshape(shape).astype(float)

    def _ask(
        self, do: str, rows: pl.DataFrame, most: int = 0, **more: Any
    ) -> tuple[dict[str, Any], bytes]:
        table = io.BytesIO()
        rows.write_ipc_stream(table)
        return _ask(self.process, {"do": do, **more}, table.getvalue(), most)


@contextmanager
def opened(folder: Path, package_digest: str) -> Iterator[IsolatedModel]:
    """Start a process for a package, and end it afterwards.

    Args:
        folder: Of a package. The process gets a copy, in a temporary folder.
        package_digest: That of the package which it must be.

    Raises:
        UsageError: It is damaged, or another one, or its code cannot be imported.
        RefusedError: On a runner, files of the project were changed meanwhile.
    """
    with TemporaryDirectory(prefix="ml-isolated-") as place:
        own = Path(place).resolve()
        shutil.copytree(folder, own / "package")
        manifest = verified(own / "package")
        if manifest["package_digest"] != package_digest:
            raise UsageError(f"{folder}/ is another package than {package_digest}")
        data = Data.model_validate_json((own / "package/contract.json").read_text("utf-8"))
        with (own / "worker.log").open("wb") as log:
            process = _started(own, log)
        # It has ended before the files are looked at.
        with _watched(_first_words(process, own / "worker.log")) as unconfined, _ended(process):
            try:
                _ask(process, {"do": "open", "package_digest": package_digest})
            except PackageError as error:
                raise UsageError(f"the package in {folder}/ cannot be opened: {error}") from None
            absent: Any = _absent
            yield IsolatedModel(
                manifest, data, data.for_predicting(), None, absent, absent, process, unconfined
            )


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a process, and those that it started, afterwards."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@contextmanager
def _watched(unconfined: str) -> Iterator[str]:
    """See that no file of the project changes, where this is a runner that confines nothing.

    Raises:
        RefusedError: One has changed, however it ended.
    """
    if not unconfined or not is_runner():
        yield unconfined
        return
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # else our own imports would be changes
    before = _project()
    try:
        yield unconfined
    finally:
        sys.dont_write_bytecode = writes
        if changed := sorted(dict(before.items() ^ _project().items())):
            raise RefusedError(
                f"while a package was scored that could not be confined ({unconfined}), files of"
                f" the project changed: {', '.join(changed[:5])}"
            )


def _started(own: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    # Its home and its temporary files are in the one folder that it may write to. Processes of
    # joblib would need more; its threads do not.
    mine = {"HOME": str(own), "TMPDIR": str(own), "JOBLIB_MULTIPROCESSING": "0"}
    mine["PYTHONPATH"] = os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)
    mine["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-P", "-s", "-m", f"{__package__}.worker", str(own)]
    return subprocess.Popen(
        command,
        cwd=own,
        env=environment.passed_on() | mine,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _first_words(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return why a process is not confined; "" if it is. Nothing of the package has run yet."""
    try:
        return str(_answered(process)[0]["unconfined"])
    except PackageError:
        process.wait()
        raise RuntimeError(f"no process for a package: {log.read_text('utf-8')[-2_000:]}") from None
    except BaseException:  # Ctrl-C
        process.kill()
        raise


def _ask(
    process: "subprocess.Popen[bytes]", request: dict[str, Any], body: bytes = b"", most: int = 0
) -> tuple[dict[str, Any], bytes]:
    line = json.dumps(request | {"bytes": len(body)})
    assert process.stdin
    try:
        process.stdin.write(f"{line}\n".encode() + body)
        process.stdin.flush()
    except OSError:
        raise PackageError("its process has ended") from None
    return _answered(process, most)


def _answered(process: "subprocess.Popen[bytes]", most: int = 0) -> tuple[dict[str, Any], bytes]:
    """Read an answer: facts, and at most so many bytes."""
    assert process.stdout
    line = process.stdout.readline(LONGEST)
    if not line:
        raise PackageError("its process has ended")
    try:
        answer: dict[str, Any] = json.loads(line)
        size = int(answer["bytes"])
        if not 0 <= size <= most:
            raise ValueError(size)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        process.kill()  # what else is in the pipe could be taken for the next answer
        raise PackageError("what it answers is no answer") from None
    body = process.stdout.read(size)
    if "error" in answer:
        # One line, whatever it holds: it goes into documents and onto a terminal.
        reason = " ".join(f"{answer['error']}: {answer.get('message')}".split())
        raise PackageError("".join(filter(str.isprintable, reason))[:200])
    return answer, body


def _is_failure(failure: object) -> bool:
    return (
        isinstance(failure, dict)
        and isinstance(failure.get("rule"), str)
        and isinstance(failure.get("column"), str | None)
    )


def _absent(_: pl.DataFrame) -> Any:
    raise TypeError("the code of an isolated package is in its process alone")


def _project() -> dict[str, tuple[int, ...]]:
    """What tells each file of the project from another one in its place, without reading it."""
    found: dict[str, tuple[int, ...]] = {}
    for path in Path().rglob("*"):
        if any(path.is_relative_to(own) for own in OURS):
            continue
        with suppress(OSError):
            of = path.lstat()
            if not stat.S_ISDIR(of.st_mode):
                facts = (of.st_mode, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_ino)
                found[str(path)] = facts
    return found
