"""The split: which column parts the rows, and why."""

from typing import NamedTuple

import polars as pl

from ..config import Column, Split
from ..pipeline.subjects import Subject
from .column_names import BIRTH, timely
from .draft import Draft
from .times import DOUBTFUL, SHORT
from .wording import quote_all

MIN_TIMES = 5  # different ones, to tell old rows from new ones
MIN_PART_ROWS = 5
MAX_GAP_SHARE = 0.05  # of a time, to suggest leaving out the rows without one
NO_GROUP = "none"  # as --group: rows of one subject may be on both sides


class SplitChoice(NamedTuple):
    """The split, and why."""

    time: str | None  # the column that says when a row was created
    split: Split
    reason: str


def choose_split(
    known: dict[str, pl.Series],
    target: str,
    classes: list[str],
    features: list[str],
    time: str | None,
    group: Subject | str | None,
) -> SplitChoice:
    """Split by group if there is one, else by time if that leaves every class in every part.

    Args:
        known: Typed columns, (n,) each; rows without a target are gone.
        target: The name of the target.
        classes: The classes that each part needs.
        features: The columns that may say when a row was created.
        time: The column that a person says does.
        group: Found in the rows, or named by a person.
    """
    if time is None:
        time = _find_time(known, features)
    if isinstance(group, Subject):
        reason = (
            f"WARNING: no {group.column!r} is on both sides, as rows of the same one are alike: "
            f"{group.reason}; --group {NO_GROUP} lets them be on both"
        )
        return SplitChoice(time, Split(by="group", column=group.column), reason)
    if group:
        reason = f"no {group!r} is on both sides, as you asked"
        return SplitChoice(time, Split(by="group", column=group), reason)
    if time is None or known[time].has_nulls():
        names = features if time is None else [time]
        dates = {n: known[n] for n in names if n and known[n].dtype == pl.Datetime}
        return SplitChoice(time, Split(by="stratified"), _why_at_random(dates))
    # The first thresholds come from splitting the older part once more, so three parts matter.
    times = known[time].sort()
    first_cut = times[int(0.64 * len(times))]
    second_cut = times[int(0.8 * len(times))]
    part = (known[time] >= first_cut).cast(pl.Int8) + (known[time] >= second_cut).cast(pl.Int8)
    targets = [known[target].filter(part == number) for number in range(3)]
    are_large = min(map(len, targets)) >= MIN_PART_ROWS
    if not are_large or min(values.n_unique() for values in targets) < len(classes):
        reason = (
            f"WARNING: at random, as {time!r} would part whole classes: scores are those of rows "
            "in between, not of new ones"
        )
        return SplitChoice(time, Split(by="stratified"), reason)
    reason = (
        f"the newest fifth by {time!r}, from {second_cut} on, is held out; --time names another"
    )
    return SplitChoice(time, Split(by="time", column=time), reason)


def _find_time(known: dict[str, pl.Series], features: list[str]) -> str | None:
    """Return the likeliest datetime: by its name, its order in the file, its number of values."""

    def rank(name: str) -> tuple[bool, bool, int]:
        return timely(name), known[name].is_sorted(), known[name].n_unique()

    candidates = [
        name
        for name in features
        if name
        and known[name].dtype == pl.Datetime
        and not known[name].has_nulls()
        and not BIRTH.search(name)
        and known[name].n_unique() >= MIN_TIMES
    ]
    return max(candidates, key=rank, default=None)


def _why_at_random(dates: dict[str, pl.Series]) -> str:
    """Explain why no datetime separates old rows from new ones."""
    reasons = []
    warning = ""
    for name, values in dates.items():
        is_birth = bool(BIRTH.search(name))
        if values.has_nulls():
            gaps = values.null_count()
            rows = "1 row" if gaps == 1 else f"{gaps:,} rows"
            reasons.append(f"{name!r} has missing values in {rows}")
            if gaps < MAX_GAP_SHARE * len(values) and not is_birth:
                warning = (
                    "; WARNING: so old and new rows mix; leave out the rows without a time in "
                    "problem/data.py to split by it"
                )
        elif is_birth:
            reasons.append(f"{name!r} is a date of birth")
        else:
            reasons.append(f"{name!r} has {values.n_unique()} different values, too few")
    if reasons:
        return f"at random: {', '.join(reasons)}; --time names a column{warning}"
    return "at random: no column with a name and a time in every row says when rows were created"


def split_doubts(
    split: Split, columns: dict[str, Column], draft: Draft, counting: list[str]
) -> str:
    """Return a warning if the split rests on a doubtful reading of times, or lost a time.

    Args:
        split: That was chosen.
        columns: Of the contract.
        draft: What could not be read.
        counting: Columns of numbers that may be times.
    """
    if split.by == "time" and split.column:
        doubtful = {*SHORT, *DOUBTFUL}
        formats = [form for form in columns[split.column].formats if form in doubtful]
        if not formats:
            return ""
        return (
            f"; WARNING: {split.column!r} is a time only if it was written as {quote_all(formats)}"
        )
    lost = [name for name, unread in draft.unread.items() if unread.is_time]
    lost += counting
    if not lost or split.by != "stratified":
        return ""
    verbs = "looks like a time but is" if len(lost) == 1 else "look like times but are"
    return f"; WARNING: {quote_all(lost)} {verbs} not read, so old and new rows mix"
