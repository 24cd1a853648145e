"""`rung update` and `rung up` as a person runs them; merges as such are in tests/test_update.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import copy, git
from test_new import RUNG, Made, programs, released, rung

__all__ = ["released", "rung"]

pytestmark = pytest.mark.slow  # no project is installed, but each test updates rendered projects
CHANGES = {
    "template/tox.ini": ("# The same checks", "# These are the same checks"),
    "template/Makefile": ("# What a person runs.", "# All that a person runs."),
    # From level 1: one more stage.
    "template/dvc.yaml.jinja": (
        "stages:\n",
        "stages:\n  note:\n    cmd: echo noted > artifacts/note.txt\n"
        "    deps: [config/data.yaml]\n    outs: [artifacts/note.txt]\n",
    ),
    "CHANGELOG.md": (
        "",
        "# Changelog\n\n## 2.0.0\n\n### Changed\n\n- Words.\n\n## 1.0.0\n\n- A start.\n",
    ),
}


@pytest.fixture(scope="session")
def two(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template with two versions; the second changes words in what is owned."""
    template = tmp_path_factory.mktemp("two") / "template"
    git(released.parent, "clone", "-q", str(released), str(template))
    (template / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0.0\n\n- A start.\n")
    git(template, "add", "-A")
    git(template, "commit", "-q", "-m", "v1.1")
    git(template, "tag", "v1.1.0")
    for name, (old, new) in CHANGES.items():
        text = (template / name).read_text() if old else ""
        (template / name).write_text(text.replace(old, new) if old else new)
    (template / "runtime/src/rung_runtime/pipeline/new.py").write_text('"""New."""\n')
    git(template, "add", "-A")
    git(template, "commit", "-q", "-m", "v2")
    git(template, "tag", "v2.0.0")
    return template


@pytest.fixture(scope="session")
def untouched(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project of version 1.1 in Git, for reading only."""
    project = copy(two, tmp_path_factory.mktemp("untouched") / "project", {}, vcs_ref="v1.1.0")
    git(project, "init", "-q", "-b", "main")
    commit(project)
    return project


@pytest.fixture
def project(untouched: Path, tmp_path: Path) -> Path:
    """Return a project of version 1.1 in Git, for a test to change."""
    return Path(shutil.copytree(untouched, tmp_path / "project", symlinks=True))


def commit(project: Path) -> str:
    git(project, "add", "-A")
    git(project, "commit", "-q", "--allow-empty", "-m", "mine")
    return git(project, "rev-parse", "HEAD")


def everything(project: Path) -> dict[str, bytes]:
    files = (p for p in project.rglob("*") if p.is_file() and ".git" not in p.parts)
    return {str(p.relative_to(project)): p.read_bytes() for p in files}


def uv(folder: Path, says: str = "exit 0") -> str:
    """Write a uv that notes what it is asked: the checks themselves are not what is tested here."""
    return programs(folder, uv=f'echo "$*" >> "{folder}/asked"; {says}')


def test_an_update_shows_what_is_new_merges_relocks_and_checks(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    (project / "tox.ini").write_text((project / "tox.ini").read_text() + "# mine\n")
    head = commit(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert "v1.1.0 → v2.0.0\n\n## 2.0.0\n### Changed\n- Words.\n" in done.stdout
    assert "A start." not in done.stdout
    assert (project / "tox.ini").read_text().startswith("# These are the same checks")
    assert (project / "tox.ini").read_text().endswith("# mine\n")
    assert (project / "src/rung_runtime/pipeline/new.py").exists()
    commands = (tmp_path / "bin/asked").read_text().splitlines()
    assert commands[0] == "lock --quiet"
    checks = ("ruff check", "ruff format --check", "mypy", "pytest")
    assert [line.rpartition("/project ")[2] for line in commands[1:]] == list(checks)
    assert git(project, "rev-parse", "HEAD") == head, "the commit is the person's"
    commit(project)
    again = rung("update", cwd=project, first=uv(tmp_path / "bin", "exit 9"))
    assert again.returncode == 0, again.stderr
    assert "Nothing to update: the project has v2.0.0, the newest." in again.stdout
    assert git(project, "status", "--porcelain") == ""


def test_an_update_that_changes_the_graph_keeps_what_was_exported_current(
    rung: Callable[..., Made], two: Path, tmp_path: Path
) -> None:
    project = copy(two, tmp_path / "project", {"level": 1}, vcs_ref="v1.1.0")
    git(project, "init", "-q", "-b", "main")
    for name in ("airflow", "luigi"):
        assert rung("export", name, cwd=project).returncode == 0
    ours = project / "orchestration/luigi/flight_delays.py"
    ours.write_text(f"{ours.read_text()}# ours\n")
    commit(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert "Updated orchestration/airflow/flight_delays.py" in done.stdout
    assert "luigi/flight_delays.py was edited, and stays as it is" in done.stdout
    followed = (project / "orchestration/airflow/flight_delays.py").read_text()
    assert '"note": (["run", "--only", "note"], [])' in followed
    assert ours.read_text().endswith("# ours\n")
    assert rung("export", "airflow", "--check", cwd=project).returncode == 0
    refused = rung("export", "luigi", "--check", cwd=project)
    assert refused.returncode == 1
    assert "luigi/flight_delays.py is edited" in refused.stderr


def test_check_says_by_its_exit_code_whether_there_is_something_new(
    rung: Callable[..., Made], project: Path
) -> None:
    (project / "dirty.txt").write_text("A pipeline has left something.\n")
    old = rung("update", "--check", cwd=project)
    assert old.returncode == 1
    assert "v2.0.0 is available, and the project has v1.1.0: run `rung update`" in old.stderr
    assert "- Words." in old.stdout
    now = rung("update", "--check", "--to", "v1.1.0", cwd=project)
    assert now.returncode == 0
    none = rung("update", "--check", "--template", "/nowhere", cwd=project)
    assert none.returncode == 2
    assert git(project, "status", "--porcelain") == "?? dirty.txt"


def test_a_conflict_is_named_can_be_finished_and_is_not_finished_while_it_is_there(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    text = (project / "tox.ini").read_text()
    (project / "tox.ini").write_text(text.replace("# The same checks", "# My checks"))
    commit(project)
    first = uv(tmp_path / "bin")
    done = rung("update", cwd=project, first=first)
    assert done.returncode == 1
    assert "conflict in 1 file(s):\n  - tox.ini\n" in done.stderr
    assert "rung update --continue" in done.stderr
    assert "rung update --abort" in done.stderr
    assert not (tmp_path / "bin/asked").exists(), "nothing is checked yet"
    git(project, "add", "tox.ini")
    still = rung("update", "--continue", cwd=project, first=first)
    assert still.returncode == 1
    assert "unresolved conflicts in tox.ini" in still.stderr
    again = rung("update", cwd=project / "src", first=first)
    assert again.returncode == 2
    assert "is in progress: finish it with `rung update --continue`" in again.stderr
    (project / "tox.ini").write_text("# Mine\n")
    git(project, "add", "tox.ini")
    ended = rung("update", "--continue", cwd=project / "src", first=first)
    assert ended.returncode == 0, ended.stderr
    assert "The project has v2.0.0" in ended.stdout


@pytest.mark.parametrize("clash", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_abort_restores_exactly_what_was_before(
    rung: Callable[..., Made], project: Path, tmp_path: Path, clash: bool
) -> None:
    text = (project / "tox.ini").read_text()
    (project / "tox.ini").write_text(
        text.replace("# The same", "# My") if clash else f"{text}# x\n"
    )
    (project / ".gitignore").write_text((project / ".gitignore").read_text() + "local/\n")
    head = commit(project)
    (project / "local").mkdir()
    (project / "local/notes.txt").write_text("Mine.\n")
    before = everything(project)
    first = uv(tmp_path / "bin", "exit 3")
    assert rung("update", cwd=project, first=first).returncode == 1
    assert everything(project) != before
    (project / "half.txt").write_text("What I tried.\n")
    done = rung("update", "--abort", cwd=project)
    assert done.returncode == 0, done.stderr
    assert everything(project) == before
    assert git(project, "rev-parse", "HEAD") == head
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "ls-files", "-u") == ""
    assert git(project, "show", "refs/rung/aborted:half.txt") == "What I tried."
    twice = rung("update", "--abort", cwd=project)
    assert twice.returncode == 2
    assert "no update is in progress" in twice.stderr


def test_an_update_that_was_committed_is_not_aborted(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    assert rung("update", cwd=project, first=uv(tmp_path / "bin")).returncode == 0
    head = commit(project)
    done = rung("update", "--abort", cwd=project)
    assert done.returncode == 2
    assert "to undo one that was committed, use git revert" in done.stderr
    assert git(project, "rev-parse", "HEAD") == head


def test_a_check_that_fails_is_named_with_what_it_says(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    first = uv(tmp_path / "bin", 'case "$*" in *mypy*) echo "x.py:1: error: no"; exit 1;; esac')
    done = rung("update", cwd=project, first=first)
    assert done.returncode == 1
    assert "mypy … failed\n  x.py:1: error: no\n" in done.stdout
    assert "`uv run mypy` failed" in done.stderr
    assert "ruff" not in done.stderr


def dirty(project: Path) -> None:
    (project / "Makefile").write_text("mine")


def merging(project: Path) -> None:
    (project / ".git/MERGE_HEAD").write_text(git(project, "rev-parse", "HEAD"))


def no_project(project: Path) -> None:
    git(project, "rm", "-q", ".copier-answers.yml")
    commit(project)


def no_version(project: Path) -> None:
    text = (project / ".copier-answers.yml").read_text().replace("v1.1.0", "v0.9")
    (project / ".copier-answers.yml").write_text(text)
    commit(project)


def gone(project: Path) -> None:
    text = (project / ".copier-answers.yml").read_text()
    old = next(line for line in text.splitlines() if line.startswith("_src_path"))
    (project / ".copier-answers.yml").write_text(text.replace(old, "_src_path: /gone.git"))
    commit(project)


def broken(project: Path) -> None:
    (project / ".copier-answers.yml").write_text("a: [")
    commit(project)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (dirty, "has uncommitted changes (Makefile): commit or stash them"),
        (merging, "in the middle of a merge or rebase"),
        (no_project, "is not a project of this template"),
        (no_version, "has no version v0.9"),
        (gone, "/gone.git"),
        (broken, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["update", "up"])
def test_what_cannot_be_updated_is_a_sentence_and_stays_as_it_is(
    rung: Callable[..., Made],
    project: Path,
    fault: Callable[[Path], None],
    reason: str,
    command: str,
) -> None:
    fault(project)
    before = everything(project)
    done = rung(command, *(["--yes"] if command == "up" else []), cwd=project)
    assert done.returncode == 2, done.stdout
    assert reason in done.stderr or (command == "up" and "has no version" in done.stderr)
    assert "Traceback" not in done.stderr
    assert everything(project) == before


def test_lines_that_copier_would_lose_stop_the_update(
    rung: Callable[..., Made], two: Path, tmp_path: Path
) -> None:
    project = copy(two, tmp_path / "project", {"ci": ["github", "gitlab"]}, vcs_ref="v1.1.0")
    git(project, "init", "-q", "-b", "main")
    checks = project / ".gitlab/checks.yml"
    checks.write_text(f"{checks.read_text()}\nown-job:\n  script: echo mine\n")
    commit(project)
    before = everything(project)
    done = rung("update", "--data", "ci=github", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 2
    assert (
        "would lose lines of yours:\n  - .gitlab/checks.yml: own-job: (and 1 more)" in done.stderr
    )
    assert everything(project) == before
    assert git(project, "status", "--porcelain") == ""


def test_a_file_that_git_ignores_is_not_written_over(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    with (project / ".gitignore").open("a") as file:
        file.write("new.py\n")
    commit(project)
    (project / "src/rung_runtime/pipeline/new.py").write_text("# Mine, and not in Git.\n")
    before = everything(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 2
    assert "pipeline/new.py: # Mine, and not in Git." in done.stderr
    assert everything(project) == before


def hidden(project: Path) -> None:
    git(project, "config", "status.showUntrackedFiles", "no")
    (project / "notes.txt").write_text("precious")


def overlooked(project: Path) -> None:
    git(project, "update-index", "--skip-worktree", "Makefile")
    (project / "Makefile").write_text("mine")


def in_the_way(project: Path) -> None:
    (project / "src/rung_runtime/pipeline/new.py").mkdir()
    (project / "src/rung_runtime/pipeline/new.py/mine.txt").write_text("mine")
    commit(project)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (hidden, "has uncommitted changes (notes.txt)"),
        (overlooked, "Git is configured to ignore changes to Makefile"),
        (in_the_way, "a directory stands where the template has a file"),
    ],
)
def test_what_git_does_not_show_is_not_lost(
    rung: Callable[..., Made],
    project: Path,
    tmp_path: Path,
    fault: Callable[[Path], None],
    reason: str,
) -> None:
    fault(project)
    before = everything(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 2, done.stdout
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(project) == before


def test_names_that_are_not_ascii_are_in_nobodys_way(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    (project / "Müller, é.ipynb").write_text("mine")
    (project / "tox.ini").write_text((project / "tox.ini").read_text() + "# mine\n")
    commit(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert (project / "tox.ini").read_text().endswith("# mine\n")


def test_within_a_hook_of_another_repository_that_one_is_left_alone(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    env = {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"), **env)
    assert done.returncode == 0, done.stderr
    assert not (other / ".git/index").exists()
    assert git(other, "symbolic-ref", "HEAD").startswith("refs/heads/")


def test_an_update_that_was_left_behind_is_not_under_way(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    first = uv(tmp_path / "bin")
    assert rung("update", cwd=project, first=first).returncode == 0
    git(project, "switch", "-q", "-c", "updated")
    commit(project)
    git(project, "switch", "-q", "main")
    (project / "idea.md").write_text("Days of work.")
    for option in ("--abort", "--continue"):
        done = rung("update", option, cwd=project, first=first)
        assert done.returncode == 2
        assert "no update is in progress" in done.stderr
    assert (project / "idea.md").exists()


def test_an_address_is_kept_only_if_the_update_begins(
    rung: Callable[..., Made], project: Path, two: Path, tmp_path: Path
) -> None:
    other = tmp_path / "a: copy #1"
    git(tmp_path, "clone", "-q", str(two), str(other))
    head = git(project, "rev-parse", "HEAD")
    before = everything(project)
    wrong = rung("update", "--template", str(other), "--to", "v99", cwd=project)
    assert wrong.returncode == 2
    assert git(project, "rev-parse", "HEAD") == head
    first = uv(tmp_path / "bin", "exit 3")
    assert rung("update", "--template", str(other), cwd=project, first=first).returncode == 1
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert (answers["_src_path"], answers["_commit"]) == (str(other), "v2.0.0")
    assert rung("update", "--abort", cwd=project).returncode == 0
    assert everything(project) == before
    assert git(project, "rev-parse", "HEAD") == head


@pytest.mark.parametrize(
    "setting",
    [
        "apply.whitespace=error-all",
        "core.autocrlf=true",
        pytest.param("diff.noprefix=true", marks=pytest.mark.nightly),  # as in tests/test_update.py
    ],
)
def test_a_persons_git_settings_cost_no_line(
    rung: Callable[..., Made], project: Path, tmp_path: Path, setting: str
) -> None:
    git(project, "config", *setting.split("="))
    with (project / "Makefile").open("a") as file:
        file.write("\n# mine, with a space at the end \n")
    commit(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert "# mine, with a space at the end " in (project / "Makefile").read_text()
    assert "# All that a person runs." in (project / "Makefile").read_text()


def test_a_persons_home_does_not_decide_what_an_update_merges(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "ignored").write_text("Makefile\n*.csv\ntox.ini\n")
    (home / "attributes").write_text("*.csv filter=missing\n")
    for folder in ("templates/hooks", "templates/info", "hooks"):
        (home / folder).mkdir(parents=True)
    (home / "templates/info/exclude").write_text("README.md\nconfig/\n")
    for hook in ("templates/hooks/prepare-commit-msg", "hooks/prepare-commit-msg"):
        (home / hook).write_text("#!/bin/sh\nexit 1\n")
        (home / hook).chmod(0o755)
    with (home / ".gitconfig").open("a") as file:
        file.write('[filter "missing"]\nclean = not-installed\nrequired = true\n')
        file.write("[core]\nexcludesFile = ~/ignored\nattributesFile = ~/attributes\n")
        file.write("hooksPath = ~/hooks\n[init]\ntemplateDir = ~/templates\n")
        file.write("[commit]\ngpgSign = true\n[user]\nsigningKey = nobody\n")
    with (project / "Makefile").open("a") as file:
        file.write("\n# mine\n")
    commit(project)
    done = rung("update", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert "# mine" in (project / "Makefile").read_text()
    assert "# All that a person runs." in (project / "Makefile").read_text()
    assert "# These are the same checks" in (project / "tox.ini").read_text()
    changed = set(git(project, "diff", "--name-only", "HEAD").split())
    assert changed == {".copier-answers.yml", "Makefile", "tox.ini"}


def test_up_shows_what_a_level_adds_and_needs_before_it_asks(
    rung: Callable[..., Made], project: Path, tmp_path: Path
) -> None:
    before = everything(project)
    done = rung("up", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 2, "nobody answers"
    assert "add --yes" in done.stderr
    for line in ("Level 1 adds", " dvc.yaml"):
        assert line in done.stdout
    assert re.search(r"\n  src/rung_runtime/: \d\d+ files of the runtime\n", done.stdout)
    assert done.stdout.count("src/rung_runtime") == 1  # what is not the team's takes one line
    assert "It changes .copier-answers.yml, pyproject.toml, uv.lock.\n" in done.stdout
    assert "It needs:\n  - a place for models" in done.stdout
    assert "changes:\n  deployment: local\n  registry: oci\n" in done.stdout
    assert everything(project) == before
    done = rung("up", "--yes", "--data", "registry=mlflow", cwd=project, first=uv(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert (answers["level"], answers["registry"], answers["_commit"]) == (1, "mlflow", "v1.1.0")
    assert "The project is at level 1, and its checks pass" in done.stdout
    commands = (tmp_path / "bin/asked").read_text()
    assert "ml deploy --target local/staging" in commands


def test_add_brings_an_adapter_with_its_files_requirements_and_configuration(
    rung: Callable[..., Made], two: Path, tmp_path: Path
) -> None:
    first = uv(tmp_path / "bin")
    project = copy(two, tmp_path / "project", {"level": 1}, vcs_ref="v1.1.0")
    git(project, "init", "-q", "-b", "main")
    commit(project)
    for slot, name in (
        ("ci", "gitlab"),
        ("registry", "mlflow"),
        ("target", "kubernetes"),
        ("model_format", "lightgbm"),
    ):
        done = rung("add", slot, name, cwd=project, first=first)
        assert done.returncode == 0, done.stderr
        commit(project)
        again = rung("add", slot, name, cwd=project, first=first)
        assert f"Nothing to add: the project has the {slot} {name}." in again.stdout
        assert again.returncode == 0
    answers = {"level": 1, "ci": ["github", "gitlab"], "model_format": ["skops", "lightgbm"]}
    answers |= {"registry": "mlflow", "deployment": "kubernetes"}
    fresh = everything(copy(two, tmp_path / "fresh", answers, vcs_ref="v1.1.0"))
    readme = fresh.pop("README.md")
    now = everything(project)
    assert now.pop("README.md") != readme  # a seed: it says what it said
    assert now == fresh


def test_help_names_each_slot_that_can_be_added_to(
    rung: Callable[..., Made], tmp_path: Path
) -> None:
    from rung.add import QUESTIONS

    text = rung("add", "--help", cwd=tmp_path).stdout
    assert [slot for slot in QUESTIONS if slot not in text] == []


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("tracker", "wandb"), "there is one tracker, mlflow, and every project of level 1 has it"),
        (("pipeline", "airflow"), "there is one pipeline, dvc: `rung export` writes"),
        (("mesh", "x"), "there is no slot mesh: use one of registry, target, ci"),
        (("registry", "ecr"), "there is no registry ecr: use one of oci, mlflow"),
        (("registry", "mlflow"), "a registry comes with level 1: run `rung up` first"),
    ],
)
def test_what_cannot_be_added_is_a_sentence_and_changes_nothing(
    rung: Callable[..., Made], project: Path, args: tuple[str, str], named: str
) -> None:
    before = everything(project)
    done = rung("add", *args, cwd=project)
    assert done.returncode == 2
    assert named in done.stderr
    assert everything(project) == before


def test_who_ends_a_check_ends_what_it_started(project: Path, tmp_path: Path) -> None:
    now = tmp_path / "now"
    heard = tmp_path / "heard"
    # As uv does: it waits for what it started, which hears of the end as by Ctrl-C.
    waits = f'trap \'touch "{heard}"; kill $!; exit 130\' INT; sleep 60 & touch "{now}"; wait'
    fake = programs(tmp_path / "bin", uv=f'case "$*" in *pytest*) {waits};; esac')
    (tmp_path / ".gitconfig").write_text("[user]\nname = Somebody\nemail = s@example.invalid\n")
    env = {"PATH": f"{fake}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    process = subprocess.Popen([RUNG, "update"], cwd=project, env=env)
    while not now.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait() == 130
    assert heard.exists()


@pytest.mark.slow
def test_a_project_climbs_from_0_to_2_and_each_level_runs(
    rung: Callable[..., Made],
    two: Path,
    installed: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    env = installed(tmp_path / "environment")
    made = rung(
        "new",
        "mine",
        "--defaults",
        "--template",
        str(two),
        "--to",
        "v1.1.0",
        "--data",
        "project_name=Flight delays",
        **env,
    )
    assert made.returncode == 0, made.stderr
    mine = tmp_path / "here/mine"
    for level in (1, 2):
        installed(tmp_path / "environment", level)  # compiled already, which takes a minute
        done = rung("up", "--yes", cwd=mine, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("New settings, which" in done.stdout) == (level == 1)
        assert "New setting " not in done.stdout  # they are shown once, before the question
        fresh = copy(two, tmp_path / f"fresh-{level}", {"level": level}, vcs_ref="v1.1.0")
        for path in (p for p in fresh.rglob("*") if p.is_file()):
            name = path.relative_to(fresh)
            same = (mine / name).read_bytes() == path.read_bytes()
            assert same or name == Path("README.md"), f"{name}, which is the team's"
        for left in ("registry", "service", "mlflow.db", "dvc.lock"):
            assert not (mine / left).exists(), "the rehearsal was in another folder"
        git(mine, "add", "-A")
        assert git(mine, "commit", "-q", "-m", f"Level {level}", "--no-verify") == ""
    more = rung("up", "--yes", "--data", "level=2", cwd=mine)
    assert more.returncode == 2
    top = rung("up", "--yes", cwd=mine)
    assert top.returncode == 2
    assert "the highest there is" in top.stderr
