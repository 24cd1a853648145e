"""The repository's own data, used instead of the example's."""

from __future__ import annotations

import re
from pathlib import Path

from ..console import echo
from ..git import commit, git, git_succeeds
from ..process import run
from ..progress import run_with_progress
from .plan import Adoption
from .report import TO_DO, data_use_command
from .repository import Repository

EXAMPLE = "data/raw/flights.csv"
README_SENTENCE = r"The project trains on an example, [^:]*(?=, until you bring)"
LARGEST_COMMITTED = 5_000_000  # bytes; the hooks refuse larger files


def onboard_data(repository: Repository, adoption: Adoption) -> str | None:
    """Create the environment, bring the data into use, and commit that.

    What else a person has to know is added to the report.

    Returns:
        What could not be done, if anything.
    """
    folder = repository.folder
    command = data_use_command(adoption.data_file, adoption.target)
    if not repository.in_git and "pyproject.toml" not in adoption.files.added:
        return "pyproject.toml is yours: merge pyproject.toml.rung into it, then run uv sync"
    if not run_with_progress(["uv", "sync", "--locked"], folder, "Environment").succeeded:
        return f"uv sync failed (see above); once it works: {command}"
    if not (adoption.data_file and adoption.target):
        return None
    table = Path("data/raw", Path(adoption.data_file).name)
    echo(f"→ {command.removeprefix('uv run ')}")
    use = ["ml", "data", "use", adoption.data_file, "--target", adoption.target]
    if not run(["uv", "run", "--no-sync", *use], folder, output="shown").succeeded:
        return f"ml refused {adoption.data_file} (see above): {command}"
    if EXAMPLE in adoption.files.added and table != Path(EXAMPLE):
        (folder / EXAMPLE).unlink(missing_ok=True)
    if "README.md" in adoption.files.added:
        readme = folder / "README.md"
        sentence = f"The project trains on `{table}`"
        readme.write_text(re.sub(README_SENTENCE, sentence, readme.read_text("utf-8")), "utf-8")
    if repository.in_git:
        adoption.sections[TO_DO] += commit_data(folder, table, adoption.data_file)
    return None


def commit_data(folder: Path, table: Path, file: str) -> list[str]:
    """Commit that data is in use, with the data itself if it belongs in Git.

    Args:
        folder: The repository.
        table: The data in it, relative to it.
        file: Where a person had it.

    Returns:
        Why the data is not in Git, if it is not.
    """
    notes = []
    is_tracked = git_succeeds(folder, "ls-files", "--error-unmatch", table)
    is_large = (folder / table).stat().st_size > LARGEST_COMMITTED
    if not is_tracked and git_succeeds(folder, "check-ignore", "-q", table):
        notes = [f"{table} is not in Git, as .gitignore excludes it: copy it to each machine"]
    elif not is_tracked and is_large and not has_content(folder, table):
        notes = [
            f"{table} is larger than 5 MB and not in Git: commit it, or copy it to each machine"
        ]
    else:
        git(folder, "add", "--", table)
    git(folder, "add", "--update")
    commit(folder, f"Use {file}")
    return notes


def has_content(folder: Path, file: Path) -> bool:
    """Check whether Git already has these bytes, under any name."""
    blob = git(folder, "hash-object", "--no-filters", file)
    return git_succeeds(folder, "cat-file", "-e", blob)
