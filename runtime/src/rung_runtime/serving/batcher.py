"""What predicts: all requests that wait are answered together.

A row costs nearly as much alone as with sixty-four others. No request waits for others to come,
though: what came while the last batch was answered is the next one, or as much of it as is fair to
all who wait: see `fair_queue`.

One thread predicts. What takes long is done in parts, between which small requests are answered.
But to pass a small request to it and back takes longer than to answer it, so the event loop does
that itself, while the model is quick and the thread has nothing to do. It leaves to the thread
whatever it finds not to be plain: see `plain_rows`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import accumulate, islice
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..model_package import Model, Prediction
from ..pipeline.ingest import typed
from ..pipeline.validate import (
    MAX_SAMPLES,
    FailedRule,
    column_failures,
    custom_rules,
    failures,
    rule_failures,
    rules,
)
from ..prediction_log.writer import ANY_ERROR, LoggedRequest, PredictionLog
from .explaining import Explained
from .fair_queue import Admission, FairQueue, Lane, lane_of
from .loaded_model import LoadedModel
from .rows import (
    MAX_FAULTS,
    Fault,
    RequestError,
    Row,
    faults_from_failures,
    frame_from_rows,
    shape_faults,
)

MAX_WAIT_SECONDS = 0.005  # for more requests than those that wait already
WAIT_STEP_SECONDS = 0.0002
PART_ROWS = 500  # that are read, or predicted, before small requests have their turn
COLUMNS_AT_ONCE = 4  # whose faults are looked for before small requests have their turn
SMALL_BATCH_ROWS = 128  # of these requests then
HERE_ROWS = 32  # that the event loop answers at once
HERE_SECONDS = 0.01  # that it may take for them
HERE_WALL_SECONDS = 0.1  # the same where the processor was busy with something else
# If it takes longer, then for so many times as long the thread answers, once that is more than
# `HERE_CREDIT` seconds. So whatever a model takes, the event loop stands still for 1/20 of the
# time, and for half a second at once, but for a single batch that takes longer.
HERE_PAUSE = 20
HERE_CREDIT = 10.0
MAX_SHAPES = 4  # of the rows of a request that are judged: each costs as much as a batch


class Answer(NamedTuple):
    """The predictions for the rows of one request, and the model that made them."""

    loaded: LoadedModel
    predictions: list[Prediction]
    explanations: list[Explained] | None = None  # of the rows, if the caller asked for them


class PendingRequest(NamedTuple):
    """A request that waits for its answer."""

    id: str
    client: str  # who takes turns with others
    rows: list[Row]
    answer: "asyncio.Future[Answer]"
    client_request_id: str | None = None  # what the caller calls it
    lane: Lane = Lane.SMALL

    @property
    def size(self) -> int:
        return len(self.rows)


class Outcome(NamedTuple):
    """What became of a request."""

    request: PendingRequest
    result: Answer | RequestError


class Predicted(NamedTuple):
    """Rows and what was predicted for them."""

    frame: pl.DataFrame  # typed
    y_pred: NDArray[np.float64]  # (n, classes) probabilities, or (n,) values
    predictions: list[Prediction]


class Batcher:
    """Answers requests in batches, with the model that is loaded at the moment.

    Attributes:
        loaded: The model; another thread may replace it at any time.
        turn: Held by whoever predicts: the code of `problem/` need not know of threads.
        quick: The model that answered a small batch of the thread in a moment; None: no one yet.
        here_from: When the event loop may predict again, in seconds of `time.perf_counter`.
        admission: Counts the rows that wait for an answer, or are being answered.
        model_errors: Requests at which the code of `problem/` failed.
    """

    def __init__(
        self, loaded: LoadedModel, log: PredictionLog, max_waiting_rows: int, batch_rows: int
    ) -> None:
        """Make a batcher.

        Args:
            log: Gets every answer.
            max_waiting_rows: Rows that may wait; a request beyond that is refused.
            batch_rows: Rows that a batch has at most.
        """
        self.loaded = loaded
        self.log = log
        self.admission = Admission(max_waiting_rows)
        self.batch_rows = batch_rows
        self.model_errors = 0
        self.queue: FairQueue[PendingRequest] = FairQueue()
        self.turn = threading.Lock()
        self.quick: LoadedModel | None = None
        self.here_from = 0.0
        self.is_gathering = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread; called in the event loop that waits for the answers."""
        self.loop = asyncio.get_running_loop()
        threadpool_limits(1, "openmp")  # of this thread
        self.thread.start()

    def stop(self) -> None:
        """Have the thread end once it has answered all that waits."""
        self.queue.close()

    async def ask(
        self,
        request_id: str,
        rows: list[Row],
        client: str = "",
        client_request_id: str | None = None,
    ) -> Answer:
        """Wait for the answer to a request.

        Args:
            client: Who sends it; callers take turns.
            client_request_id: What the caller calls it, for the log.

        Raises:
            RequestError: The rows break the contract, or too many rows wait already.
        """
        if not self.admission.accepts(client, len(rows)):
            raise RequestError.for_request("too many rows wait: try again later", 503)
        self.admission.add(client, len(rows))
        try:
            future: asyncio.Future[Answer] = self.loop.create_future()
            lane = lane_of(len(rows))
            request = PendingRequest(request_id, client, rows, future, client_request_id, lane)
            if lane is Lane.SMALL and self._may_answer_here():
                self.queue.put(request, wake=False)
                self._gather()
            else:
                self.queue.put(request)
            return await future
        finally:
            self.admission.remove(client, len(rows))

    def _run(self) -> None:
        # A few rows are not worth sharing among threads, and the event loop needs a core, too.
        threadpool_limits(1, "openmp")
        while batch := self.queue.take(self.batch_rows):
            started = time.perf_counter()
            loaded = self.loaded
            with self.turn:
                self._answer(batch)
            if batch[0].lane is Lane.SMALL and time.perf_counter() - started <= HERE_SECONDS:
                self.quick = loaded
            self._wait_for_callers(len(batch), started)

    def _answer(self, batch: list[PendingRequest]) -> None:
        loaded = self.loaded  # the same for the whole batch, even if it is replaced meanwhile
        try:
            outcomes = self._outcomes(batch, loaded)
        except ANY_ERROR:  # a bug of ours, which must not keep the callers waiting for ever
            logging.getLogger("uvicorn.error").exception("a request cannot be answered")
            outcomes = [Outcome(request, RequestError.for_request("not rows")) for request in batch]
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self.loop.call_soon_threadsafe(deliver, outcomes)

    def _may_answer_here(self) -> bool:
        return (
            self.quick is self.loaded is not None
            and not self.turn.locked()
            and self.here_from <= time.perf_counter()
        )

    def _gather(self) -> None:
        if not self.is_gathering:
            self.is_gathering = True
            self.loop.call_soon(self._answer_here, self.queue.count)

    def _answer_here(self, count: int) -> None:
        """Answer small requests in the event loop, once a turn of it has brought no more of them.

        Args:
            count: Requests that waited a turn ago.
        """
        if count < self.queue.count < HERE_ROWS:
            self.loop.call_soon(self._answer_here, self.queue.count)
            return
        self.is_gathering = False
        # If the thread predicts it takes the requests next, or between parts of a large one.
        if not self.turn.acquire(blocking=False):
            return
        try:
            batch = self.queue.take_small(HERE_ROWS)
            if batch:
                deliver(self._outcomes_here(batch))
        finally:
            self.turn.release()
        if self.queue.has_small:
            self._gather()

    def _outcomes_here(self, batch: list[PendingRequest]) -> list[Outcome]:
        """Answer what can be answered at once; the thread gets the rest."""
        started = time.perf_counter()
        used = time.process_time()
        loaded = self.loaded
        outcomes = None
        others: list[PendingRequest] = []
        with suppress(*ANY_ERROR):  # a bug of ours, which the thread meets again, and reports
            plain, values, others = _sorted(batch, loaded)
            outcomes = self._predict_plain(plain, values, loaded)
        seconds = time.perf_counter() - started
        used = time.process_time() - used
        blocked = seconds if seconds > HERE_WALL_SECONDS else min(seconds, used)
        if blocked > HERE_SECONDS:
            self.here_from = max(self.here_from, started - HERE_CREDIT) + blocked * HERE_PAUSE
        self._put_back(others if outcomes is not None else batch, Lane.DOUBTFUL)
        return outcomes or []

    def _wait_for_callers(self, answered: int, started: float) -> None:
        """Wait a moment, if requests wait, for the callers that were just answered.

        Taken together with those that wait they cost little; else callers split into two groups
        that take turns.

        Args:
            answered: Requests of the last batch.
            started: When that batch was begun, in seconds of `time.perf_counter`.
        """
        waiting = self.queue.count
        if not waiting:
            return
        now = time.perf_counter()
        deadline = now + min(MAX_WAIT_SECONDS, (now - started) / 2)
        while self.queue.count < waiting + answered and time.perf_counter() < deadline:
            time.sleep(WAIT_STEP_SECONDS)

    def _outcomes(self, batch: list[PendingRequest], loaded: LoadedModel) -> list[Outcome]:
        outcomes: list[Outcome] = []
        others = batch
        if batch[0].lane is Lane.SMALL:
            plain, values, others = _sorted(batch, loaded)
            answered = self._predict_plain(plain, values, loaded)
            outcomes += self._predict(plain, loaded) if answered is None else answered
        well_formed: list[PendingRequest] = []
        for request in others:
            faults = shape_faults(request.rows, loaded.model.request_contract)
            if faults and len(batch) > 1:
                self._put_back([request], Lane.ALONE)
            elif faults:
                faults += _value_faults(request.rows, faults, loaded.model)
                outcomes.append(Outcome(request, RequestError(faults)))
            else:
                well_formed.append(request)
        self._let_small_pass(batch[0].lane)
        if len(batch) > 1 and batch[0].lane is Lane.SMALL:
            self._put_back(well_formed, Lane.DOUBTFUL)
        elif well_formed:
            outcomes += self._predict(well_formed, loaded)
        return outcomes

    def _put_back(self, requests: list[PendingRequest], lane: Lane) -> None:
        """Put requests back into the queue, where they take turns with those of others."""
        for request in requests:
            self.queue.put(request._replace(lane=lane))

    def _predict_plain(
        self, batch: list[PendingRequest], values: list[Row], loaded: LoadedModel
    ) -> list[Outcome] | None:
        """Predict rows whose columns keep the contract, as far as that can be read.

        Args:
            values: Of these rows: see `PlainReader.plain_values`.

        Returns:
            None if the rows break the contract after all, or cannot be predicted.
        """
        if not batch:
            return []
        try:
            rows = [row for request in batch for row in request.rows]
            frame = loaded.reader.frame(values, rows)
            if frame is None:
                return None
            y_pred = loaded.model.predict(frame)
            if not np.isfinite(y_pred).all():
                return None
            predicted = Predicted(frame, y_pred, loaded.model.answers(y_pred))
            return self._log(batch, rows, predicted, loaded)
        except ANY_ERROR:  # of problem/, at a row that is then looked for
            return None

    def _log(
        self,
        batch: list[PendingRequest],
        rows: list[Row],
        predicted: Predicted,
        loaded: LoadedModel,
    ) -> list[Outcome]:
        """Write the predictions of a batch to the log, and return what each request gets."""
        requests = [
            LoggedRequest(request.id, len(request.rows), request.client_request_id)
            for request in batch
        ]
        self.log.add(loaded, requests, rows, predicted.frame, predicted.y_pred)
        return list(_split(batch, loaded, predicted.predictions))

    def _predict(self, batch: list[PendingRequest], loaded: LoadedModel) -> list[Outcome]:
        """Predict the rows of a batch; requests that break the contract are put back, to be alone.

        So those who wait for an answer do not wait for the faults of others. If code of `problem/`
        fails, nobody knows at which request: then the halves of the batch are predicted, and so on.
        """
        rows = [row for request in batch for row in request.rows]
        failed: list[FailedRule] = []
        try:
            max_samples = MAX_SAMPLES if len(batch) == 1 else len(rows)
            predicted, failed = self._predict_rows(rows, loaded, batch[0].lane, max_samples)
            if predicted is not None:
                return self._log(batch, rows, predicted, loaded)
        except ANY_ERROR as error:  # of problem/, for rows that its author did not foresee
            if len(batch) == 1:
                self.model_errors += 1
                logging.getLogger("uvicorn.error").exception("the model cannot answer")
                reason = f"the model cannot answer: {type(error).__name__}: {str(error)[:200]}"
                return [Outcome(batch[0], RequestError.for_request(reason))]
        if len(batch) == 1:
            return [
                Outcome(batch[0], RequestError(faults_from_failures(failed, loaded.model.data)))
            ]
        broken = {index for failure in failed for index in failure["rows"]}
        suspects = _requests_of(batch, broken)
        if suspects:
            self._put_back(suspects, Lane.ALONE)
            rest = _without(batch, suspects)
            return self._predict(rest, loaded) if rest else []
        half = len(batch) // 2
        return self._predict(batch[:half], loaded) + self._predict(batch[half:], loaded)

    def _predict_rows(
        self, rows: list[Row], loaded: LoadedModel, lane: Lane, max_samples: int
    ) -> tuple[Predicted | None, list[FailedRule]]:
        """Return the predictions for rows, or what is wrong with them.

        Between parts of them, small requests are answered, unless these are some.
        """
        model = loaded.model
        if lane is Lane.ALONE and (failed := self._judge(rows, model, max_samples)):
            return None, failed
        size = len(rows) if lane is Lane.SMALL else PART_ROWS
        frames = []
        y_preds = []
        predictions: list[Prediction] = []
        for start in range(0, len(rows), size):
            frame, failed = loaded.reader.read(rows[start : start + size], max_samples)
            if failed and size < len(rows):
                failed = self._judge(rows, loaded.model, max_samples)
            if failed:
                return None, failed
            self._let_small_pass(lane)
            y_pred = model.predict(frame)
            predictions += model.answers(y_pred)
            if not np.isfinite(y_pred).all():
                raise ArithmeticError("a prediction is not a number")
            frames.append(frame)
            y_preds.append(y_pred)
            self._let_small_pass(lane)
        if len(frames) == 1:
            return Predicted(frames[0], y_preds[0], predictions), []
        return Predicted(pl.concat(frames), np.concatenate(y_preds), predictions), []

    def _judge(self, rows: list[Row], model: Model, max_samples: int) -> list[FailedRule]:
        """Return what is wrong with rows, as `failures` does for all columns at once.

        Between a few columns and the next, small requests are answered.
        """
        contract = model.request_contract
        names = [*contract.columns]
        mistyped: list[FailedRule] = []
        others: list[FailedRule] = []
        good: list[pl.Series] = []
        for start in range(0, len(names), COLUMNS_AT_ONCE):
            columns = {name: contract.columns[name] for name in names[start:][:COLUMNS_AT_ONCE]}
            part = contract.model_copy(update={"columns": columns})
            frame = typed(frame_from_rows(rows, part), part)
            failed, typed_names = column_failures(frame, part, max_samples)
            mistyped += failed
            others += rule_failures(frame, rules(part, typed_names, no_rules), max_samples)
            good += [frame[name] for name in typed_names]
            self._let_small_pass(Lane.ALONE)
        own = model.rules([series.name for series in good])
        if own:
            others += rule_failures(pl.DataFrame(good), custom_rules(own), max_samples)
        return mistyped + others

    def _let_small_pass(self, lane: Lane) -> None:
        """Answer small requests that wait, in the middle of a batch of another lane."""
        if lane is not Lane.SMALL and (batch := self.queue.take_small(SMALL_BATCH_ROWS)):
            self._answer(batch)


def no_rules(_: Collection[str]) -> dict[str, pl.Expr]:
    """Return no rules of `problem/`."""
    return {}


def _without(batch: list[PendingRequest], requests: list[PendingRequest]) -> list[PendingRequest]:
    return [request for request in batch if all(request is not other for other in requests)]


def _sorted(
    batch: list[PendingRequest], loaded: LoadedModel
) -> tuple[list[PendingRequest], list[Row], list[PendingRequest]]:
    """Return requests whose rows are plain, the values of these rows, and the other requests."""
    plain = []
    values: list[Row] = []
    others = []
    for request in batch:
        of_request = loaded.reader.plain_values(request.rows)
        if of_request is None:
            others.append(request)
        else:
            plain.append(request)
            values += of_request
    return plain, values, others


def _requests_of(batch: list[PendingRequest], rows: set[int]) -> list[PendingRequest]:
    """Return the requests of a batch that have one of the rows, which count from its first one."""
    requests = []
    start = 0
    for request in batch:
        end = start + len(request.rows)
        if not rows.isdisjoint(range(start, end)):
            requests.append(request)
        start = end
    return requests


def _value_faults(rows: list[Row], faults: list[Fault], model: Model) -> list[Fault]:
    """Return which values break the contract in a request whose shape does, too.

    Args:
        rows: The rows of the request.
        faults: What is wrong with their shape; those columns of a row are not judged.
        model: The model, whose contract holds.
    """
    if len(faults) >= MAX_FAULTS:
        return []
    all_columns = model.request_contract.columns
    misshapen: dict[int | None, set[str | None]] = {}
    for fault in faults:
        misshapen.setdefault(fault.row, set()).add(fault.column)
    alike: dict[frozenset[str], list[int]] = {}  # rows of which the same columns can be judged
    for index in range(len(rows)):
        usable = frozenset(all_columns.keys() - misshapen.get(index, set()))
        alike.setdefault(usable, []).append(index)
    more: list[Fault] = []
    for names, indices in islice(alike.items(), MAX_SHAPES):
        columns = {name: column for name, column in all_columns.items() if name in names}
        contract = model.request_contract.model_copy(update={"columns": columns})
        try:
            frame = frame_from_rows([rows[index] for index in indices], contract)
            failed = failures(typed(frame, contract), contract, model.rules)
        except ANY_ERROR:  # of problem/, whose author always had all columns
            continue
        for fault in faults_from_failures(failed, contract):
            row = None if fault.row is None else indices[fault.row]
            more.append(fault._replace(row=row))
    return more


def _split(
    batch: list[PendingRequest], loaded: LoadedModel, predictions: list[Prediction]
) -> Iterator[Outcome]:
    """Yield each request of a batch with its own predictions."""
    ends = accumulate(len(request.rows) for request in batch)
    for request, end in zip(batch, ends, strict=True):
        yield Outcome(request, Answer(loaded, predictions[end - len(request.rows) : end]))


def deliver(outcomes: list[Outcome]) -> None:
    """Resolve the futures of answered requests; called in the event loop."""
    for request, result in outcomes:
        if request.answer.done():  # the caller has given up
            continue
        if isinstance(result, RequestError):
            request.answer.set_exception(result)
        else:
            request.answer.set_result(result)
