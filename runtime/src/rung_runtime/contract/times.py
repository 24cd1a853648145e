"""Times: which words or numbers are points in time, and in which formats."""

from datetime import UTC, datetime, timedelta

import polars as pl

from ..config import Column
from ..pipeline.ingest import EPOCHS, QUARTER, YEAR, YEAR_OF_CENTURY, read_time, unreadable
from .column_names import words as split_name
from .column_names import year_of_the_row
from .draft import NUMBER, ColumnWords, Draft

DAYS = ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"]
DAYS += ["%d-%B-%Y", "%d %B %Y", "%B %d, %Y"]
SHORT_DAYS = [day.replace("%Y", "%y") for day in DAYS]
LONG_DAYS = [*DAYS, "%Y-%m-%d", "%Y/%m/%d"]
HOURS = ["%H:%M", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p"]
CLOCKS = [""]
CLOCKS += [
    between + hour + zone
    for between in (" ", "T", ", ")
    for hour in HOURS
    for zone in ("", "%#z", " UTC")
]
# As e-mail (RFC 2822), HTTP, C's ctime and Apache's log write them.
MAIL = [
    "%a, %d %B %Y %H:%M:%S%.f %#z",
    "%d %B %Y %H:%M:%S%.f %#z",
    "%a, %d %B %Y %H:%M:%S GMT",
    "%a %B %e %H:%M:%S %Y",
    "%a %B %e %H:%M:%S UTC %Y",
    "%d/%B/%Y:%H:%M:%S %#z",
    "%a, %d %B %Y",
    "%a, %B %d, %Y",
]
# A version or a ratio may look like one of these by accident: read under a name of time alone.
DOUBTFUL = ["%Y-%m", "%Y/%m", "%m/%Y", "%Y%m", "%Y.%m.%d", "%m/%y", "%B-%y", "%B %y", "%y%m%d"]
MONTHS = [*DOUBTFUL, "%Y%m%d", "%B %Y", "%B-%Y", "%Y %B", QUARTER]
SURE = [day + clock for day in LONG_DAYS for clock in CLOCKS]
SURE += MAIL
SHORT = [day + clock for day in SHORT_DAYS for clock in CLOCKS]
UNSURE = [*SHORT, *MONTHS]
# Two-digit years first: %Y would read the 13 in 05/06/13 as the year 13.
FORMATS = [*SHORT, *SURE, *MONTHS]
DIGITS = "%Y%m%d%H%M%S"

MAX_FORMATS = 6  # of a column
SAMPLE = 20  # words that a format must read before all of them are tried
FIRST_YEAR = 1600
LAST_YEAR = 2300
FIRST_EPOCH_SECONDS = 3e8  # a count from before 1979 is more likely a number
MIN_YEARS = 10  # in a row, of whole numbers under a bare name of time
# 1 to 15 may be the years of a study.
FIRST_SHORT_YEAR = 50
LAST_SHORT_YEAR = 99


def read_as_dates(column: ColumnWords, draft: Draft) -> tuple[Column, pl.Series] | None:
    """Return the type of words that are dates, and the few that are not; None if most are not."""
    words = column.words
    formats = date_formats(words, timely_name=column.is_timely)
    if not formats:
        return None
    dates = Column(type="datetime", formats=formats)
    odd, _ = unreadable(words, dates, draft.data)
    has_numbers = len(unreadable(odd, NUMBER, draft.data)[0]) < len(odd)
    if len(odd) == len(words) or has_numbers or not column.can_be_gaps(odd):
        return None
    return dates, odd


def date_formats(words: pl.Series, *, timely_name: bool) -> list[str]:
    """Return the formats that together read the words; the one that reads most is taken first."""
    allowed = FORMATS if timely_name else SURE
    chosen: list[str] = []
    while len(words) and len(chosen) < MAX_FORMATS:
        sample = words.head(SAMPLE)
        has_clock = sample.str.contains(":").any()
        hits = _readable(sample, [form for form in allowed if ("%M" in form) == has_clock]).sum()
        readable = _readable(words, [form for form in hits.columns if hits[form][0]])
        counts = {form: readable[form].sum() or 0 for form in readable.columns}
        if not any(counts.values()):
            break
        best = max(counts, key=lambda form: counts[form])
        chosen.append(best)
        words = words.filter(~readable[best].fill_null(False))
    return sorted(chosen, key=FORMATS.index)


def _readable(words: pl.Series, formats: list[str]) -> pl.DataFrame:
    """Return, by format, whether it reads each word as a plausible date."""
    in_two_days = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=2)
    dates = words.to_frame("word").select(
        [read_time(pl.col("word"), form).alias(form) for form in formats]
    )
    readable = dates.select(pl.all().dt.year().is_between(FIRST_YEAR, LAST_YEAR))
    unsure = [form for form in formats if form in UNSURE]
    if unsure:
        is_past = dates.select(pl.col(unsure).dt.replace_time_zone(None) <= in_two_days)
        # A format that would bring a date into the future is not one of this column.
        wrong = [form for form in unsure if not is_past[form].all()]
        readable = readable.with_columns(pl.lit(None, pl.Boolean).alias(form) for form in wrong)
    return readable


def read_as_years(column: ColumnWords) -> Column | None:
    """Return a datetime, if words are years, whole or decimal, and the name agrees."""
    names_years = year_of_the_row(column.name)
    if column.is_target or not (column.is_timely or names_years):
        return None
    words = column.words
    if len(words) and column.is_timely and words.str.contains(r"^\d{9,16}$").all():
        return epoch_column(*lowest_and_highest(words.cast(pl.Float64)), whole=True)
    if not len(words) or not words.str.contains(r"^\d{1,4}(\.\d+)?$").all():
        return None
    values = words.cast(pl.Float64)
    low, high = lowest_and_highest(values)
    are_whole = bool((values % 1 == 0).all())
    are_padded = words.str.contains(r"^\d\d$").all() and words.str.contains("^0").any()
    if are_padded and names_years:
        last = values.filter(values < FIRST_SHORT_YEAR).to_numpy().max()
        is_future = last > datetime.now(UTC).year % 100
        return None if is_future else Column(type="datetime", formats=[YEAR_OF_CENTURY])
    has_every_year = len(words) >= MIN_YEARS and high - low + 1 == values.n_unique()
    has_bare_name = set(split_name(column.name)) <= {"time", "date", "period"}
    are_years_of_the_row = has_bare_name and has_every_year and low >= FIRST_YEAR
    if names_years or not are_whole or are_years_of_the_row:
        return year_column(low, high, whole=are_whole)
    return None


def epoch_column(low: float, high: float, *, whole: bool) -> Column | None:
    """Return a datetime, if values in this range can be what a clock counts, none in the future.

    Seconds since 1970, or their thousandths or millionths, from 1979 on; or all digits of a time.
    """
    now = datetime.now(UTC)
    if not whole:
        return None
    for form, units_per_second in EPOCHS.items():
        is_past = high < now.timestamp() * units_per_second
        if FIRST_EPOCH_SECONDS * units_per_second <= low and is_past:
            return Column(type="datetime", formats=[form])
    if low >= FIRST_YEAR * 1e10 and high < float(f"{now:%Y%m%d%H%M%S}"):
        return Column(type="datetime", formats=[DIGITS])
    return None


def year_column(low: float, high: float, *, whole: bool) -> Column | None:
    """Return a datetime, if values in this range can be years, none of them in the future."""
    this_year = datetime.now(UTC).year
    if low >= FIRST_YEAR and high < this_year + 2:
        return Column(type="datetime", formats=[YEAR])
    if whole and FIRST_SHORT_YEAR <= low < high <= LAST_SHORT_YEAR:
        return Column(type="datetime", formats=[YEAR_OF_CENTURY])
    return None


def lowest_and_highest(values: pl.Series) -> tuple[float, float]:
    """Return the lowest and the highest of numbers without gaps."""
    numbers = values.to_numpy()
    return float(numbers.min()), float(numbers.max())
