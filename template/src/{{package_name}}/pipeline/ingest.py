"""Ingest: the source that `config/data.yaml` names → typed rows. Refuses a file it cannot read.

A column with a value that is not of its type stays as it came, for `validate` to report.
"""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl

from .. import BadInput
from ..config import DATA, Column, Config, Data
from ..documents import IDENTITY, ROWS, document, write_rows

PAIRS = [("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1")]
BOOLEANS = {word: word == pair[1] for pair in PAIRS for word in pair}
ISO = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z"]


def step(config: Config) -> str:
    from . import identity  # here: serving reads rows, too, and needs none of it

    source = Path(config.data.source)
    with document("ingest", source, DATA) as said:
        came = read(source, config.data.separator)
        rows = typed(came, config.data)
        write_rows(rows, ROWS)
        columns = identity.identifying(config.data)
        write_rows(identity.identities(came, columns).to_frame(), IDENTITY)
        said |= {"rows": rows.height, "columns": rows.columns}
    return f"{rows.height:,} rows, {rows.width} columns from {source}"


def read(source: Path, separator: str) -> pl.DataFrame:
    """Read a file with `problem.data.load`.

    Raises:
        BadInput: It is missing, a folder, empty, cut short, ragged or otherwise unreadable.
    """
    if not source.is_file():
        raise BadInput(f"{source} is {'a folder' if source.is_dir() else 'missing'}: name a file")
    from ..problem.data import load  # here: a package brings its own problem/, without this

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
    names = [name for name in kept if name in data.columns]
    found = _read([(kept[name], data.columns[name]) for name in names], data)
    for name, (came, read) in zip(names, found, strict=True):
        kept[name] = read if read.null_count() == came.null_count() else came
    return pl.DataFrame(kept)


def unreadable(values: pl.Series, contract: Column, data: Data) -> tuple[pl.Series, pl.Series]:
    """The values that are not of the contract's type, and the rows that they are in."""
    ((came, read),) = _read([(values, contract)], data)
    bad = came.is_not_null() & read.is_null()
    return came.filter(bad), bad.arg_true()


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


def _read(columns: list[tuple[pl.Series, Column]], data: Data) -> list[tuple[pl.Series, pl.Series]]:
    """Each column with its gaps as null, and the same typed: null where that cannot be done."""
    # By number: Polars takes a name such as * for a pattern. In one go: on a few rows, what a call
    # costs is all that counts, and the service has a few rows at a time.
    table = pl.DataFrame([values.alias(str(at)) for at, (values, _) in enumerate(columns)])
    asked: list[pl.Expr] = []
    for at, (values, contract) in enumerate(columns):
        came, read = _typed(pl.col(str(at)), values.dtype, contract, data)
        asked += [came.alias(f"came {at}"), read.alias(f"read {at}")]
    try:
        found = table.select(asked)
    except pl.exceptions.ComputeError:
        named = ", ".join(
            f"columns.{s.name}.formats" for s, contract in columns if contract.formats
        )
        raise BadInput(f"{DATA}: {named}: one cannot be read") from None
    return [(found[f"came {at}"], found[f"read {at}"]) for at in range(len(columns))]


def _typed(
    value: pl.Expr, dtype: pl.DataType, contract: Column, data: Data
) -> tuple[pl.Expr, pl.Expr]:
    kind = contract.type
    if dtype.is_nested() or dtype == pl.Binary:
        return value, pl.when(value.is_null()).then(None)
    if dtype.is_float():
        value = pl.when(value.is_finite()).then(value)
    if kind == "datetime" and dtype in (pl.Date, pl.Datetime):
        return value, _utc(value, dtype)
    gaps = [*data.gaps, *contract.gaps]
    if dtype.is_numeric() and kind in ("number", "integer") and not _numbers(gaps):
        floats = value.cast(pl.Float64)  # as below, sooner
        if kind == "number":
            return value, pl.when(floats == 0).then(0.0).otherwise(floats)
        if dtype.is_integer():
            return value, value.cast(pl.Int64, strict=False)
    text = value.cast(pl.String).str.strip_chars().replace(gaps, None)
    if kind in ("category", "text"):
        return text, text
    if kind == "boolean":
        lower = text.str.to_lowercase()
        return text, lower.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    if kind == "datetime":
        dates = [text.str.to_datetime(f, strict=False) for f in contract.formats or ISO]
        zones = ["%z" in f or "%#z" in f for f in contract.formats or ISO]
        return text, pl.coalesce(
            _utc(date, pl.Datetime("us", "UTC" if zone else None))
            for date, zone in zip(dates, zones, strict=True)
        )
    plain = text if dtype.is_numeric() else _plain(text, data.decimal)
    if kind == "integer":  # 3.0 is one, too
        return text, plain.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
    floats = plain.cast(pl.Float64, strict=False)
    return text, pl.when(floats.is_finite()).then(pl.when(floats == 0).then(0.0).otherwise(floats))


def _numbers(gaps: list[str]) -> bool:
    return any(gap.strip()[-1:].isdigit() or gap.endswith(".") for gap in gaps)


def _plain(text: pl.Expr, decimal: str) -> pl.Expr:
    """Numbers without currency, percent and thousands signs, and with a decimal point."""
    if decimal == ",":
        text = text.str.replace_many({",": ".", ".": ","})
    three = r"(?:[,'\s](\d{3}))"
    grouped = rf"^([-+]?[1-9]\d{{0,2}}){three}{three}?{three}?(\.\d+)?$"
    return text.str.strip_chars("$€£¥% \u00a0").str.replace(grouped, "$1$2$3$4$5")


def _utc(when: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        when = when.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return when.cast(pl.Datetime("us"))
