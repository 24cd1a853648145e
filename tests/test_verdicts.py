"""The simulations of `make bench ONLY=verdicts` can fail."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import bench_verdicts
import numpy as np
import pytest
import verdicts_identity

SEED = 20_263


@pytest.mark.parametrize("change", verdicts_identity.CHANGES)
def test_a_champion_is_judged_on_no_row_that_it_was_trained_on(
    module: Callable[[str], ModuleType], change: str
) -> None:
    assert verdicts_identity.champion_rows_judged(module, change, 1, SEED) == 0


def test_the_simulation_of_it_sees_a_champion_that_recognizes_no_row(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = module("pipeline.identity").Training
    monkeypatch.setattr(training, "includes", lambda _, rows: np.zeros(rows.height, bool))
    judged = verdicts_identity.champion_rows_judged(module, "another seed", 1, SEED)
    assert judged == pytest.approx(0.8, abs=0.1)


def test_every_line_has_a_name_of_its_own_and_one_target() -> None:
    lines = bench_verdicts.LINES
    assert len({line.what for line in lines}) == len(lines)
    for line in lines:
        assert np.isfinite(line.most) != np.isfinite(line.least), line.what


def test_a_share_is_told_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_TRIALS", "40")
    line = next(line for line in bench_verdicts.LINES if line.cases == 1)
    assert bench_verdicts.described(0.05, line) == "0.050 (0.006 to 0.169)"
    assert bench_verdicts.described(0, line) == "0.000 (0.000 to 0.088)"
