"""The pipeline as stages of DVC: what is stale, its cache, and the lock that says what was run."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from ... import RefusedError, UsageError, process
from . import repro
from .stages import lock_entry, read_stages, restore_lock_entry

__all__ = ["lock_entry", "read_stages", "restore_lock_entry", "run"]


def run(variables: dict[str, str], on_stage: Callable[[], None], only: str | None = None) -> None:
    """Run `dvc repro`, and end as the step that failed did, with its message.

    Args:
        variables: What is added to the environment of the steps.
        on_stage: Called when a stage begins, if any is stale.
        only: The one stage to look at; by default all of them.

    Raises:
        RefusedError, UsageError, SystemExit: As the step that failed, or DVC cannot run.
    """
    lock = Path("dvc.lock")
    if lock.exists() and "\n<<<<<<< " in f"\n{lock.read_text('utf-8', 'replace')}":
        raise UsageError(f"{lock} has a merge conflict: take either side of it, and run `ml run`")
    command = [sys.executable, "-c", f"from {repro.__name__} import main; main()"]
    command += [only] if only else []
    # The stages call `ml`, which is on the PATH only where the environment is active.
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    dvc_error = ""
    message: list[str] = []  # lines of the step that failed

    def read(line: str) -> None:
        nonlocal dvc_error, message
        if line.startswith(repro.STAGE_MARK):
            on_stage()
        elif line.startswith(repro.ERROR_MARK):
            dvc_error = line.removeprefix(repro.ERROR_MARK).rstrip()
        elif line.startswith("ml: "):
            message = [line.removeprefix("ml: ")]
        elif message and line.startswith("  "):
            message.append(line)
        else:
            sys.stderr.write(line)

    environment = {"PATH": path} | variables
    result = process.run(command, env=environment, output="shown", on_error_line=read)
    if not result.succeeded:
        raise _failure(dvc_error, "".join(message).rstrip())


def _failure(dvc_error: str, message: str) -> Exception | SystemExit:
    """Return the error that a run of DVC ended with.

    Args:
        dvc_error: What DVC wrote at its end; "" if it was killed.
        message: The message of the step that failed, if one did.
    """
    code = re.search(r"exited with (-?\d+)", dvc_error)
    if code is None:
        return UsageError(f"DVC cannot run the pipeline: {dvc_error or 'see above'}")
    errors_by_code: dict[str, type[Exception]] = {"1": RefusedError, "2": UsageError}
    if code[1] in errors_by_code:
        return errors_by_code[code[1]](message or "a step failed, for the reason given above")
    if message:
        typer.echo(f"ml: {message}", err=True)
    return SystemExit(int(code[1]))
