"""The pipeline as stages of DVC: what is stale, its cache, and the lock that says what was run."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ... import RefusedError, UsageError, process
from . import repro
from .stages import check_lock, lock_entry, read_stages, restore_lock_entry

TRACEBACK = "Traceback (most recent call last):"
SIGNALLED = 128  # plus the number of the signal, as shells say it

__all__ = ["lock_entry", "read_stages", "restore_lock_entry", "run"]


def run(
    variables: dict[str, str], on_stage: Callable[[str], None], only: str | None = None
) -> None:
    """Run `dvc repro`, and end as the step that failed did, with its message.

    Args:
        variables: What is added to the environment of the steps.
        on_stage: Called with the name of each stage that is stale, when it begins.
        only: The one stage to look at; by default all of them.

    Raises:
        RefusedError, UsageError, SystemExit: As the step that failed, or DVC cannot run.
    """
    check_lock()
    command = [sys.executable, "-c", f"from {repro.__name__} import main; main()"]
    command += [only] if only else []
    # The stages call `ml`, which is on the PATH only where the environment is active.
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"
    dvc_error = ""
    message: list[str] = []  # lines of the step that failed
    has_traceback = False  # as a script of a stage that is not of `ml` may print one

    def read(line: str) -> None:
        nonlocal dvc_error, message, has_traceback
        if line.startswith(repro.STAGE_MARK):
            on_stage(line.removeprefix(repro.STAGE_MARK).rstrip())
        elif line.startswith(repro.ERROR_MARK):
            dvc_error = line.removeprefix(repro.ERROR_MARK).rstrip()
        elif line.startswith("ml: "):
            message = [line.removeprefix("ml: ")]
        elif message and line.startswith("  "):
            message.append(line)
        else:
            has_traceback = has_traceback or line.startswith(TRACEBACK)
            sys.stderr.write(line)

    environment = {"PATH": path} | variables
    result = process.run(command, env=environment, output="shown", on_error_line=read)
    if not result.succeeded:
        raise _failure(dvc_error, "".join(message).rstrip(), result.returncode, has_traceback)


def _failure(
    dvc_error: str, message: str, returncode: int = 1, has_traceback: bool = False
) -> Exception | SystemExit:
    """Return the error that a run of DVC ended with.

    Args:
        dvc_error: What DVC wrote at its end; "" if it was killed, or crashed.
        message: The message of the step that failed, if one did.
        returncode: Of the process of DVC.
        has_traceback: Whether a traceback was printed.
    """
    code = re.search(r"exited with (-?\d+)", dvc_error)
    if code is None and dvc_error:
        return UsageError(f"DVC cannot run the pipeline: {dvc_error}")
    if code is None and returncode == repro.INTERRUPTED:
        return SystemExit(repro.INTERRUPTED)
    if code is None:
        is_killed = returncode < 0
        reason = f"signal {-returncode} ended it" if is_killed else "see the lines above"
        sys.stderr.write(f"ml: DVC crashed: {reason}\n")
        return SystemExit(SIGNALLED - returncode if is_killed else repro.CRASHED)
    if code[1] == "1" and has_traceback and not message:
        # Python ends with 1 after a traceback: `ml` itself says why it refuses.
        sys.stderr.write("ml: a stage crashed: see the lines above\n")
        return SystemExit(repro.CRASHED)
    errors_by_code: dict[str, type[Exception]] = {"1": RefusedError, "2": UsageError}
    if code[1] in errors_by_code:
        return errors_by_code[code[1]](message or "a step failed, for the reason given above")
    if message:
        sys.stderr.write(f"ml: {message}\n")
    return SystemExit(int(code[1]))
