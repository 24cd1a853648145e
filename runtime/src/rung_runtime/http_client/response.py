"""A response, and the time after which its server wants to be asked again."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx


@dataclass(frozen=True)
class Response:
    """A response that was read to its end, whatever its status.

    Attributes:
        headers: Their names are found in any case.
        body: Empty if it was written to a file.
        url: Where it came from, after redirects.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            ValueError: It is not JSON, or nested too deeply.
        """
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("its response is nested too deeply") from None

    def retry_after(self) -> float | None:
        """Return the seconds to wait, if the server says how many."""
        value = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, IndexError, TypeError):
            return None
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())

    def link(self, relation: str) -> str | None:
        """Return the address of a relation, such as `next`, in the header Link (RFC 8288)."""
        header = {"Link": self.headers.get("Link", "")}
        return httpx.Response(200, headers=header).links.get(relation, {}).get("url")


class Busy(Exception):
    """A server is busy; kept until it is known whether the request is sent again."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response
