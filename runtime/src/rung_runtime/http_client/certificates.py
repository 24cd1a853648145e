"""Who is trusted to say who a server is."""

import os
import ssl
from functools import cache
from pathlib import Path

import certifi


@cache
def trusted() -> ssl.SSLContext:
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
def trusts_nobody() -> ssl.SSLContext:
    """Return a context for connections without TLS, as loading certificates takes its time."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
