"""Score a source: each partition that is not done, with one model, and add up what became of it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from .. import RefusedError, UsageError, progress
from ..adapters.engine_polars import Polars
from ..engines.interface import Engine, Files, Job
from ..isolation.model import IsolatedModel, open_isolated
from ..model_package import Model
from ..pipeline.ingest import side_by_side
from ..prediction_log.layout import is_remote
from ..prediction_log.writer import utc_now
from ..process import exit_code
from ..registry import file_lock
from ..storage import normalized
from .rows import Reasons, RowScorer, prediction_columns, require_free_names
from .sample import LoggedPartition, LogSample
from .sink import Entry, Format, Sink
from .sources import (
    Partition,
    Source,
    no_tables,
    open_source,
    with_left_out,
    with_path_values,
)

MAX_REASONS = 20  # that a journal names
MAX_NAMED = 3  # reasons, partitions or files that a message names


@dataclass(frozen=True)
class Options:
    """How a source is scored.

    Attributes:
        max_refused: The share of the rows of a partition that may be refused; beyond it, none of
            the partition is put into the sink.
        table_format: Of the scores.
        source_version: Of a Delta table; None: the newest.
        rescore: Whether what another model has scored is scored again.
        separator: Of CSV.
        log: The prediction log; "": none.
        log_rows: How many rows of a partition it gets at most, drawn at random.
        private: Columns that the log leaves out.
    """

    max_refused: float = 0.01
    table_format: Format = "parquet"
    source_version: int | None = None
    rescore: bool = False
    separator: str = ","
    log: str = ""
    log_rows: int = 100_000
    private: list[str] = field(default_factory=list)


@dataclass
class Totals:
    """What became of a source: numbers of partitions, and of the rows of those scored now."""

    partitions: int = 0  # that were scored now
    done: int = 0  # that had been
    rows: int = 0
    scored: int = 0
    refused: int = 0
    # By the number of their partition, as they end in any order.
    failures: dict[int, str] = field(default_factory=dict)  # of what could not be read
    refusals: dict[int, str] = field(default_factory=dict)  # of what is not in the sink

    def add(self, index: int, entry: Entry, max_refused: float) -> None:
        """Add what became of a partition."""
        self.partitions += 1
        self.rows += entry.rows
        self.scored += entry.scored
        self.refused += entry.refused
        if entry.status == "refused":
            reasons = "; ".join(
                f"{name} in {n:,}" for name, n in list(entry.reasons.items())[:MAX_NAMED]
            )
            self.refusals[index] = (
                f"{entry.partition}: {entry.refused:,} of {entry.rows:,} rows are refused, and"
                f" --max-refused allows {100 * max_refused:g} % of them: {reasons}"
            )


class Place(NamedTuple):
    """Where the partitions of a job come from, and where their scores go."""

    source: str  # as the journal has it
    source_version: int | None
    sink: str
    table_format: Format


def score(
    source: str,
    to: str,
    model: Model,
    options: Options | None = None,
    engine: Engine | None = None,
) -> str:
    """Score each partition of a source that is not in the sink.

    Args:
        source: A file, a folder, a Delta table, or the URL of one of them.
        to: The sink, a folder or a URL.
        model: What scores.
        options: How; None: as by default.
        engine: What goes through the partitions; None: this process.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: The source cannot be read, or the sink not written to, or the sink has another
            source; partitions that could be scored are.
        RefusedError: Too many rows of a partition break the contract.
        PackageError: The process of the model has ended, or its code fails at too many rows.
    """
    options = options or Options()
    source = normalized(source)
    to = normalized(to)
    require_apart(source, to)
    opened = open_source(source, options.source_version)
    partitions = opened.partitions()
    if not partitions:
        raise UsageError(no_tables(source, opened))
    sink = Sink(to, options.table_format)
    engine = engine or Polars()
    place = Place(opened.name, opened.version, to, options.table_format)
    if not engine.in_process:  # the current folder of a worker is another one
        place = place._replace(sink=absolute(to))
        options = replace(options, log=absolute(options.log) if options.log else "")
    totals = Totals()
    with _alone(sink):
        _score_all(partitions, place, sink, model, options, engine, totals)
    message = _summary(totals, opened, sink)
    if totals.failures:
        lines = [text for _, text in sorted(totals.failures.items())]
        raise UsageError(f"{message}\n  " + "\n  ".join(lines))
    if totals.refusals:
        lines = [text for _, text in sorted(totals.refusals.items())]
        raise RefusedError(f"{message}\n  " + "\n  ".join(lines))
    return message


def _score_all(
    partitions: list[Partition],
    place: Place,
    sink: Sink,
    model: Model,
    options: Options,
    engine: Engine,
    totals: Totals,
) -> None:
    """Score partitions, and add them up.

    Raises:
        UsageError: Workers cannot do it, or what they write is not in the sink.
    """
    here = PartitionScorer(place, sink, lambda: nullcontext(model), options)
    start = partial(open_scorer, place, options, model.manifest["package_digest"])
    files = {"package": model.folder} if model.folder else {}
    job = Job[Partition, Entry | None](start, files, here if engine.in_process else None)
    if not engine.in_process:
        progress.begin("score")
    for outcome in engine.run(job, partitions):
        if outcome.error:
            totals.failures[outcome.index] = outcome.error
        elif outcome.result is None:
            totals.done += 1
        else:
            entry = outcome.result
            if not engine.in_process and sink.entry(entry.partition) is None:
                raise UsageError(
                    f"{sink.location} has no journal of {entry.partition}, which a worker has"
                    " scored: name a sink that all workers share, such as an object store's URL"
                )
            totals.add(outcome.index, entry, options.max_refused)
        if not engine.in_process:
            ended = totals.partitions + totals.done + len(totals.failures)
            progress.report(
                f"{ended:,} of {_count(len(partitions), 'partition')}, {totals.rows:,} rows"
            )


def open_scorer(
    place: Place, options: Options, package_digest: str, files: Files
) -> "PartitionScorer":
    """Open package and sink in a process that scores partitions for another one."""
    models = IsolatedModels(files["package"], package_digest)
    return PartitionScorer(place, Sink(place.sink, place.table_format), models.borrow, options)


class IsolatedModels:
    """A package in a process for each partition that a worker scores at once.

    A worker of this machine inherits the environment of the command, and the tokens in it.
    """

    def __init__(self, package: Path, package_digest: str) -> None:
        self.package = package
        self.package_digest = package_digest
        self.idle: list[tuple[AbstractContextManager[IsolatedModel], IsolatedModel]] = []

    @contextmanager
    def borrow(self) -> Iterator[IsolatedModel]:
        """Yield a model that no other thread asks meanwhile.

        Raises:
            UsageError: See `open_isolated`.
        """
        try:
            opened, model = self.idle.pop()
        except IndexError:
            # A worker has as many threads as its engine gives it, not as many as there are cores.
            opened = open_isolated(
                self.package,
                self.package_digest,
                threads=pl.thread_pool_size(),
                watches_project=False,
                parent=self.package.parent,
            )
            model = opened.__enter__()
        try:
            yield model
        finally:
            if exit_code(model.process) is None:
                self.idle.append((opened, model))
            else:
                opened.__exit__(None, None, None)


class PartitionScorer:
    """Scores partitions, one after the other, wherever they are."""

    def __init__(
        self,
        place: Place,
        sink: Sink,
        borrow_model: Callable[[], AbstractContextManager[Model]],
        options: Options,
    ) -> None:
        self.place = place
        self.sink = sink
        self.borrow_model = borrow_model
        self.options = options

    def __call__(self, partition: Partition) -> Entry | None:
        """Score a partition; None: it had been scored.

        Raises:
            UsageError: It cannot be read, or the sink not written to.
        """
        with self.borrow_model() as model:
            return self._score(PartitionRun(partition, self.place, self.sink, model, self.options))

    def _score(self, run: "PartitionRun") -> Entry | None:
        if run.is_done():
            return None
        progress.begin(run.partition.name)
        try:
            entry = run.score()
        except UsageError as error:
            progress.report(str(error))
            raise
        progress.report(f"{entry.rows:,} rows, {entry.refused:,} refused")
        return entry


class UnreadablePartition(UsageError):
    """The rows of a partition cannot be read; others may."""


class PartitionRun:
    """The scoring of a partition."""

    def __init__(
        self, partition: Partition, place: Place, sink: Sink, model: Model, options: Options
    ) -> None:
        self.partition = partition
        self.place = place
        self.sink = sink
        self.model = model
        self.options = options
        self.present = sink.entry(partition.name)
        self.entry = Entry(
            partition=partition.name,
            source=place.source,
            source_version=place.source_version,
            source_digest="",
            source_stamp=partition.stamp,
            model=model.version,
            package_digest=model.manifest["package_digest"],
            model_digest=model.digest,
            status="begun",
            time=utc_now().replace(tzinfo=UTC).isoformat(),
        )

    def is_done(self) -> bool:
        """Check whether the sink has this content, scored by a model that will do.

        Raises:
            UsageError: The sink has a partition of this name from another source.
        """
        present = self.present
        if present is None:
            return False
        if normalized(present.source) != self.place.source:
            raise UsageError(
                f"{self.sink.location} has scores of {present.partition} from {present.source}: use"
                f" another sink for {self.place.source}"
            )
        is_other_model = present.package_digest != self.entry.package_digest
        if present.status != "scored" or (self.options.rescore and is_other_model):
            return False
        if present.scored and not self.sink.scored.has(self.partition.name):
            return False
        if present.source_stamp == self.partition.stamp:
            return True
        if present.source_digest != self._digest():
            return False
        # As it was, only its file is newer: the next run need not read it.
        self.sink.record(present.model_copy(update={"source_stamp": self.partition.stamp}))
        return True

    def score(self) -> Entry:
        """Score the partition, and put it into the sink.

        Raises:
            UnreadablePartition: Its rows cannot be read.
        """
        self.entry = self.entry.model_copy(update={"source_digest": self._digest()})
        if self.present and self.present.is_of(self.entry):  # as the run that was killed
            self.entry = self.entry.model_copy(update={"time": self.present.time})
        request_id = self._request_id()
        options = self.options
        with TemporaryDirectory(prefix="ml-score-") as folder:
            scored = Spill(Path(folder, "scored"))
            refused = Spill(Path(folder, "refused"))
            sample = LogSample(
                self.model, {*options.private}, options.log_rows if options.log else 0, request_id
            )
            counts = self._fill(request_id, scored, refused, sample)
            if not self.partition.is_unchanged():
                raise UnreadablePartition(f"{self.partition.name} changed while it was read")
            # A quotient is rounded as the limit was: 0.29 * 100 is less than 29.
            share = refused.rows / max(1, scored.rows + refused.rows)
            is_accepted = share <= options.max_refused
            self._begin()
            self.sink.write_refused(self.partition.name, refused.scan())
            if is_accepted:
                self.sink.scored.write(self.partition.name, scored.scan(), self.entry)
            self._log(sample, request_id, is_accepted)
        update = {
            "status": "scored" if is_accepted else "refused",
            "rows": scored.rows + refused.rows,
            "scored": scored.rows if is_accepted else 0,
            "refused": refused.rows,
            "reasons": dict(counts.most_common(MAX_REASONS)),
        }
        self.entry = self.entry.model_copy(update=update)
        self.sink.record(self.entry)
        return self.entry

    def _digest(self) -> str:
        """Return the digest of the content.

        Raises:
            UnreadablePartition: It cannot be read.
        """
        try:
            return self.partition.digest()
        except OSError as error:
            raise UnreadablePartition(f"{self.partition.name} cannot be read: {error}") from None

    def _request_id(self) -> str:
        """Return what names the rows in sink and log: the same each time that these are scored."""
        text = f"{self.place.source}\n{self.partition.name}\n{self.entry.source_digest}"
        text = f"{text}\n{self.entry.package_digest}\n{self.entry.time}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _fill(
        self, request_id: str, scored: "Spill", refused: "Spill", sample: LogSample
    ) -> Counter[str]:
        """Score the rows, batch by batch; return how often each reason refused one."""
        counts: Counter[str] = Counter()
        scorer = RowScorer(self.model)
        total = self.partition.row_count()
        total_text = "" if total is None else f" of {total:,}"
        inputs = {*self.model.request_contract.columns}
        done = 0
        for own in self._batches():
            rows = with_path_values(own, self.partition.path_values)
            if done == 0:
                sink = self.sink.scored.own_columns
                require_free_names(rows.columns, self.model, self.partition.name, sink)
            batch = scorer.score(rows)
            sample.add(rows, batch, done)
            ids = _ids(request_id, done, rows.height)
            kept = [series for series in own if series.name not in inputs]
            model = pl.Series("model", [self.model.version]).new_from_index(0, len(batch.index))
            known = [series[batch.index] for series in [*ids, *kept]]
            answers = prediction_columns(self.model, batch.y_pred)
            scored.add(side_by_side([*known, model, *answers]))
            refused.add(_refused_rows([*ids, *rows], batch.reasons))
            counts.update(reasons[0].kind for reasons in batch.reasons.values())
            done += rows.height
            progress.report(f"{done:,}{total_text} rows, {refused.rows:,} refused")
        return counts

    def _batches(self) -> Iterator[pl.DataFrame]:
        """Yield the rows.

        Raises:
            UnreadablePartition: They cannot be read.
        """
        try:
            yield from self.partition.own_batches(self.options.separator)
        except (UsageError, OSError) as error:
            raise UnreadablePartition(str(error)) from None

    def _begin(self) -> None:
        """Note the time of the rows before one is written; the same again after a kill."""
        self.sink.record(self.entry)

    def _log(self, sample: LogSample, request_id: str, is_accepted: bool) -> None:
        """Put rows into the prediction log.

        Raises:
            UsageError: It cannot be written.
        """
        time = datetime.fromisoformat(self.entry.time).replace(tzinfo=None)
        about = LoggedPartition(request_id, self.partition.name, time)
        try:
            sample.write(self.options.log, about, is_accepted)
        except (OSError, UsageError, pl.exceptions.PolarsError) as error:
            raise UsageError(
                f"the prediction log {self.options.log} cannot be written, the next run will try"
                f" again: {str(error).splitlines()[0]}"
            ) from None


class Spill:
    """Rows that wait on disk until all of a partition are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self.files: list[Path] = []
        folder.mkdir()

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows.

        Raises:
            UsageError: The disk is full.
        """
        if not rows.height:
            return
        file = self.folder / f"{len(self.files)}.arrow"
        try:
            rows.write_ipc(file)
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{file} cannot be written, is the disk full? ({reason})") from None
        self.files.append(file)
        self.rows += rows.height

    def scan(self) -> pl.LazyFrame | None:
        """Return the rows; None if there are none."""
        return pl.scan_ipc(self.files) if self.files else None


def absolute(location: str) -> str:
    """Return a folder by its whole path, and a URL as it is."""
    return location if is_remote(location) else str(Path(location).resolve())


def require_apart(source: str, sink: str) -> None:
    """Check that source and sink do not lie in one another: scores would be scored.

    Raises:
        UsageError: They do.
    """
    source = normalized(source)
    sink = normalized(sink)
    if is_remote(source) != is_remote(sink):
        return
    first = PurePosixPath(source if is_remote(source) else Path(source).resolve())
    second = PurePosixPath(sink if is_remote(sink) else Path(sink).resolve())
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise UsageError(f"{sink} and {source} lie in one another: name a sink elsewhere")


@contextmanager
def _alone(sink: Sink) -> Iterator[None]:
    """Keep another run of this machine away from the sink.

    Raises:
        UsageError: One is there.
    """
    if sink.lock is None:
        yield
        return
    with file_lock(Path(sink.lock), seconds=1.0):
        yield


def _ids(request_id: str, first_row: int, count: int) -> list[pl.Series]:
    """Return what names rows in sink and log."""
    rows = pl.arange(first_row, first_row + count, dtype=pl.Int64, eager=True)
    return [pl.Series("request_id", [request_id]).new_from_index(0, count), rows.alias("row")]


def _refused_rows(columns: list[pl.Series], reasons: Reasons) -> pl.DataFrame:
    """Return refused rows as they were read, each with its reasons."""
    index = sorted(reasons)
    texts = ["; ".join(reason.text for reason in reasons[row]) for row in index]
    kept = [series[index] for series in columns]
    return side_by_side([*kept, pl.Series("reasons", texts, pl.String)])


def _summary(totals: Totals, source: Source, sink: Sink) -> str:
    held_back = totals.rows - totals.scored - totals.refused
    parts = [f"{totals.scored:,} scored", f"{totals.refused:,} refused"]
    if held_back:
        parts.append(f"{held_back:,} held back with them")
    version = "" if source.version is None else f" of version {source.version}"
    message = f"{totals.rows:,} rows of {_count(totals.partitions, 'partition')}{version}: "
    message += f"{', '.join(parts)}: {sink.location}"
    if totals.done:
        message += f"; {_count(totals.done, 'partition')} had been scored before"
    return with_left_out(message, source)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
