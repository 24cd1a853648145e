"""The types of columns that nobody has described, judged by their words.

What is not understood is neither dropped nor made legal here: a word that holds digits is never a
gap, two-digit years and the like are dates only under a name of time, and a column that looks like
numbers or times without being read as such gets a note with WARNING and an example.
"""

import re

import polars as pl

from ..config import Column, Data
from ..pipeline.ingest import BOOLEANS, PAIRS
from .column_names import timely, year_of_the_row
from .draft import BOOLEAN, CATEGORY, GAPS, INTEGER, NUMBER, WORDS, ColumnWords, Draft
from .numbers import read_as_numbers, vote_on_decimal_sign
from .times import epoch_column, lowest_and_highest, read_as_dates, read_as_years, year_column
from .unread import describe_unread
from .wording import format_rows, quote_all

MAYBE_ZERO = {"none", "nil"}  # gap words that may mean the number
MAX_BOOLEAN_WORDS = 8
# The shapes of gap words that may be codes, and those of the codes beside them: EU and APAC beside
# NA, two small letters, or one sign.
CODE_SHAPES = {"[A-Z]{2}": "[A-Z]{2,5}", "[a-z]{2}": "[a-z]{2}", r"[^\w\s]": r"[^\w\s]"}


def draft(rows: pl.DataFrame, target: str, separator: str, time: str | None = None) -> Draft:
    """Return the types of all columns, their gap words and the file's decimal sign.

    Args:
        rows: As `problem.data.load` returns them.
        target: Never a boolean of 0 and 1, nor a year: its values are its classes.
        separator: What stands between two fields, which decides what a comma can mean.
        time: A column that a person says is a time, whatever its name.
    """
    columns: dict[str, Column] = {}
    ignored: dict[str, str] = {}
    counted: dict[str, pl.DataFrame] = {}
    for values in rows.get_columns():
        name = values.name
        if values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            counted[name] = _count_words(values)
        elif values.dtype.is_numeric():
            columns[name] = _numeric_column(values, name, target, time)
        elif values.dtype == pl.Boolean:
            columns[name] = BOOLEAN
        elif values.dtype in (pl.Date, pl.Datetime):
            columns[name] = Column(type="datetime")
        else:
            ignored[name] = f"WARNING: of a type that no model here reads, {values.dtype}"
    decimal, decimal_notes = vote_on_decimal_sign(counted, separator)
    file_gaps: list[str] = []  # filled below, once every column has been read
    result = Draft(
        Data.model_construct(
            columns=columns, missing_values=file_gaps, decimal=decimal, ignored=ignored
        ),
        notes={name: [note] for name, note in decimal_notes.items()},
    )
    gaps_everywhere: set[str] = set()
    gaps_of_column: dict[str, set[str]] = {}
    for name, counts in counted.items():
        gaps = _listed_gaps(name, counts, result)
        others = counts.filter(~counts["word"].is_in(list(gaps)))
        column = ColumnWords(
            name=name,
            words=others["word"],
            rows=others["count"],
            is_timely=timely(name) or name == time,
            is_target=name == target,
        )
        columns[name], odd = _guess(column, result)
        gaps_of_column[name] = odd | gaps
        gaps_everywhere |= gaps
    # A word is a gap of the whole file if it is one wherever it occurs.
    for name, counts in counted.items():
        gaps_everywhere -= set(counts["word"]) - gaps_of_column[name]
    for name, gaps in gaps_of_column.items():
        if gaps_here_only := sorted(gaps - gaps_everywhere - {""}):
            columns[name] = columns[name].model_copy(update={"missing_values": gaps_here_only})
    file_gaps.extend(sorted({"", *gaps_everywhere}))
    return result


def _count_words(values: pl.Series) -> pl.DataFrame:
    """Return the different words in `word`, and in `count` how many rows hold each."""
    words = values.alias("word").cast(pl.String).str.strip_chars().drop_nulls()
    # In the order of the file, so that examples and samples are the same in every run.
    different = words.unique(maintain_order=True)
    return pl.DataFrame({"word": different, "count": words.unique_counts()})


def _listed_gaps(name: str, counts: pl.DataFrame, result: Draft) -> set[str]:
    """Return the words of a column that mean a gap everywhere, but for those that are values."""
    gaps = set(counts["word"].filter(counts["word"].str.to_lowercase().is_in(GAPS)))
    values = {word for word in gaps if word and _is_value(word, counts)}
    for word in sorted(values):
        result.note(name, f"WARNING: {word!r} is taken as a value, not as a missing one")
    return gaps - values


def _is_value(word: str, counts: pl.DataFrame) -> bool:
    """Check whether a word that often means "no value" is a code's value: NA, for Namibia.

    It is, if all other words have its shape: see `CODE_SHAPES`. Where NA occurs far more often than
    any other word it is a gap nevertheless.
    """
    others = counts.filter(~counts["word"].str.to_lowercase().is_in(GAPS))
    shape = None
    for own_shape, shape_of_others in CODE_SHAPES.items():
        if re.fullmatch(own_shape, word):
            shape = shape_of_others
            break
    min_others = 2 if len(word) == 1 else 3
    if shape is None or len(others) < min_others:
        return False
    are_alike = bool(others["word"].str.contains(f"^{shape}$").all())
    rows = int(counts.filter(counts["word"] == word)["count"].sum())
    return are_alike and rows <= 2 * int(others["count"].to_numpy().max())


def _numeric_column(values: pl.Series, name: str, target: str, time: str | None) -> Column:
    """Return the type of a column that the file itself holds as numbers."""
    column = INTEGER if values.dtype.is_integer() else NUMBER
    present = values.drop_nulls()
    if column == NUMBER:
        present = present.filter(present.cast(pl.Float64).is_finite())
    if present.is_empty():
        return column
    numbers = present.alias("values").cast(pl.Float64)
    low, high = lowest_and_highest(numbers)
    if column == INTEGER and present.cast(pl.Int64, strict=False).has_nulls():
        return CATEGORY  # too large for Int64: an identifier, of which every digit matters
    if name == target:
        return column
    if (low, high) == (0.0, 1.0) and numbers.is_in([0.0, 1.0]).all():
        return BOOLEAN
    are_whole = bool((numbers % 1 == 0).all())
    if year_of_the_row(name) or name == time:
        year = year_column(low, high, whole=are_whole)
        return year or epoch_column(low, high, whole=are_whole) or column
    if timely(name):
        return epoch_column(low, high, whole=are_whole) or column
    return column


def _guess(column: ColumnWords, result: Draft) -> tuple[Column, set[str]]:
    """Return the type of (nearly) all words of a column, and the few that are its gaps."""
    if _is_boolean(column, result):
        return BOOLEAN, set()
    if years := read_as_years(column):
        return years, set()
    readers = [read_as_numbers, read_as_dates]
    if column.is_timely:
        readers = [read_as_dates, read_as_numbers]
    for reader in readers:
        reading = reader(column, result)
        if reading:
            guess, odd = reading
            _note_gaps(column, odd, result)
            return guess, set(odd)
    if unread := describe_unread(column, result):
        result.unread[column.name] = unread
    return CATEGORY, set()


def _is_boolean(column: ColumnWords, result: Draft) -> bool:
    """Check whether words are a pair such as yes and no, or with a warning several such pairs."""
    words = set(column.words.head(MAX_BOOLEAN_WORDS + 1).str.to_lowercase())
    if len(column.words) > MAX_BOOLEAN_WORDS:
        return False
    if any(words <= set(pair) for pair in PAIRS[:-1]):
        _note_booleans(column, result)
        return True
    whole_pairs = [set(pair) for pair in PAIRS if set(pair) <= words]
    if len(whole_pairs) > 1 and words == set().union(*whole_pairs):
        result.note(column.name, f"WARNING: {quote_all(sorted(words))} are read as yes and no")
        return True
    return False


def _note_booleans(column: ColumnWords, result: Draft) -> None:
    """Note which words become false and true, unless they are these words already."""
    readings = {word: str(BOOLEANS[word.lower()]).lower() for word in sorted(column.words)}
    changed = {word: value for word, value in readings.items() if word.lower() != value}
    if changed:
        listed = ", ".join(f"{word!r} is read as {value}" for word, value in changed.items())
        result.note(column.name, listed)


def _note_gaps(column: ColumnWords, odd: pl.Series, result: Draft) -> None:
    """Note which words among numbers or times are read as gaps, unless that is expected."""
    for word in sorted(odd):
        count = column.count(pl.Series([word]))
        if word.lower() in MAYBE_ZERO:
            message = "is read as missing; if it means 0, replace it in problem/data.py"
        elif word.lower() not in WORDS:
            message = "is read as missing"
        else:
            continue
        result.note(column.name, f"WARNING: {word!r} ({format_rows(count)}) {message}")
