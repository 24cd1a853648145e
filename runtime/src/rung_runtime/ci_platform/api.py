"""Requests to the API of a CI platform, and the variables of its jobs."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from .. import UsageError
from ..escaping import visible

MAX_PAGES = 100  # of a hundred comments each: more than either platform keeps of a pull request
MAX_RESPONSE_BYTES = 64 << 20  # a hundred comments of the longest kind, with all their fields
MAX_ERROR_BYTES = 65_536
TIMEOUT_S = 30


class ApiError(UsageError):
    """An API refused a request."""

    def __init__(self, sentence: str, status: int, reason: str):
        super().__init__(sentence)
        self.status = status
        self.reason = reason  # in the API's words


class SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follow redirects within the origin of the request only, so that its token stays there."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        """Return the request to the new address; None, which makes it an error, elsewhere."""
        request = super().redirect_request(*args)
        old = urlsplit(args[0].full_url)
        new = urlsplit(args[-1])
        if (old.scheme, old.netloc) == (new.scheme, new.netloc):
            return request
        return None


def call_api(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """Send JSON to an API, and return the JSON of its response.

    Raises:
        ApiError: It refuses.
        UsageError: It does not respond, or not with JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    request.add_header("Content-Type", "application/json")
    subject = f"{method} {url.partition('?')[0]}: the API"
    try:
        with urllib.request.build_opener(SameOrigin).open(request, timeout=TIMEOUT_S) as response:
            content = response.read(MAX_RESPONSE_BYTES + 1)
        if len(content) > MAX_RESPONSE_BYTES:
            raise ValueError(f"with more than {MAX_RESPONSE_BYTES >> 20} MB")
        return json.loads(content or b"null")
    except urllib.error.HTTPError as error:
        reason = _reason(error)
        quoted = f" ({reason})" if reason else ""
        sentence = f"answers {error.code} {error.reason}{quoted}: may the job's token do that?"
        raise ApiError(f"{subject} {visible(sentence)}", error.code, reason) from None
    except (OSError, ValueError, http.client.HTTPException, RecursionError) as error:
        raise UsageError(f"{subject} does not answer: {visible(error)}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """Return why an API refuses, in its own words; "" if it does not say."""
    try:
        document = json.loads(error.read(MAX_ERROR_BYTES))
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    message = document.get("message") or document.get("error")
    if not message:
        return ""
    return (message if isinstance(message, str) else json.dumps(message))[:300]


def pages(get_page: Callable[[int], Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of a list that comes page by page.

    Args:
        get_page: Requests the page of a number; the first is 1.

    Raises:
        UsageError: A response is not a list.
    """
    for number in range(1, MAX_PAGES + 1):
        items = get_page(number)
        if not isinstance(items, list):
            raise UsageError("the API answers with something else than a list of comments")
        yield from (item for item in items if isinstance(item, dict) and item.get("id"))
        if not items:
            return


def variable(env: Mapping[str, str], name: str) -> str:
    """Return a variable that the platform sets in the environment of each job.

    Raises:
        UsageError: It is not set.
    """
    if value := env.get(name):
        return value
    raise UsageError(f"the variable {name} is not set, which each job of the platform has")
