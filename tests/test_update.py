from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import copy, git, snapshot
from test_paths import files

from copier import run_update

SEED = "src/flight_delays/problem/features.py"


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Return a template: v1 is the working tree, v2 changes a seed and adds to what is owned."""
    template = snapshot(tmp_path / "template")
    git(template, "init", "-q", "-b", "main")
    commit(template, "v1")
    for name in ("template/tox.ini", "template/src/{{package_name}}/problem/features.py"):
        with (template / name).open("a") as file:
            file.write("# of version 2\n")
    (template / "template/src/{{package_name}}/pipeline/new.py").write_text('"""New."""\n')
    commit(template, "v2")
    return template


def commit(repository: Path, tag: str) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", tag)
    git(repository, "tag", tag)


def start(template: Path, to: Path, **answers: object) -> Path:
    project = copy(template, to, answers, vcs_ref="v1")
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "start")
    return project


def update(project: Path, to: str = "v2", **answers: object) -> None:
    git(project, "add", "-A")
    git(project, "commit", "-q", "--allow-empty", "-m", "mine")
    run_update(
        project, data=answers, defaults=True, overwrite=True, quiet=True, unsafe=False, vcs_ref=to
    )
    assert not git(project, "ls-files", "-u")


@pytest.mark.parametrize("level", [0, 1])
def test_an_untouched_project_becomes_a_fresh_one_but_for_its_seeds(
    tagged: Path, tmp_path: Path, level: int
) -> None:
    project = start(tagged, tmp_path / "project", level=level)
    before = (project / SEED).read_bytes()
    update(project)
    fresh = copy(tagged, tmp_path / "fresh", {"level": level}, vcs_ref="v2")
    tracked = git(project, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    assert sorted(tracked) == files(fresh)
    different = {f for f in tracked if (project / f).read_bytes() != (fresh / f).read_bytes()}
    assert different == {SEED}
    assert (project / SEED).read_bytes() == before


def test_edited_and_deleted_seeds_stay_so(tagged: Path, tmp_path: Path) -> None:
    project = start(tagged, tmp_path / "project")
    (project / SEED).write_text("# mine\n")
    (project / "data/raw/flights.csv").unlink()
    (project / "tests/test_problem.py").unlink()
    (project / "README.md").write_text("# Mine\n")
    update(project)
    assert (project / SEED).read_text() == "# mine\n"
    assert (project / "README.md").read_text() == "# Mine\n"
    assert not (project / "data/raw/flights.csv").exists()
    assert not (project / "tests/test_problem.py").exists()


def test_what_is_ours_and_what_is_theirs_merge(tagged: Path, tmp_path: Path) -> None:
    project = start(tagged, tmp_path / "project")
    tox = (project / "tox.ini").read_text()
    (project / "tox.ini").write_text("# mine\n" + tox)
    (project / "notes.md").write_text("Mine.\n")
    update(project)
    assert (project / "tox.ini").read_text() == "# mine\n" + tox + "# of version 2\n"
    assert (project / "notes.md").read_text() == "Mine.\n"


def test_a_level_is_raised_by_an_update_alone(tagged: Path, tmp_path: Path) -> None:
    project = start(tagged, tmp_path / "project", level=0)
    update(project, level=1)
    fresh = copy(tagged, tmp_path / "fresh", {"level": 1}, vcs_ref="v2")
    assert set(files(fresh)) <= set(files(project))
    owned = set(files(fresh)) - {SEED, "README.md"}
    assert all((project / f).read_bytes() == (fresh / f).read_bytes() for f in owned)
    assert yaml.safe_load((project / ".copier-answers.yml").read_text())["level"] == 1


def test_an_update_to_the_same_version_changes_nothing(tagged: Path, tmp_path: Path) -> None:
    project = start(tagged, tmp_path / "project", level=1)
    update(project)
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "updated")
    update(project)
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("mine", ["# mine\n", ""])
def test_a_retired_path_stays_as_the_user_has_it(tagged: Path, tmp_path: Path, mine: str) -> None:
    project = start(tagged, tmp_path / "project")
    (project / "tox.ini").write_text(mine + (project / "tox.ini").read_text())
    before = (project / "tox.ini").read_text()
    (tagged / "template/tox.ini").unlink()
    questions = (tagged / "copier.yml").read_text()
    retired = questions.replace("  - __pycache__\n", "  - __pycache__\n  - /tox.ini\n")
    (tagged / "copier.yml").write_text(retired)
    commit(tagged, "v3")
    update(project, to="v3")
    assert (project / "tox.ini").read_text() == before
    assert not (copy(tagged, tmp_path / "fresh", {}, vcs_ref="v3") / "tox.ini").exists()
