"""Propose a contract for rows that no one has described yet, and say why."""

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from .. import BadInput
from ..config import Column, Data, Task
from .ingest import PAIRS, typed, unreadable
from .leaks import telltales

GAPS = ["", "na", "n/a", "#n/a", "<na>", "nan", "nat", "null", "?", "\\n"]  # wherever they stand
WORDS = ["none", "nil", "-", "--", ".", "missing", "unknown", "n.a.", "undefined"]  # among numbers
DAYS = "%d/%m/%Y|%m/%d/%Y|%d.%m.%Y|%d-%m-%Y|%m-%d-%Y|%d-%B-%Y|%d %B %Y|%B %d, %Y"
# Two-digit years first: %Y would read the 13 in 05/06/13 as the year 13.
DAYS = "|".join([DAYS.replace("%Y", "%y"), DAYS, "%Y-%m-%d|%Y/%m/%d|%Y-%m|%Y%m%d"])
HOURS = ["%H:%M", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p"]
CLOCKS = ["", *map("".join, product((" ", "T", ", "), HOURS, ("", "%#z", " UTC")))]
FORMATS = list(map("".join, product(DAYS.split("|"), CLOCKS)))
TIMELY, BIRTH = r"(?i)date|time|stamp|created|when|day|_at$|datum|fecha", r"(?i)birth|born|dob"
ID = r"(?i:^(id|key|index|unnamed.*|)$|^id[ _.-]|[ _.-](id|key|nr)$|uuid)|[a-z](Id|ID)$"
NUMBER, INTEGER = Column(type="number"), Column(type="integer")
MOST = 200  # categories of a column; the boosted trees take at most 255
IDENTIFIER = "an identifier: most rows have one of their own"
TEXT = "WARNING: read as text: hashed TF-IDF of its words"


def infer(
    rows: pl.DataFrame, target: str, *, source: str, separator: str,
    time: str | None = None, group: str | None = None, task: Task | None = None,
) -> tuple[Data, dict[str, str]]:  # fmt: skip
    """Decide on types, gaps, ranges, keys, task and split of what `problem.data.load` returned.

    Returns:
        The contract, which the rows satisfy, and a sentence on each column and on `(gaps)`,
        `(task)` and `(split)`; WARNING stands in one that needs a person.

    Raises:
        BadInput: There is nothing to learn from these rows, or an argument does not fit them.
    """
    draft = _types(rows, target, separator)
    columns, left_out = draft.columns, draft.left_out
    for name in (target, *filter(None, (time, group))):
        if name not in rows.columns:
            near = get_close_matches(name, rows.columns, 3, 0.5) or rows.columns[:9]
            raise BadInput(f"{source}: there is no column {name!r}; there is {_list(near)}")
        if name in left_out or (name == time and columns[name].type != "datetime"):
            raise BadInput(f"{source}: {name!r} is {left_out.get(name, 'no datetime')}")
    frame = typed(rows, draft)
    # Without their names: Polars takes one such as * or ^a$ for a pattern, in a series as well.
    said = {name: frame[name].alias("values") for name in frame.columns}
    known = said[target].is_not_null()
    task, classes = _task(said[target].filter(known), f"{source}: the target {target!r}", task)
    fractions = unreadable(rows[target], INTEGER, draft)[0]
    if classes and columns[target] == NUMBER and fractions.is_empty():  # 0.0 and 1.0
        columns[target], said[target] = INTEGER, said[target].cast(pl.Int64)
        classes = [name.removesuffix(".0") for name in classes]
    keys: list[str] = []
    notes: dict[str, str] = {}
    for name, values in said.items():
        asked = name in (target, time, group)
        reason = None if asked else _useless(values, name)
        unique = values.drop_nulls().n_unique() == len(rows)
        if reason == IDENTIFIER and unique and not keys and re.search(ID, name):
            keys, reason = [name], None
        elif not asked and values.equals(said[target]):
            reason = "a copy of the target"
        elif reason is None and not asked and _is_text(values):
            columns[name] = Column(type="text")
        columns[name], notes[name] = _column(values, columns[name], name in (group, *keys))
        if reason:
            left_out[name] = reason
    notes |= {name: f"left out: {reason}" for name, reason in left_out.items()}
    features = [n for n in said if n not in (target, group, *keys, *left_out)]
    if not features:
        raise BadInput(f"{source}: no column is left to learn from: {left_out}")
    if columns[target].type == "category":
        complete = {"categories": sorted(classes), "open": False}
        columns[target] = columns[target].model_copy(update=complete)
    if not known.all():
        notes[target] += f"; WARNING: {(~known).sum()} rows without one are set aside"
    said = {name: values.filter(known) for name, values in said.items()}
    time, split, notes["(split)"] = _split(said, target, classes, features, time, group)
    told = {name: said[name] for name in features if name != time}
    for name in telltales(told, said[target], task):
        notes[name] += f"; WARNING: tells {target!r} alone: leave it out unless known in time"
    notes["(gaps)"] = f"{_list(draft.gaps)} mean no value; decimal sign {draft.decimal!r}"
    notes["(task)"] = f"{task} {_list(classes)}".rstrip() + "; --task names another"
    notes |= dict.fromkeys(keys, "the key: different in every row, and no feature")
    columns = {name: columns[name] for name in rows.columns if name not in left_out}
    decided = vars(draft) | {"source": source, "separator": separator, "target": target}
    decided |= {"task": task, "classes": classes, "split": split, "keys": keys, "time": time}
    decided |= {"columns": columns, "min_rows": max(50, len(rows) // 2)}
    return Data.model_validate(decided), notes


def _types(rows: pl.DataFrame, target: str, separator: str) -> Data:
    """The contract as far as types, gap words and the decimal sign go."""
    columns: dict[str, Column] = {}
    left_out, seen = {}, {}
    for column in rows.get_columns():
        name, dtype = column.name, column.dtype
        if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            words = column.alias("word").cast(pl.String).str.strip_chars().drop_nulls()
            seen[name] = words.value_counts()
        elif dtype.is_numeric():
            columns[name] = INTEGER if dtype.is_integer() else NUMBER
        elif dtype in (pl.Boolean, pl.Date, pl.Datetime):
            columns[name] = Column(type="boolean" if dtype == pl.Boolean else "datetime")
        else:
            left_out[name] = f"of a type that no model here reads, {dtype}"
    # With commas between columns, three digits after a comma are thousands.
    comma, votes, gaps = r",\d+$" if separator == ";" else r",(\d{1,2}|\d{4,})$", 0, {""}
    for counts in seen.values():
        words = counts["word"]
        signs = [words.str.contains(r"^[-+]?\d*" + sign).sum() for sign in (comma, r"\.\d+$")]
        votes += (signs[0] > signs[1]) - (signs[0] < signs[1])
        gaps |= set(words.filter(words.str.to_lowercase().is_in(GAPS)))
    decimal = "," if votes > 0 else "."
    draft = Data.model_construct(columns=columns, gaps=[], decimal=decimal, left_out=left_out)
    odd = {}
    for name, counts in seen.items():
        counts = counts.filter(~counts["word"].is_in(list(gaps)))
        columns[name], odd[name] = _guess(counts, name, draft)
    for name, strange in odd.items():
        # A gap is one in the whole file, so a word that is a value of another column is none.
        for other in set(seen) - {name} if strange else set():
            taken = [word for word in strange if other == target or word.lower() not in WORDS]
            number = columns[other].type in ("number", "integer")
            if not number and seen[other]["word"].is_in(taken).any():
                columns[name], strange = Column(type="category"), set()
        gaps |= strange
    draft.gaps.extend(sorted(gaps))
    return draft


def _guess(counts: pl.DataFrame, name: str, draft: Data) -> tuple[Column, set[str]]:
    """The type of (nearly) all words of a column, and the few that are not of it."""
    words, rows = counts["word"], counts["count"]
    lower = set(words.head(9).str.to_lowercase())
    if len(words) < 9 and any(lower <= set(pair) for pair in PAIRS[:-1]):
        return Column(type="boolean"), set()
    for kind in ("datetime", "number") if re.search(TIMELY, name) else ("number", "datetime"):
        column = Column(type=kind, formats=_formats(words) if kind == "datetime" else [])
        odd, _ = unreadable(words, column, draft)
        bad = words.is_in(odd.implode())
        good, share = words.filter(~bad), float(rows.filter(bad).sum()) / float(rows.sum() or 1)
        known = odd.str.to_lowercase().is_in(WORDS).all()
        coded = good.str.contains(r"^0\d").sum() > 0.01 * len(good)  # 0714 is a code, no number
        if good.is_empty() or len(odd) > 5 or share > (0.5 if known else 0.05):
            continue
        if kind == "datetime" and len(unreadable(odd, NUMBER, draft)[0]) == len(odd):
            return column, set(odd)
        if kind == "number" and not coded:
            whole = not good.str.contains(rf"[{draft.decimal}eE]").any()
            whole = whole and unreadable(good, INTEGER, draft)[0].is_empty()
            return INTEGER if whole else NUMBER, set(odd)
    return Column(type="category"), set()


def _formats(words: pl.Series) -> list[str]:
    """The formats that together read the words; whichever reads most of them is taken first."""

    def read(words: pl.Series, formats: list[str]) -> pl.DataFrame:
        read = (pl.col("word").str.to_datetime(f, strict=False).alias(f) for f in formats)
        return words.to_frame("word").select(read).select(pl.all().dt.year().is_between(1600, 2300))

    found: list[str] = []
    while len(words) and len(found) < 6:
        some = words.head(20)
        clock = some.str.contains(":").any()
        tried = read(some, [f for f in FORMATS if ("%M" in f) == clock]).sum()
        likely = read(words, [form for form in tried.columns if tried[form][0]])
        if not likely.width:
            break
        found.append(max(likely.columns, key=lambda form: likely[form].sum()))
        words = words.filter(~likely[found[-1]].fill_null(False))
    return sorted(found, key=FORMATS.index)


def _task(known: pl.Series, where: str, asked: Task | None) -> tuple[Task, list[str]]:
    """The task that the values of the target suggest, and its classes; refuses what cannot be."""
    counts = known.value_counts(sort=True).cast({"values": pl.String})
    n, numeric = len(counts), known.dtype.is_numeric()
    rarest, least = counts.row(-1) if n else ("", 0)
    whole = numeric and not (known.cast(pl.Float64) % 1 != 0).any()
    discrete = not numeric or (whole and n <= 20 and (n == 2 or least >= 10))
    task = asked or ("regression" if not discrete else "binary" if n == 2 else "multiclass")
    few = f"has {n} classes, {rarest!r} in {least} rows only: bring 10 of each, or merge some"
    for refused, because in [
        (len(known) < 50, f"is known in {len(known)} rows, too few to learn from: bring 50"),
        (n < 2, f"is {rarest!r} in every row, so there is nothing to tell apart"),
        (known.dtype.is_temporal(), "is a datetime; predict a number, such as the days until then"),
        (n == len(known) and not known.dtype.is_float(), "is different in every row, as a name is"),
        (task == "regression" and not numeric, "is no number, so this is no regression"),
        ((task == "binary") != (n == 2) and task != "regression", f"has {n} values: not {task}"),
        (task != "regression" and least < 10, few),
    ]:
        if refused:
            raise BadInput(f"{where} {because}")
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
    if values.dtype == pl.Int64 and n == len(values):
        steady = known.is_sorted() or np.ptp(known.to_numpy()) == n - 1
        return IDENTIFIER if steady or re.search(ID, name) else None
    if values.dtype != pl.String or n <= 20:
        return None
    if _is_text(known):
        return None
    if n > 0.5 * len(known):
        return IDENTIFIER
    covered = known.value_counts(sort=True)["count"].head(MOST).sum() / len(known)
    return f"{n} different values; the top {MOST} cover {covered:.0%}" if covered < 0.5 else None


def _is_text(values: pl.Series) -> bool:
    """Whether a column holds sentences rather than names: many different ones, of many words."""
    if values.dtype != pl.String:
        return False
    known = values.drop_nulls()
    different = known.n_unique()
    many = different > 20 and (different > 0.3 * len(known) or different > MOST)
    return many and known.str.count_matches(r"\s+").sum() >= 3 * len(known)


def _column(values: pl.Series, column: Column, bare: bool) -> tuple[Column, str]:
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
        note += "; new ones are fine, as some are rare" * (more["open"] and not bare)
    elif known.dtype.is_numeric() and len(known) and not bare:
        low, high = float(known.to_numpy().min()), float(known.to_numpy().max())
        size = max(abs(low), abs(high))
        margin = max(high - low or size or 1.0, 1e-6 * size, 1e-300)
        if size < 1e300:  # room for as much again on either side, to two digits
            digits = 1 - math.floor(math.log10(margin))
            more["min"] = round(low - margin if low < 0 else max(0.0, low - margin), digits)
            more["max"] = round(high + margin, digits)
            note += f"; may be {more['min']:g} to {more['max']:g}"
    elif column.formats:
        note += f"; read as {_list(column.formats)}"
        firsts = {form[:2] for form in column.formats}  # of two that read all, the day was taken
        if "%m" in firsts or not (known.dt.day() > 12).any() if "%d" in firsts else False:
            note += "; WARNING: day and month may be the other way round"
    return column.model_copy(update=more), note


def _split(
    known: dict[str, pl.Series], target: str, classes: list[str], features: list[str],
    time: str | None, group: str | None,
) -> tuple[str | None, dict[str, str], str]:  # fmt: skip
    """The column that says when a row came to be, the split, and why."""

    def rank(name: str) -> tuple[bool, bool, int]:
        return bool(re.search(TIMELY, name)), known[name].is_sorted(), known[name].n_unique()

    whens = [name for name in features if name and known[name].dtype == pl.Datetime]
    whens = [n for n in whens if not known[n].has_nulls() and not re.search(BIRTH, n)]
    time = time or max((n for n in whens if rank(n)[2] >= 10), key=rank, default=None)
    random = {"by": "stratified"}
    if group:
        return time, {"by": "group", "column": group}, f"no {group!r} is on both sides, as asked"
    if time is None or known[time].has_nulls():
        return (
            time,
            random,
            "at random: no datetime that has a name and no gaps says when a row came to be",
        )
    # The first thresholds come from splitting the older part once more, so three parts matter.
    when = known[time].sort()
    first, second = when[int(0.64 * len(when))], when[int(0.8 * len(when))]
    later = (known[time] >= first).cast(pl.Int8) + (known[time] >= second).cast(pl.Int8)
    parts = [known[target].filter(later == part) for part in range(3)]
    if min(map(len, parts)) < 5 or min(p.n_unique() for p in parts) < len(classes):
        return time, random, f"WARNING: at random, as {time!r} would part whole classes"
    why = f"the newest fifth by {time!r}, from {second} on, is held out; --time names another"
    return time, {"by": "time", "column": time}, why


def _list(words: Iterable[str]) -> str:
    return ", ".join(map(repr, words))
