"""Draft: what the words of all columns say, before a target, keys or a split are chosen."""

from dataclasses import dataclass, field

import polars as pl

from ..config import Column, Data
from .wording import format_rows

# Words that mean "no value", in any column.
GAPS = ["", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "?", "\\n"]
# Words that mean it among numbers and dates.
WORDS = ["none", "nil", "-", "--", ".", "missing", "unknown", "n.a.", "undefined", "not available"]
# What spreadsheets write into a cell that they could not compute.
ERRORS = ["#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"]
MAX_GAP_WORDS = 5  # of a column, besides GAPS
# The share of a column's rows that gap words may take up: words of the lists above, and others.
MAX_LISTED_SHARE = 0.5
MAX_OTHER_SHARE = 0.05

NUMBER = Column(type="number")
INTEGER = Column(type="integer")
BOOLEAN = Column(type="boolean")
CATEGORY = Column(type="category")


@dataclass(frozen=True)
class Unread:
    """Why words are read neither as numbers nor as times, though they look like it."""

    message: str
    is_time: bool = False  # points in time, by which rows could be split if they could be read
    is_right_as_words: bool = False  # a version or a ratio


@dataclass
class Draft:
    """The types of all columns, and what a person has to know about how they were read."""

    data: Data  # columns, gaps, decimal sign and what is left out; nothing else is set
    notes: dict[str, list[str]] = field(default_factory=dict)  # by column
    unread: dict[str, Unread] = field(default_factory=dict)  # by column

    def note(self, name: str, message: str) -> None:
        """Add a sentence on a column."""
        self.notes.setdefault(name, []).append(message)


@dataclass
class ColumnWords:
    """The different words of one column, without those that mean a gap everywhere."""

    name: str
    words: pl.Series
    rows: pl.Series  # how many rows hold each of them
    is_timely: bool  # by its name
    is_target: bool

    def can_be_gaps(self, odd: pl.Series) -> bool:
        """Check whether words can mean no value: few, in few rows, and none with a digit."""
        lower = odd.str.to_lowercase()
        are_listed = lower.is_in([*WORDS, *ERRORS]).all()
        share = float(self.count(odd)) / float(self.rows.sum() or 1)
        max_share = MAX_LISTED_SHARE if are_listed else MAX_OTHER_SHARE
        has_digit = odd.filter(~lower.is_in(ERRORS)).str.contains(r"\d").any()
        return len(odd) <= MAX_GAP_WORDS and share <= max_share and not has_digit

    def count(self, words: pl.Series) -> int:
        """Return how many rows hold one of these words."""
        return int(self.rows.filter(self.words.is_in(words.implode())).sum())

    def example(self, words: pl.Series) -> str:
        """Return one of the words, and how many rows hold such words."""
        rows = self.count(words)
        if rows > 1:
            return f"{words[0]!r} ({format_rows(rows)} like it)"
        return f"{words[0]!r} (1 row)"
