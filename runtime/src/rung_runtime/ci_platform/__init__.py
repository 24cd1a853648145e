"""Forge: the platform whose runner this is. A project has an adapter for each that it uses.

Adapters ask its API with what a job is given: its environment and its token.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .. import UsageError, adapters, project
from ..escaping import fit, visible

MARK = "<!-- ml report -->"  # by which the one comment is found again
PAGES = 100  # of a hundred comments, at most: more than either platform keeps of a request
ANSWER = 64 << 20  # bytes: a hundred comments of the longest kind, and all that is known of each


class Forge(Protocol):
    """What an adapter knows and does."""

    name: str
    workspace: Path  # the checkout of this job

    def place(self) -> str:
        """HOST/NAME under which its container registry keeps what is this repository's.

        Raises:
            UsageError: It has none.
        """

    def credentials(self) -> tuple[str, str] | None:
        """User and password for that registry, if this job has them."""

    def jobs(self) -> dict[str, str]:
        """How the other jobs of this pipeline ended; {} if that is not to be known."""

    def comment(self, text: str, tail: str = "") -> str | None:
        """Write the one comment of the pull request, or replace it.

        Args:
            text: Cut at its end to what the platform takes.
            tail: What comes after it, cut or not.

        Returns:
            Why there is none; None if there is.
        """

    def train(self) -> None:
        """Start the train pipeline."""

    def notice(self, text: str) -> None:
        """Say something where it is seen without reading the log."""


def here() -> Forge | None:
    """The platform that this process runs on, if the project has an adapter for it."""
    for name in project.current().ci:
        found: Forge | None = adapters.load("ci", name).opened()
        if found:
            return found
    return None


def there() -> Forge:
    """As `here`.

    Raises:
        UsageError: This is no runner.
    """
    if found := here():
        return found
    raise UsageError("this is no job of a pipeline that the project knows: run it from one")


def registry_credentials(host: str) -> tuple[str, str] | None:
    """User and password of this job for a container registry, if it is the platform's own."""
    platform = here()
    if platform is None:
        return None
    try:
        own = platform.place().partition("/")[0]
    except UsageError:
        return None
    return platform.credentials() if own == host.lower() else None


class ApiError(UsageError):
    """An API answered, and not as asked for."""

    def __init__(self, sentence: str, status: int, reason: str):
        super().__init__(sentence)
        self.status = status
        self.reason = reason  # in the API's words


class SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to where the request went, and takes its token nowhere else."""

    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*args)
        before, after = urlsplit(args[0].full_url), urlsplit(args[-1])
        if (before.scheme, before.netloc) == (after.scheme, after.netloc):
            return request
        return None  # which makes an error of it, with its status


def ask(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """Ask an API, JSON to JSON.

    Raises:
        ApiError: It refuses.
        UsageError: It does not answer, or with something else.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    request.add_header("Content-Type", "application/json")
    what = f"{method} {url.partition('?')[0]}: the API"
    try:
        with urllib.request.build_opener(SameOrigin).open(request, timeout=30) as response:
            content = response.read(ANSWER + 1)
        if len(content) > ANSWER:
            raise ValueError(f"with more than {ANSWER >> 20} MB")
        return json.loads(content or b"null")
    except urllib.error.HTTPError as error:
        reason = _reason(error)
        more = f" ({reason})" if reason else ""
        sentence = f"answers {error.code} {error.reason}{more}: may the job's token do that?"
        raise ApiError(f"{what} {visible(sentence)}", error.code, reason) from None
    except (OSError, ValueError, http.client.HTTPException, RecursionError) as error:
        raise UsageError(f"{what} does not answer: {visible(error)}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What an API says of a refusal, in its own words; "" if it says nothing."""
    try:
        answer = json.loads(error.read(65_536))
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return ""
    message = answer.get("message") or answer.get("error") if isinstance(answer, dict) else None
    if not message:
        return ""
    return (message if isinstance(message, str) else json.dumps(message))[:300]


def pages(page: Callable[[int], Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of a list that comes page by page, as far as a request has any.

    Args:
        page: Asks for the page of a number, the first is 1.

    Raises:
        UsageError: The answer is no list.
    """
    for number in range(1, PAGES + 1):
        items = page(number)
        if not isinstance(items, list):
            raise UsageError("the API answers with something else than a list of comments")
        yield from (item for item in items if isinstance(item, dict) and item.get("id"))
        if not items:
            return


def body(text: str, tail: str, size: int) -> str:
    """Return a comment as it is written: found again by MARK, of at most so many bytes."""
    return fit(f"{MARK}\n{text}", size, tail)


def is_marked(comment: dict[str, Any]) -> bool:
    """Tell whether a comment is a report, not one that quotes it."""
    return str(comment.get("body") or "").startswith(MARK)


def of_author(comment: dict[str, Any], field: str, key: str) -> Any:
    """Return a fact about the author of a comment; None of one whose account is gone."""
    author = comment.get(field)
    return author.get(key) if isinstance(author, dict) else None


def variable(env: Mapping[str, str], name: str) -> str:
    """Return what the platform puts into the environment of each job.

    Raises:
        UsageError: It is not there.
    """
    if value := env.get(name):
        return value
    raise UsageError(f"the variable {name} is not set, which each job of the platform has")
