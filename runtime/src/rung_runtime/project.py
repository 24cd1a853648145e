"""The project that a command runs in, as `[tool.rung]` of its pyproject.toml describes it."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import BadInput

FILE = Path("pyproject.toml")
PLATFORMS = ("github", "gitlab")
# What each key may be; the template writes all of them from the project's answers.
CHOICES: dict[str, tuple[Any, ...]] = {
    "level": (0, 1, 2),
    "registry": ("oci", "mlflow"),
    "deployment": ("local", "kubernetes"),
}


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

    @property
    def has_loop(self) -> bool:
        """Whether there is more than the pipeline: registry, service, deployment, monitoring."""
        return self.level >= 1


def current() -> Project:
    """Return the project of the current folder, or of the nearest one above it.

    Raises:
        BadInput: `[tool.rung]` of its pyproject.toml has a key or a value that is not known.
    """
    return _read(Path.cwd())


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
        raise BadInput(f"{FILE}: [tool.rung] is not a table")
    known = {"package": Project.package, "ci": list(PLATFORMS), **CHOICES}
    for key in table:
        if key not in known:
            raise BadInput(f"{FILE}: [tool.rung] has no key {key!r}: use {', '.join(known)}")
    for key, choices in CHOICES.items():
        value = table.get(key, choices[0])
        if isinstance(value, bool) or value not in choices:
            listed = ", ".join(map(str, choices))
            raise BadInput(f"{FILE}: [tool.rung] {key} is {value!r}: use one of {listed}")
    package = table.get("package", Project.package)
    if not (isinstance(package, str) and package.isidentifier()):
        raise BadInput(f"{FILE}: [tool.rung] package is {package!r}: name a Python package")
    ci = table.get("ci", [])
    if not isinstance(ci, list) or not set(map(str, ci)) <= set(PLATFORMS):
        raise BadInput(f"{FILE}: [tool.rung] ci is {ci!r}: list any of {', '.join(PLATFORMS)}")
    return Project(**(table | {"ci": tuple(ci)}))
