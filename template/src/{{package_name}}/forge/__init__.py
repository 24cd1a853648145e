"""Forge: the platform whose runner this is. A project has an adapter for each that it uses.

Adapters ask its API with what a job is given: its environment and its token.
"""

import json
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from .. import BadInput

MARK = "<!-- ml report -->"  # by which the one comment is found again


class Forge(Protocol):
    """What an adapter knows and does."""

    name: str
    workspace: Path  # the checkout of this job

    def place(self) -> str:
        """HOST/NAME under which its container registry keeps what is this repository's."""

    def credentials(self) -> tuple[str, str] | None:
        """User and password for that registry, if this job has them."""

    def jobs(self) -> dict[str, str]:
        """How the other jobs of this pipeline ended; {} if that is not to be known."""

    def comment(self, text: str) -> str | None:
        """Write the one comment of the pull request, or replace it.

        Returns:
            Why there is none; None if there is.
        """

    def train(self) -> None:
        """Start the train pipeline."""

    def notice(self, text: str) -> None:
        """Say something where it is seen without reading the log."""


def here() -> Forge | None:
    """The platform that this process runs on, if the project has an adapter for it."""
    for name in ("github", "gitlab"):
        if (Path(__file__).parent / f"{name}.py").exists():
            found: Forge | None = import_module(f".{name}", __name__).opened()
            if found:
                return found
    return None


def there() -> Forge:
    """As `here`.

    Raises:
        BadInput: This is no runner.
    """
    if found := here():
        return found
    raise BadInput("this is no job of a pipeline that the project knows: run it from one")


def ask(method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
    """Ask an API, JSON to JSON.

    Raises:
        BadInput: It refuses, or does not answer.
    """
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, headers, method=method)
    asked.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        said = f"answers {error.code} {error.reason}: may the job's token do that?"
    except (OSError, ValueError) as error:
        said = f"does not answer: {error}"
    raise BadInput(f"{method} {url.partition('?')[0]}: the API {said}")
