"""Ingest: the source that `config/data.yaml` names → typed rows. Refuses a file it cannot read.

A column with a value that is not of its type stays as it came, for `validate` to report.
"""

from pathlib import Path

import polars as pl

from .. import BadInput
from ..config import DATA, Config
from ..documents import ROWS, document, replacing
from ..problem.data import load
from .frames import typed


def step(config: Config) -> str:
    source = Path(config.data.source)
    with document("ingest", source, DATA) as said:
        rows = typed(read(source, config.data.separator), config.data)
        with replacing(ROWS) as new:
            rows.write_parquet(new)
        said |= {"rows": rows.height, "columns": rows.columns}
    return f"{rows.height:,} rows, {rows.width} columns from {source}"


def read(source: Path, separator: str) -> pl.DataFrame:
    """Read a file with `problem.data.load`.

    Raises:
        BadInput: It is missing, a folder, empty, cut short, ragged or otherwise unreadable.
    """
    if not source.is_file():
        raise BadInput(f"{source} is {'a folder' if source.is_dir() else 'missing'}: name a file")
    try:
        rows = load(source, separator)
    except (pl.exceptions.PolarsError, OSError, EOFError, ValueError) as error:
        raise BadInput(f"{source} cannot be read: {str(error).splitlines()[0]}") from None
    if rows.is_empty():
        raise BadInput(f"{source} has no rows")
    return rows
