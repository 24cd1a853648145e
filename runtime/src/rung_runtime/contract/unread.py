"""Unread: words that look like numbers or times and can be read as neither."""

import polars as pl

from ..config import Column
from ..pipeline.ingest import unreadable
from .draft import NUMBER, ColumnWords, Draft, Unread
from .times import date_formats

MIN_WORDS = 5
MIN_NUMBERS = 20  # words, of what looks like numbers or pairs of them
SAMPLE = 2_000  # words that are looked at
MOST_SHARE = 0.8  # of the words must look like it

# In English, German, French and Spanish; whole words, as "mail" and "market" are not months.
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
CLOCK = r"^\d{1,2}:\d\d"
PAIR = r"^\d+(\.\d+)?\s*/\s*\d+(\.\d+)?$"
NUMBER_WITH_UNIT = (
    r"^[<>~≤≥=±(]*\s*[-+]?\s*(?:[$€£¥₹]\s*)?\.?\d[\d,' ]*(?:\.\d+)?(?:,\d+)?\s*[+)]?"
    r"\s*[^\W\d_]{0,6}(?:[%°²³/][^\W\d_]{0,4}[²³]?)?[+)*]?$"
)


def describe_unread(column: ColumnWords, draft: Draft) -> Unread | None:
    """Describe, with an example, words that look like numbers or times; None for other words."""
    if len(column.words) < MIN_WORDS:
        return None
    sample = column.words.head(SAMPLE)
    times = sample.filter(sample.str.contains(TIMES))
    if len(times) >= MOST_SHARE * len(sample):
        return _unread_times(times, column, draft)
    with_year = sample.filter(sample.str.contains(HAS_YEAR))
    if column.is_timely and len(with_year) >= MOST_SHARE * len(sample):
        return _unreadable_times(column.example(with_year))
    if len(sample) < MIN_NUMBERS:
        return None
    pairs = sample.filter(sample.str.contains(PAIR))
    if len(pairs) >= MOST_SHARE * len(sample):
        message = f"WARNING: {pairs[0]!r} holds two values: split them in problem/data.py"
        return Unread(message, is_right_as_words=True)
    odd, _ = unreadable(sample, NUMBER, draft.data)
    with_unit = odd.filter(odd.str.contains(NUMBER_WITH_UNIT))
    number_like = len(sample) - len(odd) + len(with_unit)
    if odd.is_empty() or number_like < MOST_SHARE * len(sample):
        return None
    example = column.example(odd if with_unit.is_empty() else with_unit)
    return Unread(
        f"WARNING: looks like numbers, but {example} cannot be read: read it in problem/data.py, "
        "or list it under missing_values of the column if it means no value"
    )


def _unread_times(times: pl.Series, column: ColumnWords, draft: Draft) -> Unread:
    example = column.example(_unread_examples(times, column, draft))
    clear = times.str.contains(CLEAR_TIMES).sum()
    if not column.is_timely and clear < MOST_SHARE * len(times):
        message = f"read as words: {example} is a date only under a name such as date"
        return Unread(message, is_right_as_words=True)
    if times.str.contains(CLOCK).all():
        return Unread(
            f"WARNING: looks like times, but {example} has no day: join the two in problem/data.py"
        )
    return _unreadable_times(example)


def _unreadable_times(example: str) -> Unread:
    message = f"WARNING: looks like times, but {example} cannot be read: read it in problem/data.py"
    return Unread(message, is_time=True)


def _unread_examples(times: pl.Series, column: ColumnWords, draft: Draft) -> pl.Series:
    """Return those of the words that no known format reads, if the others can be read."""
    formats = date_formats(times, timely_name=column.is_timely)
    if not formats:
        return times
    odd, _ = unreadable(times, Column(type="datetime", formats=formats), draft.data)
    return times if odd.is_empty() else odd
