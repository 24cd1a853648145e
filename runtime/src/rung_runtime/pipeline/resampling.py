"""Resampling of holdouts and their slices: how far metrics and skills vary by chance."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import Gate
from ..records import Ends
from .intervals import can_be_judged, effective_rows, percentile_interval
from .metrics import Floats, Rows, gain_and_way, ratio, score, skill, skills, span, weighted

# What bounds the cost: rows of a holdout and of a slice at most, and draws at least.
MAX_HOLDOUT_ROWS = 4_000
MAX_SLICE_ROWS = 1_000
MIN_GROUPS = 100  # unless there are fewer
MIN_RESAMPLES = 400

# Metrics that are means of errors to some power, of which a few may weigh as much as all others.
ERROR_POWERS = {"rmse": 2, "mae": 1}
# The share of the largest errors that the tail is fitted to, and its heaviest shape.
TAIL_SHARE = 0.1
HEAVIEST_SHAPE = 0.9
MIN_TAIL_ROWS = 40
TAIL_RESAMPLES = 200


class Sample(NamedTuple):
    """Rows that stand for more of them, so that the cost of resampling has a bound."""

    rows: Rows  # (m,) their indices
    weights: Floats  # (m,) how many rows each of them stands for
    shrink: float  # how much closer together resamples of all rows would be


def sample(y_true: Floats, rows: Rows, max_rows: int, classes: int) -> Sample:
    """Draw at most `max_rows` of the rows: equally many of each class, so that rare ones remain.

    Resamples of m rows are further apart than those of n by the root of n/m ("m out of n"; Bickel,
    Götze and van Zwet, 1997). Where classes are thinned by different factors the weakest one
    counts, so that an interval is never too narrow.

    Args:
        y_true: (n,) class indices or values of all rows.
        rows: The indices to draw from.
        max_rows: How many to draw at most.
        classes: The number of classes; 0 for a regression.
    """
    random = np.random.default_rng(1)
    if len(rows) <= max_rows:
        return Sample(rows, np.ones(len(rows)), 1.0)
    if not classes:
        drawn = np.sort(random.choice(rows, max_rows, replace=False))
        weights = np.full(max_rows, len(rows) / max_rows)
        return Sample(drawn, weights, (max_rows / len(rows)) ** 0.5)
    labels = y_true[rows]
    by_class = [rows[labels == label] for label in range(classes)]
    by_class = [members for members in by_class if len(members)]
    rows_per_class = max(max_rows // len(by_class), 1)
    drawn_by_class = [random.permutation(members)[:rows_per_class] for members in by_class]
    weights_by_class = []
    shares = []
    for drawn, members in zip(drawn_by_class, by_class, strict=True):
        weights_by_class.append(np.full(len(drawn), len(members) / len(drawn)))
        shares.append(len(drawn) / len(members))
    return Sample(
        np.concatenate(drawn_by_class), np.concatenate(weights_by_class), max(shares) ** 0.5
    )


def sample_groups(groups: Rows, rows: Rows, max_rows: int) -> Sample:
    """Draw whole groups, until they have about `max_rows` of the rows.

    Args:
        groups: (n,) the group of each of all rows, numbered from 0.
        rows: The indices to draw from.
        max_rows: About how many to draw.
    """
    if len(rows) <= max_rows:
        return Sample(rows, np.ones(len(rows)), 1.0)
    present = np.random.default_rng(1).permutation(np.unique(groups[rows]))
    count = max(round(len(present) * max_rows / len(rows)), min(len(present), MIN_GROUPS))
    drawn = rows[np.isin(groups[rows], present[:count])]
    share = count / len(present)
    return Sample(drawn, np.full(len(drawn), 1 / share), share**0.5)


class Resampled(NamedTuple):
    """A number on all rows and on resamples of them."""

    value: float
    deviations: Floats  # (resamples,) from the value, as far apart as resamples of all rows are
    rows: int  # how many decide on it: see `effective_rows`
    # (resamples,) from the value, as if errors larger than any in the rows could come.
    tail_deviations: Floats | None = None

    def interval(self, confidence: float) -> Ends:
        """Return the expanded percentile interval; see `percentile_interval`."""
        interval = percentile_interval(self.value, self.deviations, self.rows, confidence)
        high = interval["high"]
        if self.tail_deviations is not None and high is not None:
            tail_high = self.value + float(np.quantile(self.tail_deviations, (1 + confidence) / 2))
            interval["high"] = max(high, tail_high)
        return interval


def tail_corrected_means(errors: Floats, power: int) -> Floats:
    """Resample a mean of errors as if larger ones than the rows have could come.

    Where errors are skewed, most samples lack the few that make up much of the mean, and no
    resample has what its sample lacks: percentile intervals end too low. So the largest tenth of
    the errors of each resample is replaced by the mean of a generalized Pareto distribution that is
    fitted to it (Zhang and Stephens, A new and efficient estimation method for the generalized
    Pareto distribution, 2009). For errors that are normal this changes next to nothing.

    Args:
        errors: (n,) absolute errors, at least `MIN_TAIL_ROWS` of them.
        power: 2 for a root mean square, 1 for a mean.

    Returns:
        The metric of each of `TAIL_RESAMPLES` resamples.
    """
    largest = float(errors.max())
    if largest == 0:
        return np.zeros(TAIL_RESAMPLES)
    random = np.random.default_rng(2)
    n = len(errors)
    k = int(TAIL_SHARE * n)
    losses = (errors / largest) ** power
    drawn = np.sort(losses[random.integers(0, n, (TAIL_RESAMPLES, n))], axis=1)
    edge = drawn[:, -k - 1]
    # Errors that are all equal have no tail; a tiny one keeps the logarithms finite.
    excess = np.maximum(drawn[:, -k:] - edge[:, None], 1e-12)
    shape, scale = _fit_pareto(excess)
    shape = np.minimum(shape, HEAVIEST_SHAPE)
    means = (drawn[:, :-k].sum(axis=1) + k * (edge + scale / (1 - shape))) / n
    return np.asarray(largest * means ** (1 / power))


def _fit_pareto(values: Floats) -> tuple[Floats, Floats]:
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
        """Store the rows, the metric of skills, and the number of classes.

        Args:
            y_true: (n,) class indices or values.
            metric: The metric of skills.
            classes: The number of classes; 0 for a regression.
            gate: Its `resamples` apply, if there are enough of them.
            groups: (n,) the group of each row, where the split keeps groups together.
        """
        self.y_true = y_true
        self.metric = metric
        self.classes = classes
        self.draws = max(gate.resamples, MIN_RESAMPLES)
        self.span = span(metric, y_true, classes)
        self.groups = None if groups is None else np.unique(groups, return_inverse=True)[1]
        self.whole = self._sample(np.arange(len(y_true)), MAX_HOLDOUT_ROWS)
        # A unit is a row or a group; what was drawn for it is stored at its position.
        self._counts = np.zeros((0, self.draws), dtype=np.uint8)
        self._drawn = 0  # units
        self._positions = np.full(len(y_true), -1)
        self._random = np.random.default_rng(0)
        # Of the last rows that were asked for: a slice's metric and skill come one after the other.
        self._last_part: Sample | None = None
        self._last_weights: Floats = np.zeros((0, self.draws), dtype=np.float32)
        # Of predictions for these rows, by metric: a skill needs the metric, too.
        self._last_values: list[tuple[str, Floats, Floats]] = []

    def counts(self, rows: Rows) -> NDArray[np.uint8]:
        """Return how often each of these rows is drawn, (rows, resamples): always the same."""
        units = rows if self.groups is None else self.groups[rows]
        new = units[self._positions[units] < 0]
        if self.groups is not None:
            new = np.unique(new)
        if len(new):
            end = self._drawn + len(new)
            if end > len(self._counts):  # twice as much, so that slices do not copy it each time
                space = np.zeros((max(end, 2 * len(self._counts)), self.draws), dtype=np.uint8)
                space[: self._drawn] = self._counts[: self._drawn]
                self._counts = space
            self._positions[new] = np.arange(self._drawn, end)
            self._counts[self._drawn : end] = self._random.poisson(1.0, (len(new), self.draws))
            self._drawn = end
        counts: NDArray[np.uint8] = self._counts[self._positions[units]]
        return counts

    def draw(self, parts: Sequence[Rows | None]) -> None:
        """Draw what `score` and `skill` will need of some parts of the rows; None: of all of them.

        In which order parts come decides on what is drawn, here as there.
        """
        for rows in parts:
            self.counts(self._sample(rows, MAX_SLICE_ROWS).rows)

    def score(self, metric: str, y_pred: Floats, rows: Rows | None = None) -> Resampled:
        """Resample a metric, on all rows or on some."""
        part = self._sample(rows, MAX_SLICE_ROWS)
        values = self._centre_and_resamples(metric, y_pred, part)
        centre = values[0]
        exact = score(metric, *self._select(y_pred, rows))
        tail_deviations = None
        if metric in ERROR_POWERS and len(part.rows) >= MIN_TAIL_ROWS:
            errors = np.abs(self.y_true[part.rows] - y_pred[part.rows])
            means = tail_corrected_means(errors, ERROR_POWERS[metric])
            tail_deviations = (means - centre) * part.shrink
        deviations = (values[1:] - centre) * part.shrink
        return Resampled(exact, deviations, self._effective_rows(rows), tail_deviations)

    def skill(
        self,
        y_pred: Floats,
        reference: Floats,
        rows: Rows | None = None,
        bound: float | None = None,
    ) -> Resampled:
        """Resample the skill over a reference, on all rows or on some.

        Args:
            y_pred: (n, classes) probabilities or (n,) values.
            reference: The predictions of what it is compared with, of the same shape.
            rows: The indices of some rows; all by default.
            bound: A skill to compare with. Deviations are then those of "gain − bound · way",
                divided by the way (Fieller, 1954). A skill is a ratio: where a few rows decide on
                how far the reference is from perfection, its wildest resamples would hide a slice
                in ruins.
        """
        part = self._sample(rows, MAX_SLICE_ROWS)
        values = self._centre_and_resamples(self.metric, y_pred, part)
        references = self._centre_and_resamples(self.metric, reference, part)
        exact = skill(
            self.metric,
            score(self.metric, *self._select(y_pred, rows)),
            score(self.metric, *self._select(reference, rows)),
            self.span,
        )
        if bound is None:
            resampled = skills(self.metric, values, references, self.span)
            deviations = resampled[1:] - resampled[0]
            return Resampled(exact, deviations * part.shrink, self._effective_rows(rows))
        gain, way = gain_and_way(self.metric, values, references, self.span)
        moved = gain - gain[0] - bound * (way - way[0])
        deviations = ratio(moved[1:], np.broadcast_to(way[0], moved[1:].shape))
        return Resampled(exact, deviations * part.shrink, self._effective_rows(rows))

    def _sample(self, rows: Rows | None, max_rows: int) -> Sample:
        if rows is None:
            return self.whole
        if self.groups is not None:
            return sample_groups(self.groups, rows, max_rows)
        return sample(self.y_true, rows, max_rows, self.classes)

    def _effective_rows(self, rows: Rows | None) -> int:
        y_true = self.y_true if rows is None else self.y_true[rows]
        decisive = effective_rows(y_true, self.classes)
        if self.groups is None:
            return decisive
        groups = self.groups if rows is None else self.groups[rows]
        return min(decisive, len(np.unique(groups)))

    def _centre_and_resamples(self, metric: str, y_pred: Floats, part: Sample) -> Floats:
        """Return a metric of the rows as they are, then that of each resample of them."""
        weights = self._weights(part)
        for known_metric, known_pred, values in self._last_values:
            if known_metric == metric and known_pred is y_pred:
                return values
        part_metric = weighted(metric, self.y_true[part.rows], y_pred[part.rows])
        values = np.concatenate([part_metric(part.weights[:, None]), part_metric(weights)])
        self._last_values.append((metric, y_pred, values))
        return values

    def _weights(self, part: Sample) -> Floats:
        last = self._last_part
        if last is None or not np.array_equal(last.rows, part.rows):
            self._last_part = part
            self._last_values = []
            self._last_weights = np.multiply(
                self.counts(part.rows), part.weights[:, None], dtype=np.float32
            )
        return self._last_weights

    def _select(self, y_pred: Floats, rows: Rows | None) -> tuple[Floats, Floats]:
        if rows is None:
            return self.y_true, y_pred
        return self.y_true[rows], y_pred[rows]


def simultaneous_intervals(
    resampler: Resampler,
    y_pred: Floats,
    reference: Floats,
    slices: Sequence[Rows],
    confidence: float,
    bound: float = 0.0,
) -> list[Ends]:
    """Return the skill over a reference in each of several slices, with ends that hold for all.

    The more slices are looked at, the lower is the lowest by chance alone. So all are resampled
    together, and each end is as many standard errors away as the most extreme slice of a resample
    is in `confidence` of them (max-statistic; Westfall and Young, 1993, Resampling-Based Multiple
    Testing, chapter 2). Slices that overlap, as those of two columns do, cost less than with
    Bonferroni's correction.

    Args:
        resampler: Draws the rows.
        y_pred: (n, classes) probabilities or (n,) values.
        reference: The predictions of what it is compared with, of the same shape.
        slices: The indices of each slice's rows.
        confidence: The probability that no slice is outside of its interval.
        bound: The skill that the ends will be compared with; see `Resampler.skill`.

    Returns:
        An interval for each slice; `low` and `high` are None where it cannot be judged: see
        `can_be_judged`.
    """
    resampled = [resampler.skill(y_pred, reference, rows, bound) for rows in slices]
    return ends_that_hold_for_all(resampler, resampled, slices, confidence)


def ends_that_hold_for_all(
    resampler: Resampler, resampled: Sequence[Resampled], slices: Sequence[Rows], confidence: float
) -> list[Ends]:
    """Return the intervals of `simultaneous_intervals` from the skills of all slices."""
    judged = [can_be_judged(resampler.y_true[rows], resampler.classes) for rows in slices]
    # A resample without one of the classes says nothing about a slice: no deviation.
    deviations = [np.nan_to_num(slice_skill.deviations) for slice_skill in resampled]
    errors = [float(drawn.std()) for drawn in deviations]
    standardized = [
        np.abs(drawn) / error
        for drawn, error, is_judged in zip(deviations, errors, judged, strict=True)
        if is_judged and error > 0
    ]
    farthest = float(np.quantile(np.max(standardized, axis=0), confidence)) if standardized else 0.0
    intervals: list[Ends] = []
    for slice_skill, error, is_judged in zip(resampled, errors, judged, strict=True):
        value = slice_skill.value if np.isfinite(slice_skill.value) else None
        if value is None or not is_judged:
            intervals.append({"value": value, "low": None, "high": None})
        else:
            width = farthest * error
            intervals.append({"value": value, "low": value - width, "high": value + width})
    return intervals
