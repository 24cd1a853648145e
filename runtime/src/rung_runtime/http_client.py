"""HTTP: the one client of the runtime, for CI platforms, registries and services.

Each server decides what it sends, so everything has a bound: bytes, seconds, redirects, attempts.

    NoResponse             an OSError; what was sent may have arrived
    ├── NotConnected       nothing was sent, so that sending it again is safe
    └── TimedOut           no response in time
    ResponseTooLarge       a ValueError
    Unencrypted            a ValueError: credentials would travel in clear

Importing this module takes 0.4 s of processor time, most of it HTTPX: import it in the function
that sends a request. A service image does not have HTTPX, and does not need it.

Example:
    >>> client = Client()
    >>> response = client.request("GET", "https://example.com/api", credentials={"JOB-TOKEN": "…"})
    >>> response.status, response.json()
"""

import ipaddress
import json
import os
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Literal, TypeVar
from urllib.parse import urljoin, urlsplit

import certifi
import httpx
import stamina
from stamina.instrumentation import set_on_retry_hooks

T = TypeVar("T")
Redirects = Literal["none", "same origin", "any origin"]
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # those that change nothing
REPEATABLE_METHODS = (*SAFE_METHODS, "PUT", "DELETE")
CHUNK_BYTES = 2**16

# A retry is not worth a line in a log: if none helps, the last error is the message.
set_on_retry_hooks([])


class NoResponse(OSError):
    """No response arrived; the message is the reason."""


class NotConnected(NoResponse):
    """There is no connection: nothing was sent."""


class TimedOut(NoResponse):
    """No response arrived in time: what was sent may have arrived."""


class ResponseTooLarge(ValueError):
    """The response has more bytes than are read."""


class Unencrypted(ValueError):
    """Credentials would be sent for anybody on the way to read."""


@dataclass(frozen=True)
class Limits:
    """The bounds of one request and its response.

    Attributes:
        connect_s: Seconds until there is a connection.
        response_s: Seconds for all of the response; more as it arrives, see `bytes_per_s`.
        bytes_per_s: The slowest line that is waited for.
        max_bytes: The longest response; ResponseTooLarge if it is longer.
        max_error_bytes: Where a response of status 300 or more is cut off; None: as `max_bytes`.
    """

    connect_s: float = 5.0
    response_s: float = 10.0
    bytes_per_s: float = 100_000.0
    max_bytes: int = 64 * 2**20
    max_error_bytes: int | None = None


@dataclass(frozen=True)
class Retries:
    """When to send a request again, and after which pause.

    A request that is not repeatable, such as POST, is sent again only if it was not carried out:
    there was no connection, or the server answered 429.

    Attributes:
        attempts: How often it is sent at most.
        wait_initial_s: The first pause; each one is twice as long as the previous one.
        wait_max_s: The longest pause that this client chooses.
        wait_jitter_s: Up to this much is added at random, so that many clients do not come at once.
        max_retry_after_s: The longest pause that a server may choose by the header Retry-After; if
            it asks for more, its response is returned.
        total_s: No attempt begins later than this; None: without a limit.
        statuses: Those that count as busy.
    """

    attempts: int = 4
    wait_initial_s: float = 0.5
    wait_max_s: float = 5.0
    wait_jitter_s: float = 0.5
    max_retry_after_s: float = 40.0
    total_s: float | None = 40.0
    statuses: tuple[int, ...] = (429, 500, 502, 503, 504)

    def pause(self, error: Exception, is_repeatable: bool) -> float | bool:
        """Return the seconds that a server asks for; True: as configured; False: do not retry."""
        if isinstance(error, _Busy):
            if not is_repeatable and error.response.status != 429:
                return False
            seconds = error.response.retry_after()
            if seconds is None:
                return True
            return float(seconds) if seconds <= self.max_retry_after_s else False
        if isinstance(error, NotConnected):
            return True
        return isinstance(error, NoResponse) and is_repeatable


NO_RETRIES = Retries(attempts=1)


@dataclass(frozen=True)
class Response:
    """A response that was read to its end, whatever its status.

    Attributes:
        headers: Their names are found in any case.
        body: Empty if it was written to a file.
        url: Where it came from, after redirects.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            ValueError: It is not JSON, or nested too deeply.
        """
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("its response is nested too deeply") from None

    def retry_after(self) -> float | None:
        """Return the seconds to wait, if the server says how many."""
        value = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, IndexError, TypeError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())

    def link(self, relation: str) -> str | None:
        """Return the address of a relation, such as `next`, in the header Link (RFC 8288)."""
        header = {"Link": self.headers.get("Link", "")}
        return httpx.Response(200, headers=header).links.get(relation, {}).get("url")


class _Busy(Exception):
    """A server is busy; kept until it is known whether the request is sent again."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass
class Client:
    """A client with its connections.

    Within this machine nothing goes through a proxy, and nothing is taken from ~/.netrc.

    Attributes:
        limits: Of each request that has none of its own.
        retries: The same.
        use_proxies: Whether HTTP_PROXY and the like count.
        keep_alive: Whether connections are kept for the next request. A service that ends waits for
            those that are open.
    """

    limits: Limits = field(default_factory=Limits)
    retries: Retries = field(default_factory=Retries)
    use_proxies: bool = True
    keep_alive: bool = True
    _sessions: dict[tuple[bool, bool], httpx.Client] = field(default_factory=dict, repr=False)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        is_secret: bool = False,
        redirects: Redirects = "none",
        limits: Limits | None = None,
        retries: Retries | None = None,
        is_repeatable: bool | None = None,
        to: BinaryIO | None = None,
    ) -> Response:
        """Send a request, follow its redirects, and send it again where that is safe and may help.

        Args:
            credentials: Headers that prove who is asking. They are sent to the origin of `url`
                only, wherever a redirect leads, and encrypted only.
            is_secret: Whether the body has credentials, too.
            redirects: Which ones to follow, for GET and HEAD; never from https to http. The
                response to one that is not followed is returned.
            is_repeatable: Whether sending it twice does no harm; by default its method decides.
            to: A file for the content of a response with a status below 300.

        Returns:
            The response, whatever its status.

        Raises:
            NoResponse: There is none.
            Unencrypted: Credentials would travel in clear; nothing was sent.
            ValueError: The address or a header is malformed, or the response is too large.
            OSError: `to` cannot be written to.
        """
        if credentials or is_secret:
            require_encryption(url)
        policy = retries or self.retries
        if is_repeatable is None:
            is_repeatable = method in REPEATABLE_METHODS

        def pause(error: Exception) -> float | bool:
            return policy.pause(error, is_repeatable)

        attempts = stamina.retry_context(
            on=pause,
            attempts=policy.attempts,
            timeout=policy.total_s,
            wait_initial=policy.wait_initial_s,
            wait_max=policy.wait_max_s,
            wait_jitter=policy.wait_jitter_s,
        )
        try:
            for attempt in attempts:
                with attempt:
                    response = self._follow(
                        method, url, body, headers or {}, credentials or {}, redirects, limits, to
                    )
                    if response.status in policy.statuses:
                        raise _Busy(response)
                    return response
        except _Busy as busy:
            return busy.response
        raise AssertionError("stamina makes at least one attempt")

    def _follow(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        credentials: Mapping[str, str],
        redirects: Redirects,
        limits: Limits | None,
        to: BinaryIO | None,
    ) -> Response:
        home = origin(url)
        response = self.exchange(
            method, url, body=body, headers={**headers, **credentials}, limits=limits, to=to
        )
        for _ in range(MAX_REDIRECTS):
            target = redirect_target(response)
            if target is None or method not in ("GET", "HEAD") or redirects == "none":
                return response
            is_home = origin(target) == home
            if not is_home and redirects == "same origin":
                return response
            sent = {**headers, **credentials} if is_home else headers
            response = self.exchange(method, target, headers=sent, limits=limits, to=to)
        if redirect_target(response) is not None:
            raise NoResponse("it redirects without an end")
        return response

    def exchange(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        to: BinaryIO | None = None,
    ) -> Response:
        """Send one request once, and read one response: without redirects and without retries.

        Raises:
            As `request`.
        """
        bounds = limits or self.limits
        key = self._session_key(url)
        start = monotonic()
        received = 0
        is_given_up = False  # a thread that nobody waits for any more must not write

        def remaining() -> float:
            # A server says how long its response is: what counts is how much has arrived.
            return start + bounds.response_s + received / bounds.bytes_per_s - monotonic()

        def read(response: httpx.Response) -> bytes:
            nonlocal received
            is_error = response.status_code >= 300
            cut_at = bounds.max_error_bytes if is_error else None
            content = BytesIO()
            out = content if is_error or to is None else to
            if is_given_up:
                raise TimedOut("it is not done in time")
            out.seek(0)
            out.truncate()
            for chunk in response.iter_bytes():
                received += len(chunk)
                if is_given_up or remaining() < 0:
                    raise TimedOut("it is not done in time")
                if cut_at is None and received > bounds.max_bytes:
                    raise ResponseTooLarge(f"its response has more than {bounds.max_bytes} bytes")
                out.write(chunk)
                if cut_at is not None and received >= cut_at:
                    break
            return content.getvalue()[:cut_at]

        def talk() -> Response:
            timeout = httpx.Timeout(
                bounds.response_s, connect=min(bounds.connect_s, bounds.response_s)
            )
            with self._session(key).stream(
                method, url, content=body, headers=headers, timeout=timeout
            ) as response:
                content = read(response)
            return Response(
                response.status_code, response.reason_phrase, response.headers, content, url
            )

        try:
            return _within(remaining, talk)
        except (TimedOut, ResponseTooLarge):
            is_given_up = True
            self._sessions.pop(key, None)  # the rest of the response is not read
            raise
        except httpx.ConnectTimeout:
            raise NotConnected(f"no connection within {bounds.connect_s:g} s") from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise NotConnected(_reason(error)) from None
        except httpx.TimeoutException:
            raise TimedOut(f"no response within {bounds.response_s:.3g} s") from None
        except ImportError:  # of HTTPX, from an environment without what its proxy needs
            raise ValueError("it is to be reached by a SOCKS proxy: install socksio") from None
        except httpx.LocalProtocolError:  # its message has the header, which may be a token
            raise ValueError("a header has characters that cannot be sent") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ValueError(str(error)) from None
        except httpx.DecodingError:
            raise ValueError("its response is not encoded as its headers say") from None
        except httpx.RequestError as error:
            raise NoResponse(_reason(error)) from None

    def _session_key(self, url: str) -> tuple[bool, bool]:
        scheme, host, _ = origin(url)
        return scheme == "https", self.use_proxies and not is_loopback(host)

    def _session(self, key: tuple[bool, bool]) -> httpx.Client:
        is_encrypted, use_proxies = key
        if key not in self._sessions:
            connections = httpx.Limits(max_keepalive_connections=None if self.keep_alive else 0)
            self._sessions[key] = httpx.Client(
                verify=_trusted() if is_encrypted or use_proxies else _trusts_nobody(),
                trust_env=use_proxies,
                limits=connections,
                headers={
                    "User-Agent": "rung",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    "Connection": "keep-alive" if self.keep_alive else "close",
                },
            )
        return self._sessions[key]


SERVICE = Client(
    # A service that was killed is back within seconds. Being busy is an answer to the deployer.
    retries=Retries(
        attempts=3,
        wait_initial_s=0.5,
        wait_max_s=0.5,
        wait_jitter_s=0.0,
        total_s=None,
        statuses=(),
    ),
    use_proxies=False,
    keep_alive=False,
)


def http_json(url: str, body: Any = None) -> tuple[int, Any]:
    """Send GET to a service, or POST if there is a body; return the status and decoded response.

    A broken connection is tried again, twice: no request to a service changes anything there.

    Args:
        url: The address, path included.
        body: What to send as JSON.

    Returns:
        The status, and the response: decoded if it is JSON, else its text.

    Raises:
        OSError: There was no response.
        ValueError: It is not what its headers say, or larger than 64 MiB.
    """
    response = SERVICE.request(
        "GET" if body is None else "POST",
        url,
        body=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        redirects="any origin",
        is_repeatable=True,
    )
    is_json = "json" in response.headers.get("Content-Type", "")
    return response.status, response.json() if is_json else response.body.decode()


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        ValueError: It is not an address of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url.partition('?')[0]} is not an address of http:// or https://")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname.lower(), port


def is_loopback(host: str) -> bool:
    """Check whether a host is this machine itself, whatever a name server says."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_encryption(url: str) -> None:
    """Check whether credentials may be sent to an address: with TLS, or within this machine.

    The environment variable ML_PLAIN_HTTP names hosts that get them without, separated by commas.

    Raises:
        Unencrypted: They may not.
        ValueError: It is not an address of HTTP.
    """
    scheme, host, _ = origin(url)
    trusted_hosts = os.environ.get("ML_PLAIN_HTTP", "").lower().split(",")
    if scheme == "https" or is_loopback(host) or host in trusted_hosts:
        return
    raise Unencrypted(
        f"tokens are sent encrypted only: use https://{host}, or set ML_PLAIN_HTTP to {host} "
        "if whoever can read its network may have them"
    )


def redirect_target(response: Response) -> str | None:
    """Return where a response redirects to; None if nowhere, or from https to http."""
    location = response.headers.get("Location", "")
    if response.status not in REDIRECTS or not location:
        return None
    try:
        target = urljoin(response.url, location)
        scheme = origin(target)[0]
    except ValueError:
        return None
    if scheme == "http" and origin(response.url)[0] == "https":
        return None
    return target.partition("#")[0]


@cache
def _trusted() -> ssl.SSLContext:
    """Return who is trusted: the bundle that the environment names, or the machine and certifi."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if bundle := os.environ.get(name):
            is_folder = Path(bundle).is_dir()
            return ssl.create_default_context(
                cafile=None if is_folder else bundle, capath=bundle if is_folder else None
            )
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@cache
def _trusts_nobody() -> ssl.SSLContext:
    """Return a context for connections without TLS, as loading certificates takes its time."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _within(remaining: Callable[[], float], act: Callable[[], T]) -> T:
    """Act while there is time left: a socket's own timeout begins anew with each byte.

    Raises:
        TimedOut: It takes longer. It continues in a thread that nobody waits for.
    """
    results = list[T]()
    errors = list[BaseException]()

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() and (seconds := remaining()) > 0:
        thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimedOut("it is not done in time")
    return results[0]


def _reason(error: httpx.RequestError) -> str:
    """Return why there was no response, in one line."""
    line = str(error).partition("\n")[0].strip()
    return line[:200] or type(error).__name__
