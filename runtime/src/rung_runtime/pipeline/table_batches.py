"""Tables in batches: a file of any size, read part by part.

Fields of a text file stay text, as `problem.data.load` of the template has them. A text file that
only the standard library's reader understands is left to `ingest.read`, which holds all of it in
memory.
"""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from .. import UsageError
from .ingest import are_names, checked_columns, read

BATCH_ROWS = 50_000  # so that memory stays bounded
MAX_FIELD_SIZE = 2**31 - 1  # bytes
GZIP = b"\x1f\x8b"


def batches(source: Path, separator: str, batch_rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """Yield the rows of a CSV or Parquet file, at most so many at once.

    Raises:
        UsageError: It is missing or cannot be read.
    """
    if not source.is_file():
        raise UsageError(f"{source} is {'a folder' if source.is_dir() else 'missing'}: name a file")
    if source.suffix.lower() == ".parquet":
        yield from parquet_batches(str(source), batch_rows)
    else:
        yield from _text_batches(source, separator, batch_rows)


def parquet_batches(
    source: str, batch_rows: int = BATCH_ROWS, columns: list[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a Parquet file of this machine or of an object store.

    Args:
        source: Its path or its URL.
        batch_rows: How many at once.
        columns: What is read, as far as it is there; None: all.

    Raises:
        UsageError: It cannot be read.
    """
    rows = pl.scan_parquet(source, glob=False, hive_partitioning=False)
    if columns is not None:
        present = parquet_header(source).columns
        rows = rows.select(name for name in columns if name in present)
    yield from collected(rows, source, batch_rows)


def parquet_header(source: str) -> pl.DataFrame:
    """Return the columns of a Parquet file, without a row.

    Raises:
        UsageError: It cannot be read.
    """
    rows = pl.scan_parquet(source, glob=False, hive_partitioning=False)
    try:
        return checked_columns(pl.DataFrame(schema=rows.collect_schema()), source)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{source} cannot be read: {str(error).splitlines()[0]}") from None


def text_header(source: Path, separator: str) -> pl.DataFrame:
    """Return the columns of a text file, plain or gzipped, without a row.

    Raises:
        UsageError: It cannot be read.
    """
    rows = pl.scan_csv(source, separator=separator, infer_schema=False, glob=False)
    try:
        return checked_columns(pl.DataFrame(schema=rows.collect_schema()), str(source))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{source} cannot be read: {str(error).splitlines()[0]}") from None


def collected(rows: pl.LazyFrame, source: str, batch_rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query, part by part.

    Raises:
        UsageError: The source cannot be read.
    """
    try:
        for batch in rows.collect_batches(chunk_size=batch_rows, maintain_order=True):
            yield checked_columns(batch, source)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{source} cannot be read: {str(error).splitlines()[0]}") from None


def _text_batches(source: Path, separator: str, batch_rows: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of a text file with a header, plain or gzipped."""
    rows = pl.scan_csv(
        source, separator=separator, infer_schema=False, empty_string_is_null=False, glob=False
    )
    is_even = False  # known to have as many fields in each line as in the first
    names: list[str] = []
    done = 0
    try:
        if not are_names(rows.collect_schema().names()):  # or lines end with CR alone
            raise pl.exceptions.ComputeError("this may not be a table")
        for batch in rows.collect_batches(chunk_size=batch_rows, maintain_order=True):
            # Polars fills a short line up with empty fields, so only there can a line be short.
            if batch.width > 1 and (batch.to_series(-1) == "").any():
                if not is_even:
                    _require_even_lines(source, separator)
                    is_even = True
                batch = batch.filter(~pl.all_horizontal(pl.all() == ""))
            batch = checked_columns(batch, str(source))
            names = names or batch.columns
            if batch.columns != names:
                raise UsageError(
                    f"{source}: a field after row {done:,} is in a column without a name"
                )
            yield batch
            done += batch.height
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError):
        # Quotes in the middle of a field, or not a table at all: `read` reads it, or says why not.
        table = read(source, separator)
        if table.width > 1:  # as above
            table = table.filter(~pl.all_horizontal(pl.all() == ""))
        yield from table.slice(done).iter_slices(batch_rows)


def _require_even_lines(source: Path, separator: str) -> None:
    """Check that each line has as many fields as the header.

    Raises:
        UsageError: One has not.
    """
    csv.field_size_limit(MAX_FIELD_SIZE)
    with source.open("rb") as file:
        opener = gzip.open if file.read(2) == GZIP else open
    with opener(source, "rt", encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=separator)
        width = len(next(reader, []))
        for fields in reader:
            if fields and len(fields) != width:
                raise UsageError(
                    f"{source} cannot be read: line {reader.line_num} has {len(fields)} fields, the"
                    f" header has {width}"
                )
