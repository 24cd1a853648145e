"""Requests to a service of ours, which is asked in JSON."""

import json
from typing import Any

from .client import Client
from .limits import Retries

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
