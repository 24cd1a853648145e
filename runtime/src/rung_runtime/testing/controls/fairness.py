"""What the limits of fairness must refuse and accept."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ... import config as project_config
from ...config import (
    METRICS,
    Column,
    Config,
    Data,
    Fairness,
    Gate,
    Model,
    Split,
    Task,
)
from ...pipeline.evaluate import judge
from ...pipeline.gate import decide
from ...pipeline.metrics import Floats
from .judging import BOUND, HELD, constant, honest, metrics_document, refused, truth, verdicts_by_id

# Two groups whose rows are the same, so that an honest model treats both alike.
GROUP = np.where(np.arange(HELD) < HELD // 2, "first", "second")
SURE = 0.999


def fairness_settings() -> Iterator[tuple[Task, Fairness]]:
    """Every criterion of each task, and what this project's gate asks for, on columns of ours."""
    selective = ["demographic_parity", "equal_opportunity", "predictive_equality", "equalized_odds"]
    limits: dict[Task, list[str]] = {
        "binary": [*selective, "calibration", "error_rate"],
        "multiclass": [*selective, "calibration", "error_rate"],
        "regression": ["demographic_parity", "calibration", "mean_absolute_error"],
    }
    for task, criteria in limits.items():
        content = {"columns": ["group"], "max_difference": dict.fromkeys(criteria, 0.2)}
        if task != "regression":
            content |= {"min_ratio": dict.fromkeys([*selective, "error_rate"], 0.5)}
        if task == "multiclass":
            content |= {"favorable": "a"}
        yield task, Fairness.model_validate(content)
    if project_config.GATE.exists():
        data = project_config.read(project_config.DATA, Data)
        own = project_config.read(project_config.GATE, Gate).fairness
        if own is not None:
            yield data.task, on_our_columns(own, data)


def on_our_columns(fairness: Fairness, data: Data) -> Fairness:
    """A project's settings, on the groups and classes that the controls have."""
    favorable = fairness.favorable
    if favorable is not None:
        is_binary = data.task == "binary"
        favorable = NAMES[data.task][data.classes.index(favorable) if is_binary else 0]
    ours: dict[str, Any] = {"columns": ["group"], "bands": {}, "favorable": favorable}
    return fairness.model_copy(update=ours)


NAMES: dict[Task, list[str]] = {
    "binary": ["no", "yes"],
    "multiclass": ["a", "b", "c"],
    "regression": [],
}


def twice(values: Floats) -> Floats:
    """The same rows in both groups."""
    return np.concatenate([values[: HELD // 2], values[: HELD // 2]])


def fairness_verdicts(task: Task, y_pred: Floats, fairness: Fairness) -> dict[str, str]:
    """The gate's verdict on every check of fairness, by its id."""
    kind = Column(type="number") if task == "regression" else Column(type="category")
    data = Data(
        source="control.csv",
        target="target",
        task=task,
        classes=NAMES[task],
        split=Split(by="stratified"),
        sensitive=["group"],
        columns={"x": Column(type="number"), "group": Column(type="category"), "target": kind},
    )
    metric = METRICS[task][0]
    gate = Gate(metric=metric, thresholds={metric: BOUND[task]}, fairness=fairness)
    config = Config(data=data, model=Model(), gate=gate)
    y_true = twice(truth(task))
    others = {"constant": constant(task), "linear": constant(task)}
    scores = judge(y_true, y_pred, others, pl.DataFrame({"group": GROUP}), config)
    checks = decide(metrics_document(scores), gate)
    by_id = verdicts_by_id(checks)
    return {name: verdict for name, verdict in by_id.items() if name.startswith("fairness")}


def one_sided(task: Task, fairness: Fairness) -> Floats:
    """What a model says that decides by the group: yes to the first, no to the second."""
    is_first = GROUP == "first"
    if task == "regression":
        limit = max(fairness.max_difference.values())
        return np.where(is_first, 1, -1) * (10 * limit + 10 * float(truth(task).std()))
    classes = NAMES[task]
    favorable = classes.index(fairness.favorable) if fairness.favorable else 1
    other = (favorable + 1) % len(classes)
    return certain(np.where(is_first, favorable, other), len(classes))


def wrong_for_one(task: Task) -> Floats:
    """What a model says that knows the first group, and has the labels of the second exchanged."""
    y_true = twice(truth(task))
    is_second = GROUP == "second"
    if task == "regression":
        return np.where(is_second, -100 * y_true, y_true)
    classes = len(NAMES[task])
    return certain((y_true.astype(int) + is_second) % classes, classes)


def certain(answers: NDArray[np.int64], classes: int) -> Floats:
    """Probabilities of a model that is sure of each answer."""
    rest = (1 - SURE) / (classes - 1)
    return np.where(np.arange(classes) == answers[:, None], SURE, rest)


def test_a_model_that_is_unfair_to_one_group_is_refused_by_every_limit() -> None:
    for task, fairness in fairness_settings():
        by_decision = fairness_verdicts(task, one_sided(task, fairness), fairness)
        by_errors = fairness_verdicts(task, wrong_for_one(task), fairness)
        assert by_decision
        assert refused(by_decision) | refused(by_errors) == set(by_decision), fairness


def test_a_model_that_treats_groups_alike_passes_every_limit() -> None:
    for task, fairness in fairness_settings():
        lenient = fairness.model_copy(update={"compare": "optimistic"})
        by_check = fairness_verdicts(task, twice(honest(task)), lenient)
        assert by_check
        assert refused(by_check) == set(), fairness
