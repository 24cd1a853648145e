"""A package, opened: a model, its contract, and the code that it was trained with.

All that serving needs. A package brings its own `problem/`, so that a model meets no other feature
code than the one it learned from, whatever the working tree holds by now.
"""

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import skops.io
from numpy.typing import NDArray
from skops.io.exceptions import UntrustedTypesFoundException

from . import UsageError
from .artifacts import MODEL, PACKAGE, digest
from .config import Data
from .pipeline.ingest import inputs, typed
from .pipeline.validate import Rules, failures

MANIFEST = "manifest.json"
LONGEST = 64 << 20  # bytes of a document of a package that is read before it is known to be whole
OLD = PACKAGE.with_name(".model.old")  # while another one takes its place
Features = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Model:
    """What a package answers with."""

    manifest: dict[str, Any]
    data: Data  # the contract that it was trained under
    asked: Data = field(repr=False)  # the same of rows to predict
    fitted: Any = field(repr=False)
    features: Features = field(repr=False)
    rules: Rules = field(repr=False)

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def digest(self) -> str:
        """Of `model.skops`."""
        return str(self.manifest["model_digest"])

    def read(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Type the feature columns of rows as `problem.data.load` or JSON gives them."""
        return typed(rows, self.asked)

    def failures(self, rows: pl.DataFrame) -> list[dict[str, Any]]:
        """What is wrong with typed rows, as `pipeline.validate.failures` says it."""
        return failures(rows, self.asked, self.rules)

    def predict(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Predict typed rows that nothing is wrong with: see the function `predict`."""
        return predict(self.fitted, rows, self.asked, self.features)

    def answers(self, found: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Each row's `prediction` and, if there are classes, their `probabilities`."""
        if self.data.task == "regression":
            return [{"prediction": value} for value in found.tolist()]
        classes = self.data.classes
        names = [classes[at] for at in found.argmax(axis=1)]
        return [
            {"prediction": name, "probabilities": dict(zip(classes, row, strict=True))}
            for name, row in zip(names, found.tolist(), strict=True)
        ]


def opened(folder: Path = PACKAGE, package_digest: str | None = None) -> Model:
    """Open a package.

    Args:
        package_digest: That of the package which it must be; None: whichever is there.

    Raises:
        UsageError: There is none, or it is damaged, or another one. Nothing of it has run then.
    """
    if folder == PACKAGE:
        repair()
    manifest = verified(folder)
    if package_digest not in (None, manifest["package_digest"]):
        raise UsageError(f"{folder}/ is not the package that was deployed: `ml deploy` it again")
    data = Data.model_validate_json((folder / "contract.json").read_text("utf-8"))
    code = _code(folder / "problem", manifest["package_digest"])
    fitted = load(folder / MODEL.name, code("model").TRUSTED)
    features, rules = code("features").features, code("schema").rules
    return Model(manifest, data, data.for_predicting(), fitted, features, rules)


def repair() -> None:
    """Finish or undo what a killed run left of replacing `artifacts/model/`."""
    if OLD.exists() and not PACKAGE.exists():
        OLD.rename(PACKAGE)
    shutil.rmtree(OLD, ignore_errors=True)


def verified(folder: Path) -> dict[str, Any]:
    """The manifest of a package, of which each file was found to be what the manifest says.

    Raises:
        UsageError: There is no package, or it is damaged, or its manifest names another model.
    """
    try:
        manifest: dict[str, Any] = _document(folder / MANIFEST)
        files = manifest["files"]
        for name, before in files.items():
            if digest(_file(folder, name)) != before:
                raise ValueError(name)
        if package_digest(files) != manifest["package_digest"]:
            raise ValueError(MANIFEST)
        # Python would import a file that is only here, be it the bytecode of another.
        code = (path for path in (folder / "problem").rglob("*") if path.is_file())
        if not {path.relative_to(folder).as_posix() for path in code} <= files.keys():
            raise ValueError("problem")
        if manifest["model_digest"] != _model_digest(folder, manifest):
            raise ValueError(MODEL.name)
    except FileNotFoundError as error:
        if Path(error.filename).name == MANIFEST:
            raise UsageError(f"{folder}/ holds no model: run `ml run` first") from None
        raise UsageError(f"{error.filename} is missing: run `ml package` again") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = "is damaged, or was changed by hand: run `ml package` again"
        raise UsageError(f"{folder}/ {said}") from None
    return manifest


def _document(path: Path) -> Any:
    """Read JSON that anybody may have written.

    Raises:
        OSError, ValueError, RecursionError: It cannot be read, or is too long or too deep.
    """
    if path.stat().st_size > LONGEST:
        raise ValueError(path.name)
    return json.loads(path.read_text("utf-8"))


def _file(folder: Path, name: str) -> Path:
    """Return a file of a package by the name that its manifest has for it.

    Raises:
        ValueError: It would lie outside of the folder, or is a device or a pipe, which never ends.
    """
    inside, path = PurePosixPath(name), folder / name
    if inside.is_absolute() or ".." in inside.parts or (path.exists() and not path.is_file()):
        raise ValueError(name)
    return path


def _model_digest(folder: Path, manifest: dict[str, Any]) -> str:
    """The digest of the model that was measured: that of the file, unless it was refitted.

    Raises:
        LookupError, ValueError: The files of the package do not say it.
    """
    files: dict[str, str] = manifest["files"]
    if "refit_digest" not in manifest:
        return files[MODEL.name]
    if manifest["refit_digest"] != files[MODEL.name] or "gate.json" not in files:
        raise ValueError(MODEL.name)
    return str(_document(folder / "gate.json")["model_digest"])


def package_digest(files: dict[str, str]) -> str:
    """The SHA-256 of the digests of a package's files, by name."""
    return f"sha256:{hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()}"


def load(path: Path, trusted: Collection[str]) -> Any:
    """Load an estimator.

    Args:
        trusted: The types, besides scikit-learn's public ones, that the file may hold.

    Raises:
        UsageError: The file is damaged, or holds another type.
    """
    try:
        return skops.io.load(path, trusted=list(trusted))
    except UntrustedTypesFoundException as error:
        said = f"{path} holds types that problem/model.py does not trust: {error}"
        raise UsageError(said) from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise UsageError(f"{path} is damaged ({error}): run `ml train` again") from None


def predict(fitted: Any, rows: pl.DataFrame, data: Data, features: Features) -> NDArray[np.float64]:
    """Predict typed rows: (n, classes) probabilities in the contract's order, or (n,) values."""
    given = features(inputs(rows, data))
    if data.task == "regression":
        return np.asarray(fitted.predict(given), dtype=float)
    found = np.zeros((rows.height, len(data.classes)))  # a class that training lacked stays at 0
    found[:, fitted.classes_] = fitted.predict_proba(given)
    return found


def _code(folder: Path, of: str) -> Callable[[str], ModuleType]:
    """Import a package's `problem/` under a name of its own, and leave nothing in its folder."""
    name = f"{__package__}._problem_{of[-12:]}"
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        sys.modules.setdefault(name, ModuleType(name)).__path__ = [str(folder)]
        return {
            n: import_module(f"{name}.{n}") for n in ("features", "schema", "model")
        }.__getitem__
    finally:
        sys.dont_write_bytecode = writes
