"""The numbers that judge a model, and how sure one can be of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from ..config import HIGHER_IS_BETTER, Gate

Floats = NDArray[np.float64]
UNKNOWN = float("nan")


def _roc_auc(truth: Floats, scores: Floats) -> float:
    """By ranks (Mann-Whitney): the bootstrap asks often, and scikit-learn takes far longer."""
    hits, misses = np.count_nonzero(truth), np.count_nonzero(truth == 0)
    if not hits or not misses:
        return UNKNOWN
    if (scores == scores[0]).all():  # a constant, which every slice is compared with
        return 0.5
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return float((ranks[truth == 1].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _average_precision(truth: Floats, scores: Floats) -> float:
    return float(sk.average_precision_score(truth, scores)) if truth.any() else UNKNOWN


# Each takes (n,) class indices or values, and (n, classes) probabilities or (n,) values.
SCORES: dict[str, Callable[[Floats, Floats], Any]] = {
    "roc_auc": lambda y, p: _roc_auc(y, p[:, 1]),
    "average_precision": lambda y, p: _average_precision(y, p[:, 1]),
    "brier": lambda y, p: np.mean((p[:, 1] - y) ** 2),
    "log_loss": lambda y, p: -np.log(np.clip(p[np.arange(len(y)), y.astype(int)], 1e-15, 1)).mean(),
    "accuracy": lambda y, p: np.mean(p.argmax(axis=1) == y),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(axis=1), average="macro"),
    "rmse": lambda y, p: np.mean((y - p) ** 2) ** 0.5,
    "mae": lambda y, p: np.abs(y - p).mean(),
    "r2": lambda y, p: 1 - np.mean((y - p) ** 2) / y.var() if np.ptp(y) else UNKNOWN,
}


def skill(metric: str, value: float, reference: float) -> float:
    """How much of the way from a reference to perfection a value has gone: 0 none, 1 all.

    The skill score of forecast verification (Wilks, Statistical Methods in the Atmospheric
    Sciences, 2019, 9.1.4). NaN where the reference is perfect already.
    """
    best = 1.0 if metric in HIGHER_IS_BETTER else 0.0
    return (value - reference) / (best - reference) if best != reference else UNKNOWN


def bootstrap(
    of: Callable[[NDArray[np.int64]], list[float]], n: int, gate: Gate
) -> list[dict[str, float | None]]:
    """Percentile bootstrap of several numbers at once (Efron and Tibshirani, 1993, chapter 13).

    Beyond 2,000 rows it draws that many and scales to n ("m out of n"; Bickel, Götze and van Zwet,
    1997), so that its cost has a bound.

    Args:
        of: Gives the numbers for rows with these indices.

    Returns:
        For each number its `value` on all rows, `low` and `high`; None where it is not defined.
    """
    random, m, tail = np.random.default_rng(0), min(n, 2_000), (1 - gate.confidence) / 2
    whole = np.array(of(np.arange(n)), dtype=float)
    drawn = np.array([of(random.integers(0, n, m)) for _ in range(gate.resamples)], dtype=float)
    found: list[dict[str, float | None]] = []
    for value, column in zip(whole, drawn.T, strict=True):
        known = column[np.isfinite(column)]
        if np.isfinite(value) and len(known):
            low, high = value + (np.quantile(known, [tail, 1 - tail]) - value) * (m / n) ** 0.5
            found.append({"value": float(value), "low": float(low), "high": float(high)})
        else:
            found.append(dict.fromkeys(("value", "low", "high")))
    return found


def calibration(truth: Floats, given: Floats) -> dict[str, Any]:
    """How far predictions are from what happens, in up to ten bins of equally many rows.

    Returns:
        `error`: the mean distance (expected calibration error; Naeini et al., 2015), for a
        regression in standard deviations of the target; `bins`: `predicted`, `observed`, `rows`.
    """
    predicted, observed, unit = given, truth, float(truth.std()) or 1.0
    if given.ndim == 2:  # of the positive class; of the class that is named, if there are more
        named = np.ones(len(truth), int) if given.shape[1] == 2 else given.argmax(axis=1)
        predicted, observed = given[np.arange(len(truth)), named], (truth == named).astype(float)
        unit = 1.0
    parts = np.array_split(np.argsort(predicted, kind="stable"), np.clip(len(truth) // 50, 1, 10))
    bins = [{"predicted": predicted[at].mean(), "observed": observed[at].mean()} for at in parts]
    gaps = [
        abs(b["predicted"] - b["observed"]) * len(at) for b, at in zip(bins, parts, strict=True)
    ]
    sizes = ({"rows": len(at)} for at in parts)
    return {
        "error": float(sum(gaps) / len(truth) / unit),
        "bins": [b | size for b, size in zip(bins, sizes, strict=True)],
    }


def curves(truth: Floats, given: Floats) -> dict[str, list[Any]]:
    """The points of the report's plots, thinned to what a picture can show."""

    def thin(x: Floats, y: Floats, most: int) -> list[Any]:
        at = np.unique(np.linspace(0, len(x) - 1, most).astype(int))
        return list(np.column_stack([x, y])[at].tolist())

    if given.ndim == 1:
        return {"predicted and actual": thin(given, truth, 400)}
    plots = {}
    if given.shape[1] == 2 and len(np.unique(truth)) == 2:
        wrong, right, _ = sk.roc_curve(truth, given[:, 1])
        precision, recall, _ = sk.precision_recall_curve(truth, given[:, 1])
        plots["roc"] = thin(wrong, right, 120)
        plots["precision and recall"] = thin(recall, precision, 120)
    named = sk.confusion_matrix(truth, given.argmax(axis=1), labels=range(given.shape[1]))
    return plots | {"confusion": named.tolist()}
