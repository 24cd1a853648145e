"""The pipe between a package's process and ours: messages of a line of JSON, and bytes.

The line says how many bytes follow it. What comes from the process may be anything.
"""

import json
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import subprocess

MAX_LINE_BYTES = 1_000_000
MAX_REASON = 200  # characters


class PackageError(Exception):
    """The code of a package failed, or its process sent something that is not a response."""


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
    process: "subprocess.Popen[bytes]", request: Message, max_response_bytes: int = 0
) -> Message:
    """Send a request to a process, and return the response.

    Raises:
        PackageError: The process has ended, reports an error, or sends no response.
    """
    assert process.stdin
    try:
        write_message(process.stdin, request)
    except OSError:
        raise PackageError("its process has ended") from None
    return read_response(process, max_response_bytes)


def read_response(process: "subprocess.Popen[bytes]", max_response_bytes: int = 0) -> Message:
    """Read a response with at most so many bytes.

    Raises:
        PackageError: The process has ended, reports an error, or sends no response.
    """
    assert process.stdout
    line = process.stdout.readline(MAX_LINE_BYTES)
    if not line:
        raise PackageError("its process has ended")
    try:
        facts: dict[str, Any] = json.loads(line)
        size = int(facts["bytes"])
        if not 0 <= size <= max_response_bytes:
            raise ValueError(size)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        process.kill()  # what else is in the pipe could be taken for the next response
        raise PackageError("what it sends is not a response") from None
    body = process.stdout.read(size)
    if "error" in facts:
        # One line, whatever it holds: it goes into documents and onto a terminal.
        reason = " ".join(f"{facts['error']}: {facts.get('message')}".split())
        printable = "".join(character for character in reason if character.isprintable())
        raise PackageError(printable[:MAX_REASON])
    return Message(facts, body)
