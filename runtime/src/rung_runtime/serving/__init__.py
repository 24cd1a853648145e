"""The service: `POST /predict`, the Open Inference Protocol, and what operations ask for.

The event loop reads requests and writes answers; one thread predicts (`batch`), one writes the log
(`log`), one looks for another model to go over to.
"""

import asyncio
import gc
import json
import math
import re
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as Call
from uuid import uuid4

import polars as pl
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import ClientDisconnect

from .. import RefusedError, UsageError, settings
from ..escaping import visible
from ..model_package import Model
from ..prediction_log import CHECK, Log
from ..settings import Service
from . import describe, open_inference
from .batch import (
    Answer,
    Batcher,
    Fault,
    Faulty,
    Row,
    Served,
    as_json,
    desired,
    load,
    parsed,
    stamped,
)

CLOSE = 1e-9  # how far a service's numbers may be from those of the package
LONGEST = 64 << 20  # bytes of an answer that is compared
ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]
AT_ONCE = 8  # bodies of the greatest size that are held in memory
LINGER = 1.0  # seconds in which callers learn from an answer that they must connect elsewhere
Parse = Callable[[bytes, Request], list[Row]]
Say = Callable[[str, Answer], Response]


class Api:
    """The state behind the routes."""

    def __init__(self, served: Served, settings: Service, error: str | None, seen: object) -> None:
        self.settings, self.error, self.seen, self.draining = settings, error, seen, False
        self.stopped, self.held = threading.Event(), 0
        self.bytes = int(settings.max_megabytes * 1e6)
        self.log = Log(settings)
        self.batcher = Batcher(served, self.log, settings.queue_rows, settings.max_rows)
        self.registry = CollectorRegistry()
        self.registry.register(describe.Collector(self.batcher))
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "ml_requests", "Requests for predictions", ["route", "status"], registry=self.registry
        )
        self.rows = Counter("ml_rows", "Rows answered", registry=self.registry)
        self.seconds = Histogram(
            "ml_request_seconds",
            "Time to the answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )

    @property
    def model(self) -> Model:
        return self.batcher.served.model

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.batcher.start()
        self.log.thread.start()
        if self.seen:
            args = (self.stopped, self.seen, self._say)
            threading.Thread(target=self.batcher.follow, args=args, daemon=True).start()
        yield
        self.stopped.set()
        self.batcher.stop()
        self.log.close()
        if self.log.error:
            print(f"ml: the log is not written: {self.log.error}", file=sys.stderr)  # noqa: T201

    def _say(self, error: str | None) -> None:
        self.error = error

    async def answer(
        self,
        route: str,
        request: Request,
        parse: Parse,
        say: Say,
        sorry: Callable[[Faulty], Response],
    ) -> Response:
        """Read a request, predict, answer: one way for both protocols."""
        began = time.perf_counter()
        name = request.headers.get("x-request-id", "")
        name = name if ID.fullmatch(name) else uuid4().hex
        try:
            rows = parse(await self._body(request), request)
            if len(rows) > self.settings.max_rows:
                most = (
                    f"{len(rows)} rows are more than {self.settings.max_rows}, send them in parts"
                )
                raise Faulty([Fault(None, None, most)], 413)
            response = say(name, await self.batcher.ask(name, rows))
            self.rows.inc(len(rows))
        except Faulty as faulty:
            response = sorry(faulty)
            if faulty.status == 422:
                self.log.refuse(self.model.version, faulty.faults)
            if faulty.status == 503:
                response.headers["retry-after"] = "1"
        response.headers["x-request-id"] = name
        self.requests.labels(route, response.status_code).inc()
        self.seconds.labels(route).observe(time.perf_counter() - began)
        return response

    async def _body(self, request: Request) -> bytes:
        length, body = request.headers.get("content-length", ""), bytearray()
        if length.isdigit() and int(length) > self.bytes:
            self._too_large()
        try:
            async for chunk in request.stream():
                self.held += len(chunk)
                body += chunk
                if len(body) > self.bytes:
                    self._too_large()
                if self.held > AT_ONCE * self.bytes:
                    raise Faulty(
                        [Fault(None, None, "too much is being sent: try again later")], 503
                    )
        except ClientDisconnect:
            raise Faulty([Fault(None, None, "the caller has gone")], 400) from None
        finally:
            self.held -= len(body)
        return bytes(body)

    def _too_large(self) -> None:
        most = f"more than {self.settings.max_megabytes:g} MB, send the rows in parts"
        raise Faulty([Fault(None, None, most)], 413)


def app(
    served: Served, settings: Service, error: str | None = None, seen: object = None
) -> FastAPI:
    """Make the application.

    Args:
        error: What kept a newer package from being served.
        seen: What `batch.stamped` said before the package was looked up; then the service goes over
            to the one that `batch.DESIRED` names, whenever that changes. None: it stays as it is.
    """
    api = Api(served, settings, error, seen)
    made = FastAPI(title=open_inference.NAME, lifespan=api.lifespan, docs_url=None, redoc_url=None)
    made.state.api = api

    answers: open_inference.Responses = {
        code: {"description": about, "model": describe.Refusal}
        for code, about in ((413, "Too much"), (422, "It breaks the contract"), (503, "Too many"))
    }

    @made.post("/predict", responses=answers | {200: {"model": describe.Answer}})
    async def predict(request: Request) -> Response:
        """Predict one row or more."""
        return await api.answer("/predict", request, _rows, _predicted, _sorry)

    @made.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process lives."""
        return {"status": "alive"}

    @made.get("/readyz", responses={503: {"description": "It is about to end"}})
    async def readyz() -> Response:
        """Tell whether new requests are welcome."""
        status = {"status": "draining" if api.draining else "ready"}
        return JSONResponse(status, 503 if api.draining else 200)

    @made.get("/version")
    async def version() -> dict[str, str | None]:
        """Tell which model answers, and why it is not a newer one."""
        facts = {
            key: api.model.manifest[key] for key in ("version", "model_digest", "package_digest")
        }
        return facts | {"since": api.batcher.served.since, "error": api.error}

    @made.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Tell Prometheus."""
        return Response(generate_latest(api.registry), media_type="text/plain; version=0.0.4")

    made.include_router(open_inference.routes(api))

    def openapi() -> dict[str, Any]:
        found = get_openapi(title=made.title, version=api.model.version, routes=made.routes)
        row, post = describe.row(api.batcher.served), found["paths"]["/predict"]["post"]
        found["components"]["schemas"]["Row"] = row
        one = {"$ref": "#/components/schemas/Row"}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": settings.max_rows}
        rows = {"rows": {"oneOf": [many, one]}}
        asked = {"type": "object", "required": ["rows"], "properties": rows}
        body = {"schema": asked, "example": {"rows": [api.batcher.served.example]}}
        post["requestBody"] = {"required": True, "content": {"application/json": body}}
        return found

    made.openapi = openapi  # type: ignore[method-assign]
    return made


def serve(folder: Path | None, settings: Service, sock: socket.socket | None = None) -> None:
    """Serve until SIGTERM: then answer those who wait, write the log, end.

    Args:
        folder: Of a package; None: what `batch.DESIRED` names, now and whenever that changes.
        sock: A socket that listens already.

    Raises:
        UsageError: There is no package that can be opened, or the port cannot be had.
    """
    seen = stamped()
    served, error = (load(folder), None) if folder else desired()
    made = app(served, settings, error, seen=None if folder else seen)
    config = uvicorn.Config(
        made,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than a load balancer's
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    # Else the event loop waits 5 ms for its turn whenever the other thread has one, and everybody
    # for the collector, which would look at all that the imports have left, again and again.
    sys.setswitchinterval(0.0005)
    gc.freeze()
    with sock or _listening(settings) as listening:
        _Server(config, made.state.api).run([listening])


def main() -> None:
    """Run `ml-serve PACKAGE`: what a container runs, which has no other command."""
    try:
        serve(Path(sys.argv[1]), settings.delivery().service)
    except (UsageError, IndexError) as wrong:
        said = wrong if isinstance(wrong, UsageError) else "name the folder of a package"
        print(f"ml-serve: {said}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def parity(url: str, rows: pl.DataFrame, model: Model) -> str:
    """See that a service answers what the model answers here, to 1e-9.

    Args:
        url: Of the service, without a path.
        rows: As `problem.data.load` returns them; columns that are no features are not sent.

    Raises:
        RefusedError: It answers otherwise, with another model, or not at all.
    """
    typed = model.read(rows.select(*model.asked.columns))
    ours, sent = model.answers(model.predict(typed)), as_json(typed, model.asked)
    ask, worst = build_opener(ProxyHandler({})), 0.0
    for at in range(0, len(sent), 100):
        body = json.dumps({"rows": sent[at : at + 100]}).encode()
        headers = {"Content-Type": "application/json", "X-Request-Id": f"{CHECK}{uuid4().hex}"}
        try:
            call = Call(f"{url}/predict", body, headers)
            with ask.open(call, timeout=30) as answer:
                found = json.loads(answer.read(LONGEST))
        except HTTPError as error:
            reason = visible(error.read(500).decode("utf-8", "replace"))
            raise RefusedError(f"{url} answers {error.code}: {reason}") from None
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            raise RefusedError(f"{url} does not answer: {error}") from None
        if not isinstance(found, dict) or found.get("model_digest") != model.digest:
            version = found.get("version") if isinstance(found, dict) else None
            raise RefusedError(f"{url} serves another model, version {version}")
        for row, (a, b) in enumerate(
            zip(ours[at : at + 100], found["predictions"], strict=True), at
        ):
            apart = _apart(a, b)
            if apart > CLOSE:
                shown = visible(b)[:500]
                raise RefusedError(f"row {row}: {url} answers {shown}, the model here {a}")
            worst = max(worst, apart)
    return f"{len(sent):,} rows: {url} answers what the model does here, at most {worst:.1g} apart"


def _apart(ours: dict[str, Any], theirs: Any) -> float:
    """Return how far an answer is from the model's own; infinitely, if it is none."""
    if not isinstance(theirs, dict):
        return math.inf
    label = theirs.get("prediction")
    has_classes = "probabilities" in ours
    wanted = ours["probabilities"] if has_classes else {"": ours["prediction"]}
    found = theirs.get("probabilities") if has_classes else {"": label}
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        return math.inf
    if not all(map(_is_number, found.values())):
        return math.inf
    # Of classes that are as likely, either may be named.
    if has_classes and (
        not isinstance(label, str) or found.get(label, -1.0) < max(found.values()) - CLOSE
    ):
        return math.inf
    return max(abs(float(wanted[name]) - float(found[name])) for name in wanted)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _rows(body: bytes, _: Request) -> list[Row]:
    asked = parsed(body)
    rows = asked.get("rows") if isinstance(asked, dict) else None
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        said = 'not {"rows": [{"column": value, …}, …]} with one row or more'
        raise Faulty([Fault(None, None, said)])
    return rows


def _predicted(name: str, answer: Answer) -> Response:
    model = answer.served.model
    body = {
        "request_id": name,
        "version": model.version,
        "model_digest": model.digest,
        "predictions": answer.predictions,
    }
    return Response(json.dumps(body, ensure_ascii=False), media_type="application/json")


def _sorry(faulty: Faulty) -> Response:
    return JSONResponse({"detail": list(map(_said, faulty.faults))}, faulty.status)


def _said(fault: Fault) -> dict[str, Any]:
    reason = fault.rule if fault.value is None else f"{fault.rule}: {fault.value}"
    return {"row": fault.row, "column": fault.column, "reason": reason}


def _listening(settings: Service) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        said = f"{settings.host}:{settings.port} cannot be listened to ({error.strerror})"
        raise UsageError(
            f"{said}: name another port in config/delivery.yaml, service.port"
        ) from None


class _Server(uvicorn.Server):
    """Lets callers know for a moment that it ends before it does; ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self.api, self.ends = api, float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.api.draining:
            self.api.draining = True
            self.ends = time.monotonic() + min(LINGER, self.api.settings.drain_seconds)
            self.config.encoded_headers.append((b"connection", b"close"))
            self.server_state.default_headers = [
                *self.server_state.default_headers,
                (b"connection", b"close"),
            ]

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or time.monotonic() >= self.ends

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Who has connected and not yet asked is answered, too; uvicorn would close at once.
        for server in self.servers:
            server.close()
        until = time.monotonic() + min(LINGER, self.api.settings.drain_seconds)
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
