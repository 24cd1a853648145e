"""Running other programs: one function with a typed result."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plumbum import CommandNotFound, local

from .exceptions import UsageError

Output = Literal["captured", "merged", "shown"]
STDERR: dict[Output, int | None] = {
    "captured": subprocess.PIPE,
    "merged": subprocess.STDOUT,
    "shown": None,
}


@dataclass(frozen=True)
class CompletedCommand:
    """How a command ended, and what it printed."""

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
        return self.stdout.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """The standard error; bytes that are not UTF-8 are replaced."""
        return self.stderr.decode("utf-8", "replace")

    @property
    def reason(self) -> str:
        """The last line that was printed, of standard error if it has any; else the exit code."""
        lines = (self.error_text or self.text).strip().splitlines()
        return lines[-1] if lines else f"exit code {self.returncode}"


def is_installed(program: str) -> bool:
    """Check whether a program is on the PATH."""
    return program in local


def run(
    command: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    output: Output = "captured",
    report: Callable[[str], None] | None = None,
) -> CompletedCommand:
    """Run a command to its end.

    An active virtual environment is hidden from it: a project has its own. If this process is
    interrupted, so is the command, as Ctrl-C would do it; it may have started others in turn.

    Args:
        command: A program and its arguments.
        folder: The working directory.
        env: Environment variables, in addition to those of this process.
        stdin: What the command reads; of one whose output is shown, the terminal.
        output: "captured" keeps standard output and error apart, "merged" puts both into `stdout`
            in their order, "shown" sends both to the terminal.
        report: Called with each line of "merged" output once it is printed.

    Raises:
        UsageError: The program is not on the PATH.
    """
    environment = local.env.getdict() | dict(env or {})  # plumbum's, as Copier uses it, too
    environment.pop("VIRTUAL_ENV", None)
    program, *args = command
    try:
        executable = str(local.which(program))
    except CommandNotFound:
        raise UsageError(f"{program} is not installed: install it, then try again") from None
    shown = output == "shown"
    process = subprocess.Popen(
        [executable, *args],
        cwd=folder,
        env=environment,
        stdin=None if shown else subprocess.PIPE,
        stdout=None if shown else subprocess.PIPE,
        stderr=STDERR[output],
    )
    try:
        if report and process.stdout:
            lines = []
            for line in process.stdout:
                lines.append(line)
                report(line.decode("utf-8", "replace"))
            process.wait()
            return CompletedCommand(process.returncode, b"".join(lines))
        stdout, stderr = process.communicate(None if shown else stdin)
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    return CompletedCommand(process.returncode, stdout or b"", stderr or b"")
