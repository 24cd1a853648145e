"""Subjects: whose rows are these? Found where a column names someone whose rows are alike.

Rows of one patient, customer or firm on both sides of a split let a model recognize the subject
instead of learning about it (Roberts et al., 2017; Saeb et al., 2017).
"""

import re
from typing import NamedTuple

import polars as pl
from scipy.stats import f as f_distribution

from ..contract.column_names import KNOWN_WHEN_USED, words

MIN_SUBJECTS = 12  # so that a fifth of them is more than a couple
MAX_STEADY = 0.1  # of a column's variance is within subjects, for it to hardly vary there
MIN_STEADY_SHARE = 0.25  # of the columns must hardly vary within subjects
MAX_TARGET_WITHIN = 0.7  # of the target's variance is within subjects, for the target to count
MIN_SUBJECTS_OF_CLASS = 5  # so that no class is on one side alone
# Values of a column, and its rank correlation with labels, that make these a quantity.
MANY_VALUES = 20
MIN_RANK_CORRELATION = 0.8
MAX_GAP_SHARE = 0.5  # of the rows may not say whose they are
MAX_NAMED_SHARE = 0.9  # subjects per row, of a column with the name of an identifier
MAX_RUNS = 1.02  # of equal values in the order of the file, per subject, for rows to stand together
MAX_CHANCE = 1e-6  # of a target without subjects to vary so little within them
# Two columns are the same in other words if one has nearly as many values as there are subjects,
# and both together hardly more.
MIN_RENAMED_SHARE = 0.9
MAX_RENAMED_PAIRS = 1.1
MIN_PAIRS_PER_VALUE = 1.5  # if values begin anew at every site
SUBJECT_NAME = re.compile(
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
        time: The name of the column that says when a row was created; it is never the subject.
        classified: Whether the target is a class; each must have `MIN_SUBJECTS_OF_CLASS` subjects.

    Returns:
        The subject; if there are only ones that are `too_few` to split by, one of these.
    """
    subjects: list[Subject] = []
    for name, values in columns.items():
        if name in (target, time) or not _is_candidate(name, values):
            continue
        has_subject_name = bool(SUBJECT_NAME.search(name))
        is_known = values.is_not_null()
        rows = {other: column.filter(is_known) for other, column in columns.items()}
        too_few = _too_few(rows[name], rows[target], classified=classified)
        if too_few and not has_subject_name:
            continue
        subject = _if_alike(name, rows[name], rows, target, has_subject_name=has_subject_name)
        if subject is None and has_subject_name and not too_few:
            subject = _with_site(name, rows, target, time)
        if subject and (not too_few or subject.strength >= 1 - MAX_STEADY):
            subjects.append(subject._replace(too_few=too_few))
    return max(subjects, key=lambda subject: (not subject.too_few, subject.strength), default=None)


def _is_candidate(name: str, values: pl.Series) -> bool:
    """Check whether a column repeats, and looks like an identifier."""
    known = values.drop_nulls()
    is_whole = known.dtype.is_integer()
    if known.dtype.is_float():
        is_whole = bool((known % 1 == 0).all())
    parts = words(name)
    singular = [word.removesuffix("s") for word in parts]
    if KNOWN_WHEN_USED & {*parts, *singular}:
        return False
    has_gaps = len(known) < (1 - MAX_GAP_SHARE) * len(values)
    if has_gaps or not (is_whole or known.dtype == pl.String):
        return False
    subjects = known.n_unique()
    if SUBJECT_NAME.search(name):
        return 2 <= subjects <= MAX_NAMED_SHARE * len(known)
    if not MIN_SUBJECTS <= subjects <= len(known) / 2:
        return False
    if not is_whole and not known.unique().str.contains(CODES).all():
        return False
    stand_together = known.rle_id().n_unique() <= MAX_RUNS * subjects
    counts = known.value_counts()["count"]
    are_equally_many = counts.min() == counts.max()
    return bool(stand_together or are_equally_many)


def _too_few(subjects: pl.Series, y: pl.Series, *, classified: bool) -> str:
    """Return why a split by subjects would have too few on a side; empty if it would not."""
    count = subjects.n_unique()
    if count < MIN_SUBJECTS:
        return f"there are only {count} of them"
    if classified:
        fewest = _fewest_subjects_of_class(subjects, y)
        if fewest < MIN_SUBJECTS_OF_CLASS:
            return f"a class is in only {fewest} of them"
    return ""


def _with_site(
    name: str, columns: dict[str, pl.Series], target: str, time: str | None
) -> Subject | None:
    """Return the subject, if values of a column name one together with those of another column."""
    values = columns[name]
    subjects: list[Subject] = []
    for other, column in columns.items():
        if other in (target, time) or not SITES & set(words(other)) or column.dtype.is_temporal():
            continue
        table = pl.DataFrame({"value": values, "site": column})
        pairs = table.select(pl.struct("value", "site").rank("dense")).to_series()
        count = pairs.n_unique()
        min_pairs = max(MIN_SUBJECTS, MIN_PAIRS_PER_VALUE * values.n_unique())
        if not min_pairs <= count <= len(pairs) / 2:
            continue
        others = {key: kept for key, kept in columns.items() if key != other}
        subject = _if_alike(name, pairs, others, target, has_subject_name=True)
        if subject:
            reason = f"together with {other!r} it says whose a row is; {subject.reason}"
            subjects.append(subject._replace(reason=reason))
    return max(subjects, key=lambda subject: subject.strength, default=None)


def _if_alike(
    name: str,
    labels: pl.Series,
    columns: dict[str, pl.Series],
    target: str,
    *,
    has_subject_name: bool,
) -> Subject | None:
    """Return the subject, if its rows are alike; without a telling name, in more than the target.

    Args:
        name: The column.
        labels: (n,) its values, or others that distinguish its subjects.
        columns: All columns, (n,) each.
        target: The name of the target.
        has_subject_name: Whether the name is that of an identifier of subjects.
    """
    subjects = labels.rank("dense").cast(pl.UInt32)
    count = subjects.n_unique()
    others = [
        other
        for other, values in columns.items()
        if other not in (name, target) and _can_vary(subjects, values, count)
    ]
    steady = [other for other in others if variance_within(subjects, columns[other]) <= MAX_STEADY]
    if not has_subject_name and any(_rises_with(subjects, columns[other]) for other in steady):
        return None  # rows that are sorted by a quantity
    target_within = variance_within(subjects, columns[target])
    chance = _chance_of_variance(target_within, len(subjects), count)
    steady_target = target_within <= MAX_TARGET_WITHIN and chance <= MAX_CHANCE
    steady_share = len(steady) / max(1, len(others))
    are_enough = has_subject_name or len(steady) >= 2 or len(others) < 4
    many_are_steady = steady_share >= MIN_STEADY_SHARE and are_enough
    if not many_are_steady and not (has_subject_name and steady_target):
        return None
    reasons = []
    if steady:
        verb = "vary" if len(steady) > 1 else "varies"
        reasons.append(f"{_list_some(steady)} hardly {verb} within it")
    if steady_target and target_within > MAX_STEADY:
        reasons.append(f"the target varies {1 - target_within:.0%} less within it than overall")
    elif steady_target:
        reasons.append("the target hardly varies within it")
    strength = steady_share + max(0.0, 1 - target_within)
    return Subject(name, " and ".join(reasons), strength)


def _can_vary(subjects: pl.Series, values: pl.Series, count: int) -> bool:
    """Check whether a column could vary within subjects: no time, row number or other name."""
    if values.dtype.is_temporal():
        return False
    max_values = len(values) if values.dtype.is_float() else len(values) - 1
    if not 1 < values.n_unique() <= max_values:
        return False
    return not _renames(subjects, values, count)


def _chance_of_variance(within: float, n: int, count: int) -> float:
    """Return the p-value of the F test, from the mean square within subjects over the whole one."""
    if within <= 0:
        return 0.0
    # F = between / within, both as mean squares; the whole one is their weighted mean.
    between = ((n - 1) - (n - count) * within) / (count - 1)
    return float(f_distribution.sf(between / within, count - 1, n - count))


def variance_within(subjects: pl.Series, values: pl.Series) -> float:
    """Return the mean square of a column within subjects over the whole one: 1 by chance.

    For categories, Gini's: how often two rows differ.

    Args:
        subjects: (n,) whose each row is.
        values: (n,) numbers or categories.
    """
    table = pl.DataFrame({"subject": subjects, "value": values}).drop_nulls()
    n = table.height
    count = table["subject"].n_unique()
    if n <= count or n < 2:
        return 1.0
    if values.dtype.is_numeric():
        value = pl.col("value").cast(pl.Float64)
        inside = float(table.select(((value - value.mean().over("subject")) ** 2).sum()).item())
        whole = float(table.select(((value - value.mean()) ** 2).sum()).item())
    else:
        sizes = table.group_by("subject", "value").len().with_columns(square=pl.col("len") ** 2)
        by_subject = sizes.group_by("subject").agg(pl.col("len").sum(), pl.col("square").sum())
        inside = n - float((by_subject["square"] / by_subject["len"]).sum())
        whole = n - float((table["value"].value_counts()["count"] ** 2).sum()) / n
    if whole <= 0:
        return 1.0
    return (inside / (n - count)) / (whole / (n - 1))


def _fewest_subjects_of_class(subjects: pl.Series, y: pl.Series) -> int:
    """Return the number of subjects of the class that has the fewest."""
    pairs = pl.DataFrame({"subject": subjects, "y": y}).unique()
    return min(pairs["y"].value_counts()["count"].to_list(), default=0)


def _rises_with(subjects: pl.Series, values: pl.Series) -> bool:
    """Check whether a column rises or falls with the numbers that its rows' subjects have."""
    if not values.dtype.is_numeric() or values.n_unique() <= MANY_VALUES:
        return False
    pairs = pl.DataFrame({"subject": subjects.cast(pl.Float64), "value": values}).drop_nulls()
    correlation = pairs.select(pl.corr("subject", "value", method="spearman")).item()
    return correlation is not None and abs(correlation) > MIN_RANK_CORRELATION


def _renames(subjects: pl.Series, values: pl.Series, count: int) -> bool:
    """Check whether a column says the same in other words, as a name does beside a number."""
    if values.dtype.is_float() or values.n_unique() < MIN_RENAMED_SHARE * count:
        return False
    pairs = pl.DataFrame({"subject": subjects, "value": values}).n_unique()
    return pairs <= MAX_RENAMED_PAIRS * count


def _list_some(names: list[str]) -> str:
    first = ", ".join(map(repr, names[:3]))
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
