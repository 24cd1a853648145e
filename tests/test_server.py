"""The parts of uvicorn that `serving/` uses, and that uvicorn does not document.

If one of these tests fails after an update of uvicorn, read `DrainingServer` beside the new
`uvicorn.Server` and `BoundedConnection` beside its `HttpToolsProtocol`, and run
`test_service_faults.py`, which ends a service under load, and `test_connections.py`.
"""

from __future__ import annotations

import inspect

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("handle_exit", ["self", "sig", "frame"]),
        ("on_tick", ["self", "counter"]),
        ("shutdown", ["self", "sockets"]),
    ],
)
def test_uvicorn_has_the_methods_that_the_server_overrides(
    method: str, parameters: list[str]
) -> None:
    overridden = getattr(uvicorn.Server, method, None)
    assert overridden, f"uvicorn.Server has no {method} any more"
    assert list(inspect.signature(overridden).parameters) == parameters


def test_uvicorn_ends_when_a_tick_says_so() -> None:
    assert inspect.iscoroutinefunction(uvicorn.Server.on_tick)
    assert "self.on_tick(counter)" in inspect.getsource(uvicorn.Server.main_loop)
    assert "self.handle_exit" in inspect.getsource(uvicorn.Server.capture_signals)


def test_uvicorn_counts_connections_and_sends_default_headers() -> None:
    state = ServerState()
    assert state.connections == set(), "drained when it is empty"
    assert state.default_headers == [], "sent with each response"
    config = uvicorn.Config(lambda: None, headers=[("x", "y")])
    config.load()
    assert config.encoded_headers[-1] == (b"x", b"y"), "what default_headers are renewed from"
    assert "self.config.encoded_headers" in inspect.getsource(uvicorn.Server.on_tick)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("connection_made", ["self", "transport"]),
        ("connection_lost", ["self", "exc"]),
        ("data_received", ["self", "data"]),
        ("send_400_response", ["self", "msg"]),
        ("on_message_begin", ["self"]),
        ("on_url", ["self", "url"]),
        ("on_header", ["self", "name", "value"]),
        ("on_headers_complete", ["self"]),
        ("on_body", ["self", "body"]),
        ("on_message_complete", ["self"]),
        ("on_response_complete", ["self"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("timeout_keep_alive_handler", ["self"]),
    ],
)
def test_uvicorn_has_the_methods_that_a_bounded_connection_overrides(
    method: str, parameters: list[str]
) -> None:
    overridden = getattr(HttpToolsProtocol, method, None)
    assert overridden, f"HttpToolsProtocol has no {method} any more"
    assert list(inspect.signature(overridden).parameters) == parameters


def test_uvicorn_keeps_the_state_that_a_bounded_connection_reads() -> None:
    code = inspect.getsource(httptools_impl)
    names = ["client", "connections", "cycle", "flow", "loop", "pipeline", "transport", "url"]
    for name in [*names, "timeout_keep_alive", "timeout_keep_alive_task"]:
        assert f"self.{name}" in code, name
    for name in ("disconnected", "message_event", "more_body", "response_complete"):
        assert f"self.{name} = " in code, name
    assert "self.parser.feed_data(data)" in code
    assert list(inspect.signature(FlowControl).parameters) == ["transport"]
    for method in ("pause_reading", "resume_reading"):
        assert list(inspect.signature(getattr(FlowControl, method)).parameters) == ["self"]
        assert f"self.flow.{method}()" in code, method
