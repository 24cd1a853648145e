"""The project that a command runs in, as `[tool.rung]` of its pyproject.toml describes it."""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from . import UsageError

FILE = Path("pyproject.toml")
PLATFORMS = ("github", "gitlab")
LEVELS = (0, 1, 2)


@dataclass(frozen=True)
class Project:
    """What the runtime has to know of a project, besides `config/`.

    The defaults hold where there is no project, as in a container: everything is there.
    """

    package: str = "model"  # the Python package that `problem/` is in
    level: int = 2
    ci: tuple[str, ...] = PLATFORMS
    registry: str = "oci"
    deployment: str = "local"
    explainer: str = "shapley"
    engine: str = "polars"

    @property
    def has_loop(self) -> bool:
        """Whether there is more than the pipeline: registry, service, deployment, monitoring."""
        return self.level >= 1


def current() -> Project:
    """Return the project of the current folder, or of the nearest one above it.

    Raises:
        UsageError: `[tool.rung]` of its pyproject.toml has a key or a value that is not known.
    """
    return _used or _read(Path.cwd())


_used: Project | None = None


def use(project: Project) -> None:
    """Have this process belong to a project wherever it runs, as a worker of a cluster does."""
    global _used
    _used = project


@cache
def _read(folder: Path) -> Project:
    for place in (folder, *folder.parents):
        try:
            text = (place / FILE).read_text("utf-8")
            table = tomllib.loads(text).get("tool", {}).get("rung")
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue  # not there, or not a project's: uv says what is wrong with it
        if table is not None:
            return _checked(table)
    return Project()


def _checked(table: Any) -> Project:
    if not isinstance(table, dict):
        raise UsageError(f"{FILE}: [tool.rung] is not a table")
    known = {field.name: field.default for field in fields(Project)}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{FILE}: [tool.rung] has no key {key!r}: use {', '.join(known)}")
        if isinstance(known[key], str) and not (isinstance(value, str) and value.isidentifier()):
            raise UsageError(f"{FILE}: [tool.rung] {key} is {value!r}: give a name")
    level = table.get("level", 0)
    ci = table.get("ci", [])
    if isinstance(level, bool) or level not in LEVELS:
        raise UsageError(f"{FILE}: [tool.rung] level is {level!r}: use one of 0, 1, 2")
    if not isinstance(ci, list) or not all(isinstance(name, str) for name in ci):
        raise UsageError(f"{FILE}: [tool.rung] ci is {ci!r}: give a list of names")
    return Project(**(table | {"level": level, "ci": tuple(ci)}))
