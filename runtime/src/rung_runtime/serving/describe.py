"""What the service says of itself: to callers as OpenAPI, to Prometheus beside times and counts."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from pydantic import BaseModel

from ..config import Column, Data

if TYPE_CHECKING:
    from .batch import Batcher, Served

GAP, OTHER = "(gap)", "(other)"
# Of the directives of Polars; a format with others is described by its name alone.
DIGITS = {
    "%Y": "[12][0-9]{3}",
    "%m": "(0[1-9]|1[0-2])",
    "%d": "(0[1-9]|1[0-9]|2[0-8])",
    "%H": "([01][0-9]|2[0-3])",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
}
TEXT = {"type": "string"}


class Fault(BaseModel):
    row: int | None
    column: str | None
    reason: str


class Refusal(BaseModel):
    detail: list[Fault]


class Prediction(BaseModel):
    prediction: str | float
    probabilities: dict[str, float] = {}  # of the classes, if there are any


class Answer(BaseModel):
    request_id: str
    version: str
    model_digest: str
    predictions: list[Prediction]


def row(served: "Served") -> dict[str, Any]:
    """The JSON schema of a row."""
    asked = served.model.asked
    unused = {name: {"description": "not used"} for name in asked.left_out}
    return {
        "type": "object",
        "required": list(asked.columns),
        "properties": {n: column(c) for n, c in asked.columns.items()} | unused,
        "additionalProperties": False,
        "example": served.example,
    }


def column(contract: Column) -> dict[str, Any]:
    """The JSON schema of a value."""
    said: dict[str, Any] = {"type": contract.type}
    if contract.type == "category":
        said = TEXT | (
            {"examples": contract.categories} if contract.open else {"enum": contract.categories}
        )
    elif contract.type == "text":
        said = dict(TEXT)
    elif contract.type == "datetime":
        form = (contract.formats or [""])[0]
        parts = re.split(r"(%[#.]?\w)", form)
        said = TEXT | ({"description": f"a time like {form}"} if form else {"format": "date-time"})
        if form and all(part in DIGITS for part in parts[1::2]):
            said["pattern"] = f"^{''.join(DIGITS.get(p) or re.escape(p) for p in parts)}$"
    said |= {
        k: v for k, v in (("minimum", contract.min), ("maximum", contract.max)) if v is not None
    }
    if contract.nullable:
        said["type"] = [said["type"], "null"]
        if "enum" in said:
            said["enum"] = [*said["enum"], None]
    return said


class Spread:
    """How values are spread, over the deciles or the categories of a column of the profile."""

    def __init__(self, seen: dict[str, Any]) -> None:
        self.edges = sorted(set(map(float, seen.get("percentiles", [])[::10])))
        self.bins, self.sum = np.zeros(len(self.edges) + 1, dtype=int), 0.0
        self.counts = Counter(dict.fromkeys([*seen.get("counts", []), OTHER, GAP], 0))
        self.numeric = "percentiles" in seen

    def add(self, values: pl.Series) -> None:
        if self.numeric:
            self.counts[GAP] += values.null_count()
            values = values.drop_nulls()
            values = values.dt.epoch("s") if values.dtype == pl.Datetime else values
            values = values.str.len_chars() if values.dtype == pl.String else values
            numbers = values.cast(pl.Float64).to_numpy()
            at = np.searchsorted(self.edges, numbers)
            self.bins += np.bincount(at, minlength=len(self.bins))
            self.sum += float(numbers.sum())
        else:
            for name, count in values.alias("of").cast(pl.String).value_counts().iter_rows():
                named = GAP if name is None else name if name in self.counts else OTHER
                self.counts[named] += count


class Spreads:
    """The spread of each feature, and of the predictions, of a model in service."""

    def __init__(self, profile: dict[str, Any], data: Data) -> None:
        self.features = {name: Spread(seen) for name, seen in profile["columns"].items()}
        self.prediction, self.data = Spread(profile["prediction"]), data

    def add(self, rows: pl.DataFrame, found: NDArray[np.float64]) -> None:
        """Take typed rows and their predictions."""
        for name, spread in self.features.items():
            spread.add(rows[name])
        if self.data.task == "multiclass":
            names = [self.data.classes[at] for at in found.argmax(axis=1)]
            self.prediction.add(pl.Series(names))
        else:
            self.prediction.add(pl.Series(found[:, -1] if found.ndim == 2 else found))

    def collect(self) -> Iterator[Metric]:
        for kind, label, spreads in (
            ("feature", "feature", self.features),
            ("prediction", "of", {"prediction": self.prediction}),
        ):
            values = HistogramMetricFamily(f"ml_{kind}", f"Values, a {kind}", labels=[label])
            counts = CounterMetricFamily(
                f"ml_{kind}_category", f"Categories and gaps, a {kind}", labels=[label, "category"]
            )
            for name, spread in spreads.items():
                if spread.numeric:
                    edges = [*map(str, spread.edges), "+Inf"]
                    up_to = np.cumsum(spread.bins).tolist()
                    values.add_metric([name], list(zip(edges, up_to, strict=True)), spread.sum)
                for category, count in spread.counts.items():
                    counts.add_metric([name, category], count)
            yield from (values, counts)


class Collector:
    """The state of model, queue and log at the moment that somebody asks."""

    def __init__(self, batcher: "Batcher") -> None:
        self.batcher = batcher

    def collect(self) -> Iterator[Metric]:
        batcher, log = self.batcher, self.batcher.log
        log.compact()  # the spreads are as of now
        served = batcher.served
        made = datetime.fromisoformat(served.model.manifest["created"])
        for name, about, value in (
            (
                "model_age_seconds",
                "Since the model was trained",
                (datetime.now(UTC) - made).total_seconds(),
            ),
            ("queue_rows", "Rows that wait for an answer, or are being answered", batcher.rows),
            ("log_waiting_rows", "Answered rows that are not yet written to the log", log.rows),
            ("log_lag_seconds", "The age of the oldest of them", log.lag()),
        ):
            yield GaugeMetricFamily(f"ml_{name}", about, value)
        info = GaugeMetricFamily("ml_model_info", "The model", labels=["version", "model_digest"])
        info.add_metric([served.model.version, served.model.digest], 1)
        yield info
        for name, about, value in (
            ("model_errors", "Requests at which the code of problem/ failed", batcher.errors),
            ("log_written_rows", "Rows written to the log", log.written),
            (
                "log_dropped_rows",
                "Rows that could not be written, and were too many to keep",
                log.dropped,
            ),
            ("log_failures", "Attempts to write the log that failed", log.failures),
        ):
            yield CounterMetricFamily(f"ml_{name}", about, value)
        yield from served.spreads.collect()
