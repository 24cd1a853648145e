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
    if source.suffix.lower() == ".parquet":
        return pl.read_parquet(source, glob=False)
    try:
        rows = pl.read_csv(
            source, separator=separator, infer_schema=False, empty_string_is_null=False, glob=False
        )
    except pl.exceptions.NoDataError:
        raise
    except pl.exceptions.PolarsError:
        return read_lines(source, separator)
    if any("\r" in name for name in rows.columns):  # lines end with CR alone, as on old Macs
        return read_lines(source, separator)
    # A short line is filled up with empty fields, so only an empty last field can be one.
    if rows.width > 1 and (rows.to_series(-1) == "").any():
        read_lines(source, separator)
        rows = rows.filter(~pl.all_horizontal(pl.all() == ""))
    return rows


def read_lines(source: Path, separator: str) -> pl.DataFrame:
    """Read a text file line by line: slower, but it copes with quotes in the middle of a field.

    Raises:
        ValueError: A line is not like the header, which is said with its number.
    """
    csv.field_size_limit(2**31 - 1)  # a field may hold a whole document
    line = 1
    fields = []
    with source.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    try:
        with opener(source, "rt", encoding="utf-8-sig") as text:
            reader = csv.reader(text, delimiter=separator, strict=True)
            header = next(reader, [])
            for row in reader:
                line = reader.line_num
                if row and len(row) != len(header):
                    raise ValueError(
                        f"line {line} has {len(row)} fields, the header has {len(header)}"
                    )
                fields += [row] if row else []
    except UnicodeDecodeError:
        raise ValueError(f"it is not UTF-8 after line {line}; save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"after line {line}: {error}") from None
    # A name that is there twice is marked as Polars marks it.
    again = [header[:place].count(name) for place, name in enumerate(header)]
    names = [f"{n}_duplicated_{k - 1}" if k else n for n, k in zip(header, again, strict=True)]
    return pl.DataFrame(fields, schema=dict.fromkeys(names, pl.String), orient="row")
