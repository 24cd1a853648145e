"""`ml data add`: append rows to the source, if they fulfil the contract."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from .. import RefusedError, UsageError

if TYPE_CHECKING:
    import polars as pl

START = Path.cwd()


def add_data(
    file: Annotated[Path, Argument(help="Rows with the columns of the source.")],
) -> None:
    """Append new rows to the source, if they satisfy the contract."""
    import polars as pl

    from ..artifacts import ARTIFACTS
    from ..config import load
    from ..pipeline import ingest, validate
    from ..registry import file_lock

    data = load().data
    source = Path(data.source)
    rows = ingest.read(START / file, data.separator)
    with file_lock(ARTIFACTS / "data.lock"):  # so that of two at once neither loses its rows
        old = ingest.read(source, data.separator)
        rows = _same_columns(rows, old, file, source)
        new = rows.join(old, on=old.columns, how="anti", nulls_equal=True, maintain_order="left")
        if new.is_empty():
            raise RefusedError(f"all rows of {file} are in {source} already")
        both = pl.concat([old, new])
        contract = data.model_copy(update={"min_rows": 1})
        # The rows of the file by themselves, too, so that old rows cannot hide what is wrong.
        for checked in (rows, both):
            failures = validate.check(ingest.typed(checked, data), contract)["failures"]
            if failures:
                message = "\n  ".join(validate.describe(failures))
                raise RefusedError(f"{file} breaks the contract, nothing was added:\n  {message}")
        _append(new, both, source, data.separator)
    duplicates = rows.height - new.height
    known = f" ({duplicates:,} were there already)" if duplicates else ""
    added = f"{new.height:,} rows added to {source}{known}"
    typer.echo(f"{added}, which has {both.height:,} now: ml run")


def _same_columns(
    rows: "pl.DataFrame", old: "pl.DataFrame", file: Path, source: Path
) -> "pl.DataFrame":
    """Return the columns of a file that the source has, in its order.

    Raises:
        UsageError: The file lacks one, or has it with another type.
    """
    missing = [name for name in old.columns if name not in rows.columns]
    if missing:
        raise UsageError(f"{file} lacks the column {missing[0]} of {source}")
    rows = rows.select(old.columns)
    for name, dtype in old.schema.items():
        if rows.schema[name] != dtype:
            difference = f"column {name} is {rows.schema[name]}, and {dtype} in {source}"
            raise UsageError(f"{file}: {difference}: give a file of the same kind and types")
    return rows


def _append(new: "pl.DataFrame", both: "pl.DataFrame", source: Path, separator: str) -> None:
    """Write the source with its new rows, atomically.

    Args:
        new: The rows to append.
        both: The old rows and the new ones.
        source: CSV, plain or gzipped, or Parquet.
        separator: Of CSV.
    """
    import polars as pl

    from ..atomic_file import atomic_write

    with atomic_write(source) as new_file:
        if source.suffix == ".parquet":
            both.write_parquet(new_file)
            return
        # As bytes, so that no line of the old rows changes.
        is_gzipped = source.suffix == ".gz"
        old_bytes = source.read_bytes()
        plain = new.with_columns(pl.col(pl.String).replace("", None))  # no quotes for ""
        lines = plain.write_csv(include_header=False, separator=separator)
        old_text = gzip.decompress(old_bytes) if is_gzipped else old_bytes
        added = (lines if old_text.endswith(b"\n") else f"\n{lines}").encode()
        new_file.write_bytes(old_bytes + (gzip.compress(added) if is_gzipped else added))
