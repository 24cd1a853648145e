"""A project's YAML, in which a key that is there twice is a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
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


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        OSError, UnicodeDecodeError: It cannot be read.
        YAMLError: It is not YAML, or a key is there twice.
    """
    return yaml.load(file.read_text("utf-8"), _Loader)
