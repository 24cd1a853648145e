"""Jobs find a ready environment, and the real uv completes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import environments
import pytest
from conftest import pytest_terminal_summary as summarize
from conftest import run, uv
from hosts import STANDINS

TOY = """\
[project]
name = "toy"
version = "0"
requires-python = ">=3.11"
[dependency-groups]
dev = []
"""


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("sync --locked --no-default-groups --group train", "--no-default-groups --group train"),
        ("sync --locked", ""),
        ("run --locked --only-group dev pre-commit run --all-files", "--only-group dev"),
        ("run ml run", ""),
        ("run --all-groups pytest --cov", "--all-groups"),
        ("run --no-sync ml run", None),
        ("lock --check", None),
        ("", None),
    ],
)
def test_the_groups_are_those_that_uv_would_install(command: str, groups: str | None) -> None:
    expected = None if groups is None else tuple(groups.split())
    assert environments.chosen(command.split()) == expected


def test_a_job_is_given_the_environment_that_another_one_has_made(tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = []
    settings = {
        "STANDIN_ENVIRONMENTS": str(store),
        "STANDIN_PYTHON": sys.executable,
        "STANDIN_UV": uv(),
        "STANDINS": str(STANDINS),
    }
    for name in ("first", "second"):
        project = tmp_path / name
        project.mkdir()
        (project / "pyproject.toml").write_text(TOY)
        subprocess.run([uv(), "lock", "--quiet"], cwd=project, check=True)
        command = (str(STANDINS / "bin/uv"), "sync", "--locked", "--only-group", "dev")
        done = run(*command, cwd=project, home=tmp_path / "home", **settings)
        assert done.returncode == 0, done.stderr
        made.append((project / ".venv/pyvenv.cfg").stat().st_ino)
    assert made[0] == made[1]
    assert len([folder for folder in store.iterdir() if folder.is_dir()]) == 2  # of dev, of all


def test_what_tests_record_is_told_at_the_end_of_every_run() -> None:
    """Such as the lost lines of test_update.py; what the tests took only where it is asked for."""
    report = pytest.TestReport(
        nodeid="tests/test_x.py::test_y",
        location=("tests/test_x.py", 1, "test_y"),
        keywords={},
        outcome="passed",
        longrepr=None,
        when="call",
        user_properties=[("lines lost", 0)],
    )
    lines: list[str] = []
    terminal = SimpleNamespace(
        stats={"passed": [report]}, section=lines.append, write_line=lines.append
    )
    without_slowest: Any = SimpleNamespace(getoption=lambda _: 0)
    summarize(terminal, without_slowest)
    assert lines == ["what the tests recorded", "test_y: lines lost: 0"]
