"""`ml data use` on tables that no one has seen: what the contract says, and that it is true."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

DTYPES = {
    "number": pl.Float64,
    "integer": pl.Int64,
    "boolean": pl.Boolean,
    "category": pl.String,
    "text": pl.String,
    "datetime": pl.Datetime("us"),
}
N = 400


@pytest.fixture(scope="session")
def ml(module: Callable[[str], ModuleType]) -> Any:
    """What infers a contract, and what reads rows by one."""
    frames = module("pipeline.ingest")
    infer = module("contract.propose")

    def contract(rows: pl.DataFrame, target: str = "y", **options: Any) -> SimpleNamespace:
        options = {"source": "data/raw/t.csv", "separator": ","} | options
        data, notes = infer.infer(rows, target, **options)
        frame = frames.typed(rows, data)
        keeps(frame, data)
        # What is written to config/data.yaml and read back is the same contract.
        assert module("config").Data.model_validate(data.model_dump(exclude_defaults=True)) == data
        x = module("problem.features").features(frames.inputs(frame, data))
        known = frame.filter(frame[data.target].is_not_null())
        return SimpleNamespace(
            data=data, notes=notes, frame=frame, inputs=x, y=frames.labels(known, data)
        )

    return SimpleNamespace(
        contract=contract,
        frames=frames,
        config=module("config"),
        UsageError=infer.UsageError,
        load=module("problem.data").load,
    )


def keeps(frame: pl.DataFrame, data: Any) -> None:
    """The rows satisfy their contract, column by column."""
    assert set(frame.columns) == set(data.columns)
    for name, column in data.columns.items():
        # Without its name, which a method of the series would take for a pattern.
        values = frame[name].alias("values")
        assert values.dtype == DTYPES[column.type], name
        assert column.nullable or not values.has_nulls(), name
        values = values.drop_nulls()
        assert column.min is None or values.min() >= column.min, name
        assert column.max is None or values.max() <= column.max, name
        if column.type == "category" and not column.allow_unknown:
            assert set(values) <= set(column.categories), name
        assert len(column.categories) <= 200 or name == data.target
    for key in data.keys:
        assert frame[key].is_unique().all()
    assert frame.height >= data.min_rows
    assert not set(data.columns) & set(data.ignored)


def table(seed: int = 0, n: int = N, **columns: Any) -> pl.DataFrame:
    """Text columns as a CSV file has them: a target, a number and a category, and those given."""
    r = random.Random(seed)
    base = {
        "y": [r.choice("ab") for _ in range(n)],
        "x": [f"{r.gauss(0, 1):.3f}" for _ in range(n)],
        "c": [r.choice(["red", "green", "blue"]) for _ in range(n)],
    }
    made = {k: [f(r) for _ in range(n)] if callable(f) else f for k, f in columns.items()}
    return pl.DataFrame(base | made)


def written(folder: Path, ml: Any, text: str, separator: str = ",") -> pl.DataFrame:
    path = folder / "t.csv"
    path.write_bytes(text.encode())
    rows: pl.DataFrame = ml.load(path, separator)
    return rows


# --- columns ---------------------------------------------------------------------------------


def test_each_type_is_told_from_text(ml: Any) -> None:
    proposal = ml.contract(
        table(
            i=lambda r: str(r.randint(-5, 90)),
            f=lambda r: r.choice(["1.5", "2", "-3e-2", ".5", ""]),
            b=lambda r: r.choice(["Yes", "no", "YES"]),
            zip=lambda r: f"0{r.randint(100, 150)}",
            seen=lambda r: f"{r.randint(1, 28)}.{r.randint(1, 12)}.2021",
        )
    )
    kinds = {name: column.type for name, column in proposal.data.columns.items()}
    assert kinds == {
        "y": "category",
        "x": "number",
        "c": "category",
        "i": "integer",
        "f": "number",
        "b": "boolean",
        "zip": "category",
        "seen": "datetime",
    }
    assert proposal.data.columns["f"].nullable
    assert not proposal.data.columns["i"].nullable
    assert proposal.inputs.height == N


def test_words_that_become_true_and_false_are_named(ml: Any) -> None:
    proposal = ml.contract(
        table(
            y=lambda r: r.choice(["Yes", "No"]),
            b=lambda r: r.choice("yn"),
            same=lambda r: r.choice(["true", "False"]),
        )
    )
    assert "'No' is read as false, 'Yes' is read as true" in proposal.notes["y"]
    assert "'n' is read as false, 'y' is read as true" in proposal.notes["b"]
    assert "is read as" not in proposal.notes["same"]
    assert proposal.data.classes == ["false", "true"]


def test_names_are_taken_as_they_are(ml: Any) -> None:
    names = [
        " Größe in cm ",
        'say "hi"',
        "two\nlines",
        "",
        "^x.*$",
        "*",
        "naïve, café",
        "#",
        "count",
    ]
    r = random.Random(1)
    columns = {name: [f"{r.random():.4f}" for _ in range(N)] for name in names}
    columns["y"] = [r.choice("01") for _ in range(N)]
    proposal = ml.contract(pl.DataFrame(columns))
    assert [*proposal.data.columns] == [*names, "y"]
    assert proposal.data.features == names
    assert proposal.inputs.columns == names


def test_a_byte_order_mark_is_no_part_of_the_first_name(ml: Any, tmp_path: Path) -> None:
    body = "".join(f"{'ab'[i % 2]},{i * 7 % 11}\n" for i in range(N))
    proposal = ml.contract(written(tmp_path, ml, f"\ufeffy,x\r\n{body}"))
    assert [*proposal.data.columns] == ["y", "x"]


def test_semicolons_with_decimal_commas_are_numbers(ml: Any, tmp_path: Path) -> None:
    r = random.Random(2)
    lines = [
        f"{r.randint(0, 8)},{r.randint(0, 999):03};{r.randint(1, 9)}.{r.randint(0, 999):03},50;{c}"
        for c in "ab" * (N // 2)
    ]
    text = "\n".join(["preis;umsatz;y", *lines, ""])
    proposal = ml.contract(written(tmp_path, ml, text, ";"), separator=";")
    assert proposal.data.decimal == ","
    assert proposal.data.columns["preis"].type == "number"
    assert proposal.data.columns["umsatz"].type == "number"
    assert proposal.frame["preis"].max() < 9.1
    assert proposal.frame["umsatz"].min() > 1000


def test_thousands_currency_and_percent_signs_are_read(ml: Any) -> None:
    proposal = ml.contract(
        table(
            money=lambda r: f"${r.randint(1, 3)},{r.randint(100, 999)}.5{r.randint(0, 9)}",
            share=lambda r: f"{r.random() * 100:.1f} %",
            big=lambda r: f"{r.randint(1, 3)},000,{r.randint(100, 999)}",
        )
    )
    assert [proposal.data.columns[n].type for n in ("money", "share", "big")] == [
        "number",
        "number",
        "integer",
    ]
    assert proposal.frame["big"].min() >= 1_000_100
    assert proposal.frame["money"].min() > 1000


def test_a_decimal_point_is_never_read_as_thousands(ml: Any) -> None:
    data = ml.config.Data.model_construct(missing_values=[""], decimal=",")
    column = pl.Series("v", ["1,5", "1.5", "1.234", "12.34"])
    contract = ml.config.Column(type="number")
    assert [part.to_list() for part in ml.frames.unreadable(column, contract, data)] == [
        ["1.5", "12.34"],
        [1, 3],
    ]


@pytest.mark.parametrize(
    ("style", "formats"),
    [
        ("%Y-%m-%d", ["%Y-%m-%d"]),
        ("%Y-%m-%dT%H:%M:%S.%f", ["%Y-%m-%dT%H:%M:%S%.f"]),
        ("%Y-%m-%d %H:%M:%S+02:00", ["%Y-%m-%d %H:%M:%S%.f%#z"]),
        ("%Y-%m-%dT%H:%M:%SZ", ["%Y-%m-%dT%H:%M:%S%.f%#z"]),
        ("%d/%m/%Y", ["%d/%m/%Y"]),
        ("%m/%d/%Y %I:%M %p", ["%m/%d/%Y %I:%M %p"]),
        ("%m/%d/%y", ["%m/%d/%y"]),
        ("%d.%m.%Y %H:%M", ["%d.%m.%Y %H:%M"]),
        ("%d-%b-%Y", ["%d-%B-%Y"]),
        ("%B %d, %Y", ["%B %d, %Y"]),
        ("%Y%m%d", ["%Y%m%d"]),
    ],
)
def test_dates_are_read_in_the_format_they_have(ml: Any, style: str, formats: list[str]) -> None:
    start = datetime(2019, 1, 3, 4, 5, 6, 7000)
    truth = [start + timedelta(hours=31 * i) for i in range(N)]
    proposal = ml.contract(table(order_date=[when.strftime(style) for when in truth]))
    assert proposal.data.columns["order_date"].formats == formats
    assert (
        proposal.frame["order_date"].dt.date()[5]
        == (truth[5] - timedelta(hours=2 * ("+02" in style))).date()
    )
    assert "WARNING" not in proposal.notes["order_date"]
    assert proposal.data.split.by == "time"


def test_several_date_formats_in_one_column_are_all_read(ml: Any) -> None:
    styles = ["%Y-%m-%d", "%d/%m/%Y", "%d/%m/%y", "%d %B %Y", "%Y-%m-%dT%H:%M:%S"]
    truth = [datetime(2019, 1, 1) + timedelta(days=i) for i in range(N)]
    texts = [when.strftime(styles[i % 5 if i % 7 else 0]) for i, when in enumerate(truth)]
    proposal = ml.contract(table(when=texts))
    assert proposal.frame["when"].to_list() == truth


def test_a_rare_format_at_the_end_of_a_long_file_is_found(ml: Any) -> None:
    truth = [datetime(2019, 1, 1) + timedelta(hours=i) for i in range(20_000)]
    texts = [when.strftime("%Y-%m-%d %H:%M") for when in truth[:-1]] + ["31/12/2021"]
    proposal = ml.contract(table(n=20_000, when=texts))
    assert proposal.frame["when"][-1] == datetime(2021, 12, 31)


def test_day_and_month_that_cannot_be_told_apart_are_pointed_out(ml: Any) -> None:
    proposal = ml.contract(
        table(when=lambda r: f"{r.randint(1, 12):02}/{r.randint(1, 12):02}/2020")
    )
    assert proposal.data.columns["when"].formats == ["%d/%m/%Y"]
    assert "WARNING: day and month" in proposal.notes["when"]


def test_one_day_after_the_twelfth_decides_for_the_whole_column(ml: Any) -> None:
    texts = [f"{i % 12 + 1:02}/{i // 12 % 12 + 1:02}/2020" for i in range(N - 1)] + ["01/13/2020"]
    assert ml.contract(table(when=texts)).data.columns["when"].formats == ["%m/%d/%Y"]


def test_a_few_odd_words_among_numbers_become_gaps(ml: Any) -> None:
    mixed = [str(i % 50) for i in range(N)]
    mixed[3] = "n.a."
    mixed[50] = "refused"
    mixed[51] = "-"
    mixed[52] = "NaN"
    proposal = ml.contract(table(age=mixed))
    assert proposal.data.columns["age"].type == "integer"
    assert proposal.frame["age"].null_count() == 4
    assert {"n.a.", "refused", "-", "NaN"} <= {
        *proposal.data.missing_values,
        *proposal.data.columns["age"].missing_values,
    }
    assert "WARNING: 'refused' (1 row)" in proposal.notes["age"]


def test_a_gap_word_of_one_column_is_a_value_in_another(ml: Any) -> None:
    columns = {
        "country": ml.config.Column(type="category"),
        "income": ml.config.Column(type="integer", missing_values=["NA", "-999"]),
        "note": ml.config.Column(type="text", missing_values=["-"]),
    }
    data = ml.config.Data.model_construct(
        columns=columns, missing_values=[""], decimal=".", ignored={}
    )
    rows = pl.DataFrame({"country": ["NA", ""], "income": ["NA", "7"], "note": ["NA", " - "]})
    frame = ml.frames.typed(rows, data)
    assert frame.rows() == [("NA", None, "NA"), (None, 7, None)]
    numbers = ml.frames.typed(pl.DataFrame({"income": [-999, 7]}), data)
    assert numbers["income"].to_list() == [None, 7]


def test_a_word_that_is_a_value_elsewhere_is_a_gap_of_one_column(ml: Any) -> None:
    mixed = [str(i % 50) for i in range(N)]
    mixed[3] = "red"
    proposal = ml.contract(table(age=mixed))
    assert "red" not in proposal.data.missing_values
    assert proposal.data.columns["age"].missing_values == ["red"]
    assert "WARNING: 'red' (1 row) is read as missing" in proposal.notes["age"]
    assert not proposal.data.columns["c"].nullable


def test_more_than_a_few_odd_words_keep_a_column_text(ml: Any) -> None:
    words = ["low", "middle", "high"]
    proposal = ml.contract(
        table(dose=[words[i % 3] if i % 9 == 0 else str(i % 50) for i in range(N)])
    )
    assert proposal.data.columns["dose"].type == "category"
    assert proposal.data.missing_values == [""]
    words = ["unknown", "-"]
    proposal = ml.contract(
        table(dose=[words[i % 2] if i % 9 == 0 else str(i % 50) for i in range(N)])
    )
    assert proposal.data.columns["dose"].type == "integer"


def test_many_different_odd_words_are_no_gaps(ml: Any) -> None:
    mixed = [f"w{i}" if i < 8 else str(i % 50) for i in range(N)]
    assert ml.contract(table(dose=mixed)).data.missing_values == [""]


def test_a_number_among_dates_never_becomes_a_gap(ml: Any) -> None:
    mixed = ["0" if i < 3 else f"2020-01-{i % 28 + 1:02}" for i in range(N)]
    proposal = ml.contract(table(paid=mixed, flag=lambda r: r.choice("01")))
    assert proposal.data.missing_values == [""]
    assert not proposal.data.columns["flag"].nullable


def test_a_class_named_none_stays_a_class(ml: Any) -> None:
    classes = ["None", "Mild", "Severe"]
    mixed = [str(i % 50) for i in range(N)]
    mixed[3] = "None"
    proposal = ml.contract(table(y=lambda r: r.choice(classes), age=mixed))
    assert proposal.data.classes == sorted(classes)
    assert "None" not in proposal.data.missing_values


def test_half_text_columns_stay_text(ml: Any) -> None:
    proposal = ml.contract(
        table(m=lambda r: r.choice(["1", "2", "3", "few", "many", "12a", "b4", "z", "5+"]))
    )
    assert proposal.data.columns["m"].type == "category"


def test_what_tells_nothing_is_left_out_with_its_reason(ml: Any) -> None:
    words = ["lorem", "ipsum", "dolor", "sit", "amet"]
    proposal = ml.contract(
        table(
            constant=lambda r: "7",
            empty=lambda r: r.choice(["", "NA"]),
            mail=[f"user{i}@example.org" for i in range(N)],
            entry=[str(i + 1) for i in range(N)],
            remark=lambda r: " ".join(r.choices(words, k=9)),
            town=lambda r: r.choice(string.ascii_letters) + str(r.randint(0, 30)),
            copy=table()["y"].to_list(),
        )
    )
    left = proposal.data.ignored
    assert set(left) == {"constant", "empty", "mail", "entry", "town", "copy"}
    assert "same in every row" in left["constant"]
    assert "without a value" in left["empty"]
    assert "identifier" in left["mail"]
    assert "identifier" in left["entry"]
    assert proposal.data.columns["remark"].type == "text"
    assert "WARNING: read as text" in proposal.notes["remark"]
    assert "identifier" in left["town"] or "cover" in left["town"]
    assert "copy of the target" in left["copy"]
    assert proposal.notes["mail"].startswith("ignored: ")


def test_one_identifier_by_name_becomes_the_key(ml: Any) -> None:
    ids = [f"u-{i * 7919 % 4001}" for i in range(N)]
    proposal = ml.contract(table(CustomerId=ids, order_id=[str(i * 17 % 8009) for i in range(N)]))
    assert proposal.data.keys == ["CustomerId"]
    assert "CustomerId" not in proposal.data.features
    assert proposal.data.columns["CustomerId"].categories == []
    assert "identifier" in proposal.data.ignored["order_id"]


def test_many_categories_keep_the_two_hundred_most_frequent(ml: Any) -> None:
    proposal = ml.contract(table(n=5000, town=lambda r: f"t{int(r.paretovariate(0.6)) % 900}"))
    town = proposal.data.columns["town"]
    assert len(town.categories) == 200
    assert town.allow_unknown
    assert proposal.inputs["town"].null_count() > 0


def test_categories_that_cover_too_few_rows_are_left_out(ml: Any) -> None:
    proposal = ml.contract(table(n=5000, town=lambda r: f"t{r.randint(1, 1500)}"))
    assert "the top 200 cover" in proposal.data.ignored["town"]


def test_numbers_at_the_edge_of_what_floats_hold_are_in_their_range(ml: Any) -> None:
    huge = pl.Series([1.7e308 * (-1) ** i for i in range(N)])
    proposal = ml.contract(
        table(near=lambda r: str(10**17 + r.randint(0, 40))).with_columns(huge=huge)
    )
    near = proposal.data.columns["near"]
    assert near.min < 10**17 - 1000
    assert near.max > 10**17 + 1000
    assert proposal.data.columns["huge"].max is None


def test_numbers_have_room_around_their_range(ml: Any) -> None:
    proposal = ml.contract(
        table(t=lambda r: str(r.randint(-20, 40)), p=lambda r: str(r.randint(3, 90)))
    )
    t = proposal.data.columns["t"]
    p = proposal.data.columns["p"]
    assert (t.min, t.max) == (-80, 100)
    assert p.min == 0


# --- target, task, refusals ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no"], "binary", ["false", "true"]),
        (["0", "1"], "binary", ["0", "1"]),
        (["0.0", "1.0"], "binary", ["0", "1"]),
        (["-0.0", "0", "1e0"], "binary", ["0.0", "1.0"]),
        (["good", "bad", "good"], "binary", ["good", "bad"]),
        (["a", "b", "a", "a"], "binary", ["a", "b"]),
        (["3", "1", "2"], "multiclass", ["1", "2", "3"]),
        (["x", "z", "y"], "multiclass", ["x", "y", "z"]),
        ([f"{i / 7:.3f}" for i in range(99)], "regression", []),
        ([str(i) for i in range(99)], "regression", []),
    ],
)
def test_the_target_suggests_the_task(
    ml: Any, values: list[str], task: str, classes: list[str]
) -> None:
    proposal = ml.contract(table(y=lambda r: r.choice(values)))
    assert (proposal.data.task, proposal.data.classes) == (task, classes)
    assert set(proposal.y) == (
        set(range(len(classes))) if classes else set(map(float, proposal.frame["y"]))
    )


def test_a_target_of_many_classes_lists_them_all(ml: Any) -> None:
    proposal = ml.contract(table(n=5000, y=[f"k{i % 230}" for i in range(5000)]))
    assert len(proposal.data.classes) == 230
    assert not proposal.data.columns["y"].allow_unknown


def test_a_continuous_target_may_differ_in_every_row(ml: Any) -> None:
    proposal = ml.contract(table(y=[f"{i * 0.37 % 11:.4f}" for i in range(N)]))
    assert proposal.data.task == "regression"


def test_a_price_in_whole_numbers_may_differ_in_every_row(ml: Any) -> None:
    proposal = ml.contract(table(y=[str(900 + 37 * i + i * i % 31) for i in range(N)]))
    assert proposal.data.task == "regression"


def test_grades_with_rare_ones_are_a_regression_unless_asked(ml: Any) -> None:
    grades = ["5", "6"] * 190 + ["3"] * 2 + ["7"] * 18
    assert ml.contract(table(y=grades)).data.task == "regression"
    assert (
        ml.contract(table(n=800, y=["5", "6", "7", "8"] * 200), task="regression").data.task
        == "regression"
    )


REFUSED: list[tuple[str, Callable[[], pl.DataFrame], dict[str, Any], str]] = [
    ("absent", lambda: table(), {"target": "Y_"}, "no column 'Y_'"),
    ("no target named", lambda: table(), {"target": ""}, "no column ''"),
    ("absent time", lambda: table(), {"time": "when"}, "no column 'when'"),
    ("no time", lambda: table(), {"time": "x"}, "'x' is not a datetime"),
    ("few rows", lambda: table(n=30), {}, "30 rows"),
    ("one class", lambda: table(y=["a"] * N), {}, "'a' in every row"),
    ("gaps only", lambda: table(y=[""] * N), {}, "0 rows"),
    ("rare class", lambda: table(y=["a"] * (N - 4) + ["b"] * 4), {}, "'b' in 4 rows"),
    ("names", lambda: table(y=[f"n{i}" for i in range(N)]), {}, "different in every row"),
    ("row numbers", lambda: table(y=[str(i) for i in range(N)]), {}, "different in every row"),
    ("a date", lambda: table(y=[f"2020-01-{i % 28 + 1}" for i in range(N)]), {}, "is a datetime"),
    ("no feature", lambda: table().select("y", k=pl.lit("k")), {}, "no column is left"),
    ("no number", lambda: table(), {"task": "regression"}, "is not a number"),
    ("not binary", lambda: table(), {"target": "c", "task": "binary"}, "not binary"),
]


@pytest.mark.parametrize(
    ("rows", "options", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_cannot_be_learned_from_is_refused_in_one_sentence(
    ml: Any, rows: Callable[[], pl.DataFrame], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ml.UsageError, match=message) as refused:
        ml.contract(rows(), **options)
    assert "\n" not in str(refused.value)
    assert "data/raw/t.csv" in str(refused.value)


def test_a_misspelt_target_brings_its_neighbours(ml: Any) -> None:
    wide = [pl.lit(str(i)).alias(f"c{i}") for i in range(12)]
    rows = table().select(*wide, Survived="y")
    with pytest.raises(ml.UsageError, match="'Survived'"):
        ml.contract(rows, "survivd")


def test_rows_without_a_target_are_set_aside_and_counted(ml: Any) -> None:
    proposal = ml.contract(table(y=["a", "b", "b", ""] * (N // 4)))
    assert proposal.data.columns["y"].nullable
    assert proposal.data.classes == ["b", "a"]
    assert "WARNING: 100 rows without one" in proposal.notes["y"]


# --- split, leaks ----------------------------------------------------------------------------


def test_the_split_is_by_the_likeliest_time(ml: Any) -> None:
    days = [date(2020, 1, 1) + timedelta(days=i) for i in range(N)]
    births = [str(date(1950, 1, 1) + timedelta(days=i * 37 % 9000)) for i in range(N)]
    rows = table(
        birth_date=births, created=map(str, days), date_due=[""] + [str(d) for d in days[1:]]
    )
    proposal = ml.contract(rows)
    assert (proposal.data.split.by, proposal.data.split.column, proposal.data.time) == (
        "time",
        "created",
        "created",
    )
    assert "'created'" in proposal.notes["(split)"]
    assert ml.contract(rows, time="birth_date").data.split.column == "birth_date"
    assert ml.contract(rows.select("y", "x", "birth_date")).data.split.by == "stratified"
    grouped = ml.contract(
        rows.with_columns(who=pl.Series([str(i % 80) for i in range(N)])), group="who"
    )
    assert (grouped.data.split.by, grouped.data.split.column) == ("group", "who")
    assert "who" not in grouped.data.features


def test_a_name_of_time_counts_more_than_order_and_gaps_count_most(ml: Any) -> None:
    days = [str(date(2020, 1, 1) + timedelta(days=i)) for i in range(N)]
    mixed = days[N // 2 :] + days[: N // 2]
    assert ml.contract(table(logged=days, created=mixed)).data.time == "created"
    assert ml.contract(table(logged=days, created=["", *mixed[1:]])).data.time == "logged"


def test_a_row_without_a_target_is_no_class_of_a_time_split(ml: Any) -> None:
    days = [str(date(2020, 1, 1) + timedelta(days=i)) for i in range(N)]
    target = ["a", "b"] * (N // 4) + ["a", ""] * (N // 4)
    assert ml.contract(table(y=target, when=days)).data.split.by == "stratified"


def test_a_column_without_a_name_is_a_feature_but_splits_nothing(ml: Any) -> None:
    days = [str(date(2020, 1, 1) + timedelta(days=i)) for i in range(N)]
    proposal = ml.contract(table().insert_column(0, pl.Series("", days)))
    assert "" in proposal.data.features
    assert (proposal.data.split.by, proposal.data.time) == ("stratified", None)
    assert "with a name" in proposal.notes["(split)"]


def test_a_time_split_that_would_lose_a_class_gives_way(ml: Any) -> None:
    when = [str(date(2020, 1, 1) + timedelta(days=i)) for i in range(N)]
    proposal = ml.contract(table(y=["a"] * (N - 60) + ["b"] * 60, when=when))
    assert proposal.data.split.by == "stratified"
    assert proposal.data.time == "when"
    assert "WARNING" in proposal.notes["(split)"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_feature_that_gives_the_target_away_is_pointed_out_and_no_other(
    ml: Any, task: str
) -> None:
    r = random.Random(5)
    n = 2000
    truth = [r.gauss(0, 1) for _ in range(n)]
    k = {"binary": 2, "multiclass": 3, "regression": 0}[task]
    y = [f"k{min(k - 1, int(abs(v) * 2))}" if k else f"{v:.4f}" for v in truth]
    leak = [int(s[1:]) * 10 + r.random() if k else float(s) * 3 + 1 for s in y]
    noise = 0.2 if k else 0.6  # of a number: R² .96, where .99 is a leak
    strong = [v + r.gauss(0, noise) for v in (truth if k else leak)]
    rows = table(n=n, y=y, leak=map("{:.4f}".format, leak), strong=map("{:.4f}".format, strong))
    rows = rows.sort("y")  # equal neighbours in the file are no leak
    notes = ml.contract(rows).notes
    warned = {name for name, note in notes.items() if "WARNING: predicts" in note}
    assert warned == {"leak"}


def test_a_word_for_each_class_is_a_leak_too(ml: Any) -> None:
    y = table(n=1000)["y"].to_list()
    proposal = ml.contract(table(n=1000, outcome=["won" if v == "a" else "lost" for v in y]))
    assert "WARNING: predicts 'y'" in proposal.notes["outcome"]


# --- Parquet ---------------------------------------------------------------------------------


def test_parquet_keeps_its_types_and_times_become_utc(ml: Any, tmp_path: Path) -> None:
    r = random.Random(3)
    start = datetime(2022, 3, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {
            "y": [r.random() < 0.4 for _ in range(N)],
            "when": [start + timedelta(hours=i) for i in range(N)],
            "day": [date(2020, 1, 1) + timedelta(days=i % 90) for i in range(N)],
            "f": [float("nan") if i % 9 == 0 else r.random() for i in range(N)],
            "u": [r.randint(0, 200) for _ in range(N)],
            "d": [f"{r.random():.2f}" for _ in range(N)],
            "c": [r.choice("xyz") for _ in range(N)],
            "list": [[1, 2]] * N,
            "struct": [{"a": 1}] * N,
            "bytes": [b"\xff"] * N,
            "null": [None] * N,
        }
    ).with_columns(
        pl.col("when").dt.convert_time_zone("Europe/Vienna"),
        pl.col("u").cast(pl.UInt8),
        pl.col("d").cast(pl.Decimal(6, 2)),
        pl.col("c").cast(pl.Categorical),
    )
    rows.write_parquet(tmp_path / "t.parquet")
    proposal = ml.contract(ml.load(tmp_path / "t.parquet", ","))
    kinds = {name: column.type for name, column in proposal.data.columns.items()}
    assert kinds == {
        "y": "boolean", "when": "datetime", "day": "datetime", "f": "number", "u": "integer",
        "d": "number", "c": "category",
    }  # fmt: skip
    assert set(proposal.data.ignored) == {"list", "struct", "bytes", "null"}
    assert proposal.frame["when"][5] == datetime(2022, 3, 1, 5)
    assert proposal.data.columns["f"].nullable
    assert proposal.data.split.column == "when"


# --- frames ----------------------------------------------------------------------------------


def test_a_value_of_the_wrong_type_is_reported_and_never_lost(ml: Any) -> None:
    rows = table(i=lambda r: str(r.randint(0, 9)))
    data = ml.contract(rows).data
    bad = rows.with_columns(i=pl.Series([" five ", "", *rows["i"][2:]]), extra=pl.lit("e"))
    frame = ml.frames.typed(bad, data)
    assert frame["i"].to_list()[:2] == ["five", None]
    assert ml.frames.unreadable(frame["i"], data.columns["i"], data)[0].to_list() == ["five"]
    assert "extra" in frame.columns
    assert ml.frames.unreadable(pl.Series("i", [1.0, 2.5]), data.columns["i"], data)[
        0
    ].to_list() == ["2.5"]


def test_infinity_and_lists_are_no_numbers(ml: Any) -> None:
    data = ml.config.Data.model_construct(missing_values=[""], decimal=".")
    for values in (pl.Series("v", ["inf", "", "NaN"]), pl.Series("v", [[1], None, [2, 3]])):
        bad, _ = ml.frames.unreadable(values, ml.config.Column(type="number"), data)
        assert bad.to_list() == values.gather([0, 2]).to_list()


def test_a_format_that_is_none_is_named(ml: Any) -> None:
    data = ml.contract(table(when=[f"2020-01-{i % 28 + 1:02}" for i in range(N)])).data
    wrong = {"when": data.columns["when"].model_copy(update={"formats": ["%Y-%m-%d %H"]})}
    rows = pl.DataFrame({"when": ["2020-01-01 10"]})
    with pytest.raises(ml.UsageError, match=r"columns\.when\.formats"):
        ml.frames.typed(rows, data.model_copy(update={"columns": wrong}))


@pytest.mark.parametrize("how", [None, "drop"])
@pytest.mark.parametrize(
    "spellings",
    [
        ("0", "9007199254740993"),  # 2**53 + 1, which no float holds
        ("1.0", "9007199254740993"),
        ("-9223372036854775807", "0.0"),
        ("9007199254740992", "9007199254740993"),  # one and the same, as floats
        ("1.0", "2.00"),
    ],
)
def test_classes_that_are_whole_numbers_are_read_to_the_last_digit(
    ml: Any, spellings: tuple[str, str], how: str | None
) -> None:
    y = [spellings[i % 2] for i in range(N)] + (["7"] * 2 if how else [])
    proposal = ml.contract(table(n=len(y), y=y), rare_classes=how)
    assert proposal.data.classes == sorted(
        (str(int(word.split(".")[0])) for word in spellings), key=int
    )
    assert sorted(set(proposal.y.tolist())) == [0, 1]


# --- any table -------------------------------------------------------------------------------

ODD = [
    "",
    "NA",
    "-",
    "None",
    "unknown",
    "yes",
    "no",
    "0",
    "1",
    "007",
    "1,5",
    "1.5",
    "1e400",
    "inf",
    "2020-01-02",
    "03/04/2021",
    "3/14/21",
    "12:30",
    "1,234",
    "1.234,5",
    "$5",
    "5%",
    " a ",
    "ß",
    "($5.25)",
    "-$7",
    "7-",
    "1'234",
    "12,34,567",
    "1.227,11",
    "<0.1",
    "84 kg",
    "1998 Q1",
    "1999",
    "63",
    "Jan 2020",
    "Sun, 01 Jan 2017 00:00:00 -0500",
    "-999",
    "120/80",
]
WORDS = st.sampled_from(ODD)
NUMBERS = st.floats(width=64).map(repr) | st.integers(-(2**70), 2**70).map(str)
DATES = st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1)).map(str)
TEXTS = st.text(max_size=4)
TARGETS = [["a", "b"], ["0", "1"], ["1.0", "2.0", ""], ["x", "None", "z"], ["3", "4", "5", "6"]]
KINDS = [
    WORDS,
    NUMBERS,
    DATES,
    TEXTS,
    st.integers(-3, 3).map(str),
    st.sampled_from(["a", "b", "c"]),
]


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """A few pools of words; every row takes one of each at random."""
    r = random.Random(draw(st.integers(0, 2**32)))
    n = draw(st.sampled_from([80, 120, 300]))
    known = st.sampled_from(["year", "date", "created_at", "id", "rownames", "month", "lat"])
    names = draw(st.lists(st.text(max_size=3) | known, min_size=1, max_size=5, unique=True))
    columns = {}
    for name in [*names, "target"]:
        pool = draw(st.lists(draw(st.sampled_from(KINDS)), min_size=1, max_size=30))
        if name == "target" and draw(st.integers(0, 3)):
            pool = draw(st.sampled_from(TARGETS))
        odd = draw(st.lists(WORDS | TEXTS, max_size=3))
        columns[name] = [
            r.choice(odd) if odd and r.random() < 0.03 else r.choice(pool) for _ in range(n)
        ]
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


@pytest.mark.slow  # a hundred tables, in `make nightly` 300
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=tables())
def test_any_table_that_is_accepted_keeps_its_own_contract(ml: Any, rows: pl.DataFrame) -> None:
    try:
        ml.contract(rows, "target", separator=";")
    except ml.UsageError as refused:  # one sentence, and no other exception
        event(str(refused).split("target")[-1][:60])


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    column=st.one_of(
        st.lists(st.floats() | st.none(), min_size=60, max_size=60).map(
            lambda v: pl.Series(v, dtype=pl.Float64)
        ),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=60, max_size=60).map(pl.Series),
        st.lists(st.dates(), min_size=60, max_size=60).map(pl.Series),
        st.lists(st.booleans() | st.none(), min_size=60, max_size=60).map(
            lambda v: pl.Series(v, dtype=pl.Boolean)
        ),
    )
)
def test_any_parquet_column_keeps_its_own_contract(ml: Any, column: pl.Series) -> None:
    ml.contract(table(n=60).with_columns(column.alias("v")))


# --- size ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_hundred_columns_are_described(ml: Any) -> None:
    r = random.Random(9)
    wide = {f"v {i}": [f"{r.random():.3f}" for _ in range(N)] for i in range(200)}
    proposal = ml.contract(table().with_columns(**{k: pl.Series(v) for k, v in wide.items()}))
    assert len(proposal.data.columns) == 203


@pytest.mark.parametrize("name", ["district", "seqn", "studyid", "Order ID", "patient"])
def test_numbers_that_stand_for_something_are_no_features(ml: Any, name: str) -> None:
    """Different in every row, in no order, and not without gaps between them."""
    r = random.Random(3)
    numbers = r.sample(range(10_000, 90_000), N)
    rows = {name: numbers, "x": [r.random() for _ in range(N)], "y": [r.random() for _ in range(N)]}
    assert ml.contract(pl.DataFrame(rows)).data.features == ["x"]


def test_names_of_rows_are_no_text_to_learn_from(ml: Any) -> None:
    """As R writes them: of three words each, and different in every row."""
    r = random.Random(5)
    names = [f"Name{n}, Miss. {r.choice('ABC')} {r.choice('DEF')}" for n in range(N)]
    rows = {"rownames": names, "x": [r.random() for _ in range(N)]}
    rows["y"] = [r.random() for _ in range(N)]
    assert ml.contract(pl.DataFrame(rows)).data.features == ["x"]


def test_five_years_are_enough_to_split_by_time(ml: Any) -> None:
    r = random.Random(4)
    rows = {"year": [2015 + n * 5 // N for n in range(N)], "y": [r.random() for _ in range(N)]}
    rows["x"] = [r.random() for _ in range(N)]
    split = ml.contract(pl.DataFrame(rows)).data.split
    assert (split.by, split.column) == ("time", "year")


def test_numbers_of_fourteen_digits_that_are_not_all_times_are_left_out(ml: Any) -> None:
    created = [str(20200101000000 + second) for second in range(N)]  # some end in 61 and more
    for column in (created, [int(word) for word in created]):
        made = ml.contract(table().with_columns(created=pl.Series(column)))
        assert "created" in made.data.ignored
        assert set(made.data.columns) >= {"x", "c"}
