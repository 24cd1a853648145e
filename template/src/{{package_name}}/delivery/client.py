"""The deployer as a client of a service: JSON over HTTP, without a proxy."""

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

PAUSES = (0.5, 0.5, 0.0)  # seconds after each attempt; after the last one the error counts


def http_json(url: str, body: Any = None) -> tuple[int, Any]:
    """Send GET, or POST if there is a body, and return the status and the decoded response.

    A broken connection is tried again: a service that was killed is back within seconds.

    Args:
        url: The address, path included.
        body: What to send as JSON.

    Returns:
        The status, and the response: decoded if it is JSON, else its text.

    Raises:
        OSError: There was no response.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for pause in PAUSES:
        try:
            try:
                response = direct.open(request, timeout=10)
            except urllib.error.HTTPError as error:
                response = error
            with response:
                text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:  # it may break off at any byte
            if not pause:
                raise OSError(str(error) or repr(error)) from None
            time.sleep(pause)
            continue
        content_type = response.headers.get("Content-Type", "")
        return response.status, json.loads(text) if "json" in content_type else text
    raise AssertionError
