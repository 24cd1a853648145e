"""Asking: again where that may help, as whom it has to be, and bounded."""

from collections.abc import Mapping
from time import monotonic, sleep
from typing import BinaryIO
from urllib.parse import urljoin

from .. import UsageError
from ..http_client import (
    Response,
    origin,
)
from ..oci_content import BYTES
from . import limits
from .authorization import Authorization
from .exchange import Broken, Slow


class Connection(Authorization):
    """A registry that may be busy, out of reach, or elsewhere."""

    def _ask(
        self,
        method: str,
        path: str,
        *expected: int,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: int = limits.MAX_JSON,
        seconds: float | None = None,
        total: float = limits.TOTAL,
        retries: int | None = None,
        to: BinaryIO | None = None,
    ) -> Response:
        """Ask, again if the registry is busy or the connection breaks.

        Args:
            expected: What it may answer; without, whatever it does.
            limit: Of the bytes of the answer.
            seconds: For one answer; more as it arrives, at RATE.
            total: For all of it.
            retries: How often to ask again; with 0, no answer is Broken or Slow.
            to: Where to write the content to.

        Raises:
            UsageError: There is no answer, or another one.
        """
        seconds = limits.ANSWER if seconds is None else seconds
        url = urljoin(self.base, path)
        left = limits.RETRIES if retries is None else retries
        end = monotonic() + max(total, seconds)
        pause = 0.5
        more = dict(headers or {}) | ({"Content-Type": BYTES} if data and not headers else {})
        while True:
            problem: UsageError
            wait = pause
            try:
                answer = self._send(method, url, data, more, limit, seconds, to)
            except Broken as error:
                if retries == 0:
                    raise
                problem = self._silent(error)
                if isinstance(error, Slow) and data:
                    raise problem from None  # it may have arrived
            else:
                if answer.status not in limits.AGAIN or retries == 0:
                    if expected and answer.status not in expected:
                        raise self._refused(answer, method, path)
                    return answer
                problem = self._refused(answer, method, path)
                retry_after = answer.retry_after()
                wait = pause if retry_after is None else retry_after
            left -= 1
            seconds = min(seconds, end - monotonic() - wait)
            if left < 0 or seconds <= 0:
                raise problem
            sleep(wait)
            pause *= 2

    def _send(
        self,
        method: str,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        limit: int,
        seconds: float,
        to: BinaryIO | None,
    ) -> Response:
        """Send a request, with credentials where they belong, and follow redirects of reading."""
        tried = False
        for _ in range(limits.MAX_REDIRECTS + 2):
            own = origin(url) == self.origin
            more = dict(headers)
            if own and self.authorization:
                more["Authorization"] = self.authorization
            answer = self._exchange(method, url, data, more, limit, seconds, to)
            if answer.status == 401 and own and not tried:
                tried = True
                self._authorize(answer, writes=method not in ("GET", "HEAD"), seconds=seconds)
            elif answer.status in (301, 302, 303, 307, 308) and method in ("GET", "HEAD"):
                url = self._target(answer)
            else:
                return answer
        raise UsageError(f"{self.url}: the registry redirects without an end")
