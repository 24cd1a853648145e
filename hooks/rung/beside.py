"""Adopting a folder that is not in Git: each file that is there stays, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from . import BadInputError
from .meet import Plan

OTHER = ".rung"  # at the end of the name of what a clashing file would be


def targets(plan: Plan) -> dict[str, str]:
    """Name the files that are written, and the path in the render that each is from."""
    found = {name: name for name in plan.added}
    clashing = {name: name for name in (*plan.both, *plan.moved)} | plan.stays
    return found | {f"{own}{OTHER}": name for own, name in clashing.items()}


def told(plan: Plan) -> list[str]:
    """Say which files are on both sides."""
    kept = (*plan.both, *plan.stays, *plan.moved)
    return [f"{name}: yours; what would take its place is {name}{OTHER}" for name in kept]


def write(folder: Path, render: Path, plan: Plan, written: Mapping[str, bytes]) -> list[str]:
    """Add a render to a folder, and give what was added; if that fails, all of it goes.

    Args:
        folder: The repository.
        render: The rendered project.
        plan: What becomes of each file.
        written: Contents that are not as the render has them, by the path in the folder.

    Raises:
        BadInputError: A file cannot be written.
    """
    added, made = list[Path](), list[Path]()
    try:
        locked = {"uv.lock": "uv.lock"} if "pyproject.toml" in plan.added else {}
        for name, source in (targets(plan) | locked).items():
            path, content = folder / name, written.get(name.removesuffix(OTHER))
            if content is None and not (render / source).exists():
                continue  # a file that only shadows
            made += [p for p in reversed(path.parents) if not p.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                added.append(path)
                file.write((render / source).read_bytes() if content is None else content)
            if (render / source).exists():
                shutil.copymode(render / source, path)
    except BaseException as error:
        for path in added:
            path.unlink()
        for path in reversed(made):
            path.rmdir()
        if isinstance(error, OSError):
            where = Path(error.filename or folder).relative_to(folder)
            said = f"{where} cannot be written ({error.strerror}): nothing was changed"
            raise BadInputError(said) from None
        raise
    return [path.relative_to(folder).as_posix() for path in added]
