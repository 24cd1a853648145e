"""What Copier repeats for each file is done once, and comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Render, git
from jinja2.sandbox import SandboxedEnvironment
from rung import copier_cache
from rung.copier_cache import has_no_expression, repeating_nothing
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


@pytest.mark.parametrize("method", ["SYNC", "RENDER", "ANSWERS"])
def test_a_release_of_copier_without_a_method_copies_all_the_same(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(copier_cache, method, "_no_such_method")
    with repeating_nothing():
        assert (copy(toy, tmp_path / "project") / "one.txt").read_text() == "one\n"


def test_copier_is_as_it_was_afterwards() -> None:
    names = copier_cache.SYNC, copier_cache.RENDER, copier_cache.ANSWERS
    before = [getattr(_main.Worker, name) for name in names]
    with repeating_nothing():
        assert all(
            getattr(_main.Worker, name) is not method
            for name, method in zip(names, before, strict=True)
        )
    assert before == [getattr(_main.Worker, name) for name in names]


# Among them what Jinja takes for its own under settings that a template may choose.
TEXTS = ["plain", "", "{", "}}", "%", "# x", "{{ name }}", "{# gone #}", "x\n", "x\r\ny", "\n"]
TEXTS += ["{% if name %}x{% endif %}", "% if name", "a % b", "<% name %>", "[[ name ]]", "## gone"]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"keep_trailing_newline": True, "trim_blocks": True, "lstrip_blocks": True},
    {"variable_start_string": "[[", "variable_end_string": "]]"},
    {"block_start_string": "<%", "block_end_string": "%>", "comment_start_string": "#"},
    {"line_statement_prefix": "%", "line_comment_prefix": "##"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_not_rendered_is_one_that_rendering_does_not_change(
    settings: dict[str, Any], text: str
) -> None:
    environment = SandboxedEnvironment(**settings)
    if has_no_expression(environment, text):
        assert environment.from_string(text).render(name="n") == text
    else:  # nothing that a path has is rendered in vain
        assert text != "plain"


def test_the_file_of_answers_may_be_named_by_an_answer(toy: Path, tmp_path: Path) -> None:
    (toy / "{{ _copier_conf.answers_file }}.jinja").write_text("{{ _copier_answers|to_nice_yaml }}")
    content = (toy / "copier.yml").read_text()
    (toy / "copier.yml").write_text(content + '_answers_file: ".answers-{{ name }}.yml"\n')
    with repeating_nothing():
        project = copy(toy, tmp_path / "project", name="two")
    assert "name: two" in (project / ".answers-two.yml").read_text()
