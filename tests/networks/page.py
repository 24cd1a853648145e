"""The code of docs/howto/neural-network.md works as it stands there, where there is torch."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from howto_pages import blocks, follow_block  # noqa: E402
from rung_runtime import model_format  # noqa: E402


@pytest.mark.parametrize("estimator", ["network", "residual", "keras", "keras_residual"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_network_of_the_page_is_trained_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: str, task: str
) -> None:
    package = f"page_{estimator}_{task}"
    problem = tmp_path / package / "problem"
    shutil.copytree(next((ROOT / "template/src").glob("*/problem")), problem)
    (tmp_path / "pyproject.toml").write_text(f'[tool.rung]\npackage = "{package}"\n')
    for place, code in blocks("neural-network"):
        follow_block(problem, place, code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = importlib.import_module(f"{package}.problem.model")
    x = np.random.default_rng(0).normal(size=300)
    frame = pl.DataFrame({"x": x})
    y = x if task == "regression" else (x > 0).astype(int)
    fitted = model.estimator(estimator, task, frame, 0, {"epochs": 3}).fit(frame, y)
    model_format.save(fitted, tmp_path / "model.skops")
    library = "keras" if estimator.startswith("keras") else "torch"
    assert model_format.formats(tmp_path / "model.skops") == [library]
    loaded = model_format.load(tmp_path / "model.skops", model.TRUSTED)
    assert (loaded.predict(frame) == fitted.predict(frame)).all()
    model_format.save(loaded, tmp_path / "again.skops")
    assert (tmp_path / "again.skops").read_bytes() == (tmp_path / "model.skops").read_bytes()
    if estimator.endswith("residual"):
        with pytest.raises(Exception, match=r"does not trust.*[Rr]esidual"):
            model_format.load(tmp_path / "model.skops", ())
