"""Subjects: whose rows are these? Found where a column names someone whose rows are alike.

Rows of one patient, customer or firm on both sides of a split let a model recognise the subject
instead of learning about it (Roberts et al., 2017; Saeb et al., 2017).
"""

import re
from typing import NamedTuple

import polars as pl
from scipy.stats import f as fisher

from .column_names import KNOWN_WHEN_USED, words

FEWEST = 12  # subjects, so that a fifth of them is more than a couple
ALIKE = 0.1  # of a column's variance, at most, is within subjects: it hardly varies there
SHARE = 0.25  # of the columns, at least, that hardly vary within subjects
OF_TARGET = 0.7  # of the target's variance, at most, is within subjects
EACH = 5  # subjects with each class, so that no class is on one side alone
MANY, ORDERED = 20, 0.8  # values of a column, and its rank correlation, that make labels a quantity
SURE = 1e-6  # probability, at most, that a target without subjects varies so little within them
WHO = re.compile(
    r"(?i:(?<![a-z])(subject|patient|person|client|customer|user|member|household|hh|family|child|"
    r"kid|pupil|student|respondent|participant|prof|professor|teacher|employee|individual|animal|"
    r"firm|company|account|donor|mother|woman|owner|player|panel)s?(?![a-z])|"
    r"(?:^|[ _.-]|(?<=[a-z]{3}))(id|nr)$|[ _.-](code|no|num|number)$|^id)|[a-z](Id|ID)$"
)


class Subject(NamedTuple):
    """A column that says whose the rows are, and why that is believed."""

    column: str
    reason: str
    strength: float


def find_subject(
    columns: dict[str, pl.Series], target: str, time: str | None, *, classified: bool
) -> Subject | None:
    """Return the column that says whose the rows are, if rows of one subject are alike.

    A candidate repeats and looks like an identifier: by its name; or its values are whole numbers
    whose rows stand together in the file, or are equally many. Rows are alike if a quarter of the
    other columns hardly varies within subjects, or if the target varies less there than by chance.
    Whether something varies is judged by the mean square within subjects over the whole one, which
    is 1 by chance, however many subjects there are (Fisher's analysis of variance).

    Args:
        columns: Typed columns, (n,) each, the target's included; rows without a target are gone.
        target: Its name.
        time: The name of the column that says when a row came to be, which is nobody's.
        classified: Whether each value of the target has to be there in `EACH` subjects.
    """
    y = columns[target]
    found = [
        subject
        for name, values in columns.items()
        if name not in (target, time)
        and (named := _repeats(name, values)) is not None
        and not (classified and _subjects_of_each(values, y) < EACH)
        and (subject := _alike(name, columns, target, named=named))
    ]
    return max(found, key=lambda subject: subject.strength, default=None)


def _repeats(name: str, values: pl.Series) -> bool | None:
    """Whether a column's name is an identifier's; None if it is no candidate at all."""
    whole = values.dtype.is_integer() or (
        values.dtype.is_float() and bool((values.drop_nulls() % 1 == 0).all())
    )
    parts = words(name)
    known = KNOWN_WHEN_USED & {*parts, *(word.removesuffix("s") for word in parts)}
    if known or not (whole or values.dtype == pl.String) or values.has_nulls():
        return None
    subjects = values.n_unique()
    if not FEWEST <= subjects <= len(values) / 2:
        return None
    if WHO.search(name):
        return True
    if not whole:
        return None
    together = values.rle_id().n_unique() <= 1.02 * subjects
    counts = values.value_counts()["count"]
    balanced = counts.min() == counts.max()
    return False if together or balanced else None


def _alike(name: str, columns: dict[str, pl.Series], target: str, *, named: bool) -> Subject | None:
    """The subject, if its rows are alike; without an identifier's name, in more than the target."""
    subjects = columns[name].rank("dense").cast(pl.UInt32)
    count = subjects.n_unique()
    others = [
        other
        for other, values in columns.items()
        if other not in (name, target)
        and not values.dtype.is_temporal()
        and 1 < values.n_unique() < len(values) + values.dtype.is_float()  # no row numbers
        and not _renames(subjects, values, count)
    ]
    steady = [other for other in others if within(subjects, columns[other]) <= ALIKE]
    rest = within(subjects, columns[target])
    n = len(subjects)
    # F = between / within, both as mean squares; the whole one is their weighted mean.
    between = ((n - 1) - (n - count) * rest) / (count - 1)
    surprise = float(fisher.sf(between / rest, count - 1, n - count)) if rest > 0 else 0.0
    if not named and any(_rises(subjects, columns[other]) for other in steady):
        return None  # rows that are sorted by a quantity
    share = len(steady) / max(1, len(others))
    many = share >= SHARE and (named or len(steady) >= 2 or len(others) < 4)
    if not many and not (named and rest <= OF_TARGET and surprise <= SURE):
        return None
    reasons = []
    if steady:
        reasons.append(
            f"{_shown(steady)} hardly {'vary' if len(steady) > 1 else 'varies'} within it"
        )
    if rest <= OF_TARGET and surprise <= SURE:
        less = f"varies {1 - rest:.0%} less within it than overall"
        reasons.append(f"the target {less if rest > ALIKE else 'hardly varies within it'}")
    return Subject(name, " and ".join(reasons), share + max(0.0, 1 - rest))


def within(subjects: pl.Series, values: pl.Series) -> float:
    """Mean square of a column within subjects over its mean square as a whole: 1 by chance.

    Of categories it is Gini's: how often two rows differ.
    """
    table = pl.DataFrame({"subject": subjects, "value": values}).drop_nulls()
    n, count = table.height, table["subject"].n_unique()
    if n <= count or n < 2:
        return 1.0
    if values.dtype.is_numeric():
        value = pl.col("value").cast(pl.Float64)
        inside = float(table.select(((value - value.mean().over("subject")) ** 2).sum()).item())
        whole = float(table.select(((value - value.mean()) ** 2).sum()).item())
    else:
        sizes = table.group_by("subject", "value").len().with_columns(square=pl.col("len") ** 2)
        of = sizes.group_by("subject").agg(pl.col("len").sum(), pl.col("square").sum())
        inside = n - float((of["square"] / of["len"]).sum())
        whole = n - float((table["value"].value_counts()["count"] ** 2).sum()) / n
    return (inside / (n - count)) / (whole / (n - 1)) if whole > 0 else 1.0


def _subjects_of_each(subjects: pl.Series, y: pl.Series) -> int:
    """In how many subjects the value of a target is that is in the fewest."""
    pairs = pl.DataFrame({"subject": subjects, "y": y}).unique()
    return min(pairs["y"].value_counts()["count"].to_list(), default=0)


def _rises(subjects: pl.Series, values: pl.Series) -> bool:
    """Whether a column rises or falls with the numbers that its rows' subjects have."""
    if not values.dtype.is_numeric() or values.n_unique() <= MANY:
        return False
    pairs = pl.DataFrame({"subject": subjects.cast(pl.Float64), "value": values}).drop_nulls()
    order = pairs.select(pl.corr("subject", "value", method="spearman")).item()
    return order is not None and abs(order) > ORDERED


def _renames(subjects: pl.Series, values: pl.Series, count: int) -> bool:
    """Whether a column says the same as the subject in other words, as a name beside a number."""
    if values.dtype.is_float() or values.n_unique() < 0.9 * count:
        return False
    pairs = pl.DataFrame({"subject": subjects, "value": values}).n_unique()
    return pairs <= 1.1 * count


def _shown(names: list[str]) -> str:
    first = ", ".join(map(repr, names[:3]))
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
