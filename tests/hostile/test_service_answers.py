"""What a service answers is compared with its package, and is believed to be nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest
from rung_runtime import RefusedError

Import = Callable[[str], ModuleType]


@contextmanager
def answering(
    body: bytes, kind: str = "application/json", status: int = 200, location: str = ""
) -> Iterator[str]:
    """Serve one answer to whatever is asked."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


NUMBER = {"prediction": 0.5}
CLASSES = {"prediction": "late", "probabilities": {"late": 0.6, "on time": 0.4}}
NaN = float("nan")
NO_NUMBERS: list[Any] = [NaN, float("inf"), None, "0.5", [], 0.6, 10**400]
NO_ANSWERS: list[Any] = [{}, None, [], "x", 7, {"probabilities": {"": 0.5}, "x": 1}]
LIES: list[tuple[dict[str, Any], Any]] = [
    *((NUMBER, {"prediction": lie}) for lie in NO_NUMBERS),
    *((NUMBER, lie) for lie in NO_ANSWERS),
    (CLASSES, {"prediction": "late"}),
    (CLASSES, CLASSES | {"prediction": "on time"}),
    (CLASSES, CLASSES | {"prediction": ["late"]}),
    (CLASSES, CLASSES | {"probabilities": {"late": NaN, "on time": 0.4}}),
    (CLASSES, CLASSES | {"probabilities": {"late": 0.6, "on time": None}}),
    (CLASSES, CLASSES | {"probabilities": {"late": 0.6}}),
    (CLASSES, CLASSES | {"probabilities": [0.6, 0.4]}),
]


def compared(
    module: Import, monkeypatch: pytest.MonkeyPatch, ours: Any, theirs: bytes,
    status: int = 200, location: str = "",
) -> str:  # fmt: skip
    parity = module("serving.parity")
    monkeypatch.setattr(parity, "rows_from_frame", lambda *_: [{"x": 1}])
    model = SimpleNamespace(
        request_contract=SimpleNamespace(columns=["x"]),
        digest="sha256:0",
        read=lambda rows: rows,
        predict=lambda _: None,
        answers=lambda _: [ours],
    )
    with answering(theirs, status=status, location=location) as url:
        return str(parity.check_parity(url, pl.DataFrame({"x": [1]}), model))


def answered(prediction: Any) -> bytes:
    return json.dumps({"model_digest": "sha256:0", "predictions": [prediction]}).encode()


@pytest.mark.parametrize(("ours", "theirs"), LIES, ids=str)
def test_an_image_that_answers_otherwise_does_not_pass_for_its_package(
    module: Import, monkeypatch: pytest.MonkeyPatch, ours: dict[str, Any], theirs: Any
) -> None:
    with pytest.raises(RefusedError, match="row 0: ") as error:
        compared(module, monkeypatch, ours, answered(theirs))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1_000


def test_one_that_answers_as_its_package_does_passes(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ours in (NUMBER, CLASSES):
        assert "1 row:" in compared(module, monkeypatch, ours, answered(ours))
    # Of two classes that are as likely, either may be named.
    even = {"prediction": "late", "probabilities": {"late": 0.5, "on time": 0.5}}
    assert compared(module, monkeypatch, even, answered(even | {"prediction": "on time"}))


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"\xff", b"", b"1" * 5_000], ids=len)
def test_an_answer_that_is_none_is_a_sentence(
    module: Import, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    refused = RefusedError
    with pytest.raises(refused, match="does not answer"):
        compared(module, monkeypatch, NUMBER, body)
    client = module("http_client")
    with answering(body) as url, pytest.raises(ValueError, match=r"."):
        client.http_json(url)
    for kind in ("application/json", "text/plain"):
        with answering(body or b"\xff", kind) as url, pytest.raises(refused, match="Prometheus"):
            module("delivery.watch").scrape_request_totals(url)
    monkeypatch.setattr(client.SERVICE, "limits", client.Limits(max_bytes=10))
    with answering(b"x" * 11, "text/plain") as url, pytest.raises(ValueError, match="more than"):
        client.http_json(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_of_the_service_does_not_follow_a_redirect(
    module: Import, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("ML_API_KEY", "secret-of-the-service")
    stolen: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stolen.append(str(self.headers))
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    thief = ThreadingHTTPServer(("127.0.0.1", 0), Thief)
    threading.Thread(target=thief.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with pytest.raises(RefusedError, match=f"answers {status}"):
            compared(
                module, monkeypatch, NUMBER, b"", status, f"http://localhost:{thief.server_port}/"
            )
    finally:
        thief.shutdown()
    assert stolen == []
