"""What the name of a column says about it, by the few words that are safe to go by."""

import re
from typing import NamedTuple


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Words of a name that say when a row was created, or when something in it happened.
TIMES = _set(
    """date dates datetime time timestamp ts stamp created updated modified when day month year yr
    years quarter week period dt datum zeit zeitpunkt monat jahr fecha mes dia año ano anno
    annee année opened closed begin began start started end ended seen joined signup arrival
    departure due expiry expires since until"""
)
TIME_ENDINGS = ("date", "dates", "datum", "datetime", "timestamp")  # of a word, as in saledate
DATES = _set("date datetime timestamp datum ts created updated modified")
NOT_DATES = _set("candidate mandate update validate consolidate accommodate")
# Words that turn it into how long something took, or what it is worth.
DURATIONS = _set(
    """lifetime runtime downtime uptime overtime parttime fulltime playtime value spent elapsed
    duration length life lead wait travel response full part over run down up zone timezone times
    per diff delta taken remaining left days hours minutes seconds months"""
)
YEARS = _set("year yr jahr annee année año ano anno")
# Words beside "year" with which it still is the year of the row, and not of what it is about.
OF_THE_ROW = _set(
    """sold sale sales survey report reported fiscal calendar tax crop school obs observation record
    recorded event incident order accident crash election reference date time start end begin the
    of data"""
)
BIRTH = re.compile(r"(?i)birth|born|dob")
# The name of an identifier, or of the number of a row.
ID = re.compile(
    r"(?i:^(p?ids?|key|index|idx|nr|#|unnamed.*|row[ _.]?(names?|id|nr|num(ber)?|no)?|)$"
    r"|^(obs(ervation)?|seq(uence)?|case|serial|rec(ord)?|line|sample|subject)"
    r"[ _.]?(no?|nr|num(ber)?|id|#)?$"
    r"|^id(no|nr|num|code|case)$"
    r"|^(u|case|pat|unit|dist|sch|sub|hh|stud|cust|rec|doc|inst|site)(id|no|nr|code)$"
    r"|^\w{2,}[a-z](?<!pa)(?<!hum)(?<!val)(?<!ac)(?<!sol)id$"
    r"|^id[ _.-]|[ _.-](id|key|nr|no|number)$|uuid|guid)|[a-z](Id|ID)$"
)

# What whole numbers that differ in every row stand for, if it is all of their name.
THINGS = _set(
    """district school station store shop county municipality zip zipcode postcode fips code invoice
    ticket order account booking transaction receipt document policy claim contract person patient
    customer client user member student pupil employee passenger respondent participant woman man
    child household family firm company plate phone isbn barcode sku"""
)

# Places and things, which will be the same when a model is used, and times.
KNOWN_WHEN_USED = _set(
    """flight fl tail zip zipcode postal postcode city town county country iso state region district
    province area neighborhood neighbourhood address station site location branch store shop school
    clinic hospital center centre team airline carrier route origin dest destination product item
    sku brand mfr manufacturer maker model make type class category group level species genre plan
    package industry sector occupation occ job status year month week day date time hour"""
)


def words(name: str) -> list[str]:
    """Return the words of a name in lower case: `orderDate_2` is order, date, 2."""
    spaced = re.sub(r"([a-z\d])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())


def timely(name: str) -> bool:
    """Check whether a name says that its values are points in time."""
    parts = words(name)
    if DURATIONS & set(parts):
        return False
    if len(parts) > 1 and parts[-1] in {"at", "on"}:
        return True
    if BIRTH.search(name):
        return True
    return any(word in TIMES or _ends_like_a_time(word) for word in parts)


def _ends_like_a_time(word: str) -> bool:
    return word.endswith(TIME_ENDINGS) and word not in NOT_DATES


def dated(name: str) -> bool:
    """Check whether a name says that its values are dates, not merely something about time."""
    return timely(name) and any(
        word in DATES or word.endswith(TIME_ENDINGS) for word in words(name)
    )


def year_of_the_row(name: str) -> bool:
    """Check whether a name says that its values are the years in which the rows were created."""
    parts = {word for word in words(name) if not word.isdigit()}
    return bool(parts & YEARS) and parts <= YEARS | OF_THE_ROW


class _Range(NamedTuple):
    names: frozenset[str]
    lowest: float
    highest: float


# Words of names whose values cannot lie outside of a range.
RANGES = [
    _Range(_set("month mon monat"), 1, 12),
    _Range(_set("weekday dayofweek dow wday"), 0, 7),
    _Range(_set("dayofyear yday doy"), 0, 366),
    _Range(_set("day mday dom dayofmonth"), 1, 31),
    _Range(_set("quarter qtr"), 1, 4),
    _Range(_set("hour hr"), 0, 24),
    _Range(_set("minute"), 0, 60),
    _Range(_set("lat latitude"), -90, 90),
    _Range(_set("lon lng long longitude"), -180, 180),
    _Range(_set("lon lng long longitude"), 0, 360),
    _Range(_set("proportion prob probability share fraction"), 0, 1),
    _Range(_set("percent percentage pct share"), 0, 100),
]


def possible_range(name: str, low: float, high: float) -> tuple[float, float] | None:
    """Return the range that a name allows, if the values from `low` to `high` keep within it."""
    parts = set(words(name)) - {"id"}
    for names, lowest, highest in RANGES:
        if parts & names and lowest <= low and high <= highest:
            return lowest, highest
    return None
