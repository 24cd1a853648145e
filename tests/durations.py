"""What a run of the tests took: the total, the slowest files and the slowest tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest


def table(reports: Iterable[pytest.TestReport], clock: float, tests: int = 20) -> list[str]:
    """Return the lines to print for a run.

    Args:
        reports: Setup, call and teardown of each test. What a shared fixture takes counts for the
            test that was first to need it.
        clock: How long the run took, in seconds.
        tests: How many tests to list.
    """
    by_test: dict[str, float] = defaultdict(float)
    by_file: dict[str, float] = defaultdict(float)
    for report in reports:
        by_test[report.nodeid] += report.duration
        by_file[report.nodeid.partition("::")[0]] += report.duration
    minutes = sum(by_test.values()) / 60
    return [
        f"{len(by_test):,} tests, {minutes:.1f} worker-minutes, {clock:.0f} seconds on the clock",
        "",
        "worker-minutes  file",
        *(f"{seconds / 60:14.1f}  {file}" for file, seconds in longest(by_file, 10)),
        "",
        "       seconds  test",
        *(f"{seconds:14.1f}  {test}" for test, seconds in longest(by_test, tests)),
    ]


def longest(durations: dict[str, float], count: int) -> list[tuple[str, float]]:
    """Return the longest, the longest first."""
    return sorted(durations.items(), key=lambda item: item[1], reverse=True)[:count]
