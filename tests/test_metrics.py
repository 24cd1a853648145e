"""The numbers that judge a model are what the field means by their names."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sk

Module = Callable[[str], ModuleType]
quick = settings(deadline=None)
# Tenths, so that ties are common; 0 and 1 among them, where a logarithm has no value.
SHARES = hnp.arrays(
    np.float64, st.integers(2, 60), elements=st.sampled_from([n / 10 for n in range(11)])
)


@st.composite
def labels_and_probabilities(draw: st.DrawFn, classes: int) -> tuple[Any, Any]:
    """Class indices, of which each is there, and probabilities with ties."""
    shape = (draw(st.integers(classes, 60)), classes)
    weights = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 4).map(float)))
    weights[weights.sum(axis=1) == 0] = 1.0
    drawn = draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, classes - 1)))
    drawn[:classes] = range(classes)
    return drawn, weights / weights.sum(axis=1, keepdims=True)


BINARY: dict[str, Callable[[Any, Any], float]] = {
    "roc_auc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, p: sk.average_precision_score(y, p[:, 1]),
    "brier": lambda y, p: sk.brier_score_loss(y, p[:, 1]),
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(axis=1)),
    "log_loss": lambda y, p: sk.log_loss(y, np.clip(p, 1e-15, 1)),
}
MULTICLASS = {name: BINARY[name] for name in ("accuracy", "log_loss")} | {
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(axis=1), average="macro")
}
REGRESSION = {
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": sk.r2_score,
}


@pytest.mark.parametrize("name", BINARY)
@quick
@given(case=labels_and_probabilities(2))
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum")
def test_of_two_classes_it_is_scikit_learns(module: Module, name: str, case: Any) -> None:
    score = module("pipeline.metrics").SCORES[name](*case)
    assert score == pytest.approx(BINARY[name](*case), abs=1e-9)


@pytest.mark.parametrize("name", MULTICLASS)
@quick
@given(case=labels_and_probabilities(4))
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum")
def test_of_four_classes_it_is_scikit_learns(module: Module, name: str, case: Any) -> None:
    score = module("pipeline.metrics").SCORES[name](*case)
    assert score == pytest.approx(MULTICLASS[name](*case), abs=1e-9)


@pytest.mark.parametrize("name", REGRESSION)
@quick
@given(y=SHARES, seed=st.integers(0, 99))
def test_of_numbers_it_is_scikit_learns(module: Module, name: str, y: Any, seed: int) -> None:
    p = y + np.random.default_rng(seed).normal(size=len(y))
    score = module("pipeline.metrics").SCORES[name](y, p)
    if name == "r2" and np.ptp(y) == 0:
        assert np.isnan(score)
    else:
        assert score == pytest.approx(REGRESSION[name](y, p), abs=1e-9, rel=1e-6)


def test_with_one_class_only_what_ranks_has_no_value(module: Module) -> None:
    scores = module("pipeline.metrics").SCORES
    y = np.zeros(5)
    p = np.full((5, 2), 0.5)
    assert np.isnan(scores["roc_auc"](y, p))
    assert np.isnan(scores["roc_auc"](y + 1, p))
    assert np.isnan(scores["average_precision"](y, p))
    assert scores["brier"](y, p) == 0.25


@pytest.mark.parametrize(("metric", "best"), [("roc_auc", 1.0), ("rmse", 0.0), ("log_loss", 0.0)])
@quick
@given(reference=st.floats(0.1, 0.9), step=st.floats(0.001, 0.05))
def test_skill_is_0_at_the_reference_1_at_the_best_and_grows_towards_it(
    module: Module, metric: str, best: float, reference: float, step: float
) -> None:
    skill = module("pipeline.metrics").skill
    better = np.sign(best - reference) * step
    assert skill(metric, reference, reference) == 0
    assert skill(metric, best, reference) == pytest.approx(1)
    assert (
        skill(metric, reference - better, reference)
        < 0
        < skill(metric, reference + better, reference)
    )


@pytest.mark.parametrize(("metric", "best"), [("roc_auc", 1.0), ("rmse", 0.0), ("log_loss", 0.0)])
def test_as_good_as_a_perfect_reference_is_skill_0_and_worse_is_below(
    module: Module, metric: str, best: float
) -> None:
    skill = module("pipeline.metrics").skill
    assert skill(metric, best, best) == 0
    assert skill(metric, best, best, 0.5) == 0
    assert skill(metric, abs(best - 0.01), best) == -1
    assert -1 < skill(metric, abs(best - 0.01), best, 0.5) < 0
    assert np.isnan(skill(metric, np.nan, best))
    assert np.isnan(skill(metric, best, np.nan))


def test_next_to_a_nearly_perfect_reference_a_little_is_little(module: Module) -> None:
    metrics = module("pipeline.metrics")
    assert metrics.skill("roc_auc", 0.9998, 0.9999) == pytest.approx(-1)
    assert metrics.skill("roc_auc", 0.9998, 0.9999, 0.5) == pytest.approx(-0.004)
    # Away from perfection the floor changes nothing.
    assert metrics.skill("roc_auc", 0.7, 0.75, 0.5) == metrics.skill("roc_auc", 0.7, 0.75)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e149])
def test_skill_has_no_unit(module: Module, scale: float) -> None:
    metrics = module("pipeline.metrics")
    y = scale * np.array([1.0, 2.0, 3.0, 4.0])
    span = metrics.span("rmse", y)
    rmse = metrics.SCORES["rmse"](y, 1.1 * y)
    assert span == pytest.approx(scale * np.std([1, 2, 3, 4]))
    assert metrics.skill("rmse", rmse, span, span) == pytest.approx(1 - rmse / span)
    assert metrics.skill("rmse", 1e-9 * scale, 0.0, span) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", [*BINARY, "macro_f1"])
@settings(max_examples=40, deadline=None)
@given(case=labels_and_probabilities(2), seed=st.integers(0, 99))
def test_of_resampled_classes_it_is_scikit_learns_of_the_rows_repeated(
    module: Module, metric: str, case: Any, seed: int
) -> None:
    y, p = case
    times = np.random.default_rng(seed).poisson(1.0, (len(y), 3))
    scores = module("pipeline.metrics").weighted(metric, y, p)(times.astype(np.float32))
    for counts, value in zip(times.T, scores, strict=True):
        rows = np.repeat(np.arange(len(y)), counts)
        if len(np.unique(y[rows])) == 2:
            expected = module("pipeline.metrics").SCORES[metric](y[rows], p[rows])
            assert value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", REGRESSION)
@settings(max_examples=40, deadline=None)
@given(y=SHARES, seed=st.integers(0, 99))
def test_of_resampled_numbers_it_is_scikit_learns_of_the_rows_repeated(
    module: Module, metric: str, y: Any, seed: int
) -> None:
    random = np.random.default_rng(seed)
    p = y + random.normal(size=len(y))
    times = random.poisson(1.0, (len(y), 3))
    scores = module("pipeline.metrics").weighted(metric, y, p)(times.astype(np.float64))
    for counts, value in zip(times.T, scores, strict=True):
        rows = np.repeat(np.arange(len(y)), counts)
        if len(rows) and np.ptp(y[rows]) > 0:
            assert value == pytest.approx(REGRESSION[metric](y[rows], p[rows]), rel=1e-6, abs=1e-9)


# --- intervals -------------------------------------------------------------------------------


def interval(module: Module, values: Any, **options: Any) -> dict[str, float]:
    """The interval of a mean."""
    gate = module("config").Gate(metric="mae", thresholds={"mae": 1.0}, **options)
    mean_interval: dict[str, float] = module("pipeline.intervals").bootstrap(
        lambda rows: [values[rows].mean()], len(values), gate
    )[0]
    return mean_interval


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([30, 500, 8_000]))
def test_an_interval_holds_its_value_and_is_the_same_each_time(
    module: Module, seed: int, n: int
) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    ends = interval(module, values)
    assert ends["low"] <= ends["value"] <= ends["high"]
    assert ends["value"] == values.mean()
    assert ends == interval(module, values)


def test_an_interval_shrinks_with_the_root_of_the_rows_and_grows_with_confidence(
    module: Module,
) -> None:
    values = np.random.default_rng(0).normal(size=80_000)

    def width(n: int, **options: Any) -> float:
        ends = interval(module, values[:n], resamples=400, **options)
        return ends["high"] - ends["low"]

    for n in (200, 800, 5_000, 20_000):  # beyond 2,000 fewer rows are drawn, and it is scaled
        assert width(n) / width(4 * n) == pytest.approx(2, rel=0.25)
        assert width(n) == pytest.approx(2 * 1.96 / n**0.5, rel=0.2)
    assert width(500, confidence=0.8) < width(500, confidence=0.95) < width(500, confidence=0.99)


@pytest.mark.parametrize("n", [300, 6_000])
def test_an_interval_holds_the_truth_about_as_often_as_it_says(module: Module, n: int) -> None:
    seed = 20260
    print("seed", seed)
    random = np.random.default_rng(seed)
    trials = 200
    hits = 0
    for _ in range(trials):
        ends = interval(module, random.exponential(size=n), confidence=0.9)
        hits += ends["low"] <= 1 <= ends["high"]
    assert 0.83 < hits / trials < 0.96


@pytest.mark.parametrize("n", [4, 10, 30])
def test_an_interval_of_few_rows_is_as_wide_as_students(module: Module, n: int) -> None:
    values = stats.norm.ppf((np.arange(n) + 0.5) / n)
    ends = interval(module, values, resamples=20_000)
    expected = 2 * stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    # Beyond what four rows can be drawn to there is nothing.
    most = 2 * values.max()
    assert ends["high"] - ends["low"] == pytest.approx(min(expected, most), rel=0.05)


def test_of_39_resamples_one_in_forty_lies_beyond_each_end(module: Module) -> None:
    deviations = np.random.default_rng(0).permutation(np.arange(39.0))
    ends = module("pipeline.intervals").percentile_interval(1.0, deviations, 10**9, 0.95)
    assert (ends["low"], ends["high"]) == pytest.approx((1, 39), abs=1e-6)


def test_what_decides_on_a_metric_are_the_rows_outside_of_the_most_frequent_class(
    module: Module,
) -> None:
    effective_rows = module("pipeline.intervals").effective_rows
    assert effective_rows(np.repeat([0, 1], [30, 970]), 2) == 30
    assert effective_rows(np.repeat([0, 1, 2], [500, 300, 1]), 3) == 301
    assert effective_rows(np.zeros(20), 2) == 0
    assert effective_rows(np.zeros(20), 0) == 20


def test_the_interval_of_roc_auc_holds_the_truth_with_12_positives(module: Module) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    n = 150
    shift = 1.2
    truth = stats.norm.cdf(shift / 2**0.5)
    y = (np.arange(n) < 12).astype(int)
    held = []
    for _ in range(300):
        score = stats.norm.cdf(random.normal(size=n) + shift * y)
        resampled = resampler(module, y).score("roc_auc", np.column_stack([1 - score, score]))
        ends = resampled.interval(0.95)
        held.append(ends["low"] <= truth <= ends["high"])
    assert np.mean(held) >= 0.93


def test_a_number_that_is_not_defined_has_no_interval(module: Module) -> None:
    nothing = {"value": None, "low": None, "high": None}
    assert interval(module, np.full(60, np.nan)) == nothing


def resampler(module: Module, y: Any, metric: str = "roc_auc", classes: int = 2) -> Any:
    gate = module("config").Gate(metric=metric, thresholds={metric: 0.5})
    return module("pipeline.resampling").Resampler(y, metric, classes, gate)


@pytest.mark.parametrize("groups", [10, 40])
def test_rows_of_one_group_are_evidence_of_one(module: Module, groups: int) -> None:
    """Noise that is alike within groups is surely better than nothing in 2.5 % of trials at most.

    Row by row it is in a quarter of them.
    """
    wins = {"groups": 0, "rows": 0}
    trials = 120
    for seed in range(trials):
        random = np.random.default_rng(seed)
        whose = np.repeat(np.arange(groups), 8)
        y = (random.permutation(groups) < groups / 2)[whose].astype(float)
        chance = 1 / (1 + np.exp(-random.normal(size=groups)[whose]))
        p = np.column_stack([1 - chance, chance])
        for unit in wins:
            gate = module("config").Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
            own = whose if unit == "groups" else None
            drawn = module("pipeline.resampling").Resampler(y, "roc_auc", 2, gate, own)
            low = drawn.skill(p, np.full_like(p, 0.5)).interval(0.95)["low"]
            wins[unit] += low > 0
    print("seeds 0 to", trials - 1, wins)
    assert wins["groups"] <= 0.06 * trials
    assert wins["rows"] >= 0.15 * trials


def test_many_groups_are_thinned_by_whole_groups_and_cost_no_width(module: Module) -> None:
    random = np.random.default_rng(3)
    whose = np.repeat(np.arange(3_000), 4)
    y = random.normal(size=3_000)[whose]
    gate = module("config").Gate(metric="mae", thresholds={"mae": 1})
    drawn = module("pipeline.resampling").Resampler(y, "mae", 0, gate, whose)
    assert len(drawn.whole.rows) == 4_000
    assert len(np.unique(whose[drawn.whole.rows])) == 1_000
    score = drawn.score("mae", np.zeros(12_000))
    alone = np.abs(y[::4]).std() / 3_000**0.5
    assert score.deviations.std() == pytest.approx(alone, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rare"), [(400, 0.3), (20_000, 0.3), (20_000, 0.02)])
def test_a_resampled_metric_is_as_wide_as_that_of_new_rows(
    module: Module, n: int, rare: float
) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    values = []
    widths = []
    for _ in range(25):
        y = (random.random(n) < rare).astype(int)
        score = 1 / (1 + np.exp(-(random.normal(size=n) + 1.2 * y)))
        resampled = resampler(module, y).score("roc_auc", np.column_stack([1 - score, score]))
        interval = resampled.interval(0.95)
        values.append(resampled.value)
        widths.append(interval["high"] - interval["low"])
    # Thinned rows may make an interval wider than it need be, never narrower.
    assert 0.7 < np.mean(widths) / (2 * 1.96 * np.std(values)) < 1.5


def rmse_interval(module: Module, random: Any, *, skewed: bool) -> dict[str, float]:
    """Return the interval of 300 rows; the true RMSE is 1."""
    error = random.normal(size=300)
    if skewed:  # lognormal, less its mean, in its standard deviations
        error = (np.exp(error) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    y = np.arange(300.0)
    score = resampler(module, y, "rmse", 0).score("rmse", y - error)
    ends: dict[str, float] = score.interval(0.95)
    return ends


def test_the_interval_of_rmse_holds_the_truth_where_errors_are_skewed(module: Module) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    intervals = [rmse_interval(module, random, skewed=True) for _ in range(60)]
    assert np.mean([ends["low"] <= 1 <= ends["high"] for ends in intervals]) >= 0.88


def test_and_is_hardly_wider_where_they_are_normal(module: Module) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    intervals = [rmse_interval(module, random, skewed=False) for _ in range(40)]
    assert np.mean([ends["low"] <= 1 <= ends["high"] for ends in intervals]) >= 0.85
    width = np.mean([ends["high"] - ends["low"] for ends in intervals])
    assert width == pytest.approx(2 * 1.96 / (2 * 300) ** 0.5, rel=0.2)


@pytest.mark.parametrize("error", [0.0, 1.0, 1e-300, 1e140])
def test_of_equal_errors_the_interval_is_that_error(module: Module, error: float) -> None:
    y = np.arange(100) * max(error, 1.0)
    for name in ("rmse", "mae"):
        ends = resampler(module, y, name, 0).score(name, y + error).interval(0.95)
        assert ends["low"] == pytest.approx(error, rel=1e-5, abs=1e-9)
        assert ends["high"] == pytest.approx(error, rel=1e-5, abs=1e-9)


def test_a_metric_is_the_same_after_a_skill_that_needs_it(module: Module) -> None:
    random = np.random.default_rng(0)
    y = (random.random(300) < 0.4).astype(float)
    ours, theirs = (np.column_stack([1 - p, p]) for p in random.random((2, 300)))
    after_skill = resampler(module, y)
    for rows in (np.arange(200), np.arange(100, 300)):
        after_skill.skill(ours, theirs, rows)
        alone = resampler(module, y)
        alone.counts(np.arange(200))  # the same draws, as these came first
        for metric, y_pred in (("roc_auc", ours), ("roc_auc", theirs), ("brier", ours)):
            same = alone.score(metric, y_pred, rows).interval(0.95)
            assert after_skill.score(metric, y_pred, rows).interval(0.95) == same


def sliced(module: Module, random: Any, n: int, slices: int, ruined: bool) -> list[Any]:
    """Compare two equally good models in slices; one of them may know nothing of the first."""
    truth = random.normal(size=n)
    y = (random.random(n) < 1 / (1 + np.exp(-2 * truth))).astype(int)
    parts = np.array_split(np.arange(n), slices)
    ours, theirs = (1 / (1 + np.exp(-(2 * truth + random.normal(size=n)))) for _ in range(2))
    if ruined:
        ours[parts[0]] = random.permutation(ours[parts[0]])
    both = (np.column_stack([1 - p, p]) for p in (ours, theirs))
    intervals: list[Any] = module("pipeline.resampling").simultaneous_intervals(
        resampler(module, y), *both, parts, 0.95
    )
    return intervals


@pytest.mark.slow
def test_of_twenty_equal_slices_none_is_surely_worse_and_a_ruined_one_is(module: Module) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    trials = 20
    wrong = sum(
        min(part["high"] for part in sliced(module, random, 3_000, 20, ruined=False)) < 0
        for _ in range(trials)
    )
    assert wrong <= 2
    for _ in range(3):
        intervals = sliced(module, random, 3_000, 20, ruined=True)
        assert intervals[0]["high"] < 0
        assert sum(part["high"] < 0 for part in intervals[1:]) <= 1


def test_a_slice_with_fewer_than_ten_of_a_class_is_not_judged(module: Module) -> None:
    y = np.array([0] * 200 + [1] * 100)
    p = np.linspace(0, 1, 300)
    parts = [np.arange(9, 209), np.arange(10, 210), np.arange(100)]
    both = np.column_stack([1 - p, p]), np.full((300, 2), 0.5)
    intervals = module("pipeline.resampling").simultaneous_intervals(
        resampler(module, y), *both, parts, 0.95
    )
    assert intervals[0] == {"value": 1.0, "low": None, "high": None}
    assert intervals[1] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert intervals[2] == {"value": None, "low": None, "high": None}


# --- calibration -----------------------------------------------------------------------------


def test_bins_that_are_right_have_no_error_and_shifted_ones_have_the_shift(module: Module) -> None:
    calibration = module("pipeline.calibration").calibration
    share = np.repeat(np.arange(1, 11) / 11, 1_100)  # ten bins of 1,100 rows
    hit = np.concatenate([np.arange(1_100) < 100 * k for k in range(1, 11)]).astype(float)
    right = calibration(hit, np.column_stack([1 - share, share]))
    assert right.error == 0
    assert [b.rows for b in right.bins] == [1_100] * 10
    moved = share + 0.05
    result = calibration(hit, np.column_stack([1 - moved, moved]))
    # Both classes are as frequent, so the unit is that of the shares.
    assert result.error == pytest.approx(0.05, rel=0.05)
    assert 0.03 < result.low < 0.05


def test_rows_that_are_predicted_alike_are_calibrated_in_any_order(module: Module) -> None:
    y = (np.arange(3_000) < 90).astype(int)
    share = np.full(3_000, 0.03)
    result = module("pipeline.calibration").calibration(y, np.column_stack([1 - share, share]))
    assert result.low == 0
    assert result.error < 0.02


RARE = 0.03


def flawed(module: Module, random: Any, n: int, times: float, rare: float = RARE) -> Any:
    """Calibrate probabilities that are some times too high."""
    odds = random.normal(size=n)
    share = 1 / (1 + np.exp(-(odds + np.log(rare / (1 - rare)) - 0.4)))
    y = (random.random(n) < share).astype(int)
    inflated = np.minimum(times * share, 1 - 1e-6)
    return module("pipeline.calibration").calibration(y, np.column_stack([1 - inflated, inflated]))


def surely_off(module: Module, result: Any) -> bool:
    gate = module("config").Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    checks = module("pipeline.gate").calibration_checks(result, gate)
    return any(check.verdict == "refused" for check in checks)


@pytest.mark.parametrize(("n", "at_least"), [(300, 0.75), (1_200, 0.95), (5_000, 1.0)])
def test_probabilities_three_times_too_high_are_refused_where_positives_are_rare(
    module: Module, n: int, at_least: float
) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    refused = [surely_off(module, flawed(module, random, n, 3.0)) for _ in range(60)]
    assert np.mean(refused) >= at_least


@pytest.mark.parametrize("n", [80, 300, 1_200])
@pytest.mark.parametrize("rare", [0.003, 0.03, 0.5, 0.9])
def test_a_perfectly_calibrated_model_is_hardly_ever_refused(
    module: Module, n: int, rare: float
) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    refused = [surely_off(module, flawed(module, random, n, 1.0, rare)) for _ in range(60)]
    assert sum(refused) <= 2


@quick
@given(
    observed=st.integers(0, 40),
    shares=hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(0, 1)),
)
def test_an_interval_of_observed_to_expected_holds_its_value_and_is_finite(
    module: Module, observed: int, shares: Any
) -> None:
    y = (np.arange(len(shares)) < observed).astype(int)
    (class_ratio,) = module("pipeline.calibration").ratios(
        y, np.column_stack([1 - shares, shares]), 0.95
    )
    assert class_ratio.ratio.low <= class_ratio.ratio.value <= class_ratio.ratio.high
    assert np.isfinite(list(dict(class_ratio.ratio).values())).all()


def test_of_equal_probabilities_the_ratios_ends_are_the_binomials(module: Module) -> None:
    n = 400
    rows = 30
    y = (np.arange(n) < rows).astype(int)
    share = np.full(n, 0.1)
    (class_ratio,) = module("pipeline.calibration").ratios(
        y, np.column_stack([1 - share, share]), 0.95
    )
    for end, tail in (("low", 0.975), ("high", 0.025)):
        share_at_end = getattr(class_ratio.ratio, end) * 0.1
        at_most = stats.binom.cdf([rows - 1, rows], n, share_at_end)
        assert at_most.mean() == pytest.approx(tail, abs=1e-6)


def test_of_a_regression_the_error_is_in_standard_deviations(module: Module) -> None:
    calibration = module("pipeline.calibration").calibration
    y = np.arange(1000.0)
    assert calibration(y, y).error == pytest.approx(0, abs=1e-12)
    assert calibration(y, y + y.std() / 2).error == pytest.approx(0.5)
    assert calibration(1e6 * y, 1e6 * (y + y.std() / 2)).error == pytest.approx(0.5)
    assert calibration(y, y).ratios == []


@quick
@given(case=labels_and_probabilities(3))
def test_of_several_classes_the_error_is_of_the_one_that_is_named(
    module: Module, case: Any
) -> None:
    y, p = case
    result = module("pipeline.calibration").calibration(y, p)
    assert 0 <= result.low <= result.error <= 1
    assert sum(b.rows for b in result.bins) == len(y)
    assert [ratio.observed for ratio in result.ratios] == np.bincount(y).tolist()
    if len(result.bins) == 1:
        right = (p.argmax(axis=1) == y).mean()
        assert result.error <= abs(p.max(axis=1).mean() - right) + 1e-9
