"""Controls: contract and gate are fed what they must refuse, and what they must accept."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from .. import config as project_config
from ..config import (
    METRICS,
    Column,
    Config,
    Data,
    Fairness,
    Gate,
    Model,
    Split,
    Task,
)
from ..pipeline.calibration import calibration
from ..pipeline.evaluate import judge
from ..pipeline.gate import LEAKS, calibration_checks, decide
from ..pipeline.gate_text import notes
from ..pipeline.ingest import typed
from ..pipeline.leaks import features_that_predict_alone, leaks
from ..pipeline.metrics import Floats
from ..pipeline.split import split
from ..pipeline.validate import check
from ..records import (
    Baseline,
    Baselines,
    BestComparison,
    Calibration,
    Champion,
    Check,
    Compared,
    ComparedSlice,
    Comparison,
    Incomparable,
    Interval,
    Leaks,
    MetricsDocument,
    ModelFacts,
    NotCompared,
    Rarest,
    Recipes,
    Scores,
    Slice,
)

START = datetime(2024, 1, 1)
ROWS = 400
DATA = Data(
    source="data/raw/control.csv",
    target="late",
    task="binary",
    classes=["false", "true"],
    split=Split(by="time", column="when"),
    keys=["id"],
    time="when",
    max_age_days=30,
    min_rows=100,
    columns={
        "id": Column(type="integer"),
        "when": Column(type="datetime", formats=["%Y-%m-%dT%H:%M"]),
        "seats": Column(type="number", nullable=True, min=0, max=500),
        "origin": Column(type="category", categories=["EWR", "JFK"]),
        "late": Column(type="boolean"),
    },
)
CLEAN = pl.DataFrame(
    {
        "id": [str(n) for n in range(ROWS)],
        "when": [(START + timedelta(hours=n)).strftime("%Y-%m-%dT%H:%M") for n in range(ROWS)],
        "seats": ["" if n % 7 == 0 else str(n % 300) for n in range(ROWS)],
        "origin": ["EWR", "JFK"] * (ROWS // 2),
        "late": ["true", "false", "false", "true"] * (ROWS // 4),
    }
)
NOW = START + timedelta(hours=ROWS)
EVERY_TENTH = pl.int_range(pl.len()) % 10 == 0

REFUSED: dict[str, tuple[pl.DataFrame, str | None, str, int]] = {
    "a column is missing": (CLEAN.drop("seats"), "seats", "missing column", 1),
    "a column is extra": (CLEAN.with_columns(new=pl.lit("1")), "new", "extra column", 1),
    "a number is text": (
        CLEAN.with_columns(seats=pl.when(EVERY_TENTH).then(pl.lit("many")).otherwise("seats")),
        "seats",
        "not of type number",
        40,
    ),
    "a date is another format": (
        CLEAN.with_columns(when=pl.when(EVERY_TENTH).then(pl.lit("1/2/24")).otherwise("when")),
        "when",
        "not of type datetime",
        40,
    ),
    "a value is null": (
        CLEAN.with_columns(origin=pl.when(EVERY_TENTH).then(pl.lit("")).otherwise("origin")),
        "origin",
        "null",
        40,
    ),
    "a value is too low": (CLEAN.with_columns(seats=pl.lit("-1")), "seats", "below 0", ROWS),
    "a value is too high": (CLEAN.with_columns(seats=pl.lit("501")), "seats", "above 500", ROWS),
    "a category is new": (
        CLEAN.with_columns(origin=pl.when(EVERY_TENTH).then(pl.lit("LGA")).otherwise("origin")),
        "origin",
        "new category",
        40,
    ),
    "a key stands twice": (CLEAN.vstack(CLEAN.head(1)), None, "duplicate key", 2),
    "there are too few rows": (CLEAN.head(99), None, "too few rows", 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_contract_refuses_when(case: str) -> None:
    rows, column, rule, count = REFUSED[case]
    document = check(typed(rows, DATA), DATA, NOW)
    assert document["verdict"] == "refused"
    failures = [(f["column"], f["rule"], f["count"]) for f in document["failures"]]
    assert failures == [(column, rule, count)]
    assert all(failure["samples"] for failure in document["failures"])


def test_the_contract_refuses_when_the_newest_row_is_stale() -> None:
    document = check(typed(CLEAN, DATA), DATA, NOW + timedelta(days=31))
    assert [failure["rule"] for failure in document["failures"]] == ["stale newest row"]


def test_the_contract_accepts_clean_rows() -> None:
    document = check(typed(CLEAN, DATA), DATA, NOW)
    assert document["verdict"] == "passed"
    assert set(document["columns"]) == set(DATA.columns)


def test_a_split_by_time_trains_on_nothing_from_the_future() -> None:
    train, holdout = split(typed(CLEAN, DATA), DATA)
    assert train["when"].max() < holdout["when"].min()  # type: ignore[operator]
    assert leaks(train, holdout, DATA) == {"rows": 0, "future": 0, "encodings": 0}


def test_a_leaked_split_is_counted() -> None:
    train, holdout = split(typed(CLEAN, DATA), DATA)
    leaked = leaks(train.vstack(holdout.head(5)), holdout, DATA)
    assert leaked == {"rows": 5, "future": 5, "encodings": 0}


def unkeyed(rows: pl.DataFrame, **columns: Column) -> Data:
    """The contract of these rows, split at random, without keys or times."""
    known = {name: DATA.columns[name] for name in ("seats", "origin", "late")} | columns
    plain = {"split": Split(by="stratified"), "keys": [], "time": None, "max_age_days": None}
    named = {name: column for name, column in known.items() if name in rows.columns}
    return DATA.model_copy(update={**plain, "columns": named})


def test_copied_rows_and_an_encoded_target_are_counted() -> None:
    draw = np.random.default_rng(0)
    late = draw.random(2_000) < 0.3
    place = draw.integers(0, 60, 2_000)
    mean = np.bincount(place, late) / np.bincount(place)
    number = Column(type="number")
    rows = pl.DataFrame({"x": draw.normal(size=2_000), "late": late})
    clean = unkeyed(rows, x=number)
    assert leaks(*split(rows, clean), clean) == {"rows": 0, "encodings": 0}
    copied = rows.vstack(rows.head(800))
    assert leaks(*split(copied, clean), clean)["rows"] > 0
    rows = rows.with_columns(rate=mean[place])
    encoded = unkeyed(rows, x=number, rate=number)
    assert leaks(*split(rows, encoded), encoded)["encodings"] == 1


def test_a_column_that_knows_the_target_is_named_and_no_other() -> None:
    draw = np.random.default_rng(0)
    late = draw.random(1_000) < 0.3
    hours = late * 3 + draw.random(1_000)
    rows = pl.DataFrame({"hours": hours, "x": late + draw.normal(size=1_000), "late": late})
    data = unkeyed(rows, hours=Column(type="number"), x=Column(type="number"))
    assert features_that_predict_alone(rows, data) == ["hours"]


GATE = Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
HELD = 3_000
RANDOM = np.random.default_rng(0)
SIGNAL, NOISE = RANDOM.normal(size=(2, HELD))
PLACE = np.where(np.arange(HELD) % 5 == 0, "small", "large")
BOUND = {"binary": 0.7, "multiclass": 0.9, "regression": 1.2}


def truth(task: Task) -> Floats:
    if task == "regression":
        return np.asarray(2 * SIGNAL + 0.5 * NOISE)
    edges = [0.0] if task == "binary" else [-0.6, 0.6]
    return np.asarray(np.searchsorted(edges, SIGNAL + 0.3 * NOISE), dtype=np.float64)


def honest(task: Task) -> Floats:
    """What a good model says: close to the truth, as sure as it may be."""
    if task == "regression":
        return np.asarray(2 * SIGNAL)
    edges = [0.0] if task == "binary" else [-0.6, 0.6]
    below = [1 / (1 + np.exp(-(edge - SIGNAL) / 0.17)) for edge in edges]
    return np.diff(np.column_stack([np.zeros(HELD), *below, np.ones(HELD)]), axis=1)


def constant(task: Task) -> Floats:
    known = truth(task)
    if task == "regression":
        return np.full(HELD, known.mean())
    return np.tile(np.bincount(known.astype(int)) / HELD, (HELD, 1))


def model_facts(
    megabytes: float = 1.0, latency_ms: float = 5.0, yardstick_ms: float | None = None
) -> ModelFacts:
    digest = f"sha256:{'0' * 64}"
    return ModelFacts(
        digest=digest, megabytes=megabytes, latency_ms=latency_ms, yardstick_ms=yardstick_ms
    )


def metrics_document(scores: Scores, **changes: Any) -> MetricsDocument:
    """The document of a small and fast model that leaks nothing, with some changes."""
    rest = {"importance": [], "leaks": Leaks(rows=0), "model": model_facts()}
    return MetricsDocument(**dict(scores) | rest | changes)


def verdicts(
    task: Task,
    y_pred: Floats,
    linear: Floats | None = None,
    comparison: Comparison | None = None,
    **changes: Any,
) -> dict[str, str]:
    """The gate's verdict on every check, by its id."""
    metric = METRICS[task][0]
    gate = Gate(metric=metric, thresholds={metric: BOUND[task]}, slice_rows=100, slice_skill=0.2)
    classes = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": []}[task]
    kind = Column(type="number") if task == "regression" else Column(type="category")
    data = Data(
        source="control.csv",
        target="target",
        task=task,
        classes=classes,
        split=Split(by="stratified"),
        columns={"place": Column(type="category"), "target": kind},
    )
    others = {"constant": constant(task), "linear": constant(task) if linear is None else linear}
    config = Config(data=data, model=Model(), gate=gate)
    scores = judge(truth(task), y_pred, others, pl.DataFrame({"place": PLACE}), config)
    checks = decide(metrics_document(scores, **changes), gate, comparison)
    return verdicts_by_id(checks)


def verdicts_by_id(checks: list[Check]) -> dict[str, str]:
    by_id: dict[str, str] = {check.id or "": check.verdict for check in checks}
    assert len(by_id) == len(checks), "two checks have the same id"
    return by_id


def refused(by_check: dict[str, str]) -> set[str]:
    return {name for name, verdict in by_check.items() if verdict == "refused"}


TASKS: list[Task] = ["binary", "multiclass", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_a_good_model_passes_every_check(task: Task) -> None:
    by_check = verdicts(task, honest(task))
    assert len(by_check) == (9 if task == "regression" else 10)
    assert refused(by_check) == set()


@pytest.mark.parametrize("task", TASKS)
def test_a_constant_predictor_is_refused(task: Task) -> None:
    metric = METRICS[task][0]
    assert {f"threshold {metric}", "constant"} <= refused(verdicts(task, constant(task)))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_worse_than_a_linear_one_is_refused(task: Task) -> None:
    worse = 0.7 * honest(task) + 0.3 * constant(task)
    if task == "binary":  # what ranks the same has the same area under its curve
        worse[::4] = constant(task)[::4]
    assert "linear" in refused(verdicts(task, worse, linear=honest(task)))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_is_useless_on_one_slice_is_refused(task: Task) -> None:
    y_pred = honest(task)
    small = PLACE == "small"
    y_pred[small] = constant(task)[small]
    by_check = verdicts(task, y_pred)
    assert "slice" in refused(by_check)
    assert {by_check[f"threshold {METRICS[task][0]}"], by_check["constant"]} == {"passed"}


@pytest.mark.parametrize("task", TASKS)
def test_a_miscalibrated_model_is_refused(task: Task) -> None:
    y_pred = honest(task)
    if task == "regression":
        y_pred = y_pred + 0.4 * truth(task).std()
    else:  # far too unsure of itself, in the right order
        y_pred = 0.4 * y_pred + 0.6 / y_pred.shape[1]
    assert "calibration" in refused(verdicts(task, y_pred))


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        *[(f"leaks {kind}", {"leaks": Leaks(**{"rows": 0, kind: 3})}) for kind in LEAKS],
        ("alone", {"alone": ["hours"]}),
        ("size", {"model": model_facts(megabytes=21.0)}),
        ("latency", {"model": model_facts(latency_ms=51.0)}),
    ],
)
def test_a_leaked_an_oversized_and_a_slow_model_are_refused(
    check: str, changes: dict[str, Any]
) -> None:
    assert refused(verdicts("binary", honest("binary"), **changes)) == {check}


def test_a_slow_machine_does_not_make_a_model_slow() -> None:
    model = model_facts(latency_ms=51.0, yardstick_ms=2.0)
    assert refused(verdicts("binary", honest("binary"), model=model)) == set()
    model = model_facts(latency_ms=101.0, yardstick_ms=2.0)
    assert refused(verdicts("binary", honest("binary"), model=model)) == {"latency"}


def test_probabilities_that_are_wrong_for_a_rare_class_are_refused() -> None:
    rare = 0.03
    y = (np.arange(HELD) < rare * HELD).astype(float)

    def refused_at(share: float) -> set[str]:
        y_pred = np.tile([1 - share, share], (HELD, 1))
        checks = calibration_checks(calibration(y, y_pred, classes=["no", "yes"]), GATE)
        return refused(verdicts_by_id(checks))

    assert refused_at(rare) == set()
    assert "observed expected" in refused_at(3 * rare)
    assert "observed expected" in refused_at(rare / 3)


@pytest.mark.parametrize("high", [-0.7, None])
def test_a_slice_is_judged_only_where_it_has_an_interval(high: float | None) -> None:
    skill = Interval(value=-1.0, low=None, high=high)
    few = Slice(column="place", value="small", rows=100, metric=skill, skill=skill)
    by_check = verdicts("binary", honest("binary"), slices=[few])
    assert ("slice" in refused(by_check)) == (high is not None)


def test_few_rows_of_a_class_are_told_with_the_verdict() -> None:
    scores = a_threshold_is_met()

    def noted(rarest: Rarest | None) -> list[str]:
        return notes(metrics_document(scores, rarest=rarest))

    few = "note: the holdout has 9 rows of class yes, so the intervals mean little"
    assert noted(Rarest(class_="yes", rows=9)) == [few]
    assert noted(Rarest(class_="yes", rows=10)) == []
    assert noted(None) == []


# Two groups whose rows are the same, so that an honest model treats both alike.
GROUP = np.where(np.arange(HELD) < HELD // 2, "first", "second")
SURE = 0.999


def fairness_settings() -> Iterator[tuple[Task, Fairness]]:
    """Every criterion of each task, and what this project's gate asks for, on columns of ours."""
    selective = ["demographic_parity", "equal_opportunity", "predictive_equality", "equalized_odds"]
    limits: dict[Task, list[str]] = {
        "binary": [*selective, "calibration", "error_rate"],
        "multiclass": [*selective, "calibration", "error_rate"],
        "regression": ["demographic_parity", "calibration", "mean_absolute_error"],
    }
    for task, criteria in limits.items():
        content = {"columns": ["group"], "max_difference": dict.fromkeys(criteria, 0.2)}
        if task != "regression":
            content |= {"min_ratio": dict.fromkeys([*selective, "error_rate"], 0.5)}
        if task == "multiclass":
            content |= {"favorable": "a"}
        yield task, Fairness.model_validate(content)
    if project_config.GATE.exists():
        data = project_config.read(project_config.DATA, Data)
        own = project_config.read(project_config.GATE, Gate).fairness
        if own is not None:
            yield data.task, on_our_columns(own, data)


def on_our_columns(fairness: Fairness, data: Data) -> Fairness:
    """A project's settings, on the groups and classes that the controls have."""
    favorable = fairness.favorable
    if favorable is not None:
        is_binary = data.task == "binary"
        favorable = NAMES[data.task][data.classes.index(favorable) if is_binary else 0]
    ours: dict[str, Any] = {"columns": ["group"], "bands": {}, "favorable": favorable}
    return fairness.model_copy(update=ours)


NAMES: dict[Task, list[str]] = {
    "binary": ["no", "yes"],
    "multiclass": ["a", "b", "c"],
    "regression": [],
}


def twice(values: Floats) -> Floats:
    """The same rows in both groups."""
    return np.concatenate([values[: HELD // 2], values[: HELD // 2]])


def fairness_verdicts(task: Task, y_pred: Floats, fairness: Fairness) -> dict[str, str]:
    """The gate's verdict on every check of fairness, by its id."""
    kind = Column(type="number") if task == "regression" else Column(type="category")
    data = Data(
        source="control.csv",
        target="target",
        task=task,
        classes=NAMES[task],
        split=Split(by="stratified"),
        sensitive=["group"],
        columns={"x": Column(type="number"), "group": Column(type="category"), "target": kind},
    )
    metric = METRICS[task][0]
    gate = Gate(metric=metric, thresholds={metric: BOUND[task]}, fairness=fairness)
    config = Config(data=data, model=Model(), gate=gate)
    y_true = twice(truth(task))
    others = {"constant": constant(task), "linear": constant(task)}
    scores = judge(y_true, y_pred, others, pl.DataFrame({"group": GROUP}), config)
    checks = decide(metrics_document(scores), gate)
    by_id = verdicts_by_id(checks)
    return {name: verdict for name, verdict in by_id.items() if name.startswith("fairness")}


def one_sided(task: Task, fairness: Fairness) -> Floats:
    """What a model says that decides by the group: yes to the first, no to the second."""
    is_first = GROUP == "first"
    if task == "regression":
        limit = max(fairness.max_difference.values())
        return np.where(is_first, 1, -1) * (10 * limit + 10 * float(truth(task).std()))
    classes = NAMES[task]
    favorable = classes.index(fairness.favorable) if fairness.favorable else 1
    other = (favorable + 1) % len(classes)
    return certain(np.where(is_first, favorable, other), len(classes))


def wrong_for_one(task: Task) -> Floats:
    """What a model says that knows the first group, and has the labels of the second exchanged."""
    y_true = twice(truth(task))
    is_second = GROUP == "second"
    if task == "regression":
        return np.where(is_second, -100 * y_true, y_true)
    classes = len(NAMES[task])
    return certain((y_true.astype(int) + is_second) % classes, classes)


def certain(answers: NDArray[np.int64], classes: int) -> Floats:
    """Probabilities of a model that is sure of each answer."""
    rest = (1 - SURE) / (classes - 1)
    return np.where(np.arange(classes) == answers[:, None], SURE, rest)


def test_a_model_that_is_unfair_to_one_group_is_refused_by_every_limit() -> None:
    for task, fairness in fairness_settings():
        by_decision = fairness_verdicts(task, one_sided(task, fairness), fairness)
        by_errors = fairness_verdicts(task, wrong_for_one(task), fairness)
        assert by_decision
        assert refused(by_decision) | refused(by_errors) == set(by_decision), fairness


def test_a_model_that_treats_groups_alike_passes_every_limit() -> None:
    for task, fairness in fairness_settings():
        lenient = fairness.model_copy(update={"compare": "optimistic"})
        by_check = fairness_verdicts(task, twice(honest(task)), lenient)
        assert by_check
        assert refused(by_check) == set(), fairness


def interval(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


def a_threshold_is_met() -> Scores:
    over = Baseline(value=0.5, skill=interval(0.5, 0.3, 0.7))
    return Scores(
        task="binary",
        metric="roc_auc",
        rows=HELD,
        metrics={"roc_auc": interval(0.75, 0.65, 0.85)},
        baselines=Baselines(constant=over, linear=over),
        slices=[],
        calibration=Calibration(error=0.01, bins=[]),
        curves={},
    )


@pytest.mark.parametrize("judged", ["value", "pessimistic"])
def test_a_threshold_is_read_and_may_be_judged_by_the_worse_end(judged: str) -> None:
    settings = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.7}, "compare": judged}
    first, *_ = decide(metrics_document(a_threshold_is_met()), Gate.model_validate(settings))
    assert first.verdict == ("passed" if judged == "value" else "refused")


CHAMPION = Champion(
    version="1", package_digest=f"sha256:{'0' * 64}", model_digest=f"sha256:{'1' * 64}"
)


def verdicts_beside(comparison: Comparison) -> dict[str, str]:
    """The gate's verdicts on a good model that was compared with a champion, from level 1."""
    return verdicts("binary", honest("binary"), comparison=comparison)


def compared(**changes: Any) -> dict[str, str]:
    comparison = Compared(
        kind="compared",
        champion=CHAMPION,
        tolerance=0.05,
        replaces=None,
        metric="roc_auc",
        confidence=0.9,
        challenger=interval(0.75, 0.7, 0.8),
        own=interval(0.75, 0.7, 0.8),
        skill=interval(0.0, -0.02, 0.02),
        slices=[],
    )
    return verdicts_beside(comparison.model_copy(update=changes))


@pytest.mark.parametrize(
    "comparison",
    [NotCompared(kind="first", champion=None), NotCompared(kind="same", champion=CHAMPION)],
    ids=["first", "same"],
)
def test_a_first_and_an_identical_model_are_accepted(comparison: Comparison) -> None:
    assert refused(verdicts_beside(comparison)) == set()


def test_an_equally_good_model_is_accepted() -> None:
    assert refused(compared()) == set()


def test_a_model_that_may_have_lost_more_than_the_tolerance_is_refused() -> None:
    worse = interval(-0.04, -0.06, -0.02)
    assert refused(compared(skill=worse)) == {"champion"}


def test_a_model_that_surely_lost_on_a_slice_is_refused() -> None:
    lost = interval(-0.2, -0.3, -0.1)
    slices = [ComparedSlice(column="place", value="small", rows=600, skill=lost)]
    assert refused(compared(slices=slices)) == {"champion slice"}


OPEN = interval(-0.02, -0.12, 0.08)  # what few rows leave undecided


@pytest.mark.parametrize(
    ("low", "verdict"),
    [(-0.01, set()), (-0.06, {"champion recipe"})],
)
def test_what_the_holdout_leaves_open_is_decided_by_the_recipes(
    low: float, verdict: set[str]
) -> None:
    recipes = Recipes(skill=interval(0.0, low, 0.05), rows=HELD)
    assert refused(compared(skill=OPEN, recipes=recipes)) == verdict


def test_a_model_that_is_surely_worse_is_refused_whatever_its_recipe() -> None:
    worse = interval(-0.1, -0.14, -0.06)
    recipes = Recipes(skill=interval(0.0, -0.01, 0.01), rows=HELD)
    assert refused(compared(skill=worse, recipes=recipes)) == {"champion"}


def test_a_model_that_fell_behind_the_best_champion_so_far_is_refused() -> None:
    earlier = CHAMPION.model_copy(update={"version": "0"})
    worse = BestComparison(champion=earlier, skill=interval(-0.07, -0.09, -0.05), unseen=HELD)
    assert refused(compared(best=worse)) == {"best champion"}
    equal = BestComparison(champion=earlier, skill=interval(-0.02, -0.01, 0.08), unseen=HELD)
    assert refused(compared(best=equal)) == set()


@pytest.mark.parametrize("kind", ["unreadable", "unrecognised", "seen"])
def test_a_champion_that_cannot_be_compared_with_is_replaced_by_name_only(
    kind: Literal["unreadable", "unrecognised", "seen"],
) -> None:
    def incomparable(replaces: str | None) -> dict[str, str]:
        comparison = Incomparable(
            kind=kind,
            champion=CHAMPION,
            tolerance=0.05,
            replaces=replaces,
            reason="it is another model",
        )
        return verdicts_beside(comparison)

    assert refused(incomparable(None)) != set()
    assert refused(incomparable("2")) != set()
    assert refused(incomparable("1")) == set()
