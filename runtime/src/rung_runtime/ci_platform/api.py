"""Requests to the API of a CI platform, and the variables of its jobs."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import UsageError
from ..escaping import visible

if TYPE_CHECKING:
    from ..http_client import Response

MAX_PAGES = 100  # of a hundred comments each: more than either platform keeps of a pull request
MAX_RESPONSE_BYTES = 64 << 20  # a hundred comments of the longest kind, with all their fields
MAX_ERROR_BYTES = 65_536
TIMEOUT_S = 30.0
ATTEMPTS = 3


class ApiError(UsageError):
    """An API refused a request."""

    def __init__(self, sentence: str, status: int, reason: str):
        super().__init__(sentence)
        self.status = status
        self.reason = reason  # in the API's words


def call_api(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """Send JSON to an API, and return the JSON of its response.

    Args:
        headers: One of them is the job's token, which goes to the origin of `url` only. Or the body
            has it.

    Raises:
        ApiError: It refuses.
        UsageError: It does not respond, or not with JSON; or the token would travel in clear.
    """
    from ..http_client import Client, Limits, Retries, Unencrypted

    client = Client(
        limits=Limits(
            connect_s=TIMEOUT_S,
            response_s=TIMEOUT_S,
            max_bytes=MAX_RESPONSE_BYTES,
            max_error_bytes=MAX_ERROR_BYTES,
        ),
        retries=Retries(attempts=ATTEMPTS),
        keep_alive=False,
    )
    request = f"{method} {url.partition('?')[0]}"
    subject = f"{request}: the API"
    try:
        response = client.request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            credentials=headers,
            is_secret=True,
            redirects="same origin",
        )
        if response.status < 300:
            return response.json() if response.body else None
    except Unencrypted as error:
        raise UsageError(f"{visible(request)}: {visible(error)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{subject} does not answer: {visible(error)}") from None
    reason = _reason(response)
    quoted = f" ({reason})" if reason else ""
    sentence = f"answers {response.status} {response.reason}{quoted}: may the job's token do that?"
    raise ApiError(f"{subject} {visible(sentence)}", response.status, reason)


def _reason(response: "Response") -> str:
    """Return why an API refuses, in its own words; "" if it does not say."""
    try:
        document = response.json()
    except ValueError:
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
