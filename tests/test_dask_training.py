"""A model that workers of a cluster train is worth what one machine's is, though one is killed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import libraries
import numpy as np
import polars as pl
import pytest
import tables
from conftest import ROOT
from rung_runtime import UsageError, adapters, config, project
from rung_runtime.artifacts import HOLDOUT, MODEL, TRAIN
from rung_runtime.compiled import Columns
from rung_runtime.config.scale import SCALE
from rung_runtime.engines import Engine, Outcome
from rung_runtime.model_package import predict
from rung_runtime.partitioned import training
from rung_runtime.partitioned.evaluation import Remembered, Spread, open_spread
from rung_runtime.pipeline import evaluate, ingest, train
from rung_runtime.pipeline.importance import importance
from rung_runtime.pipeline.metrics import score
from rung_runtime.pipeline.resampling import Resampler
from rung_runtime.pipeline.split import split
from test_delivery import Loop
from test_engines import LIBRARIES, started
from test_model_formats import boosted as boosted

ROUNDS = 40
# How much worse a model of a cluster may be than one of one machine: see docs/scale.md.
MAX_LOSS = 0.01


class Place:
    """A project's folder, with rows that are split, whose estimator is LightGBM's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.params: dict[str, Any] = {"n_estimators": ROUNDS, "num_leaves": 15}

    def config(self, engine: str = "dask", **model: Any) -> Any:
        settings = config.load()
        update = {"estimator": "lightgbm", "engine": engine, "params": self.params, **model}
        return config.Config(
            data=settings.data, gate=settings.gate, model=settings.model.model_copy(update=update)
        )


@pytest.fixture
def place(problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "template/config", "config")
    shutil.copytree(ROOT / "template/data/raw", "data/raw")
    data = config.load().data
    rows = ingest.typed(ingest.read(Path(data.source), data.separator), data)
    TRAIN.parent.mkdir()
    for side, path in zip(split(rows, data), (TRAIN, HOLDOUT), strict=True):
        side.write_parquet(path)
    monkeypatch.setattr(import_module("model.problem.model"), "estimator", lightgbm_estimator)
    return Place(tmp_path)


def lightgbm_estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: dict[str, Any]
) -> Any:
    lightgbm = import_module("lightgbm")
    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return kind(random_state=seed, **params)


def adapted(**params: Any) -> Any:
    return adapters.load("model_format", "lightgbm").adapt(
        lightgbm_estimator("lightgbm", "binary", pl.DataFrame(), 0, params)
    )


# --- shares ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 5, 1_000, 4_567_891])
def test_each_row_is_in_one_share_and_shares_are_as_large(rows: int, workers: int) -> None:
    shares = training.divide(rows, workers)
    assert len(shares) == min(rows, workers)
    blocks = sorted(block for share in shares for block in share.blocks)
    assert blocks[0][0] == 0
    ends = [first + count for first, count in blocks]
    assert ends == [*[first for first, _ in blocks[1:]], rows]
    assert max(count for _, count in blocks) <= training.BLOCK_ROWS
    sizes = [share.rows for share in shares]
    assert max(sizes) - min(sizes) <= max(count for _, count in blocks)


def recipe(place: Place, **fields: Any) -> training.Recipe:
    data = place.config().data
    features = import_module("model.problem.features").features
    x = features(ingest.inputs(pl.read_parquet(TRAIN).head(10), data))
    content = {
        "contract": data.model_dump_json(),
        "columns": Columns.of_frame(x).to_json(),
        "classes": [0, 1],
        "weights": None,
        "path": str(TRAIN),
        "tail": training.tail_digest(TRAIN),
    }
    return training.Recipe(**{**content, **fields})


def test_shares_together_are_the_matrix_that_one_machine_trains_on(
    place: Place, problem: Path
) -> None:
    data = place.config().data
    rows = pl.read_parquet(TRAIN)
    features = import_module("model.problem.features").features
    frame = features(ingest.inputs(rows, data))
    load = training.start_loading(recipe(place, weights=[1.0, 3.0]), {"problem": problem})
    shares = training.divide(rows.height, 3)
    matrix = np.empty((rows.height, frame.width))
    y = np.empty(rows.height)
    for share in shares:
        loaded = load(share)
        index = np.concatenate([np.arange(first, first + n) for first, n in share.blocks])
        matrix[index] = loaded.X
        y[index] = loaded.y
        assert loaded.sample_weight is not None
        np.testing.assert_array_equal(loaded.sample_weight, np.where(loaded.y == 1, 3.0, 1.0))
    np.testing.assert_array_equal(matrix, Columns.of_frame(frame).matrix(frame))
    np.testing.assert_array_equal(y, ingest.labels(rows, data))


@pytest.mark.parametrize("fault", ["missing", "another"])
def test_a_worker_that_sees_another_file_is_told(place: Place, problem: Path, fault: str) -> None:
    load = training.start_loading(recipe(place), {"problem": problem})
    if fault == "missing":
        TRAIN.unlink()
    else:
        pl.read_parquet(TRAIN).head(100).write_parquet(TRAIN)
    with pytest.raises(UsageError, match=r"train\.parquet is not there for a worker, or is an"):
        load(training.divide(100, 1)[0])


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"early_stopping_round": 5}, "params: early_stopping_round: 5 needs rows to stop by"),
        ({"linear_tree": True}, "params: linear_tree: True would train on the rows of one worker"),
        ({"tree_learner": "feature"}, "params: tree_learner: feature decides how workers share"),
        ({"mc_method": "advanced"}, "params: mc_method: advanced needs all columns"),
        ({"objective": lambda y, p: (y, p)}, "objective is .*not a plain value"),
    ],
)
def test_a_param_that_workers_cannot_follow_is_refused(
    place: Place, params: dict[str, Any], message: str
) -> None:
    place.params = params
    with pytest.raises(UsageError, match=f"^config/model.yaml: .*{message}"):
        train.on_cluster(place.config())


def test_a_library_without_which_nothing_trains_is_told_with_what_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"needs pandas, .*: run `uv add --group train pandas`"):
        adapted().train_on_dask(None, None, None, None, [])


def test_a_fault_of_ours_in_a_worker_is_not_told_as_one_of_the_estimator(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise RuntimeError("a worker failed")

    monkeypatch.setattr(training, "train_on_cluster", fails)
    with pytest.raises(RuntimeError, match="a worker failed"):
        train.on_cluster(place.config())


@pytest.mark.parametrize(
    "params", [{"linear_tree": False}, {"mc_method": "basic"}, {"tree_learner": "voting"}]
)
def test_a_param_that_changes_nothing_is_not_refused(params: dict[str, Any]) -> None:
    adapted(**params).require_distributable()


def test_what_no_cluster_trains_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="refit trains on all rows on this machine"):
        training.train_on_cluster(place.config(refit=True))
    with pytest.raises(UsageError, match=r"model\.yaml: engine: polars does not train: use dask"):
        training.train_on_cluster(place.config("polars"))
    monkeypatch.undo()
    monkeypatch.chdir(place.path)
    other = place.config(estimator="boosted", params={})
    with pytest.raises(UsageError, match=r"'boosted' is a .*: leave out engine, or use LightGBM"):
        training.train_on_cluster(other)


def test_a_project_without_engines_says_so(place: Place) -> None:
    Path("pyproject.toml").write_text('[tool.rung]\npackage = "model"\nlevel = 0\n')
    project._read.cache_clear()
    with pytest.raises(UsageError, match="engine: engines come with level 1: run `rung up` first"):
        train.on_cluster(place.config())


# --- weights, and the text of a model ---------------------------------------------------------


@pytest.mark.parametrize("weights", [None, "balanced", {1: 2.5}])
def test_classes_weigh_on_workers_what_they_weigh_on_one_machine(weights: Any) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    y = np.repeat([0, 1, 3], [50, 30, 7])
    classes, counts = np.unique(y, return_counts=True)
    own = adapted(class_weight=weights).class_weights(classes, counts)
    if weights is None:
        assert own is None
        return
    expected = compute_sample_weight(
        {0: 1, 3: 1} | weights if weights != "balanced" else weights, y
    )
    np.testing.assert_allclose(own[np.searchsorted(classes, y)], expected)


def test_a_models_text_has_no_address_of_a_machine(place: Place) -> None:
    on_dask = import_module("rung_runtime.adapters.model_format_lightgbm.on_dask")
    data = place.config().data
    rows = pl.read_parquet(TRAIN).head(300)
    fitted = train.fit(rows, data, place.config("", params={"n_estimators": 2}).model)
    text = fitted.file_.decode()
    elsewhere = text.replace("[machines: ]", "[machines: 10.0.0.7:4711,10.0.0.8:4712]")
    elsewhere = elsewhere.replace("[num_machines: 1]", "[num_machines: 2]")
    assert elsewhere != text
    assert on_dask.without_machines(elsewhere) == on_dask.without_machines(text)
    assert "[machines: ]" in on_dask.without_machines(text)


# --- workers that are lost -------------------------------------------------------------------


class WithoutNannies:
    """What a training asks of a cluster whose workers nobody starts anew, and which are lost."""

    address = "tcp://10.0.0.7:8786"

    def __init__(self) -> None:
        self.client = self
        self.forgotten: list[str] = []

    def nthreads(self) -> dict[str, int]:
        return {"tcp://10.0.0.7:1": 1, "tcp://10.0.0.7:2": 1}

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def send(self, _: Any) -> str:
        return "job"

    def forget(self, name: str) -> None:
        self.forgotten.append(name)

    def restart_workers(self, *_: Any, **__: Any) -> None:
        raise ValueError("Restarting workers requires a nanny to be used.")


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (
            False,
            r"those of tcp://10\.0\.0\.7:8786 have no nanny, .*: start them, and run this again",
        ),
        (True, r"given up: 4 times a worker ended in it.*too large for the memory of one of 2"),
    ],
)
def test_a_training_that_cannot_be_repeated_is_told(
    monkeypatch: pytest.MonkeyPatch, starts: bool, message: str
) -> None:
    on_dask = import_module("rung_runtime.adapters.engine_dask.training")
    attempts: list[int] = []

    def lost(*_: object) -> None:
        attempts.append(1)
        raise on_dask.Lost

    monkeypatch.setattr(on_dask, "_attempt", lost)
    if starts:
        monkeypatch.setattr(on_dask, "_start_anew", lambda *_: None)
    work = training.Work(Any, training.divide(100, 2), 3, False, adapted())  # type: ignore[arg-type]
    cluster = WithoutNannies()
    with pytest.raises(UsageError, match=message):
        on_dask.train(cluster, work, [])
    assert len(attempts) == (4 if starts else 1)
    assert cluster.forgotten == ["job"]


# --- a real cluster --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask() -> Iterator[Engine]:
    yield from started("dask")


def values(estimator: Any, place: Place) -> dict[str, float]:
    """Return what a model reaches on the holdout."""
    data = place.config().data
    holdout = pl.read_parquet(HOLDOUT)
    features = import_module("model.problem.features").features
    y_pred = predict(estimator, holdout, data, features)
    y_true = ingest.labels(holdout, data)
    return {name: float(score(name, y_true, y_pred)) for name in ("roc_auc", "brier", "log_loss")}


def kill_a_worker_that_trains(engine: Any, killed: list[str]) -> None:
    end = time.monotonic() + 60
    pids = engine.client.run(os.getpid)
    while time.monotonic() < end:
        for address, keys in engine.client.processing().items():
            if any("_train_part" in str(key) for key in keys):
                killed.append(address)
                os.kill(pids[address], signal.SIGKILL)
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_model_of_a_cluster_is_worth_what_one_machines_is_though_a_worker_is_killed(
    place: Place, dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightgbm.dask.PANDAS_INSTALLED", True)  # imported before it was there?
    SCALE.write_text(f"engine: dask\nscheduler: '{dask.address}'\n")
    killed: list[str] = []
    killer = Thread(target=kill_a_worker_that_trains, args=(dask, killed))
    killer.start()
    with monkeypatch.context() as patch:
        patch.setattr(pl, "read_parquet", no_side_is_read)  # into this process, as a whole
        trained = training.train_on_cluster(place.config())
    killer.join()
    assert killed, "no worker trained"
    assert (trained.engine, trained.workers) == ("dask", 2)
    here = train.fit(pl.read_parquet(TRAIN), place.config().data, place.config().model)
    there = values(trained.estimator, place)
    for name, value in values(here, place).items():
        sign = 1 if name in config.HIGHER_IS_BETTER else -1
        assert sign * there[name] >= sign * value - MAX_LOSS, (name, there[name], value)


def no_side_is_read(*_: object) -> None:
    raise AssertionError("all rows were read into the process that has others train")


ONE_NUMBER = """import polars as pl


def features(rows):
    return rows.select("x")
"""


@pytest.mark.nightly
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_class_that_a_worker_lacks_and_values_are_learned(
    place: Place, dask: Any, problem: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr("lightgbm.dask.PANDAS_INSTALLED", True)
    SCALE.write_text(f"engine: dask\nscheduler: '{dask.address}'\n")
    copy = shutil.copytree(problem, place.path / "problem")
    (copy / "features.py").write_text(ONE_NUMBER)
    monkeypatch.setattr("rung_runtime.problem.folder", lambda: copy)
    features = import_module("model.problem.features")
    monkeypatch.setattr(features, "features", lambda rows: rows.select("x"))
    x = np.append(np.arange(2_000) % 3, np.full(12, 2)).astype(float)
    y: Any = x * 10
    if task == "multiclass":
        y = np.array(["a", "b", "b"])[x.astype(int)].astype(object)
        y[2_000:] = "rare"
    pl.DataFrame({"x": x, "y": y.tolist()}).write_parquet(TRAIN)
    lacking = training.divide(len(x), 2)[0]
    assert all(first + count <= 2_000 for first, count in lacking.blocks), "both have rare ones"
    contract = {
        "source": "x.csv",
        "target": "y",
        "task": task,
        "classes": [] if task == "regression" else ["a", "absent", "b", "rare"],
        "split": {"by": "stratified"},
        "columns": {"x": {"type": "number"}, "y": {"type": "category"}},
    }
    if task == "regression":
        contract["columns"] = {"x": {"type": "number"}, "y": {"type": "number"}}
        place.params = {"n_estimators": 60}
    else:
        place.params = {"n_estimators": 60, "class_weight": "balanced"}
    data = config.Data.model_validate(contract)
    settings = place.config()
    settings = config.Config(data=data, gate=settings.gate, model=settings.model)
    fitted = training.train_on_cluster(settings).estimator
    y_pred = predict(fitted, pl.DataFrame({"x": [0.0, 1.0, 2.0]}), data, features.features)
    if task == "regression":
        np.testing.assert_allclose(y_pred, [0, 10, 20], atol=0.5)
    else:
        assert fitted.classes_.tolist() == [0, 2, 3]
        assert y_pred[:, 1].tolist() == [0, 0, 0]
        assert y_pred[2, 3] > 0.3  # of rows that weigh as much as the others of that value
        assert y_pred[:2, 3].max() < 0.1


# --- importance and intervals ----------------------------------------------------------------


class InProcess:
    """An engine whose results and jobs are sent as to a worker, which this process is."""

    name = "in process"
    in_process = False

    def run(self, job: Any, items: Sequence[Any]) -> Iterator[Outcome[Any]]:
        start = pickle.loads(pickle.dumps(job.start))
        function = start({name: path.resolve() for name, path in job.files.items()})
        for index, item in reversed(list(enumerate(items))):
            yield Outcome(index, function(pickle.loads(pickle.dumps(item))))

    def close(self) -> None:
        pass


def evaluated(place: Place, spread: Spread | None) -> list[Any]:
    """Return what `ml evaluate` makes of a small model: scores, and the importance of columns."""
    settings = place.config("")
    if not MODEL.exists():
        model = settings.model.model_copy(update={"params": {"n_estimators": 5}})
        train.save(train.fit(pl.read_parquet(TRAIN), settings.data, model), MODEL)
    gate = settings.gate.model_copy(update={"resamples": 400})
    settings = config.Config(data=settings.data, model=settings.model, gate=gate)
    fitted, _, holdout, y_pred = evaluate.predict_holdout(settings)
    holdout = holdout.head(500)
    y_pred = y_pred[:500]
    y_true = ingest.labels(holdout, settings.data)
    references = {name: np.full((500, 2), 0.5) for name in ("constant", "linear")}
    scores = evaluate.judge(y_true, y_pred, references, holdout, settings, spread)
    call = spread.shuffle if spread else map
    return [scores, importance(fitted, holdout, settings, call)]


def test_what_is_computed_elsewhere_is_what_is_computed_here(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = evaluated(place, None)
    assert here[0].slices
    monkeypatch.setattr(Remembered, "_sample", nothing_is_computed_here)
    assert evaluated(place, Spread(InProcess())) == here


def nothing_is_computed_here(*_: object) -> None:
    raise AssertionError("a number that workers have was computed once more")


def test_what_workers_do_not_have_is_computed_here_by_the_same_draws(place: Place) -> None:
    settings = place.config("")
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 2, 300).astype(float)
    first, second = rng.dirichlet([1, 1], size=(2, 300))
    parts = [np.arange(100), np.arange(50, 300)]
    alone, shared = (Resampler(y_true, "log_loss", 2, settings.gate) for _ in range(2))
    predictions = {"model": first, "constant": first, "linear": first}
    remembered = Spread(InProcess()).resample(shared, predictions, parts, settings)
    alone.draw([None, *parts])
    for rows in (None, parts[0], np.arange(30, 80)):
        expected = alone.score("brier", second, rows)
        np.testing.assert_array_equal(
            remembered.score("brier", second, rows).deviations, expected.deviations
        )


@pytest.mark.parametrize("text", ["{}", "engine: dask", "engine: spark\nscheduler: spark://x:1"])
def test_nothing_is_spread_without_a_cluster_of_the_models_engine(place: Place, text: str) -> None:
    SCALE.write_text(text)
    with open_spread(place.config()) as spread:
        assert spread is None


@pytest.mark.slow  # a cluster starts
def test_workers_find_the_importance_and_the_intervals_of_one_machine(
    place: Place, dask: Any
) -> None:
    here = evaluated(place, None)
    SCALE.write_text(f"engine: dask\nscheduler: '{dask.address}'\n")
    with open_spread(place.config()) as spread:
        assert evaluated(place, spread) == here


@pytest.mark.nightly  # a project, and a cluster of its own
@pytest.mark.parametrize("library", ["lightgbm"])
def test_a_project_trains_on_workers_and_its_model_is_judged_packaged_and_read_as_any_other(
    boosted: Loop, library: str
) -> None:
    adapter = "rung_runtime/adapters/engine_dask"
    shutil.copytree(ROOT / "runtime/src" / adapter, boosted.path / "src" / adapter)
    (packages,) = libraries.environment(*LIBRARIES["dask"]).glob("lib/*/site-packages")
    (own,) = boosted.copy.project.path.glob(".venv/lib/python*/site-packages")
    for entry in packages.iterdir():
        if not (own / entry.name).exists():
            (boosted.path / "src" / entry.name).symlink_to(entry)
    model = {"engine": "dask", "params": {"n_estimators": 30}}
    (boosted.path / "config/model.yaml").write_text(json.dumps(model))
    (boosted.path / "config/scale.yaml").write_text("workers: 2\n")
    output = boosted.ml("run")
    assert "by 2 workers" in output
    assert "[LightGBM]" not in output
    document = boosted.copy.read("train")
    assert (document["engine"], document["workers"]) == ("dask", 2)
    package = boosted.path / "artifacts/model"
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["formats"] == [library]
    assert (package / "model.onnx").is_file()
    rows = pl.read_csv(tables.FLIGHTS, n_rows=60).drop("delayed").to_dicts()
    assert len(boosted.ml("predict", "--json", json.dumps(rows)).splitlines()) == 60
    assert "nothing is stale" in boosted.ml("run")
