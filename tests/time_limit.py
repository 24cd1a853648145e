"""End a test that hangs. It is for tests of attacks, which ask code what may never be answered."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest


@dataclass(eq=False)
class TimeLimit:
    """Bound setup, call and teardown of each test in a folder, against hanging and nothing else.

    The limits are far above what a test takes on a busy machine, so they say nothing about speed.
    It is a hook rather than a fixture, because a fixture bounds neither the ones before it nor
    what comes after it; and no file conftest.py of that folder, whose name other tests import.

    Attributes:
        folder: Of the tests.
        quick: Seconds, for a test that runs in `make quick`.
        slow: Seconds, for any other.
        grace: Seconds after which it is tried again, as in a `finally` that hangs as well; after
            twice as many, the process ends, as it must if code that is not Python hangs.
        output: Where it is then written what hung; pytest has the standard error output captured.
    """

    folder: Path
    quick: float = 120.0
    slow: float = 600.0
    grace: float = 30.0
    output: int = field(default_factory=lambda: os.dup(2))

    def seconds(self, item: pytest.Item) -> float:
        """Return the limit of a test."""
        is_slow = any(map(item.get_closest_marker, ("slow", "nightly")))
        return self.slow if is_slow else self.quick

    @pytest.hookimpl(wrapper=True)
    def limited(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Fail a phase of a test that does not end, by the test's name."""
        if not item.path.is_relative_to(self.folder):
            return (yield)
        seconds = self.seconds(item)

        def fail(number: int, frame: FrameType | None) -> None:
            pytest.fail(f"{item.nodeid} hangs: it did not end within {seconds:g} seconds")

        before = signal.signal(signal.SIGALRM, fail)
        signal.setitimer(signal.ITIMER_REAL, seconds, self.grace)
        end = seconds + 2 * self.grace
        faulthandler.dump_traceback_later(end, exit=True, file=self.output)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            faulthandler.cancel_dump_traceback_later()

    pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = limited
