"""A test of an attack that hangs does not hang the run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from time_limit import TimeLimit

HANGS = """
import signal, time
import pytest
from time_limit import TimeLimit

def test_sleeps():
    try:
        time.sleep(600)
    except Exception:
        time.sleep(600)

@pytest.fixture
def asleep():
    yield
    time.sleep(600)

def test_ends_and_its_fixture_does_not(asleep): ...

def test_hears_nothing():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(600)

def test_ends(): ...
"""
PLUGIN = """
from pathlib import Path
from time_limit import TimeLimit

class OfThoseThatHang(TimeLimit):
    def seconds(self, item):
        return 60.0 if item.name == "test_ends" else 0.3

def pytest_configure(config):
    config.pluginmanager.register(OfThoseThatHang(Path(__file__).parent, grace=0.2))
"""


def item(folder: Path, *markers: str) -> Any:
    """Return a test that is in a folder and has markers."""
    return SimpleNamespace(
        path=folder / "test_x.py", nodeid="test_x.py::test_y", get_closest_marker=markers.count
    )


def test_a_test_that_hangs_fails_by_its_name(tmp_path: Path) -> None:
    limit = TimeLimit(tmp_path, quick=0.05)
    phase = limit.limited(item(tmp_path))
    next(phase)
    with pytest.raises(pytest.fail.Exception, match=r"test_x\.py::test_y hangs: .* 0\.05 seconds"):
        time.sleep(60)  # in the main thread of a worker as well
    with pytest.raises(StopIteration):
        phase.send(None)
    os.close(limit.output)


def test_slow_ones_have_more_time_and_other_folders_no_limit(tmp_path: Path) -> None:
    limit = TimeLimit(tmp_path / "hostile", quick=0.01, slow=60.0)
    for hostile in (item(tmp_path / "hostile", "slow"), item(tmp_path / "hostile", "nightly")):
        assert limit.seconds(hostile) == 60.0
    phase = limit.limited(item(tmp_path))
    next(phase)
    time.sleep(0.05)
    with pytest.raises(StopIteration):
        phase.send(None)
    os.close(limit.output)


def test_the_tests_of_attacks_have_a_limit(pytestconfig: pytest.Config) -> None:
    (limit,) = [p for p in pytestconfig.pluginmanager.get_plugins() if isinstance(p, TimeLimit)]
    assert limit.folder == ROOT / "tests/hostile"
    assert 60 <= limit.quick <= limit.slow <= 1200


@pytest.mark.slow  # starts pytest
def test_a_run_with_tests_that_hang_ends_and_names_them(tmp_path: Path) -> None:
    (tmp_path / "test_hangs.py").write_text(HANGS)
    (tmp_path / "conftest.py").write_text(PLUGIN)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -pno:schemathesis -pno:hydra_pytest\n"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-rA", "-n", "1"]
    command += ["--basetemp", str(tmp_path / "run")]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    for line in (
        "test_hangs.py::test_sleeps hangs: it did not end within 0.3 seconds",
        "test_hangs.py::test_ends_and_its_fixture_does_not hangs: it did not end within 0.3",
        "crashed while running 'test_hangs.py::test_hears_nothing'",
    ):
        assert line in done.stdout, done.stdout
    assert "in test_hears_nothing" in done.stderr, done.stderr  # where it hung
    assert "PASSED test_hangs.py::test_ends\n" in done.stdout, done.stdout
