"""What happens to each file when a repository and a render of the template become one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from . import BadInputError, merged, pyproject
from .merged import decoded, encoded

# What the machinery cannot do without: ours takes the path.
OURS = ("pyproject.toml", "config/*.yaml", "tests/test_controls.py", "dvc.yaml", ".dvc/config")
# A tool would read these, and not what pyproject.toml has for it.
SHADOWS = (
    *("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"),
    *("ruff.toml", ".ruff.toml", "mypy.ini", ".mypy.ini"),
)
CODE = (".py", ".pyi", ".ipynb", "/")  # and submodules
MERGED = (*merged.BY_LINES, ".editorconfig", "Makefile", ".pre-commit-config.yaml")


@dataclass
class Plan:
    """Each path of the render, and what becomes of it; paths are relative, with slashes."""

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    merged: dict[str, bytes] = field(default_factory=dict)  # also those that only the render has
    both: list[str] = field(default_factory=list)  # the merged ones that both have
    moved: dict[str, str] = field(default_factory=dict)  # theirs: where it goes
    stays: dict[str, str] = field(default_factory=dict)  # theirs: the template's path
    notes: list[str] = field(default_factory=list)

    def tell(self, names: Collection[str], *, git: bool) -> str:
        """Say what will happen to which file.

        Args:
            names: All files of the repository.
            git: It is in Git; else each file of it stays as it is.
        """
        folders = ", ".join(outside(self.added, names))
        said = [f"{len(self.added)} files are added: {folders}"]
        if git:
            said += [f"{name}: one file of both" for name in self.both]
            said += [f"{name}: yours stays; the template's is in history" for name in self.stays]
            said += self.moves()
        else:
            kept = (*self.both, *self.stays, *self.moved)
            said += [f"{name}: yours stays; {name}.rung is written beside it" for name in kept]
        said += [f"{name}: the same on both sides" for name in self.same]
        return "\n".join(said)

    def moves(self) -> list[str]:
        """Say which files of theirs go elsewhere, and why."""
        shadows = (*SHADOWS, ".python-version")
        return [
            f"{name}: yours goes to {to}, "
            + (
                "or pyproject.toml would not count"
                if name in shadows
                else "the project needs its own"
            )
            for name, to in self.moved.items()
        ]


def plan(
    rendered: Mapping[str, bytes],
    theirs: Mapping[str, bytes],
    names: Collection[str],
    crlf: Collection[str],
) -> Plan:
    """Decide on each file; pyproject.toml is left to those who know the requirements.

    Args:
        rendered: The template's files.
        theirs: Those of the repository that `clash` names.
        names: All files of the repository.
        crlf: Files of theirs whose line ends Git must leave alone.
    """
    made = Plan()
    known = {name.casefold(): name for name in theirs}
    for name, ours in rendered.items():
        own = name if name in theirs else known.get(name.casefold())
        if own is None:
            made.added.append(name)
        elif theirs[own] == ours:
            made.same.append(name)
        elif name in MERGED:
            merge(made, name, own, decoded(ours), decoded(theirs[own]))
        elif name == "pyproject.toml" and pyproject.readable(decoded(theirs[own])):
            made.both.append(name)
        elif any(fnmatch.fnmatch(name, pattern) for pattern in OURS):
            made.moved[own] = before(own, names)
        else:
            made.stays[own] = name
    for name in SHADOWS:
        if name in theirs:
            made.moved[name] = before(name, names)
    if ".python-version" in theirs and not runs(decoded(theirs[".python-version"])):
        made.moved[".python-version"] = before(".python-version", names)
    if "uv.lock" in names:
        made.notes.append("uv.lock: locked anew, from yours")
    replaced = {*made.merged, "pyproject.toml", "uv.lock"}
    kept = [n for n in sorted(crlf) if n not in replaced and not n.startswith("data/")]
    if kept and ".gitattributes" in rendered:
        start = decoded(made.merged.get(".gitattributes", rendered[".gitattributes"]))
        comment = "# Their line ends are as they were: Git changes no byte."
        names = [made.moved.get(name, name) for name in kept]
        text = merged.block(start, comment, merged.bytes_kept(names).strip("\n"))
        made.merged[".gitattributes"] = encoded(text)
    return made


def clash(names: Collection[str], rendered: Collection[str]) -> list[str]:
    """Name the files of a repository whose content matters to a render."""
    wanted = {name.casefold() for name in rendered} | {*SHADOWS, ".python-version"}
    return [name for name in names if name.casefold() in wanted]


def merge(made: Plan, name: str, own: str, ours: str, theirs: str) -> None:
    """Make one file of two."""
    if name in merged.BY_LINES:
        text = merged.lines(ours, theirs)
    elif name == ".editorconfig":
        text = merged.editorconfig(ours, theirs)
    elif name == "Makefile":
        text, defined = merged.makefile(ours, theirs)
        if defined:
            made.notes.append(f"{own}: {', '.join(defined)} stay as yours say")
    else:  # what is left out is not known yet
        text, whole = merged.pre_commit(ours, theirs, ())
        if not whole:
            made.stays[own] = name
            made.notes.append(f"{own} stays as it was, without the template's hooks")
            return
    made.merged[own] = encoded(text)
    made.both.append(own)


def before(name: str, names: Collection[str]) -> str:
    """Name a free path beside a file: config/model.before.yaml."""
    path = PurePosixPath(name)
    hidden = path.stem.startswith(".") and not path.suffix
    for number in ("", *map(str, range(2, 100))):
        last = (
            f"{path.name}.before{number}" if hidden else f"{path.stem}.before{number}{path.suffix}"
        )
        if (new := str(path.with_name(last))) not in names:
            return new
    raise BadInputError(f"there are too many files beside {name}: tidy them first")


def runs(said: str) -> bool:
    """Tell whether a project runs on the Python that a .python-version names."""
    try:
        return all(Version(line) >= Version("3.11") for line in said.split())
    except InvalidVersion:
        return False


def obstacles(
    folder: Path, rendered: Collection[str], tracked: Collection[str] | None
) -> list[str]:
    """Say what stands where the render writes and cannot be merged with it.

    Args:
        folder: The repository.
        rendered: Paths of the render.
        tracked: Paths in Git; None without Git, where every file is kept as it is.
    """
    said: dict[str, None] = {}
    for name in rendered:
        path = folder / name
        for parent in PurePosixPath(name).parents:
            at = folder / parent
            if str(parent) != "." and (at.is_symlink() or (at.exists() and not at.is_dir())):
                kind = "a link" if at.is_symlink() else "a file"
                said[f"{parent} is {kind}, and a project has a folder there: rename it"] = None
            elif str(parent) != "." and (at / ".git").exists():
                said[f"{parent} is another repository, and a project has files there"] = None
        if path.is_symlink() and name in (*MERGED, "pyproject.toml"):
            said[f"{name} is a link, and is to be merged: replace it by a file"] = None
        elif path.is_dir():
            said[f"{name} is a folder, and a project has a file there: rename it"] = None
        elif (path.is_symlink() or path.exists()) and tracked is not None and name not in tracked:
            said[f"{name} is not in Git, and a project has one: commit it, or move it"] = None
    return list(said)


def outside(names: Collection[str], rendered: Collection[str]) -> list[str]:
    """Give the fewest folders, with a slash at the end, and files that hold these and no other."""
    ours = {
        str(p) for name in rendered for p in (PurePosixPath(name), *PurePosixPath(name).parents)
    }
    found: dict[str, None] = {}
    for name in sorted(names):
        parents = [str(p) for p in reversed(PurePosixPath(name).parents) if str(p) != "."]
        folder = next((p for p in parents if p not in ours), None)
        found[f"{folder}/" if folder else name] = None
    return list(found)


def left_out(
    names: Collection[str], rendered: Collection[str], package: str
) -> dict[str, list[str]]:
    """Give what ruff, mypy, pytest and pre-commit leave alone, each in its own words.

    Args:
        names: The files that were there before.
        rendered: Paths of the render.
        package: The project's package.
    """
    code = [n for n in names if n.endswith(CODE)]
    code = [n for n in code if not n.startswith(f"src/{package}/")]
    typed = [n for n in code if n.startswith(("src/", "tests/")) and not n.endswith(".ipynb")]
    tests = [n for n in code if re.fullmatch(r"tests/(.*/)?(test_[^/]*|[^/]*_test)\.py", n)]
    hooked = [n for n in names if not n.startswith("data/") or n.endswith((".yaml", ".yml"))]
    pytest = [f"--ignore={n.rstrip('/')}" for n in outside(tests, rendered)]
    if {"conftest.py", "tests/conftest.py"} & {*names}:
        pytest.append("--noconftest")
    return {
        "ruff": ["./" + re.sub(r"([*?\[\]{}])", r"[\1]", n) for n in outside(code, rendered)],
        "mypy": [pattern(n) for n in outside(typed, rendered)],
        "pytest": pytest,
        "hooks": [pattern(n).removeprefix("^") for n in outside(hooked, rendered)],
    }


def pattern(name: str) -> str:
    """Give a regular expression of a file, or of a folder with a slash at its end."""
    return f"^{re.escape(name)}{'' if name.endswith('/') else '$'}"
