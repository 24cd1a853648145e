"""The deployer as a client of a service: JSON over HTTP, without a proxy."""

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

LONGEST = 64 << 20  # bytes of an answer
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
        ValueError: It is not what it says that it is, or has no end.
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
                content = response.read(LONGEST + 1)
        except (OSError, http.client.HTTPException) as error:  # it may break off at any byte
            if not pause:
                raise OSError(str(error) or repr(error)) from None
            time.sleep(pause)
            continue
        if len(content) > LONGEST:
            raise ValueError(f"its answer has more than {LONGEST >> 20} MB")
        text, content_type = content.decode(), response.headers.get("Content-Type", "")
        try:
            return response.status, json.loads(text) if "json" in content_type else text
        except RecursionError:
            raise ValueError("its answer is nested too deeply") from None
    raise AssertionError
