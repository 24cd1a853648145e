"""The secret with which a deployer proves that its requests are checks, which are not logged.

A target that runs in the project's folder shares it as a file that nobody else may read; elsewhere
it is `ML_CHECK_TOKEN`, on both sides. Without it checks are answered, and logged as any request.
"""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

HEADER = "X-Rung-Check"
VARIABLE = "ML_CHECK_TOKEN"
FILE = Path("service/check-token")


def read_token() -> str | None:
    """Return the secret; None if there is none."""
    if token := os.environ.get(VARIABLE):
        return token
    with suppress(OSError, ValueError):
        return FILE.read_text("utf-8").strip() or None
    return None


def ensure_token() -> str | None:
    """Return the secret, which is made if there is none; None if there is no folder for it."""
    if FILE.parent.is_dir() and read_token() is None:
        with suppress(OSError):
            descriptor = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(descriptor, secrets.token_urlsafe(32).encode())
            finally:
                os.close(descriptor)
    return read_token()


def is_token(value: str, token: str | None) -> bool:
    """Check whether a header's value is the secret."""
    return token is not None and hmac.compare_digest(value.encode(), token.encode())
