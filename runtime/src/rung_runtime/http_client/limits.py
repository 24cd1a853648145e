"""The bounds of a request, and when it is sent again."""

from dataclasses import dataclass

from .exceptions import NoResponse, NotConnected
from .response import Busy


@dataclass(frozen=True)
class Limits:
    """The bounds of one request and its response.

    Attributes:
        connect_s: Seconds until there is a connection.
        response_s: Seconds for all of the response; more as it arrives, see `bytes_per_s`.
        bytes_per_s: The slowest line that is waited for.
        max_bytes: The longest response; ResponseTooLarge if it is longer.
        max_error_bytes: Where a response of status 300 or more is cut off; None: as `max_bytes`.
    """

    connect_s: float = 5.0
    response_s: float = 10.0
    bytes_per_s: float = 100_000.0
    max_bytes: int = 64 * 2**20
    max_error_bytes: int | None = None


@dataclass(frozen=True)
class Retries:
    """When to send a request again, and after which pause.

    A request that is not repeatable, such as POST, is sent again only if it was not carried out:
    there was no connection, or the server answered 429.

    Attributes:
        attempts: How often it is sent at most.
        wait_initial_s: The first pause; each one is twice as long as the previous one.
        wait_max_s: The longest pause that this client chooses.
        wait_jitter_s: Up to this much is added at random, so that many clients do not come at once.
        max_retry_after_s: The longest pause that a server may choose by the header Retry-After; if
            it asks for more, its response is returned.
        total_s: No attempt begins later than this; None: without a limit.
        statuses: Those that count as busy.
    """

    attempts: int = 4
    wait_initial_s: float = 0.5
    wait_max_s: float = 5.0
    wait_jitter_s: float = 0.5
    max_retry_after_s: float = 40.0
    total_s: float | None = 40.0
    statuses: tuple[int, ...] = (429, 500, 502, 503, 504)

    def pause(self, error: Exception, is_repeatable: bool) -> float | bool:
        """Return the seconds that a server asks for; True: as configured; False: do not retry."""
        if isinstance(error, Busy):
            if not is_repeatable and error.response.status != 429:
                return False
            seconds = error.response.retry_after()
            if seconds is None:
                return True
            return float(seconds) if seconds <= self.max_retry_after_s else False
        if isinstance(error, NotConnected):
            return True
        return isinstance(error, NoResponse) and is_repeatable


NO_RETRIES = Retries(attempts=1)
