"""Every engine gives the verdicts, counts and scores of one machine, though workers are killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import deltalake
import libraries
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rung_runtime import RefusedError, UsageError, adapters
from rung_runtime.config import Config, Data
from rung_runtime.config.scale import SCALE, Scale, load_scale
from rung_runtime.engines import Engine, Job, Outcome, open_engine
from rung_runtime.partitioned import duplicates
from rung_runtime.partitioned.features import make_features
from rung_runtime.partitioned.predict import predict_source
from rung_runtime.partitioned.validate import validate_source
from rung_runtime.pipeline import bulk, ingest
from rung_runtime.pipeline.validate import check
from rung_runtime.testing.engines import EngineContract, Task, start
from test_monitoring import seal
from test_score import Scoring, table
from test_score import packed as packed
from test_score import scoring as scoring

Import = Callable[[str], ModuleType]
LIBRARIES = {"dask": ("distributed>=2026.8", "pandas>=3"), "spark": ("pyspark[sql]>=4.2",)}


def started(name: str) -> Iterator[Engine]:
    """Start an engine with two workers, its libraries behind all that is installed here."""
    (packages,) = libraries.environment(*LIBRARIES[name]).glob("lib/*/site-packages")
    sys.path.append(str(packages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(packages))  # of Spark's Python workers
        patch.setenv("CI_JOB_TOKEN", "secret-of-the-job")  # which workers of this machine inherit
        engine: Engine = adapters.load("engine", name).open_engine(Scale(workers=2))
        yield engine
        engine.close()
    sys.path.remove(str(packages))


@pytest.fixture(scope="module")
def dask() -> Iterator[Engine]:
    yield from started("dask")


@pytest.fixture(scope="module")
def spark() -> Iterator[Engine]:
    yield from started("spark")


class TestPolars(EngineContract):
    """The one that is always there."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        with open_engine("polars") as engine:
            yield engine


@pytest.mark.slow  # processes start, and are killed
class TestDask(EngineContract):
    """A cluster on this machine."""

    @pytest.fixture
    def engine(self, dask: Engine) -> Engine:
        return dask


@pytest.mark.nightly
class TestSpark(EngineContract):
    """Spark on this machine."""

    @pytest.fixture
    def engine(self, spark: Engine) -> Engine:
        return spark


# --- the same verdicts -----------------------------------------------------------------------


@pytest.fixture
def place(problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in the folder of a project, whose `problem/` is the template's."""
    (tmp_path / "config").mkdir()
    for name in ("data", "model", "gate"):
        (tmp_path / f"config/{name}.yaml").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CONTRACT = {
    "source": "data/raw/x.csv",
    "target": "y",
    "task": "binary",
    "classes": ["no", "yes"],
    "split": {"by": "stratified"},
    "keys": ["customer", "day"],
    "time": "at",
    "max_age_days": 400,
    "min_rows": 30,
    "columns": {
        "customer": {"type": "integer"},
        "day": {"type": "category"},
        "at": {"type": "datetime"},
        "age": {"type": "number", "min": 0.0, "max": 99.5},
        "origin": {"type": "category", "categories": ["A", "B"], "nullable": True},
        "dest": {"type": "category", "categories": ["A", "B"]},
        "is_new": {"type": "boolean", "nullable": True},
        "y": {"type": "category", "categories": ["no", "yes"]},
    },
    "ignored": {"note": "no feature"},
}
DATA = Data.model_validate(CONTRACT)


def settings() -> Config:
    return Config.model_construct(data=DATA)


def drawn(rng: random.Random, rows: int) -> pl.DataFrame:
    """Return rows as texts that satisfy the contract."""
    now = datetime.now()
    columns = {
        "customer": [str(row // 2) for row in range(rows)],
        "day": ["mon" if row % 2 else "tue" for row in range(rows)],
        "at": [f"{now - timedelta(days=rng.randint(2, 300)):%Y-%m-%dT%H:%M}" for _ in range(rows)],
        "age": [f"{rng.uniform(0, 99):.3f}" for _ in range(rows)],
        "origin": [rng.choice(["A", ""]) for _ in range(rows)],
        "dest": ["B"] * rows,
        "is_new": [rng.choice(["true", "false", ""]) for _ in range(rows)],
        "y": [rng.choice(["no", "yes"]) for _ in range(rows)],
        "note": ["x"] * rows,
    }
    return pl.DataFrame(columns)


def spoil(rng: random.Random, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of which some break rules."""

    def put(name: str, values: list[str], most: int = 9) -> None:
        texts = rows[name].to_list()
        for _ in range(rng.randint(1, most)):
            texts[rng.randrange(len(texts))] = rng.choice(values)
        nonlocal_rows[0] = nonlocal_rows[0].with_columns(pl.Series(name, texts))

    nonlocal_rows = [rows]
    for fault in rng.sample(range(8), rng.randint(1, 4)):
        if fault == 0:
            put("age", ["-1.5", "-2", "120", ""], most=30)
        elif fault == 1:
            put("age", ["old", "young", "n/a"])
        elif fault == 2:
            put("origin", ["C", "D", "E", "F", "G", "H", "I"], most=20)
        elif fault == 3:
            put("dest", ["A", ""], most=20)
        elif fault == 4:
            put("customer", ["0", "1"])
        elif fault == 5:
            nonlocal_rows[0] = nonlocal_rows[0].drop("is_new")
        elif fault == 6:
            nonlocal_rows[0] = nonlocal_rows[0].with_columns(pl.lit("z").alias("extra"))
        else:
            put("is_new", ["perhaps"], most=3)
    return nonlocal_rows[0]


def write_partitions(rng: random.Random, rows: pl.DataFrame, folder: Path) -> None:
    """Write rows as files, whose names are in their order."""
    folder.mkdir()
    cuts = sorted({0, rows.height, *(rng.randrange(1, rows.height) for _ in range(4))})
    for number, (first, last) in enumerate(pairwise(cuts)):
        part = rows[first:last]
        if number % 2:
            part.write_parquet(folder / f"part-{number}.parquet")
        else:
            part.write_csv(folder / f"part-{number}.csv")


def document(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "artifacts/source_validation.json").read_text())
    return content


def test_partitions_get_the_verdict_that_one_table_of_all_rows_gets(
    place: Path,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for trial in range(12):
        rows = spoil(rng, drawn(rng, rng.choice([20, 60, 200])))
        source = place / f"in-{trial}"
        write_partitions(rng, rows, source)
        expected = check(ingest.typed(rows, DATA), DATA)
        with open_engine("polars") as engine, suppress(RefusedError):
            validate_source(f"in-{trial}", None, settings(), engine)
        verdict = document(place)
        for key in ("rows", "verdict", "columns"):
            assert verdict[key] == expected[key], (seed, trial, key)
        for failure in [*verdict["failures"], *expected["failures"]]:
            if failure["rule"] == "a flight goes somewhere else":
                failure["samples"] = []  # whole rows, without columns that are broken anywhere
        assert verdict["failures"] == expected["failures"], (seed, trial)
        assert sum(part["rows"] for part in verdict["partitions"]) == rows.height


def test_keys_that_repeat_are_found_though_few_are_compared_at_a_time(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "MAX_KEYS", 25)
    rng = random.Random(1)
    rows = drawn(rng, 200)
    again = rows[[3, 150, 3]].with_columns(age=pl.lit("7"))
    (place / "in").mkdir()
    rows.write_parquet(place / "in/a.parquet")
    again.write_parquet(place / "in/b.parquet")
    with (
        open_engine("polars") as engine,
        pytest.raises(RefusedError, match="duplicate key in 5 rows, such as"),
    ):
        validate_source("in", None, settings(), engine)
    (failure,) = document(place)["failures"]
    expected = check(ingest.typed(pl.concat([rows, again]), DATA), DATA)["failures"]
    assert [failure] == expected
    assert [part["verdict"] for part in document(place)["partitions"]] == ["passed", "passed"]


def test_partitions_that_cannot_be_read_or_break_a_rule_are_named(place: Path) -> None:
    rng = random.Random(1)
    (place / "in").mkdir()
    for name in "abc":
        part = drawn(rng, 40).with_columns(pl.lit(name).alias("day"))
        part = part.with_columns(pl.Series("customer", [str(row) for row in range(40)]))
        part = part.with_columns(age=pl.lit("-1" if name == "b" else "5"))
        part.write_parquet(place / f"in/{name}.parquet")
    with open_engine("polars") as engine:
        with pytest.raises(RefusedError, match="age: below 0 in 40 rows") as caught:
            validate_source("in", None, settings(), engine)
        assert "in 1 of 3 partitions: b.parquet" in str(caught.value)
        content = (place / "in/c.parquet").read_bytes()
        (place / "in/c.parquet").write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match=r"in/c\.parquet cannot be read"):
            validate_source("in", None, settings(), engine)


def test_a_partition_without_rows_is_a_partition_like_others(place: Path) -> None:
    rows = drawn(random.Random(2), 120)
    (place / "in").mkdir()
    rows.write_parquet(place / "in/a.parquet")
    rows[:0].write_parquet(place / "in/b.parquet")
    rows[:0].write_csv(place / "in/c.csv")
    with open_engine("polars") as engine:
        message = validate_source("in", None, settings(), engine)
    assert message.startswith("120 rows of 3 partitions satisfy the contract")
    assert [part["rows"] for part in document(place)["partitions"]] == [120, 0, 0]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_columns_count_where_there_are_no_rows(place: Path, suffix: str) -> None:
    rows = drawn(random.Random(2), 120)
    (place / "in").mkdir()
    rows.write_parquet(place / "in/a.parquet")
    wrong = rows[:0].drop("age").with_columns(new=pl.lit("x"))
    getattr(wrong, f"write_{suffix}")(place / f"in/b.{suffix}")
    with (
        open_engine("polars") as engine,
        pytest.raises(RefusedError, match="age: missing column") as caught,
    ):
        validate_source("in", None, settings(), engine)
    assert "new: extra column" in str(caught.value)
    assert f"in 1 of 2 partitions: b.{suffix}" in str(caught.value)


# --- features --------------------------------------------------------------------------------


def test_what_is_in_no_partition_is_named(place: Path) -> None:
    clean_partitions(place)
    (place / "elsewhere").mkdir()
    (place / "in/2024").symlink_to(place / "elsewhere")
    (place / "in/notes.docx").write_text("?")
    left_out = "; 1 file left out, not a table: notes.docx; not followed: 2024 (a link to a folder)"
    with open_engine("polars") as engine:
        assert validate_source("in", None, settings(), engine).endswith(left_out)
    assert made(place).endswith(left_out)


def made(place: Path, to: str = "out", engine: str = "polars") -> str:
    with open_engine(engine) as opened:
        return make_features("in", None, to, settings(), opened)


def clean_partitions(place: Path) -> pl.DataFrame:
    rows = drawn(random.Random(2), 120)
    (place / "in/day=1").mkdir(parents=True)
    rows[:50].write_parquet(place / "in/day=1/a.parquet")
    rows[50:].write_csv(place / "in/b.csv")
    return rows


def test_features_of_partitions_are_those_of_one_table(place: Path) -> None:
    rows = ingest.typed(clean_partitions(place), DATA)
    assert made(place) == "features of 120 rows of 2 partitions: out"
    parts = [pl.read_parquet(place / f"out/{n}") for n in ("day=1/a.parquet", "b.csv.parquet")]
    expected = import_module("model.problem.features").features(ingest.inputs(rows, DATA))
    assert pl.concat(parts).select(expected.columns).equals(expected)
    assert pl.concat(parts)["y"].equals(rows["y"])


def test_features_are_made_again_where_rows_or_code_have_changed(
    place: Path, problem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clean_partitions(place)
    made(place)
    assert made(place).endswith("2 of them had been made before")
    rows[50:100].write_csv(place / "in/b.csv")
    assert made(place).endswith("1 of them had been made before")
    copy = shutil.copytree(problem, place / "problem")
    (copy / "features.py").write_text(
        "import polars as pl\n\n\ndef features(rows):\n    return rows.select('age')\n"
    )
    monkeypatch.setattr("rung_runtime.problem.folder", lambda: copy)
    assert made(place) == "features of 100 rows of 2 partitions: out"
    assert pl.read_parquet(place / "out/b.csv.parquet").columns == [
        "customer", "day", "y", "age",
    ]  # fmt: skip


def test_a_partition_that_breaks_the_contract_has_no_features_and_is_named(place: Path) -> None:
    rows = clean_partitions(place)
    rows[50:].with_columns(age=pl.lit("old")).write_csv(place / "in/b.csv")
    with pytest.raises(RefusedError, match=r"b\.csv:\n    age: not of type number in 70 rows"):
        made(place)
    assert sorted(path.name for path in (place / "out").rglob("*.parquet")) == ["a.parquet"]


@pytest.mark.parametrize("fault", ["breaks the contract", "is empty"])
def test_features_of_rows_that_are_no_longer_there_do_not_stay(place: Path, fault: str) -> None:
    rows = clean_partitions(place)
    made(place)
    if fault == "is empty":
        rows[:0].write_csv(place / "in/b.csv")
    else:
        rows[50:].with_columns(age=pl.lit("old")).write_csv(place / "in/b.csv")
    with suppress(RefusedError):
        made(place)
    assert [path.name for path in (place / "out").rglob("*.parquet")] == ["a.parquet"]


@pytest.mark.nightly  # Spark starts
def test_spark_finds_the_verdicts_and_makes_the_features_of_one_machine(
    place: Path, spark: Engine
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    keys = ("rows", "verdict", "columns", "failures", "partitions", "data_digest")
    for trial in range(4):
        source = f"in-{trial}"
        rows = drawn(rng, 200)
        write_partitions(rng, spoil(rng, rows) if trial else rows, place / source)
        verdicts = []
        with open_engine("polars") as polars:
            for engine in (polars, spark):
                with suppress(RefusedError):
                    validate_source(source, None, settings(), engine)
                verdicts.append({key: document(place)[key] for key in keys})
        assert verdicts[0] == verdicts[1], (seed, trial)
    with open_engine("polars") as polars:
        for engine in (polars, spark):
            make_features("in-0", None, f"out-{engine.name}", settings(), engine)
    for file in (place / "out-polars").glob("*.parquet"):
        other = place / "out-spark" / file.name
        assert_frame_equal(pl.read_parquet(file), pl.read_parquet(other))


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine: dusk", "^config/scale.yaml names the engine 'dusk'.*use one of dask, polars, "),
        ("engine: [dask]", "config/scale.yaml: engine: "),
        ("cluster: x", "config/scale.yaml: cluster: there is no such key"),
        ("memory: much", "config/scale.yaml: memory: "),
        ("scheduler: 'tcp://127.0.0.1:1'", "config/scale.yaml: scheduler is for a cluster"),
    ],
)
def test_settings_that_cannot_be_are_told(place: Path, text: str, message: str) -> None:
    SCALE.write_text(text)
    with pytest.raises(UsageError, match=message), open_engine():
        pass


def test_an_option_that_names_no_engine_is_told_as_the_option(place: Path) -> None:
    SCALE.write_text("engine: dask")
    with pytest.raises(UsageError, match=r"^--engine names the engine 'dusk'"), open_engine("dusk"):
        pass


def test_the_engine_is_that_of_the_command_then_of_the_file(place: Path) -> None:
    with open_engine() as engine:
        assert engine.name == "polars"
    SCALE.write_text("engine: dask\nworkers: 3\nmemory: 2GiB\n")
    assert load_scale() == Scale(engine="dask", workers=3, memory="2GiB")
    with open_engine("polars") as engine:
        assert engine.name == "polars"


def test_a_scheduler_in_the_file_is_for_the_engine_in_the_file(place: Path) -> None:
    SCALE.write_text("engine: dask\nscheduler: 'tcp://127.0.0.1:1'\n")
    with open_engine("polars") as engine:
        assert engine.name == "polars"
    with (
        pytest.raises(UsageError, match="--scheduler is for a cluster, and polars has none"),
        open_engine("polars", "tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize(("name", "library"), [("dask", "cloudpickle"), ("spark", "pyarrow")])
def test_a_library_of_an_engine_that_is_missing_is_told(
    place: Path, name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with (
        pytest.raises(UsageError, match=f"engine {name} needs {library}.*uv sync"),
        open_engine(name),
    ):
        pass


# --- scores ----------------------------------------------------------------------------------


def scores_by(scoring: Scoring, engine: Engine, sink: str) -> pl.DataFrame:
    """Return the scores that an engine writes for the source, sorted."""
    module = scoring.module("scoring")
    module.score("in", sink, scoring.model, module.Options(), engine)
    files = sorted((scoring.place.path / sink).glob("scored/**/*.parquet"))
    frames = [pl.read_parquet(file, hive_partitioning=False) for file in files]
    return pl.concat(frames, how="diagonal_relaxed").sort("booking").drop("request_id")


def many_partitions(scoring: Scoring) -> None:
    """Make a source of so many rows that a worker can be killed among them."""
    shutil.rmtree(scoring.source)
    scoring.source.mkdir()
    rows = table(scoring.place, 0, 2_000)
    for number in range(20):
        ids = pl.Series("booking", [f"{number}-{row}" for row in range(rows.height)])
        rows.with_columns(ids).write_parquet(scoring.source / f"{number:02}.parquet")


def kill_a_worker_between(
    scoring: Scoring, engine: Any, sink: str, counts: list[int], pid: int
) -> None:
    """Kill a worker once three partitions are done, and note how many were then."""
    journal = scoring.place.path / sink / "journal"
    end = time.monotonic() + 60
    while (done := len(list(journal.glob("*.parquet.json")))) < 3 and time.monotonic() < end:
        time.sleep(0.005)
    counts.append(done)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_dask_writes_the_scores_and_the_verdict_of_one_machine_though_a_worker_is_killed(
    scoring: Scoring, dask: Any
) -> None:
    many_partitions(scoring)
    with open_engine("polars") as polars:
        expected = scores_by(scoring, polars, "one")
    pid = min(dask.client.run(os.getpid).values())
    counts: list[int] = []
    killer = Thread(target=kill_a_worker_between, args=(scoring, dask, "many", counts, pid))
    killer.start()
    scores = scores_by(scoring, dask, "many")
    killer.join()
    assert counts[0] < 20, "it was killed after the work"
    assert scores.drop("p:true", "p:false").equals(expected.drop("p:true", "p:false"))
    for name in ("p:true", "p:false"):
        np.testing.assert_allclose(scores[name], expected[name], rtol=0, atol=1e-9)
    entries = [
        {
            path.name: {
                key: value for key, value in json.loads(path.read_text()).items() if key != "time"
            }
            for path in (scoring.place.path / sink / "journal").glob("*.parquet.json")
        }
        for sink in ("one", "many")
    ]
    assert entries[0] == entries[1]
    assert len(entries[0]) == 20
    content = scoring.module("config").load().data.model_dump()
    content["columns"]["booking"] = {"type": "text"}
    keyed = Config.model_construct(data=Data.model_validate(content | {"keys": ["booking"]}))
    verdicts = []
    with open_engine("polars") as polars:
        for engine in (polars, dask):
            with suppress(RefusedError):
                validate_source("in", None, keyed, engine)
            verdicts.append(document(scoring.place.path))
    same = [
        {key: verdict[key] for key in ("rows", "verdict", "columns", "failures", "partitions")}
        for verdict in verdicts
    ]
    assert same[0] == same[1]
    assert verdicts[0]["data_digest"] == verdicts[1]["data_digest"]
    assert same[0]["rows"] == 40_000


@pytest.mark.nightly  # a cluster of its own, whose workers know the store
def test_workers_read_parquet_and_delta_from_an_object_store_and_write_to_it(
    scoring: Scoring, bucket: str
) -> None:
    source = scoring.place.path / scoring.model.data.source
    rows = pl.read_csv(source, infer_schema=False, n_rows=600)
    for number in (0, 1):
        rows[300 * number :][:300].write_parquet(f"{bucket}/files/part-{number}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
        deltalake.write_deltalake(f"{bucket}/lake", rows, partition_by=["origin"])
    module = scoring.module("scoring")
    settings = scoring.module("config").load()
    with contextmanager(started)("dask") as dask, open_engine("polars") as polars:
        for place in (f"{bucket}/files", f"{bucket}/lake"):
            made: list[list[pl.DataFrame]] = []
            verdicts = []
            for name, engine in (("one", polars), ("many", dask)):
                to = f"{place}-{name}"
                module.score(place, f"{to}/scores", scoring.model, module.Options(), engine)
                make_features(place, None, f"{to}/features", settings, engine)
                with suppress(RefusedError):  # too few rows
                    validate_source(place, None, settings, engine)
                verdicts.append(document(scoring.place.path))
                paths = (f"{to}/scores/scored/**/*.parquet", f"{to}/features/**/*.parquet")
                made.append([pl.read_parquet(path, hive_partitioning=False) for path in paths])
            for here, many in zip(*made, strict=True):
                assert here.height == 600
                same = [name for name in here.columns if name != "request_id"]
                assert_frame_equal(many.select(same), here.select(same), rel_tol=0, abs_tol=1e-9)
            for key in ("rows", "verdict", "columns", "failures", "partitions"):
                assert verdicts[0][key] == verdicts[1][key], key


# --- predictions -----------------------------------------------------------------------------


@pytest.fixture
def known(scoring: Scoring) -> Scoring:
    """Give the source the columns of the contract alone: others that are not kept are refused."""
    for path in scoring.source.rglob("*.parquet"):
        pl.read_parquet(path, hive_partitioning=False).drop("booking").write_parquet(path)
    late = scoring.source / "late.csv"
    pl.read_csv(late).drop("booking").write_csv(late)
    return scoring


def predicted(scoring: Scoring, to: str, engine: Engine, keep: Sequence[str] = ()) -> pl.DataFrame:
    """Return what an engine predicts for the source, in the order of its partitions."""
    predict_source(scoring.model, "in", to, [*keep], engine)
    files = sorted((scoring.place.path / to).rglob("*.parquet"))
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def test_a_folder_gets_the_predictions_that_each_of_its_files_gets(scoring: Scoring) -> None:
    with open_engine("polars") as engine:
        message = predict_source(scoring.model, "in", "many", ["booking", "carrier"], engine)
    assert message.startswith("many: predictions for ")
    assert message.endswith(" rows of 3 of 3 partitions")
    for name in ("date=2026-01-01/part-0.parquet", "late.csv"):
        source = scoring.source / name
        bulk.predict_file(scoring.model, source, Path("one.parquet"), ["booking", "carrier"])
        (file,) = Path("many").glob(f"{name}*")
        assert_frame_equal(
            pl.read_parquet("one.parquet"),
            pl.read_parquet(file, hive_partitioning=False),
            check_dtypes=False,
        )


def test_a_file_that_breaks_the_contract_is_named_and_the_others_are_predicted(
    known: Scoring,
) -> None:
    with open_engine("polars") as engine:
        predicted(known, "out", engine)
        rows = pl.read_csv(known.source / "late.csv")
        rows.with_columns(distance=-1).write_csv(known.source / "late.csv")
        with pytest.raises(RefusedError, match=r"2 of 3 partitions\n  late\.csv:\n    dist"):
            predicted(known, "out", engine)
    names = sorted(path.name for path in Path("out").rglob("*.parquet"))
    assert names == ["part-0.parquet", "part-0.parquet"]  # not those of earlier rows


def test_what_is_no_folder_is_predicted_by_no_engine(
    known: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = known.module("cli.app")
    monkeypatch.setattr(app, "START", Path.cwd())
    with pytest.raises(UsageError, match="--engine and --scheduler are for a folder of files"):
        app.predict(file=Path("in/late.csv"), rows=None, to=None, keep=None, engine="polars")
    with pytest.raises(UsageError, match="in is a folder: name another one with --to"):
        app._predict_folder(known.model, Path("in"), None, [], None, None)
    monkeypatch.setattr(app, "HAS_LOOP", False)
    with pytest.raises(UsageError, match="in is a folder, which level 1 predicts: name a file"):
        app._predict_folder(known.model, Path("in"), Path("out"), [], None, None)


@pytest.mark.slow
def test_dask_predicts_what_one_machine_predicts(known: Scoring, dask: Any) -> None:
    with open_engine("polars") as polars:
        expected = predicted(known, "one", polars)
    assert_frame_equal(predicted(known, "two", dask), expected, abs_tol=1e-9, rel_tol=0)


LOOKS = """
import os
reached = []
for name, attempt in {
    "token": lambda: os.environ["CI_JOB_TOKEN"],
    "worker": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "scheduler": lambda: __import__("socket").socket(),
}.items():
    try:
        attempt()
        reached.append(name)
    except (OSError, LookupError):
        pass
raise ArithmeticError(f"reached {reached}")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="by Linux' own means")
def test_a_package_reaches_no_token_that_a_worker_of_this_machine_has_inherited(
    scoring: Scoring, dask: Any, tmp_path: Path
) -> None:
    evil = shutil.copytree(scoring.model.folder, tmp_path / "evil")
    features = evil / "problem/features.py"
    features.write_text(LOOKS + features.read_text())
    seal(evil, scoring.module, datetime.now(UTC))
    manifest = json.loads((evil / "manifest.json").read_text())
    scoring.place.model = replace(scoring.model, folder=evil, manifest=manifest)
    with pytest.raises(UsageError, match=r"cannot be opened: ArithmeticError: reached \[\]"):
        scores_by(scoring, dask, "out")
    inherited = dask.client.run(os.environ.get, "CI_JOB_TOKEN")
    assert set(inherited.values()) == {"secret-of-the-job"}


@pytest.mark.slow  # three processes
def test_threads_of_a_worker_ask_a_package_in_a_process_each(scoring: Scoring) -> None:
    score = import_module("rung_runtime.scoring.score")
    models = score.IsolatedModels(scoring.model.folder, scoring.model.manifest["package_digest"])
    with models.borrow() as first, models.borrow() as second:
        processes = {first.process.pid, second.process.pid}
    assert len(processes) == 2
    with models.borrow() as again:
        assert again.process.pid in processes
        again.process.kill()
        again.process.wait()
    with models.borrow() as first, models.borrow() as second:
        assert first.process.poll() is second.process.poll() is None
        running = [first.process, second.process]
    del first, second, again, models
    assert [process.wait(10) for process in running] == [-signal.SIGKILL] * 2


class Elsewhere:
    """An engine whose workers write to folders of their own."""

    name = "elsewhere"
    in_process = False

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, job: Any, items: Sequence[Any]) -> Iterator[Outcome[Any]]:
        here = Path.cwd()
        other = here.parent / "elsewhere"
        shutil.copytree(here, other, dirs_exist_ok=True)
        os.chdir(other)
        try:
            do = job.start(job.files)
            do.sink = type(do.sink)("out", "parquet")  # a folder of the same name
            do.borrow_model = lambda: nullcontext(self.model)
            outcomes = [Outcome(index, do(item)) for index, item in enumerate(items)]
        finally:
            os.chdir(here)
        yield from outcomes

    def close(self) -> None:
        pass


@pytest.mark.slow  # a cluster starts
def test_a_sink_that_workers_do_not_share_is_told(scoring: Scoring) -> None:
    with pytest.raises(UsageError, match=r"out has no journal of .*, which a worker has scored"):
        scores_by(scoring, Elsewhere(scoring.model), "out")


@pytest.mark.slow
def test_a_scheduler_that_cannot_be_reached_is_told(
    place: Path, dask: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters.load("engine", "dask"), "CONNECT_TIMEOUT_S", 0.2)
    with (
        pytest.raises(UsageError, match=r"the scheduler tcp://127\.0\.0\.1:1: "),
        open_engine("dask", "tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("way", ["at once", "in the middle"])
def test_a_scheduler_that_has_gone_is_told(
    dask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    distributed = import_module("distributed")

    def closed(*_: object, **__: object) -> None:
        raise distributed.comm.CommClosedError("in <TCP (closed) ConnectionPool.gather>")

    def cancelled(*_: object) -> None:
        raise distributed.client.FutureCancelledError("key", "scheduler-connection-lost")

    if way == "at once":
        monkeypatch.setattr(dask.client, "submit", closed)
    else:
        monkeypatch.setattr(distributed.Future, "result", cancelled)
    (tmp_path / "added.txt").write_text("1")
    job = Job(partial(start, str(tmp_path)), {"added": tmp_path / "added.txt", "problem": tmp_path})
    with pytest.raises(UsageError, match=r"the scheduler tcp://\S+ has gone: start it"):
        list(dask.run(job, [Task("part-0", 0)]))


@pytest.mark.slow
def test_a_cluster_without_workers_is_told(
    dask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = import_module("distributed")
    module = adapters.load("engine", "dask")
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    job = Job(partial(start, str(tmp_path)), {})
    options = {"n_workers": 0, "dashboard_address": None, "local_directory": str(tmp_path)}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
        pytest.raises(UsageError, match=r"tcp://\S+ has no workers: start some"),
    ):
        list(module.Dask(client).run(job, [Task("part-0", 0)]))


@pytest.mark.parametrize("name", ["tcp://10.0.0.7:8786", "10.0.0.7:7077", "spark://"])
def test_a_scheduler_that_is_not_a_master_of_spark_is_told(place: Path, name: str) -> None:
    with (
        pytest.raises(UsageError, match=f"the scheduler {name} is not a master of Spark: name one"),
        open_engine("spark", name),
    ):
        pass
