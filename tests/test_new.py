"""`rung new`: a project that is whole, or nothing."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy, git, run, snapshot, uv

pytestmark = pytest.mark.slow  # where no project is installed, one is rendered and committed
RUNG = str(Path(sys.executable).with_name("rung"))
# What a later Python takes away fails today.
STRICT = (sys.executable, "-W", "error::DeprecationWarning", "-m", "rung")
Made = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a template with a history: the working tree, as v1.0.0."""
    template = snapshot(tmp_path_factory.mktemp("released") / "template")
    for command in ("init -q -b main", "add -A", "commit -q -m v1", "tag v1.0.0"):
        git(template, *command.split())
    return template


@pytest.fixture
def rung(tmp_path: Path) -> Callable[..., Made]:
    """Run the command as somebody whom Git knows, in an empty folder."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Somebody\nemail = some@example.invalid\n")
    (tmp_path / "here").mkdir()

    def rung(*args: str, first: str = "", cwd: Path | None = None, **env: str) -> Made:
        return run(*STRICT, *args, cwd=cwd or tmp_path / "here", home=home, first=first, **env)

    return rung


def programs(folder: Path, **scripts: str) -> str:
    """Write programs, in shell, that stand before others on the PATH."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def tracked(project: Path) -> dict[str, bytes]:
    listed = git(project, "ls-files", "-z").split("\0")
    contents = {name: (project / name).read_bytes() for name in listed if name}
    # An index does not say at each time how large a file is.
    return contents | {"uv.lock": re.sub(rb", size = \d+", b"", contents["uv.lock"])}


@pytest.mark.slow
def test_new_gives_the_tree_that_copier_and_make_setup_give(
    rung: Callable[..., Made],
    released: Path,
    installed: Callable[[Path], dict[str, str]],
    tmp_path: Path,
) -> None:
    env = installed(tmp_path / "environment")
    answers = ["--data", "project_name=Late trains", "--data", "ci=gitlab,github"]
    done = rung("new", "mine", "--defaults", "--template", str(released), *answers, **env)
    assert done.returncode == 0, done.stderr
    plain = tmp_path / "plain"
    copier_answers = {"project_name": "Late trains", "ci": ["gitlab", "github"]}
    copy(released, plain, copier_answers, vcs_ref="v1.0.0")
    home = tmp_path / "home"
    env = installed(tmp_path / "another environment")
    assert run("make", "setup", cwd=plain, home=home, **env).returncode == 0
    mine = tmp_path / "here/mine"
    assert tracked(mine) == tracked(plain)
    assert git(mine, "status", "--porcelain") == ""
    assert git(mine, "log", "--format=%an %s").startswith("Somebody Start the project")
    hooks = [Path(project, ".git/hooks/pre-commit").exists() for project in (mine, plain)]
    assert hooks == [True, True]
    assert (mine.stat().st_mode & 0o777) == (plain.stat().st_mode & 0o777)
    assert "Late trains is in mine: level 0, Rung v1.0.0" in done.stdout
    assert "uv run ml run" in done.stdout
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["mine"]
    assert rung("update", "--check", cwd=mine).returncode == 0, "it can be updated"


def test_all_that_is_missing_is_said_at_once(tmp_path: Path, released: Path) -> None:
    here = tmp_path / "here"
    home = tmp_path / "home"
    (here / "mine").mkdir(parents=True)
    (here / "mine/notes.txt").write_text("mine")
    old = programs(tmp_path / "bin", uv='[ "$1" = python ] && exit 2; echo uv 0.4.30')
    for name in ("git", "sh"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "")
    env = {"PATH": old, "HOME": str(home)}
    command = [RUNG, "new", "mine", "--defaults", "--template", str(released)]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for sentence in (
        "make is not installed: install 3.81 or newer",
        "uv 0.4 is too old: install 0.9 or newer",
        "there is no Python >=3.11",
        "Git has no identity configured: run `git config",
        "mine is not empty: choose another folder, or see `rung adopt`",
    ):
        assert sentence in done.stderr, sentence
    assert "Traceback" not in done.stderr
    assert [p.name for p in (here / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (
            ["--data", "levle=1"],
            "--data levle=1: give NAME=VALUE, where NAME is one of project_name",
        ),
        (["--data", "level"], "--data level: give NAME=VALUE"),
        (["--data", "level=1.5"], "--data level=1.5: level is a whole number"),
        (["--data", "level=7"], "Invalid choice for 'level'"),
        (["--data", "package_name=2x"], "package_name"),
        (["--to", "v9"], "has no version v9"),
        (["--to", "^HEAD"], "has no version ^HEAD"),
        (["--to", " "], "--to is empty: name a tag, branch or commit"),
        (["--template", "nowhere.git"], "nowhere.git"),
    ],
)
def test_a_wrong_answer_is_a_sentence_and_writes_nothing(
    rung: Callable[..., Made], released: Path, tmp_path: Path, args: list[str], reason: str
) -> None:
    template = [] if "--template" in args else ["--template", str(released)]
    done = rung("new", "mine", "--defaults", *template, *args)
    assert done.returncode == 2, done.stdout
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_without_a_terminal_it_asks_for_defaults(
    rung: Callable[..., Made], released: Path, tmp_path: Path
) -> None:
    done = rung("new", "mine", "--template", str(released))
    assert done.returncode == 2
    assert "add --defaults" in done.stderr
    assert list((tmp_path / "here").iterdir()) == []


# What goes wrong, as a program on the PATH that stands before the real one; uv does nothing else.
FAULTS = {
    "no lock": {"uv": '[ "$1" = python ] && exit; echo "cannot reach anything" >&2; exit 2'},
    "no environment": {
        "uv": "case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; sync) exit 3;; esac"
    },
    "no hooks": {
        "uv": "case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; run) exit 4;; esac"
    },
    "no commit": {
        "uv": "case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; esac",
        "git": 'case "$*" in *commit*Start*) exit 5;; esac; exec REAL "$@"',
    },
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_at_any_point_leaves_nothing(
    rung: Callable[..., Made], released: Path, tmp_path: Path, fault: str, there: bool
) -> None:
    real = shutil.which("git") or ""
    scripts = {name: text.replace("REAL", real) for name, text in FAULTS[fault].items()}
    if "--version" not in scripts["uv"]:
        scripts["uv"] = f'[ "$1" = --version ] && echo uv 0.13.0 && exit; {scripts["uv"]}'
    if there:
        (tmp_path / "here/deep/mine").mkdir(parents=True)
    first = programs(tmp_path / "bin", **scripts)
    done = rung("new", "deep/mine", "--defaults", "--template", str(released), first=first)
    assert done.returncode == 1, done.stderr
    reason = "cannot reach anything" if fault == "no lock" else "(see above)"
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    left = sorted(str(p.relative_to(tmp_path / "here")) for p in (tmp_path / "here").rglob("*"))
    assert left == (["deep", "deep/mine"] if there else [])


def test_a_folder_that_somebody_fills_meanwhile_keeps_what_is_in_it(
    rung: Callable[..., Made], released: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "here/team/mine"
    fills = f'mkdir -p "{mine}" "{mine}/../other"; echo data > "{mine}/data.csv"; touch uv.lock'
    script = f"case $1 in --version) echo uv 0.13.0;; lock) {fills};; esac"
    first = programs(tmp_path / "bin", uv=script)
    done = rung("new", "team/mine", "--defaults", "--template", str(released), first=first)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    left = sorted(str(p.relative_to(tmp_path / "here")) for p in (tmp_path / "here").rglob("*"))
    assert left == ["team", "team/mine", "team/mine/data.csv", "team/other"]


def test_the_folder_here_will_do_if_it_is_empty(
    rung: Callable[..., Made], released: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.chmod(0o700)
    node = here.stat().st_ino
    first = programs(
        tmp_path / "bin", uv="case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; esac"
    )
    done = rung("new", ".", "--defaults", "--template", str(released), first=first)
    assert done.returncode == 0, done.stderr
    assert (here / "pyproject.toml").exists()
    assert (here.stat().st_ino, here.stat().st_mode & 0o777) == (node, 0o700)


def test_what_a_person_has_to_know_of_the_setup_is_printed_and_no_list_of_packages(
    rung: Callable[..., Made], released: Path, tmp_path: Path
) -> None:
    sync = (
        "echo 'Resolved 182 packages in 3ms'; echo ' + numpy==2.4.0'; echo ' ~ mine==0.1 (from x)'"
    )
    script = f"case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; sync) {sync};; esac >&2"
    script = f"if [ $1 = --version ]; then echo uv 0.13.0; exit; fi; {script}"
    first = programs(tmp_path / "bin", uv=script)
    with (tmp_path / "home/.gitconfig").open("a") as file:
        file.write(f"[core]\nhooksPath = {tmp_path}/hooks\n")
    done = rung("new", "mine", "--defaults", "--template", str(released), first=first)
    assert done.returncode == 0, done.stderr
    output = done.stdout + done.stderr
    assert f"Hooks are not installed, as core.hooksPath is {tmp_path}/hooks" in output
    assert output.count("make check") == 1, output
    assert "numpy" not in output
    assert "182" not in output
    assert len(output.splitlines()) < 15, output


@pytest.mark.parametrize(
    ("folder", "options", "name", "package"),
    [
        ("late-trains", [], "Late trains", "late_trains"),
        ("2024_churn", [], "Churn", "churn"),
        ("mine", ["--data", "project_name=Other words"], "Other words", "other_words"),
        ("2024", [], "Flight delays", "flight_delays"),
    ],
)
def test_a_project_is_named_after_its_folder_unless_told(
    rung: Callable[..., Made],
    released: Path,
    tmp_path: Path,
    folder: str,
    options: list[str],
    name: str,
    package: str,
) -> None:
    first = programs(
        tmp_path / "bin", uv="case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; esac"
    )
    template = ["--template", str(released)]
    done = rung("new", folder, "--defaults", *template, *options, first=first)
    assert done.returncode == 0, done.stderr
    project = tmp_path / "here" / folder
    assert (project / "README.md").read_text().startswith(f"# {name}\n")
    assert (project / "src" / package / "problem/model.py").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("when", ["lock", "sync"])
def test_who_ends_it_has_nothing_or_a_project_that_is_whole(
    released: Path, tmp_path: Path, how: signal.Signals, when: str
) -> None:
    waits = f"touch {tmp_path}/now; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    version = "--version) echo uv 0.13.0;;"
    waits = f"case $1 in {version} {when}) {waits};; lock) touch uv.lock;; esac"
    first = programs(tmp_path / "bin", uv=waits)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Somebody\nemail = some@example.invalid\n")
    env = {"PATH": f"{first}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    here = tmp_path / "here"
    here.mkdir()
    command = [RUNG, "new", "mine", "--defaults", "--template", str(released)]
    process = subprocess.Popen(command, cwd=here, env=env, stderr=subprocess.DEVNULL)
    while not (tmp_path / "now").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    (tmp_path / "go").touch()  # make waits for what it started
    process.wait()
    project = here / "mine"
    if how is not signal.SIGKILL:
        assert process.returncode == 130
        assert list(here.iterdir()) == []
    elif when == "lock":
        assert not project.exists()
    else:
        assert {p.name for p in copy(released, tmp_path / "fresh", {}).iterdir()} <= {
            p.name for p in project.iterdir()
        }, "make setup completes it"


def test_in_a_terminal_it_asks_and_takes_what_is_said(released: Path, tmp_path: Path) -> None:
    first = programs(
        tmp_path / "bin", uv="case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; esac"
    )
    env = {"PATH": f"{first}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    (tmp_path / ".gitconfig").write_text("[user]\nname = Somebody\nemail = s@example.invalid\n")
    command = [RUNG, "new", "mine", "--template", str(released), "--data", "level=0"]
    seen = b""
    pid, terminal = pty.fork()
    if pid == 0:  # the child
        os.chdir(tmp_path)
        os.execve(command[0], command, env | {"TERM": "xterm"})
    wanted = [b"called?", b"package", b"sentence", b"providers"]
    while True:
        try:
            seen += os.read(terminal, 65_536)
        except OSError:
            break
        if wanted and wanted[0] in seen:
            time.sleep(0.2)
            answer = b"\x15Late trains\r" if wanted[0] == b"called?" else b"\r"
            # Ctrl-U does not clear a default here: it is deleted key by key.
            os.write(terminal, b"\x7f" * 20 + answer[1:] if answer[0] == 0x15 else answer)
            seen = b""
            wanted = wanted[1:]
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen.decode(errors="replace")
    answers = yaml.safe_load((tmp_path / "mine/.copier-answers.yml").read_text())
    assert answers["project_name"] == "Late trains"
    assert answers["package_name"] == "late_trains"
    assert answers["level"] == 0


@pytest.mark.slow
def test_a_package_brings_the_template_and_is_told_its_address_later(
    released: Path, rung: Callable[..., Made], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    here = tmp_path / "here"
    built = run(
        uv(), "build", "--wheel", "--quiet", "--out-dir", str(here), str(ROOT), cwd=here, home=home
    )
    assert built.returncode == 0, built.stderr
    wheel = next(here.glob("*.whl"))
    command = [uv(), "tool", "run", "--from", str(wheel), "rung", "new", "mine", "--defaults"]
    done = run(*command, cwd=here, home=home)
    assert done.returncode == 0, done.stderr
    assert "--template URL" in done.stdout
    mine = here / "mine"
    fresh = copy(released, tmp_path / "fresh", {"project_name": "Mine"})
    same = {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
    differ = {p for p in same if (mine / p).read_bytes() != (fresh / p).read_bytes()}
    assert differ == {Path(".copier-answers.yml")}
    refused = rung("update", cwd=mine)
    assert refused.returncode == 2
    assert "name the template's address with --template URL" in refused.stderr
    version = yaml.safe_load((mine / ".copier-answers.yml").read_text())["_commit"]
    git(released, "tag", version)
    try:
        now = rung("update", "--template", str(released), cwd=mine)
    finally:
        git(released, "tag", "-d", version)
    assert now.returncode == 0, now.stderr
    assert "Nothing to update" in now.stdout
    assert git(mine, "status", "--porcelain") == ""
    assert str(released) in (mine / ".copier-answers.yml").read_text()


def test_each_hook_can_be_run_alone(rung: Callable[..., Made], tmp_path: Path) -> None:
    home = tmp_path / "home"

    def alone(hook: str, folder: Path) -> Made:
        return run(sys.executable, "-m", f"rung.{hook}", str(folder), cwd=tmp_path, home=home)

    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert alone("pre_gen", tmp_path / "new").returncode == 0
    refused = [alone("pre_gen", tmp_path / "full"), alone("pre_update", tmp_path / "full")]
    assert [done.returncode for done in refused] == [2, 2]
    assert "is not empty" in refused[0].stderr
    assert "is not a project of this template" in refused[1].stderr
    failed = [alone(hook, tmp_path / "full") for hook in ("post_gen", "post_update")]
    assert [done.returncode for done in failed] == [1, 2]


@pytest.mark.slow
def test_by_uvx_from_an_address_a_project_gets_that_address_and_version(
    history: Path, tmp_path: Path
) -> None:
    first = programs(
        tmp_path / "bin", uv="case $1 in --version) echo uv 0.13.0;; lock) touch uv.lock;; esac"
    )
    home = tmp_path / "home"
    address = f"git+{history.as_uri()}"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Somebody\nemail = some@example.invalid\n")
    command = [
        uv(),
        "tool",
        "run",
        "--from",
        f"{address}@v99.0.0",
        "rung",
        "new",
        "--defaults",
        "mine",
    ]
    done = run(*command, cwd=tmp_path, home=home, first=first)
    assert done.returncode == 0, done.stderr
    answers = yaml.safe_load((tmp_path / "mine/.copier-answers.yml").read_text())
    assert (answers["_src_path"], answers["_commit"]) == (address, "v99.0.0")
    new = run(*command[:5], "rung", "update", "--check", "mine", cwd=tmp_path, home=home)
    assert new.returncode == 1, "v100.0.0 is in the history"
    assert "v100.0.0 is available, and the project has v99.0.0" in new.stderr


@pytest.mark.slow
def test_uvx_runs_what_a_clone_has_now_and_not_what_it_had_when_it_was_first_run(
    tmp_path: Path,
) -> None:
    own = (ROOT / "pyproject.toml").read_text()
    start = own.index("\n[build-system]")
    build_system = own[start : own.index("\n[", start + 1)]
    settings = own[own.index("\n[tool.uv]") :].partition("\n\n")[0]
    clone = tmp_path / "clone"
    (clone / "probe").mkdir(parents=True)
    (clone / "pyproject.toml").write_text(
        '[project]\nname = "probe"\nversion = "1"\nscripts.probe = "probe:main"\n'
        f"{build_system}{settings}\n"
    )

    def answer_after_commit(answer: str) -> str:
        (clone / "probe/__init__.py").write_text(f"def main():\n    print({answer!r})\n")
        git(clone, "add", "-A")
        git(clone, "commit", "-qm", answer)
        command = [uv(), "tool", "run", "--from", str(clone), "probe"]
        done = run(*command, cwd=tmp_path, home=tmp_path / "home")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    git(tmp_path, "init", "-q", str(clone))
    assert answer_after_commit("earlier") == "earlier"
    assert answer_after_commit("now") == "now"
