"""Where the rows come from. Yours: read a database, join two files, drop what must not be seen."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import polars as pl

MAX_FIELD_SIZE = 2**31 - 1  # bytes; a field may hold a whole document


def load(source: Path, separator: str) -> pl.DataFrame:
    """Read the source as it is; the contract in `config/data.yaml` decides on types afterwards.

    Args:
        source: A Parquet file, or a text file with a header, plain or gzipped.
        separator: What stands between two fields of a text file.

    Returns:
        One row per observation. Fields of a text file stay text, so that nothing is guessed.

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
    # Polars fills a short line up with empty fields, so only where the last field is empty can a
    # line be short: read the lines once more, which refuses such a file.
    if rows.width > 1 and (rows.to_series(-1) == "").any():
        read_lines(source, separator)
        is_empty = pl.all_horizontal(pl.all() == "")
        rows = rows.filter(~is_empty)
    return rows


def read_lines(source: Path, separator: str) -> pl.DataFrame:
    """Read a text file line by line: slower, but it copes with quotes in the middle of a field.

    Raises:
        ValueError: A line does not have as many fields as the header; the message has its number.
    """
    csv.field_size_limit(MAX_FIELD_SIZE)
    line = 1
    rows = []
    with source.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    try:
        with opener(source, "rt", encoding="utf-8-sig") as text:
            reader = csv.reader(text, delimiter=separator, strict=True)
            header = next(reader, [])
            for fields in reader:
                line = reader.line_num
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"line {line} has {len(fields)} fields, the header has {len(header)}"
                    )
                rows.append(fields)
    except UnicodeDecodeError:
        raise ValueError(f"it is not UTF-8 after line {line}; save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"after line {line}: {error}") from None
    names = unique_names(header)
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def unique_names(header: list[str]) -> list[str]:
    """Mark a name that occurs twice as Polars marks it: `name_duplicated_0`."""
    names = []
    count: Counter[str] = Counter()
    for name in header:
        names.append(f"{name}_duplicated_{count[name] - 1}" if count[name] else name)
        count[name] += 1
    return names
