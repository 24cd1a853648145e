"""A monitor says what changed, decides once for each alarm, and one training follows from it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT, Render, once

Import = Callable[[str], ModuleType]
PAST = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=60)
MONTHS = {month: ROOT / f"tests/data/flights-2013-{month}.csv" for month in ("07", "09", "10")}
TRAINED = 4_800
WINDOW = 500
SEED = 20_132
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def packed(module: Import, run_folder: Path) -> Path:
    """A package of the example as its config has it, made once for all workers."""
    return once(run_folder / "packed", lambda folder: pack(module, folder))


def pack(module: Import, to: Path, **params: object) -> None:
    """Train on the first 80 % of the example and write the package.

    Args:
        params: Of the model, in place of those of the example.
    """
    config, ingest, train, inference, metrics = map(
        module, ("config", "pipeline.ingest", "pipeline.train", "model_package", "pipeline.metrics")
    )
    project = ROOT / "template"
    data, gate = (
        config.read(project / path, kind)
        for path, kind in ((config.DATA, config.Data), (config.GATE, config.Gate))
    )
    rows = ingest.typed(ingest.read(project / data.source, data.separator), data).sort(data.time)
    model = config.read(project / config.MODEL, config.Model)
    model = model.model_copy(update={"params": model.params | params})
    fitted = train.fit(rows[:TRAINED], data, model)
    to.mkdir()
    train.save(fitted, to / "model.skops")
    shutil.copytree(
        module("problem").folder(),
        to / "problem",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    y_pred = inference.predict(fitted, rows[TRAINED:], data, module("problem.features").features)
    truth = ingest.labels(rows[TRAINED:], data)
    predictions = pl.DataFrame({"given": pl.Series(y_pred.tolist(), dtype=pl.Array(pl.Float64, 2))})

    def score(rows_index: Any) -> list[float]:
        return [
            metrics.SCORES[name](truth[rows_index], y_pred[rows_index])
            for name in ("roc_auc", "log_loss")
        ]

    intervals = module("pipeline.intervals")
    auc, loss = intervals.bootstrap(score, len(truth), gate, intervals.effective_rows(truth, 2))
    for name, content in {
        "contract": data.model_dump(),
        "profile": module("pipeline.training_profile").profile(rows[:TRAINED], predictions, data),
        "metrics": {
            "task": "binary",
            "metric": "roc_auc",
            "rows": len(truth),
            "metrics": {"roc_auc": auc, "log_loss": loss},
            "calibration": module("pipeline.calibration").calibration(truth, y_pred).model_dump(),
        },
    }.items():
        (to / f"{name}.json").write_text(json.dumps(content))
    seal(to, module, datetime.now(UTC))


def seal(folder: Path, module: Import, created: datetime) -> None:
    """Write a package's manifest."""
    (folder / "manifest.json").unlink(missing_ok=True)
    files = {
        path.relative_to(folder).as_posix(): module("artifacts").digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    whole = module("model_package").package_digest(files)
    manifest = {
        "version": f"{created:%Y%m%d-%H%M%S}-{whole[7:15]}",
        "created": created.isoformat(),
        "package_digest": whole,
        "model_digest": files["model.skops"],
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Deaf:
    """Takes what the service would measure."""

    def add(self, *_: object) -> None:
        """Forget it."""


@dataclass
class Place:
    """A project's folder with a champion, and a log of predictions."""

    path: Path
    module: Import
    model: Any

    def champion(self, folder: Path) -> Any:
        """Register a package, and make it the champion."""
        store = self.module("registry").open_registry()
        self.model = self.module("model_package").load_package(folder)
        facts = {"data_digest": "sha256:" + "0" * 64, "commit": "none", "compared_with": "first"}
        store.push(folder, self.model.manifest, facts)
        store.point("champion", self.model.version)
        return store

    def settings(self, **changes: Any) -> None:
        known = {"window": {"hours": 1.0, "rows": WINDOW}} | changes
        (self.path / "config/drift.yaml").write_text(json.dumps(known))

    def rows(self, n: int = WINDOW, seed: int = SEED, *changes: pl.Expr) -> pl.DataFrame:
        """Rows like those of training, in another order."""
        data = self.model.data
        ingest = self.module("pipeline.ingest")
        rows = ingest.typed(ingest.read(self.path / data.source, data.separator), data)
        rows = rows.sort(data.time).head(TRAINED)
        drawn: pl.DataFrame = rows.sample(n, with_replacement=True, seed=seed)
        return drawn.with_columns(*changes)

    def month(self, month: str) -> pl.DataFrame:
        ingest = self.module("pipeline.ingest")
        data = self.model.data
        typed: pl.DataFrame = ingest.typed(ingest.read(MONTHS[month], data.separator), data)
        return typed

    def log(self, rows: pl.DataFrame, hour: int, labelled: bool = False) -> None:
        """Log predictions of rows as the service does, but within an hour of the past."""
        log = self.module("prediction_log")
        loaded_model = self.module("serving.loaded_model")
        settings = self.module("config.delivery").Service(log="fresh")
        n = len(rows)
        name = uuid4().hex
        kept = log.PredictionLog(settings)
        served = loaded_model.LoadedModel(self.model, {}, Deaf())
        typed = rows.select(self.model.data.features)
        request = self.module("prediction_log.writer").LoggedRequest(name, n)
        kept.add(served, [request], [{}] * n, typed, self.model.predict(typed))
        kept.write()
        (file,) = Path("fresh").rglob("*.parquet")
        begin = PAST + timedelta(hours=hour)
        times = [begin + timedelta(hours=1) * (offset / n) for offset in range(n)]
        frame = pl.read_parquet(file).with_columns(pl.Series("time", times, pl.Datetime("us")))
        write = self.module("prediction_log.layout").write_file
        write("predictions", f"date={begin:%F}/{begin:%H%M%S%f}_{file.name[13:]}", frame)
        shutil.rmtree("fresh")
        if labelled:
            truth = rows[self.model.data.target].cast(pl.String)
            labels = frame.select("request_id", "row").with_columns(truth.alias("delayed"))
            labels.write_csv(self.path / "labels.csv")
            log.add_labels(self.path / "labels.csv", self.model.data, "predictions")

    def refuse(self, rows: int, hour: int) -> None:
        """Log that rows were refused."""
        time = PAST + timedelta(hours=hour)
        frame = pl.DataFrame(
            {
                "time": pl.Series([time], dtype=pl.Datetime("us")),
                "version": [self.model.version],
                "column": ["seats"],
                "rule": ["not a number"],
                "rows": [rows],
            }
        )
        name = f"refused/date={time:%F}/{hour:06}_all_{uuid4().hex}.parquet"
        self.module("prediction_log.layout").write_file("predictions", name, frame)

    def monitor(self) -> str:
        message: str = self.module("monitoring").monitor()
        return message

    def retrain(self, run: Callable[[], None], **options: Any) -> str:
        message: str = self.module("monitoring").retrain(run, **options)
        return message

    def document(self, step: str = "monitor") -> dict[str, Any]:
        artifacts = self.module("artifacts")
        artifacts.read_step(step)  # it is whole
        fields: dict[str, Any] = json.loads(artifacts.DOCUMENTS[step].read_text("utf-8"))
        return fields


@pytest.fixture
def place(
    tmp_path: Path, render: Render, module: Import, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    path = tmp_path / "project"
    path.mkdir()
    for name in ("config", "data"):
        shutil.copytree(render(level=1) / name, path / name)
    monkeypatch.chdir(path)
    place = Place(path, module, None)
    place.settings()
    place.champion(packed)
    return place


HOTTER = pl.col("temperature_f") + 15


# --- what it says ------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_like_those_of_training_are_no_alarm(place: Place) -> None:
    for hour in range(6):
        place.log(place.rows(WINDOW, hour), hour)
    assert place.monitor() == "no training: no alarm in 6 windows"
    document = place.document()
    assert (document["decision"], document["alarm"], document["new"], document["alarms"]) == (
        "none",
        None,
        False,
        [],
    )
    assert [w["rows"] for w in document["windows"]] == [WINDOW] * 6
    assert set(place.document("drift")["windows"][0]["columns"]) == set(place.model.data.features)


@pytest.mark.slow
def test_a_sign_in_one_window_is_no_alarm_and_in_two_it_is(place: Place) -> None:
    place.log(place.rows(), 0)
    place.log(place.rows(WINDOW, 1, HOTTER), 1)
    assert place.monitor() == "no training: no alarm in 2 windows"
    assert "temperature_f" in place.document()["windows"][1]["signs"]["drift"]
    place.log(place.rows(WINDOW, 2), 2)
    place.log(place.rows(WINDOW, 3, HOTTER), 3)
    message = place.monitor()
    assert message.startswith("retrain: drift-")
    assert "temperature_f values are distributed differently" in message
    assert "in 2 of the last 4 windows" in message


def test_an_alarm_needs_the_newest_window(place: Place) -> None:
    for hour, change in enumerate([HOTTER, HOTTER, pl.col("temperature_f")]):
        place.log(place.rows(WINDOW, hour, change), hour)
    assert place.monitor() == "no training: no alarm in 3 windows"


def test_two_columns_once_each_are_no_alarm(place: Place) -> None:
    place.log(place.rows(WINDOW, 0, HOTTER), 0)
    place.log(place.rows(WINDOW, 1, pl.lit("UA").alias("carrier")), 1)
    assert place.monitor() == "no training: no alarm in 2 windows"


def test_old_signs_are_forgotten(place: Place) -> None:
    for hour in range(7):
        change = HOTTER if hour in (0, 6) else pl.col("temperature_f")
        place.log(place.rows(WINDOW, hour, change), hour)
    assert place.monitor() == "no training: no alarm in 7 windows"


def test_a_change_of_the_prediction_alone_is_found(place: Place) -> None:
    late = place.rows(TRAINED).filter(
        pl.Series(place.model.predict(place.rows(TRAINED))[:, 1] > 0.3)
    )
    for hour in range(2):
        place.log(late.sample(WINDOW, seed=hour), hour)
    place.monitor()
    kinds = [alarm["kind"] for alarm in place.document()["alarms"]]
    assert "prediction" in kinds
    assert place.document("drift")["windows"][-1]["prediction"]["verdict"] == "drift"


def test_only_windows_with_enough_hours_and_rows_are_judged(place: Place) -> None:
    place.log(place.rows(WINDOW - 1, 0), 0)
    assert "no complete window yet" in place.monitor()
    assert f"{WINDOW - 1} of {WINDOW} rows" in place.monitor()
    place.log(place.rows(WINDOW, 1), 1)
    place.monitor()
    (window,) = place.document()["windows"]
    assert window["rows"] == WINDOW  # closed by its 500th row, in the second hour
    assert place.document()["waiting"] == WINDOW - 1
    place.settings(window={"hours": 24.0 * 365, "rows": WINDOW})
    assert "no complete window yet" in place.monitor()


@pytest.mark.slow
def test_windows_stay_what_they_are_as_rows_come_in(place: Place) -> None:
    random = np.random.default_rng(SEED)
    before: list[Any] = []
    print(f"seed {SEED}")
    for hour in range(8):
        place.log(place.rows(int(random.integers(100, 900)), hour), hour * 2, labelled=True)
        place.monitor()
        judged = zip(
            *(place.document(step)["windows"] for step in ("drift", "monitor")), strict=True
        )
        windows = [of_drift | rest for of_drift, rest in judged]
        assert windows[: len(before)] == before
        before = windows
    assert len(before) >= 4
    assert all(a["to"] == b["from"] for a, b in itertools.pairwise(before))


def test_refused_rows_are_for_a_person_and_no_training(place: Place) -> None:
    for hour in range(2):
        place.log(place.rows(WINDOW, hour), hour)
        place.refuse(50, hour)
    message = place.monitor()
    assert message.startswith("no training: the caller sent 9.1% of rows that break the contract")
    assert message.endswith("which a person has to look at")
    (alarm,) = place.document()["alarms"]
    assert (alarm["kind"], alarm["status"]) == ("violations", "needs_attention")
    assert place.retrain(lambda: pytest.fail("it trained")).startswith("nothing to do")


def test_a_caller_of_whom_every_row_is_refused_is_noticed(place: Place) -> None:
    for hour in range(2):
        place.refuse(WINDOW, hour)
    assert "sent 100.0% of rows that break the contract" in place.monitor()


def test_performance_is_judged_once_labels_have_come(place: Place) -> None:
    turned = (~pl.col("delayed")).alias("delayed")
    for hour in range(2):
        place.log(place.rows(WINDOW, hour, turned), hour)
    assert place.monitor() == "no training: no alarm in 2 windows"
    assert place.document()["windows"][0]["performance"] is None
    for hour in range(2, 4):
        place.log(place.rows(WINDOW, hour, turned), hour, labelled=True)
    message = place.monitor()
    assert "retrain: performance-" in message
    assert "where the holdout had 0.7" in message
    assert "in 2 of the last 2 batches of labels" in message
    performance = place.document()["windows"][-1]["performance"]
    assert performance["labels"] == WINDOW
    assert performance["skill"]["high"] < -0.1
    assert performance["value"]["low"] < performance["value"]["value"] < 0.5


def labels(place: Place, hours: list[int]) -> None:
    """Add labels of rows that were logged at these hours without."""
    log = place.module("prediction_log")
    for hour in hours:
        begin = PAST + timedelta(hours=hour)
        rows = pl.read_parquet("predictions/date=*/*.parquet").filter(
            pl.col("time").is_between(begin, begin + timedelta(hours=1), closed="left")
        )
        truth = pl.Series("delayed", (rows["p:true"] < 0.2).cast(pl.String))  # the reverse
        rows.select("request_id", "row").with_columns(truth).write_csv("labels.csv")
        log.add_labels(place.path / "labels.csv", place.model.data, "predictions")


@pytest.mark.slow
def test_labels_are_judged_when_they_arrive_however_late(place: Place) -> None:
    for hour in range(36):  # more windows than are shown
        place.log(place.rows(WINDOW, hour), hour)
    assert place.monitor() == "no training: no alarm in 30 windows"
    labels(place, [0, 1])
    assert "retrain: performance-" in place.monitor()
    document = place.document()
    assert [batch["labels"] for batch in document["outcomes"]] == [WINDOW, WINDOW]
    assert document["labels"] == {"predictions": 36 * WINDOW, "labels": 2 * WINDOW, "waiting": 0}
    assert all(window["performance"] is None for window in document["windows"])


@pytest.mark.slow
def test_late_labels_in_one_file_are_not_passed_over_for_those_that_follow(place: Place) -> None:
    for hour in range(5):
        place.log(place.rows(WINDOW, hour), hour)
    known = place.rows(WINDOW, 9)
    place.log(known, 9, labelled=True)
    assert place.monitor() == "no training: no alarm in 6 windows"
    labels(place, [0, 1, 2])
    place.log(place.rows(WINDOW, 10), 10, labelled=True)
    assert "retrain: performance-" in place.monitor()
    assert not place.document()["outcomes"][-1]["signs"]["performance"]


def test_labels_of_low_scores_only_say_nothing_of_performance(place: Place) -> None:
    for hour in range(3):
        place.log(place.rows(WINDOW, hour), hour, labelled=True)
    for file in Path("predictions/labels").glob("*.parquet"):
        low = pl.read_parquet("predictions/date=*/*.parquet").filter(pl.col("p:true") < 0.2)
        pl.read_parquet(file).join(low, on=["request_id", "row"], how="semi").write_parquet(file)
    assert place.monitor() == "no training: no alarm in 3 windows"
    for batch in place.document()["outcomes"]:
        assert (batch["basis"], batch["signs"]) == ("none", {})
        assert "labels are known for some scores only" in batch["note"]
        assert 0 < batch["coverage"] < 0.8
    assert "labels are known for some scores only" in Path("artifacts/monitor.html").read_text()


def test_a_newest_window_without_labels_has_a_page(place: Place) -> None:
    place.log(place.rows(WINDOW, 0), 0, labelled=True)
    place.log(place.rows(WINDOW, 1), 1)
    assert place.monitor() == "no training: no alarm in 2 windows"
    assert place.document()["windows"][1]["performance"] is None
    assert "<b>No alarm</b>" in Path("artifacts/monitor.html").read_text()


def test_performance_as_before_is_no_alarm(place: Place) -> None:
    for hour in range(4):
        place.log(place.rows(WINDOW, hour), hour, labelled=True)
    assert place.monitor() == "no training: no alarm in 4 windows"
    assert all(w["performance"]["skill"]["high"] > 0 for w in place.document()["windows"])


def test_an_old_champion_alarms_at_once(place: Place, packed: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(packed, tmp_path / "old"))
    seal(old, place.module, datetime.now(UTC) - timedelta(days=91))
    place.champion(old)
    message = place.monitor()
    assert "retrain: age-" in message
    assert "the champion is 91 days old; the limit is 90" in message


def test_a_private_column_is_left_out(place: Place) -> None:
    for hour in range(2):
        place.log(place.rows(WINDOW, hour), hour)
    for file in Path("predictions").glob("date=*/*.parquet"):
        pl.read_parquet(file).drop("x:seats").write_parquet(file)
    assert place.monitor() == "no training: no alarm in 2 windows"
    assert "seats" not in place.document("drift")["windows"][0]["columns"]


def test_what_the_service_logs_is_what_it_reads(place: Place, module: Import) -> None:
    log, settings, serving_rows = map(module, ("prediction_log", "config.delivery", "serving.rows"))
    store = place.module("registry").open_registry()
    folder = store.fetch(place.model.version, place.path / "served")
    served = module("serving.loaded_model").load(folder)
    kept = log.PredictionLog(settings.Service(log_seconds=0.05))
    rows = place.rows(2 * WINDOW).select(place.model.data.features)
    request = module("prediction_log.writer").LoggedRequest("a", 2 * WINDOW)
    kept.add(served, [request], [{}] * 2 * WINDOW, rows, served.model.predict(rows))
    kept.count_refused(
        place.model.version, [serving_rows.Fault(0, "seats", "not a number", None, 7)]
    )
    kept.write()
    (place.path / "config/delivery.yaml").write_text('{"service": {"log_seconds": 0.05}}')
    place.settings(window={"hours": 0.0, "rows": WINDOW})
    time.sleep(0.1)
    place.monitor()
    (window,) = place.document()["windows"]
    assert (window["rows"], window["refused"]) == (2 * WINDOW, 0)  # refused when it was written
    assert window["signs"]["drift"] == {}


def test_without_a_champion_or_a_log_it_says_what_to_do(place: Place) -> None:
    wrong = sys.modules["rung_runtime"].UsageError
    (place.path / "config/delivery.yaml").write_text('{"service": {"log": ""}}')
    with pytest.raises(wrong, match=r"service\.log"):
        place.monitor()
    (place.path / "config/delivery.yaml").write_text('{"registry": "another"}')
    with pytest.raises(wrong, match="no champion: `ml deploy`"):
        place.monitor()
    assert "no champion" in place.retrain(lambda: None)


@pytest.mark.slow  # a million rows
def test_a_million_predictions_are_judged_in_windows_or_in_one(
    place: Place, record_property: Callable[[str, object], None]
) -> None:
    place.log(place.rows(10_000), 0)
    (file,) = Path("predictions").glob("date=*/*.parquet")
    frame = pl.read_parquet(file)
    file.unlink()
    hours = [pl.col("time").dt.offset_by(f"{hour}h") for hour in range(100)]
    whole = pl.concat([frame.with_columns(later) for later in hours])
    for (day,), rows in whole.group_by(pl.col("time").dt.date()):
        place.module("prediction_log.layout").write_file(
            "predictions", f"date={day}/{file.name}", rows
        )
    began = time.perf_counter()
    assert place.monitor() == "no training: no alarm in 30 windows"  # the newest
    record_property("seconds", round(time.perf_counter() - began, 2))
    place.settings(window={"hours": 100.0, "rows": WINDOW})
    began = time.perf_counter()
    assert place.monitor() == "no training: no alarm in 1 windows"
    record_property("seconds in one window", round(time.perf_counter() - began, 2))


# --- once for each alarm -----------------------------------------------------------------------


@pytest.fixture
def alarmed(place: Place) -> Place:
    for hour in range(2):
        place.log(place.rows(WINDOW, hour, HOTTER), hour)
    assert place.monitor().startswith("retrain: drift-")
    return place


def process(place: Place, code: str) -> subprocess.Popen[str]:
    """Run code in a new process, in which monitoring is imported as m."""
    own = place.module("problem").folder().parents[1]
    sources = [str(ROOT / "runtime/src"), str(own)]
    begin = f"import sys; sys.path[:0] = {sources!r}\nimport rung_runtime.monitoring as m\n"
    return subprocess.Popen([sys.executable, "-c", begin + code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow  # processes import everything
def test_a_decision_is_made_once_and_survives_restarts(alarmed: Place) -> None:
    first = alarmed.document()
    assert first["new"]
    assert first["alarm"].startswith("drift-")
    assert process(alarmed, "m.monitor()").wait() == 0
    again = alarmed.document()
    assert (again["decision"], again["alarm"], again["new"]) == ("retrain", first["alarm"], False)
    alarmed.log(alarmed.rows(WINDOW, 2, HOTTER), 2)
    alarmed.monitor()
    assert [alarm["id"] for alarm in alarmed.document()["alarms"]] == [first["alarm"]]


def test_an_alarm_starts_one_training(alarmed: Place) -> None:
    runs: list[int] = []
    message = alarmed.retrain(lambda: runs.append(1))
    made = r"trained for drift-[-\d]+: it made the same model again, as there are no new rows to "
    assert re.match(
        f"{made}learn from: `ml data add` them, then `ml retrain --again drift-", message
    )
    assert alarmed.retrain(lambda: runs.append(2)).startswith("nothing to do: drift-")
    alarmed.log(alarmed.rows(WINDOW, 2, HOTTER), 2)
    assert alarmed.monitor().startswith("no training: drift-")
    assert alarmed.document()["alarms"][0]["outcome"].startswith("made the same model again")
    page = Path("artifacts/monitor.html").read_text()
    assert "<b>An alarm is open: new data are needed</b>" in page
    assert "Train again" not in page
    assert alarmed.retrain(lambda: runs.append(3)).startswith("nothing to do")
    assert runs == [1]


@pytest.mark.parametrize(
    ("last", "calls", "outcome"),
    [
        ("deploy", ["run", "register", "deploy v2@sha256:00"], "trained"),
        ("register", ["run", "register"], "a version was registered"),
        ("package", ["run"], "a package was made"),
    ],
)
def test_a_training_ends_where_it_is_to_end(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    calls: list[str],
    outcome: str,
) -> None:
    cli = place.module("cli.monitoring")
    new = SimpleNamespace(version="v2", reference="v2@sha256:00")
    called: list[str] = []

    def register() -> object:
        called.append("register")
        return new

    parts = {
        "registry": SimpleNamespace(current_champion=lambda: None, register=register),
        "delivery": SimpleNamespace(deploy=lambda version, _: called.append(f"deploy {version}")),
        "monitoring": SimpleNamespace(retrain=lambda train, _, outcome: train() or outcome),
    }
    monkeypatch.setattr(cli, "run", lambda: called.append("run"))
    monkeypatch.setattr(cli, "load_part", parts.__getitem__)
    echoed: list[str] = []
    monkeypatch.setattr(cli.typer, "echo", echoed.append)
    cli.retrain(None, False, last)
    assert called == calls
    assert echoed[-1] == outcome
    with pytest.raises(sys.modules["rung_runtime"].UsageError, match="exclude each other"):
        cli.retrain(None, True, "register")


DECIDE = """
from rung_runtime.monitoring.alarms import Alarms
next_alarms = Alarms.next_alarms
def printed(before, *more):
    after = next_alarms(before, *more)
    print("new" if after != before else "known")
    return after
Alarms.next_alarms = printed
m.monitor()
"""
TRAIN = """
import time
def run():
    with open("runs", "a") as file:
        file.write("x")
    time.sleep(0.5)
print(m.retrain(run))
"""


@pytest.mark.slow  # many processes import everything
def test_of_many_at_once_one_decides_and_one_trains(place: Place) -> None:
    for hour in range(2):
        place.log(place.rows(WINDOW, hour, HOTTER), hour)
    for code, promised in ((DECIDE, "new"), (TRAIN, "trained for drift-")):
        started = [process(place, code) for _ in range(3)]
        outputs = [running.communicate()[0] for running in started]
        assert [running.returncode for running in started] == [0] * 3
        assert sum(promised in text for text in outputs) == 1
    assert Path("runs").read_text() == "x"


def test_a_training_that_failed_is_not_started_again_by_itself(alarmed: Place) -> None:
    refused = sys.modules["rung_runtime"].RefusedError

    def fail() -> None:
        raise refused("the gate refused this model")

    with pytest.raises(refused):
        alarmed.retrain(fail)
    message = alarmed.retrain(lambda: pytest.fail("it trained"))
    assert "which failed: the gate refused this model" in message
    runs: list[int] = []
    name = alarmed.document()["alarm"]
    assert name in alarmed.retrain(lambda: runs.append(1), again=name)
    assert runs == [1]
    with pytest.raises(sys.modules["rung_runtime"].UsageError, match="has no alarm drift-1"):
        alarmed.retrain(lambda: runs.append(2), again="drift-1")


@pytest.mark.slow  # processes import everything
def test_a_training_that_was_killed_is_told_and_left_to_a_person(alarmed: Place) -> None:
    killed = process(alarmed, "import os\nm.retrain(lambda: os.kill(os.getpid(), 9))")
    assert killed.wait() == -9
    name = alarmed.document()["alarm"]
    message = alarmed.retrain(lambda: pytest.fail("it trained"))
    assert f"which may still run: `ml retrain --again {name}` starts another" in message
    store = alarmed.module("registry").open_registry()
    note = json.loads(store.get("alarms"))
    for alarms in note.values():
        alarms["drift"]["started"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    store.set("alarms", json.dumps(note))
    assert "which was killed, it seems" in alarmed.monitor()
    runs: list[int] = []
    alarmed.retrain(lambda: runs.append(1), again=name)
    assert runs == [1]


@pytest.mark.slow
def test_an_alarm_that_cleared_can_be_raised_anew_by_later_windows_only(alarmed: Place) -> None:
    first = alarmed.document()["alarm"]
    alarmed.retrain(lambda: None)
    alarmed.log(alarmed.rows(WINDOW, 2), 2)
    alarmed.monitor()
    assert alarmed.document()["alarms"]  # one good window clears nothing
    alarmed.log(alarmed.rows(WINDOW, 3), 3)
    assert alarmed.monitor() == "no training: no alarm in 4 windows"
    assert alarmed.document()["alarms"] == []
    alarmed.log(alarmed.rows(WINDOW, 4, HOTTER), 4)
    assert alarmed.monitor() == "no training: no alarm in 5 windows"  # the third of the last five
    alarmed.log(alarmed.rows(WINDOW, 5, HOTTER), 5)
    assert alarmed.monitor().startswith("retrain: drift-")
    assert alarmed.document()["new"]
    assert alarmed.document()["alarm"] >= first


@pytest.mark.slow  # many windows are judged
def test_a_new_champion_starts_afresh_and_the_old_one_keeps_its_alarms(
    alarmed: Place, packed: Path, tmp_path: Path
) -> None:
    alarmed.retrain(lambda: None)
    new = Path(shutil.copytree(packed, tmp_path / "new"))
    profile = json.loads((new / "profile.json").read_text())
    hot = profile["columns"]["temperature_f"]
    hot["percentiles"] = [value + 15 for value in hot["percentiles"]]
    (new / "profile.json").write_text(json.dumps(profile))
    seal(new, alarmed.module, datetime.now(UTC) + timedelta(seconds=1))
    store = alarmed.champion(new)
    assert alarmed.monitor() == "no training: no alarm in 2 windows"
    assert alarmed.document()["alarms"] == []
    store.point("champion", next(v.version for v in store.versions()))
    assert alarmed.monitor().startswith("no training: drift-")


# --- the months that came later ------------------------------------------------------------------

# Of each: the columns that alarm after three windows, and whether performance alarms, too.
VERDICTS = {"07": ({"temperature_f"}, False), "09": (set[str](), True), "10": (set[str](), False)}


@pytest.mark.slow
@pytest.mark.parametrize("month", MONTHS)
def test_each_month_that_came_later_has_the_verdict_that_the_docs_explain(
    place: Place, month: str
) -> None:
    rows = place.month(month)
    columns, lost = VERDICTS[month]
    for hour in range(3):
        place.log(rows[hour * WINDOW : (hour + 1) * WINDOW], hour, labelled=True)
    print(place.monitor())
    document = place.document()
    drift = place.document("drift")
    alarms = {alarm["kind"]: alarm["reason"] for alarm in document["alarms"]}
    assert set(re.findall(r"(?:^|; )(\w+)", alarms.get("drift", ""))) == columns
    assert document["decision"] == ("retrain" if alarms else "none")
    assert ("performance" in alarms) == lost
    signs = [list(batch["signs"]["performance"]) for batch in document["outcomes"]]
    assert signs == [list(window["signs"]["performance"]) for window in document["windows"]]
    for window, drifted, batch in zip(
        document["windows"], drift["windows"], document["outcomes"], strict=True
    ):
        signs_of = [name for name, f in drifted["columns"].items() if f["reason"]]
        print("drifts:", signs_of, "lost:", list(batch["signs"]["performance"]), end="; ")
        hot = drifted["columns"]["temperature_f"]
        answer = drifted["prediction"]
        ends = "{value:.2f} ({low:.2f} to {high:.2f})".format(**window["performance"]["value"])
        print(f"temperature PSI {hot['psi']:.1f}, distance {hot['distance']:.2f};", end=" ")
        print(f"prediction {answer['psi']:.2f}, {answer['distance']:.2f}; roc_auc {ends}", end=" ")
        print("observed ÷ predicted {value:.2f}".format(**batch["calibration"]))


def test_september_and_october_together_are_a_loss_of_performance(place: Place) -> None:
    rows = pl.concat([place.month("09"), place.month("10")])
    for hour in range(6):
        place.log(rows[hour * WINDOW : (hour + 1) * WINDOW], hour, labelled=True)
    place.monitor()
    kinds = [alarm["kind"] for alarm in place.document()["alarms"]]
    assert kinds == ["performance"]
    runs: list[int] = []
    message = place.retrain(lambda: runs.append(1))
    assert runs == [1]
    assert re.match(r"trained for performance-[-\d]+:", message)


# --- Prometheus ----------------------------------------------------------------------------------

# What a healthy service tells, from minute to minute; then what another tells, and its alert.
BUCKETS = {0.1: 595, 0.5: 600, 1.0: 600, 2.5: 600, "+Inf": 600}
HEALTHY = {
    'ml_requests_total{route="/predict",status="200"}': "0+600x180",
    'ml_requests_total{route="/predict",status="422"}': "0+6x180",
    'ml_requests_total{route="/predict",status="500"}': "0x180",
    'ml_requests_total{route="/predict",status="503"}': "0+1x180",
    "ml_rows_total": "0+600x180",
    'ml_feature_category_total{category="(other)",feature="dest"}': "0+6x180",
    "ml_model_errors_total": "0x180",
    "ml_model_age_seconds": "86400+60x180",
    'ml_model_info{model_digest="a",version="1",instance="one"}': "1x180",
    'ml_model_info{model_digest="a",version="1",instance="two"}': "1x180",
    "ml_log_lag_seconds": "4x180",
    "ml_log_dropped_rows_total": "0x180",
} | {
    f'ml_request_seconds_bucket{{route="/predict",le="{le}"}}': f"0+{n}x180"
    for le, n in BUCKETS.items()
}
ONE, TWO = (
    f'ml_model_info{{model_digest="a",version="1",instance="{name}"}}' for name in ("one", "two")
)
ILL = {
    "MlServiceAbsent": {ONE: "_x180", TWO: "_x180"},
    "MlErrors": {'ml_requests_total{route="/predict",status="500"}': "0+12x180"},
    "MlModelCodeFails": {"ml_model_errors_total": "0x115 0+1x65"},
    "MlOverloaded": {'ml_requests_total{route="/predict",status="503"}': "0+60x180"},
    "MlSlow": {
        f'ml_request_seconds_bucket{{route="/predict",le="{le}"}}': "0+580x180" for le in (0.1, 0.5)
    },
    "MlContractBroken": {'ml_requests_total{route="/predict",status="422"}': "0+60x180"},
    "MlUnknownCategories": {
        'ml_feature_category_total{category="(other)",feature="dest"}': "0+60x180"
    },
    "MlModelOld": {"ml_model_age_seconds": "7780000+60x180"},
    "MlModelsDiffer": {
        TWO: "_x180",
        'ml_model_info{model_digest="b",version="2",instance="two"}': "1x180",
    },
    "MlLogLags": {"ml_log_lag_seconds": "4x60 61+60x120"},
    "MlLogDropsRows": {"ml_log_dropped_rows_total": "0x115 0+5x65"},
}


def test_alerts_ask_for_nothing_that_the_service_does_not_tell(
    render: Render, module: Import, packed: Path
) -> None:
    served = module("serving.loaded_model").load(packed)
    api = module("serving").create_app(served, module("config.delivery").Service(log="")).state.api
    api.metrics.requests.labels("/predict", 200)
    api.metrics.seconds.labels("/predict")
    exported = {
        sample.name for metric in api.metrics.registry.collect() for sample in metric.samples
    }
    (group,) = yaml.safe_load((render(level=1) / "deploy/alerts.yaml").read_text())["groups"]
    rules = group["rules"]
    queried = {name for rule in rules for name in re.findall(r"\bml_\w+", rule["expr"])}
    assert queried <= exported
    assert {name.partition("{")[0] for name in HEALTHY} == queried
    assert [rule["alert"] for rule in rules] == list(ILL)  # each of them is tested


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("alert", [None, *ILL])
def test_an_alert_is_raised_by_what_it_is_for_and_by_nothing_else(
    render: Render, tmp_path: Path, alert: str | None
) -> None:
    series = HEALTHY | (ILL[alert] if alert else {})
    raised = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    test = {
        "rule_files": [str(render(level=1) / "deploy/alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": n, "values": values} for n, values in series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": "2h", "exp_samples": raised},
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(json.dumps(test))
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
