"""Every run is recorded with MLflow, and no tracker can fail a training."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Copy, Render, digest
from rung_runtime.records import Baselines, GateDocument, Interval, MetricsDocument

pytestmark = pytest.mark.slow  # no project is installed, but MLflow's tables are made
INTERVAL = {"value": 0.75, "low": 0.7, "high": 0.8}
METRICS: dict[str, Any] = {
    "metric": "roc_auc",
    "metrics": {"roc_auc": INTERVAL, "log_loss": INTERVAL | {"high": None}},
    "baselines": {
        "constant": {"value": 0.5, "skill": INTERVAL},
        "linear": {"value": 0.7, "skill": INTERVAL | {"low": None}},
    },
}


@pytest.fixture
def tracking(
    module: Callable[[str], ModuleType],
    sources: Render,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ModuleType:
    """The module in a folder with the documents of a run."""
    shutil.copytree(sources(level=1).parent / "config", tmp_path / "config")
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\npackage = "late_flights"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("artifacts").mkdir()
    tracker = module("adapters.tracker_mlflow")
    run(tracker, monkeypatch, "passed")
    return tracker


@pytest.fixture
def tables(tracking: ModuleType, mlflow_tables: Path) -> None:
    """Have the tables of MLflow in the folder."""
    shutil.copy(mlflow_tables, "mlflow.db")


def run(tracking: ModuleType, monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    """Leave what a run leaves; reading it back is the documents' affair."""
    Path("artifacts/metrics.json").write_text(json.dumps(METRICS))
    gate: dict[str, Any] = {
        "verdict": verdict,
        "commit": "c0ffee",
        "data_digest": "sha256:data",
        "model_digest": "sha256:model",
        "ended": "2026-01-01T12:00:00.000+00:00",
        "inputs": {"artifacts/metrics.json": digest(Path("artifacts/metrics.json"))},
    }
    Path("artifacts/gate.json").write_text(json.dumps(gate))
    metrics = {name: Interval(**ends) for name, ends in METRICS["metrics"].items()}
    baselines = Baselines.model_validate(METRICS["baselines"])
    documents = {
        GateDocument: GateDocument.model_construct(**gate),
        MetricsDocument: MetricsDocument.model_construct(metrics=metrics, baselines=baselines),
    }
    monkeypatch.setattr(tracking, "read", documents.__getitem__)


def runs(tracking: ModuleType) -> list[Any]:
    known = tracking.client()
    experiment = known.get_experiment_by_name("late_flights")
    return list(known.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("verdict", ["passed", "refused"])
def test_a_run_is_recorded_with_intervals_documents_and_lineage(
    tracking: ModuleType, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    run(tracking, monkeypatch, verdict)
    message = tracking.record()
    (recorded,) = runs(tracking)
    assert recorded.info.run_id in message
    assert recorded.info.status == "FINISHED"
    metrics = recorded.data.metrics
    data = recorded.data
    assert (metrics["roc_auc"], metrics["roc_auc_low"]) == (0.75, 0.7)
    assert metrics["skill_over_constant_high"] == 0.8
    assert metrics["skill_over_linear"] == 0.75
    assert "skill_over_linear_low" not in metrics
    assert "log_loss_high" not in metrics
    assert data.tags["verdict"] == verdict
    assert data.tags["commit"] == "c0ffee"
    assert data.tags["data_digest"] == "sha256:data"
    assert data.tags["model_digest"] == "sha256:model"
    assert data.params["estimator"] == "boosted"
    assert data.params["split.by"] == "time"
    kept = tracking.client().list_artifacts(recorded.info.run_id, "documents")
    assert {file.path for file in kept} == {"documents/gate.json", "documents/metrics.json"}
    assert Path("mlflow.db").is_file()
    assert list(Path("mlartifacts").rglob("metrics.json"))


@pytest.mark.usefixtures("tables")
def test_a_run_is_recorded_once_and_the_next_one_too(
    tracking: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.record()
    monkeypatch.setattr(tracking, "client", lambda: pytest.fail("MLflow is asked in vain"))
    assert "already" in tracking.record()
    monkeypatch.undo()
    monkeypatch.chdir(Path("artifacts").absolute().parent)


def test_nothing_to_record_is_said(tracking: ModuleType) -> None:
    Path("artifacts/gate.json").unlink()
    assert "no run" in tracking.record()
    assert not Path("artifacts/tracked").exists()


def test_a_model_that_the_gate_has_not_judged_is_not_recorded(tracking: ModuleType) -> None:
    Path("artifacts/metrics.json").write_text("{}")
    assert "has not judged" in tracking.record()
    assert not Path("mlflow.db").exists()


@contextmanager
def answers(how: str) -> Iterator[tuple[str, list[str]]]:
    """A stand-in for a tracker that is down: its address, and what it was asked."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            paths.append(self.path)
            if how == "hangs":
                time.sleep(4)
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", paths
    server.shutdown()
    server.server_close()


def test_the_password_of_a_tracker_is_not_shown(
    tracking: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answers("answers 500") as (uri, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("//", "//me:secret@"))
        message = tracking.record()
        assert "was not recorded" in message
        assert "secret" not in message
        assert tracking.without_password() == uri


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("how", ["refuses", "answers 500", "hangs", "is not a folder"])
def test_a_tracker_that_is_down_fails_nothing_and_the_run_is_recorded_later(
    tracking: ModuleType, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with answers(how) as (address, paths):
        if how == "refuses":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        if how == "is not a folder":
            address = "sqlite:////proc/nowhere/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        message = tracking.record()
        assert time.monotonic() - began < 30
    assert "not recorded" in message
    assert "ml track" in message
    assert "\n" not in message
    assert len(paths) <= 2
    assert not Path("artifacts/tracked").exists()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "recorded as" in tracking.record()
    assert len(runs(tracking)) == 1


@pytest.mark.slow
def test_ml_run_records_and_ends_as_it_would_without_a_tracker(
    ran: Callable[[int, str], Copy], tmp_path: Path
) -> None:
    copy = ran(1, "multiclass").again(tmp_path / "copy")
    assert "already" in copy.ml("track", exits=0).stdout
    (copy.path / "artifacts/tracked").unlink()
    env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    script = f"import os, sys\nos.environ |= {env}\nsys.argv[1:] = ['run']\n"
    script += "from rung_runtime.cli import main\nmain()"
    done = copy.project.run("python", "-c", script, cwd=copy.path)
    assert done.returncode == 0, done.stderr
    assert "not recorded" in done.stdout
    assert "recorded as" in copy.ml("track", exits=0).stdout
    assert "already" in copy.ml("run", exits=0).stdout


def test_the_last_words_of_a_run_are_its_verdict(ran: Callable[..., Any], tmp_path: Path) -> None:
    copy = ran(1, "multiclass").again(tmp_path / "copy")
    version = json.loads((copy.path / "artifacts/model/manifest.json").read_text())["version"]
    nothing = copy.ml("run", exits=0).stdout.splitlines()[-1]
    assert nothing == f"nothing is stale: artifacts/model/ has version {version}"

    gate = copy.path / "config/gate.yaml"
    accepting = gate.read_text()
    gate.write_text(f"{accepting}\nmax_megabytes: 0.001\n")
    refused = copy.ml("run", exits=1)
    assert "tracking: recorded as" in refused.stdout.splitlines()[-1]
    assert "model size, MB" in refused.stderr.splitlines()[-1]

    gate.write_text(f"{accepting}\nmax_megabytes: 19\n")
    accepted = copy.ml("run", exits=0).stdout.splitlines()
    assert accepted[-1].startswith("accepted: artifacts/model/ has version ")
    assert accepted[-2].startswith("tracking: recorded as ")

    gate.write_text("metrc: log_loss\n")
    wrong = copy.ml("run", exits=2)
    assert "tracking" not in wrong.stdout, "there was no run"
    assert len(wrong.stderr.splitlines()) == 1
