"""A person's settings of pip, which uv does not read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from configparser import ConfigParser, Error
from pathlib import Path

# Where pip reads the settings of a machine and of a person, besides PIP_CONFIG_FILE.
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")


def pip_settings(*keys: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the value of each of these settings that a person has for pip."""
    for key in keys:
        variable = f"PIP_{key.upper().replace('-', '_')}"
        if value := os.environ.get(variable):
            yield variable, value
    own = os.environ.get("PIP_CONFIG_FILE")
    for name in [*PIP_FILES, *([own] if own else [])]:
        try:
            text = Path(name).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError, RuntimeError):  # pip itself will say so
            continue
        for _, value in values(text, *keys):
            yield name, value


def values(text: str, *keys: str) -> Iterator[tuple[str, str]]:
    """Yield these settings of a pip.conf, each with its value; none if it is malformed."""
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except Error:  # pip itself will say so
        return
    for section in ("global", "install"):
        for key in keys:
            if value := parser.get(section, key, fallback=""):
                yield key, value
