"""setup.py, as far as it can be read without running it, and setup.cfg."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

from ..files import read_text
from ..notebooks import called_name
from .collected import CollectedRequirements
from .pip_files import add_requirements_file

SETUP_KEYWORDS = ("install_requires", "extras_require", "tests_require")


def add_setup_py(folder: Path, collected: CollectedRequirements, seen: Collection[str]) -> None:
    """Add what a setup.py requires, as far as it stands there literally."""
    try:
        tree = ast.parse(read_text(folder, "setup.py"))
    except (SyntaxError, ValueError):
        return
    variables = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    reads_known_file = not texts.isdisjoint(seen)  # such as open("requirements.txt")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or called_name(node) != "setup":
            continue
        for argument in node.keywords:
            value = argument.value
            if isinstance(value, ast.Name):
                value = variables.get(value.id, value)
            if argument.arg == "dependency_links":
                collected.note_links(literals(value), "setup.py")
            if argument.arg not in SETUP_KEYWORDS:
                continue
            for line in literals(value):
                collected.add(line, "setup.py")
            if not isinstance(value, ast.Dict | ast.List | ast.Tuple) and not reads_known_file:
                collected.notes.append(
                    f"setup.py: {argument.arg} is computed by {ast.unparse(value)[:60]}, which "
                    "adopt does not run: add what is missing with uv add --group adopted"
                )


def add_setup_cfg(folder: Path, collected: CollectedRequirements, seen: set[str]) -> None:
    """Add what a setup.cfg requires."""
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(read_text(folder, "setup.cfg"))
    except ConfigError:
        return
    lists = [config.get("options", "install_requires", fallback="")]
    links = config.get("options", "dependency_links", fallback="")
    collected.note_links(links.split(), "setup.cfg")
    if config.has_section("options.extras_require"):
        lists += dict(config["options.extras_require"]).values()
    for lines in lists:
        for line in filter(None, map(str.strip, lines.splitlines())):
            if line.startswith("file:"):
                for file in re.split(r"[,\s]+", line.removeprefix("file:").strip()):
                    add_requirements_file(folder, file, collected, seen)
            else:
                collected.add(line, "setup.cfg")


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the texts in a list, or in the lists of a dictionary."""
    if isinstance(node, ast.Dict):
        for value in node.values:
            yield from literals(value)
    elif isinstance(node, ast.List | ast.Tuple):
        for element in node.elts:
            yield from literals(element)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
