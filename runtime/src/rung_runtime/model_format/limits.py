"""How much the file of a model may unpack to: whoever wrote it may have meant to fill the memory.

All is known before anything is unpacked: an archive says how large its parts are, and no more than
that is read of them.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

SCHEMA = "schema.json"  # in the archive: the tree of objects
MAX_UNPACKED = 256 * 2**20  # bytes, of a file of any size
MAX_RATIO = 20  # of a large file; trees and weights have some 2 to 10
# What Python makes of an object, of an array, and of a value within one.
BYTES_OF = {b"{": 232, b"[": 64, b",": 40}
NESTED = b"PK"  # how an archive begins: a sparse matrix is one, and a model of Keras


class TooLarge(Exception):
    """A file would unpack to more than it may, for the reason given."""


def allowed(size: int) -> int:
    """Return how many bytes a file of a size may unpack to."""
    return max(MAX_UNPACKED, MAX_RATIO * size)


def require_bounded(content: bytes) -> None:
    """Check that an archive of skops unpacks to no more than it may.

    A part counts as often as the tree of objects mentions it, as it is read that often.

    Raises:
        TooLarge: It unpacks to more.
        zipfile.BadZipFile: It is not an archive.
    """
    limit = allowed(len(content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = sizes_of(archive)
        _require(sizes, limit)
        text = archive.read(SCHEMA)
        _require(sizes | {SCHEMA: parsed_size(text)}, limit)
        mentions = Counter(_mentioned(json.loads(text)))
        sizes = {name: size * max(1, mentions[name]) for name, size in sizes.items()}
        _require(sizes, limit)
        for name in mentions:
            if name in sizes:
                sizes[name] += mentions[name] * _nested_size(archive, name)
        _require(sizes, limit)


def sizes_of(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return what each part of an archive unpacks to.

    Raises:
        zipfile.BadZipFile: Two have one name, and would be unpacked as often as it is listed.
    """
    sizes: dict[str, int] = {}
    for info in archive.infolist():
        if info.filename in sizes:
            raise zipfile.BadZipFile(f"two parts have the name {info.filename}")
        sizes[info.filename] = info.file_size
    return sizes


def parsed_size(text: bytes) -> int:
    """Return how many bytes the objects of a JSON text take at most, besides the text."""
    counts = ((text.count(mark), size) for mark, size in BYTES_OF.items())
    return len(text) + sum(count * size for count, size in counts)


def _require(sizes: dict[str, int], limit: int) -> None:
    total = sum(sizes.values())
    if total > limit:
        largest = max(sizes, key=lambda name: sizes[name])
        raise TooLarge(
            f"it would unpack to {_megabytes(total)}, {_megabytes(sizes[largest])} of it for "
            f"{largest}, and {_megabytes(limit)} is the limit for its size"
        )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"


def _nested_size(archive: zipfile.ZipFile, name: str) -> int:
    """Return what a part unpacks to if it is an archive itself; 0 if it is not."""
    with archive.open(name) as part:
        if part.read(len(NESTED)) != NESTED:
            return 0
        part.seek(0)
        with zipfile.ZipFile(part) as inner:
            return sum(info.file_size for info in inner.infolist())


def _mentioned(node: Any) -> Iterator[str]:
    """Yield the name of a part of the archive each time that a tree of objects mentions it."""
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            if isinstance(name := item.get("file"), str):
                yield name
            waiting += item.values()
