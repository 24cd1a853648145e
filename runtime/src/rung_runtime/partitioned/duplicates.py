"""Keys that occur twice in a source, wherever its rows are.

Each row's key is sent as two 64-bit numbers. So many rows at a time are compared as fit into little
memory: of a source with more, the keys are read several times, each time another share of them.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError
from ..config import Data
from ..engines.interface import Engine, Files, Job
from ..pipeline.ingest import typed
from ..pipeline.validate import DUPLICATE_KEY, MAX_SAMPLE_LENGTH, MAX_SAMPLES, FailedRule
from ..scoring.sources import Partition

MAX_KEYS = 8_000_000  # that are compared at once: some 400 MB
SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # of the two numbers


class Keys(NamedTuple):
    """Keys of a partition: those that belong to a share."""

    rows: NDArray[np.uint32]  # in the partition
    numbers: NDArray[np.uint64]  # (n, 2)


def find_duplicates(
    partitions: Sequence[Partition],
    counts: Sequence[int],
    columns: list[str],
    names: list[str],
    data: Data,
    engine: Engine,
) -> FailedRule | None:
    """Return which keys occur twice; None: none does.

    Args:
        partitions: All of the source.
        counts: How many rows each of them has.
        columns: Which together are the key.
        names: The columns that a sample shows.
        data: The contract.
        engine: What reads the keys.

    Raises:
        UsageError: A partition cannot be read.
    """
    shares = max(1, -(-sum(counts) // MAX_KEYS))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    repeated: list[NDArray[np.int64]] = []
    for share in range(shares):
        keys = _collected(partitions, offsets, columns, data, engine, share, shares)
        repeated.append(keys.filter(keys.select("a", "b").is_duplicated())["row"].to_numpy())
    rows = np.sort(np.concatenate(repeated))
    if not len(rows):
        return None
    samples = _samples(partitions, offsets, rows, names, data)
    return {
        "column": None,
        "rule": DUPLICATE_KEY,
        "kind": "duplicate",
        "count": len(rows),
        "samples": [text[:MAX_SAMPLE_LENGTH] for _, text in samples],
        "rows": [row for row, _ in samples],
    }


def _collected(
    partitions: Sequence[Partition],
    offsets: NDArray[np.int64],
    columns: list[str],
    data: Data,
    engine: Engine,
    share: int,
    shares: int,
) -> pl.DataFrame:
    """Return the keys of a share of all rows, with the numbers of their rows."""
    job = Job(partial(start_reading, columns, data.model_dump_json(), share, shares), {})
    frames: list[pl.DataFrame] = []
    for outcome in engine.run(job, partitions):
        if outcome.result is None:
            raise UsageError(outcome.error)
        rows = outcome.result.rows.astype(np.int64) + offsets[outcome.index]
        numbers = outcome.result.numbers
        frames.append(pl.DataFrame({"row": rows, "a": numbers[:, 0], "b": numbers[:, 1]}))
    return pl.concat(frames)


def start_reading(
    columns: list[str], contract: str, share: int, shares: int, files: Files
) -> "KeyReader":
    """Return what reads the keys of partitions."""
    return KeyReader(columns, Data.model_validate_json(contract), share, shares)


class KeyReader:
    """Reads the keys of partitions."""

    def __init__(self, columns: list[str], data: Data, share: int, shares: int) -> None:
        self.columns = columns
        self.data = data
        self.share = share
        self.shares = shares

    def __call__(self, partition: Partition) -> Keys:
        """Return the keys of a partition that belong to the share."""
        # Of a partition without rows there is no batch.
        rows = [np.empty(0, np.uint32)]
        numbers = [np.empty((0, len(SEEDS)), np.uint64)]
        first = 0
        for batch in typed_keys(partition, self.columns, self.data):
            pairs = np.stack([batch.hash_rows(seed).to_numpy() for seed in SEEDS], axis=1)
            index = np.flatnonzero(pairs[:, 0] % np.uint64(self.shares) == self.share)
            rows.append((index + first).astype(np.uint32))
            numbers.append(pairs[index])
            first += batch.height
        return Keys(np.concatenate(rows), np.concatenate(numbers))


def typed_keys(partition: Partition, columns: list[str], data: Data) -> list[pl.DataFrame]:
    """Return the typed keys of a partition, batch by batch."""
    kept = data.model_copy(
        update={"columns": {name: data.columns[name] for name in columns}, "ignored": {}}
    )
    return [typed(raw, kept) for raw in partition.batches(data.separator, columns)]


def _samples(
    partitions: Sequence[Partition],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
    names: list[str],
    data: Data,
) -> list[tuple[int, str]]:
    """Return the first different rows of some, as JSON, each with its number."""
    samples: dict[str, int] = {}
    places = np.searchsorted(offsets, rows, side="right") - 1
    for place in np.unique(places):
        chosen = rows[places == place]
        first = int(offsets[place])
        for raw in partitions[place].batches(data.separator):
            batch = typed(raw, data)
            index = chosen[(chosen >= first) & (chosen < first + batch.height)] - first
            columns = batch[names][index]
            texts = columns.select(pl.struct(pl.all()).struct.json_encode()).to_series()
            for row, text in zip(index, texts, strict=True):
                samples.setdefault(text, int(row) + first)
                if len(samples) == MAX_SAMPLES:
                    return [(row, text) for text, row in samples.items()]
            first += batch.height
    return [(row, text) for text, row in samples.items()]
