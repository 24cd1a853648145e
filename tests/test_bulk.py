"""A file of any size is predicted part by part, and its answers are those for the whole."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import packages
import polars as pl
import pytest
from conftest import ROOT

Module = Callable[[str], ModuleType]
ROWS = 400
NOTES = ['"a ""b"" c"', '"two\nlines"', "5 inches", '"x,y"']


@pytest.fixture(scope="module")
def model(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Any:
    package = packages.package(
        module, tmp_path_factory.mktemp("bulk") / "model", is_compiled=True, ignored={"note": "why"}
    )
    return module("model_package").load_package(package)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    source = ROOT / "template/data/raw/flights.csv"
    table = pl.read_csv(source, infer_schema=False).drop("delayed").head(ROWS)
    return table.with_columns(note=pl.lit("calm"))


@pytest.fixture
def small_parts(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = module("pipeline.parts")
    monkeypatch.setattr(parts, "PART_ROWS", 90)
    monkeypatch.setattr(parts, "PART_BYTES", 5_000)


def write(rows: pl.DataFrame, file: Path, *, notes: bool = False, line_end: str = "\n") -> Path:
    """Write rows; with notes, as text in which quotes and line breaks stand in fields."""
    if file.suffix == ".parquet":
        rows.write_parquet(file)
        return file
    text = rows.write_csv(line_terminator=line_end, quote_style="never")
    if notes:
        for number, note in enumerate(NOTES):
            text = text.replace("calm", note, 60 + number)
    text += line_end * 2
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def parsed(lines: Iterable[str]) -> list[Any]:
    return [json.loads(line) for text in lines for line in text.splitlines()]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rows.parquet", {}),
        ("rows.csv", {}),
        ("rows.csv.gz", {"line_end": "\r\n"}),
        ("rows.csv", {"notes": True}),
    ],
    ids=["parquet", "csv", "gzip", "quotes and line breaks"],
)
def test_a_file_in_parts_is_answered_as_a_whole_one(
    module: Module,
    model: Any,
    rows: pl.DataFrame,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    options: dict[str, Any],
) -> None:
    bulk = module("pipeline.bulk")
    source = write(rows, tmp_path / name, **options)
    whole = list(bulk.predict_lines(model, source))
    assert len(whole) == 1
    request.getfixturevalue("small_parts")
    read = list(module("pipeline.parts").read_parts(source, ","))
    assert len(read) > 1
    assert pl.concat(read).equals(module("pipeline.ingest").read(source, ","))
    answers = parsed(whole)
    assert len(answers) == ROWS
    # The last digit of a sum of leaves depends on how many rows are predicted at once.
    near = pytest.approx([answer["probabilities"]["true"] for answer in answers], abs=1e-12)
    in_parts = parsed(bulk.predict_lines(model, source))
    assert [answer["probabilities"]["true"] for answer in in_parts] == near
    for to in (tmp_path / "answers.parquet", tmp_path / "new/answers.csv"):
        message = bulk.predict_file(model, source, to, ["note", "flight"])
        assert message == f"{to}: predictions for {ROWS} rows"
        table = pl.read_parquet(to) if to.suffix == ".parquet" else pl.read_csv(to)
        columns = ["note", "flight", "prediction", "probability_false", "probability_true"]
        assert table.columns == columns
        assert table["flight"].cast(pl.String).to_list() == rows["flight"].to_list()
        assert table["prediction"].cast(pl.String).str.to_lowercase().to_list() == [
            answer["prediction"] for answer in answers
        ]
        assert table["probability_true"].to_list() == near
        assert [path.name for path in to.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_wrong_in_any_part_is_told_as_of_the_whole_file_and_nothing_is_written(
    module: Module,
    model: Any,
    rows: pl.DataFrame,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    bulk = module("pipeline.bulk")
    refused = module("exceptions").RefusedError
    index = pl.int_range(pl.len())
    rows = rows.with_columns(
        origin=pl.when(index % 150 == 140).then(pl.lit("LHR")).otherwise("origin"),
        wind_speed=pl.when(index == 399).then(pl.lit("gale")).otherwise("wind_speed"),
        distance=pl.when(index > 20).then(pl.lit("99999")).otherwise("distance"),
        dest=pl.when(index == 1).then(pl.col("origin")).otherwise("dest"),
    ).with_columns(wind_speed=pl.when(index == 1).then(pl.lit("999")).otherwise("wind_speed"))
    source = write(rows, tmp_path / "rows.csv")
    with pytest.raises(refused) as whole:
        list(bulk.predict_lines(model, source))
    assert "gale" in str(whole.value)
    request.getfixturevalue("small_parts")
    (to := tmp_path / "answers.csv").write_text("earlier")
    for predict in (
        lambda: list(bulk.predict_lines(model, source)),
        lambda: bulk.predict_file(model, source, to),
    ):
        with pytest.raises(refused) as parts:
            predict()
        assert str(parts.value) == str(whole.value)
    assert to.read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "answers.csv"}


@pytest.mark.usefixtures("small_parts")
def test_a_column_that_only_the_caller_knows_is_kept_beside_its_prediction(
    module: Module, model: Any, rows: pl.DataFrame, tmp_path: Path
) -> None:
    """Such as an ID. Without --keep it is refused, as is any other that is not kept."""
    bulk = module("pipeline.bulk")
    ids = [f"id-{number}" for number in range(ROWS)]
    named = rows.with_columns(pl.Series("booking no.", ids), origin=pl.col("origin"))
    for name in ("rows.csv", "rows.parquet"):
        source = write(named, tmp_path / name)
        to = tmp_path / "answers.parquet"
        bulk.predict_file(model, source, to, ["booking no.", "origin"])
        table = pl.read_parquet(to)
        assert table["booking no."].to_list() == ids
        assert table["origin"].to_list() == rows["origin"].to_list()
        expected = [
            answer["prediction"]
            for answer in parsed(bulk.predict_lines(model, write(rows, tmp_path / f"known-{name}")))
        ]
        assert table["prediction"].to_list() == expected
        with pytest.raises(module("exceptions").RefusedError, match=r"booking no\.: extra column"):
            bulk.predict_file(model, source, to, ["origin"])


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_a_file_that_ends_early_is_refused_as_a_whole_one_is(
    module: Module, model: Any, rows: pl.DataFrame, tmp_path: Path, small_parts: None, name: str
) -> None:
    source = write(rows, tmp_path / name)
    source.write_bytes(source.read_bytes()[:-30])
    wrong = module("exceptions").UsageError
    with pytest.raises(wrong) as whole:
        module("pipeline.ingest").read(source, ",")
    assert str(source) in str(whole.value)
    with pytest.raises(wrong) as parts:
        module("pipeline.bulk").predict_file(model, source, tmp_path / "answers.csv")
    assert str(parts.value) == str(whole.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("to", "keep", "reason"),
    [
        ("answers.json", [], r"name a file that ends in \.parquet or \.csv"),
        ("rows.csv", [], "is what is read: name another file"),
        ("answers.csv", ["tail"], "has no column 'tail', which --keep names"),
        ("answers.csv", ["prediction"], "a column of the predictions is called so"),
    ],
)
def test_where_predictions_cannot_go_is_said(
    module: Module, model: Any, rows: pl.DataFrame, tmp_path: Path, to: str, keep: Any, reason: str
) -> None:
    named = rows.with_columns(prediction=pl.lit("sunny"))
    source = write(named, tmp_path / "rows.csv")
    before = source.read_bytes()
    with pytest.raises(module("exceptions").UsageError, match=reason):
        module("pipeline.bulk").predict_file(model, source, tmp_path / to, keep)
    assert source.read_bytes() == before
