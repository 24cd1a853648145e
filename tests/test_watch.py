"""Watch: a service that fails is found soon, and one that does not is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest
import verdicts_delivery

Module = Callable[[str], ModuleType]
SEED = 20_262
Watched = Callable[..., tuple[dict[str, Any], str | None]]


@pytest.fixture
def service_watch(module: Module) -> ModuleType:
    """Return the module."""
    return module("delivery.watch")


@pytest.fixture
def watched(module: Module, service_watch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return a function: what is written down of a service with these totals, and the refusal."""

    def watched(
        totals: Iterable[tuple[float, ...]], seconds: float = 30, **limits: float
    ) -> tuple[dict[str, Any], str | None]:
        clock = [0.0]
        counts = iter(totals)
        last = [service_watch.Totals(0, 0, 0)]

        def scrape(_: str) -> Any:
            last[0] = service_watch.Totals(*next(counts, last[0]))
            return last[0]

        def sleep(pause: float) -> None:
            clock[0] += pause

        monkeypatch.setattr(service_watch, "scrape_request_totals", scrape)
        monkeypatch.setattr(service_watch.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(service_watch.time, "sleep", sleep)
        document: dict[str, Any] = {}
        wanted = module("config.delivery").Watch(seconds=seconds, **limits)
        before = service_watch.Totals(0, 0, 0)
        try:
            service_watch.watch("http://service", wanted, before, document)
        except service_watch.RefusedError as refused:
            return document, str(refused)
        return document, None

    return watched


def steadily(requests: float, errors: float, seconds: float = 0.001) -> list[Any]:
    """Give the totals of each of 30 looks."""
    return [(n * requests, n * errors, n * requests * seconds) for n in range(1, 31)]


def test_half_the_limit_stays_and_three_times_the_limit_is_found(
    service_watch: ModuleType,
) -> None:
    stays, _ = verdicts_delivery.failing_watches(service_watch, 0.005, 0.01, 30, 500, SEED)
    at_limit, _ = verdicts_delivery.failing_watches(service_watch, 0.01, 0.01, 30, 500, SEED)
    detected, requests = verdicts_delivery.failing_watches(service_watch, 0.03, 0.01, 30, 200, SEED)
    print(f"seed {SEED}: {stays}, {at_limit}, {detected} after {requests:.0f} requests")
    assert stays <= 0.01
    assert at_limit <= 0.03
    assert detected >= 0.99
    assert requests < 1_000


def test_a_service_that_fails_always_is_found_at_once(watched: Watched) -> None:
    document, refused = watched(steadily(2, 2))
    assert document["verdict"] == "failed"
    assert document["requests"] == 2
    assert refused == "2 of 2 requests failed since the switch, and watch.max_error_share is 0.01"


def test_a_failure_among_the_first_requests_rolls_nothing_back(watched: Watched) -> None:
    document, refused = watched([(1, 1, 0.001)] + [(n * 10, 1, 0.01 * n) for n in range(1, 30)])
    assert refused is None
    assert document["errors"] == 1


def test_no_request_is_not_called_passed(watched: Watched, service_watch: ModuleType) -> None:
    document, refused = watched([])
    assert (document["verdict"], document["requests"], refused) == ("not seen", 0, None)
    assert document["seconds"] == 30
    assert watched([], seconds=0)[0]["verdict"] == "not seen"


def test_few_requests_are_not_called_passed_and_enough_are(
    watched: Watched, service_watch: ModuleType
) -> None:
    assert watched(steadily(1, 0))[0]["verdict"] == "undecided"
    needed = service_watch.FailureTest(0.01).needed
    assert watched([(needed - 1, 0, 1)])[0]["verdict"] == "undecided"
    assert watched([(needed, 0, 1)])[0]["verdict"] == "passed"


def test_what_the_watch_could_not_find_out_is_said(
    module: Module, watched: Watched, service_watch: ModuleType
) -> None:
    limits = module("config.delivery").Watch()
    assert "no request came during the 30 s" in service_watch.caution(watched([])[0], limits)
    caution = service_watch.caution(watched([(12, 0, 0.1)])[0], limits)
    assert (
        "0 of 12 requests failed during the 30 s of the watch, too few requests to tell" in caution
    )
    assert "at most 1.00% fail" in caution
    assert service_watch.caution(watched(steadily(100, 0))[0], limits) is None
    old = {"seconds": 30.0, "requests": 0.0, "errors": 0.0, "error_share": 0.0, "mean_ms": 0.0}
    assert service_watch.caution(old, limits) is None  # written by 0.2
    assert service_watch.caution(None, limits) is None


@pytest.mark.parametrize(
    ("limit", "errors", "verdict"), [(0.0, 0, "passed"), (0.0, 1, "failed"), (1.0, 100, "passed")]
)
def test_limits_of_none_and_of_all_are_what_they_say(
    watched: Watched, limit: float, errors: int, verdict: str
) -> None:
    document, _ = watched([(100, errors, 0.1)], max_error_share=limit)
    assert document["verdict"] == verdict


def test_a_limit_of_nearly_all_can_still_be_exceeded(service_watch: ModuleType) -> None:
    for limit in (0.4, 0.9):
        test = service_watch.FailureTest(limit)
        test.add(1_000, 1_000)
        assert test.verdict == "failed"


def test_a_service_that_was_restarted_goes_on_counting(watched: Watched) -> None:
    document, _ = watched([(100, 0, 0.1), (10, 0, 0.01), (20, 0, 0.02)])
    assert document["requests"] == 120


def test_a_slow_service_is_taken_back_and_one_slow_second_is_not(watched: Watched) -> None:
    document, refused = watched(steadily(20, 0, seconds=0.9))
    assert document["verdict"] == "slow"
    average = "requests have taken 900 ms on average since the switch"
    assert refused == f"{average}, and watch.max_latency_ms is 500"
    assert document["seconds"] < 10
    stalled = [(20 * n, 0, 0.2 * n + (400 if n > 5 else 0)) for n in range(1, 31)]
    document, refused = watched(stalled)
    assert document["mean_ms"] > 500
    assert refused is None


def test_a_service_that_answers_nobody_is_not_one_that_nobody_asks(watched: Watched) -> None:
    document, refused = watched([(0, 0, 0, 8)] * 30)
    assert document["verdict"] == "slow"
    assert refused == "requests are waiting, and none was answered for 6 s"
    now_and_then = [(n // 4, 0, 0.01, 8 * (n % 4 > 0)) for n in range(30)]
    document, refused = watched(now_and_then)
    assert (document["verdict"], refused) == ("undecided", None)


def test_the_first_requests_do_not_count_for_the_time(watched: Watched) -> None:
    document, refused = watched([(10 * n, 0, 60 + 0.01 * n) for n in range(1, 31)])
    assert refused is None
    assert document["mean_ms"] == pytest.approx(1)


def test_totals_are_read_from_what_a_service_says_of_itself(
    module: Module, service_watch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """\
# TYPE ml_requests counter
ml_requests_total{route="/predict",status="200"} 7.0
ml_requests_total{route="/predict",status="422"} 3.0
ml_requests_total{route="/v2",status="503"} 2.0
# TYPE ml_model_errors counter
ml_model_errors_total 1.0
# TYPE ml_request_seconds histogram
ml_request_seconds_sum{route="/predict"} 0.5
# TYPE ml_queue_rows gauge
ml_queue_rows 4.0
"""
    monkeypatch.setattr(module("http_client"), "http_json", lambda _: (200, text))
    assert service_watch.scrape_request_totals("http://service") == (12, 3, 0.5, 4)
