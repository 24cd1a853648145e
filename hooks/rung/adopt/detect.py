"""What a repository's files say about it: answers to the questions, each with its reason."""

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

from .files import read_text, read_toml, read_yaml
from .notebooks import called_name

NO_DESCRIPTION = "No description yet."
CONDA_FILES = (
    "environment.yml",
    "environment.yaml",
    "conda.yaml",
    "conda.yml",
    "env.yml",
    "env.yaml",
)
UNNAMED_ENVIRONMENTS = ("base", "env", "environment", "venv")
PIPELINE_FILES = {"github": ".github/", "gitlab": ".gitlab-ci.yml"}
HOSTS = {"github": "github.com", "gitlab": "gitlab"}
OLDEST_MINOR = 11  # of Python 3, for a project
LONGEST_NAME = 60  # characters, the limits of copier.yml
LONGEST_PACKAGE = 24
LONGEST_DESCRIPTION = 200


@dataclass(frozen=True)
class Guess:
    """A value, and the reason for it."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Metadata:
    """What one file says about a repository."""

    file: str
    name: str = ""
    description: str = ""


def detect_answers(
    folder: Path, files: Sequence[str], remotes: str, reserved: Iterable[str]
) -> dict[str, Guess]:
    """Guess answers to the template's questions that its validators accept.

    Args:
        folder: The repository.
        files: Its files, relative to it.
        remotes: What `git remote -v` prints.
        reserved: Names that a package must not have.
    """
    heading, paragraph = title_and_summary(folder, files)
    metadata = [*read_metadata(folder)]
    from_file = next((Guess(item.name, item.file) for item in metadata if item.name), None)
    from_title = Guess(heading, "the title of the README") if heading else None
    from_folder = Guess(folder.resolve().name, "the folder's name")
    answers = {
        "project_name": project_name(from_title or from_file or from_folder),
        "package_name": package_name(
            from_file or from_title or from_folder, folder, files, {*reserved}
        ),
        "description": Guess(NO_DESCRIPTION, "no file has a description"),
    }
    sources = [*((item.description, item.file) for item in metadata), (paragraph, "the README")]
    for text, source in sources:
        if sentence := one_line(text):
            answers["description"] = Guess(sentence, source)
            break
    has_pipelines = [
        provider
        for provider, path in PIPELINE_FILES.items()
        if any(file.startswith(path) for file in files)
    ]
    has_remote = [provider for provider, host in HOSTS.items() if host in remotes]
    if has_pipelines:
        answers["ci"] = Guess(has_pipelines, "its existing pipelines")
    elif has_remote:
        answers["ci"] = Guess(has_remote, "the host of its remote")
    return answers


def read_metadata(folder: Path) -> Iterator[Metadata]:
    """Yield name and description as each file has them, the most reliable first."""

    def metadata(file: str, table: dict[str, str]) -> Metadata:
        return Metadata(file, table.get("name", ""), table.get("description", ""))

    pyproject = read_toml(folder, "pyproject.toml")
    yield metadata("pyproject.toml", text_values(pyproject.get("project")))
    yield metadata("pyproject.toml", text_values(nested(pyproject, "tool", "poetry")))
    yield metadata("setup.py", setup_arguments(folder))
    yield metadata("setup.cfg", setup_cfg(folder, "metadata"))
    for file in CONDA_FILES:
        name = text_values(read_yaml(folder, file)).get("name")
        if name and name not in UNNAMED_ENVIRONMENTS:
            yield Metadata(file, name)


def text_values(table: Any) -> dict[str, str]:
    """Return the values of a table that are texts and not empty."""
    pairs = table.items() if isinstance(table, dict) else ()
    texts = {str(key): value.strip() for key, value in pairs if isinstance(value, str)}
    return {key: text for key, text in texts.items() if text}


def nested(table: Any, *keys: str) -> Any:
    """Return a value inside nested tables, or an empty table if there is none."""
    for key in keys:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table


def setup_cfg(folder: Path, section: str) -> dict[str, str]:
    """Return a section of a setup.cfg; empty if there is none, or it cannot be read."""
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(read_text(folder, "setup.cfg"))
    except ConfigError:
        return {}
    return text_values(dict(config[section])) if section in config else {}


def setup_arguments(folder: Path) -> dict[str, str]:
    """Return the literal texts that a setup.py passes to setup()."""
    try:
        tree = ast.parse(read_text(folder, "setup.py"))
    except (SyntaxError, ValueError):
        return {}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        argument.arg: argument.value.value.strip()
        for call in calls
        if called_name(call) == "setup"
        for argument in call.keywords
        if argument.arg
        and isinstance(argument.value, ast.Constant)
        and isinstance(argument.value.value, str)
    }


def title_and_summary(folder: Path, files: Sequence[str]) -> tuple[str, str]:
    """Return a README's title and its first paragraph, each empty if there is none."""
    name = next((file for file in files if re.fullmatch(r"(?i)readme(\.\w+)?", file)), None)
    text = read_text(folder, name).replace("\r\n", "\n") if name else ""
    text = re.sub(r"(?m)^(.+)\n[=~-]{3,}$", r"# \1\n", text)  # an underlined heading
    text = re.sub(r"(?m)^(#.*)$", r"\1\n", text)
    blocks = [block for block in re.split(r"\n\s*\n", text.strip()) if strip_markdown(block)]
    if not blocks:
        return "", ""
    first = blocks[0]
    is_sentence = "\n" in first or first.rstrip().endswith((".", "!", "?"))
    if not first.startswith("#") and is_sentence:
        title = ""
        paragraphs = blocks
    else:
        title = strip_markdown(first.lstrip("# "))
        paragraphs = blocks[1:]
    summary = next((block for block in paragraphs if block[0] not in "#.-*"), "")
    return title, strip_markdown(summary)


def strip_markdown(text: str) -> str:
    """Return a text without Markdown's marks, pictures and badges, on one line."""
    text = re.sub(r"\[?!\[[^]]*\]\([^)]*\)(\]\([^)]*\))?|<[^>]*>", "", text)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*`]|:\w+:", "", text).split())


def project_name(guess: Guess) -> Guess:
    """Return a name as one that a project may have."""
    name = re.sub(r"[^\w .,:&()+-]+", " ", str(guess.value))
    name = re.sub(r"^[\W\d_]+", "", " ".join(name.split()))
    if " " not in name:  # the name of a package or a folder
        name = re.sub(r"[-_.]+", " ", name).strip()
        name = name[:1].upper() + name[1:]
    return Guess(name[:LONGEST_NAME].strip() or "Adopted project", guess.reason)


def package_name(guess: Guess, folder: Path, files: Iterable[str], reserved: set[str]) -> Guess:
    """Return a name as one that a package may have and nothing has yet, here or in Python.

    Args:
        guess: The name.
        folder: The repository.
        files: Its files, relative to it.
        reserved: Names that the package must not have.
    """
    existing = {part.lower() for file in files for part in file.split("/")[:2]}
    existing |= {path.name.lower() for path in (*folder.glob("*"), *folder.glob("src/*"))}
    name = re.sub(r"[^a-z0-9]+", "_", str(guess.value).lower())
    name = name.strip("_")[:LONGEST_PACKAGE].strip("_")
    is_taken = name in reserved | sys.stdlib_module_names or keyword.iskeyword(name)
    if is_taken or not name[:1].isalpha():
        name = f"project_{name}"[:LONGEST_PACKAGE].strip("_")
    if {name, f"{name}.py"} & existing:
        return Guess(f"{name}_model", f"{guess.reason}; {name} exists already")
    return Guess(name, guess.reason)


def one_line(text: str) -> str:
    """Return a text as a description: one line that may stand between double quotes."""
    text = re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029"\\`<>{}]', "", " ".join(text.split()))
    if len(text) > LONGEST_DESCRIPTION:
        sentence = re.match(r"(.{20,199}?[.!?])(\s|$)", text)
        cut = text[: LONGEST_DESCRIPTION - 1].rpartition(" ")[0]
        text = sentence[1] if sentence else f"{cut}…"
    return text.strip()


def required_python(folder: Path) -> Guess | None:
    """Return the Python that a repository requires, such as `>=3.8`."""
    pyproject = read_toml(folder, "pyproject.toml")
    requires = nested(pyproject, "project").get("requires-python")
    poetry = nested(pyproject, "tool", "poetry", "dependencies").get("python")
    pipfile = text_values(read_toml(folder, "Pipfile").get("requires"))
    runtime = re.match(r"python-(\d+\.\d+)", read_text(folder, "runtime.txt"))
    versions = {
        "pyproject.toml": requires or poetry,
        ".python-version": read_text(folder, ".python-version").strip(),
        "Pipfile": pipfile.get("python_version"),
        "setup.py": setup_arguments(folder).get("python_requires"),
        "setup.cfg": setup_cfg(folder, "options").get("python_requires"),
        "runtime.txt": runtime and runtime[1],
    }
    for file in CONDA_FILES:
        dependencies = read_yaml(folder, file).get("dependencies") or ()
        python = [item for item in dependencies if re.match(r"python[=<> ]", str(item))]
        versions[file] = python[0].removeprefix("python") if python else None
    return next((Guess(str(value), file) for file, value in versions.items() if value), None)


def is_too_old(python: str) -> bool:
    """Check whether a Python requirement starts, or ends, below the oldest for a project."""
    version = re.search(r"(?<![\d<])3\.(\d+)", python.replace("<=", "<"))
    below = re.search(r"<\s*3\.(\d+)", python)
    up_to = re.search(r"<=\s*3\.(\d+)", python)
    return (
        bool(version and int(version[1]) < OLDEST_MINOR)
        or bool(below and int(below[1]) <= OLDEST_MINOR)
        or bool(up_to and int(up_to[1]) < OLDEST_MINOR)
        or python.startswith("2")
    )
