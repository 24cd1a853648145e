"""Bulk: a file of any size → its predictions, part by part. Refuses rows that break the contract.

All rows are judged before a prediction is handed out.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import RefusedError, UsageError, progress
from ..atomic_file import atomic_write
from ..model_package import Model
from .ingest import side_by_side
from .parts import count_rows, read_parts
from .validate import MAX_SAMPLES, FailedRule, describe, rules

ROWS_AT_ONCE = 50_000  # that are answered as JSON
PREDICTION = "prediction"
PROBABILITY = "probability_"  # and the name of a class


def predict_lines(model: Model, source: Path) -> Iterator[str]:
    """Yield one line of JSON for each row of a file, many lines at once.

    Raises:
        UsageError: The file cannot be read.
        RefusedError: Rows break the contract.
    """
    failures = Failures(model)
    known = pl.DataFrame()
    count = 0
    for raw in read_parts(source, model.data.separator):
        known = failures.judge(raw)
        count += 1
    failures.refuse()
    if count == 1:
        yield from lines(model, known)
        return
    for raw in read_parts(source, model.data.separator):
        yield from lines(model, model.read(raw))


def lines(model: Model, known: pl.DataFrame) -> Iterator[str]:
    """Yield one line of JSON for each of (n, …) typed rows, many lines at once."""
    encode = json.JSONEncoder(ensure_ascii=False).encode
    for start in range(0, known.height, ROWS_AT_ONCE):
        answers = model.answers(model.predict(known[start : start + ROWS_AT_ONCE]))
        yield "\n".join(map(encode, answers))


def predict_file(model: Model, source: Path, to: Path, keep: Iterable[str] = ()) -> str:
    """Write the predictions for a file: completely, or not at all.

    Args:
        model: A package.
        source: The file.
        to: A file that ends in .parquet or .csv; one that is there is replaced.
        keep: Columns of the source to write beside the predictions, as they are there. The
            contract need not have them: they may be IDs.

    Returns:
        A sentence.

    Raises:
        UsageError: A file cannot be read or written, or there is no such column.
        RefusedError: Rows break the contract.
    """
    suffix = to.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise UsageError(f"{to}: name a file that ends in .parquet or .csv")
    if to.exists() and source.exists() and to.samefile(source):
        raise UsageError(f"{to} is what is read: name another file")
    to.parent.mkdir(parents=True, exist_ok=True)
    keep = list(keep)
    failures = Failures(model, keep)
    total = count_rows(source)
    with TemporaryDirectory(prefix=".predictions-", dir=to.parent) as folder:
        written = []
        for number, raw in enumerate(read_parts(source, model.data.separator)):
            kept = chosen(raw, keep, source)
            if not number:
                progress.begin("predict")
            known = failures.judge(raw)
            if not failures.entries:
                table = predictions(model, model.predict(known))
                written.append(Path(folder, f"{number}.arrow"))
                side_by_side([*kept, *table.get_columns()]).write_ipc(written[-1])
            progress.report(f"{failures.rows:,}{f' of {total:,}' if total else ''} rows")
        failures.refuse()
        joined = pl.scan_ipc(written, glob=False)
        with atomic_write(to) as new:
            if suffix == ".parquet":
                joined.sink_parquet(new)
            else:
                joined.sink_csv(new)
    return f"{to}: predictions for {failures.rows:,} rows"


def predictions(model: Model, y_pred: NDArray[np.float64]) -> pl.DataFrame:
    """Return predictions as columns: `prediction`, and of classes `probability_CLASS` of each.

    Args:
        y_pred: As `Model.predict` returns it.
    """
    if model.data.task == "regression":
        return pl.DataFrame({PREDICTION: y_pred})
    classes = model.data.classes
    likeliest = pl.Series(PREDICTION, classes, pl.String).gather(y_pred.argmax(axis=1))
    probabilities = [
        pl.Series(f"{PROBABILITY}{name}", y_pred[:, index]) for index, name in enumerate(classes)
    ]
    return pl.DataFrame([likeliest, *probabilities])


def chosen(raw: pl.DataFrame, names: Iterable[str], source: Path) -> list[pl.Series]:
    """Return columns of a source.

    Raises:
        UsageError: There is no such column, or it would be called like one of the predictions.
    """
    for name in names:
        if name not in raw.columns:
            raise UsageError(f"{source} has no column {name!r}, which --keep names")
        if name == PREDICTION or name.startswith(PROBABILITY):
            raise UsageError(f"--keep {name}: a column of the predictions is called so")
    return [raw[name] for name in names]


class Failures:
    """What is wrong with rows that come part by part, told as of one table.

    Attributes:
        rows: How many were judged.
        entries: What is wrong with them, by column and rule.
    """

    def __init__(self, model: Model, kept: Collection[str] = ()) -> None:
        """Begin without rows.

        Args:
            model: A package.
            kept: Columns that are handed out as they are, and judged only if they are features.
        """
        self._model = model
        self._kept = [name for name in kept if name not in model.request_contract.columns]
        self.rows = 0
        self.entries: dict[tuple[str | None, str], FailedRule] = {}

    def judge(self, raw: pl.DataFrame) -> pl.DataFrame:
        """Return rows as the contract types them, and remember what is wrong with them."""
        known = self._model.read(raw.drop(self._kept, strict=False))
        for failure in self._model.failures(known):
            rows = [row + self.rows for row in failure["rows"]]
            key = (failure["column"], failure["rule"])
            earlier = self.entries.get(key)
            if earlier is None:
                self.entries[key] = {**failure, "rows": rows}
            elif rows:  # else it is of the table, such as a missing column
                earlier["count"] += failure["count"]
                earlier["samples"] = [*earlier["samples"], *failure["samples"]][:MAX_SAMPLES]
                earlier["rows"] = [*earlier["rows"], *rows][:MAX_SAMPLES]
        self.rows += raw.height
        return known

    def refuse(self) -> None:
        """Raise RefusedError if anything is wrong."""
        if self.entries:
            raise RefusedError(
                "\n  ".join(["the rows break the contract:", *describe(self.in_order())])
            )

    def in_order(self) -> list[FailedRule]:
        """Return the failures in the order, and with the precedence, that they have in one table.

        Of a column with a value that is not of its type nothing else is told.
        """
        contract = self._model.request_contract
        names = list(contract.columns)
        judged = rules(contract, names, self._model.rules)
        order = {(rule.column, rule.name): number for number, rule in enumerate(judged)}
        failed = self.entries.values()
        mistyped = {failure["column"] for failure in failed if failure["kind"] == "type"}

        def place(key: tuple[str | None, str]) -> tuple[int, int]:
            column = key[0]
            return order.get(key, -1), names.index(column) if column in names else len(names)

        return [
            self.entries[key]
            for key in sorted(self.entries, key=place)
            if key not in order or key[0] not in mistyped
        ]
