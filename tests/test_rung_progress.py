"""What `rung` shows while another program works."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest
from rung.progress import moving_line, run_with_progress

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


def test_on_a_terminal_a_command_is_a_line_that_moves_of_which_nothing_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        shown = b""
        with moving_line("Environment (uv sync)") as show:
            for package in ("polars", "numpy"):
                show(f"Downloading {package}\n")
                while f"Downloading {package}".encode() not in shown:
                    shown += screen.read(1_000)
        print("what follows", file=terminal, flush=True)
        while b"what follows" not in shown:
            shown += screen.read(1_000)
    line, _, rest = shown.rpartition(b"\x1b[2K")  # the line is cleared
    assert b"Environment (uv sync)" in line
    assert b"0:00:0" in line, "how long it takes"
    assert re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", rest).split() == [b"what", b"follows"]
