"""Checkout: what a runner registers was made of what is committed, and of nothing else.

What runs in a job before `ml register` can change files: a champion's code, a test, an installer.
On a laptop a version may come from work in progress; its documents then say `-dirty`. On a runner,
from which versions go to production, they may not.
"""

import os
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import RefusedError, UsageError, ci_platform, config, problem
from ..artifacts import DOCUMENTS, STEPS, digest, read_step

NAMED = 5  # files of a refusal


def on_a_runner() -> bool:
    """Tell whether this is a job of a pipeline, on whichever platform."""
    return (
        os.environ.get("CI", "").lower() not in ("", "0", "false") or ci_platform.here() is not None
    )


def committed(commit: str) -> str:
    """When a commit was made, as ISO 8601 in UTC; "unknown" if that is not to be found out."""
    try:
        found = _git("show", "--no-patch", "--format=%ct", _name(commit)).strip()
        return datetime.fromtimestamp(int(found), UTC).isoformat()
    except (UsageError, ValueError):
        return "unknown"


def _name(commit: str) -> str:
    """A commit without `-dirty`; empty if it is none: whoever writes to a registry names it."""
    name = commit.partition("-")[0]
    return name if re.fullmatch(r"[0-9a-f]{7,64}", name) else ""


def is_older(commit: str, since: str, other: str, other_since: str) -> bool:
    """Tell whether a commit is surely older than another one.

    Where this checkout has both, Git knows which one came of which. A runner's has one alone: there
    the times of the commits decide.

    Args:
        since: When the commit was made, as `committed` says it.
    """
    ours, theirs = _name(commit), _name(other)
    if "" in (ours, theirs) or ours == theirs:
        return False
    with suppress(UsageError):
        base = _git("merge-base", ours, theirs).strip()
        if base in (ours, theirs):
            return base == ours
    return "unknown" not in (since, other_since) and since < other_since


def require_clean(manifest: dict[str, Any]) -> None:
    """See that tree, documents and package are those of the commit.

    Args:
        manifest: Of the package to be registered.

    Raises:
        UsageError: Git does not answer.
        RefusedError: Files differ from the commit, or did while the pipeline ran.
    """
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:  # no repository: there is nothing to differ from
        return
    if changed := _changed():
        raise RefusedError(f"the tree is not that of commit {commit:.8}: {_several(changed)}")
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
    theirs = {name: of for name, of in manifest["files"].items() if name.startswith("problem/")}
    if different := sorted(dict(ours.items() ^ theirs.items())):
        raise RefusedError(
            f"the package has other code than commit {commit:.8}: {_several(different)}"
        )


def _changed() -> list[str]:
    """The files that differ from the commit, but for those that our own commands write there."""
    written = ["dvc.lock"]
    where = os.environ.get("ML_REGISTRY", "")
    if where and "://" not in where and not Path(where).is_absolute():
        written.append(where)
    excluded = [f":(exclude){name}" for name in written]
    listed = _git("status", "--porcelain", "-z", "--untracked-files=all", "--", ".", *excluded)
    # Of a file that was renamed, the name before is an entry of its own, without a status.
    return [entry[3:] if entry[2:3] == " " else entry for entry in listed.split("\0") if entry]


def _several(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _git(*args: str) -> str:
    """What Git prints; nothing outside of a repository, and before the first commit.

    Raises:
        UsageError: There is a repository, and Git does not answer.
    """
    inside = any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
    if not inside:
        return ""
    # Of a repository's settings, one names a program that `git status` starts.
    command = ["git", "-c", "core.fsmonitor=false", *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"git cannot be started, which tells what is committed: {error}") from None
    if done.returncode and args[0] == "rev-parse" and "HEAD" in done.stderr:
        return ""
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise UsageError(f"git {args[0]}: {reason}")
    return done.stdout
