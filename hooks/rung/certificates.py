"""What to do if uv does not trust the certificates of a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from plumbum import local

from .pip_config import pip_settings
from .process import CERTIFICATES

UNTRUSTED = re.compile(r"UnknownIssuer|invalid peer certificate|CA certificates", re.IGNORECASE)
# The Makefile of a project says the same.
HINT = (
    "If your network has a certificate authority of its own, set SSL_CERT_FILE to its "
    "certificates, or add them to the system's"
)
# What other programs read, and uv does not.
VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


def certificate_hint(reason: str) -> str:
    """Return which setting makes uv trust a network, if that is why it failed; else nothing.

    Args:
        reason: What uv says of its failure.
    """
    if not UNTRUSTED.search(reason):
        return ""
    if only := local.env.get("SSL_CERT_FILE"):
        return (
            f"SSL_CERT_FILE is {only}, and uv trusts nothing else: if your network has a "
            "certificate authority of its own, name a file that has its certificates, too"
        )
    for place, file in other_programs():
        return f"{place} names {file}, which uv does not read: export SSL_CERT_FILE={file}"
    return HINT


def with_certificate_hint(reason: str) -> str:
    """Return a reason of uv's, and the hint on a line of its own if certificates are the cause."""
    return "\n".join(filter(None, (reason, certificate_hint(reason))))


def other_programs() -> Iterator[tuple[str, str]]:
    """Yield each setting by which other programs trust more than the system, and its file."""
    variables = ((name, local.env.get(name, "")) for name in VARIABLES)
    known = {Path(file).resolve() for file in CERTIFICATES}
    for place, file in chain(variables, pip_settings("cert")):
        if file and Path(file).resolve() not in known:
            yield place, file
