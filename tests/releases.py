"""The template's releases as a history to update along: what was, what is, and a version on."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.version import Version
from rung.git import git, git_succeeds

ROOT = Path(__file__).resolve().parent.parent
NOW = "v99.0.0"  # the working tree, uncommitted files included
NEXT = "v100.0.0"  # what it may become
PACKAGE = "template/src/{{package_name}}"
RUNTIME = "runtime/src/rung_runtime"
# What the next version changes: a line within, and one more at the end. Of every kind some.
CHANGED = (
    "template/.editorconfig",
    "template/.gitignore",
    "template/.pre-commit-config.yaml",
    "template/Dockerfile",
    "template/Makefile",
    "template/dvc.yaml.jinja",
    "template/pyproject.toml.jinja",
    "template/tests/test_controls.py",
    f"{RUNTIME}/cli/app.py",
    f"{RUNTIME}/pipeline/gate.py",
    f"{RUNTIME}/pipeline/split.py",
    f"{RUNTIME}/prediction_log/writer.py",
    f"{RUNTIME}/delivery/image.py",
    "template/.github/workflows/checks.yml",
    "template/.github/workflows/pipeline.yml",
    "template/.gitlab/checks.yml",
    "template/.gitlab/pipeline.yml",
    # Seeds, which no project may see change.
    "template/README.md.jinja",
    "template/config/drift.yaml",
    f"{PACKAGE}/problem/features.py",
)
# One of those that it adds is where a project's .gitignore has what the service leaves.
IGNORED = "service/later.txt"
ADDED = ("template/LATER.md", f"{RUNTIME}/pipeline/later.py", f"template/{IGNORED}")
RETIRED = "tox.ini"


def released() -> dict[str, str]:
    """Give each release's commit, the oldest first."""
    return tomllib.loads((ROOT / "docs/releases.toml").read_text("utf-8"))


def need(version: str, commit: str) -> None:
    """See that a release is in this clone; leave tests out if the clone has no history at all."""
    if git_succeeds(ROOT, "cat-file", "-e", f"{commit}^{{commit}}"):
        return
    message = f"this clone lacks {commit}, release {version}: git fetch --unshallow"
    shallow = git(ROOT, "rev-parse", "--is-shallow-repository") == "true"
    if shallow or git(ROOT, "rev-list", "--count", "HEAD") == "1":
        pytest.skip(message, allow_module_level=True)
    pytest.fail(message)


def commit_of(version: str) -> str:
    """Give a release's commit, which is in this clone, or else the test is left out."""
    commit = released()[version]
    need(version, commit)
    return commit


def history(to: Path) -> Path:
    """Make a repository of the releases, the working tree and the next version, all tagged."""
    for version, commit in released().items():
        need(version, commit)
    git(ROOT, "clone", "--quiet", "--shared", "--no-checkout", ROOT, to)
    for known in git(to, "tag", "--list").splitlines():
        git(to, "tag", "--delete", known)
    for version, commit in released().items():
        git(to, "tag", f"v{version}", commit)
    # Into the copy's index and objects: those of the repository itself stay as they are.
    git(ROOT, f"--git-dir={to / '.git'}", f"--work-tree={ROOT}", "add", "--all")
    tagged(to, NOW)
    git(to, "reset", "--quiet", "--hard")
    change(to)
    git(to, "add", "--all", "--force")  # what projects ignore too
    tagged(to, NEXT)
    return to


def tagged(repository: Path, name: str) -> None:
    """Commit what is in the index, and tag it."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
    git(repository, *who, "commit", "--quiet", "--allow-empty", "-m", name)
    git(repository, "tag", name)


def change(template: Path) -> None:
    """Make the next version of a working tree."""
    for file in filter(Path.exists, (template / name for name in CHANGED)):
        lines = file.read_text("utf-8").splitlines()
        half = range(len(lines) // 2, len(lines))
        within = next(n for n in half if lines[n].strip() and not {*"{}"} & {*lines[n]})
        lines[within] += "  # changed by the next version"
        file.write_text("\n".join([*lines, "# added by the next version", ""]), "utf-8")
    for name in ADDED:
        (template / name).parent.mkdir(exist_ok=True)
        (template / name).write_text("# of the next version\n", "utf-8")
    (template / "template" / RETIRED).unlink(missing_ok=True)
    questions = template / "copier.yml"
    retired = questions.read_text("utf-8").replace("_exclude:\n", f"_exclude:\n  - /{RETIRED}\n")
    questions.write_text(f"{retired}\nlater:\n  type: bool\n  default: true\n", "utf-8")


def newest() -> str:
    """Give the last release."""
    return max(released(), key=Version)


def last(path: str) -> str:
    """Give a file of this repository as the last release has it."""
    commit = released()[newest()]
    need(newest(), commit)
    return git(ROOT, "show", f"{commit}:{path}")
