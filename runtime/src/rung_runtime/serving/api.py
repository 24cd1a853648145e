"""Answering a request for predictions, in either protocol: limits, errors, times and counts."""

import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, NoReturn
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from ..config.delivery import Service
from ..model_package import Model
from ..prediction_log.writer import PredictionLog
from .batcher import Answer, Batcher
from .desired import Stamp, follow_desired
from .loaded_model import LoadedModel
from .metrics import Metrics
from .rows import RequestError, Row

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
BODIES_IN_MEMORY = 8  # of the greatest size, all requests together
BYTES_PER_MEGABYTE = 1e6


class ParsedRequest(NamedTuple):
    """The rows of a request, and what makes a response of its ID and the answer."""

    rows: list[Row]
    render: Callable[[str, Answer], Response]


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
        self.max_bytes = int(settings.max_megabytes * BYTES_PER_MEGABYTE)
        self.bytes_in_memory = 0
        self.log = PredictionLog(settings)
        self.batcher = Batcher(loaded, self.log, settings.queue_rows, settings.max_rows)
        self.metrics = Metrics(self.batcher)

    @property
    def model(self) -> Model:
        return self.batcher.loaded.model

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the threads; at the end, write the rest of the log."""
        self.batcher.start()
        self.log.thread.start()
        if self.stamp:
            arguments = (self.batcher, self.stamp, self.stopped, self._set_error)
            threading.Thread(target=follow_desired, args=arguments, daemon=True).start()
        yield
        self.stopped.set()
        self.batcher.stop()
        self.log.close()
        if self.log.error:
            print(f"ml: the log is not written: {self.log.error}", file=sys.stderr)  # noqa: T201

    def _set_error(self, error: str | None) -> None:
        self.error = error

    async def answer(
        self,
        route: str,
        request: Request,
        parse: Callable[[bytes, Request], ParsedRequest],
        render_error: Callable[[RequestError], Response],
    ) -> Response:
        """Read a request, predict its rows, and return the response.

        Args:
            route: The label of the request in the metrics.
            parse: Parses a body; raises RequestError.
            render_error: Makes a response of what is wrong with a request.
        """
        started = time.perf_counter()
        request_id = request.headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        try:
            rows, render = parse(await self._read_body(request), request)
            if len(rows) > self.settings.max_rows:
                excess = f"{len(rows)} rows are more than {self.settings.max_rows}"
                raise RequestError.for_request(f"{excess}, send them in parts", 413)
            response = render(request_id, await self.batcher.ask(request_id, rows))
            self.metrics.rows.inc(len(rows))
        except RequestError as error:
            response = render_error(error)
            if error.status == 422:
                self.log.count_refused(self.model.version, error.faults)
            if error.status == 503:
                response.headers["retry-after"] = "1"
        response.headers["x-request-id"] = request_id
        self.metrics.requests.labels(route, response.status_code).inc()
        self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
        return response

    async def _read_body(self, request: Request) -> bytes:
        """Read a body, as long as it and all others together are not too large."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_bytes:
            self._refuse_body()
        body = bytearray()
        try:
            async for chunk in request.stream():
                self.bytes_in_memory += len(chunk)
                body += chunk
                if len(body) > self.max_bytes:
                    self._refuse_body()
                if self.bytes_in_memory > BODIES_IN_MEMORY * self.max_bytes:
                    raise RequestError.for_request("too much is being sent: try again later", 503)
        except ClientDisconnect:
            raise RequestError.for_request("the caller has gone", 400) from None
        finally:
            self.bytes_in_memory -= len(body)
        return bytes(body)

    def _refuse_body(self) -> NoReturn:
        megabytes = f"{self.settings.max_megabytes:g} MB"
        raise RequestError.for_request(f"more than {megabytes}, send the rows in parts", 413)
