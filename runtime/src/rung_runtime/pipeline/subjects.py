"""Subjects: whose rows are these? Found where a column names someone whose rows are alike.

Rows of one patient, customer or firm on both sides of a split let a model recognise the subject
instead of learning about it (Roberts et al., 2017; Saeb et al., 2017).
"""

import re
from typing import NamedTuple

import polars as pl
from scipy.stats import f as fisher

from ..contract.column_names import KNOWN_WHEN_USED, words

FEWEST = 12  # subjects, so that a fifth of them is more than a couple
ALIKE = 0.1  # of a column's variance, at most, is within subjects: it hardly varies there
SHARE = 0.25  # of the columns, at least, that hardly vary within subjects
OF_TARGET = 0.7  # of the target's variance, at most, is within subjects
EACH = 5  # subjects with each class, so that no class is on one side alone
MANY, ORDERED = 20, 0.8  # values of a column, and its rank correlation, that make labels a quantity
MOST_GAPS = 0.5  # of the rows may not say whose they are
ALONE = 0.9  # subjects a row, at most, of a column with the name of an identifier
SURE = 1e-6  # probability, at most, that a target without subjects varies so little within them
WHO = re.compile(
    r"(?i:(?<![a-z])(subject|patient|person|client|customer|user|member|household|hh|family|child|"
    r"kid|pupil|student|respondent|participant|prof|professor|teacher|employee|individual|animal|"
    r"firm|company|account|donor|mother|woman|owner|player|panel|email|e[ _-]?mail|phone|mobile|"
    r"ssn|mrn|iban|uuid|guid|login|username|surname|kunde|kundin|nutzer|mitarbeiter|proband|"
    r"schüler|haushalt|cliente|paciente|usuario|alumno|empleado|élève|salarié)s?(?![a-z])|"
    r"(?:^[pu]?|[ _.-]|(?<=[a-z]{3}))(id|nr|nummer|numero|número|uuid|guid)$|"
    r"[ _.-](code|no|num|number)$|^id)|[a-z](Id|ID|UUID)$"
)
# Where subjects may be numbered anew.
SITES = frozenset(
    re.findall(
        r"\w+",
        "site station location branch school clinic hospital center centre ward study cohort "
        "region city country town village litter class",
    )
)
# Words that are numbered, such as C-0017, or drawn from so many that none comes twice by chance.
CODES = r"^[^\W\d_]{0,8}[-_/#. ]?\d+$|^[0-9a-fA-F]{8}[0-9a-fA-F-]*$"


class Subject(NamedTuple):
    """A column that says whose the rows are, and why that is believed."""

    column: str
    reason: str
    strength: float
    too_few: str = ""  # why no split can go by it, if none can


def find_subject(
    columns: dict[str, pl.Series], target: str, time: str | None, *, classified: bool
) -> Subject | None:
    """Return the column that says whose the rows are, if rows of one subject are alike.

    A candidate repeats and looks like an identifier: by its name; or its values are whole numbers
    or numbered words whose rows stand together in the file, or are equally many. Rows are alike if
    a quarter of the other columns hardly varies within subjects, or if the target varies less there
    than by chance. Whether something varies is judged by the mean square within subjects over the
    whole one, which is 1 by chance, however many subjects there are (Fisher's analysis of
    variance). Numbers that begin anew at every site name a subject together with the site.

    Args:
        columns: Typed columns, (n,) each, the target's included; rows without a target are gone.
        target: Its name.
        time: The name of the column that says when a row came to be, which is nobody's.
        classified: Whether each value of the target has to be there in `EACH` subjects.

    Returns:
        The subject; if there are only ones that are `too_few` to split by, one of these.
    """
    found: list[Subject] = []
    for name, values in columns.items():
        if name in (target, time) or (named := _repeats(name, values)) is None:
            continue
        known = values.is_not_null()
        rows = {other: column.filter(known) for other, column in columns.items()}
        too_few = _too_few(rows[name], rows[target], classified=classified)
        if too_few and not named:
            continue
        subject = _alike(name, rows[name], rows, target, named=named)
        if subject is None and named and not too_few:
            subject = _of_pairs(name, rows, target, time)
        if subject and (not too_few or subject.strength >= 1 - ALIKE):
            found.append(subject._replace(too_few=too_few))
    return max(found, key=lambda one: (not one.too_few, one.strength), default=None)


def _repeats(name: str, values: pl.Series) -> bool | None:
    """Whether a column's name is an identifier's; None if it is no candidate at all."""
    known = values.drop_nulls()
    whole = known.dtype.is_integer() or (known.dtype.is_float() and bool((known % 1 == 0).all()))
    parts = words(name)
    if KNOWN_WHEN_USED & {*parts, *(word.removesuffix("s") for word in parts)}:
        return None
    if not (whole or known.dtype == pl.String) or len(known) < (1 - MOST_GAPS) * len(values):
        return None
    subjects = known.n_unique()
    if WHO.search(name):
        return True if 2 <= subjects <= ALONE * len(known) else None
    if not FEWEST <= subjects <= len(known) / 2:
        return None
    if not whole and not known.unique().str.contains(CODES).all():
        return None
    together = known.rle_id().n_unique() <= 1.02 * subjects
    counts = known.value_counts()["count"]
    balanced = counts.min() == counts.max()
    return False if together or balanced else None


def _too_few(subjects: pl.Series, y: pl.Series, *, classified: bool) -> str:
    """Why a split by subjects would have too few of them on a side; empty if it would not."""
    count = subjects.n_unique()
    if count < FEWEST:
        return f"there are only {count} of it"
    if classified and (each := _subjects_of_each(subjects, y)) < EACH:
        return f"a class is in only {each} of it"
    return ""


def _of_pairs(
    name: str, columns: dict[str, pl.Series], target: str, time: str | None
) -> Subject | None:
    """The subject, if the values of a column name one together with those of another column."""
    values = columns[name]
    found: list[Subject] = []
    for other, column in columns.items():
        if other in (target, time) or not SITES & set(words(other)) or column.dtype.is_temporal():
            continue
        table = pl.DataFrame({"one": values, "other": column})
        pairs = table.select(pl.struct("one", "other").rank("dense")).to_series()
        count = pairs.n_unique()
        if not max(FEWEST, 1.5 * values.n_unique()) <= count <= len(pairs) / 2:
            continue
        rest = {key: kept for key, kept in columns.items() if key != other}
        if subject := _alike(name, pairs, rest, target, named=True):
            reason = f"together with {other!r} it says whose a row is; {subject.reason}"
            found.append(subject._replace(reason=reason))
    return max(found, key=lambda one: one.strength, default=None)


def _alike(
    name: str, whose: pl.Series, columns: dict[str, pl.Series], target: str, *, named: bool
) -> Subject | None:
    """The subject, if its rows are alike; without an identifier's name, in more than the target.

    Args:
        name: The column.
        whose: (n,) its values, or what tells its subjects apart.
    """
    subjects = whose.rank("dense").cast(pl.UInt32)
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
