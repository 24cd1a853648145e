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
TIMES = cs.temporal()
TEXTS = cs.string()
FLAGS = cs.boolean()
# Made once: for a single row that would take longer than all that they say.
INPUTS = [
    ~(TIMES | TEXTS | FLAGS),
    FLAGS.cast(pl.UInt8),
    TIMES.dt.hour().name.suffix(" hour"),
    TIMES.dt.weekday().name.suffix(" weekday"),
    TIMES.dt.month().name.suffix(" month"),
    # For trends.
    (TIMES.dt.epoch("s") / SECONDS_PER_DAY).name.suffix(" days since 1970"),
]


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Derive the model's inputs.

    Args:
        rows: The feature columns of the contract: numbers, booleans, `Enum` categories, datetimes,
            and texts as String.

    Returns:
        As many rows, in the same order; only numbers and `Enum` categories.
    """
    word_counts = [
        column
        for text in rows.select(TEXTS).get_columns()
        for column in count_words(text).get_columns()
    ]
    return rows.select(*INPUTS, *word_counts)


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
