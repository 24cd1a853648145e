"""The model that is served, and the one thread in which it answers: all who wait, together.

A row costs nearly as much alone as with sixty-four others. Nobody waits for others to come, though:
what came while the last batch was answered is the next one.
"""

import asyncio
import json
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .. import UsageError
from ..artifacts import now
from ..config import Column, Data
from ..model_package import Model, opened
from ..pipeline.ingest import written_time
from ..prediction_log import WRONG, Log, text
from .describe import Spreads

DESIRED = Path("service/desired.json")
Row = dict[str, Any]
# What JSON has for a type of the contract, and how Polars holds it. All else goes by its text, as
# in a CSV file, so that what becomes of a value does not depend on the values below and above it.
NATIVE: dict[str, tuple[type[pl.DataType], set[type]]] = {
    "number": (pl.Float64, {float, int, type(None)}),
    "integer": (pl.Int64, {int, type(None)}),
    "boolean": (pl.Boolean, {bool, type(None)}),
    "category": (pl.String, {str, type(None)}),
    "text": (pl.String, {str, type(None)}),
    "datetime": (pl.String, {str, type(None)}),
}
MOST_WAIT = 0.005  # seconds
MOST_SAID = 50  # faults of a request


class Fault(NamedTuple):
    """What is wrong with a request; `row` and `column` where there is one."""

    row: int | None
    column: str | None
    rule: str
    value: str | None = None
    rows: int = 1  # that are counted with this one


class Faulty(Exception):
    """A request that is not answered, with what is wrong, and the status of HTTP for it."""

    def __init__(self, faults: list[Fault], status: int = 422) -> None:
        super().__init__(faults[0].rule)
        self.faults, self.status = faults[:MOST_SAID], status


@dataclass(frozen=True)
class Served:
    """A package in service."""

    model: Model
    profile: dict[str, Any]
    spreads: Spreads  # of what it was asked and has answered
    since: str = field(default_factory=now)

    @property
    def example(self) -> Row:
        """The median, or the most frequent value, of each column that the model was trained on."""
        found = self.profile["columns"]
        return {n: _typical(c, found[n]) for n, c in self.model.asked.columns.items()}


class Answer(NamedTuple):
    served: Served
    predictions: list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """A request that waits."""

    id: str
    rows: list[Row]
    answer: "asyncio.Future[Answer]"


def load(folder: Path, digest: str | None = None) -> Served:
    """Open a package, and let it answer once, for what is done only once to be done.

    Args:
        digest: That of the package which it must be; None: whichever is there.

    Raises:
        UsageError: There is none, or it is damaged, or another one. Nothing of it has run then.
    """
    model = opened(folder, digest)
    profile = json.loads((folder / "profile.json").read_text("utf-8"))
    served = Served(model, profile, Spreads(profile, model.data))
    with suppress(Exception):  # of problem/, with a row that no one has sent
        served.model.predict(served.model.read(frame([served.example], served.model.asked)))
    return served


class Batcher:
    """Answers requests, those that wait together, with the model of the moment."""

    def __init__(self, served: Served, log: Log, most: int, batch: int) -> None:
        """Take `most` rows that wait, and `batch` rows and one request's more at once."""
        self.served, self.log, self.most, self.batch = served, log, most, batch
        self.rows, self.errors = 0, 0  # that wait; of the model
        self.queue: SimpleQueue[Asked | None] = SimpleQueue()

    def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self.queue.put(None)

    async def ask(self, name: str, rows: list[Row]) -> Answer:
        """Wait for the answer.

        Raises:
            Faulty: The rows break the contract, or too many wait already.
        """
        if self.rows and self.rows + len(rows) > self.most:
            raise Faulty([Fault(None, None, "too many rows wait: try again later")], 503)
        self.rows += len(rows)
        try:
            future: asyncio.Future[Answer] = self.loop.create_future()
            self.queue.put(Asked(name, rows, future))
            return await future
        finally:
            self.rows -= len(rows)

    def _work(self) -> None:
        # A few rows are no work to share, and the event loop needs a core, too.
        threadpool_limits(1, "openmp")
        while asked := self.queue.get():
            began = time.perf_counter()
            batch, size = [asked], len(asked.rows)
            with suppress(Empty):
                while size < self.batch and (asked := self.queue.get_nowait()):
                    batch.append(asked)
                    size += len(asked.rows)
            served = self.served  # the one that answers them all, whatever comes meanwhile
            try:
                found = self._found(batch, served)
            except WRONG:  # a bug of ours, which may not keep all others waiting for ever
                logging.getLogger("uvicorn.error").exception("a request cannot be answered")
                found = [(asked, Faulty([Fault(None, None, "not rows")])) for asked in batch]
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self.loop.call_soon_threadsafe(_deliver, found)
            if waiting := self.queue.qsize():
                # Those who were answered come again in a moment. Taken together with those who
                # wait they cost little; else callers fall apart into two groups that take turns.
                until = time.perf_counter() + min(MOST_WAIT, (time.perf_counter() - began) / 2)
                while self.queue.qsize() < waiting + len(batch) and time.perf_counter() < until:
                    time.sleep(0.0002)

    def _found(self, batch: list[Asked], served: Served) -> list[tuple[Asked, Answer | Faulty]]:
        found: list[tuple[Asked, Answer | Faulty]] = []
        fit: list[Asked] = []
        for asked in batch:
            if faults := shape(asked.rows, served.model.asked):
                found.append((asked, Faulty(faults)))
            else:
                fit.append(asked)
        return found + (self._answer(fit, served) if fit else [])

    def _answer(self, batch: list[Asked], served: Served) -> list[tuple[Asked, Answer | Faulty]]:
        model = served.model
        try:
            rows = [row for asked in batch for row in asked.rows]
            typed = model.read(frame(rows, model.asked))
            failures = model.failures(typed)
            if not failures:
                found = model.predict(typed)
                answers = model.answers(found)
                if not np.isfinite(found).all():
                    raise ArithmeticError("a prediction is no number")
                self.log.add(
                    served, [(asked.id, len(asked.rows)) for asked in batch], rows, typed, found
                )
                at = np.cumsum([0, *(len(asked.rows) for asked in batch)]).tolist()
                return [
                    (asked, Answer(served, answers[a:b]))
                    for asked, a, b in zip(batch, at, at[1:], strict=False)
                ]
        except WRONG as error:  # of problem/, which is the user's, about rows that nobody foresaw
            if len(batch) == 1:
                self.errors += 1
                logging.getLogger("uvicorn.error").exception("the model cannot answer")
                said = f"the model cannot answer: {type(error).__name__}: {str(error)[:200]}"
                failures = [{"column": None, "rule": said, "count": 1, "samples": [], "rows": []}]
        if len(batch) == 1:
            return [(batch[0], Faulty(told(failures)))]
        # By halves, until who breaks the contract is alone with it.
        half = len(batch) // 2
        return self._answer(batch[:half], served) + self._answer(batch[half:], served)

    def follow(
        self, stopped: threading.Event, seen: object, say: Callable[[str | None], None]
    ) -> None:
        """Go over to the package that `DESIRED` names whenever it names another one."""
        while not stopped.wait(0.2):
            if (stamp := stamped()) not in (seen, None):
                seen, wanted = stamp, dict[str, Any]()
                try:
                    wanted = json.loads(DESIRED.read_text("utf-8"))
                    digest, manifest = wanted.get("package_digest"), self.served.model.manifest
                    same = digest in (None, manifest["package_digest"])
                    if not same or wanted.get("version") != manifest["version"]:
                        self.served = load(Path(wanted["folder"]), digest)
                    say(None)
                except WRONG as error:  # whatever is wrong with it, the model before serves on
                    say(f"{wanted.get('version')}: {error}")


def stamped() -> tuple[int, int] | None:
    """What tells one `DESIRED` from the one that takes its place."""
    with suppress(FileNotFoundError):
        found = DESIRED.stat()
        return found.st_mtime_ns, found.st_ino
    return None


def desired() -> tuple[Served, str | None]:
    """Open the package that `DESIRED` names, or else the one before, and say what is wrong.

    Raises:
        UsageError: Neither can be opened.
    """
    try:
        wanted = json.loads(DESIRED.read_text("utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{DESIRED} names no package: run `ml deploy`") from None
    error = None
    choices = [
        (wanted["folder"], wanted.get("package_digest")),
        (wanted.get("previous"), wanted.get("previous_digest")),
    ]
    for folder, digest in choices:
        if folder is None:
            continue
        try:
            return load(Path(folder), digest), error
        except UsageError as wrong:
            error = error or f"{wanted.get('version')}: {wrong}"
    raise UsageError(error or f"{DESIRED} names no package")


def parsed(body: bytes) -> Any:
    """Read what may be anything.

    Raises:
        Faulty: It is no JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Faulty([Fault(None, None, "not JSON", str(error)[:100])]) from None


def frame(rows: list[Row], data: Data) -> pl.DataFrame:
    """The feature columns of rows of JSON, as `Model.read` takes them."""
    columns = {}
    for name, column in data.columns.items():
        gaps = (*data.gaps, *column.gaps)
        plain = not any(sign.isdigit() for gap in gaps for sign in gap)  # else 999 may be a gap
        values = [row[name] for row in rows]
        dtype, native = NATIVE[column.type]
        if set(map(type, values)) <= native and (plain or int not in native):
            # Too large a number, or half a surrogate pair.
            with suppress(TypeError, OverflowError, UnicodeEncodeError):
                columns[name] = pl.Series(name, values, dtype)
                continue
        texts = [_in_text(value, data) for value in values]
        columns[name] = pl.Series(name, texts, pl.String)
    return pl.DataFrame(columns)


def shape(rows: list[Row], data: Data) -> list[Fault]:
    """What rows to predict lack, have too much, or have in a form that no contract describes."""
    wanted, known = data.columns.keys(), data.columns.keys() | data.left_out.keys()
    faults: list[Fault] = []
    for at, row in enumerate(rows):
        if row.keys() != wanted:
            faults += [Fault(at, name, "missing column") for name in wanted if name not in row]
            extra = [name for name in row if name not in known]
            faults += [Fault(at, None, "unknown column", text(name[:80])) for name in extra]
        for name, value in row.items():
            if type(value) in (dict, list) and name in known:
                faults.append(Fault(at, name, "not a single value"))
        if len(faults) >= MOST_SAID:
            break
    return faults


def told(failures: list[dict[str, Any]]) -> list[Fault]:
    """A fault for each row that `pipeline.validate.failures` names."""
    faults = []
    for failure in failures:
        at: list[int | None] = failure["rows"] or [None]
        samples = failure["samples"] if failure["column"] else []
        for n, row in enumerate(at):
            rest = failure["count"] - len(at) + 1 if n == 0 else 1
            value = samples[n] if n < len(samples) else None
            faults.append(Fault(row, failure["column"], failure["rule"], value, rest))
    return faults


def as_json(rows: pl.DataFrame, data: Data) -> list[Row]:
    """Typed rows as a caller would send them."""
    times = {n: c for n, c in data.columns.items() if c.type == "datetime" and n in rows.columns}
    texts = [
        rows.select(written_time(pl.nth(rows.get_column_index(n)), (c.formats or ["iso"])[0]))
        .to_series()
        .alias(n)
        for n, c in times.items()
    ]
    return rows.with_columns(texts).to_dicts()


def _typical(column: Column, seen: dict[str, Any]) -> Any:
    if counts := seen.get("counts"):
        most = max(counts, key=counts.get)
        return most == "true" if column.type == "boolean" else most
    if not (percentiles := seen.get("percentiles")):
        return None
    if column.type == "text":
        return "some words"
    middle = percentiles[50]
    if column.type == "datetime":
        when = pl.DataFrame({"at": [datetime.fromtimestamp(middle, UTC).replace(tzinfo=None)]})
        data = Data.model_construct(columns={"at": column})
        return as_json(when, data)[0]["at"]
    return int(middle) if column.type == "integer" else float(middle)


def _in_text(value: Any, data: Data) -> str | None:
    if type(value) is not float:
        return text(value)
    # What is no number is a gap, as it is when it goes by number.
    return str(value).replace(".", data.decimal) if math.isfinite(value) else None


def _deliver(found: list[tuple[Asked, Answer | Faulty]]) -> None:
    for asked, answer in found:
        if asked.answer.done():  # given up
            continue
        if isinstance(answer, Faulty):
            asked.answer.set_exception(answer)
        else:
            asked.answer.set_result(answer)
