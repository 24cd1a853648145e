"""Tracking: every run that came to its gate, passed or refused, to MLflow.

Without MLFLOW_TRACKING_URI in the environment that is `mlflow.db`, a file of the project.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import config, project
from ...artifacts import ARTIFACTS, DOCUMENTS, STEPS, atomic_write, digest, read_fields

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKED = ARTIFACTS / "tracked"  # the digest of the gate's document that was recorded last
DATABASE, FILES = Path("mlflow.db"), Path("mlartifacts")


def client() -> "MlflowClient":
    """MLflow, patient for half a minute at most when a server does not answer."""
    for key, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    return MlflowClient(where(), where())


def where() -> str:
    """The URI of the tracker and of its registry."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE.absolute()}"


def shown(text: str | None = None) -> str:
    """That URI, or a text with it, without the password that may be in it."""
    return re.sub(r"//[^/@\s]*@", "//", where() if text is None else text)


def experiment(known: "MlflowClient", name: str) -> str:
    """The identifier of an experiment, which is made if there is none."""
    if (before := known.get_experiment_by_name(name)) is None:
        local = where().startswith("sqlite:")
        known.create_experiment(name, FILES.absolute().as_uri() if local else None)
        before = known.get_experiment_by_name(name)
    return str(before.experiment_id) if before else ""


def record() -> str:
    """Record the last run, once.

    Returns:
        A sentence: where it was recorded, or why it was not and what to do. Nothing is raised, as
        no tracker may fail a training.
    """
    gate = DOCUMENTS["gate"]
    if not gate.exists():
        return "tracking: there is no run to record yet"
    of = digest(gate)
    if TRACKED.exists() and TRACKED.read_text("utf-8").startswith(of):
        return "tracking: this run is recorded already"
    try:
        run = _record()
        with atomic_write(TRACKED) as new:
            new.write_text(f"{of}\n{run}\n", "utf-8")
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        if "already exists" in said and where().endswith(DATABASE.name):
            said = f"{DATABASE} was left half made by a run that was killed: delete it first"
        return f"tracking: this run was not recorded, `ml track` does it later: {shown(said)}"
    return f"tracking: recorded as {run} in {shown()}"


def _record() -> str:
    said, judged, asked = read_fields("evaluate"), read_fields("gate"), config.load()
    if judged["inputs"][str(DOCUMENTS["evaluate"])] != digest(DOCUMENTS["evaluate"]):
        raise ValueError("the gate has not judged the last model yet: `ml run` goes on")
    known = client()
    tags = {key: str(judged[key]) for key in ("commit", "data_digest", "model_digest", "verdict")}
    name = judged["ended"][:19].replace(":", "")
    at = experiment(known, project.current().package)
    run: str = known.create_run(at, tags=tags, run_name=name).info.run_id
    for key, value in _params(asked, said).items():
        known.log_param(run, key, value)
    for key, value in _metrics(said).items():
        known.log_metric(run, key, value)
    for path, *_ in STEPS.values():
        if path.exists():
            known.log_artifact(run, str(path), "documents")
    known.set_terminated(run)
    return run


def _params(asked: config.Config, said: dict[str, Any]) -> dict[str, Any]:
    model, data = asked.model, asked.data
    split = {f"split.{key}": value for key, value in data.split.model_dump().items()}
    own = {f"params.{key}": value for key, value in model.params.items()}
    basics = {"source": data.source, "target": data.target, "task": data.task}
    return basics | {"estimator": model.estimator, "seed": model.seed} | own | split


def _metrics(said: dict[str, Any]) -> dict[str, float]:
    """Of each metric, and of the skill over each baseline, the value and both ends."""
    found = dict(said["metrics"])
    found |= {f"skill_over_{name}": b["skill"] for name, b in said["baselines"].items()}
    ends = {"": "value", "_low": "low", "_high": "high"}
    whole = {name + end: value[key] for name, value in found.items() for end, key in ends.items()}
    return {name: value for name, value in whole.items() if value is not None}
