"""The code in scripts and in the cells of notebooks, parsed but never run."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import read_text

READS = (
    r"read_(csv|table|parquet|excel|json|feather|sql\w*|fwf)|scan_(csv|parquet)|loadtxt|genfromtxt"
)
TRANSFORMS = (
    r"get_dummies|fillna|fill_null|cut|qcut|to_dummies|fit_transform|ColumnTransformer|SimpleImputer|"
    r"\w+(Scaler|Encoder|Vectorizer)|PolynomialFeatures|\w+Transformer"
)
FITS = (
    r"fit|partial_fit|cross_val_score|cross_validate|train_test_split|GridSearchCV|RandomizedSearchCV|"
    r"\w+(Classifier|Regressor|Regression)|SV[CR]|Ridge|Lasso|GaussianNB|KMeans"
)
CHECKS = r"dropna|drop_nulls|drop_duplicates"
# By the name of a call: what it does, and the module of `problem/` it belongs in. First match wins.
PLACES = {
    READS: ("reads data", "data.py"),
    TRANSFORMS: ("makes features", "features.py"),
    FITS: ("fits a model", "model.py"),
    CHECKS: ("checks rows", "schema.py"),
}


@dataclass(frozen=True)
class CodeUnit:
    """A script, or a cell of a notebook."""

    file: str
    cell: int | None  # from 1, text cells included; None: a script
    tree: ast.Module

    def location(self, node: ast.AST) -> str:
        """Return where a node stands, for a person."""
        if self.cell:
            return f"{self.file}, cell {self.cell}"
        return f"{self.file}, line {getattr(node, 'lineno', 1)}"


def parse_code(folder: Path, names: Iterable[str]) -> Iterator[CodeUnit]:
    """Yield the code in these files that Python 3 can parse."""
    for name in names:
        sources: Iterable[tuple[int | None, str]] = ()
        if name.endswith(".py"):
            sources = [(None, read_text(folder, name))]
        elif name.endswith(".ipynb"):
            sources = code_cells(read_text(folder, name))
        for cell, source in sources:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about invalid escape sequences
                    tree = ast.parse(source)
            except (SyntaxError, ValueError, RecursionError):
                continue
            yield CodeUnit(name, cell, tree)


def code_cells(notebook: str) -> Iterator[tuple[int | None, str]]:
    """Yield the number and the source of a notebook's code cells, without IPython's own syntax."""
    try:
        content = json.loads(notebook)
        cells = [*content.get("cells", ())]
        for worksheet in content.get("worksheets", ()):  # nbformat 3
            cells += worksheet["cells"]
        for number, cell in enumerate(cells, 1):
            source = cell.get("source", cell.get("input", ""))
            source = source if isinstance(source, str) else "".join(source)
            if cell.get("cell_type") == "code" and not source.lstrip().startswith("%%"):
                yield number, without_magics(source)
    except (ValueError, AttributeError, KeyError, TypeError):
        return


def without_magics(source: str) -> str:
    """Return a cell's source with IPython's own lines replaced by lines that do nothing."""
    return re.sub(r"(?m)^([ \t]*)(?:[%!?].*|.*[^#\n]\?{1,2}[ \t]*)$", r"\1pass", source)


def suggest_places(units: Iterable[CodeUnit], package: str) -> list[str]:
    """Return, for each cell or line, what it does and the module where that belongs."""
    calls_by_place: dict[tuple[str, str], dict[str, None]] = {}
    for unit in units:
        transformers = transformer_names(unit.tree)
        calls = [node for node in ast.walk(unit.tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
            name = called_name(call)
            expression = ast.unparse(call.func)
            kind = next((pattern for pattern in PLACES if re.fullmatch(pattern, name)), None)
            if kind == FITS and expression.partition(".")[0] in transformers:
                kind = TRANSFORMS
            if kind:
                is_short = re.fullmatch(r"[\w.]{1,40}", expression)
                label = expression if is_short else f"….{name}"
                calls_by_place.setdefault((unit.location(call), kind), {})[label] = None
    suggestions = []
    for (location, kind), labels in calls_by_place.items():
        action, module = PLACES[kind]
        listed = ", ".join(labels)
        suggestions.append(f"{location}: {action} ({listed}) → src/{package}/problem/{module}")
    return suggestions


def imported_modules(units: Iterable[CodeUnit]) -> set[str]:
    """Return the top-level modules that code imports from anywhere."""
    modules = set[str]()
    for unit in units:
        for node in ast.walk(unit.tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    return modules


def transformer_names(tree: ast.Module) -> set[str]:
    """Return the variables that hold a transformer."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and re.fullmatch(TRANSFORMS, called_name(node.value))
    }


def called_name(call: ast.Call) -> str:
    """Return the last part of the name of what is called."""
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))
