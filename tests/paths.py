"""What follows from copier/paths.yml: the class of a path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pathspec import PathSpec

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("owned", "seed", "retired")


@dataclass(frozen=True)
class Row:
    """One line of the table: a .gitignore pattern, its class, the level it appears at."""

    path: str
    kind: str
    level: int
    answer: tuple[str, str] | None = None  # to the question that brings it, if there is one

    def matches(self, path: str, answers: dict[str, object]) -> bool:
        """Tell whether a project's path, relative and with slashes, falls under this row."""
        pattern = self.path.replace("{{ package_name }}", str(answers["package_name"]))
        pattern = pattern.replace("{{ _copier_conf.answers_file }}", ".copier-answers.yml")
        return _spec(pattern).match_file(path)


@cache
def _spec(pattern: str) -> PathSpec[Any]:
    return PathSpec.from_lines("gitignore", [pattern])


@cache
def table() -> list[Row]:
    """Read copier/paths.yml."""
    rows = yaml.safe_load((ROOT / "copier/paths.yml").read_text())
    return [
        Row(
            row["path"], row["class"], row["level"], next(iter(row.get("answer", {}).items()), None)
        )
        for row in rows
    ]


def decides(path: str, rows: list[Row], answers: dict[str, object]) -> Row | None:
    """Give the row that a path falls under, as in .gitignore the last one that matches."""
    return next((row for row in reversed(rows) if row.matches(path, answers)), None)
