"""Propose a contract for rows that nobody has described yet, and say why."""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from .. import UsageError
from ..config import Column, ColumnType, Data, Task
from ..pipeline.ingest import merged, typed, unreadable
from ..pipeline.leaks import by_itself, telltales
from ..pipeline.subjects import Subject, find_subject
from . import column_types
from .column_names import BIRTH, ID, THINGS, dated, possible, timely, words
from .column_types import INTEGER

DAY = timedelta(days=2)

MOST = 200  # categories of a column; the boosted trees take at most 255
FEWEST = 10  # rows of a class
REPEATED = 0.1  # of the rows may have the identifier of another one
MANY = 20  # values, from which on words are hardly classes
TIMES = 5  # different ones, at least, to tell old rows from new ones
NOBODY = "none"  # as a group: rows of one subject may be on both sides
IDENTIFIER = "an identifier by its name, different in every row"
UNIQUE = "most rows have a value of their own, as an identifier has"
ROW_NUMBER = "the number of the row, an identifier"
TEXT = "WARNING: read as text: hashed TF-IDF of its words"
# Numbers that stand for "no value" in files without a word for it.
SENTINELS = [-99999, -9999, -999, -99, -9, 999, 9999, 99999, 999999, 9999999]
OTHER = "other"  # what rare classes are merged into


def infer(
    rows: pl.DataFrame, target: str, *, source: str, separator: str,
    time: str | None = None, group: str | None = None, task: Task | None = None,
    rare_classes: str | None = None,
) -> tuple[Data, dict[str, str]]:  # fmt: skip
    """Decide on types, gaps, ranges, keys, task and split of what `problem.data.load` returned.

    Returns:
        The contract, which the rows satisfy, and a sentence on each column and on `(gaps)`,
        `(task)` and `(split)`; WARNING stands in one that needs a person.

    Raises:
        UsageError: There is nothing to learn from these rows, or an argument does not fit them.
    """
    _check_header(rows, source)
    target = _named(rows, target, source)
    time = _named(rows, time, source) if time else None
    alone = group == NOBODY and NOBODY not in rows.columns
    group = _named(rows, group, source) if group and not alone else None
    made = column_types.draft(rows, target, separator, time)
    draft = made.data
    columns, left_out = draft.columns, draft.left_out
    for name in filter(None, (target, time, group)):
        if name in left_out or (name == time and columns[name].type != "datetime"):
            why = left_out.get(name) or made.unread.get(name) or "no datetime"
            raise UsageError(f"{source}: {name!r} is {why}")
    if group == target:
        raise UsageError(f"{source}: --group {group}: that is the target; name whose rows they are")
    frame = typed(rows, draft)
    # Without their names: Polars takes one such as * or ^a$ for a pattern, in a series as well.
    said = {name: frame[name].alias("values") for name in frame.columns}
    where = f"{source}: the target {target!r}"
    whole = (
        columns[target].type == "number" and unreadable(rows[target], INTEGER, draft)[0].is_empty()
    )

    def read_as(kind: ColumnType) -> None:
        columns[target] = columns[target].model_copy(update={"type": kind})
        said[target] = typed(rows.select(rows[target]), draft)[target].alias("values")

    rare: dict[str, str | None] = {}
    if rare_classes:
        if whole:  # 0.0 and 1.0 are classes 0 and 1
            read_as("integer")
        rare = _rare(said[target].drop_nulls(), where, rare_classes)
        if columns[target].type == "integer" and OTHER in rare.values():
            read_as("category")
        said[target] = merged(said[target], rare)
        task = task or ("binary" if said[target].drop_nulls().n_unique() == 2 else "multiclass")
    known = said[target].is_not_null()
    unread = made.unread.get(target, "") if target not in made.words else ""
    if unread and not rare and said[target].n_unique() > MANY:
        raise UsageError(f"{where} {unread.removeprefix('WARNING: ')}")
    task, classes = _task(said[target].filter(known), where, task, int((~known).sum()))
    if classes and whole and columns[target].type == "number":
        read_as("integer")  # anew: what is beyond 2**53 was rounded as a float
        task, classes = _task(said[target].filter(known), where, task, int((~known).sum()))
    subject = None
    if not group and not alone:
        labelled = {name: values.filter(known) for name, values in said.items()}
        subject = find_subject(labelled, target, time, classified=bool(classes))
        group = subject.column if subject and not subject.too_few else None
    keys: list[str] = []
    notes: dict[str, str] = {}
    for name, values in said.items():
        asked = name in (target, time, group)
        unique = values.drop_nulls().n_unique() == len(rows)
        is_text = not (asked or name in made.unread or (unique and ID.search(name)))
        is_text = is_text and _is_text(values)
        reason = None if asked or is_text else _useless(values, name)
        if name in made.words and reason == UNIQUE:
            reason = None  # a version or a ratio is a category, however many there are
        if name in made.unread and reason and reason != ROW_NUMBER:
            reason = made.unread[name]
        elif name in made.unread:
            made.note(name, made.unread[name])
        if reason in (IDENTIFIER, UNIQUE, ROW_NUMBER) and unique and not keys and ID.search(name):
            keys, reason = [name], None
        elif not asked and values.equals(said[target]):
            reason = "a copy of the target"
        elif is_text:
            columns[name] = columns[name].model_copy(update={"type": "text"})
        columns[name], notes[name] = _column(values, columns[name], name, name in (group, *keys))
        notes[name] = "; ".join([notes[name], *made.notes.get(name, [])])
        if reason:
            left_out[name] = reason
    notes |= {name: f"left out: {reason}" for name, reason in left_out.items()}
    features = [n for n in said if n not in (target, group, *keys, *left_out)]
    if not features:
        raise UsageError(f"{source}: no column is left to learn from: {left_out}")
    if columns[target].type == "category":
        complete = {"categories": sorted(classes), "open": False}
        columns[target] = columns[target].model_copy(update=complete)
    without = int(frame[target].null_count())
    if without:
        texts = rows[target].cast(pl.String).str.strip_chars().filter(frame[target].is_null())
        written = [word for word in texts.drop_nulls().unique().sort() if word]
        shown = f" ({_list(written[:3])})" if written else ""
        notes[target] += f"; WARNING: {without} rows without one{shown} are set aside"
    if rare:
        rows_of = int(frame[target].cast(pl.String).is_in(list(rare)).sum())
        done = "learned as " + repr(OTHER) if OTHER in rare.values() else "set aside"
        notes[target] += f"; WARNING: {len(rare)} rare classes in {rows_of} rows are {done}"
    said = {name: values.filter(known) for name, values in said.items()}
    whose = subject if subject and not subject.too_few else group
    time, split, notes["(split)"] = _split(said, target, classes, features, time, whose)
    if subject and subject.too_few:
        notes["(split)"] += (
            f"; WARNING: rows of one {subject.column!r} are alike ({subject.reason}), but "
            f"{subject.too_few}, too few to split by: scores are those of known ones, not of new "
            "ones; bring more of them, or leave the column out"
        )
    told = {n: by_itself(said[n], columns[n].type) for n in features if n != time}
    for name in telltales(told, said[target], task):
        notes[name] += f"; WARNING: tells {target!r} alone: leave it out unless known in time"
    counts = [n for n in features if _counts_time(n, said[n].drop_nulls())]
    notes["(split)"] += _doubts(split, columns, made, counts)
    own = [f"{_list(c.gaps)} in {name!r}" for name, c in columns.items() if c.gaps]
    mean = "; ".join([f"{_list(draft.gaps)} mean no value", *own])
    notes["(gaps)"] = f"{mean}; decimal sign {draft.decimal!r}"
    notes["(task)"] = f"{task} {_list(classes)}".rstrip() + "; --task names another"
    notes |= dict.fromkeys(keys, "the key: different in every row, and no feature")
    columns = {name: columns[name] for name in rows.columns if name not in left_out}
    decided = vars(draft) | {"source": source, "separator": separator, "target": target}
    decided |= {
        "rare_classes": rare,
        "task": task,
        "classes": classes,
        "split": split,
        "keys": keys,
        "time": time,
    }
    decided |= {"columns": columns, "min_rows": max(50, len(rows) // 2)}
    return Data.model_validate(decided), notes


def _check_header(rows: pl.DataFrame, source: str) -> None:
    """Refuse a file whose first line is data, so that it has no names.

    Raises:
        UsageError: Names are numbers (other than ascending ones, such as 0, 1, 2 or wavelengths),
            or are values of their own columns.
    """
    names = rows.columns
    number = re.compile(r"\s*[-+]?\d*[.,]?\d+([eE][-+]?\d+)?\s*")
    numbers = [name for name in names if number.fullmatch(name)]
    values = [float(name.replace(",", ".")) for name in numbers]
    ascending = all(later > sooner for sooner, later in pairwise(values))
    fraction = len(numbers) == 1 and not numbers[0].strip().isdigit()
    odd = fraction or not ascending
    as_data = len(numbers) if odd and len(numbers) >= 0.4 * len(names) else 0
    texts = [c for c in rows.get_columns() if c.dtype == pl.String and not number.fullmatch(c.name)]
    own = sum(bool(column.name) and (column == column.name).any() for column in texts)
    as_data += own if len(names) > 1 and own == len(texts) else 0
    if as_data >= 2 or (as_data and as_data == len(names)):
        shown = _list(names[:4])
        raise UsageError(
            f"{source}: the first line looks like data, not like names ({shown}): "
            "put a line with the names of the columns above it"
        )


def _named(rows: pl.DataFrame, name: str, source: str) -> str:
    """The column of that name; spaces around a name in the file need not be typed.

    Raises:
        UsageError: There is none.
    """
    if name in rows.columns:
        return name
    near = [column for column in rows.columns if column.strip() == name.strip()]
    if len(near) == 1 and name.strip():
        return near[0]
    near = get_close_matches(name, rows.columns, 3, 0.5) or rows.columns[:9]
    raise UsageError(f"{source}: there is no column {name!r}; there is {_list(near)}")


def _rare(known: pl.Series, where: str, how: str) -> dict[str, str | None]:
    """What each class with too few rows becomes: `OTHER`, or None if its rows are set aside.

    Raises:
        UsageError: Merged, they still have too few rows; or the target is a fraction.
    """
    if known.dtype.is_float() and (known % 1 != 0).any():
        raise UsageError(f"{where} is a number with fractions, so --rare-classes does not apply")
    counts = known.cast(pl.String).alias("values").value_counts()
    few = counts.filter(counts["count"] < FEWEST)
    rows = int(few["count"].sum())
    if how == "other" and few.height and rows < FEWEST:
        raise UsageError(
            f"{where} has {rows} rows in all of its rare classes, too few to be one class: "
            "use --rare-classes drop"
        )
    if how == "other" and OTHER in set(counts["values"]) - set(few["values"]):
        raise UsageError(f"{where} has a class {OTHER!r} already: use --rare-classes drop")
    return dict.fromkeys(sorted(few["values"]), OTHER if how == "other" else None)


def _doubts(
    split: dict[str, str], columns: dict[str, Column], made: column_types.Draft, counts: list[str]
) -> str:
    """What a split owes to a doubtful reading of times, or lost by one that failed.

    Args:
        counts: Numbers that may be times.
    """
    column = split.get("column", "")
    if split["by"] == "time":
        doubtful = {*column_types.SHORT, *column_types.DOUBTFUL}
        formats = [f for f in columns[column].formats if f in doubtful]
        doubt = f"; WARNING: {column!r} is a time if {_list(formats)} is how it was written"
        return doubt if formats else ""
    lost = [
        name
        for name, why in made.unread.items()
        if why.startswith(column_types.LIKE_TIMES) and column_types.NO_DAY not in why
    ]
    lost += counts
    if not lost or split["by"] != "stratified":
        return ""
    verbs = "looks like a time but is" if len(lost) == 1 else "look like times but are"
    return f"; WARNING: {_list(lost)} {verbs} not read, so old and new rows mix"


def _task(known: pl.Series, where: str, asked: Task | None, without: int) -> tuple[Task, list[str]]:
    """The task that the values of the target suggest, and its classes; refuses what cannot be."""
    single = "in every row, so there is nothing to tell apart"
    if without:
        single = (
            f"in each of the {len(known):,} rows that have one, and {without:,} rows have none: if "
            "that means something, write it down in problem/data.py"
        )
    counts = known.value_counts(sort=True).cast({"values": pl.String})
    n, numeric = len(counts), known.dtype.is_numeric()
    rarest, least = counts.row(-1) if n else ("", 0)
    whole = numeric and not (known.cast(pl.Float64) % 1 != 0).any()
    discrete = not numeric or (whole and n <= 20 and (n == 2 or least >= FEWEST))
    task = asked or ("regression" if not discrete else "binary" if n == 2 else "multiclass")
    named = n == len(known) and not known.dtype.is_float()
    if named and known.dtype.is_integer():  # a price may differ in every row, a row number does
        named = float(np.ptp(known.to_numpy())) == n - 1
    rare = int((counts["count"] < FEWEST).sum())
    few = (
        f"has {n} classes, {rarest!r} in {least} row{'s' if least > 1 else ''} only: bring "
        f"{FEWEST} of each, or say --rare-classes drop or other for the {rare} with fewer"
    )
    if rare == n:
        few = f"has {n} classes, none of them in {FEWEST} rows: predict something coarser"
    for refused, because in [
        (len(known) < 50, f"is known in {len(known)} rows, too few to learn from: bring 50"),
        (n < 2, f"is {rarest!r} {single}"),
        (known.dtype.is_temporal(), "is a datetime; predict a number, such as the days until then"),
        (named, "is different in every row, as a name is"),
        (task == "regression" and not numeric, "is no number, so this is no regression"),
        ((task == "binary") != (n == 2) and task != "regression", f"has {n} values: not {task}"),
        (task != "regression" and least < FEWEST, few),
    ]:
        if refused:
            raise UsageError(f"{where} {because}")
    classes = known.unique().sort().cast(pl.String).to_list() if task != "regression" else []
    if known.dtype == pl.String and task == "binary":
        classes.sort(key=lambda name: name == rarest)  # what is looked for is rare
    return task, classes


def _useless(values: pl.Series, name: str) -> str | None:
    """Why a model would learn nothing from the column, if so."""
    known = values.drop_nulls()
    n = known.n_unique()
    if n <= (len(known) == len(values)):
        return f"the same in every row, {known[0]!r}" if n else "without a value in any row"
    named = bool(ID.search(name)) and not dated(name)
    whole = not values.dtype.is_float() or not (known % 1 != 0).any()
    again = len(known) - n
    if named and whole and 0 <= again <= REPEATED * len(known) and n < len(values) and n > MANY:
        times = f", which {again:,} row{'s' if again > 1 else ''} repeat" if again else ""
        return f"{'WARNING: ' if again else ''}an identifier by its name{times}"
    if values.dtype.is_numeric() and n == len(values) and (known % 1 != 0).any():
        return IDENTIFIER if ID.search(name) else None  # 1.1, 1.2, 2.1: a place in a place
    if values.dtype.is_numeric() and n == len(values):
        span = float(np.ptp(known.to_numpy()))
        in_order = known.is_sorted() or known.is_sorted(descending=True)
        if in_order and n > 0.5 * (span + 1) and not timely(name):
            return ROW_NUMBER
        stands_for = set(words(name))
        thing = bool(stands_for) and stands_for <= THINGS
        return IDENTIFIER if ID.search(name) or thing else None  # else a rank, perhaps
    if values.dtype != pl.String or n <= 20:
        return None
    if n > 0.5 * len(known):
        return IDENTIFIER if n == len(known) and ID.search(name) else UNIQUE
    covered = known.value_counts(sort=True)["count"].head(MOST).sum() / len(known)
    return f"{n} different values; the top {MOST} cover {covered:.0%}" if covered < 0.5 else None


def _is_text(values: pl.Series) -> bool:
    """Whether a column holds sentences rather than names: many different ones, of many words."""
    if values.dtype != pl.String:
        return False
    known = values.drop_nulls()
    different = known.n_unique()
    many = different > 20 and (different > 0.3 * len(known) or different > MOST)
    return many and known.str.count_matches(r"\s+").sum() >= 2 * len(known)


def _column(values: pl.Series, column: Column, name: str, bare: bool) -> tuple[Column, str]:
    """Complete a column of the contract; a bare one may hold any value of its type."""
    known, gaps = values.drop_nulls(), values.null_count()
    more: dict[str, Any] = {"nullable": gaps > 0}
    note = f"{known.n_unique()} different values, {gaps} gaps"
    if column.type == "text":
        note += f"; {TEXT}"
    if column.type == "category":
        counts = known.value_counts().sort(-pl.col("count").cast(pl.Int64), "values")
        more["categories"] = [] if bare else sorted(counts["values"].head(MOST))
        more["open"] = bare or len(counts) > 50 or bool((counts["count"] < 3).any())
        if len(counts) > MOST and not bare:
            note += f"; the {MOST} most frequent are told apart, all others are read as gaps"
        elif more["open"] and not bare:
            many = len(counts) > 50
            note += f"; new ones are fine, as {'there are many' if many else 'some are rare'}"
        note += "" if bare else _same_words(known)
    elif known.dtype.is_numeric() and len(known) and not bare:
        low, high = float(known.to_numpy().min()), float(known.to_numpy().max())
        size = max(abs(low), abs(high))
        margin = max(high - low or size or 1.0, 1e-6 * size, 1e-300)
        if size < 1e300:  # room for as much again on either side, to two digits
            digits = 1 - math.floor(math.log10(margin))
            more["min"] = round(low - margin if low < 0 else max(0.0, low - margin), digits)
            more["max"] = round(high + margin, digits)
            if limits := possible(name, low, high):
                more["min"], more["max"] = limits
            note += f"; may be {more['min']:g} to {more['max']:g}"
        note += _sentinels(known)
        if _counts_time(name, known):
            todo = "if they count days or seconds, turn them into dates in problem/data.py"
            note += f"; WARNING: numbers under a name of time: {todo}"
    elif column.type == "datetime" and len(known):
        note += f"; read as {_list(column.formats)}" if column.formats else ""
        last = known.max()
        if isinstance(last, datetime) and last > datetime.now(UTC).replace(tzinfo=None) + DAY:
            note += f"; WARNING: the last is in the future, {last}"
        # Of two that read all, the day was taken.
        firsts = {form[:2] for form in column.formats if "%d" in form and "%m" in form}
        if "%m" in firsts or not (known.dt.day() > 12).any() if "%d" in firsts else False:
            note += "; WARNING: day and month may be the other way round"
    return column.model_copy(update=more), note


def _counts_time(name: str, known: pl.Series) -> bool:
    """Whether numbers may be times that nobody said how to read, such as a spreadsheet's days."""
    if known.is_empty() or not known.dtype.is_numeric() or not dated(name):
        return False
    low, high = float(known.to_numpy().min()), float(known.to_numpy().max())
    return low >= 1000 and high >= 5000


def _same_words(known: pl.Series) -> str:
    """Point out categories that differ in nothing but their case."""
    words = known.unique().sort().to_frame("word")
    alike = words.group_by(pl.col("word").str.to_lowercase().alias("lower")).agg("word")
    pairs = alike.filter(pl.col("word").list.len() > 1).sort("lower")
    if pairs.is_empty():
        return ""
    return (
        f"; WARNING: {' and '.join(map(repr, pairs['word'][0][:3]))} differ in capitals alone: if "
        "they mean the same, make them one in problem/data.py"
    )


def _sentinels(known: pl.Series) -> str:
    """Point out numbers such as -999 that lie far from all others, as codes for no value do."""
    numbers = known.cast(pl.Float64)
    present = [value for value in SENTINELS if (numbers == value).any()]
    others = numbers.filter(~numbers.is_in([float(value) for value in present]))
    if not present or others.is_empty():
        return ""
    low, high = (float(end) for end in (others.to_numpy().min(), others.to_numpy().max()))
    room = max(high - low, 1.0)
    far = [value for value in present if value < low - room or value > high + room]
    shown = ", ".join(f"{value} ({(numbers == value).sum():,} rows)" for value in far)
    todo = "if it means no value, list it under gaps of the column in config/data.yaml"
    return f"; WARNING: {shown} looks like a gap: {todo}" if far else ""


def _split(
    known: dict[str, pl.Series], target: str, classes: list[str], features: list[str],
    time: str | None, group: Subject | str | None,
) -> tuple[str | None, dict[str, str], str]:  # fmt: skip
    """The column that says when a row came to be, the split, and why."""

    def rank(name: str) -> tuple[bool, bool, int]:
        return timely(name), known[name].is_sorted(), known[name].n_unique()

    whens = [name for name in features if name and known[name].dtype == pl.Datetime]
    whens = [n for n in whens if not known[n].has_nulls() and not BIRTH.search(n)]
    time = time or max((n for n in whens if rank(n)[2] >= TIMES), key=rank, default=None)
    random = {"by": "stratified"}
    if isinstance(group, Subject):
        why = f"WARNING: no {group.column!r} is on both sides, as rows of one are alike: "
        why += f"{group.reason}; --group {NOBODY} parts them"
        return time, {"by": "group", "column": group.column}, why
    if group:
        return time, {"by": "group", "column": group}, f"no {group!r} is on both sides, as asked"
    if time is None or known[time].has_nulls():
        dates = {n: known[n] for n in features if n and known[n].dtype == pl.Datetime}
        dates = dates if time is None else {time: known[time]}
        return time, random, _why_at_random(dates)
    # The first thresholds come from splitting the older part once more, so three parts matter.
    when = known[time].sort()
    first, second = when[int(0.64 * len(when))], when[int(0.8 * len(when))]
    later = (known[time] >= first).cast(pl.Int8) + (known[time] >= second).cast(pl.Int8)
    parts = [known[target].filter(later == part) for part in range(3)]
    if min(map(len, parts)) < 5 or min(p.n_unique() for p in parts) < len(classes):
        why = f"WARNING: at random, as {time!r} would part whole classes"
        return time, random, f"{why}: scores are those of rows in between, not of new ones"
    why = f"the newest fifth by {time!r}, from {second} on, is held out; --time names another"
    return time, {"by": "time", "column": time}, why


def _why_at_random(dates: dict[str, pl.Series]) -> str:
    """Why none of the datetimes tells old rows from new ones."""
    reasons = []
    warning = ""
    for name, values in dates.items():
        if values.has_nulls():
            gaps = values.null_count()
            reasons.append(f"{name!r} has gaps in {gaps:,} row{'s' if gaps > 1 else ''}")
            if gaps < 0.05 * len(values) and not BIRTH.search(name):
                warning = (
                    "; WARNING: so old and new rows mix; leave out the rows without a time in "
                    "problem/data.py to split by it"
                )
        elif BIRTH.search(name):
            reasons.append(f"{name!r} is a date of birth")
        else:
            reasons.append(f"{name!r} has {values.n_unique()} different values, too few")
    if reasons:
        return f"at random: {', '.join(reasons)}; --time names a column{warning}"
    return "at random: no datetime that has a name and no gaps says when a row came to be"


def _list(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words))
