"""The three files that the pipeline reads, together."""

from .. import UsageError
from .data import DATA, METRICS, Data
from .files import Strict, read
from .gate import GATE, Gate
from .model import MODEL, Model


class Config(Strict):
    """`config/data.yaml`, `config/model.yaml` and `config/gate.yaml`."""

    data: Data
    model: Model
    gate: Gate


def load() -> Config:
    """Read the `config/` of the current folder.

    Raises:
        UsageError: As `read`, or the gate does not fit the task or the columns.
    """
    data = read(DATA, Data)
    model = read(MODEL, Model)
    gate = read(GATE, Gate)
    metrics = METRICS[data.task]
    for name in (gate.metric, *gate.thresholds):
        if name not in metrics:
            raise UsageError(
                f"{GATE}: '{name}' is not a metric of a {data.task} task: {', '.join(metrics)}"
            )
    if gate.costs and data.task != "binary":
        raise UsageError(f"{GATE}: costs: a {data.task} task has no false positives")
    if gate.fairness and (problem := gate.fairness.problem(data)):
        raise UsageError(f"{GATE}: fairness: {problem}")
    return Config(data=data, model=model, gate=gate)
