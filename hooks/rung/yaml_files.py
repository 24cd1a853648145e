"""A project's YAML, in which a key that is there twice is a mistake."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml


class _KeyOnce(yaml.constructor.SafeConstructor):
    """Refuses a key that is there twice, as a merge may leave it: PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set[str]()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {name} is there twice", problem_mark=key.start_mark
                )
            names.add(name)
        return super().construct_mapping(node, deep)


class _Loader(_KeyOnce, yaml.SafeLoader):
    """Shows the line that is wrong."""


class _FastLoader(_KeyOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes a tenth of the time, where PyYAML has been built with libyaml."""


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        OSError, UnicodeDecodeError: It cannot be read.
        YAMLError: It is not YAML, or a key is there twice.
    """
    text = file.read_text("utf-8")
    with suppress(yaml.YAMLError):
        return yaml.load(text, _FastLoader)
    return yaml.load(text, _Loader)
