"""Git, started as a program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from plumbum import local

from .exceptions import UsageError
from .process import run

# A person's settings must not decide whether a patch applies, or which bytes are in it. Copier
# depends on Git for both, so these are set in the environment.
PINNED_CONFIG = {
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
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")  # a team's hooks must not change what is committed
IN_PROGRESS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")


def git_bytes(
    folder: Path, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> bytes:
    """Run git in a folder, and return what it prints.

    Args:
        folder: The working directory.
        args: The arguments of git.
        stdin: What git reads.
        env: Environment variables, in addition to those of this process.

    Raises:
        UsageError: It failed; the message has Git's own reason.
    """
    result = run(["git", *map(str, args)], folder, env=env, stdin=stdin)
    if not result.succeeded:
        command = next((str(arg) for arg in args if arg not in NO_HOOKS), "")
        raise UsageError(f"git {command} in {folder}: {result.reason}")
    return result.stdout


def git(
    folder: Path, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> str:
    """Run git in a folder, and return what it prints as text, without the newline at the end.

    Args:
        folder: The working directory.
        args: The arguments of git.
        stdin: What git reads.
        env: Environment variables, in addition to those of this process.

    Raises:
        UsageError: It failed; the message has Git's own reason.
    """
    output = git_bytes(folder, *args, stdin=stdin, env=env)
    return output.decode("utf-8", "replace").removesuffix("\n")


def git_succeeds(folder: Path, *args: str | Path) -> bool:
    """Check whether a git command ends with exit code 0."""
    return run(["git", *map(str, args)], folder).succeeded


def has_commit(folder: Path) -> bool:
    """Check whether a repository has a commit.

    Raises:
        UsageError: Git refuses to read the repository, as it belongs to another user.
    """
    command = ["git", "rev-parse", "-q", "--verify", "HEAD"]
    result = run(command, folder, env={"LC_ALL": "C"})
    if not result.succeeded and "dubious ownership" in result.error_text:
        raise UsageError(
            f"Git does not trust {folder}, which belongs to another user. "
            f"Run: git config --global --add safe.directory {folder}"
        )
    return result.succeeded


def merge_in_progress(folder: Path) -> bool:
    """Check whether a repository is in the middle of a merge or rebase."""
    paths = (git(folder, "rev-parse", "--git-path", name) for name in IN_PROGRESS)
    return any((folder / path).exists() for path in paths)


def split_nul(output: str) -> list[str]:
    """Split what git prints with `-z`."""
    return [item for item in output.split("\0") if item]


def read_blob(repository: Path, commit: str, name: str) -> bytes:
    """Return the bytes of a file in a commit."""
    return git_bytes(repository, "cat-file", "blob", f"{commit}:{name}")


def write_blob(repository: Path, content: bytes) -> str:
    """Write bytes into a repository's object store as they are, and return their object name."""
    return git(repository, "hash-object", "-w", "--stdin", "--no-filters", stdin=content)


@contextmanager
def pinned_git_config() -> Iterator[None]:
    """Give every Git that starts in this context the settings of `PINNED_CONFIG`."""
    first = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
    variables = {"GIT_CONFIG_COUNT": str(first + len(PINNED_CONFIG))}
    for number, (key, value) in enumerate(PINNED_CONFIG.items(), first):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    # Copier starts Git with plumbum, which has an environment of its own.
    with local.env(**variables):
        yield
