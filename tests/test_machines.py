"""Machines and people's settings as they are: set aside, or told before anything is written.

`make setup` is run in a folder with the Makefile of the template and a uv that does nothing, where
uv itself does not matter; each case has a fresh home with that one setting.
"""

from __future__ import annotations

import http.server
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest
from conftest import ROOT, environment, git, run
from cryptography import x509
from plumbum import ProcessExecutionError, local
from repositories import write
from rung import (
    RefusedError,
    UsageError,
    certificates,
    console,
    lock,
    pip_config,
    pre_gen,
    pre_update,
)
from rung.adopt import adoption, repository, resolve
from rung.certificates import HINT, certificate_hint
from rung.cli import COMMANDS, Rung, check_command
from rung.console import exit_code
from rung.git import commit as commit_with_rung
from rung.git import git_succeeds, missing_filters
from rung.process import PERSONAL_VARIABLES
from rung.process import run as run_program
from rung.template import read_answers, resolve_version
from standins.inspecting_proxy import Authority, inspecting_proxy

IDENTITY = "[user]\nname = Somebody\nemail = some@example.invalid\n"
NO_UV = """#!/bin/sh
echo "$*" >>"$HOME/asked"
case $1 in workspace) exit 2 ;; sync) touch uv.lock ;; esac
"""
FILES = [
    "Makefile",
    ".gitattributes",
    ".gitignore",
    "data/raw/flights.csv",
    "pyproject.toml",
    "uv.lock",
]
TOY = """\
[project]
name = "toy"
version = "0"
requires-python = ">=3.11"
dependencies = {dependencies}
[tool.uv]
package = false
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the home of somebody whom Git knows, with a uv that does nothing in bin/."""
    home = tmp_path / "home"
    for folder in ("bin", "hooks", "templates/hooks", "templates/info"):
        (home / folder).mkdir(parents=True)
    (home / ".gitconfig").write_text(IDENTITY)
    (home / "bin/uv").write_text(NO_UV)
    (home / "bin/uv").chmod(0o755)
    return home


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the Makefile of a project, and a file of each kind."""
    project = tmp_path / "project"
    (project / "data/raw").mkdir(parents=True)
    shutil.copy(ROOT / "template/Makefile", project)
    shutil.copy(ROOT / "template/.gitignore", project)
    shutil.copy(ROOT / "template/.gitattributes", project)
    (project / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    (project / "data/raw/flights.csv").write_text("a,b\n1,2\n")
    return project


def setup(project: Path, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run("make", "setup", cwd=project, home=home, first=str(home / "bin"), **more)


def refusing(hook: Path) -> None:
    """Write a hook that refuses every commit."""
    hook.write_text("#!/bin/sh\necho 'no ticket in the message' >&2\nexit 1\n")
    hook.chmod(0o755)


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "[core]\nexcludesFile = ~/ignored\n",
        "[core]\nhooksPath = ~/hooks\n",
        "[init]\ntemplateDir = ~/templates\ndefaultBranch = trunk\n",
        '[core]\nattributesFile = ~/attributes\n[filter "lfs"]\nclean = git-lfs-is-missing\n'
        "required = true\n",
        "[core]\nautocrlf = true\nsafecrlf = true\n",
        "[commit]\ngpgSign = true\n[gpg]\nprogram = not-installed\n",
    ],
)
def test_the_first_commit_has_every_file_whatever_a_persons_git_does(
    project: Path, home: Path, setting: str
) -> None:
    (home / "ignored").write_text("*.csv\nuv.lock\nMakefile\ndata/\n")
    (home / "templates/info/exclude").write_text("*.csv\nMakefile\n")
    (home / "attributes").write_text("*.csv filter=lfs\n")
    for folder in ("hooks", "templates/hooks"):
        refusing(home / folder / "commit-msg")
    (home / ".gitconfig").write_text(IDENTITY + setting)
    (project / ".venv").mkdir()
    (project / ".venv/ours").touch()
    done = setup(project, home)
    assert done.returncode == 0, done.stderr
    assert git(project, "ls-files").split() == sorted(FILES)
    assert git(project, "branch", "--show-current") == "main"
    unsigned = "The first commit is not signed, for the reason above" in done.stdout
    assert unsigned == ("gpgSign" in setting)
    assert ("not-installed" in done.stderr) == unsigned, "Git says why"


def test_settings_that_git_cannot_read_are_told_before_anything_is_made(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".gitconfig").write_text("[user\nname = Somebody\n")
    before = sorted(project.rglob("*"))
    done = setup(project, home)
    assert done.returncode == 2
    assert f"bad config line 1 in file {home}/.gitconfig" in done.stderr
    assert sorted(project.rglob("*")) == before
    with local.env(HOME=str(home)):
        assert pre_gen.identity_problems(project) == [
            f"Git cannot read its settings: fatal: bad config line 1 in file {home}/.gitconfig"
        ]
        with pytest.raises(UsageError, match="Git cannot read its settings: fatal: bad config"):
            git_succeeds(project, "rev-parse", "HEAD")


def test_make_setup_in_another_users_repository_gives_the_reason_of_git(
    project: Path, home: Path
) -> None:
    git(project, "init", "-q")
    done = setup(project, home, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode == 2
    assert "dubious ownership" in done.stderr
    assert "--add safe.directory" in done.stderr
    assert not (project / "uv.lock").exists()


def test_a_repository_of_another_user_around_a_folder_is_not_taken_for_none(
    project: Path, home: Path, tmp_path: Path
) -> None:
    git(tmp_path, "init", "-q")
    done = setup(project, home, GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.returncode == 2
    assert "dubious ownership" in done.stderr
    assert not (project / ".git").exists()
    assert not (project / "uv.lock").exists()
    with (
        local.env(HOME=str(home), GIT_TEST_ASSUME_DIFFERENT_OWNER="1"),
        pytest.raises(UsageError, match=rf"safe\.directory {re.escape(str(tmp_path))}\n"),
    ):
        pre_gen.check(tmp_path / "deep/new")
    with local.env(HOME=str(home)):
        assert pre_gen.trust_problems(tmp_path / "deep/new") == []


def test_attributes_of_all_users_of_a_machine_are_set_aside_too(project: Path, home: Path) -> None:
    recording = 'echo "${GIT_ATTR_NOSYSTEM:-0} $*" >>"$HOME/git-calls"'
    (home / "bin/git").write_text(f'#!/bin/sh\n{recording}\nexec {which("git")} "$@"\n')
    (home / "bin/git").chmod(0o755)
    assert setup(project, home).returncode == 0
    calls = (home / "git-calls").read_text().splitlines()
    writing = [call for call in calls if re.search(" (add|commit) -", call)]
    assert len(writing) == 3
    assert all(call.startswith("1 ") for call in writing), writing


def test_a_look_for_python_starts_none_that_stands_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    program.chmod(0o755)
    (tmp_path / "uv.toml").write_text("what uv cannot read")
    monkeypatch.chdir(tmp_path)
    assert pre_gen.program_problems() == []
    assert not (tmp_path / "ran").exists()


def test_a_commit_of_rung_is_unsigned_and_unhooked_if_it_must_be(
    project: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(project, "init", "-q")
    refusing(home / "hooks/prepare-commit-msg")
    setting = "[commit]\ngpgSign = true\n[gpg]\nprogram = not-installed\n"
    (home / ".gitconfig").write_text(f"{IDENTITY}{setting}[core]\nhooksPath = ~/hooks\n")
    with local.env(HOME=str(home)):
        commit_with_rung(project, "Words", "--allow-empty")
        message = capsys.readouterr().out
        assert "is not signed" in message
        assert "not-installed" in message, "the first line of what Git says, too"
        with pytest.raises(UsageError, match="nothing added to commit"):
            commit_with_rung(project, "Words")
    assert git(project, "log", "--format=%s") == "Words"


def test_what_a_program_says_of_its_failure_is_told_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ProcessExecutionError(["git"], 128, "", "error: the cause\nfatal: the consequence.\n")

    assert exit_code(fail) == 2
    assert capsys.readouterr().err == "rung: git:\n  error: the cause\n  fatal: the consequence.\n"
    failed = run_program(["sh", "-c", "echo a cause >&2; exit 3"], tmp_path)
    assert failed.reason == "a cause"
    assert run_program(["sh", "-c", "exit 3"], tmp_path).reason == "exit code 3"


def test_a_bug_of_rung_is_a_traceback_a_sentence_and_exit_code_70(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise LookupError("a mistake of ours")

    assert exit_code(command) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "LookupError: a mistake of ours"
    assert lines[-1].startswith(
        "rung: this is a bug of rung, not of your repository: please report"
    )


@pytest.mark.parametrize(
    ("direct_url", "address"),
    [
        ('{"url": "https://me:secret@git.test/rung.git"}', "https://git.test/rung.git"),
        ('{"url": "file:///home/me/rung"}', "file:///home/me/rung"),
        (None, "rung"),
        ("{", "rung"),
    ],
)
def test_a_bug_is_reported_where_rung_came_from(
    monkeypatch: pytest.MonkeyPatch, direct_url: str | None, address: str
) -> None:
    installed = SimpleNamespace(read_text=lambda _: direct_url)
    monkeypatch.setattr(console, "distribution", lambda _: installed)
    assert console.origin() == address


# What a folder around a project can be to uv.


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a uv workspace with a lock."""
    workspace = tmp_path / "workspace"
    (workspace / "packages").mkdir(parents=True)
    members = '[tool.uv.workspace]\nmembers = ["packages/*"]\nexclude = ["packages/left-out"]\n'
    (workspace / "pyproject.toml").write_text(TOY.format(dependencies="[]") + members)
    run_program(["uv", "lock", "--quiet"], workspace)
    return workspace


@pytest.mark.parametrize(
    ("folder", "members", "is_member"),
    [
        ("packages/churn", '["packages/*"]', True),
        ("packages/churn", '["./packages/churn"]', True),
        ("a/b/churn", '["**/churn"]', True),
        ("packages/left-out", '["packages/*"]', False),
        ("packages/deep/churn", '["packages/*"]', False),
        ("churn", '["packages/*"]', False),
        ("churn", '["/absolute/*", "", "../*"]', False),
    ],
)
def test_a_folder_that_would_join_a_workspace_is_told_before_its_lock_changes(
    workspace: Path, folder: str, members: str, is_member: bool
) -> None:
    text = (workspace / "pyproject.toml").read_text().replace('["packages/*"]', members)
    (workspace / "pyproject.toml").write_text(text)
    problems = pre_gen.workspace_problems(workspace / folder)
    assert len(problems) == is_member
    if problems:
        assert f"uv workspace {workspace}" in problems[0]
        assert f'add "{folder}" to exclude of [tool.uv.workspace]' in problems[0]
        return
    # Then uv sees it so, too.
    (workspace / folder).mkdir(parents=True)
    (workspace / folder / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    before = (workspace / "uv.lock").read_bytes()
    assert run_program(["uv", "lock", "--quiet"], workspace / folder).succeeded
    assert (workspace / "uv.lock").read_bytes() == before
    assert (workspace / folder / "uv.lock").exists()


def test_make_setup_in_a_workspace_leaves_its_lock_alone(workspace: Path, home: Path) -> None:
    member = workspace / "packages/churn"
    member.mkdir()
    shutil.copy(ROOT / "template/Makefile", member)
    text = TOY.format(dependencies="[]").replace("toy", "churn")
    (member / "pyproject.toml").write_text(text)
    before = (workspace / "uv.lock").read_bytes()
    (home / "bin/uv").unlink()
    done = setup(member, home)
    assert done.returncode == 2
    assert f"is a member of the uv workspace {workspace}" in done.stdout
    assert (workspace / "uv.lock").read_bytes() == before
    assert [path.name for path in member.iterdir()] != []
    assert not (member / ".git").exists()


def test_a_project_is_locked_where_no_folder_around_it_matters(workspace: Path) -> None:
    stage = workspace / "packages/.left-out-x1y2"
    stage.mkdir()
    (stage / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    before = (workspace / "uv.lock").read_bytes()
    assert lock.lock_elsewhere(stage) is None
    assert (stage / "uv.lock").exists()
    assert (workspace / "uv.lock").read_bytes() == before


def test_an_update_in_a_workspace_is_refused_before_it_begins(workspace: Path) -> None:
    project = workspace / "packages/churn"
    project.mkdir()
    (project / ".copier-answers.yml").write_text("_commit: v1\n_src_path: x\nlevel: 1\n")
    git(project, "init", "-q")
    git(project, "commit", "-q", "--allow-empty", "-m", "mine")
    with pytest.raises(UsageError, match="would be a member of the uv workspace"):
        pre_update.check(project)
    shutil.rmtree(project / ".git")
    (project / ".copier-answers.yml").unlink()
    with pytest.raises(UsageError, match="would be a member of the uv workspace"):
        repository.inspect(project)


# A person's own settings of uv.


def test_a_lock_does_not_depend_on_how_old_a_persons_packages_have_to_be(
    tmp_path: Path, home: Path
) -> None:
    lines = (ROOT / "template/pyproject.toml.jinja").read_text().splitlines()
    own = next(line for line in lines if line.startswith("exclude-newer"))
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]") + own)
    (home / ".config/uv").mkdir(parents=True)
    (home / ".config/uv/uv.toml").write_text('exclude-newer = "7 days"\n')
    assert run("uv", "lock", cwd=tmp_path, home=home).returncode == 0
    check = run("uv", "lock", "--check", cwd=tmp_path, home=tmp_path / "pipeline")
    assert check.returncode == 0, check.stderr
    assert lock.personal_settings(tmp_path) == ""


def test_what_a_person_has_set_for_uv_and_pipelines_lack_is_told(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    (home / ".config/uv").mkdir(parents=True)
    (home / ".config/uv/uv.toml").write_text(
        'prerelease = "allow"\nexclude-newer-package = { a = "2020-01-01T00:00:00Z" }\n'
        '[[dependency-metadata]]\nname = "a"\nversion = "1"\nrequires-dist = []\n'
    )
    with local.env(**environment(home), UV_EXCLUDE_NEWER="2020-01-01", UV_PROJECT="elsewhere"):
        assert lock.lock(tmp_path) is None
    message = lock.personal_settings(tmp_path)
    assert message.count("\n") == 3, "the variables do not count"
    assert 'prerelease: add prerelease = "allow" to [tool.uv] of pyproject.toml' in message
    assert "exclude-newer-package: add what your own settings say of it to [tool.uv]" in message
    assert "dependency-metadata: add what your own settings say of it to [tool.uv]" in message
    package = '[[package]]\nname = "x"\nsource = { registry = "https://mirror.invalid/simple" }\n'
    (tmp_path / "uv.lock").write_text(package)
    assert "the index https://mirror.invalid/simple: add [[tool.uv.index]]" in (
        lock.personal_settings(tmp_path)
    )


def test_a_setting_in_a_lock_that_nobody_knows_yet_counts_as_a_persons(tmp_path: Path) -> None:
    own = 'exclude-newer = "7 days"\ndependency-metadata = [{ name = "a" }]\n'
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]") + own)
    team = '[options]\nexclude-newer = "2026-01-01T00:00:00Z"\nexclude-newer-span = "P7D"\n'
    manifest = '[manifest]\nmembers = ["a", "b"]\n'
    metadata = '[[manifest.dependency-metadata]]\nname = "{}"\n'
    (tmp_path / "uv.lock").write_text(team + manifest + metadata.format("a"))
    assert lock.personal_settings(tmp_path) == ""
    person = f'{team}future = true\n{manifest}overrides = ["a<2"]\n'
    (tmp_path / "uv.lock").write_text(person + metadata.format("a") + metadata.format("b"))
    lines = lock.personal_settings(tmp_path).splitlines()[1:]
    assert [line.strip(" -").partition(":")[0] for line in lines] == [
        "future",
        "override-dependencies",
        "dependency-metadata",
    ]


def test_variables_of_one_person_decide_neither_the_lock_nor_what_is_installed(
    project: Path, home: Path, tmp_path: Path
) -> None:
    (home / "bin/uv").write_text(f'#!/bin/sh\nenv >>"$HOME/seen"\n{NO_UV}')
    assert {"UV_NO_DEV", "UV_NO_EDITABLE", "UV_EXCLUDE_NEWER_PACKAGE"} <= {*PERSONAL_VARIABLES}
    variables = dict.fromkeys(PERSONAL_VARIABLES, "1")
    assert setup(project, home, UV_OFFLINE="1", **variables).returncode == 0
    with local.env(**variables, UV_OFFLINE="1"):
        seen = [(home / "seen").read_text(), run_program(["env"], tmp_path).text]
    for text in seen:
        names = {line.partition("=")[0] for line in text.splitlines()}
        assert "UV_OFFLINE" in names
        assert names.isdisjoint(PERSONAL_VARIABLES)


@pytest.mark.parametrize("kind", ["project", "conda"])
def test_an_environment_that_has_another_use_stays_as_it_is(
    tmp_path: Path, home: Path, project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shared = tmp_path / "shared"
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", str(shared))
    assert pre_gen.surrounding_problems(project) == []
    record = shared / "lib/python3.13/site-packages/other-0.dist-info/direct_url.json"
    if kind == "project":
        record.parent.mkdir(parents=True)
        record.write_text('{"url":"file:///other","dir_info":{"editable":true}}')
    else:
        (shared / "conda-meta").mkdir(parents=True)
    assert f"UV_PROJECT_ENVIRONMENT is {shared}, which" in pre_gen.surrounding_problems(project)[0]
    if kind == "project":
        done = setup(project, home, UV_PROJECT_ENVIRONMENT=str(shared))
        assert done.returncode == 2
        assert "which the project above uses" in done.stdout
        record.write_text(f'{{"url":"file://{project}","dir_info":{{"editable":true}}}}')
        assert pre_gen.surrounding_problems(project) == []
    assert setup(project, home, UV_PROJECT_ENVIRONMENT=str(shared)).returncode == 0
    assert "sync --inexact" in (home / "asked").read_text(), "takes nothing away"


INDEX_NOTE = """\
{place} names the index https://packages.invalid/simple, which neither uv nor pipelines read: if a \
package comes from it, uv add --group adopted PACKAGE --index \
packages-invalid=https://packages.invalid/simple"""


@pytest.mark.parametrize("place", ["PIP_EXTRA_INDEX_URL", "~/.config/pip/pip.conf", "own.conf"])
def test_an_index_of_a_persons_pip_is_told_without_its_password(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    # Not those of this machine.
    monkeypatch.setattr(pip_config, "PIP_FILES", pip_config.PIP_FILES[1:])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    assert adoption.personal_index_notes(tmp_path) == []
    urls = "https://pypi.org/simple https://me:secret@packages.invalid/simple"
    if place.startswith("PIP_"):
        monkeypatch.setenv(place, urls)
    else:
        monkeypatch.setenv("PIP_CONFIG_FILE", "own.conf")
        file = Path(place).expanduser()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[install]\nextra-index-url =\n  {urls.replace(' ', chr(10) + '  ')}\n")
    assert adoption.personal_index_notes(tmp_path) == [INDEX_NOTE.format(place=place)]
    own = '[[tool.uv.index]]\nname = "own"\nurl = "https://packages.invalid/simple/"\n'
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]") + own)
    assert adoption.personal_index_notes(tmp_path) == []


def test_an_index_of_a_persons_uv_is_told_after_adopting(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies="[]"))
    package = '[[package]]\nname = "x"\nsource = { registry = "https://mirror.invalid/simple" }\n'
    (tmp_path / "uv.lock").write_text(package)
    (note, *_) = adoption.personal_index_notes(tmp_path)
    assert "the index https://mirror.invalid/simple: add [[tool.uv.index]]" in note


# A filter whose program is missing.

LFS = '[filter "lfs"]\nprocess = git-lfs filter-process\nrequired = true\n'
FILTERS = {
    "not installed": ("*.csv filter=lfs\n", LFS, "git-lfs is not installed"),
    "not installed or set up": ("*.csv filter=lfs\n", "", "git-lfs is not installed"),
    "another": (
        "*.csv filter=crypt\n",
        '[filter "crypt"]\nclean = not-here -c\nrequired = true\n',
        "not-here is not installed",
    ),
    "not required": ("*.csv filter=tidy\n", '[filter "tidy"]\nclean = not-here -c\n', ""),
    "not a filter": ("*.csv -filter text\n", LFS, ""),
    "nothing of it": ("*.parquet filter=lfs\n", LFS, ""),
    "shell": ("*.csv filter=sh\n", '[filter "sh"]\nclean = "$X/y -z"\nrequired = true\n', ""),
}


@pytest.mark.parametrize(("attributes", "settings", "reason"), FILTERS.values(), ids=FILTERS)
def test_a_filter_whose_program_is_missing_is_told_before_anything_is_written(
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    attributes: str,
    settings: str,
    reason: str,
) -> None:
    monkeypatch.setattr("rung.git.is_installed", lambda name: name != "git-lfs" and which(name))
    project = tmp_path / "theirs"
    project.mkdir()
    (project / ".gitattributes").write_text(attributes)
    (project / "rows.csv").write_text("a,b\n1,2\n")
    (project / ".copier-answers.yml").write_text("_commit: v1\n_src_path: x\nlevel: 1\n")
    git(project, "init", "-q")
    (home / ".gitconfig").write_text(IDENTITY)
    # As whoever committed it had the program.
    git(project, "-c", "core.attributesFile=/dev/null", "update-index", "--add", ".gitattributes")
    blob = git(project, "hash-object", "-w", "--no-filters", "rows.csv")
    git(project, "update-index", "--add", "--cacheinfo", f"100644,{blob},rows.csv")
    git(project, "commit", "-q", "-m", "theirs")
    (home / ".gitconfig").write_text(IDENTITY + settings)
    with local.env(**environment(home)):
        assert [reason in text for text in missing_filters(project)] == [True] * bool(reason)
        if reason:
            with pytest.raises(UsageError, match=f"rows.csv is kept by Git's filter .*{reason}"):
                pre_update.check(project)
            (project / ".copier-answers.yml").unlink()
            with pytest.raises(UsageError, match=f"(?s)rows.csv is kept by.*{reason}.*Nothing was"):
                repository.inspect(project)


# A company's certificate authority.


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve an index by TLS, and return its address and the certificate of its authority."""
    authority = Authority(tmp_path)
    context = authority.context("host", x509.IPAddress(ip_address("127.0.0.1")))
    folder = tmp_path / "index"
    for package in ("dep", "pre-commit"):
        wheel = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
        (folder / "simple" / package).mkdir(parents=True)
        (folder / "simple" / package / wheel).write_bytes(wheel_of(package))
        (folder / "simple" / package / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/simple", authority.certificate
    server.shutdown()
    server.server_close()


def wheel_of(name: str) -> bytes:
    """Return a wheel whose one command, of the same name, does nothing."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    files = {
        f"{module}.py": "def main(): pass\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)
    return content.getvalue()


@pytest.mark.needs("unshare", root=True)
def test_a_certificate_authority_of_the_system_is_trusted_by_make_setup(
    project: Path, home: Path, index: tuple[str, Path], tmp_path: Path
) -> None:
    url, authority = index
    store = Path("/etc/ssl/certs/ca-certificates.crt")
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes((store.read_bytes() if store.exists() else b"") + authority.read_bytes())
    (home / "bin/uv").unlink()
    (project / "pyproject.toml").write_text(TOY.format(dependencies='["pre-commit", "dep"]'))
    settings = environment(home) | {"UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    settings = {key: value for key, value in settings.items() if not key.startswith("SSL_")}
    # In a namespace of its own, the system's store has the authority of this test, too.
    inside = f'mount --bind "{trusted}" {store} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    setups = [
        subprocess.run(
            [*command, "make", "setup"],
            cwd=project,
            env=settings | more,
            capture_output=True,
            text=True,
            check=False,
        )
        for more in ({"UV_SYSTEM_CERTS": "false", "UV_NATIVE_TLS": "false"}, {})
    ]
    assert setups[0].returncode == 2, "what a person has set stays so"
    assert "UnknownIssuer" in setups[0].stderr
    assert HINT in setups[0].stdout
    assert setups[1].returncode == 0, setups[1].stderr
    assert url in (project / "uv.lock").read_text()


def test_an_authority_that_nobody_trusts_names_the_setting(
    tmp_path: Path, home: Path, index: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pip_config, "PIP_FILES", ())
    monkeypatch.delenv("PIP_CERT", raising=False)
    url, authority = index
    (tmp_path / "pyproject.toml").write_text(TOY.format(dependencies='["dep"]'))
    settings = environment(home) | {"UV_DEFAULT_INDEX": url, "UV_CACHE_DIR": str(tmp_path / "uv")}
    settings.pop("SSL_CERT_FILE", None)
    with local.env():
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", *certificates.VARIABLES):
            local.env.pop(name, "")
        local.env.update(settings)
        reason = lock.lock(tmp_path) or ""
        assert "UnknownIssuer" in reason
        assert "set SSL_CERT_FILE to its certificates" in reason
        text = (tmp_path / "pyproject.toml").read_text()
        with pytest.raises(RefusedError, match="set SSL_CERT_FILE to its certificates"):
            resolve.resolve(tmp_path, {}, lambda choice: text)
        with local.env(SSL_CERT_FILE=str(authority)):
            assert lock.lock(tmp_path) is None


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("", HINT),
        ("REQUESTS_CA_BUNDLE", "REQUESTS_CA_BUNDLE names /own.pem, which uv does not read: export"),
        ("CURL_CA_BUNDLE of the system", HINT),
        ("PIP_CERT", "PIP_CERT names /own.pem, which uv does not read: export SSL_CERT_FILE=/own"),
        ("pip.conf", "pip.conf names /own.pem, which uv does not read: export SSL_CERT_FILE=/own"),
        ("SSL_CERT_FILE", "SSL_CERT_FILE is /own.pem, and uv trusts nothing else: "),
    ],
)
def test_the_setting_that_others_read_and_uv_does_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, hint: str
) -> None:
    monkeypatch.setattr(pip_config, "PIP_FILES", ("pip.conf",))
    monkeypatch.chdir(tmp_path)
    variables = ("SSL_CERT_FILE", *certificates.VARIABLES)
    for name in (*variables, "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    with local.env():
        for name in variables:
            local.env.pop(name, "")
        if place.endswith(" of the system"):
            local.env[place.split()[0]] = "/etc/ssl/cert.pem"
        elif place in variables:
            monkeypatch.setenv(place, "/own.pem")
            local.env[place] = "/own.pem"
        elif place:
            Path(place).write_text("[global]\ncert = /own.pem\n")
        assert certificate_hint("invalid peer certificate: UnknownIssuer").startswith(hint)
        assert certificate_hint("dns error") == ""


TEMPLATE = {
    "copier.yml": "_subdirectory: template\nproject_name: {type: str, default: Toy}\n"
    "level: {type: int, default: 0}\n",
    "template/{{ _copier_conf.answers_file }}.jinja": "{{ _copier_answers | to_nice_yaml }}",
    "template/pyproject.toml": TOY.format(dependencies='["pre-commit", "dep"]'),
}


@pytest.mark.slow
@pytest.mark.needs("unshare", root=True)
def test_rung_new_behind_a_company_trusts_its_authority_or_names_the_setting(
    home: Path, index: tuple[str, Path], tmp_path: Path
) -> None:
    url, authority = index
    template = tmp_path / "template"
    write(template, TEMPLATE)
    shutil.copy(ROOT / "template/Makefile", template / "template")
    for words in ("init -q -b main", "add -A", "commit -q -m v1", "tag v1.0.0"):
        git(template, *words.split())
    store = Path("/etc/ssl/certs/ca-certificates.crt")
    public = store.read_bytes() if store.exists() else b""
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(public + authority.read_bytes())
    (tmp_path / "public.crt").write_bytes(public)
    (home / "bin/uv").unlink()
    settings = environment(home) | {
        "UV_DEFAULT_INDEX": url,
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
    }
    settings = {key: value for key, value in settings.items() if not key.startswith("SSL_")}
    inside = f'mount --bind "{trusted}" {store} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", sys.executable, "-m", "rung", "new"]

    def rung_new(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "mine", "--defaults", "--template", str(template), "--to", "v1.0.0"],
            cwd=tmp_path,
            env=settings | more,
            capture_output=True,
            text=True,
            check=False,
        )

    refused = {
        HINT: rung_new(UV_SYSTEM_CERTS="false", UV_NATIVE_TLS="false"),
        "PIP_CERT names /own": rung_new(UV_SYSTEM_CERTS="false", PIP_CERT="/own.pem"),
        "SSL_CERT_FILE is": rung_new(SSL_CERT_FILE=str(tmp_path / "public.crt")),
    }
    for hint, done in refused.items():
        assert done.returncode == 1, done.stdout + done.stderr
        assert "UnknownIssuer" in done.stderr
        assert hint in done.stderr
    assert not (tmp_path / "mine").exists()
    done = rung_new()
    assert done.returncode == 0, done.stdout + done.stderr
    assert url in (tmp_path / "mine/uv.lock").read_text()
    personal, _, rest = done.stdout.partition("Mine is in mine")
    assert f"the index {url}: add [[tool.uv.index]]" in personal
    assert rest


def test_each_way_to_uv_trusts_the_systems_certificates_unless_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sh", "-c", "echo $UV_SYSTEM_CERTS"]
    store = tmp_path / "store.crt"
    monkeypatch.setattr("rung.process.CERTIFICATES", (str(store),))
    with local.env():
        for name in ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):  # which `make test` sets
            monkeypatch.delenv(name, raising=False)
            local.env.pop(name, "")
        assert run_program(command, tmp_path).text == "\n"
        store.touch()
        assert run_program(command, tmp_path).text == "true\n"
        local.env["UV_SYSTEM_CERTS"] = "false"
        assert run_program(command, tmp_path).text == "false\n"
    stores = [name for name in certificate_stores() if Path(name).exists()]
    done = run(str(ROOT / ".ci/with-uv"), *command, cwd=tmp_path, home=tmp_path / "home")
    assert done.stdout == ("true\n" if stores else "\n")


@pytest.mark.nightly
@pytest.mark.needs("unshare", root=True)
def test_make_demo_works_behind_a_company_that_looks_into_all_connections(
    home: Path, tmp_path: Path
) -> None:
    """From nothing: no uv, no cache, no settings, and its authority in the system's store alone."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(clone))
    shutil.rmtree(home / "bin")
    authority = Authority(tmp_path)
    store = Path("/etc/ssl/certs/ca-certificates.crt")
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(store.read_bytes() + authority.certificate.read_bytes())
    inside = f'mount --bind "{trusted}" {store} && exec "$@"'
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "demo.log"
    with inspecting_proxy(authority) as (url, hosts), log.open("w") as output:
        settings = {
            "HOME": str(home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PIP_CONFIG_FILE": os.devnull,
            "PORT": str(port),
            **dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), url),
        }
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside, "sh", "make", "demo"],
            cwd=clone,
            env=settings,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-3_000:]
    assert "pypi.org" in hosts
    assert "== 9/9" in log.read_text()


def test_the_makefile_names_the_same_setting_for_certificates() -> None:
    assert HINT in (ROOT / "template/Makefile").read_text()


def certificate_stores() -> list[str]:
    """Return where the shell looks for certificates: the same places in all three."""
    texts = [
        (ROOT / name).read_text()
        for name in ("template/Makefile", ".ci/with-uv", "hooks/rung/process.py")
    ]
    stores = [re.findall(r"/etc/[\w./-]+\.(?:crt|pem)", text) for text in texts]
    assert stores[0] == stores[1] == stores[2]
    return stores[0]


# Words.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nwe", "x", "--defaults"], "there is no command nwe: `rung new` is probably meant"),
        (["init", "x"], "there is no command init: `rung new` is probably meant"),
        (["Upgrade"], "there is no command Upgrade: `rung update` is probably meant"),
        (["zzz"], "there is no command zzz: use one of new, adopt, update, up, add, export"),
    ],
)
def test_a_command_that_is_mistyped_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_command(words)
    assert str(error.value) == message


def test_a_command_that_is_there_is_not_doubted(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        check_command([command, "nwe"])
        _, code = Rung.run(["rung", command, "--help"], exit=False)
        assert code == 0
    listed = capsys.readouterr().out
    assert all(f"rung {command}" in listed for command in COMMANDS)
    check_command(["--version"])
    check_command([])


def test_up_takes_defaults_for_yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []
    monkeypatch.setattr("rung.up.up", lambda *args, yes: calls.append(yes))
    for options in ([], ["--yes"], ["--defaults"]):
        assert Rung.run(["rung", "up", *options, str(tmp_path)], exit=False)[1] == 0
    assert calls == [False, True, True]


def test_answers_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    text = "_commit: v1\n_src_path: x\nlevel: 1\nci: []\nlevel: 2\n"
    (tmp_path / ".copier-answers.yml").write_text(text)
    with pytest.raises(UsageError, match="the key level is there twice"):
        read_answers(tmp_path)


def test_a_template_that_cannot_be_read_is_told_by_its_address() -> None:
    with pytest.raises(UsageError, match=r"the template nowhere\.git cannot be read: fatal: "):
        resolve_version("nowhere.git")
