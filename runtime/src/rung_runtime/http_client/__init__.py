"""HTTP: the one client of the runtime, for CI platforms, registries and services.

Each server decides what it sends, so everything has a bound: bytes, seconds, redirects, attempts.

Importing this package takes 0.4 s of processor time, most of it HTTPX: import it in the function
that sends a request. A service image does not have HTTPX, and does not need it.

Example:
    >>> client = Client()
    >>> response = client.request("GET", "https://example.com/api", credentials={"JOB-TOKEN": "…"})
    >>> response.status, response.json()
"""

from .addresses import REDIRECTS, is_loopback, origin, redirect_target, require_encryption
from .client import MAX_REDIRECTS, REPEATABLE_METHODS, SAFE_METHODS, Client, Redirects
from .exceptions import NoResponse, NotConnected, ResponseTooLarge, TimedOut, Unencrypted
from .limits import NO_RETRIES, Limits, Retries
from .response import Response
from .service import SERVICE, http_json

__all__ = [
    "MAX_REDIRECTS",
    "NO_RETRIES",
    "REDIRECTS",
    "REPEATABLE_METHODS",
    "SAFE_METHODS",
    "SERVICE",
    "Client",
    "Limits",
    "NoResponse",
    "NotConnected",
    "Redirects",
    "Response",
    "ResponseTooLarge",
    "Retries",
    "TimedOut",
    "Unencrypted",
    "http_json",
    "is_loopback",
    "origin",
    "redirect_target",
    "require_encryption",
]
