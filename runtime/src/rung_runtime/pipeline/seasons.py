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

from .correlations import correlation_changes
from .differences import Reference, Usual, Values
from .profiles import ColumnProfile, Columns, PartProfile, UsualChange, UsualOfLength

CLOCK: Final = "clock"  # marks the column that says when a row was created
WINDOW_HOURS = [1, 6, 24, 72, 168, 336, 720, 2_160]  # an hour to a season
MIN_ROWS = 50  # a window with fewer is not compared
MIN_WINDOWS = 4  # of a length, to say what is usual
MAX_WINDOWS = 400  # of a length that are compared
SHIFTS = 6  # long windows are cut again, each time beginning this part of their length later
MIN_YEAR_HOURS = 330 * 24  # from which on the time of the year is known
PARTS = 24  # of a year
WEEK_HOURS = 168  # a day is not a season
PART_PERCENTILES = np.arange(0, 101, 2)  # that are kept of a part
MICROSECONDS_PER_HOUR = 3.6e9

Window = tuple[int, int]  # the index of its first row, and of the row after its last


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


def add_usual(columns: Columns, rows: pl.DataFrame, times: pl.Series, count: int) -> None:
    """Add to each column of a profile what is `usual` of windows of these rows, by their length.

    Args:
        columns: By name, as `profile.json` has them.
        rows: (n,) rows with these columns.
        times: (n,) datetimes.
        count: How many rows `columns` were taken from.
    """
    order = times.arg_sort()
    sorted_times = times.gather(order)
    sorted_rows = rows[order].filter(sorted_times.is_not_null())
    known_times = sorted_times.drop_nulls()
    microseconds = known_times.dt.epoch("us").to_numpy()
    if len(microseconds) < MIN_ROWS:
        for column in columns.values():
            column["usual"] = []
        return
    part_of_year = _part_of_year(known_times)
    total_hours = hours_of(known_times)
    covers_a_year = total_hours >= MIN_YEAR_HOURS and _add_parts(columns, sorted_rows, part_of_year)
    for column in columns.values():
        column["usual"] = []
    prepared = {
        name: _prepare(sorted_rows[name], column, count) for name, column in columns.items()
    }
    for hours in WINDOW_HOURS:
        all_windows = windows(microseconds, hours)
        if not all_windows:
            continue
        evenly = np.unique(np.linspace(0, len(all_windows) - 1, MAX_WINDOWS).astype(int)).tolist()
        compared = [all_windows[index] for index in evenly]
        for name, column in columns.items():
            item = _usual_of_length(
                hours, len(all_windows), _usual_of_windows(prepared[name], compared)
            )
            if covers_a_year and hours >= WEEK_HOURS:
                values = prepared[name].values
                season = _usual_of_season(values, part_of_year, compared, column)
                item["same_season"] = _usual_change(season)
            column["usual"].append(item)
        pairs = _usual_correlations(sorted_rows, compared, columns)
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


def _usual_of_windows(column: _Prepared, compared: list[Window]) -> Usual:
    """Return the largest change of any window against all rows."""
    largest = Usual()
    for begin, end in compared:
        largest = largest.at_least(column.reference.change(column.codes[begin:end]))
    return largest


def _usual_correlations(
    rows: pl.DataFrame, compared: list[Window], columns: Columns
) -> dict[str, dict[str, float]]:
    """Return the largest change of each correlation among windows, transformed."""
    reference = {
        name: column["correlations"] for name, column in columns.items() if "correlations" in column
    }
    largest = {name: dict.fromkeys(others, 0.0) for name, others in reference.items()}
    if not reference:
        return largest
    for begin, end in compared:
        for (first, second), pair in correlation_changes(rows[begin:end], reference).items():
            largest[first][second] = max(largest[first][second], abs(pair.change))
    return largest


def _add_parts(columns: Columns, rows: pl.DataFrame, part_of_year: NDArray[np.int64]) -> bool:
    """Add to each column what its values were in each part of the year.

    Returns:
        Whether each part has enough rows; else nothing is added.
    """
    if np.bincount(part_of_year, minlength=PARTS).min() < MIN_ROWS:
        return False
    for name, column in columns.items():
        column["parts"] = []
        for part in range(PARTS):
            values = rows[name].filter(pl.Series(part_of_year == part))
            known = values.drop_nulls()
            item: PartProfile = {"rows": len(values), "gaps": 1 - len(known) / len(values)}
            if "counts" in column:
                counts = known.alias("value").cast(pl.String).value_counts(sort=True)
                item["counts"] = dict(counts.iter_rows())
            else:
                item["percentiles"] = _percentiles(known)
            column["parts"].append(item)
    return True


def _percentiles(known: pl.Series) -> list[float]:
    """Return every second percentile: of a text's length, of a datetime's seconds since 1970."""
    if not len(known):
        return []
    if known.dtype == pl.String:
        known = known.str.len_chars()
    elif known.dtype == pl.Datetime:
        known = known.dt.epoch("s")
    numbers = known.cast(pl.Float64)
    ranks = (PART_PERCENTILES / 100 * (len(numbers) - 1)).round().astype(int)
    return list(numbers.sort().to_numpy()[ranks].tolist())


def _usual_of_season(
    values: Values,
    part_of_year: NDArray[np.int64],
    compared: list[Window],
    column: ColumnProfile,
) -> Usual:
    """Return how far windows are from the parts of the year beside theirs.

    Another year differs from this one, and only one year is known: as much as half a month does.
    """
    largest = Usual()
    for begin, end in compared:
        window = values.window(begin, end)
        for shift in (-1, 1):
            local, rows = same_season(column, (part_of_year[begin:end] + shift) % PARTS)
            reference = Reference(local, rows, of_times=values.is_time)
            largest = largest.at_least(reference.change(reference.codes(window)))
    return largest


def same_season(
    column: ColumnProfile, part_of_year: NDArray[np.int64]
) -> tuple[ColumnProfile, int]:
    """Return what is known of a column at the time of the year of some rows.

    Args:
        column: As `profile.json` has it, with `parts`.
        part_of_year: (m,) of each row.

    Returns:
        A column as `profile.json` has it, mixed from its parts in the shares that the rows have;
        and the number of its rows.
    """
    counts = np.bincount(part_of_year, minlength=PARTS)
    shares = counts / counts.sum()
    parts = [(float(shares[part]), column["parts"][part]) for part in np.flatnonzero(counts)]
    rows = sum(item["rows"] for _, item in parts)
    gaps = sum(share * item["gaps"] for share, item in parts)
    if "counts" in column:
        unlisted = column.get("missing", 0) + column.get("unlisted", 0) - column["gaps"]
        local: ColumnProfile = {
            "gaps": gaps,
            "missing": gaps,
            "unlisted": max(0.0, unlisted),
            "unlisted_rows": rows,
            "counts": _mix_counts(parts, rows),
        }
        return local, rows
    values = np.concatenate([np.array(item["percentiles"], dtype=float) for _, item in parts])
    weights = np.concatenate(
        [np.full(len(item["percentiles"]), share * (1 - item["gaps"])) for share, item in parts]
    )
    if not weights.sum():
        return {"gaps": 1.0, "percentiles": []}, rows
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    middle = (cumulative - weights[order] / 2) / cumulative[-1]
    index = np.searchsorted(middle, np.arange(101) / 100).clip(0, len(values) - 1)
    return {"gaps": gaps, "percentiles": values[order][index].tolist()}, rows


def _mix_counts(parts: list[tuple[float, PartProfile]], rows: int) -> dict[str, int]:
    mixed: dict[str, float] = {}
    for share, item in parts:
        weight = share * rows * (1 - item["gaps"]) / max(1, sum(item["counts"].values()))
        for name, count in item["counts"].items():
            mixed[name] = mixed.get(name, 0.0) + weight * count
    return {name: round(count) for name, count in mixed.items()}


def _part_of_year(times: pl.Series) -> NDArray[np.int64]:
    days = times.dt.ordinal_day().to_numpy().astype(np.int64) - 1
    return days * PARTS // 366


def parts_of(times: pl.Series) -> NDArray[np.int64]:
    """Return the part of the year of each time that is not null, (m,) of 0 to 23."""
    return _part_of_year(times.drop_nulls())


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
