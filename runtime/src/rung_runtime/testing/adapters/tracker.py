"""What every tracker promises."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ...adapters import Tracker
from ...artifacts import DOCUMENTS, PREDICTIONS, digest, now, read, write
from ...artifacts import MODEL as MODEL_FILE
from ...config import DATA, GATE, MODEL, Gate
from ...pipeline.gate import decide
from ...records import GateDocument, MetricsDocument, TrainingDocument
from ..controls import a_threshold_is_met, metrics_document
from ..model_formats import ModelFormatContract as ModelFormatContract

DATA_DIGEST = f"sha256:{'2' * 64}"
CONTRACT = """
source: data/raw/x.csv
target: y
task: binary
classes: ['no', 'yes']
split: {by: stratified}
columns: {x: {type: number}, y: {type: category, categories: ['no', 'yes']}}
"""


class RecordedRun(NamedTuple):
    """A run as a tracker shows it."""

    verdict: str
    metrics: dict[str, float]
    curves: dict[str, list[float]] | None = None  # by metric, its values after each epoch


def leave_run(
    folder: Path, *, auc: float, threshold: float, curves: dict[str, list[float]] | None = None
) -> None:
    """Leave the configuration and the documents of a run whose gate has judged.

    Args:
        folder: The current folder, of a project.
        auc: The ROC AUC of the model.
        threshold: What the gate asks for.
        curves: How the model learned, if it says so.
    """
    settings = f"metric: roc_auc\nthresholds: {{roc_auc: {threshold}}}\n"
    for path, text in ((DATA, CONTRACT), (MODEL, "{}"), (GATE, settings)):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    PREDICTIONS.parent.mkdir(exist_ok=True)
    PREDICTIONS.write_bytes(b"")
    MODEL_FILE.write_bytes(b"")
    training = TrainingDocument(
        rows=1, estimator="own", seed=0, params={}, model_inputs=["x"], learning_curves=curves
    )
    write(training, started=now(), data_digest=DATA_DIGEST, inputs={})
    scores = a_threshold_is_met()
    interval = scores.metrics["roc_auc"].model_copy(update={"value": auc})
    scores = scores.model_copy(update={"metrics": {"roc_auc": interval}})
    write(metrics_document(scores), started=now(), data_digest=DATA_DIGEST, inputs={})
    metrics = read(MetricsDocument)
    checks = decide(metrics, Gate(metric="roc_auc", thresholds={"roc_auc": threshold}))
    gate = GateDocument(
        comparison=None,
        checks=checks,
        model_digest=digest(MODEL_FILE),
        verdict="passed" if auc >= threshold else "refused",
    )
    path = DOCUMENTS["evaluate"]
    write(gate, started=now(), data_digest=DATA_DIGEST, inputs={str(path): digest(path)})


class TrackerContract:
    """Inherit it, and give the fixtures `tracker`, `recorded` and `unreachable`.

    `tracker` is the adapter, and has recorded nothing; the current folder is that of a project.
    """

    @pytest.fixture
    def tracker(self) -> Tracker:
        raise NotImplementedError("give a fixture tracker: see TrackerContract")

    @pytest.fixture
    def recorded(self) -> Callable[[], list[RecordedRun]]:
        """Return a function that lists the runs, the oldest first."""
        raise NotImplementedError("give a fixture recorded: see TrackerContract")

    @pytest.fixture
    def unreachable(self) -> Callable[[], None]:
        """Return a function that keeps the tracker from being reached."""
        raise NotImplementedError("give a fixture unreachable: see TrackerContract")

    def test_a_run_is_recorded_passed_or_refused(
        self, tracker: Tracker, recorded: Callable[[], list[RecordedRun]]
    ) -> None:
        tracker.prepare()
        leave_run(Path(), auc=0.75, threshold=0.7)
        assert tracker.record()
        leave_run(Path(), auc=0.65, threshold=0.7)
        assert tracker.record()
        runs = recorded()
        assert len(runs) == 2
        first, second = runs
        assert first.verdict == "passed"
        assert second.verdict == "refused"
        assert first.metrics["roc_auc"] == 0.75
        assert second.metrics["roc_auc"] == 0.65

    def test_a_run_is_recorded_once(
        self, tracker: Tracker, recorded: Callable[[], list[RecordedRun]]
    ) -> None:
        leave_run(Path(), auc=0.75, threshold=0.7)
        for _ in range(2):
            assert tracker.record()
        assert len(recorded()) == 1

    def test_learning_curves_are_recorded_value_by_value(
        self, tracker: Tracker, recorded: Callable[[], list[RecordedRun]]
    ) -> None:
        losses = {"train_loss": [0.75, 0.5, 0.25], "validation_loss": [0.7, 0.6, 0.65]}
        leave_run(Path(), auc=0.75, threshold=0.7, curves=losses)
        tracker.record()
        runs = recorded()
        assert len(runs) == 1
        (run,) = runs
        if run.curves is None:
            pytest.skip("the fixture recorded gives no curves")
        assert {name: run.curves[name] for name in losses} == losses

    def test_without_a_run_nothing_is_recorded(
        self, tracker: Tracker, recorded: Callable[[], list[RecordedRun]]
    ) -> None:
        assert "no run" in tracker.record()
        assert recorded() == []

    def test_a_run_that_cannot_be_recorded_fails_nothing_and_says_what_to_do(
        self, tracker: Tracker, unreachable: Callable[[], None]
    ) -> None:
        leave_run(Path(), auc=0.75, threshold=0.7)
        unreachable()
        assert "ml track" in tracker.record()
