"""Connections: how much a caller may send, how long that may take, and how many there may be.

uvicorn bounds none of it. A connection that is refused here has cost a few kilobytes, and no code
of a route has run. `tests/test_server.py` names the parts of uvicorn that this needs.
"""

import asyncio
import resource
from collections import Counter, deque
from http import HTTPStatus
from typing import Any, NamedTuple

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ..config.delivery import Service

MAX_HEAD_BYTES = 65_536  # of the request line and headers together, and of trailers
MAX_TARGET_BYTES = 8_192  # of the URL in the request line
MAX_HEADERS = 128
UNSPLIT_BYTES = 1_024  # that are parsed at once, as most requests are
# Of more, bytes that are parsed at once. What follows a request that waits for others is left
# unparsed, unless it is in the same piece.
PIECE_BYTES = 256
BODY_PIECE_BYTES = 8_192  # in the middle of a body
MAX_PIPELINED = 64  # requests in one piece
MAX_HELD_BYTES = 65_536  # beyond which nothing is read, and so not noticed whether the caller goes
MAX_DISCARDED_BYTES = 16_000_000  # of a body that was refused, read so that the caller sees why
UPGRADE_HEADERS = (b"upgrade", b"http2-settings")
KEPT_TOKENS = (b"close", b"keep-alive")  # of the header Connection
SPARE_FILES = 128  # open files besides connections: log, libraries, model
EVICTED_SHARE = 20  # 1/20 of all connections is closed at once, so that this is rare


class Limits(NamedTuple):
    """The bounds of all connections together, and of each."""

    connections: int
    read_seconds: float  # until a request has arrived, or an answer has been taken


def limits_of(settings: Service) -> Limits:
    """Return the limits of the settings, with as many connections as the process may open files."""
    wanted = settings.max_connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    possible = wanted if soft == resource.RLIM_INFINITY else soft
    spare = min(SPARE_FILES, possible // 2)
    return Limits(min(settings.max_connections, possible - spare), settings.read_seconds)


class Refusal(Exception):
    """A request that is refused while it is being read."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HttpOnlyParser:
    """The parser of httptools, for a server that changes to no other protocol.

    httptools takes what follows `Upgrade` for that protocol, and drops it. But a server may ignore
    the header, and whoever sends it expects that: Java's client offers HTTP/2 with each request. So
    such a request is parsed once more, without it.
    """

    def __init__(self, protocol: "BoundedConnection") -> None:
        self._protocol = protocol
        self._use_new_parser()

    def feed_data(self, data: bytes) -> None:
        """Parse data.

        Raises:
            httptools.HttpParserError: It is not HTTP.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._protocol.head_without_upgrade() + data[upgrade.args[0] :]
                self._use_new_parser()
            else:
                return

    def _use_new_parser(self) -> None:
        parser = httptools.HttpRequestParser(self._protocol)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._parser = parser
        # What is asked for with each request.
        self.get_http_version = parser.get_http_version
        self.get_method = parser.get_method
        self.should_keep_alive = parser.should_keep_alive
        self.should_upgrade = parser.should_upgrade


class Flow(FlowControl):
    """uvicorn's flow control, which reads nothing more while many bytes are held back.

    uvicorn itself reads on whenever a request asks for its body.
    """

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class BoundedConnection(HttpToolsProtocol):
    """A connection of uvicorn, with bounds.

    Attributes:
        waiting_since: When it was opened, or its last request was answered, in seconds of the loop.
        answered: Whether a request of it was answered.
        unparsed_bytes: Of a head, of trailers, or between two requests, in several reads.
        unanswered: The requests that wait for an answer, in order; uvicorn's `cycle` is the last.
        held: What was sent ahead, to be parsed once the requests before it are answered.
    """

    flow: Flow

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parser = HttpOnlyParser(self)  # type: ignore[assignment]
        self.is_parsed_again = False  # the present request
        self.limits = limits
        self.waiting_since = self.loop.time()
        self.answered = False
        self.refusal: Refusal | None = None
        self.has_progress = False
        self.unanswered: deque[RequestResponseCycle] = deque()
        self.held = b""
        self.is_in_body = False
        self.unparsed_bytes = 0
        self.head_bytes = 0
        self.discarded_bytes = 0
        self.read_deadline: asyncio.TimerHandle | None = None
        self.write_deadline: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the caller has to send something, rather than the service."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._expect_request()
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_arrived()
        self.resume_writing()
        self._forget_caller()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parse what was held back and more data, up to a request that has to wait for others.

        So whoever sends thousands of requests ahead is held up, and not refused: it would come
        back at once, and be served better than those who wait for their answers.
        """
        data = self.held + data
        size = UNSPLIT_BYTES if len(data) <= UNSPLIT_BYTES else PIECE_BYTES
        start = 0
        while start < len(data) and not self.pipeline and not self.transport.is_closing():
            end = start + (BODY_PIECE_BYTES if self.is_in_body else size)
            self._parse_piece(data[start:end])
            start = end
        self.held = b"" if self.transport.is_closing() else data[start:]
        self.flow.is_held = len(self.held) > MAX_HELD_BYTES
        if self.flow.is_held:
            self.flow.pause_reading()
        self._expire_if_idle()

    def _parse_piece(self, piece: bytes) -> None:
        self.has_progress = False
        super().data_received(piece)
        self.unparsed_bytes = 0 if self.has_progress else self.unparsed_bytes + len(piece)
        if self.unparsed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _expire_if_idle(self) -> None:
        """Start the time of a kept connection again, if what came has begun no request.

        uvicorn ends it with the first byte, and an empty line would keep the connection for ever.
        """
        is_timed = self.timeout_keep_alive_task or self.read_deadline
        if self.is_waiting and not is_timed and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed, or raised `Refusal` in a method below."""
        self._refuse(self.refusal.status if self.refusal else HTTPStatus.BAD_REQUEST)

    # What the parser calls. An exception becomes `send_400_response`.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.is_parsed_again = False
        self.has_progress = True
        self.head_bytes = 0
        self.header_count = 0
        if self.read_deadline is None:
            self._expect_request()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._raise(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_bytes += len(name) + len(value)
        self.header_count += 1
        if self.head_bytes > MAX_HEAD_BYTES or self.header_count > MAX_HEADERS:
            self._raise(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.has_progress = True
        if self.parser.get_method() == b"CONNECT":
            self._raise(HTTPStatus.BAD_REQUEST)
        self.is_parsed_again = self.parser.should_upgrade()
        if self.is_parsed_again:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            self._raise(HTTPStatus.TOO_MANY_REQUESTS)
        super().on_headers_complete()
        self.unanswered.append(self.cycle)

    def on_chunk_header(self) -> None:
        self.has_progress = True

    def on_body(self, body: bytes) -> None:
        self.has_progress = True
        self.is_in_body = True
        if self.cycle.response_complete:
            self.discarded_bytes += len(body)
            if self.discarded_bytes > MAX_DISCARDED_BYTES:
                self._raise(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.has_progress = True
        self.is_in_body = False
        if self.is_parsed_again:
            return
        self._request_arrived()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.answered = True
        if self.unanswered:
            self.unanswered.popleft()
        self.waiting_since = self.loop.time()
        super().on_response_complete()
        if self.held and not self.transport.is_closing():
            self._parse(b"")
            if not self.pipeline:
                self.flow.resume_reading()

    def head_without_upgrade(self) -> bytes:
        """Return the head of the present request as if it did not ask for another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.lower().split(b",")]
                value = b", ".join(token for token in tokens if token in KEPT_TOKENS)
            if value and name not in UPGRADE_HEADERS:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    # What the transport calls.

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.write_deadline is None:
            seconds = self.limits.read_seconds
            self.write_deadline = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.write_deadline is not None:
            self.write_deadline.cancel()
            self.write_deadline = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that sends no other request, even if its last answer is not taken."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _expect_request(self) -> None:
        self.read_deadline = self.loop.call_later(self.limits.read_seconds, self._give_up)

    def _request_arrived(self) -> None:
        if self.read_deadline is not None:
            self.read_deadline.cancel()
            self.read_deadline = None

    def _give_up(self) -> None:
        self.read_deadline = None
        if self.pipeline:  # it is we who do not read on, until the requests before are answered
            self._expect_request()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _raise(self, status: HTTPStatus) -> None:
        self.refusal = Refusal(status)
        raise self.refusal

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with a status, unless an answer is under way, and close the connection."""
        if self.transport.is_closing():
            return
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering or not self.cycle.response_started:
            body = status.phrase.encode()
            head = [
                f"HTTP/1.1 {status.value} {status.phrase}",
                "content-type: text/plain; charset=utf-8",
                f"content-length: {len(body)}",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self._forget_caller()
        self.transport.close()

    def _forget_caller(self) -> None:
        """Have nothing more sent, whichever request is being answered.

        uvicorn does so for the last one only, and logs an error for each of those before it.
        """
        for cycle in self.unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _make_room(self) -> None:
        """Close connections that wait for their caller, of the caller that has most of them.

        Those that never had a request answered go first, and then those that wait longest.
        """
        others = [other for other in self.connections if isinstance(other, BoundedConnection)]
        waiting = [other for other in others if other is not self and other.is_waiting]
        if not waiting:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        (address, _), *_ = Counter(other.address for other in waiting).most_common(1)
        of_one = [other for other in waiting if other.address == address]
        of_one.sort(key=lambda other: (other.answered, other.waiting_since))
        for victim in of_one[: max(1, self.limits.connections // EVICTED_SHARE)]:
            self.connections.discard(victim)
            victim.transport.abort()
