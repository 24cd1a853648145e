"""Ingest: the source that `config/data.yaml` names → typed rows. Refuses a file it cannot read.

A column with a value that is not of its type stays as it came, for `validate` to report.
"""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl

from .. import BadInput
from ..config import DATA, Column, Config, Data
from ..documents import ROWS, document, write_rows
from ..problem.data import load

PAIRS = [("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1")]
BOOLEANS = {word: word == pair[1] for pair in PAIRS for word in pair}
ISO = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z"]


def step(config: Config) -> str:
    source = Path(config.data.source)
    with document("ingest", source, DATA) as said:
        rows = typed(read(source, config.data.separator), config.data)
        write_rows(rows, ROWS)
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
    if patterns := [n for n in rows.columns if n == "*" or (n[:1], n[-1:]) == ("^", "$")]:
        raise BadInput(f"{source}: rename column {patterns[0]!r}, a pattern to Polars and others")
    return rows


def typed(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Float64, Int64, Boolean, Datetime("us") in UTC and String columns, gaps as null.

    A column with a value that cannot be read stays as it came, for `validate` to report.
    """
    kept = {name: rows[name] for name in rows.columns if name not in data.left_out}
    for name in kept.keys() & data.columns.keys():
        came, read = _read(kept[name], data.columns[name], data)
        kept[name] = read if read.null_count() == came.null_count() else came
    return pl.DataFrame(kept)


def unreadable(column: pl.Series, contract: Column, data: Data) -> pl.Series:
    """The values that are not of the contract's type, one for each row that has one."""
    came, read = _read(column, contract, data)
    return came.filter(came.is_not_null() & read.is_null())


def inputs(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """The features of typed rows, for `problem.features`; categories not listed become gaps."""
    columns = {name: rows[name] for name in data.features}
    for name in columns:
        if data.columns[name].type == "category":
            columns[name] = columns[name].cast(pl.Enum(data.columns[name].categories), strict=False)
    return pl.DataFrame(columns)


def labels(rows: pl.DataFrame, data: Data) -> npt.NDArray[Any]:
    """The target of typed rows, (n,): int64 places in `classes`, or float64 numbers."""
    if data.task == "regression":
        return rows[data.target].cast(pl.Float64).to_numpy()
    places = rows[data.target].cast(pl.String).cast(pl.Enum(data.classes)).to_physical()
    return places.cast(pl.Int64).to_numpy()


def _read(column: pl.Series, contract: Column, data: Data) -> tuple[pl.Series, pl.Series]:
    """The column with its gaps as null, and the same typed: null where that cannot be done."""
    # Without its name: Polars takes one such as * or ^a$ for a pattern, in a series as well.
    name, column = column.name, column.alias("values")
    kind, dtype = contract.type, column.dtype
    if dtype.is_nested() or dtype == pl.Binary:
        return column, column.clear(len(column))
    if dtype.is_float():
        column = column.replace([float("nan"), float("inf"), float("-inf")], None)
    if kind == "datetime" and dtype in (pl.Date, pl.Datetime):
        return column, _utc(column)
    text = column.cast(pl.String).str.strip_chars().replace(data.gaps, None)
    if kind == "category":
        return text, text
    if kind == "boolean":
        lower = text.str.to_lowercase()
        return text, lower.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    if kind == "datetime":
        try:
            read = [_utc(text.str.to_datetime(f, strict=False)) for f in contract.formats or ISO]
        except pl.exceptions.ComputeError:
            raise BadInput(f"{DATA}: columns.{name}.formats: one cannot be read") from None
        return text, pl.select(pl.coalesce(read)).to_series()
    plain = text if dtype.is_numeric() else _plain(text, data.decimal)
    if kind == "integer":  # 3.0 is one, too
        return text, plain.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
    floats = plain.cast(pl.Float64, strict=False)
    return text, floats.set(~floats.is_finite(), None).set(floats == 0, 0.0)  # no -0.0


def _plain(text: pl.Series, decimal: str) -> pl.Series:
    """Numbers without currency, percent and thousands signs, and with a decimal point."""
    if decimal == ",":
        text = text.str.replace_many({",": ".", ".": ","})
    three = r"(?:[,'\s](\d{3}))"
    grouped = rf"^([-+]?[1-9]\d{{0,2}}){three}{three}?{three}?(\.\d+)?$"
    return text.str.strip_chars("$€£¥% \u00a0").str.replace(grouped, "$1$2$3$4$5")


def _utc(when: pl.Series) -> pl.Series:
    if isinstance(when.dtype, pl.Datetime) and when.dtype.time_zone:
        when = when.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return when.cast(pl.Datetime("us"))
