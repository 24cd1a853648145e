"""The `.keras` file of a model: the same bytes for the same model, and audited before it is read.

It is an archive of JSON that says which layers there are, and of an HDF5 file with the weights.
Keras' safe mode refuses code in it, and no more than that: a layer may still name a file to read,
or a size that fills the memory. So what is not known to be harmless is refused here first.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import keras

from ...model_format.limits import allowed, parsed_size, sizes_of

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
NO_DATE = "1980-01-01@00:00:00"
MODELS = ("Functional", "Model", "Sequential")
# Layers that compute with what they are given, and with nothing else. Not here: Lambda, those that
# wrap models of other libraries, and those that read a vocabulary from a file.
LAYERS = (
    *("Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average"),
    *("AveragePooling1D", "BatchNormalization", "Bidirectional", "CategoryEncoding"),
    *("Concatenate", "Conv1D", "Dense", "Dot", "Dropout", "ELU", "Embedding", "Flatten"),
    *("GRU", "GRUCell", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D"),
    *("GlobalMaxPooling1D", "GroupNormalization", "Identity", "InputLayer", "LSTM", "LSTMCell"),
    *("LayerNormalization", "LeakyReLU", "Masking", "MaxPooling1D", "Maximum", "Minimum"),
    *("MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "RMSNormalization"),
    *("ReLU", "RepeatVector", "Rescaling", "Reshape", "Softmax", "SpatialDropout1D", "Subtract"),
    *("TimeDistributed", "UnitNormalization", "ZeroPadding1D"),
)
# Computations between layers, such as x + y.
OPERATIONS = (
    *("Absolute", "Add", "Clip", "Concatenate", "Divide", "Exp", "GetItem", "Log", "Log1p"),
    *("Matmul", "Maximum", "Mean", "Minimum", "Multiply", "Negative", "Power", "Relu", "Reshape"),
    *("Sigmoid", "Softmax", "Sqrt", "Square", "Squeeze", "Stack", "Subtract", "Sum", "Tanh"),
    *("Transpose", "TrueDivide"),
)
# What Keras calls things that are not objects of a class.
PLAIN = ("__ellipsis__", "__keras_tensor__", "__slice__", "__tuple__")
HARMLESS = ("keras.initializers", "keras.regularizers", "keras.constraints")
AUTOMATIC = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")  # a name that Keras gives: dense, dense_1


def save(model: keras.Model, own: Mapping[str, Any]) -> bytes:
    """Return the file of a model, less what differs from run to run, and without its optimizer.

    Args:
        model: The model.
        own: The layers of `problem/` that it may have, by name.

    Raises:
        ValueError: It has a layer that `load` refuses.
    """
    config = _renamed(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))
    config.pop("compile_config", None)
    _require_harmless(config, own)
    copy = keras.saving.deserialize_keras_object(config, custom_objects=dict(own), safe_mode=True)
    copy.set_weights(model.get_weights())
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        copy.save(path)
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
    parts[CONFIG] = json.dumps(json.loads(parts[CONFIG]), sort_keys=True).encode()
    metadata = json.loads(parts[METADATA]) | {"date_saved": NO_DATE}
    parts[METADATA] = json.dumps(metadata, sort_keys=True).encode()
    return _archive(parts)


def load(content: bytes, own: Mapping[str, Any]) -> keras.Model:
    """Return a model, on the CPU, from what anybody may have written.

    Args:
        content: The file.
        own: The layers of `problem/` that it may hold, by name.

    Raises:
        ValueError: It is not a model, or holds what is not known to be harmless.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = sizes_of(archive)
        if set(sizes) != {CONFIG, METADATA, WEIGHTS}:
            raise ValueError(f"the file of Keras has other parts than a model: {', '.join(sizes)}")
        if sum(sizes.values()) > allowed(len(content)):
            raise ValueError("the file of Keras unpacks to too much")
        parts = {name: archive.read(name) for name in sizes}
    if parsed_size(parts[CONFIG]) > allowed(len(content)):
        raise ValueError("the file of Keras describes too much")
    config = json.loads(parts[CONFIG])
    _require_harmless(config, own)
    count = _require_plain_weights(parts[WEIGHTS])
    _require_size(config, own, count)
    with TemporaryDirectory() as folder, keras.device("cpu"):
        path = Path(folder, "model.keras")
        path.write_bytes(_archive(parts))
        model = keras.saving.load_model(
            path, custom_objects=dict(own), compile=False, safe_mode=True
        )
    if not isinstance(model, keras.Model):
        raise ValueError("the file of Keras is not a model")
    model.eval()
    return model


def _archive(parts: Mapping[str, bytes]) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as target:  # what it is put into is compressed
        for name, part in sorted(parts.items()):
            target.writestr(zipfile.ZipInfo(name), part)
    return result.getvalue()


def _renamed(config: Any) -> Any:
    """Return the tree of a model with other names for what Keras has named by counting."""
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for item in _objects(config):
        name = item.get("config", {}).get("name") if isinstance(item.get("config"), dict) else None
        if not isinstance(name, str) or name in names or not AUTOMATIC.fullmatch(name):
            continue
        base = re.sub(r"_\d+$", "", name)
        counts[base] = counts.get(base, -1) + 1
        names[name] = f"{base}_{counts[base]}" if counts[base] else base

    def rename(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: names.get(value, value)
                if key == "name" and isinstance(value, str)
                else rename(value)
                for key, value in node.items()
            }
        if isinstance(node, list):
            # A reference to a layer is its name with the numbers of its call and output.
            if len(node) == 3 and isinstance(node[0], str) and isinstance(node[1], int):
                return [names.get(node[0], node[0]), *node[1:]]
            return [rename(item) for item in node]
        return node

    return rename(config)


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in the tree of a model, outer ones first."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for item in node.values():
            yield from _objects(item)
    elif isinstance(node, list):
        for item in node:
            yield from _objects(item)


def _require_harmless(config: Any, own: Mapping[str, Any]) -> None:
    """Check that a model has nothing but layers and the like that are known.

    Raises:
        ValueError: It has.
    """
    if not isinstance(config, dict) or config.get("class_name") not in (*MODELS, *own):
        raise ValueError("the file of Keras is not a model")
    for item in _objects(config):
        name = item["class_name"]
        module = item.get("module")
        registered = item.get("registered_name")
        is_own = name in own and module not in ("builtins", "keras", "keras.layers")
        if not is_own and not _is_harmless(name, module, registered):
            raise ValueError(f"the file of Keras has {module}.{name}, which is not trusted")


def _is_harmless(name: Any, module: Any, registered: Any) -> bool:
    if name in PLAIN:
        return True
    if registered not in (None, name):
        return False
    if module in ("keras", "keras.models", "keras.src.models.functional"):
        return name in (*MODELS, "DTypePolicy")
    if module == "keras.layers":
        return name in LAYERS
    if isinstance(module, str) and module.startswith("keras.src.ops."):
        return name in OPERATIONS
    return module in HARMLESS and isinstance(name, str) and name.isidentifier()


def _require_plain_weights(content: bytes) -> int:
    """Check that weights are all within the file, as they are. Returns how many numbers there are.

    Raises:
        ValueError: Some are compressed, or elsewhere.
    """
    total = 0
    with h5py.File(io.BytesIO(content), "r") as file:
        waiting: list[Any] = [file]
        while waiting:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"the weights of Keras have {name} in another file")
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                    continue
                stored = item.id.get_storage_size()
                if item.dtype.kind not in "biuf" or item.is_virtual or item.external:
                    raise ValueError(f"the weights of Keras have {name}, which is not numbers")
                if item.compression or item.chunks or stored != item.nbytes:
                    raise ValueError(f"the weights of Keras have {name}, which is not all there")
                total += stored
        if total > len(content):
            raise ValueError("the weights of Keras are larger than their file")
    return total


def _require_size(config: dict[str, Any], own: Mapping[str, Any], size: int) -> None:
    """Check that a model has as many weights as its file.

    Raises:
        ValueError: It has more.
    """
    with keras.device("meta"):  # which has shapes, and no memory
        model = keras.saving.deserialize_keras_object(
            config, custom_objects=dict(own), safe_mode=True
        )
    if model.count_params() > size:  # each is a byte or more
        raise ValueError(f"the model of Keras has {model.count_params():,} weights, its file fewer")
