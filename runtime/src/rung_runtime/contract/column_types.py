"""The types of columns that nobody has described, told from their words.

What is not understood is neither dropped nor made legal here: a word that holds digits is never a
gap, two-digit years and the like are dates only under a name of time, and a column that looks like
numbers or times without being read as such gets a note with WARNING and an example.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Literal

import polars as pl

from ..config import Column, Data
from ..pipeline.ingest import (
    CURRENCY,
    EPOCHS,
    PAIRS,
    QUARTER,
    YEAR,
    YEAR_OF_CENTURY,
    read_time,
    unreadable,
)
from .column_names import timely, year_of_the_row
from .column_names import words as column_words

GAPS = ["", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "?", "\\n"]  # wherever they stand
# Among numbers and dates.
WORDS = ["none", "nil", "-", "--", ".", "missing", "unknown", "n.a.", "undefined", "not available"]
# What spreadsheets write into a cell that they could not compute.
ERRORS = ["#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"]
MOST_GAPS = 5  # different words of a column, besides GAPS
MAYBE_ZERO = {"none", "nil"}
DAYS = "%d/%m/%Y|%m/%d/%Y|%d.%m.%Y|%d-%m-%Y|%m-%d-%Y|%d-%B-%Y|%d %B %Y|%B %d, %Y"
SHORT_DAYS = DAYS.replace("%Y", "%y").split("|")
HOURS = ["%H:%M", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p"]
CLOCKS = ["", *map("".join, product((" ", "T", ", "), HOURS, ("", "%#z", " UTC")))]
# As e-mail (RFC 2822), HTTP, C's ctime and Apache's log write them.
MAIL = ["%a, %d %B %Y %H:%M:%S%.f %#z", "%d %B %Y %H:%M:%S%.f %#z", "%a, %d %B %Y %H:%M:%S GMT"]
MAIL += ["%a %B %e %H:%M:%S %Y", "%a %B %e %H:%M:%S UTC %Y", "%d/%B/%Y:%H:%M:%S %#z"]
MAIL += ["%a, %d %B %Y", "%a, %B %d, %Y"]
LONG_DAYS = [*DAYS.split("|"), "%Y-%m-%d", "%Y/%m/%d"]
# Of these a version or a ratio may be one by accident: read under a name of time alone.
DOUBTFUL = ["%Y-%m", "%Y/%m", "%m/%Y", "%Y%m", "%Y.%m.%d", "%m/%y", "%B-%y", "%B %y", "%y%m%d"]
MONTHS = [*DOUBTFUL, "%Y%m%d", "%B %Y", "%B-%Y", "%Y %B", QUARTER]
# Two-digit years first: %Y would read the 13 in 05/06/13 as the year 13.
SURE = [*map("".join, product(LONG_DAYS, CLOCKS)), *MAIL]
SHORT = list(map("".join, product(SHORT_DAYS, CLOCKS)))
UNSURE = [*SHORT, *MONTHS]
FORMATS = [*SHORT, *SURE, *MONTHS]
DIGITS = "%Y%m%d%H%M%S"
NUMBER, INTEGER = Column(type="number"), Column(type="integer")
BOOLEAN, CATEGORY = Column(type="boolean"), Column(type="category")
LIKE_TIMES, NO_DAY = "WARNING: looks like times", "has no day"
# In English, German, French and Spanish; whole words, as "mail" and "market" are no months.
MONTH = (
    r"(?:^|[^\pL])(?:jan(?:uary?|vier)?|jänner|enero|feb(?:ruary?|rero)?|février|mar(?:ch|s|zo)?|märz"
    r"|apr(?:il)?|avril|abril|ma[yi]|mayo|jun[ei]?|juin|junio|jul[yi]?|juillet|julio|aug(?:ust)?|août"
    r"|agosto|sept?(?:ember|embre|iembre)?|o[ck]t(?:ober|obre)?|octubre|nov(?:ember|embre|iembre)?"
    r"|de[cz](?:ember)?|décembre|diciembre)(?:[^\pL]|$)"
)
# What people write times like; whether one can be read is another question.
TIMES = (
    r"(?i)^\W?(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ t,].*)?|\d{8}([ t_-]?\d{4,6})?"
    r"|\d{4}[-/ .]?[qw]\d{1,2}.*|[qw]\d{1,2}[-/ .]\d{4}|\d{4}[-/.]\d{1,2}|\d{1,2}[/.-]\d{4}"
    r"|\d{1,2}/\d{2}"
    rf"|.*\b\d{{1,2}}:\d\d\b.*|.*{MONTH}.*\d.*|.*\d.*{MONTH}.*|\d{{1,2}}{MONTH}.*)$"
)
HAS_YEAR = r"(?:^|\D)(?:1[6-9]|20)\d\d(?:\D|$)"
CLEAR_TIMES = rf"(?i){HAS_YEAR}|\d:\d\d|{MONTH}"
NUMBER_WITH_UNIT = (
    r"^[<>~≤≥=±(]*\s*[-+]?\s*(?:[$€£¥₹]\s*)?\.?\d[\d,' ]*(?:\.\d+)?(?:,\d+)?\s*[+)]?"
    r"\s*[^\W\d_]{0,6}(?:[%°²³/][^\W\d_]{0,4}[²³]?)?[+)*]?$"
)


@dataclass
class Draft:
    """What the words of all columns tell, before a target, keys or a split are chosen."""

    data: Data
    # By column: what a person has to know of how it was read.
    notes: dict[str, list[str]] = field(default_factory=dict)
    # By column: why its words are neither numbers nor times, though they look like it.
    unread: dict[str, str] = field(default_factory=dict)
    # Of these, columns that are right as words: versions, ratios.
    words: set[str] = field(default_factory=set)

    def note(self, name: str, message: str) -> None:
        """Add a sentence on a column."""
        self.notes.setdefault(name, []).append(message)


@dataclass
class _Words:
    """The different words of one column, without those that mean a gap everywhere."""

    name: str
    words: pl.Series
    rows: pl.Series  # how many hold each of them
    is_timely: bool
    is_target: bool

    def can_be_gaps(self, odd: pl.Series) -> bool:
        """Whether words can mean no value: few, in few rows, and without a digit in any."""
        lower = odd.str.to_lowercase()
        known = lower.is_in([*WORDS, *ERRORS]).all()
        share = float(self.count(odd)) / float(self.rows.sum() or 1)
        digits = odd.filter(~lower.is_in(ERRORS)).str.contains(r"\d").any()
        return len(odd) <= MOST_GAPS and share <= (0.5 if known else 0.05) and not digits

    def count(self, words: pl.Series) -> int:
        """How many rows hold one of these words."""
        return int(self.rows.filter(self.words.is_in(words.implode())).sum())


def draft(rows: pl.DataFrame, target: str, separator: str, time: str | None = None) -> Draft:
    """Tell the types of all columns, their gap words and the file's decimal sign.

    Args:
        rows: As `problem.data.load` returns them.
        target: It is no boolean of 0 and 1 and no year: its values are its classes.
        separator: What stands between two fields, which tells what a comma can mean.
        time: A column that a person says is a time, whatever its name.
    """
    columns: dict[str, Column] = {}
    left_out: dict[str, str] = {}
    seen: dict[str, pl.DataFrame] = {}
    for column in rows.get_columns():
        name, dtype = column.name, column.dtype
        if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            words = column.alias("word").cast(pl.String).str.strip_chars().drop_nulls()
            # In the order of the file, so that examples and samples are the same in every run.
            different = words.unique(maintain_order=True)
            seen[name] = pl.DataFrame({"word": different, "count": words.unique_counts()})
        elif dtype.is_numeric():
            columns[name] = _of_numbers(column, name, target, time)
        elif dtype in (pl.Boolean, pl.Date, pl.Datetime):
            columns[name] = BOOLEAN if dtype == pl.Boolean else Column(type="datetime")
        else:
            left_out[name] = f"WARNING: of a type that no model here reads, {dtype}"
    decimal, decimal_notes = _decimal(seen, separator)
    gap_words: list[str] = []
    made = Draft(
        Data.model_construct(columns=columns, gaps=gap_words, decimal=decimal, left_out=left_out),
        notes={name: [note] for name, note in decimal_notes.items()},
    )
    everywhere: set[str] = set()
    own: dict[str, set[str]] = {}
    for name, counts in seen.items():
        gaps = set(counts["word"].filter(counts["word"].str.to_lowercase().is_in(GAPS)))
        values = {word for word in gaps if word and _is_value(word, counts)}
        for word in sorted(values):
            made.note(name, f"WARNING: {word!r} is taken as a value, not as a gap")
        gaps -= values
        counts = counts.filter(~counts["word"].is_in(list(gaps)))
        of_time = timely(name) or name == time
        left = _Words(name, counts["word"], counts["count"], of_time, name == target)
        columns[name], odd = _guess(left, made)
        own[name] = odd | gaps
        everywhere |= gaps
    # A word is a gap of the whole file if it is one wherever it stands.
    for name, counts in seen.items():
        everywhere -= set(counts["word"]) - own[name]
    for name, gaps in own.items():
        if alone := sorted(gaps - everywhere - {""}):
            columns[name] = columns[name].model_copy(update={"gaps": alone})
    gap_words.extend(sorted({"", *everywhere}))
    return made


def _is_value(word: str, counts: pl.DataFrame) -> bool:
    """Whether a word that often means "no value" is one of a code's: NA, of Namibia.

    It is, if all other words have its shape: capitals as of EU and APAC, two small letters, or one
    sign. Where NA stands far more often than any other word it is a gap nevertheless.
    """
    others = counts.filter(~counts["word"].str.to_lowercase().is_in(GAPS))
    shapes = {"[A-Z]{2}": "[A-Z]{2,5}", "[a-z]{2}": "[a-z]{2}", r"[^\w\s]": r"[^\w\s]"}
    shape = next((like for own, like in shapes.items() if re.fullmatch(own, word)), None)
    if shape is None or len(others) < (2 if len(word) == 1 else 3):
        return False
    alike = bool(others["word"].str.contains(f"^{shape}$").all())
    often = counts.filter(counts["word"] == word)["count"].sum()
    return alike and int(often) <= 2 * int(others["count"].to_numpy().max())


def _of_numbers(column: pl.Series, name: str, target: str, time: str | None) -> Column:
    """The type of a column that the file itself holds as numbers."""
    kind = INTEGER if column.dtype.is_integer() else NUMBER
    known = column.drop_nulls()
    if kind == NUMBER:
        known = known.filter(known.cast(pl.Float64).is_finite())
    if known.is_empty():
        return kind
    values = known.alias("values").cast(pl.Float64)
    low, high = _ends(values)
    if kind == INTEGER and known.cast(pl.Int64, strict=False).has_nulls():
        return CATEGORY  # too large for Int64: an identifier, of which every digit matters
    if name == target:
        return kind
    if (low, high) == (0.0, 1.0) and values.is_in([0.0, 1.0]).all():
        return BOOLEAN
    whole = bool((values % 1 == 0).all())
    if year_of_the_row(name) or name == time:
        return _year(low, high, whole=whole) or _count(low, high, whole=whole) or kind
    return (_count(low, high, whole=whole) if timely(name) else None) or kind


def _ends(values: pl.Series) -> tuple[float, float]:
    """The lowest and the highest of numbers without gaps."""
    numbers = values.to_numpy()
    return float(numbers.min()), float(numbers.max())


def _guess(column: _Words, made: Draft) -> tuple[Column, set[str]]:
    """The type of (nearly) all words of a column, and the few that are not of it: its gaps."""
    lower = set(column.words.head(9).str.to_lowercase())
    if len(column.words) < 9 and any(lower <= set(pair) for pair in PAIRS[:-1]):
        return BOOLEAN, set()
    whole_pairs = [set(pair) for pair in PAIRS if set(pair) <= lower]
    if len(column.words) < 9 and len(whole_pairs) > 1 and lower == set().union(*whole_pairs):
        shown = ", ".join(map(repr, sorted(lower)))
        made.note(column.name, f"WARNING: {shown} are read as yes and no")
        return BOOLEAN, set()
    if years := _as_years(column):
        return years, set()
    kinds = [_as_dates, _as_numbers] if column.is_timely else [_as_numbers, _as_dates]
    for kind in kinds:
        if read := kind(column, made):
            _tell_gaps(column, read[1], made)
            return read[0], set(read[1])
    if message := _unread(column, made):
        made.unread[column.name] = message
    return CATEGORY, set()


def _tell_gaps(column: _Words, odd: pl.Series, made: Draft) -> None:
    """Say which words among numbers or times are read as gaps, unless everybody would expect it."""
    for word in sorted(odd):
        count = column.count(pl.Series([word]))
        if word.lower() in MAYBE_ZERO:
            message = "is read as a gap; if it means 0, replace it in problem/data.py"
        elif word.lower() not in WORDS:
            message = "is read as a gap"
        else:
            continue
        made.note(column.name, f"WARNING: {word!r} ({_rows(count)}) {message}")


# --- numbers -----------------------------------------------------------------------------------


def _decimal(
    seen: dict[str, pl.DataFrame], separator: str
) -> tuple[Literal[".", ","], dict[str, str]]:
    """The decimal sign of the file, by a vote of its columns, and what is doubtful about it."""
    before, behind = rf"^[-+(\s]*{CURRENCY}?\s*[-+]?\s*", rf"\s*(?:{CURRENCY}|%)?\s*[-+]?\)?$"

    def share(words: pl.Series, core: str) -> int:
        return int(words.str.contains(f"{before}(?:{core}){behind}").sum())

    votes = 0
    unclear: dict[str, tuple[pl.Series, int]] = {}
    notes: dict[str, str] = {}
    for name, counts in seen.items():
        words = counts["word"].filter(counts["word"].str.contains(r"\d[.,]\d|^\W*[.,]\d"))
        if words.is_empty():
            continue
        some = words.head(2000)
        comma = share(some, r"\d{1,3}(?:[. ']\d{3})+,\d+|\d*,(?:\d{1,2}|\d{4,})|0,\d+")
        comma += share(some, r"\d{1,3}(?:\.\d{3}){2,}")
        point = share(some, r"\d{1,3}(?:[, ']\d{3})+\.\d+|\d*\.(?:\d{1,2}|\d{4,})|0\.\d+")
        point += share(some, r"\d{1,3}(?:,\d{3}){2,}|\d{1,2}(?:,\d{2})+,\d{3}")
        votes += (comma > point) - (comma < point)
        if comma == point == 0:
            three = share(some, r"[1-9]\d{0,2},\d{3}"), share(some, r"[1-9]\d{0,2}\.\d{3}")
            if three[0] > three[1]:  # with commas between columns, these are thousands
                votes += separator == ";"
            elif three[1] == len(some):
                unclear[name] = counts["word"], three[1]
    for name, (words, pointed) in unclear.items():
        whole = words.filter(words.str.contains(r"^\D*\d+\D*$"))
        short = len(whole) > 0 and bool(whole.str.contains(r"^\D*\d{1,3}\D*$").all())
        if pointed < 10 or not (short or separator == ";"):
            continue
        thousands = votes > 0 or (short and separator == ";" and votes == 0)
        votes += thousands
        example = words.filter(words.str.contains(r"\d\.\d{3}"))[0]
        said = f"{example!r} is read as " + ("thousands" if thousands else "a fraction")
        other = "'.'" if thousands else "','"
        notes[name] = f"WARNING: {said}; if it is not, set decimal: {other} in config/data.yaml"
    return "," if votes > 0 else ".", notes


def _as_numbers(column: _Words, made: Draft) -> tuple[Column, pl.Series] | None:
    """The type of words that are numbers, and the few that are not; None if they are not."""
    words = column.words
    # A look at some: reading a million texts as numbers takes its time.
    if len(unreadable(words.head(200), NUMBER, made.data)[0]) > MOST_GAPS:
        return None
    odd, _ = unreadable(words, NUMBER, made.data)
    good = words.filter(~words.is_in(odd.implode()))
    coded = good.str.contains(r"^0\d").sum() > 0.01 * len(good)  # 0714 is a code, no number
    if good.is_empty() or coded or not column.can_be_gaps(odd):
        return None
    digits = bool(good.str.contains(r"^[-+]?\d+$").all())
    whole = digits or not good.str.contains(rf"[{made.data.decimal}eE]").any()
    fits = unreadable(good, INTEGER, made.data)[0].is_empty()
    if digits and not fits:
        return None  # too long for 64 bits: an identifier, of which every digit matters
    if not column.is_target and set(good.head(3)) in ({"0", "1"}, {"0.0", "1.0"}):
        return BOOLEAN, odd
    _tell_mixed(good.head(2000), column.name, made)
    return INTEGER if whole and fits else NUMBER, odd


def _tell_mixed(words: pl.Series, name: str, made: Draft) -> None:
    """Tell of several currencies in one column, and of percent signs in some rows only."""
    found = words.str.extract(r"([$€£¥₹%]|USD|EUR|GBP|CHF|JPY)").fill_null("").unique()
    signs = sorted(found)
    if len(signs) > 2 or (len(signs) == 2 and ("%" in signs or "" not in signs)):
        shown = ", ".join(repr(sign) if sign else "none" for sign in signs)
        made.note(name, f"WARNING: signs are mixed ({shown}), and all of them are left away")


# --- times -------------------------------------------------------------------------------------


def _as_dates(column: _Words, made: Draft) -> tuple[Column, pl.Series] | None:
    """The formats of words that are dates, and the few words that are not; None if they are not."""
    words = column.words
    formats = _formats(words, timely_name=column.is_timely)
    if not formats:
        return None
    read = Column(type="datetime", formats=formats)
    odd, _ = unreadable(words, read, made.data)
    numbers = len(unreadable(odd, NUMBER, made.data)[0]) < len(odd)
    if len(odd) == len(words) or numbers or not column.can_be_gaps(odd):
        return None
    return read, odd


def _formats(words: pl.Series, *, timely_name: bool) -> list[str]:
    """The formats that together read the words; whichever reads most of them is taken first."""
    last = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=2)
    allowed = FORMATS if timely_name else SURE

    def read(words: pl.Series, formats: list[str]) -> pl.DataFrame:
        dates = [read_time(pl.col("word"), f).alias(f) for f in formats]
        when = words.to_frame("word").select(dates)
        known = when.select(pl.all().dt.year().is_between(1600, 2300))
        if future := [f for f in formats if f in UNSURE]:
            soon = when.select(pl.col(future).dt.replace_time_zone(None) <= last)
            # A format that would bring a date into the future is none of this column.
            wrong = [f for f in future if not soon[f].all()]
            known = known.with_columns(pl.lit(None, pl.Boolean).alias(f) for f in wrong)
        return known

    found: list[str] = []
    while len(words) and len(found) < 6:
        some = words.head(20)
        clock = some.str.contains(":").any()
        tried = read(some, [f for f in allowed if ("%M" in f) == clock]).sum()
        likely = read(words, [form for form in tried.columns if tried[form][0]])
        counts = {form: likely[form].sum() or 0 for form in likely.columns}
        if not any(counts.values()):
            break
        found.append(max(counts, key=lambda form: counts[form]))
        words = words.filter(~likely[found[-1]].fill_null(False))
    return sorted(found, key=FORMATS.index)


def _as_years(column: _Words) -> Column | None:
    """A datetime, if words are years, whole or decimal, and the name agrees."""
    if column.is_target or not (column.is_timely or year_of_the_row(column.name)):
        return None
    words = column.words
    if len(words) and column.is_timely and words.str.contains(r"^\d{9,16}$").all():
        return _count(*_ends(words.cast(pl.Float64)), whole=True)
    if not len(words) or not words.str.contains(r"^\d{1,4}(\.\d+)?$").all():
        return None
    values = words.cast(pl.Float64)
    low, high = _ends(values)
    whole = bool((values % 1 == 0).all())
    every = len(words) >= 10 and high - low + 1 == values.n_unique()  # rows in every year
    bare = set(column_words(column.name)) <= {"time", "date", "period"}
    padded = words.str.contains(r"^\d\d$").all() and words.str.contains("^0").any()
    if padded and year_of_the_row(column.name):
        ours = values.filter(values < 50).to_numpy().max()
        late = ours > datetime.now(UTC).year % 100
        return None if late else Column(type="datetime", formats=[YEAR_OF_CENTURY])
    if year_of_the_row(column.name) or not whole or (bare and every and low >= 1600):
        return _year(low, high, whole=whole)
    return None


def _count(low: float, high: float, *, whole: bool) -> Column | None:
    """A datetime, if values in this range can be what a clock counts, none of them in the future.

    Seconds since 1970, or their thousandths or millionths, from 1979 on; or all digits of a time.
    """
    now = datetime.now(UTC)
    if not whole:
        return None
    for form, seconds in EPOCHS.items():
        if 3e8 * seconds <= low and high < now.timestamp() * seconds:
            return Column(type="datetime", formats=[form])
    if low >= 16e12 and high < float(f"{now:%Y%m%d%H%M%S}"):
        return Column(type="datetime", formats=[DIGITS])
    return None


def _year(low: float, high: float, *, whole: bool) -> Column | None:
    """A datetime, if values in this range can be years, none of them in the future."""
    this_year = datetime.now(UTC).year
    if low >= 1600 and high < this_year + 2:
        return Column(type="datetime", formats=[YEAR])
    if whole and 50 <= low < high <= 99:  # 1 to 15 may be the years of a study
        return Column(type="datetime", formats=[YEAR_OF_CENTURY])
    return None


# --- what was not understood ---------------------------------------------------------------------


def _unread(column: _Words, made: Draft) -> str | None:
    """Say, with an example, that words look like numbers or times and are read as neither."""
    words = column.words
    if len(words) < 5:
        return None
    some = words.head(2000)
    times = some.filter(some.str.contains(TIMES))
    if len(times) >= 0.8 * len(some):
        example = _example(column, _not_read(times, column, made))
        if column.is_timely or times.str.contains(CLEAR_TIMES).sum() >= 0.8 * len(times):
            if times.str.contains(r"^\d{1,2}:\d\d").all():
                return f"{LIKE_TIMES}, but {example} {NO_DAY}: join the two in problem/data.py"
            return f"{LIKE_TIMES}, but {example} cannot be read: read it in problem/data.py"
        made.words.add(column.name)
        return f"read as words: {example} is a date only under a name such as date"
    with_year = some.filter(some.str.contains(HAS_YEAR))
    if column.is_timely and len(with_year) >= 0.8 * len(some):
        example = _example(column, with_year)
        return f"{LIKE_TIMES}, but {example} cannot be read: read it in problem/data.py"
    pairs = some.filter(some.str.contains(r"^\d+(\.\d+)?\s*/\s*\d+(\.\d+)?$"))
    if len(pairs) >= 0.8 * len(some) and len(some) >= 20:
        made.words.add(column.name)
        return f"WARNING: {pairs[0]!r} holds two values: part them in problem/data.py"
    odd, _ = unreadable(some, NUMBER, made.data)
    with_unit = odd.filter(odd.str.contains(NUMBER_WITH_UNIT))
    alike = len(some) - len(odd) + len(with_unit)
    if odd.is_empty() or alike < 0.8 * len(some) or len(some) < 20:
        return None
    example = _example(column, odd if with_unit.is_empty() else with_unit)
    todo = "read it in problem/data.py, or list it under gaps of the column if it means no value"
    return f"WARNING: looks like numbers, but {example} cannot be read: {todo}"


def _not_read(times: pl.Series, column: _Words, made: Draft) -> pl.Series:
    """Those of the words that no known format reads, if the others can be read."""
    formats = _formats(times, timely_name=column.is_timely)
    if not formats:
        return times
    odd, _ = unreadable(times, Column(type="datetime", formats=formats), made.data)
    return times if odd.is_empty() else odd


def _example(column: _Words, words: pl.Series) -> str:
    """One of the words and in how many rows there are such."""
    rows = column.count(words)
    return f"{words[0]!r} ({_rows(rows)} like it)" if rows > 1 else f"{words[0]!r} (1 row)"


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
