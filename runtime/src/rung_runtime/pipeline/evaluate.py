"""Evaluate: model and holdout → `metrics.json`, explanations and the report.

Refuses undefined predictions.

Only the holdout is scored, with the model read back from its file, not the one in memory.
"""

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import polars as pl

from .. import UsageError, project
from ..artifacts import HOLDOUT, MODEL, PREDICTIONS, TRAIN, digest, step_record, write_rows
from ..config import DATA, GATE, METRICS, Config
from ..model_package import load_estimator, predict
from ..problem import features, trusted
from ..records import (
    Baseline,
    Baselines,
    Decision,
    Interval,
    Leaks,
    MetricsDocument,
    ModelFacts,
    Rarest,
    Scores,
    Slice,
)
from . import report
from .baselines import baseline_predictions, require_judgeable
from .calibration import calibration
from .curves import curves
from .decision import decision
from .explain import Evaluated, write_explanations
from .fairness import compare_groups
from .formatting import short
from .importance import Shuffler, importance
from .ingest import labels
from .intervals import rarest_class
from .latency import measure_latency
from .leaks import features_that_predict_alone, leaks
from .metrics import Floats, Rows, score
from .recipes import Recipe, out_of_fold
from .resampling import Resampler, ends_that_hold_for_all
from .slices import SliceRows, row_groups, slices

baselines = baseline_predictions  # its name in 0.2, by which tests of projects call it


class Spread(Protocol):
    """What has the workers of a cluster compute; the numbers are those of this process."""

    def shuffle(self, shuffler: Shuffler, chunks: list[list[str]]) -> list[list[float]]:
        """Return what a shuffler returns of each list of columns."""

    def resample(
        self,
        resampler: Resampler,
        predictions: dict[str, Floats],
        parts: list[Rows],
        config: Config,
    ) -> Resampler:
        """Return a resampler that has the results of all that `judge` asks it for."""


def step(config: Config) -> str:
    with (
        step_record("evaluate", MODEL, TRAIN, HOLDOUT, DATA, GATE) as record,
        _open_spread(config) as spread,
    ):
        evaluated = predict_holdout(config)
        document = evaluate(evaluated, config, spread)
        record.document = document
    write_explanations(evaluated, config)
    report.write(config)
    lines = [f"on the {document.rows:,} rows held out:"]
    for name, interval in document.metrics.items():
        value = short(interval.value)
        lines.append(f"{name} {value} ({short(interval.low)} to {short(interval.high)})")
    return "\n  ".join(lines)


def predict_holdout(config: Config) -> Evaluated:
    """Return the trained model, and its predictions for the holdout."""
    holdout = pl.read_parquet(HOLDOUT)
    fitted = load_estimator(MODEL, trusted())
    y_pred = predict(fitted, holdout, config.data, features)
    return Evaluated(fitted, pl.read_parquet(TRAIN), holdout, y_pred)


def _open_spread(config: Config) -> AbstractContextManager[Spread | None]:
    """Return what has the workers of a cluster compute, if one trains the model."""
    if not (config.model.engine and project.current().has_loop):
        return nullcontext()
    evaluation = import_module("..partitioned.evaluation", __package__)  # there from level 1 on
    spread: AbstractContextManager[Spread | None] = evaluation.open_spread(config)
    return spread


def evaluate(evaluated: Evaluated, config: Config, spread: Spread | None = None) -> MetricsDocument:
    """Judge the trained model on the holdout, and write its predictions.

    Args:
        evaluated: The model, the rows, and its predictions.
        config: With contract and gate.
        spread: What has workers compute; None: this process does.

    Raises:
        UsageError: As `judge`; or a baseline cannot be trained.
    """
    data = config.data
    fitted, train, holdout, y_pred = evaluated
    y_true = labels(holdout, data)
    write_rows(pl.DataFrame({"truth": y_true, "given": y_pred}), PREDICTIONS)
    references = baseline_predictions(train, holdout, data)
    scores = judge(y_true, y_pred, references, holdout, config, spread)
    column_importance = importance(fitted, holdout, config, spread.shuffle if spread else map)
    leaked = Leaks(**leaks(train, holdout, data, y_pred))
    predicting_alone = features_that_predict_alone(pl.concat([train, holdout]), data)
    decided = _decision(fitted, train, y_true, y_pred, config)
    latency = measure_latency(fitted, holdout, data)
    model = ModelFacts(
        digest=digest(MODEL),
        megabytes=MODEL.stat().st_size / 1e6,
        latency_ms=latency.latency_ms,
        yardstick_ms=latency.yardstick_ms,
    )
    return MetricsDocument(
        **dict(scores),
        importance=column_importance,
        leaks=leaked,
        alone=predicting_alone,
        decision=decided,
        model=model,
    )


def _decision(
    fitted: Any, train: pl.DataFrame, y_true: Floats, y_pred: Floats, config: Config
) -> Decision | None:
    """Return the decision that the configured costs make, if there are any."""
    if config.gate.costs is None:
        return None
    recipe = Recipe(fitted, features, config.data)
    y_train, (p_train,) = out_of_fold([recipe], train, config.data)
    return decision(y_train, p_train[:, 1], y_true, y_pred[:, 1], config.gate.costs, config.gate)


def judge(
    y_true: Floats,
    y_pred: Floats,
    baselines: dict[str, Floats],
    rows: pl.DataFrame,
    config: Config,
    spread: Spread | None = None,
) -> Scores:
    """Score predictions.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.
        baselines: The same of `constant` and `linear`.
        rows: (n, …) typed rows, to slice by.
        config: With contract and gate.
        spread: What has workers compute; None: this process does.

    Raises:
        UsageError: The target is the same in all rows, or a prediction is not a finite number.
    """
    data = config.data
    gate = config.gate
    require_judgeable(y_true, data)
    if not np.isfinite(y_pred).all():
        raise UsageError(f"{MODEL} predicts values that are not finite: train another model")
    groups = row_groups(rows, data)
    resampler = Resampler(y_true, gate.metric, len(data.classes), gate, groups)
    parts = list(slices(rows, config))
    if spread:
        indices = [part.row_index for part in parts]
        resampler = spread.resample(resampler, {"model": y_pred, **baselines}, indices, config)
    metrics = {}
    for name in METRICS[data.task]:
        metrics[name] = Interval(**resampler.score(name, y_pred).interval(gate.confidence))
    rarest = rarest_class(y_true, data.classes)
    return Scores(
        task=data.task,
        metric=gate.metric,
        rows=len(y_true),
        rarest=Rarest(class_=rarest["class"], rows=rarest["rows"]) if rarest else None,
        metrics=metrics,
        baselines=Baselines(
            constant=_baseline(resampler, y_pred, baselines["constant"], config),
            linear=_baseline(resampler, y_pred, baselines["linear"], config),
        ),
        slices=_slices(resampler, y_pred, baselines["constant"], parts, config),
        calibration=calibration(y_true, y_pred, gate.confidence, data.classes),
        curves=curves(y_true, y_pred),
        fairness=compare_groups(y_true, y_pred, rows, config) if gate.fairness else None,
    )


def _baseline(
    resampler: Resampler, y_pred: Floats, baseline_pred: Floats, config: Config
) -> Baseline:
    """Return what a baseline reaches, and the skill over it."""
    gate = config.gate
    values = {}
    for name in METRICS[config.data.task]:
        values[name] = _defined(score(name, resampler.y_true, baseline_pred))
    skill = resampler.skill(y_pred, baseline_pred).interval(gate.confidence)
    return Baseline(value=values[gate.metric], metrics=values, skill=Interval(**skill))


def _slices(
    resampler: Resampler,
    y_pred: Floats,
    constant: Floats,
    parts: list[SliceRows],
    config: Config,
) -> list[Slice]:
    """Return every slice, the lowest skill first; those without an interval are last."""
    gate = config.gate
    resampled = []
    scores = []
    for part in parts:  # one after the other, as both are of the same resamples
        index = part.row_index
        resampled.append(resampler.skill(y_pred, constant, index, gate.slice_skill))
        scores.append(resampler.score(gate.metric, y_pred, index).interval(gate.confidence))
    indices = [part.row_index for part in parts]
    skills = ends_that_hold_for_all(resampler, resampled, indices, gate.confidence)
    judged = []
    for part, skill, reached in zip(parts, skills, scores, strict=True):
        judged.append(
            Slice(
                column=part.column,
                value=part.value,
                rows=len(part.row_index),
                metric=Interval(**reached),
                skill=Interval(**skill),
            )
        )
    return sorted(judged, key=_upper_end)


def _upper_end(part: Slice) -> float:
    return np.inf if part.skill.high is None else part.skill.high


def _defined(value: float) -> float | None:
    return value if np.isfinite(value) else None
