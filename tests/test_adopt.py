"""`rung adopt`: what people have becomes a project, and no byte of it is lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import repositories
import yaml
from conftest import copy, git, run, snapshot
from filelock import FileLock
from packaging.requirements import Requirement
from repositories import KINDS
from rung import RefusedError, UsageError, pre_update, update
from rung.adopt import git_merge, without_git
from rung.adopt.merge_files import keep_line_ends
from rung.adopt.plan import FilePlan
from rung.git import NO_HOOKS
from rung.template import resolve_version
from test_new import RUNG, STRICT, programs

Done = subprocess.CompletedProcess[str]
HOOKS = ("pre-commit", "commit-msg", "post-checkout")
# Files that hold both sides, line for line; pyproject.toml is converted.
MERGED = {".gitignore", ".gitattributes", ".editorconfig", "Makefile", ".pre-commit-config.yaml"}


def kinds(*test: str, git: bool = False) -> pytest.MarkDecorator:
    """Return all kinds of repositories, or those in Git; the ones not named are for the night."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(kind, marks=[] if kind in test else [pytest.mark.nightly])
            for kind, before in KINDS.items()
            if before.git or not git
        ],
    )


@pytest.fixture(scope="session")
def adoptions(run_folder: Path) -> Path:
    """Return a folder of all workers, with the home of somebody whom Git knows."""
    folder = run_folder / "adopt"
    (folder / "home").mkdir(parents=True, exist_ok=True)
    who = "[user]\nname = Somebody\nemail = some@example.invalid\n"
    (folder / "home/.gitconfig").write_text(who)
    return folder


@pytest.fixture(scope="session")
def released(adoptions: Path) -> Path:
    """Return a template with two versions: the working tree, and one that adds to it."""
    template = adoptions / "template"
    with FileLock(adoptions / "lock-template"):
        if not template.exists():
            made = snapshot(adoptions / "making")
            for command in ("init -q -b main", "add -A", "commit -q -m v1", "tag v1.0.0"):
                git(made, *command.split())
            for name in (".gitignore", "tox.ini", "pyproject.toml.jinja"):
                first, _, rest = (made / "template" / name).read_text().partition("\n")
                (made / "template" / name).write_text(f"{first}\n# of version 2\n{rest}")
            runtime = made / "runtime/src/rung_runtime"
            (runtime / "pipeline/new.py").write_text('"""New."""\n')
            for command in ("add -A", "commit -q -m v2", "tag v2.0.0"):
                git(made, *command.split())
            made.rename(template)
    return template


@pytest.fixture(scope="session")
def rung(adoptions: Path, released: Path) -> Callable[..., Done]:
    """Adopt, as somebody whom Git knows, with the template's first version."""

    def rung(folder: Path, *args: str, first: str = "", **env: str) -> Done:
        arguments = ("adopt", folder.name, "--template", str(released), "--to", "v1.0.0", *args)
        return run(
            *STRICT, *arguments, cwd=folder.parent, home=adoptions / "home", first=first, **env
        )

    return rung


@pytest.fixture(scope="session")
def adopted(
    adoptions: Path, rung: Callable[..., Done], installed: Callable[[Path], dict[str, str]]
) -> Callable[[str], tuple[Path, Path, str]]:
    """Adopt a repository, once for all workers: what it was, what it is, and the report."""

    def adopted(kind: str) -> tuple[Path, Path, str]:
        name = kind.replace(" ", "-")
        folder = adoptions / name
        before = folder / "before" / name
        after = folder / "after" / name
        with FileLock(adoptions / f"lock-{name}"):
            if not (folder / "report").exists():
                shutil.rmtree(folder, ignore_errors=True)
                KINDS[kind].build(before)
                for hook in HOOKS if KINDS[kind].git else ():
                    path = before / ".git/hooks" / hook
                    path.write_text("#!/bin/sh\ntouch hooked\nexit 1\n")
                    path.chmod(0o755)
                shutil.copytree(before, after)
                env = installed(folder / "environment") | {"UV_HTTP_RETRIES": "1"}
                done = rung(after, "--defaults", **env)
                assert done.returncode == 0, done.stdout + done.stderr
                (folder / "report").write_text(done.stdout)
        return before, after, (folder / "report").read_text()

    return adopted


Adopted = Callable[[str], tuple[Path, Path, str]]


@pytest.fixture
def inside(adopted: Adopted, adoptions: Path, tmp_path: Path) -> Callable[..., tuple[Path, Done]]:
    """Run a command in a copy of what was adopted: the copy, and how the command ended."""

    def inside(kind: str, command: str) -> tuple[Path, Done]:
        after = adopted(kind)[1]
        copied = Path(shutil.copytree(after, tmp_path / after.name))
        # The environment knows the package of what was copied.
        env = {"PYTHONPATH": str(copied / "src")}
        env["UV_PROJECT_ENVIRONMENT"] = str(after.parent.parent / "environment")
        env["UV_NO_SYNC"] = "1"  # also of what a Makefile starts
        words = ("uv", "run", *command.split())
        return copied, run(*words, cwd=copied, home=adoptions / "home", **env)

    return inside


def content(folder: Path) -> dict[str, bytes]:
    """Give every byte of a folder, but for objects of Git that nothing names and its caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git/objects/" not in str(path) and path.name != "index"
    }


def blobs(repository: Path, *args: str) -> dict[str, str]:
    listed = git(repository, "ls-tree", "-r", "-z", *args).split("\0")
    pairs = (line.split("\t", 1) for line in listed if line)
    return {name: about.split()[2] for about, name in pairs}


# --- what was there -----------------------------------------------------------------------------


@pytest.mark.slow
@kinds("notebook", "scripts", "poetry", "windows", git=True)
def test_every_byte_that_was_there_is_in_history_and_where_it_was(
    adopted: Adopted, kind: str
) -> None:
    before, after, _ = adopted(kind)
    had = blobs(before, "HEAD")
    has = blobs(after, "rung-adopt")
    reachable = git(after, "rev-list", "--objects", "rung-adopt").split()
    assert set(had.values()) <= set(reachable)
    for name, blob in had.items():
        if has.get(name) == blob:
            assert (after / name).read_bytes() == (before / name).read_bytes()
        elif name in MERGED:
            own = (before / name).read_bytes().decode("utf-8-sig").splitlines()
            lines = {line.strip() for line in (after / name).read_text("utf-8").splitlines()}
            assert {line.strip() for line in own} - {"root = true", "repos:"} <= lines, name
        else:
            moved = [path for path, other in has.items() if other == blob]
            assert moved or name == "pyproject.toml", name


@pytest.mark.slow
def test_without_git_every_file_stays_as_it_is(adopted: Adopted) -> None:
    before, after, _ = adopted("without git")
    has = content(after)
    assert {name: has.get(name) for name in content(before)} == content(before)
    assert "train:" not in has["Makefile"].decode()
    assert {"Makefile.rung", "README.md.rung"} <= set(has)
    assert b"bike model.py" in has["Makefile.rung"]
    assert not (after / ".git").exists()


@pytest.mark.slow
@kinds("notebook", "scripts", "poetry", "windows", git=True)
def test_the_work_tree_is_clean_on_a_branch_whose_merge_has_both_sides(
    adopted: Adopted, released: Path, tmp_path: Path, kind: str
) -> None:
    before, after, report = adopted(kind)
    assert git(after, "status", "--porcelain") == ""
    assert git(after, "branch", "--show-current") == "rung-adopt"
    assert git(after, "rev-parse", "main") == git(before, "rev-parse", "main")
    merge = git(after, "log", "--merges", "--format=%H", "main..rung-adopt")
    ours, render = git(after, "log", "-1", "--format=%P", merge).split()
    assert ours == git(before, "rev-parse", "HEAD")
    assert git(after, "log", "-1", "--format=%P", render) == ""
    answers = yaml.safe_load((after / ".copier-answers.yml").read_text())
    data = {name: value for name, value in answers.items() if name[0] != "_"}
    fresh = copy(released, tmp_path / "fresh", data, vcs_ref="v1.0.0")
    git(fresh, "init", "-q")
    git(fresh, "add", "-A", "-f")
    assert blobs(after, render) == blobs(fresh, git(fresh, "write-tree"))
    body = git(after, "log", "-1", "--format=%B", merge)
    assert body.partition("\n\n")[2].strip() in report
    assert "\033" not in body


@pytest.mark.slow
@kinds("notebook", "scripts", "poetry", "windows", git=True)
def test_no_hook_of_theirs_ran(adopted: Adopted, kind: str) -> None:
    assert not (adopted(kind)[1] / "hooked").exists()


@pytest.mark.slow
def test_line_ends_of_windows_stay(adopted: Adopted) -> None:
    before, after, _ = adopted("windows")
    for name in ("requirements.txt", "run model.py", "Office Energy/My Notebook.ipynb"):
        assert (after / name).read_bytes() == (before / name).read_bytes()
    again = shutil.copytree(after, after.parent / "again")
    shutil.rmtree(again / "Office Energy")
    (again / "run model.py").unlink()
    git(again, *NO_HOOKS, "checkout", "--", ".")  # Git writes them anew
    for name in ("run model.py", "Office Energy/My Notebook.ipynb", "notes [old].txt"):
        assert (again / name).read_bytes() == (before / name).read_bytes()
        git(again, "--literal-pathspecs", "rm", "-q", "--cached", name)
        git(again, "--literal-pathspecs", "add", name)  # as a new file, of which Git has no bytes
    assert git(again, "diff", "--cached", "--name-only") == ""
    shutil.rmtree(again)


# --- what it is now -----------------------------------------------------------------------------


@pytest.mark.slow
@kinds("poetry", "windows", "without git")
def test_the_pipeline_runs_on_the_repositorys_own_data(
    inside: Callable[..., tuple[Path, Done]], kind: str
) -> None:
    after, done = inside(kind, "ml run")
    about = KINDS[kind]
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((after / "artifacts/gate.json").read_text())["verdict"] == "passed"
    contract = yaml.safe_load((after / "config/data.yaml").read_text())
    assert contract["source"] == f"data/raw/{Path(about.file).name}"
    assert (contract["target"], contract["task"]) == (about.target, about.task)
    assert not (after / "data/raw/flights.csv").exists()
    readme = (after / "README.md").read_text("utf-8-sig")
    assert "flights" not in readme


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scripts", pytest.param("poetry", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy", "pytest"])
def test_the_projects_checks_pass_beside_code_that_would_not(
    inside: Callable[..., tuple[Path, Done]], kind: str, check: str
) -> None:
    done = inside(kind, check)[1]
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["package called src", pytest.param("notebook", marks=pytest.mark.nightly)]
)
def test_make_check_passes_in_what_was_adopted(
    inside: Callable[..., tuple[Path, Done]], kind: str
) -> None:
    done = inside(kind, "make check")[1]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.slow
def test_a_package_called_src_stays_and_runs_as_before(
    adopted: Adopted, inside: Callable[..., tuple[Path, Done]]
) -> None:
    report = adopted("package called src")[2]
    assert "not installed any more" not in report
    done = inside("package called src", "python -m src.pipeline.predict_pipeline")[1]
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout


@pytest.mark.slow
@kinds("notebook", "scripts", "poetry", "windows", "without git")
def test_requirements_are_carried_and_locked(adopted: Adopted, kind: str) -> None:
    _, after, report = adopted(kind)
    made = tomllib.loads((after / "pyproject.toml").read_text())
    listed = made["dependency-groups"].get("adopted", [])
    assert {Requirement(entry).name for entry in listed} == KINDS[kind].carried
    assert ("adopted" in made["tool"]["uv"]["default-groups"]) == bool(listed)
    locked = {entry["name"] for entry in tomllib.loads((after / "uv.lock").read_text())["package"]}
    assert KINDS[kind].carried <= locked
    if kind == "scripts":
        assert "scikit-learn==1.0.2 (requirements.txt): conflicts with" in report
        assert "pandas==2.2.0 → pandas>=2.2.0" in report
        assert "https://example.invalid/simple (requirements.txt): not adopted (" in report


@pytest.mark.slow
@kinds("scripts", "poetry", "windows")
def test_an_update_brings_what_is_new_and_takes_no_line(
    adopted: Adopted, released: Path, tmp_path: Path, kind: str
) -> None:
    _, after, _ = adopted(kind)
    project = shutil.copytree(after, tmp_path / "project", ignore=shutil.ignore_patterns("hooks"))
    if not KINDS[kind].git:
        git(project, "init", "-q", "-b", "main")
        git(project, "add", "-A")
        git(project, "commit", "-q", "-m", "mine")
    own = blobs(project, "HEAD")
    known = pre_update.check(project)
    own_tox = r"conflict in 1 file\(s\):\n  - tox\.ini\n"  # it stayed, and the template's changed
    with pytest.raises(RefusedError, match=own_tox) if kind == "poetry" else nullcontext():
        update.merge_version(project, resolve_version(str(released), "v2.0.0"), known, {})
    assert (project / "src/rung_runtime/pipeline/new.py").exists()
    for name in (".gitignore", "pyproject.toml", "tox.ini"):
        assert "# of version 2" in (project / name).read_text(), name
    git(project, "add", "-A")
    has = blobs(project, git(project, "write-tree"))
    changed = {name for name, blob in own.items() if has.get(name) != blob}
    assert changed <= {".copier-answers.yml", ".gitignore", "tox.ini", "pyproject.toml"}
    before = git(project, "diff", "--cached", "--numstat", "HEAD", "--", *changed)
    lost = {line.split()[2]: line.split()[1] for line in before.splitlines()}
    assert {name for name, lines in lost.items() if lines != "0"} <= {".copier-answers.yml"}


@pytest.mark.slow
def test_the_report_names_cells_and_lines_and_where_they_belong(adopted: Adopted) -> None:
    report = adopted("notebook")[2]
    place = "src/notebook/problem"
    assert f"Untitled.ipynb, cell 2: reads data (pd.read_csv) → {place}/data.py" in report
    assert f"cell 3: makes features (pd.get_dummies, df.fillna) → {place}/features.py" in report
    assert f"(RandomForestClassifier, clf.fit) → {place}/model.py" in report
    assert "git switch main && git branch -D rung-adopt" in report
    report = adopted("poetry")[2]
    assert "fault_finder/model.py, line 6: reads data" in report
    assert "checks.yml: yours moves to .github/workflows/checks.before.yml" in report
    assert re.search(r"git show \w{9}:tox\.ini > tox\.rung\.ini", report)
    assert "pyproject.toml asks for >=3.9,<3.13" in report


@pytest.mark.slow
def test_a_file_that_the_machinery_needs_is_moved_aside(adopted: Adopted) -> None:
    before, after, _ = adopted("scripts")
    for name, other in {
        "config/model.yaml": "config/model.before.yaml",
        "pytest.ini": "pytest.before.ini",
    }.items():
        assert (after / other).read_bytes() == (before / name).read_bytes()
    assert not (after / "pytest.ini").exists()
    assert (
        "params" in (after / "config/model.yaml").read_text()
        or "estimator" in (after / "config/model.yaml").read_text()
    )


@pytest.mark.slow
def test_both_sides_of_a_makefile_run(adopted: Adopted) -> None:
    after = adopted("scripts")[1]
    for target, command in {"train": "train.py", "test": "-m pytest tests", "lint": "ruff"}.items():
        done = subprocess.run(["make", "-Bn", target], cwd=after, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert command in done.stdout
        assert "warning" not in done.stderr
    hooks = yaml.safe_load((after / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local", "https://example.invalid/black"]
    left = re.compile(hooks["exclude"])
    assert all(left.search(name) for name in ("train.py", "tests/test_utils.py", "utils.py"))
    assert not any(left.search(n) for n in ("src/churn_prediction/cli.py", "tests/test_new.py"))


@pytest.mark.slow
def test_a_poetry_project_keeps_what_it_says_of_itself(adopted: Adopted) -> None:
    made = tomllib.loads((adopted("poetry")[1] / "pyproject.toml").read_text())
    about = made["project"]
    assert about["version"] == "1.4.0"
    assert about["license"] == "MIT"
    assert about["authors"] == [{"name": "Ada Example", "email": "ada@example.invalid"}]
    assert about["urls"] == {"repository": "https://example.invalid/fault-finder"}
    assert made["tool"]["black"] == {"line-length": 88}
    assert "poetry" not in made["tool"]
    assert "ini_options" not in made["tool"]["pytest"]


# --- asking and refusing --------------------------------------------------------------------------


@pytest.mark.slow
@kinds("conda", "without git")
def test_pretending_tells_what_it_found_and_writes_nothing(
    rung: Callable[..., Done], kind: str, tmp_path: Path
) -> None:
    about = KINDS[kind]
    folder = tmp_path / ("notebook" if kind == "notebook" else "bikes and more")
    about.build(folder)
    before = content(folder)
    done = rung(folder, "--defaults", "--pretend")
    assert done.returncode == 0, done.stderr
    assert content(folder) == before
    for line in (
        f"package_name: {about.package} (",
        f"data: {about.file}\n",
        f"target: {about.target} (",
    ):
        assert line in done.stdout, done.stdout
    assert (f"ci: {about.ci}" in done.stdout) == (about.ci == "gitlab" or "fault" in about.package)
    assert "Nothing was changed." in done.stdout


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    """Return a repository for a test to change."""
    folder = tmp_path / "churn"
    repositories.scripts(folder)
    return folder


def dirty(folder: Path) -> None:
    with (folder / "train.py").open("a") as file:
        file.write("# more\n")


def a_project(folder: Path) -> None:
    (folder / ".copier-answers.yml").write_text("_src_path: x\n_commit: y\n")


def a_branch(folder: Path) -> None:
    git(folder, "branch", "rung-adopt")


def in_the_way(folder: Path) -> None:
    (folder / "tox.ini").write_text("[tox]\n")


def ignored_and_in_the_way(folder: Path) -> None:
    (folder / "src/churn_prediction").mkdir(parents=True)
    (folder / ".git/info/exclude").write_text("tox.ini\n")
    (folder / "tox.ini").write_text("[tox]\n")


def a_link(folder: Path) -> None:
    (folder / "src").symlink_to("/nowhere")


def a_linked_file(folder: Path) -> None:
    git(folder, "mv", "Makefile", "make.file")
    (folder / "Makefile").symlink_to("make.file")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "linked")


def an_environment(folder: Path) -> None:
    (folder / ".venv").mkdir()


def a_merge(folder: Path) -> None:
    (folder / ".git/MERGE_HEAD").write_text(git(folder, "rev-parse", "HEAD") + "\n")


def a_file_for_a_folder(folder: Path) -> None:
    git(folder, "mv", "data", "elsewhere")
    (folder / "data").write_text("https://example.invalid\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "data is far away")


REFUSED: dict[Callable[[Path], None], str] = {
    dirty: "it has uncommitted changes (train.py)",
    a_project: "rung update",
    a_branch: "it already has a branch rung-adopt",
    in_the_way: "tox.ini is not in Git",
    ignored_and_in_the_way: "tox.ini is not in Git",
    a_link: "src is a link",
    a_linked_file: "Makefile is a link",
    an_environment: ".venv is where",
    a_merge: "in the middle of a merge",
    a_file_for_a_folder: "data is a file",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: str(spoil.__name__))
def test_what_cannot_be_adopted_is_refused_in_plain_words(
    rung: Callable[..., Done], churn: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(churn)
    before = content(churn)
    done = rung(churn, "--defaults")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("rung: churn ")
    assert REFUSED[spoil] in done.stderr
    assert "Traceback" not in done.stderr
    assert content(churn) == before


def test_a_folder_of_another_repository_is_refused(rung: Callable[..., Done], churn: Path) -> None:
    done = rung(churn / "tests", "--defaults")
    assert done.returncode == 2
    assert "it is inside the repository" in done.stderr


def test_a_repository_without_a_commit_is_refused(
    rung: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "-q")
    done = rung(tmp_path / "new", "--defaults")
    assert done.returncode == 2
    assert "it has no commit yet" in done.stderr


@pytest.mark.slow
def test_a_python_that_cannot_be_had_is_refused_before_there_is_a_branch(
    released: Path, adoptions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pinned"
    repositories.commit(folder, "one", {".python-version": "3.99\n", "a.py": "import sys\n"})
    command = ("env", "-u", "UV_PYTHON", *STRICT, "adopt", ".", "--defaults")
    options = ("--template", str(released), "--to", "v1.0.0")
    env = {"UV_PYTHON_DOWNLOADS": "never"}
    done = run(*command, *options, cwd=folder, home=adoptions / "home", **env)
    assert done.returncode == 1, done.stdout
    assert "uv lock failed, and nothing was changed: " in done.stderr
    assert "(.python-version asks for Python 3.99)" in done.stderr
    assert git(folder, "branch", "--list", "rung-adopt") == ""


@pytest.mark.slow
def test_an_unknown_file_is_refused(rung: Callable[..., Done], churn: Path) -> None:
    done = rung(churn, "--defaults", "--file", "data/nothing.csv")
    assert done.returncode == 2
    assert "data/nothing.csv: there is no such file" in done.stderr
    assert git(churn, "branch", "--list", "rung-adopt") == ""


GIT = shutil.which("git")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("git", f'case "$*" in *"switch --quiet"*) exit 1;; *) exec {GIT} "$@";; esac'),
        pytest.param(
            "git",
            f'case "$*" in *"-p HEAD"*) exit 1;; *) exec {GIT} "$@";; esac',
            marks=pytest.mark.nightly,
        ),
        ("uv", 'case "$1" in lock) echo no network >&2; exit 2;; *) exec "$REAL" "$@";; esac'),
    ],
    ids=["the last step", "the merge", "the lock"],
)
def test_a_failure_leaves_all_as_it_was(
    rung: Callable[..., Done], tmp_path: Path, name: str, script: str
) -> None:
    folder = tmp_path / "notebook"
    repositories.notebook_only(folder)
    before = content(folder)
    first = programs(tmp_path / "bin", **{name: script})
    real = shutil.which("uv") or str(Path(RUNG).parents[2] / ".tools/bin/uv")
    done = rung(folder, "--defaults", first=first, REAL=real)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert content(folder) == before
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "worktree", "list").count("\n") == 0


def test_without_git_a_failure_takes_back_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    render = tmp_path / "render"
    repositories.no_git(folder)
    before = content(folder)
    (render / "new/deep").mkdir(parents=True)
    for name in ("new/deep/a", "new/b", "bikes.csv"):
        (render / name).write_text("ours\n")
    plan = FilePlan(added=["new/deep/a", "new/b", "bikes.csv"])
    with pytest.raises(UsageError, match=r"bikes\.csv cannot be written"):
        without_git.write_files(folder, render, plan, {})
    assert content(folder) == before
    assert not (folder / "new").exists()


# --- data ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_where_no_target_is_known_the_example_stays_and_the_report_says_what_to_run(
    rung: Callable[..., Done], installed: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    rows = [[n, n % 3] for n in range(300)]
    repositories.commit(folder, "data", {"my table.csv": repositories.table(["a", "b"], rows)})
    done = rung(folder, "--defaults", **installed(tmp_path / "environment"))
    assert done.returncode == 0, done.stderr
    assert "uv run ml data use 'my table.csv' --target COLUMN" in done.stdout
    assert (folder / "data/raw/flights.csv").exists()
    assert git(folder, "log", "--format=%s", "-1") == "Adopt Rung v1.0.0"
    assert git(folder, "status", "--porcelain") == ""


@pytest.mark.slow
def test_what_ml_refuses_is_told_and_the_branch_stays_as_it_was(
    rung: Callable[..., Done], installed: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    rows = [[n, "always"] for n in range(300)]
    repositories.commit(folder, "data", {"t.csv": repositories.table(["a", "b"], rows)})
    done = rung(folder, "--defaults", "--target", "b", **installed(tmp_path / "environment"))
    assert done.returncode == 1
    assert "every row" in done.stdout + done.stderr
    assert "uv run ml data use t.csv --target b" in done.stderr
    assert git(folder, "log", "--format=%s", "-1") == "Adopt Rung v1.0.0"
    assert git(folder, "status", "--porcelain") == ""


@pytest.mark.slow
def test_data_that_git_must_not_have_is_used_and_not_committed(
    rung: Callable[..., Done], installed: Callable[[Path], dict[str, str]], churn: Path
) -> None:
    git(churn, "rm", "-q", "requirements.txt")  # trying which versions go together takes time
    git(churn, "rm", "-q", "--cached", "data/churn.csv")
    with (churn / ".gitignore").open("a") as file:
        file.write("*.csv\n")
    git(churn, "commit", "-q", "-a", "-m", "private data")
    done = rung(churn, "--defaults", **installed(churn.parent / "environment"))
    assert done.returncode == 0, done.stderr
    assert "data/raw/churn.csv is not in Git" in done.stdout
    assert (churn / "data/raw/churn.csv").exists()
    assert not any("churn.csv" in name for name in blobs(churn, "HEAD"))
    assert "data/raw/churn.csv" in (churn / "config/data.yaml").read_text()


def test_git_leaves_the_line_ends_of_any_name_alone(tmp_path: Path) -> None:
    wanted = ["a b.txt", 'q"uote.txt', "br[ack]et.txt", "st*r.txt", "ü/ñ.txt", "back\\slash.txt"]
    wanted += ["a [b] c.txt"]
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("* text=auto eol=lf\n" + keep_line_ends(wanted))
    for name in wanted:
        attributes = git(tmp_path, "-c", "core.quotePath=false", "check-attr", "-z", "text", name)
        assert attributes.split("\0")[2] == "unset", name
    for name in ("stir.txt", "deep/a b.txt"):
        assert git(tmp_path, "check-attr", "-z", "text", name).split("\0")[2] == "auto", name


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_an_orphan_and_a_repository_meet_in_one_commit(tmp_path: Path, object_format: str) -> None:
    repository = tmp_path / "repository"
    render = tmp_path / "render"
    repository.mkdir()
    git(repository, "init", "-q", "-b", "main", f"--object-format={object_format}")
    repositories.commit(repository, "mine", {"a": "mine\n", "b": "mine\n", "c": "mine\n"})
    git(repository, "config", "user.name", "Test")
    git(repository, "config", "user.email", "test@example.invalid")
    repositories.write(render, {"a": "ours\n", "new": "ours\n", "c": "ours\n"})
    (render / "new").chmod(0o755)
    ours = git_merge.commit_orphan(repository, render, "ours")
    commit = git_merge.create_merge(
        repository,
        ours,
        added=["new"],
        moved={"a": "a.before", "b": "b.before"},
        written={"c": b"both\n"},
        message="together",
    )
    assert content(repository).keys() >= {"a", "b", "c"}
    assert "new" not in content(repository)
    shown = {n: git(repository, "show", f"{commit}:{n}") for n in blobs(repository, commit)}
    assert shown == {
        "a": "ours",
        "a.before": "mine",
        "b.before": "mine",
        "c": "both",
        "new": "ours",
    }
    assert "100755" in git(repository, "ls-tree", commit, "new")
