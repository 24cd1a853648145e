"""Seasons: how windows of the training rows differ among themselves, as the yardstick of others.

A day differs from a year, and no model is the worse for it. What is unusual is a day that is
farther from the year than any of its days was. Where the training rows cover a year, a week or more
is also compared with the same time of that year.
"""

import itertools
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .correlations import RankableColumns, fisher_transform
from .differences import Reference, Usual, Values
from .profiles import ColumnProfile, Columns, UsualChange, UsualOfLength
from .same_season import MIN_ROWS, MIN_YEAR_HOURS, Window, add_parts, parts_of, usual_of_season

CLOCK: Final = "clock"  # marks the column that says when a row was created
WINDOW_HOURS = [1, 6, 24, 72, 168, 336, 720, 2_160]  # an hour to a season
MIN_WINDOWS = 4  # of a length, to say what is usual
MAX_WINDOWS = 400  # of a length that are compared
SHIFTS = 6  # long windows are cut again, each time beginning this part of their length later
WEEK_HOURS = 168  # a day is not a season
MICROSECONDS_PER_HOUR = 3.6e9


class _Prepared(NamedTuple):
    """A column, made ready for many windows to be compared with all its rows."""

    values: Values
    reference: Reference
    codes: NDArray[np.int64]


def windows(times: NDArray[np.int64], hours: float) -> list[Window]:
    """Cut rows into windows that last so many hours and have 50 rows at least.

    Long ones, of which there are few, overlap, as those that are compared with them may begin at
    any time.

    Args:
        times: (n,) sorted, in microseconds.
        hours: How long a window lasts.

    Returns:
        Where each begins and ends; none if there are too few, or if they last twice as long for
        want of rows.
    """
    length = hours * MICROSECONDS_PER_HOUR
    # As `searchsorted` would make them for each window, since the length is no whole number.
    times = times.astype(np.float64)
    side_by_side = _cut(times, length, 0)
    if len(side_by_side) < MIN_WINDOWS:
        return []
    if np.median([times[end - 1] - times[begin] for begin, end in side_by_side]) > 2 * length:
        return []
    all_windows = side_by_side
    if len(side_by_side) < MAX_WINDOWS / SHIFTS:
        for shift in range(1, SHIFTS):
            first = int(np.searchsorted(times, times[0] + shift / SHIFTS * length))
            all_windows += _cut(times, length, first)
    return all_windows


def _cut(times: NDArray[np.int64], length: float, first: int) -> list[Window]:
    """Cut rows, from the first one on, into windows side by side."""
    cuts = [first]
    while cuts[-1] < len(times):
        end_by_time = int(np.searchsorted(times, times[cuts[-1]] + length))
        cuts.append(max(end_by_time, cuts[-1] + MIN_ROWS))
    pairs = list(itertools.pairwise(cuts))
    return pairs[:-1]  # the last one may be cut short


def add_usual(
    columns: Columns,
    rows: pl.DataFrame,
    times: pl.Series,
    count: int,
    ranked: RankableColumns | None = None,
) -> None:
    """Add to each column of a profile what is `usual` of windows of these rows, by their length.

    Args:
        columns: By name, as `profile.json` has them.
        rows: (n,) rows with these columns.
        times: (n,) datetimes.
        count: How many rows `columns` were taken from.
        ranked: Of these rows the columns that have `correlations`, from `add_correlations`.
    """
    order = times.arg_sort()
    order = order.filter(times.gather(order).is_not_null())
    sorted_rows = rows[order]
    known_times = times.gather(order)
    microseconds = known_times.dt.epoch("us").to_numpy()
    if len(microseconds) < MIN_ROWS:
        for column in columns.values():
            column["usual"] = []
        return
    part_of_year = parts_of(known_times)
    total_hours = hours_of(known_times)
    covers_a_year = total_hours >= MIN_YEAR_HOURS and add_parts(columns, sorted_rows, part_of_year)
    for column in columns.values():
        column["usual"] = []
    prepared = {
        name: _prepare(sorted_rows[name], column, count) for name, column in columns.items()
    }
    correlations = _Correlations(columns, ranked and ranked.reordered(order.to_numpy()))
    for hours in WINDOW_HOURS:
        all_windows = windows(microseconds, hours)
        if not all_windows:
            continue
        evenly = np.unique(np.linspace(0, len(all_windows) - 1, MAX_WINDOWS).astype(int)).tolist()
        compared = [all_windows[index] for index in evenly]
        for name, column in columns.items():
            made_ready = prepared[name]
            usual_change = made_ready.reference.largest_change(made_ready.codes, compared)
            item = _usual_of_length(hours, len(all_windows), usual_change)
            if covers_a_year and hours >= WEEK_HOURS:
                season = usual_of_season(made_ready.values, part_of_year, compared, column)
                item["same_season"] = _usual_change(season)
            column["usual"].append(item)
        pairs = correlations.usual(compared)
        for name, column in columns.items():
            if "correlations" in column:
                column["usual"][-1]["correlations"] = pairs[name]
    for column in columns.values():
        if column["usual"]:
            # A window as long as all training rows is all of them, and does not differ.
            column["usual"].append(_usual_of_length(total_hours, 1, Usual()))


def _prepare(values: pl.Series, column: ColumnProfile, count: int) -> _Prepared:
    prepared = Values.from_series(values, categories="counts" in column)
    reference = Reference(column, count, of_times=prepared.is_time)
    return _Prepared(prepared, reference, reference.codes(prepared))


def _usual_of_length(hours: float, count: int, usual: Usual) -> UsualOfLength:
    return {
        "hours": hours,
        "windows": count,
        "psi": usual.psi,
        "distance": usual.distance,
        "cohens_w": usual.cohens_w,
        "gap_change": usual.gap_change,
    }


def _usual_change(usual: Usual) -> UsualChange:
    return {
        "psi": usual.psi,
        "distance": usual.distance,
        "cohens_w": usual.cohens_w,
        "gap_change": usual.gap_change,
    }


class _Correlations:
    """The correlations of all rows, made ready for those of many windows."""

    def __init__(self, columns: Columns, ranked: RankableColumns | None) -> None:
        self._reference = {
            name: column["correlations"]
            for name, column in columns.items()
            if "correlations" in column
        }
        self._names = list(self._reference)
        self._ranked = ranked

    def usual(self, compared: list[Window]) -> dict[str, dict[str, float]]:
        """Return the largest change of each correlation among windows, transformed."""
        usual = {name: dict.fromkeys(others, 0.0) for name, others in self._reference.items()}
        if self._ranked is None:
            return usual
        before = fisher_transform(self._matrix())
        largest = np.zeros_like(before)
        for begin, end in compared:
            matrix, _ = self._ranked.correlations(begin, end)
            # Where a window has no correlation, it is NaN, and the other number is taken.
            largest = np.fmax(largest, np.abs(fisher_transform(matrix) - before))
        place = {name: index for index, name in enumerate(self._names)}
        for first, others in usual.items():
            for second in others:
                others[second] = float(largest[place[first], place[second]])
        return usual

    def _matrix(self) -> NDArray[np.float64]:
        """Return the correlations of all rows, (k, k), NaN where none is kept."""
        return np.array(
            [
                [self._reference[first].get(second, np.nan) for second in self._names]
                for first in self._names
            ]
        )


def hours_of(times: pl.Series) -> float:
    """Return how many hours rows last, without the first and last hundredth of them."""
    microseconds = times.drop_nulls().dt.epoch("us").to_numpy()
    first, last = np.quantile(microseconds, [0.01, 0.99])
    return float(last - first) / MICROSECONDS_PER_HOUR


def usual(column: ColumnProfile, hours: float) -> tuple[Usual, Usual | None]:
    """Return what is usual of windows as long as this one, or the next shorter that are known.

    Args:
        column: As `profile.json` has it.
        hours: How long the window lasts.

    Returns:
        Against all training rows, and against the same time of the year, if that is known.
    """
    item, share = _like(column, hours)
    if item is None:
        return Usual(), None
    among_training = Usual(
        psi=share * item.get("psi", 0.0),
        distance=share * item.get("distance", 0.0),
        cohens_w=share * item.get("cohens_w", 0.0),
        gap_change=share * item.get("gap_change", 0.0),
    )
    season = item.get("same_season")
    return among_training, Usual(**season) if season else None


def usual_correlation(column: ColumnProfile, other: str, hours: float) -> float:
    """Return the largest usual change of a correlation with another column, transformed."""
    item, share = _like(column, hours)
    if item is None:
        return 0.0
    return share * float(item.get("correlations", {}).get(other, 0.0))


def _like(column: ColumnProfile, hours: float) -> tuple[UsualOfLength | None, float]:
    """Return what is known of windows as long as this one, and which share of it holds.

    Shorter windows differ more. A window of a day has rows of 16 hours, perhaps, hence the margin.
    """
    known = column.get("usual") or []
    if not known:
        return None, 1.0
    *lengths, whole = known
    shorter = [item for item in lengths if item["hours"] <= 1.5 * hours]
    if not shorter:
        shortest = lengths[0].copy()
        shortest.pop("same_season", None)
        return shortest, 1.0
    item = shorter[-1]
    if item is not lengths[-1] or hours <= item["hours"]:
        return item, 1.0
    # Less and less, until there is no other part of the training rows.
    remaining = whole["hours"] - item["hours"]
    if remaining <= 0:
        return item, 0.0
    return item, max(0.0, whole["hours"] - hours) / remaining
