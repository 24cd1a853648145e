"""What the HTTP server bounds before a route is asked, over real sockets and without a model."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

Module = Callable[[str], ModuleType]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Running:
    """A server of an application that reads each body, and answers so many bytes."""

    def __init__(self, module: Module, connections: int, read_seconds: float, size: int) -> None:
        """Make it; `running` starts it."""
        parts = module("serving.connections")
        limits = parts.Limits(connections, read_seconds)
        self.size = size
        self.requests = 0
        self.seconds = 0.0  # that an answer takes
        self.most_ahead = 0  # requests of a connection that wait for their answer
        self.most_held = 0  # bytes of a connection that are not parsed yet
        self.bodies: list[bytes] = []
        self.answers = threading.Event()
        self.answers.set()
        config = uvicorn.Config(
            self.answer,
            http=partial(parts.BoundedConnection, limits=limits),  # type: ignore[arg-type]
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            log_level="error",
        )
        self.server = uvicorn.Server(config)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    async def answer(self, _: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        connections: Any = self.server.server_state.connections
        for connection in connections:
            self.most_ahead = max(self.most_ahead, len(connection.unanswered))
            self.most_held = max(self.most_held, len(connection.held))
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        self.bodies.append(body + message.get("body", b""))
        if message["type"] == "http.disconnect":
            return
        while not self.answers.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.seconds)
        headers = [(b"content-length", str(self.size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * self.size})

    @property
    def open_connections(self) -> int:
        return len(self.server.server_state.connections)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.socket.getsockname(), timeout=30)

    def status(self, *parts: bytes) -> int | None:
        """Send parts until the connection ends; the status of the answer, None without one."""
        with self.connect() as connection:
            with suppress(OSError):
                for part in parts:
                    connection.sendall(part)
            with suppress(OSError):
                answer = connection.recv(1_000)
                return int(answer.split()[1]) if answer else None
        return None


@pytest.fixture
def running(module: Module) -> Callable[..., Any]:
    @contextmanager
    def running(
        connections: int = 100, read_seconds: float = 30.0, size: int = 2
    ) -> Iterator[Running]:
        service = Running(module, connections, read_seconds, size)
        service.thread.start()
        while not service.server.started:
            time.sleep(0.01)
        try:
            yield service
        finally:
            service.server.should_exit = service.server.force_exit = True
            service.thread.join(30)

    return running


LINE = b"X-Header: " + b"a" * 8_000 + b"\r\n"
ENDLESS = {
    "headers": ([b"GET / HTTP/1.1\r\n", *[LINE] * 2_000], 431),
    "small headers": ([b"GET / HTTP/1.1\r\n", *[b"a: b\r\n" * 1_000] * 2_000], 431),
    "one header": ([b"GET / HTTP/1.1\r\nX: ", *[b"a" * 60_000] * 300], 431),
    "a header's name": ([b"GET / HTTP/1.1\r\n", *[b"a" * 60_000] * 300], 431),
    "the URL": ([b"GET /", *[b"a" * 60_000] * 300], 414),
    "trailers": (
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", *[LINE] * 2_000],
        431,
    ),
    "one trailer": (
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", *[b"a" * 60_000] * 300],
        431,
    ),
    "a chunk's extension": (
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", *[b"a" * 60_000] * 300],
        431,
    ),
    "empty lines": ([b"\r\n" * 30_000] * 300, 431),
}


@pytest.mark.parametrize(("parts", "status"), ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_before_a_body_is_refused_while_it_is_sent(
    running: Callable[..., Any], parts: list[bytes], status: int
) -> None:
    with running() as service:
        assert service.status(*parts) in (status, None)  # None: reset, as it still sends
        while service.open_connections:
            time.sleep(0.01)
        assert service.status(REQUEST) == 200
        assert service.requests <= 2


def test_what_ordinary_callers_send_is_answered(running: Callable[..., Any]) -> None:
    """The control: large cookies, long URLs, small chunks, requests sent ahead."""
    cookies = b"".join(b"Cookie-%d: %s\r\n" % (n, b"c" * 500) for n in range(60))
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(50_000)) + b"0\r\nX-Trailer: y\r\n\r\n"
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    with running() as service:
        assert service.status(b"GET / HTTP/1.1\r\nHost: x\r\n" + cookies + b"\r\n") == 200
        assert service.status(b"GET /?q=" + b"q" * 7_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 200
        assert service.status(chunked) == 200
        assert service.status(b"\r\n\r\n" + REQUEST) == 200
        with service.connect() as connection:
            connection.sendall(REQUEST * 10)
            answer = b""
            while answer.count(b"200 OK") < 10:
                answer += connection.recv(10_000)
            connection.sendall(REQUEST)
            assert b"200 OK" in connection.recv(10_000)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTTP/1.1\r\nHos",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
        REQUEST + b"GET / HTTP/1.1\r\nHos",
    ],
    ids=repr,
)
def test_a_request_that_stalls_is_given_up(running: Callable[..., Any], start: bytes) -> None:
    with running(read_seconds=0.3) as service, service.connect() as connection:
        connection.sendall(start)
        answer = b""
        while more := connection.recv(1_000):
            answer += more
        assert b"408 Request Timeout" in answer
        assert service.open_connections == 0


def test_a_body_that_comes_slowly_but_in_time_is_answered(running: Callable[..., Any]) -> None:
    with running(read_seconds=20.0) as service:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
        with service.connect() as connection:
            for part in (head[:20], head[20:], b"ab", b"cde"):
                connection.sendall(part)
                time.sleep(0.1)
            assert b"200 OK" in connection.recv(1_000)
            time.sleep(0.2)  # it is kept, and may be used again
            connection.sendall(REQUEST)
            assert b"200 OK" in connection.recv(1_000)


def test_a_full_house_closes_those_who_never_asked_and_answers_the_next(
    running: Callable[..., Any],
) -> None:
    with running(connections=20) as service:
        kept = service.connect()
        kept.sendall(REQUEST)
        assert b"200 OK" in kept.recv(1_000)
        half = [service.connect() for _ in range(60)]
        for caller in half:
            with suppress(OSError):
                caller.sendall(b"GET / HTTP/1.1\r\nHos")
        assert service.status(REQUEST) == 200
        assert service.open_connections <= 20
        kept.sendall(REQUEST)  # whoever was answered before is not the one to go
        assert b"200 OK" in kept.recv(1_000)
        for caller in (*half, kept):
            caller.close()


def test_an_answer_that_is_not_taken_is_given_up(running: Callable[..., Any]) -> None:
    with running(read_seconds=0.5, size=20_000_000) as service, service.connect() as connection:
        connection.sendall(REQUEST)
        while not service.requests:
            time.sleep(0.01)
        while service.open_connections:
            time.sleep(0.01)
        taken = 0
        with suppress(ConnectionResetError):
            while more := connection.recv(1 << 20):
                taken += len(more)
        assert taken < 20_000_000


def test_requests_sent_ahead_wait_unread_until_those_before_them_are_answered(
    running: Callable[..., Any],
) -> None:
    """Nobody is refused for them, and they take no memory, although each asks for its body."""
    count = 200
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Header: %s\r\n\r\n" % (b"a" * 20_000)
    with running() as service, service.connect() as connection:
        service.seconds = 0.001
        sender = threading.Thread(target=connection.sendall, args=(request * count,))
        sender.start()
        answers = b""
        while answers.count(b"200 OK") < count:
            more = connection.recv(1 << 20)
            assert more, "the connection was closed"
            answers += more
        sender.join()
        assert service.requests == count
        assert service.most_ahead <= 64
        assert 0 < service.most_held <= 600_000


def test_requests_in_one_piece_are_bounded(running: Callable[..., Any]) -> None:
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + bytes(2_000)
    with running() as service, service.connect() as connection:
        with suppress(OSError):
            connection.sendall(body + REQUEST * 5_000)
            while connection.recv(1 << 20):
                pass
        while service.open_connections:
            time.sleep(0.01)
        assert service.requests <= 64


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"], ids=repr)
def test_a_connection_that_is_kept_and_not_used_is_closed(
    module: Module, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Empty lines do not use it."""
    parts = module("serving.server")
    assert parts.KEEP_ALIVE_SECONDS > 60, "a load balancer closes first"
    monkeypatch.setattr(parts, "KEEP_ALIVE_SECONDS", 0.5)
    api = SimpleNamespace(settings=module("config.delivery").Service(), draining=False)
    server = parts.DrainingServer(FastAPI(), api)
    assert server.config.timeout_keep_alive == parts.KEEP_ALIVE_SECONDS
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), timeout=30) as connection:
            for _ in range(2):  # it is kept
                connection.sendall(REQUEST)
                assert b"404 Not Found" in connection.recv(1_000)
            connection.sendall(sent)
            assert connection.recv(1_000) == b""
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_a_caller_who_leaves_before_its_answers_is_no_error(
    running: Callable[..., Any], ahead: int
) -> None:
    """Else each such request writes a traceback: a log of a gigabyte in minutes."""
    errors: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    handler = Kept(logging.ERROR)
    with running() as service:
        logging.getLogger("uvicorn.error").addHandler(handler)  # uvicorn removes what was before
        service.answers.clear()
        with service.connect() as connection, suppress(OSError):
            connection.sendall(REQUEST * ahead)
            while not service.requests:
                time.sleep(0.01)
        while service.open_connections:
            time.sleep(0.01)
        time.sleep(0.1)  # until the transport is closed, which says nothing of it
        service.answers.set()
        while service.server.server_state.tasks:
            time.sleep(0.01)
        assert service.status(REQUEST) == 200
        logging.getLogger("uvicorn.error").removeHandler(handler)
    assert errors == []


UPGRADE = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nUpgrade: %s\r\nHTTP2-Settings: AA\r\n"
SIZED = b"Content-Length: 5\r\n\r\nabcde"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"


@pytest.mark.parametrize("body", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("pause", [0, 10, 105, 120], ids=lambda place: f"a pause at {place}")
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_whoever_offers_another_protocol_is_answered_in_this_one(
    running: Callable[..., Any], protocol: bytes, pause: int, body: bytes
) -> None:
    """As Java's client does with each request; its body is that of the request."""
    request = UPGRADE % (b"Upgrade, HTTP2-Settings", protocol) + body
    with running() as service, service.connect() as connection:
        for expected in (1, 2):
            connection.sendall(request[:pause])
            time.sleep(0.05 if pause else 0)
            connection.sendall(request[pause:])
            assert b"200 OK" in connection.recv(1_000)
            assert service.bodies == [b"abcde"] * expected
        connection.sendall(request * 3 + REQUEST)
        answer = b""
        while answer.count(b"200 OK") < 4:
            answer += connection.recv(1_000)
        assert service.bodies == [*[b"abcde"] * 5, b""]
        connection.sendall(UPGRADE % (b"close, Upgrade", protocol) + body)
        assert b"connection: close" in connection.recv(1_000)
    with running() as service:
        assert service.status(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n") == 400
        assert service.status(REQUEST) == 200


def test_a_process_that_may_open_few_files_has_fewer_connections(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = module("serving.connections")
    limits_set = []
    settings = module("config.delivery").Service()
    for soft, hard, expected in ((128, 128, 64), (256, 1_024, 896), (1_024, 1_048_576, 1_000)):
        monkeypatch.setattr(parts.resource, "getrlimit", lambda _, n=(soft, hard): n)
        monkeypatch.setattr(
            parts.resource, "setrlimit", lambda _, limits: limits_set.append(limits)
        )
        assert parts.limits_of(settings).connections == expected
    assert limits_set == [(128, 128), (1_024, 1_024), (1_128, 1_048_576)]


def test_a_machine_without_ipv6_is_listened_to_by_ipv4(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = module("listening")
    create = socket.create_server

    def without_ipv6(address: Any, **options: Any) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(address, **options)

    monkeypatch.setattr(parts.socket, "create_server", without_ipv6)
    with parts.listening_socket("::", 0, 5) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(OSError, match="not supported"):
        parts.listening_socket("::1", 0, 5)
