"""Addresses: their origin, where they redirect to, and what may be sent to them."""

import ipaddress
import os
from urllib.parse import urljoin, urlsplit

from .exceptions import Unencrypted
from .response import Response

REDIRECTS = (301, 302, 303, 307, 308)


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
