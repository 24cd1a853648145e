"""The pipe between a package's process and ours: messages of a line of JSON, and bytes.

The line says how many bytes follow it. What comes from the process may be anything.
"""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from ..process import exit_code, signal_group

MAX_LINE_BYTES = 1_000_000
MAX_REASON = 200  # characters
ENDING_S = 1.0  # for a process that has closed its end of the pipe
LOOK_S = 0.01


class PackageError(Exception):
    """The code of a package failed, or its process sent something that is not a response.

    Attributes:
        where: The line of its code at which it failed; "" if that is not known.
    """

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(reason)
        self.where = where

    @property
    def sentence(self) -> str:
        """Return what failed, for a person who asked the package for something."""
        return f"{self.where or 'the package cannot answer'}: {self}"


class ProcessEndedError(PackageError):
    """The process of a package has ended: it answers nothing any more."""


class Message(NamedTuple):
    """A request or a response."""

    facts: dict[str, Any]
    body: bytes = b""


def write_message(stream: IO[bytes], message: Message) -> None:
    """Write a message, and flush the stream."""
    line = json.dumps(message.facts | {"bytes": len(message.body)}, default=str)
    stream.write(f"{line}\n".encode() + message.body)
    stream.flush()


def ask(
    process: subprocess.Popen[bytes],
    request: Message,
    max_response_bytes: int = 0,
    max_seconds: float | None = None,
) -> Message:
    """Send a request to a process, and return the response.

    Raises:
        PackageError: The process has ended, reports an error, sends no response, or takes longer
            than it may. It is ended then.
    """
    assert process.stdin
    with _time_limit(process, max_seconds):
        try:
            write_message(process.stdin, request)
        except OSError:
            raise ProcessEndedError(_end_of(process)) from None
        return read_response(process, max_response_bytes)


def _end_of(process: subprocess.Popen[bytes]) -> str:
    """Say how a process has ended that no longer answers."""
    until = time.monotonic() + ENDING_S  # it may have closed the pipe, and go on
    while (code := exit_code(process)) is None and time.monotonic() < until:
        time.sleep(LOOK_S)
    if code == -signal.SIGKILL:
        return "its process was killed, for too much time or memory"
    return "its process has ended"


@contextmanager
def _time_limit(process: subprocess.Popen[bytes], seconds: float | None) -> Iterator[None]:
    """End a process, and those that it started, if what is within takes too long."""
    if seconds is None:
        yield
        return
    has_expired = threading.Event()

    def end() -> None:
        has_expired.set()
        signal_group(process, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except PackageError:
        if has_expired.is_set():
            reason = f"it did not answer within {seconds:g} seconds"
            raise ProcessEndedError(reason) from None
        raise
    finally:
        timer.cancel()


def read_response(process: subprocess.Popen[bytes], max_response_bytes: int = 0) -> Message:
    """Read a response with at most so many bytes.

    Raises:
        PackageError: The process has ended, reports an error, or sends no response.
    """
    assert process.stdout
    line = process.stdout.readline(MAX_LINE_BYTES)
    if not line:
        raise ProcessEndedError(_end_of(process))
    try:
        facts: dict[str, Any] = json.loads(line)
        size = int(facts["bytes"])
        if not 0 <= size <= max_response_bytes:
            raise ValueError(size)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        signal_group(
            process, signal.SIGKILL
        )  # what else is in the pipe could be taken for the next response
        raise ProcessEndedError("what it sends is not a response") from None
    body = process.stdout.read(size)
    if "error" in facts:
        reason = _one_line(f"{facts['error']}: {facts.get('message')}")
        raise PackageError(reason, _one_line(str(facts.get("where") or "")))
    return Message(facts, body)


def _one_line(text: str) -> str:
    """Return one short line, whatever a text holds: it goes into documents and onto a terminal."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:MAX_REASON]
