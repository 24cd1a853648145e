"""Writing predictions and refusals, in a thread of its own.

No caller notices what happens to the log: what cannot be written is kept, up to a bound, and beyond
that the oldest rows are dropped and counted.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from datetime import UTC, date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config.delivery import Service
from .layout import (
    ANSWER_COLUMNS,
    CHECK_PREFIX,
    REFUSED_COLUMNS,
    json_text,
    model_name,
    write_file,
)

if TYPE_CHECKING:
    from ..serving.loaded_model import LoadedModel
    from ..serving.rows import Fault

COMPACT_AT = 256  # batches that wait; a table of one row takes as much memory as one of hundreds
MAX_BATCHES = 2_048  # beyond which whoever adds one makes tables of them, if the thread does not
TICKS = 10  # in an interval of writing; all but every eighth only compact
MAX_REFUSALS = 10_000  # kinds of them that are kept while they cannot be written
MAX_ERROR = 300  # characters
ANY_ERROR = (Exception, pl.exceptions.PanicException)  # a panic of Polars is not an Exception


class LoggedRequest(NamedTuple):
    """A request that was answered."""

    id: str
    rows: int
    client_request_id: str | None = None  # what its caller calls it


class Batch(NamedTuple):
    """What was answered at once."""

    loaded: "LoadedModel"
    time: datetime
    requests: list[LoggedRequest]
    keys: list[list[str | None]]  # for each key of the contract, the values of all rows
    typed: pl.DataFrame
    y_pred: NDArray[np.float64]


class Refusal(NamedTuple):
    """What refused rows have in common."""

    version: str
    column: str | None
    rule: str


class PredictionLog:
    """Keeps predictions and refusals in memory for a few seconds, then writes them.

    Attributes:
        waiting_rows: Compacted rows that are not written yet.
        written_rows: Rows that are.
        dropped_rows: Rows that never will be.
        failures: Attempts that failed.
        error: Why the last attempt failed; None if it did not.
    """

    def __init__(self, settings: Service) -> None:
        self.location = settings.log
        self.interval = settings.log_seconds
        self.max_rows = settings.log_rows
        self.private = set(settings.private)
        self.lock = threading.Lock()  # of batches and frames, also while they are compacted
        self.refusals_lock = threading.Lock()  # held for a moment only: the event loop waits for it
        self.stopped = threading.Event()
        self.is_due = threading.Event()  # to make tables before the next tick, or to end
        self.batches: deque[Batch] = deque()
        self.frames: deque[pl.DataFrame] = deque()
        self.refusals: Counter[Refusal] = Counter()
        self.waiting_rows = 0
        self.written_rows = 0
        self.dropped_rows = 0
        self.failures = 0
        self.error: str | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def add(
        self,
        loaded: "LoadedModel",
        requests: list[LoggedRequest],
        rows: list[dict[str, Any]],
        typed: pl.DataFrame,
        y_pred: NDArray[np.float64],
    ) -> None:
        """Add a batch that was answered. Called by one thread at a time.

        Args:
            loaded: The model that answered.
            requests: The requests of the batch.
            rows: The rows as they were sent, for the contract's keys.
            typed: The same rows, typed.
            y_pred: Their predictions: (n, classes) probabilities or (n,) values.
        """
        keys = [[json_text(row.get(key)) for row in rows] for key in self._logged_keys(loaded)]
        self.batches.append(Batch(loaded, utc_now(), requests, keys, typed, y_pred))
        if len(self.batches) >= MAX_BATCHES:
            self.compact()
        elif len(self.batches) >= COMPACT_AT:
            self.is_due.set()

    def count_refused(self, version: str, faults: "Iterable[Fault]") -> None:
        """Count rows that a version refused."""
        with self.refusals_lock:
            for fault in faults:
                self.refusals[Refusal(version, fault.column, fault.rule)] += fault.row_count

    def compact(self) -> None:
        """Turn batches into tables of one model and day each, and count their values."""
        with self.lock:
            batches = [self.batches.popleft() for _ in range(len(self.batches))]
            for _, group in groupby(batches, key=lambda b: (id(b.loaded), b.time.date())):
                alike = list(group)
                try:
                    self._compact_alike(alike)
                except ANY_ERROR as error:  # none of it may reach a caller
                    self.failures += 1
                    self.error = str(error)[:MAX_ERROR]
                    self.dropped_rows += sum(len(batch.typed) for batch in alike)
            self._drop_oldest()

    def write(self) -> None:
        """Write all that waits; what cannot be written is kept for the next time."""
        self.compact()
        with self.lock:
            frames = list(self.frames)
            self.frames.clear()
        with self.refusals_lock:
            refusals = self.refusals
            self.refusals = Counter()
        self.error = None
        self._write_predictions(frames)
        if refusals and self.location:
            self._write_refusals(refusals)

    def close(self) -> None:
        """End the thread, and write the rest."""
        self.stopped.set()
        self.is_due.set()
        if self.thread.is_alive():
            self.thread.join()
        self.write()

    def lag(self) -> float:
        """Return the age of the oldest row that is not yet written, in seconds."""
        oldest: datetime | None = None
        with self.lock:
            if self.frames:
                oldest = self.frames[0]["time"][0]
            elif self.batches:
                oldest = self.batches[0].time
        return (utc_now() - oldest).total_seconds() if oldest else 0.0

    def _run(self) -> None:
        tick = 0
        next_tick = time.monotonic() + self.interval / TICKS
        while not self.stopped.is_set():
            self.is_due.wait(max(0.0, next_tick - time.monotonic()))
            self.is_due.clear()
            if time.monotonic() < next_tick:
                self.compact()
                continue
            next_tick = time.monotonic() + self.interval / TICKS
            tick += 1
            # Before the interval is over, as writing takes some of it.
            if tick % 8:
                self.compact()
            else:
                self.write()

    def _write_predictions(self, frames: list[pl.DataFrame]) -> None:
        """Write a file for each version and day."""
        files: dict[tuple[str, date], list[pl.DataFrame]] = {}
        for frame in frames:
            key = (frame["version"][0], frame["time"][0].date())
            files.setdefault(key, []).append(frame)
        for (version, _), parts in files.items():
            whole = pl.concat(parts)
            name = model_name(version, whole["model_digest"][0])
            is_written = self._write_file("", whole, name)
            with self.lock:
                if is_written:
                    self.written_rows += len(whole)
                    self.waiting_rows -= len(whole)
                else:
                    self.frames.extendleft(reversed(parts))
                    self._drop_oldest()

    def _write_refusals(self, refusals: Counter[Refusal]) -> None:
        now = utc_now()
        rows = [(now, *refusal, count) for refusal, count in refusals.items()]
        frame = pl.DataFrame(rows, REFUSED_COLUMNS, orient="row")
        if not self._write_file("refused/", frame, "all"):
            with self.refusals_lock:
                self.refusals.update(refusals if len(self.refusals) < MAX_REFUSALS else {})

    def _write_file(self, folder: str, frame: pl.DataFrame, model: str) -> bool:
        """Return whether a file was written."""
        first = frame["time"][0]
        name = f"{folder}date={first:%F}/{first:%H%M%S%f}_{model}_{uuid4().hex[:8]}.parquet"
        try:
            write_file(self.location, name, frame)
        except ANY_ERROR as error:
            self.failures += 1
            self.error = f"{self.location}: {str(error)[:MAX_ERROR]}"
            return False
        return True

    def _logged_keys(self, loaded: "LoadedModel") -> list[str]:
        return [key for key in loaded.model.data.keys if key not in self.private]

    def _compact_alike(self, batches: list[Batch]) -> None:
        """Count the values of batches of one model and day, and make them a table to write."""
        loaded = batches[0].loaded
        typed = pl.concat([batch.typed for batch in batches], rechunk=True)
        y_pred = np.concatenate([batch.y_pred for batch in batches])
        loaded.distributions.add(typed, y_pred)
        if not self.location:
            return
        columns = _answer_columns(batches)
        columns.append(pl.Series("prediction", loaded.model.predictions(y_pred)))
        for index, name in enumerate(loaded.model.data.classes):
            columns.append(pl.Series(f"p:{name}", y_pred[:, index]))
        for series in typed:
            if series.name not in self.private:
                columns.append(series.alias(f"x:{series.name}"))
        for index, key in enumerate(self._logged_keys(loaded)):
            values = [value for batch in batches for value in batch.keys[index]]
            columns.append(pl.Series(f"k:{key}", values, pl.String))
        is_check = pl.col("request_id").str.starts_with(CHECK_PREFIX)
        frame = pl.DataFrame(columns).filter(~is_check)
        if len(frame):
            self.frames.append(frame)
        self.waiting_rows += len(frame)

    def _drop_oldest(self) -> None:
        """Drop rows beyond the bound. Called with the lock held."""
        while self.waiting_rows > self.max_rows and self.frames:
            excess = self.waiting_rows - self.max_rows
            oldest = self.frames.popleft()
            if oldest.height > excess:
                self.frames.appendleft(oldest.slice(excess))
            dropped = min(excess, oldest.height)
            self.waiting_rows -= dropped
            self.dropped_rows += dropped


def _answer_columns(batches: list[Batch]) -> list[pl.Series]:
    """Return `ANSWER_COLUMNS` of batches of one model."""
    model = batches[0].loaded.model
    request_ids: list[str] = []
    client_request_ids: list[str | None] = []
    row_numbers: list[int] = []
    times: list[datetime] = []
    for batch in batches:
        for request in batch.requests:
            request_ids += [request.id] * request.rows
            client_request_ids += [request.client_request_id] * request.rows
            row_numbers += range(request.rows)
        times += [batch.time] * len(batch.typed)
    values: dict[str, list[Any]] = {
        "request_id": request_ids,
        "client_request_id": client_request_ids,
        "row": row_numbers,
        "time": times,
        "version": [model.version] * len(times),
        "model_digest": [model.digest] * len(times),
    }
    return [pl.Series(name, values[name], dtype) for name, dtype in ANSWER_COLUMNS.items()]


def utc_now() -> datetime:
    """Return the time in UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
