"""`rung new`: a project that is whole, or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from . import RefusedError, post_gen, pre_gen, source
from .tools import say, shown


def new(folder: Path, template: source.Source, data: Mapping[str, Any], *, ask: bool) -> None:
    """Make a project in a folder that is empty or not there.

    Raises:
        BadInputError: Something is missing, or an answer is refused.
        RefusedError: It could not be made; nothing is left of it.
    """
    pre_gen.check(folder)
    where, folder = os.path.relpath(folder), folder.resolve()
    with whole(folder) as stage:
        about = source.render(template, stage, data, ask=ask, likely=likely(folder))
        # What fails most easily, far away servers, comes before the project is in its place.
        if code := shown(stage, "uv", "lock", "--quiet"):
            raise RefusedError(f"uv lock ended with {code}, as said above: nothing was left")
        place(stage, folder)
        post_gen.setup(folder)
    say(f"""
{about["project_name"]} is in {where}: level {about["level"]}, Rung {template.name}. Next:

  cd {where}
  uv run ml run                             the pipeline, to artifacts/report.html
  uv run ml data use FILE --target COLUMN   your data instead of the example's
  make check                                lint, types, tests and controls""")
    if not (folder / ".git").exists():
        say("\nIt is within another repository: commits and hooks are that one's.")
    if template.commit is None:
        say("\nIt came from a package: the first `rung update` needs --template URL.")


def likely(folder: Path) -> dict[str, str]:
    """Give the project's name that a folder suggests, if it suggests one."""
    from .guess import Guess, named  # slow to import

    if not any(letter.isalpha() for letter in folder.name):
        return {}
    return {"project_name": str(named(Guess(folder.name, "the folder")).value)}


def place(stage: Path, folder: Path) -> None:
    """Bring what is in a folder to its place: at once, or into the empty folder that is there.

    Raises:
        RefusedError: Somebody was faster.
    """
    try:
        if not folder.exists():
            stage.rename(folder)
            return
    except OSError as error:
        raise RefusedError(f"{folder} cannot be made: {error.strerror}") from None
    if any(folder.iterdir()):
        raise RefusedError(f"{folder} has filled meanwhile: name another folder")
    # First what tells that the folder is ours from now on.
    for path in sorted(stage.iterdir(), key=lambda path: path.name != source.ANSWERS):
        path.rename(folder / path.name)
    stage.rmdir()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yield a folder beside this one, for what is to take its place; if it fails, all of it goes.

    A signal that ends this process is a failure as well. One that cannot be caught leaves at worst
    the folder beside it, whose name starts with a dot, or a project that `make setup` completes.
    """
    was_there = folder.exists()
    parents = [path for path in folder.parents if not path.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    stage.chmod(0o777 & ~umask())
    ours = stage.stat().st_ino
    try:
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        if was_there and (folder / source.ANSWERS).exists():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif folder.is_dir() and folder.stat().st_ino == ours:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in parents:
            with suppress(OSError):  # somebody else is in it
                parent.rmdir()
        raise


def umask() -> int:
    """Give the process's file mode mask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
