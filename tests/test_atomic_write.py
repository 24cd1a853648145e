"""A file is written completely or not at all, by one process or by several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from rung_runtime.atomic_file import LEFTOVER_SECONDS, atomic_write


def test_two_writers_of_a_file_do_not_share_what_is_not_whole_yet(tmp_path: Path) -> None:
    path = tmp_path / "runtime.txt"
    with atomic_write(path) as first:
        first.write_text("first, and")
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        with first.open("a") as file:
            file.write(" last")
    assert path.read_text() == "first, and last"
    assert [file.name for file in tmp_path.iterdir()] == ["runtime.txt"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text("before")

    def fail() -> None:
        with atomic_write(path) as new:
            new.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_once_nobody_can_be_writing_it(tmp_path: Path) -> None:
    path = tmp_path / "a[1].json"
    old = tmp_path / ".a[1].json.0123abcd-1-0123.new"
    of_a_release = tmp_path / ".a[1].json.new"
    live = tmp_path / ".a[1].json.89abcdef-1-0123.new"  # of another machine, perhaps
    other = tmp_path / ".b.json.0123abcd-1-0123.new"
    for file in (old, of_a_release, live, other):
        file.write_text("half")
    for file in (old, of_a_release, other):
        os.utime(file, (0, live.stat().st_mtime - LEFTOVER_SECONDS - 1))
    with atomic_write(path) as new:
        new.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, live.name, other.name}


KILLED = """
import os, sys
from pathlib import Path
from rung_runtime.atomic_file import atomic_write
with atomic_write(Path(sys.argv[1])) as new:
    new.write_text("half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
"""


def test_the_next_writer_removes_what_a_killed_one_has_left_and_nothing_of_a_live_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gate.json"

    def write(how: str) -> int:
        env = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
        command = [sys.executable, "-c", KILLED, str(path), how]
        return subprocess.run(command, env=env, check=False).returncode

    assert write("killed") == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_write(path) as new:
        assert not list(tmp_path.iterdir())
        new.write_text("whole")
        assert write("whole") == 0
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
