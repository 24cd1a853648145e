"""A gate, models that are good or not, and what the gate says of them."""

from typing import Any

import numpy as np
import polars as pl

from ...config import (
    METRICS,
    Column,
    Config,
    Data,
    Gate,
    Model,
    Split,
    Task,
)
from ...pipeline.evaluate import judge
from ...pipeline.gate import decide
from ...pipeline.metrics import Floats
from ...records import (
    Baseline,
    Baselines,
    Calibration,
    Check,
    Comparison,
    Interval,
    Leaks,
    MetricsDocument,
    ModelFacts,
    Scores,
)

GATE = Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
HELD = 3_000
RANDOM = np.random.default_rng(0)
SIGNAL, NOISE = RANDOM.normal(size=(2, HELD))
PLACE = np.where(np.arange(HELD) % 5 == 0, "small", "large")
BOUND = {"binary": 0.7, "multiclass": 0.9, "regression": 1.2}


def truth(task: Task) -> Floats:
    if task == "regression":
        return np.asarray(2 * SIGNAL + 0.5 * NOISE)
    edges = [0.0] if task == "binary" else [-0.6, 0.6]
    return np.asarray(np.searchsorted(edges, SIGNAL + 0.3 * NOISE), dtype=np.float64)


def honest(task: Task) -> Floats:
    """What a good model says: close to the truth, as sure as it may be."""
    if task == "regression":
        return np.asarray(2 * SIGNAL)
    edges = [0.0] if task == "binary" else [-0.6, 0.6]
    below = [1 / (1 + np.exp(-(edge - SIGNAL) / 0.17)) for edge in edges]
    return np.diff(np.column_stack([np.zeros(HELD), *below, np.ones(HELD)]), axis=1)


def constant(task: Task) -> Floats:
    known = truth(task)
    if task == "regression":
        return np.full(HELD, known.mean())
    return np.tile(np.bincount(known.astype(int)) / HELD, (HELD, 1))


def model_facts(
    megabytes: float = 1.0, latency_ms: float = 5.0, yardstick_ms: float | None = None
) -> ModelFacts:
    digest = f"sha256:{'0' * 64}"
    return ModelFacts(
        digest=digest, megabytes=megabytes, latency_ms=latency_ms, yardstick_ms=yardstick_ms
    )


def metrics_document(scores: Scores, **changes: Any) -> MetricsDocument:
    """The document of a small and fast model that leaks nothing, with some changes."""
    rest = {"importance": [], "leaks": Leaks(rows=0), "model": model_facts()}
    return MetricsDocument(**dict(scores) | rest | changes)


def verdicts(
    task: Task,
    y_pred: Floats,
    linear: Floats | None = None,
    comparison: Comparison | None = None,
    **changes: Any,
) -> dict[str, str]:
    """The gate's verdict on every check, by its id."""
    metric = METRICS[task][0]
    gate = Gate(metric=metric, thresholds={metric: BOUND[task]}, slice_rows=100, slice_skill=0.2)
    classes = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": []}[task]
    kind = Column(type="number") if task == "regression" else Column(type="category")
    data = Data(
        source="control.csv",
        target="target",
        task=task,
        classes=classes,
        split=Split(by="stratified"),
        columns={"place": Column(type="category"), "target": kind},
    )
    others = {"constant": constant(task), "linear": constant(task) if linear is None else linear}
    config = Config(data=data, model=Model(), gate=gate)
    scores = judge(truth(task), y_pred, others, pl.DataFrame({"place": PLACE}), config)
    checks = decide(metrics_document(scores, **changes), gate, comparison)
    return verdicts_by_id(checks)


def verdicts_by_id(checks: list[Check]) -> dict[str, str]:
    by_id: dict[str, str] = {check.id or "": check.verdict for check in checks}
    assert len(by_id) == len(checks), "two checks have the same id"
    return by_id


def refused(by_check: dict[str, str]) -> set[str]:
    return {name for name, verdict in by_check.items() if verdict == "refused"}


TASKS: list[Task] = ["binary", "multiclass", "regression"]


def interval(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


def a_threshold_is_met() -> Scores:
    over = Baseline(value=0.5, skill=interval(0.5, 0.3, 0.7))
    return Scores(
        task="binary",
        metric="roc_auc",
        rows=HELD,
        metrics={"roc_auc": interval(0.75, 0.65, 0.85)},
        baselines=Baselines(constant=over, linear=over),
        slices=[],
        calibration=Calibration(error=0.01, bins=[]),
        curves={},
    )
