"""Large documents, parsed and written in pieces between which others are answered.

A thread would not help: Python's parser of JSON lets no other thread run until it is done. So what
takes longer is a generator that yields every so often, and the event loop runs one of them at a
time, a millisecond at most before all who are ready have had their turn.
"""

import asyncio
import json
import re
import time
from collections.abc import Generator
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not have it
from typing import Any, TypeVar

T = TypeVar("T")
Pieces = Generator[None, None, T]  # yields where others may have their turn

PIECE_SECONDS = 0.001
SMALL_BYTES = 16_384  # of a body that is parsed at once, which takes a fraction of a millisecond
SMALL_LIST = 64  # elements that are written at once
SCANNED_BYTES = 262_144  # in which characters are counted at once
SPACE = re.compile(r"[ \t\n\r]*")
SCAN_VALUE = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
WRITE = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder each time


class Turns:
    """Has large pieces of work take turns: of one with another, and of each with small requests."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def run(self, work: Pieces[T]) -> T:
        """Return the result of work that is large, after that of those who came before."""
        async with self._one_at_a_time:
            return await self._run(work)

    async def _run(self, work: Pieces[T]) -> T:
        end = time.perf_counter() + PIECE_SECONDS
        while True:
            try:
                next(work)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + PIECE_SECONDS


def at_once(work: Pieces[T]) -> T:
    """Return the result of work, without a turn of anybody else."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


def parse(body: bytes) -> Pieces[Any]:
    """Parse JSON in pieces; the result is that of `json.loads`.

    Raises:
        ValueError, RecursionError: As `json.loads`.
    """
    if len(body) <= SMALL_BYTES:
        return json.loads(body)
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    yield
    value, end = yield from _value(text, _skip(text, 0), 0)
    end = _skip(text, end)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def _value(text: str, start: int, depth: int) -> Pieces[tuple[Any, int]]:
    """Parse the value that starts there; return it, and where it ends.

    Split are the document and a list in it, such as that of the rows. A row is parsed at once.
    """
    if depth < 2 and text.startswith("[", start):
        return (yield from _list(text, start, depth))
    if depth == 0 and text.startswith("{", start):
        return (yield from _object(text, start, depth))
    yield
    try:
        value, end = SCAN_VALUE(text, start)
        return value, end
    except StopIteration as stop:
        raise json.JSONDecodeError("Expecting value", text, stop.value) from None


def _list(text: str, start: int, depth: int) -> Pieces[tuple[list[Any], int]]:
    values: list[Any] = []
    end = _skip(text, start + 1)
    if text.startswith("]", end):
        return values, end + 1
    while True:
        value, end = yield from _value(text, end, depth + 1)
        values.append(value)
        end = _skip(text, end)
        if text.startswith("]", end):
            return values, end + 1
        end = _skip(text, _behind(text, end, ","))


def _object(text: str, start: int, depth: int) -> Pieces[tuple[dict[str, Any], int]]:
    values: dict[str, Any] = {}
    end = _skip(text, start + 1)
    if text.startswith("}", end):
        return values, end + 1
    while True:
        if not text.startswith('"', end):
            reason = "Expecting property name enclosed in double quotes"
            raise json.JSONDecodeError(reason, text, end)
        name, end = scanstring(text, end + 1, True)
        end = _skip(text, _behind(text, _skip(text, end), ":"))
        values[name], end = yield from _value(text, end, depth + 1)
        end = _skip(text, end)
        if text.startswith("}", end):
            return values, end + 1
        end = _skip(text, _behind(text, end, ","))


def _skip(text: str, start: int) -> int:
    """Return where the white space ends that starts there."""
    match = SPACE.match(text, start)
    return match.end() if match else start


def _behind(text: str, start: int, delimiter: str) -> int:
    if not text.startswith(delimiter, start):
        raise json.JSONDecodeError(f"Expecting {delimiter!r} delimiter", text, start)
    return start + 1


def write_list(values: list[Any]) -> Pieces[str]:
    """Write a list as JSON; the result is that of `json.dumps` without `ensure_ascii`."""
    if len(values) <= SMALL_LIST:
        return WRITE(values)
    parts = []
    for start in range(0, len(values), SMALL_LIST):
        part = WRITE(values[start : start + SMALL_LIST])
        parts.append(part[1:-1])
        yield
    return f"[{', '.join(parts)}]"


def count(body: bytes, characters: bytes) -> Pieces[int]:
    """Count some characters of a body."""
    total = 0
    for start in range(0, len(body), SCANNED_BYTES):
        part = body[start : start + SCANNED_BYTES]
        total += sum(part.count(character) for character in characters)
        yield
    return total
