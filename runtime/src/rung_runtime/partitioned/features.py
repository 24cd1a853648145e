"""Features of a source: each partition → a Parquet file of what `problem.features.features` makes.

Beside the features are columns that are not features: keys, target, time. A file says what it was
made from, so what is there is not made again; and it appears whole or not at all.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from .. import RefusedError, UsageError, progress
from ..config import Config, Data
from ..engines.interface import Engine, Files, Job
from ..pipeline.ingest import inputs, typed
from ..pipeline.validate import Rules, describe
from ..scoring.score import Spill, absolute, require_apart
from ..scoring.sink import parquet_name
from ..scoring.sources import Partition, no_tables, open_source, text_digest, with_left_out
from ..storage import Storage, open_storage
from . import project_code
from .judged import Judged

MADE_FROM = "rung"  # what a file was made from, in its metadata


class Made(NamedTuple):
    """What came of a partition."""

    rows: int
    is_new: bool
    failures: list[str]  # if rows break the contract: then there is no file


class FeatureMaker:
    """Makes the features of partitions, one after the other."""

    def __init__(
        self,
        data: Data,
        more: Rules,
        features: project_code.Features,
        code: str,
        storage: Storage,
    ) -> None:
        self.data = data
        self.more = more
        self.features = features
        self.code = code
        self.storage = storage

    def __call__(self, partition: Partition) -> Made:
        """Write the features of a partition, unless they are there.

        Raises:
            UsageError: It cannot be read, or the sink not written to.
        """
        made_from = f"{partition.digest()} {self.code}"
        name = parquet_name(partition.name)
        if (rows := self._present(name, made_from)) is not None:
            return Made(rows, False, [])
        progress.begin(partition.name)
        judged = Judged()
        with TemporaryDirectory(prefix="ml-features-") as folder:
            spill = Spill(Path(folder, "rows"))
            for rows_typed in self._batches(partition):
                judged.add_batch(rows_typed, self.data, self.more)
                if not judged.failures:
                    spill.add(self._made(rows_typed))
                progress.report(f"{judged.rows:,} rows")
            if not partition.is_unchanged():
                raise UsageError(f"{partition.name} changed while it was read")
            made = None if judged.failures else spill.scan()
            if made is None:
                self.storage.delete(name)  # of the content that the partition had before
            else:
                facts = {MADE_FROM: json.dumps({"from": made_from, "rows": judged.rows})}
                self.storage.write_rows(name, made, facts)
        if judged.failures:
            failed = judged.in_order(self.data, self.more)
            return Made(judged.rows, True, describe(failed))
        return Made(judged.rows, True, [])

    def _present(self, name: str, made_from: str) -> int | None:
        """Return how many rows there are of the features of a partition; None: they are not there.

        What was made from other content, or by other code, does not count.
        """
        if self.storage.find(name) is None:
            return None
        try:
            facts = json.loads(pl.read_parquet_metadata(self.storage.path(name))[MADE_FROM])
            return int(facts["rows"]) if facts["from"] == made_from else None
        except (pl.exceptions.PolarsError, OSError, ValueError, LookupError):
            return None

    def _batches(self, partition: Partition) -> Iterator[pl.DataFrame]:
        for raw in partition.batches(self.data.separator):
            yield typed(raw, self.data)

    def _made(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return columns that are not features, and what is made of the others.

        Raises:
            UsageError: Both have a column of one name, or rows are missing.
        """
        made = self.features(inputs(rows, self.data))
        if made.height != rows.height:
            raise UsageError(
                f"problem/features.py returned {made.height:,} rows for {rows.height:,}: it must"
                " return as many"
            )
        others = [name for name in self.data.columns if name not in self.data.features]
        if taken := [name for name in others if name in made.columns]:
            raise UsageError(
                f"problem/features.py returns a column {taken[0]!r}, which is also a column of"
                " config/data.yaml that is not a feature: rename it"
            )
        return rows[others].hstack(made)


def start_making(contract: str, sink: str, code: str, files: Files) -> FeatureMaker:
    """Return what makes the features of partitions."""
    folder = files[project_code.PROBLEM]
    more = project_code.load_rules(folder)
    features = project_code.load_features(folder)
    data = Data.model_validate_json(contract)
    return FeatureMaker(data, more, features, code, open_storage(sink))


def make_features(
    location: str, version: int | None, to: str, config: Config, engine: Engine
) -> str:
    """Write the features of each partition of a source.

    Args:
        location: A file, a folder, a Delta table, or the URL of one of them.
        version: Of a Delta table; None: the newest.
        to: The sink, a folder or a URL.
        config: With the contract.
        engine: What goes through the partitions.

    Returns:
        What was made, in a sentence.

    Raises:
        UsageError: A partition cannot be read, or the sink not written to; the others are made.
        RefusedError: Rows of a partition break the contract; the others are made.
    """
    require_apart(location, to)
    source = open_source(location, version)
    partitions = source.partitions()
    if not partitions:
        raise UsageError(no_tables(location, source))
    contract = config.data.model_dump_json()
    code = text_digest(f"{contract}\n{project_code.digest()}")
    sink = to if engine.in_process else absolute(to)
    job = Job(partial(start_making, contract, sink, code), project_code.files())
    if not engine.in_process:
        progress.begin("features")
    rows = 0
    present = 0
    errors: dict[int, str] = {}
    refusals: dict[int, str] = {}
    for ended, outcome in enumerate(engine.run(job, partitions), 1):
        made = outcome.result
        name = partitions[outcome.index].name
        if made is None:
            errors[outcome.index] = outcome.error
        elif made.failures:
            refusals[outcome.index] = "\n    ".join([f"{name}:", *made.failures])
        else:
            rows += made.rows
            present += not made.is_new
        if not engine.in_process:
            progress.report(f"{ended:,} of {len(partitions):,} partitions, {rows:,} rows")
    message = f"features of {rows:,} rows of {len(partitions):,} partitions: {to}"
    if present:
        message += f"; {present:,} of them had been made before"
    message = with_left_out(message, source)
    if errors:
        raise UsageError("\n  ".join([message, *(errors[index] for index in sorted(errors))]))
    if refusals:
        raise RefusedError("\n  ".join([message, *(refusals[index] for index in sorted(refusals))]))
    return message
