"""A run from raw file to package: what it leaves, and that each part of it is true."""

from __future__ import annotations

import ast
import itertools
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from operator import ge, gt, le
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import EVERY, ROOT, Copy, Render, digest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from sklearn import metrics as sk

slow = pytest.mark.slow
Ran = Callable[[int, str], Copy]
TASKS = ["binary", "multiclass", "regression"]
corners = pytest.mark.parametrize(("level", "task"), [*itertools.product([0, 1], TASKS)])
PACKAGE = {
    "contract",
    "gate",
    "lineage",
    "metrics",
    "profile",
    "signature",
    "training_rows",
}


# --- what a run leaves -----------------------------------------------------------------------


@slow
@corners
def test_every_step_leaves_a_document_that_keeps_its_schema(
    ran: Ran, level: int, task: str
) -> None:
    copy = ran(level, task)
    schema = json.loads((copy.path / "src/rung_runtime/documents.schema.json").read_text())
    for step in copy.documents:
        validator = Draft202012Validator({**schema, "$ref": f"#/$defs/{step}"})
        assert validator.is_valid(copy.read(step)), step
        assert not validator.is_valid(copy.read(step) | {"colour": "red"}), step
        assert not validator.is_valid({}), step


@slow
@corners
def test_each_step_read_what_the_steps_before_it_left(ran: Ran, level: int, task: str) -> None:
    copy = ran(level, task)
    made = dict[str, str]()
    for step, name in copy.documents.items():
        document = copy.read(step)
        for path, input_digest in document["inputs"].items():
            assert input_digest == digest(copy.path / path), f"{step} read another {path}"
            pointer = path == "artifacts/champion.json"  # from the registry, not from a step
            ours = path.startswith(("artifacts/", "data/interim/")) and not pointer
            assert made.get(path) == (input_digest if ours else None)
        made |= document["outputs"] | {name: digest(copy.path / name)}
        assert all(digest(copy.path / path) == input_digest for path, input_digest in made.items())
        assert document["data_digest"] == digest(copy.path / source(copy))
        assert document["started"] <= document["ended"]
    # Each step knows the one before it, so that no document stands alone.
    assert all(copy.read(step)["inputs"] for step in copy.documents)


@slow
@corners
def test_the_package_is_whole_and_predicts_identically(
    ran: Ran, tmp_path: Path, level: int, task: str
) -> None:
    copy = ran(level, task)
    package = copy.path / "artifacts/model"
    paths = [path for path in package.rglob("*") if path.is_file()]
    files = {path.relative_to(package).as_posix(): digest(path) for path in paths}
    del files["manifest.json"]
    own = {f"problem/{path.name}" for path in copy.path.glob("src/*/problem/*.py")}
    own |= {"model.skops", "model.onnx", "MODEL_CARD.md", "training_rows.bin"}
    assert set(files) == {f"{name}.json" for name in PACKAGE} | own
    assert copy.read("package")["files"] == files
    # Copied to where nothing else is, as a service would have it.
    shutil.copytree(copy.path / "artifacts/model", tmp_path / "model")
    code = (
        "import sys, pathlib, polars as pl\n"
        "from rung_runtime.model_package import load_package\n"
        "model = load_package(pathlib.Path(sys.argv[1]))\n"
        "found = model.predict(model.read(pl.read_parquet('data/interim/holdout.parquet')))\n"
        "before = pl.read_parquet('artifacts/predictions.parquet')['given'].to_numpy()\n"
        "assert found.shape == before.shape and abs(found - before).max() < 1e-9\n"
    )
    again = copy.project.python(code, "-c", str(tmp_path / "model"), cwd=copy.path)
    assert again.returncode == 0, again.stderr


@slow
@pytest.mark.parametrize("task", TASKS)
def test_the_command_predicts_what_the_run_predicted(ran: Ran, tmp_path: Path, task: str) -> None:
    copy = ran(0, task)
    contract = json.loads((copy.path / "artifacts/model/contract.json").read_text())
    holdout = pl.read_parquet(copy.path / "data/interim/holdout.parquet")
    holdout.drop(contract["target"]).write_parquet(tmp_path / "rows.parquet")
    answers = [
        json.loads(line)
        for line in copy.ml("predict", str(tmp_path / "rows.parquet"), exits=0).stdout.splitlines()
    ]
    before = pl.read_parquet(copy.path / "artifacts/predictions.parquet")["given"].to_numpy()
    if task == "regression":
        predicted = [answer["prediction"] for answer in answers]
        np.testing.assert_allclose(predicted, before, rtol=1e-9)
        return
    shares = [list(answer["probabilities"].values()) for answer in answers]
    np.testing.assert_allclose(shares, before, atol=1e-6)
    named = [contract["classes"][k] for k in before.argmax(axis=1)]
    assert [answer["prediction"] for answer in answers] == named


@slow
@pytest.mark.parametrize("task", TASKS)
def test_the_same_run_again_gives_the_same_model(ran: Ran, tmp_path: Path, task: str) -> None:
    copy = ran(0, task).again(tmp_path / "copy")
    before = digest(copy.path / "artifacts/model.skops")
    (copy.path / "artifacts/model.skops").unlink()
    copy.ml("train", exits=0)
    assert digest(copy.path / "artifacts/model.skops") == before


@slow
def test_another_seed_gives_another_model_and_level_1_the_same_as_level_0(
    ran: Ran, tmp_path: Path
) -> None:
    copy = ran(0, "binary").again(tmp_path / "copy")
    before = digest(copy.path / "artifacts/model.skops")
    assert digest(ran(1, "binary").path / "artifacts/model.skops") == before
    # Of an estimator that has a seed, whichever was chosen.
    edit(copy.path / "config/model.yaml", estimator="forest", params={"n_estimators": 5})
    copy.ml("train", exits=0)
    before = digest(copy.path / "artifacts/model.skops")
    edit(copy.path / "config/model.yaml", seed=1)
    copy.ml("train", exits=0)
    assert digest(copy.path / "artifacts/model.skops") != before
    assert copy.read("train")["seed"] == 1


# --- what the numbers mean -------------------------------------------------------------------

REFERENCE: dict[str, Callable[[Any, Any], float]] = {
    "roc_auc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, p: sk.average_precision_score(y, p[:, 1]),
    "brier": lambda y, p: sk.brier_score_loss(y, p[:, 1]),
    "log_loss": lambda y, p: sk.log_loss(y, p, labels=range(p.shape[1])),
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(axis=1)),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(axis=1), average="macro"),
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": sk.r2_score,
}


@slow
@corners
def test_the_metrics_are_scikit_learns_on_the_holdout_alone(
    ran: Ran, level: int, task: str
) -> None:
    copy = ran(level, task)
    evaluation = copy.read("evaluate")
    contract = config(copy, "data")
    train, holdout = (
        pl.read_parquet(copy.path / f"data/interim/{side}.parquet") for side in ("train", "holdout")
    )
    scored = pl.read_parquet(copy.path / "artifacts/predictions.parquet")
    y = scored["truth"].to_numpy()
    p = scored["given"].to_numpy()
    truth = holdout[contract["target"]]
    if task != "regression":
        truth = truth.cast(pl.String).replace_strict(contract["classes"], range(p.shape[1]))
    assert y.tolist() == truth.to_list()
    assert evaluation["rows"] == holdout.height == copy.read("split")["holdout"]
    assert holdout.join(train, on=holdout.columns, how="semi", nulls_equal=True).is_empty()
    assert len(evaluation["metrics"]) >= 3
    for name, interval in evaluation["metrics"].items():
        assert interval["value"] == pytest.approx(REFERENCE[name](y, p)), name
        assert interval["low"] <= interval["value"] <= interval["high"], name


@slow
@corners
def test_the_gates_verdict_follows_from_the_documents(ran: Ran, level: int, task: str) -> None:
    copy = ran(level, task)
    wanted = config(copy, "gate")
    metrics = copy.read("evaluate")
    gate = copy.read("gate")
    checks = {check["check"]: check for check in gate["checks"]}
    for check in gate["checks"]:
        holds = {"≥": ge, ">": gt, "≤": le}[check["rule"]](check["value"], check["threshold"])
        assert check["verdict"] == ("passed" if holds else "refused")
    assert gate["verdict"] == "passed"
    assert gate["model_digest"] == digest(copy.path / "artifacts/model.skops")
    for name, threshold in wanted["thresholds"].items():
        assert checks[name]["threshold"] == threshold
        assert checks[name]["value"] == metrics["metrics"][name]["value"]
    skills = {name: baseline["skill"] for name, baseline in metrics["baselines"].items()}
    expected = {
        "skill over a constant, lower end": skills["constant"]["low"],
        "skill over linear, upper end": skills["linear"]["high"],
        "calibration error, lower end": metrics["calibration"]["low"],
        "holdout rows that are copies of training rows": 0,
        "columns that predict the target alone": 0,
        "model size, MB": (copy.path / "artifacts/model.skops").stat().st_size / 1e6,
        "latency of a row, ms": metrics["model"]["latency_ms"],
    }
    assert expected == {name: checks[name]["value"] for name in expected}
    ends = [s["skill"]["high"] for s in metrics["slices"] if s["skill"]["high"] is not None]
    worst = [check["value"] for name, check in checks.items() if name.startswith("worst slice")]
    assert worst == ([min(ends)] if ends else [])


# --- the split -------------------------------------------------------------------------------

# Few values, so that equal rows, rows of an instant and large groups are common.
ROW = st.tuples(
    st.integers(0, 40),
    st.sampled_from(["a", "b", "c", "d", None]),
    st.booleans(),
    st.integers(0, 3),
)
ROWS = st.lists(ROW, min_size=20, max_size=300)


def parted(
    module: Callable[[str], ModuleType], rows: list[Any], task: str, **how: Any
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The rows, and both sides of them; their place is not part of them."""
    config = module("config")
    split = module("pipeline.split")
    frame = pl.DataFrame(rows, ["when", "of", "y", "x"], orient="row").with_columns(
        pl.from_epoch(pl.col("when") * 86_400).cast(pl.Datetime("us"))
    )
    if task == "regression":
        frame = frame.with_columns(y=pl.col("x").cast(pl.Float64))
    columns = {
        "when": {"type": "datetime"},
        "of": {"type": "category", "nullable": True},
        "y": {"type": "number" if task == "regression" else "boolean"},
        "x": {"type": "integer"},
    }
    data = config.Data.model_validate(
        {
            "source": "x.csv",
            "target": "y",
            "task": task,
            "classes": [] if task == "regression" else ["false", "true"],
            "columns": columns,
            "split": how,
        }
    )
    try:
        train, holdout = split.split(frame, data)
    except module("pipeline.split").UsageError:  # too few different ones to have two sides
        train = frame.clear()
        holdout = frame.clear()
    assert train.height + holdout.height in (0, frame.height)
    return frame, train, holdout


WAYS: list[dict[str, Any]] = [
    {"by": "time", "column": "when"},
    {"by": "group", "column": "of"},
    {"by": "stratified"},
]


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("task", ["binary", "regression"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_each_row_is_on_one_side_and_no_group_or_instant_is_on_both(
    module: Callable[[str], ModuleType], rows: list[Any], task: str, how: dict[str, Any]
) -> None:
    frame, train, holdout = parted(module, rows, task, **how)
    if train.height:
        assert train.vstack(holdout).sort(pl.all()).equals(frame.sort(pl.all()))
        assert parted(module, rows, task, **how)[1].equals(train)
    if how["by"] == "time" and train.height:
        assert latest(train) < earliest(holdout)
    if how["by"] == "group":
        assert not set(train["of"]) & set(holdout["of"])


def latest(rows: pl.DataFrame) -> datetime:
    when: datetime = max(rows["when"])
    return when


def earliest(rows: pl.DataFrame) -> datetime:
    when: datetime = min(rows["when"])
    return when


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_about_a_fifth_is_held_out(
    module: Callable[[str], ModuleType], how: dict[str, Any]
) -> None:
    rows = [(n, f"group {n % 97}", n % 3 == 0, n) for n in range(2000)]
    _, train, holdout = parted(module, rows, "binary", **how)
    assert 0.17 < holdout.height / 2000 < 0.23
    if how["by"] == "stratified":
        assert holdout["y"].mean() == pytest.approx(train["y"].mean(), abs=0.05)
    # Those in place stay, so that a model is not judged on what an earlier one has learned.
    if how["by"] == "group":
        again = parted(module, rows + rows[:50], "binary", **how)[2]
        assert set(again["of"]) <= set(holdout["of"]) | set(train["of"])


@slow
def test_a_split_by_time_of_real_flights_never_trains_on_the_future(ran: Ran) -> None:
    for level in (0, 1):
        folder = ran(level, "binary").path / "data/interim"
        train, holdout = (pl.read_parquet(folder / f"{s}.parquet") for s in ("train", "holdout"))
        when = "scheduled_departure"
        assert train[when].max() < holdout[when].min()  # type: ignore[operator]
        assert 0.15 < holdout.height / (train.height + holdout.height) < 0.25


# --- only what is stale ----------------------------------------------------------------------


@slow
def test_only_what_is_stale_runs_again(ran: Ran, tmp_path: Path) -> None:
    copy = ran(1, "regression").again(tmp_path / "copy")

    def ran_again() -> list[str]:
        output = copy.ml("run", exits=0).stdout
        return [line.split()[1] for line in output.splitlines() if line.startswith("✓ ")]

    assert ran_again() == []
    (copy.path / "artifacts/report.html").unlink()  # no document of any step
    assert ran_again() == []
    edit(copy.path / "config/gate.yaml", max_megabytes=19.0)
    # The gate's file says how sure intervals are and what a slice is, so it is evaluated anew.
    assert ran_again() == ["evaluate", "compare", "gate", "package"]
    features = copy.path / "src/flight_delays/problem/features.py"
    features.write_text(features.read_text() + "\n# seen\n")
    assert ran_again() == ["train", "evaluate", "compare", "gate", "package"]
    assert ran_again() == []


RUNTIME = ROOT / "runtime/src/rung_runtime"
# What rung_runtime.problem calls for it, by module of problem/.
CALLED = {
    "load": "data",
    "rules": "schema",
    "features": "features",
    "estimator": "model",
    "linear": "model",
    "trusted": "model",
}


def imported(path: Path) -> tuple[set[Path], set[str]]:
    """Return the runtime's modules that a module imports itself, and the user's that it calls."""
    modules = set[Path]()
    own = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            modules |= {base.with_suffix(".py"), *(base / f"{a.name}.py" for a in node.names)}
            if base == RUNTIME / "problem":
                own |= {CALLED[a.name] for a in node.names if a.name in CALLED} or {
                    *CALLED.values()
                }
    return {path for path in modules if path.is_file()}, own


def run_by(step: str) -> tuple[set[Path], set[str]]:
    """Return the runtime's modules that a step runs, and the user's that it calls."""
    known = set[Path]()
    own = set[str]()
    todo = {RUNTIME / f"pipeline/{step}.py"}
    while todo:
        known |= todo
        steps = [imported(path) for path in todo]
        own = own.union(*(called for _, called in steps))
        todo = set().union(*(modules for modules, _ in steps)) - known
    return known, own


def test_every_stage_depends_on_the_runtime_and_on_the_users_code_that_it_runs(
    render: Render,
) -> None:
    stages = yaml.safe_load((render(level=1) / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(EVERY)
    for step, stage in stages.items():
        assert stage["deps"][0] == "artifacts/runtime.txt"
        assert not [dep for dep in stage["deps"] if "rung_runtime" in dep]
        own = {dep for dep in stage["deps"] if dep.startswith("${problem}")}
        assert own == {f"${{problem}}/{name}.py" for name in run_by(step)[1]}, step


def test_the_stamp_of_the_runtime_changes_with_whatever_a_step_may_run(
    module: Callable[[str], ModuleType],
) -> None:
    left_out = module("stamp").NOT_OF_STEPS
    assert left_out <= {path.name for path in RUNTIME.iterdir()}
    for step in EVERY:
        for path in run_by(step)[0]:
            assert path.relative_to(RUNTIME).parts[0] not in left_out, f"{step} runs {path.name}"


def test_a_runtime_that_was_patched_makes_every_step_stale(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = module("stamp")
    copy = shutil.copytree(RUNTIME, tmp_path / "runtime")
    monkeypatch.setattr(stamp, "__file__", str(copy / "stamp.py"))
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    stamp.refresh()
    before = Path(stamp.FILE).read_text()
    (copy / "prediction_log/writer.py").write_text("# patched\n")
    (copy / "oci_client/remote.py").write_text("# patched\n")
    (copy / "adapters/explainer_lime/__init__.py").write_text("# patched\n")
    (copy / "pipeline/train.pyc").write_text("bytecode")
    stamp.refresh()
    assert Path(stamp.FILE).read_text() == before
    for name in (
        "pipeline/metrics.py",
        "adapters/__init__.py",
        "adapters/explainer_shapley/__init__.py",
        "adapters/model_format_skops/__init__.py",
    ):
        before = Path(stamp.FILE).read_text()
        (copy / name).write_text("# patched\n")
        stamp.refresh()
        assert Path(stamp.FILE).read_text() != before, name


# --- the project stays green -----------------------------------------------------------------


@slow
@pytest.mark.parametrize(
    "task",
    [
        "multiclass",
        pytest.param("binary", marks=pytest.mark.nightly),
        pytest.param("regression", marks=pytest.mark.nightly),
    ],
)
def test_the_projects_own_checks_stay_green_with_other_data(
    ran: Ran, tmp_path: Path, task: str
) -> None:
    copy = ran(1, task).again(tmp_path / "copy")  # the files of level 0 are among these
    for command in (
        "ruff check --no-cache",
        "ruff format --no-cache --check",
        "mypy",  # its cache is in the run's folder
        "pytest -q -p no:cacheprovider",
    ):
        done = copy.project.run(*command.split(), cwd=copy.path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


# --- in short --------------------------------------------------------------------------------


def config(copy: Copy, name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((copy.path / f"config/{name}.yaml").read_text())
    return content


def source(copy: Copy) -> str:
    return str(config(copy, "data")["source"])


def edit(path: Path, **changes: object) -> None:
    """Change keys of a YAML file."""
    content = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
