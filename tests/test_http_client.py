"""The HTTP client keeps its bounds, and a token goes nowhere but where it belongs."""

from __future__ import annotations

import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest
import stamina

Module = Callable[[str], ModuleType]
Handle = Callable[[BaseHTTPRequestHandler], None]
TOKEN = {"JOB-TOKEN": "secret"}


class Server(ThreadingHTTPServer):
    """A server that answers as a test says, and remembers what it was sent."""

    daemon_threads = True

    def __init__(self, handle: Handle) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((self.command, self.path, headers, body))
                handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(handle: Handle) -> Iterator[Server]:
    server = Server(handle)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def send(
    handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"{}", **headers: str
) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def http(module: Module) -> Any:
    return module("http_client")


@pytest.fixture
def client(http: Any) -> Iterator[Any]:
    """A client that does not wait between attempts."""
    with stamina.set_testing(True, attempts=4, cap=True):
        yield http.Client()


def unused_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_response_has_status_headers_and_body_whatever_the_status(client: Any) -> None:
    with serving(lambda handler: send(handler, 404, b'{"message": "no"}', X_Way="b")) as server:
        response = client.request("GET", f"{server.url}/a?b=1", credentials=TOKEN)
    assert (response.status, response.json()) == (404, {"message": "no"})
    assert response.headers["x-way"] == "b"
    (method, path, headers, _) = server.requests[0]
    assert (method, path, headers["job-token"]) == ("GET", "/a?b=1", "secret")
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(client: Any, status: int) -> None:
    statuses = [status, status, 200]
    with serving(lambda handler: send(handler, statuses.pop(0))) as server:
        assert client.request("GET", server.url).status == 200
    assert len(server.requests) == 3


def test_one_that_stays_busy_is_believed_in_the_end(client: Any) -> None:
    with serving(lambda handler: send(handler, 503)) as server:
        assert client.request("PUT", server.url, body=b"x").status == 503
    assert [body for *_, body in server.requests] == [b"x"] * 4


@pytest.mark.parametrize(("status", "times"), [(429, 4), (500, 1), (503, 1), (400, 1)])
def test_what_may_have_been_done_is_not_asked_for_twice(
    client: Any, status: int, times: int
) -> None:
    with serving(lambda handler: send(handler, status)) as server:
        assert client.request("POST", server.url, body=b"{}").status == status
    assert len(server.requests) == times


def test_a_broken_connection_is_tried_again_only_if_that_does_no_harm(
    http: Any, client: Any
) -> None:
    with serving(lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)) as server:
        with pytest.raises(http.NoResponse):
            client.request("POST", server.url, body=b"{}")
        assert len(server.requests) == 1
        with pytest.raises(http.NoResponse):
            client.request("GET", server.url)
        assert len(server.requests) == 5


def test_without_a_connection_nothing_was_sent(
    http: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    pause = http.Retries.pause

    def count(*args: Any) -> Any:
        errors.append(args[1])
        return pause(*args)

    monkeypatch.setattr(http.Retries, "pause", count)
    with pytest.raises(http.NotConnected, match="refused"):
        client.request("POST", unused_url(), body=b"{}")
    assert len(errors) == 4


def test_a_server_says_when_to_come_back(http: Any) -> None:
    """With its real pauses: what the server asks for replaces what was configured."""
    statuses = [503, 200]
    client = http.Client(retries=http.Retries(wait_initial_s=30, wait_max_s=30))
    with serving(lambda handler: send(handler, statuses.pop(0), Retry_After="1")) as server:
        start = time.monotonic()
        assert client.request("GET", server.url).status == 200
    assert 1 <= time.monotonic() - start < 10


def test_one_that_asks_for_too_long_a_pause_is_not_waited_for(client: Any) -> None:
    with serving(lambda handler: send(handler, 429, Retry_After="86400")) as server:
        assert client.request("GET", server.url).retry_after() == 86_400
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [("7", 7, 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("soon", None, None), ("", None, None)],
)
def test_retry_after_is_seconds_or_a_date(
    http: Any, value: str, low: float | None, high: float | None
) -> None:
    response = http.Response(503, "", {"Retry-After": value}, b"", "http://x/")
    seconds = response.retry_after()
    assert seconds == low == high or low <= seconds <= high


def test_a_token_does_not_follow_a_redirect_to_another_origin(client: Any) -> None:
    with serving(lambda handler: send(handler, body=b'"there"')) as other:
        elsewhere = f"{other.url}/file".replace("127.0.0.1", "localhost")
        with serving(lambda handler: send(handler, 302, Location=elsewhere)) as server:
            response = client.request("GET", server.url, credentials=TOKEN, redirects="any origin")
            assert response.json() == "there"
            assert response.url == elsewhere
            stays = client.request("GET", server.url, credentials=TOKEN, redirects="same origin")
            assert stays.status == 302
        assert [path for _, path, *_ in other.requests] == ["/file"]
        assert "job-token" not in other.requests[0][2]


def test_it_comes_back_with_the_redirect_that_leads_home(client: Any) -> None:
    def handle(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/a":
            send(handler, 307, Location="/b")
        else:
            send(handler)

    with serving(handle) as server:
        client.request("GET", f"{server.url}/a", credentials=TOKEN, redirects="same origin")
    assert [headers.get("job-token") for _, _, headers, _ in server.requests] == ["secret"] * 2


@pytest.mark.parametrize(
    "sends", [{"credentials": TOKEN}, {"is_secret": True, "body": b"secret", "method": "POST"}]
)
def test_credentials_are_sent_encrypted_or_within_this_machine(
    http: Any, client: Any, monkeypatch: pytest.MonkeyPatch, sends: dict[str, Any]
) -> None:
    named = "git.test"
    resolve = socket.getaddrinfo

    def own(host: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == named else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", own)
    method = sends.get("method", "GET")
    rest = {key: value for key, value in sends.items() if key != "method"}
    with serving(lambda handler: send(handler)) as server:
        elsewhere = server.url.replace("127.0.0.1", named)
        for others in ("", "other.test", "test", "127.0.0.1,git.test.other"):
            monkeypatch.setenv("ML_PLAIN_HTTP", others)
            with pytest.raises(
                http.Unencrypted, match=r"use https://git\.test, or set ML_PLAIN_HTTP"
            ):
                client.request(method, elsewhere, **rest)
        assert server.requests == []
        assert client.request(method, elsewhere).status == 200
        assert client.request(method, server.url, **rest).status == 200
        monkeypatch.setenv("ML_PLAIN_HTTP", f"other.test,{named}")
        assert client.request(method, elsewhere, **rest).status == 200
    http.require_encryption("https://anywhere.test")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_redirects_are_followed_where_asked_for_and_never_for_writing(
    client: Any, method: str
) -> None:
    redirects = "none" if method == "GET" else "any origin"
    with serving(lambda handler: send(handler, 302, Location="/b")) as server:
        assert client.request(method, server.url, redirects=redirects).status == 302
    assert len(server.requests) == 1


def test_redirects_end(http: Any, client: Any) -> None:
    with (
        serving(lambda handler: send(handler, 302, Location="/")) as server,
        pytest.raises(http.NoResponse, match="without an end"),
    ):
        client.request("GET", server.url, redirects="any origin")


def test_encryption_is_not_given_up_on_the_way(http: Any) -> None:
    response = http.Response(302, "", {"Location": "http://x.example/"}, b"", "https://x.example/")
    assert http.redirect_target(response) is None


def test_a_response_that_is_too_long_is_not_read(http: Any, client: Any) -> None:
    limits = http.Limits(max_bytes=1_000)
    with serving(lambda handler: send(handler, body=b"x" * 1_001)) as server:
        with pytest.raises(http.ResponseTooLarge, match="1000 bytes"):
            client.request("GET", server.url, limits=limits)
        assert client.request("GET", server.url).body == b"x" * 1_001


def test_that_of_a_refusal_is_cut(http: Any, client: Any) -> None:
    limits = http.Limits(max_error_bytes=10)
    with serving(lambda handler: send(handler, 404, b"x" * 100_000)) as server:
        assert client.request("GET", server.url, limits=limits).body == b"x" * 10


def test_content_goes_to_a_file_and_a_refusal_does_not(client: Any) -> None:
    statuses = [503, 200, 404]
    file = io.BytesIO()
    with serving(lambda handler: send(handler, statuses.pop(0), b"12345")) as server:
        assert client.request("GET", server.url, to=file).body == b""
        assert file.getvalue() == b"12345"
        assert client.request("GET", server.url, to=file).body == b"12345"


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_drips_is_not_waited_for(http: Any, client: Any, part: str) -> None:
    """A socket's own timeout begins anew with each byte."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        start = b"HTTP/1.1 200 OK\r\n"
        if part == "body":
            start += b"Content-Length: 100000\r\n\r\n"
        handler.wfile.write(start)
        for _ in range(100):
            handler.wfile.write(b"X")
            handler.wfile.flush()
            time.sleep(0.05)

    limits = http.Limits(response_s=0.3)
    with serving(drip) as server:
        start = time.monotonic()
        with pytest.raises(http.TimedOut):
            client.request("POST", server.url, limits=limits)
        assert time.monotonic() - start < 2


def test_a_slow_response_is_waited_for_while_it_arrives(http: Any, client: Any) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "80000")
        handler.end_headers()
        for _ in range(8):
            handler.wfile.write(b"X" * 10_000)
            time.sleep(0.05)

    limits = http.Limits(response_s=0.3, bytes_per_s=100_000)
    with serving(slow) as server:
        assert len(client.request("GET", server.url, limits=limits).body) == 80_000


def test_nothing_in_this_machine_goes_through_a_proxy(
    http: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, unused_url())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda handler: send(handler)) as server:
        assert client.request("GET", server.url).status == 200
    with serving(lambda handler: send(handler, 418)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert http.Client().request("GET", "http://example.invalid/x").status == 418
        assert proxy.requests[0][1] == "http://example.invalid/x"
        with pytest.raises(http.NotConnected):
            http.Client(use_proxies=False, retries=http.NO_RETRIES).request(
                "GET", "http://example.invalid/x"
            )


def test_a_token_that_cannot_be_sent_is_not_printed(client: Any) -> None:
    with (
        serving(lambda handler: send(handler)) as server,
        pytest.raises(ValueError, match="cannot be sent") as error,
    ):
        client.request("GET", server.url, credentials={"JOB-TOKEN": "hidden\nhidden"})
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("url", ["", "x", "ftp://x/", "http://", "http://x:port/", "file:///etc"])
def test_an_address_that_is_none_is_an_error_of_the_caller(client: Any, url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        client.request("GET", url)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("x", False)],
)
def test_this_machine_is_known_without_a_name_server(
    http: Any, host: str, is_loopback: bool
) -> None:
    assert http.is_loopback(host) is is_loopback


def test_the_next_page_is_in_the_header_link(http: Any) -> None:
    headers = {"Link": '<https://x.example/?page=2>; rel="next", </?page=9>; rel="last"'}
    response = http.Response(200, "", headers, b"", "https://x.example/")
    assert response.link("next") == "https://x.example/?page=2"
    assert response.link("prev") is None


def test_json_of_a_service_is_decoded_and_text_is_not(http: Any) -> None:
    def handle(handler: BaseHTTPRequestHandler) -> None:
        content_type = "application/json" if handler.command == "POST" else "text/plain"
        send(handler, 422, b"[1]", Content_Type=content_type)

    with serving(handle) as server:
        assert http.http_json(server.url) == (422, "[1]")
        assert http.http_json(server.url, {"rows": []}) == (422, [1])
    assert server.requests[1][3] == b'{"rows": []}'
    assert server.requests[1][2]["connection"] == "close"


def test_a_service_that_is_starting_again_is_asked_again(http: Any) -> None:
    """A prediction changes nothing, so that POST is repeatable, too."""
    attempts = iter([False, False, True])

    def handle(handler: BaseHTTPRequestHandler) -> None:
        if next(attempts):
            send(handler, Content_Type="application/json")
        else:
            handler.connection.shutdown(socket.SHUT_RDWR)

    with serving(handle) as server, stamina.set_testing(True, attempts=3):
        assert http.http_json(server.url, {"rows": []}) == (200, {})


def test_a_service_that_is_not_ready_says_so_at_once(http: Any) -> None:
    with serving(lambda handler: send(handler, 503)) as server:
        assert http.http_json(server.url)[0] == 503
    assert len(server.requests) == 1


def test_a_late_attempt_does_not_write_into_the_file_of_the_next(http: Any, client: Any) -> None:
    """Each chunk allows more time, so that an abandoned attempt could go on writing."""
    attempts = [0.0, 0.0]
    late = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        attempts.pop()
        if not attempts:
            send(handler, body=b"B" * 10)
            return
        time.sleep(0.4)
        handler.send_response(200)
        handler.send_header("Content-Length", "60000")
        handler.end_headers()
        handler.wfile.flush()
        time.sleep(0.4)
        handler.wfile.write(b"A" * 60_000)
        late.set()

    file = io.BytesIO()
    with serving(answer) as server:
        limits = http.Limits(response_s=0.5)
        assert client.request("GET", server.url, limits=limits, to=file).status == 200
        assert late.wait(5)
        time.sleep(0.1)
    assert file.getvalue() == b"B" * 10


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_socks_proxy_of_the_environment_is_used_or_named(
    http: Any, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", unused_url().replace("http", "socks5h"))
    if not is_installed:
        monkeypatch.setitem(sys.modules, "socksio", None)
    error, words = (http.NotConnected, None) if is_installed else (ValueError, "install socksio")
    with pytest.raises(error, match=words):
        http.Client(retries=http.NO_RETRIES).request("GET", "http://example.invalid/x")
