"""Performance: whether predictions still come true as often as on the holdout.

Labels are judged when they arrive, however long after the prediction: a batch at a time, in the
order in which they were added.
"""

import itertools
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp
from scipy.stats import t as student

from ..config import HIGHER_IS_BETTER, Data, Gate
from ..pipeline.intervals import Interval, bootstrap, effective_rows
from ..pipeline.metrics import SCORES
from ..pipeline.report import short
from ..records import CalibrationCheck, MetricCheck
from ..settings import Drift

LABELS = 50  # fewer say nothing of performance
WHOLE = 0.9  # a coverage from which on it hardly matters which labels are missing
CHANCE = 0.001  # of calling labels selected that are not
FLOOR = 0.02  # of a distance from perfection, so that 0.9998 is not far below 0.9999


class Expected(NamedTuple):
    """What the package says of the champion's predictions for its holdout."""

    metric: str  # of the gate
    metrics: dict[str, Interval]
    rows: int
    predicted: float | None  # positives that were predicted, for binary; predictions that were
    observed: float | None  # expected to be right, for multiclass; and how many there were


class Judgement(TypedDict):
    """What is known of labelled predictions, as `monitor.json` has it.

    Attributes:
        coverage: `labels` divided by `predictions`.
        basis: Whether `all` labels were judged, a `balanced` part, or `none`.
        note: Why it is a part or none.
        checks: By metric its `value`, what is `expected`, and the `skill` over that.
        signs: By metric, in words, why its loss is one.
    """

    labels: int
    predictions: int
    coverage: float
    basis: Literal["all", "balanced", "none"]
    note: str | None
    checks: dict[str, MetricCheck]
    calibration: CalibrationCheck | None
    signs: dict[str, str]


class Batch(NamedTuple):
    """Labels that arrived together."""

    rows: pl.DataFrame  # time, told, truth, score, probabilities or prediction
    arrived: datetime


def expected(metrics: dict[str, Any]) -> Expected:
    """Read what `metrics.json` of a package says."""
    bins = metrics.get("calibration", {}).get("bins", [])
    total: dict[str, float | None] = {"predicted": None, "observed": None}
    if bins and metrics.get("task") != "regression":
        for name in total:
            total[name] = sum(item[name] * item["rows"] for item in bins)
    return Expected(metrics["metric"], metrics["metrics"], metrics["rows"], **total)


def labelled(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return the rows with a label, `truth` typed, and a `score` by which labels may be selected.

    The score is the probability of the positive class, of the class that is predicted, or the
    predicted value.
    """
    kind = pl.Enum(data.classes) if data.classes else pl.Float64()
    typed = rows.with_columns(pl.col("truth").cast(kind, strict=False), score=score(data))
    return typed.drop_nulls("truth")


def score(data: Data) -> pl.Expr:
    """Return the expression of a prediction as one number."""
    if data.task == "regression":
        return pl.col("prediction")
    if data.task == "binary":
        return pl.col(f"p:{data.classes[-1]}")
    return pl.max_horizontal(f"p:{name}" for name in data.classes)


def batches(rows: pl.DataFrame, settings: Drift) -> list[Batch]:
    """Cut labelled rows into batches, in the order in which the labels arrived.

    What arrives at once is a batch, with as many arrivals before it as it takes to have 50 labels;
    of more labels than a window has rows, or of several windows at once, there are several batches.
    A batch stays what it is, whatever arrives later.
    """
    ordered = rows.sort("told", "time", "request_id", "row")
    arrivals = ordered["told"].to_physical().to_numpy()
    times = ordered["time"].to_physical().to_numpy()
    result: list[Batch] = []
    begin = 0
    while begin + LABELS <= len(ordered):
        end = int(np.searchsorted(arrivals, arrivals[begin + LABELS - 1], "right"))
        span = (times[begin:end].max() - times[begin:end].min()) / 3.6e9
        parts = round((end - begin) / settings.window.rows)
        if span > 1.5 * settings.window.hours:
            parts = max(parts, settings.alarms)
        parts = max(1, min(parts, (end - begin) // LABELS))
        cuts = np.linspace(begin, end, parts + 1).round().astype(int).tolist()
        result += [
            Batch(ordered[first:last], ordered["told"][last - 1])
            for first, last in itertools.pairwise(cuts)
        ]
        begin = end
    return result


def pooled(batches: list[Batch], size: int) -> list[Batch]:
    """Return each batch with those before it until there are `size` labels, as few tell little."""
    pools = []
    for last in range(len(batches)):
        first = last
        labels = len(batches[last].rows)
        while first and labels < size:
            first -= 1
            labels += len(batches[first].rows)
        rows = pl.concat([batch.rows for batch in batches[first : last + 1]])
        pools.append(Batch(rows, batches[last].arrived))
    return pools


def judge(
    rows: pl.DataFrame, scores: NDArray[np.float64], known: Expected, data: Data,
    gate: Gate, settings: Drift,
) -> Judgement:  # fmt: skip
    """Compare labelled predictions with the holdout.

    Each check compares two samples, as the holdout is one, too: the metric of the gate, the log
    loss, and observed ÷ predicted. All of them together err with the probability that the gate's
    confidence leaves (Bonferroni).

    Args:
        rows: As `labelled` returns them.
        scores: Of all predictions of the same time, labelled or not.

    Returns:
        The judgement; its signs are a loss that is beyond the settings.
    """
    result: Judgement = {
        "labels": len(rows),
        "predictions": len(scores),
        "coverage": len(rows) / max(1, len(scores)),
        "basis": "all",
        "note": None,
        "checks": {},
        "calibration": None,
        "signs": {},
    }
    names = [known.metric]
    if data.classes and known.metric != "log_loss" and "log_loss" in known.metrics:
        names.append("log_loss")
    calibrated = known.predicted is not None and known.observed is not None
    if result["coverage"] < WHOLE:
        rows, result["basis"], result["note"] = _balanced(rows, scores)
        if result["basis"] == "none":
            return result
        if data.classes and _one_class_sooner(rows):
            names = [name for name in names if name == "roc_auc"]
            calibrated = False
            result["note"] = (
                "labels of one class arrive sooner than those of another, so that what has arrived "
                "does not say how frequent each is"
            )
            if not names:
                result["basis"] = "none"
                return result
    if len(rows) < LABELS:
        result["basis"] = "none"
        result["note"] = f"fewer than {LABELS} labels can be used"
        return result
    checks = len(names) + calibrated
    y_true, y_pred = _arrays(rows, data)
    deciding = effective_rows(y_true, len(data.classes))
    stretch = _stretch(gate.confidence, checks, deciding)
    rarer = known.rows
    if calibrated and data.task == "binary":
        rarer = min(
            known.rows, *map(round, (known.observed or 0, known.rows - (known.observed or 0)))
        )
    holdout_stretch = _stretch(gate.confidence, checks, rarer)

    def values(index: NDArray[np.int64]) -> list[float]:
        return [float(SCORES[name](y_true[index], y_pred[index])) for name in names]

    for name, value in zip(names, bootstrap(values, len(rows), gate, deciding), strict=True):
        over = skill(name, value, known.metrics[name], stretch, holdout_stretch)
        result["checks"][name] = {"value": value, "expected": known.metrics[name], "skill": over}
        if over["high"] is not None and over["high"] < -settings.max_skill_loss:
            before = short(known.metrics[name]["value"])
            result["signs"][name] = f"is {short(value['value'])}, where the holdout had {before}"
    if calibrated:
        quantile = _quantile(gate.confidence, checks, rarer)
        ratio = _calibration(y_true, y_pred, known, quantile)
        result["calibration"] = ratio
        limit = settings.max_calibration_ratio
        if ratio["low"] > limit or ratio["high"] < 1 / limit:
            result["signs"]["observed ÷ predicted"] = (
                f"is {short(ratio['value'])}, where the holdout had {short(ratio['expected'])}"
            )
    return result


def skill(
    metric: str,
    value: Interval,
    holdout: Interval,
    stretch: float = 1.0,
    holdout_stretch: float = 1.0,
) -> Interval:
    """Return how far a metric came from the holdout's value towards perfection, as an interval.

    Below 0 it was lost: -0.1 is a tenth of the way that the holdout was from perfection. Both ends
    take into account that both are estimates: they are those of the ratio of the two distances from
    perfection by the method of variance estimates recovery (MOVER; Donner and Zou, The Statistician
    61, 2012), which needs only the interval of each.

    Args:
        metric: A name in `SCORES`.
        value: Of the predictions that are judged.
        holdout: Of the holdout, of the same confidence.
        stretch: By how much the interval of the value is to be wider than it is.
        holdout_stretch: The same of the holdout's.
    """
    unknown: Interval = {"value": None, "low": None, "high": None}
    best = 1.0 if metric in HIGHER_IS_BETTER else 0.0
    if any(item is None for item in (*value.values(), *holdout.values())):
        return unknown
    now = sorted(abs(best - float(value[end] or 0)) for end in ("low", "value", "high"))
    before = sorted(abs(best - float(holdout[end] or 0)) for end in ("low", "value", "high"))
    far = before[1]
    near = now[1]
    if metric not in ("rmse", "mae"):
        lift = max(0.0, FLOOR - far)
        far += lift
        near += lift
    if far <= 0:
        return unknown

    def end(side: int) -> float | None:
        wide_far = holdout_stretch * (before[1 + side] - before[1]) * side
        wide_near = stretch * (now[1] - now[1 - side]) * side
        square = far**2 - wide_far**2
        root = far**2 * near**2 - square * (near**2 - wide_near**2)
        if abs(square) < 1e-12 or (side < 0 and square <= 0):
            return None
        return float(1 - (far * near - side * max(0.0, root) ** 0.5) / square)

    return {"value": 1 - near / far, "low": end(-1), "high": end(1)}


def _calibration(
    y_true: NDArray[Any], y_pred: NDArray[np.float64], known: Expected, quantile: float
) -> CalibrationCheck:
    """Return observed ÷ predicted, and the ends of its ratio to that of the holdout.

    Of positives, for binary; of right predictions, for multiclass. B. Van Calster et al., BMC
    Medicine 17, 2019; the logarithm of a ratio of counts is normal (Katz et al., 1978).
    """
    named = np.ones(len(y_true), int) if y_pred.shape[1] == 2 else y_pred.argmax(axis=1)
    predicted = float(y_pred[np.arange(len(y_true)), named].sum())
    observed = float((y_true == named).sum())
    ratios = []
    variance = 0.0
    for hits, expected_hits, rows in (
        (observed, predicted, len(y_true)),
        (known.observed or 0.0, known.predicted or 0.0, known.rows),
    ):
        hits = max(hits, 0.5)
        ratios.append(hits / max(expected_hits, 1e-9))
        variance += max(1 / hits - 1 / rows, 1 / rows**2)
    change = float(np.log(ratios[0] / ratios[1]))
    half = quantile * variance**0.5
    return {
        "value": ratios[0],
        "expected": ratios[1],
        "low": float(np.exp(change - half)),
        "high": float(np.exp(change + half)),
    }


def _balanced(
    rows: pl.DataFrame, scores: NDArray[np.float64]
) -> tuple[pl.DataFrame, Literal["all", "balanced", "none"], str | None]:
    """Return labels that stand for all predictions, whichever scores were given a label.

    Where labels depend on the score, as only loans that were granted can default, each tenth of the
    scores keeps as large a share of its labels as the tenth that has the fewest: weighting by the
    inverse probability of a label (Horvitz and Thompson, 1952), done by leaving out. Where a tenth
    has none, nothing can stand for it.
    """
    edges = np.unique(np.quantile(scores, np.arange(1, 10) / 10))
    tenth = np.searchsorted(edges, rows["score"].to_numpy(), "left")
    have = np.bincount(tenth, minlength=len(edges) + 1)
    all_of = np.bincount(np.searchsorted(edges, scores, "left"), minlength=len(edges) + 1)
    some = all_of > 0
    table = np.array([have[some], np.maximum(all_of[some] - have[some], 0)])
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return rows, "all", None
    if chi2_contingency(table).pvalue >= CHANCE:
        return rows, "all", None
    share = float((have[some] / all_of[some]).min())
    random = np.random.default_rng(0)
    kept = [
        random.permutation(np.flatnonzero(tenth == k))[: round(share * all_of[k])]
        for k in np.flatnonzero(some)
    ]
    index = np.sort(np.concatenate(kept))
    if len(index) < LABELS:
        known = rows["score"].to_numpy()
        low = short(float(known.min()))
        high = short(float(known.max()))
        note = (
            f"labels are known for some scores only ({low} to {high}, most of them), "
            "which say nothing of the others"
        )
        return rows[:0], "none", note
    note = f"labels depend on the score: {len(index)} of {len(rows)} were kept, in equal shares"
    return rows[index], "balanced", note


def _one_class_sooner(rows: pl.DataFrame) -> bool:
    """Check whether the delay of labels depends on the class: what has arrived is not all."""
    delay = (rows["told"] - rows["time"]).dt.total_seconds().to_numpy()
    classes = rows["truth"].to_physical().to_numpy()
    counts = np.bincount(classes.astype(int))
    if (counts > 0).sum() < 2:
        return True
    first = classes == counts.argmax()
    if min(first.sum(), (~first).sum()) < 5:
        return False
    test = ks_2samp(delay[first], delay[~first], method="asymp")
    return bool(test.statistic > 0.3 and test.pvalue < CHANCE)


def _arrays(rows: pl.DataFrame, data: Data) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if not data.classes:
        return rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    y_true = rows["truth"].to_physical().cast(pl.Int64).to_numpy()
    return y_true, rows.select(f"p:{name}" for name in data.classes).to_numpy()


def _stretch(confidence: float, checks: int, rows: int) -> float:
    """Return by how much an interval widens for all of several checks to hold together."""
    return _quantile(confidence, checks, rows) / _quantile(confidence, 1, rows)


def _quantile(confidence: float, checks: int, rows: int) -> float:
    """Return Student's quantile for one of several checks: how far one errs is an estimate, too."""
    tail = (1 - confidence) / 2
    return float(student.ppf(1 - tail / max(1, checks), max(2, rows - 1)))
