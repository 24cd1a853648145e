"""Which column a repository's code and settings seem to predict."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .files import is_inside, read_text, read_toml, read_yaml
from .notebooks import CodeUnit, called_name

SETTINGS = (".yaml", ".yml", ".json", ".toml")
R_CODE = (".r", ".rmd", ".qmd")
LARGEST_SETTINGS = 100_000  # bytes; what is larger is data
# What people call the column that they predict, the values in it, and those of the other columns.
WORDS = r"target|label|response|outcome|dependent"
COLUMN_VARIABLE = (
    rf"(?i)((\w+_)?({WORDS})|y)s?(_?(variable|var|feature))?(_?(column|col|field))?(_?name)?"
)
OTHER_USES = r"(?!.*(encod|binar|scal|map|dict|path|file|dir|list|names|count|smooth))"
VALUES_VARIABLE = rf"(?i){OTHER_USES}(\w+_)?(y|{WORDS})s?(_\w+)?"
FEATURES_VARIABLE = r"(?i)(\w+_)?(x|feat(ure)?s?|inputs?|predictors?)(_\w+)?"
# Plots and forms have these arguments, too, for other columns: only calls that learn count.
COMMON_ARGUMENTS = ("y", "label", "labels")
LEARNING_CALLS = (
    r"(?i)(?!.*plot)((train|fit)(_\w+)?|"
    r"\w*(predictor|learner|automl|dataset|classifier|regressor|estimator))"
)
NAME_KEYS = ("name", "column", "col")  # of a setting that describes the column
# Calls with features as the first argument, and values to predict as the second.
LEARNERS = r"fit|partial_fit|fit_transform|train_test_split|cross_val_\w+|score"
GETTERS = r"pop|get|select|get_column|col"
FORMULA = r"\s*(?:Q\(['\"])?([A-Za-z][\w .]*?)(?:['\"]\))?\s*~"  # as R writes it, and patsy
Column = str | int  # a name, or a place from the left, or from the right if negative


@dataclass(frozen=True)
class Vote:
    """A column that a piece of code seems to predict."""

    column: Column
    weight: int  # how certain that is
    location: str


def base_name(path: str) -> str:
    """Return the last part of a path as any system writes it, in lower case."""
    return PurePosixPath(path.replace("\\", "/")).name.lower()


def mentioned_names(unit: CodeUnit) -> Iterator[str]:
    """Yield the file names that the texts in a piece of code may be, in lower case."""
    for node in ast.walk(unit.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield base_name(node.value)


def file_constants(code: Sequence[CodeUnit], file: str) -> dict[str, str]:
    """Return the variables of a file that hold a literal, in any of its cells."""
    units = [unit for unit in code if unit.file == file]
    return {name: value for unit in units for name, value in literal_variables(unit.tree).items()}


def literal_variables(tree: ast.Module) -> dict[str, str]:
    """Return the variables and attributes that hold a literal, and their values as text."""
    return {
        name: str(value.value)
        for node in ast.walk(tree)
        for name, value in assignments(node)
        if isinstance(value, ast.Constant)
    }


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a statement assigns to, each with its value."""
    if isinstance(node, ast.Assign):
        pairs: list[tuple[ast.expr, ast.expr]] = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
        pairs = [(node.target, node.value)]
    else:
        return
    for target, value in pairs:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs += zip(target.elts, value.elts, strict=False)
        elif isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Attribute):
            yield target.attr, value


def target_votes(unit: CodeUnit, constants: Mapping[str, str]) -> list[Vote]:
    """Return the columns that a piece of code seems to predict, in the order in which it does.

    Args:
        unit: The code.
        constants: Variables that hold a literal.
    """
    votes = list[Vote]()
    for node in ast.walk(unit.tree):
        columns: list[tuple[Column, int]] = []
        for name, value in named_values(node):
            if re.fullmatch(COLUMN_VARIABLE, name) and isinstance(value, ast.Constant | ast.List):
                columns += [(column, 3) for column in columns_in(value, {})]
        for name, value in assignments(node):
            if re.fullmatch(VALUES_VARIABLE, name):
                columns += values_columns(value, constants)
            elif re.fullmatch(FEATURES_VARIABLE, name):
                columns += features_columns(value, constants)
        if isinstance(node, ast.Call):
            columns += call_columns(node, constants)
        elif isinstance(node, ast.Constant):
            formula = re.match(FORMULA, str(node.value))
            columns += [(formula[1], 2)] if formula else []
        votes += [Vote(column, weight, unit.location(node)) for column, weight in columns]
    return votes


def named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that code gives to values: variables, arguments, keys, options."""
    yield from assignments(node)
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults = zip(positional[::-1], arguments.defaults[::-1], strict=False)
        keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        yield from ((argument.arg, value) for argument, value in (*defaults, *keywords) if value)
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            is_common = keyword.arg in COMMON_ARGUMENTS
            if keyword.arg and (not is_common or re.fullmatch(LEARNING_CALLS, called_name(node))):
                yield keyword.arg, keyword.value
            # An option of the command line.
            if keyword.arg == "default" and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value).lstrip("-").replace("-", "_"), keyword.value


def values_columns(value: ast.expr, constants: Mapping[str, str]) -> list[tuple[Column, int]]:
    """Return the columns of the values that are to be predicted, with their weights."""
    parts = [*ast.walk(value)]
    for part in parts:
        if isinstance(part, ast.Subscript):
            return [(column, 3) for column in columns_in(part.slice, constants)]
    calls = [part for part in parts if isinstance(part, ast.Call)]
    for call in calls:
        if re.fullmatch(GETTERS, called_name(call)) and call.args:
            return [(column, 3) for column in columns_in(call.args[0], constants)]
    called = [call.func for call in calls]
    attributes = [part for part in parts if isinstance(part, ast.Attribute) and part not in called]
    for attribute in attributes:
        if isinstance(attribute.value, ast.Name):
            return [(attribute.attr, 2)]
    return []


def features_columns(value: ast.expr, constants: Mapping[str, str]) -> list[tuple[Column, int]]:
    """Return the columns that are not among the features, with their weights."""
    columns = list[Column]()
    for part in ast.walk(value):
        if isinstance(part, ast.Call) and called_name(part) in ("drop", "exclude"):
            keywords = {argument.arg: argument.value for argument in part.keywords}
            for argument in (keywords.get("columns"), keywords.get("labels"), *part.args[:1]):
                columns += columns_in(argument, constants)
        elif isinstance(part, ast.Call) and called_name(part) == "difference":
            columns += [name for argument in part.args for name in columns_in(argument, constants)]
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub):
            columns += columns_in(as_set(part.right), constants)
        elif isinstance(part, ast.Compare) and isinstance(part.ops[0], ast.NotEq | ast.NotIn):
            columns += columns_in(part.comparators[0], constants)
        elif isinstance(part, ast.Slice) and part.upper and place(part.upper) == -1:
            columns.append(-1)
    return [(column, 1) for column in columns]


def as_set(value: ast.expr) -> ast.expr | None:
    """Return what is in a set as code writes it: `{"a"}` or `set(["a"])`; None for all else."""
    if isinstance(value, ast.Call) and called_name(value) == "set" and value.args:
        return value.args[0]
    return value if isinstance(value, ast.Set) else None


def call_columns(call: ast.Call, constants: Mapping[str, str]) -> list[tuple[Column, int]]:
    """Return the columns that a call takes as those to predict, with their weights."""
    name = called_name(call)
    if name == "pop" and call.args:
        return [(column, 2) for column in columns_in(call.args[0], constants)]
    if name == "remove" and call.args and isinstance(call.func, ast.Attribute):
        receiver = call.func.value
        if isinstance(receiver, ast.Name) and re.fullmatch(FEATURES_VARIABLE, receiver.id):
            return [(column, 1) for column in columns_in(call.args[0], constants)]
    columns: list[tuple[Column, int]] = []
    if re.fullmatch(LEARNERS, name) and call.args:
        columns += features_columns(call.args[0], constants)
        columns += [pair for value in call.args[1:2] for pair in values_columns(value, constants)]
    return columns


def columns_in(node: ast.AST | None, constants: Mapping[str, str]) -> list[Column]:
    """Return the columns in a text, a variable that holds one, a list, or the place of a slice."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        return [constants[name]] if name in constants else []
    if isinstance(node, ast.List | ast.Set):
        return [name for element in node.elts for name in columns_in(element, constants)]
    if isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "columns":
        position = place(node.slice)
        return [] if position is None else [position]
    if isinstance(node, ast.Tuple) and len(node.elts) == 2:  # as in df.loc[:, "a"], df.iloc[:, -1]
        last = node.elts[1]
        position = place(last.lower if isinstance(last, ast.Slice) else last)
        return columns_in(last, constants) if position is None else [position]
    return []


def place(node: ast.AST | None) -> int | None:
    """Return the whole number that an expression is."""
    try:
        value = ast.literal_eval(node) if node else None
    except (ValueError, TypeError, SyntaxError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_settings(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the texts in a repository's settings: the file, the key, and the value."""
    for name in names:
        is_small = is_inside(folder, name) and file_size(folder / name) <= LARGEST_SETTINGS
        if not name.endswith(SETTINGS) or not is_small or "lock" in name:
            continue
        content = read_toml(folder, name) if name.endswith(".toml") else read_yaml(folder, name)
        yield from ((name, key, value) for key, value in texts_in(content))


def file_size(file: Path) -> int:
    """Return the size of a file; 0 if it does not exist."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def texts_in(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in nested tables and lists, each with its key."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for name, value in content.items():
            describes = name in NAME_KEYS and re.fullmatch(COLUMN_VARIABLE, key)
            yield from texts_in(value, key if describes else str(name))
    elif isinstance(content, list):
        for value in content:
            yield from texts_in(value, key)


def setting_votes(settings: Iterable[tuple[str, str, str]]) -> list[Vote]:
    """Return the columns that settings name as what is to be predicted."""
    return [
        Vote(value, 3, f"{file}, {key}")
        for file, key, value in settings
        if re.fullmatch(COLUMN_VARIABLE, key)
    ]


def r_votes(folder: Path, name: str) -> Iterator[Vote]:
    """Yield the columns that code in R seems to predict."""
    if not name.lower().endswith(R_CODE):
        return
    patterns = (
        rf"\b{VALUES_VARIABLE}\s*(?:<-|=)\s*\w+\$([\w.]+)",
        rf"\b{COLUMN_VARIABLE}\s*(?:<-|=)\s*[\"']([^\"']+)",
        r"\(\s*(?:formula\s*=\s*)?([A-Za-z][\w.]*)\s*~",
    )
    for number, line in enumerate(read_text(folder, name).splitlines(), 1):
        for pattern in patterns:
            if match := re.search(pattern.replace("(?i)", ""), line):
                yield Vote(match[match.lastindex or 0], 2, f"{name}, line {number}")
