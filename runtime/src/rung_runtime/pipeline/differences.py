"""Differences: how the values of some rows differ from those of others, and whether by chance.

Used when a package is made, to see how windows of the training rows differ among themselves, and by
monitoring, to compare windows of predictions with the training rows.
"""

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
        self._edges, first, ties = np.unique(edges, return_index=True, return_counts=True)
        self._codes = 2 * len(self._edges) + 1
        if not self._n or not len(edges):
            return
        n = self._n
        ranks = np.round(PERCENTILES / 100 * (n - 1))
        last = first + ties - 1
        # Bounds of the shares of the reference that are at most, and that are below, each edge.
        self._at_most = (ranks[last] + 1) / n, np.append(ranks[last[:-1] + 1], n) / n
        self._below = np.append(0, ranks[first[1:] - 1] + 1) / n, ranks[first] / n
        self._tenths = np.searchsorted(self._edges, np.unique(edges[10:100:10]))
        at_most_lower_bound, _ = self._at_most
        self._by_tenth = np.diff(at_most_lower_bound[self._tenths], prepend=0, append=1) * n

    def codes(self, values: Values) -> Codes:
        """Return a code for each value, (m,)."""
        gap = self._codes
        if self._has_categories:
            code_of = {name: code for code, name in enumerate(self._column["counts"])}
            unknown = len(code_of)
            codes = np.array([code_of.get(name, unknown) for name in values.names] or [gap])
            return np.where(values.gaps, gap, codes[values.categories])
        numbers = _to_single_precision(values.numbers) if self._is_coarse else values.numbers
        below = np.searchsorted(self._edges, numbers, "left")
        at_most = np.searchsorted(self._edges, numbers, "right")
        return np.where(values.gaps, gap, below + at_most)

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

    def _compare_numbers(self, counts: NDArray[np.int64]) -> Sizes:
        """Compare numbers with the percentiles of a reference.

        Of the n values of the reference only percentiles are known, so its distribution function is
        only known to lie between bounds. The distance is the smallest that these allow: never more
        than that of the values themselves, whatever their ties, and at most a hundredth less. Its
        p-value is the asymptotic one of two samples (Smirnov, 1948), which ties make larger, not
        smaller.

        Args:
            counts: (2 * edges + 1,) of each code.
        """
        m = int(counts.sum())
        n = self._n
        if not m or not n:
            return Sizes(known=m, p=1.0, psi=0.0, distance=0.0)
        shares = np.cumsum(counts) / m
        at_most = shares[1::2]
        below = shares[:-1:2]
        outside_bounds = [
            np.maximum(low - share, share - high)
            for share, (low, high) in ((at_most, self._at_most), (below, self._below))
        ]
        distance = max(0.0, float(np.max(outside_bounds)))
        by_tenth = np.diff(at_most[self._tenths], prepend=0, append=1) * m
        return Sizes(
            known=m,
            p=float(kolmogorov(distance * (n * m / (n + m)) ** 0.5)),
            psi=_population_stability(self._by_tenth, by_tenth),
            distance=distance,
            weight=n * m / (n + m),
        )


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
        psi=_population_stability(before, now),
        cohens_w=float(excess**0.5),
        total_variation=float(moved),
        weight=weight,
        chi_square=test.statistic,
        freedom=test.freedom,
    )


def _population_stability(before: ArrayLike, now: ArrayLike) -> float:
    """Return the population stability index of counts, half a one added to each.

    N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; it is Jeffreys' divergence.
    """
    p = np.asarray(before) + 0.5
    q = np.asarray(now) + 0.5
    p = p / p.sum()
    q = q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


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
