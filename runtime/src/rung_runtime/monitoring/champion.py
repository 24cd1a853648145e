"""The champion, as monitoring needs it: what its package knows about training and holdout."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from .. import registry
from ..artifacts import ARTIFACTS
from ..config import Data
from ..model_package import PackagedMetrics
from ..records import Ends
from . import performance
from .drift import Reference


class Champion(NamedTuple):
    """What the champion's package says.

    Attributes:
        metric: The metric of the gate.
        expected: The value of this metric on the holdout, and the ends of its interval.
        references: By column of the prediction log.
        prediction: The column of the log, among the references, that is its prediction.
        holdout: What is expected of its predictions.
    """

    version: registry.Version
    data: Data
    metric: str
    expected: Ends
    references: dict[str, Reference]
    prediction: str
    holdout: performance.Expected


def load_champion(version: registry.Version) -> Champion:
    """Fetch a version's package, and read it."""
    folder = registry.fetch_version(version, ARTIFACTS / "champion" / version.version)
    data = Data.model_validate(_read(folder / "contract.json"))
    profile = _read(folder / "profile.json")
    metrics: PackagedMetrics = _read(folder / "metrics.json")
    references = {
        f"x:{name}": Reference(column, profile["rows"])
        for name, column in profile["columns"].items()
    }
    prediction = f"p:{data.classes[-1]}" if data.task == "binary" else "prediction"
    references[prediction] = Reference(profile["prediction"], metrics["rows"])
    metric = metrics["metric"]
    return Champion(
        version=version,
        data=data,
        metric=metric,
        expected=metrics["metrics"][metric],
        references=references,
        prediction=prediction,
        holdout=performance.expected(metrics),
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
