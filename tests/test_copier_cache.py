"""What Copier repeats for each file is done once, and comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Render, git
from rung import copier_cache
from rung.copier_cache import repeating_nothing
from rung.process import CompletedCommand, run
from test_paths import files

from copier import _main, run_copy

Sync = Callable[..., None]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Return a template of two files, of which one can be executed."""
    template = tmp_path / "toy"
    template.mkdir()
    (template / "copier.yml").write_text("name: {type: str, default: one}\n")
    (template / "{{ name }}.txt.jinja").write_text("{{ name }}\n")
    (template / "run").write_text("#!/bin/sh\n")
    (template / "run").chmod(0o755)
    return template


def copy(template: Path, to: Path, **data: object) -> Path:
    run_copy(str(template), to, data=data, defaults=True, overwrite=True, quiet=True, unsafe=False)
    return to


@pytest.mark.slow  # Copier renders
def test_a_project_is_that_of_copier_alone(render: Render, template: Path, tmp_path: Path) -> None:
    alone = copy(template, tmp_path / "alone", level=2, ci=["github", "gitlab"])
    ours = render(level=2, ci=["github", "gitlab"])
    assert files(alone) == files(ours)
    for name in files(ours):
        pair = alone / name, ours / name
        assert pair[0].read_bytes() == pair[1].read_bytes(), name
        assert pair[0].stat().st_mode == pair[1].stat().st_mode, name


def test_git_is_asked_once_for_a_folder(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the method has another name in this release, and a copy takes twice as long."""
    folders = []

    def asking(command: Sequence[str], folder: Path) -> CompletedCommand:
        folders.append(folder)
        return run(command, folder)

    monkeypatch.setattr(copier_cache, "run", asking)

    def sync(self: Any, path: Path, mode: int) -> None:
        raise AssertionError(f"{path}: Git does not ignore modes here")

    monkeypatch.setattr(_main.Worker, copier_cache.SYNC, sync)
    with repeating_nothing():
        copy(toy, tmp_path / "project")
    assert folders == [tmp_path / "project"]


def test_the_name_and_the_content_of_a_file_follow_the_answers_of_its_copy(
    toy: Path, tmp_path: Path
) -> None:
    with repeating_nothing():
        for name in ("one", "two"):
            project = copy(toy, tmp_path / name, name=name)
            assert (project / f"{name}.txt").read_text() == f"{name}\n"


def test_where_git_ignores_modes_its_index_gets_them_as_from_copier(
    toy: Path, tmp_path: Path
) -> None:
    project = copy(toy, tmp_path / "project")
    git(project, "init", "-q")
    git(project, "add", "--all")
    git(project, "update-index", "--chmod=-x", "run")
    git(project, "config", "core.fileMode", "false")
    (project / "run").write_text("#!/bin/sh\ntrue\n")
    with repeating_nothing():
        copy(toy, project)
    assert git(project, "ls-files", "--stage", "run").startswith("100755 ")


def test_a_release_of_copier_without_the_method_copies_all_the_same(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier_cache, "SYNC", "_no_such_method")
    with repeating_nothing():
        assert (copy(toy, tmp_path / "project") / "one.txt").read_text() == "one\n"
