"""Tracking: each trial of a search is a run in the project's tracker, below one for the search."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import project
from . import space as spaces
from .study import ENDS, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TRACKED = "tracked"  # attribute of a study: the numbers of the trials that the tracker has
SEARCH_RUN = "tracker_run"  # attribute of a study: the run that those of trials are below


class TrialRecord(NamedTuple):
    """A trial that has ended, as a tracker records it."""

    number: int
    state: str  # complete, pruned or fail
    params: dict[str, Any]
    metrics: dict[str, float]
    error: str  # why it failed
    started: float  # seconds since 1970
    ended: float


def track(study: Study) -> str:
    """Record the trials that the tracker does not have yet, if the project has a tracker.

    Returns:
        A sentence: where they were recorded, or why not; "" if there was nothing to record.
    """
    if not project.current().has_loop:
        return ""
    tracker = import_module("..adapters", __package__).load("tracker", "mlflow")
    known = set(study.attribute(TRACKED, []))
    errors = study.errors()
    new = [trial for trial in study.ended() if trial.number not in known]
    if not new or not hasattr(tracker, "record_trials"):  # one of your own may record runs only
        return ""
    records = [_record(trial, study, errors.get(trial.number, "")) for trial in new]
    name = f"tune {study.folds.config.model.estimator}"
    recorded = tracker.record_trials(name, study.attribute(SEARCH_RUN, ""), records)
    if recorded.run:
        study.store(SEARCH_RUN, recorded.run)
        study.store(TRACKED, sorted({*known, *(record.number for record in records)}))
    return str(recorded.message)


def _record(trial: "FrozenTrial", study: Study, error: str) -> TrialRecord:
    metrics: dict[str, float] = {}
    metric = study.folds.metric
    if trial.value is not None:
        metrics[metric] = trial.value
    for suffix, end in zip(("low", "high"), trial.user_attrs.get(ENDS, ()), strict=False):
        if end is not None:
            metrics[f"{metric}_{suffix}"] = end
    params = {spaces.name_of(key): value for key, value in study.values_of(trial).items()}
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    ended = trial.datetime_complete.timestamp() if trial.datetime_complete else started
    return TrialRecord(
        trial.number, trial.state.name.lower(), params, metrics, error, started, ended
    )
