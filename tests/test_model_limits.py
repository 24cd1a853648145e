"""A model's file that would fill the memory is refused by name, before it is unpacked."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from lightgbm import LGBMClassifier
from rung_runtime.testing.model_formats import SKLEARN, rows_to_train_on
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

Module = Callable[[str], ModuleType]
MB = 2**20


def packed(files: dict[str, bytes]) -> bytes:
    """Return a compressed archive."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return result.getvalue()


def array(size: int) -> bytes:
    """Return an array of zeros as NumPy's file."""
    result = io.BytesIO()
    np.save(result, np.zeros(size, np.uint8))
    return result.getvalue()


def tree(*files: str) -> bytes:
    """Return the tree of a list of arrays, each of a file of the archive."""
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode"}
    items = [node | {"type": "numpy", "file": name, "__id__": 1} for name in files]
    return json.dumps({"content": items, "protocol": 2}).encode()


def one_large_part() -> bytes:
    return packed({"schema.json": tree("a.npy"), "a.npy": array(12 * MB)})


def many_parts() -> bytes:
    files = {f"{number}.npy": array(2 * MB) for number in range(8)}
    return packed({"schema.json": tree(*files), **files})


def a_part_that_is_mentioned_often() -> bytes:
    return packed({"schema.json": tree(*["a.npy"] * 12), "a.npy": array(MB)})


def a_part_that_nothing_mentions() -> bytes:
    return packed({"schema.json": tree(), "a.npy": array(12 * MB)})


def an_archive_in_the_archive() -> bytes:
    matrix = io.BytesIO()
    zeros = scipy.sparse.csr_matrix((np.zeros(MB), np.zeros(MB, int), [0, MB]))
    scipy.sparse.save_npz(matrix, zeros)
    return packed({"schema.json": tree("a.npz"), "a.npz": matrix.getvalue()})


def a_tree_of_many_objects() -> bytes:
    return packed({"schema.json": b'{"content": [' + b"{}," * (MB // 8) + b"{}]}"})


def parts_of_one_name() -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("schema.json", tree("a.npy"))
        for _ in range(3):
            archive.writestr("a.npy", array(4 * MB))
    return result.getvalue()


@pytest.mark.parametrize(
    "bomb",
    [
        a_tree_of_many_objects,
        one_large_part,
        many_parts,
        a_part_that_is_mentioned_often,
        a_part_that_nothing_mentions,
        an_archive_in_the_archive,
    ],
)
def test_a_file_that_unpacks_to_too_much_is_refused_before_memory_is_used(
    module: Module, tmp_path: Path, bomb: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("model_format.limits"), "MAX_UNPACKED", 8 * MB)
    path = tmp_path / "model.skops"
    path.write_bytes(bomb())
    model_format = module("model_format")
    with pytest.raises(module("exceptions").UsageError):  # so that all is imported
        model_format.load(path, SKLEARN)
    tracemalloc.start()
    try:
        with pytest.raises(module("exceptions").UsageError) as refusal:
            model_format.load(path, SKLEARN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(refusal.value)
    assert message.startswith(f"{path} is not loaded: it would unpack to ")
    assert "and 8 MB is the limit for its size" in message
    assert peak < 2 * MB


def test_parts_of_one_name_are_refused_as_each_would_be_unpacked(
    module: Module, tmp_path: Path
) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(parts_of_one_name())
    with pytest.raises(module("exceptions").UsageError, match=r"two parts have the name a\.npy"):
        module("model_format").load(path, SKLEARN)


def test_values_within_values_at_which_xgboost_would_end_the_process_are_refused(
    module: Module,
) -> None:
    adapted = fitted(module, XGBClassifier(n_estimators=2, max_depth=2))
    file = b"{L" + struct.pack(">q", 1) + b"a" + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"
    with pytest.raises(ValueError, match="more than 100 deep"):
        changed_state(adapted, file)


def test_a_model_that_is_nearly_all_zeros_is_saved_so_that_it_can_be_loaded(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = module("model_format.limits")
    monkeypatch.setattr(limits, "MAX_UNPACKED", MB)
    model = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    model.coef_ = np.zeros((1, 500_000))
    path = tmp_path / "model.skops"
    module("model_format").save(model, path)
    assert path.stat().st_size > 4_000_000  # as it is: compressed it would be a file of 10 kB
    loaded = module("model_format").load(path, SKLEARN)
    assert (loaded.coef_ == model.coef_).all()


def fitted(module: Module, estimator: Any) -> Any:
    frame, y = rows_to_train_on("binary")
    return module("model_format").adapt(estimator).fit(frame, y)


def changed_state(adapted: Any, file: bytes) -> None:
    """Have an estimator read another file of its library."""
    state = adapted.__getstate__() | {"file": file}
    new: Any = object.__new__(type(adapted))
    new.__setstate__(state)


COUNT = 2**40


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        # The length of an array of 32-bit numbers, of a text, and of an array of anything.
        (b"[$l#L", b"[$l#L" + struct.pack(">q", COUNT), "it announces 4,398,046,511,104 bytes"),
        (b"SL", b"SL" + struct.pack(">q", COUNT), "it announces 1,099,511,627,776 bytes"),
        (b"[$d#L", b"[$d#L" + struct.pack(">q", -1), "it announces -4 bytes"),
    ],
)
def test_a_length_that_xgboost_would_reserve_memory_for_is_refused(
    module: Module, old: bytes, new: bytes, reason: str
) -> None:
    adapted = fitted(module, XGBClassifier(n_estimators=2, max_depth=2))
    position = adapted.file_.index(old)
    file = adapted.file_[:position] + new + adapted.file_[position + len(new) :]
    with pytest.raises(ValueError, match=reason):
        changed_state(adapted, file)


@pytest.mark.parametrize("name", ["num_nodes", "num_class", "num_trees"])
def test_a_count_of_xgboost_that_its_file_cannot_have_is_refused(module: Module, name: str) -> None:
    adapted = fitted(module, XGBClassifier(n_estimators=2, max_depth=2))
    key = struct.pack(">q", len(name)) + name.encode() + b"SL"
    start = adapted.file_.index(key) + len(key)
    length = struct.unpack(">q", adapted.file_[start : start + 8])[0]
    text = b"2000000000"
    rest = adapted.file_[start + 8 + length :]
    file = adapted.file_[:start] + struct.pack(">q", len(text)) + text + rest
    with pytest.raises(ValueError, match=f"it announces 2000000000 as {name}"):
        changed_state(adapted, file)


@pytest.mark.parametrize("cut", [1, 100, 1_000])
def test_a_model_of_xgboost_that_is_cut_off_or_of_another_kind_is_refused(
    module: Module, cut: int
) -> None:
    adapted = fitted(module, XGBClassifier(n_estimators=2, max_depth=2))
    with pytest.raises(ValueError, match="ends"):
        changed_state(adapted, adapted.file_[:-cut])
    with pytest.raises(ValueError, match="is not a model of XGBoost in UBJSON"):
        changed_state(adapted, b'{"learner": {}}')


@pytest.mark.parametrize("name", ["num_leaves", "num_cat", "num_class", "max_feature_idx"])
def test_a_count_of_lightgbm_that_its_file_cannot_have_is_refused(
    module: Module, name: str
) -> None:
    adapted = fitted(module, LGBMClassifier(n_estimators=2, verbose=-1))
    lines = adapted.file_.decode().split("\n")
    index = next(i for i, line in enumerate(lines) if line.startswith(f"{name}="))
    lines[index] = f"{name}=2000000000"
    with pytest.raises(ValueError, match=f"it announces 2000000000 as {name}"):
        changed_state(adapted, "\n".join(lines).encode())
