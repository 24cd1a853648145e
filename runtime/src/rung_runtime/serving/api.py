"""Answering a request for predictions, in either protocol: limits, errors, times and counts."""

import asyncio
import random
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from fastapi import FastAPI, Request, Response

from ..config.delivery import Service
from ..model_package import Model
from ..prediction_log.layout import CHECK_PREFIX
from ..prediction_log.writer import PredictionLog
from .batcher import Answer, Batcher
from .body import BodyReader
from .check_token import HEADER as CHECK_HEADER
from .check_token import ensure_token, is_token
from .desired import Stamp, follow_desired
from .explaining import Explaining
from .front import caller
from .loaded_model import LoadedModel
from .metrics import Metrics
from .pieces import SMALL_BYTES, SMALL_LIST, Pieces, Turns, at_once
from .rows import RequestError, Row

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
METRICS_PAUSE = 4  # times as long as it took to make the metrics, before they are made again
T = TypeVar("T")
# The headers that are read of each request; a search for each would take longer.
HEADERS = frozenset(
    {CHECK_HEADER.lower().encode(), b"x-request-id", b"content-encoding", b"content-length"}
)


class ParsedRequest(NamedTuple):
    """The rows of a request, what makes a response of its ID and the answer, and its own ID.

    Attributes:
        is_explained: Whether the caller asks for explanations.
    """

    rows: list[Row]
    render: Callable[[str, Answer], Pieces[Response]]
    client_request_id: str | None = None
    is_explained: bool = False


class Api:
    """The state behind the routes.

    Attributes:
        error: Why the desired package is not served; None if it is.
        draining: Whether the service is about to end.
    """

    def __init__(
        self, loaded: LoadedModel, settings: Service, error: str | None, stamp: Stamp | None
    ) -> None:
        self.settings = settings
        self.error = error
        self.stamp = stamp
        self.draining = False
        self.stopped = threading.Event()
        self.bodies = BodyReader(settings.max_megabytes)
        self.check_token = ensure_token()
        self.log = PredictionLog(settings)
        self.batcher = Batcher(loaded, self.log, settings.queue_rows, settings.max_rows)
        self.explaining = Explaining(loaded, settings)
        self.metrics = Metrics(self.batcher, settings.private)
        self.turns = Turns()
        # Seeded by the system once: to ask it for each request takes as long as to parse it.
        self._random = random.Random()  # an ID is no secret
        self._metrics_text: asyncio.Task[bytes] | None = None
        self._metrics_turn = asyncio.Lock()
        self._metrics_due = 0.0  # when they may be made again, in seconds of `time.perf_counter`

    @property
    def model(self) -> Model:
        return self.batcher.loaded.model

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the threads; at the end, write the rest of the log."""
        self.batcher.start()
        self.explaining.start()
        self.log.thread.start()
        if self.stamp:
            arguments = (self.batcher, self.stamp, self.stopped, self._set_error)
            threading.Thread(target=follow_desired, args=arguments, daemon=True).start()
        yield
        self.stopped.set()
        self.batcher.stop()
        self.explaining.stop()
        self.log.close()
        if self.log.error:
            print(f"ml: the log is not written: {self.log.error}", file=sys.stderr)  # noqa: T201

    def _set_error(self, error: str | None) -> None:
        self.error = error

    async def answer(
        self,
        route: str,
        request: Request,
        parse: Callable[[bytes, Request], Pieces[ParsedRequest]],
        render_error: Callable[[RequestError], Response],
    ) -> Response:
        """Read a request, predict its rows, and return the response.

        Args:
            route: The label of the request in the metrics.
            parse: Parses a body; raises RequestError.
            render_error: Makes a response of what is wrong with a request.
        """
        started = time.perf_counter()
        # Ours, so that no two requests have the same: a label is that of one row.
        request_id = f"{self._random.getrandbits(128):032x}"
        headers = _headers(request)
        if is_token(headers.get(CHECK_HEADER.lower(), ""), self.check_token):
            request_id = f"{CHECK_PREFIX}{request_id}"
        client = caller((request.scope.get("client") or [""])[0])
        client_id = _usable_id(headers.get("x-request-id"))
        predicted: float | None = None
        try:
            encoding = headers.get("content-encoding", "")
            length = headers.get("content-length", "")
            body = await self.bodies.read(request.receive, encoding, length, client)
            is_large = len(body) > SMALL_BYTES
            parsed = await self._do(parse(body, request), is_large)
            rows, render, own_id, is_explained = parsed
            client_id = client_id or _usable_id(own_id)
            if len(rows) > self.settings.max_rows:
                excess = f"{len(rows)} rows are more than {self.settings.max_rows}"
                raise RequestError.for_request(f"{excess}, send them in parts", 413)
            answer = await self.batcher.ask(request_id, rows, client, client_id)
            predicted = time.perf_counter()
            if is_explained:
                answer = await self._explained(answer, rows, client)
            is_large = len(rows) > SMALL_LIST
            response = await self._do(render(request_id, answer), is_large)
            self.metrics.rows.inc(len(rows))
        except RequestError as error:
            response = render_error(error)
            if error.status == 422:
                self.log.count_refused(self.model.version, error.faults)
            if error.status == 503:
                response.headers["retry-after"] = "1"
            if error.status == 415:
                response.headers["accept-encoding"] = "gzip"
        # As the header of a response that has neither: a search for each would cost more.
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        if client_id:
            response.raw_headers.append((b"x-client-request-id", client_id.encode()))
        # To the prediction: how long an explanation may take is up to `explain_seconds`.
        seconds = (predicted or time.perf_counter()) - started
        self.metrics.count_answer(route, response.status_code, seconds)
        return response

    async def _do(self, work: Pieces[T], is_large: bool) -> T:
        return await self.turns.run(work) if is_large else at_once(work)

    async def _explained(self, answer: Answer, rows: list[Row], client: str) -> Answer:
        """Return an answer with explanations, or the reasons why there are none."""
        started = time.perf_counter()
        explanations = await self.explaining.explain(answer.loaded, rows, client)
        self.metrics.explanation_seconds.observe(time.perf_counter() - started)
        missing = sum(isinstance(explained, str) for explained in explanations)
        self.metrics.explanations.labels("explained").inc(len(rows) - missing)
        self.metrics.explanations.labels("missing").inc(missing)
        return answer._replace(explanations=explanations)

    async def metrics_text(self) -> bytes:
        """Return the metrics; all who ask at the same time get the same.

        However many ask, making them takes a part of the time only, and those who have waited are
        answered one by one: hundreds of responses at once would hold up the event loop. Nobody gets
        old ones.
        """
        if self._metrics_text is None or self._metrics_text.done():
            self._metrics_text = asyncio.create_task(self._make_metrics_text())
        text = await asyncio.shield(self._metrics_text)
        async with self._metrics_turn:
            await asyncio.sleep(0)
        return text

    async def _make_metrics_text(self) -> bytes:
        await asyncio.sleep(self._metrics_due - time.perf_counter())
        started = time.perf_counter()
        # In a thread: rows that are counted only now would hold up the event loop.
        text = await asyncio.to_thread(self.metrics.text)
        ended = time.perf_counter()
        self._metrics_due = ended + METRICS_PAUSE * (ended - started)
        return text


def _headers(request: Request) -> dict[str, str]:
    """Return those of `HEADERS` that a request has; of several with one name the first."""
    headers: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        if name in HEADERS:
            headers.setdefault(name.decode(), value.decode("latin-1"))
    return headers


def _usable_id(text: str | None) -> str | None:
    """Return the ID that a caller gave its request, if it is one that can be kept."""
    return text if isinstance(text, str) and REQUEST_ID.fullmatch(text) else None
