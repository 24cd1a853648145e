"""Checkout: what a runner registers was made from what is committed, and from nothing else.

Whatever runs in a job before `ml register` can change files: a champion's code, a test, an
installer. On a laptop a version may come from work in progress, and its documents then say
`-dirty`. On a runner, from which versions go to production, it may not.
"""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import RefusedError, UsageError, ci_platform, config, problem, process
from ..artifacts import DOCUMENTS, STEPS, digest, read_step

if TYPE_CHECKING:
    from ..model_package import Manifest

MAX_FILES = 5  # that a refusal lists


def is_runner() -> bool:
    """Check whether this is a job of a pipeline, on whichever platform."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return True
    return ci_platform.current_platform() is not None


def committed(commit: str) -> str:
    """Return when a commit was made, as ISO 8601 in UTC; "unknown" if Git cannot tell."""
    try:
        seconds = _git("show", "--no-patch", "--format=%ct", _name(commit))
        return datetime.fromtimestamp(int(seconds.strip()), UTC).isoformat()
    except (UsageError, ValueError):
        return "unknown"


def _name(commit: str) -> str:
    """Return a commit without `-dirty`; "" for what is not a commit, as a registry may hold."""
    name = commit.partition("-")[0]
    return name if re.fullmatch(r"[0-9a-f]{7,64}", name) else ""


def is_older(commit: str, time: str, other_commit: str, other_time: str) -> bool:
    """Check whether a commit is surely older than another one.

    Where this checkout has both, Git knows which is the ancestor. A runner's checkout has only one:
    there the times of the commits decide.

    Args:
        commit: The commit.
        time: When it was made, as `committed` returns it.
        other_commit: The other commit.
        other_time: When that was made.
    """
    ours = _name(commit)
    theirs = _name(other_commit)
    if "" in (ours, theirs) or ours == theirs:
        return False
    with suppress(UsageError):
        base = _git("merge-base", ours, theirs).strip()
        if base in (ours, theirs):
            return base == ours
    return "unknown" not in (time, other_time) and time < other_time


def require_clean(manifest: "Manifest") -> None:
    """Check that working tree, documents and package are those of the commit.

    Args:
        manifest: The manifest of the package to register.

    Raises:
        UsageError: Git fails.
        RefusedError: Files differ from the commit, or did so while the pipeline ran.
    """
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:  # not a repository: there is nothing to differ from
        return
    if changed := _changed():
        raise RefusedError(
            f"the working tree is not that of commit {commit:.8}: {_several(changed)}"
        )
    for name in STEPS:
        document = read_step(name)
        if str(document.commit).endswith("-dirty"):
            raise RefusedError(
                f"{DOCUMENTS[name]} was made while files differed from the commit: run `ml run` in"
                " a clean checkout"
            )
        judged = name in ("gate", "package")
        if judged and document.commit != commit:
            raise RefusedError(
                f"{DOCUMENTS[name]} is of commit {document.commit or 'none'}, and this checkout"
                f" of {commit}: run `ml run` on it"
            )
        if judged and document.config_digest != digest(config.DATA, config.MODEL, config.GATE):
            raise RefusedError(
                f"{DOCUMENTS[name]} was made with other files in config/: run `ml run`"
            )
    ours = {f"problem/{path.name}": digest(path) for path in problem.folder().glob("*.py")}
    theirs = {
        name: file_digest
        for name, file_digest in manifest["files"].items()
        if name.startswith("problem/")
    }
    if different := sorted(dict(ours.items() ^ theirs.items())):
        raise RefusedError(
            f"the package has other code than commit {commit:.8}: {_several(different)}"
        )


def _changed() -> list[str]:
    """Return the files that differ from the commit, except those that our own commands write."""
    written = ["dvc.lock"]
    location = os.environ.get("ML_REGISTRY", "")
    if location and "://" not in location and not Path(location).is_absolute():
        written.append(location)
    excluded = [f":(exclude){name}" for name in written]
    listed = _git("status", "--porcelain", "-z", "--untracked-files=all", "--", ".", *excluded)
    # The previous name of a renamed file is an entry of its own, without a status.
    return [entry[3:] if entry[2:3] == " " else entry for entry in listed.split("\0") if entry]


def _several(names: list[str]) -> str:
    more = len(names) - MAX_FILES
    return ", ".join(names[:MAX_FILES]) + (f" and {more} more" if more > 0 else "")


def _git(*args: str) -> str:
    """Return what Git prints; "" outside a repository, and before the first commit.

    Raises:
        UsageError: There is a repository, and Git fails.
    """
    inside = any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
    if not inside:
        return ""
    # core.fsmonitor, a setting of the repository, names a program that `git status` would start.
    result = process.run(["git", "-c", "core.fsmonitor=false", *args])
    if not result.succeeded and args[0] == "rev-parse" and "HEAD" in result.error_text:
        return ""
    if not result.succeeded:
        raise UsageError(f"git {args[0]} failed: {result.reason}")
    return result.text
