"""The repository's own data, used instead of the example's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from . import told
from .graft import UNHOOKED
from .repository import Repository
from .tools import asks, git, say, shown

if TYPE_CHECKING:
    from .adopt import Made

EXAMPLE = "data/raw/flights.csv"
OF_EXAMPLE = r"The project trains on an example, [^:]*(?=, until you bring)"
LARGEST = 5_000_000  # bytes; the hooks refuse what is larger


def take(repository: Repository, made: Made) -> str | None:
    """Make the environment, use the data, and commit that; give what could not be done.

    What else a person has to know is added to the report.
    """
    folder, command = repository.folder, told.use(made.file, made.target)
    if not repository.git and "pyproject.toml" not in made.plan.added:
        return "pyproject.toml is yours: merge pyproject.toml.rung into it, then uv sync"
    say("Environment …")
    if shown(folder, "uv", "sync", "--locked", "--quiet"):
        return f"uv sync failed, as said above; after it: {command}"
    if not (made.file and made.target):
        return None
    source = Path("data/raw", Path(made.file).name)
    say(f"→ {command.removeprefix('uv run ')}")
    use = ("ml", "data", "use", made.file, "--target", made.target)
    if shown(folder, "uv", "run", "--no-sync", *use):
        return f"ml did not take {made.file}, as said above: {command}"
    if EXAMPLE in made.plan.added and source != Path(EXAMPLE):
        (folder / EXAMPLE).unlink(missing_ok=True)
    if "README.md" in made.plan.added:
        readme = folder / "README.md"
        text = re.sub(OF_EXAMPLE, f"The project trains on `{source}`", readme.read_text("utf-8"))
        readme.write_text(text, "utf-8")
    if repository.git:
        made.sections["Not done yet"] += commit(folder, source, made.file)
    return None


def commit(folder: Path, source: Path, file: str) -> list[str]:
    """Commit that data is used, and say why the data itself is not in Git, if it is not."""
    said = []
    known = asks(folder, "ls-files", "--error-unmatch", source)
    if not known and asks(folder, "check-ignore", "-q", source):
        said = [f"{source} is not in Git, as .gitignore says: bring it to each machine"]
    elif not known and (folder / source).stat().st_size > LARGEST and not same(folder, source):
        said = [f"{source} is over 5 MB, and not in Git: commit it, or bring it to each machine"]
    else:
        git(folder, "add", "--", source)
    git(folder, "add", "--update")
    git(folder, *UNHOOKED, "commit", "--quiet", "--no-verify", "-m", f"Use {file}")
    return said


def same(folder: Path, source: Path) -> bool:
    """Tell whether Git has these bytes already, under another name."""
    return asks(folder, "cat-file", "-e", git(folder, "hash-object", "--no-filters", source))
