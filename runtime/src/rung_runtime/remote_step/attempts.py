"""Attempts: a step that failed by no fault of data or code is tried again.

A cloud often cannot tell exit codes apart, and would repeat a refusal, or nothing. So the command
itself runs as a child, again where that may help: 1 (a check refused) and 2 (bad input) are final.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import typer

from ..process import exit_code, signal_group

FINAL = (0, 1, 2)
TIMED_OUT = 124  # the exit code that `timeout` gives
SIGNALLED = 128  # plus the number of the signal, as shells say it
GRACE_SECONDS = 20.0  # between the request to end and the end
LOOK_SECONDS = 0.5
START = "from rung_runtime.cli import main; main()"


class Child:
    """A command in a process group of its own, so that all of it ends."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        command = [sys.executable, "-c", START, *arguments]
        self.process = subprocess.Popen(command, cwd=folder, start_new_session=True)
        self.is_stopped = False

    def wait(self, seconds: float | None) -> int:
        """Return its exit code, as a shell would."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            return TIMED_OUT
        return SIGNALLED - code if code < 0 else code

    def end(self) -> None:
        """Have it end, and end it if it does not."""
        signal_group(self.process, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while exit_code(self.process) is None and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        signal_group(self.process, signal.SIGKILL)  # what is left of its group
        self.process.wait()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Pass on a signal that this process got; nothing is tried again after it."""
        self.is_stopped = True
        signal_group(self.process, signal.SIGTERM)


def _pause(seconds: float, child: Child) -> None:
    """Wait, unless a signal says that nothing is to be tried again."""
    end = time.monotonic() + seconds
    while not child.is_stopped and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))


def run_attempts(
    name: str,
    arguments: list[str],
    folder: Path,
    retries: int,
    delay_seconds: float,
    timeout_minutes: float,
) -> int:
    """Run a command of `ml`, again if that may help.

    Args:
        name: What it is called in messages.
        arguments: Of `ml`.
        folder: Where it was called.
        retries: How often it is tried again.
        delay_seconds: The pause before.
        timeout_minutes: Of each attempt; 0: none.

    Returns:
        The exit code of the last attempt.
    """
    for attempt in range(retries + 1):
        child = Child(arguments, folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, child.stop)
        code = child.wait(timeout_minutes * 60 or None)
        if code in FINAL or child.is_stopped:
            return code
        reason = f"exit code {code}"
        if code == TIMED_OUT:
            reason = f"it did not end within {timeout_minutes:g} minutes"
        if attempt < retries:
            typer.echo(
                f"{name} failed ({reason}), and is tried again in {delay_seconds:g} s"
                f" ({attempt + 1} of {retries})",
                err=True,
            )
            _pause(delay_seconds, child)
            if child.is_stopped:
                return code
    typer.echo(f"ml: {name} failed: {reason}", err=True)
    return code
