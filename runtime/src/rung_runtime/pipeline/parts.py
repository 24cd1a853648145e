"""Parts: the rows of a file, some at a time, so that it may be larger than memory.

`problem.data.load` is what reads files, and it reads whole ones. So each part is written to a
temporary file of the same kind, which `load` reads as it would read the file.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from .. import UsageError
from . import ingest

PART_ROWS = 100_000  # of a Parquet file
PART_BYTES = 16_000_000  # of a text file
TEXT = re.compile(r"(?P<name>.+\.(csv|tsv|txt))(\.gz)?", re.IGNORECASE)
GZIP_MAGIC = b"\x1f\x8b"


def read_parts(source: Path, separator: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of a file in their order: all at once if it is small, or of another kind.

    Raises:
        UsageError: See `ingest.read`.
    """
    count = 0
    with TemporaryDirectory(prefix="ml-parts-") as folder:
        try:
            for part in _files(source, Path(folder)):
                rows = ingest.read(part, separator)
                part.unlink()
                count += rows.height
                yield rows
            is_read = count > 0
        except (UsageError, pl.exceptions.PolarsError, OSError, EOFError, zlib.error):
            is_read = False
    if not is_read:
        # What is wrong is said by the name of the file, and its own numbers of lines.
        yield ingest.read(source, separator)[count:]


def count_rows(source: Path) -> int | None:
    """Return how many rows a Parquet file has; None of any other, which does not say it."""
    if source.suffix.lower() != ".parquet":
        return None
    try:
        return int(pl.scan_parquet(source, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError):
        return None


def _files(source: Path, folder: Path) -> Iterator[Path]:
    """Yield a file for each part; none if the file is to be read whole."""
    rows = count_rows(source)
    text = TEXT.fullmatch(source.name)
    if rows is not None and rows > PART_ROWS:
        yield from _parts_of_parquet(source, folder / source.name)
    elif text and source.is_file() and source.stat().st_size > PART_BYTES:
        yield from _parts_of_text(source, folder / text["name"])


def _parts_of_parquet(source: Path, part: Path) -> Iterator[Path]:
    table = pl.scan_parquet(source, glob=False)
    for rows in table.collect_batches(chunk_size=PART_ROWS, maintain_order=True):
        rows.write_parquet(part, compression="uncompressed", statistics=False)
        yield part


def _parts_of_text(source: Path, part: Path) -> Iterator[Path]:
    """Yield parts that begin with the header.

    Where a line has half of a pair of quotes, a field may go on in the next line, and only reading
    all that follows tells where rows end: then that is the last part.
    """
    with source.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    with gzip.open(source) if is_gzip else source.open("rb") as text:
        header = text.readline()
        if _has_open_quote(header):
            return
        is_first = True
        while block := text.read(PART_BYTES) + text.readline():
            is_open = _has_open_quote(block)
            if is_open and is_first:
                return
            if is_open:
                _write(part, chain([header, block], iter(lambda: text.read(PART_BYTES), b"")))
            elif block.strip():
                _write(part, [header, block])
            else:
                continue
            is_first = False
            yield part


def _has_open_quote(block: bytes) -> bool:
    return b'"' in block and any(line.count(b'"') % 2 for line in block.split(b"\n"))


def _write(part: Path, blocks: Iterable[bytes]) -> None:
    with part.open("wb") as file:
        file.writelines(blocks)
