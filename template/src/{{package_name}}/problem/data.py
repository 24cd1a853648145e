"""Where the rows come from. Yours: read a database, join two files, drop what must not be seen."""

import csv
import gzip
from pathlib import Path

import polars as pl


def load(source: Path, separator: str) -> pl.DataFrame:
    """Read the source as it is; the contract in `config/data.yaml` decides on types afterwards.

    Args:
        source: A Parquet file, or a text file with a header, plain or gzipped.
        separator: What stands between two fields of a text file.

    Returns:
        One row an observation. Fields of a text file stay text, so that nothing is guessed.

    Raises:
        ValueError: Lines of a text file differ in their number of fields, or are not UTF-8.
    """
    if source.suffix == ".parquet":
        return pl.read_parquet(source, glob=False)
    try:
        rows = pl.read_csv(
            source, separator=separator, infer_schema=False, empty_string_is_null=False, glob=False
        )
    except pl.exceptions.PolarsError:
        find_fault(source, separator)
        raise
    # A short line is filled up with empty fields, so only an empty last field can be one.
    if rows.width > 1 and (rows.to_series(-1) == "").any():
        find_fault(source, separator)
        rows = rows.filter(~pl.all_horizontal(pl.all() == ""))
    return rows


def find_fault(source: Path, separator: str) -> None:
    """Raise a ValueError that names the first line of a text file that is not like its header."""
    line, opener = 1, gzip.open if source.suffix == ".gz" else open
    try:
        with opener(source, "rt", encoding="utf-8", newline="") as file:
            reader = csv.reader(file, delimiter=separator, strict=True)
            width = len(next(reader, []))
            for row in reader:
                line = reader.line_num
                if row and len(row) != width:
                    raise ValueError(f"line {line} has {len(row)} fields, the header has {width}")
    except UnicodeDecodeError:
        raise ValueError(f"it is not UTF-8 after line {line}; save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"after line {line}: {error}") from None
