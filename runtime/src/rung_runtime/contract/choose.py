"""Choose the estimator and the gate's thresholds of new data, by cross-validation.

Only rows that training may see are looked at, never the holdout: of it, only the number of rows
is known. Folds honour the kind of the split: forward in time, whole groups, or at random.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import norm

from .. import UsageError
from ..config import DATA, HIGHER_IS_BETTER, METRICS, Config, Data, Gate, Model
from ..model_package import predict
from ..pipeline.calibration import calibration
from ..pipeline.cross_validation import Indices, folds
from ..pipeline.evaluate import judge, require_judgeable, timed
from ..pipeline.gate import YARDSTICK_MS, surely_off
from ..pipeline.ingest import inputs, labels
from ..pipeline.intervals import expanded_tail
from ..pipeline.metrics import SCORES, Floats
from ..pipeline.resampling import Resampler
from ..pipeline.split import split
from ..pipeline.train import fit
from ..problem import features

Progress = Callable[[str, float], None]

# What is cross-validated at most, which bounds the time of `ml data use`.
MOST_ROWS = 20_000
MOST_CELLS = 1_000_000  # rows × inputs
FEWEST_ROWS = 2_000  # however many inputs there are
FOLDS = 4
FEWEST_TRAINED = 0.5  # the share of the rows before the first fold that is forward in time
RARE = 0.05  # a positive class with a smaller share is judged by average precision
DRAWS = 1_000
# Of models that are as good as the cross-validated one, the share that the thresholds refuse.
REFUSED = 0.02
SLACK = 0.03  # of the gain over a constant; luck of a seed, and errors too rare to be in the rows
OBSERVED_EXPECTED = Gate.model_fields["max_observed_expected"].default
RACE_ROWS = 1_000  # predicted, before a candidate may be given up
RACE_ERRORS = 4.0  # standard errors by which it must be worse
BETTER = 0.02  # the skill of the challenger that is spoken of
MEAN_GAIN = 0.01  # of the loss, which a mean of candidates has to save to be worth its price
TOLERANCE = 0.05  # the default of config/delivery.yaml
SURE = 0.99  # confidence, where the training rows do not show that there is anything to learn

# A penalty, as without one a leaf that is all but sure of a rare class overshoots by far.
SLOW = {"max_iter": 300, "learning_rate": 0.03, "max_leaf_nodes": 15, "l2_regularization": 1.0}
FAST = {"max_iter": 300, "learning_rate": 0.1, "l2_regularization": 1.0}
# Each step takes a tree for every class, so that many classes get fewer steps.
FEW = {"max_iter": 100, "learning_rate": 0.1, "l2_regularization": 1.0}
MANY_CLASSES = 6
SMALL = 1_000  # rows; with fewer, slow steps are better than fast ones
MOST_LEAVES = 2_000  # of a tree of the forest, which keeps the model's file under 20 MB
MOST_COUNTS = 52_000  # leaves × classes of a tree, as each leaf keeps a number for every class


@dataclass(frozen=True)
class Tried:
    """A recipe, and its out-of-fold predictions: (n, classes) probabilities or (n,) values."""

    model: Model
    y_pred: Floats
    losses: Floats  # (n,) log loss or squared error; of the first folds only, if it was given up
    fitted: Any = None  # the model of the last fold
    error: str = ""  # why it could not be tried
    given_up: bool = False

    @property
    def loss(self) -> float:
        """The mean; infinite if there is none, or it is not finite."""
        mean = self.losses.mean() if len(self.losses) else np.inf
        return float(mean) if np.isfinite(mean) else np.inf


def first_gate(
    rows: pl.DataFrame,
    data: Data,
    progress: Progress | None = None,
    identity: pl.Series | None = None,
) -> tuple[Model, Gate, dict[str, str]]:
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
    most = max(FEWEST_ROWS, min(MOST_ROWS, MOST_CELLS // width))
    known = train.sample(min(train.height, most), seed=0, shuffle=True)
    parts = list(folds(known, data, FOLDS, FEWEST_TRAINED))
    if not parts:
        raise UsageError(
            f"{DATA}: split: by {data.split.by} gives no part of the training rows with more than "
            f"one class of {data.target!r}; choose another split"
        )
    tested = np.concatenate([test for _, test in parts])
    y_true = labels(known, data)[tested]
    require_judgeable(y_true, data, "the training part")  # before an estimator stumbles over it
    constant = _constant(y_true, data)
    tried: list[Tried] = []
    recipes = candidates(data, known.height)
    for place, recipe in enumerate(recipes):
        done = partial(_show, progress, recipe.estimator, place / len(recipes), len(recipes))
        tried.append(_try(recipe, known, parts, data, tried, done))
    if mean := _mean(tried, known, parts, data):
        tried.append(mean)
    best = _best(tried, sampled=train.height > known.height)
    if not np.isfinite(best.loss):
        raise UsageError(
            f"{DATA}: nothing can be learned of {data.target!r}, which reaches "
            f"{np.abs(y_true).max():.3g}: {best.error or 'no error of a prediction is finite'}"
        )
    linear = next(candidate for candidate in tried if candidate.model.estimator == "linear")

    names = judged(y_true, data)
    metric = names[0]
    judged_rows = known[tested]
    simple = constant if linear.error else linear.y_pred
    baselines = {"constant": constant, "linear": simple}
    whole = Config(data=data, model=best.model, gate=Gate(metric=metric, thresholds={metric: 0.0}))
    document = judge(y_true, best.y_pred, baselines, judged_rows, whole)
    sample = resampler(judged_rows, [len(test) for _, test in parts], holdout.height, data)
    bounds = thresholds(names, y_true, best.y_pred, constant, sample)
    gained = document["baselines"]["constant"]["skill"]
    slices = [s["skill"]["value"] for s in document["slices"] if s["skill"]["value"] is not None]
    proved = (gained["low"] or 0.0) > 0
    worst = 0.0
    off = [surely_off(ratio) for ratio in document["calibration"]["ratios"]]
    if data.split.by == "time":  # a stretch of time may be off as a whole, and so may the holdout
        ends = np.cumsum([len(test) for _, test in parts])[:-1]
        stretches = zip(np.split(y_true, ends), np.split(best.y_pred, ends), strict=True)
        calibrations = [calibration(*stretch) for stretch in stretches]
        worst = max(found["error"] for found in calibrations)
        off += [surely_off(ratio) for found in calibrations for ratio in found["ratios"]]
    times = timed(best.fitted, known[parts[-1][1]], data)
    # On an ordinary machine; the gate allows a slow one more.
    ordinary = times["latency_ms"] / max(1.0, times["yardstick_ms"] / YARDSTICK_MS)
    gate = Gate(
        metric=metric,
        thresholds=bounds,
        confidence=Gate.model_fields["confidence"].default if proved else SURE,
        slice_skill=round(
            min([0.4 * max(gained["value"] or 0.0, 0.0), *(skill - 0.1 for skill in slices)]), 3
        ),
        max_calibration_error=round(max(0.1, 2 * document["calibration"]["error"], worst), 3),
        max_observed_expected=round(max([1.0, *off]) * OBSERVED_EXPECTED, 2),
        max_latency_ms=max(50.0, round(5 * ordinary)),
    )
    notes = _explain(tried, best, document, bounds, holdout.height, data, proved)
    rivals = [rival for rival in tried if rival is not best and len(rival.y_pred)]
    if rivals and proved:
        rival = min(rivals, key=lambda candidate: candidate.loss)
        total = min(train.height + holdout.height, MOST_ROWS)
        share = power(best, rival, y_true, total, metric, data)
        notes["(power)"] = (
            f"a challenger better by {BETTER:g} skill is recognised in {share:.0%} of cases, "
            f"as far as {_named(best.model)} against {_named(rival.model)} shows"
        )
    return best.model, gate, notes


def without_unread_texts(rows: pl.DataFrame, data: Data) -> tuple[Data, dict[str, str]]:
    """Leave out the text columns that `features` hands on as text, which no estimator here reads.

    A project of before 0.3 has a `problem/features.py` of its own that knows no texts.

    Returns:
        The contract, and a WARNING for each column.

    Raises:
        UsageError: No other column is left.
    """
    x = features(inputs(rows.head(1), data))
    texts = [name for name in data.features if data.columns[name].type == "text"]
    unread = [name for name in texts if name in x.columns and x[name].dtype == pl.String]
    why = "a text, which features() in problem/features.py does not turn into numbers"
    if unread and set(unread) == set(data.features):
        raise UsageError(f"{unread[0]!r} is {why}, and no other column is left to learn from")
    columns = {name: column for name, column in data.columns.items() if name not in unread}
    left_out = data.left_out | dict.fromkeys(unread, why)
    notes = dict.fromkeys(unread, f"WARNING: left out: {why}")
    return data.model_copy(update={"columns": columns, "left_out": left_out}), notes


def candidates(data: Data, rows: int) -> list[Model]:
    """Return the recipes to try on so many rows: linear, boosted trees and a forest."""
    boosted = [SLOW] if rows < SMALL else [SLOW, FAST]
    if len(data.classes) >= MANY_CLASSES:
        boosted = [FEW]
    leaves = min(MOST_LEAVES, MOST_COUNTS // max(1, len(data.classes)))
    forest: dict[str, Any] = {"n_estimators": 100, "min_samples_leaf": 3, "max_leaf_nodes": leaves}
    if data.task != "regression":
        forest["max_features"] = 0.5
    return [
        Model(estimator="linear"),
        *(Model(estimator="boosted", params=params) for params in boosted),
        Model(estimator="forest", params=forest),
    ]


def judged(y_true: Floats, data: Data) -> list[str]:
    """Return the metrics that the gate judges, its own first.

    With rare positives, ROC AUC and accuracy are high for models that find none of them (Saito and
    Rehmsmeier, 2015).
    """
    if data.task == "binary":
        rare = y_true.mean() < RARE
        return ["average_precision" if rare else "roc_auc", "log_loss"]
    return METRICS[data.task][:2]


def _constant(y_true: Floats, data: Data) -> Floats:
    """Predict the best constant for every row: the mean, or the share of each class."""
    if data.task == "regression":
        return np.full(len(y_true), y_true.mean())
    shares = np.bincount(y_true.astype(int), minlength=len(data.classes)) / len(y_true)
    return np.tile(shares, (len(y_true), 1))


def _show(
    progress: Progress | None, name: str, done: float, recipes: int, fold: int, folds: int
) -> None:
    if progress:
        share = done + (fold - 1) / folds / recipes
        progress(f"trying {name}, part {fold} of {folds}", share)


def _try(
    recipe: Model,
    rows: pl.DataFrame,
    parts: list[tuple[Indices, Indices]],
    data: Data,
    rivals: list[Tried],
    show: Callable[[int, int], None],
) -> Tried:
    """Predict every fold with a model of the others; give up once a rival is surely better."""
    predicted: list[Floats] = []
    losses = np.empty(0)
    for number, (fitted, test) in enumerate(parts, start=1):
        show(number, len(parts))
        try:
            model = fit(rows[fitted], data, recipe)
            predicted.append(predict(model, rows[test], data, features))
        except (UsageError, ValueError, FloatingPointError) as error:
            return Tried(recipe, np.empty(0), np.empty(0), error=str(error))
        new = _losses(labels(rows[test], data), predicted[-1])
        losses = np.concatenate([losses, new])
        if number < len(parts) and any(_surely_better(rival, losses) for rival in rivals):
            return Tried(recipe, np.empty(0), losses, given_up=True)
    return Tried(recipe, np.concatenate(predicted), losses, model)


def _mean(
    tried: list[Tried], rows: pl.DataFrame, parts: list[tuple[Indices, Indices]], data: Data
) -> Tried | None:
    """Return the mean of two or three candidates that is best; None if it gains next to nothing.

    Errors of models that work differently partly cancel out (Perrone and Cooper, 1993). What one
    does as well is left to one.
    """
    complete = [candidate for candidate in tried if len(candidate.y_pred)]
    best: dict[str, Tried] = {}  # of each estimator
    for candidate in sorted(complete, key=lambda candidate: candidate.loss):
        best.setdefault(candidate.model.estimator, candidate)
    if len(best) < 2:
        return None
    y_true = labels(rows, data)[np.concatenate([test for _, test in parts])]
    means: list[Tried] = []
    for count in (2, 3):
        for some in combinations(best.values(), count):
            y_pred = np.mean([candidate.y_pred for candidate in some], axis=0)
            params = {candidate.model.estimator: candidate.model.params for candidate in some}
            recipe = Model(estimator="mean", params=params)
            means.append(Tried(recipe, y_pred, _losses(y_true, y_pred)))
    chosen = min(means, key=lambda mean: mean.loss)
    if not chosen.loss < (1 - MEAN_GAIN) * min(candidate.loss for candidate in complete):
        return None
    try:
        return replace(chosen, fitted=fit(rows[parts[-1][0]], data, chosen.model))
    except (UsageError, ValueError):  # problem/model.py, which is the user's, does not know it
        return None


def _surely_better(rival: Tried, losses: Floats) -> bool:
    """Tell whether the rival's losses are lower, by far, on the same first rows (a race).

    Maron and Moore, Hoeffding races, 1994; by standard errors of the paired differences.
    """
    n = len(losses)
    if rival.given_up or n < RACE_ROWS or len(rival.losses) < n:
        return False
    lost = losses - rival.losses[:n]
    return bool(lost.mean() > RACE_ERRORS * lost.std() / n**0.5)


def _best(tried: list[Tried], *, sampled: bool) -> Tried:
    """Return the candidate with the lowest loss.

    If there are more rows than were tried, boosted trees get the benefit of the doubt (one standard
    error): of the three they gain most from more rows.
    """
    complete = [candidate for candidate in tried if not candidate.given_up]
    best = min(complete, key=lambda candidate: candidate.loss)
    if sampled and np.isfinite(best.loss):
        for candidate in sorted(complete, key=lambda candidate: candidate.loss):
            lost = candidate.losses - best.losses if len(candidate.losses) else np.array([np.inf])
            if candidate.model.estimator == "boosted":
                return candidate if lost.mean() <= lost.std() / len(lost) ** 0.5 else best
    return best


def _losses(y_true: Floats, y_pred: Floats) -> Floats:
    """Return each row's squared error or log loss: strictly proper (Gneiting and Raftery, 2007)."""
    with np.errstate(over="ignore", invalid="ignore"):
        if y_pred.ndim == 1:
            return np.asarray((y_true - y_pred) ** 2)
        chance = y_pred[np.arange(len(y_true)), y_true.astype(int)]
        return np.asarray(-np.log(np.clip(chance, 1e-15, 1)))


def power(best: Tried, other: Tried, y_true: Floats, rows: int, metric: str, data: Data) -> float:
    """Return how often a challenger with `BETTER` skill is accepted, by a normal approximation.

    It is accepted if the lower end of its skill over the champion is not below −`TOLERANCE`, out
    of fold on so many rows. How much a skill varies is that of one candidate over another.
    """
    gate = Gate(metric=metric, thresholds={metric: 0.0})
    deviations = (
        Resampler(y_true, metric, len(data.classes), gate)
        .skill(best.y_pred, other.y_pred)
        .deviations
    )
    error = float(np.nanstd(deviations)) * (len(y_true) / rows) ** 0.5
    return float(norm.cdf((BETTER + TOLERANCE) / max(error, 1e-12) - norm.ppf(0.975)))


def resampler(
    rows: pl.DataFrame, folds: list[int], holdout: int, data: Data
) -> Callable[[np.random.Generator], Indices]:
    """Return what draws indices as a holdout would: rows, whole groups, or blocks of time.

    As many rows are drawn as give the variance of a holdout *and* of the rows drawn from, so
    that 1/m = 1/holdout + 1/n. Blocks keep what neighbours in time have in common (Künsch, 1989).

    Args:
        rows: (n,) the predicted rows, fold after fold.
        folds: How many rows each fold has.
        holdout: How many rows the holdout has.
    """
    n = rows.height
    m = max(1, round(1 / (1 / holdout + 1 / n)))
    column = data.split.column
    if data.split.by == "group" and column is not None:
        codes = rows[column].rank("dense").fill_null(0).to_numpy()
        order = np.argsort(codes, kind="stable")
        units = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    elif data.split.by == "time" and column is not None:
        order = rows[column].arg_sort().to_numpy()
        units = np.array_split(order, max(1, round(10 * n / m)))
    else:
        return lambda random: random.integers(0, n, m)
    count = max(1, round(m * len(units) / n))

    def draw(random: np.random.Generator) -> Indices:
        return np.concatenate([units[unit] for unit in random.integers(0, len(units), count)])

    return draw


def thresholds(
    names: list[str],
    y_true: Floats,
    y_pred: Floats,
    constant: Floats,
    sample: Callable[[np.random.Generator], Indices],
) -> dict[str, float]:
    """Return the bound of each metric that a retrained model of the same worth meets.

    Together the bounds refuse a share of `REFUSED` of such models: each is the same quantile of
    its metric over samples of a holdout's size, chosen so that the share holds for all at once. No
    bound is weaker than the value of a constant.

    Args:
        names: Metrics.
        y_true: (n,) class indices or values.
        y_pred: (n, classes) or (n,), out of fold.
        constant: The same of the best constant.
        sample: Draws indices of rows as a holdout would.
    """
    random = np.random.default_rng(0)
    signs = np.array([1.0 if name in HIGHER_IS_BETTER else -1.0 for name in names])
    drawn = [sample(random) for _ in range(DRAWS)]
    values = np.array([[SCORES[name](y_true[i], y_pred[i]) for name in names] for i in drawn])
    values = np.where(np.isfinite(values), values, np.nan) * signs
    ranks = np.argsort(np.argsort(values, axis=0), axis=0).min(axis=1)  # of the worst metric
    tail = (np.quantile(ranks, REFUSED) + 0.5) / DRAWS
    tail = expanded_tail(tail, _rarest(y_true, y_pred, len(drawn[0])))
    bounds = {}
    for place, name in enumerate(names):
        sign = signs[place]
        own = sign * float(SCORES[name](y_true, y_pred))
        floor = sign * float(SCORES[name](y_true, constant))
        bound = float(np.nanquantile(values[:, place], tail))
        bound = _rounded_down(min(bound, own - SLACK * (own - floor)))
        lowest = -_rounded_down(-floor)  # rounded up: a constant never meets it by rounding
        bounds[name] = float(sign * max(bound, lowest))
    return bounds


def _rarest(y_true: Floats, y_pred: Floats, rows: int) -> int:
    """Return how many of so many rows are of the rarest class; all of them in a regression."""
    if y_pred.ndim == 1:
        return rows
    counts = np.bincount(y_true.astype(int), minlength=y_pred.shape[1])
    return int(rows * counts[counts > 0].min() / len(y_true))


def _rounded_down(value: float) -> float:
    """Return three significant digits, never more than the value: 0.9996 is not 1."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    return float(f"{np.floor(value / unit) * unit:.12g}")


def _named(recipe: Model) -> str:
    """Return the estimator, with the rate of boosted trees, of which several are tried."""
    if recipe.estimator == "mean":
        return f"mean of {' and '.join(recipe.params)}"
    rate = recipe.params.get("learning_rate")
    return f"{recipe.estimator} (rate {rate:g})" if rate else recipe.estimator


def _explain(
    tried: list[Tried],
    best: Tried,
    document: dict[str, Any],
    bounds: dict[str, float],
    holdout: int,
    data: Data,
    proved: bool,
) -> dict[str, str]:
    """Return a sentence on the estimator and one on the gate."""
    name = "rmse" if data.task == "regression" else "log loss"
    ranked = sorted(tried, key=lambda candidate: candidate.loss)
    root = 0.5 if data.task == "regression" else 1.0  # mean squared errors are shown as RMSE
    losses = ", ".join(
        f"{_named(one.model)} {one.loss**root:.4g}" for one in ranked if not one.error
    )
    metric = document["metric"]
    value = document["metrics"][metric]["value"]
    constant = document["baselines"]["constant"]["value"]
    reached = f"{metric} {value:.4g} cross-validated, a constant {constant:.4g}"
    asked = ", ".join(
        f"{name} {'≥' if name in HIGHER_IS_BETTER else '≤'} {bound:.4g}"
        for name, bound in bounds.items()
    )
    why = "the lowest"
    if best is not ranked[0]:
        why = "as more rows help it most, and it is within a standard error of the lowest"
    notes = {
        "(estimator)": f"{_named(best.model)}: {why} cross-validated {name} ({losses})",
        "(gate)": f"{asked}: what such a model reaches on {holdout:,} rows; {reached}",
    }
    if not proved:
        notes["(gate)"] = f"WARNING: {reached}: the columns tell next to nothing of the target"
    return notes
