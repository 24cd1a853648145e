from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import Project, Render, copy, git, run, uv

pytestmark = pytest.mark.slow
Projects = Callable[[int], Project]


@pytest.mark.parametrize("level", [0, 1])
def test_setup_with_an_empty_home_leaves_one_commit_and_a_clean_tree(
    project: Projects, level: int
) -> None:
    made = project(level)
    assert git(made.path, "log", "--format=%s") == "Start the project from its template"
    assert git(made.path, "status", "--porcelain") == ""
    assert git(made.path, "branch", "--show-current") == "main"
    assert "uv.lock" in git(made.path, "ls-files").splitlines()
    assert {"pre-commit", "pre-push"} <= {p.name for p in (made.path / ".git/hooks").iterdir()}


@pytest.mark.parametrize("level", [0, 1])
def test_setup_again_changes_nothing(project: Projects, level: int) -> None:
    made = project(level)
    again = made.run("make", "setup")
    assert again.returncode == 0, again.stderr
    assert git(made.path, "rev-list", "--count", "HEAD") == "1"
    assert git(made.path, "status", "--porcelain") == ""


@pytest.mark.parametrize("level", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_new_project_passes_its_own_checks(project: Projects, level: int) -> None:
    made = project(level)
    check = made.run("make", "check")
    assert check.returncode == 0, check.stdout + check.stderr
    hooks = made.run("uv", "run", "pre-commit", "run", "--all-files", "--hook-stage", "pre-push")
    assert hooks.returncode == 0, hooks.stdout + hooks.stderr


def test_what_other_answers_bring_passes_too_on_the_newest_python_there_is(
    template: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    answers = {"level": 2, "ci": ["github", "gitlab"], "deployment": "kubernetes"}
    copy(template, project, answers)
    inside = partial(run, cwd=project, home=tmp_path / "home")
    known = (
        inside("uv", "python", "find", "--no-python-downloads", "--system", version)
        for version in ("3.13", "3.12")
    )
    paths = (process.stdout.strip() for process in known if process.returncode == 0)
    newest = next(paths, sys.executable)
    hooks = ("uv", "run", "pre-commit", "run", "--all-files", "--hook-stage", "pre-push")
    for command in (("make", "setup"), ("make", "check"), hooks):
        done = inside(*command, UV_PYTHON=newest)
        assert done.returncode == 0, f"{newest}: {done.stdout}{done.stderr}"
    assert git(project, "log", "--format=%s") == "Start the project from its template"
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("level", [0, 1])
def test_the_wheel_carries_every_file_of_the_package(
    project: Projects, tmp_path: Path, level: int
) -> None:
    made = project(level)
    built = made.run("uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path))
    assert built.returncode == 0, built.stderr
    shutil.unpack_archive(next(tmp_path.glob("*.whl")), tmp_path / "wheel", "zip")
    source = made.path / "src"
    files = [p.relative_to(source) for p in source.rglob("*") if p.is_file()]
    assert not [f for f in files if f.suffix != ".pyc" and not (tmp_path / "wheel" / f).exists()]


def test_the_hooks_refuse_what_an_update_leaves_unmerged(project: Projects, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(project(0).path), str(clone))
    marker = "<<<<<<< before updating\nmine\n=======\ntheirs\n>>>>>>> after updating\n"
    (clone / "tox.ini").write_text(marker)
    (clone / "README.md.rej").write_text("@@\n")
    git(clone, "add", "-A")
    # The hooks run programs of the environment that is already there.
    (clone / ".venv").symlink_to(project(0).path / ".venv")
    result = run("uv", "run", "--no-sync", "pre-commit", "run", cwd=clone, home=tmp_path / "home")
    failed = {line.split("..")[0] for line in result.stdout.splitlines() if "Failed" in line}
    assert failed == {"no conflict markers", "no rejected hunks (*.rej)"}


def test_setup_in_a_folder_that_an_outer_repository_ignores_makes_its_own(
    template: Path, installed: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/demo/\n")
    demo = copy(template, tmp_path / "demo", {})
    environment = installed(tmp_path / "environment")
    setup = run("make", "setup", cwd=demo, home=tmp_path / "home", **environment)
    assert setup.returncode == 0, setup.stderr
    assert (demo / ".git").is_dir()


def test_setup_in_a_folder_of_an_outer_repository_leaves_that_alone(
    template: Path, installed: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    git(tmp_path, "init", "-q")
    inner = copy(template, tmp_path / "inner", {})
    environment = installed(tmp_path / "environment")
    setup = run("make", "setup", cwd=inner, home=tmp_path / "home", **environment)
    assert setup.returncode == 0, setup.stderr
    assert not (inner / ".git").exists()
    assert not (tmp_path / ".git/hooks/pre-commit").exists()


@pytest.mark.parametrize("missing", ["git", "uv"])
def test_setup_says_in_a_sentence_what_is_missing(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {"git", "uv", "make", "sh", "awk"} - {missing}:
        (tools / name).symlink_to(uv() if name == "uv" else str(shutil.which(name)))
    result = subprocess.run(
        [str(tools / "make"), "setup"],
        cwd=render(),
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert result.stdout.startswith(f"{missing} is missing: ")
