"""The files of a repository, read without following a link that leads out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomlkit
import yaml
from tomlkit.exceptions import TOMLKitError


def is_inside(folder: Path, name: str) -> bool:
    """Check whether a path stays in a folder, with links and `..` followed."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead to each other
        return False


def read_bytes(folder: Path, name: str) -> bytes:
    """Return a file's content; empty if it is outside of the folder, or cannot be read."""
    path = folder / name
    try:
        # A pipe or a device would not end.
        return path.read_bytes() if is_inside(folder, name) and path.is_file() else b""
    except OSError:
        return b""


def read_text(folder: Path, name: str) -> str:
    """Return a text file's content in any of the usual encodings; empty if it cannot be read."""
    content = read_bytes(folder, name)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what PowerShell's > writes
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_toml(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a TOML file; empty if it cannot be read."""
    try:
        return dict(tomlkit.parse(read_text(folder, name)).unwrap())
    except (TOMLKitError, ValueError):
        return {}


def read_yaml(folder: Path, name: str) -> dict[str, Any]:
    """Return the mapping in a YAML file; empty if it cannot be read."""
    try:
        content = yaml.safe_load(read_text(folder, name))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
