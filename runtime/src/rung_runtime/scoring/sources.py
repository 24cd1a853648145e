"""Sources: the partitions of what is to be scored, and their rows in batches.

A partition is what is scored as a whole: a file of a folder or of an object store, or a partition
of a Delta table. Its digest changes with its content.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import unquote

import polars as pl

from .. import UsageError
from ..artifacts import digest
from ..escaping import visible
from ..pipeline.table_batches import (
    BATCH_ROWS,
    batches,
    collected,
    parquet_batches,
    parquet_header,
    text_header,
)
from ..prediction_log.layout import is_remote
from ..storage import Folder, Storage, StoredFile, is_hidden, open_storage, require

TABLES = (".parquet", ".csv", ".csv.gz", ".tsv", ".txt")
DELTA_LOG = "_delta_log"
HIVE = re.compile(r"(?P<key>[^=]+)=(?P<value>.*)")  # a folder such as date=2026-01-31
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
NO_VALUES = ["", HIVE_NULL]
MAX_NAMED = 3  # files that a message names
WHOLE_TABLE = "table"  # the one partition of a Delta table that is not partitioned


class Partition(Protocol):
    """Rows that are scored as a whole."""

    @property
    def name(self) -> str:
        """Return what it is called, once in its source; with slashes."""

    @property
    def stamp(self) -> str:
        """Return what changes with the content, and is cheap to know."""

    @property
    def path_values(self) -> dict[str, str | None]:
        """Return the values in its name, by column: those of columns that the rows lack."""

    def is_unchanged(self) -> bool:
        """Check whether the content is still what it was when the source was listed."""

    def digest(self) -> str:
        """Return the digest of the content, `sha256:…`."""

    def row_count(self) -> int | None:
        """Return how many rows it has; None if only reading it would tell."""

    def batches(self, separator: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield its rows, a bounded number at once; the values of hive folders are columns.

        Args:
            separator: Of CSV.
            columns: What is read, as far as it is there; None: all.
        """

    def own_batches(self, separator: str) -> Iterator[pl.DataFrame]:
        """Yield its rows, a bounded number at once, without the values of hive folders."""

    def header(self, separator: str) -> pl.DataFrame:
        """Return its columns, as `batches` has them, without a row."""


class Source(Protocol):
    """What is to be scored."""

    name: str  # as the journal has it
    version: int | None  # of a Delta table
    ignored: list[str]  # files that are not tables
    skipped: list[str]  # links to folders and the like, each with what it is

    def partitions(self) -> list[Partition]:
        """Return its partitions, in the order of their names."""


def open_source(location: str, version: int | None = None) -> Source:
    """Return a source.

    Args:
        location: A file, a folder, a Delta table, or the URL of one of them in an object store.
        version: Of a Delta table; None: the newest, which is the same for all of a run.

    Raises:
        UsageError: It is missing, or there is nothing to score in it.
    """
    if not is_remote(location):
        path = Path(location)
        if path.is_file():
            return FileSource(location, Folder(str(path.parent)), only=path.name)
        if not path.is_dir():
            raise UsageError(f"{location} is missing: name a file, a folder or a URL")
    elif location.lower().endswith(TABLES):
        parent, _, name = location.rpartition("/")
        return FileSource(location, open_storage(parent), only=name)
    storage = open_storage(location)
    if _is_delta(storage):
        return DeltaSource(location, version)
    if version is not None:
        raise UsageError(f"{location} is not a Delta table: only those have versions")
    return FileSource(location, storage)


def no_tables(location: str, source: Source) -> str:
    """Return the message for a source without a partition."""
    what = with_left_out(f"{location} has no Parquet or CSV file", source)
    return f"{what}: name another source"


def with_left_out(message: str, source: Source) -> str:
    """Return a message, and what of a source is in no partition: files, links to folders."""
    if source.ignored:
        named = visible(", ".join(source.ignored[:MAX_NAMED]))
        plural = "" if len(source.ignored) == 1 else "s"
        message += f"; {len(source.ignored):,} file{plural} left out, not a table: {named}"
    if source.skipped:
        more = len(source.skipped) - MAX_NAMED
        named = visible(", ".join(source.skipped[:MAX_NAMED]))
        message += f"; not followed: {named}" + (f" and {more:,} more" if more > 0 else "")
    return message


def _is_delta(storage: Storage) -> bool:
    return next(storage.files(DELTA_LOG), None) is not None


class FileSource:
    """Files of a folder or of an object store."""

    def __init__(self, name: str, storage: Storage, only: str = "") -> None:
        """Make a source.

        Args:
            only: The one file of it; "": all that are tables.
        """
        self.name = name
        self.version: int | None = None
        self.storage = storage
        self.only = only
        self.ignored: list[str] = []
        self.skipped: list[str] = []

    def partitions(self) -> list[Partition]:
        partitions: list[Partition] = []
        if self.only:
            file = self.storage.find(self.only)
            return [FilePartition(self.storage, file)] if file else []
        self.skipped = [name for name in self.storage.skipped() if not is_hidden(name)]
        for file in self.storage.files():
            if is_hidden(file.name):
                continue
            elif file.name.lower().endswith(TABLES):
                partitions.append(FilePartition(self.storage, file))
            else:
                self.ignored.append(file.name)
        return partitions


@dataclass(frozen=True)
class FilePartition:
    """A CSV or Parquet file."""

    storage: Storage
    file: StoredFile

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def stamp(self) -> str:
        return f"{self.file.size} {self.file.stamp}"

    @property
    def path_values(self) -> dict[str, str | None]:
        return hive_values(self.name)

    def is_unchanged(self) -> bool:
        return self.storage.find(self.name) == self.file

    def digest(self) -> str:
        if isinstance(self.storage, Folder):
            return digest(self.storage.root / self.name)
        return text_digest(f"{self.name} {self.stamp}")  # an ETag is a digest already

    def row_count(self) -> int | None:
        if not self.name.lower().endswith(".parquet"):
            return None
        rows = pl.scan_parquet(self.storage.path(self.name), glob=False, hive_partitioning=False)
        try:
            return int(rows.select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError):
            return None  # reading it says what is wrong

    def batches(self, separator: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        with TemporaryDirectory(prefix="ml-score-") as folder:
            if self.name.lower().endswith(".parquet"):
                parts = parquet_batches(self.storage.path(self.name), columns=columns)
            else:
                parts = batches(self.storage.download(self.name, Path(folder)), separator)
            for part in parts:
                yield _only(with_path_values(part, self.path_values), columns)

    def own_batches(self, separator: str) -> Iterator[pl.DataFrame]:
        with TemporaryDirectory(prefix="ml-score-") as folder:
            if self.name.lower().endswith(".parquet"):
                yield from parquet_batches(self.storage.path(self.name))
            else:
                yield from batches(self.storage.download(self.name, Path(folder)), separator)

    def header(self, separator: str) -> pl.DataFrame:
        with TemporaryDirectory(prefix="ml-score-") as folder:
            if self.name.lower().endswith(".parquet"):
                empty = parquet_header(self.storage.path(self.name))
            else:
                empty = text_header(self.storage.download(self.name, Path(folder)), separator)
        return with_path_values(empty, self.path_values)


def with_path_values(rows: pl.DataFrame, values: dict[str, str | None]) -> pl.DataFrame:
    """Return rows with the values of folders such as date=2026-01-31, as columns they lack."""
    absent = {key: value for key, value in values.items() if key not in rows.columns}
    return rows.with_columns(
        pl.lit(value, dtype=pl.String).alias(key) for key, value in absent.items()
    )


def _only(rows: pl.DataFrame, columns: list[str] | None) -> pl.DataFrame:
    """Return those of some columns that there are; None: all."""
    if columns is None:
        return rows
    return rows[[name for name in columns if name in rows.columns]]


def hive_values(name: str) -> dict[str, str | None]:
    """Return the keys and values of folders such as date=2026-01-31 in the name of a file."""
    values: dict[str, str | None] = {}
    for part in PurePosixPath(name).parent.parts:
        if match := HIVE.fullmatch(part):
            value = unquote(match["value"])
            values[match["key"]] = None if value == HIVE_NULL else value
    return values


class DeltaSource:
    """A Delta table at one version, whatever is written to it meanwhile."""

    def __init__(self, location: str, version: int | None) -> None:
        deltalake = require("deltalake")
        self.name = location
        self.ignored: list[str] = []
        self.skipped: list[str] = []
        try:
            self.table = deltalake.DeltaTable(location, version=version)
            has_vectors = bool(pl.DataFrame(self.table.deletion_vectors()).height)
            if not has_vectors:
                pl.scan_delta(self.table).collect_schema()  # of a protocol that Polars reads
        except Exception as error:  # of deltalake, several kinds, and of the object store
            reason = str(error).splitlines()[0]
            raise UsageError(f"{location} cannot be opened as a Delta table: {reason}") from None
        if has_vectors:
            raise UsageError(
                f"{location} has deletion vectors, which are not read here: purge them first"
                " (REORG TABLE … APPLY (PURGE))"
            )
        self.version: int | None = self.table.version()

    def partitions(self) -> list[Partition]:
        actions = pl.DataFrame(self.table.get_add_actions(flatten=True))
        keys = list(self.table.metadata().partition_columns)
        if not keys:
            return [self._partition({}, actions)]
        columns = [f"partition.{key}" for key in keys]
        groups: dict[tuple[Any, ...], list[pl.DataFrame]] = {}
        for values, files in actions.group_by(columns, maintain_order=True):
            # Writers and readers do not agree on which of these texts mean that there is no value.
            place = tuple(None if value in NO_VALUES else value for value in values)
            groups.setdefault(place, []).append(files)
        partitions: list[Partition] = [
            self._partition(dict(zip(keys, place, strict=True)), pl.concat(files))
            for place, files in groups.items()
        ]
        return sorted(partitions, key=lambda partition: partition.name)

    def _partition(self, values: dict[str, Any], files: pl.DataFrame) -> "DeltaPartition":
        parts = [
            f"{key}={HIVE_NULL if value is None else _escaped(str(value))}"
            for key, value in values.items()
        ]
        content = "\n".join(sorted(files["path"]))  # files of a Delta table never change
        counts = files["num_records"]
        return DeltaPartition(
            name="/".join(parts) or WHOLE_TABLE,
            stamp=text_digest(content),
            table=self.table,
            values=values,
            rows=None if counts.has_nulls() else sum(counts.to_list()),
        )


@dataclass(frozen=True)
class DeltaPartition:
    """The rows of a Delta table that have the same values in the columns it is partitioned by."""

    name: str
    stamp: str
    table: Any = field(repr=False)
    values: dict[str, Any]
    rows: int | None

    @property
    def path_values(self) -> dict[str, str | None]:
        return {}

    def is_unchanged(self) -> bool:
        return True  # a version of a table stays as it is

    def digest(self) -> str:
        return self.stamp

    def row_count(self) -> int | None:
        return self.rows

    def __reduce__(self) -> tuple[Any, ...]:
        """Be sent to another process as the place of the table."""
        place = (self.table.table_uri, self.table.version())
        return _delta_partition, (*place, self.name, self.stamp, self.values, self.rows)

    def batches(self, separator: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        rows = pl.scan_delta(self.table)
        schema = rows.collect_schema()
        for key, value in self.values.items():
            is_here = pl.col(key).eq_missing(pl.lit(value))
            if value is None and schema[key] == pl.String:
                is_here |= pl.col(key).is_in(NO_VALUES)
            rows = rows.filter(is_here)
        if columns is not None:
            present = {*schema.names()}
            rows = rows.select(name for name in columns if name in present)
        where = f"{self.table.table_uri}, {self.name}"
        count = 0
        for batch in collected(rows, where, BATCH_ROWS):
            count += batch.height
            yield batch
        if columns is None and self.rows not in (None, count):
            raise UsageError(
                f"{where}: the table has {self.rows:,} rows of it, and {count:,} were read"
            )

    def own_batches(self, separator: str) -> Iterator[pl.DataFrame]:
        return self.batches(separator)

    def header(self, separator: str) -> pl.DataFrame:
        return pl.DataFrame(schema=pl.scan_delta(self.table).collect_schema())


@lru_cache(maxsize=4)
def _delta_table(location: str, version: int) -> Any:
    return require("deltalake").DeltaTable(location, version=version)


def _delta_partition(
    location: str, version: int, name: str, stamp: str, values: dict[str, Any], rows: int | None
) -> DeltaPartition:
    """Return a partition that was sent from another process."""
    return DeltaPartition(name, stamp, _delta_table(location, version), values, rows)


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text, `sha256:…`."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _escaped(value: str) -> str:
    """Return a value as a part of a path, which it must not leave."""
    return value.replace("%", "%25").replace("/", "%2F").replace("\\", "%5C")
