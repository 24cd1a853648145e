"""Train: `train.parquet` → `artifacts/model.skops`. Refuses what the estimator cannot learn from.

The file holds no pickle and no time: the same rows, config and code give the same bytes.
"""

from typing import Any

import polars as pl

from .. import UsageError
from ..artifacts import MODEL as FILE
from ..artifacts import TRAIN, step_record
from ..config import DATA, MODEL, Config, Data, Model
from ..exceptions import describe
from ..model_format import Unsavable, to_bytes
from ..model_format import save as save  # which tests of projects call here
from ..problem import estimator, features
from ..records import TrainingDocument
from .ingest import inputs, labels


def step(config: Config) -> str:
    with step_record("train", TRAIN, DATA, MODEL) as record:
        rows = pl.read_parquet(TRAIN)
        fitted = fit(rows, config.data, config.model)
        try:
            save(fitted, FILE)
        except Unsavable as error:
            raise UsageError(_explain(error, rows, config)) from error
        record.document = TrainingDocument(
            rows=rows.height,
            estimator=config.model.estimator,
            seed=config.model.seed,
            params=config.model.params,
            model_inputs=features(inputs(rows.head(1), config.data)).columns,
            learning_curves=learning_curves(fitted),
        )
    return f"{config.model.estimator} on {rows.height:,} rows"


def fit(rows: pl.DataFrame, data: Data, model: Model) -> Any:
    """Fit the estimator of `problem/model.py`.

    Raises:
        UsageError: Its name or a param is not known, or it cannot learn from these rows.
    """
    x = features(inputs(rows, data))
    try:
        unfitted = estimator(model.estimator, data.task, x, model.seed, model.params)
        return unfitted.fit(x, labels(rows, data))
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
    some = rows.sample(min(rows.height, 1_000), seed=0)
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
