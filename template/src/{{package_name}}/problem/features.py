"""From the columns of the contract to the inputs of the model. Yours.

Training and serving call the same function, on ten million rows or on one, so each output may
depend on its own row only.
"""

from functools import cache
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import HashingVectorizer

WORD_COLUMNS = 256
SECONDS_PER_DAY = 86_400


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Derive the model's inputs.

    Args:
        rows: The feature columns of the contract: numbers, booleans, `Enum` categories, datetimes,
            and texts as String.

    Returns:
        As many rows, in the same order; only numbers and `Enum` categories.
    """
    times = cs.temporal()
    texts = cs.string()
    word_counts = [
        column
        for text in rows.select(texts).get_columns()
        for column in count_words(text).get_columns()
    ]
    return rows.with_columns(
        cs.boolean().cast(pl.UInt8),
        times.dt.hour().name.suffix(" hour"),
        times.dt.weekday().name.suffix(" weekday"),
        times.dt.month().name.suffix(" month"),
        # For trends.
        (times.dt.epoch("s") / SECONDS_PER_DAY).name.suffix(" days since 1970"),
        *word_counts,
    ).drop(times, texts)


def count_words(texts: pl.Series) -> pl.DataFrame:
    """Count the words of (n,) texts in (n, 256) columns; words with one hash share a column."""
    counts = word_counter().transform(texts.fill_null("")).toarray().astype("float32")
    names = [f"{texts.name} word {number}" for number in range(WORD_COLUMNS)]
    return pl.DataFrame(counts, schema=names)


@cache
def word_counter() -> "HashingVectorizer":
    """Make what counts words: a word's column follows from its hash, so nothing is learned."""
    from sklearn.feature_extraction.text import HashingVectorizer  # takes a second: texts alone do

    return HashingVectorizer(n_features=WORD_COLUMNS, norm=None, alternate_sign=False)
