"""Train: `train.parquet` → `artifacts/model.skops`. Refuses what the estimator cannot learn from.

The file holds no pickle and no time: the same rows, config and code give the same bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import polars as pl

from .. import UsageError, project
from ..artifacts import MODEL as FILE
from ..artifacts import TRAIN, step_record
from ..config import DATA, MODEL, Config, Data, Model
from ..exceptions import describe
from ..model_format import Unsavable, to_bytes
from ..model_format import save as save  # which tests of projects call here
from ..problem import estimator, features
from ..records import TrainingDocument
from .ingest import inputs, labels

FEW_ROWS = 1_000  # that show which params are to blame


def step(config: Config) -> str:
    with step_record("train", TRAIN, DATA, MODEL) as record:
        record.document = on_cluster(config) if config.model.engine else _here(config)
        count = record.document.rows
    where = f", by {record.document.workers} workers" if record.document.workers else ""
    return f"{config.model.estimator} on {count:,} rows{where}"


def _here(config: Config) -> TrainingDocument:
    """Train in this process, and save the model."""
    rows = pl.read_parquet(TRAIN)
    fitted = fit(rows, config.data, config.model)
    _save(fitted, rows, config)
    return TrainingDocument(
        rows=rows.height,
        estimator=config.model.estimator,
        seed=config.model.seed,
        params=config.model.params,
        model_inputs=features(inputs(rows.head(1), config.data)).columns,
        learning_curves=learning_curves(fitted),
    )


def on_cluster(config: Config) -> TrainingDocument:
    """Train on the workers of a cluster, and save the model.

    Raises:
        UsageError: The project has no engines; or as `train_on_cluster`.
    """
    if not project.current().has_loop:
        raise UsageError(f"{MODEL}: engine: engines come with level 1: run `rung up` first")
    training = import_module("..partitioned.training", __package__)  # there from level 1 on
    try:
        trained = training.train_on_cluster(config)
    except training.LibraryError as failed:
        with _explained(config.model):
            raise failed.__cause__ or failed from None
    _save(trained.estimator, pl.scan_parquet(TRAIN).head(FEW_ROWS).collect(), config)
    return TrainingDocument(
        rows=trained.rows,
        estimator=config.model.estimator,
        seed=config.model.seed,
        params=config.model.params,
        model_inputs=trained.model_inputs,
        engine=trained.engine,
        workers=trained.workers,
    )


def _save(fitted: Any, rows: pl.DataFrame, config: Config) -> None:
    try:
        save(fitted, FILE)
    except Unsavable as error:
        raise UsageError(_explain(error, rows, config)) from error


def fit(rows: pl.DataFrame, data: Data, model: Model) -> Any:
    """Fit the estimator of `problem/model.py`.

    Raises:
        UsageError: Its name or a param is not known, or it cannot learn from these rows.
    """
    x = features(inputs(rows, data))
    with _explained(model):
        unfitted = estimator(model.estimator, data.task, x, model.seed, model.params)
        return unfitted.fit(x, labels(rows, data))


@contextmanager
def _explained(model: Model) -> Iterator[None]:
    """Tell in a sentence why an estimator cannot be trained.

    Raises:
        UsageError: It cannot.
    """
    try:
        yield
    except UsageError:  # of an adapter, which says what to do
        raise
    except (TypeError, ValueError) as error:
        message = str(error).strip().partition("\n")[0]
        raise UsageError(f"{MODEL}: nothing can be trained: {message}") from error
    except Exception as error:  # of the estimator, which is the user's
        raise UsageError(
            f"problem/model.py: estimator '{model.estimator}' cannot be fitted: {describe(error)}"
        ) from error


def learning_curves(fitted: Any) -> dict[str, list[float]] | None:
    """Return how an estimator learned: by metric, its value after each epoch.

    Any estimator may have them as `curves_`, be it the last step of a pipeline; None: it has none.
    """
    last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
    curves = getattr(last, "curves_", None)
    if not curves:
        return None
    return {str(name): [float(value) for value in values] for name, values in curves.items()}


def _explain(error: Unsavable, rows: pl.DataFrame, config: Config) -> str:
    """Name the params without which the model can be saved, as a few rows show."""
    some = rows.sample(min(rows.height, FEW_ROWS), seed=0)
    blamed = []
    for name in config.model.params:
        params = {key: value for key, value in config.model.params.items() if key != name}
        try:
            fitted = fit(some, config.data, config.model.model_copy(update={"params": params}))
            to_bytes(fitted)
        except Exception:  # it needs the param, or another one is to blame
            continue
        blamed.append(name)
    if blamed:
        return f"{MODEL}: params: the model cannot be saved with {' and '.join(blamed)} ({error})"
    return f"problem/model.py: estimator '{config.model.estimator}' cannot be saved ({error})"
