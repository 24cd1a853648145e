"""What a repository says of itself: its answers to the questions, each with the reason for it."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
import yaml
from tomlkit.exceptions import TOMLKitError

from .notebooks import called, text

UNSAID = "What this predicts is not said yet."


@dataclass(frozen=True)
class Guess:
    """A value, and where it is from."""

    value: Any
    why: str


def answers(
    folder: Path, files: Sequence[str], remotes: str, taken: Iterable[str]
) -> dict[str, Guess]:
    """Guess answers to the template's questions, such as its validators accept.

    Args:
        folder: The repository.
        files: Its files, relative to it.
        remotes: What `git remote -v` prints.
        taken: Names that no package may have.
    """
    found = {}
    heading, paragraph = readme(folder, files)
    names = [*((about["name"], why) for about, why in metadata(folder) if about.get("name"))]
    known = Guess(*names[0]) if names else None
    title = Guess(heading, "the title of the README") if heading else None
    fallback = Guess(folder.resolve().name, "the folder's name")
    found["project_name"] = named(title or known or fallback)
    found["package_name"] = package(known or title or fallback, folder, files, {*taken})
    said = [(about.get("description", ""), why) for about, why in metadata(folder)]
    for words, why in (*said, (paragraph, "the README")):
        if sentence := described(words):
            found["description"] = Guess(sentence, why)
            break
    else:
        found["description"] = Guess(UNSAID, "nothing says it")
    hosts = {
        "github": (".github/", "github.com"),
        "gitlab": (".gitlab-ci.yml", "gitlab"),
    }
    here = [h for h, (path, _) in hosts.items() if any(f.startswith(path) for f in files)]
    there = [h for h, (_, url) in hosts.items() if url in remotes]
    if here:
        found["ci"] = Guess(here, "the pipelines that are there")
    elif there:
        found["ci"] = Guess(there, "where its remote is")
    return found


def metadata(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Give name and description as files say them, the best known first."""
    pyproject = toml(folder / "pyproject.toml")
    yield strings(pyproject.get("project")), "pyproject.toml"
    yield strings(dig(pyproject, "tool", "poetry")), "pyproject.toml"
    yield setup_py(folder / "setup.py"), "setup.py"
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(text(folder / "setup.cfg"))
        yield strings(dict(config["metadata"]) if "metadata" in config else {}), "setup.cfg"
    except ConfigError:
        pass
    for name in ("environment.yml", "environment.yaml"):
        about = strings(conda(folder / name))
        if about.get("name") not in (None, "base", "env", "environment", "venv"):
            yield {"name": about["name"]}, name


def strings(table: Any) -> dict[str, str]:
    """Give a table's values that are texts."""
    pairs = table.items() if isinstance(table, dict) else ()
    return {str(k): str(v).strip() for k, v in pairs if isinstance(v, str) and v.strip()}


def dig(table: Any, *keys: str) -> Any:
    """Give what is in a table's tables, or an empty one."""
    for key in keys:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table


def toml(file: Path) -> dict[str, Any]:
    """Read TOML; what cannot be read is empty."""
    try:
        return dict(tomlkit.parse(text(file)).unwrap())
    except (TOMLKitError, ValueError):
        return {}


def conda(file: Path) -> dict[str, Any]:
    """Read YAML that is a mapping; what cannot be read is empty."""
    try:
        read = yaml.safe_load(text(file))
    except yaml.YAMLError:
        return {}
    return read if isinstance(read, dict) else {}


def setup_py(file: Path) -> dict[str, str]:
    """Give the texts that setup() is called with."""
    try:
        tree = ast.parse(text(file))
    except (SyntaxError, ValueError):
        return {}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n) == "setup"]
    return {
        keyword.arg: keyword.value.value.strip()
        for call in calls
        for keyword in call.keywords
        if keyword.arg
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, str)
    }


def readme(folder: Path, files: Sequence[str]) -> tuple[str, str]:
    """Give a README's title and its first paragraph, or empty texts."""
    name = next((f for f in files if re.fullmatch(r"(?i)readme(\.\w+)?", f)), None)
    said = text(folder / name).replace("\r\n", "\n") if name else ""
    said = re.sub(r"(?m)^(.+)\n[=~-]{3,}$", r"# \1\n", said)  # a line under a heading
    said = re.sub(r"(?m)^(#.*)$", r"\1\n", said)
    blocks = [block for block in re.split(r"\n\s*\n", said.strip()) if plain(block)]
    if not blocks:
        return "", ""
    title, *others = blocks
    if not title.startswith("#") and ("\n" in title or title.rstrip().endswith((".", "!", "?"))):
        title, others = "", blocks
    return plain(title.lstrip("# ")), plain(next((b for b in others if b[0] not in "#.-*"), ""))


def plain(words: str) -> str:
    """Take Markdown out of a text."""
    words = re.sub(r"\[?!\[[^]]*\]\([^)]*\)(\]\([^)]*\))?|<[^>]*>", "", words)  # pictures, badges
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words)
    return " ".join(re.sub(r"[*`]|:\w+:", "", words).split())


def named(guess: Guess) -> Guess:
    """Make it a project's name."""
    name = re.sub(r"[^\w .,:&()+-]+", " ", str(guess.value))
    name = re.sub(r"^[\W\d_]+", "", " ".join(name.split()))
    if " " not in name:  # a name of a package or a folder
        name = re.sub(r"[-_.]+", " ", name).strip()
        name = name[:1].upper() + name[1:]
    return Guess(name[:60].strip() or "Adopted project", guess.why)


def package(guess: Guess, folder: Path, files: Iterable[str], taken: set[str]) -> Guess:
    """Make it a package's name that nothing has, here or in Python."""
    here = {part for f in files for part in (f.split("/")[0], *f.split("/")[1:2])}
    here |= {path.name for path in (*folder.glob("*"), *folder.glob("src/*"))}
    name = re.sub(r"[^a-z0-9]+", "_", str(guess.value).lower()).strip("_")[:24].strip("_")
    known = name in taken | sys.stdlib_module_names or keyword.iskeyword(name)
    if known or not name[:1].isalpha():
        name = f"project_{name}"[:24].strip("_")
    own = {name, f"{name}.py"}
    if own & {*here, *(entry.lower() for entry in here)}:
        return Guess(f"{name}_model", f"{guess.why}; {name} is there already")
    return Guess(name, guess.why)


def described(words: str) -> str:
    """Make it a description: one line that may stand between double quotes."""
    words = re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029"\\`<>{}]', "", " ".join(words.split()))
    if len(words) > 200:
        first = re.match(r"(.{20,199}?[.!?])(\s|$)", words)
        words = first[1] if first else words[:199].rpartition(" ")[0] + "…"
    return words.strip()


def python(folder: Path) -> Guess | None:
    """Give what the repository says of its Python, such as `>=3.8`."""
    pyproject = toml(folder / "pyproject.toml")
    pipfile = strings(toml(folder / "Pipfile").get("requires"))
    named = {
        "pyproject.toml": dig(pyproject, "project").get("requires-python")
        or dig(pyproject, "tool", "poetry", "dependencies").get("python"),
        ".python-version": text(folder / ".python-version").strip(),
        "Pipfile": pipfile.get("python_version"),
    }
    for name in ("environment.yml", "environment.yaml"):
        listed = conda(folder / name).get("dependencies") or ()
        named[name] = next((d[6:] for d in listed if re.match(r"python[=<> ]", str(d))), None)
    said = {why: str(value) for why, value in named.items() if value}
    return next((Guess(value, why) for why, value in said.items()), None)


def too_old(said: str) -> bool:
    """Tell whether a Python that is asked for is older than any that a project runs on."""
    version = re.search(r"(?<![\d<])3\.(\d+)", said)
    return bool(version and int(version[1]) < 11) or said.startswith("2")
