"""Ingest: the source that `config/data.yaml` names → typed rows. Refuses a file it cannot read.

A column with a value that is not of its type is left as it is, for `validate` to report.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl

from .. import UsageError
from ..artifacts import IDENTITY, ROWS, step_record, write_rows
from ..config import DATA, Column, Config, Data
from ..records import IngestDocument

PAIRS = [("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("0", "1")]
BOOLEANS = {word: word == pair[1] for pair in PAIRS for word in pair}
BOOLEANS |= {"0.0": False, "1.0": True}  # as a column of 0, 1 and gaps is often written
# Of numbers as people write them: other minus signs, spaces and apostrophes.
SIGNS = str.maketrans("\u2212\u2019\u00a0\u2007\u2009\u202f", "-'    ")
SWAPPED = str.maketrans(",.", ".,")
CURRENCY = r"(?:[A-Z]{0,2}[$€£¥₹₽₺₩₪฿₫₴]|USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?|kr\.?|zł|Kč)"
# ($1,234.50), -$744, $-744, 744-, 12 %: a sign stands in one of three places, or is parentheses.
# Whoever can send a value can send many spaces: no quantifier may give any of them back.
WRITTEN = re.compile(
    rf"{CURRENCY}?\s*+(?P<open>\()?\s*+(?P<first>[-+]?)\s*+{CURRENCY}?\s*+(?P<second>[-+]?)\s*+"
    r"(?P<digits>\.?\d[\d.,' ]*?(?:[eE][-+]?\d+)?)"
    rf"\s*+(?:{CURRENCY}|%)?\s*+(?P<last>-?)(?P<shut>\))?"
)
MAX_WRITTEN = 100  # characters of a number that is written so
# Thousands, with one sign throughout, and India's lakh and crore.
GROUPED = re.compile(
    r"(?:[1-9]\d{0,2}(?:(?:,\d{3})+|(?:'\d{3})+|(?: \d{3})+)|[1-9]\d?(?:,\d{2})+,\d{3})(?:\.\d*)?"
)
# What clocks count since 1970, and how many of it make a second.
EPOCHS = {"%s": 1, "%s%3f": 1_000, "%s%6f": 1_000_000}
YEAR = "%Y"  # alone: a year, whole or as a decimal number
YEAR_OF_CENTURY = "%y"  # alone: 50 to 99 of the last century, 00 to 49 of this one
QUARTER = "%Y Q%q"  # which Polars does not know; 1998Q1 and 1998-Q1 are read as well
ISO = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z"]


def step(config: Config) -> str:
    from . import identity  # here: serving reads rows, too, and needs none of it

    source = Path(config.data.source)
    with step_record("ingest", source, DATA) as record:
        raw = read(source, config.data.separator)
        rows = typed(raw, config.data)
        write_rows(rows, ROWS)
        columns = identity.identifying(config.data)
        write_rows(identity.identities(raw, columns).to_frame(), IDENTITY)
        record.document = IngestDocument(rows=rows.height, columns=rows.columns)
    return f"{rows.height:,} rows, {rows.width} columns from {source}"


def read(source: Path, separator: str) -> pl.DataFrame:
    """Read a file with `problem.data.load`.

    Raises:
        UsageError: It is missing, a folder, empty, cut short, ragged or otherwise unreadable.
    """
    if not source.is_file():
        raise UsageError(f"{source} is {'a folder' if source.is_dir() else 'missing'}: name a file")
    from ..contract.file_kind import not_a_table
    from ..problem import load

    try:
        rows = load(source, separator)
    except (pl.exceptions.PolarsError, OSError, EOFError, ValueError, zlib.error) as error:
        if kind := not_a_table(source):
            raise UsageError(f"{source} is {kind}") from None
        raise UsageError(f"{source} cannot be read: {str(error).splitlines()[0]}") from None
    # Read as a table nevertheless: its first bytes have become the names of columns.
    is_misread = rows.width < 2 or rows.is_empty() or not are_names(rows.columns)
    if is_misread and (kind := not_a_table(source)):
        raise UsageError(f"{source} is {kind}")
    rows = checked_columns(rows, str(source))
    if rows.is_empty():
        raise UsageError(f"{source} has no rows")
    return rows


def are_names(columns: list[str]) -> bool:
    """Check whether what stands in the place of a header looks like one."""
    return all(map(str.isprintable, columns)) and columns[0][:1].isalnum()


def checked_columns(rows: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return rows without columns of nothing, if the names of the others can be used.

    Raises:
        UsageError: A name occurs twice, is not UTF-8, or means something else to Polars.
    """
    # Separators at the end of each line, as spreadsheets leave them, make columns of nothing.
    ends = [n for n in rows.columns if re.fullmatch(r"_duplicated_\d+", n)]
    rows = rows.drop(n for n in ends if (rows[n].cast(pl.String).fill_null("") == "").all())
    for name in rows.columns:
        twice = re.fullmatch(r"(.*)_duplicated_\d+", name, re.DOTALL)  # as Polars renames it
        if twice and twice[1] in rows.columns:
            raise UsageError(f"{source}: two columns are called {twice[1]!r}: rename one of them")
    if any("\ufffd" in name for name in rows.columns):
        raise UsageError(f"{source} cannot be read: its first line is not UTF-8; save it as UTF-8")
    if patterns := [n for n in rows.columns if n == "*" or (n[:1], n[-1:]) == ("^", "$")]:
        raise UsageError(f"{source}: rename column {patterns[0]!r}, a pattern to Polars and others")
    return rows


def typed(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return Float64, Int64, Boolean, Datetime("us") in UTC and String columns, gaps as null.

    A column with a value that cannot be read is left as it is, for `validate` to report.
    """
    kept = {name: rows[name] for name in rows.columns if name not in data.ignored}
    names = [name for name in kept if name in data.columns]
    columns = _read([(kept[name], data.columns[name]) for name in names], data)
    for name, (raw, read) in zip(names, columns, strict=True):
        kept[name] = read if read.null_count() == raw.null_count() else raw
    if data.rare_classes and data.target in names:
        kept[data.target] = merged(kept[data.target], data.rare_classes)
    return pl.DataFrame(kept)


def merged(target: pl.Series, rare_classes: Mapping[str, str | None]) -> pl.Series:
    """Return a target with its rare classes merged into others, or null: `Data.rare_classes`."""
    if target.dtype == pl.String:
        return target.replace(rare_classes)
    gone = [name for name, other in rare_classes.items() if other is None]
    return target.set(target.cast(pl.String).is_in(gone), None)


def unreadable(values: pl.Series, contract: Column, data: Data) -> tuple[pl.Series, pl.Series]:
    """Return the values that are not of the contract's type, and the index of their rows."""
    raw, read = read_column(values, contract, data)
    bad = raw.is_not_null() & read.is_null()
    return raw.filter(bad), bad.arg_true()


def read_column(values: pl.Series, contract: Column, data: Data) -> tuple[pl.Series, pl.Series]:
    """Return values with gaps as null, and the same typed: null where that is impossible."""
    ((raw, read),) = _read([(values, contract)], data)
    return raw, read


def inputs(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return the features of typed rows; categories that are not listed become gaps."""
    names = data.features
    is_whole = rows.columns == names
    features = rows.clone() if is_whole else rows[names]
    # Column by column, without a query: on a few rows, what a call costs is all that counts.
    for number, name in enumerate(names):
        column = data.columns[name]
        if column.type == "category":
            values = features.to_series(number)
            dtype = _enum(tuple(column.categories))
            features.replace_column(number, values.cast(dtype, strict=False))
    return features


def side_by_side(columns: Iterable[pl.Series]) -> pl.DataFrame:
    """Return columns as a table, in which one without a name keeps none: Polars would name it."""
    return pl.DataFrame({column.name: column for column in columns})


@cache
def _enum(categories: tuple[str, ...]) -> pl.Enum:
    """Return the type of a category, which takes longer to make than a row to cast to it."""
    return pl.Enum(categories)


def labels(rows: pl.DataFrame, data: Data) -> npt.NDArray[Any]:
    """Return the target of typed rows, (n,): int64 indices of `classes`, or float64 numbers."""
    if data.task == "regression":
        return rows[data.target].cast(pl.Float64).to_numpy()
    places = rows[data.target].cast(pl.String).cast(pl.Enum(data.classes)).to_physical()
    return places.cast(pl.Int64).to_numpy()


def _read(columns: list[tuple[pl.Series, Column]], data: Data) -> list[tuple[pl.Series, pl.Series]]:
    """Return each column with gaps as null, and the same typed: null where that is impossible."""
    # By number: Polars takes a name such as * for a pattern. In one go: on a few rows, what a call
    # costs is all that counts, and the service has a few rows at a time.
    table = pl.DataFrame([values.alias(str(number)) for number, (values, _) in enumerate(columns)])
    expressions: list[pl.Expr] = []
    for number, (values, contract) in enumerate(columns):
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        if values.dtype == pl.String and contract.type in ("number", "integer"):
            # Without its name, which a method of the series would take for a pattern, too.
            texts = values.alias(str(number)).str.strip_chars()
            texts = texts.replace(_gaps(contract, data), None)
            table = table.with_columns(texts, _plain(texts, data.decimal).alias(f"plain {number}"))
        raw, read = _typed(str(number), values.dtype, contract, data)
        expressions += [raw.alias(f"raw {number}"), read.alias(f"read {number}")]
    try:
        result = table.select(expressions)
    except pl.exceptions.ComputeError:
        named = ", ".join(
            f"columns.{s.name}.formats" for s, contract in columns if contract.formats
        )
        raise UsageError(f"{DATA}: {named}: one cannot be read") from None
    return [(result[f"raw {number}"], result[f"read {number}"]) for number in range(len(columns))]


def _typed(name: str, dtype: pl.DataType, contract: Column, data: Data) -> tuple[pl.Expr, pl.Expr]:
    value = pl.col(name)
    kind = contract.type
    if dtype.is_nested() or dtype == pl.Binary:
        return value, pl.when(value.is_null()).then(None)
    if dtype.is_float():
        value = pl.when(value.is_finite()).then(value)
    if kind == "datetime" and dtype in (pl.Date, pl.Datetime):
        return value, _utc(value, dtype)
    gaps = _gaps(contract, data)
    if dtype.is_float():  # -999 is written -999.0 here
        written = [f"{gap}.0" for gap in gaps if gap.lstrip("-").isdigit()]
        gaps = list(dict.fromkeys([*gaps, *written]))
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
        dates = [read_time(text, f) for f in contract.formats or ISO]
        zones = ["%z" in f or "%#z" in f for f in contract.formats or ISO]
        return text, pl.coalesce(
            _utc(date, pl.Datetime("us", "UTC" if zone else None))
            for date, zone in zip(dates, zones, strict=True)
        )
    plain = pl.col(f"plain {name}") if dtype == pl.String else text
    if kind == "integer":  # 3.0 is one, too
        return text, plain.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
    floats = plain.cast(pl.Float64, strict=False)
    return text, pl.when(floats.is_finite()).then(pl.when(floats == 0).then(0.0).otherwise(floats))


def _gaps(contract: Column, data: Data) -> list[str]:
    """Return the texts that mean "no value" in a column, each once, as Polars requires."""
    return list(dict.fromkeys([*data.missing_values, *contract.missing_values]))


def _numbers(gaps: list[str]) -> bool:
    return any(gap.strip()[-1:].isdigit() or gap.endswith(".") for gap in gaps)


def _plain(texts: pl.Series, decimal: str) -> pl.Series:
    """Return texts that are numbers as a cast reads them; all others are unchanged."""
    simple = texts.cast(pl.Float64, strict=False)
    if decimal == ",":  # 1.234 would be cast, and is 1234
        simple = simple.set(texts.str.contains(".", literal=True), None)
    odd = texts.filter(simple.is_null()).drop_nulls().unique()
    return texts.replace(odd, [plain_number(word, decimal) for word in odd]) if len(odd) else texts


def plain_number(word: str, decimal: str = ".") -> str:
    """Return a number without currency, percent and thousands signs, and with a decimal point.

    A minus sign may stand before or after a currency, behind the number, or be a pair of
    parentheses, as accountants write it. Any other text is returned unchanged.
    """
    parts = WRITTEN.fullmatch(word.translate(SIGNS)) if len(word) <= MAX_WRITTEN else None
    if not parts or bool(parts["open"]) != bool(parts["shut"]):
        return word
    minus = [sign for sign in (parts["first"], parts["second"], parts["last"]) if sign]
    if len(minus) + bool(parts["open"]) > 1:
        return word
    digits = parts["digits"].translate(SWAPPED) if decimal == "," else parts["digits"]
    if GROUPED.fullmatch(digits):
        digits = re.sub("[,' ]", "", digits)
    return ("-" if parts["open"] else "".join(minus)) + digits


def _years(text: pl.Expr) -> pl.Expr:
    """Years, such as 1999 or 1999.0, as their first day; 1999.5 is the middle of the year."""
    begin = text.str.extract(r"^(\d{4})(?:\.\d*)?$").str.to_datetime(YEAR, strict=False)
    share = text.str.extract(r"^\d{4}(\.\d+)$").cast(pl.Float64).fill_null(0.0)
    micros = (begin.dt.offset_by("1y") - begin).dt.total_microseconds()
    return begin + (micros * share).round().cast(pl.Duration("us"))


def _years_of_century(text: pl.Expr) -> pl.Expr:
    year = text.str.extract(r"^(\d{1,2})(?:\.0*)?$").cast(pl.Int32)
    year = pl.when(year < 50).then(2000 + year).otherwise(1900 + year)
    return pl.datetime(year, 1, 1)


def _quarters(text: pl.Expr) -> pl.Expr:
    """Quarters, such as 1998 Q1, as their first day."""
    parts = r"^(\d{4})[ -]?Q([1-4])$"
    month = 3 * text.str.extract(parts, 2).cast(pl.Int8) - 2
    return pl.datetime(text.str.extract(parts, 1).cast(pl.Int32), month, 1)


def _counted(of_a_second: int) -> Callable[[pl.Expr], pl.Expr]:
    """Return a reader of counts since 1970.

    Args:
        of_a_second: How many of them make a second.
    """

    def read(text: pl.Expr) -> pl.Expr:
        count = text.str.extract(r"^(-?\d+)(?:\.0*)?$").cast(pl.Int64, strict=False)
        return (count * (1_000_000 // of_a_second)).cast(pl.Datetime("us"))

    return read


OWN_FORMATS: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    **{form: _counted(of_a_second) for form, of_a_second in EPOCHS.items()},
    YEAR: _years,
    YEAR_OF_CENTURY: _years_of_century,
    QUARTER: _quarters,
}


def read_time(text: pl.Expr, form: str) -> pl.Expr:
    """Return texts of a format of the contract as datetimes; null where they do not match it."""
    read = OWN_FORMATS.get(form)
    return read(text) if read else text.str.to_datetime(form, strict=False)


def written_time(when: pl.Expr, form: str) -> pl.Expr:
    """Return datetimes in UTC as texts that `read_time` reads back."""
    if form == QUARTER:
        return pl.concat_str(when.dt.year(), pl.lit(" Q"), when.dt.quarter())
    if form == YEAR:
        begin = when.dt.truncate("1y")
        year = begin.dt.offset_by("1y") - begin
        share = (when - begin).dt.total_microseconds() / year.dt.total_microseconds()
        decimal = (when.dt.year() + share).cast(pl.String)
        return pl.when(when == begin).then(when.dt.to_string(YEAR)).otherwise(decimal)
    return when.dt.to_string(form.replace("%#z", "+0000").replace("%z", "+0000"))


def _utc(when: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        when = when.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return when.cast(pl.Datetime("us"))
