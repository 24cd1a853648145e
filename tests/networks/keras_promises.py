"""What a model of Keras promises, for a Python that has it: `tests/test_torch.py` runs it.

`tests/gpu.sh keras` runs it where there is a GPU; what needs more than is there is left out.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras_models
import numpy as np
import polars as pl
import pytest
from rung_runtime import UsageError, model_format
from rung_runtime.adapters.model_format_keras import KerasClassifier, KerasRegressor
from rung_runtime.adapters.model_format_keras.file import load
from rung_runtime.adapters.model_format_keras.network import require_keras
from rung_runtime.testing.model_formats import (
    SKLEARN,
    Make,
    ModelFormatContract,
    edge_rows,
    predictions,
    rows_to_train_on,
)

Change = Callable[[dict[str, Any]], None]


class TestKeras(ModelFormatContract):
    """Models of Keras."""

    name = "keras"

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            kind = KerasRegressor if task == "regression" else KerasClassifier
            return kind(epochs=30, hidden=[16], batch_size=32, learning_rate=0.02)

        return make


@pytest.fixture(scope="module")
def fitted() -> Any:
    """Return a fitted classifier with the perceptron."""
    frame, y = rows_to_train_on("binary")
    return KerasClassifier(epochs=2, hidden=[8]).fit(frame, y)


def changed(content: bytes, part: str, new: bytes) -> bytes:
    """Return a `.keras` file with another part."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w") as target:
        for name in source.namelist():
            target.writestr(name, new if name == part else source.read(name))
    return result.getvalue()


def config_of(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
    return config


def weights_of(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read("model.weights.h5")


def a_layer(config: dict[str, Any], name: str = "Dense") -> dict[str, Any]:
    layers = config["config"]["layers"]
    layer: dict[str, Any] = next(layer for layer in layers if layer["class_name"] == name)
    return layer


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("build", [None, keras_models.doubled])
def test_the_compiled_form_answers_as_the_model_does(task: str, build: Any) -> None:
    pytest.importorskip("onnxscript")
    convert = pytest.importorskip("rung_runtime.compiled.convert")
    compiled = pytest.importorskip("rung_runtime.compiled")
    libraries = pytest.importorskip("rung_runtime.compiled.libraries")
    frame, y = rows_to_train_on(task)
    kind = KerasRegressor if task == "regression" else KerasClassifier
    model = kind(build=build, epochs=3).fit(frame, y)
    classes = 0 if task == "regression" else len(model.classes_)
    graph = compiled.CompiledModel(convert.compile_estimator(model, frame, classes))
    parity = compiled.check_parity(
        graph,
        lambda some: predictions(model, some).reshape(len(some), -1),
        pl.concat([frame, edge_rows(frame)]),
        single_precision=libraries.is_single_precision(model),
    )
    assert parity.limit == 1e-6
    assert parity.holds, parity


def test_a_layer_of_ones_own_is_saved_by_its_function_and_read_where_that_is_trusted(
    tmp_path: Path,
) -> None:
    frame, y = rows_to_train_on("binary")
    model = KerasClassifier(build=keras_models.doubled, build_params={"units": 4}, epochs=2)
    model.fit(frame, y)
    model_format.save(model, tmp_path / "model.skops")
    trusted = [*SKLEARN, "keras_models.doubled"]
    loaded = model_format.load(tmp_path / "model.skops", trusted)
    assert predictions(loaded, frame).tolist() == predictions(model, frame).tolist()
    with pytest.raises(UsageError, match=r"does not trust.*keras_models\.doubled"):
        model_format.load(tmp_path / "model.skops", SKLEARN)


def test_a_lambda_is_refused_when_it_is_saved_and_when_it_is_read(fitted: Any) -> None:
    frame, y = rows_to_train_on("binary")
    with pytest.raises(ValueError, match="Lambda, which is not trusted"):
        KerasClassifier(build=keras_models.with_lambda, epochs=1).fit(frame, y)
    config = config_of(fitted.weights_)
    layer = a_layer(config, "Dropout")
    code = {"class_name": "__lambda__", "config": {"code": "", "defaults": None, "closure": None}}
    layer |= {"class_name": "Lambda", "config": {"name": "dropout", "function": code}}
    with pytest.raises(ValueError, match="Lambda, which is not trusted"):
        load(changed(fitted.weights_, "config.json", json.dumps(config).encode()), {})


def foreign_class(config: dict[str, Any]) -> None:
    a_layer(config).update(class_name="Popen", module="subprocess")


def file_to_read(config: dict[str, Any]) -> None:
    layer = a_layer(config, "Dropout")
    layer.update(class_name="StringLookup", config={"name": "d", "vocabulary": "/etc/passwd"})


def other_library(config: dict[str, Any]) -> None:
    a_layer(config, "Dropout").update(class_name="TorchModuleWrapper")


def registered(config: dict[str, Any]) -> None:
    a_layer(config).update(module=None, registered_name="Custom>Dense")


def function(config: dict[str, Any]) -> None:
    a_layer(config)["config"]["activation"] = {
        "class_name": "function",
        "module": "os",
        "config": "system",
        "registered_name": "function",
    }


def bytes_of_python(config: dict[str, Any]) -> None:
    a_layer(config)["config"]["activation"] = {"class_name": "__lambda__", "config": {"code": ""}}


@pytest.mark.parametrize(
    "change",
    [foreign_class, file_to_read, other_library, registered, function, bytes_of_python],
)
def test_what_is_not_known_to_be_harmless_is_refused(fitted: Any, change: Change) -> None:
    config = config_of(fitted.weights_)
    change(config)
    content = changed(fitted.weights_, "config.json", json.dumps(config).encode())
    with pytest.raises(ValueError, match="which is not trusted"):
        load(content, {})


def test_a_model_of_more_weights_than_its_file_has_takes_no_memory(fitted: Any) -> None:
    config = config_of(fitted.weights_)
    last = [layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense"][-1]
    last["config"]["units"] = 10**9
    with pytest.raises(ValueError, match="weights, its file fewer"):
        load(changed(fitted.weights_, "config.json", json.dumps(config).encode()), {})


@pytest.mark.parametrize("kind", ["external", "compressed", "missing", "virtual"])
def test_weights_that_are_not_all_in_the_file_are_refused(
    fitted: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(weights_of(fitted.weights_))
    name = "layers/dense/vars/0"
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        if kind == "external":
            file[name] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "compressed":
            file.create_dataset(name, data=values, compression="gzip")
        elif kind == "missing":  # its memory would be taken, and filled with zeros
            file.create_dataset(name, shape=(10**6, 10**6), dtype="float64", chunks=(1, 1))
        else:
            layout = h5py.VirtualLayout(shape=values.shape, dtype=values.dtype)
            layout[:] = h5py.VirtualSource("other.h5", "x", shape=values.shape)
            file.create_virtual_dataset(name, layout)
    with pytest.raises(ValueError, match="the weights of Keras"):
        load(changed(fitted.weights_, "model.weights.h5", path.read_bytes()), {})


def test_training_leaves_what_is_random_as_it_was() -> None:
    import random

    import torch

    frame, y = rows_to_train_on("regression")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = (random.random(), np.random.random(), float(torch.rand(1)))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    KerasRegressor(epochs=1).fit(frame, y)
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_training_stops_early_and_keeps_the_best_epoch() -> None:
    frame, _ = rows_to_train_on("binary")
    noise = np.random.default_rng(2).integers(0, 2, len(frame))  # nothing can be learned from it
    model = KerasClassifier(epochs=60, patience=3, learning_rate=0.05).fit(frame, noise)
    losses = model.curves_["validation_loss"]
    assert len(losses) == model.best_epoch_ + 3
    assert min(losses) == losses[model.best_epoch_ - 1]


def test_what_build_returns_must_be_a_model() -> None:
    frame, y = rows_to_train_on("binary")
    with pytest.raises(ValueError, match=r"build returns str, where a keras\.Model is expected"):
        KerasClassifier(build=keras_models.no_model).fit(frame, y)


def test_another_backend_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(UsageError, match="set KERAS_BACKEND=torch"):
        require_keras()


def test_a_persons_settings_are_neither_read_nor_written(tmp_path: Path) -> None:
    settings = tmp_path / "home/.keras/keras.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"floatx": "float16"}')
    code = "from rung_runtime.adapters import model_format_keras; import keras; "
    code += "print(keras.config.floatx())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_HOME"}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert done.stdout.split()[-1] == b"float32"
    settings.unlink()
    settings.parent.rmdir()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not settings.parent.exists()
