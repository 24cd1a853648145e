"""The sink: scores, refused rows, and a journal of which partition has been scored with what.

    scored/PARTITION.parquet       a score for each row that the contract accepts; or a Delta table
    refused/PARTITION.parquet      the other rows as they were read, with reasons
    journal/PARTITION.json         what the partition was, what scored it, and how many rows it has

A partition is done once its journal says so. Until then, whatever a killed run left of it is
replaced: its files have the same names again, and a Delta table replaces what it has of the
partition in one transaction. So no partition is missing, there twice, or half of one.
"""

import json
from pathlib import PurePosixPath
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from .. import UsageError
from ..pipeline.table_batches import BATCH_ROWS
from ..storage import Folder, Storage, open_storage, require
from .sources import TABLES

Format = Literal["parquet", "delta"]
Status = Literal["begun", "scored", "refused"]
JOURNAL = "journal"
REFUSED = "refused"
SCORED = "scored"
PARTITION = "source_partition"  # the column by which a Delta table is partitioned
SETTINGS = f"{JOURNAL}/sink.json"
LOCK = f"{JOURNAL}/.lock"


class Entry(BaseModel):
    """The journal of a partition.

    Attributes:
        source: The source, as it was named.
        source_version: Of a Delta table.
        source_digest: Of the content of the partition.
        source_stamp: What is compared first, as it is cheap.
        status: `scored`; `refused`, if too many rows broke the contract; or `begun`, if the run
            ended before it could be known.
        time: When its rows were answered, as the prediction log has it; ISO 8601 in UTC.
        rows: Of the partition: those that were scored, and those that were refused.
        reasons: Why rows were refused, with how many; the most frequent ones.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    partition: str
    source: str
    source_version: int | None = None
    source_digest: str
    source_stamp: str
    model: str
    package_digest: str
    model_digest: str
    status: Status
    time: str
    rows: int = 0
    scored: int = 0
    refused: int = 0
    reasons: dict[str, int] = {}

    def is_of(self, other: "Entry") -> bool:
        """Check whether another entry is of the same content and the same model."""
        return (self.source_digest, self.package_digest) == (
            other.source_digest,
            other.package_digest,
        )


class Sink:
    """Where scores go."""

    def __init__(self, location: str, table_format: Format) -> None:
        self.location = location
        self.storage: Storage = open_storage(location)
        self.scored: ScoredFiles | ScoredTable
        self._require_format(table_format)
        if table_format == "delta":
            self.scored = ScoredTable(self.storage)
        else:
            self.scored = ScoredFiles(self.storage)

    @property
    def lock(self) -> str | None:
        """A file for one run at a time to hold; None in an object store, which has no locks."""
        return self.storage.path(LOCK) if isinstance(self.storage, Folder) else None

    def _require_format(self, table_format: Format) -> None:
        """Check that scores have the format of those that are there, and record it in a new sink.

        Raises:
            UsageError: They have not.
        """
        content = self.storage.read(SETTINGS)
        if content is None:
            self.storage.write(SETTINGS, json.dumps({"format": table_format}).encode())
            return
        present = json.loads(content)["format"]
        if present != table_format:
            raise UsageError(
                f"{self.location} has scores in the format {present}: use it, or another sink"
            )

    def entry(self, partition: str) -> Entry | None:
        """Return the journal of a partition; None if it has none.

        Raises:
            UsageError: It cannot be read.
        """
        name = f"{JOURNAL}/{partition}.json"
        content = self.storage.read(name)
        if content is None:
            return None
        try:
            return Entry.model_validate_json(content)
        except ValidationError:
            where = self.storage.path(name)
            raise UsageError(
                f"{where} is not a journal: delete it to score {partition} again"
            ) from None

    def record(self, entry: Entry) -> None:
        """Write the journal of a partition."""
        content = entry.model_dump_json(indent=2).encode()
        self.storage.write(f"{JOURNAL}/{entry.partition}.json", content)

    def write_refused(self, partition: str, rows: pl.LazyFrame | None) -> None:
        """Write the refused rows of a partition; None: there are none."""
        name = file_name(REFUSED, partition)
        if rows is not None:
            self.storage.write_rows(name, rows)
        else:
            self.storage.delete(name)  # of the content that the partition had before


class ScoredFiles:
    """A Parquet file for each partition."""

    own_columns: tuple[str, ...] = ()  # besides those of all sinks

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def has(self, partition: str) -> bool:
        """Check whether a partition is there."""
        return self.storage.find(file_name(SCORED, partition)) is not None

    def write(self, partition: str, rows: pl.LazyFrame | None, entry: Entry) -> None:
        """Write a partition, in the place of what there is of it; None: it has no rows."""
        name = file_name(SCORED, partition)
        if rows is None:
            self.storage.delete(name)
        else:
            self.storage.write_rows(name, rows)


class ScoredTable:
    """A Delta table that is partitioned by the partitions of the source."""

    own_columns: tuple[str, ...] = (PARTITION,)

    def __init__(self, storage: Storage) -> None:
        self.deltalake = require("deltalake")
        self.location = storage.path(SCORED)
        self.present: set[str] = set()
        if self.deltalake.DeltaTable.is_deltatable(self.location):
            partitions = self.deltalake.DeltaTable(self.location).partitions()
            self.present = {values[PARTITION] for values in partitions}

    def has(self, partition: str) -> bool:
        """Check whether a partition was there when the sink was opened."""
        return partition in self.present

    def write(self, partition: str, rows: pl.LazyFrame | None, entry: Entry) -> None:
        """Write a partition in one transaction, in the place of what there is of it."""
        quoted = partition.replace("'", "''")
        predicate = f"{PARTITION} = '{quoted}'"
        if rows is None:
            if self.has(partition):
                self.deltalake.DeltaTable(self.location).delete(predicate)
            return
        rows = rows.select(pl.lit(partition).alias(PARTITION), pl.all())
        facts: dict[str, Any] = {"rung": entry.model_dump_json()}
        try:
            self._replace(rows, predicate, facts)
        except self.deltalake.exceptions.DeltaError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{self.location} cannot be written: {reason}") from None

    def _replace(self, rows: pl.LazyFrame, predicate: str, facts: dict[str, Any]) -> None:
        self.deltalake.write_deltalake(
            self.location,
            rows.collect_batches(chunk_size=BATCH_ROWS),
            partition_by=[PARTITION],
            mode="overwrite",
            predicate=predicate,
            schema_mode="merge",
            commit_properties=self.deltalake.CommitProperties(custom_metadata=facts),
        )


def file_name(folder: str, partition: str) -> str:
    """Return the name of the Parquet file of a partition in a folder of a sink."""
    return f"{folder}/{parquet_name(partition)}"


def parquet_name(partition: str) -> str:
    """Return the name of a Parquet file for a partition."""
    path = PurePosixPath(partition.lower())
    is_plain = path.suffix == ".parquet" and not path.stem.endswith(TABLES)  # else as a.csv is
    return partition if is_plain else f"{partition}.parquet"
