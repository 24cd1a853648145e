"""The project as its own tests see it: some of its rows, and models that learn from them.

What `config/` says is read at each call, from the folder of the project.
"""

import hashlib
from pathlib import Path
from typing import Any

import polars as pl
from numpy.typing import NDArray

from .. import config, model_package
from ..model_format import to_bytes
from ..pipeline import ingest, split, train
from ..pipeline.baselines import baseline_predictions
from ..pipeline.metrics import SCORES
from ..pipeline.metrics import skill as skill_of
from ..problem import features


def rows(at_most: int = 3_000) -> pl.DataFrame:
    """Return rows of the source, evenly spread and in their order, with the types of the contract.

    Args:
        at_most: How many; all of a source that has no more.

    Raises:
        UsageError: The source or `config/` cannot be read.
    """
    data = config.load().data
    all_rows = ingest.typed(ingest.read(Path(data.source), data.separator), data)
    return all_rows.gather_every(-(-all_rows.height // at_most))


def inputs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what `features` gets of (n, …) rows: n feature columns of the contract."""
    return ingest.inputs(rows, config.load().data)


def fit(rows: pl.DataFrame) -> Any:
    """Return the estimator of `config/model.yaml`, fitted to (n, …) rows, which have a target.

    Raises:
        UsageError: It is not known, or cannot learn from these rows.
    """
    settings = config.load()
    return train.fit(rows, settings.data, settings.model)


def predict(fitted: Any, rows: pl.DataFrame) -> NDArray[Any]:
    """Return (n, classes) probabilities, or (n,) values, of a fitted estimator for (n, …) rows."""
    return model_package.predict(fitted, rows, config.load().data, features)


def skill(rows: pl.DataFrame) -> float:
    """Return how well a model does on the holdout of (n, …) rows after learning from the others.

    Returns:
        The part of the way from a constant prediction to a perfect one, by the metric of
        `config/gate.yaml`: at most 1; 0 or less if it has learned nothing.

    Raises:
        UsageError: The rows cannot be split, or nothing can be learned from them.
    """
    settings = config.load()
    metric = settings.gate.metric
    train_rows, holdout = split.split(rows, settings.data)
    y_true = ingest.labels(holdout, settings.data)
    constant = baseline_predictions(train_rows, holdout, settings.data)["constant"]
    value = SCORES[metric](y_true, predict(fit(train_rows), holdout))
    return skill_of(metric, value, SCORES[metric](y_true, constant))


def model_digest(fitted: Any) -> str:
    """Return the digest of a fitted estimator as it would be saved: `sha256:…`.

    Raises:
        Unsavable: A part of it cannot be written.
    """
    return f"sha256:{hashlib.sha256(to_bytes(fitted)).hexdigest()}"
