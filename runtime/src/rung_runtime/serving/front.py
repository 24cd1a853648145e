"""What is true of every request before it reaches a route: its caller, its path, its right to ask.

Who asks is who has opened the connection; only a proxy that `service.proxies` names is believed if
it says otherwise.
"""

import hmac
import ipaddress
import os
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from .. import UsageError
from ..config.delivery import DELIVERY, Service

VARIABLE = "ML_API_KEY"
# What probes and Prometheus ask: neither tells anything of a row.
OPEN = re.compile(r"/(healthz|readyz|version|metrics|v2|v2/health/.*|v2/models/.*/ready)")
# What tells that a service lives or is ready, and nothing else. Whether it does, any page finds out
# by a connection; a probe comes by whichever name its system has for the service, or none.
PROBES = re.compile(r"/(healthz|readyz|v2/health/(live|ready))")
HOST = re.compile(r"(\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+))(:\d*)?", re.ASCII)
# The network of one subscriber: addresses in it are free.
IPV6_PREFIX = 64
KNOWN_HOSTS = 64  # values of the header Host, few of which any service has


class Front:
    """Middleware of the whole application.

    - HEAD is answered as GET is, without the body; a slash at the end of a path is not there.
      (To redirect, the service would have to know under which scheme it is reached.)
    - An IPv4 caller of an IPv6 socket has its IPv4 address.
    - With `proxies`, their X-Forwarded-For and X-Forwarded-Proto count.
    - With `hosts`, other names in Host are refused. An address is never refused: the pages that
      misuse a browser come by a name. Nor is a probe.
    - With keys, or a header that the proxies set, requests that prove nothing are refused.
    """

    def __init__(self, app: ASGIApp, settings: Service) -> None:
        """Wrap an application.

        Raises:
            UsageError: A setting makes no sense, or would let everybody in.
        """
        self.keys = api_keys()
        self.user_header = settings.user_header.lower()
        self.proxies = _networks(settings.proxies)
        if self.user_header and not self.proxies:
            raise UsageError(
                f"{DELIVERY}, service.user_header: anybody could send it; name in service.proxies"
                " the addresses that it is believed of"
            )
        self.app = app
        if settings.proxies:
            behind: Any = ProxyHeadersMiddleware  # uvicorn has types of its own for ASGI
            self.app = behind(self.app, trusted_hosts=settings.proxies)
        self.has_hosts = bool(settings.hosts)
        self.named = TrustedHostMiddleware(self.app, _names(settings), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = dict(scope)
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        if len(scope["path"]) > 1:
            scope["path"] = scope["path"].rstrip("/") or "/"
        address, port = scope.get("client") or ("", 0)
        address = plain_address(address)
        scope["client"] = (address, port)
        is_open = not (self.keys or self.user_header)
        headers = Headers(scope=scope)
        if not (is_open or self._is_allowed(headers, address) or OPEN.fullmatch(scope["path"])):
            await _unauthorized(scope)(scope, receive, send)
        elif (
            not self.has_hosts
            or PROBES.fullmatch(scope["path"])
            or _is_address(headers.get("host", ""))
        ):
            await self.app(scope, receive, send)
        else:
            await self.named(scope, receive, send)

    def _is_allowed(self, headers: Headers, address: str) -> bool:
        if self.user_header and headers.get(self.user_header) and self._is_proxy(address):
            return True
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        sent = key.strip().encode()
        return any(hmac.compare_digest(sent, known.encode()) for known in self.keys)

    def _is_proxy(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self.proxies)


def api_keys() -> list[str]:
    """Return the keys of `ML_API_KEY`, of which several are separated by spaces or commas.

    Raises:
        UsageError: It is set and has none. It was meant to keep somebody out.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return []
    keys = re.split(r"[\s,]+", text.strip(", \t\r\n"))
    if not all(keys):
        raise UsageError(f"{VARIABLE} is set and empty: unset it, or give it a key")
    return keys


def caller(client: str) -> str:
    """Return by what a caller takes turns with others: an IPv4 address, or a network of IPv6."""
    if ":" not in client:
        return client
    try:
        network = ipaddress.IPv6Network((client.partition("%")[0], IPV6_PREFIX), strict=False)
    except ValueError:
        return client
    return str(network.network_address)


def plain_address(address: str) -> str:
    """Return an address; that of IPv4 if it is one in the form of IPv6."""
    if not address.lower().startswith("::ffff:"):
        return address
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return str(mapped) if mapped else address


def _names(settings: Service) -> list[str]:
    """Return the names by which a service may be reached: also the one that it listens at.

    Its own deployment asks by that, such as `localhost`.
    """
    for name in settings.hosts:
        if "*" in name.removeprefix("*.") and name != "*":
            raise UsageError(
                f"{DELIVERY}, service.hosts: {name!r} is not a name, such as model.example.com or"
                " *.example.com"
            )
    return [*settings.hosts, settings.host] if settings.hosts else ["*"]


def _networks(
    proxies: Collection[str],
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for proxy in proxies:
        try:
            networks.append(ipaddress.ip_network(proxy))
        except ValueError:
            raise UsageError(
                f"{DELIVERY}, service.proxies: {proxy!r} is not an address or a network,"
                " such as 127.0.0.1 or 10.0.0.0/8"
            ) from None
    return networks


@lru_cache(KNOWN_HOSTS)
def _is_address(host: str) -> bool:
    """Check whether a header Host has an address rather than a name."""
    parts = HOST.fullmatch(host)
    if not parts:
        return False
    try:
        ipaddress.ip_address(parts["six"] or parts["four"])
    except ValueError:
        return False
    return True


def _unauthorized(scope: Scope) -> JSONResponse:
    reason = "a key is needed: Authorization: Bearer KEY"
    is_protocol = scope["path"].startswith("/v2")
    fault = {"row": None, "column": None, "reason": reason}
    body = {"error": reason} if is_protocol else {"detail": [fault]}
    return JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})
