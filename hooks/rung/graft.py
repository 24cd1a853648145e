"""A render and a repository as one commit of two parents, made without touching the work tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from plumbum import ProcessExecutionError

from . import BadInputError
from .tools import git, names, program

# A hook of theirs must not change what is committed.
UNHOOKED = ("-c", "core.hooksPath=/dev/null")


def orphan(repository: Path, render: Path, message: str) -> str:
    """Commit a render, with no parent, and give the commit's name."""
    with TemporaryDirectory(prefix="rung-") as folder:
        env = {
            "GIT_DIR": git(repository, "rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": str(render),
            "GIT_INDEX_FILE": str(Path(folder, "index")),
        }
        git(render, "add", "--all", "--force", ".", **env)
        tree = git(render, "write-tree", **env)
    return git(repository, "commit-tree", tree, "-m", message)


def merge(
    repository: Path,
    render: str,
    *,
    added: list[str],
    moved: Mapping[str, str],
    written: Mapping[str, bytes],
    message: str,
) -> str:
    """Commit what a repository and a render are together, and give the commit's name.

    Args:
        repository: Whose HEAD is the first parent.
        render: The commit of the render, the second parent.
        added: Files as the render has them.
        moved: Files of the repository, and where they go.
        written: Contents that neither has.
        message: The commit's.
    """
    ours, theirs = entries(repository, render), entries(repository, "HEAD")
    changes = {name: ours[name] for name in added}
    for name, to in moved.items():
        changes |= {to: theirs[name], name: ours.get(name, "0" * 6 + " " + "0" * 40)}
    for name, content in written.items():
        mode = theirs.get(name, ours.get(name, "100644 "))[:6]
        changes[name] = f"{mode} {blob(repository, content)}"
    with TemporaryDirectory(prefix="rung-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        git(repository, "read-tree", "HEAD", **env)
        listed = "".join(f"{entry}\t{name}\0" for name, entry in changes.items())
        feed(
            repository,
            listed.encode("utf-8", "surrogateescape"),
            "update-index",
            "-z",
            "--index-info",
            **env,
        )
        tree = git(repository, "write-tree", **env)
    said = ("commit-tree", tree, "-p", "HEAD", "-p", render, "-F", "-")
    return feed(repository, message.encode(), *said)


def entries(repository: Path, commit: str) -> dict[str, str]:
    """Give the mode and the blob of each file of a commit."""
    found = {}
    for line in names(git(repository, "ls-tree", "-r", "-z", commit)):
        about, name = line.split("\t", 1)
        mode, _, blob = about.split()
        found[name] = f"{mode} {blob}"
    return found


def blob(repository: Path, content: bytes) -> str:
    """Write a file's content into a repository, byte for byte, and give its name there."""
    return feed(repository, content, "hash-object", "-w", "--stdin", "--no-filters")


def feed(repository: Path, given: bytes, *args: str, **env: str) -> str:
    """Run git with an input.

    Raises:
        BadInputError: It failed; the sentence is Git's own.
    """
    with NamedTemporaryFile(prefix="rung-") as file:
        file.write(given)
        file.flush()
        command = program("git").with_cwd(str(repository)).with_env(**env)[args] < file.name
        try:
            return str(command()).strip()
        except ProcessExecutionError as error:
            said = error.stderr.strip().splitlines() or [f"exit {error.retcode}"]
            raise BadInputError(f"git {args[0]} in {repository}: {said[-1]}") from None


def switch(repository: Path, branch: str, commit: str) -> None:
    """Make a branch of a commit, and go there; a file in the way ends it before anything moves."""
    git(repository, *UNHOOKED, "switch", "--quiet", "--no-overwrite-ignore", "-c", branch, commit)
