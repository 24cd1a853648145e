"""What follows from copier/paths.yml: the class of a path, and the lists of copier.yml."""

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


def excluded(rows: list[Row]) -> list[str]:
    """What must stand in _exclude after the caches: one block a reason, one line a path."""
    blocks = []
    if seeds := [row.path for row in rows if row.kind == "seed" and not _later(row)]:
        blocks.append(_when("_copier_operation == 'update'", seeds))
    for level in sorted({row.level for row in rows} - {0}):
        paths = [row.path for row in rows if row.level == level and row.kind != "retired"]
        blocks.append(_when(f"level < {level}", paths))
    for answer in dict.fromkeys(row.answer for row in rows if row.answer):
        paths = [row.path for row in rows if row.answer == answer]
        name, value = answer
        # Of providers a project may have several.
        missing = f"'{value}' not in {name}" if name == "ci" else f"{name} != '{value}'"
        blocks.append(_when(missing, paths))
    return blocks + [row.path for row in rows if row.kind == "retired"]


def skipped(rows: list[Row]) -> list[str]:
    """What must stand in _skip_if_exists: seeds that a level, or an answer, may yet bring."""
    return [row.path for row in rows if row.kind == "seed" and _later(row)]


def _later(row: Row) -> bool:
    return row.level > 0 or row.answer is not None


def _when(condition: str, paths: list[str]) -> str:
    return "\n".join([f"{{% if {condition} %}}", *paths, "{% endif %}", ""])
