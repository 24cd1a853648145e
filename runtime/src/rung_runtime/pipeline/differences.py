"""Differences: how the values of some rows differ from those of others, and whether by chance.

Used when a package is made, to see how windows of the training rows differ among themselves, and by
monitoring, to compare windows of predictions with the training rows.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, kolmogorov
from scipy.stats import ncx2, norm

from .profiles import ColumnProfile

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

MIN_CATEGORY_ROWS = 10  # of a category of the reference, for its share to mean something
MIN_EXPECTED_ROWS = 5  # of a category in a chi-square test (Cochran, 1954)
PERCENTILES = np.arange(101)
TENTHS = np.arange(10, 100, 10)  # of the percentiles


class Sizes(NamedTuple):
    """How far values differ from those of a reference."""

    known: int  # values that were compared
    p: float  # of a test that both are of one distribution
    psi: float
    distance: float | None = None  # Kolmogorov-Smirnov, of numbers
    cohens_w: float | None = None  # of categories, without what chance adds
    total_variation: float | None = None  # of categories
    weight: float = 0.0  # n * m / (n + m), of n values of the reference and m others
    chi_square: float = 0.0  # of categories
    freedom: int = 0

    def __str__(self) -> str:
        sizes = [f"PSI {self.psi:.2f}"]
        if self.distance is not None:
            sizes.append(f"distance {self.distance:.2f}")
        if self.cohens_w is not None:
            sizes.append(f"Cohen's w {self.cohens_w:.2f}")
        return ", ".join(sizes)


class Usual(NamedTuple):
    """How far windows of the training rows were from all training rows, at most."""

    psi: float = 0.0
    distance: float = 0.0
    cohens_w: float = 0.0
    gap_change: float = 0.0

    def at_least(self, change: "Change") -> Self:
        """Return what is usual if this change is, too."""
        return type(self)(
            psi=max(self.psi, change.sizes.psi),
            distance=max(self.distance, change.sizes.distance or 0.0),
            cohens_w=max(self.cohens_w, change.sizes.cohens_w or 0.0),
            gap_change=max(self.gap_change, abs(change.gap_change)),
        )


class Change(NamedTuple):
    """How a column of a window differs from a reference."""

    sizes: Sizes
    rows: int
    gaps: float  # share, with categories that are not in the reference
    gap_change: float
    new: float  # share of categories that are not in the reference
    p_gaps: float

    def p_values(self, usual: Usual) -> float:
        """Return the p-value of a test that values differ by no more than is usual."""
        sizes = self.sizes
        if sizes.distance is not None and usual.distance:
            excess = max(0.0, sizes.distance - usual.distance)
            return float(kolmogorov(excess * sizes.weight**0.5))
        if sizes.cohens_w is not None and usual.cohens_w and sizes.freedom:
            noncentrality = sizes.weight * usual.cohens_w**2
            return float(ncx2.sf(sizes.chi_square, sizes.freedom, noncentrality))
        return sizes.p

    def p_of_gaps(self, usual: Usual) -> float:
        """Return the p-value of a test that gaps differ by no more than is usual."""
        if not usual.gap_change:
            return self.p_gaps
        variance = max(self.gaps * (1 - self.gaps), 1 / (self.rows + 1)) / max(1, self.rows)
        excess = max(0.0, abs(self.gap_change) - usual.gap_change)
        return float(2 * norm.sf(excess / variance**0.5))


class Values(NamedTuple):
    """A column's values, as they are compared: numbers, or which category each is."""

    gaps: NDArray[np.bool_]
    numbers: Floats  # 0 where there is a gap, and for all categories
    categories: NDArray[np.int64]  # index into `names`, 0 where there is a gap
    names: list[str]
    is_time: bool

    @classmethod
    def from_series(cls, values: pl.Series, *, categories: bool) -> Self:
        """Take (m,) numbers, booleans, datetimes or texts, gaps as null.

        Args:
            values: Of a text that is not a category, the length is compared.
            categories: Whether each value is a category.
        """
        gaps = values.is_null().to_numpy()
        is_time = values.dtype == pl.Datetime
        if categories:
            text = values.cast(pl.String)
            names = text.drop_nulls().unique().to_list()
            index = text.replace_strict(
                names, range(len(names)), default=0, return_dtype=pl.Int64
            ).to_numpy()
            return cls(gaps, np.zeros(len(values)), index, names, is_time)
        if values.dtype == pl.String:
            values = values.str.len_chars()
        elif is_time:
            values = values.dt.epoch("s")
        numbers = values.cast(pl.Float64).fill_null(0.0)
        return cls(gaps, numbers.to_numpy(), np.zeros(len(values), np.int64), [], is_time)

    def window(self, begin: int, end: int) -> Self:
        """Return the values from one index up to another."""
        return self._replace(
            gaps=self.gaps[begin:end],
            numbers=self.numbers[begin:end],
            categories=self.categories[begin:end],
        )


class Percentiles:
    """References of numbers of which only percentiles 0 to 100 are known, one or several.

    The distribution function of a reference is then only known to lie between bounds. The distance
    of other values from it is the smallest that these allow: never more than that of the values
    themselves, whatever their ties, and at most a hundredth less.
    """

    def __init__(self, places: NDArray[np.int64], n: NDArray[np.int64]) -> None:
        """Prepare the bounds.

        Args:
            places: (r, 101) the place of each percentile among all values that percentiles have.
            n: (r,) how many numbers each reference has.
        """
        size = np.maximum(n, 1)[:, np.newaxis]
        ranks = np.round(PERCENTILES / 100 * (size - 1))
        is_other = np.diff(places, axis=1) != 0  # than the percentile before
        first = np.where(np.pad(is_other, ((0, 0), (1, 0))), PERCENTILES, 0)
        first = np.maximum.accumulate(first, axis=1)  # of the percentiles equal to each
        last = np.where(np.pad(is_other, ((0, 0), (0, 1))), PERCENTILES, len(PERCENTILES) - 1)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        # Bounds of the shares of the reference that are at most, and that are below, each.
        padded = np.concatenate([np.full_like(size, -1), ranks, size], axis=1)
        before_first = np.take_along_axis(padded, first, axis=1)
        after_last = np.take_along_axis(padded, last + 2, axis=1)
        self._at_most = (np.take_along_axis(ranks, last, axis=1) + 1) / size, after_last / size
        self._below = (before_first + 1) / size, np.take_along_axis(ranks, first, axis=1) / size
        # Ranges between tenths; there is none between tenths that are equal.
        is_range = np.diff(places[:, TENTHS], axis=1) != 0
        self._is_range = np.pad(is_range, ((0, 0), (1, 1)), constant_values=True)
        at_most_lower_bound, _ = self._at_most
        self._by_tenth = _between(at_most_lower_bound[:, TENTHS]) * size
        self._is_empty = n == 0

    def sizes(self, below: Floats, at_most: Floats, m: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return how far other numbers are from the references: PSI and distance, each (w,).

        Args:
            below: (w, 101) the share of the m numbers below each percentile, of as many windows as
                there are references, or of any number of them if there is one.
            at_most: (w, 101) the share of those that are at most as large.
            m: (w,) how many numbers each window has; if none, nothing differs.
        """
        outside_bounds = [
            np.maximum(low - share, share - high)
            for share, (low, high) in ((at_most, self._at_most), (below, self._below))
        ]
        distance = np.max(outside_bounds, axis=(0, 2)).clip(0.0)
        by_tenth = _between(at_most[:, TENTHS]) * m[:, np.newaxis]
        psi = _population_stability(self._by_tenth, by_tenth, self._is_range)
        is_compared = (m > 0) & ~self._is_empty
        return np.where(is_compared, psi, 0.0), np.where(is_compared, distance, 0.0)


def _between(shares: Floats) -> Floats:
    """Return the shares of the ranges between values, from (w, k) shares at most as large."""
    return np.diff(shares, axis=1, prepend=0, append=1)


class Reference:
    """A column of a profile, made ready for windows to be compared with it.

    Values become codes once, so that a window costs no more than to count its codes. For a number,
    the code says between which edges it is, or on which; for a category, which one it is.
    """

    def __init__(self, column: ColumnProfile, rows: int, *, of_times: bool) -> None:
        """Prepare a column.

        Args:
            column: `gaps`, and `percentiles` or `counts`, as `profile.json` has them.
            rows: How many rows the reference has, with gaps.
            of_times: Whether datetimes will be compared.
        """
        self._column = column
        self._rows = rows
        self._expected_gaps, self._gap_weight = _expected_gaps(column, rows)
        self._n = rows - round(rows * column["gaps"])
        self._has_categories = "counts" in column
        if self._has_categories:
            self._codes = len(column["counts"]) + 1  # and those that are not in the reference
        else:
            self._prepare_edges(np.array(column["percentiles"], dtype=np.float64), of_times)

    def _prepare_edges(self, edges: Floats, of_times: bool) -> None:
        # In single precision, as a caller may send FP32 tensors: 0.1 is then 0.10000000149, on the
        # other side of an edge at 0.1.
        rounded = _to_single_precision(edges)
        self._is_coarse = not of_times and len(np.unique(rounded)) == len(np.unique(edges))
        if self._is_coarse:
            edges = rounded
        self._edges, places = np.unique(edges, return_inverse=True)
        self._codes = 2 * len(self._edges) + 1
        self._places = places
        if len(edges):
            self._percentiles = Percentiles(places[np.newaxis], np.array([self._n]))

    def codes(self, values: Values) -> Codes:
        """Return a code for each value, (m,)."""
        gap = self._codes
        if self._has_categories:
            code_of = {name: code for code, name in enumerate(self._column["counts"])}
            unknown = len(code_of)
            codes = np.array([code_of.get(name, unknown) for name in values.names] or [gap])
            return np.where(values.gaps, gap, codes[values.categories])
        numbers = _to_single_precision(values.numbers) if self._is_coarse else values.numbers
        return codes_between(self._edges, numbers, values.gaps)

    def change(self, codes: Codes) -> Change:
        """Return how a window differs from the reference.

        Args:
            codes: (m,) of its values.
        """
        counts = np.bincount(codes, minlength=self._codes + 1)[: self._codes]
        rows = len(codes)
        new = 0.0
        if self._has_categories:
            *known, unknown = counts.tolist()
            sizes = self._compare_categories(known, unknown)
            new = unknown / max(1, rows)
        else:
            sizes = self._compare_numbers(counts)
        gaps = 1 - sizes.known / rows if rows else self._expected_gaps
        reference_gaps = round(self._gap_weight * self._expected_gaps)
        reference_counts = [self._gap_weight - reference_gaps, reference_gaps]
        return Change(
            sizes=sizes,
            rows=rows,
            gaps=gaps,
            gap_change=gaps - self._expected_gaps,
            new=new,
            p_gaps=_homogeneity(reference_counts, [sizes.known, rows - sizes.known]),
        )

    def _compare_categories(self, known: list[int], unknown: int) -> Sizes:
        column = self._column
        gaps = column["gaps"]
        outside = max(0.0, gaps - column.get("missing", gaps)) * self._rows
        lost = max(0.0, self._expected_gaps - gaps) * self._rows
        return _compare_categories(known, unknown, column["counts"], lost, outside)

    def largest_change(self, codes: Codes, windows: Sequence[tuple[int, int]]) -> Usual:
        """Return the largest change of any window against the reference.

        Args:
            codes: (n,) of all values.
            windows: The index of the first value of each, and of the value after its last.
        """
        if self._has_categories:
            largest = Usual()
            for begin, end in windows:
                largest = largest.at_least(self.change(codes[begin:end]))
            return largest
        counts = np.array(
            [np.bincount(codes[begin:end], minlength=self._codes + 1) for begin, end in windows]
        )
        rows = counts.sum(axis=1)
        known, psi, distance = self._number_sizes(counts[:, : self._codes])
        gap_changes = 1 - known / np.maximum(rows, 1) - self._expected_gaps
        return Usual(
            psi=max(0.0, float(psi.max())),
            distance=float(distance.max()),
            gap_change=float(np.abs(gap_changes).max()),
        )

    def _compare_numbers(self, counts: NDArray[np.int64]) -> Sizes:
        """Compare numbers with the percentiles of a reference.

        The p-value is the asymptotic one of two samples (Smirnov, 1948), which ties make larger,
        not smaller.

        Args:
            counts: (2 * edges + 1,) of each code.
        """
        known, psi, distance = self._number_sizes(counts[np.newaxis])
        m = int(known[0])
        n = self._n
        if not m or not n:
            return Sizes(known=m, p=1.0, psi=0.0, distance=0.0)
        weight = n * m / (n + m)
        return Sizes(
            known=m,
            p=float(kolmogorov(float(distance[0]) * weight**0.5)),
            psi=float(psi[0]),
            distance=float(distance[0]),
            weight=weight,
        )

    def _number_sizes(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Return how far windows of numbers are from the percentiles of the reference.

        Args:
            counts: (w, 2 * edges + 1) of each code.

        Returns:
            For each window the number of its values, PSI and distance, each (w,).
        """
        known = counts.sum(axis=1)
        if not self._n:
            return known, np.zeros(len(known)), np.zeros(len(known))
        shares = np.cumsum(counts, axis=1) / np.maximum(known, 1)[:, np.newaxis]
        below = shares[:, 2 * self._places]
        at_most = shares[:, 2 * self._places + 1]
        psi, distance = self._percentiles.sizes(below, at_most, known)
        return known, psi, distance


def codes_between(edges: Floats, numbers: Floats, gaps: NDArray[np.bool_]) -> Codes:
    """Return for each number between which edges it is, or on which; gaps have the last code.

    Args:
        edges: (k,) sorted, all different.
        numbers: (m,) anything where there is a gap.
        gaps: (m,) where there is none.

    Returns:
        (m,) twice the edges below it, and one more on an edge; 2 k + 1 for a gap.
    """
    below = np.searchsorted(edges, numbers, "left")
    at_most = np.searchsorted(edges, numbers, "right")
    return np.where(gaps, 2 * len(edges) + 1, below + at_most)


def compare(values: pl.Series, column: ColumnProfile, rows: int) -> Change:
    """Compare a column of a window with what a profile says about the same column.

    Args:
        values: (m,) numbers, booleans, datetimes or texts, gaps as null.
        column: `gaps`, and `percentiles` or `counts`, as `profile.json` has them.
        rows: How many rows the reference has, with gaps.
    """
    prepared = Values.from_series(values, categories="counts" in column)
    reference = Reference(column, rows, of_times=prepared.is_time)
    return reference.change(reference.codes(prepared))


def _expected_gaps(column: ColumnProfile, rows: int) -> tuple[float, int]:
    """Return the share of gaps to expect, and the number of rows that this is worth.

    Values that are not in the reference as categories count as gaps. Where a package does not say
    how many to expect (`unlisted`, from 0.3 on), it is as many as the categories that were seen
    once: I. J. Good, Biometrika 40, 1953.
    """
    if "unlisted" in column:
        return min(1.0, column["missing"] + column["unlisted"]), column["unlisted_rows"]
    seen_once = sum(count == 1 for count in column.get("counts", {}).values())
    return round(rows * column["gaps"] + seen_once) / max(1, rows), rows


def _to_single_precision(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _compare_categories(
    known: list[int], unknown: int, reference: dict[str, int], lost: float, outside: float
) -> Sizes:
    """Compare categories with the counts of a reference; those it does not have are left out.

    Categories of which fewer than five are to be expected (Cochran, 1954), or of which the
    reference has few, are merged in the order of their names, up to a tenth of them in a group.

    Args:
        known: How many values are each category of the reference.
        unknown: How many values are none of them.
        reference: Rows of each category of the reference, by name.
        lost: Of the rows that were counted, those in whose place others will come that are not in
            the reference; they are of rare categories. If most of these are lost, rare categories
            and those that are not in the reference count as one.
        outside: Rows of the reference with categories that it does not list.
    """
    window = dict(zip(reference, known, strict=True))
    m = sum(window.values())
    n = sum(reference.values())
    if not m or not n:
        return Sizes(known=m, p=1.0, psi=0.0, cohens_w=0.0, total_variation=0.0)
    min_rows = max(MIN_EXPECTED_ROWS * n / m, MIN_CATEGORY_ROWS)
    before: list[float] = []
    now: list[int] = []
    rare: list[str] = []
    for name, count in reference.items():
        if count < min_rows:
            rare.append(name)
        else:
            before.append(count)
            now.append(window[name])
    rare_rows = sum(reference[name] for name in rare)
    kept_share = max(0.0, 1 - lost / rare_rows) if rare_rows else 1.0
    if kept_share < 0.5:
        before.append(rare_rows + outside)
        now.append(sum(window[name] for name in rare) + unknown)
        rare = []
    min_group_rows = max(min_rows, kept_share * rare_rows / 10)
    group_before = 0.0
    group_now = 0
    for name in sorted(rare):
        group_before += reference[name] * kept_share
        group_now += window[name]
        if group_before >= min_group_rows:
            before.append(group_before)
            now.append(group_now)
            group_before = 0.0
            group_now = 0
    before.append(group_before)
    now.append(group_now)
    rows_before = sum(before)
    rows_now = sum(now)
    test = _chi_square(before, now, yates=False)
    weight = rows_before * rows_now / (rows_before + rows_now)
    excess = max(0.0, test.statistic - test.freedom) / weight
    moved = np.abs(np.array(before) / rows_before - np.array(now) / rows_now).sum() / 2
    return Sizes(
        known=m,
        p=test.p,
        psi=float(_population_stability(before, now)),
        cohens_w=float(excess**0.5),
        total_variation=float(moved),
        weight=weight,
        chi_square=test.statistic,
        freedom=test.freedom,
    )


def _population_stability(
    before: ArrayLike, now: ArrayLike, is_counted: NDArray[np.bool_] | None = None
) -> Floats:
    """Return the population stability index of counts, half a one added to each.

    N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; it is Jeffreys' divergence.

    Args:
        before: (..., k) of the reference.
        now: (..., k) of what is compared with it.
        is_counted: (..., k) whether each is there to be compared; all by default.
    """
    p = np.asarray(before, dtype=np.float64) + 0.5
    q = np.asarray(now, dtype=np.float64) + 0.5
    counted = np.ones(p.shape, dtype=bool) if is_counted is None else is_counted
    p = p / p.sum(axis=-1, keepdims=True, where=counted)
    q = q / q.sum(axis=-1, keepdims=True, where=counted)
    stability: Floats = ((q - p) * np.log(q / p)).sum(axis=-1, where=counted)
    return stability


class _ChiSquare(NamedTuple):
    p: float
    statistic: float
    freedom: int


def _homogeneity(before: ArrayLike, now: ArrayLike) -> float:
    """Return the p-value of the chi-square test that two rows of counts are of one distribution."""
    return _chi_square(before, now).p


def _chi_square(before: ArrayLike, now: ArrayLike, *, yates: bool = True) -> _ChiSquare:
    """Test two rows of counts; the p-value is 1 where nothing can be tested.

    As `scipy.stats.chi2_contingency`, which takes ten times as long.
    """
    table = np.array([before, now], dtype=np.float64)
    table = table[:, table.any(axis=0)]
    freedom = table.shape[1] - 1
    if freedom < 1 or not table.any(axis=1).all():
        return _ChiSquare(1.0, 0.0, 0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    off = np.abs(table - expected)
    if yates and freedom == 1:
        off = off - np.minimum(0.5, off)
    statistic = float((off**2 / expected).sum())
    return _ChiSquare(float(chdtrc(freedom, statistic)), statistic, freedom)
