"""A model that answers from a process of its own, in the place of `model_package.Model`.

Nothing of the package is imported here. What comes back is read as numbers and short texts; a
package that answers wrongly is a package that predicts wrongly, and no more.
"""

import io
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError
from ..config import Data
from ..model_package import Model, Reply, verified_manifest
from ..pipeline.validate import FailedRule, failed_rule, failures
from ..process import signal_group
from ..records import RuleKind
from . import environment
from .folder import temporary_home
from .pipe import Message, PackageError, ask, read_response
from .project_files import unchanged

__all__ = ["IsolatedModel", "PackageError", "open_isolated"]

MAX_LOG = 2_000  # characters of the log of a process that did not start
RULE_KINDS = get_args(RuleKind)
MAX_RULES = 1_000  # of `problem/schema.py` that rows break at a time
NO_FAILURES = "its rules do not name failures in the form that is asked for"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class IsolatedModel(Model):
    """A package that answers from its own process.

    Attributes:
        process: The process.
        unconfined: Why it is not confined; "" if it is.
        max_seconds: How long one answer may take; None: as long as it takes.
    """

    process: "subprocess.Popen[bytes]" = field(repr=False)
    unconfined: str
    max_seconds: float | None = None

    def failures(self, rows: pl.DataFrame) -> list[FailedRule]:
        """See `Model.failures`.

        Raises:
            PackageError: Its rules fail.
        """
        response = self._ask("failures", rows)
        failed = response.facts.get("failures")
        if not isinstance(failed, list) or not all(map(_is_failure, failed)):
            raise PackageError(NO_FAILURES)
        return failed

    def all_failures(self, rows: pl.DataFrame) -> list[FailedRule]:
        """See `Model.all_failures`. The contract is judged here, its own rules in its process.

        Raises:
            PackageError: Its rules fail.
        """
        failed = failures(rows, self.request_contract, _no_rules, max_samples=rows.height)
        row_bytes = (rows.height + 7) // 8
        response = self._ask("rules", rows, MAX_RULES * row_bytes)
        names = response.facts.get("rules")
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len(response.body) != len(names) * row_bytes
        ):
            raise PackageError(NO_FAILURES)
        for number, name in enumerate(names):
            bits = response.body[number * row_bytes :][:row_bytes]
            is_broken = np.unpackbits(np.frombuffer(bits, np.uint8), count=rows.height)
            index = np.flatnonzero(is_broken).tolist()
            count = len(index)
            failed.append(failed_rule(None, name, "custom", count, ["false"], index, rows.height))
        return failed

    def predict(self, rows: pl.DataFrame) -> Floats:
        """See `Model.predict`.

        Raises:
            PackageError: Its code fails, or predicts another number of rows.
        """
        return self._numbers("predict", rows, rows.height)

    def reply(self, rows: pl.DataFrame, tries: int = 1) -> Reply:
        """See `model_package.reply`. The time is that in its process, without the way there.

        One that names an impossible time, or predicts no numbers, cannot answer.
        """
        start = time.perf_counter()
        shape = self._shape(rows.height)
        size = 8 * math.prod(shape)
        try:
            response = self._ask("reply", rows, size, tries=tries)
            elapsed = time.perf_counter() - start
            seconds = float(response.facts["seconds"])
            if not response.body or not 0 < seconds <= elapsed:
                return Reply(elapsed, None)
            predictions = _numbers(response, shape)
            return Reply(seconds, predictions if np.isfinite(predictions).all() else None)
        except (PackageError, LookupError, TypeError, ValueError, OverflowError):
            return Reply(time.perf_counter() - start, None)

    def out_of_fold(self, rows: pl.DataFrame, data: Data, count: int) -> Floats:
        """Return the out-of-fold predictions of its recipe: see `recipes.out_of_fold`.

        Args:
            rows: (n, …) typed rows, with their target.
            data: The contract that the target is read by, and the folds are made by.
            count: How many rows are predicted.

        Raises:
            PackageError: Its code fails, or predicts another number of rows.
        """
        return self._numbers("out_of_fold", rows, count, data=data.model_dump())

    def _numbers(self, task: str, rows: pl.DataFrame, count: int, **arguments: Any) -> Floats:
        """Return (count, classes) probabilities, or (count,) values of a regression."""
        shape = self._shape(count)
        response = self._ask(task, rows, 8 * math.prod(shape), **arguments)
        return _numbers(response, shape)

    def _shape(self, count: int) -> tuple[int, ...]:
        """Return the shape of predictions for so many rows."""
        return (count,) if self.data.task == "regression" else (count, len(self.data.classes))

    def _ask(
        self, task: str, rows: pl.DataFrame, max_response_bytes: int = 0, **arguments: Any
    ) -> Message:
        table = io.BytesIO()
        rows.write_ipc_stream(table)
        request = Message({"do": task, **arguments}, table.getvalue())
        return ask(self.process, request, max_response_bytes, self.max_seconds)


@contextmanager
def open_isolated(
    folder: Path,
    package_digest: str,
    *,
    threads: int = 0,
    watches_project: bool = True,
    max_seconds: float | None = None,
    without: Iterable[str] = (),
    parent: Path | None = None,
) -> Iterator[IsolatedModel]:
    """Start a process for a package, and end it afterwards.

    Args:
        folder: The package. The process gets a copy, in a temporary folder.
        package_digest: The digest that it must have.
        threads: How many may share a large batch: see `load_package`.
        watches_project: Whether files of the project are compared before and after, where the
            process cannot be confined. Not where we write to them ourselves meanwhile.
        max_seconds: How long it may take to open, and to answer once; None: as long as it takes.
        without: Modules that it cannot import, as if they were not installed.
        parent: Where the temporary folder is made; None: where they usually are.

    Raises:
        UsageError: It is damaged, or another one, or its code cannot be imported.
        RefusedError: On a runner, files of the project were changed meanwhile.
    """
    with temporary_home(parent) as home:
        shutil.copytree(folder, home / "package")
        manifest = verified_manifest(home / "package")
        if manifest["package_digest"] != package_digest:
            raise UsageError(f"{folder}/ is another package than {package_digest}")
        data = Data.model_validate_json((home / "package/contract.json").read_text("utf-8"))
        log_file = home / "worker.log"
        with log_file.open("wb") as log:
            process = _start(home, log, threads, without)
        unconfined = _confinement(process, log_file)
        # The process has ended before the files are looked at.
        opening = {"do": "open", "package_digest": package_digest, "threads": threads}
        with unchanged(unconfined) if watches_project else nullcontext(), _ended(process):
            try:
                ask(process, Message(opening), max_seconds=max_seconds)
            except PackageError as error:
                raise UsageError(f"the package in {folder}/ cannot be opened: {error}") from None
            absent: Any = _absent
            yield IsolatedModel(
                manifest,
                data,
                data.for_predicting(),
                absent,
                absent,
                absent,
                process,
                unconfined,
                max_seconds,
                folder=folder,
            )


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a process, and those that it started, afterwards."""
    try:
        yield
    finally:
        signal_group(process, signal.SIGKILL)
        process.communicate()


def _start(
    home: Path, log: IO[bytes], threads: int, without: Iterable[str]
) -> "subprocess.Popen[bytes]":
    """Start a process that may only write below `home`; of threads, Polars has as many."""
    python_path = [str(Path(folder).absolute()) for folder in sys.path if folder]
    own = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "JOBLIB_MULTIPROCESSING": "0",  # its processes would need more; its threads do not
        "PYTHONPATH": os.pathsep.join(python_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if threads:
        own["POLARS_MAX_THREADS"] = os.environ.get("POLARS_MAX_THREADS", str(threads))
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", f"{__package__}.worker", str(home), *without],
        cwd=home,
        env=environment.passed_on() | own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


def _confinement(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return why a process is not confined; "" if it is. Nothing of the package has run yet."""
    try:
        return str(read_response(process).facts["unconfined"])
    except PackageError:
        process.wait()
        output = log.read_text("utf-8")[-MAX_LOG:]
        raise RuntimeError(f"the process for a package did not start: {output}") from None
    except BaseException:  # Ctrl-C
        process.kill()
        raise


def _numbers(response: Message, shape: tuple[int, ...]) -> Floats:
    """Return the numbers of a response.

    Raises:
        PackageError: They have another shape.
    """
    if response.facts.get("shape") != list(shape) or len(response.body) != 8 * math.prod(shape):
        raise PackageError(f"it predicts another shape than {shape}")
    return np.frombuffer(response.body, "<f8").reshape(shape).astype(float)


def _is_failure(failure: object) -> bool:
    """Check what is read of a failure: a rule of `problem/` has no column, and all others have."""
    if not isinstance(failure, dict) or failure.get("kind") not in RULE_KINDS:
        return False
    column_type = type(None) if failure["kind"] == "custom" else str
    return isinstance(failure.get("rule"), str) and isinstance(failure.get("column"), column_type)


def _no_rules(_: Collection[str]) -> Mapping[str, pl.Expr]:
    return {}


def _absent(_: pl.DataFrame) -> Any:
    raise TypeError("the code of an isolated package is in its process alone")
