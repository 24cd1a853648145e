"""The model package: a model, its contract, and the code that it was trained with.

It is all that serving needs. A package brings its own `problem/`, so that a model only ever meets
the feature code that it learned from, whatever the working tree holds by now.
"""

import hashlib
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from . import UsageError, compiled, model_format
from .artifacts import MODEL, PACKAGE, digest
from .compiled import CompiledModel
from .config import Data
from .exceptions import describe
from .pipeline.ingest import inputs, typed
from .pipeline.profiles import ColumnProfile
from .pipeline.validate import FailedRule, Rules, failures
from .records import Ends

MANIFEST = "manifest.json"
MAX_DOCUMENT_BYTES = 64 << 20  # of a document that is read before the package is known to be whole
OLD = PACKAGE.with_name(".model.old")  # the previous package, while a new one takes its place
ENOUGH_S = 10.0  # in which a request is repeated, to see how long it takes at best
Features = Callable[[pl.DataFrame], pl.DataFrame]


class Manifest(TypedDict):
    """`manifest.json`: what a package holds."""

    version: str
    created: str  # when training ended, ISO 8601
    package_digest: str  # of the digests of all files
    model_digest: str  # of the model that was measured
    files: dict[str, str]  # the digest of each, by its path in the package
    refit_digest: NotRequired[str]  # of the model, if it was trained once more on all rows
    formats: NotRequired[list[str]]  # adapters that reading the model takes; absent: skops


class Profile(TypedDict):
    """The part of `profile.json` that serving reads."""

    columns: dict[str, ColumnProfile]  # by feature, of the training rows
    prediction: ColumnProfile  # of the holdout


class PackagedSlice(TypedDict):
    """The metric on the rows with one value of a column."""

    column: str
    value: str | None
    metric: Ends


class PackagedCalibration(TypedDict, total=False):
    """How far predictions are from what happens."""

    bins: list[dict[str, float]]  # `predicted`, `observed` and `rows`


class PackagedMetrics(TypedDict, total=False):
    """The part of a package's `metrics.json` that monitoring and the bill of materials read.

    Those of earlier versions lack some of it.
    """

    data_digest: str
    task: str
    metric: str
    rows: int
    metrics: dict[str, Ends]
    slices: list[PackagedSlice]
    calibration: PackagedCalibration


class Prediction(TypedDict):
    """The answer to a row."""

    prediction: str | float
    probabilities: NotRequired[dict[str, float]]  # by class, if there are classes


class Reply(NamedTuple):
    """What a model answers to one request, and how long that took at best."""

    seconds: float
    predictions: NDArray[np.float64] | None  # None: it cannot answer


@dataclass(frozen=True)
class Model:
    """A package that was opened, and can answer.

    Attributes:
        manifest: The package's `manifest.json`.
        data: The contract that the model was trained under.
        request_contract: The same for rows to predict: without a target, any number of rows.
        load_fitted: Loads the estimator, which takes seconds and the libraries that it is of.
        features: The package's own `problem.features.features`.
        rules: The package's own `problem.schema.rules`.
        compiled: What predicts as the estimator does, a thousand times as fast, if there is one.
        folder: The package.
    """

    manifest: Manifest
    data: Data
    request_contract: Data = field(repr=False)
    load_fitted: Callable[[], Any] = field(repr=False)
    features: Features = field(repr=False)
    rules: Rules = field(repr=False)
    compiled: CompiledModel | None = field(default=None, repr=False, kw_only=True)
    folder: Path | None = field(default=None, repr=False, kw_only=True)

    @cached_property
    def fitted(self) -> Any:
        """Return the estimator, which is loaded when it is asked for: with a compiled form, hardly.

        Raises:
            UsageError: See `load_estimator`.
        """
        return self.load_fitted()

    @property
    def version(self) -> str:
        """Return the version that the package was registered as."""
        return str(self.manifest["version"])

    @property
    def digest(self) -> str:
        """Return the digest of `model.skops`."""
        return str(self.manifest["model_digest"])

    def read(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Type the feature columns of rows as `problem.data.load` or JSON has them."""
        return typed(rows, self.request_contract)

    def failures(self, rows: pl.DataFrame) -> list[FailedRule]:
        """Return what is wrong with typed rows: see `pipeline.validate.failures`."""
        return failures(rows, self.request_contract, self.rules)

    def all_failures(self, rows: pl.DataFrame) -> list[FailedRule]:
        """Return the same with every row that breaks a rule, and with its value."""
        return failures(rows, self.request_contract, self.rules, max_samples=rows.height)

    def predict(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Predict typed rows that have no failures: see the function `predict`."""
        if self.compiled is None:
            return predict(self.fitted, rows, self.request_contract, self.features)
        y_pred = self.compiled.predict(self.features(inputs(rows, self.request_contract)))
        return y_pred[:, 0] if self.data.task == "regression" else y_pred

    def reply(self, rows: pl.DataFrame, tries: int = 1) -> Reply:
        """Answer one request: see the function `reply`."""
        return reply(self, rows, tries)

    def answers(self, y_pred: NDArray[np.float64]) -> list[Prediction]:
        """Return each row's `prediction` and, if there are classes, their `probabilities`.

        Args:
            y_pred: As `predict` returns it.
        """
        predictions = self.predictions(y_pred)
        if self.data.task == "regression":
            return [{"prediction": prediction} for prediction in predictions]
        classes = self.data.classes
        return [
            {"prediction": prediction, "probabilities": dict(zip(classes, row, strict=True))}
            for prediction, row in zip(predictions, y_pred.tolist(), strict=True)
        ]

    def predictions(self, y_pred: NDArray[np.float64]) -> list[str | float]:
        """Return each row's most likely class, or its value.

        Args:
            y_pred: As `predict` returns it.
        """
        if self.data.task == "regression":
            values: list[str | float] = y_pred.tolist()
            return values
        classes = self.data.classes
        return [classes[index] for index in y_pred.argmax(axis=1).tolist()]


def reply(model: Model, rows: pl.DataFrame, tries: int = 1) -> Reply:
    """Let a model answer one request, from the rows as they were sent.

    It cannot where a rule refuses a row, its code fails, or a prediction is not a number, which
    JSON has none for.

    Args:
        model: It.
        rows: The request.
        tries: How often at most; the fastest counts, as a busy machine only slows down. A slow
            model is asked less often.
    """
    fastest = np.inf
    until = time.perf_counter() + ENOUGH_S
    predictions = None
    for _ in range(tries):
        start = time.perf_counter()
        try:
            typed_rows = model.read(rows)
            predictions = None if model.failures(typed_rows) else model.predict(typed_rows)
            if predictions is not None and not np.isfinite(predictions).all():
                predictions = None
        except Exception:  # of problem/, which is the user's: callers would see an error
            predictions = None
        fastest = min(fastest, time.perf_counter() - start)
        if predictions is None or time.perf_counter() > until:
            break
    return Reply(fastest, predictions)


def load_package(
    folder: Path = PACKAGE, expected_digest: str | None = None, *, threads: int = 0
) -> Model:
    """Open a package.

    Args:
        folder: The package.
        expected_digest: The package digest that it must have; None accepts any.
        threads: How many may share a large batch; 0: as many as there are cores.

    Raises:
        UsageError: It is missing, damaged or another one. None of its code has run then.
    """
    if folder == PACKAGE:
        repair()
    manifest = verified_manifest(folder)
    if expected_digest not in (None, manifest["package_digest"]):
        raise UsageError(f"{folder}/ is not the package that was deployed: `ml deploy` it again")
    data = Data.model_validate_json((folder / "contract.json").read_text("utf-8"))
    suffix = manifest["package_digest"][-12:]
    modules = {
        name: import_problem(folder / "problem", name, suffix) for name in ("features", "schema")
    }

    def load_fitted() -> Any:
        path = folder / MODEL.name
        if digest(path) != manifest["files"][MODEL.name]:
            raise UsageError(f"{path} has changed since the package was opened")
        module = import_problem(folder / "problem", "model", suffix)
        return load_estimator(path, module.TRUSTED, problem=module.__package__)

    is_compiled = compiled.FILE in manifest["files"]
    model = Model(
        manifest,
        data,
        data.for_predicting(),
        load_fitted,
        modules["features"].features,
        modules["schema"].rules,
        compiled=compiled.load(folder / compiled.FILE, threads) if is_compiled else None,
        folder=folder,
    )
    if not is_compiled:
        _ = model.fitted  # now, so that whoever opens the package learns what is wrong with it
    return model


def repair() -> None:
    """Finish or undo what a killed run left of replacing `artifacts/model/`."""
    if OLD.exists() and not PACKAGE.exists():
        OLD.rename(PACKAGE)
    shutil.rmtree(OLD, ignore_errors=True)


def verified_manifest(folder: Path) -> Manifest:
    """Return the manifest of a package, once each of its files was found to be what it says.

    Raises:
        UsageError: There is no package, or it is damaged, or its manifest names another model.
    """
    try:
        manifest: Manifest = _read_document(folder / MANIFEST)
        _verify(folder, manifest)
    except FileNotFoundError as error:
        if Path(error.filename).name == MANIFEST:
            raise UsageError(f"{folder}/ holds no model: run `ml run` first") from None
        raise UsageError(f"{error.filename} is missing: run `ml package` again") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            f"{folder}/ is damaged, or was changed by hand: run `ml package` again"
        ) from None
    return manifest


def _verify(folder: Path, manifest: Manifest) -> None:
    """Check that a package is what its manifest says.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError: It is not.
    """
    files = manifest["files"]
    for name, expected in files.items():
        if digest(_package_file(folder, name)) != expected:
            raise ValueError(name)
    if package_digest(files) != manifest["package_digest"]:
        raise ValueError(MANIFEST)
    # Python would import a file that the manifest does not have, be it the bytecode of another.
    for path in (folder / "problem").rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            raise ValueError(path.name)
    if manifest["model_digest"] != _measured_digest(folder, manifest):
        raise ValueError(MODEL.name)


def _read_document(path: Path) -> Any:
    """Read JSON that anybody may have written.

    Raises:
        OSError, ValueError, RecursionError: It cannot be read, or is too long or nested too deeply.
    """
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise ValueError(path.name)
    return json.loads(path.read_text("utf-8"))


def _package_file(folder: Path, name: str) -> Path:
    """Return the path of a file that a manifest names.

    Raises:
        ValueError: It would lie outside of the folder, or is a device or a pipe, which never ends.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(name)
    path = folder / name
    if path.exists() and not path.is_file():
        raise ValueError(name)
    return path


def _measured_digest(folder: Path, manifest: Manifest) -> str:
    """Return the digest of the model that was measured: that of the file, unless it was refitted.

    Raises:
        LookupError, ValueError: The files of the package do not say it.
    """
    files = manifest["files"]
    if "refit_digest" not in manifest:
        return files[MODEL.name]
    if manifest["refit_digest"] != files[MODEL.name] or "gate.json" not in files:
        raise ValueError(MODEL.name)
    return str(_read_document(folder / "gate.json")["model_digest"])


def package_digest(files: dict[str, str]) -> str:
    """Return the SHA-256 of the digests of a package's files, by name."""
    return f"sha256:{hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()}"


def load_estimator(path: Path, trusted: Collection[str], *, problem: str | None = None) -> Any:
    """Load an estimator: see `model_format.load`."""
    return model_format.load(path, trusted, problem=problem)


def predict(fitted: Any, rows: pl.DataFrame, data: Data, features: Features) -> NDArray[np.float64]:
    """Predict typed rows.

    Args:
        fitted: An estimator.
        rows: (n, …) typed rows.
        data: Their contract.
        features: Makes of their feature columns what the estimator takes.

    Returns:
        (n, classes) probabilities in the contract's order, or (n,) values of a regression.
    """
    return estimate(fitted, features(inputs(rows, data)), data)


def estimate(fitted: Any, X: pl.DataFrame, data: Data) -> NDArray[np.float64]:
    """Return the predictions of an estimator for what `features` returned: see `predict`.

    Raises:
        UsageError: A library of the estimator fails.
    """
    try:
        if data.task == "regression":
            return np.asarray(fitted.predict(X), dtype=float)
        y_pred = np.zeros((X.height, len(data.classes)))  # 0 for a class that training lacked
        y_pred[:, fitted.classes_] = fitted.predict_proba(X)
    except Exception as error:
        if _is_of_problem(error):
            raise  # `ml` says which line of it
        raise UsageError(
            f"problem/model.py: its estimator cannot predict: {describe(error)}"
        ) from error
    return y_pred


def _is_of_problem(error: Exception) -> bool:
    """Check whether an error passed through a module of a `problem/`."""
    calls = traceback.extract_tb(error.__traceback__)
    return any(Path(call.filename).parent.name == "problem" for call in calls)


def import_problem(folder: Path, module: str, suffix: str) -> ModuleType:
    """Import a module of a package's `problem/` under a name of its own.

    Nothing is written into its folder.

    Args:
        suffix: Makes the name that of this package alone.
    """
    name = f"{__package__}._problem_{suffix}"
    writes_bytecode = not sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        sys.modules.setdefault(name, ModuleType(name)).__path__ = [str(folder)]
        return import_module(f"{name}.{module}")
    finally:
        sys.dont_write_bytecode = not writes_bytecode
