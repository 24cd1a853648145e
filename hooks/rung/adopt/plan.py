"""What happens to each file when a repository and a rendered project are merged."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from ..exceptions import UsageError
from . import merge_files, own_files, pyproject
from .merge_files import decode_text, encode_text

# The machinery needs these: the template's version takes the path.
REQUIRED = (
    "pyproject.toml",
    "config/*.yaml",
    "tests/test_controls.py",
    "dvc.yaml",
    ".dvc/config",
    ".github/workflows/*.yml",  # they call each other by path; GitHub runs those beside them, too
)
PYTEST_SETTINGS = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml")
# A tool would read these instead of its table in pyproject.toml.
SHADOWS = (*PYTEST_SETTINGS, "ruff.toml", ".ruff.toml", "mypy.ini", ".mypy.ini", "uv.toml")
PYTHON_VERSION = ".python-version"
OLDEST_PYTHON = Version("3.11")
CODE = (".py", ".pyi", ".ipynb", "/")  # the last are submodules
MERGED = (*merge_files.LINE_FILES, ".editorconfig", "Makefile", ".pre-commit-config.yaml")
LINE_ENDS_COMMENT = "# Their line ends are as they were: Git changes no byte."


@dataclass
class FilePlan:
    """What happens to each path of the rendered project; paths are relative, with slashes."""

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    merged: dict[str, bytes] = field(default_factory=dict)  # also those that only the render has
    in_both: list[str] = field(default_factory=list)  # the merged ones that both have
    moved: dict[str, str] = field(default_factory=dict)  # theirs: its new path
    kept: dict[str, str] = field(default_factory=dict)  # theirs: the template's path
    notes: list[str] = field(default_factory=list)
    kept_targets: list[str] = field(default_factory=list)  # of their Makefile, that ours has, too

    def describe(self, names: Collection[str], *, in_git: bool) -> str:
        """Return one line for each file, or folder of new files, that says what happens to it.

        Args:
            names: All files of the repository.
            in_git: Whether it is in Git; if not, every file stays as it is.
        """
        folders = ", ".join(covering_paths(self.added, names))
        lines = [f"{len(self.added)} files are added: {folders}"]
        if in_git:
            lines += [f"{name}: merged into one file" for name in self.in_both]
            lines += [
                f"{name}: yours stays; the template's is in the history" for name in self.kept
            ]
            lines += self.describe_moves()
        else:
            clashing = (*self.in_both, *self.kept, *self.moved)
            lines += [f"{name}: yours stays; {name}.rung is written beside it" for name in clashing]
        lines += [f"{name}: the same in both" for name in self.same]
        return "\n".join(lines)

    def describe_moves(self) -> list[str]:
        """Return a sentence for each of their files that moves, with the reason."""
        lines = []
        for name, new_name in self.moved.items():
            hides_settings = name in (*SHADOWS, PYTHON_VERSION)
            reason = (
                "as it would override pyproject.toml"
                if hides_settings
                else "as the project needs its own"
            )
            lines.append(f"{name}: yours moves to {new_name}, {reason}")
        return lines


@dataclass
class Adoption:
    """Everything that is decided before anything is written."""

    files: FilePlan
    contents: dict[str, bytes]  # that neither the repository nor the render has, by path
    sections: dict[str, list[str]] = field(default_factory=dict)  # of the report, in its order
    data_file: str | None = None
    target: str | None = None


def plan_files(
    rendered: Mapping[str, bytes],
    theirs: Mapping[str, bytes],
    names: Collection[str],
    crlf: Collection[str],
) -> FilePlan:
    """Decide what happens to each file; pyproject.toml is merged later, with the requirements.

    Args:
        rendered: The rendered project's files.
        theirs: The repository's files that `clashing_files` names.
        names: All files of the repository.
        crlf: Those whose line ends Git must leave alone.
    """
    plan = FilePlan()
    by_folded_name = {name.casefold(): name for name in theirs}
    for name, content in rendered.items():
        own = name if name in theirs else by_folded_name.get(name.casefold())
        if own is None:
            plan.added.append(name)
        elif theirs[own] == content:
            plan.same.append(name)
        elif name in MERGED:
            merge_file(plan, name, own, decode_text(content), decode_text(theirs[own]))
        elif name == "pyproject.toml" and pyproject.is_toml(decode_text(theirs[own])):
            plan.in_both.append(name)
        elif any(fnmatch.fnmatch(name, pattern) for pattern in REQUIRED):
            plan.moved[own] = path_aside(own, names)
        else:
            plan.kept[own] = name
    for name in SHADOWS:
        if name in theirs:
            plan.moved[name] = path_aside(name, names)
    if PYTHON_VERSION in theirs and not is_supported(decode_text(theirs[PYTHON_VERSION])):
        plan.moved[PYTHON_VERSION] = path_aside(PYTHON_VERSION, names)
    if "uv.lock" in names:
        plan.notes.append("uv.lock: relocked, starting from yours")
    if ".gitattributes" in rendered:
        keep_line_ends(plan, decode_text(rendered[".gitattributes"]), crlf)
    return plan


def keep_line_ends(plan: FilePlan, attributes: str, crlf: Collection[str]) -> None:
    """Make Git leave the line ends of files alone that the plan does not replace.

    Args:
        plan: The plan, whose .gitattributes is extended.
        attributes: The template's .gitattributes.
        crlf: The files.
    """
    replaced = {*plan.merged, "pyproject.toml", "uv.lock"}
    kept = [name for name in sorted(crlf) if name not in replaced and not name.startswith("data/")]
    if not kept:
        return
    if ".gitattributes" in plan.merged:
        attributes = decode_text(plan.merged[".gitattributes"])
    lines = merge_files.keep_line_ends(plan.moved.get(name, name) for name in kept)
    text = merge_files.append_block(attributes, LINE_ENDS_COMMENT, lines.strip("\n"))
    plan.merged[".gitattributes"] = encode_text(text)


def clashing_files(names: Collection[str], rendered: Collection[str]) -> list[str]:
    """Return the files of a repository whose content matters to a rendered project."""
    wanted = {name.casefold() for name in rendered} | {*SHADOWS, PYTHON_VERSION}
    return [name for name in names if name.casefold() in wanted]


def merge_file(plan: FilePlan, name: str, own: str, ours: str, theirs: str) -> None:
    """Merge a file that both have, and add it to the plan.

    Args:
        plan: The plan.
        name: The template's path.
        own: The repository's path, which may differ in case.
        ours: The template's text.
        theirs: The repository's text.
    """
    if name in merge_files.LINE_FILES:
        text = merge_files.merge_lines(ours, theirs)
    elif name == ".editorconfig":
        text = merge_files.merge_editorconfig(ours, theirs)
    elif name == "Makefile":
        text, defined = merge_files.merge_makefile(ours, theirs)
        plan.kept_targets = defined
        if defined:
            plan.notes.append(own_files.kept_targets_note(own, defined))
    else:  # which paths its hooks skip is not known yet
        text, complete = merge_files.merge_pre_commit(ours, theirs, ())
        if not complete:
            plan.kept[own] = name
            return
    plan.merged[own] = encode_text(text)
    plan.in_both.append(own)


def path_aside(name: str, names: Collection[str]) -> str:
    """Return a free path next to a file, such as config/model.before.yaml.

    Raises:
        UsageError: A hundred of them are taken.
    """
    path = PurePosixPath(name)
    is_hidden = path.stem.startswith(".") and not path.suffix
    for number in ("", *map(str, range(2, 100))):
        suffix = f".before{number}"
        new_name = f"{path.name}{suffix}" if is_hidden else f"{path.stem}{suffix}{path.suffix}"
        new_path = str(path.with_name(new_name))
        if new_path not in names:
            return new_path
    raise UsageError(f"there are too many files next to {name}: clean them up first")


def is_supported(python_version: str) -> bool:
    """Check whether a project runs on every Python that a .python-version lists."""
    try:
        return all(Version(line) >= OLDEST_PYTHON for line in python_version.split())
    except InvalidVersion:
        return False


def find_obstacles(
    folder: Path, rendered: Collection[str], tracked: Collection[str] | None
) -> list[str]:
    """Return a sentence for each thing in the way of a file, if it cannot be merged with it.

    Args:
        folder: The repository.
        rendered: The rendered project's paths.
        tracked: The paths in Git; None without Git, where every file is kept as it is.
    """
    obstacles = dict[str, None]()  # without repetition, in order
    for name in rendered:
        obstacles |= dict.fromkeys(parent_obstacles(folder, name))
        path = folder / name
        exists = path.is_symlink() or path.exists()
        if path.is_symlink() and name in (*MERGED, "pyproject.toml"):
            problem = f"{name} is a link, and has to be merged: replace it with a file"
        elif path.is_dir():
            problem = f"{name} is a directory, and a project has a file there: rename it"
        elif exists and tracked is not None and name not in tracked:
            problem = f"{name} is not in Git, and a project has one, too: commit it, or move it"
        else:
            continue
        obstacles[problem] = None
    return list(obstacles)


def parent_obstacles(folder: Path, name: str) -> Iterator[str]:
    """Yield a sentence for each parent of a path that is not a directory of this repository."""
    for parent in PurePosixPath(name).parents:
        path = folder / parent
        if str(parent) == ".":
            continue
        if path.is_symlink():
            yield f"{parent} is a link, and a project has a directory there: rename it"
        elif path.exists() and not path.is_dir():
            yield f"{parent} is a file, and a project has a directory there: rename it"
        elif (path / ".git").exists():
            yield f"{parent} is another repository, and a project has files there"


def covering_paths(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the fewest files and folders that contain all of these files and none of the others.

    A folder has a slash at its end.
    """
    shared = {
        str(path) for name in others for path in (PurePosixPath(name), *PurePosixPath(name).parents)
    }
    covering = dict[str, None]()  # without repetition, in order
    for name in sorted(names):
        parents = [str(path) for path in reversed(PurePosixPath(name).parents)]
        folder = next((path for path in parents if path != "." and path not in shared), None)
        covering[f"{folder}/" if folder else name] = None
    return list(covering)


def tool_exclusions(
    names: Collection[str], rendered: Collection[str], package: str
) -> dict[str, list[str]]:
    """Return the existing files that ruff, mypy, pytest and pre-commit skip, as each writes them.

    Args:
        names: The files that existed before.
        rendered: The rendered project's paths.
        package: The project's package.
    """
    code = [
        name for name in names if name.endswith(CODE) and not name.startswith(f"src/{package}/")
    ]
    typed = [
        name for name in code if name.startswith(("src/", "tests/")) and not name.endswith(".ipynb")
    ]
    tests = [
        name for name in code if re.fullmatch(r"tests/(.*/)?(test_[^/]*|[^/]*_test)\.py", name)
    ]
    hooked = [
        name for name in names if not name.startswith("data/") or name.endswith((".yaml", ".yml"))
    ]
    pytest_options = [f"--ignore={path.rstrip('/')}" for path in covering_paths(tests, rendered)]
    if {"conftest.py", "tests/conftest.py"} & {*names}:
        pytest_options.append("--noconftest")
    if "tests/__init__.py" in names:
        # Otherwise pytest imports what is at the top before what is installed.
        pytest_options.append("--import-mode=importlib")
    return {
        "ruff": [glob_pattern(path) for path in covering_paths(code, rendered)],
        "mypy": [regex_pattern(path) for path in covering_paths(typed, rendered)],
        "pytest": pytest_options,
        "hooks": [
            regex_pattern(path).removeprefix("^") for path in covering_paths(hooked, rendered)
        ],
    }


def glob_pattern(path: str) -> str:
    """Return the glob pattern that matches just this path."""
    return "./" + re.sub(r"([*?\[\]{}])", r"[\1]", path)


def regex_pattern(path: str) -> str:
    """Return a regular expression for a file, or for a folder with a slash at its end."""
    return f"^{re.escape(path)}{'' if path.endswith('/') else '$'}"
