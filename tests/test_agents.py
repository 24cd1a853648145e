"""AGENTS.md, here and in a project, shows commands that work and paths that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Copy, Render, git
from paths import decides, table

OURS = ("AGENTS.md", "CONTRIBUTING.md")
# What other tests run: the fixture `project`, and `test_a_new_project_passes_its_own_checks`.
ELSEWHERE = ["make setup", "make check"]
# Those that stand under "From level 1 on".
LATER = ["uv run ml run --base main", "uv run ml controls --base main", "uv run ml models"]


def commands(page: Path) -> list[str]:
    """Return the commands that a page shows, one a line, without what is said of them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_a_project_tells_agents_the_same_at_every_level(render: Render) -> None:
    shown = [(render(level=level) / "AGENTS.md").read_bytes() for level in (0, 1, 2)]
    assert len(set(shown)) == 1
    documented = commands(ROOT / "template/AGENTS.md")
    assert [command for command in documented if command in ELSEWHERE] == ELSEWHERE
    assert [command for command in documented if command in LATER] == LATER


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1])
def test_every_command_that_agents_are_shown_works(
    ran: Callable[[int, str], Copy], tmp_path: Path, level: int
) -> None:
    copy = ran(level, "multiclass").again(tmp_path / "copy")
    if level:
        copy.ml("register", exits=0)  # else there is no version to list
    git(copy.path, "symbolic-ref", "HEAD", "refs/heads/main")
    git(copy.path, "add", "-A")
    git(copy.path, "commit", "-q", "-m", "base")
    # `uv run` finds the environment that is there, and the packages are the copy's own.
    known = {"UV_PROJECT_ENVIRONMENT": str(copy.project.path / ".venv"), "UV_NO_SYNC": "1"}
    left_out = ELSEWHERE + (LATER if level == 0 else [])
    for command in commands(copy.path / "AGENTS.md"):
        if command not in left_out:
            done = copy.project.run(*shlex.split(command), cwd=copy.path, **known)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_what_agents_are_told_of_a_path_is_what_an_update_does_to_it() -> None:
    text = (ROOT / "template/AGENTS.md").read_text("utf-8")
    classes = {"project": "seed", "template": "owned"}
    rows = re.findall(r"^\| (`.*?) \| the (project|template)'s", text, re.MULTILINE)
    assert {whose for _, whose in rows} == set(classes)
    for names, whose in rows:
        for name in re.findall(r"`([^`]+)`", names):
            path = name.replace("<package>", "flight_delays")
            inside = f"{path}a_file" if path.endswith("/") else path
            row = decides(inside, table(), {"package_name": "flight_delays"})
            assert row is not None, name
            assert row.kind == classes[whose], name


@pytest.mark.parametrize("page", OURS)
def test_every_path_that_is_named_for_contributors_exists(page: str) -> None:
    places = {path.name for path in ROOT.iterdir() if path.is_dir()} | {".ci"}
    named = re.findall(r"`([\w.{}-]+/[\w.{}/-]*)`", (ROOT / page).read_text("utf-8"))
    ours = [name for name in named if name.partition("/")[0] in places]
    assert len(ours) > 10
    assert [name for name in ours if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", OURS)
def test_every_command_for_contributors_is_one(page: str) -> None:
    """`make -n` says what a target would do; pytest collects what it would run."""
    documented = commands(ROOT / page)
    assert {"make quick", "make lint", "make test"} <= set(documented)
    for command in documented:
        first, *rest = shlex.split(command)
        if first == "make":
            done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, check=False)
            assert done.returncode == 0, command
        elif first == ".ci/with-uv":
            assert os.access(ROOT / first, os.X_OK)
            assert rest[:3] == ["uv", "run", "pytest"]
            assert all((ROOT / name).exists() for name in rest[3:] if name.startswith("tests/"))
        else:
            assert first == "uvx", command  # downloads Copier: test_start does what it does
