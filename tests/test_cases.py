"""Files like those that people reported in public: read, or told for what they are.

Each input is made here, of the kind that a tracker reports (named beside it); nothing is copied.
"""

from __future__ import annotations

import gzip
import random
import re
import zipfile
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest

N = 400
Module = Callable[[str], ModuleType]
Use = Callable[..., SimpleNamespace]
START = datetime(2017, 1, 1)


@pytest.fixture
def use(module: Module, tmp_path: Path) -> Use:
    """Read a file as `ml data use` does, and see that it keeps the contract drawn from it."""

    def use(content: str | bytes, name: str = "t.csv", **options: Any) -> SimpleNamespace:
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return used(module, file, **options)

    return use


def used(module: Module, file: Path, target: str = "y", **options: Any) -> SimpleNamespace:
    """Take the steps of `ml data use` up to the first model."""
    ingest = module("pipeline.ingest")
    onboard = module("contract.onboard")
    separator = onboard.detect_delimiter(file)
    rows = ingest.read(file, separator)
    named = {"source": file.name, "separator": separator}
    data, notes = module("contract.propose").infer(rows, target, **named, **options)
    onboard.require_kept(rows, data)
    return SimpleNamespace(data=data, notes=notes, frame=ingest.typed(rows, data))


def text(separator: str = ",", end: str = "\n", n: int = N, **columns: Any) -> str:
    """Lines of a table: x, a category z, the columns given, and a target y of yes and no."""
    r = random.Random(1)
    base: dict[str, Any] = {
        "x": lambda: f"{r.gauss(50, 10):.3f}".replace(".", ",.."[separator != ";"])
    }
    base |= {"z": lambda: r.choice("abc"), **columns, "y": lambda: r.choice(["yes", "no"])}
    made = [
        [make(r) if make.__code__.co_argcount else make() for make in base.values()]
        for _ in range(n)
    ]
    return end.join([separator.join(base), *(separator.join(map(str, row)) for row in made), ""])


def warned(proposal: SimpleNamespace, column: str) -> bool:
    """Whether a person is warned about a column."""
    return "WARNING" in proposal.notes[column]


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("($708.00)", -708),  # readr#444
        ("-$744.00", -744),  # actual#807
        ("$-744.00", -744),
        ("$(5.5)", -5.5),
        ("744.00-", -744),
        ("\u2212744.5", -744.5),
        ("CHF 1'234.50", 1234.5),
        ("1\u2019234.50", 1234.5),
        ("12,34,567.25", 1234567.25),
        ("1\u202f234.5", 1234.5),
        ("1 234 567.5", 1234567.5),
        ("R$ 12.5", 12.5),
        ("12.5 EUR", 12.5),
        ("12.5 %", 12.5),
        ("1.5e3", 1500),
    ],
)
def test_a_number_is_read_however_it_is_written(module: Module, word: str, value: float) -> None:
    assert float(module("pipeline.ingest").plain_number(word)) == value


SPACES = " " * 98


@pytest.mark.parametrize(
    "word", [f"$({SPACES}", f"${SPACES}x", f"1{SPACES}x", "1 " * 2_000_000, "1." * 2_000_000]
)
def test_no_value_that_is_sent_takes_long_to_be_no_number(module: Module, word: str) -> None:
    """ "$", 98 spaces and "x" took four seconds, in which nobody else was answered."""
    ingest = module("pipeline.ingest")
    assert ingest.plain_number(word) == word
    # What gives spaces back is tried at each place where it could: the fifth power of their number.
    assert not re.search(r"\\s[*+](?![+])", ingest.WRITTEN.pattern)


@pytest.mark.parametrize(
    "word", ["(-5)", "--5", "(5", "5)", "-5-", "1,2345", "12,3456", "0,123", "1O5", "<0.1", "84 kg"]
)
def test_what_is_no_number_stays_as_it_came(module: Module, word: str) -> None:
    ingest = module("pipeline.ingest")
    data = module("config").Data.model_construct(missing_values=[""], decimal=".", ignored={})
    number = module("config").Column(type="number")
    bad, _ = ingest.unreadable(pl.Series([word, "1"]), number, data)
    assert bad.to_list() == [word]


@pytest.mark.parametrize("wrap", ["(${:.2f})", "-${:.2f}", "{:.2f}-", "\u2212{:.2f}"])
def test_losses_in_an_account_are_negative(use: Use, wrap: str) -> None:
    def amount(r: random.Random) -> str:
        value = r.uniform(1, 900)
        return wrap.format(value) if r.random() < 0.4 else f"${value:.2f}"

    proposal = use(text(amount=amount))
    assert proposal.data.columns["amount"].type == "number"
    assert (proposal.frame["amount"] < 0).mean() == pytest.approx(0.4, abs=0.1)


def test_european_thousands_with_decimals_are_read(use: Use) -> None:  # polars#18797
    proposal = use(
        text(";", preis=lambda r: f"{r.randint(1, 9)}.{r.randint(0, 999):03},{r.randint(10, 99)}")
    )
    assert proposal.data.decimal == ","
    assert proposal.frame["preis"].min() > 1000


def test_three_digits_after_a_point_beside_shorter_numbers_are_thousands(use: Use) -> None:
    def sales(r: random.Random) -> str:  # jasp-desktop#403
        value = r.randint(100, 9999)
        return f"{value:,}".replace(",", ".")

    lines = [f"{sales(r)};{'ab'[n % 2]}" for r in [random.Random(3)] for n in range(N)]
    proposal = use("\n".join(["umsatz;y", *lines, ""]))
    assert proposal.frame["umsatz"].max() > 5000
    assert warned(proposal, "umsatz")
    commas = use("\n".join(["sales,y", *(line.replace(";", ",") for line in lines), ""]))
    assert commas.frame["sales"].min() < 10  # with commas between columns a point is a point
    assert warned(commas, "sales")


def test_currencies_that_are_mixed_are_pointed_out(use: Use) -> None:
    proposal = use(text(cost=lambda r: f"{r.choice('$€')}{r.randint(1, 900)}.5"))
    assert proposal.data.columns["cost"].type == "number"
    assert "signs are mixed" in proposal.notes["cost"]


# --- gaps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", ["<0.1", ">90", "1O5", "84 kg", "6.56M", "12+", "3-5"]
)  # naniar#67, owid/etl#6565
def test_a_word_that_holds_digits_is_never_a_gap(use: Use, odd: str) -> None:
    proposal = use(text(lab=lambda r: odd if r.random() < 0.01 else f"{r.uniform(1, 90):.2f}"))
    assert proposal.data.missing_values == [""]
    assert all(not column.missing_values for column in proposal.data.columns.values())
    assert "WARNING: looks like numbers" in proposal.notes["lab"]
    assert repr(odd) in proposal.notes["lab"]


def test_a_unit_behind_every_number_is_pointed_out(use: Use) -> None:
    proposal = use(text(weight=lambda r: f"{r.uniform(40, 120):.1f} kg"))
    assert "WARNING: looks like numbers" in proposal.notes["weight"]
    assert "identifier" not in proposal.notes["weight"]


def test_na_is_a_country_and_a_gap(use: Use) -> None:  # pandas#10647
    proposal = use(
        text(
            country=lambda r: r.choice(["NA", "ZA", "BW", "NE", "NC"]),
            income=lambda r: "NA" if r.random() < 0.1 else r.randint(100, 900),
        )
    )
    assert "NA" in proposal.data.columns["country"].categories
    assert not proposal.data.columns["country"].nullable
    assert proposal.data.columns["income"].type == "integer"
    assert proposal.data.columns["income"].missing_values == ["NA"]
    assert "NA" not in proposal.data.missing_values


def test_na_is_a_region_among_longer_codes(use: Use) -> None:
    proposal = use(text(region=lambda r: r.choice(["EU", "NA", "APAC", "LATAM"])))
    assert "NA" in proposal.data.columns["region"].categories
    assert warned(proposal, "region")


@pytest.mark.parametrize("error", ["#DIV/0!", "#VALUE!", "#REF!", "#N/A"])
def test_what_a_spreadsheet_could_not_compute_is_a_gap(use: Use, error: str) -> None:
    """These words mean nothing else, although one holds a digit; and a note warns of them."""
    proposal = use(text(share=lambda r: error if r.random() < 0.1 else f"{r.random():.2f}"))
    assert proposal.data.columns["share"].type == "number"
    assert error == "#N/A" or warned(proposal, "share")


def test_categories_that_differ_in_capitals_alone_are_pointed_out(use: Use) -> None:
    proposal = use(text(channel=lambda r: r.choice(["Web", "web ", "Shop"])))
    assert "'Web' and 'web' differ in capitals alone" in proposal.notes["channel"]
    assert not warned(proposal, "z")


def test_na_among_words_is_a_gap_everywhere(use: Use) -> None:
    proposal = use(text(colour=lambda r: r.choice(["NA", "red", "green"])))
    assert "NA" in proposal.data.missing_values
    assert proposal.data.columns["colour"].nullable


def test_a_dash_is_a_rhesus_factor_and_a_gap(use: Use) -> None:  # qsv#4175
    proposal = use(
        text(
            rh=lambda r: r.choice("+--"),
            crp=lambda r: "-" if r.random() < 0.1 else f"{r.uniform(0, 9):.1f}",
        )
    )
    assert proposal.data.columns["rh"].categories == ["+", "-"]
    assert proposal.data.columns["crp"].missing_values == ["-"]


def test_none_as_a_number_of_drinks_is_pointed_out(use: Use) -> None:
    proposal = use(text(drinks=lambda r: r.choice(["None", "1", "2", "3", "4"])))
    assert "WARNING: 'None'" in proposal.notes["drinks"]
    assert "if it means 0" in proposal.notes["drinks"]
    kinds = use(text(drink=lambda r: r.choice(["None", "Beer", "Wine"])))
    assert "None" in kinds.data.columns["drink"].categories


def test_numbers_that_stand_for_gaps_are_pointed_out(use: Use) -> None:  # bad-data-guide#14
    proposal = use(
        text(
            temp=lambda r: -999 if r.random() < 0.1 else f"{r.gauss(14, 4):.1f}",
            years=lambda r: 9999 if r.random() < 0.1 else r.randint(0, 60),
            sales=lambda r: r.randint(0, 9999),
        )
    )
    assert "WARNING: -999" in proposal.notes["temp"]
    assert "WARNING: 9999" in proposal.notes["years"]
    assert not warned(proposal, "sales")


# --- times -----------------------------------------------------------------------------------


def test_versions_ratios_and_pressures_are_no_dates(use: Use) -> None:  # evidence#467, datalib#95
    proposal = use(
        text(
            build=lambda r: f"{r.randint(1, 20)}.{r.randint(1, 12)}.{r.randint(0, 99)}",
            ratio=lambda r: f"{r.randint(1, 9)}/{r.randint(1, 9)}",
            bp=lambda r: f"{r.randint(110, 140)}/{r.randint(60, 99)}",
            code=lambda r: f"{r.randint(1800, 1999)}-{r.randint(1, 12):02}",
            size=lambda r: f"{r.randint(20, 31)}-{r.randint(1, 12)}-{r.randint(30, 60)}",
            lifetime_value=lambda r: f"{r.randint(1, 28)}.{r.randint(1, 12)}.{r.randint(10, 20)}",
        )
    )
    assert all(column.type != "datetime" for column in proposal.data.columns.values())
    assert proposal.data.split.by == "stratified"
    assert {proposal.data.columns[name].type for name in ("build", "ratio", "bp")} == {"category"}
    for name in ("build", "bp", "code", "size", "lifetime_value"):
        assert "like numbers" not in proposal.notes[name]
        assert "an identifier by its name" not in proposal.notes[name]
    assert "holds two values" in proposal.notes["bp"]


def test_dates_of_two_digit_years_need_a_name_and_bring_a_warning(use: Use) -> None:
    days = [f"{START + timedelta(days=n):%d.%m.%y}" for n in range(N)]
    proposal = use(lines(order_date=days))
    assert proposal.data.columns["order_date"].type == "datetime"
    assert proposal.data.split.column == "order_date"
    assert "WARNING" in proposal.notes["(split)"]
    unnamed = use(lines(build=days))
    assert unnamed.data.columns["build"].type == "category"
    assert "only under a name" in unnamed.notes["build"]


def test_two_digit_years_are_never_in_the_future(use: Use) -> None:
    days = [f"{n % 28 + 1}-{n % 12 + 1}-{40 + n % 20}" for n in range(N)]
    proposal = use(lines(due_date=days))
    assert "WARNING: looks like times" in proposal.notes["due_date"]
    assert "WARNING: 'due_date' looks like a time" in proposal.notes["(split)"]


def lines(**columns: Iterable[object]) -> str:
    """A table of the columns given, a number and a target."""
    r = random.Random(2)
    every = {
        **columns,
        "x": [f"{r.random():.3f}" for _ in range(N)],
        "y": [r.choice("ab") for _ in range(N)],
    } | columns
    rows = zip(*every.values(), strict=True)
    return "\n".join([",".join(every), *(",".join(map(str, row)) for row in rows), ""])


@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S -0500",
        "%a, %d %b %Y %H:%M:%S GMT",
        "%d %b %Y %H:%M:%S +0100",
        "%a %b %d %H:%M:%S %Y",
        "%d/%b/%Y:%H:%M:%S +0000",
    ],
)
def test_the_dates_of_mails_and_logs_are_read(use: Use, form: str) -> None:  # pandas#24987
    days = [f'"{START + timedelta(hours=7 * n):{form}}"' for n in range(N)]
    proposal = use(lines(created=days))
    assert proposal.data.columns["created"].type == "datetime"
    assert proposal.data.split.column == "created"


@pytest.mark.parametrize("style", ["{}", "{}.0"])
def test_years_are_a_time(use: Use, style: str) -> None:
    proposal = use(lines(year=[style.format(1980 + n // 20) for n in range(N)]))
    assert proposal.data.columns["year"].formats == ["%Y"]
    assert proposal.data.split.column == "year"
    assert proposal.frame["year"].max() == datetime(1999, 1, 1)


def test_seconds_since_1970_are_a_time(use: Use) -> None:
    proposal = use(lines(timestamp=[1_500_000_000 + 3600 * n for n in range(N)]))
    assert proposal.frame["timestamp"][0] == datetime(2017, 7, 14, 2, 40)
    assert proposal.data.split.column == "timestamp"


def test_numbers_under_a_name_of_time_are_pointed_out(use: Use) -> None:
    proposal = use(
        lines(date=[16_695 + n * 7 % 900 for n in range(N)], day=[n % 28 for n in range(N)])
    )
    assert "WARNING: numbers under a name of time" in proposal.notes["date"]  # days since 1960
    assert not warned(proposal, "day")


@pytest.mark.parametrize("form", ["%y%m%d", "%Y%m%d", "%b %Y", "%Y %b", "%Y-%m"])
def test_compact_dates_under_a_name_of_time_are_read(use: Use, form: str) -> None:
    days = [START - timedelta(days=40 * n) for n in range(N)]
    proposal = use(lines(date=[f"{day:{form}}" for day in days]))
    assert proposal.data.columns["date"].type == "datetime"
    assert proposal.frame["date"].dt.year()[0] == START.year


def test_decimal_years_quarters_and_years_of_a_century_are_times(use: Use) -> None:
    months = use(lines(date=[f"{1980 + n / 12:.3f}" for n in range(N)]))
    assert months.frame["date"].is_sorted()
    assert months.data.split.by == "time"
    quarters = use(lines(Date=[f"{1920 + n // 4} Q{n % 4 + 1}" for n in range(N)]))
    assert quarters.frame["Date"][1] == datetime(1920, 4, 1)
    short = use(lines(year=[63 + n // 20 for n in range(N)]))
    assert short.frame["year"][0] == datetime(1963, 1, 1)
    padded = use(lines(year=[f"{(90 + n // 20) % 100:02}" for n in range(N)]))
    assert (padded.frame["year"][0], padded.frame["year"][-1]) == (
        datetime(1990, 1, 1),
        datetime(2009, 1, 1),
    )


@pytest.mark.parametrize("name", ["year", "Year"])
def test_the_years_of_a_study_are_no_calendar_years(use: Use, name: str) -> None:
    proposal = use(lines(**{name: [1 + n % 15 for n in range(N)]}))
    assert proposal.data.columns[name].type == "integer"


@pytest.mark.parametrize("name", ["Year_Built", "construction_year", "yearVeh", "birth_year"])
def test_a_year_that_is_a_property_stays_a_number(use: Use, name: str) -> None:
    proposal = use(lines(**{name: [1950 + n * 7 % 60 for n in range(N)]}))
    assert proposal.data.columns[name].type == "integer"
    assert proposal.data.split.by == "stratified"


@pytest.mark.parametrize(
    "form", ["W{n} 2021", "2021-W{n:02}", "{h:02}:{m:02}:{s:02}", "{n}th May 2021"]
)
def test_times_that_cannot_be_read_are_pointed_out_and_what_that_costs(use: Use, form: str) -> None:
    when = [form.format(n=n % 52, h=n % 24, m=n % 60, s=n * 7 % 60) for n in range(N)]
    proposal = use(lines(time=when))
    assert "WARNING: looks like times" in proposal.notes["time"]
    # A time of day says nothing of before and after.
    clock = "has no day" in proposal.notes["time"]
    assert clock or "WARNING: 'time' looks like a time" in proposal.notes["(split)"]
    assert "identifier" not in proposal.notes["time"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("when", "%Y-%j"),
        ("date", "%Y年%m月%d日"),
        ("datum", "{d}. Januar %Y"),
        ("date", "{d} janvier %Y"),
        ("when", "{d} de enero de %Y"),
    ],
)
def test_a_name_of_time_over_words_with_years_is_never_silent(
    use: Use, name: str, form: str
) -> None:
    when = [(START + timedelta(days=n)).strftime(form.format(d=1 + n % 28)) for n in range(N)]
    proposal = use(lines(**{name: when}))
    assert "WARNING: looks like times" in proposal.notes[name]
    assert f"WARNING: '{name}' looks like a time" in proposal.notes["(split)"]


@pytest.mark.parametrize(
    "word", ["u{}@mail.com", "market {}", "mayor no. {}", "junk {}", "{} decor"]
)
def test_words_that_begin_as_a_month_does_are_no_times(use: Use, word: str) -> None:
    proposal = use(lines(place=[word.format(n % 40) for n in range(N)]))
    assert "times" not in proposal.notes["place"] + proposal.notes["(split)"]


@pytest.mark.parametrize(
    ("form", "factor"), [("%s", 1), ("%s%3f", 1_000), ("%s%6f", 1_000_000), ("%Y%m%d%H%M%S", 0)]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_a_clock_counts_is_a_time(
    use: Use, module: Module, tmp_path: Path, form: str, factor: int, kind: str
) -> None:
    times = [START + timedelta(hours=7 * n) for n in range(N)]
    count = [
        int((t - datetime(1970, 1, 1)).total_seconds()) * factor or int(f"{t:%Y%m%d%H%M%S}")
        for t in times
    ]
    if kind == "csv":
        proposal = use(lines(event_time=count))
    else:
        y = ["yes", "no"] * (N // 2)
        file = tmp_path / "t.parquet"
        pl.DataFrame(
            {"event_time": count, "x": [n * 7 % 13 for n in range(N)], "y": y}
        ).write_parquet(file)
        proposal = used(module, file)
    assert proposal.data.columns["event_time"].formats == [form]
    assert proposal.data.split.by == "time"
    assert proposal.frame["event_time"].to_list() == times


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("%Y", ["1999", "2000.5", "1949.083"]),
        ("%y", ["63", "99", "07"]),
        ("%Y Q%q", ["1998 Q1", "2001 Q4"]),
        ("%s", ["1500000000", "7"]),
        ("%a, %d %B %Y %H:%M:%S%.f %#z", ["Sun, 01 Jan 2017 00:00:00 -0500"]),
    ],
)
def test_the_service_writes_a_time_as_it_reads_it(
    module: Module, form: str, texts: list[str]
) -> None:
    config = module("config")
    ingest = module("pipeline.ingest")
    column = config.Column(type="datetime", formats=[form])
    data = config.Data.model_construct(
        columns={"when": column}, missing_values=[""], decimal=".", ignored={}, rare_classes={}
    )
    times = ingest.typed(pl.DataFrame({"when": texts}), data)
    assert times["when"].null_count() == 0
    sent = module("serving.rows").rows_from_frame(times, data)
    again = ingest.typed(module("serving.rows").frame_from_rows(sent, data), data)
    assert (again["when"] - times["when"]).dt.total_milliseconds().abs().max() <= 1


def test_the_service_takes_texts_and_gaps_of_one_column(module: Module) -> None:
    config = module("config")
    ingest = module("pipeline.ingest")
    columns = {
        "note": config.Column(type="text", nullable=True),
        "temp": config.Column(type="integer", nullable=True, missing_values=["-999"]),
        "code": config.Column(type="integer"),
    }
    data = config.Data.model_construct(
        columns=columns, missing_values=[""], decimal=".", ignored={}, rare_classes={}
    )
    rows = [
        {"note": "all is well", "temp": -999, "code": -999},
        {"note": None, "temp": 5, "code": 7},
    ]
    frame = ingest.typed(module("serving.rows").frame_from_rows(rows, data), data)
    assert frame.rows() == [("all is well", None, -999), (None, 5, 7)]
    assert module("serving.openapi").column_schema(columns["note"])["type"] == ["string", "null"]


def test_the_profile_of_a_text_is_its_length_and_never_the_text(use: Use, module: Module) -> None:
    r = random.Random(8)
    remarks = [
        " ".join(r.choices(["secret", "of", "ours", "here"], k=6)) + f" {n}" for n in range(N)
    ]
    proposal = use(lines(remark=remarks))
    y_pred = pl.DataFrame({"given": pl.Series([[0.5, 0.5]] * N, dtype=pl.Array(pl.Float64, 2))})
    profile = module("pipeline.training_profile").profile(proposal.frame, y_pred, proposal.data)
    assert "secret" not in str(profile)
    assert profile["columns"]["remark"]["percentiles"][100] < 60


def test_the_example_of_a_time_that_is_not_read_is_one_that_is_not(use: Use) -> None:
    days = [f"{START + timedelta(days=n):%Y-%m-%d}" for n in range(N)]
    days[40:90] = [f"{day} - {day}" for day in days[40:90]]
    proposal = use(lines(visit_date=days))
    assert (
        "'2017-02-10 - 2017-02-10' (50 rows like it) cannot be read" in proposal.notes["visit_date"]
    )


def test_a_datetime_that_does_not_split_is_named_with_the_reason(use: Use) -> None:
    few = use(lines(month=[f"2024-0{n % 3 + 1}-01" for n in range(N)]))
    assert "'month' has 3 different values, too few" in few.notes["(split)"]
    gaps = use(lines(seen=["" if n % 9 == 0 else START + timedelta(days=n) for n in range(N)]))
    assert "'seen' has missing values" in gaps.notes["(split)"]
    born = use(lines(birth_date=[START - timedelta(days=9 * n) for n in range(N)]))
    assert "'birth_date' is a date of birth" in born.notes["(split)"]


def test_a_time_with_a_gap_does_not_split_and_that_is_said_loudly(use: Use) -> None:
    seen = ["" if n == 9 else START + timedelta(days=n) for n in range(N)]
    for options in ({}, {"time": "seen"}):
        proposal = use(lines(seen=seen), **options)
        assert "'seen' has missing values in 1 row" in proposal.notes["(split)"]
        assert "WARNING: so old and new rows mix" in proposal.notes["(split)"]


# --- identifiers -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "{}.0", "SO-{}"])
def test_an_identifier_stays_one_with_a_gap_or_one_that_is_there_twice(use: Use, form: str) -> None:
    """As a feature it would have a range, and no new one would be in it."""
    numbers = [100_000 + 7 * n for n in range(N)]
    gaps = ["" if n % 80 == 0 else form.format(number) for n, number in enumerate(numbers)]
    assert "order_id" in use(lines(order_id=gaps)).data.ignored
    numbers[5] = numbers[4]
    proposal = use(lines(order_id=[form.format(number) for number in numbers]))
    assert "WARNING: an identifier by its name, which 1 row repeat" in proposal.notes["order_id"]


def test_an_identifier_too_long_for_64_bits_is_a_key(use: Use) -> None:  # readr#976
    ids = [2**63 + 7919 * n for n in range(N)]
    proposal = use(lines(user_id=ids))
    assert proposal.data.keys == ["user_id"]
    assert proposal.frame["user_id"].n_unique() == N


@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int32, pl.Float64])
def test_an_identifier_of_parquet_is_a_key(
    module: Module, tmp_path: Path, dtype: Any
) -> None:  # polars#12032
    r = random.Random(4)
    first = 2**63 if dtype == pl.UInt64 else 10_001
    rows = pl.DataFrame(
        {
            "user_id": pl.Series([first + 13 * n for n in range(N)], dtype=dtype),
            "x": [r.random() for _ in range(N)],
            "y": [r.choice("ab") for _ in range(N)],
        }
    )
    rows.write_parquet(tmp_path / "t.PARQUET")
    proposal = used(module, tmp_path / "t.PARQUET")
    assert proposal.data.keys == ["user_id"]


def test_categories_of_parquet_are_read_as_the_words_they_are(
    module: Module, tmp_path: Path
) -> None:
    r = random.Random(7)
    rows = pl.DataFrame(
        {
            "cost": [f"(${r.randint(1, 30)}.50)" for _ in range(N)],
            "y": [r.choice("ab") for _ in range(N)],
        },
        schema={"cost": pl.Categorical, "y": pl.Categorical},
    )
    rows.write_parquet(tmp_path / "t.parquet")
    assert used(module, tmp_path / "t.parquet").frame["cost"].max() < 0


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "rownames", "obs", "count"])
def test_row_numbers_are_no_feature(use: Use, name: str) -> None:
    proposal = use(lines(**{name: range(1, N + 1)}))
    assert name not in proposal.data.features


def test_a_useful_whole_number_that_happens_to_be_sorted_stays(use: Use) -> None:
    proposal = use(lines(population=[1000 + 37 * n + n * n for n in range(N)]))
    assert "population" in proposal.data.features


# --- ranges ----------------------------------------------------------------------------------


def test_ranges_end_where_the_thing_ends(use: Use) -> None:
    proposal = use(
        text(
            month=lambda r: r.randint(2, 11),
            day=lambda r: r.randint(2, 27),
            hour=lambda r: r.randint(5, 20),
            lat=lambda r: f"{r.uniform(40, 60):.4f}",
            longitude=lambda r: f"{r.uniform(-120, 60):.4f}",
            percent=lambda r: f"{r.uniform(5, 95):.1f}",
            smoker=lambda r: r.randint(0, 1),
        )
    )
    ends = {name: (column.min, column.max) for name, column in proposal.data.columns.items()}
    assert ends["month"] == (1, 12)
    assert ends["day"] == (1, 31)
    assert ends["hour"] == (0, 24)
    assert ends["lat"] == (-90, 90)
    assert ends["longitude"] == (-180, 180)
    assert ends["percent"] == (0, 100)
    assert proposal.data.columns["smoker"].type == "boolean"


# --- files -----------------------------------------------------------------------------------


def test_two_columns_of_one_name_are_refused(use: Use, module: Module) -> None:  # polars#3201
    with pytest.raises(module("exceptions").UsageError, match="two columns are called 'z'"):
        use(text().replace("x,z,y", "z,z,y", 1))


def test_quotes_in_the_middle_of_a_field_are_read(use: Use) -> None:  # polars#14929
    proposal = use(text(size=lambda r: f'{r.randint(1, 9)}" pipe'))
    assert '5" pipe' in proposal.data.columns["size"].categories


def test_lines_that_end_with_cr_alone_are_read(use: Use) -> None:
    assert use(text(end="\r")).frame.height == N


def test_a_field_of_a_megabyte_is_read(use: Use) -> None:  # cpython#157678
    rows = text().splitlines()
    rows[7] = rows[7].replace(",", f',"{"word " * 60_000}",', 1)
    rows = [row if n == 7 else row.replace(",", ",,", 1) for n, row in enumerate(rows)]
    assert use("\n".join([rows[0].replace(",,", ",remark,"), *rows[1:], ""])).frame.height == N


def test_in_a_file_with_such_a_field_the_wrong_line_is_named(use: Use, module: Module) -> None:
    rows = text(note=lambda r: "n").splitlines()
    rows[7] = rows[7].replace(",n,", f',"{"word " * 60_000}",')
    rows[9] += ",too much"
    with pytest.raises(
        module("exceptions").UsageError, match="line 10 has 5 fields, the header has 4"
    ):
        use("\n".join([*rows, ""]))


@pytest.mark.parametrize("name", ["t.CSV", "t.csv.GZ", "t.TXT"])
def test_suffixes_in_capitals_are_the_same(use: Use, name: str) -> None:
    content = text().encode()
    assert use(gzip.compress(content) if name.endswith("GZ") else content, name).frame.height == N


def test_separators_at_the_end_of_each_line_are_no_columns(use: Use) -> None:
    proposal = use("".join(f"{line},,,\n" for line in text().splitlines()))
    assert set(proposal.data.columns) == {"x", "z", "y"}


def test_spaces_around_names_need_not_be_typed(use: Use) -> None:
    proposal = use(text().replace("x,z,y", "x , z, y ", 1))
    assert proposal.data.target == " y "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"x": 1, "y": 2}\n' * 90, "JSON lines"),
        (b'[{"x": 1, "y": 2},\n {"x": 1, "y": 2}]\n', "JSON, not a table"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>\n" * 9, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "Git LFS"),
        (text().encode("utf-16"), "UTF-16"),
        (text().encode("utf-16-le"), "UTF-16"),
        (text().encode("utf-16-be"), "UTF-16"),
        (gzip.compress(gzip.compress(text().encode())), "gzip twice"),
        (b"sep=;\n" + text(";").encode(), "only for Excel"),
        (text().replace("x,", "größe,", 1).encode("latin-1"), "first line is not UTF-8"),
        (text(z=lambda r: r.choice(["São", "b"])).encode("latin-1"), "not UTF-8 after line"),
        (b"SQLite format 3\0" + b"\0" * 90, "SQLite"),
        (b"PAR1" + b"\0" * 90, "Parquet"),
    ],
    ids=[
        *(
            "lines of JSON",
            "JSON",
            "HTML",
            "LFS",
            "UTF-16",
            "UTF-16 without a mark",
            "the other end",
        ),
        *("gzip twice", "sep=", "a Latin-1 name", "Latin-1", "SQLite", "Parquet"),
    ],
)
def test_what_is_no_table_is_told_for_what_it_is(
    use: Use, module: Module, content: bytes, message: str
) -> None:
    with pytest.raises(module("exceptions").UsageError, match=message) as refused:
        use(content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("inside", "message"), [("xl/workbook.xml", "Excel workbook"), ("t.csv", "ZIP archive")]
)  # pandas-ai#1695
def test_workbooks_and_archives_are_told_apart(
    module: Module, tmp_path: Path, inside: str, message: str
) -> None:
    file = tmp_path / "t.csv"
    # The time is in the first bytes: as a quotation mark, for one, which begins a text without end.
    for time in ((2026, 3, 27, 4, 21, 6), (2026, 2, 26, 0, 41, 4), (2026, 11, 27, 12, 0, 0)):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo(inside, time), text())
        with pytest.raises(module("exceptions").UsageError, match=message):
            used(module, file)


@pytest.mark.parametrize(
    "rows",
    [
        [f"{5 + n % 7 / 10},{3 + n % 5 / 10},{'ab'[n % 2]}" for n in range(N)],
        [f"{'pe'[n % 2]},{'xbs'[n % 3]},{'ny'[n // 3 % 2]}" for n in range(N)],
    ],
    ids=["numbers", "letters"],
)
def test_a_missing_header_is_told(use: Use, module: Module, rows: list[str]) -> None:
    with pytest.raises(module("exceptions").UsageError, match="first line looks like data"):
        use("\n".join([*rows, ""]))


def test_numbers_can_be_names(use: Use) -> None:
    r = random.Random(5)
    wavelengths = {f"{1100.5 + n}": [f"{r.random():.4f}" for _ in range(N)] for n in range(4)}
    assert "1100.5" in use(lines(**wavelengths)).data.columns


# --- rare classes ----------------------------------------------------------------------------


def species() -> str:
    kinds = ["oak"] * 150 + ["elm"] * 150 + ["ash"] * 90 + ["fir"] * 6 + ["yew"] * 3 + ["box"]
    random.Random(6).shuffle(kinds)
    return lines(kind=kinds)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (lambda n: "1O5" if n == 9 else f"{n / 7:.3f}", "looks like numbers, but '1O5' (1 row)"),
        (lambda n: f"{n % 24:02}:{n % 60:02}", "looks like times, but '00:00'"),
        (lambda n: "1" if n % 2 else "", "is '1' in each of the 200 rows that have one, and 200"),
        (lambda n: "N/A" if n % 2 else "ok", "is 'ok' in each of the 200 rows that have one"),
    ],
)
def test_a_target_is_refused_for_the_reason_that_it_has(
    use: Use, module: Module, target: Callable[[int], str], reason: str
) -> None:
    with pytest.raises(module("exceptions").UsageError, match=re.escape(reason)):
        use(lines(y=[target(n) for n in range(N)]))


def test_yes_and_no_written_in_several_ways_are_two_classes(use: Use) -> None:
    proposal = use(lines(y=[["TRUE", "0", "1", "False"][n % 4] for n in range(N)]))
    assert proposal.data.classes == ["false", "true"]
    assert warned(proposal, "y")


def test_a_class_that_was_written_as_a_gap_is_named(use: Use) -> None:
    proposal = use(lines(y=[["EU", "APAC", "NA"][n % 3] for n in range(N)]))
    assert "rows without one ('NA') are set aside" in proposal.notes["y"]


def test_the_target_is_no_group(use: Use, module: Module) -> None:
    with pytest.raises(module("exceptions").UsageError, match="that is the target"):
        use(text(), group="y")


def test_rare_classes_are_refused_with_the_way_out(use: Use, module: Module) -> None:
    with pytest.raises(
        module("exceptions").UsageError, match="--rare-classes drop or other for the 3"
    ):
        use(species(), target="kind")


def test_rare_classes_are_set_aside_on_request(use: Use, module: Module) -> None:
    proposal = use(species(), target="kind", rare_classes="drop")
    assert proposal.data.classes == ["ash", "elm", "oak"]
    assert proposal.data.rare_classes == {"box": None, "fir": None, "yew": None}
    assert proposal.frame["kind"].null_count() == 10
    train, holdout = module("pipeline.split").split(proposal.frame, proposal.data)
    assert train.height + holdout.height == N - 10
    assert "WARNING: 3 rare classes in 10 rows are set aside" in proposal.notes["kind"]


def test_rare_classes_are_merged_on_request(use: Use, module: Module) -> None:
    proposal = use(species(), target="kind", rare_classes="other")
    assert proposal.data.classes == ["ash", "elm", "oak", "other"]
    assert (proposal.frame["kind"] == "other").sum() == 10
    assert len(set(module("pipeline.ingest").labels(proposal.frame, proposal.data))) == 4


def test_a_class_that_nobody_has_seen_is_still_refused(use: Use, module: Module) -> None:
    proposal = use(species(), target="kind", rare_classes="drop")
    later = pl.DataFrame({"kind": ["gum"] * N, "x": ["0.5"] * N, "y": ["a"] * N})
    ingest = module("pipeline.ingest")
    validate = module("pipeline.validate")
    failures = validate.check(ingest.typed(later, proposal.data), proposal.data)["failures"]
    assert [failure["rule"] for failure in failures] == ["new category"]


@pytest.mark.parametrize("how", ["drop", "other"])
def test_rare_classes_that_are_whole_numbers_are_known_too(use: Use, how: str) -> None:
    grades = [str(n % 3) for n in range(N - 12)] + ["7"] * 7 + ["9"] * 5
    proposal = use(lines(grade=grades), target="grade", rare_classes=how)
    assert proposal.data.classes == ["0", "1", "2", *(["other"] if how == "other" else [])]


# --- speed and the example -------------------------------------------------------------------


def test_every_message_of_a_note_is_one_line(use: Use) -> None:
    proposal = use(text(lab=lambda r: "<0.1" if r.random() < 0.1 else f"{r.random():.2f}"))
    assert not any(re.search(r"[\n\r]", note) for note in proposal.notes.values())


FAILURES = {
    "origin: new category in 2 rows, such as ZZ, XX": (
        *("category", "origin", "new category", 2, "ZZ XX", [0]),
    ),
    "seats: above 800 in 1 row, such as 801.0": ("range", "seats", "above 800", 1, "801.0", [4]),
    "flight: null in 1,200 rows": ("null", "flight", "null", 1_200, "None", [0]),
    "seats: missing column": ("missing_column", "seats", "missing column", 1, "seats", []),
    "day: stale newest row (2019-01-01)": (
        *("freshness", "day", "stale newest row", 1, "2019-01-01", []),
    ),
    "table: too few rows (7 of 200)": ("row_count", None, "too few rows", 1, "7_of_200", []),
    "table: not true in 3 rows: it goes elsewhere": (
        *("custom", None, "it goes elsewhere", 3, "false", [1]),
    ),
    "table: not true in 1 row: null": ("custom", None, "null", 1, "false", [1]),
    'table: duplicate key in 2 rows, such as {"id":1}': (
        *("duplicate", None, "duplicate key", 2, '{"id":1}', [1]),
    ),
}


@pytest.mark.parametrize(("line", "failure"), FAILURES.items(), ids=FAILURES)
def test_a_refusal_of_rows_reads_as_a_sentence(module: Module, line: str, failure: Any) -> None:
    kind, column, rule, count, samples, rows = failure
    texts = [text.replace("_", " ") for text in samples.split()]
    failed = {"column": column, "rule": rule, "kind": kind, "count": count}
    failed |= {"samples": texts, "rows": rows}
    assert module("pipeline.validate").describe([failed]) == [line]
