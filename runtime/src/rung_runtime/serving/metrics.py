"""Metrics for Prometheus: requests, the state of queue and log, and the distribution of values."""

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import prometheus_client
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ..config import Data
from ..model_package import Profile
from ..pipeline.profiles import ColumnProfile

if TYPE_CHECKING:
    from .batcher import Batcher

GAP = "(gap)"  # the category of missing values
OTHER = "(other)"  # the category of all values that the training data did not have
LATENCY_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]  # s
PROMETHEUS_TEXT = "text/plain; version=0.0.4"


class Metrics:
    """All metrics of the service."""

    def __init__(self, batcher: "Batcher", private: Collection[str] = ()) -> None:
        """Make the metrics; they have no values of private columns."""
        self.registry = CollectorRegistry()
        self.registry.register(StateCollector(batcher, private))
        ProcessCollector(registry=self.registry)
        self.requests = prometheus_client.Counter(
            "ml_requests", "Requests for predictions", ["route", "status"], registry=self.registry
        )
        self.rows = prometheus_client.Counter("ml_rows", "Rows answered", registry=self.registry)
        self.explanations = prometheus_client.Counter(
            "ml_explanations",
            "Rows whose explanation was asked for",
            ["outcome"],
            registry=self.registry,
        )
        self.explanation_seconds = Histogram(
            "ml_explanation_seconds",
            "Time from the predictions of a request to its explanations",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ml_request_seconds",
            "Time to the prediction",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._answers: dict[tuple[str, int], tuple[prometheus_client.Counter, Histogram]] = {}

    def count_answer(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered, and how long that took to the prediction."""
        key = (route, status)
        if key not in self._answers:
            # A search for a metric's labels takes longer than to count.
            self._answers[key] = (
                self.requests.labels(route, status),
                self.seconds.labels(route),
            )
        requests, times = self._answers[key]
        requests.inc()
        times.observe(seconds)

    def text(self) -> bytes:
        """Return the metrics in the format of Prometheus."""
        return prometheus_client.generate_latest(self.registry)


class Distribution:
    """Counts of values by the deciles, or the categories, that the training data had.

    Attributes:
        edges: The distinct deciles, in ascending order.
        bins: (edges + 1,), how many values are up to each edge, and beyond the last.
        sum: Of all numbers.
        counts: How many values are of each category; of numbers, only the gaps.
    """

    def __init__(self, summary: ColumnProfile) -> None:
        """Make an empty distribution.

        Args:
            summary: The column's part of the profile.
        """
        self.is_numeric = "percentiles" in summary
        self.edges = sorted(set(map(float, summary.get("percentiles", [])[::10])))
        self.bins = np.zeros(len(self.edges) + 1, dtype=int)
        self.sum = 0.0
        self.counts = Counter(dict.fromkeys([*summary.get("counts", []), OTHER, GAP], 0))

    def add(self, values: pl.Series) -> None:
        """Count typed values of the column."""
        if self.is_numeric:
            self._add_numbers(values)
        else:
            self._add_categories(values)

    def _add_numbers(self, values: pl.Series) -> None:
        self.counts[GAP] += values.null_count()
        values = values.drop_nulls()
        if values.dtype == pl.Datetime:
            values = values.dt.epoch("s")
        if values.dtype == pl.String:
            values = values.str.len_chars()
        numbers = values.cast(pl.Float64).to_numpy()
        bins = np.searchsorted(self.edges, numbers)
        self.bins += np.bincount(bins, minlength=len(self.bins))
        self.sum += float(numbers.sum())

    def _add_categories(self, values: pl.Series) -> None:
        texts = values.alias("category").cast(pl.String)
        for text, count in texts.value_counts().iter_rows():
            category = GAP if text is None else text
            self.counts[category if category in self.counts else OTHER] += count


class Distributions:
    """The distributions of each feature, and of the predictions, of a model in service."""

    def __init__(self, profile: Profile, contract: Data) -> None:
        self.contract = contract
        self.features = {
            name: Distribution(summary) for name, summary in profile["columns"].items()
        }
        self.prediction = Distribution(profile["prediction"])

    def add(self, rows: pl.DataFrame, y_pred: NDArray[np.float64]) -> None:
        """Count typed rows, and their predictions: (n, classes) probabilities or (n,) values."""
        for name, distribution in self.features.items():
            distribution.add(rows[name])
        if self.contract.task == "multiclass":
            classes = [self.contract.classes[index] for index in y_pred.argmax(axis=1)]
            self.prediction.add(pl.Series(classes))
        else:
            self.prediction.add(pl.Series(y_pred[:, -1] if y_pred.ndim == 2 else y_pred))

    def collect(self, private: Collection[str] = ()) -> Iterator[Metric]:
        """Yield a histogram and a counter of categories for features, and for predictions."""
        public = {name: d for name, d in self.features.items() if name not in private}
        yield from _families("feature", "feature", public)
        yield from _families("prediction", "of", {"prediction": self.prediction})


def _families(
    kind: str, label: str, distributions: dict[str, Distribution]
) -> tuple[HistogramMetricFamily, CounterMetricFamily]:
    values = HistogramMetricFamily(f"ml_{kind}", f"Values, a {kind}", labels=[label])
    counts = CounterMetricFamily(
        f"ml_{kind}_category", f"Categories and gaps, a {kind}", labels=[label, "category"]
    )
    for name, distribution in distributions.items():
        if distribution.is_numeric:
            edges = [*map(str, distribution.edges), "+Inf"]
            cumulative = np.cumsum(distribution.bins).tolist()
            buckets = list(zip(edges, cumulative, strict=True))
            values.add_metric([name], buckets, distribution.sum)
        for category, count in distribution.counts.items():
            counts.add_metric([name, category], count)
    return values, counts


class StateCollector:
    """The state of model, queue and log at the moment that Prometheus reads it."""

    def __init__(self, batcher: "Batcher", private: Collection[str]) -> None:
        self.batcher = batcher
        self.private = private

    def collect(self) -> Iterator[Metric]:
        """Yield gauges, the model, counters, and the distributions of the model."""
        log = self.batcher.log
        log.compact()  # so that the distributions are complete
        loaded = self.batcher.loaded
        created = datetime.fromisoformat(loaded.model.manifest["created"])
        age = (datetime.now(UTC) - created).total_seconds()
        yield GaugeMetricFamily("ml_model_age_seconds", "Since the model was trained", age)
        yield GaugeMetricFamily(
            "ml_queue_rows",
            "Rows that wait for an answer, or are being answered",
            self.batcher.admission.rows,
        )
        yield GaugeMetricFamily(
            "ml_log_waiting_rows",
            "Answered rows that are not yet written to the log",
            log.waiting_rows,
        )
        yield GaugeMetricFamily("ml_log_lag_seconds", "The age of the oldest of them", log.lag())
        info = GaugeMetricFamily("ml_model_info", "The model", labels=["version", "model_digest"])
        info.add_metric([loaded.model.version, loaded.model.digest], 1)
        yield info
        yield CounterMetricFamily(
            "ml_model_errors",
            "Requests at which the code of problem/ failed",
            self.batcher.model_errors,
        )
        yield CounterMetricFamily(
            "ml_log_written_rows", "Rows written to the log", log.written_rows
        )
        yield CounterMetricFamily(
            "ml_log_dropped_rows",
            "Rows that could not be written, and were too many to keep",
            log.dropped_rows,
        )
        yield CounterMetricFamily(
            "ml_log_failures", "Attempts to write the log that failed", log.failures
        )
        yield from loaded.distributions.collect(self.private)
