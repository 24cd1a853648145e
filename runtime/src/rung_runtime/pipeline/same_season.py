"""The same time of the year: what a column looked like then, in the one year that is known."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .differences import Percentiles, Reference, Usual, Values, codes_between
from .profiles import ColumnProfile, Columns, PartProfile

MIN_YEAR_HOURS = 330 * 24  # from which on the time of the year is known
MIN_ROWS = 50  # a window, or a part of the year, with fewer is not compared
PARTS = 24  # of a year
PART_PERCENTILES = np.arange(0, 101, 2)  # that are kept of a part
NEIGHBOURS = (-1, 1)  # the parts that a window is compared with, from its own

Window = tuple[int, int]  # the index of its first row, and of the row after its last


def parts_of(times: pl.Series) -> NDArray[np.int64]:
    """Return the part of the year of each time that is not null, (m,) of 0 to 23."""
    days = times.drop_nulls().dt.ordinal_day().to_numpy().astype(np.int64) - 1
    return days * PARTS // 366


def add_parts(columns: Columns, rows: pl.DataFrame, part_of_year: NDArray[np.int64]) -> bool:
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


class _MixedPercentiles:
    """The numbers of a column in each part of the year, to be mixed in any shares."""

    def __init__(self, parts: list[PartProfile]) -> None:
        numbers = [np.array(item["percentiles"], dtype=np.float64) for item in parts]
        part_of_number = np.repeat(np.arange(PARTS), [len(part) for part in numbers])
        unsorted = np.concatenate(numbers)
        order = np.argsort(unsorted, kind="stable")
        self._part_of_number = part_of_number[order]
        # Their different values, and the place of each number among these.
        self.values, self._places = np.unique(unsorted[order], return_inverse=True)
        self._gaps = np.array([item["gaps"] for item in parts])
        self._rows = np.array([item["rows"] for item in parts])

    def mix(
        self, counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the percentiles of mixtures.

        Args:
            counts: (w, 24) how many rows are in each part.

        Returns:
            The place of percentiles 0 to 100 among `values`, (w, 101), which says nothing if there
            are none in these parts; how many rows the parts of each mixture have, and how many of
            these have no gap, each (w,).
        """
        shares = counts / counts.sum(axis=1, keepdims=True)
        rows = (counts > 0) @ self._rows
        known = rows - np.round(rows * (shares @ self._gaps)).astype(np.int64)
        weights = (shares * (1 - self._gaps))[:, self._part_of_number]
        places = np.zeros((len(counts), 101), dtype=np.int64)
        for index, weight in enumerate(weights):
            present = np.flatnonzero(weight)
            if not len(present):
                continue
            cumulative = np.cumsum(weight[present])
            middle = (cumulative - weight[present] / 2) / cumulative[-1]
            chosen = np.searchsorted(middle, np.arange(101) / 100).clip(0, len(present) - 1)
            places[index] = self._places[present[chosen]]
        return places, rows, known


def usual_of_season(
    values: Values,
    part_of_year: NDArray[np.int64],
    compared: list[Window],
    column: ColumnProfile,
) -> Usual:
    """Return how far windows are from the parts of the year beside theirs.

    Another year differs from this one, and only one year is known: as much as half a month does.

    Args:
        values: (n,) of the column.
        part_of_year: (n,) of each of them.
        compared: The windows.
        column: As `profile.json` has it, with `parts`.
    """
    if "counts" in column:
        return _usual_of_categories(values, part_of_year, compared, column)
    return _usual_of_numbers(values, part_of_year, compared, column)


def _usual_of_categories(
    values: Values,
    part_of_year: NDArray[np.int64],
    compared: list[Window],
    column: ColumnProfile,
) -> Usual:
    largest = Usual()
    for begin, end in compared:
        window = values.window(begin, end)
        for shift in NEIGHBOURS:
            local, rows = same_season(column, (part_of_year[begin:end] + shift) % PARTS)
            reference = Reference(local, rows, of_times=values.is_time)
            largest = largest.at_least(reference.change(reference.codes(window)))
    return largest


def _usual_of_numbers(
    values: Values,
    part_of_year: NDArray[np.int64],
    compared: list[Window],
    column: ColumnProfile,
) -> Usual:
    mixed = _MixedPercentiles(column["parts"])
    codes = codes_between(mixed.values, values.numbers, values.gaps)
    all_codes = 2 * len(mixed.values) + 1
    window_counts = np.array(
        [np.bincount(codes[begin:end], minlength=all_codes + 1) for begin, end in compared]
    )
    window_rows = window_counts.sum(axis=1)
    window_known = window_rows - window_counts[:, -1]
    cumulative = np.cumsum(window_counts[:, :-1], axis=1)
    shares = cumulative / np.maximum(window_known, 1)[:, np.newaxis]
    window_gaps = 1 - window_known / np.maximum(window_rows, 1)
    part_counts = np.array(
        [np.bincount(part_of_year[begin:end], minlength=PARTS) for begin, end in compared]
    )
    largest = Usual()
    for shift in NEIGHBOURS:
        places, rows, known = mixed.mix(np.roll(part_counts, shift, axis=1))
        gap_changes = window_gaps - (1 - known / np.maximum(rows, 1))
        psi = distance = np.zeros(len(compared))
        if len(mixed.values):
            below = np.take_along_axis(shares, 2 * places, axis=1)
            at_most = np.take_along_axis(shares, 2 * places + 1, axis=1)
            psi, distance = Percentiles(places, known).sizes(below, at_most, window_known)
        largest = Usual(
            psi=max(largest.psi, float(psi.max())),
            distance=max(largest.distance, float(distance.max())),
            gap_change=max(largest.gap_change, float(np.abs(gap_changes).max())),
        )
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
    mixed = _MixedPercentiles(column["parts"])
    places, _, _ = mixed.mix(counts[np.newaxis])
    if gaps == 1 or not len(mixed.values):
        return {"gaps": 1.0, "percentiles": []}, rows
    return {"gaps": gaps, "percentiles": mixed.values[places[0]].tolist()}, rows


def _mix_counts(parts: list[tuple[float, PartProfile]], rows: int) -> dict[str, int]:
    mixed: dict[str, float] = {}
    for share, item in parts:
        weight = share * rows * (1 - item["gaps"]) / max(1, sum(item["counts"].values()))
        for name, count in item["counts"].items():
            mixed[name] = mixed.get(name, 0.0) + weight * count
    return {name: round(count) for name, count in mixed.items()}
