"""Explanations in service: made by a thread of their own, within a time limit.

A prediction never waits for the explanations of others, and is always answered: an explanation that
is not ready in time is null, with the reason. Callers take turns, row by row.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .. import UsageError
from ..config.delivery import Service
from ..explanations import Explanation, TooLate, Unanswerable, explain
from ..prediction_log.writer import ANY_ERROR
from .fair_queue import FairQueue, Lane
from .loaded_model import LoadedModel
from .rows import Row

Explained = Explanation | str  # or the reason why there is none


@dataclass(frozen=True)
class PendingRow:
    """A row that waits for its explanation."""

    client: str  # who takes turns with others
    row: Row
    loaded: LoadedModel
    deadline: float  # of `time.monotonic`
    explained: "asyncio.Future[Explained]"
    size: int = 1
    lane: Lane = Lane.SMALL


class Explaining:
    """Explains rows that were predicted."""

    def __init__(self, loaded: LoadedModel, settings: Service) -> None:
        """Make it.

        Args:
            loaded: The model at first, whose explainer is prepared before anybody asks.
            settings: With the time limit, and how many rows of a request are explained.
        """
        self.seconds = settings.explain_seconds
        self.max_rows = settings.explain_rows
        self.queue: FairQueue[PendingRow] = FairQueue()
        self._loaded = loaded
        self.thread = threading.Thread(target=self._run, name="explaining", daemon=True)

    def start(self) -> None:
        """Start the thread; called in the event loop that waits for the explanations."""
        self.loop = asyncio.get_running_loop()
        if self.seconds:
            self.thread.start()

    def stop(self) -> None:
        """Have the thread end once nothing waits."""
        self.queue.close()

    async def explain(self, loaded: LoadedModel, rows: list[Row], client: str) -> list[Explained]:
        """Wait for the explanations of rows, until the time is over.

        Args:
            loaded: The model that has predicted them.
            rows: As they were sent, and keep the contract.
            client: Who sends them; callers take turns.

        Returns:
            For each row an explanation, or the reason why there is none.
        """
        if not self.seconds:
            return ["explanations are off (service.explain_seconds is 0)"] * len(rows)
        deadline = time.monotonic() + self.seconds
        futures: list[asyncio.Future[Explained]] = []
        for row in rows[: self.max_rows]:
            futures.append(self.loop.create_future())
            self.queue.put(PendingRow(client, row, loaded, deadline, futures[-1]))
        try:
            await asyncio.wait(futures, timeout=self.seconds)
            late = f"not ready within {self.seconds:g} s (service.explain_seconds)"
            explained = [future.result() if future.done() else late for future in futures]
        finally:  # those that nobody waits for any more are skipped
            for future in futures:
                future.cancel()
        excess = f"not one of the first {self.max_rows} rows (service.explain_rows)"
        return explained + [excess] * (len(rows) - len(explained))

    def _run(self) -> None:
        threadpool_limits(1, "openmp")  # others answer callers
        with suppress(*ANY_ERROR):  # it is told to whoever asks
            _prepare(self._loaded)
        while batch := self.queue.take(1):
            (pending,) = batch
            if pending.explained.cancelled():
                continue
            explained = _explain(pending)
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self.loop.call_soon_threadsafe(_deliver, pending.explained, explained)


def _prepare(loaded: LoadedModel) -> None:
    """Do what is done only once: imports, and predictions for the background."""
    assert loaded.explainer
    assert loaded.subject.base_predictions.size


def _explain(pending: PendingRow) -> Explained:
    loaded = pending.loaded
    try:
        frame, _ = loaded.reader.read([pending.row])
        return explain(loaded.explainer, loaded.subject, frame, pending.deadline)
    except TooLate:
        return "too late"  # nobody waits for it any more
    except UsageError as error:
        return str(error)
    except Unanswerable:  # whose message may have values of other rows, such as of the background
        logging.getLogger("uvicorn.error").exception("a prediction cannot be explained")
        return "the model cannot answer rows with some of its values: see the log of the service"
    except ANY_ERROR:  # of the explainer, which must not keep the prediction from its caller
        logging.getLogger("uvicorn.error").exception("a prediction cannot be explained")
        return "the explainer failed: see the log of the service"


def _deliver(future: "asyncio.Future[Explained]", explained: Explained) -> None:
    if not future.done():
        future.set_result(explained)


def explanation_json(explained: Explained, private: Collection[str]) -> dict[str, Any]:
    """Return what an answer has of an explanation, as `openapi.Prediction` describes it.

    Args:
        explained: The explanation, or the reason why there is none.
        private: Columns that are not shown; what they contribute is, as one number.
    """
    if isinstance(explained, str):
        return {"explanation": None, "explanation_error": explained}
    public = {n: v for n, v in explained.contributions.items() if n not in private}
    explanation: dict[str, Any] = {"base_value": explained.base_value, "contributions": public}
    if explained.class_ is not None:
        explanation = {"class": explained.class_} | explanation
    if len(public) < len(explained.contributions):
        hidden = [v for n, v in explained.contributions.items() if n in private]
        explanation["private"] = sum(hidden)
    if explained.remainder:
        explanation["remainder"] = explained.remainder
    return {"explanation": explanation}
