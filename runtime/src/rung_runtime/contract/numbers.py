"""Numbers: which words of a file are numbers, and which sign their fractions have."""

from typing import Literal

import polars as pl

from ..config import Column
from ..pipeline.ingest import CURRENCY, unreadable
from .draft import BOOLEAN, INTEGER, MAX_GAP_WORDS, NUMBER, ColumnWords, Draft

SAMPLE = 2_000  # words that are looked at
FIRST_LOOK = 200  # words that must look like numbers before all of them are read as such
MAX_CODED_SHARE = 0.01  # of words that begin with 0, as 0714 is a code and not a number
MIN_POINTED_WORDS = 10  # of a column that is doubtful, to be worth a warning

PREFIX = rf"^[-+(\s]*{CURRENCY}?\s*[-+]?\s*"
SUFFIX = rf"\s*(?:{CURRENCY}|%)?\s*[-+]?\)?$"
# Words whose decimal sign is certain, or whose groups of thousands are.
DECIMAL_COMMA = r"\d{1,3}(?:[. ']\d{3})+,\d+|\d*,(?:\d{1,2}|\d{4,})|0,\d+"
THOUSANDS_POINT = r"\d{1,3}(?:\.\d{3}){2,}"
DECIMAL_POINT = r"\d{1,3}(?:[, ']\d{3})+\.\d+|\d*\.(?:\d{1,2}|\d{4,})|0\.\d+"
THOUSANDS_COMMA = r"\d{1,3}(?:,\d{3}){2,}|\d{1,2}(?:,\d{2})+,\d{3}"
# Words that are a fraction or thousands.
THREE_AFTER_COMMA = r"[1-9]\d{0,2},\d{3}"
THREE_AFTER_POINT = r"[1-9]\d{0,2}\.\d{3}"


def vote_on_decimal_sign(
    counted: dict[str, pl.DataFrame], separator: str
) -> tuple[Literal[".", ","], dict[str, str]]:
    """Return the decimal sign that most columns suggest, and a note on each doubtful column.

    Args:
        counted: By column, its different words in `word`.
        separator: Between fields: with a semicolon, a comma may be a decimal sign.
    """
    votes = 0
    doubtful: dict[str, pl.Series] = {}
    for name, counts in counted.items():
        words = counts["word"].filter(counts["word"].str.contains(r"\d[.,]\d|^\W*[.,]\d"))
        if words.is_empty():
            continue
        sample = words.head(SAMPLE)
        commas = _count(sample, DECIMAL_COMMA) + _count(sample, THOUSANDS_POINT)
        points = _count(sample, DECIMAL_POINT) + _count(sample, THOUSANDS_COMMA)
        votes += (commas > points) - (commas < points)
        if commas == points == 0:
            three_after_comma = _count(sample, THREE_AFTER_COMMA)
            three_after_point = _count(sample, THREE_AFTER_POINT)
            if three_after_comma > three_after_point:
                votes += separator == ";"  # with commas between columns, these are thousands
            elif three_after_point == len(sample) and len(sample) >= MIN_POINTED_WORDS:
                doubtful[name] = counts["word"]
    notes: dict[str, str] = {}
    for name, words in doubtful.items():
        whole = words.filter(words.str.contains(r"^\D*\d+\D*$"))
        are_short = len(whole) > 0 and bool(whole.str.contains(r"^\D*\d{1,3}\D*$").all())
        if not (are_short or separator == ";"):
            continue
        are_thousands = votes > 0 or (are_short and separator == ";" and votes == 0)
        votes += are_thousands
        example = words.filter(words.str.contains(r"\d\.\d{3}"))[0]
        reading = "thousands" if are_thousands else "a fraction"
        other = "'.'" if are_thousands else "','"
        notes[name] = (
            f"WARNING: {example!r} is read as {reading}; if it is not, set decimal: {other} in "
            "config/data.yaml"
        )
    return "," if votes > 0 else ".", notes


def _count(words: pl.Series, core: str) -> int:
    """Return how many words are such a number, with or without signs around it."""
    return int(words.str.contains(f"{PREFIX}(?:{core}){SUFFIX}").sum())


def read_as_numbers(column: ColumnWords, draft: Draft) -> tuple[Column, pl.Series] | None:
    """Return the type of words that are numbers, and the few that are not; None if most are not."""
    words = column.words
    # A look at some first: reading a million texts as numbers takes its time.
    odd_at_first, _ = unreadable(words.head(FIRST_LOOK), NUMBER, draft.data)
    if len(odd_at_first) > MAX_GAP_WORDS:
        return None
    odd, _ = unreadable(words, NUMBER, draft.data)
    readable = words.filter(~words.is_in(odd.implode()))
    are_codes = readable.str.contains(r"^0\d").sum() > MAX_CODED_SHARE * len(readable)
    if readable.is_empty() or are_codes or not column.can_be_gaps(odd):
        return None
    are_digits = bool(readable.str.contains(r"^[-+]?\d+$").all())
    are_whole = are_digits or not readable.str.contains(rf"[{draft.data.decimal}eE]").any()
    fit_integer = unreadable(readable, INTEGER, draft.data)[0].is_empty()
    if are_digits and not fit_integer:
        return None  # too long for 64 bits: an identifier, of which every digit matters
    if not column.is_target and set(readable.head(3)) in ({"0", "1"}, {"0.0", "1.0"}):
        return BOOLEAN, odd
    _note_mixed_signs(readable.head(SAMPLE), column.name, draft)
    return INTEGER if are_whole and fit_integer else NUMBER, odd


def _note_mixed_signs(words: pl.Series, name: str, draft: Draft) -> None:
    """Add a note on several currencies in one column, or percent signs in some rows only."""
    signs = sorted(words.str.extract(r"([$€£¥₹%]|USD|EUR|GBP|CHF|JPY)").fill_null("").unique())
    if len(signs) > 2 or (len(signs) == 2 and ("%" in signs or "" not in signs)):
        listed = ", ".join(repr(sign) if sign else "none" for sign in signs)
        draft.note(name, f"WARNING: signs are mixed ({listed}), and all of them are dropped")
