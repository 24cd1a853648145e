"""Differences: how the values of some rows differ from those of others, and whether by chance.

Used when a package is made, to see how windows of the training rows differ among themselves, and by
monitoring, to compare windows of predictions with the training rows.
"""

from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, kolmogorov
from scipy.stats import ncx2, norm

FEWEST = 10  # rows of a category, of which a reference has a share that means something


class Sizes(NamedTuple):
    """How known values differ from those of a reference."""

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
    """How far windows of the training rows were from all of these, at most."""

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
    gaps: float  # share, with categories that are not known
    gap_change: float
    new: float  # share of categories that are not known
    p_gaps: float

    def p_values(self, usual: Usual) -> float:
        """Return the p-value of a test that values differ by no more than is usual."""
        sizes = self.sizes
        if sizes.distance is not None and usual.distance:
            beyond = max(0.0, sizes.distance - usual.distance)
            return float(kolmogorov(beyond * sizes.weight**0.5))
        if sizes.cohens_w is not None and usual.cohens_w and sizes.freedom:
            noncentral = sizes.weight * usual.cohens_w**2
            return float(ncx2.sf(sizes.chi_square, sizes.freedom, noncentral))
        return sizes.p

    def p_of_gaps(self, usual: Usual) -> float:
        """Return the p-value of a test that gaps differ by no more than is usual."""
        if not usual.gap_change:
            return self.p_gaps
        error = (max(self.gaps * (1 - self.gaps), 1 / (self.rows + 1)) / max(1, self.rows)) ** 0.5
        return float(2 * norm.sf(max(0.0, abs(self.gap_change) - usual.gap_change) / error))


class Values(NamedTuple):
    """A column's values, as they are compared: numbers, or which category each is."""

    gaps: NDArray[np.bool_]
    numbers: NDArray[np.float64]  # 0 where there is a gap; all of them are, of categories
    places: NDArray[np.int64]  # in `names`, 0 where there is a gap
    names: list[str]
    is_time: bool

    @classmethod
    def of(cls, values: pl.Series, *, categories: bool) -> Self:
        """Take numbers, booleans, datetimes or texts, (m,), gaps as null."""
        gaps = values.is_null().to_numpy()
        is_time = values.dtype == pl.Datetime
        if categories:
            text = values.cast(pl.String)
            names = text.drop_nulls().unique().to_list()
            places = text.replace_strict(
                names, range(len(names)), default=0, return_dtype=pl.Int64
            ).to_numpy()
            return cls(gaps, np.zeros(len(values)), places, names, is_time)
        if values.dtype == pl.String:  # a text, of which the profile knows the length
            values = values.str.len_chars()
        numbers = (values.dt.epoch("s") if is_time else values).cast(pl.Float64).fill_null(0.0)
        return cls(gaps, numbers.to_numpy(), np.zeros(len(values), np.int64), [], is_time)

    def window(self, begin: int, end: int) -> Self:
        """Return some of them."""
        return self._replace(
            gaps=self.gaps[begin:end],
            numbers=self.numbers[begin:end],
            places=self.places[begin:end],
        )


class Reference:
    """A column of a profile, made ready for windows to be compared with it.

    Values become codes once, so that a window costs no more than to count its codes. Of numbers, a
    code says between which edges a value is, or on which; of categories, which one it is.

    Args:
        seen: `gaps`, and `percentiles` or `counts`, as `profile.json` has them.
        rows: Of the reference, with gaps.
        of_times: Whether datetimes will be compared.
    """

    def __init__(self, seen: dict[str, Any], rows: int, *, of_times: bool) -> None:
        self._seen = seen
        self._rows = rows
        self._before, self._weight = _expected_gaps(seen, rows)
        self._n = rows - round(rows * seen["gaps"])
        if "counts" in seen:
            self._size = len(seen["counts"]) + 1  # and those that are not known
            return
        edges = np.array(seen["percentiles"], dtype=np.float64)
        # In single precision, as a caller may send FP32 tensors: 0.1 is then 0.10000000149, on the
        # other side of an edge at 0.1.
        rounded = _to_single_precision(edges)
        self._coarse = not of_times and len(np.unique(rounded)) == len(np.unique(edges))
        if self._coarse:
            edges = rounded
        self._edges, first, ties = np.unique(edges, return_index=True, return_counts=True)
        self._size = 2 * len(self._edges) + 1
        if not self._n or not len(edges):
            return
        n = self._n
        ranks = np.round(np.arange(101) / 100 * (n - 1))
        last = first + ties - 1
        # Shares of the reference that are at most, and that are below, each edge.
        self._at_most = (ranks[last] + 1) / n, np.append(ranks[last[:-1] + 1], n) / n
        self._below = np.append(0, ranks[first[1:] - 1] + 1) / n, ranks[first] / n
        self._tenths = np.searchsorted(self._edges, np.unique(edges[10:100:10]))
        self._by_tenth = np.diff(self._at_most[0][self._tenths], prepend=0, append=1) * n

    def codes(self, values: Values) -> NDArray[np.int64]:
        """Return a code for each value, (m,)."""
        gap = self._size
        if "counts" in self._seen:
            place = {name: number for number, name in enumerate(self._seen["counts"])}
            codes = np.array([place.get(name, len(place)) for name in values.names] or [gap])
            return np.where(values.gaps, gap, codes[values.places])
        numbers = _to_single_precision(values.numbers) if self._coarse else values.numbers
        below = np.searchsorted(self._edges, numbers, "left")
        at_most = np.searchsorted(self._edges, numbers, "right")
        return np.where(values.gaps, gap, below + at_most)

    def change(self, codes: NDArray[np.int64]) -> Change:
        """Return how a window differs from the reference.

        Args:
            codes: (m,) of its values.
        """
        counted = np.bincount(codes, minlength=self._size + 1)[: self._size].tolist()
        rows = len(codes)
        new = 0.0
        if "counts" in self._seen:
            seen, rows_before = self._seen, self._rows
            outside = max(0.0, seen["gaps"] - seen.get("missing", seen["gaps"])) * rows_before
            lost = max(0.0, self._before - seen["gaps"]) * rows_before
            *of_known, unknown = counted
            sizes = _categories(of_known, unknown, seen["counts"], lost, outside)
            new = unknown / max(1, rows)
        else:
            sizes = self._numbers(np.array(counted, dtype=np.int64))
        gaps = 1 - sizes.known / rows if rows else self._before
        lacked = round(self._weight * self._before)
        return Change(
            sizes=sizes,
            rows=rows,
            gaps=gaps,
            gap_change=gaps - self._before,
            new=new,
            p_gaps=_homogeneity([self._weight - lacked, lacked], [sizes.known, rows - sizes.known]),
        )

    def _numbers(self, counts: NDArray[np.int64]) -> Sizes:
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
        now_at_most = shares[1::2]
        now_below = shares[:-1:2]
        pairs = [(now_at_most, self._at_most), (now_below, self._below)]
        away = [np.maximum(low - now, now - high) for now, (low, high) in pairs]
        distance = max(0.0, float(np.max(away)))
        by_tenth = np.diff(now_at_most[self._tenths], prepend=0, append=1) * m
        return Sizes(
            known=m,
            p=float(kolmogorov(distance * (n * m / (n + m)) ** 0.5)),
            psi=_stability(self._by_tenth, by_tenth),
            distance=distance,
            weight=n * m / (n + m),
        )


def compare(values: pl.Series, seen: dict[str, Any], rows: int) -> Change:
    """Compare a column of a window with what a profile says of the same column.

    Args:
        values: (m,) numbers, booleans, datetimes or texts, gaps as null.
        seen: `gaps`, and `percentiles` or `counts`, as `profile.json` has them.
        rows: Of the reference, with gaps.
    """
    taken = Values.of(values, categories="counts" in seen)
    reference = Reference(seen, rows, of_times=taken.is_time)
    return reference.change(reference.codes(taken))


def _expected_gaps(seen: dict[str, Any], rows: int) -> tuple[float, int]:
    """Return the share of gaps to expect, and the number of rows that it is worth.

    Values that are not known as categories are among them. Where a package does not say how many to
    expect (`unlisted`, from 0.3 on), there are as many as the categories that were seen once: I. J.
    Good, Biometrika 40, 1953.
    """
    if "unlisted" in seen:
        return min(1.0, seen["missing"] + seen["unlisted"]), seen["unlisted_rows"]
    once = sum(count == 1 for count in seen.get("counts", {}).values())
    return round(rows * seen["gaps"] + once) / max(1, rows), rows


def _to_single_precision(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def _categories(
    now_known: list[int], unknown: int, counts: dict[str, int], lost: float, outside: float
) -> Sizes:
    """Compare categories with the counts of a reference; those it does not have are left out.

    Categories of which fewer than five are to be expected (Cochran, 1954), or that the reference
    has seldom, are taken together in the order of their names, up to a tenth of them in a group.

    Args:
        now_known: How many values are each category of the reference.
        unknown: How many values are none of them.
        counts: Rows of each category of the reference, by name.
        lost: Of the rows that were counted, those in whose place others will come that are not
            known; they are of rare categories. If most of these are lost, rare categories and
            those that are not known count as one.
        outside: Rows of the reference with categories that are not known.
    """
    seen = dict(zip(counts, now_known, strict=True))
    m = sum(seen.values())
    n = sum(counts.values())
    if not m or not n:
        return Sizes(known=m, p=1.0, psi=0.0, cohens_w=0.0, total_variation=0.0)
    before: list[float] = []
    now: list[int] = []
    fewest = max(5 * n / m, FEWEST)
    rare = [name for name, count in counts.items() if count < fewest]
    for name, count in counts.items():
        if count >= fewest:
            before.append(count)
            now.append(seen[name])
    total = sum(counts[name] for name in rare)
    kept = max(0.0, 1 - lost / total) if total else 1.0
    if kept < 0.5:
        before.append(total + outside)
        now.append(sum(seen[name] for name in rare) + unknown)
        rare = []
    enough = max(fewest, kept * total / 10)
    group_before, group_now = 0.0, 0
    for name in sorted(rare):
        group_before += counts[name] * kept
        group_now += seen[name]
        if group_before >= enough:
            before.append(group_before)
            now.append(group_now)
            group_before, group_now = 0.0, 0
    before.append(group_before)
    now.append(group_now)
    reference_rows, rows = sum(before), sum(now)
    p, chi_square, freedom = _chi_square(before, now, yates=False)
    weight = reference_rows * rows / (reference_rows + rows)
    excess = max(0.0, chi_square - freedom) / weight
    moved = np.abs(np.array(before) / reference_rows - np.array(now) / rows).sum() / 2
    return Sizes(
        known=m,
        p=p,
        psi=_stability(before, now),
        cohens_w=float(excess**0.5),
        total_variation=float(moved),
        weight=weight,
        chi_square=chi_square,
        freedom=freedom,
    )


def _stability(before: ArrayLike, now: ArrayLike) -> float:
    """Return the population stability index of counts, half a one added to each.

    N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; it is Jeffreys' divergence.
    """
    p, q = (np.asarray(counts) + 0.5 for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _homogeneity(before: ArrayLike, now: ArrayLike) -> float:
    """Return the p-value of the chi-square test that two rows of counts are of one distribution."""
    return _chi_square(before, now)[0]


def _chi_square(
    before: ArrayLike, now: ArrayLike, *, yates: bool = True
) -> tuple[float, float, int]:
    """Return p-value, statistic and degrees of freedom; 1, 0 and 0 where nothing can be tested.

    As `scipy.stats.chi2_contingency`, which takes ten times as long.
    """
    table = np.array([before, now], dtype=np.float64)
    table = table[:, table.any(axis=0)]
    freedom = table.shape[1] - 1
    if freedom < 1 or not table.any(axis=1).all():
        return 1.0, 0.0, 0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    off = np.abs(table - expected)
    if yates and freedom == 1:
        off = off - np.minimum(0.5, off)
    statistic = float((off**2 / expected).sum())
    return float(chdtrc(freedom, statistic)), statistic, freedom
