"""What attacks find out about a model is what is true of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import libraries
import numpy as np
import polars as pl
import pytest
from conftest import Copy, uv
from rung_runtime import UsageError, compiled
from rung_runtime.compiled import convert
from rung_runtime.config import Config, Data, Gate, Model
from rung_runtime.pipeline import attacks
from sklearn.linear_model import LogisticRegression

Module = Callable[[str], ModuleType]
ART = "adversarial-robustness-toolbox>=1.20,<2"
DIGEST = f"sha256:{'0' * 64}"


def settings(task: str = "binary") -> Config:
    data = Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": task,
            "classes": [] if task == "regression" else ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": {"x": {"type": "number"}, "y": {"type": "category"}},
        }
    )
    return Config(data=data, model=Model(), gate=Gate(metric="roc_auc", thresholds={"roc_auc": 0}))


@pytest.fixture
def art(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ART importable, behind all that is installed here; return where it is."""
    (packages,) = (libraries.environment(ART) / "lib").glob("python*/site-packages")
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    return packages


@pytest.mark.skipif(importlib.util.find_spec("art") is not None, reason="ART is installed")
@pytest.mark.parametrize("name", ["robustness", "privacy"])
def test_without_art_a_check_says_how_to_run_it(name: str) -> None:
    with pytest.raises(UsageError) as error:
        attacks.require_art(name)
    command = "uv run --with 'adversarial-robustness-toolbox>=1.20' ml check"
    assert f"{command} {name}" in str(error.value)


def test_a_regression_is_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "require_art", lambda name: None)
    with pytest.raises(UsageError, match="no answer that could flip"):
        attacks.check_robustness(settings("regression"), 3)
    with pytest.raises(UsageError, match="takes classes"):
        attacks.check_privacy(settings("regression"))


@pytest.mark.nightly
@pytest.mark.usefixtures("art")
def test_a_row_flips_as_near_as_the_boundary_of_a_linear_model_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The distance to a plane is known; a category and what is missing stay as they are."""
    monkeypatch.setattr(attacks, "PREDICTIONS", 300)
    random = np.random.default_rng(5)
    x = random.normal(size=(800, 3)) * [1, 20, 1] + [0, 50, 0]
    frame = pl.DataFrame(x, schema=["a", "b", "code"]).with_columns(
        pl.Series("code", random.integers(0, 2, 800), dtype=pl.UInt8)
    )
    score = x[:, 0] + (x[:, 1] - 50) / 20
    y_true = (score + 0.5 * random.normal(size=800) > 0).astype(int)
    fitted = LogisticRegression(C=1e6, max_iter=5_000).fit(frame, y_true)
    model = compiled.CompiledModel(convert.compile_estimator(fitted, frame, 2))
    known = model.columns.matrix(frame)
    rows = known[:8]
    document = attacks.robustness(model, known, rows, DIGEST)
    assert document.inputs_moved == ["a", "b"]  # a code of two values is an answer, not a number
    assert (document.rows, document.flipped) == (8, 8)
    weights = fitted.coef_[0][:2] * known[:, :2].std(axis=0)
    distances = np.abs(fitted.decision_function(frame[:8])) / np.linalg.norm(weights)
    for name, share in {"10 %": 10, "50 %": 50, "90 %": 90}.items():
        nearest = float(np.percentile(distances, share))
        assert nearest * 0.99 <= document.distances[name] <= nearest * 1.3 + 0.02  # type: ignore[index]
    assert attacks.robustness_text(document).startswith("HopSkipJump found another answer for 8 of")


@pytest.mark.nightly
@pytest.mark.usefixtures("art")
def test_a_model_that_remembers_its_rows_gives_them_away_and_another_one_does_not() -> None:
    random = np.random.default_rng(6)
    y_true = random.integers(0, 2, 800)

    def area(remembered: float) -> Any:
        chance = np.clip(0.5 + 0.3 * random.normal(size=800), 0.01, 0.99)
        sure = np.where(y_true == 1, 0.98, 0.02)
        p = np.where(np.arange(800) < 400, remembered * sure + (1 - remembered) * chance, chance)
        y_pred = np.column_stack([1 - p, p])
        return attacks.membership(y_pred, y_true, 400, settings(), DIGEST)

    leaking = area(0.9)
    assert leaking.roc_auc.low > 0.8
    assert leaking.rows == 400
    assert leaking.advantage > 0.6
    silent = area(0.0)
    assert silent.roc_auc.low < 0.5 < silent.roc_auc.high
    assert "upper bound" in attacks.privacy_text(silent, is_split_by_time=True)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("art")  # so that it is left out, and counted, where ART cannot be had
@pytest.mark.parametrize(("name", "words"), [("robustness", "HopSkipJump"), ("privacy", "ROC AUC")])
def test_the_command_that_is_named_runs_the_check_and_keeps_what_it_found(
    ran: Callable[[int, str], Copy], tmp_path: Path, name: str, words: str
) -> None:
    copy = ran(0, "binary").again(tmp_path / "copy")
    options = ["--rows", "2"] if name == "robustness" else []
    program, *command = shlex.split(f"{attacks.COMMAND} {name}")
    assert program == "uv"
    own = {"UV_PROJECT_ENVIRONMENT": str(copy.project.path / ".venv"), "UV_NO_SYNC": "1"}
    done = subprocess.run(
        [uv(), *command, *options],
        cwd=copy.path,
        env=os.environ | own | {"PYTHONPATH": str(copy.path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    document = json.loads((copy.path / f"artifacts/{name}.json").read_text("utf-8"))
    assert document["rows"] > 0
