"""Choose the estimator and the gate's thresholds of new data, by cross-validation.

Only rows that training may see are looked at, never the holdout: of it, only the number of rows
is known. Folds honour the kind of the split: forward in time, whole groups, or at random.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from ..config import DATA, HIGHER_IS_BETTER, METRICS, Config, Data, Gate, Model
from ..exceptions import UsageError
from ..pipeline.baselines import require_judgeable
from ..pipeline.calibration import calibration
from ..pipeline.cross_validation import folds
from ..pipeline.evaluate import judge
from ..pipeline.gate import YARDSTICK_MS, certain_factor
from ..pipeline.ingest import inputs, labels
from ..pipeline.latency import measure_latency
from ..pipeline.metrics import Floats
from ..pipeline.split import split
from ..problem import features
from ..records import Scores
from .candidates import (
    Candidate,
    Fold,
    FoldProgress,
    best_mean,
    cross_validate,
    recipes,
    select_best,
)
from .thresholds import CHALLENGER_SKILL, holdout_sampler, power, thresholds

Progress = Callable[[str, float], None]

# What is cross-validated at most, which bounds the time of `ml data use`.
MAX_ROWS = 20_000
MAX_CELLS = 1_000_000  # rows × inputs
MIN_ROWS = 2_000  # however many inputs there are
FOLDS = 4
MIN_FITTED_SHARE = 0.5  # of the rows, before the first fold that is forward in time
GATE_SHARE = 0.9  # of the progress that is shown: what comes before the gate is set
RARE_CLASS_SHARE = 0.05  # a rarer positive class is judged by average precision
OBSERVED_EXPECTED = Gate.model_fields["max_observed_expected"].default
# Where the training rows do not show that there is anything to learn.
STRICT_CONFIDENCE = 0.99


class FirstGate(NamedTuple):
    """What `ml data use` writes to `config/` besides the contract, and why."""

    model: Model
    gate: Gate
    notes: dict[str, str]  # a sentence on each choice


class _Validated(NamedTuple):
    """The chosen candidate, and what its out-of-fold predictions are worth."""

    best: Candidate
    candidates: list[Candidate]
    scores: Scores
    thresholds: dict[str, float]
    holdout_rows: int

    @property
    def is_proven(self) -> bool:
        """Whether the model is surely better than a constant."""
        return (self.scores.baselines.constant.skill.low or 0.0) > 0


def first_gate(
    rows: pl.DataFrame,
    data: Data,
    progress: Progress | None = None,
    identity: pl.Series | None = None,
) -> FirstGate:
    """Choose an estimator, and thresholds that an honest retraining of it meets.

    Args:
        rows: (n,) typed rows.
        data: Their contract.
        progress: Called with what is being tried and the share that is done.
        identity: (n,) as `split` takes it, so that the holdout is the one that `ml split` makes.

    Returns:
        The recipe with the lowest cross-validated loss, the gate, and a sentence on each choice.

    Raises:
        UsageError: No fold can be learned from.
    """
    train, holdout = split(rows, data, identity)
    width = features(inputs(train.head(1), data)).width
    max_rows = max(MIN_ROWS, min(MAX_ROWS, MAX_CELLS // width))
    sampled = train.sample(min(train.height, max_rows), seed=0, shuffle=True)
    parts = list(folds(sampled, data, FOLDS, MIN_FITTED_SHARE))
    if not parts:
        raise UsageError(
            f"{DATA}: split: by {data.split.by} gives no part of the training rows with more than "
            f"one class of {data.target!r}; choose another split"
        )
    tested = np.concatenate([test_index for _, test_index in parts])
    y_true = labels(sampled, data)[tested]
    require_judgeable(y_true, data, "the training part")  # before an estimator stumbles over it
    constant = _constant(y_true, data)
    candidates = _try_recipes(sampled, width, parts, data, progress)
    if progress:
        progress("setting the thresholds of the gate", GATE_SHARE)
    best = select_best(candidates, sampled=train.height > sampled.height)
    if not np.isfinite(best.loss):
        raise UsageError(
            f"{DATA}: nothing can be learned about {data.target!r}, which reaches "
            f"{np.abs(y_true).max():.3g}: {best.error or 'no error of a prediction is finite'}"
        )
    linear = next(candidate for candidate in candidates if candidate.model.estimator == "linear")
    baselines = {"constant": constant, "linear": constant if linear.error else linear.y_pred}

    metrics = gate_metrics(y_true, data)
    metric = metrics[0]
    predicted_rows = sampled[tested]
    provisional_gate = Gate(metric=metric, thresholds={metric: 0.0})
    config = Config(data=data, model=best.model, gate=provisional_gate)
    fold_sizes = [len(test_index) for _, test_index in parts]
    scores = judge(y_true, best.y_pred, baselines, predicted_rows, config)
    draw_holdout = holdout_sampler(predicted_rows, fold_sizes, holdout.height, data)
    bounds = thresholds(metrics, y_true, best.y_pred, constant, draw_holdout)
    validated = _Validated(best, candidates, scores, bounds, holdout.height)
    _, last_test_index = parts[-1]
    gate = _gate(validated, y_true, fold_sizes, sampled[last_test_index], data)
    notes = _explain(validated, data)
    rivals = [rival for rival in candidates if rival is not best and len(rival.y_pred)]
    if rivals and validated.is_proven:
        rival = min(rivals, key=lambda candidate: candidate.loss)
        compared_rows = min(train.height + holdout.height, MAX_ROWS)
        share = power(best.y_pred, rival.y_pred, y_true, compared_rows, metric, data)
        notes["(power)"] = (
            f"a challenger that is better by {CHALLENGER_SKILL:g} skill is recognized in "
            f"{share:.0%} of cases, judging by {best.name} against {rival.name}"
        )
    return FirstGate(best.model, gate, notes)


def without_unread_texts(rows: pl.DataFrame, data: Data) -> tuple[Data, dict[str, str]]:
    """Leave out the text columns that `features` passes on as text, which no estimator here reads.

    A project from before 0.3 has a `problem/features.py` of its own that does not handle texts.

    Returns:
        The contract, and a WARNING for each column.

    Raises:
        UsageError: No other column is left.
    """
    model_inputs = features(inputs(rows.head(1), data))
    unread = [
        name
        for name in data.features
        if data.columns[name].type == "text"
        and name in model_inputs.columns
        and model_inputs[name].dtype == pl.String
    ]
    reason = "a text, which features() in problem/features.py does not turn into numbers"
    if unread and set(unread) == set(data.features):
        raise UsageError(f"{unread[0]!r} is {reason}, and no other column is left to learn from")
    columns = {name: column for name, column in data.columns.items() if name not in unread}
    ignored = data.ignored | dict.fromkeys(unread, reason)
    notes = dict.fromkeys(unread, f"WARNING: ignored: {reason}")
    return data.model_copy(update={"columns": columns, "ignored": ignored}), notes


def gate_metrics(y_true: Floats, data: Data) -> list[str]:
    """Return the metrics that have thresholds in the gate, its own first.

    With rare positives, ROC AUC and accuracy are high for models that find none of them (Saito and
    Rehmsmeier, 2015).
    """
    if data.task == "binary":
        is_rare = y_true.mean() < RARE_CLASS_SHARE
        return ["average_precision" if is_rare else "roc_auc", "log_loss"]
    return METRICS[data.task][:2]


def _constant(y_true: Floats, data: Data) -> Floats:
    """Predict the best constant for every row: the mean, or the share of each class."""
    if data.task == "regression":
        return np.full(len(y_true), y_true.mean())
    shares = np.bincount(y_true.astype(int), minlength=len(data.classes)) / len(y_true)
    return np.tile(shares, (len(y_true), 1))


def _try_recipes(
    rows: pl.DataFrame, width: int, parts: list[Fold], data: Data, progress: Progress | None
) -> list[Candidate]:
    """Cross-validate each recipe, and the best mean of them if it is worth it."""
    models = recipes(data, rows.height, width)
    candidates: list[Candidate] = []
    for index, recipe in enumerate(models):
        show = _fold_progress(progress, recipe.estimator, index, len(models))
        candidates.append(cross_validate(recipe, rows, parts, data, candidates, show))
    if mean := best_mean(candidates, rows, parts, data):
        candidates.append(mean)
    return candidates


def _fold_progress(
    progress: Progress | None, name: str, index: int, recipe_count: int
) -> FoldProgress:
    """Return what reports the folds of one recipe as a share of all recipes."""

    def show(fold: int, fold_count: int) -> None:
        if progress:
            share = GATE_SHARE * (index + (fold - 1) / fold_count) / recipe_count
            progress(f"trying {name}, part {fold} of {fold_count}", share)

    return show


def _gate(
    validated: _Validated,
    y_true: Floats,
    fold_sizes: list[int],
    timed_rows: pl.DataFrame,
    data: Data,
) -> Gate:
    """Return a gate that leaves an honest retraining room for chance."""
    scores = validated.scores
    best = validated.best
    skill = max(scores.baselines.constant.skill.value or 0.0, 0.0)
    slice_skills = [part.skill.value for part in scores.slices]
    weakest_slices = [value - 0.1 for value in slice_skills if value is not None]
    calibrations = [scores.calibration]
    worst_stretch = 0.0
    if data.split.by == "time":  # a stretch of time may be off as a whole, and so may the holdout
        ends = np.cumsum(fold_sizes)[:-1]
        stretches = zip(np.split(y_true, ends), np.split(best.y_pred, ends), strict=True)
        of_stretches = [calibration(*stretch) for stretch in stretches]
        worst_stretch = max(stretch.error for stretch in of_stretches)
        calibrations += of_stretches
    ratios = [ratio for measured in calibrations for ratio in measured.ratios or []]
    off = max([1.0, *(certain_factor(ratio) for ratio in ratios)])
    latency = measure_latency(best.fitted, timed_rows, data)
    # On an ordinary machine; the gate allows a slow one more.
    ordinary_ms = latency.latency_ms / max(1.0, latency.yardstick_ms / YARDSTICK_MS)
    default_confidence = Gate.model_fields["confidence"].default
    max_error = max(0.1, 2 * scores.calibration.error, worst_stretch)
    return Gate(
        metric=scores.metric,
        thresholds=validated.thresholds,
        confidence=default_confidence if validated.is_proven else STRICT_CONFIDENCE,
        slice_skill=round(min([0.4 * skill, *weakest_slices]), 3),
        max_calibration_error=round(max_error, 3),
        max_observed_expected=round(off * OBSERVED_EXPECTED, 2),
        max_latency_ms=max(50.0, round(5 * ordinary_ms)),
    )


def _explain(validated: _Validated, data: Data) -> dict[str, str]:
    """Return a sentence on the estimator and one on the gate."""
    best = validated.best
    scores = validated.scores
    is_regression = data.task == "regression"
    loss_name = "rmse" if is_regression else "log loss"
    exponent = 0.5 if is_regression else 1.0  # mean squared errors are shown as RMSE
    ranked = sorted(validated.candidates, key=lambda candidate: candidate.loss)
    losses = ", ".join(
        f"{candidate.name} {candidate.loss**exponent:.4g}"
        for candidate in ranked
        if not candidate.error
    )
    metric = scores.metric
    value = scores.metrics[metric].value
    constant = scores.baselines.constant.value
    reached = f"{metric} {value:.4g} cross-validated, a constant {constant:.4g}"
    bounds = ", ".join(
        f"{name} {'≥' if name in HIGHER_IS_BETTER else '≤'} {bound:.4g}"
        for name, bound in validated.thresholds.items()
    )
    reason = "the lowest"
    if best is not ranked[0]:
        reason = "it gains most from more rows, and is within a standard error of the lowest"
    gate = f"{bounds}: what such a model reaches on {validated.holdout_rows:,} rows; {reached}"
    if not validated.is_proven:
        gate = f"WARNING: {reached}: the columns carry next to no signal about the target"
    return {
        "(estimator)": f"{best.name}: {reason} cross-validated {loss_name} ({losses})",
        "(gate)": gate,
    }
