"""What a network promises, for a Python that has torch: `tests/test_torch.py` runs it.

`tests/gpu.sh` runs it where there is a GPU. It needs torch, safetensors, scikit-learn, Polars and
pydantic; what needs more is left out there.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from residual import Residual
from rung_runtime.adapters.model_format_torch import (
    NeuralNetworkClassifier,
    NeuralNetworkRegressor,
)
from rung_runtime.adapters.model_format_torch.training import choose_device
from sklearn.base import clone

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]
CITIES = ["Aachen", "Bonn", "Celle", "Dresden", "Essen"]
ROWS = 1_200


def rows() -> pl.DataFrame:
    """Return inputs with gaps, a rare category and one that does not occur."""
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "age": random.normal(size=ROWS),
            "city": pl.Series(
                random.choice([*CITIES[:4], None], ROWS, p=[0.4, 0.3, 0.2, 0.002, 0.098]),
                dtype=pl.Enum(CITIES),
            ),
            "income": random.exponential(size=ROWS),
        }
    ).with_columns(age=pl.when(pl.col("age") > -1.5).then("age"))


def signal(frame: pl.DataFrame) -> Any:
    """Return (n,) what a target depends on."""
    codes = frame["city"].to_physical().fill_null(2).to_numpy()
    income = frame["income"].to_numpy()
    return 2 * frame["age"].fill_null(0.0).to_numpy() + (codes == 1) * 2.0 - income


def target(task: str, frame: pl.DataFrame) -> Any:
    """Return (n,) labels of a task."""
    noisy = signal(frame) + np.random.default_rng(1).normal(size=frame.height) / 2
    if task == "regression":
        return noisy * 1e5 + 3e6
    return np.digitize(noisy, [0.0] if task == "binary" else [-1.0, 1.0])


def network(task: str, **params: Any) -> Any:
    """Make an unfitted network of a task."""
    kind = NeuralNetworkRegressor if task == "regression" else NeuralNetworkClassifier
    return kind(**({"epochs": 25, "hidden": [32], "device": "cpu"} | params))


def answers(fitted: Any, frame: pl.DataFrame) -> Any:
    """Return probabilities or values."""
    is_classifier = isinstance(fitted, NeuralNetworkClassifier)
    return fitted.predict_proba(frame) if is_classifier else fitted.predict(frame)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("module", [None, Residual])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_network_learns_what_can_be_learned(task: str, module: Any, device: str) -> None:
    frame = rows()
    fitted = network(task, module=module, device=device).fit(frame[:900], target(task, frame)[:900])
    score = fitted.score(frame[900:], target(task, frame)[900:])
    assert score > {"binary": 0.8, "multiclass": 0.7, "regression": 0.85}[task]
    if task != "regression":
        assert answers(fitted, frame).sum(axis=1) == pytest.approx(1)
        assert fitted.classes_.tolist() == sorted(set(target(task, frame).tolist()))


@pytest.mark.parametrize("device", DEVICES)
def test_two_trainings_give_the_same_weights(device: str) -> None:
    frame = rows()
    fitted = network("binary", device=device).fit(frame, target("binary", frame))
    torch.rand(3)  # what else is random in the process changes nothing
    again = clone(fitted).fit(frame, target("binary", frame))
    assert fitted.__getstate__() == again.__getstate__()
    other = clone(fitted).set_params(random_state=1).fit(frame, target("binary", frame))
    assert fitted.__getstate__()["weights"] != other.__getstate__()["weights"]


def test_a_training_leaves_the_settings_of_torch_as_they_were() -> None:
    frame = rows()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    network("regression", epochs=1).fit(frame, target("regression", frame))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_is_saved_answers_the_same_wherever_it_was_trained(task: str, device: str) -> None:
    frame = rows()
    fitted = network(task, device=device, epochs=3).fit(frame, target(task, frame))
    loaded = copy.copy(fitted)
    loaded.__setstate__(fitted.__getstate__())
    assert (answers(loaded, frame) == answers(fitted, frame)).all()
    one_by_one = [answers(loaded, frame[index : index + 1])[0] for index in range(20)]
    assert np.array(one_by_one) == pytest.approx(answers(fitted, frame)[:20], rel=1e-12)
    assert len(answers(loaded, frame[:0])) == 0


def test_training_stops_early_and_keeps_the_best_epoch() -> None:
    frame = rows()
    noise = np.random.default_rng(2).integers(0, 2, ROWS)  # nothing can be learned from it
    fitted = network("binary", epochs=60, patience=3, learning_rate=0.01).fit(frame, noise)
    losses = fitted.curves_["validation_loss"]
    assert len(losses) == fitted.best_epoch_ + 3
    assert min(losses) == losses[fitted.best_epoch_ - 1]
    assert len(fitted.curves_["train_loss"]) == len(losses)
    whole = network("binary", epochs=4, validation_share=0).fit(frame, noise)
    assert whole.best_epoch_ == 4
    assert "validation_loss" not in whole.curves_


def test_a_batch_of_one_row_is_no_reason_to_fail() -> None:
    class Normalized(torch.nn.Module):
        def __init__(self, width: int, sizes: list[int], outputs: int) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(width)
            self.last = torch.nn.Linear(width, outputs)

        def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(numbers))

    frame = rows()[:129]
    made = network("regression", module=Normalized, batch_size=128, validation_share=0, epochs=2)
    assert np.isfinite(made.fit(frame, target("regression", frame)).predict(frame)).all()


def test_a_matrix_can_be_learned_from_too() -> None:
    frame = rows()
    matrix = frame.select("age", "income").to_numpy()
    fitted = network("regression").fit(matrix, signal(frame))
    assert fitted.score(matrix, signal(frame)) > 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0 is neither auto nor a number"),
        ({"device": "tpu"}, "device: 'tpu' is not one of auto, cpu, cuda"),
        ({"device": "cuda:99"}, "torch finds no cuda:99 on this machine"),
        ({"learning_rate": 1e12}, "try a smaller learning_rate than 1e"),
        ({"validation": "shop"}, "'shop' is not a column"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_sentence(params: Any, message: str) -> None:
    frame = rows()
    with pytest.raises(ValueError, match=message):
        network("regression", **params).fit(frame, target("regression", frame))


def test_auto_is_the_gpu_if_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("module", [None, Residual])
def test_a_network_that_is_larger_than_its_weights_is_refused_before_it_takes_memory(
    module: Any,
) -> None:
    frame = rows()
    params = (
        {"hidden": [8]} if module is None else {"module": module, "module_params": {"hidden": 8}}
    )
    fitted = network("binary", epochs=1, **params).fit(frame, target("binary", frame))
    params = json.loads((state := fitted.__getstate__())["params"])
    large = {"hidden": [10**7, 10**7]} if module is None else {"module_params": {"hidden": 10**7}}
    loaded = copy.copy(fitted)
    loaded.__setstate__(state | {"params": json.dumps(params | large)})
    with pytest.raises(ValueError, match="size mismatch"):
        loaded.predict(frame)


def test_other_weights_than_its_own_are_refused() -> None:
    frame = rows()
    fitted = network("binary", epochs=1).fit(frame, target("binary", frame))
    other = network("binary", epochs=1, hidden=[8]).fit(frame, target("binary", frame))
    state = fitted.__getstate__() | {"weights": other.__getstate__()["weights"]}
    loaded = copy.copy(fitted)
    loaded.__setstate__(state)
    with pytest.raises(ValueError, match="size mismatch"):
        loaded.predict(frame)


@pytest.mark.parametrize("module", [None, Residual])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_compiled_form_answers_as_the_network_does(task: str, module: Any) -> None:
    pytest.importorskip("onnxscript")
    convert = pytest.importorskip("rung_runtime.compiled.convert")
    compiled = pytest.importorskip("rung_runtime.compiled.model")
    frame = rows()
    fitted = network(task, module=module, epochs=3).fit(frame, target(task, frame))
    classes = 0 if task == "regression" else len(fitted.classes_)
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, frame, classes))
    edges = pl.DataFrame(
        {
            "age": [None, 1e9, -1e9, 0.0],
            "city": pl.Series([None, "Dresden", "Essen", "Bonn"], dtype=pl.Enum(CITIES)),
            "income": [None, 0.0, 1e6, -1.0],
        }
    )
    for some in (frame, edges, frame[:1], frame[:0]):
        expected = answers(fitted, some).reshape(len(some), classes or 1)
        difference = np.abs(graph.predict(some) - expected) / np.maximum(1, np.abs(expected))
        assert difference.max(initial=0) <= 1e-9
