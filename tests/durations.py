"""What a run of the tests took: the total, the slowest files and the slowest tests."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterable
from typing import Any

import pytest
import warm


class ProcessorTime:
    """Note in each report what the test used of a processor, its ended processes included.

    On a machine that does other work as well, this is what a test costs; the clock says what all
    that work costs it. Of both: if the clock is far ahead on an idle machine, the test waits.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self.before = used()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Note what setup, call or teardown used."""
        report = yield
        now = used()
        report.processor = now - self.before
        self.before = now
        return report


def used() -> float:
    """Return the seconds of a processor that this process and all that it has waited for used."""
    return sum(os.times()[:4]) + warm.processor_time


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
    processor: dict[str, float] = defaultdict(float)
    for report in reports:
        file = report.nodeid.partition("::")[0]
        by_test[report.nodeid] += report.duration
        by_file[file] += report.duration
        for name in (report.nodeid, file):
            processor[name] += getattr(report, "processor", 0.0)
    minutes = sum(by_test.values()) / 60
    in_processor = sum(processor[file] for file in by_file) / 60
    return [
        f"{len(by_test):,} tests, {minutes:.1f} worker-minutes ({in_processor:.1f} of a processor),"
        f" {clock:.0f} seconds on the clock",
        "",
        "worker-minutes  of a processor  file",
        *(
            f"{seconds / 60:14.1f}  {processor[file] / 60:14.1f}  {file}"
            for file, seconds in longest(by_file, 20)
        ),
        "",
        "       seconds  of a processor  test",
        *(
            f"{seconds:14.1f}  {processor[test]:14.1f}  {test}"
            for test, seconds in longest(by_test, tests)
        ),
    ]


def longest(durations: dict[str, float], count: int) -> list[tuple[str, float]]:
    """Return the longest, the longest first."""
    return sorted(durations.items(), key=lambda item: item[1], reverse=True)[:count]
