"""The prediction log, Parquet files by day; the labels that come later; and how both are read.

A thread of its own writes. Nothing that happens to it is felt by a caller: what cannot be written
is kept, up to a bound, and of what is beyond that the oldest is dropped and counted.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from . import UsageError
from .artifacts import write_rows
from .config import DATA, Data
from .config import read as read_config
from .pipeline.ingest import read as read_file
from .pipeline.ingest import typed as typed_rows
from .settings import Service, delivery

if TYPE_CHECKING:
    from .serving.batch import Fault, Served

CHECK = "ml-check."  # begins the ID of a request that is to be answered, and not to be logged
COMPACT = 256  # batches that wait as they came; a frame of one row takes as much as one of hundreds
WRONG = (Exception, pl.exceptions.PanicException)  # a panic of Polars is no Exception
ANSWER: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "row": pl.Int32(),
    "time": pl.Datetime("us"),
    "version": pl.String(),
    "model_digest": pl.String(),
}


class Batch(NamedTuple):
    """What was answered at once."""

    served: "Served"
    time: datetime
    asked: list[tuple[str, int]]  # request IDs, and how many rows each had
    keys: list[list[str | None]]
    typed: pl.DataFrame
    found: NDArray[np.float64]


class Log:
    """Keeps predictions and refusals in memory for a few seconds, then writes them."""

    def __init__(self, settings: Service) -> None:
        self.to, self.every, self.most = settings.log, settings.log_seconds, settings.log_rows
        self.private = set(settings.private)
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.fresh: deque[Batch] = deque()
        self.kept: deque[pl.DataFrame] = deque()
        self.refused: Counter[tuple[str, str | None, str]] = Counter()
        self.rows, self.written, self.dropped, self.failures = 0, 0, 0, 0
        self.error: str | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def add(
        self, served: "Served", asked: list[tuple[str, int]], rows: list[dict[str, Any]],
        typed: pl.DataFrame, found: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Take a batch that was answered. Called by one thread only."""
        keys = [[text(row.get(key)) for row in rows] for key in self._keys(served)]
        time = datetime.now(UTC).replace(tzinfo=None)
        self.fresh.append(Batch(served, time, asked, keys, typed, found))
        if len(self.fresh) >= COMPACT:
            self.compact()

    def refuse(self, version: str, faults: "Iterable[Fault]") -> None:
        """Count rows that were refused."""
        with self.lock:
            for fault in faults:
                self.refused[version, fault.column, fault.rule] += fault.rows

    def compact(self) -> None:
        """Put batches into frames, of one model and day each, and their values into the metrics."""
        with self.lock:
            fresh = [self.fresh.popleft() for _ in range(len(self.fresh))]
            for _, of in groupby(fresh, key=lambda b: (id(b.served), b.time.date())):
                batches = list(of)
                try:
                    self._take(batches)
                except WRONG as error:  # nothing that is wrong here may reach a caller
                    self.failures, self.error = self.failures + 1, str(error)[:300]
                    self.dropped += sum(len(batch.typed) for batch in batches)
            self._bound()

    def write(self) -> None:
        """Write what there is; what cannot be written is kept for the next time."""
        self.compact()
        with self.lock:
            kept, self.kept = list(self.kept), deque()
            refused, self.refused = self.refused, Counter()
        files: dict[tuple[str, Any], list[pl.DataFrame]] = {}
        for frame in kept:
            files.setdefault((frame["version"][0], frame["time"][0].date()), []).append(frame)
        self.error = None
        for (version, _), frames in files.items():
            whole = pl.concat(frames)
            done = self._put("", whole, f"{version}-{_short(whole['model_digest'][0])}")
            with self.lock:
                if done:
                    self.written += len(whole)
                    self.rows -= len(whole)
                else:
                    self.kept.extendleft(reversed(frames))
                    self._bound()
        if refused and self.to:
            now, lines = datetime.now(UTC).replace(tzinfo=None), refused.items()
            said = [(now, *what, rows) for what, rows in lines]
            texts = dict.fromkeys(("version", "column", "rule"), pl.String())
            schema: Any = {"time": pl.Datetime("us"), **texts, "rows": pl.Int64()}
            if not self._put("refused/", pl.DataFrame(said, schema, orient="row"), "all"):
                with self.lock:
                    self.refused.update(refused if len(self.refused) < 10_000 else {})

    def close(self) -> None:
        """Write the rest."""
        self.stopped.set()
        if self.thread.is_alive():
            self.thread.join()
        self.write()

    def lag(self) -> float:
        """The age of the oldest row that is not yet written, in seconds."""
        with self.lock:
            first = self.kept[0]["time"][0] if self.kept else None
            first = first or (self.fresh[0].time if self.fresh else None)
        return (datetime.now(UTC).replace(tzinfo=None) - first).total_seconds() if first else 0.0

    def _run(self) -> None:
        tick = 0
        while not self.stopped.wait(self.every / 10):
            tick += 1
            # Before the time is over, as writing takes some of it.
            (self.compact if tick % 8 else self.write)()

    def _put(self, folder: str, frame: pl.DataFrame, model: str) -> bool:
        time = frame["time"][0]
        name = f"{folder}date={time:%F}/{time:%H%M%S%f}_{model}_{uuid4().hex[:8]}.parquet"
        try:
            store(self.to, name, frame)
        except WRONG as error:
            self.failures, self.error = self.failures + 1, f"{self.to}: {str(error)[:300]}"
            return False
        return True

    def _keys(self, served: "Served") -> list[str]:
        return [key for key in served.model.data.keys if key not in self.private]

    def _take(self, batches: list[Batch]) -> None:
        served = batches[0].served
        typed = pl.concat([batch.typed for batch in batches], rechunk=True)
        found = np.concatenate([batch.found for batch in batches])
        served.spreads.add(typed, found)
        if not self.to:
            return
        model, asked = served.model, [one for batch in batches for one in batch.asked]
        whole: dict[str, Any] = {
            "request_id": [name for name, size in asked for _ in range(size)],
            "row": [row for _, size in asked for row in range(size)],
            "time": [batch.time for batch in batches for _ in range(len(batch.typed))],
            "version": [model.version] * len(typed),
            "model_digest": [model.digest] * len(typed),
        }
        columns = [pl.Series(name, whole[name], ANSWER[name]) for name in ANSWER]
        named = [answer["prediction"] for answer in model.answers(found)]
        columns.append(pl.Series("prediction", named))
        columns += [pl.Series(f"p:{c}", found[:, k]) for k, c in enumerate(model.data.classes)]
        columns += [s.alias(f"x:{s.name}") for s in typed if s.name not in self.private]
        for at, key in enumerate(self._keys(served)):
            values = [value for batch in batches for value in batch.keys[at]]
            columns.append(pl.Series(f"k:{key}", values, pl.String))
        frame = pl.DataFrame(columns).filter(~pl.col("request_id").str.starts_with(CHECK))
        self.kept.extend([frame] if len(frame) else [])
        self.rows += len(frame)

    def _bound(self) -> None:
        while self.rows > self.most and self.kept:
            oldest, over = self.kept.popleft(), self.rows - self.most
            if oldest.height > over:
                self.kept.appendleft(oldest.slice(over))
            gone = min(over, oldest.height)
            self.rows, self.dropped = self.rows - gone, self.dropped + gone


def text(value: Any) -> str | None:
    """A value of JSON as a CSV file would have it, and always one that can be written."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read(log: str, since: datetime | None = None, model_digest: str | None = None) -> pl.LazyFrame:
    """The predictions that were logged.

    Args:
        log: A folder or an object store's URL, as in `config/delivery.yaml`.
        since: UTC without a zone; those of before are left out.
        model_digest: Of the one model whose predictions are wanted.

    Returns:
        The columns of the files, those of all models together; without files, those that every
        prediction has.

    Raises:
        UsageError: The object store does not answer.
    """
    if "://" in log:
        found = _scan(log, "date=*/*.parquet")
        named = (
            found.select("version", "model_digest").unique().collect().rows()
            if found is not None
            else []
        )
        models = {f"{version}-{_short(digest)}" for version, digest in named}
    else:
        models = {path.stem.split("_")[1] for path in Path(log).glob("date=*/*_*_*.parquet")}
    if model_digest is not None:
        models = {name for name in models if name.endswith(f"-{_short(model_digest)}")}
    # Of one model all files are alike, but for columns that became private in between.
    scans = [_scan(log, f"date=*/*_{name}_*.parquet", since) for name in sorted(models)]
    empty = pl.LazyFrame(schema=ANSWER | {"prediction": pl.String()})
    rows = pl.concat([s for s in scans if s is not None] or [empty], how="diagonal_relaxed")
    if since is not None:
        rows = rows.filter(pl.col("time") >= since)
    return rows if model_digest is None else rows.filter(pl.col("model_digest") == model_digest)


def joined(
    log: str,
    since: datetime | None = None,
    model_digest: str | None = None,
    *,
    arrival: bool = False,
) -> pl.LazyFrame:
    """Return what `read` returns, with the `truth`: null where there is no label, else the last.

    Args:
        arrival: Add when the label was added, as `told`.
    """
    rows = read(log, since, model_digest)
    names = set(rows.collect_schema().names())
    rows = rows.with_columns(
        pl.lit(None).alias("truth"), pl.lit(None).cast(ANSWER["time"]).alias("told")
    )
    for kind in ("ids", "keys"):
        labels = _scan(log, f"labels/{kind}_*.parquet")
        if labels is None:
            continue
        by = [n for n in labels.collect_schema().names() if n not in ("truth", "told")]
        if not names.issuperset(by):
            continue
        last = labels.sort("told").unique(by, keep="last", maintain_order=True)
        later = pl.col("told").is_null() | (pl.col("told_right") > pl.col("told"))
        rows = rows.join(last, on=by, how="left", maintain_order="left").with_columns(
            pl.when(later).then(f"{name}_right").otherwise(name).alias(name)
            for name in ("truth", "told")
        )
        rows = rows.drop("truth_right", "told_right")
    return rows if arrival else rows.drop("told")


def refused(log: str) -> pl.LazyFrame:
    """How many `rows` were refused, by `time`, `version`, `column` and `rule`."""
    found = _scan(log, "refused/date=*/*.parquet")
    empty = {"time": ANSWER["time"], "version": pl.String(), "rows": pl.Int64()}
    return pl.LazyFrame(schema=empty) if found is None else found


def add(file: Path, data: Data | None = None, log: str | None = None) -> str:
    """Add what really happened, from a file with `request_id` (and `row`), or the contract's keys.

    Returns:
        A sentence, which says how many belong to no prediction that was logged so far.

    Raises:
        UsageError: The file cannot be read, or lacks a column, or a truth is none of the contract.
    """
    data = data or read_config(DATA, Data)
    log = delivery().service.log if log is None else log
    if not log:
        raise UsageError("config/delivery.yaml, service.log: there is no log to add labels to")
    rows = read_file(file, data.separator)
    kind, by = ("ids", ["request_id"]) if "request_id" in rows.columns else ("keys", data.keys)
    if missing := {*(by or ["request_id"]), data.target} - set(rows.columns):
        named = ", ".join(sorted(missing))
        raise UsageError(f"{file} lacks {named}: give request_id or all keys, and the target")
    truth = typed_rows(rows.select(data.target), data)[data.target].cast(pl.String)
    if data.task == "regression":
        truth = truth.cast(pl.Float64, strict=False)
    good = truth.is_in(data.classes) if data.classes else truth.is_not_null()
    if len(bad := rows[data.target].filter(~good.fill_null(False))):
        raise UsageError(f"{file}: {bad[0]!r} is no {data.target} of the contract")
    labels = rows.select(
        pl.col(name).cast(pl.String).alias(name if kind == "ids" else f"k:{name}") for name in by
    )
    if kind == "ids":
        row = rows["row"] if "row" in rows.columns else pl.repeat(0, len(rows), eager=True)
        labels = labels.with_columns(row.cast(pl.Int32, strict=False).alias("row"))
        if labels["row"].has_nulls():
            raise UsageError(f"{file}: a row is no whole number: they count from 0 in a request")
    by = labels.columns
    now = datetime.now(UTC).replace(tzinfo=None)
    labels = labels.with_columns(
        truth.alias("truth"), pl.lit(now).cast(ANSWER["time"]).alias("told")
    )
    known = pl.concat([labels.lazy().select(by).clear(), read(log)], how="diagonal")
    unknown = labels.join(known.select(by).collect(), on=by, how="anti")
    try:
        store(log, f"labels/{kind}_{now:%Y%m%d%H%M%S%f}_{uuid4().hex[:8]}.parquet", labels)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{log} cannot be written: {str(error).splitlines()[0]}") from None
    said = f"{len(labels):,} labels added to {log}"
    if unknown.is_empty():
        return said
    named = ", ".join(map(str, unknown.select(by).rows()[:3]))
    return f"{said}, {len(unknown):,} of them of predictions that are not there (yet): {named}"


def store(log: str, name: str, frame: pl.DataFrame) -> None:
    """Write a file into a log, whole or not at all; an object store by its usual environment."""
    if "://" in log:
        frame.write_parquet(f"{log.rstrip('/')}/{name}")
    else:
        write_rows(frame, Path(log) / name)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]


def _scan(log: str, pattern: str, since: datetime | None = None) -> pl.LazyFrame | None:
    far, first = "://" in log, f"date={since:%F}" if since else ""
    found = [p for p in Path(log).glob(pattern) if p.parent.name >= first] if not far else []
    files = [f"{log.rstrip('/')}/{pattern}"] if far else sorted(map(str, found))
    if not files:
        return None
    rows = pl.scan_parquet(
        files, glob=far, missing_columns="insert", extra_columns="ignore", hive_partitioning=False
    )
    try:
        rows.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        if "expanded paths were empty" in str(error):
            return None
        raise UsageError(f"{log} cannot be read: {str(error).splitlines()[0]}") from None
    return rows
