"""Tracking: every run that reaches its gate, passed or refused, is recorded in MLflow.

Without MLFLOW_TRACKING_URI in the environment, that is `mlflow.db`, a file of the project.
"""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ... import UsageError, config, project
from ...artifacts import ARTIFACTS, DOCUMENTS, MODEL, STEPS, digest, read
from ...atomic_file import atomic_write
from ...records import GateDocument, MetricsDocument, TrainingDocument
from .. import Recorded

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ...tuning.tracking import TrialRecord

TRACKED = ARTIFACTS / "tracked"  # the digest of the gate's document that was recorded last
DATABASE = Path("mlflow.db")
FILES = Path("mlartifacts")
# The limits of MLflow's API for `runs/log-batch`.
MAX_PARAMS_PER_REQUEST = 100
MAX_METRICS_PER_REQUEST = 1000
LOGIN = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
# A server that does not answer is waited for half a minute at most.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@cache
def prepare() -> None:
    """Import MLflow in a thread, as the pipeline begins: that takes longer than to record a run."""
    _set_environment()
    Thread(target=_import).start()


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _import() -> None:
    with suppress(Exception):  # `record` gives the reason
        import_module("mlflow")
        if tracking_uri().startswith("sqlite:"):
            import_module("mlflow.store.tracking.sqlalchemy_store")


def client() -> "MlflowClient":
    """Return a client of MLflow.

    Raises:
        UsageError: A login would travel in clear.
    """
    _require_encryption()
    _set_environment()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(), tracking_uri())


def tracking_uri() -> str:
    """Return the URI of the tracker and of its registry."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE.absolute()}"


def _require_encryption() -> None:
    """Check whether a login of MLflow, if there is one, is sent encrypted."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    logins = [name for name in LOGIN if os.environ.get(name)]
    logins += ["the login in it"] if parts.username else []
    if parts.scheme != "http" or not logins:
        return
    from ...http_client import Unencrypted, require_encryption

    try:
        require_encryption(uri)
    except Unencrypted as error:
        raise UsageError(f"MLFLOW_TRACKING_URI, with {logins[0]}: {error}") from None


def without_password(text: str | None = None) -> str:
    """Return that URI, or a text that has it, without the password that may be in it."""
    return re.sub(r"//[^/@\s]*@", "//", tracking_uri() if text is None else text)


def experiment(mlflow: "MlflowClient", name: str) -> str:
    """Return the identifier of an experiment, which is created if it does not exist."""
    existing = mlflow.get_experiment_by_name(name)
    if existing is None:
        is_local = tracking_uri().startswith("sqlite:")
        mlflow.create_experiment(name, FILES.absolute().as_uri() if is_local else None)
        existing = mlflow.get_experiment_by_name(name)
    return str(existing.experiment_id) if existing else ""


def record() -> str:
    """Record the last run, once.

    Returns:
        A sentence: where it was recorded, or why it was not and what to do. Nothing is raised, as
        no tracker may fail a training.
    """
    gate = DOCUMENTS["gate"]
    if not gate.exists():
        return "tracking: there is no run to record yet"
    gate_digest = digest(gate)
    if TRACKED.exists() and TRACKED.read_text("utf-8").startswith(gate_digest):
        return "tracking: this run is recorded already"
    try:
        run = _record()
        with atomic_write(TRACKED) as new:
            new.write_text(f"{gate_digest}\n{run}\n", "utf-8")
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        if "already exists" in reason and tracking_uri().endswith(DATABASE.name):
            reason = f"{DATABASE} was left unfinished by a run that was killed: delete it first"
        reason = without_password(reason)
        return f"tracking: this run was not recorded, `ml track` does it later: {reason}"
    return f"tracking: recorded as {run} in {without_password()}"


def record_trials(name: str, run: str, trials: "Sequence[TrialRecord]") -> Recorded:
    """Record trials of `ml tune`, each as a run below that of the search.

    Args:
        name: Of the search.
        run: The run of the search; "": it is created.
        trials: Those that were not recorded before.
    """
    try:
        mlflow = client()
        experiment_id = experiment(mlflow, project.current().package)
        if not run:
            run = mlflow.create_run(experiment_id, run_name=name).info.run_id
            mlflow.set_terminated(run)
        for trial in trials:
            _record_trial(mlflow, experiment_id, run, trial)
    except Exception as error:
        reason = without_password(str(error).strip().partition("\n")[0])
        return Recorded(f"tracking: the trials were not recorded: {reason}", "")
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    return Recorded(f"tracking: {count} recorded below {run}", run)


def _record_trial(
    mlflow: "MlflowClient", experiment_id: str, search_run: str, trial: "TrialRecord"
) -> None:
    tags = {"mlflow.parentRunId": search_run, "state": trial.state}
    if trial.error:
        tags["error"] = trial.error
    name = f"trial {trial.number}"
    started = round(trial.started * 1000)
    run = mlflow.create_run(experiment_id, started, tags, name).info.run_id
    _log(mlflow, run, trial.params, trial.metrics)
    status = "FAILED" if trial.error else "FINISHED"
    mlflow.set_terminated(run, status, round(trial.ended * 1000))


def _record() -> str:
    """Record the last run, and return its identifier."""
    metrics = read(MetricsDocument)
    gate = read(GateDocument)
    if gate.inputs[str(DOCUMENTS["evaluate"])] != digest(DOCUMENTS["evaluate"]):
        raise ValueError("the gate has not judged the last model yet: run `ml run` again")
    params = _params(config.load())  # before anything is created
    mlflow = client()
    tags = {
        "commit": str(gate.commit),
        "data_digest": gate.data_digest,
        "model_digest": gate.model_digest,
        "verdict": gate.verdict,
    }
    experiment_id = experiment(mlflow, project.current().package)
    ended = gate.ended[:19].replace(":", "")
    run: str = mlflow.create_run(experiment_id, tags=tags, run_name=ended).info.run_id
    _log(mlflow, run, params, _metrics(metrics))
    _log_curves(mlflow, run, gate.model_digest)
    for document, *_ in STEPS.values():
        if document.exists():
            mlflow.log_artifact(run, str(document), "documents")
    mlflow.set_terminated(run)
    return run


def _log(
    mlflow: "MlflowClient", run: str, params: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Log parameters and metrics, as many in a request as MLflow's API allows."""
    from mlflow.entities import Metric, Param

    now = round(time.time() * 1000)
    every_param = [Param(name, str(value)) for name, value in params.items()]
    every_metric = [Metric(name, number, now, 0) for name, number in metrics.items()]
    for first in range(0, len(every_param), MAX_PARAMS_PER_REQUEST):
        mlflow.log_batch(run, params=every_param[first : first + MAX_PARAMS_PER_REQUEST])
    for first in range(0, len(every_metric), MAX_METRICS_PER_REQUEST):
        mlflow.log_batch(run, metrics=every_metric[first : first + MAX_METRICS_PER_REQUEST])


def _log_curves(mlflow: "MlflowClient", run: str, model_digest: str) -> None:
    """Log each value of the learning curves at its epoch, if the model has any."""
    from mlflow.entities import Metric

    if not DOCUMENTS["train"].exists():
        return
    training = read(TrainingDocument)
    if training.outputs.get(str(MODEL)) != model_digest:
        return  # of a later training
    now = round(time.time() * 1000)
    for name, values in (training.learning_curves or {}).items():
        points = [Metric(name, value, now, epoch) for epoch, value in enumerate(values, 1)]
        for first in range(0, len(points), MAX_METRICS_PER_REQUEST):
            mlflow.log_batch(run, metrics=points[first : first + MAX_METRICS_PER_REQUEST])


def _params(settings: config.Config) -> dict[str, Any]:
    """Return the configuration of a run as parameters of MLflow."""
    data = settings.data
    model = settings.model
    params = {
        "source": data.source,
        "target": data.target,
        "task": data.task,
        "estimator": model.estimator,
        "seed": model.seed,
    }
    params |= {f"params.{name}": value for name, value in model.params.items()}
    params |= {f"split.{name}": value for name, value in data.split.model_dump().items()}
    return params


def _metrics(document: MetricsDocument) -> dict[str, float]:
    """Return each metric, and the skill over each baseline: the value and both ends."""
    intervals = {
        **document.metrics,
        "skill_over_constant": document.baselines.constant.skill,
        "skill_over_linear": document.baselines.linear.skill,
    }
    metrics: dict[str, float] = {}
    for name, interval in intervals.items():
        ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
        metrics |= {name + suffix: end for suffix, end in ends.items() if end is not None}
    return metrics
