"""What every model format promises, as tests to inherit for an adapter.

Example:
    from rung_runtime.testing.model_formats import ModelFormatContract

    class TestOurs(ModelFormatContract):
        name = "ours"

        @pytest.fixture
        def make(self):
            return lambda task: ours.Regressor() if task == "regression" else ours.Classifier()
"""

import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from .. import UsageError, model_format, process

TASKS = ("binary", "multiclass", "regression")
ROWS = 300
CATEGORIES = pl.Enum(["red", "green", "blue", "never seen"])
# Of a pipeline of scikit-learn, besides its public types.
SKLEARN = ("numpy.dtype", "sklearn.utils._bunch.Bunch")
# What only training needs, and a service does not have.
TRAINING_ONLY = ("dvc", "mlflow", "onnx", "pandera")
READER = f"""
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def find_what_a_service_has(name, path=None, target=None):
    return None if name in {TRAINING_ONLY} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_what_a_service_has)
from pathlib import Path
import numpy, polars
from rung_runtime import model_format
fitted = model_format.load(Path(sys.argv[1]), sys.argv[4:])
rows = polars.read_ipc(sys.argv[2])
predict = getattr(fitted, "predict_proba", None) or fitted.predict
numpy.save(sys.argv[3], predict(rows))
"""

Make = Callable[[str], Any]
Floats = NDArray[np.float64]


def rows_to_train_on(task: str) -> tuple[pl.DataFrame, NDArray[Any]]:
    """Return (300, 4) rows as `features` returns them, with gaps, and their (300,) y."""
    random = np.random.default_rng(0)
    x, z = random.normal(size=(2, ROWS))
    colour = random.choice(CATEGORIES.categories[:3], ROWS)
    frame = pl.DataFrame({"x": x, "the z": z, "flag": z > 1, "colour": colour}).with_columns(
        pl.col("colour").cast(CATEGORIES)
    )
    is_gap = pl.Series(random.random(ROWS) < 0.1)
    frame = frame.with_columns(pl.when(~is_gap).then(pl.col("x", "colour")))
    value = x + (colour == "blue") + random.normal(0, 0.3, ROWS)
    if task == "regression":
        return frame, value
    return frame, np.digitize(value, [0.3] if task == "binary" else [0.0, 0.8])


def edge_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows at the edges: gaps, a category that training never saw, far values."""
    first = frame.head(1)
    unseen = pl.Series("colour", ["never seen"], dtype=CATEGORIES)
    return pl.concat([first.clear(n=1), first.with_columns(unseen), first.with_columns(x=1e300)])


def predictions(fitted: Any, X: pl.DataFrame | Floats) -> Floats:
    """Return (n, classes) probabilities or (n,) values."""
    predict = getattr(fitted, "predict_proba", None) or fitted.predict
    return np.asarray(predict(X))


class ModelFormatContract:
    """Inherit it, name the adapter, and give the fixture `make`."""

    name: str
    trusted: tuple[str, ...] = ()  # what `TRUSTED` of problem/model.py has to name

    @pytest.fixture
    def make(self) -> Make:
        """Return a function of a task that makes an unfitted estimator of the library."""
        raise NotImplementedError("give a fixture make: see ModelFormatContract")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "model.skops"

    def load(self, path: Path) -> Any:
        return model_format.load(path, [*SKLEARN, *self.trusted])

    @pytest.mark.parametrize("task", TASKS)
    def test_a_model_that_was_saved_and_loaded_predicts_the_same(
        self, make: Make, path: Path, task: str
    ) -> None:
        frame, y = rows_to_train_on(task)
        fitted = model_format.adapt(make(task)).fit(frame, y)
        model_format.save(fitted, path)
        loaded = self.load(path)
        rows = pl.concat([frame, edge_rows(frame)])
        expected = predictions(fitted, rows)
        assert np.isfinite(expected).all()
        assert predictions(loaded, rows).tolist() == expected.tolist()
        for index in (0, rows.height - 1):
            alone = predictions(loaded, rows[index : index + 1])
            np.testing.assert_allclose(alone, expected[index : index + 1], rtol=1e-6)
        assert model_format.formats(path) == [self.name]

    def test_it_learns_from_numbers_and_from_categories(self, make: Make) -> None:
        frame, y = rows_to_train_on("binary")
        right = model_format.adapt(make("binary")).fit(frame, y).predict(frame) == y
        assert right.mean() > 0.8
        by_colour = frame["colour"].is_in(["red"]).fill_null(False).to_numpy().astype(int)
        only = frame.select("colour", "flag")
        right = model_format.adapt(make("binary")).fit(only, by_colour).predict(only) == by_colour
        assert right.mean() > 0.99

    def test_numbers_that_are_far_from_all_others_can_be_learned_from(self, make: Make) -> None:
        frame, y = rows_to_train_on("binary")
        far = frame.head(2).with_columns(x=pl.Series([1e300, -1e300]))
        fitted = model_format.adapt(make("binary")).fit(pl.concat([frame, far]), [*y, 0, 1])
        assert np.isfinite(predictions(fitted, far)).all()

    def test_a_fresh_process_reads_it_without_what_only_training_needs(
        self, make: Make, path: Path, tmp_path: Path
    ) -> None:
        frame, y = rows_to_train_on("binary")
        fitted = model_format.adapt(make("binary")).fit(frame, y)
        model_format.save(fitted, path)
        frame.write_ipc(tmp_path / "rows.arrow")
        files = [str(path), str(tmp_path / "rows.arrow"), str(tmp_path / "y.npy")]
        python_path = os.pathsep.join(folder for folder in sys.path if folder)
        command = [sys.executable, "-c", READER, *files, *SKLEARN, *self.trusted]
        result = process.run(command, env={"PYTHONPATH": python_path})
        assert result.succeeded, result.reason
        assert np.load(tmp_path / "y.npy").tolist() == predictions(fitted, frame).tolist()

    @pytest.mark.parametrize("task", ["binary", "regression"])
    def test_it_may_be_a_member_of_a_vote(self, make: Make, path: Path, task: str) -> None:
        frame, y = rows_to_train_on(task)
        members = [("one", make(task)), ("two", make(task))]
        vote: Any = VotingRegressor(members)
        if task == "binary":
            vote = VotingClassifier(members, voting="soft")
        fitted = model_format.adapt(vote).fit(frame, y)
        model_format.save(fitted, path)
        assert predictions(self.load(path), frame).tolist() == predictions(fitted, frame).tolist()
        assert model_format.formats(path) == [self.name]

    def test_it_may_be_the_last_step_of_a_pipeline(self, make: Make, path: Path) -> None:
        frame, y = rows_to_train_on("binary")
        matrix = frame.select("x", "the z").to_numpy()
        fitted = model_format.adapt(make_pipeline(SimpleImputer(), make("binary"))).fit(matrix, y)
        model_format.save(fitted, path)
        assert predictions(self.load(path), matrix).tolist() == predictions(fitted, matrix).tolist()

    def test_equal_trainings_give_equal_files_and_others_do_not(self, make: Make) -> None:
        frame, y = rows_to_train_on("binary")
        fitted = model_format.adapt(make("binary")).fit(frame, y)
        content = model_format.to_bytes(fitted)
        again = model_format.adapt(make("binary")).fit(frame, y)
        assert model_format.to_bytes(again) == content
        other = model_format.adapt(make("binary")).fit(frame, 1 - y)
        assert model_format.to_bytes(other) != content

    def test_what_was_loaded_can_be_trained_anew(self, make: Make, path: Path) -> None:
        frame, y = rows_to_train_on("binary")
        fitted = model_format.adapt(make("binary")).fit(frame, y)
        model_format.save(fitted, path)
        trained_anew = clone(self.load(path)).fit(frame, y)
        assert predictions(trained_anew, frame).tolist() == predictions(fitted, frame).tolist()

    def test_a_file_that_was_changed_is_refused(self, make: Make, path: Path) -> None:
        content = self._saved(make, path)
        for position in (0, len(content) // 3, len(content) // 2, len(content) - 10):
            changed = bytearray(content)
            changed[position] ^= 0xFF
            path.write_bytes(changed)
            with pytest.raises(UsageError, match=r"model\.skops"):
                self.load(path)

    def test_a_type_that_is_not_trusted_is_refused(self, make: Make, path: Path) -> None:
        content = self._saved(make, path)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            schema = archive.read("schema.json").decode()
        tree = json.loads(schema)
        stranger: dict[str, Any] = {
            "__class__": "Popen",
            "__module__": "subprocess",
            "__loader__": "ObjectNode",
        }
        stranger |= {"__id__": -1, "content": tree, "protocol": tree["protocol"]}
        path.write_bytes(_with(content, "schema.json", json.dumps(stranger).encode()))
        with pytest.raises(UsageError, match="does not trust"):
            self.load(path)

    def test_a_pickle_in_the_place_of_any_part_is_not_run(
        self, make: Make, path: Path, tmp_path: Path
    ) -> None:
        content = self._saved(make, path)
        attack = pickle.dumps(_Touch(tmp_path / "was run"))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {Path(name).suffix: name for name in archive.namelist()}.values()
        for file in (attack, *(_with(content, name, attack) for name in names)):
            path.write_bytes(file)
            with pytest.raises(UsageError, match="is damaged"):
                self.load(path)
        assert not (tmp_path / "was run").exists()

    def _saved(self, make: Make, path: Path) -> bytes:
        frame, y = rows_to_train_on("binary")
        model_format.save(model_format.adapt(make("binary")).fit(frame, y), path)
        self.load(path)
        return path.read_bytes()


class _Touch:
    """What writes a file when it is read from a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _with(content: bytes, name: str, part: bytes) -> bytes:
    """Return an archive with another part of a name."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(result, "w") as target:
        for each in source.namelist():
            target.writestr(each, part if each == name else source.read(each))
    return result.getvalue()
