"""What CONTRIBUTING.md says about a split, a metric and a registry is all that it takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT, Render

SECTIONS = ("Change the split", "Add a metric", "Add an adapter")
BLOCK = re.compile(r"^   ```(diff|python|toml)\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
# What the walks change, or `make generate` reads.
PARTS = ("runtime", "copier", "copier.yml", "docs", "hooks/rung/exports", "pyproject.toml")
TESTS = ("tests/test_split.py", "tests/test_metrics.py")
# Stands in for tests/conftest.py, whose projects no test of a walk needs.
CONFTEST = """
import importlib
import pytest

@pytest.fixture(scope="session")
def module():
    return lambda name: importlib.import_module(f"rung_runtime.{name}")
"""


def walk(section: str) -> list[tuple[str, str]]:
    """Return the blocks of a section: the kind of each, and its text."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [(kind, textwrap.dedent(code)) for kind, code in BLOCK.findall(text)]


def hunks(diff: str) -> list[tuple[str, str, str]]:
    """Return what a block of changes says: a file, the lines that it has, and the new ones."""
    result = []
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, _, changes = part.partition("\n")
        for hunk in changes.split("@@\n"):
            lines = hunk.splitlines()
            old = "\n".join(line[1:] for line in lines if line[0] in " -")
            new = "\n".join(line[1:] for line in lines if line[0] in " +")
            result.append((name, old, new))
    return result


def follow(section: str, root: Path) -> list[str]:
    """Do what a section says in a copy of the repository, and return the files that it changes."""
    names = []
    for kind, code in walk(section):
        if kind == "diff":
            for name, old, new in hunks(code):
                text = (root / name).read_text("utf-8")
                count = f"\n{text}".count(f"\n{old}\n")
                assert count == 1, f"{name} has {count} times:\n{old}"
                (root / name).write_text(text.replace(f"{old}\n", f"{new}\n"), "utf-8")
                names.append(name)
        else:
            first, _, rest = code.partition("\n")
            name = first.removeprefix("# ")
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text("utf-8") + "\n\n" if file.exists() else ""
            file.write_text(before + rest, "utf-8")
            names.append(name)
    return names


def copy_parts(root: Path) -> None:
    """Copy what the walks are about."""
    caches = shutil.ignore_patterns("__pycache__", "images")
    for name in (*PARTS, *TESTS):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=caches, symlinks=True)
        else:
            shutil.copy(ROOT / name, target)


def run(root: Path, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Run Python on the copy's runtime, and return what it printed."""
    paths = [root / "runtime/src", *([cwd / "src"] if cwd else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd or root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository in which all three walks were followed."""
    root = tmp_path_factory.mktemp("walked")
    copy_parts(root)
    for section in SECTIONS:
        follow(section, root)
    # The page of the adapter, which is the contributor's own text.
    (root / "runtime/src/rung_runtime/adapters/registry_shelf/README.md").write_text("# Shelf\n")
    (root / "tests/conftest.py").write_text(CONFTEST)
    (root / "pytest.ini").write_text("[pytest]\n")
    return root


def test_each_walk_changes_lines_that_are_there(tmp_path: Path) -> None:
    copy_parts(tmp_path)
    changed = {section: follow(section, tmp_path) for section in SECTIONS}
    assert [len(names) for names in changed.values()] == [7, 7, 3]
    python = {name for names in changed.values() for name in names if name.endswith(".py")}
    for tool in (("format", "--check"), ("check",)):
        command = [sys.executable, "-m", "ruff", *tool, *sorted(python)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow  # a process each, which imports scikit-learn
def test_what_follows_is_generated_and_the_tests_of_the_walks_pass(walked: Path) -> None:
    run(walked, "copier/generate.py")
    run(walked, "copier/generate.py", "--check")
    assert '    "Shelf: plain folders": shelf\n' in (walked / "copier.yml").read_text("utf-8")
    assert "adapters/registry_shelf" in (walked / "copier/paths.yml").read_text("utf-8")
    assert "shelf = []\n" in (walked / "runtime/pyproject.toml").read_text("utf-8")
    for page in ("adapters", "systems"):
        assert "adapters/registry_shelf/README.md" in (walked / f"docs/{page}.md").read_text()
    schema = (walked / "runtime/src/rung_runtime/documents.schema.json").read_text("utf-8")
    assert '"order"' in schema
    named = "last_rows or balanced_accuracy or TestShelf"
    options = ("-q", "-c", "pytest.ini", "--basetemp", "temporary", "-k", named, "tests")
    assert re.search(r"^10 passed", run(walked, "-m", "pytest", *options), re.M)


@pytest.mark.nightly  # a run of the pipeline
def test_a_project_says_what_the_walks_promise(
    walked: Path, render: Render, tmp_path: Path
) -> None:
    project = shutil.copytree(render(level=0), tmp_path / "project", symlinks=True)
    shutil.rmtree(project / "src/rung_runtime")
    for name, key, value in (
        ("data", "split: {by: time, column: scheduled_departure}", "split: {by: order}"),
        ("gate", "thresholds: {", "thresholds: {balanced_accuracy: 0.55, "),
    ):
        file = project / f"config/{name}.yaml"
        text = file.read_text("utf-8")
        assert key in text
        file.write_text(text.replace(key, value), "utf-8")
    output = run(walked, "-c", "from rung_runtime.cli import main; main()", "run", cwd=project)
    assert "4,800 rows to train on, 1,200 held out by order" in output
    assert re.search(r"balanced_accuracy 0\.\d+ \(0\.\d+ to 0\.\d+\)", output)
    assert re.search(r"balanced_accuracy: 0\.\d+ ≥ 0\.55", output)
