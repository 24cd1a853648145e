"""Running other programs to their end: one function with a typed result.

What talks with a process while it runs, or leaves it running, starts it itself. There are few of
these; tests/test_structure.py names them, and why. The command `rung` has a function like this one,
in a package that does not import this one.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from .escaping import visible
from .exceptions import RungError, UsageError

Output = Literal["captured", "shown"]
MAX_REASON_LINES = 12


@dataclass(frozen=True)
class CompletedCommand:
    """How a command ended, and what it printed."""

    command: tuple[str, ...]
    returncode: int
    stdout: bytes = b""
    stderr: bytes = b""

    @property
    def succeeded(self) -> bool:
        """Whether the exit code is 0."""
        return self.returncode == 0

    @property
    def text(self) -> str:
        """The standard output; bytes that are not UTF-8 are replaced."""
        return _decoded(self.stdout)

    @property
    def error_text(self) -> str:
        """The standard error; bytes that are not UTF-8 are replaced."""
        return _decoded(self.stderr)

    @property
    def reason(self) -> str:
        """Why it failed, for the end of a sentence.

        That is what it printed: to standard error, or else to standard output. The last line alone
        is seldom the cause, so several are kept, each on a line of its own.
        """
        output = self.error_text.strip() or self.text.strip()
        lines = [visible(line.rstrip()) for line in output.splitlines() if line.strip()]
        if len(lines) > MAX_REASON_LINES:
            lines = ["…", *lines[-MAX_REASON_LINES:]]
        if len(lines) < 2:
            return "".join(lines) or f"exit code {self.returncode}"
        return "".join(f"\n  {line}" for line in lines)

    def output_or(self, failure: type[RungError]) -> str:
        """Return the standard output of a command that succeeded.

        Raises:
            RungError: It failed; of the type that is given.
        """
        if not self.succeeded:
            words = takewhile(lambda word: not word.startswith("-"), self.command[:3])
            raise failure(f"{' '.join(words)} failed: {self.reason}")
        return self.text


def run(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    seconds: float | None = None,
    output: Output = "captured",
    on_error_line: Callable[[str], None] | None = None,
) -> CompletedCommand:
    """Run a command to its end.

    Args:
        command: A program and its arguments.
        folder: The working directory; None: that of this process.
        env: Environment variables, in addition to those of this process.
        stdin: What the command reads; None: what this process would.
        seconds: How long it may take; it is killed then.
        output: "captured" keeps the standard output, "shown" sends it where that of this process
            goes. Standard error is captured.
        on_error_line: Called with each line of standard error once it is printed, and it is not
            captured then; for a command without `stdin` and `seconds` whose output is shown.

    Raises:
        UsageError: The program is not on the PATH, cannot be started, or takes too long.
    """
    program = Path(command[0]).name
    environment = os.environ | dict(env or {})
    try:
        if on_error_line:
            return _followed(command, folder, environment, on_error_line)
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input=stdin,
            stdout=subprocess.PIPE if output == "captured" else None,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(f"{program} is not installed: install it, then try again") from None
    except OSError as error:
        raise UsageError(f"{program} cannot be started: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{program} does not answer within {seconds:g} s") from None
    return CompletedCommand(tuple(command), done.returncode, done.stdout or b"", done.stderr)


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a process, or minus the signal that ended it; None while it runs.

    Unlike `Popen.poll`, it leaves the process its number, which is its group's as well: what is
    killed by that number later is this group, and no other one that has it by then.
    """
    if process.returncode is not None or not hasattr(os, "waitid"):  # macOS, before Python 3.13
        return process.poll()
    state = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if state is None:
        return None
    return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process that leads a group, and to those that it started.

    Nothing is sent once somebody has waited for it, as another group may have its number.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: of a group that has ended
            os.killpg(process.pid, number)


def _followed(
    command: Sequence[str],
    folder: Path | None,
    environment: Mapping[str, str],
    on_error_line: Callable[[str], None],
) -> CompletedCommand:
    """Run a command, and pass on each line of its standard error."""
    # Decoded here, a line ends at a carriage return, too, so that bars of progress move.
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stderr or ():
            on_error_line(line)
    return CompletedCommand(tuple(command), process.returncode)


def _decoded(output: bytes) -> str:
    return output.decode("utf-8", "replace").replace("\r\n", "\n")
