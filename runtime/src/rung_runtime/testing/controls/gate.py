"""What the gate must refuse and accept of a model by itself."""

from typing import Any

import numpy as np
import pytest

from ...config import (
    METRICS,
    Gate,
    Task,
)
from ...pipeline.calibration import calibration
from ...pipeline.gate import LEAKS, calibration_checks, decide
from ...pipeline.gate_text import notes
from ...records import (
    Interval,
    Leaks,
    Rarest,
    Slice,
)
from .judging import (
    GATE,
    HELD,
    PLACE,
    TASKS,
    a_threshold_is_met,
    constant,
    honest,
    metrics_document,
    model_facts,
    refused,
    truth,
    verdicts,
    verdicts_by_id,
)


@pytest.mark.parametrize("task", TASKS)
def test_a_good_model_passes_every_check(task: Task) -> None:
    by_check = verdicts(task, honest(task))
    assert len(by_check) == (9 if task == "regression" else 10)
    assert refused(by_check) == set()


@pytest.mark.parametrize("task", TASKS)
def test_a_constant_predictor_is_refused(task: Task) -> None:
    metric = METRICS[task][0]
    assert {f"threshold {metric}", "constant"} <= refused(verdicts(task, constant(task)))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_worse_than_a_linear_one_is_refused(task: Task) -> None:
    worse = 0.7 * honest(task) + 0.3 * constant(task)
    if task == "binary":  # what ranks the same has the same area under its curve
        worse[::4] = constant(task)[::4]
    assert "linear" in refused(verdicts(task, worse, linear=honest(task)))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_is_useless_on_one_slice_is_refused(task: Task) -> None:
    y_pred = honest(task)
    small = PLACE == "small"
    y_pred[small] = constant(task)[small]
    by_check = verdicts(task, y_pred)
    assert "slice" in refused(by_check)
    assert {by_check[f"threshold {METRICS[task][0]}"], by_check["constant"]} == {"passed"}


@pytest.mark.parametrize("task", TASKS)
def test_a_miscalibrated_model_is_refused(task: Task) -> None:
    y_pred = honest(task)
    if task == "regression":
        y_pred = y_pred + 0.4 * truth(task).std()
    else:  # far too unsure of itself, in the right order
        y_pred = 0.4 * y_pred + 0.6 / y_pred.shape[1]
    assert "calibration" in refused(verdicts(task, y_pred))


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        *[(f"leaks {kind}", {"leaks": Leaks(**{"rows": 0, kind: 3})}) for kind in LEAKS],
        ("alone", {"alone": ["hours"]}),
        ("size", {"model": model_facts(megabytes=21.0)}),
        ("latency", {"model": model_facts(latency_ms=51.0)}),
    ],
)
def test_a_leaked_an_oversized_and_a_slow_model_are_refused(
    check: str, changes: dict[str, Any]
) -> None:
    assert refused(verdicts("binary", honest("binary"), **changes)) == {check}


def test_a_slow_machine_does_not_make_a_model_slow() -> None:
    model = model_facts(latency_ms=51.0, yardstick_ms=2.0)
    assert refused(verdicts("binary", honest("binary"), model=model)) == set()
    model = model_facts(latency_ms=101.0, yardstick_ms=2.0)
    assert refused(verdicts("binary", honest("binary"), model=model)) == {"latency"}


def test_probabilities_that_are_wrong_for_a_rare_class_are_refused() -> None:
    rare = 0.03
    y = (np.arange(HELD) < rare * HELD).astype(float)

    def refused_at(share: float) -> set[str]:
        y_pred = np.tile([1 - share, share], (HELD, 1))
        checks = calibration_checks(calibration(y, y_pred, classes=["no", "yes"]), GATE)
        return refused(verdicts_by_id(checks))

    assert refused_at(rare) == set()
    assert "observed expected" in refused_at(3 * rare)
    assert "observed expected" in refused_at(rare / 3)


@pytest.mark.parametrize("high", [-0.7, None])
def test_a_slice_is_judged_only_where_it_has_an_interval(high: float | None) -> None:
    skill = Interval(value=-1.0, low=None, high=high)
    few = Slice(column="place", value="small", rows=100, metric=skill, skill=skill)
    by_check = verdicts("binary", honest("binary"), slices=[few])
    assert ("slice" in refused(by_check)) == (high is not None)


def test_few_rows_of_a_class_are_told_with_the_verdict() -> None:
    scores = a_threshold_is_met()

    def noted(rarest: Rarest | None) -> list[str]:
        return notes(metrics_document(scores, rarest=rarest))

    few = "note: the holdout has 9 rows of class yes, so the intervals mean little"
    assert noted(Rarest(class_="yes", rows=9)) == [few]
    assert noted(Rarest(class_="yes", rows=10)) == []
    assert noted(None) == []


@pytest.mark.parametrize("judged", ["value", "pessimistic"])
def test_a_threshold_is_read_and_may_be_judged_by_the_worse_end(judged: str) -> None:
    settings = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.7}, "compare": judged}
    first, *_ = decide(metrics_document(a_threshold_is_met()), Gate.model_validate(settings))
    assert first.verdict == ("passed" if judged == "value" else "refused")
