"""Wording that the sentences of `ml data use` share."""

from collections.abc import Iterable


def format_rows(count: int) -> str:
    """Return a number of rows, as a person reads it."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def quote_all(words: Iterable[str]) -> str:
    """Return words in quotes, separated by commas."""
    return ", ".join(map(repr, words))
