"""Adopting a folder that is not in Git: every existing file stays, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ..exceptions import UsageError
from .plan import FilePlan

SUFFIX = ".rung"  # of the template's version of a file that exists


def target_paths(plan: FilePlan) -> dict[str, str]:
    """Return the files to write, and the path in the rendered project that each comes from."""
    added = {name: name for name in plan.added}
    clashing = {name: name for name in (*plan.in_both, *plan.moved)} | plan.kept
    return added | {f"{own}{SUFFIX}": name for own, name in clashing.items()}


def describe_clashes(plan: FilePlan) -> list[str]:
    """Return a sentence for each file that exists in both."""
    clashing = (*plan.in_both, *plan.kept, *plan.moved)
    return [f"{name}: yours; the template's version is {name}{SUFFIX}" for name in clashing]


def write_files(
    folder: Path, render: Path, plan: FilePlan, written: Mapping[str, bytes]
) -> list[str]:
    """Add a rendered project to a folder; if that fails, remove everything that was added.

    Args:
        folder: The folder that is adopted.
        render: The rendered project.
        plan: What happens to each file.
        written: Contents that differ from the render's, by path in the folder.

    Returns:
        The files that were added.

    Raises:
        UsageError: A file cannot be written.
    """
    new_files = list[Path]()
    new_folders = list[Path]()
    paths = target_paths(plan)
    if "pyproject.toml" in plan.added:
        paths["uv.lock"] = "uv.lock"
    try:
        for name, source in paths.items():
            path = folder / name
            rendered = render / source
            content = written.get(name.removesuffix(SUFFIX))
            if content is None and not rendered.exists():
                continue  # it only hides settings: the template has no such file
            new_folders += [parent for parent in reversed(path.parents) if not parent.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                new_files.append(path)
                file.write(rendered.read_bytes() if content is None else content)
            if rendered.exists():
                shutil.copymode(rendered, path)
    except BaseException as error:
        for path in new_files:
            path.unlink()
        for path in reversed(new_folders):
            path.rmdir()
        if isinstance(error, OSError):
            name = Path(error.filename or folder).relative_to(folder).as_posix()
            raise UsageError(
                f"{name} cannot be written ({error.strerror}): nothing was changed"
            ) from None
        raise
    return [path.relative_to(folder).as_posix() for path in new_files]
