"""Reading code that stands in scripts and in the cells of notebooks, without running it."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

READS = (
    r"read_(csv|table|parquet|excel|json|feather|sql\w*|fwf)|scan_(csv|parquet)|loadtxt|genfromtxt"
)
MAKES = (
    r"get_dummies|fillna|fill_null|cut|qcut|to_dummies|fit_transform|ColumnTransformer|SimpleImputer|"
    r"\w+(Scaler|Encoder|Vectorizer)|PolynomialFeatures|\w+Transformer"
)
FITS = (
    r"fit|partial_fit|cross_val_score|cross_validate|train_test_split|GridSearchCV|RandomizedSearchCV|"
    r"\w+(Classifier|Regressor|Regression)|SV[CR]|Ridge|Lasso|GaussianNB|KMeans"
)
CHECKS = r"dropna|drop_nulls|drop_duplicates"
# What a call does, and which module of `problem/` it belongs in; the first that fits decides.
PLACES = {
    READS: ("reads data", "data.py"),
    MAKES: ("makes features", "features.py"),
    FITS: ("fits a model", "model.py"),
    CHECKS: ("checks rows", "schema.py"),
}


@dataclass(frozen=True)
class Piece:
    """A script, or a cell of a notebook."""

    file: str
    cell: int | None  # from 1, text cells counted; None: a script
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Say where something stands."""
        where = f"cell {self.cell}" if self.cell else f"line {getattr(node, 'lineno', 1)}"
        return f"{self.file}, {where}"


def pieces(folder: Path, names: Iterable[str]) -> Iterator[Piece]:
    """Give all code of these files that Python 3 can read."""
    for name in names:
        code: Iterable[tuple[int | None, str]] = ()
        if name.endswith(".py"):
            code = [(None, text(folder / name))]
        elif name.endswith(".ipynb"):
            code = cells(text(folder / name))
        for cell, source in code:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of escapes that are none
                    yield Piece(name, cell, ast.parse(source))
            except (SyntaxError, ValueError, RecursionError):
                continue


def text(file: Path) -> str:
    """Read a text as an editor does: its bytes may be of any of the usual encodings."""
    try:
        content = file.read_bytes()
    except OSError:
        return ""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what PowerShell's > writes
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def cells(notebook: str) -> Iterator[tuple[int | None, str]]:
    """Give the code cells of a notebook, without what only IPython understands."""
    try:
        read = json.loads(notebook)
        found = [*read.get("cells", ())]
        for sheet in read.get("worksheets", ()):  # nbformat 3
            found += sheet["cells"]
        for number, cell in enumerate(found, 1):
            source = cell.get("source", cell.get("input", ""))
            source = source if isinstance(source, str) else "".join(source)
            if cell.get("cell_type") == "code" and not source.lstrip().startswith("%%"):
                yield number, python(source)
    except (ValueError, AttributeError, KeyError, TypeError):
        return


def python(source: str) -> str:
    """Replace IPython's own lines by lines that do nothing."""
    return re.sub(r"(?m)^([ \t]*)(?:[%!?].*|.*[^#\n]\?{1,2}[ \t]*)$", r"\1pass", source)


def moves(found: Iterable[Piece], package: str) -> list[str]:
    """Say of each cell or line what it does, and in which module that belongs."""
    said: dict[tuple[str, str], dict[str, None]] = {}
    for piece in found:
        makers = {
            target.id
            for node in ast.walk(piece.tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            for target in node.targets
            if isinstance(target, ast.Name) and re.fullmatch(MAKES, called(node.value))
        }
        calls = [node for node in ast.walk(piece.tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
            name, whole = called(call), ast.unparse(call.func)
            kind = next((kind for kind in PLACES if re.fullmatch(kind, name)), None)
            if kind == FITS and whole.partition(".")[0] in makers:
                kind = MAKES
            if kind:
                short = whole if re.fullmatch(r"[\w.]{1,40}", whole) else f"….{name}"
                said.setdefault((piece.at(call), kind), {})[short] = None
    return [
        f"{where}: {PLACES[kind][0]} ({', '.join(calls)}) → src/{package}/problem/{PLACES[kind][1]}"
        for (where, kind), calls in said.items()
    ]


def called(call: ast.Call) -> str:
    """Give the last name of what is called."""
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))
