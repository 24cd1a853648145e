"""Seasons: how windows of the training rows differ among themselves, as the yardstick of others.

A day differs from a year, and no model is the worse for it. What is unusual is a day that is
farther from the year than any of its days was. Where the training rows cover a year, a week or more
is also compared with the same time of that year.
"""

import itertools
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .correlations import changes
from .differences import Reference, Usual, Values

CLOCK = "clock"  # marks the column that says when a row came to be
HOURS = [1, 6, 24, 72, 168, 336, 720, 2_160]  # an hour to a season
ROWS = 50  # a window with fewer is not compared
LEAST = 4  # windows of a length say what is usual
MOST = 400  # windows of a length are compared
SHIFTS = 6  # a long window begins anew after this part of it
YEAR = 330 * 24  # hours, from which on the time of the year is known
PARTS = 24  # of a year
WEEK = 168  # hours; a day is no season
POINTS = np.arange(0, 101, 2)  # percentiles that are kept of a part


def windows(times: NDArray[np.int64], hours: float) -> list[tuple[int, int]]:
    """Cut rows into windows that last so many hours and have 50 rows at least.

    Long ones, of which there are few, overlap, as those that are compared with them may begin at
    any time.

    Args:
        times: (n,) sorted, in microseconds.
        hours: Of a window.

    Returns:
        Where each begins and ends; none if there are too few, or if they last twice as long for
        want of rows.
    """
    length = hours * 3.6e9
    whole = _side_by_side(times, length, 0)
    if len(whole) < LEAST:
        return []
    if np.median([times[end - 1] - times[begin] for begin, end in whole]) > 2 * length:
        return []
    if len(whole) < MOST / SHIFTS:
        for shift in range(1, SHIFTS):
            first = int(np.searchsorted(times, times[0] + shift / SHIFTS * length))
            whole += _side_by_side(times, length, first)
    return whole


def _side_by_side(times: NDArray[np.int64], length: float, first: int) -> list[tuple[int, int]]:
    cuts = [first]
    while cuts[-1] < len(times):
        by_time = int(np.searchsorted(times, times[cuts[-1]] + length))
        cuts.append(max(by_time, cuts[-1] + ROWS))
    pairs = list(itertools.pairwise(cuts))
    return pairs[:-1]  # the last one may be cut short


def add_usual(
    columns: dict[str, dict[str, Any]], rows: pl.DataFrame, times: pl.Series, count: int
) -> None:
    """Add to each column of a profile what is `usual` of windows of these rows, by their length.

    Args:
        columns: By name, as `profile.json` has them.
        rows: (n,) of these columns.
        times: (n,) datetimes.
        count: Of rows that `columns` were taken from.
    """
    order = times.arg_sort()
    known = times.gather(order)
    ordered = rows[order].filter(known.is_not_null())
    moments = known.drop_nulls().dt.epoch("us").to_numpy()
    part = _part_of_year(known.drop_nulls())
    whole_year = (
        len(moments) >= ROWS and hours_of(known) >= YEAR and _add_parts(columns, ordered, part)
    )
    for name in columns:
        columns[name]["usual"] = []
    if len(moments) < ROWS:
        return
    whole = hours_of(known)
    values: dict[str, Values] = {}
    references: dict[str, Reference] = {}
    codes: dict[str, NDArray[np.int64]] = {}
    for name, seen in columns.items():
        values[name] = Values.of(ordered[name], categories="counts" in seen)
        references[name] = Reference(seen, count, of_times=values[name].is_time)
        codes[name] = references[name].codes(values[name])
    for hours in HOURS:
        spans = windows(moments, hours)
        if not spans:
            continue
        evenly = np.unique(np.linspace(0, len(spans) - 1, MOST).astype(int)).tolist()
        chosen = [spans[index] for index in evenly]
        for name, seen in columns.items():
            item: dict[str, Any] = {"hours": hours, "windows": len(spans)}
            largest = Usual()
            for begin, end in chosen:
                largest = largest.at_least(references[name].change(codes[name][begin:end]))
            item |= largest._asdict()
            if whole_year and hours >= WEEK:
                of_season = _usual_of_season(values[name], part, chosen, seen)
                item["same_season"] = of_season._asdict()
            seen["usual"].append(item)
        pairs = _usual_correlations(ordered, chosen, columns)
        for name, seen in columns.items():
            if "correlations" in seen:
                seen["usual"][-1]["correlations"] = pairs[name]
    for seen in columns.values():
        if seen["usual"]:
            none = Usual()._asdict()  # a window as long as all training rows is all of them
            seen["usual"].append({"hours": whole, "windows": 1} | none)


def _usual_correlations(
    rows: pl.DataFrame, spans: list[tuple[int, int]], columns: dict[str, dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return the largest change of each correlation among windows, transformed."""
    known = {name: seen["correlations"] for name, seen in columns.items() if "correlations" in seen}
    largest = {name: dict.fromkeys(others, 0.0) for name, others in known.items()}
    for begin, end in spans if known else []:
        for (name, other), pair in changes(rows[begin:end], known).items():
            largest[name][other] = max(largest[name][other], abs(pair.change))
    return largest


def _add_parts(
    columns: dict[str, dict[str, Any]], rows: pl.DataFrame, part: NDArray[np.int64]
) -> bool:
    """Add to each column what its values were in each part of the year, if each has enough rows."""
    if np.bincount(part, minlength=PARTS).min() < ROWS:
        return False
    for name, seen in columns.items():
        seen["parts"] = []
        for number in range(PARTS):
            values = rows[name].filter(pl.Series(part == number))
            known = values.drop_nulls()
            item: dict[str, Any] = {"rows": len(values), "gaps": 1 - len(known) / len(values)}
            if "counts" in seen:
                counted = known.alias("value").cast(pl.String).value_counts(sort=True)
                item["counts"] = dict(counted.iter_rows())
            else:
                item["percentiles"] = _percentiles(known)
            seen["parts"].append(item)
    return True


def _percentiles(known: pl.Series) -> list[float]:
    if not len(known):
        return []
    if known.dtype == pl.String:
        known = known.str.len_chars()
    numbers = (known.dt.epoch("s") if known.dtype == pl.Datetime else known).cast(pl.Float64)
    ranks = (POINTS / 100 * (len(numbers) - 1)).round().astype(int)
    return list(numbers.sort().to_numpy()[ranks].tolist())


def _usual_of_season(
    values: Values, part: NDArray[np.int64], spans: list[tuple[int, int]], seen: dict[str, Any]
) -> Usual:
    """Return how far windows are from the parts of the year beside theirs.

    Another year differs from this one, and only one year is known: as much as half a month does.
    """
    largest = Usual()
    for begin, end in spans:
        window = values.window(begin, end)
        for shift in (-1, 1):
            local, rows = same_season(seen, (part[begin:end] + shift) % PARTS)
            reference = Reference(local, rows, of_times=values.is_time)
            largest = largest.at_least(reference.change(reference.codes(window)))
    return largest


def same_season(seen: dict[str, Any], part: NDArray[np.int64]) -> tuple[dict[str, Any], int]:
    """Return what is known of a column at the time of the year that some rows are of.

    Args:
        seen: The column as `profile.json` has it, with `parts`.
        part: (m,) of the year, of each row.

    Returns:
        The same as `seen`, of a mixture of parts in the shares that the rows have; its rows.
    """
    counts = np.bincount(part, minlength=PARTS)
    shares = counts / counts.sum()
    used = [(float(shares[k]), seen["parts"][k]) for k in np.flatnonzero(counts)]
    rows = sum(item["rows"] for _, item in used)
    gaps = sum(share * item["gaps"] for share, item in used)
    if "counts" in seen:
        mixed: dict[str, float] = {}
        for share, item in used:
            weight = share * rows * (1 - item["gaps"]) / max(1, sum(item["counts"].values()))
            for name, count in item["counts"].items():
                mixed[name] = mixed.get(name, 0.0) + weight * count
        more = max(0.0, seen.get("missing", 0) + seen.get("unlisted", 0) - seen["gaps"])
        local = {"gaps": gaps, "missing": gaps, "unlisted": more, "unlisted_rows": rows}
        return local | {"counts": {name: round(count) for name, count in mixed.items()}}, rows
    values = np.concatenate([np.array(item["percentiles"], dtype=float) for _, item in used])
    weights = np.concatenate(
        [
            np.full(len(item["percentiles"]), share * (1 - item["gaps"]))
            for share, item in used
        ]
    )  # fmt: skip
    if not weights.sum():
        return {"gaps": 1.0, "percentiles": []}, rows
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(weights[order])
    middle = (up_to - weights[order] / 2) / up_to[-1]
    index = np.searchsorted(middle, np.arange(101) / 100).clip(0, len(values) - 1)
    return {"gaps": gaps, "percentiles": values[order][index].tolist()}, rows


def _part_of_year(times: pl.Series) -> NDArray[np.int64]:
    days = times.dt.ordinal_day().to_numpy().astype(np.int64) - 1
    return days * PARTS // 366


def parts_of(times: pl.Series) -> NDArray[np.int64]:
    """Return the part of the year of each time that is known, (m,) of 0 to 23."""
    return _part_of_year(times.drop_nulls())


def hours_of(times: pl.Series) -> float:
    """Return how long rows last, but for the first and last hundredth of them."""
    moments = times.drop_nulls().dt.epoch("us").to_numpy()
    first, last = np.quantile(moments, [0.01, 0.99])
    return float(last - first) / 3.6e9


def usual(seen: dict[str, Any], hours: float) -> tuple[Usual, Usual | None]:
    """Return what is usual of windows as long as this one, or the next shorter that are known.

    Returns:
        Against all training rows, and against the same time of the year, if that can be told.
    """
    item, part = _like(seen, hours)
    season = item.get("same_season")
    return (
        Usual(**{name: part * item.get(name, 0.0) for name in Usual._fields}),
        Usual(**season) if season else None,
    )


def usual_correlation(seen: dict[str, Any], other: str, hours: float) -> float:
    """Return the largest change that is usual of a correlation with another column, transformed."""
    item, part = _like(seen, hours)
    return part * float(item.get("correlations", {}).get(other, 0.0))


def _like(seen: dict[str, Any], hours: float) -> tuple[dict[str, Any], float]:
    """Return what is known of windows as long as this one, and how much of it holds.

    Shorter windows differ more. A window of a day has rows of 16 hours, perhaps, hence the margin.
    """
    known = seen.get("usual") or []
    if not known:
        return {}, 1.0
    *lengths, whole = known
    shorter = [item for item in lengths if item["hours"] <= 1.5 * hours]
    if not shorter:
        return {k: v for k, v in lengths[0].items() if k != "same_season"}, 1.0
    item = shorter[-1]
    if item is not lengths[-1] or hours <= item["hours"]:
        return item, 1.0
    # Less and less, until there is no other part of the training rows.
    rest = whole["hours"] - item["hours"]
    return item, max(0.0, whole["hours"] - hours) / rest if rest > 0 else 0.0
