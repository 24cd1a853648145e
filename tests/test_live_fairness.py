"""Fairness of live predictions: an alarm for limits that are surely broken, for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_monitoring import WINDOW, Place, packed, place

Module = Callable[[str], ModuleType]
__all__ = ["packed", "place"]  # fixtures
LIMIT = 0.1
ROWS = 600
GROUPS = ["north", "south", "west"]


def contract(module: Module, **changes: Any) -> Any:
    settings = {
        "source": "rows.csv",
        "target": "y",
        "task": "binary",
        "classes": ["no", "yes"],
        "split": {"by": "stratified"},
        "columns": {
            "y": {"type": "category", "categories": ["no", "yes"]},
            "region": {"type": "category", "categories": GROUPS},
            "x": {"type": "number"},
        },
    }
    return module("config").Data.model_validate(settings | changes)


def gate(module: Module, *criteria: str, **changes: Any) -> Any:
    fairness = {"columns": ["region"], "max_difference": dict.fromkeys(criteria, LIMIT)} | changes
    settings = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.5}, "fairness": fairness}
    return module("config").Gate.model_validate(settings)


class Window:
    """Rows of a window of the log whose rates in each group are known."""

    def __init__(self, random: np.random.Generator, rates: list[float], true_rate: float = 0.3):
        group = random.integers(0, len(GROUPS), ROWS)
        selected = random.random(ROWS) < np.array(rates)[group]
        positive = np.where(selected, 0.9, 0.1)
        self.y_pred = np.column_stack([1 - positive, positive])
        self.y_true = (random.random(ROWS) < true_rate).astype(float)
        names = np.array(GROUPS)[group]
        self.rows = pl.DataFrame({"x:region": names, "x:x": random.normal(size=ROWS)})

    def judged(self, module: Module, gate: Any, data: Any = None) -> Any:
        data = data or contract(module)
        judge = module("monitoring.fairness").judge_groups
        return judge(self.rows, self.y_pred, self.y_true, data, gate)


def share_with_a_sign(module: Module, rates: list[float], *criteria: str, windows: int) -> float:
    random = np.random.default_rng(20_261_127)
    limits = gate(module, *criteria)
    signs = [bool(Window(random, rates).judged(module, limits).signs) for _ in range(windows)]
    return float(np.mean(signs))


def test_groups_that_are_treated_alike_have_no_sign(module: Module) -> None:
    criteria = ("demographic_parity", "equalized_odds", "error_rate")
    assert share_with_a_sign(module, [0.4] * 3, *criteria, windows=150) == 0


def test_a_difference_of_just_the_limit_is_hardly_ever_a_sign(module: Module) -> None:
    assert share_with_a_sign(module, [0.4, 0.4, 0.5], "demographic_parity", windows=150) <= 0.05


def test_a_difference_far_beyond_the_limit_is_a_sign_in_most_windows(module: Module) -> None:
    assert share_with_a_sign(module, [0.3, 0.3, 0.6], "demographic_parity", windows=50) > 0.9


def test_a_sign_says_which_groups_differ_and_what_is_allowed(module: Module) -> None:
    window = Window(np.random.default_rng(0), [0.2, 0.2, 0.8])
    judged = window.judged(module, gate(module, "demographic_parity"))
    ((name, reason),) = judged.signs.items()
    assert name == "the difference in selection rate by region"
    assert "west over " in reason
    assert reason.endswith("where 0.1 is allowed")
    (part,) = judged.comparisons
    assert part["highest"] == "west"
    ratio = gate(module, max_difference={}, min_ratio={"demographic_parity": 0.8})
    ((name, reason),) = window.judged(module, ratio).signs.items()
    assert name == "the ratio of selection rates by region"
    assert reason.endswith("where at least 0.8 is asked for")


def test_rates_that_need_labels_wait_until_nearly_all_have_come(module: Module) -> None:
    """Of half of them nobody knows whether it is the group that a label depends on."""
    window = Window(np.random.default_rng(0), [0.2, 0.2, 0.8])
    limits = gate(module, "demographic_parity", "equal_opportunity")

    def rates() -> set[str]:
        return {part["rate"] for part in window.judged(module, limits).comparisons}

    assert rates() == {"selection_rate", "true_positive_rate"}
    window.y_true[: ROWS // 10] = np.nan
    assert rates() == {"selection_rate", "true_positive_rate"}
    window.y_true[: ROWS // 2] = np.nan
    assert rates() == {"selection_rate"}
    only = gate(module, "equal_opportunity")
    assert window.judged(module, only) is None


def test_a_label_that_is_missing_is_not_taken_for_the_first_class(module: Module) -> None:
    window = Window(np.random.default_rng(0), [0.5] * 3, true_rate=1.0)
    window.y_true[: ROWS // 10] = np.nan
    (part,) = window.judged(module, gate(module, "predictive_equality")).comparisons
    assert part["highest"] is None  # there is no row of the other class


@pytest.mark.parametrize("case", ["no limits", "not logged", "subjects", "other contract"])
def test_what_cannot_be_judged_is_left_out(module: Module, case: str) -> None:
    window = Window(np.random.default_rng(0), [0.2, 0.2, 0.8])
    limits = gate(module, "demographic_parity")
    data = contract(module)
    if case == "no limits":
        limits = limits.model_copy(update={"fairness": None})
    elif case == "not logged":  # private, or one that no caller sends
        window.rows = window.rows.drop("x:region")
    elif case == "subjects":  # which rows are of one is not in the log
        columns = {name: column.model_dump() for name, column in data.columns.items()}
        columns["person"] = {"type": "integer"}
        split = {"by": "group", "column": "person"}
        data = contract(module, columns=columns, split=split, keys=["person"])
    else:
        limits = gate(module, "demographic_parity", favorable="granted")
    assert window.judged(module, limits, data) is None


def test_rows_of_one_subject_are_the_evidence_of_one(module: Module) -> None:
    columns = {name: column.model_dump() for name, column in contract(module).columns.items()}
    columns["person"] = {"type": "integer"}
    split = {"by": "group", "column": "person"}
    data = contract(module, columns=columns, split=split, keys=["person"])
    window = Window(np.random.default_rng(0), [0.3, 0.3, 0.6])
    limits = gate(module, "demographic_parity")
    window.rows = window.rows.with_columns(pl.Series("k:person", [str(row) for row in range(ROWS)]))
    assert window.judged(module, limits, data).signs
    # The first twenty rows, thirty times.
    index = np.tile(np.arange(20), ROWS // 20)
    window.rows = window.rows[index]
    window.y_pred = window.y_pred[index]
    assert not window.judged(module, limits, data).signs


def test_an_alarm_asks_a_person_to_look_and_clears(place: Place, module: Module) -> None:
    config = module("config")
    data = place.model.data
    column = next(name for name in data.features if data.columns[name].type == "category")
    settings = config.read(config.GATE, config.Gate).model_dump(exclude_defaults=True)

    def allow(difference: float) -> None:
        limits = {"columns": [column], "max_difference": {"demographic_parity": difference}}
        gate = config.Gate.model_validate(settings | {"fairness": limits})
        (place.path / "config/gate.yaml").write_text(gate.model_dump_json())

    allow(0.0)
    for hour in range(2):
        place.log(place.rows(4 * WINDOW, hour), hour)
    message = place.monitor()
    document = place.document()
    (alarm,) = [alarm for alarm in document["alarms"] if alarm["kind"] == "fairness"]
    assert alarm["status"] == "needs_attention"
    assert f"the difference in selection rate by {column} is " in message
    assert "in 2 of the last 2 windows" in message
    assert document["decision"] == "none"
    assert document["windows"][-1]["fairness"][0]["highest"] is not None
    assert "Groups, in the newest window" in (place.path / "artifacts/monitor.html").read_text()
    allow(1.0)
    place.monitor()
    assert [alarm for alarm in place.document()["alarms"] if alarm["kind"] == "fairness"] == []
