"""Performance: whether predictions still come true as often as on the holdout.

Labels are judged when they arrive, however long after the prediction: a batch at a time, in the
order in which they were added.
"""

from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Data, Gate
from ..config.drift import Drift
from ..model_package import PackagedMetrics
from ..pipeline.formatting import short
from ..pipeline.intervals import bootstrap, effective_rows
from ..pipeline.metrics import SCORES
from ..records import CalibrationCheck, Ends, MetricCheck
from .label_batches import MIN_LABELS
from .label_selection import balanced, one_class_arrives_sooner
from .skill import skill, student_quantile, widening

FULL_COVERAGE = 0.9  # from which on it hardly matters which labels are missing


class Expected(NamedTuple):
    """What the package says of the champion's predictions for its holdout."""

    metric: str  # of the gate
    metrics: dict[str, Ends]
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


def expected(metrics: PackagedMetrics) -> Expected:
    """Return what `metrics.json` of a package says."""
    bins = metrics.get("calibration", {}).get("bins", [])
    total: dict[str, float | None] = {"predicted": None, "observed": None}
    if bins and metrics.get("task") != "regression":
        for name in total:
            total[name] = sum(item[name] * item["rows"] for item in bins)
    return Expected(metrics["metric"], metrics["metrics"], metrics["rows"], **total)


def judge(
    rows: pl.DataFrame,
    scores: NDArray[np.float64],
    holdout: Expected,
    data: Data,
    gate: Gate,
    settings: Drift,
) -> Judgement:
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
    names = [holdout.metric]
    if data.classes and holdout.metric != "log_loss" and "log_loss" in holdout.metrics:
        names.append("log_loss")
    calibrated = holdout.predicted is not None and holdout.observed is not None
    if result["coverage"] < FULL_COVERAGE:
        rows, result["basis"], result["note"] = balanced(rows, scores)
        if result["basis"] == "none":
            return result
        if data.classes and one_class_arrives_sooner(rows):
            names = [name for name in names if name == "roc_auc"]
            calibrated = False
            result["note"] = (
                "labels of one class arrive sooner than those of another, so that what has arrived "
                "does not say how frequent each is"
            )
            if not names:
                result["basis"] = "none"
                return result
    if len(rows) < MIN_LABELS:
        result["basis"] = "none"
        result["note"] = f"fewer than {MIN_LABELS} labels can be used"
        return result
    checks = len(names) + calibrated
    y_true, y_pred = _arrays(rows, data)
    deciding = effective_rows(y_true, len(data.classes))
    stretch = widening(gate.confidence, checks, deciding)
    rarer = holdout.rows
    if calibrated and data.task == "binary":
        positives = holdout.observed or 0
        rarer = min(holdout.rows, round(positives), round(holdout.rows - positives))
    holdout_stretch = widening(gate.confidence, checks, rarer)

    def values(index: NDArray[np.int64]) -> list[float]:
        return [float(SCORES[name](y_true[index], y_pred[index])) for name in names]

    for name, value in zip(names, bootstrap(values, len(rows), gate, deciding), strict=True):
        over = skill(name, value, holdout.metrics[name], stretch, holdout_stretch)
        result["checks"][name] = {"value": value, "expected": holdout.metrics[name], "skill": over}
        if over["high"] is not None and over["high"] < -settings.max_skill_loss:
            usual = short(holdout.metrics[name]["value"])
            result["signs"][name] = f"is {short(value['value'])}, where the holdout had {usual}"
    if calibrated:
        quantile = student_quantile(gate.confidence, checks, rarer)
        ratio = _calibration(y_true, y_pred, holdout, quantile)
        result["calibration"] = ratio
        limit = settings.max_calibration_ratio
        if ratio["low"] > limit or ratio["high"] < 1 / limit:
            result["signs"]["observed ÷ predicted"] = (
                f"is {short(ratio['value'])}, where the holdout had {short(ratio['expected'])}"
            )
    return result


def _calibration(
    y_true: NDArray[Any], y_pred: NDArray[np.float64], holdout: Expected, quantile: float
) -> CalibrationCheck:
    """Return observed ÷ predicted, and the ends of its ratio to that of the holdout.

    Of positives, for binary; of right predictions, for multiclass. B. Van Calster et al., BMC
    Medicine 17, 2019; the logarithm of a ratio of counts is normal (Katz et al., 1978).
    """
    classes = np.ones(len(y_true), int) if y_pred.shape[1] == 2 else y_pred.argmax(axis=1)
    predicted = float(y_pred[np.arange(len(y_true)), classes].sum())
    observed = float((y_true == classes).sum())
    ratios = []
    variance = 0.0
    for hits, expected_hits, rows in (
        (observed, predicted, len(y_true)),
        (holdout.observed or 0.0, holdout.predicted or 0.0, holdout.rows),
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


def _arrays(rows: pl.DataFrame, data: Data) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if not data.classes:
        return rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    y_true = rows["truth"].to_physical().cast(pl.Int64).to_numpy()
    return y_true, rows.select(f"p:{name}" for name in data.classes).to_numpy()
