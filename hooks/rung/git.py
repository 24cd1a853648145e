"""Git, started as a program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from plumbum import local

from .console import echo
from .exceptions import UsageError
from .process import is_installed, run

# A person's settings must not decide whether a patch applies, which bytes are in it, or which files
# of a render exist. Copier depends on Git for all of that, so these are set in the environment.
PINNED_CONFIG = {
    "apply.whitespace": "nowarn",
    "apply.ignoreWhitespace": "no",
    "core.attributesFile": os.devnull,  # such as filters whose program is missing
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,  # a team's hooks must not change what is committed
    "core.safecrlf": "false",
    "core.quotePath": "true",  # Copier reads names as Git quotes them
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
    "diff.external": "",
    "merge.conflictStyle": "merge",
    "status.showUntrackedFiles": "normal",
}
# For a repository that is only looked at: what its own settings could start.
UNTRUSTED_CONFIG = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
}
UNTRUSTED_VARIABLES = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
# Neither a person's templates of repositories nor what all users of a machine share.
PINNED_VARIABLES = {"GIT_TEMPLATE_DIR": "", "GIT_ATTR_NOSYSTEM": "1"}
NO_FILTER = ("unspecified", "unset", "set", "")
NO_HOOKS = ("-c", f"core.hooksPath={os.devnull}")
# With these, Git cannot read a repository at all: that is no answer to what it was asked.
UNREADABLE = ("bad config", "bad numeric config", "bad boolean config", "unable to access")
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
    """Check whether a git command ends with exit code 0.

    Raises:
        UsageError: Git cannot read the repository or its own settings, so this is not an answer.
    """
    result = run(["git", *map(str, args)], folder, env={"LC_ALL": "C"})
    if result.succeeded:
        return True
    if "dubious ownership" in result.error_text:
        trusted = re.search(r"safe\.directory '?([^'\n]+)", result.error_text)
        repository = trusted[1] if trusted else folder
        raise UsageError(
            f"Git does not trust {repository}, which belongs to another user. "
            f"Run: git config --global --add safe.directory {repository}"
        )
    if any(words in result.error_text for words in UNREADABLE):
        raise UsageError(f"Git cannot read its settings: {result.reason}")
    return False


def has_commit(folder: Path) -> bool:
    """Check whether a repository has a commit.

    Raises:
        UsageError: Git cannot read the repository.
    """
    return git_succeeds(folder, "rev-parse", "-q", "--verify", "HEAD")


def commit(folder: Path, message: str, *args: str | Path) -> None:
    """Commit for a person: without their hooks, and unsigned if Git cannot sign.

    Args:
        folder: The repository.
        message: The commit message.
        args: More arguments of `git commit`.

    Raises:
        UsageError: It failed; the message has Git's own reason.
    """
    command = (*NO_HOOKS, "commit", "--quiet", "--no-verify", "-m", message)
    try:
        git(folder, *command, *args)
    except UsageError as error:
        if git_setting(folder, "commit.gpgSign") != "true":
            raise
        git(folder, *command, "--no-gpg-sign", *args)
        echo(f"The commit “{message}” is not signed: {error}.")


def git_setting(folder: Path, key: str) -> str:
    """Return a boolean setting of Git's as "true" or "false", or nothing if it is not set."""
    return run(["git", "config", "--type=bool", key], folder).text.strip()


def missing_filters(folder: Path) -> list[str]:
    """Return a sentence for each filter of Git's that files need and whose program is missing.

    Without it, Git stops in the middle of a merge, or takes pointers to files for the files.
    """
    names = git_bytes(folder, "ls-files", "-z")
    # Those of a person are set aside: see PINNED_CONFIG.
    command = ("-c", f"core.attributesFile={os.devnull}", "check-attr", "-z", "--stdin", "filter")
    attributes = git_bytes(folder, *command, stdin=names)
    fields = split_nul(attributes.decode("utf-8", "replace"))
    files: dict[str, str] = {}
    for name, value in zip(fields[::3], fields[2::3], strict=True):
        files.setdefault(value, name)
    return [
        f"{name} is kept by Git's filter {value}, but {problem}"
        for value, name in files.items()
        if value not in NO_FILTER and (problem := _filter_problem(folder, value))
    ]


def _filter_problem(folder: Path, name: str) -> str:
    """Return why a filter cannot run; "" if it can, or if Git does without it."""
    command = ""
    for key in ("process", "smudge", "clean"):
        # All values: that of the repository itself may be hidden, see `untrusted_git_config`.
        values = run(["git", "config", "--get-all", f"filter.{name}.{key}"], folder).text
        command = command or next(filter(None, reversed(values.splitlines())), "")
    if name == "lfs" and not is_installed("git-lfs"):
        return "git-lfs is not installed: install it, then git lfs install && git lfs pull"
    if name == "lfs" and not command:
        return "git-lfs is not set up: git lfs install && git lfs pull"
    program = command.split(maxsplit=1)[0] if command else ""
    is_plain = re.fullmatch(r"[\w.-]+", program) is not None  # rather than a piece of shell
    if is_plain and git_setting(folder, f"filter.{name}.required") == "true":
        return "" if is_installed(program) else f"{program} is not installed: install it"
    return ""


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
    with git_config(PINNED_CONFIG), local.env(**PINNED_VARIABLES):
        yield


@contextmanager
def untrusted_git_config(folder: Path) -> Iterator[None]:
    """Keep Git from running, fetching or writing anything that a repository's own settings name.

    Filters are not run, either: a file whose time stamp has changed and that a filter of the
    repository's would have to compare is taken for a change.
    """
    settings = UNTRUSTED_CONFIG | dict.fromkeys(own_programs(folder), "")
    with git_config(settings), local.env(**UNTRUSTED_VARIABLES):
        yield


def own_programs(folder: Path) -> list[str]:
    """Return the settings of a repository's own that make Git filter files, or fetch objects."""
    if not folder.is_dir():
        return []
    pattern = r"^filter\.|^remote\..*\.promisor$"
    command = ["git", "config", "--show-scope", "--name-only", "-z", "--get-regexp", pattern]
    scopes_and_keys = split_nul(run(command, folder).text)
    pairs = zip(scopes_and_keys[::2], scopes_and_keys[1::2], strict=True)
    return [key for scope, key in pairs if scope in ("local", "worktree")]


@contextmanager
def git_config(settings: Mapping[str, str]) -> Iterator[None]:
    """Give every Git that starts in this context these settings, before those of any file."""
    first = int(local.env.get("GIT_CONFIG_COUNT", "0"))
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings.items(), first):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    # Copier starts Git with plumbum, which has an environment of its own, and by dunamai without.
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with local.env(**variables):
            yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                del os.environ[name]
            else:
                os.environ[name] = earlier
