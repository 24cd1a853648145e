"""What the runtime expects of a project's `problem/`: four modules, one protocol each.

The functions here call those of the project that the command runs in. A packaged model brings its
own `problem/`, which `model_package` loads instead.
"""

from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from . import project
from .exceptions import UsageError

if TYPE_CHECKING:
    import polars as pl
    from sklearn.base import BaseEstimator


class DataModule(Protocol):
    """`problem/data.py`: where the rows come from."""

    def load(self, source: Path, separator: str) -> "pl.DataFrame":
        """Read a source as it is; fields of a text file stay text."""


class SchemaModule(Protocol):
    """`problem/schema.py`: what must be true of a row, beyond the contract of a column."""

    def rules(self, columns: Collection[str]) -> Mapping[str, "pl.Expr"]:
        """Return, by name, an expression with one truth value per row; null counts as true."""


class FeaturesModule(Protocol):
    """`problem/features.py`: from the columns of the contract to the inputs of the model."""

    def features(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """Return as many rows in the same order, with numbers and `Enum` categories only."""


class ModelModule(Protocol):
    """`problem/model.py`: the estimator, and the simple one that it must be worth more than."""

    # Types that a saved model may hold, besides the public ones of scikit-learn.
    TRUSTED: Collection[str]

    def estimator(
        self, name: str, task: str, inputs: "pl.DataFrame", seed: int, params: Mapping[str, Any]
    ) -> "BaseEstimator":
        """Return an unfitted estimator with scikit-learn's interface."""

    def linear(self, task: str, inputs: "pl.DataFrame") -> "BaseEstimator":
        """Return the unfitted linear baseline."""


def load(source: Path, separator: str) -> "pl.DataFrame":
    """Read a source with the project's `data.load`."""
    return cast(DataModule, _module("data")).load(source, separator)


def rules(columns: Collection[str]) -> Mapping[str, "pl.Expr"]:
    """Return the rules of the project's `schema.rules`."""
    return cast(SchemaModule, _module("schema")).rules(columns)


def features(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Derive the inputs of the model with the project's `features.features`."""
    return cast(FeaturesModule, _module("features")).features(rows)


def estimator(
    name: str, task: str, inputs: "pl.DataFrame", seed: int, params: Mapping[str, Any]
) -> "BaseEstimator":
    """Make an unfitted estimator with the project's `model.estimator`.

    One of another library becomes what its adapter makes of it: see `model_format`.
    """
    from .model_format import adapt

    return adapt(cast(ModelModule, _module("model")).estimator(name, task, inputs, seed, params))


def linear(task: str, inputs: "pl.DataFrame") -> "BaseEstimator":
    """Make the unfitted linear baseline with the project's `model.linear`."""
    from .model_format import adapt

    return adapt(cast(ModelModule, _module("model")).linear(task, inputs))


def trusted() -> Collection[str]:
    """Return `TRUSTED` of the project's `model`."""
    return cast(ModelModule, _module("model")).TRUSTED


def folder() -> Path:
    """Return the folder of the project's `problem/`.

    Raises:
        UsageError: There is none that can be imported.
    """
    name = f"{project.current().package}.problem"
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"{name} cannot be imported: set package in [tool.rung] of pyproject.toml to the "
            "package that holds problem/, and run `uv sync` to install it"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _module(name: str) -> Any:
    """Import a module of `problem/`.

    Raises:
        UsageError: It is missing.
    """
    full_name = f"{project.current().package}.problem.{name}"
    try:
        return import_module(full_name)
    except ModuleNotFoundError as error:
        if error.name is None or not full_name.startswith(error.name):
            library = str(error.name).partition(".")[0]
            if library == full_name.partition(".")[0]:
                raise UsageError(
                    f"problem/{name}.py imports {error.name}, which is not there"
                ) from error
            has_format = library in ("catboost", "keras", "lightgbm", "torch", "xgboost")
            todo = f"rung add model_format {library}" if has_format else f"uv add {library}"
            raise UsageError(
                f"problem/{name}.py imports {error.name}, which is not installed: run `{todo}`"
            ) from error
        raise UsageError(f"{folder() / name}.py is missing: restore it from Git") from None
