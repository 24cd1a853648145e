"""Rows for the prediction log: as many of a partition as the log takes, drawn at random.

Drawn are rows of all kinds, so that the share of refused ones in the log is that of the partition.
"""

from collections import Counter
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..model_package import Model
from ..prediction_log.layout import (
    ANSWER_COLUMNS,
    REFUSED_COLUMNS,
    model_name,
    write_file,
)
from .rows import ScoredBatch, prediction_columns

PRIORITY = "priority"  # the rows with the lowest are drawn
COLUMN = "refused column"  # of a refused row, if what it breaks is a rule of a column
RULE = "refused rule"  # of a refused row; null for the others
ROW = "row"


class LoggedPartition(NamedTuple):
    """What all rows of a partition have in common, in the log."""

    request_id: str
    partition: str
    time: datetime  # UTC, without a zone


class LogSample:
    """The rows of a partition that are drawn for the log."""

    def __init__(self, model: Model, private: set[str], max_rows: int, request_id: str) -> None:
        self.model = model
        self.private = private
        self.max_rows = max_rows
        # The same rows, if a run that was killed does the partition once more.
        self.generator = np.random.default_rng(int(request_id[-16:], 16))
        self.frames: list[pl.DataFrame] = []
        self.waiting = 0

    def add(self, rows: pl.DataFrame, batch: ScoredBatch, first_row: int) -> None:
        """Add a batch.

        Args:
            rows: As they were read.
            batch: What became of them.
            first_row: The number of the first one in its partition.
        """
        if not self.max_rows:
            return
        priorities = self.generator.random(rows.height)
        if len(batch.index):  # else `typed` may have texts in the place of numbers
            self.frames.append(self._answered(rows, batch, first_row, priorities))
        refused = list(batch.reasons)
        self.frames.append(
            pl.DataFrame(
                {
                    PRIORITY: priorities[refused],
                    ROW: pl.Series([first_row + row for row in refused], dtype=pl.Int32),
                    COLUMN: [reasons[0].column for reasons in batch.reasons.values()],
                    RULE: [reasons[0].rule for reasons in batch.reasons.values()],
                },
                schema_overrides={COLUMN: pl.String, RULE: pl.String},
            )
        )
        self.waiting += rows.height
        if self.waiting > 2 * self.max_rows:
            self._draw()

    def _answered(
        self,
        rows: pl.DataFrame,
        batch: ScoredBatch,
        first_row: int,
        priorities: NDArray[np.float64],
    ) -> pl.DataFrame:
        columns = [
            pl.Series(PRIORITY, priorities[batch.index]),
            pl.Series(ROW, batch.index + first_row, pl.Int32),
            *prediction_columns(self.model, batch.y_pred),
        ]
        for series in batch.typed:
            if series.name not in self.private:
                columns.append(series.alias(f"x:{series.name}"))
        for key in self.model.data.keys:
            if key in self.private:
                continue
            if key in rows.columns:
                values = rows[key].cast(pl.String, strict=False)[batch.index]
            else:
                values = pl.Series([None] * len(batch.index), dtype=pl.String)
            columns.append(values.alias(f"k:{key}"))
        return pl.DataFrame(columns)

    def _draw(self) -> pl.DataFrame:
        """Keep the rows that are drawn of those so far, and return them."""
        rows = pl.concat(self.frames, how="diagonal_relaxed")
        if rows.height > self.max_rows:
            rows = rows.bottom_k(self.max_rows, by=PRIORITY)
        self.frames = [rows]
        self.waiting = rows.height
        return rows

    def write(self, log: str, about: LoggedPartition, with_answers: bool) -> None:
        """Write the rows, to files whose names are the same if it is done again.

        Args:
            with_answers: Whether the scores are in the sink; else only what was refused counts.
        """
        if not log or not self.frames:
            return
        rows = self._draw().sort(ROW)
        name = f"{about.time:%H%M%S%f}_{{}}_{about.request_id[-8:]}.parquet"
        folder = f"date={about.time:%F}"
        answered = rows.filter(pl.col(RULE).is_null())
        if with_answers and answered.height:
            model = model_name(self.model.version, self.model.digest)
            write_file(log, f"{folder}/{name.format(model)}", self._frame(answered, about))
        refused = rows.filter(pl.col(RULE).is_not_null()).select(COLUMN, RULE)
        if refused.height:
            lines = [
                (about.time, self.model.version, column, rule, count)
                for (column, rule), count in Counter(refused.rows()).items()
            ]
            frame = pl.DataFrame(lines, REFUSED_COLUMNS, orient="row")
            write_file(log, f"refused/{folder}/{name.format('all')}", frame)

    def _without_private(self, partition: str) -> str:
        """Return the name of a partition without values of private columns in its folders."""
        parts = [
            f"{name}=…" if equals and name in self.private else part
            for part in partition.split("/")
            for name, equals, _ in [part.partition("=")]
        ]
        return "/".join(parts)

    def _frame(self, answered: pl.DataFrame, about: LoggedPartition) -> pl.DataFrame:
        """Return rows as the service logs them."""
        values = {
            "request_id": about.request_id,
            "client_request_id": self._without_private(about.partition),
            "row": pl.col(ROW),
            "time": about.time,
            "version": self.model.version,
            "model_digest": self.model.digest,
        }
        columns = []
        for name, dtype in ANSWER_COLUMNS.items():
            value = values[name]
            expression = value if isinstance(value, pl.Expr) else pl.lit(value)
            columns.append(expression.cast(dtype).alias(name))
        return answered.select(*columns, pl.exclude(PRIORITY, COLUMN, RULE, ROW))
