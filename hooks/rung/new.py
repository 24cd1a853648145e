"""`rung new`: a complete project, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from . import lock, post_gen, pre_gen
from .console import echo
from .exceptions import RefusedError
from .template import ANSWERS, Template, render


def new(folder: Path, template: Template, data: Mapping[str, Any], *, ask: bool) -> None:
    """Create a project in a folder that is empty or does not exist.

    Args:
        folder: Where.
        template: The template.
        data: Answers, by question.
        ask: Ask the other questions in the terminal.

    Raises:
        UsageError: Something is missing, or an answer is invalid.
        RefusedError: The project could not be created; nothing is left of it.
    """
    pre_gen.check(folder)
    typed = os.path.relpath(folder)
    folder = folder.resolve()
    with all_or_nothing(folder) as stage:
        answers = render(template, stage, data, ask=ask, likely=likely_answers(folder))
        # What fails most often, as it needs the network, comes before the project is in its place.
        if reason := lock.lock_elsewhere(stage):
            raise RefusedError(f"uv lock failed, and nothing was created: {reason}")
        if settings := lock.personal_settings(stage):
            echo(f"{settings}\n")
        move_into_place(stage, folder)
        post_gen.setup(folder)
    echo(f"""
{answers["project_name"]} is in {typed}: level {answers["level"]}, Rung {template.version}. Next:

  cd {typed}
  uv run ml run                             the pipeline, to artifacts/report.html
  uv run ml data use FILE --target COLUMN   your data instead of the example's
  make check                                lint, types, tests and controls""")
    if not (folder / ".git").exists():
        echo("\nIt is inside another repository: hooks and commits are left to that one.")
    if template.commit is None:
        echo("\nIt came from a package: the first `rung update` needs --template URL.")


def likely_answers(folder: Path) -> dict[str, str]:
    """Return the project name that a folder's name suggests, if it has a letter."""
    from .adopt.detect import Guess, project_name  # slow to import

    if not any(letter.isalpha() for letter in folder.name):
        return {}
    return {"project_name": str(project_name(Guess(folder.name, "the folder")).value)}


def move_into_place(stage: Path, folder: Path) -> None:
    """Rename a folder to its place, or move what is in it into the empty folder that is there.

    Raises:
        RefusedError: The place was taken in the meantime.
    """
    try:
        if not folder.exists():
            stage.rename(folder)
            return
    except OSError as error:
        raise RefusedError(f"{folder} cannot be created: {error.strerror}") from None
    if any(folder.iterdir()):
        raise RefusedError(f"{folder} is no longer empty: choose another folder")
    # The answers come first: they mark the folder as ours from here on.
    for path in sorted(stage.iterdir(), key=lambda path: path.name != ANSWERS):
        path.rename(folder / path.name)
    stage.rmdir()


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a staging folder beside a folder; on failure, remove it and what came of it.

    A signal that ends this process is a failure, too. One that cannot be caught leaves at worst
    the staging folder, whose name starts with a dot, or a project that `make setup` completes.
    """
    existed = folder.exists()
    new_parents = [path for path in folder.parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    stage.chmod(0o777 & ~umask())
    inode = stage.stat().st_ino
    try:
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        if existed and (folder / ANSWERS).exists():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif folder.is_dir() and folder.stat().st_ino == inode:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in new_parents:
            with suppress(OSError):  # somebody else put something there
                parent.rmdir()
        raise


def umask() -> int:
    """Return the process's file mode creation mask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
