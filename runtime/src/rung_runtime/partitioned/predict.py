"""Predict a source: each partition → a Parquet file of its predictions, with the packaged model.

A file has the predictions of a whole partition, or is not there: all rows of it are judged before.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .. import RefusedError, UsageError, progress
from ..engines.interface import Engine, Files, Job
from ..model_package import Model, load_package
from ..pipeline.bulk import Failures, chosen, predictions
from ..pipeline.ingest import side_by_side
from ..pipeline.validate import describe
from ..scoring.score import Spill, absolute, require_apart
from ..scoring.sink import parquet_name
from ..scoring.sources import Partition, no_tables, open_source, with_left_out
from ..storage import Storage, open_storage

PACKAGE = "package"


class Predicted(NamedTuple):
    """What came of a partition."""

    rows: int
    failures: list[str]  # if rows break the contract: then there is no file


class Predictor:
    """Predicts partitions, one after the other."""

    def __init__(self, model: Model, storage: Storage, keep: list[str]) -> None:
        self.model = model
        self.storage = storage
        self.keep = keep

    def __call__(self, partition: Partition) -> Predicted:
        """Write the predictions for a partition.

        Raises:
            UsageError: It cannot be read, or the sink not written to.
        """
        progress.begin(partition.name)
        name = parquet_name(partition.name)
        failures = Failures(self.model, self.keep)
        known = self.model.request_contract.columns
        folders = [name for name in partition.path_values if name not in known]
        with TemporaryDirectory(prefix="ml-predict-") as folder:
            spill = Spill(Path(folder, "rows"))
            for raw in partition.batches(self.model.data.separator):
                kept = chosen(raw, self.keep, Path(partition.name))
                typed = failures.judge(raw.drop(folders, strict=False))
                if not failures.entries:
                    table = predictions(self.model, self.model.predict(typed))
                    spill.add(side_by_side([*kept, *table.get_columns()]))
                progress.report(f"{failures.rows:,} rows")
            if not partition.is_unchanged():
                raise UsageError(f"{partition.name} changed while it was read")
            predicted = None if failures.entries else spill.scan()
            if predicted is None:
                self.storage.delete(name)  # of rows that the partition had before
            else:
                self.storage.write_rows(name, predicted)
        return Predicted(failures.rows, describe(failures.in_order()))


def start_predicting(sink: str, keep: list[str], package_digest: str, files: Files) -> Predictor:
    """Return what predicts partitions by a package that was sent."""
    model = load_package(files[PACKAGE], package_digest)
    return Predictor(model, open_storage(sink), keep)


def predict_source(model: Model, location: str, to: str, keep: list[str], engine: Engine) -> str:
    """Write the predictions for each partition of a source.

    Args:
        model: A package.
        location: A folder, a Delta table, or the URL of one of them.
        to: The sink, a folder or a URL.
        keep: Columns of the source to write beside the predictions, as they are there. The
            contract need not have them: they may be IDs.
        engine: What goes through the partitions.

    Returns:
        What was predicted, in a sentence.

    Raises:
        UsageError: A partition cannot be read, or the sink not written to; the others are there.
        RefusedError: Rows of a partition break the contract; the others are there.
    """
    require_apart(location, to)
    source = open_source(location)
    partitions = source.partitions()
    if not partitions:
        raise UsageError(no_tables(location, source))
    sink = to if engine.in_process else absolute(to)
    start = partial(start_predicting, sink, keep, model.manifest["package_digest"])
    assert model.folder is not None
    here = Predictor(model, open_storage(sink), keep) if engine.in_process else None
    if not engine.in_process:
        progress.begin("predict")
    rows = 0
    errors: dict[int, str] = {}
    refusals: dict[int, str] = {}
    for ended, outcome in enumerate(
        engine.run(Job(start, {PACKAGE: model.folder}, here), partitions), 1
    ):
        predicted = outcome.result
        name = partitions[outcome.index].name
        if predicted is None:
            errors[outcome.index] = outcome.error
        elif predicted.failures:
            refusals[outcome.index] = "\n    ".join([f"{name}:", *predicted.failures])
        else:
            rows += predicted.rows
        if not engine.in_process:
            progress.report(f"{ended:,} of {len(partitions):,} partitions, {rows:,} rows")
    done = len(partitions) - len(errors) - len(refusals)
    message = f"{to}: predictions for {rows:,} rows of {done:,} of {len(partitions):,} partitions"
    message = with_left_out(message, source)
    if errors:
        raise UsageError("\n  ".join([message, *(errors[index] for index in sorted(errors))]))
    if refusals:
        raise RefusedError("\n  ".join([message, *(refusals[index] for index in sorted(refusals))]))
    return message
