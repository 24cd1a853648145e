"""What a release has named stays named: projects, their answers and their edits hang on it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import QUESTIONS, ROOT, Render, Rendered
from paths import decides, table
from releases import NOW, last, newest
from test_paths import files

BEFORE: dict[str, dict[str, Any]] = {
    name: about
    for name, about in yaml.safe_load(last("copier.yml")).items()
    if not name.startswith("_")
}


def choices(question: dict[str, Any]) -> list[object]:
    """Give the values that answers keep; what a person reads beside them may change."""
    values = question.get("choices", {})
    return [*values.values()] if isinstance(values, dict) else values


def rows(text: str) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in yaml.safe_load(text)}


@pytest.mark.parametrize("name", BEFORE)
def test_a_question_keeps_its_name_its_type_and_its_choices(name: str) -> None:
    before = BEFORE[name]
    now = QUESTIONS[name]
    assert now["type"] == before["type"]
    assert now.get("multiselect") == before.get("multiselect")
    # Of a question that has no choices yet, any would refuse an answer that some project has.
    assert bool(choices(now)) == bool(choices(before))
    assert [value for value in choices(before) if value not in choices(now)] == []


def moved(path: str, package: str = "{{ package_name }}") -> str:
    """Give the place of a path after the moves of copier/moves.yml."""
    for move in yaml.safe_load((ROOT / "copier/moves.yml").read_text()):
        before = move["from"].replace("{{ package_name }}", package)
        if path.startswith(before) and not path.startswith(f"src/{package}/problem"):
            return str(move["to"] + path.removeprefix(before))
    return path


@pytest.mark.parametrize("name", rows(last("copier/paths.yml")))
def test_a_path_stays_or_moves_by_the_table_and_is_whose_it_was(name: str) -> None:
    before = rows(last("copier/paths.yml"))[name]
    table = rows((ROOT / "copier/paths.yml").read_text())
    place = f"/{moved(name[1:])}"
    folders = [path for path in table if place == path or place.startswith(f"{path}/")]
    now = table[name if name in table else max(folders, key=len)]
    may_become = {"owned": {"owned", "seed", "retired"}, "seed": {"seed", "retired"}}
    assert now["class"] in may_become.get(before["class"], {"retired"})
    # An update takes away what the project's level or answers no longer bring.
    assert now["level"] <= before["level"]
    new = {name: about["default"] for name, about in QUESTIONS.items() if name not in BEFORE}
    allowed = [before.get("answer"), None, *({name: value} for name, value in new.items())]
    assert now.get("answer") in allowed  # of a new question, what its default brings


@pytest.mark.parametrize(
    ("level", "registry", "deployment"),
    [
        (0, "oci", "local"),
        pytest.param(1, "oci", "local", marks=pytest.mark.slow),
        pytest.param(2, "mlflow", "kubernetes", marks=pytest.mark.slow),
    ],
)
def test_no_file_of_a_project_is_taken_away_or_moves_without_an_entry_in_the_table(
    rendered: Rendered, level: int, registry: str, deployment: str
) -> None:
    about: dict[str, object] = {"level": level, "ci": ["github", "gitlab"]}
    if level:
        about |= {"registry": registry, "deployment": deployment}
    there = {*files(rendered(NOW, about))}
    gone = {*files(rendered(f"v{newest()}", about))} - there
    for path in gone:
        if moved(path, "flight_delays") in there:
            continue
        row = decides(path, table(), {"package_name": "flight_delays"})
        assert row is not None, path
        assert row.kind == "retired", path


@pytest.mark.parametrize("level", [0, 2])
def test_every_question_has_a_valid_default(render: Render, level: int) -> None:
    project = render(level=level)
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    explicit = {name: value for name, value in answers.items() if name in QUESTIONS}
    hidden = {name for name in QUESTIONS if "when" in QUESTIONS[name]} if not level else set()
    assert set(QUESTIONS) - hidden <= set(explicit)
    again = render(**explicit)  # given, not by default, an answer is validated
    assert files(again) == files(project)
    assert all((again / f).read_bytes() == (project / f).read_bytes() for f in files(project))
