"""A crash is never taken for a refusal: `ml` ends with 1 only if a check refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from rung_runtime import controls
from rung_runtime.adapters import pipeline_dvc
from rung_runtime.adapters.pipeline_dvc import repro
from rung_runtime.artifacts import DOCUMENTS

ML = "from rung_runtime.cli import main; main()"
# The command `ml report` ends as a test says.
FAILING = """
from rung_runtime.cli import app
import rung_runtime.pipeline.report as report
import rung_runtime.config as config
def fail(*args):
    {failure}
config.load = fail
"""
BUG = "ml: this is a bug of ml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder that `ml` takes for a project of level 0."""
    (tmp_path / "config").mkdir()
    about = '[project]\nname = "x"\n[tool.rung]\npackage = "flights"\nlevel = 0\n'
    (tmp_path / "pyproject.toml").write_text(about)
    (tmp_path / "src/flights/problem").mkdir(parents=True)
    return tmp_path


def ml(code: str, folder: Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run `ml report` after some code."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{ML}", "report"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def test_a_library_that_is_missing_is_named_with_what_to_do(project: Path) -> None:
    done = ml("sys.modules['typer'] = None", project)
    assert done.stderr == "ml: ml needs typer, which is not installed: run `uv sync`\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    "code",
    [
        "sys.modules['rung_runtime.progress'] = None",
        "from rung_runtime import project; project.current = lambda: 1 / 0",
        "from rung_runtime import runner_log; runner_log.filtered = lambda: 1 / 0",
    ],
    ids=["missing", "import", "main"],
)
def test_an_exception_before_the_command_is_a_bug_and_no_refusal(project: Path, code: str) -> None:
    done = ml(code, project)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(BUG)
    assert done.returncode == 70


def test_the_end_of_a_file_is_a_bug_and_not_a_person_who_left(project: Path) -> None:
    done = ml(FAILING.format(failure="raise EOFError('no data left in file')"), project)
    assert "EOFError: no data left in file" in done.stderr
    assert "Aborted" not in done.stderr
    assert done.returncode == 70


def test_output_that_nobody_reads_ends_as_a_shell_says_it(project: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = ml(FAILING.format(failure="print('x', flush=True)"), project, write_end)
    os.close(write_end)
    assert done.stderr.startswith("ml: the pipe is closed")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 141


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (("", "", 70), 70),
        (("", "", -9), 137),
        (("", "", 130), 130),
        (("failed to run: python own.py, exited with 1", "", 1, True), 70),
    ],
    ids=["crash", "kill", "Ctrl-C", "traceback"],
)
def test_a_crash_below_dvc_is_none_of_a_check(failure: tuple[Any, ...], code: int) -> None:
    error = pipeline_dvc._failure(*failure)
    assert isinstance(error, SystemExit)
    assert error.code == code


@pytest.mark.parametrize(("code", "expected"), [(70, 70), (-9, 137)])
def test_a_crash_of_a_judging_step_is_no_verdict_of_the_base(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    expected: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    monkeypatch.setattr(controls, "_copied", lambda *_: None)
    monkeypatch.setattr(controls, "_performed", lambda *_: (code, "no memory"))
    change = {"file": "config/gate.yaml", "key": "tolerance", "before": "1", "after": "2"}
    changed = controls.Controls(base="1234567890", texts={}, changes=[change], unfit=None)
    with pytest.raises(SystemExit) as ended:
        controls.judge(changed)
    assert ended.value.code == expected
    assert capsys.readouterr().err == "ml: by the controls of 12345678: no memory\n"
    assert not DOCUMENTS["controls"].exists()


def test_an_exception_in_the_process_of_dvc_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repro, "open_repo", lambda: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        repro.main()
    assert ended.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
