"""From the columns of the contract to the inputs of the model. Yours.

Training and serving call the same function, on ten million rows or on one, so each output may
depend on its own row only.
"""

import polars as pl
import polars.selectors as cs


def features(rows: pl.DataFrame) -> pl.DataFrame:
    """Derive the model's inputs.

    Args:
        rows: The feature columns of the contract: numbers, booleans, `Enum` categories, datetimes,
            and texts as String.

    Returns:
        As many rows, in the same order; only numbers and `Enum` categories.
    """
    when = cs.temporal()
    return rows.with_columns(
        cs.boolean().cast(pl.UInt8),
        when.dt.hour().name.suffix(" hour"),
        when.dt.weekday().name.suffix(" weekday"),
        when.dt.month().name.suffix(" month"),
        (when.dt.epoch("s") / 86_400).name.suffix(" days since 1970"),  # for trends
    ).drop(when, cs.string())
