"""The numbers that judge a model, and how sure one can be of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student
from sklearn import metrics as sk

from ..config import HIGHER_IS_BETTER, Gate

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Interval = dict[str, float | None]  # `value`, `low`, `high`; None where it is not defined
Weighted = Callable[[Floats], Floats]
UNKNOWN = float("nan")

# Skill is not measured in steps finer than this share of the way from a constant to perfection.
SKILL_FLOOR = 0.05
# An interval from fewer rows of a class than this says little; a slice is not judged by them.
MIN_CLASS_ROWS = 10
# Resampling has a bound: so many rows of a holdout, so many of a slice, drawn so often at least.
HOLDOUT_ROWS = 4_000
SLICE_ROWS = 1_000
FEWEST_GROUPS = 100  # unless there are fewer
RESAMPLES = 400


def weighted(metric: str, y_true: Floats, y_pred: Floats) -> Weighted:
    """Prepare a metric, so that it is cheap to compute for many weightings of the same rows.

    Rows are sorted once, and losses computed once. With integer weights the result is that of
    scikit-learn on rows repeated that often.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.

    Returns:
        A function from weights, (n, m), to m values of the metric: NaN where it is not defined.
    """
    if metric == "roc_auc":
        return _roc_auc(y_true, y_pred[:, 1])
    if metric == "average_precision":
        return _average_precision(y_true, y_pred[:, 1])
    if metric == "macro_f1":
        return _macro_f1(y_true, y_pred)
    if metric == "r2":
        return _r2(y_true, y_pred)
    if metric == "rmse":
        return _root_mean(np.abs(y_true - y_pred))
    return _mean(LOSSES[metric](y_true, y_pred))


# The loss of each row; its mean is the metric.
LOSSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "brier": lambda y, p: (p[:, 1] - y) ** 2,
    "log_loss": lambda y, p: -np.log(np.clip(p[np.arange(len(y)), y.astype(int)], 1e-15, 1)),
    "accuracy": lambda y, p: (p.argmax(axis=1) == y).astype(float),
    "mae": lambda y, p: np.abs(y - p),
}
METRICS = ["roc_auc", "average_precision", *LOSSES, "macro_f1", "rmse", "r2"]


def score(metric: str, y_true: Floats, y_pred: Floats) -> float:
    """Return a metric of (n,) class indices or values: scikit-learn's; NaN if not defined."""
    return float(weighted(metric, y_true, y_pred)(np.ones((len(y_true), 1)))[0])


def _scorer(metric: str) -> Callable[[Floats, Floats], float]:
    return lambda y_true, y_pred: score(metric, y_true, y_pred)


SCORES: dict[str, Callable[[Floats, Floats], float]] = {name: _scorer(name) for name in METRICS}


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), UNKNOWN)
    return np.asarray(np.divide(above, below, out=result, where=below > 0))


def _mean(losses: Floats) -> Weighted:
    return lambda weights: _ratio(losses @ weights, weights.sum(axis=0))


def _root_mean(errors: Floats) -> Weighted:
    """Root mean square. Scaled by the largest error, whose square may be too large for a float."""
    largest = float(errors.max(initial=0.0)) or 1.0
    squares = (errors / largest) ** 2
    return lambda weights: largest * _ratio(squares @ weights, weights.sum(axis=0)) ** 0.5


def _r2(y_true: Floats, y_pred: Floats) -> Weighted:
    centred = y_true - y_true.mean()
    largest = float(max(np.abs(centred).max(), np.abs(y_true - y_pred).max())) or 1.0
    centred = centred / largest
    squares = ((y_true - y_pred) / largest) ** 2
    varies = np.ptp(y_true) > 0

    def values(weights: Floats) -> Floats:
        rows = weights.sum(axis=0)
        spread = centred**2 @ weights - _ratio((centred @ weights) ** 2, rows)
        return 1 - _ratio(squares @ weights, spread if varies else np.zeros_like(spread))

    return values


def _ties(scores: Floats) -> tuple[Rows, Rows]:
    """Return an order by falling score, and where in it each run of equal scores begins."""
    order = np.argsort(-scores, kind="stable")
    falls = np.diff(scores[order]) != 0
    return order, np.concatenate([[0], 1 + np.flatnonzero(falls)]).astype(np.int64)


def _add_ties(values: Floats, starts: Rows) -> Floats:
    """Add up the rows of each run."""
    return values if len(starts) == len(values) else np.add.reduceat(values, starts, axis=0)


def _roc_auc(y_true: Floats, scores: Floats) -> Weighted:
    """Area under the ROC curve, by counting pairs (Mann and Whitney, 1947)."""
    order, starts = _ties(scores)
    positive = (y_true[order] == 1)[:, None]

    def values(weights: Floats) -> Floats:
        sorted_weights = weights[order]
        hits = _add_ties(np.where(positive, sorted_weights, 0), starts)
        misses = _add_ties(np.where(positive, 0, sorted_weights), starts)
        before = np.cumsum(misses, axis=0)
        # Pairs in the wrong order, with half of those that are tied.
        wrong = np.einsum("ij,ij->j", hits, before - misses / 2, dtype=np.float64)
        return 1 - _ratio(wrong, hits.sum(axis=0, dtype=np.float64) * before[-1])

    return values


def _average_precision(y_true: Floats, scores: Floats) -> Weighted:
    """Mean precision over the recall that each threshold adds, as scikit-learn's."""
    order, starts = _ties(scores)
    positive = (y_true[order] == 1)[:, None]

    def values(weights: Floats) -> Floats:
        sorted_weights = weights[order]
        hits = _add_ties(np.where(positive, sorted_weights, 0), starts)
        named = np.cumsum(_add_ties(sorted_weights, starts), axis=0)
        found = np.cumsum(hits, axis=0)
        precision = found / np.maximum(named, 1e-30)  # none was named: no hits, too
        return _ratio(np.einsum("ij,ij->j", hits, precision, dtype=np.float64), found[-1])

    return values


def _macro_f1(y_true: Floats, y_pred: Floats) -> Weighted:
    """Mean F1 of the classes that are there or were predicted, as scikit-learn's."""
    predicted = y_pred.argmax(axis=1)
    classes = np.arange(y_pred.shape[1])[:, None]
    is_true = (y_true == classes).astype(float)
    is_named = (predicted == classes).astype(float)

    def values(weights: Floats) -> Floats:
        f1 = _ratio(2 * (is_true * is_named) @ weights, (is_true + is_named) @ weights)
        known = np.isfinite(f1)
        return _ratio(np.nan_to_num(f1).sum(axis=0), known.sum(axis=0).astype(float))

    return values


# --- skill -----------------------------------------------------------------------------------


def span(metric: str, y_true: Floats, classes: int = 0) -> float:
    """Return the distance of the best constant from perfection, for these rows.

    Args:
        y_true: (n,) class indices or values.
        classes: How many classes there are; 0 for a regression.
    """
    constant = np.full(len(y_true), y_true.mean() if not classes else 0.0)
    if classes:
        shares = np.bincount(y_true.astype(int), minlength=classes) / len(y_true)
        constant = np.tile(shares, (len(y_true), 1))
    best = 1.0 if metric in HIGHER_IS_BETTER else 0.0
    return abs(best - score(metric, y_true, constant))


def skill(metric: str, value: float, reference: float, span: float | None = None) -> float:
    """Return how much of the way from a reference to perfection a value has gone.

    0 is the reference, 1 is perfection, and below 0 it is worse than the reference: the skill score
    of forecast verification (Wilks, Statistical Methods in the Atmospheric Sciences, 2019, 9.1.4).

    Near perfection that share is of next to nothing: 0.9998 would be a whole step behind 0.9999.
    So the way counts as no shorter than `SKILL_FLOOR` of the `span`.

    Args:
        span: The distance of a constant from perfection, as `span` returns it. Without it, what is
            worse than a perfect reference has a skill of -1.
    """
    return float(skills(metric, np.array([value]), np.array([reference]), span)[0])


def skills(metric: str, value: Floats, reference: Floats, span: float | None = None) -> Floats:
    """Return `skill` for each of (n,) values and references: NaN where one of them is."""
    gained, way = _gained_and_way(metric, value, reference, span)
    result = np.where(gained == 0, 0.0, -1.0)
    np.divide(gained, way, out=result, where=way > 0)
    return np.where(np.isfinite(value) & np.isfinite(reference), result, UNKNOWN)


def _gained_and_way(
    metric: str, value: Floats, reference: Floats, span: float | None
) -> tuple[Floats, Floats]:
    """Return the two parts of a skill: its numerator and its denominator."""
    better = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    best = 1.0 if metric in HIGHER_IS_BETTER else 0.0
    way = np.maximum(better * (best - reference), SKILL_FLOOR * (span or 0.0))
    return better * (value - reference), way


# --- intervals -------------------------------------------------------------------------------


def bootstrap(
    of: Callable[[NDArray[np.int64]], list[float]], n: int, gate: Gate, rests_on: int | None = None
) -> list[dict[str, float | None]]:
    """Bootstrap several numbers at once; the intervals are those of `percentiles`.

    Beyond 2,000 rows it draws that many and scales to n ("m out of n"; Bickel, Götze and van Zwet,
    1997), so that its cost has a bound.

    Args:
        of: Gives the numbers for rows with these indices.
        rests_on: How many rows decide on the numbers, as `effective_rows` counts them; n if left
            out.

    Returns:
        For each number its `value` on all rows, `low` and `high`; None where it is not defined.
    """
    random, m = np.random.default_rng(0), min(n, 2_000)
    effective = n if rests_on is None else rests_on
    whole = np.array(of(np.arange(n)), dtype=float)
    drawn = np.array([of(random.integers(0, n, m)) for _ in range(gate.resamples)], dtype=float)
    return [
        percentiles(value, (column - value) * (m / n) ** 0.5, effective, gate.confidence)
        for value, column in zip(whole, drawn.T, strict=True)
    ]


def percentiles(value: float, deviations: Floats, rows: int, confidence: float) -> Interval:
    """Return the expanded percentile interval (see `expanded`) of a number.

    Args:
        deviations: (resamples,) of the number on resamples from its value; NaN if not defined.
        rows: How many rows decide on the number: `effective_rows`.
    """
    known = deviations[np.isfinite(deviations)]
    if not np.isfinite(value) or not len(known):
        return dict.fromkeys(("value", "low", "high"))
    tail = expanded((1 - confidence) / 2, rows)
    # Of B resamples the k-th is expected at k ÷ (B + 1) (Davison and Hinkley, 1997, section 5.2).
    low, high = value + np.quantile(known, [tail, 1 - tail], method="weibull")
    return {"value": float(value), "low": float(low), "high": float(high)}


def expanded(tail: float, rows: int) -> float:
    """Return the share of resamples to leave out at an end, so that few rows do as many do.

    Resamples of n rows vary less than samples by the root of (n - 1) ÷ n, and how much they vary is
    known no better than n rows tell. So a smaller share is left out: for symmetric data the ends
    are then those of Student's interval (Hesterberg, What teachers should know about the bootstrap,
    The American Statistician 69, 2015, section 3.3).

    Args:
        tail: The share of samples that shall be beyond this end: 0.025.
        rows: n; as 3 if fewer.
    """
    n = max(rows, 3)
    return float(norm.cdf(-((n / (n - 1)) ** 0.5) * student.ppf(1 - tail, n - 1)))


def effective_rows(y_true: Floats, classes: int) -> int:
    """Return how many rows decide on a metric: those outside of the most frequent class, or all.

    Args:
        y_true: (n,) class indices or values.
        classes: How many classes there are; 0 for a regression.
    """
    if not classes:
        return len(y_true)
    counts = np.bincount(y_true.astype(int), minlength=classes)
    return int(counts.sum() - counts.max())


class Sample(NamedTuple):
    """Rows that stand for more of them, so that resampling has a bound."""

    rows: Rows  # (m,) which of them
    weights: Floats  # (m,) how many rows each of them stands for
    shrink: float  # how much closer together resamples of all rows would be


def sample(y_true: Floats, rows: Rows, most: int, classes: int) -> Sample:
    """Draw at most some of the rows: as many of each class, so that rare ones are all there.

    Resamples of m rows are further apart than those of n by the root of n/m ("m out of n"; Bickel,
    Götze and van Zwet, 1997). Where classes are thinned by different factors the weakest one
    counts, so that an interval is never too narrow.

    Args:
        y_true: (n,) class indices or values of all rows.
        rows: The indices to draw from.
        classes: How many classes there are; 0 for a regression.
    """
    random = np.random.default_rng(1)
    if len(rows) <= most:
        return Sample(rows, np.ones(len(rows)), 1.0)
    if not classes:
        chosen = np.sort(random.choice(rows, most, replace=False))
        return Sample(chosen, np.full(most, len(rows) / most), (most / len(rows)) ** 0.5)
    labels = y_true[rows]
    parts = [rows[labels == label] for label in range(classes)]
    parts = [part for part in parts if len(part)]
    chosen_parts = [random.permutation(part)[: max(most // len(parts), 1)] for part in parts]
    weights = [
        np.full(len(few), len(part) / len(few))
        for few, part in zip(chosen_parts, parts, strict=True)
    ]
    kept = max(len(few) / len(part) for few, part in zip(chosen_parts, parts, strict=True))
    return Sample(np.concatenate(chosen_parts), np.concatenate(weights), kept**0.5)


def sample_groups(groups: Rows, rows: Rows, most: int) -> Sample:
    """Draw whole groups, until there are about so many of the rows.

    Args:
        groups: (n,) the group of each of all rows, numbered from 0.
        rows: The indices to draw from.
    """
    if len(rows) <= most:
        return Sample(rows, np.ones(len(rows)), 1.0)
    present = np.random.default_rng(1).permutation(np.unique(groups[rows]))
    count = max(round(len(present) * most / len(rows)), min(len(present), FEWEST_GROUPS))
    chosen = rows[np.isin(groups[rows], present[:count])]
    share = count / len(present)
    return Sample(chosen, np.full(len(chosen), 1 / share), share**0.5)


class Resampled(NamedTuple):
    """A number on all rows and on resamples of them."""

    value: float
    deviations: Floats  # (resamples,) from the value, as far apart as resamples of all rows are
    rows: int  # how many decide on it: see `effective_rows`
    beyond: Floats | None = None  # deviations, if errors may be larger than any that was seen

    def interval(self, confidence: float) -> Interval:
        """Return the expanded percentile interval; see `percentiles`."""
        found = percentiles(self.value, self.deviations, self.rows, confidence)
        if self.beyond is not None and found["high"] is not None:
            farther = self.value + float(np.quantile(self.beyond, (1 + confidence) / 2))
            found["high"] = max(found["high"], farther)
        return found


# Metrics that are means of errors to some power, of which a few may weigh as much as all others.
POWERS = {"rmse": 2, "mae": 1}
# The share of the largest errors that the tail is fitted to, and its heaviest shape.
TAIL = 0.1
HEAVIEST = 0.9
LEAST_FOR_TAIL = 40  # rows
TAIL_RESAMPLES = 200


def means_beyond(errors: Floats, power: int) -> Floats:
    """Resample a mean of errors as if larger ones than were seen could come.

    Where errors are skewed, most samples lack the few that make up much of the mean, and no
    resample has what its sample lacks: percentile intervals end too low. So the largest tenth of
    the errors of each resample is replaced by the mean of a generalized Pareto distribution that is
    fitted to it (Zhang and Stephens, A new and efficient estimation method for the generalized
    Pareto distribution, 2009). For errors that are normal this changes next to nothing.

    Args:
        errors: (n,) absolute errors, at least `LEAST_FOR_TAIL` of them.
        power: 2 for a root mean square, 1 for a mean.

    Returns:
        The metric of each of `TAIL_RESAMPLES` resamples.
    """
    largest = float(errors.max())
    if largest == 0:
        return np.zeros(TAIL_RESAMPLES)
    random = np.random.default_rng(2)
    n = len(errors)
    k = int(TAIL * n)
    losses = (errors / largest) ** power
    drawn = np.sort(losses[random.integers(0, n, (TAIL_RESAMPLES, n))], axis=1)
    edge = drawn[:, -k - 1]
    # Of errors that are all equal there is no tail; a speck of one keeps the logarithms finite.
    above = np.maximum(drawn[:, -k:] - edge[:, None], 1e-12)
    shape, scale = _pareto(above)
    shape = np.minimum(shape, HEAVIEST)
    means = (drawn[:, :-k].sum(axis=1) + k * (edge + scale / (1 - shape))) / n
    return np.asarray(largest * means ** (1 / power))


def _pareto(values: Floats) -> tuple[Floats, Floats]:
    """Fit generalized Pareto distributions to rows of (m, k) sorted values: shapes and scales."""
    k = values.shape[1]
    points = 20 + int(k**0.5)
    quartile = values[:, int(k / 4 + 0.5) - 1]
    steps = 1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))
    # Candidates of -shape ÷ scale, weighted by their profile likelihood.
    theta = 1 / values[:, -1:] + steps / (3 * quartile[:, None])
    shapes = np.log1p(-theta[:, :, None] * values[:, None, :]).mean(axis=2)
    likelihood = k * (np.log(-theta / shapes) - shapes - 1)
    weights = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    best = (weights * theta).sum(axis=1) / weights.sum(axis=1)
    shape = np.log1p(-best[:, None] * values).mean(axis=1)
    return shape, -shape / best


class Resampler:
    """Draws rows again and again, the same ones for every number and every slice (paired).

    How often a row is drawn is a Poisson number with mean 1, independent of all other rows, which
    for metrics that are ratios is the bootstrap (Hanley and MacGibbon, 2006). So numbers of parts
    that overlap vary together, as they do in new data.

    Rows of one group are drawn together: alike, they are evidence of one group, however many they
    are (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    3.8).
    """

    def __init__(
        self,
        y_true: Floats,
        metric: str,
        classes: int,
        gate: Gate,
        groups: NDArray[Any] | None = None,
    ) -> None:
        """Take the rows, the metric of skills, and the number of classes.

        Args:
            y_true: (n,) class indices or values.
            groups: (n,) whose each row is, where the split keeps rows of one together.
        """
        self.y_true = y_true
        self.metric = metric
        self.classes = classes
        self.draws = max(gate.resamples, RESAMPLES)
        self.span = span(metric, y_true, classes)
        self.groups = None if groups is None else np.unique(groups, return_inverse=True)[1]
        self.whole = self._sample(np.arange(len(y_true)), HOLDOUT_ROWS)
        # A place is a row's, or its group's.
        self._counts = np.zeros((0, self.draws), dtype=np.uint8)
        self._places = np.full(len(y_true), -1)
        self._random = np.random.default_rng(0)

    def counts(self, rows: Rows) -> NDArray[np.uint8]:
        """Return how often each of these rows is drawn, (rows, resamples): always the same."""
        units = rows if self.groups is None else self.groups[rows]
        new = units[self._places[units] < 0]
        if self.groups is not None:
            new = np.unique(new)
        if len(new):
            self._places[new] = len(self._counts) + np.arange(len(new))
            drawn = self._random.poisson(1.0, (len(new), self.draws)).astype(np.uint8)
            self._counts = np.concatenate([self._counts, drawn])
        counts: NDArray[np.uint8] = self._counts[self._places[units]]
        return counts

    def _sample(self, rows: Rows | None, most: int) -> Sample:
        if rows is None:
            return self.whole
        if self.groups is not None:
            return sample_groups(self.groups, rows, most)
        return sample(self.y_true, rows, most, self.classes)

    def score(self, metric: str, y_pred: Floats, rows: Rows | None = None) -> Resampled:
        """Resample a metric, on all rows or on some."""
        part = self._sample(rows, SLICE_ROWS)
        of_part = weighted(metric, self.y_true[part.rows], y_pred[part.rows])
        values = of_part(self._weights(part))
        exact = score(metric, *self._rows(y_pred, rows))
        centre = of_part(part.weights[:, None])[0]
        beyond = None
        if metric in POWERS and len(part.rows) >= LEAST_FOR_TAIL:
            errors = np.abs(self.y_true[part.rows] - y_pred[part.rows])
            beyond = (means_beyond(errors, POWERS[metric]) - centre) * part.shrink
        deviations = (values - centre) * part.shrink
        return Resampled(exact, deviations, self._effective(rows), beyond)

    def skill(
        self,
        y_pred: Floats,
        reference: Floats,
        rows: Rows | None = None,
        bound: float | None = None,
    ) -> Resampled:
        """Resample the skill over a reference, on all rows or on some.

        Args:
            bound: A skill to compare with. Deviations are then of "gained − bound · way", over
                the way (Fieller, 1954). A skill is a ratio: where a few rows decide on how far
                the reference is from perfection, its wildest resamples would hide a slice in
                ruins.
        """
        part = self._sample(rows, SLICE_ROWS)
        ours = self._both(y_pred, part)
        theirs = self._both(reference, part)
        value = skill(
            self.metric,
            score(self.metric, *self._rows(y_pred, rows)),
            score(self.metric, *self._rows(reference, rows)),
            self.span,
        )
        if bound is None:
            values = skills(self.metric, ours, theirs, self.span)
            deviations = values[1:] - values[0]
            return Resampled(value, deviations * part.shrink, self._effective(rows))
        gained, way = _gained_and_way(self.metric, ours, theirs, self.span)
        moved = gained - gained[0] - bound * (way - way[0])
        deviations = _ratio(moved[1:], np.broadcast_to(way[0], moved[1:].shape))
        return Resampled(value, deviations * part.shrink, self._effective(rows))

    def _effective(self, rows: Rows | None) -> int:
        y_true = self.y_true if rows is None else self.y_true[rows]
        decisive = effective_rows(y_true, self.classes)
        if self.groups is None:
            return decisive
        groups = self.groups if rows is None else self.groups[rows]
        return min(decisive, len(np.unique(groups)))

    def _both(self, y_pred: Floats, part: Sample) -> Floats:
        """Return the metric of the rows as they are, and of each resample of them."""
        of_part = weighted(self.metric, self.y_true[part.rows], y_pred[part.rows])
        centre = of_part(part.weights[:, None])
        return np.concatenate([centre, of_part(self._weights(part))])

    def _weights(self, part: Sample) -> Floats:
        weights: Floats = np.multiply(
            self.counts(part.rows), part.weights[:, None], dtype=np.float32
        )
        return weights

    def _rows(self, y_pred: Floats, rows: Rows | None) -> tuple[Floats, Floats]:
        return (self.y_true, y_pred) if rows is None else (self.y_true[rows], y_pred[rows])


def enough(y_true: Floats, classes: int) -> bool:
    """Check whether rows can be judged by themselves: ten of each of two classes, or any numbers.

    Of more than two classes, ten rows must be of other classes than the most frequent one.
    """
    if not classes:
        return bool(np.ptp(y_true) > 0)
    return effective_rows(y_true, classes) >= MIN_CLASS_ROWS


def rarest(y_true: Floats, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the class with the fewest rows, and how many it has; None of a regression."""
    if not classes:
        return None
    counts = np.bincount(y_true.astype(int), minlength=len(classes))
    return {"class": classes[int(counts.argmin())], "rows": int(counts.min())}


def simultaneous(
    resampler: Resampler,
    y_pred: Floats,
    reference: Floats,
    parts: Sequence[Rows],
    confidence: float,
    bound: float = 0.0,
) -> list[Interval]:
    """Return the skill over a reference in each of several slices, with ends that hold for all.

    The more slices are looked at, the lower is the lowest by chance alone. So all are resampled
    together, and each end is as many standard errors away as the most extreme slice of a resample
    is in `confidence` of them (max-statistic; Westfall and Young, 1993, Resampling-Based Multiple
    Testing, chapter 2). Slices that overlap, as those of two columns do, cost less than by
    Bonferroni.

    Args:
        y_pred: (n, classes) probabilities or (n,) values.
        reference: The same of what it is compared with.
        parts: The indices of each slice's rows.
        confidence: That no slice is outside of its interval.
        bound: The skill that the ends will be compared with; see `Resampler.skill`.

    Returns:
        An interval a slice; `low` and `high` are None where it cannot be judged: see `enough`.
    """
    found = [resampler.skill(y_pred, reference, rows, bound) for rows in parts]
    judged = [enough(resampler.y_true[rows], resampler.classes) for rows in parts]
    # A resample without one of the classes says nothing of a slice: no deviation.
    deviations = [np.nan_to_num(resampled.deviations) for resampled in found]
    errors = [float(drawn.std()) for drawn in deviations]
    away = [
        np.abs(drawn) / error
        for drawn, error, ok in zip(deviations, errors, judged, strict=True)
        if ok and error > 0
    ]
    farthest = float(np.quantile(np.max(away, axis=0), confidence)) if away else 0.0
    intervals: list[Interval] = []
    for resampled, error, ok in zip(found, errors, judged, strict=True):
        value = resampled.value if np.isfinite(resampled.value) else None
        if value is None or not ok:
            intervals.append({"value": value, "low": None, "high": None})
        else:
            width = farthest * error
            intervals.append({"value": value, "low": value - width, "high": value + width})
    return intervals


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
