"""What every tracker, target, CI platform and explainer promises, as tests to inherit.

A registry has its own: `testing.registry`.

Example:
    from rung_runtime.testing.adapters import TargetContract

    class TestOurs(TargetContract):
        @pytest.fixture
        def open_target(self, releases):
            return lambda: our_target.open_target("production")

        @pytest.fixture
        def releases(self):
            return Release("v1", "sha256:…"), Release("v2", "sha256:…")

        @pytest.fixture
        def unservable(self):
            return Release("v3", "sha256:…")
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from .. import RefusedError, UsageError
from ..adapters import Tracker
from ..artifacts import DOCUMENTS, PREDICTIONS, digest, now, read, write
from ..artifacts import MODEL as MODEL_FILE
from ..ci_platform import MARK, Platform
from ..config import DATA, GATE, MODEL, Data, Gate
from ..delivery.target import Target
from ..explanations import Explainer, Explanation, Subject, TooLate, explain
from ..http_client import http_json
from ..pipeline.gate import decide
from ..records import GateDocument, MetricsDocument, TrainingDocument
from .controls import a_threshold_is_met, metrics_document
from .model_formats import ModelFormatContract as ModelFormatContract

DATA_DIGEST = f"sha256:{'2' * 64}"
CONTRACT = """
source: data/raw/x.csv
target: y
task: binary
classes: ['no', 'yes']
split: {by: stratified}
columns: {x: {type: number}, y: {type: category, categories: ['no', 'yes']}}
"""
LONGER_THAN_ANY_COMMENT = "x" * 2_000_000
RESULTS = {"success", "failure", "skipped", "cancelled"}


class Release(NamedTuple):
    """What a target is given to serve."""

    version: str
    digest: str  # of the package
    image: str | None = None  # NAME@sha256:DIGEST, for a target that runs images


class RecordedRun(NamedTuple):
    """A run as a tracker shows it."""

    verdict: str
    metrics: dict[str, float]
    curves: dict[str, list[float]] | None = None  # by metric, its values after each epoch


class Job(Protocol):
    """A job of a pull request, on a platform or what stands in for one."""

    def comments(self) -> list[str]:
        """Return the comments of the pull request, the oldest first."""

    def say(self, text: str) -> None:
        """Have a person write a comment."""

    def trainings(self) -> int:
        """Return how many trainings were started."""

    def revoke(self) -> None:
        """Have the platform refuse the tokens of the job from now on."""

    def leave(self) -> None:
        """Be a process that is not a job of the platform."""


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


class TargetContract:
    """Inherit it, and give the fixtures `open_target`, `releases` and `unservable`.

    Each call of `open_target` opens the same target anew, as another command would. Nothing is
    deployed there at first.
    """

    keeps_serving = True  # False: it serves only while `serving_url` is open

    @pytest.fixture
    def open_target(self) -> Callable[[], Target]:
        raise NotImplementedError("give a fixture open_target: see TargetContract")

    @pytest.fixture
    def releases(self) -> tuple[Release, Release]:
        """Return two versions that can be served, the earlier one first."""
        raise NotImplementedError("give a fixture releases: see TargetContract")

    @pytest.fixture
    def unservable(self) -> Release:
        """Return a version that does not come to serve."""
        raise NotImplementedError("give a fixture unservable: see TargetContract")

    def test_a_version_that_was_switched_to_serves(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        for release in releases:
            assert _served(_switched(open_target(), release)) == release.version

    def test_what_should_serve_is_the_targets_own_to_remember(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        first, second = releases
        assert open_target().desired_version() is None
        _switched(open_target(), first)
        other = open_target()
        other.check(first.image)
        other.ensure_running()
        expected = first.version if self.keeps_serving else None
        assert other.desired_version() == expected
        assert other.is_serving(first.version, first.digest) == self.keeps_serving
        assert not other.is_serving(second.version, second.digest)

    def test_to_switch_again_changes_nothing(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        for _ in range(2):
            target = _switched(open_target(), releases[0])
        assert _served(target) == releases[0].version

    def test_the_previous_version_is_restored(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        first, second = releases
        _switched(open_target(), first)
        target = _switched(open_target(), second)
        target.restore(first.version, first.digest)
        if self.keeps_serving:
            assert open_target().desired_version() == first.version
            assert _served(open_target()) == first.version

    def test_a_first_version_is_taken_back_without_an_error(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        _switched(open_target(), releases[0]).restore(None, None)
        assert open_target().desired_version() in (None, releases[0].version)

    def test_a_version_that_does_not_serve_is_refused_with_a_reason(
        self,
        open_target: Callable[[], Target],
        releases: tuple[Release, Release],
        unservable: Release,
    ) -> None:
        target = _switched(open_target(), releases[0])
        with pytest.raises(RefusedError, match=r"\w+"):
            _served(_switched(open_target(), unservable))
        if self.keeps_serving:
            target.restore(releases[0].version, releases[0].digest)
            assert _served(open_target()) == releases[0].version

    def test_its_name_is_that_of_the_option(self, open_target: Callable[[], Target]) -> None:
        """As in `ml deploy --target`; only production makes a champion."""
        target = open_target()
        assert target.name == target.name.strip() != ""
        assert target.promotes in (True, False)
        assert target.promotes != ("staging" in target.name)


def _switched(target: Target, release: Release) -> Target:
    """Have a release served, in the order of `ml deploy`."""
    target.check(release.image)
    target.ensure_running()
    target.switch(release.version, release.digest)
    return target


def _served(target: Target) -> object:
    """Return the version that the service itself answers with."""
    with target.serving_url() as url:
        status, answer = http_json(f"{url}/version")
    assert status == 200
    assert isinstance(answer, dict)
    return answer["version"]


class PlatformContract:
    """Inherit it, and give the fixtures `detect`, `job`: this process is that job."""

    @pytest.fixture
    def detect(self) -> Callable[[], Platform | None]:
        """Return the function of the adapter."""
        raise NotImplementedError("give a fixture detect: see PlatformContract")

    @pytest.fixture
    def job(self) -> Job:
        raise NotImplementedError("give a fixture job: see PlatformContract")

    def test_only_a_job_has_a_platform(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        platform = _platform(detect)
        assert platform.name
        assert platform.workspace.is_dir()
        job.leave()
        assert detect() is None

    def test_its_registry_is_a_host_and_a_name_in_lower_case(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        host, _, name = _platform(detect).registry_prefix().partition("/")
        assert "." in host or ":" in host
        assert name
        assert name == name.lower().strip("/")
        user, password = _platform(detect).credentials() or ("", "")
        assert user
        assert password

    def test_the_comment_is_written_once_and_then_replaced(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        job.say("a person's own words")
        for text in ("refused", "passed"):
            assert _platform(detect).comment(text) is None
        assert job.comments() == ["a person's own words", f"{MARK}\npassed"]

    def test_a_comment_that_quotes_the_report_is_left_alone(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        quote = f"> {MARK}\n> refused"
        job.say(quote)
        assert _platform(detect).comment("passed") is None
        assert job.comments() == [quote, f"{MARK}\npassed"]

    def test_a_comment_is_cut_to_what_the_platform_takes_and_keeps_its_end(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        assert _platform(detect).comment(LONGER_THAN_ANY_COMMENT, tail="\nthe end") is None
        comments = job.comments()
        assert len(comments) == 1
        comment = comments[0]
        assert comment.startswith(MARK)
        assert comment.endswith("\nthe end")
        assert len(comment) < len(LONGER_THAN_ANY_COMMENT)

    def test_a_training_is_started_once(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        _platform(detect).train()
        assert job.trainings() == 1

    def test_a_token_that_may_not_is_a_sentence(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        job.revoke()
        platform = _platform(detect)
        with pytest.raises(UsageError, match="token"):
            platform.train()
        with pytest.raises(UsageError, match="token"):
            platform.comment("passed")
        assert job.comments() == []
        assert job.trainings() == 0

    def test_jobs_have_results_that_the_comment_knows(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        jobs = _platform(detect).jobs()
        assert jobs
        assert all(jobs)
        assert set(jobs.values()) <= RESULTS

    def test_a_notice_is_seen_and_cannot_be_a_command_of_the_text(
        self,
        detect: Callable[[], Platform | None],
        job: Job,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        _platform(detect).notice("it serves\n::error::no\n\x1b[2Ksection_start:0:x\r")
        out = capsys.readouterr().out
        assert "it serves" in out
        assert not [line for line in out.splitlines() if line.lstrip().startswith("::error")]
        assert "\x1b[2K" not in out
        assert "\r" not in out.replace("\r\n", "\n")


def _platform(detect: Callable[[], Platform | None]) -> Platform:
    platform = detect()
    assert platform is not None
    return platform


# Of everything that a contract can have; the model below uses the first five.
EXPLAINED = {
    "wind": {"type": "number", "nullable": True},
    "gusts": {"type": "number", "nullable": True},
    "city": {"type": "category", "categories": ["Oslo", "Rome"], "allow_unknown": True},
    "note": {"type": "text", "nullable": True},
    "time": {"type": "datetime"},
    "seats": {"type": "integer"},
    "is_full": {"type": "boolean"},
    "height": {"type": "number"},
    "width": {"type": "number"},
    "depth": {"type": "number"},
}
UNUSED = list(EXPLAINED)[5:]
NOON = datetime(2026, 1, 1, 12)
BACKGROUND_ROWS = 100
EXPLAINED_ROW: dict[str, Any] = {
    "wind": 2.0,
    "gusts": 2.0,
    "city": "Oslo",
    "note": "a storm, and another storm",
    "time": NOON.replace(hour=18),
    "seats": 150,
    "is_full": True,
    "height": 3.0,
    "width": -3.0,
    "depth": 3.0,
}
CLASSES = {"binary": ["no", "yes"], "multiclass": ["low", "middle", "high"], "regression": []}


def explained_subject(
    task: str, watch: Callable[[pl.DataFrame], None] = lambda rows: None
) -> Subject:
    """Return a model that uses five of ten columns, `wind` as it uses `gusts`.

    Args:
        task: Of its contract.
        watch: Called with the rows of each prediction.
    """
    data = Data.model_validate(
        {
            "source": "x.csv",
            "target": "y",
            "task": task,
            "classes": CLASSES[task],
            "split": {"by": "stratified"},
            "columns": EXPLAINED | {"y": {"type": "category" if CLASSES[task] else "number"}},
        }
    ).for_predicting()
    random = np.random.default_rng(0)
    n = BACKGROUND_ROWS
    speeds = np.sort(random.normal(size=n))
    times = [NOON.replace(hour=int(hour)) for hour in random.integers(0, 24, n)]
    background = pl.DataFrame(
        {
            # The same values with equal frequency, so that both columns are worth the same.
            "wind": random.permutation(speeds),
            "gusts": random.permutation(speeds),
            "city": pl.Series(random.choice(["Oslo", "Rome"], n), dtype=pl.Enum(["Oslo", "Rome"])),
            "note": [""] * n,
            "time": pl.Series(times, dtype=pl.Datetime("us")),
            "seats": random.integers(50, 400, n),
            "is_full": random.random(n) < 0.5,
            "height": random.normal(size=n),
            "width": random.normal(size=n),
            "depth": random.normal(size=n),
        }
    )

    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        watch(rows)
        value = rows.select(
            pl.col("wind").fill_null(1.0)
            + pl.col("gusts").fill_null(1.0)
            + pl.col("city").cast(pl.String).replace_strict({"Oslo": 1.0}, default=0.0)
            + pl.col("note").fill_null("").str.count_matches("storm")
            + pl.col("time").dt.hour() / 12
        ).to_series()
        values = value.to_numpy()
        if task == "regression":
            return values
        positive = 1 / (1 + np.exp(2 - values))
        if task == "binary":
            return np.column_stack([1 - positive, positive])
        return np.column_stack([(1 - positive) / 2, (1 - positive) / 2, positive])

    return Subject(predict, background, data)


class ExplainerContract:
    """Inherit it, and give the fixture `open_explainer`, the function of the adapter.

    Attributes:
        tolerance: How far contributions may be from what they should be, relative to how far the
            prediction is from the base value.
    """

    tolerance = 1e-6

    @pytest.fixture
    def open_explainer(self) -> Callable[[Subject], Explainer]:
        raise NotImplementedError("give a fixture open_explainer: see ExplainerContract")

    @pytest.mark.parametrize("task", list(CLASSES))
    def test_contributions_and_base_value_add_up_to_the_prediction(
        self, open_explainer: Callable[[Subject], Explainer], task: str
    ) -> None:
        subject = explained_subject(task)
        explanation = _explanation(open_explainer, subject)
        predicted = subject.outputs(_row(subject))[0, -1]
        total = sum(explanation.contributions.values()) + explanation.remainder
        assert explanation.base_value + total == pytest.approx(predicted, abs=1e-9)
        assert explanation.class_ == (CLASSES[task][-1] if CLASSES[task] else None)
        assert list(explanation.contributions) == list(EXPLAINED)

    def test_a_column_that_the_model_does_not_use_gets_nothing(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("binary"))
        allowed = self.tolerance * _spread(explanation)
        assert max(abs(explanation.contributions[name]) for name in UNUSED) <= allowed

    def test_columns_that_the_model_uses_alike_get_the_same(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("regression"))
        difference = explanation.contributions["wind"] - explanation.contributions["gusts"]
        assert abs(difference) <= self.tolerance * _spread(explanation)

    def test_what_drives_a_prediction_is_found(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("regression"))
        ranked = sorted(explanation.contributions, key=_size(explanation), reverse=True)
        assert set(ranked[:5]) == set(EXPLAINED) - set(UNUSED)
        assert min(explanation.contributions[name] for name in ranked[:5]) > 0

    def test_the_same_question_gets_the_same_answer(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        subject = explained_subject("binary")
        explainer = open_explainer(subject)
        first = explain(explainer, subject, _row(subject))
        explain(explainer, subject, _row(subject, wind=None))
        assert explain(explainer, subject, _row(subject)) == first
        assert _explanation(open_explainer, explained_subject("binary")) == first

    def test_gaps_and_categories_that_nobody_listed_are_explained(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        subject = explained_subject("regression")
        row = _row(subject, wind=None, city="Paris", note=None)
        explanation = explain(open_explainer(subject), subject, row)
        assert np.isfinite(list(explanation.contributions.values())).all()
        assert explanation.contributions["city"] < 0
        assert explanation.contributions["wind"] > 0

    def test_a_time_limit_is_kept(self, open_explainer: Callable[[Subject], Explainer]) -> None:
        subject = explained_subject("binary")
        explainer = open_explainer(subject)
        with pytest.raises(TooLate):
            explain(explainer, subject, _row(subject), time.monotonic() - 1)

    def test_a_model_that_is_slow_is_not_asked_again_once_the_time_is_over(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        deadline = float("inf")
        late: list[int] = []  # rows of each prediction that began after the deadline

        def watch(rows: pl.DataFrame) -> None:
            if time.monotonic() > deadline:
                late.append(len(rows))
            while len(rows) > 1 and time.monotonic() <= deadline != float("inf"):
                time.sleep(0.01)

        subject = explained_subject("binary", watch)
        explainer = open_explainer(subject)
        assert subject.base_predictions.size
        deadline = time.monotonic() + 0.1
        with pytest.raises(TooLate):
            explain(explainer, subject, _row(subject), deadline)
        assert late == []


def _row(subject: Subject, **changes: Any) -> pl.DataFrame:
    """Return the row that is explained, as `Model.read` returns it."""
    schema = dict(subject.background.schema) | {"city": pl.String()}
    return pl.DataFrame([EXPLAINED_ROW | changes], schema)


def _explanation(open_explainer: Callable[[Subject], Explainer], subject: Subject) -> Explanation:
    return explain(open_explainer(subject), subject, _row(subject))


def _spread(explanation: Explanation) -> float:
    return abs(sum(explanation.contributions.values()))


def _size(explanation: Explanation) -> Callable[[str], float]:
    return lambda name: abs(explanation.contributions[name])
