"""Git, uv and other programs, as plumbum's commands; and what a person is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbum import CommandNotFound, ProcessExecutionError, local
from plumbum.commands.base import BaseCommand

from . import BadInputError, RefusedError

# A person's settings must not decide whether a patch applies, or which bytes are in it. Copier
# asks Git for both, so that it goes by environment.
PLAIN = {
    "apply.whitespace": "nowarn",
    "apply.ignoreWhitespace": "no",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.quotePath": "true",  # Copier reads names as Git quotes them
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.external": "",
    "merge.conflictStyle": "merge",
    "status.showUntrackedFiles": "normal",
}
OF_HOOKS = ("GIT_DIR", "GIT_INDEX", "GIT_WORK_TREE", "GIT_OBJECT", "GIT_PREFIX", "GIT_COMMON")
UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")


def program(name: str) -> BaseCommand:
    """Give a program.

    Raises:
        BadInputError: It is not on the PATH.
    """
    try:
        return local[name]
    except CommandNotFound:
        raise BadInputError(f"{name} is missing: install it, then try again") from None


def git(folder: Path, *args: str | Path, **env: str) -> str:
    """Run git in a folder, and give what it prints, without the newline at the end.

    Raises:
        BadInputError: It failed; the sentence is Git's own.
    """
    command = program("git").with_cwd(str(folder)).with_env(**env)
    try:
        return str(command(*map(str, args))).removesuffix("\n")
    except ProcessExecutionError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or [f"exit {error.retcode}"]
        raise BadInputError(f"git {args[0]} in {folder}: {said[-1]}") from None


def asks(folder: Path, *args: str | Path) -> bool:
    """Tell whether a git command says yes by its exit code."""
    return bool(
        program("git").with_cwd(str(folder))[tuple(map(str, args))].run(retcode=None)[0] == 0
    )


def has_commit(folder: Path) -> bool:
    """Tell whether a repository has a commit.

    Raises:
        BadInputError: Git does not look into it, as it belongs to another user.
    """
    command = program("git").with_cwd(str(folder)).with_env(LC_ALL="C")
    code, _, message = command["rev-parse", "-q", "--verify", "HEAD"].run(retcode=None)
    if code and "dubious ownership" in message:
        raise BadInputError(
            f"Git does not trust {folder}, which belongs to another user: "
            f"git config --global --add safe.directory {folder}"
        )
    return bool(code == 0)


def names(listed: str) -> list[str]:
    """Split what git prints with `-z`."""
    return [name for name in listed.split("\0") if name]


def shown(folder: Path, *command: str) -> int:
    """Run a command whose output a person sees as it comes, and give its exit code."""
    return started(folder, command, None, {})[0]


def heard(folder: Path, *command: str, **env: str) -> tuple[int, str]:
    """Run a command, and give its exit code and what it printed."""
    return started(folder, command, subprocess.PIPE, env)


def started(
    folder: Path, command: Sequence[str], to: int | None, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run a command that is ended when this process is, as by Ctrl-C: it may have started more."""
    name, *args = command
    process = (
        program(name)
        .with_cwd(str(folder))[args]
        .popen(stdin=None, stdout=to, stderr=to and subprocess.STDOUT, env=clean() | dict(env))
    )
    try:
        said = process.communicate()[0]
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    return process.returncode or 0, os.fsdecode(said or b"")


def clean() -> dict[str, str]:
    """Give the environment without one that is active: a project has its own."""
    return {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}


def unfinished(folder: Path) -> bool:
    """Tell whether a repository is in the middle of a merge or rebase."""
    paths = (git(folder, "rev-parse", "--git-path", name) for name in UNFINISHED)
    return any((folder / path).exists() for path in paths)


@contextmanager
def plain() -> Iterator[None]:
    """See to it that Git, whoever starts it, goes by `PLAIN`."""
    known = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
    own = {"GIT_CONFIG_COUNT": str(known + len(PLAIN))}
    for number, (key, value) in enumerate(PLAIN.items(), known):
        own |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    # Copier starts Git by plumbum, which has an environment of its own.
    with local.env(**own):
        yield


def say(text: str = "") -> None:
    """Tell a person, at once."""
    print(text, flush=True)


def ended(run: Callable[[], Any]) -> int:
    """Run a command, tell what stopped it, and give its exit code."""
    # Within a hook, Git's own variables name the repository that the hook is for.
    for name in [name for name in os.environ if name.startswith(OF_HOOKS)]:
        del os.environ[name]
        del local.env[name]
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.default_int_handler)
    try:
        return int(run() or 0)
    except BadInputError as error:
        print(f"rung: {error}.", file=sys.stderr)
        return 2
    except RefusedError as error:
        print(f"rung: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error
        print(f"rung: {what}.", file=sys.stderr)
        return 2
    except ProcessExecutionError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or [f"exit {error.retcode}"]
        print(f"rung: {Path(error.argv[0]).name}: {said[-1]}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrung: stopped.", file=sys.stderr)
        return 130
