"""Spaces: which values of which params are tried, and what is tried where nobody has chosen."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from .. import UsageError
from ..config import MODEL, Data, Model
from ..config.tune import TUNE, Key, Range
from ..model_format.library import LibraryEstimator
from ..problem import estimator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[Key, Range | list[Any]]
DIGITS = 4  # of a number that is tried: what is written down is what was tried

LEARNING_RATE = {"low": 0.01, "high": 0.3, "log": True}
STEPS = {"low": 50, "high": 500, "log": True}
FEW_STEPS = {"low": 30, "high": 150, "log": True}  # of many classes, each of which takes a tree
LEAVES = {"low": 4, "high": 63, "log": True}
LEAF_ROWS = {"low": 5, "high": 100, "log": True}
PENALTY = {"low": 0.01, "high": 100.0, "log": True}
WIDE_PENALTY = {"low": 0.001, "high": 1000.0, "log": True}
SHARE = {"low": 0.3, "high": 1.0}
DEPTH = {"low": 2, "high": 8}
MANY_CLASSES = 4

# The params of a class of estimators, by the class's name: no library is imported for it. Bounds
# keep a model under the gate's 20 MB and a trial short.
BOOSTED = {
    "learning_rate": LEARNING_RATE,
    "max_iter": STEPS,
    "max_leaf_nodes": LEAVES,
    "min_samples_leaf": LEAF_ROWS,
    "l2_regularization": PENALTY,
    "max_features": SHARE,
}
FOREST = {
    "max_features": {"low": 0.1, "high": 1.0},
    "min_samples_leaf": {"low": 1, "high": 30, "log": True},
}
LIGHTGBM = {
    "learning_rate": LEARNING_RATE,
    "n_estimators": STEPS,
    "num_leaves": LEAVES,
    "min_child_samples": LEAF_ROWS,
    "reg_lambda": PENALTY,
    "colsample_bytree": SHARE,
}
XGBOOST = {
    "learning_rate": LEARNING_RATE,
    "n_estimators": STEPS,
    "max_depth": DEPTH,
    "min_child_weight": {"low": 1.0, "high": 30.0, "log": True},
    "reg_lambda": PENALTY,
    "colsample_bytree": SHARE,
}
CATBOOST = {
    "learning_rate": LEARNING_RATE,
    "iterations": STEPS,
    "depth": DEPTH,
    "l2_leaf_reg": {"low": 1.0, "high": 100.0, "log": True},
}
NETWORK = {
    "alpha": {"low": 1e-5, "high": 1.0, "log": True},
    "learning_rate_init": {"low": 1e-4, "high": 1e-2, "log": True},
    "hidden_layer_sizes": [[32], [64], [128], [64, 32]],
}
SUPPORT_VECTORS = {
    "C": {"low": 0.01, "high": 100.0, "log": True},
    "gamma": {"low": 1e-4, "high": 1.0, "log": True},
}
NEIGHBORS = {
    "n_neighbors": {"low": 1, "high": 50, "log": True},
    "weights": ["uniform", "distance"],
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "HistGradientBoostingClassifier": BOOSTED,
    "HistGradientBoostingRegressor": BOOSTED,
    "ForestClassifier": FOREST,  # what all forests of scikit-learn inherit from
    "ForestRegressor": FOREST,
    "LogisticRegression": {"C": WIDE_PENALTY},
    "Ridge": {"alpha": WIDE_PENALTY},
    "RidgeCV": {"alpha": WIDE_PENALTY},  # with which problem/model.py makes a Ridge
    "Lasso": {"alpha": {"low": 1e-4, "high": 10.0, "log": True}},
    "ElasticNet": {
        "alpha": {"low": 1e-4, "high": 10.0, "log": True},
        "l1_ratio": {"low": 0.0, "high": 1.0},
    },
    "LGBMModel": LIGHTGBM,
    "XGBModel": XGBOOST,
    "CatBoost": CATBOOST,
    "BaseMultilayerPerceptron": NETWORK,
    "BaseSVC": SUPPORT_VECTORS,
    "SVR": SUPPORT_VECTORS,
    "KNeighborsClassifier": NEIGHBORS,
    "KNeighborsRegressor": NEIGHBORS,
}

HEADER = """\
# What `ml tune` searches: params of config/model.yaml, each with a range, {low: …, high: …}, or a
# list of values. Whole ends: whole numbers; log: true: magnitudes; step: a grid. Params that are
# not here stay as they are in config/model.yaml. All keys: rung_runtime.config.tune.Tune.
trials: 60 # of the whole search; `ml tune` continues one that was stopped
minutes: 15 # of one `ml tune`: no trial begins after them
"""


def default_text(model: Model, data: Data, inputs: pl.DataFrame) -> str:
    """Return the text of a `config/tune.yaml` for the estimator of a project.

    Args:
        model: Of the project.
        data: Its contract.
        inputs: What `features` returns for training rows; only its columns matter.

    Raises:
        UsageError: Nothing is known of the estimator, and it has no params that are numbers.
    """
    space = _default_space(model, data, inputs)
    if not space:
        raise UsageError(
            f"{TUNE} is missing, and what to search is not known of the estimator "
            f"'{model.estimator}' without params that are numbers in config/model.yaml: write the "
            "file, such as: space: {alpha: {low: 0.01, high: 100.0, log: true}}"
        )
    lines = ["space:", *_lines(space, indent=2)]
    return HEADER + "\n".join(lines) + "\n"


def _default_space(model: Model, data: Data, inputs: pl.DataFrame) -> dict[str, Any]:
    unfitted = estimator(model.estimator, data.task, inputs, model.seed, model.params)
    if hasattr(unfitted, "estimators") and _has_parts(model):  # a mean of several
        parts = {}
        for name, params in model.params.items():
            part = model.model_copy(update={"estimator": name, "params": params})
            if part_space := _default_space(part, data, inputs):
                parts[name] = part_space
        return parts
    steps = getattr(unfitted, "steps", None)
    last = steps[-1][1] if steps else unfitted
    if isinstance(last, LibraryEstimator):  # what an adapter made of that of problem/model.py
        last = last.estimator
    for base in type(last).__mro__:
        if base.__name__ in DEFAULTS:
            space = dict(DEFAULTS[base.__name__])
            if len(data.classes) >= MANY_CLASSES:
                space = {
                    key: FEW_STEPS if value is STEPS else value for key, value in space.items()
                }
            return space
    return {name: _around(value) for name, value in model.params.items() if _is_number(value)}


def _has_parts(model: Model) -> bool:
    return bool(model.params) and all(isinstance(part, dict) for part in model.params.values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _around(value: float) -> dict[str, Any]:
    """Return a range of a quarter to four times a number."""
    if isinstance(value, int):
        return {"low": max(1, value // 4), "high": 4 * value, "log": True}
    return {"low": _rounded(value / 4), "high": _rounded(value * 4), "log": True}


def _lines(space: Mapping[str, Any], indent: int) -> list[str]:
    """Return a space in YAML, a param to a line."""
    lines = []
    for name, value in space.items():
        is_part = isinstance(value, dict) and "low" not in value
        if is_part:
            lines += [f"{' ' * indent}{name}:", *_lines(value, indent + 2)]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1_000)
            lines.append(f"{' ' * indent}{name}: {text.strip()}")
    return lines


def distributions(space: Space) -> "dict[str, BaseDistribution]":
    """Return what Optuna draws from, by the names of params: `boosted.learning_rate`.

    Values of a list are drawn as JSON, as Optuna takes only texts and numbers.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    drawn: dict[str, BaseDistribution] = {}
    for key, entry in space.items():
        if isinstance(entry, list):
            choices = [json.dumps(value, sort_keys=True) for value in entry]
            drawn[name_of(key)] = CategoricalDistribution(choices)
        elif entry.is_whole:
            step = int(entry.step or 1)
            drawn[name_of(key)] = IntDistribution(
                int(entry.low), int(_last(entry)), log=entry.log, step=step
            )
        else:
            drawn[name_of(key)] = FloatDistribution(
                entry.low, _last(entry), log=entry.log, step=entry.step
            )
    return drawn


def _last(entry: Range) -> float:
    """Return the largest number that is tried: of a grid the last one that is not above the end."""
    if entry.step is None:
        return entry.high
    low, high, step = (Decimal(str(number)) for number in (entry.low, entry.high, entry.step))
    return float(low + (high - low) // step * step)


def require_params(model: Model, space: Space, task: str, inputs: pl.DataFrame) -> None:
    """Check that the estimator of a project can be made with each param of a space.

    Args:
        model: Of the project, whose estimator can be made.
        space: What is to be searched.
        task: Of the contract.
        inputs: What `features` returns; only its columns matter.

    Raises:
        UsageError: It has no such param, as if the space was written for another estimator.
    """
    for key, entry in space.items():
        ends = entry if isinstance(entry, list) else [entry.low, entry.high]
        reasons = []
        for value in ends:
            params = with_values(model, {key: value}).params
            try:
                made = estimator(model.estimator, task, inputs, model.seed, params)
                if isinstance(made, LibraryEstimator):
                    made.require_known_params()
            except Exception as error:  # of problem/model.py or of a library
                reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                break
        else:
            raise UsageError(
                f"{TUNE}: space: the estimator '{model.estimator}' of {MODEL} does not take "
                f"{name_of(key)} ({reasons[0]}): correct it, or delete {TUNE}, and `ml tune` "
                f"writes one for '{model.estimator}'"
            )


def name_of(key: Key) -> str:
    """Return what a param is called: the keys that lead to it, with dots."""
    return ".".join(key)


def values_of(drawn: Mapping[str, Any], space: Space) -> dict[Key, Any]:
    """Return the params of a trial from what Optuna drew."""
    values: dict[Key, Any] = {}
    for key, entry in space.items():
        value = drawn[name_of(key)]
        if isinstance(entry, list):
            value = json.loads(value)
        elif not entry.is_whole:
            value = min(max(_rounded(value), float(entry.low)), float(entry.high))
        values[key] = value
    return values


def drawn_of(model: Model, space: Space) -> dict[str, Any] | None:
    """Return what Optuna would have drawn for the params of a model; None if it could not have.

    It could not if a param is left to the library's default, or is outside of its range.
    """
    drawn: dict[str, Any] = {}
    for key, entry in space.items():
        value = value_of(model, key)
        if isinstance(entry, list):
            equal = [choice for choice in entry if choice == value]  # 1 is 1.0, which JSON is not
            if not equal:
                return None
            drawn[name_of(key)] = json.dumps(equal[0], sort_keys=True)
        elif _is_inside(value, entry):
            drawn[name_of(key)] = int(value) if entry.is_whole else float(value)
        else:
            return None
    return drawn


def _is_inside(value: Any, entry: Range) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if entry.is_whole and not isinstance(value, int):
        return False
    on_grid = not entry.step or abs((value - entry.low) / entry.step % 1) < 1e-9
    return entry.low <= value <= entry.high and on_grid


def value_of(model: Model, key: Key) -> Any:
    """Return a param of a model; None if it is left to the library."""
    value: Any = model.params
    for name in key:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def with_values(model: Model, values: Mapping[Key, Any]) -> Model:
    """Return a model with other params; those that are not named stay as they are."""
    params = _copied(model.params)
    for key, value in values.items():
        inner = params
        for name in key[:-1]:
            if not isinstance(inner.get(name), dict):
                inner[name] = {}
            inner = inner[name]
        inner[key[-1]] = value
    return model.model_copy(update={"params": params})


def _copied(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, dict) else value for name, value in params.items()
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
