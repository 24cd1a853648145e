"""Projects of each release, as teams leave them, brought to the working tree and a version on."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from conftest import ROOT, Rendered, git, run
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from packaging.version import Version
from paths import decides, table
from releases import IGNORED, NEXT, NOW, RETIRED, released
from rung import RefusedError, UsageError, post_update, update
from rung.console import exit_code
from rung.template import read_answers, resolve_version
from test_frozen import moved

from copier import run_update

pytestmark = pytest.mark.slow  # no project is installed, but each test updates rendered projects
ANSWERS = ".copier-answers.yml"
CI = (["github"], ["gitlab"], ["github", "gitlab"])
RELEASES = [f"v{version}" for version in released()]
BEFORE_THE_MOVE = "v0.2.0"  # the last release with the machinery in the user's package
PACKAGED = [f"v{version}" for version in released() if Version(version) >= Version("0.3")]


def answered(level: int) -> dict[str, Any]:
    """Return the answers of a project; each level has other providers."""
    return {"level": level, "ci": CI[level]}


def packaged(release: str, runtime: str) -> dict[str, str]:
    """Return the answer that has the runtime as a package, if it is asked for."""
    return {"runtime": runtime} if runtime == "package" and release in PACKAGED else {}


def cases(situation: int) -> pytest.MarkDecorator:
    """Return every release with every level and every provider, most of them for the night.

    `make test` has each release once in each of the three situations. Of any two of release,
    situation, level and provider, each pair is there as soon as there are three releases. Releases
    that can have the runtime as a package have that once more in the first two situations.
    """
    rows = []
    for number, release in enumerate(RELEASES):
        chosen = (number + situation) % 3, (number + 2 * situation) % 3
        for level, ci in itertools.product(range(3), range(3)):
            marks = [] if (level, ci) == chosen else [pytest.mark.nightly]
            name = f"{release}-{level}-{'-'.join(CI[ci])}"
            rows.append(pytest.param(release, level, CI[ci], "copied", id=name, marks=marks))
        if release in PACKAGED and situation < 2:
            level, ci = chosen
            marks = [pytest.mark.nightly] if situation else []
            name = f"{release}-{level}-package"
            rows.append(pytest.param(release, level, CI[ci], "package", id=name, marks=marks))
    return pytest.mark.parametrize(("release", "level", "ci", "runtime"), rows)


def start(render: Path, to: Path) -> Path:
    """Make a team's project of a render."""
    shutil.copytree(render, to, symlinks=True)
    git(to, "init", "-q", "-b", "main")
    commit(to)
    return to


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "-q", "--allow-empty", "--no-verify", "-m", "one more")


def bring(project: Path, history: Path, to: str, **answers: object) -> list[str]:
    """Update a project, and name the files with conflicts; Git has to know the same ones."""
    known = read_answers(project)
    try:
        update.merge_version(project, resolve_version(str(history), to), known, answers)
    except RefusedError:
        left = post_update.find_conflicts(project)
        assert left
        unmerged = git(project, "ls-files", "-u", "-z").split("\0")
        assert sorted({line.split("\t")[1] for line in unmerged if line}) == left
        return left
    assert not git(project, "ls-files", "-u")
    return []


def tracked(project: Path) -> list[str]:
    return [name for name in git(project, "ls-files", "-z").split("\0") if name]


def files(project: Path) -> dict[str, bytes]:
    """Read every file but Git's own."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(project.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }


def lines(text: bytes) -> Counter[bytes]:
    """Count the lines of a text that say something, whatever ends them."""
    return Counter(line for line in text.replace(b"\r", b"\n").split(b"\n") if line.strip())


def written(old: Path, project: Path) -> dict[str, Counter[bytes]]:
    """Count, by file, the lines that a team has added to what a version rendered."""
    before = files(old)
    now = files(project)
    mine = {
        name: lines(now[name]) - lines(before.get(name, b""))
        for name in tracked(project)
        if name in now and name != ANSWERS  # which is Copier's, as its first line says
    }
    return {name: counted for name, counted in mine.items() if counted}


def place(name: str, now: Mapping[str, bytes]) -> str:
    """Give where a file is now, by copier/moves.yml."""
    package = re.match("src/(?!rung_runtime/)([a-z_]+)/", name)
    to = moved(name, package[1]) if package else moved(name)
    return to if to in now and name not in now else name


def at_home(text: bytes) -> bytes:
    """Give a text of the package flight_delays with the imports of what moved."""
    text = re.sub(rb"from flight_delays(?!\.problem)", b"from rung_runtime", text)
    return text.replace(b"rung_runtime.inference", b"rung_runtime.model_package")


def lost(mine: Mapping[str, Counter[bytes]], project: Path) -> dict[str, Counter[bytes]]:
    """Count the lines that are no longer in their files, conflict blocks included."""
    now = files(project)
    gone = {name: counted - lines(now.get(place(name, now), b"")) for name, counted in mine.items()}
    return {name: counted for name, counted in gone.items() if counted}


def seeds(project: Path, package: str) -> list[str]:
    """Name the seeds of a project."""
    rows = {name: decides(name, table(), {"package_name": package}) for name in tracked(project)}
    return [name for name, row in rows.items() if row is not None and row.kind == "seed"]


def changes(old: bytes, new: bytes) -> Sequence[tuple[str, int, int, int, int]]:
    """Say, by lines, how one text becomes the other."""
    if old == new:
        return [("equal", 0, len(old.splitlines()), 0, len(new.splitlines()))]
    pair = old.splitlines(), new.splitlines()
    return SequenceMatcher(None, *pair, autojunk=False).get_opcodes()


def aside(old: bytes, new: bytes, line: bytes) -> tuple[bytes, bytes] | None:
    """Insert a line far from every change; give both texts with it, if there is a place."""
    before = old.splitlines(keepends=True)
    after = new.splitlines(keepends=True)
    for kind, a, b, c, _ in changes(old, new):
        far = range(a + 5 * (a > 0), b + 1 - 5 * (b < len(before)))
        if kind == "equal" and far:
            index = far[len(far) // 2]
            if index and not before[index - 1].endswith(b"\n"):
                continue
            then = c + index - a
            return (
                b"".join([*before[:index], line, *before[index:]]),
                b"".join([*after[:then], line, *after[then:]]),
            )
    return None


def across(old: bytes, new: bytes, line: bytes) -> bytes | None:
    """Replace a line that changes, if there is one."""
    before = old.splitlines(keepends=True)
    for kind, a, *_ in changes(old, new):
        if kind == "replace":
            return b"".join([*before[:a], line, *before[a + 1 :]])
    return None


def mine(name: str) -> bytes:
    """Give a line that only a team can have written in a file."""
    return f"# ours, in {name}: naïve, {{{{ braces }}}} and a tab\t.\n".encode()


@cases(0)
def test_an_untouched_project_becomes_a_fresh_one_but_for_its_seeds(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    release: str,
    level: int,
    ci: list[str],
    runtime: str,
) -> None:
    about = {"level": level, "ci": ci} | packaged(release, runtime)
    project = start(rendered(release, about), tmp_path / "project")
    assert bring(project, history, NOW) == []
    fresh = files(rendered(NOW, about))
    old = files(rendered(release, about))
    kept = seeds(project, "flight_delays")
    assert kept
    assert files(project) == fresh | {name: at_home(old[name]) for name in kept}


@cases(1)
def test_what_is_ours_and_what_is_theirs_merge(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    release: str,
    level: int,
    ci: list[str],
    runtime: str,
) -> None:
    """The team has renamed its package, edited every file that it has, and added some."""
    plain = {"level": level, "ci": ci} | packaged(release, runtime)
    about = plain | {"package_name": "later_flights"}
    project = start(rendered(release, plain), tmp_path / "project")
    rename(project, "flight_delays", "later_flights")
    old = files(rendered(release, about))
    new = files(rendered(NEXT, about))
    kept = seeds(project, "later_flights")
    assert {name: text for name, text in files(project).items() if name != "README.md"} == {
        name: text for name, text in old.items() if name != "README.md"
    }
    # Generated since 0.3, and different on each line but those of brackets.
    schema = "src/later_flights/documents.schema.json"
    expected = dict[str, bytes]()
    edited = 0
    for name in tracked(project):
        text = (project / name).read_bytes()
        if name in kept or name == RETIRED:
            (project / name).write_bytes(mine(name) + text)
            moved = at_home((mine(name) + text).replace(b"later_flights", b"flight_delays"))
            expected[name] = moved.replace(b"flight_delays", b"later_flights")
        elif name not in (ANSWERS, schema) and (
            both := aside(text, new[place(name, new)], mine(name))
        ):
            (project / name).write_bytes(both[0])
            expected[place(name, new)] = both[1]
            edited += both[1] != both[0]
    assert edited > 5  # of those that the next version changes
    expected |= own(project)
    # Somebody's editor saves with CRLF; .gitattributes sees to it that no commit has that.
    makefile = (project / "Makefile").read_bytes()
    (project / "Makefile").write_bytes(makefile.replace(b"\n", b"\r\n"))
    commit(project)
    ours = written(rendered(release, about), project)
    assert bring(project, history, NEXT) == []
    now = files(project)
    assert {name: now.get(name) for name in expected} == expected
    assert set(now) == set(new) | set(expected)
    assert not lost(ours, project)


def rename(project: Path, before: str, after: str) -> None:
    """Rename the package, as a team does that has read where its name stands."""
    git(project, "mv", f"src/{before}", f"src/{after}")
    for name in tracked(project):
        text = (project / name).read_bytes()
        for old, new in ((before, after), (before.replace("_", "-"), after.replace("_", "-"))):
            text = text.replace(old.encode(), new.encode())
        (project / name).write_bytes(text)
    commit(project)


def own(project: Path) -> dict[str, bytes]:
    """Add files as teams have them, and give what they say."""
    added = {
        "notes/what we found.md": "# Gefunden\n\nµ = 3 · naïve\n".encode(),
        'notes/naïve «quoted» "name".md': b"mine\n",
        "notes/windows.bat": b"@echo off\r\nrem mine\r\n",
        "notes/no newline": b"mine",
        "notes/latin-1.txt": b"caf\xe9\n",
        "notes/picture.png": bytes(range(256)),
        "notes/Makefile.rej": b"mine: somebody's rejected hunk\n",
        "notes/merge.md": b"<<<<<<< before updating\nours\n=======\n>>>>>>> after updating\n",
        "src/later_flights/own.py": b'"""Ours."""\n',
    }
    for name, text in added.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(text)
    return added


@cases(2)
def test_where_ours_and_theirs_meet_both_are_kept_and_what_was_deleted_stays_so(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    release: str,
    level: int,
    ci: list[str],
    runtime: str,
) -> None:
    """The package has a name of its own; .gitattributes is gone, so that a commit may have CRLF."""
    names = {"package_name": "arrivals", "project_name": "Arrivals"}
    about = {"level": level, "ci": ci} | names | packaged(release, runtime)
    project = start(rendered(release, about), tmp_path / "project")
    old = files(rendered(release, about))
    new = files(rendered(NEXT, about))
    kept = seeds(project, "arrivals")
    where = "src/arrivals" if "src/arrivals/cli.py" in old else "src/rung_runtime"
    deleted = {*kept[::2], ".gitattributes", f"{where}/pipeline/gate.py"}
    deleted |= {f"{where}/pipeline/ingest.py", "data/raw/flights.csv"}
    clash = set[str]()
    expected = dict[str, bytes]()
    for name in deleted:
        (project / name).unlink()
    commit(project)
    proposing = "pipeline/infer.py" if "src/arrivals/cli.py" in old else "contract/propose.py"
    crlf = (".editorconfig", f"{where}/{proposing}")
    for name in sorted(set(old) - deleted - {ANSWERS, *crlf, "tox.ini"}):
        to = place(name, new)
        if to in new and name not in kept and (text := across(old[name], new[to], mine(name))):
            (project / name).write_bytes(text)
            clash.add(to)
    assert {"Makefile", ".gitignore", "pyproject.toml", "src/rung_runtime/cli/app.py"} <= clash
    # Saved with CRLF: one that the next version changes, and one that it does not.
    for name in crlf:
        text = old[name].replace(b"\n", b"\r\n")
        to = place(name, new)
        (project / name).write_bytes(text)
        (clash.add(to) if old[name] != new[to] else expected.update({to: text}))
    assert {".editorconfig"} <= clash
    # What the next version adds, the team has already.
    for name in ("LATER.md", "src/rung_runtime/pipeline/later.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(mine(name))
        clash.add(name)
    expected |= own(project)
    commit(project)
    ours = written(rendered(release, about), project)
    assert set(bring(project, history, NEXT)) == clash
    now = files(project)
    assert not lost(ours, project)
    assert not {place(name, new) for name in deleted} & set(now)
    assert {name: now.get(name) for name in expected} == expected
    assert all(b"<<<<<<< before updating" in now[name] for name in clash)

    commit(project)
    assert bring(project, history, NEXT) == []
    assert git(project, "status", "--porcelain") == ""


def test_what_copier_update_alone_does_with_what_moved(
    history: Path, rendered: Rendered, tmp_path: Path
) -> None:
    """It moves what nobody touched, and deletes what a team changed: hence `rung update`."""
    about = answered(0)
    project = start(rendered(BEFORE_THE_MOVE, about), tmp_path / "project")
    gate = project / "src/flight_delays/pipeline/gate.py"
    gate.write_bytes(gate.read_bytes() + mine("gate.py"))
    commit(project)
    settings: dict[str, Any] = {"defaults": True, "overwrite": True, "skip_answered": True}
    run_update(project, vcs_ref=NOW, quiet=True, unsafe=False, **settings)
    fresh = files(rendered(NOW, about))
    old = files(rendered(BEFORE_THE_MOVE, about))
    kept = seeds(project, "flight_delays")
    assert files(project) == fresh | {name: old[name] for name in kept}  # imports included


def test_an_update_to_the_same_version_changes_nothing(
    history: Path, rendered: Rendered, tmp_path: Path
) -> None:
    project = start(rendered(NOW, answered(1)), tmp_path / "project")
    assert bring(project, history, NOW) == []
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("release", "level"),
    [
        pytest.param(RELEASES[-1], 0),
        pytest.param(RELEASES[-1], 1, marks=pytest.mark.nightly),
        *(
            pytest.param(release, level, marks=pytest.mark.nightly)
            for release in RELEASES[:-1]
            for level in (0, 1)
        ),
    ],
)
def test_a_level_is_raised_by_an_update_alone(
    history: Path, rendered: Rendered, tmp_path: Path, release: str, level: int
) -> None:
    about = answered(level)
    project = start(rendered(release, about), tmp_path / "project")
    kept = seeds(project, "flight_delays")  # a seed of the level that was is the team's
    assert bring(project, history, NOW, level=level + 1) == []
    assert read_answers(project)["level"] == level + 1
    fresh = files(rendered(NOW, about | {"level": level + 1}))
    old = files(rendered(release, about))
    assert files(project) == fresh | {name: at_home(old[name]) for name in kept}


def state(project: Path) -> dict[str, object]:
    """Give all that an update can change: every file, ignored ones too, the index, the commit."""
    return {
        "files": files(project),
        "modes": {name: (project / name).stat().st_mode for name in files(project)},
        "index": git(project, "ls-files", "--stage"),
        "head": git(project, "rev-parse", "HEAD"),
        "branch": git(project, "branch", "--show-current"),
        "status": git(project, "status", "--porcelain"),
    }


def renovated(text: bytes) -> bytes:
    """Return a file as Renovate leaves it: each pin it knows is that of a later release."""
    later = rb"\g<1>" + b"1" * 40 + rb"  # v99.1.0"
    text = re.sub(rb"(?m)(uses: [\w./-]+@)[0-9a-f]{40}  # v[\d.]+$", later, text)
    text = re.sub(rb"(?<=with: \{version: )[\d.]+", b"0.99.1", text)
    digest = b"@sha256:" + b"2" * 64
    text = re.sub(rb"(?m)^(ARG PYTHON=python:)\S+$", rb"\g<1>3.11-slim" + digest, text)
    uv = rb"(?m)^( +default: ghcr\.io/astral-sh/uv:)[\d.]+([^\s@]*)(?:@\S+)?$"
    return re.sub(uv, rb"\g<1>0.99.1\g<2>" + digest, text)


@pytest.mark.parametrize(
    ("release", "level"),
    [
        pytest.param(release, level, marks=[] if chosen else [pytest.mark.nightly])
        for release in RELEASES
        for level in range(3)
        for chosen in [(release, level) == (RELEASES[-1], 2)]
    ],
)
def test_pins_that_renovate_has_moved_cost_no_conflict(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    release: str,
    level: int,
) -> None:
    """The template has other lines there now: uv comes without setup-uv, and comments changed."""
    about = {"level": level, "ci": ["github", "gitlab"]}
    project = start(rendered(release, about), tmp_path / "project")
    for name in tracked(project):
        path = project / name
        path.write_bytes(renovated(path.read_bytes()))
    commit(project)
    before = files(rendered(release, about))
    assert files(project) != before
    assert bring(project, history, NOW) == []
    merged = capsys.readouterr().out.partition("Pins were merged")[2]
    fresh = files(rendered(NOW, about))
    pinned = {name for name in fresh if name in before and renovated(before[name]) != before[name]}
    assert pinned
    for name in pinned:
        text = (project / name).read_bytes()
        assert renovated(text) == renovated(fresh[name]), name
        known = re.findall(rb"uses: ([\w./-]+)@", before[name])
        for action, commit_name in re.findall(rb"uses: ([\w./-]+)@(\S+)", text):
            is_moved = commit_name == b"1" * 40
            # In a file that merged by itself, one that the template has added has the template's.
            assert is_moved == (action in known) or name not in merged, (name, action)
            assert not is_moved or action in known
        for line in text.splitlines():
            if line.startswith(b"ARG PYTHON=") or b"default: ghcr.io" in line:
                assert line.endswith(b"2" * 64)


@pytest.mark.parametrize("name", [pytest.param("Makefile", marks=pytest.mark.nightly), "notes.md"])
def test_an_update_is_taken_back_to_the_byte_whether_there_are_conflicts_or_not(
    history: Path, rendered: Rendered, tmp_path: Path, name: str
) -> None:
    project = start(rendered(NOW, answered(0)), tmp_path / "project")
    old, new = (rendered(version, answered(0)) / name for version in (NOW, NEXT))
    text = across(old.read_bytes(), new.read_bytes(), mine(name)) if old.exists() else mine(name)
    assert text
    (project / name).write_bytes(text)
    commit(project)
    (project / ".env").write_bytes(mine(".env"))  # which Git ignores
    before = state(project)
    assert bring(project, history, NEXT) == ([name] if old.exists() else [])
    assert (project / IGNORED).exists()  # Git ignores what the next version writes there
    (project / "LATER.md").write_bytes(b"work on the update\n")
    after = {path: (project / path).read_bytes() for path in (name, "LATER.md", "pyproject.toml")}
    update.abort(project)
    assert state(project) == before
    for path, text in after.items():
        kept = subprocess.check_output(["git", "show", f"{update.ABORTED}:{path}"], cwd=project)
        assert kept == text


@pytest.mark.parametrize(
    ("release", "level"),
    [
        pytest.param(
            release, level, marks=[] if (release, level) == ("v0.2.0", 0) else [pytest.mark.nightly]
        )
        for release in RELEASES
        for level in (0, 2)
    ],
)
def test_an_update_from_a_release_is_taken_back_to_the_byte(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    release: str,
    level: int,
) -> None:
    """The machinery that moved was edited, conflicts, and has ignored files beside it.

    Before that, what moved is listed, with whose imports were rewritten and who names old places.
    """
    about = answered(level)
    old, new = (files(rendered(version, about)) for version in (release, NEXT))
    has_moved = "src/flight_delays/cli.py" in old
    gate = f"src/{'flight_delays' if has_moved else 'rung_runtime'}/pipeline/gate.py"
    project = start(rendered(release, about), tmp_path / "project")
    (project / gate).write_bytes(across(old[gate], new[place(gate, new)], mine(gate)) or b"")
    (project / "tests/test_own.py").write_text(f"from {gate.split('/')[1]}.pipeline import gate\n")
    (project / "judge.sh").write_text(f"#!/bin/sh\npython {gate}\n")
    commit(project)
    for name in (".env", f"{gate.removesuffix('gate.py')}__pycache__/gate.cpython-311.pyc"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(mine(name))  # which Git ignores
    before = state(project)
    assert before["status"] == ""
    assert bring(project, history, NEXT) == [place(gate, new)]
    report = capsys.readouterr().out
    moves = [name for name in old if name not in new and place(name, new) in new]
    first = f"{moves[0]} → {place(moves[0], new)}"
    count = "1 file" if len(moves) == 1 else f"{len(moves)} files"
    assert report.startswith(f"{count} moved, such as {first}.\n")
    if has_moved:
        assert (
            "Imports of moved modules were rewritten in:\n"
            "  - tests/test_own.py\n"
            "  - tests/test_problem.py\n"
        ) in report
        assert "were not changed:\n  - judge.sh:2\n" in report
        own = "from rung_runtime.pipeline import gate\n"
        assert (project / "tests/test_own.py").read_text() == own
        assert not (project / gate).parent.exists()
    else:
        assert "rewritten" not in report
    update.abort(project)
    assert state(project) == before


def test_exit_codes_say_how_an_update_ended(
    history: Path, rendered: Rendered, tmp_path: Path
) -> None:
    project = start(rendered(NOW, answered(0)), tmp_path / "project")
    hooks = str(ROOT / "hooks")

    def rung(*args: str) -> tuple[int, str]:
        command = (sys.executable, "-m", "rung", "update", *args)
        done = run(*command, cwd=project, home=tmp_path / "home", PYTHONPATH=hooks)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    assert rung("--to", NOW)[0] == 0
    assert rung("--to", NOW, "--check")[0] == 0
    assert rung("--to", NEXT, "--check")[0] == 1
    assert rung("--to", "v101.0.0")[0] == 2
    assert rung("--abort")[0] == 2
    makefile = (project / "Makefile").read_bytes()
    clash = across(makefile, files(rendered(NEXT, answered(0)))["Makefile"], mine("Makefile"))
    (project / "Makefile").write_bytes(clash or b"")
    code, output = rung("--to", NEXT)
    assert (code, "Makefile" in output) == (2, True)  # not committed
    commit(project)
    before = state(project)
    code, output = rung("--to", NEXT)
    assert (code, "\n  - Makefile\n" in output) == (1, True)
    assert git(project, "ls-files", "-u").count("\tMakefile") == 3
    assert rung("--to", NEXT)[0] == 2
    assert rung("--abort")[0] == 0
    assert state(project) == before


@pytest.mark.parametrize("name", ["Makefile/mine.mk", "service", IGNORED, "README.md.rej"])
def test_what_stands_in_the_way_of_an_update_is_told_and_stays(
    rendered: Rendered, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder for a file, a file for a folder, what Git ignores, what Copier calls its own."""
    project = start(rendered(NOW, answered(0)), tmp_path / "project")
    (project / ".git/info/exclude").write_text("*.rej\n")
    (project / "Makefile").unlink()
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_bytes(mine(name))
    commit(project)
    before = state(project)
    assert exit_code(lambda: update.update(project, None, NEXT, [], check=False)) == 2
    assert re.match(r"rung: .*\w", capsys.readouterr().err)
    assert state(project) == before


def test_a_persons_settings_decide_nothing(
    history: Path, rendered: Rendered, tmp_path: Path
) -> None:
    project = start(rendered(NOW, answered(0)), tmp_path / "project")
    for key, value in {
        "apply.whitespace": "fix",
        "apply.ignoreWhitespace": "change",
        "color.ui": "always",
        "core.quotePath": "false",
        "core.hooksPath": "hooks-that-are-not-there",
        "diff.external": "false",
        "diff.mnemonicPrefix": "true",
        "diff.noprefix": "true",
        "merge.conflictStyle": "diff3",
        "status.relativePaths": "false",
        "status.showUntrackedFiles": "no",
    }.items():
        git(project, "config", key, value)
    own(project)
    old, new = (files(rendered(version, answered(0))) for version in (NOW, NEXT))
    blanks = b"# ours  \t \n \t\n\n"
    (project / "Makefile").write_bytes(across(old["Makefile"], new["Makefile"], blanks) or b"")
    gate = "src/rung_runtime/pipeline/gate.py"
    both = aside(old[gate], new[gate], blanks)
    assert both
    (project / gate).write_bytes(both[0])
    commit(project)
    assert bring(project, history, NEXT) == ["Makefile"]
    assert (project / gate).read_bytes() == both[1]
    assert blanks in (project / "Makefile").read_bytes()
    assert b"|||||||" not in (project / "Makefile").read_bytes()


# Lines that a tool on the way may take for its own.
LINES = (
    "<<<<<<< before updating",
    "=======",
    ">>>>>>> after updating",
    "{{ package_name }} {% raw %}",
    "{# never closed",
    "@@ -1,3 +1,3 @@",
    "--- a/Makefile",
    "+++ b/Makefile",
    "\\ No newline at end of file",
    "diff --git a/Makefile b/Makefile",
    "# naïve 日本語 🙂",
    "\ufeff# a byte order mark",
    "\ttabs\tand blanks at the end \t ",
    "a form feed \x0c, an escape \x1b[31m, a next line \x85, a separator \u2028 within",
)
NAMES = (
    "notes.md",
    "LATER.md",
    "src/rung_runtime/pipeline/later.py",
    "src/flight_delays/own/deep/er.py",
    "café.md",
    'with "quotes", blanks and 日本語.md',
    "tab\tand\nnewline.md",
    "back\\slash.md",
    "[glob] *?.md",
    "#hash.md",
    "-dash.md",
    "Makefile.rej",
    "Makefile.orig",
)


@dataclass(frozen=True)
class Edit:
    """What somebody does to one file, drawn."""

    kind: str
    which: int  # of the tracked files, or of NAMES
    where: int  # of the file's lines
    near: bool  # to what the update changes
    line: str

    def make(self, project: Path, changed: Mapping[str, Sequence[int]]) -> None:
        """Do it; numbers are counted round and round the files, and the lines, that there are."""
        every = [path for path in tracked(project) if path != ANSWERS and (project / path).exists()]
        if self.kind == "add":
            every = [*NAMES]
        elif self.near:
            every = [path for path in every if path in changed] or every
        name = every[self.which % len(every)]
        file = project / name
        text = file.read_bytes() if file.is_file() else b""
        parts = text.splitlines(keepends=True)
        line = self.line.encode() + b"\n"
        index = self.where % (len(parts) + 1)
        if self.near and name in changed:
            place = changed[name][self.where % len(changed[name])] + self.where % 7 - 3
            index = min(max(place, 0), len(parts))
        match self.kind:
            case "add" | "insert":
                text = b"".join([*parts[:index], line, *parts[index:]])
            case "replace":
                text = b"".join([*parts[:index], line, *parts[index + 1 :]])
            case "delete":
                text = b"".join([*parts[:index], *parts[index + 1 + self.where % 7 :]])
            case "append":
                text += line.removesuffix(b"\n")
            case "crlf":
                text = text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            case "latin-1":
                text = b"".join([*parts[:index], b"# caf\xe9\n", *parts[index:]])
            case "binary":
                text = b"\0" + self.line.encode()
            case "remove":
                file.unlink(missing_ok=True)
                return
            case "rename":
                git(project, "mv", "-f", name, f"{name}.mine")
                return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)


OFTEN = ("insert", "insert", "replace", "replace", "delete", "add", "append", "crlf")
# What Copier cannot merge is refused, and a trial with one of the last two tests little else.
KINDS = (*OFTEN * 4, *("remove", "rename") * 4, "latin-1", "binary")
NUMBERS = st.integers(0, 9999)
EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(KINDS),
        NUMBERS,
        NUMBERS,
        st.booleans(),
        st.sampled_from(LINES)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")),
    ),
    min_size=3,
    max_size=9,
)


def test_no_edit_that_was_drawn_is_lost(
    history: Path,
    rendered: Rendered,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Edits at random places of random projects, updated, and every line of theirs counted after.

    RUNG_TRIALS says how many there are (4; 300 at night, `make nightly`), RUNG_SEED which. The end
    of the run says what came of them.
    """
    trials = int(os.environ.get("RUNG_TRIALS", "4"))
    first = os.environ.get("RUNG_SEED")
    number = int(first) if first else random.SystemRandom().randrange(2**32)
    outcome = Counter[str]()
    counted = Counter[str]()

    @seed(number)
    @settings(
        max_examples=trials,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate],  # a shorter one would take minutes to find
        suppress_health_check=list(HealthCheck),
    )
    @given(
        release=st.sampled_from(RELEASES),
        to=st.sampled_from([NOW, NEXT, NEXT]),
        level=st.sampled_from([0, 0, 0, 1, 2]),
        ci=st.sampled_from(CI),
        runtime=st.sampled_from(["copied", "copied", "package"]),
        edits=EDITS,
    )
    def trial(
        release: str, to: str, level: int, ci: list[str], runtime: str, edits: list[Edit]
    ) -> None:
        about = {"level": level, "ci": ci} | packaged(release, runtime)
        old, new = (rendered(version, about) for version in (release, to))
        project = start(old, Path(mkdtemp(dir=tmp_path), "project"))  # one that fails is run again
        before = files(old)
        after = files(new)
        changed = {
            name: [a for kind, a, *_ in changes(text, after[new_name]) if kind != "equal"]
            for name, text in before.items()
            if (new_name := place(name, after)) in after and text != after[new_name]
        }
        for edit in edits:
            edit.make(project, changed)
        commit(project)
        if git(project, "status", "--porcelain"):
            # Of other files, an edited .gitattributes changes what they are in Git; whether Git
            # looks at them again depends on when they were written.
            git(project, "add", "--renormalize", ".")
            commit(project)
        ours = written(old, project)
        then = files(project)
        try:
            outcome["conflicts" if bring(project, history, to) else "clean"] += 1
        except UsageError as error:
            if "would lose lines" not in str(error):
                raise
            outcome["refused"] += 1
            assert git(project, "status", "--porcelain") == ""
            assert read_answers(project)["_commit"] == release
        now = files(project)
        gone = lost(ours, project)
        counted["written"] += sum(some.total() for some in ours.values())
        counted["lost"] += sum(some.total() for some in gone.values())
        assert not gone
        assert not (set(before) - set(then)) & set(now)
        only = set(tracked(project)) - set(before) - set(after)
        assert {name: now.get(name) for name in only} == {name: then[name] for name in only}
        shutil.rmtree(project.parent)

    try:
        trial()
    finally:
        counts = ", ".join(f"{count} {how}" for how, count in outcome.items())
        record_property("seed", number)
        record_property("trials", f"{outcome.total()} ({counts})")
        record_property("lines written", counted["written"])
        record_property("lines lost", counted["lost"])
