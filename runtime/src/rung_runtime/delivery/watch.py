"""Watch: read a service's own numbers after the switch, and decide while they come in.

A share of failed requests that is compared with a limit every second will exceed it sooner or
later by chance. Here the failures are judged by a sequential test, which may be looked at as often
as one likes: A. Wald (1945), Sequential Tests of Statistical Hypotheses, Annals of Mathematical
Statistics 16. It takes the failures of a service to be independent of each other.
"""

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .. import RefusedError, progress

if TYPE_CHECKING:
    from ..config.delivery import Watch
    from ..records import WatchResult, WatchVerdict

FALSE_ALARM = 0.01  # probability of rolling back a service that fails as often as allowed
MISS = 0.05  # probability that one that fails twice as often as allowed counts as passed
TIMES_THE_LIMIT = (1.5, 3.0)  # shares of failures to look for, beside a service that is broken
WARM_UP = 10  # requests whose time does not count: caches are cold
ENOUGH_REQUESTS = 10  # for their mean time to be judged
ENOUGH_LOOKS = 3  # with requests in them, at the end of the watch
EARLY_LOOKS = 5  # the same, before the end of the watch
STUCK = 10  # times the mean time that is allowed, without an answer


class Totals(NamedTuple):
    """The counters of a service since it started."""

    requests: float
    errors: float  # 5xx, and requests that the model's code could not answer
    seconds: float  # that the requests took
    waiting: float = 0.0  # rows at this moment that are not answered yet

    def since(self, earlier: "Totals") -> "Totals":
        """Return the increase since earlier totals; a service that was restarted began at zero."""
        if self.requests < earlier.requests:
            return self
        return Totals(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            self.seconds - earlier.seconds,
            self.waiting,
        )


@dataclass
class FailureTest:
    """A sequential test of whether more requests fail than are allowed.

    The likelihood of what was seen, if a share of requests fails that is beyond the limit, is
    compared with its likelihood at the limit. Of several such shares the mean ratio counts, so that
    a service that is broken is found at once, and one that fails somewhat too often is found, too:
    the mean of likelihood ratios exceeds 1/alpha with a probability of at most alpha, whenever one
    looks (Ville 1939; Robbins 1970, Statistical Methods Related to the Law of the Iterated
    Logarithm, Annals of Mathematical Statistics 41).

    Attributes:
        limit: The share of requests that may fail, 0 to 1.
    """

    limit: float
    requests: float = 0
    errors: float = 0

    def add(self, requests: float, errors: float) -> None:
        self.requests += requests
        self.errors += errors

    @property
    def verdict(self) -> "WatchVerdict":
        """Return what is known so far; `undecided` and `not seen` may become anything."""
        if self._beyond():
            return "failed"
        if self.requests == 0:
            return "not seen"
        return "passed" if self._within() else "undecided"

    @property
    def needed(self) -> int:
        """Return how many requests are enough for `passed` if none of them fails."""
        if self.limit in (0, 1):
            return 1
        return math.ceil(math.log(MISS / (1 - FALSE_ALARM)) / self._log_ratio(self._times(2), 1, 0))

    def _beyond(self) -> bool:
        if self.limit == 0:
            return self.errors > 0
        if self.limit == 1:
            return False
        shares = [*map(self._times, TIMES_THE_LIMIT), max(0.5, self._halfway)]
        ratios = [self._log_ratio(share, self.requests, self.errors) for share in shares]
        most = max(ratios)
        mean = most + math.log(sum(math.exp(ratio - most) for ratio in ratios) / len(ratios))
        return mean >= math.log(1 / FALSE_ALARM)

    def _within(self) -> bool:
        if self.limit in (0, 1):
            return True
        ratio = self._log_ratio(self._times(2), self.requests, self.errors)
        return ratio <= math.log(MISS / (1 - FALSE_ALARM))

    def _times(self, factor: float) -> float:
        return min(factor * self.limit, self._halfway)

    @property
    def _halfway(self) -> float:
        return (1 + self.limit) / 2

    def _log_ratio(self, share: float, requests: float, errors: float) -> float:
        """Return how much likelier the counts are if this share fails than at the limit."""
        successes = max(requests - errors, 0)
        return errors * math.log(share / self.limit) + successes * (
            math.log1p(-share) - math.log1p(-self.limit)
        )


@dataclass
class LatencyTest:
    """A judgement of the mean time of requests that one bad second does not decide.

    The first requests do not count, as nothing is warm. The service is slow if the mean is beyond
    the limit, and was in most of the looks in which there were requests.

    Attributes:
        limit_ms: The mean time of a request that is allowed.
    """

    limit_ms: float
    warming: float = 0
    looks: list[tuple[float, float]] = field(default_factory=list)  # requests, seconds

    def add(self, requests: float, seconds: float) -> None:
        if not requests:
            return
        if self.warming < WARM_UP:
            self.warming += requests
        else:
            self.looks.append((requests, seconds))

    @property
    def requests(self) -> float:
        return sum(requests for requests, _ in self.looks)

    @property
    def mean_ms(self) -> float | None:
        """Return the mean time of the requests that count; None if there were none."""
        if not self.looks:
            return None
        return 1e3 * sum(seconds for _, seconds in self.looks) / self.requests

    def is_slow(self, enough_looks: int) -> bool:
        mean = self.mean_ms
        if mean is None or len(self.looks) < enough_looks or self.requests < ENOUGH_REQUESTS:
            return False
        slow = [seconds * 1e3 > self.limit_ms * requests for requests, seconds in self.looks]
        return mean > self.limit_ms and sum(slow) > len(slow) / 2


def watch(url: str, limits: "Watch", before: Totals, result: "WatchResult") -> None:
    """Watch a service for the configured time.

    Args:
        url: The address of the service.
        limits: `watch` of `config/delivery.yaml`.
        before: The totals at the moment the watch began.
        result: Gets the numbers as they come in, also where they fail the service.

    Raises:
        RefusedError: It fails or is too slow, answers no request, or does not answer at all.
    """
    failures = FailureTest(limits.max_error_share)
    latency = LatencyTest(limits.max_latency_ms)
    all_seconds = 0.0
    stuck_looks = 0
    result["seconds"] = 0.0
    _record(result, failures, 0.0)
    start = time.monotonic()
    while (elapsed := time.monotonic() - start) < limits.seconds:
        time.sleep(min(1.0, limits.seconds - elapsed))
        totals = scrape_request_totals(url)
        increase = totals.since(before)
        before = totals
        failures.add(increase.requests, increase.errors)
        latency.add(increase.requests, increase.seconds)
        all_seconds += increase.seconds
        result["seconds"] = time.monotonic() - start
        mean_ms = latency.mean_ms or 1e3 * all_seconds / max(failures.requests, 1)
        _record(result, failures, mean_ms)
        progress.report(
            f"{result['seconds']:.0f} of {limits.seconds:.0f} s, {failures.requests:.0f} requests, "
            f"{failures.errors:.0f} failed"
        )
        is_over = result["seconds"] >= limits.seconds
        if failures.verdict == "failed":
            raise RefusedError(
                f"{failures.errors:.0f} of {failures.requests:.0f} requests failed since the "
                f"switch, and watch.max_error_share is {limits.max_error_share:g}"
            )
        stuck_looks = stuck_looks + 1 if increase.waiting and not increase.requests else 0
        if stuck_looks >= EARLY_LOOKS and stuck_looks * 1e3 > STUCK * limits.max_latency_ms:
            result["verdict"] = "slow"
            raise RefusedError(f"requests are waiting, and none was answered for {stuck_looks} s")
        if latency.is_slow(ENOUGH_LOOKS if is_over else EARLY_LOOKS):
            result["verdict"] = "slow"
            raise RefusedError(
                f"requests have taken {mean_ms:.0f} ms on average since the switch, and "
                f"watch.max_latency_ms is {limits.max_latency_ms:g}"
            )


def caution(result: "WatchResult | None", limits: "Watch") -> str | None:
    """Return what a watch that rolled nothing back could not find out, in words; None: nothing."""
    if result is None:
        return None
    verdict = result.get("verdict")
    if verdict not in ("not seen", "undecided"):
        return None
    seconds = f"{result['seconds']:.0f} s"
    if verdict == "not seen":
        return (
            f"no request came during the {seconds} of the watch, so it is not known whether "
            "callers are served; watch.seconds in config/delivery.yaml sets how long to wait"
        )
    needed = FailureTest(limits.max_error_share).needed
    return (
        f"{result['errors']:.0f} of {result['requests']:.0f} requests failed during the {seconds} "
        f"of the watch, too few requests to tell whether at most {limits.max_error_share:.2%} fail:"
        f" that takes {needed:,} or more"
    )


def scrape_request_totals(url: str) -> Totals:
    """Return a service's totals, read from its `/metrics`.

    Raises:
        RefusedError: It does not answer.
    """
    from prometheus_client.parser import text_string_to_metric_families

    from ..http_client import http_json

    try:
        text = http_json(f"{url}/metrics")[1]
        families = list(text_string_to_metric_families(text))
    except OSError as error:
        raise RefusedError(f"{url} does not answer: {error}") from None
    except Exception:  # the parser takes any text for what Prometheus reads
        raise RefusedError(f"{url}/metrics is not what Prometheus reads") from None
    requests = 0.0
    errors = 0.0
    seconds = 0.0
    waiting = 0.0
    for family in families:
        for sample in family.samples:
            if sample.name == "ml_requests_total":
                requests += sample.value
                if sample.labels.get("status", "") >= "500":
                    errors += sample.value
            elif sample.name == "ml_model_errors_total":
                # What the model cannot answer is answered with 422: its caller may do without.
                errors += sample.value
            elif sample.name == "ml_request_seconds_sum":
                seconds += sample.value
            elif sample.name == "ml_queue_rows":
                waiting += sample.value
    return Totals(requests, errors, seconds, waiting)


def _record(result: "WatchResult", failures: FailureTest, mean_ms: float) -> None:
    result["requests"] = failures.requests
    result["errors"] = failures.errors
    result["error_share"] = failures.errors / max(failures.requests, 1)
    result["mean_ms"] = mean_ms
    result["verdict"] = failures.verdict
