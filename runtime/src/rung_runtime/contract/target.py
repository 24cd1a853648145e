"""Target: the task that its values suggest, and its classes."""

from typing import NamedTuple

import numpy as np
import polars as pl

from ..config import ColumnType, Task
from ..exceptions import UsageError
from ..pipeline.ingest import merged, typed, unreadable
from .draft import INTEGER, Draft

MIN_ROWS = 50  # with a target
MIN_CLASS_ROWS = 10
MAX_INTEGER_CLASSES = 20  # of whole numbers
MANY_WORDS = 20  # different words, from which on they are hardly classes
OTHER = "other"  # what rare classes are merged into


class Target(NamedTuple):
    """The target's values, and what is to be predicted about them."""

    name: str
    values: pl.Series  # (n,) with rare classes merged, null where there is none
    is_known: pl.Series  # (n,) of booleans: whether the row has a target
    task: Task
    classes: list[str]
    rare_classes: dict[str, str | None]


def read_target(
    rows: pl.DataFrame,
    values: pl.Series,
    name: str,
    source: str,
    draft: Draft,
    task: Task | None,
    rare_classes: str | None,
) -> Target:
    """Decide on the task and the classes of a target; its type in the draft may change.

    Args:
        rows: As `problem.data.load` returns them.
        values: (n,) of the target, as the draft types them.
        name: Of the target.
        source: The name of the file.
        draft: Its column of the target may become integers or a category.
        task: What a person says the task is.
        rare_classes: `drop`, `other` or None.

    Raises:
        UsageError: The target cannot be learned, or not as a person says.
    """
    columns = draft.data.columns
    where = f"{source}: the target {name!r}"
    is_number = columns[name].type == "number"
    is_whole = is_number and unreadable(rows[name], INTEGER, draft.data)[0].is_empty()
    rare: dict[str, str | None] = {}
    if rare_classes:
        if is_whole:  # 0.0 and 1.0 are classes 0 and 1
            values = _retype(rows, name, "integer", draft)
        rare = _merge_rare_classes(values.drop_nulls(), where, rare_classes)
        if columns[name].type == "integer" and OTHER in rare.values():
            values = _retype(rows, name, "category", draft)
        values = merged(values, rare)
        is_binary = values.drop_nulls().n_unique() == 2
        task = task or ("binary" if is_binary else "multiclass")
    is_known = values.is_not_null()
    unread = draft.unread.get(name)
    if unread and not unread.is_right_as_words and not rare and values.n_unique() > MANY_WORDS:
        raise UsageError(f"{where} {unread.message.removeprefix('WARNING: ')}")
    unknown_rows = int((~is_known).sum())
    decided, classes = _decide_task(values.filter(is_known), where, task, unknown_rows)
    if classes and is_whole and columns[name].type == "number":
        # Read again, as what is beyond 2**53 was rounded as a float.
        values = _retype(rows, name, "integer", draft)
        decided, classes = _decide_task(values.filter(is_known), where, decided, unknown_rows)
    return Target(name, values, is_known, decided, classes, rare)


def _retype(rows: pl.DataFrame, name: str, kind: ColumnType, draft: Draft) -> pl.Series:
    """Change the type of a column in the draft; return its values."""
    columns = draft.data.columns
    columns[name] = columns[name].model_copy(update={"type": kind})
    return typed(rows.select(rows[name]), draft.data)[name].alias("values")


def _merge_rare_classes(known: pl.Series, where: str, how: str) -> dict[str, str | None]:
    """Return what each class with too few rows becomes: `OTHER`, or None if its rows are dropped.

    Raises:
        UsageError: Merged, they still have too few rows; or the target is a fraction.
    """
    if known.dtype.is_float() and (known % 1 != 0).any():
        raise UsageError(f"{where} is a number with fractions, so --rare-classes does not apply")
    counts = known.cast(pl.String).alias("values").value_counts()
    rare = counts.filter(counts["count"] < MIN_CLASS_ROWS)
    rows = int(rare["count"].sum())
    if how == "other" and rare.height and rows < MIN_CLASS_ROWS:
        raise UsageError(
            f"{where} has {rows} rows in all of its rare classes, too few to be one class: "
            "use --rare-classes drop"
        )
    if how == "other" and OTHER in set(counts["values"]) - set(rare["values"]):
        raise UsageError(f"{where} has a class {OTHER!r} already: use --rare-classes drop")
    return dict.fromkeys(sorted(rare["values"]), OTHER if how == "other" else None)


def _decide_task(
    known: pl.Series, where: str, requested: Task | None, unknown_rows: int
) -> tuple[Task, list[str]]:
    """Return the task that the values of the target suggest, and its classes.

    Raises:
        UsageError: The target cannot be learned, or not as the requested task.
    """
    counts = known.value_counts(sort=True).cast({"values": pl.String})
    n = len(counts)
    rarest, rarest_rows = counts.row(-1) if n else ("", 0)
    is_numeric = known.dtype.is_numeric()
    is_whole = is_numeric and not (known.cast(pl.Float64) % 1 != 0).any()
    are_few = n <= MAX_INTEGER_CLASSES and (n == 2 or rarest_rows >= MIN_CLASS_ROWS)
    is_discrete = not is_numeric or (is_whole and are_few)
    task: Task = "multiclass"
    if requested:
        task = requested
    elif not is_discrete:
        task = "regression"
    elif n == 2:
        task = "binary"
    problem = None
    if len(known) < MIN_ROWS:
        problem = f"is known in {len(known)} rows, too few to learn from: bring {MIN_ROWS}"
    elif n < 2:
        problem = f"is {rarest!r} {_nothing_to_learn(len(known), unknown_rows)}"
    elif known.dtype.is_temporal():
        problem = "is a datetime; predict a number, such as the days until then"
    elif _is_name(known, n):
        problem = "is different in every row, as a name is"
    elif task == "regression" and not is_numeric:
        problem = "is not a number, so this cannot be a regression"
    elif task != "regression" and (task == "binary") != (n == 2):
        problem = f"has {n} values: not {task}"
    elif task != "regression" and rarest_rows < MIN_CLASS_ROWS:
        rare = int((counts["count"] < MIN_CLASS_ROWS).sum())
        problem = _too_few_rows(n, rare, rarest, rarest_rows)
    if problem:
        raise UsageError(f"{where} {problem}")
    if task == "regression":
        return task, []
    classes = known.unique().sort().cast(pl.String).to_list()
    if known.dtype == pl.String and task == "binary":
        classes.sort(key=lambda name: name == rarest)  # what people look for is rare
    return task, classes


def _nothing_to_learn(known_rows: int, unknown_rows: int) -> str:
    """Explain what is wrong with a single value; rows without one may be the other class."""
    if not unknown_rows:
        return "in every row, so there is nothing to tell apart"
    return (
        f"in each of the {known_rows:,} rows that have one, and {unknown_rows:,} rows have none: "
        "if that means something, write it down in problem/data.py"
    )


def _is_name(known: pl.Series, different: int) -> bool:
    """Check whether the values name rows: a price may differ in every row, a row number does."""
    if different != len(known) or known.dtype.is_float():
        return False
    if known.dtype.is_integer():
        return float(np.ptp(known.to_numpy())) == different - 1
    return True


def _too_few_rows(classes: int, rare: int, rarest: str, rarest_rows: int) -> str:
    if rare == classes:
        return (
            f"has {classes} classes, none of them in {MIN_CLASS_ROWS} rows: "
            "predict something coarser"
        )
    rows = "1 row" if rarest_rows == 1 else f"{rarest_rows} rows"
    return (
        f"has {classes} classes, {rarest!r} in {rows} only: bring {MIN_CLASS_ROWS} of each, or use "
        f"--rare-classes drop or other for the {rare} with fewer"
    )
