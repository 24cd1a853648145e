"""Which table of a repository, and which of its columns, its code learns from."""

from __future__ import annotations

import ast
import csv
import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from . import BadInputError
from .guess import Guess
from .notebooks import Piece, called

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
# What people call the column that they predict, and the values in it.
TARGET = r"(?i)(target|label|y)s?(_?(col|column|name|var|variable))?"
ANSWER = r"(?i)(y|target|label)s?(_\w+)?"


def chosen(
    folder: Path,
    tables: Sequence[str],
    found: Sequence[Piece],
    file: str | None,
    column: str | None,
) -> tuple[str | None, Guess | None]:
    """Give the data file and the target: those that were named, else a guess.

    Args:
        folder: The repository.
        tables: Its files that may be data, relative to it.
        found: Its code.
        file: The file that was named, from where the person is or in the repository.
        column: The column that was named.

    Raises:
        BadInputError: The file that was named is not there, or no table has the column.
    """
    if file:
        here = Path(file).resolve()
        if here.is_file():
            top = folder.resolve()
            tables = [str(here.relative_to(top) if here.is_relative_to(top) else here)]
        elif (folder / file).is_file():
            tables = [file]
        else:
            raise BadInputError(f"--file {file}: there is no such file, here or in the repository")
    if column:
        having = [one for one in tables if has_column(folder / one, column)]
        if tables and not having:
            some = ", ".join(tables[:3])
            raise BadInputError(f"--target {column}: there is no such column in {some}")
        tables = having
    known, guessed = data(folder, tables, found)
    return known, Guess(column, "as you say") if column else guessed


def data(
    folder: Path, files: Iterable[str], found: Sequence[Piece]
) -> tuple[str | None, Guess | None]:
    """Guess the data file, and the target among its columns; either may be unknown.

    Args:
        folder: The repository.
        files: Its files, relative to it.
        found: Its code.
    """
    tables = [f for f in files if f.lower().endswith(TABLES)]
    if not tables:
        return None, None
    read: Counter[str] = Counter()
    votes: dict[str, Counter[str]] = {}
    where: dict[str, str] = {}
    for piece in found:
        own = targets(piece)
        for name, (weight, node) in own.items():
            votes.setdefault(piece.file, Counter())[name] += weight
            where.setdefault(name, piece.at(node))
        for node in ast.walk(piece.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                read[PurePosixPath(node.value.replace("\\", "/")).name.lower()] += 1
    best = sum(votes.values(), Counter[str]())

    def rank(file: str) -> tuple[bool, int]:
        return PurePosixPath(file).name.lower() in read, (folder / file).stat().st_size

    ranked = sorted(tables, key=rank, reverse=True)
    for file in ranked:
        for name, _ in best.most_common():
            if has_column(folder / file, name):
                return file, Guess(name, where[name])
    return ranked[0], None


def targets(piece: Piece) -> dict[str, tuple[int, ast.AST]]:
    """Give the columns that code seems to predict: how sure that is, and where it says so."""
    found: dict[str, tuple[int, ast.AST]] = {}
    known: dict[str, str] = {}
    for node in ast.walk(piece.tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            known |= {t.id: str(node.value.value) for t in node.targets if isinstance(t, ast.Name)}

    def columns(node: ast.AST | None) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.Name):
            return [known[node.id]] if node.id in known else []
        return [n for e in node.elts for n in columns(e)] if isinstance(node, ast.List) else []

    def vote(names: Sequence[str], weight: int, node: ast.AST) -> None:
        for name in names:
            before = found.get(name, (0, node))
            found[name] = before[0] + weight, before[1]

    for node in ast.walk(piece.tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                left = target.id if isinstance(target, ast.Name) else ""
                if re.fullmatch(TARGET, left) and isinstance(node.value, ast.Constant):
                    vote(columns(node.value), 3, node)
                elif re.fullmatch(ANSWER, left):
                    for part in ast.walk(node.value):
                        if isinstance(part, ast.Subscript):
                            vote(columns(part.slice), 3, node)
                            break
                        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                            vote([part.attr], 2, node)
                elif re.match(r"X|(?i:features)", left):
                    for part in ast.walk(node.value):
                        vote(dropped(part, columns), 1, node)
        elif isinstance(node, ast.Call) and called(node) == "pop" and node.args:
            vote(columns(node.args[0]), 2, node)
    return found


def dropped(call: ast.AST, columns: Callable[[ast.AST | None], list[str]]) -> list[str]:
    """Give the columns that a call drops, if it is one that does."""
    if not isinstance(call, ast.Call) or called(call) != "drop":
        return []
    given = {k.arg: k.value for k in call.keywords}
    return [n for node in (given.get("columns"), *call.args[:1]) for n in columns(node)]


def has_column(file: Path, name: str) -> bool:
    """Tell whether a table has a column of that name."""
    try:
        if file.suffix == ".parquet":
            with file.open("rb") as table:
                table.seek(-8, 2)
                size = int.from_bytes(table.read(4), "little")
                table.seek(-8 - size, 2)
                return name.encode() in table.read(size)
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8-sig", errors="replace") as table:
            first = table.readline()
    except (OSError, EOFError):
        return False
    rows = (next(csv.reader([first], delimiter=separator), []) for separator in ",;\t|")
    return any(name in (field.strip() for field in row) for row in rows)
