"""From the columns of the contract to the inputs of the model. Yours.

Training and serving call the same function, on ten million rows or on one, so each output may
depend on its own row only.
"""

import polars as pl
import polars.selectors as cs
from sklearn.feature_extraction.text import HashingVectorizer

# A word's place among the columns of its text follows from the word alone, by a hash.
WORDS = HashingVectorizer(n_features=256, norm=None, alternate_sign=False)


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Derive the model's inputs.

    Args:
        rows: The feature columns of the contract: numbers, booleans, `Enum` categories, datetimes,
            and texts as String.

    Returns:
        As many rows, in the same order; only numbers and `Enum` categories.
    """
    when = cs.temporal()
    words = [count_words(text) for text in rows.select(cs.string()).get_columns()]
    return rows.with_columns(
        cs.boolean().cast(pl.UInt8),
        when.dt.hour().name.suffix(" hour"),
        when.dt.weekday().name.suffix(" weekday"),
        when.dt.month().name.suffix(" month"),
        (when.dt.epoch("s") / 86_400).name.suffix(" days since 1970"),  # for trends
        *(column for table in words for column in table.get_columns()),
    ).drop(when, cs.string())


def count_words(texts: pl.Series) -> pl.DataFrame:
    """Count the words of (n,) texts in (n, 256) columns; words with one hash share a column."""
    counts = WORDS.transform(texts.fill_null("")).toarray().astype("float32")
    return pl.DataFrame(counts, schema=[f"{texts.name} word {n}" for n in range(256)])
