"""The table that a repository's code learns from, and the column that it predicts."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..exceptions import UsageError
from .detect import Guess
from .notebooks import CodeUnit
from .target_votes import (
    Column,
    base_name,
    file_constants,
    file_size,
    mentioned_names,
    r_votes,
    read_settings,
    setting_votes,
    target_votes,
)

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
SEPARATORS = ",;\t|"


def select_data(
    folder: Path,
    tables: Sequence[str],
    code: Sequence[CodeUnit],
    file: str | None,
    column: str | None,
    names: Iterable[str] = (),
) -> tuple[str | None, Guess | None]:
    """Return the data file and the target: those that a person named, else a guess.

    Args:
        folder: The repository.
        tables: Its files that may be data, relative to it.
        code: Its code.
        file: The file that was named, relative to the current folder or to the repository.
        column: The column that was named.
        names: All files of the repository.

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
    data_file, target = detect_data(folder, tables, code, names)
    return data_file, Guess(column, "given as --target") if column else target


def detect_data(
    folder: Path, files: Iterable[str], code: Sequence[CodeUnit], names: Iterable[str] = ()
) -> tuple[str | None, Guess | None]:
    """Guess the data file, and the target among its columns; either may be unknown.

    Args:
        folder: The repository.
        files: Its files that may be data, relative to it.
        code: Its code.
        names: All of its files, of which settings and R's code are read, too.
    """
    tables = [file for file in files if file.lower().endswith(TABLES)]
    if not tables:
        return None, None
    settings = [*read_settings(folder, names)]
    mentioned = {name for unit in code for name in mentioned_names(unit)}
    mentioned |= {base_name(value) for _, _, value in settings}
    votes = [vote for unit in code for vote in target_votes(unit, file_constants(code, unit.file))]
    votes += setting_votes(settings)
    votes += [vote for name in names for vote in r_votes(folder, name)]
    weights = Counter[Column]()
    locations = dict[Column, str]()
    for vote in votes:
        weights[vote.column] += vote.weight
        locations.setdefault(vote.column, vote.location)

    def rank(table: str) -> tuple[bool, int]:
        return base_name(table) in mentioned, file_size(folder / table)

    ranked = sorted(tables, key=rank, reverse=True)
    for table in ranked:
        for column, _ in weights.most_common():
            name = column_name(folder / table, column)
            if name is not None:
                reason = locations[column]
                if isinstance(column, int):
                    reason += ", by its place, which is a guess"
                return table, Guess(name, reason)
    return ranked[0], None


def is_absent(file: Path) -> bool:
    """Check whether only a pointer to a table is here: a dangling link, or what Git LFS leaves."""
    try:
        with file.open("rb") as table:
            return table.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return True


def column_name(file: Path, column: Column) -> str | None:
    """Return the name of a column; None if a table does not have it."""
    if isinstance(column, str):
        return column if has_column(file, column) else None
    header = max(read_headers(file), key=len, default=[])
    return header[column].strip() if -len(header) <= column < len(header) else None


def has_column(file: Path, name: str) -> bool:
    """Check whether a table has a column with this name."""
    try:
        if file.suffix == ".parquet":
            return name.encode() in parquet_footer(file)
    except OSError:
        return False
    return any(name in (field.strip() for field in row) for row in read_headers(file))


def read_headers(file: Path) -> list[list[str]]:
    """Return the first line of a text file, split by each separator; empty if it has none."""
    if file.suffix == ".parquet":
        return []
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", errors="replace") as table:
            header = table.readline()
    except (OSError, EOFError):
        return []
    return [next(csv.reader([header], delimiter=separator), []) for separator in SEPARATORS]


def parquet_footer(file: Path) -> bytes:
    """Return the metadata of a Parquet file: before its length (4 bytes) and the magic number.

    See https://parquet.apache.org/docs/file-format/.
    """
    with file.open("rb") as table:
        table.seek(-8, 2)
        length = int.from_bytes(table.read(4), "little")
        table.seek(-8 - length, 2)
        return table.read(length)
