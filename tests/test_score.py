"""Batch scoring: each row of a source gets one score, or a reason why not, whatever happens."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import string
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import deltalake
import numpy as np
import polars as pl
import pytest
from conftest import ROOT, Render, once
from test_monitoring import Place, pack, seal

Import = Callable[[str], ModuleType]
ROWS = 300


@dataclass
class Scoring:
    """A project's folder with a model, a source to score, and a sink."""

    place: Place
    source: Path
    sink: Path
    module: Import

    @property
    def model(self) -> Any:
        return self.place.model

    def score(self, source: str = "in", sink: str = "out", **options: Any) -> str:
        scoring = self.module("scoring")
        message: str = scoring.score(source, sink, self.model, scoring.Options(**options))
        return message

    def scores(self) -> pl.DataFrame:
        files = sorted(self.sink.glob("scored/**/*.parquet"))
        frames = [pl.read_parquet(file, hive_partitioning=False) for file in files]
        return pl.concat(frames, how="diagonal_relaxed")

    def refused(self) -> pl.DataFrame:
        return pl.concat(
            [pl.read_parquet(file) for file in sorted(self.sink.glob("refused/**/*.parquet"))],
            how="diagonal_relaxed",
        )

    def entry(self, partition: str) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads((self.sink / f"journal/{partition}.json").read_text())
        return entry


def table(place: Place, first: int = 0, rows: int = ROWS) -> pl.DataFrame:
    """Return rows of the example as its file has them, each with an ID of the caller's."""
    raw = pl.read_csv(place.path / place.model.data.source, infer_schema=False)
    part = raw.slice(first, rows).drop("delayed")
    ids = pl.Series("booking", [f"b{first + row}" for row in range(part.height)])
    return part.with_columns(ids)


@pytest.fixture(scope="module")
def packed(module: Import, run_folder: Path) -> Path:
    # Of a few trees, for each test reads it again.
    return once(run_folder / "packed-small", lambda folder: pack(module, folder, max_iter=30))


@pytest.fixture
def scoring(
    tmp_path: Path, render: Render, module: Import, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> Scoring:
    path = tmp_path / "project"
    path.mkdir()
    for name in ("config", "data"):
        shutil.copytree(render(level=1) / name, path / name)
    monkeypatch.chdir(path)
    place = Place(path, module, module("model_package").load_package(packed))
    source = path / "in"
    for day, first in (("2026-01-01", 0), ("2026-01-02", ROWS)):
        (source / f"date={day}").mkdir(parents=True)
        table(place, first).write_parquet(source / f"date={day}/part-0.parquet")
    table(place, 2 * ROWS).write_csv(source / "late.csv")
    return Scoring(place, source, path / "out", module)


def test_each_row_of_each_partition_gets_the_score_that_the_model_gives_it(
    scoring: Scoring,
) -> None:
    message = scoring.score()
    assert message.startswith(f"{3 * ROWS} rows of 3 partitions: {3 * ROWS} scored, 0 refused: out")
    files = sorted(
        path.relative_to(scoring.sink).as_posix() for path in scoring.sink.rglob("*.parquet")
    )
    assert files == [
        "scored/date=2026-01-01/part-0.parquet",
        "scored/date=2026-01-02/part-0.parquet",
        "scored/late.csv.parquet",
    ]
    scores = scoring.scores()
    assert sorted(scores["booking"]) == sorted(f"b{row}" for row in range(3 * ROWS))
    assert scores.columns == [
        "request_id", "row", "booking", "model", "prediction", "p:false", "p:true",
    ]  # fmt: skip
    rows = table(scoring.place, 0, 3 * ROWS)
    expected = scoring.model.predict(scoring.model.read(rows.drop("booking")))
    ordered = rows.select("booking").join(scores, on="booking", maintain_order="left")
    np.testing.assert_array_equal(ordered["p:true"].to_numpy(), expected[:, 1])
    named = np.array(scoring.model.data.classes)[expected.argmax(axis=1)].tolist()
    assert ordered["prediction"].to_list() == named
    assert set(scores["model"]) == {scoring.model.version}


def test_what_is_done_is_not_done_again_and_what_changed_is_replaced(scoring: Scoring) -> None:
    scoring.score()
    before = {path: path.read_bytes() for path in scoring.sink.rglob("*.parquet")}
    assert "0 rows of 0 partitions" in scoring.score()
    assert "3 partitions had been scored before" in scoring.score()
    (scoring.source / "late.csv").touch()  # newer, and the same
    assert "0 rows of 0 partitions" in scoring.score()
    table(scoring.place, 3 * ROWS, 50).write_csv(scoring.source / "late.csv")
    table(scoring.place, 4 * ROWS, 20).write_parquet(scoring.source / "new.parquet")
    assert scoring.score().startswith("70 rows of 2 partitions: 70 scored")
    after = {path: path.read_bytes() for path in scoring.sink.rglob("*.parquet")}
    assert scoring.scores().height == 2 * ROWS + 70
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"late.csv.parquet", "new.parquet"}


def test_another_model_scores_what_is_new_and_the_rest_only_if_told_to(
    scoring: Scoring, packed: Path, tmp_path: Path
) -> None:
    scoring.score()
    first = scoring.model.version
    folder = tmp_path / "other"
    shutil.copytree(packed, folder)
    (folder / "note.txt").write_text("another package")
    seal(folder, scoring.module, datetime.now(UTC))
    scoring.place.model = scoring.module("model_package").load_package(folder)
    table(scoring.place, 4 * ROWS, 20).write_parquet(scoring.source / "new.parquet")
    scoring.score()
    counts = dict(scoring.scores()["model"].value_counts().rows())
    assert counts == {first: 3 * ROWS, scoring.model.version: 20}
    assert scoring.score(rescore=True).startswith(f"{3 * ROWS} rows of 3 partitions")
    assert set(scoring.scores()["model"]) == {scoring.model.version}
    assert scoring.scores().height == 3 * ROWS + 20


def test_refused_rows_are_kept_with_their_reasons_and_the_counts_add_up(scoring: Scoring) -> None:
    rows = table(scoring.place, 0, 1_000).with_columns(
        pl.when(pl.col("booking") == "b3").then(pl.lit("many")).otherwise("seats").alias("seats"),
        pl.when(pl.col("booking") == "b7").then(pl.lit("XXX")).otherwise("origin").alias("origin"),
        pl.when(pl.col("booking").is_in(["b3", "b8"])).then(pl.lit("-5")).otherwise("distance")
        .alias("distance"),
    )  # fmt: skip
    shutil.rmtree(scoring.source)
    scoring.source.mkdir()
    rows.write_csv(scoring.source / "a.csv")
    assert scoring.score().startswith("1,000 rows of 1 partition: 997 scored, 3 refused")
    refused = {row["booking"]: row for row in scoring.refused().to_dicts()}
    assert refused.keys() == {"b3", "b7", "b8"}
    assert "seats: not of type number (many)" in refused["b3"]["reasons"]
    assert refused["b7"]["reasons"] == "origin: new category (XXX)"
    assert refused["b8"]["reasons"] == "distance: below 0 (-5)"
    assert refused["b7"]["origin"] == "XXX"  # as it was read
    assert refused["b7"]["row"] == 7
    assert not refused.keys() & set(scoring.scores()["booking"])
    entry = scoring.entry("a.csv")
    assert (entry["rows"], entry["scored"], entry["refused"]) == (1_000, 997, 3)
    assert sum(entry["reasons"].values()) == 3


@pytest.mark.parametrize("own", ["date", "source_partition", ""])  # "": as pandas's index
def test_a_column_of_the_files_own_is_kept_whatever_its_folder_is_called(
    scoring: Scoring, own: str
) -> None:
    rows = table(scoring.place).with_columns(pl.lit("of the file").alias(own))
    rows.write_parquet(scoring.source / "date=2026-01-01/part-0.parquet")
    scoring.score()
    scored = scoring.sink / "scored/date=2026-01-01/part-0.parquet"
    assert pl.read_parquet(scored, hive_partitioning=False)[own].unique().to_list() == [
        "of the file"
    ]
    other = scoring.sink / "scored/date=2026-01-02/part-0.parquet"
    assert "date" not in pl.read_parquet(other, hive_partitioning=False).columns
    if own == "source_partition":  # which a Delta table has itself
        with pytest.raises(scoring.module("exceptions").UsageError, match="as the sink does"):
            scoring.score(sink="delta", table_format="delta")


@pytest.mark.parametrize("limit", [0.29, 0.57, 0.58])
def test_as_many_rows_may_be_refused_as_the_limit_says(scoring: Scoring, limit: float) -> None:
    """As 0.29 * 100 is less than 29."""
    refused = round(100 * limit)
    shutil.rmtree(scoring.source)
    scoring.source.mkdir()
    rows = table(scoring.place, 0, 100).with_row_index("n")
    broken = pl.when(pl.col("n") < refused).then(pl.lit("x")).otherwise("temperature_f")
    rows = rows.with_columns(temperature_f=broken).drop("n")
    rows.write_parquet(scoring.source / "rows.parquet")
    message = scoring.score(max_refused=limit)
    assert f"{100 - refused} scored, {refused} refused" in message
    with pytest.raises(scoring.module("exceptions").RefusedError):
        scoring.score(max_refused=limit - 0.001, rescore=True, sink="other")


def test_a_partition_of_which_too_much_is_refused_is_not_published(scoring: Scoring) -> None:
    rows = table(scoring.place, 0, 100).with_columns(
        pl.when(pl.col("booking").is_in(["b1", "b2"])).then(pl.lit("XXX")).otherwise("origin")
        .alias("origin")
    )  # fmt: skip
    rows.write_csv(scoring.source / "late.csv")
    refused_error = scoring.module("exceptions").RefusedError
    for _ in range(2):  # the next night as well
        with pytest.raises(refused_error, match=r"late\.csv: 2 of 100 rows are refused") as caught:
            scoring.score()
        assert "98 held back" in str(caught.value)
        assert "origin: new category in 2" in str(caught.value)
    assert not (scoring.sink / "scored/late.csv.parquet").exists()
    assert scoring.refused()["booking"].to_list() == ["b1", "b2"]
    assert scoring.scores().height == 2 * ROWS  # of the others
    assert scoring.score(max_refused=0.02).startswith(
        "100 rows of 1 partition: 98 scored, 2 refused"
    )


def test_a_partition_without_a_column_is_refused_row_by_row(scoring: Scoring) -> None:
    table(scoring.place, 0, 40).drop("seats").write_csv(scoring.source / "late.csv")
    with pytest.raises(
        scoring.module("exceptions").RefusedError, match="seats: missing column in 40"
    ):
        scoring.score()
    assert set(scoring.refused()["reasons"]) == {"seats: missing column"}


def test_a_value_in_the_name_of_a_folder_is_one_of_the_row(scoring: Scoring) -> None:
    rows = table(scoring.place, 0, 30).with_columns(origin=pl.lit("JFK"))
    for name in ("origin=JFK", "origin=N%20W"):
        (scoring.source / name).mkdir()
        rows.drop("origin").write_parquet(scoring.source / f"{name}/a.parquet")
    with pytest.raises(
        scoring.module("exceptions").RefusedError, match=r"origin: new category in 30"
    ):
        scoring.score()
    scores = pl.read_parquet(scoring.sink / "scored/origin=JFK/a.parquet")
    expected = scoring.model.predict(scoring.model.read(rows.drop("booking")))
    assert scores["p:true"].to_list() == expected[:, 1].tolist()
    assert scoring.refused()["origin"].to_list() == ["N W"] * 30


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lambda text: gzip.compress(text), None),
        (lambda text: text.replace(b"\n", b"\r\n"), None),
        (lambda text: text.replace(b"\n", b"\r"), None),
        (lambda text: text.replace(b",b5\n", b',b"5\n'), None),  # a quote within a field
        (lambda text: text + b"\n\n", None),
        (lambda text: text.replace(b",b5\n", b"\n"), "line 7 has 13 fields"),
        (lambda text: text.replace(b",b5\n", b",b5,x\n"), "late.csv"),
        (lambda text: text.replace(b",b5\n", b",b\xe9\n"), "UTF-8"),
        (lambda text: b"PK\x03\x04" + bytes(400), "late.csv"),
        (lambda text: b"", "late.csv"),
    ],
)
def test_a_text_file_is_read_as_training_reads_it_or_refused(
    scoring: Scoring, content: Callable[[bytes], bytes], expected: str | None
) -> None:
    text = table(scoring.place, 0, 40).write_csv().encode()
    (scoring.source / "late.csv").write_bytes(content(text))
    if expected is None:
        assert f"{2 * ROWS + 40} scored" in scoring.score()
        return
    with pytest.raises(scoring.module("exceptions").UsageError, match=expected):
        scoring.score()
    assert scoring.scores().height == 2 * ROWS  # the others are scored


def test_a_quote_late_in_a_file_with_blank_lines_scores_no_row_twice(
    scoring: Scoring, module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = table(scoring.place, 0, 60).write_csv().splitlines(keepends=True)
    blank = "," * lines[0].count(",") + "\n"
    lines[50] = lines[50].replace(",b49\n", ',b"49\n')
    text = "".join([*lines[:5], blank * 3, *lines[5:]])
    (scoring.source / "late.csv").write_text(text)
    in_tens = partial(module("pipeline.table_batches").batches, batch_rows=10)
    monkeypatch.setattr(module("scoring.sources"), "batches", in_tens)
    scoring.score("in/late.csv", sink="blank")
    scores = pl.read_parquet("blank/scored/late.csv.parquet")
    assert scores["booking"].n_unique() == scores.height == 60


def test_files_whose_names_differ_by_a_suffix_keep_their_scores_apart(scoring: Scoring) -> None:
    rows = table(scoring.place, 0, 30)
    rows[:10].write_csv(scoring.source / "a.csv")
    rows[10:].write_parquet(scoring.source / "a.csv.parquet")
    assert f"{3 * ROWS + 30} scored" in scoring.score()
    assert scoring.scores().height == 3 * ROWS + 30


@pytest.mark.parametrize("text", ["Read me first.\n\nThis is prose.\n", "a;b;c\n1;2;3\n"])
def test_what_is_no_table_of_this_contract_stops_no_other_file(scoring: Scoring, text: str) -> None:
    (scoring.source / "README.txt").write_text(text)
    with pytest.raises((scoring.module("exceptions").RungError), match=r"README\.txt"):
        scoring.score()
    assert scoring.scores().height == 3 * ROWS


def test_the_log_stays_readable_whatever_the_rows_of_its_last_batch_are(
    scoring: Scoring, module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(scoring.place, 0, 20)
    total = rows[:1].with_columns(seats=pl.lit("TOTAL"))
    pl.concat([rows, total]).write_csv(scoring.source / "late.csv")
    in_tens = partial(module("pipeline.table_batches").batches, batch_rows=10)
    monkeypatch.setattr(module("scoring.sources"), "batches", in_tens)
    scoring.score("in/late.csv", log="predictions", max_refused=0.1)
    scoring.score("in/date=2026-01-01/part-0.parquet", "more", log="predictions")
    logged = scoring.module("prediction_log").read("predictions").collect()
    assert logged.height == 20 + ROWS


def test_rows_that_come_again_have_ids_of_their_own_in_the_log(scoring: Scoring) -> None:
    for first in (0, 10, 0):
        table(scoring.place, first, 5).write_csv(scoring.source / "late.csv")
        scoring.score("in/late.csv", log="predictions")
    logged = scoring.module("prediction_log").read("predictions").collect()
    assert logged.select("request_id", "row").n_unique() == logged.height == 15


def test_a_private_column_that_names_a_folder_is_not_in_the_log(scoring: Scoring) -> None:
    (scoring.source / "origin=JFK").mkdir()
    rows = table(scoring.place, 0, 30).drop("origin")
    rows.write_parquet(scoring.source / "origin=JFK/a.parquet")
    scoring.score(log="predictions", private=["origin"])
    logged = scoring.module("prediction_log").read("predictions").collect()
    assert "origin=…/a.parquet" in logged["client_request_id"].to_list()
    assert "JFK" not in str(logged.select(pl.exclude("^x:dest$")).rows())


def test_a_file_that_cannot_be_read_stops_no_other(scoring: Scoring) -> None:
    (scoring.source / "date=2026-01-01/part-0.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(
        scoring.module("exceptions").UsageError, match=r"part-0\.parquet cannot be read"
    ) as caught:
        scoring.score()
    assert f"{2 * ROWS} scored" in str(caught.value)
    table(scoring.place, 0, 10).write_parquet(scoring.source / "date=2026-01-01/part-0.parquet")
    assert scoring.score().startswith("10 rows of 1 partition")


def test_rows_at_which_the_models_code_fails_are_refused_and_no_others(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = scoring.model.features

    def fragile(rows: pl.DataFrame) -> pl.DataFrame:
        if (rows["flight"] == flight).any():
            raise ValueError("a flight that its author did not foresee")
        result: pl.DataFrame = features(rows)
        return result

    flight = int(table(scoring.place)["flight"][5])
    object.__setattr__(scoring.model, "features", fragile)
    rows = table(scoring.place)
    failing = rows.filter(pl.col("flight").cast(pl.Int64) == flight).height
    scoring.score("in/date=2026-01-01/part-0.parquet", max_refused=1.0)
    assert set(scoring.refused()["reasons"]) == {
        "the model cannot answer (ValueError: a flight that its author did not foresee)"
    }
    assert scoring.scores().height == ROWS - failing
    object.__setattr__(scoring.model, "features", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # code that always fails is a fault, not a reason
        scoring.score("in/late.csv", "other", max_refused=1.0)


def test_a_sink_is_of_one_source_and_neither_lies_in_the_other(scoring: Scoring) -> None:
    usage_error = scoring.module("exceptions").UsageError
    scoring.score("in/late.csv")
    (scoring.place.path / "elsewhere").mkdir()
    table(scoring.place, 0, 10).write_csv(scoring.place.path / "elsewhere/late.csv")
    with pytest.raises(usage_error, match=r"out has scores of late.csv from in/late.csv"):
        scoring.score("elsewhere/late.csv")
    for source, sink in (("in", "in/scores"), ("in", "in"), ("in/date=2026-01-01", "in")):
        with pytest.raises(usage_error, match="lie in one another"):
            scoring.score(source, sink)
    with pytest.raises(usage_error, match="missing"):
        scoring.score("nowhere")
    (scoring.place.path / "empty").mkdir()
    with pytest.raises(usage_error, match="no Parquet or CSV file"):
        scoring.score("empty")


@pytest.mark.parametrize("name", ["in/", "./in", "in/../in", "file://{path}/in", "link"])
def test_a_source_is_the_same_however_it_is_written(scoring: Scoring, name: str) -> None:
    (scoring.place.path / "link").symlink_to("in")
    scoring.score()
    message = scoring.score(name.format(path=scoring.place.path))
    assert "3 partitions had been scored before" in message


def test_a_bucket_is_the_same_with_a_slash_at_its_end(scoring: Scoring) -> None:
    normalized = scoring.module("storage").normalized
    assert normalized("s3://bucket/rows/") == normalized("s3://bucket/rows") == "s3://bucket/rows"


@pytest.mark.parametrize(
    ("source", "sink"),
    [("file://{path}/in", "in/out"), ("in", "file://{path}/in/out"), ("link", "in/out")],
)
def test_a_sink_inside_of_its_source_is_found_however_it_is_written(
    scoring: Scoring, source: str, sink: str
) -> None:
    path = scoring.place.path
    (path / "link").symlink_to("in")
    with pytest.raises(scoring.module("exceptions").UsageError, match="lie in one another"):
        scoring.score(source.format(path=path), sink.format(path=path))


def test_of_two_runs_at_once_one_scores(scoring: Scoring) -> None:
    with (
        scoring.module("registry").file_lock(scoring.sink / "journal/.lock"),
        pytest.raises(scoring.module("exceptions").UsageError, match="held by another command"),
    ):
        scoring.score()


def test_a_column_that_the_sink_has_itself_is_told(scoring: Scoring) -> None:
    table(scoring.place).with_columns(prediction=pl.lit("x")).write_csv(scoring.source / "late.csv")
    with pytest.raises(scoring.module("exceptions").UsageError, match="column 'prediction'"):
        scoring.score()


def test_a_partition_without_rows_is_done_and_one_that_lost_them_has_no_scores(
    scoring: Scoring,
) -> None:
    scoring.score()
    table(scoring.place, 0, 0).write_csv(scoring.source / "late.csv")
    table(scoring.place, 0, 0).write_parquet(scoring.source / "date=2026-01-01/part-0.parquet")
    assert scoring.score().startswith("0 rows of 2 partitions")
    assert scoring.scores().height == ROWS
    assert "3 partitions had been scored before" in scoring.score()


def test_what_is_not_a_table_is_named(scoring: Scoring) -> None:
    (scoring.source / "notes.docx").write_text("?")
    (scoring.source / "_SUCCESS").write_text("")
    (scoring.source / "date=2026-01-01/.part-0.parquet.crc").write_text("")
    assert "1 file left out, not a table: notes.docx" in scoring.score()


# --- the log -----------------------------------------------------------------------------------


def test_what_is_not_followed_is_named(scoring: Scoring) -> None:
    elsewhere = scoring.place.path / "elsewhere"
    elsewhere.mkdir()
    table(scoring.place).write_parquet(elsewhere / "rows.parquet")
    (scoring.source / "2024").symlink_to(elsewhere)
    (scoring.source / "gone.parquet").symlink_to("nowhere")
    (scoring.source / "_old").symlink_to(elsewhere)  # hidden, as other files of that name
    os.mkfifo(scoring.source / "pipe.csv")
    message = scoring.score()
    named = "2024 (a link to a folder), gone.parquet (a link to nothing), "
    assert message.endswith(f"; not followed: {named}pipe.csv (not a regular file)")
    (scoring.place.path / "links").mkdir()
    (scoring.place.path / "links/all").symlink_to(elsewhere)
    with pytest.raises(scoring.module("exceptions").UsageError) as refusal:
        scoring.score("links")
    assert "not followed: all (a link to a folder)" in str(refusal.value)


def test_the_log_has_the_rows_as_if_the_service_had_answered(scoring: Scoring) -> None:
    rows = table(scoring.place).with_columns(
        pl.when(pl.col("booking") == "b3").then(pl.lit("XXX")).otherwise("origin").alias("origin")
    )
    rows.write_csv(scoring.source / "late.csv")
    scoring.score(log="predictions", private=["carrier"])
    log = scoring.module("prediction_log")
    logged = log.read("predictions").collect()
    assert logged.height == 3 * ROWS - 1
    place = Place(scoring.place.path, scoring.module, scoring.model)
    place.log(place.rows(10), 0)
    assert set(log.read("predictions").collect_schema().names()) - set(logged.columns) == {
        "x:carrier"
    }
    both = scoring.scores().join(logged, on=["request_id", "row"], suffix="_logged")
    assert both.height == 3 * ROWS - 1
    assert (both["p:true"] == both["p:true_logged"]).all()
    assert set(logged["client_request_id"]) == {
        "date=2026-01-01/part-0.parquet", "date=2026-01-02/part-0.parquet", "late.csv",
    }  # fmt: skip
    refused = log.refused("predictions").collect()
    assert refused.select("column", "rule", "rows").rows() == [("origin", "new category", 1)]
    scoring.score(log="predictions")
    assert log.read("predictions").collect().height == 3 * ROWS - 1 + 10


def test_labels_come_by_what_names_a_row_or_by_the_contracts_keys(
    scoring: Scoring, packed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "keyed"
    shutil.copytree(packed, folder)
    contract = json.loads((folder / "contract.json").read_text())
    contract["columns"]["booking"] = {"type": "text"}
    contract["keys"] = ["booking"]
    (folder / "contract.json").write_text(json.dumps(contract))
    seal(folder, scoring.module, datetime.now(UTC))
    scoring.place.model = scoring.module("model_package").load_package(folder)
    scoring.score(log="predictions")
    log = scoring.module("prediction_log")
    data = scoring.model.data
    by_key = scoring.scores().head(20).select("booking", delayed=pl.lit("true"))
    by_row = scoring.scores()[20:25].select("request_id", "row", delayed=pl.lit("false"))
    for name, labels in (("keys", by_key), ("rows", by_row)):
        labels.write_csv(scoring.place.path / f"{name}.csv")
        message = log.add_labels(scoring.place.path / f"{name}.csv", data, "predictions")
        assert message == f"{labels.height} labels added to predictions"
    truth = log.joined("predictions").collect()["truth"]
    assert dict(truth.value_counts().rows()) == {"true": 20, "false": 5, None: 3 * ROWS - 25}


def test_of_many_rows_the_log_gets_a_sample_in_which_as_many_are_refused(
    scoring: Scoring,
) -> None:
    rows = table(scoring.place, 0, 5_000).with_columns(
        pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.lit("XXX")).otherwise("origin")
        .alias("origin")
    )  # fmt: skip
    rows.write_csv(scoring.source / "late.csv")
    scoring.score("in/late.csv", log="predictions", log_rows=1_000, max_refused=0.3)
    log = scoring.module("prediction_log")
    logged = log.read("predictions").collect()
    refused = log.refused("predictions").collect()["rows"].sum()
    assert logged.height + refused == 1_000
    assert 150 < refused < 250
    assert logged["row"].is_sorted()
    assert logged["row"][-1] > 4_500
    scoring.score("in/date=2026-01-01/part-0.parquet", "none", log="silent", log_rows=0)
    assert not Path("silent").exists()


def test_a_log_that_cannot_be_written_is_caught_up_with_by_the_next_run(scoring: Scoring) -> None:
    Path("predictions").write_text("not a folder")
    with pytest.raises(
        scoring.module("exceptions").UsageError, match="the prediction log predictions cannot"
    ):
        scoring.score("in/late.csv", log="predictions")
    assert scoring.scores().height == ROWS  # nobody waits for the log
    Path("predictions").unlink()
    scoring.score("in/late.csv", log="predictions")
    assert scoring.module("prediction_log").read("predictions").collect().height == ROWS
    assert scoring.scores().height == ROWS


# --- killed at any moment ----------------------------------------------------------------------

# Forks, as importing everything again would take most of the time. Polars is imported before, and
# has no threads until it is used.
KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
import polars as pl
import skops.io, sklearn.ensemble
from rung_runtime import scoring
from rung_runtime.exceptions import RefusedError
from rung_runtime.model_package import load_package

package, step = Path(sys.argv[1]), int(sys.argv[2])
HERE = str(Path.cwd())
WRITES = {"os.rename", "os.remove", "os.mkdir"}

def is_write(event, args):
    opens = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wa+")
    if not opens and event not in WRITES:
        return False
    return os.path.abspath(str(args[0])).startswith((f"{HERE}/out", f"{HERE}/predictions"))

def die_at(number):
    left = [number]
    def hook(event, args):
        if is_write(event, args):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run(number=0):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    code = 3
    try:
        if number:
            die_at(number)
        options = scoring.Options(log="predictions", max_refused=0.5)
        print(scoring.score("in", "out", load_package(package), options), flush=True)
        code = 0
    finally:
        os._exit(code)

def rows_of(folder, *names, pattern="**/*.parquet"):
    files = Path(folder).glob(pattern)
    tables = [pl.read_parquet(file).select(names) for file in files]
    return sorted(list(row) for table in tables for row in table.rows())

def look(name):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        return json.loads(Path(name).read_text())
    try:
        rows = {
            "scored": rows_of("out/scored", "booking", "request_id", "row"),
            "refused": rows_of("out/refused", "booking", "request_id", "row"),
            "log": rows_of("predictions", "request_id", "row", pattern="date=*/*.parquet"),
            "log of refused": rows_of("predictions/refused", "rule", "rows"),
        }
        entries = [json.loads(file.read_text()) for file in Path("out").rglob("*.parquet.json")]
        keys = ("partition", "status", "scored", "refused")
        rows["journal"] = sorted([entry[key] for key in keys] for entry in entries)
        Path(name).write_text(json.dumps(rows))
        code = 0
    finally:
        os._exit(0 if Path(name).exists() else 3)

def ids(rows):  # another run at another time gives others; sink and log have the same
    return {row[1] for row in rows["scored"]}

def without_ids(rows):
    scored = {kind: [(row[0], row[2]) for row in rows[kind]] for kind in ("scored", "refused")}
    return rows | scored | {"log": sorted(row[1] for row in rows["log"])}

def clean():
    for name in ("out", "predictions", "partly", "whole"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink(missing_ok=True)

assert run() == 0
expected = look("whole")
states = []
number = 1
while True:
    clean()
    status = run(number)
    if not os.WIFSIGNALED(status):
        break
    partly = look("partly")
    for kind in ("scored", "refused"):  # each partition is there as a whole, or not at all
        for name in {row[1] for row in partly[kind]}:
            bookings = {row[0] for row in partly[kind] if row[1] == name}
            of = [{row[0] for row in expected[kind] if row[1] == one} for one in ids(expected)]
            assert bookings in of, number
    assert run() == 0
    again = look("whole")
    assert ids(again) == {row[0] for row in again["log"]}, number
    assert without_ids(again) == without_ids(expected), (number, again, expected)
    states.append([len(partly["scored"]), len(partly["log"])])
    number += step
print(json.dumps({"kills": number // step, "states": states, "expected": expected}))
"""


def killed(scoring: Scoring, package: Path, step: int) -> dict[str, Any]:
    """Kill a run before each `step`-th of its writes, and start it again each time."""
    shutil.rmtree(scoring.source)
    scoring.source.mkdir()
    for number in range(2):
        rows = table(scoring.place, 20 * number, 20).with_columns(
            pl.when(pl.col("booking") == f"b{20 * number + 3}").then(pl.lit("XXX"))
            .otherwise("origin").alias("origin")
        )  # fmt: skip
        rows.write_parquet(scoring.source / f"{number}.parquet")
    sources = f"import sys; sys.path[:0] = {[str(ROOT / 'runtime/src')]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", sources + KILLED, package, str(step)],
        capture_output=True, text=True, check=False, cwd=scoring.place.path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow  # a process for each moment
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.nightly)])
def test_killed_at_any_moment_no_partition_is_missing_doubled_or_half_written(
    scoring: Scoring, packed: Path, step: int
) -> None:
    result = killed(scoring, packed, step)
    print(f"{result['kills']} kills")
    assert result["kills"] > 30 // step
    expected = result["expected"]
    assert [len(expected[kind]) for kind in ("scored", "refused", "log")] == [38, 2, 38]
    assert expected["log of refused"] == [["new category", 1]] * 2
    assert expected["journal"] == [[f"{number}.parquet", "scored", 19, 1] for number in range(2)]
    assert {0, 19, 38} >= {scored for scored, _ in result["states"]} >= {0, 38}


# --- the command -------------------------------------------------------------------------------


def command(module: Import, *args: str) -> Any:
    """Run `ml score`."""
    from typer.testing import CliRunner

    return CliRunner().invoke(module("cli.app").app, ["score", *args])


@pytest.fixture
def configured(scoring: Scoring, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    """A project whose champion scores what its configuration names, in this process."""
    load_package = scoring.module("model_package").load_package

    @contextmanager
    def opened(folder: Path, package_digest: str, **_: Any) -> Iterator[Any]:
        yield load_package(folder, package_digest)

    monkeypatch.setattr(scoring.module("isolation.model"), "open_isolated", opened)
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "ML_CHAMPION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("cli.score", "cli.partitioned"):
        monkeypatch.setattr(scoring.module(name), "START", scoring.place.path)
    file = scoring.place.path / "config/delivery.yaml"
    file.write_text(f"{file.read_text()}score: {{source: in, sink: out}}\n")
    scoring.place.champion(packed)
    return scoring


def test_the_champion_scores_what_the_configuration_names_and_the_log_is_that_of_the_service(
    configured: Scoring,
) -> None:
    result = command(configured.module)
    assert result.exit_code == 0, result.output
    assert f"{3 * ROWS:,} rows of 3 partitions" in result.output
    assert set(configured.scores()["model"]) == {configured.model.version}
    logged = configured.module("prediction_log").read("predictions").collect()
    assert logged.height == 3 * ROWS
    result = command(configured.module, "in/late.csv", "--to", "elsewhere", "--max-refused", "0")
    assert result.exit_code == 0, result.output
    assert (configured.place.path / "elsewhere/scored/late.csv.parquet").exists()


def test_code_of_a_package_that_always_fails_is_named_by_its_line(
    configured: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = configured.module("isolation.pipe")

    def predict(*_: Any) -> Any:
        raise pipe.PackageError("ValueError: no such flight", "problem/features.py, line 7")

    monkeypatch.setattr(configured.module("model_package").Model, "predict", predict)
    error = command(configured.module, "--max-refused", "1").exception
    assert isinstance(error, configured.module("exceptions").UsageError)
    assert str(error) == "problem/features.py, line 7: ValueError: no such flight"


def test_no_row_is_refused_because_the_process_of_its_package_ended(
    configured: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = configured.module("isolation.pipe")
    shutil.rmtree(configured.source)
    configured.source.mkdir()
    table(configured.place, 0, 20).write_csv(configured.source / "few.csv")
    heights = []

    def predict(_: Any, rows: pl.DataFrame) -> Any:
        heights.append(rows.height)
        raise pipe.ProcessEndedError("its process was killed, for too much time or memory")

    monkeypatch.setattr(configured.module("model_package").Model, "predict", predict)
    error = command(configured.module, "--max-refused", "1").exception
    assert isinstance(error, configured.module("exceptions").UsageError)
    assert "the package cannot answer: its process was killed" in str(error)
    assert heights == [20]
    assert not list(configured.sink.rglob("*.parquet"))


# What a package tries when it is imported.
TRIES = """
import os, socket
from pathlib import Path

SECRET = b"secret-" + b"of-the-job"

def environments():
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(SECRET in file.read_bytes())
        except OSError:
            pass
    if not any(found):
        raise LookupError

reached = []
for name, attempt in {{
    "token": lambda: os.environ["CI_JOB_TOKEN"],
    "login of the sink": lambda: os.environ["AWS_SECRET_ACCESS_KEY"],
    "parent": lambda: Path(f"/proc/{{os.getppid()}}/environ").read_bytes(),
    "any process": environments,
    "checkout": lambda: Path({path!r}, ".git/config").read_text(),
    "settings": lambda: Path({path!r}, "config/gate.yaml").open("a"),
    "network": lambda: socket.socket(),
}}.items():
    try:
        attempt()
        reached.append(name)
    except (OSError, LookupError):
        pass

"""
# A row at which it tells how far it came.
TELLS = """

own_features = features

def features(rows):
    if {flight} in rows["flight"].to_list():
        raise ArithmeticError(f"reached {{reached}}")
    return own_features(rows)
"""
SCORE = "from rung_runtime.cli import main; main()"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="by Linux' own means")
def test_a_package_that_scores_reaches_no_token_and_tells_so_in_a_refused_row(
    scoring: Scoring, packed: Path, tmp_path: Path
) -> None:
    path = scoring.place.path
    (path / "pyproject.toml").write_text('[tool.rung]\npackage = "flight_delays"\nlevel = 1\n')
    (path / ".git").mkdir()
    (path / ".git/config").write_text("[remote]\nurl = https://x:secret-of-the-job@git.example\n")
    flight = int(table(scoring.place)["flight"][5])
    evil = shutil.copytree(packed, tmp_path / "evil")
    features = evil / "problem/features.py"
    own = features.read_text()
    features.write_text(TRIES.format(path=str(path)) + own + TELLS.format(flight=flight))
    seal(evil, scoring.module, datetime.now(UTC))
    done = subprocess.run(
        [sys.executable, "-c", SCORE, "score", "in", "--to", "out", "--package", str(evil),
         "--max-refused", "1"],
        cwd=path, capture_output=True, text=True, check=False,
        env=os.environ | {
            "PYTHONPATH": str(ROOT / "runtime/src"),
            "CI_JOB_TOKEN": "secret-of-the-job",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-job",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (reason,) = set(scoring.refused()["reasons"])
    assert reason == "the model cannot answer (ArithmeticError: reached [])"
    scores = scoring.scores()
    assert scores.height + scoring.refused().height == 3 * ROWS
    rows = table(scoring.place, 0, 3 * ROWS)
    expected = scoring.model.predict(scoring.model.read(rows.drop("booking")))
    answers = rows.select("booking").with_columns(p=expected[:, 1])
    joined = scores.join(answers, on="booking")
    assert joined["p:true"].to_list() == joined["p"].to_list()


@pytest.mark.slow  # a model is trained
def test_a_monitor_sees_what_was_scored(configured: Scoring) -> None:
    shutil.rmtree(configured.source)
    configured.source.mkdir()
    table(configured.place, 0, 4_000).write_csv(configured.source / "a.csv")
    configured.place.settings(window={"hours": 0.0, "rows": 500})
    assert command(configured.module).exit_code == 0
    (file,) = Path("predictions").glob("date=*/*.parquet")
    earlier = pl.col("time") - pl.duration(minutes=5)  # what is younger is not judged yet
    pl.read_parquet(file).with_columns(earlier).write_parquet(file)
    configured.place.monitor()
    (window,) = configured.place.document()["windows"]
    assert window["rows"] == 4_000


def test_another_package_than_the_one_that_was_verified_scores_nothing(
    configured: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = configured.module("registry").current_champion()
    other = f"{champion.version}@sha256:{'0' * 64}"
    monkeypatch.setenv("ML_CHAMPION", other)
    refused = configured.module("exceptions").RefusedError
    assert isinstance(command(configured.module).exception, refused)
    monkeypatch.delenv("ML_CHAMPION")
    assert isinstance(command(configured.module, "--model", other).exception, refused)
    assert not configured.sink.exists()
    assert command(configured.module, "--model", champion.reference).exit_code == 0


@pytest.mark.parametrize(
    ("change", "args", "expected"),
    [
        ("source: in, ", (), "name a source, or set score.source"),
        (", sink: out", (), "name a sink with --to"),
        ("", ("--format", "csv"), "format: Input should be 'parquet' or 'delta'"),
        ("", ("--source-version", "3"), "in is not a Delta table: only those have versions"),
        ("", ("s3://bucket/x", "--to", "in/y"), "object stores need obstore: uv add"),
        ("", ("--format", "delta"), "Delta tables need deltalake: uv add"),
        ("", ("nowhere",), "nowhere is missing"),
        ("", ("--model", "v99"), "v99"),
    ],
)
def test_what_is_missing_or_wrong_is_a_sentence(
    configured: Scoring,
    change: str,
    args: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("obstore", "obstore.store", "deltalake"):
        monkeypatch.setitem(sys.modules, name, None)
    file = configured.place.path / "config/delivery.yaml"
    file.write_text(file.read_text().replace(change, ""))
    error = command(configured.module, *args).exception
    assert isinstance(error, configured.module("exceptions").UsageError)
    assert expected in str(error)


def test_a_pipeline_is_told_which_model_scores_or_that_there_is_no_source(
    configured: Scoring,
) -> None:
    assert command(configured.module, "--print-model").output == "champion\n"
    file = configured.place.path / "config/delivery.yaml"
    file.write_text(file.read_text().replace("source: in", "model: v1.2"))
    assert command(configured.module, "--print-model").output == ""
    file.write_text(file.read_text().replace("v1.2", '"v1\\nname=other"'))
    assert "score.model" in str(command(configured.module, "--print-model").exception)


def test_on_a_runner_a_sink_that_ends_with_the_job_is_refused(
    configured: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(configured.place.path))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/project")
    error = command(configured.module).exception
    assert "ends with the job" in str(error)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(configured.place.path.parent))  # ML_HOME is not it
    monkeypatch.setenv("ML_REGISTRY", "registry")
    assert command(configured.module).exit_code == 0


# --- Delta tables and object stores ------------------------------------------------------------


def delta_rows(place: Place, first: int, rows: int, day: int) -> pl.DataFrame:
    raw = table(place, first, rows)
    return raw.with_columns(date=pl.date(2026, 1, day))


@pytest.mark.slow
def test_a_delta_table_is_scored_at_one_version_into_another_one(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = deltalake.write_deltalake
    write("lake", delta_rows(scoring.place, 0, 100, 1), partition_by=["date"])
    write("lake", delta_rows(scoring.place, 100, 50, 2), mode="append")
    message = scoring.score("lake", table_format="delta", source_version=0)
    assert message.startswith("100 rows of 1 partition of version 0: 100 scored")
    assert scoring.entry("date=2026-01-01")["source_version"] == 0
    message = scoring.score("lake", table_format="delta")
    assert message.startswith("50 rows of 1 partition of version 1: 50 scored")
    scores = pl.scan_delta(deltalake.DeltaTable("out/scored")).collect()
    assert sorted(scores["booking"]) == sorted(f"b{row}" for row in range(150))
    assert set(scores["source_partition"]) == {"date=2026-01-01", "date=2026-01-02"}
    rows = table(scoring.place, 0, 150)
    expected = scoring.model.predict(scoring.model.read(rows.drop("booking")))
    ordered = rows.select("booking").join(scores, on="booking", maintain_order="left")
    assert ordered["p:true"].to_list() == expected[:, 1].tolist()
    # A partition that changes is replaced; one that a killed run committed is not there twice.
    write("lake", delta_rows(scoring.place, 200, 30, 2), mode="append")
    sink = scoring.module("scoring.sink")
    record = sink.Sink.record

    def killed(self: Any, entry: Any) -> None:
        if entry.status != "begun":
            raise KeyboardInterrupt
        record(self, entry)

    monkeypatch.setattr(sink.Sink, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        scoring.score("lake", table_format="delta")
    monkeypatch.setattr(sink.Sink, "record", record)
    assert pl.scan_delta(deltalake.DeltaTable("out/scored")).collect().height == 180
    assert scoring.score("lake", table_format="delta").startswith("80 rows of 1 partition")
    assert pl.scan_delta(deltalake.DeltaTable("out/scored")).collect().height == 180
    assert pl.scan_delta(deltalake.DeltaTable("out/scored")).collect()["booking"].n_unique() == 180
    # Files that were only compacted have the same rows, and are replaced; none is there twice.
    deltalake.DeltaTable("lake").optimize.compact()
    scoring.score("lake", table_format="delta")
    assert pl.scan_delta(deltalake.DeltaTable("out/scored")).collect().height == 180
    with pytest.raises(scoring.module("exceptions").UsageError, match="in the format delta"):
        scoring.score("lake")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["../../../../evil", "a/b", "a%2Fb", ".."])
def test_a_value_of_a_delta_table_leads_to_no_other_folder(scoring: Scoring, value: str) -> None:
    rows = table(scoring.place, 0, 10).with_columns(customer=pl.lit(value))
    deltalake.write_deltalake("lake", rows, partition_by=["customer"])
    before = {*Path("..").resolve().rglob("*")}
    scoring.score("lake")
    written = {*Path("..").resolve().rglob("*")} - before
    assert all(path.is_relative_to(scoring.sink.resolve()) for path in written)
    assert scoring.scores().height == 10


@pytest.mark.slow
def test_no_row_of_a_delta_table_is_lost_for_what_its_partition_is_called(scoring: Scoring) -> None:
    """Readers take some texts for no value; others look like what stands for it in a path."""
    values = [None, "", "__HIVE_DEFAULT_PARTITION__", "None", "%5F_HIVE_DEFAULT_PARTITION__", "a=b"]
    rows = table(scoring.place, 0, 60).with_columns(shop=pl.Series(values * 10))
    deltalake.write_deltalake("lake", rows, partition_by=["shop"])
    message = scoring.score("lake")
    assert message.startswith("60 rows of 4 partitions of version 0: 60 scored, 0 refused")
    scores = scoring.scores()
    assert sorted(scores["booking"]) == sorted(rows["booking"])
    assert "4 partitions had been scored before" in scoring.score("lake")


def z85(content: bytes) -> str:
    """Return bytes as a log of Delta has them: base85 in the alphabet of ZeroMQ."""
    digits = (
        string.digits + string.ascii_lowercase + string.ascii_uppercase + ".-:+=^!/*?&<>()[]{}@%$#"
    )
    words = struct.unpack(f">{len(content) // 4}I", content)
    return "".join(digits[word // 85**place % 85] for word in words for place in range(4, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["deletion vectors", "column mapping"])
def test_a_delta_table_that_is_not_read_whole_here_is_refused(scoring: Scoring, how: str) -> None:
    """Else rows that were deleted would be scored, or columns be missing."""
    deltalake.write_deltalake("lake", table(scoring.place, 0, 40))
    (log,) = Path("lake/_delta_log").glob("*.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    actions = {name: action for line in lines for name, action in line.items()}
    if how == "deletion vectors":
        features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
        actions["protocol"] |= {"minReaderVersion": 3, "minWriterVersion": 7} | features
        # A roaring bitmap of one array, in a map of one key: rows 0 and 2.
        bitmap = struct.pack("<iqiIIHHIHH", 1_681_511_377, 1, 0, 12_346, 1, 0, 1, 16, 0, 2)
        actions["add"]["deletionVector"] = {
            "storageType": "i",
            "pathOrInlineDv": z85(bitmap),
            "sizeInBytes": len(bitmap),
            "cardinality": 2,
        }
        expected = r"lake has deletion vectors, .* purge them first"
    else:
        actions["protocol"] |= {"minReaderVersion": 2, "minWriterVersion": 5}
        actions["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
        fields = json.loads(actions["metaData"]["schemaString"])
        for number, field in enumerate(fields["fields"]):
            physical = {"id": number + 1, "physicalName": field["name"]}
            field["metadata"] = {f"delta.columnMapping.{key}": physical[key] for key in physical}
        actions["metaData"]["schemaString"] = json.dumps(fields)
        expected = "lake cannot be opened as a Delta table: .*column mapping"
    log.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(scoring.module("exceptions").UsageError, match=expected):
        scoring.score("lake")


@pytest.mark.slow
def test_a_delta_table_without_partitions_is_one_and_is_left_if_it_cannot_be_read(
    scoring: Scoring,
) -> None:
    deltalake.write_deltalake("lake", table(scoring.place, 0, 40))
    assert scoring.score("lake").startswith("40 rows of 1 partition of version 0")
    assert scoring.scores().height == 40
    usage_error = scoring.module("exceptions").UsageError
    with pytest.raises(usage_error, match="lake cannot be opened as a Delta table"):
        scoring.score("lake", source_version=7)
    for file in Path("lake").glob("*.parquet"):
        file.unlink()
    with pytest.raises(usage_error, match="cannot be read"):
        scoring.score("lake", "elsewhere")


@pytest.mark.slow
def test_an_object_store_can_be_the_source_and_the_sink(scoring: Scoring, bucket: str) -> None:
    usage_error = scoring.module("exceptions").UsageError
    storage = scoring.module("storage").open_storage(f"{bucket}/in")
    for file in scoring.source.rglob("*.*"):
        if file.is_file():
            storage.write(file.relative_to(scoring.source).as_posix(), file.read_bytes())
    storage.write("_SUCCESS", b"")
    message = scoring.score(f"{bucket}/in", f"{bucket}/out")
    assert message.startswith(f"{3 * ROWS} rows of 3 partitions: {3 * ROWS} scored, 0 refused")
    scores = pl.read_parquet(f"{bucket}/out/scored/**/*.parquet", hive_partitioning=False)
    assert sorted(scores["booking"]) == sorted(f"b{row}" for row in range(3 * ROWS))
    assert "3 partitions had been scored before" in scoring.score(f"{bucket}/in", f"{bucket}/out")
    storage.write("late.csv", table(scoring.place, 700, 30).write_csv().encode())
    assert scoring.score(f"{bucket}/in", f"{bucket}/out").startswith("30 rows of 1 partition")
    assert scoring.score(f"{bucket}/in/late.csv", "here").startswith("30 rows of 1 partition")
    with pytest.raises(usage_error, match="lie in one another"):
        scoring.score(f"{bucket}/in", f"{bucket}/in/out")
    with pytest.raises(usage_error, match="s3://nowhere/in cannot be used"):
        scoring.score("s3://nowhere/in", "there")
    with pytest.raises(usage_error, match=r"s3://nowhere/out/.* cannot be used"):
        scoring.score("in/late.csv", "s3://nowhere/out")
    with pytest.raises(usage_error, match="gopher://x/in cannot be used"):
        scoring.score("gopher://x/in", "there")


@pytest.mark.nightly
def test_memory_stays_bounded_whatever_the_size_of_a_file(scoring: Scoring, packed: Path) -> None:
    shutil.rmtree(scoring.source)
    scoring.source.mkdir()
    part = table(scoring.place, 0, 5_000)
    peaks = []
    for count in (20, 200):
        pl.concat([part] * count).write_parquet(scoring.source / "a.parquet")
        code = (
            f"import sys, resource; sys.path[:0] = {[str(ROOT / 'runtime/src')]!r}\n"
            "from pathlib import Path\nfrom rung_runtime import scoring\n"
            "from rung_runtime.model_package import load_package\n"
            "print(scoring.score('in', 'out', load_package(Path(sys.argv[1]))))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, packed], capture_output=True, text=True, check=True
        )
        assert f"{count * 5_000:,} rows" in done.stdout
        peaks.append(int(done.stdout.split()[-1]) // 1024)
    print(f"100,000 and 1,000,000 rows: {peaks} MiB")
    assert peaks[1] < peaks[0] + 300
