"""What `rung` shows while another program works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from rung.progress import run_with_progress

PROGRAM = "import sys; print('Downloading polars'); print(' + polars', file=sys.stderr)"


def test_a_program_that_works_is_one_line_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    command = [sys.executable, "-u", "-c", PROGRAM]
    assert run_with_progress(command, tmp_path, "Environment").succeeded
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"✓ Environment \d+\.\d s\n", err)


def test_a_program_that_fails_is_shown_with_all_that_it_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-u", "-c", f"{PROGRAM}; sys.exit(2)"]
    assert run_with_progress(command, tmp_path, "Environment").returncode == 2
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"✗ Environment \d+\.\d s", lines[0])
    assert lines[1:] == ["Downloading polars", " + polars"]
