"""The application: its routes, and what runs it."""

import gc
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..config.delivery import Service
from ..prediction_log.layout import json_text
from . import open_inference, openapi, pieces
from .api import Api, ParsedRequest
from .batcher import Answer
from .desired import Stamp, desired_stamp, load_desired
from .explaining import explanation_json
from .front import Front
from .loaded_model import LoadedModel, load
from .main import ended_by_sigterm
from .metrics import PROMETHEUS_TEXT
from .pieces import Pieces
from .rows import Fault, RequestError, parse_rows
from .server import DrainingServer, listen

THREAD_SWITCH_SECONDS = 0.0005


class Application(FastAPI):
    """FastAPI's application, which `POST /predict` passes by.

    FastAPI has nothing to check or to convert there, and its handling of a request costs more than
    a prediction. What stands before every route (`front`) stands before this one, too.

    Attributes:
        predict: Answers `POST /predict`.
    """

    predict: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/predict"):
            await self.predict(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(
    loaded: LoadedModel, settings: Service, error: str | None = None, stamp: Stamp | None = None
) -> FastAPI:
    """Return the application.

    Args:
        loaded: The model to serve.
        error: Why it is not the desired one; None if it is.
        stamp: The stamp of `desired.DESIRED` before the model was loaded; the service then follows
            that document. None: it stays with this model.
    """
    api = Api(loaded, settings, error, stamp)
    app = Application(
        title=open_inference.NAME,
        lifespan=api.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.api = api
    cors: dict[str, Any] = {
        "allow_origins": settings.origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["Authorization", "Content-Type", "X-Request-Id"],
        "expose_headers": ["X-Request-Id", "X-Client-Request-Id"],
    }
    app.add_middleware(Front, settings=settings)
    if settings.origins:
        app.add_middleware(CORSMiddleware, **cors)

    responses: open_inference.Responses = {
        200: {"model": openapi.Answer},
        413: {"description": "Too much", "model": openapi.Refusal},
        415: {"description": "An encoding other than gzip", "model": openapi.Refusal},
        422: {"description": "It breaks the contract", "model": openapi.Refusal},
        503: {"description": "Too many", "model": openapi.Refusal},
    }

    parse_body = partial(parse, api)

    @app.post("/predict", responses=responses)
    async def predict(request: Request) -> Response:
        """Predict one row or more."""
        return await api.answer("/predict", request, parse_body, render_error)

    async def predict_directly(scope: Scope, receive: Receive, send: Send) -> None:
        response = await predict(Request(scope, receive))
        await response(scope, receive, send)

    # Raises what is wrong with the settings now, not at the first request.
    front = Front(predict_directly, settings)
    app.predict = CORSMiddleware(front, **cors) if settings.origins else front

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process lives."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: {"description": "It is about to end"}})
    async def readyz() -> Response:
        """Tell whether new requests are welcome."""
        if api.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/version")
    async def version() -> dict[str, str | None]:
        """Tell which model answers, and why it is not a newer one."""
        manifest = api.model.manifest
        return {
            "version": manifest["version"],
            "model_digest": manifest["model_digest"],
            "package_digest": manifest["package_digest"],
            "since": api.batcher.loaded.since,
            "error": api.error,
        }

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        """Tell Prometheus."""
        return Response(await api.metrics_text(), media_type=PROMETHEUS_TEXT)

    app.include_router(open_inference.routes(api))

    documents: dict[str, dict[str, Any]] = {}  # of the model that serves

    def openapi_document() -> dict[str, Any]:
        loaded = api.batcher.loaded
        version = loaded.model.version
        if version not in documents:
            documents.clear()
            documents[version] = openapi.document(app, loaded, settings)
        return documents[version]

    app.openapi = openapi_document  # type: ignore[method-assign]
    return app


def parse(api: Api, body: bytes, request: Request) -> Pieces[ParsedRequest]:
    """Parse `POST /predict`.

    Raises:
        RequestError: As `parse_rows`; or the query says something that it cannot.
    """
    rows = yield from parse_rows(body, api.model.request_contract, api.settings.max_rows)
    is_explained = _is_explained(request)
    return ParsedRequest(rows, partial(render, api.settings), is_explained=is_explained)


def _is_explained(request: Request) -> bool:
    """Check whether a request asks for explanations.

    Raises:
        RequestError: It says neither yes nor no.
    """
    if not request.scope["query_string"]:
        return False
    text = request.query_params.get("explain", "false")
    if text not in ("true", "false"):
        raise RequestError.for_request("explain is not true or false", value=json_text(text[:20]))
    return text == "true"


def render(settings: Service, request_id: str, answer: Answer) -> Pieces[Response]:
    """Return the response to `POST /predict`."""
    predictions: list[Any] = answer.predictions
    if answer.explanations is not None:
        predictions = [
            prediction | explanation_json(explained, settings.private)
            for prediction, explained in zip(predictions, answer.explanations, strict=True)
        ]
    ids = f'"request_id": "{request_id}", {answer.loaded.ids_json}'
    texts = yield from pieces.write_list(predictions)
    return Response(f'{{{ids}, "predictions": {texts}}}', media_type="application/json")


def render_error(error: RequestError) -> Response:
    """Return the response to a request that cannot be answered."""
    return JSONResponse({"detail": [fault_json(fault) for fault in error.faults]}, error.status)


def fault_json(fault: Fault) -> dict[str, Any]:
    """Return a fault as `openapi.Fault` describes it."""
    reason = fault.reason if fault.value is None else f"{fault.reason}: {fault.value}"
    return {"row": fault.row, "column": fault.column, "reason": reason}


def serve(folder: Path | None, settings: Service, sock: socket.socket | None = None) -> None:
    """Serve until SIGTERM; then answer those who wait, write the log, and return.

    Args:
        folder: A package; None: the one that `desired.DESIRED` names, now and whenever it changes.
        sock: A socket that listens already.

    Raises:
        UsageError: No package can be opened, or the port cannot be had.
    """
    with ended_by_sigterm():
        if folder:
            app = create_app(load(folder), settings)
        else:
            stamp = desired_stamp()
            loaded, error = load_desired()
            app = create_app(loaded, settings, error, stamp)
        # Else the event loop waits 5 ms for its turn whenever the other thread has one, and
        # everybody for the garbage collector, which would visit all that the imports left, again
        # and again.
        sys.setswitchinterval(THREAD_SWITCH_SECONDS)
        gc.freeze()
        with sock or listen(settings) as listener:
            DrainingServer(app, app.state.api).run([listener])
