"""The table that a repository's code learns from, and the column that it predicts."""

from __future__ import annotations

import ast
import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..exceptions import UsageError
from .detect import Guess
from .notebooks import CodeUnit, called_name

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
SEPARATORS = ",;\t|"
# What people call the column that they predict, and the values in it.
COLUMN_VARIABLE = r"(?i)(target|label|y)s?(_?(col|column|name|var|variable))?"
VALUES_VARIABLE = r"(?i)(y|target|label)s?(_\w+)?"
FEATURES_VARIABLE = r"X|(?i:features)"


@dataclass(frozen=True)
class Vote:
    """A column that a piece of code seems to predict."""

    column: str
    weight: int  # how certain that is
    node: ast.AST  # what suggests it


def select_data(
    folder: Path,
    tables: Sequence[str],
    code: Sequence[CodeUnit],
    file: str | None,
    column: str | None,
) -> tuple[str | None, Guess | None]:
    """Return the data file and the target: those that a person named, else a guess.

    Args:
        folder: The repository.
        tables: Its files that may be data, relative to it.
        code: Its code.
        file: The file that was named, relative to the current folder or to the repository.
        column: The column that was named.

    Raises:
        UsageError: The file that was named does not exist, or no table has the column.
    """
    if file:
        path = Path(file).resolve()
        if path.is_file():
            top = folder.resolve()
            tables = [str(path.relative_to(top) if path.is_relative_to(top) else path)]
        elif (folder / file).is_file():
            tables = [file]
        else:
            raise UsageError(f"--file {file}: there is no such file, here or in the repository")
    if column:
        with_column = [table for table in tables if has_column(folder / table, column)]
        if tables and not with_column:
            names = ", ".join(tables[:3])
            raise UsageError(f"--target {column}: there is no such column in {names}")
        tables = with_column
    data_file, target = detect_data(folder, tables, code)
    return data_file, Guess(column, "given as --target") if column else target


def detect_data(
    folder: Path, files: Iterable[str], code: Sequence[CodeUnit]
) -> tuple[str | None, Guess | None]:
    """Guess the data file, and the target among its columns; either may be unknown.

    Args:
        folder: The repository.
        files: Its files, relative to it.
        code: Its code.
    """
    tables = [file for file in files if file.lower().endswith(TABLES)]
    if not tables:
        return None, None
    mentioned = {name for unit in code for name in mentioned_names(unit)}
    weights = Counter[str]()
    locations = dict[str, str]()
    for unit in code:
        for vote in target_votes(unit):
            weights[vote.column] += vote.weight
            locations.setdefault(vote.column, unit.location(vote.node))

    def rank(table: str) -> tuple[bool, int]:
        is_mentioned = PurePosixPath(table).name.lower() in mentioned
        return is_mentioned, (folder / table).stat().st_size

    ranked = sorted(tables, key=rank, reverse=True)
    for table in ranked:
        for column, _ in weights.most_common():
            if has_column(folder / table, column):
                return table, Guess(column, locations[column])
    return ranked[0], None


def mentioned_names(unit: CodeUnit) -> Iterator[str]:
    """Yield the file names that the texts in a piece of code may be, in lower case."""
    for node in ast.walk(unit.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield PurePosixPath(node.value.replace("\\", "/")).name.lower()


def target_votes(unit: CodeUnit) -> list[Vote]:
    """Return the columns that a piece of code seems to predict, in the order in which it does."""
    constants = literal_variables(unit.tree)
    votes = list[Vote]()
    for node in ast.walk(unit.tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    votes += assignment_votes(target.id, node, constants)
        elif isinstance(node, ast.Call) and called_name(node) == "pop" and node.args:
            votes += [Vote(column, 2, node) for column in columns_in(node.args[0], constants)]
    return votes


def literal_variables(tree: ast.Module) -> dict[str, str]:
    """Return the variables that hold a literal, and their values as text."""
    return {
        target.id: str(node.value.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def assignment_votes(variable: str, node: ast.Assign, constants: dict[str, str]) -> list[Vote]:
    """Return the columns that an assignment to a variable suggests.

    Args:
        variable: The name that is assigned to.
        node: The assignment.
        constants: Variables that hold a literal.
    """
    votes = list[Vote]()
    if re.fullmatch(COLUMN_VARIABLE, variable) and isinstance(node.value, ast.Constant):
        votes += [Vote(column, 3, node) for column in columns_in(node.value, constants)]
    elif re.fullmatch(VALUES_VARIABLE, variable):
        for part in ast.walk(node.value):
            if isinstance(part, ast.Subscript):
                votes += [Vote(column, 3, node) for column in columns_in(part.slice, constants)]
                break
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                votes.append(Vote(part.attr, 2, node))
    elif re.match(FEATURES_VARIABLE, variable):
        for part in ast.walk(node.value):
            votes += [Vote(column, 1, node) for column in dropped_columns(part, constants)]
    return votes


def columns_in(node: ast.AST | None, constants: dict[str, str]) -> list[str]:
    """Return the column names in a text, a variable that holds one, or a list of these."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Name):
        return [constants[node.id]] if node.id in constants else []
    if isinstance(node, ast.List):
        return [name for element in node.elts for name in columns_in(element, constants)]
    return []


def dropped_columns(node: ast.AST, constants: dict[str, str]) -> list[str]:
    """Return the columns that a call of drop() names."""
    if not isinstance(node, ast.Call) or called_name(node) != "drop":
        return []
    keywords = {argument.arg: argument.value for argument in node.keywords}
    arguments = (keywords.get("columns"), *node.args[:1])
    return [name for argument in arguments for name in columns_in(argument, constants)]


def has_column(file: Path, name: str) -> bool:
    """Check whether a table has a column with this name."""
    try:
        if file.suffix == ".parquet":
            return name.encode() in parquet_footer(file)
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8-sig", errors="replace") as table:
            header = table.readline()
    except (OSError, EOFError):
        return False
    rows = (next(csv.reader([header], delimiter=separator), []) for separator in SEPARATORS)
    return any(name in (field.strip() for field in row) for row in rows)


def parquet_footer(file: Path) -> bytes:
    """Return the metadata of a Parquet file: before its length (4 bytes) and the magic number.

    See https://parquet.apache.org/docs/file-format/.
    """
    with file.open("rb") as table:
        table.seek(-8, 2)
        length = int.from_bytes(table.read(4), "little")
        table.seek(-8 - length, 2)
        return table.read(length)
