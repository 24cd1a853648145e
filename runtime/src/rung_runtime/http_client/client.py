"""The client: a request with its redirects and attempts, each within its bounds."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from time import monotonic
from typing import BinaryIO, Literal, TypeVar

import httpx
import stamina
from stamina.instrumentation import set_on_retry_hooks

from .addresses import is_loopback, origin, redirect_target, require_encryption
from .certificates import trusted, trusts_nobody
from .exceptions import NoResponse, NotConnected, ResponseTooLarge, TimedOut
from .limits import Limits, Retries
from .response import Busy, Response

T = TypeVar("T")
Redirects = Literal["none", "same origin", "any origin"]
MAX_REDIRECTS = 5
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # those that change nothing
REPEATABLE_METHODS = (*SAFE_METHODS, "PUT", "DELETE")

# A retry is not worth a line in a log: if none helps, the last error is the message.
set_on_retry_hooks([])


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
                        raise Busy(response)
                    return response
        except Busy as busy:
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
                verify=trusted() if is_encrypted or use_proxies else trusts_nobody(),
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
