"""Progress: a line that moves on a terminal, and a line for each stage everywhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from test_watch import Watched, service_watch, steadily, watched

Module = Callable[[str], ModuleType]
Log = Callable[[], list[str]]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
__all__ = ["service_watch", "watched"]  # fixtures


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Log:
    """Return what reads the lines of stderr, without times: the log of a job that likes colours."""
    for name in ("CI", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(name, "1")

    def log() -> list[str]:
        out, err = capsys.readouterr()
        assert not CONTROL.search(out + err)
        return [re.sub(r" +-?\d+\.\d s", "", line) for line in err.splitlines()]

    return log


def test_in_a_log_a_stage_is_one_line_without_control_characters(module: Module, log: Log) -> None:
    progress = module("progress")
    with suppress(ArithmeticError), progress.stages():
        progress.begin("fetch")
        progress.report("1 of 2 [files]")
        progress.report("2 of 2 [files]")
        with progress.stages():  # of what a command calls, which is part of it
            progress.begin("watch")
            raise ArithmeticError
    assert log() == ["✓ fetch  2 of 2 [files]", "✗ watch"]


def test_a_name_is_one_line_and_no_markup_whatever_it_holds(module: Module, log: Log) -> None:
    progress = module("progress")
    names = ["a[/red].csv", "[bold]b.csv", "c\n::error::d.csv", "\x1b[31me.csv"]
    with progress.stages():
        for name in names:
            progress.begin(name)
    shown = ["a[/red].csv", "[bold]b.csv", r"c\n::error::d.csv", r"\x1b[31me.csv"]
    assert log() == [f"✓ {name}" for name in shown]


def test_bad_input_is_answered_by_one_sentence_and_no_stages(module: Module, log: Log) -> None:
    progress = module("progress")
    with suppress(ArithmeticError), progress.stages(quiet_until="models"):
        progress.begin("read")
        progress.begin("contract")
        raise ArithmeticError
    assert log() == []
    with suppress(ArithmeticError), progress.stages(quiet_until="models"):
        progress.begin("read")
        progress.begin("models")
        assert log() == ["✓ read"]
        raise ArithmeticError
    assert log() == ["✗ models"]
    with progress.stages(quiet_until="models"):
        progress.begin("read")
    assert log() == ["✓ read"]


def test_without_a_stage_nothing_is_shown(module: Module, log: Log) -> None:
    progress = module("progress")
    progress.begin("fetch")
    progress.report("1 of 2")
    with progress.stages():
        pass
    assert log() == []


def test_on_a_terminal_the_stage_is_a_line_that_moves_and_says_how_far_it_is(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = module("progress")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        shown = b""
        with progress.stages():
            progress.begin("watch")
            for seconds in (3, 4):
                progress.report(f"{seconds} of 6 s")
                while f"{seconds} of 6 s".encode() not in shown:
                    shown += screen.read(1_000)
        assert "✓".encode() not in shown
        while "✓".encode() not in shown:
            shown += screen.read(1_000)
    assert b"\x1b[2K" in shown  # a line that is cleared, and drawn again


def test_the_watch_of_a_deployment_says_how_far_it_is(
    module: Module, log: Log, watched: Watched
) -> None:
    progress = module("progress")
    with progress.stages():
        progress.begin("watch")
        watched(steadily(2, 0), seconds=5)
    assert log() == ["✓ watch  5 of 5 s, 10 requests, 0 failed"]


@pytest.mark.slow  # a pipeline runs
def test_ml_data_use_says_what_it_does_and_how_far_it_is(
    module: Module, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Path
) -> None:
    progress = module("progress")
    reports: list[str] = []
    show = progress.report

    def report(detail: str) -> None:
        reports.append(detail)
        show(detail)

    monkeypatch.setattr(progress, "report", report)
    project = tmp_path / "project"
    (project / "config").mkdir(parents=True)
    (project / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(project)
    file = tmp_path / "kinds.csv"
    lines = [f"{n % 7},{n * 7919 % 1000},{'abcdefg'[n % 7]}" for n in range(700)]
    file.write_text("\n".join(["a,b,kind", *lines]))
    kept = {path: path.read_bytes() for path in problem.glob("*.py")}
    module("contract.onboard").use(file, "kind", replace=False)
    for path, content in kept.items():  # it replaces rules that are only the example's
        path.write_bytes(content)
    stages = [line.split()[1] for line in log()]
    assert stages == ["read", "contract", "check", "models", "leaks"]
    shares = [int(detail.partition("%")[0]) for detail in reports if "%" in detail]
    assert len(shares) > 8
    assert shares == sorted(shares)
    assert any("part 2 of 4" in detail for detail in reports)


def test_progress_of_the_runtime_is_in_a_project_of_each_level() -> None:
    assert (ROOT / "template/src/rung_runtime/progress.py").is_file()


def test_what_is_wider_than_a_terminal_takes_another_line(module: Module) -> None:
    from rich.console import Console

    progress = module("progress")
    stages = progress.Stages("")
    written = io.StringIO()
    stages.console = Console(file=written, width=80, force_terminal=True, color_system=None)
    stages.name = "search"
    detail = (
        "trial 12 of 60 · best mean_absolute_percentage_error 0.7 (0.6 to 0.8) · about 12 min left"
    )
    line = stages._moving_line()
    line.update(line.task_ids[0], detail=detail)
    stages.console.print(line.get_renderable())
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())
    assert "…" not in text
    for word in detail.split():
        assert word in text


def test_a_table_in_a_pipe_is_as_wide_as_it_is(module: Module) -> None:
    from rich.table import Table

    written = io.StringIO()
    table = Table("what", "value")
    table.add_row("x" * 150, "y" * 150)
    module("progress").open_console(written).print(table)
    assert "x" * 150 in written.getvalue()
    assert "y" * 150 in written.getvalue()
