"""Verdicts on batches of rows, added up to the verdict that one table of all rows would get.

Counts, samples and the numbers of rows are those of `pipeline.validate.check`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from ..config import Data
from ..pipeline.validate import (
    COLUMN_KINDS,
    MAX_SAMPLE_LENGTH,
    MAX_SAMPLES,
    FailedRule,
    Rules,
    column_failures,
    rules,
)


@dataclass
class Judged:
    """What is wrong with rows so far.

    Attributes:
        rows: How many there are.
        names: The columns that they have.
        newest: Of the contract's time.
        failures: What is wrong, by column and rule; samples are whole.
    """

    rows: int = 0
    names: dict[str, None] = field(default_factory=dict)
    newest: datetime | None = None
    failures: dict[tuple[str | None, str], FailedRule] = field(default_factory=dict)

    def add_batch(self, typed: pl.DataFrame, data: Data, more: Rules) -> None:
        """Judge typed rows, and add them."""
        failed, names = column_failures(typed, data)
        failed += _broken_rules(typed, data, names, more)
        newest = typed[data.time].max() if data.time in names else None
        assert newest is None or isinstance(newest, datetime)
        self._add(failed, typed.height, typed.columns, newest)

    def add(self, other: "Judged") -> None:
        """Add rows that were judged elsewhere."""
        self._add(other.failures.values(), other.rows, other.names, other.newest)

    def _add(
        self,
        failed: Iterable[FailedRule],
        rows: int,
        names: Iterable[str],
        newest: datetime | None,
    ) -> None:
        for failure in failed:
            moved: FailedRule = {**failure, "rows": [row + self.rows for row in failure["rows"]]}
            key = (failure["column"], failure["rule"])
            self.failures[key] = _merged(self.failures.get(key), moved)
        self.rows += rows
        self.names |= dict.fromkeys(names)
        if newest is not None:
            self.newest = newest if self.newest is None else max(self.newest, newest)

    @property
    def broken(self) -> set[str | None]:
        """Columns that no rule but their type can be judged of."""
        failed = self.failures.values()
        return {failure["column"] for failure in failed if failure["kind"] in COLUMN_KINDS}

    def in_order(self, data: Data, more: Rules) -> list[FailedRule]:
        """Return what is wrong, in the order of the contract, as of one table.

        Of a column with a value that is not of its type nothing else is told: in one table, none
        of its values could be compared with anything.
        """
        good = [name for name in data.columns if name in self.names and name not in self.broken]
        columns: list[str | None] = [*dict.fromkeys([*data.columns, *self.names])]
        of_columns = {name: number for number, name in enumerate(columns)}
        judged = enumerate(rules(data, good, more), len(columns))
        of_rules = {(rule.column, rule.name): number for number, rule in judged}
        places: dict[tuple[str | None, str], int] = {}
        for key, failure in self.failures.items():
            if failure["kind"] in COLUMN_KINDS:
                places[key] = of_columns[failure["column"]]
            elif key in of_rules:
                places[key] = of_rules[key]
        return [_cut(self.failures[key]) for key in sorted(places, key=places.__getitem__)]


def _broken_rules(
    typed: pl.DataFrame, data: Data, names: list[str], more: Rules
) -> list[FailedRule]:
    required = rules(data, names, more)
    verdicts = typed.select(
        rule.holds.fill_null(True).alias(str(number)) for number, rule in enumerate(required)
    )
    failed: list[FailedRule] = []
    for rule, good in zip(required, verdicts.get_columns(), strict=True):
        if good.all():
            continue
        index = (~good).arg_true()
        if rule.column is None:  # whole rows, as JSON
            broken = typed[names][index]
            texts = broken.select(pl.struct(pl.all()).struct.json_encode()).to_series()
        else:
            texts = typed[rule.column].gather(index).cast(pl.String)
        table = pl.DataFrame({"text": texts, "row": index})
        first = table.unique("text", maintain_order=True).head(MAX_SAMPLES)
        failed.append(
            {
                "column": rule.column,
                "rule": rule.name,
                "kind": rule.kind,
                "count": len(index),
                "samples": [str(text) for text in first["text"]],
                "rows": first["row"].to_list(),
            }
        )
    return failed


def _merged(earlier: FailedRule | None, later: FailedRule) -> FailedRule:
    """Return one failure for two of the same rule."""
    # A column is missing once, however many rows there are.
    if earlier is None or later["kind"] in ("missing_column", "extra_column"):
        return earlier or later
    is_distinct = later["kind"] != "type"
    samples = [*earlier["samples"]]
    rows = [*earlier["rows"]]
    for sample, row in zip(later["samples"], later["rows"], strict=True):
        if len(samples) < MAX_SAMPLES and not (is_distinct and sample in samples):
            samples.append(sample)
            rows.append(row)
    count = earlier["count"] + later["count"]
    return {**earlier, "count": count, "samples": samples, "rows": rows}


def _cut(failure: FailedRule) -> FailedRule:
    return {**failure, "samples": [text[:MAX_SAMPLE_LENGTH] for text in failure["samples"]]}
