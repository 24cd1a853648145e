"""The project's `problem/`, for whatever process works through partitions."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import polars as pl

from .. import problem
from ..engines.worker import code_digest
from ..model_package import import_problem
from ..pipeline.validate import Rules

PROBLEM = "problem"
Features = Callable[[pl.DataFrame], pl.DataFrame]


def files() -> dict[str, Path]:
    """Return what a job needs that calls functions of `problem/`."""
    return {PROBLEM: problem.folder()}


def digest() -> str:
    """Return the digest of `problem/`."""
    return code_digest(problem.folder())


def load_rules(folder: Path) -> Rules:
    """Return `schema.rules` of a copy of `problem/`."""
    return cast(Rules, import_problem(folder, "schema", _suffix(folder)).rules)


def load_features(folder: Path) -> Features:
    """Return `features.features` of a copy of `problem/`."""
    return cast(Features, import_problem(folder, "features", _suffix(folder)).features)


def package_name(folder: Path) -> str:
    """Return the name that a copy of `problem/` is imported by, with what a model needs of it."""
    return import_problem(folder, "features", _suffix(folder)).__name__.rpartition(".")[0]


@cache
def _suffix(folder: Path) -> str:
    """Return what names this copy: a worker may have several, of several projects."""
    return code_digest(folder)[-12:]
