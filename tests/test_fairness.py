"""Fairness: what differs among groups is measured right, and judged as the settings say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import libraries
import numpy as np
import polars as pl
import pytest
from metrics_documents import metrics_document

Module = Callable[[str], ModuleType]
COLUMNS: dict[str, dict[str, Any]] = {
    "x": {"type": "number"},
    "sex": {"type": "category", "categories": ["female", "male"]},
    "age": {"type": "integer", "nullable": True},
    "income": {"type": "number"},
    "note": {"type": "text"},
    "paid": {"type": "category"},
}
CLASSES = {"binary": ["no", "yes"], "multiclass": ["low", "middle", "high"], "regression": []}


def contract(module: Module, task: str = "binary", **changes: Any) -> Any:
    """Return the contract of a lender; nobody's sex or age is a feature."""
    columns = {name: dict(column) for name, column in COLUMNS.items()}
    columns["paid"]["type"] = "number" if task == "regression" else "category"
    content = {
        "source": "loans.csv",
        "target": "paid",
        "task": task,
        "classes": CLASSES[task],
        "split": {"by": "stratified"},
        "sensitive": ["sex", "age"],
        "columns": columns,
    }
    return module("config").Data.model_validate(content | changes)


def configured(module: Module, task: str = "binary", **fairness: Any) -> Any:
    """Return the configuration of a project with such settings of fairness."""
    config = module("config")
    metric = config.METRICS[task][0]
    settings = {"columns": ["sex"], "max_difference": {"demographic_parity": 0.1}} | fairness
    gate = {"metric": metric, "thresholds": {metric: 0.5}, "fairness": settings}
    return config.Config(
        data=contract(module, task), model=config.Model(), gate=config.Gate.model_validate(gate)
    )


def both(positive: Any) -> Any:
    return np.column_stack([1 - positive, positive])


def compared(module: Module, config: Any, y_true: Any, y_pred: Any, **columns: Any) -> list[Any]:
    """Compare groups of rows with these columns."""
    result: list[Any] = module("pipeline.fairness").compare_groups(
        np.asarray(y_true), np.asarray(y_pred), pl.DataFrame(columns), config
    )
    return result


def selected(*groups: tuple[str, int, int]) -> tuple[Any, Any]:
    """Return (n, 2) probabilities and the group of rows: of each, so many of so many selected."""
    chance = [[0.9] * chosen + [0.1] * (rows - chosen) for _, chosen, rows in groups]
    names = [[name] * rows for name, _, rows in groups]
    return both(np.concatenate(chance)), np.concatenate(names)


def checks(module: Module, config: Any, parts: list[Any]) -> dict[str, Any]:
    """Return the gate's checks of fairness by id."""
    metrics = document(module, config, parts)
    decided = module("pipeline.gate").fairness_checks(metrics, config.gate)
    return {check.id: check for check in decided}


def document(module: Module, config: Any, parts: list[Any]) -> Any:
    y = np.arange(200) % 2
    data = config.data.model_copy(update={"task": "binary", "classes": ["no", "yes"]})
    gate = module("config").Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    plain = module("config").Config(data=data, model=config.model, gate=gate)
    constant = both(np.full(200, 0.5))
    baselines = {"constant": constant, "linear": constant}
    rows = pl.DataFrame({"x": np.zeros(200)})
    scores = module("pipeline.evaluate").judge(y, both(y * 0.9), baselines, rows, plain)
    scores = scores.model_copy(update={"fairness": parts, "task": config.data.task})
    return metrics_document(module, scores)


def test_the_interval_of_two_groups_is_newcombes(module: Module) -> None:
    """56 of 70 and 48 of 80 (Newcombe, Statistics in Medicine 17, 1998, table II, method 10)."""
    y_pred, sex = selected(("female", 48, 80), ("male", 56, 70))
    (part,) = compared(module, configured(module), np.zeros(150), y_pred, sex=sex)
    difference = part.difference
    assert (part.highest, part.lowest) == ("male", "female")
    assert difference.value == pytest.approx(0.2)
    assert [difference.low, difference.high] == pytest.approx([0.0524, 0.3339], abs=5e-5)


def test_the_more_groups_are_compared_the_more_a_difference_must_show(module: Module) -> None:
    """The studentized range, from a table of it: 2.77, 3.63 and 5.01 by the root of 2."""
    critical_value = module("pipeline.fairness").critical_value
    values = [critical_value(groups, 0.95) for groups in (2, 4, 20)]
    assert values == pytest.approx([2.77 / 2**0.5, 3.63 / 2**0.5, 5.01 / 2**0.5], abs=0.005)
    assert module("pipeline.fairness").family_confidence(0.95, 5) == pytest.approx(0.99)


def test_each_rate_is_what_its_name_says(module: Module) -> None:
    random = np.random.default_rng(3)
    sex = random.choice(["female", "male"], 4_000)
    chance = random.random(4_000)
    y_true = (random.random(4_000) < chance).astype(int)
    criteria = ["demographic_parity", "equalized_odds", "calibration", "error_rate"]
    for favorable, threshold in ((None, None), ("no", None), ("yes", 0.8), ("no", 0.8)):
        config = configured(
            module,
            max_difference=dict.fromkeys(criteria, 0.1),
            favorable=favorable,
            threshold=threshold,
        )
        parts = compared(module, config, y_true, both(chance), sex=sex)
        hoped = 1 if favorable != "no" else 0
        probability = chance if hoped else 1 - chance
        picked = probability >= threshold if threshold else probability > 0.5
        truly = y_true == hoped
        of_all = np.ones(4_000, dtype=bool)
        expected = {
            "selection_rate": (picked, of_all),
            "true_positive_rate": (picked, truly),
            "false_positive_rate": (picked, ~truly),
            "error_rate": (picked != truly, of_all),
            "calibration": (probability - truly, of_all),
        }
        assert {part.rate for part in parts} == set(expected)
        for part in parts:
            values, counted = expected[part.rate]
            for group in part.groups:
                own = counted & (sex == group.group)
                assert group.rows == own.sum()
                assert group.value.value == pytest.approx(values[own].mean())
                assert group.value.low < group.value.value < group.value.high


def test_a_regression_and_several_classes_have_rates_of_their_own(module: Module) -> None:
    random = np.random.default_rng(4)
    sex = np.array(["female", "male"] * 500)
    y_true = random.normal(size=1_000)
    y_pred = y_true + np.where(sex == "male", 0.5, 0.0) + 0.1 * random.normal(size=1_000)
    limits = {"demographic_parity": 0.1, "calibration": 0.1, "mean_absolute_error": 0.1}
    config = configured(module, "regression", max_difference=limits)
    by_rate = {part.rate: part for part in compared(module, config, y_true, y_pred, sex=sex)}
    assert set(by_rate) == {"mean_prediction", "mean_error", "mean_absolute_error"}
    assert by_rate["mean_error"].difference.value == pytest.approx(0.5, abs=0.02)
    assert by_rate["mean_absolute_error"].difference.low > 0.35
    labels = random.integers(0, 3, 1_000)
    certain = np.eye(3)[np.where(sex == "male", labels, (labels + 1) % 3)] * 0.9 + 0.1 / 3
    config = configured(module, "multiclass", max_difference={"error_rate": 0.1})
    (part,) = compared(module, config, labels, certain, sex=sex)
    assert (part.highest, part.difference.value) == ("female", 1.0)
    config = configured(module, "multiclass", favorable="high")
    (part,) = compared(module, config, labels, certain, sex=sex)
    shares = [(certain.argmax(axis=1) == 2)[sex == name].mean() for name in ("female", "male")]
    assert [group.value.value for group in part.groups] == pytest.approx(shares)


def test_numbers_are_grouped_in_bands_and_columns_together(module: Module) -> None:
    ages = [None, 17, 18, 18, 64, 65, 99]
    config = configured(
        module, columns=["age", ["sex", "age"]], bands={"age": [18, 65.5]}, min_rows=10
    )
    rows = {"age": pl.Series(ages * 10), "sex": ["female", "male"] * 35}
    alone, together = compared(module, config, np.zeros(70), both(np.full(70, 0.9)), **rows)
    counts = {group.group: group.rows for group in alone.groups}
    assert counts == {"under 18": 10, "18 to under 65.5": 40, "65.5 and over": 10, "(missing)": 10}
    assert list(counts) == ["under 18", "18 to under 65.5", "65.5 and over", "(missing)"]
    assert {group.group for group in together.groups} >= {"female, under 18", "male, (missing)"}
    assert sum(group.rows for group in together.groups) == 70
    # Codes are groups as they are; only numbers with fractions need bands.
    codes = configured(module, columns=["age"], min_rows=10)
    (part,) = compared(module, codes, np.zeros(70), both(np.full(70, 0.9)), age=rows["age"])
    assert [group.group for group in part.groups] == ["17", "18", "64", "65", "99", "(missing)"]


def test_more_groups_than_can_be_compared_are_a_sentence(module: Module) -> None:
    config = configured(module, columns=["age"])
    ages = np.repeat(np.arange(101), 30)
    with pytest.raises(module("exceptions").UsageError, match="age make 101 groups of 30 rows"):
        compared(module, config, np.zeros(3_030), both(np.full(3_030, 0.9)), age=ages)


def test_a_limit_is_broken_only_if_it_surely_is_or_kept_only_if_it_surely_is(
    module: Module,
) -> None:
    y_pred, sex = selected(("female", 45, 100), ("male", 60, 100))

    def verdict(limit: float, compare: str) -> str:
        limits = {"demographic_parity": limit}
        config = configured(module, max_difference=limits, compare=compare)
        parts = compared(module, config, np.zeros(200), y_pred, sex=sex)
        (check,) = checks(module, config, parts).values()
        return str(check.verdict)

    # The difference is 0.15, 0.01 to 0.28.
    assert [verdict(0.005, compare) for compare in ("optimistic", "pessimistic")] == ["refused"] * 2
    assert [verdict(0.1, compare) for compare in ("optimistic", "pessimistic")] == [
        "passed",
        "refused",
    ]
    assert [verdict(0.3, compare) for compare in ("optimistic", "pessimistic")] == ["passed"] * 2


def test_the_four_fifths_rule_is_a_ratio_that_is_surely_too_low(module: Module) -> None:
    def verdict(chosen: int) -> tuple[Any, str]:
        y_pred, sex = selected(("female", chosen, 1_000), ("male", 500, 1_000))
        rule = {"demographic_parity": 0.8}
        config = configured(module, max_difference={}, min_ratio=rule)
        (part,) = compared(module, config, np.zeros(2_000), y_pred, sex=sex)
        (check,) = checks(module, config, [part]).values()
        return part.ratio, check.verdict

    ratio, passed = verdict(390)
    assert (ratio.value, passed) == (0.78, "passed")  # surely? it may be 0.86
    assert ratio.low < 0.78 < 0.8 < ratio.high
    ratio, refused = verdict(350)
    assert (ratio.value, refused) == (0.7, "refused")
    # As by the logarithm (Katz and others, Biometrics 34, 1978), which is exact in the limit.
    error = (1 / 350 - 1 / 1_000 + 1 / 500 - 1 / 1_000) ** 0.5
    ends = [0.7 * np.exp(-1.96 * error), 0.7 * np.exp(1.96 * error)]
    assert [ratio.low, ratio.high] == pytest.approx(ends, abs=0.003)
    assert verdict(0)[0].value == 0.0


def test_groups_of_few_rows_are_named_and_not_judged(module: Module) -> None:
    y_pred, sex = selected(("female", 50, 100), ("male", 50, 100), ("other", 0, 29))
    config = configured(module)
    (part,) = compared(module, config, np.zeros(229), y_pred, sex=sex)
    assert part.difference.value == 0
    notes = module("pipeline.fairness_text").fairness_notes(
        document(module, config, [part]), config.gate
    )
    few = "too few rows to judge the selection rate of other (29 rows); a group needs 30 that count"
    assert notes[0] == f"note: fairness by sex: {few}"
    assert "do not show whether limits are kept for the difference in selection rate" in notes[1]
    # One row more, and it is surely treated otherwise.
    y_pred, sex = selected(("female", 50, 100), ("male", 50, 100), ("other", 0, 30))
    (part,) = compared(module, config, np.zeros(230), y_pred, sex=sex)
    (check,) = checks(module, config, [part]).values()
    assert (check.verdict, part.lowest) == ("refused", "other")


def test_a_note_names_the_rates_and_a_ratio_is_one_of_rates(module: Module) -> None:
    y_pred, sex = selected(("female", 50, 100), ("male", 50, 100))
    y_true = np.repeat([0, 1], [90, 110])  # ten of the women are positive
    config = configured(
        module,
        max_difference={"equalized_odds": 0.1},
        min_ratio={"demographic_parity": 0.8},
    )
    parts = compared(module, config, y_true, y_pred, sex=sex)
    notes = module("pipeline.fairness_text").fairness_notes(
        document(module, config, parts), config.gate
    )
    about = "note: fairness by sex:"
    assert notes[0] == (
        f"{about} too few rows to judge the true positive rate of female (10 rows), the false "
        "positive rate of male (0 rows); a group needs 30 that count"
    )
    assert notes[1] == (
        f"{about} no two groups have enough rows to compare the true positive rate and the false "
        "positive rate"
    )
    assert "the ratio of selection rates, " in notes[2]
    names = [check.check for check in checks(module, config, parts).values()]
    assert "ratio of selection rates by sex, lowest to highest, upper end" in names


def test_a_limit_that_nothing_can_be_judged_by_refuses(module: Module) -> None:
    y_pred, sex = selected(("female", 50, 100), ("male", 5, 10))
    config = configured(module)
    (part,) = compared(module, config, np.zeros(110), y_pred, sex=sex)
    (check,) = checks(module, config, [part]).values()
    assert (check.value, check.verdict) == (None, "refused")
    notes = module("pipeline.fairness_text").fairness_notes(
        document(module, config, [part]), config.gate
    )
    assert notes[-1] == (
        "note: fairness by sex: no two groups have enough rows to compare the selection rate"
    )
    sentence = module("pipeline.gate_text").sentence(check)
    assert sentence.endswith("not defined on this holdout, and must be ≤ 0.1")
    # And so does one that the metrics of an earlier release have not measured.
    metrics = document(module, config, [part]).model_copy(update={"fairness": None})
    (check,) = module("pipeline.gate").fairness_checks(metrics, config.gate)
    assert check.verdict == "refused"


def test_rows_of_one_person_are_the_evidence_of_one(module: Module) -> None:
    """Forty people with ten equal rows each are forty, not four hundred."""
    y_pred, sex = selected(("female", 12, 40), ("male", 24, 40))
    person = np.arange(80)
    once = configured(module, max_difference={"demographic_parity": 0.05})
    (alone,) = compared(module, once, np.zeros(80), y_pred, sex=sex)
    grouped = contract(
        module,
        split={"by": "group", "column": "person"},
        columns={**COLUMNS, "person": {"type": "integer"}},
    )
    config = once.model_copy(update={"data": grouped})
    rows = {"sex": np.repeat(sex, 10), "person": np.repeat(person, 10)}
    repeated = np.repeat(y_pred, 10, axis=0)
    (part,) = compared(module, config, np.zeros(800), repeated, **rows)
    for end in ("low", "high"):
        ours = getattr(part.difference, end)
        assert ours == pytest.approx(getattr(alone.difference, end), abs=0.01)
    # Of forty who are all refused, too.
    nobody, _ = selected(("female", 0, 40), ("male", 24, 40))
    (extreme,) = compared(module, config, np.zeros(800), np.repeat(nobody, 10, axis=0), **rows)
    (women, _) = extreme.groups
    assert (women.group, women.clusters) == ("female", 40)
    assert 0.08 < women.value.high < 0.1  # of 400 independent rows it would be 0.01
    (naive,) = compared(module, once, np.zeros(800), repeated, sex=rows["sex"])
    assert naive.difference.low > part.difference.low + 0.05


def test_a_group_of_few_that_the_split_keeps_together_is_told_as_that(module: Module) -> None:
    y_pred, sex = selected(("female", 200, 400), ("male", 200, 400))
    grouped = contract(module, split={"by": "group", "column": "sex"}, sensitive=[])
    config = configured(module).model_copy(update={"data": grouped})
    (part,) = compared(module, config, np.zeros(800), y_pred, sex=sex)
    notes = module("pipeline.fairness_text").fairness_notes(
        document(module, config, [part]), config.gate
    )
    together = "that the split keeps together"
    assert f"female (400 rows of 1 {together}), male (400 rows of 1 {together})" in notes[0]


def test_a_ratio_of_nothing_to_nothing_is_equal(module: Module) -> None:
    """A model without an error is as good for one group as for the other."""
    sex = np.array(["female", "male"] * 100)
    y_true = np.arange(200) // 2 % 2
    rule = {"error_rate": 0.8}
    config = configured(module, max_difference={}, min_ratio=rule)
    (part,) = compared(module, config, y_true, both(y_true * 0.9 + 0.05), sex=sex)
    assert (part.ratio.value, part.ratio.high) == (1.0, 1.0)
    (check,) = checks(module, config, [part]).values()
    assert check.verdict == "passed"


def test_what_only_judges_fairness_is_never_seen_by_the_model_nor_asked_of_callers(
    module: Module,
) -> None:
    data = contract(module)
    assert data.features == ["x", "income", "note"]
    request = data.for_predicting()
    assert set(request.columns) == {"x", "income", "note"}
    assert request.ignored["sex"] == "no feature"
    row = {"x": 1.0, "income": 2.0, "sex": "female", "age": 3, "note": "a", "paid": "no"}
    rows = pl.DataFrame([row])
    typed = module("pipeline.ingest").typed(rows, data)
    assert set(typed.columns) == set(rows.columns)
    assert module("pipeline.ingest").inputs(typed, data).columns == data.features


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("binary", {"columns": ["gender"]}, "'gender' is not a column"),
        ("binary", {"columns": ["paid"]}, "or is the target"),
        ("binary", {"columns": ["income"]}, "income has numbers: name where its groups begin"),
        ("binary", {"columns": ["note"]}, "the values of note, of type text, are not groups"),
        ("binary", {"columns": ["zip"]}, "zip is left out when rows are read"),
        ("binary", {"bands": {"age": [30]}}, "age is not a number among columns"),
        ("binary", {"favorable": "maybe"}, "'maybe' is not one of the classes"),
        ("binary", {"max_difference": {"mean_absolute_error": 1}}, "has no mean_absolute_error"),
        ("binary", {"min_ratio": {"calibration": 0.8}}, "calibration is not a share of rows"),
        ("multiclass", {}, "needs to know which class is favorable"),
        ("regression", {"threshold": 0.5}, "a regression has no classes"),
        ("regression", {"max_difference": {"equalized_odds": 1}}, "has no equalized_odds"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_a_sentence(
    module: Module, task: str, settings: dict[str, Any], words: str
) -> None:
    config = configured(module, task, **settings)
    data = contract(module, task, ignored={"zip": "hardly ever the same"})
    assert words in (config.gate.fairness.problem(data) or "")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_difference": {}}, "name a criterion"),
        ({"columns": []}, "at least 1 item"),
        ({"columns": ["sex", "sex"]}, "one is named twice"),
        ({"columns": [["sex", "age"], ["age", "sex"]]}, "one is named twice"),
        ({"columns": [[]]}, "is empty"),
        ({"bands": {"age": [65, 18]}}, "must be numbers that rise"),
        ({"max_difference": {"demographic_parity": -0.1}}, "below 0"),
        ({"min_ratio": {"demographic_parity": 1.1}}, "at most 1"),
        ({"max_difference": {"fair": 0.1}}, "demographic_parity"),
    ],
)
def test_settings_that_contradict_themselves_are_a_sentence(
    module: Module, settings: dict[str, Any], words: str
) -> None:
    content = {"columns": ["sex"], "max_difference": {"demographic_parity": 0.1}} | settings
    with pytest.raises(module("exceptions").UsageError, match=words):
        module("config").validate(content, module("config").Fairness, "config/gate.yaml")


def test_the_comparison_with_the_champion_shows_whether_it_got_worse(module: Module) -> None:
    ours, sex = selected(("female", 300, 1_000), ("male", 600, 1_000))
    theirs, _ = selected(("female", 500, 1_000), ("male", 600, 1_000))
    config = configured(module)

    def changes(first: Any, second: Any) -> Any:
        (change,) = module("pipeline.fairness").changes(
            np.zeros(2_000), first, second, pl.DataFrame({"sex": sex}), config
        )
        return change

    worse = changes(ours, theirs)
    assert (worse.highest, worse.lowest) == ("male", "female")
    assert (worse.challenger.value, worse.own.value) == pytest.approx((0.3, 0.1))
    assert worse.change.value == pytest.approx(0.2)
    assert worse.change.low > 0.15
    better = changes(theirs, ours)
    assert better.change.high < -0.15
    same = changes(ours, ours)
    assert same.change.low < 0 < same.change.high


def test_a_request_that_loosens_a_limit_of_fairness_is_marked(module: Module) -> None:
    looser = module("controls").looser

    def change(key: str, before: str, after: str) -> dict[str, str]:
        return {"file": "config/gate.yaml", "key": key, "before": before, "after": after}

    difference = "fairness.max_difference.demographic_parity"
    ratio = "fairness.min_ratio.demographic_parity"
    assert looser(change(difference, "0.1", "0.2"))
    assert not looser(change(difference, "0.2", "0.1"))
    assert looser(change(ratio, "0.8", "0.7"))
    assert looser(change(ratio, "0.8", "(none)"))
    assert not looser(change(ratio, "(none)", "0.8"))
    assert looser(change("thresholds.roc_auc", "0.7", "0.6"))
    assert not looser(change("fairness.min_rows", "30", "10"))


JUDGES = ("fairlearn>=0.12,<1", "statsmodels>=0.14,<1")
JUDGE = """
import json, sys
import numpy as np
from fairlearn import metrics
from statsmodels.stats.proportion import confint_proportions_2indep

rows = json.load(sys.stdin)
y_true, y_pred, sex = (np.array(rows[name]) for name in ("y_true", "y_pred", "sex"))
given = {"y_true": y_true, "y_pred": y_pred, "sensitive_features": sex}
values = {
    "selection_rate": metrics.demographic_parity_difference(**given),
    "ratio": metrics.demographic_parity_ratio(**given),
    "odds": metrics.equalized_odds_difference(**given),
    "true_positive_rate": metrics.equal_opportunity_difference(**given),
}
ends = {}
for name, counted in {"selection_rate": y_true >= 0, "true_positive_rate": y_true == 1}.items():
    first, second = ((sex == group) & counted for group in ("male", "female"))
    ends[name] = confint_proportions_2indep(
        y_pred[first].sum(), first.sum(), y_pred[second].sum(), second.sum(),
        compare="diff", method="newcomb", alpha=1 - rows["confidence"],
    )
print(json.dumps({"values": values, "ends": ends}, default=float))
"""


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_fairlearn_and_statsmodels_find_the_same(module: Module, seed: int) -> None:
    random = np.random.default_rng(seed)
    sex = random.choice(["female", "male"], 600, p=[0.3, 0.7])
    chance = np.clip(random.random(600) + 0.1 * (sex == "male"), 0, 1)
    y_true = (random.random(600) < chance).astype(int)
    limits = {"demographic_parity": 0.1, "equalized_odds": 0.1}
    rule = {"demographic_parity": 0.8}
    config = configured(module, max_difference=limits, min_ratio=rule)
    parts = {p.rate: p for p in compared(module, config, y_true, both(chance), sex=sex)}
    confidence = module("pipeline.fairness").family_confidence(0.95, len(parts))
    y_pred = (chance > 0.5).astype(int)
    rows = {"y_true": y_true.tolist(), "y_pred": y_pred.tolist(), "sex": sex.tolist()}
    python = libraries.environment(*JUDGES) / "bin/python"
    done = subprocess.run(
        [str(python), "-c", JUDGE],
        input=json.dumps(rows | {"confidence": confidence}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    judged = json.loads(done.stdout)
    ours = {rate: part.difference.value for rate, part in parts.items()}
    ours["ratio"] = parts["selection_rate"].ratio.value
    ours["odds"] = max(ours["true_positive_rate"], ours["false_positive_rate"])
    for name, value in judged["values"].items():
        assert ours[name] == pytest.approx(value), name
    for name, ends in judged["ends"].items():
        low, high = sorted(map(abs, ends)) if ends[1] < 0 else ends
        difference = parts[name].difference
        assert difference.high == pytest.approx(max(abs(low), abs(high))), name
        assert difference.low == pytest.approx(max(low, 0)), name


def test_a_new_file_forgets_neither_sensitive_columns_nor_limits(
    module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = module("config")
    onboard = module("contract.onboard")
    monkeypatch.chdir(tmp_path)
    plain = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    data = contract(module)
    assert onboard.sensitive_columns(data) == []
    assert onboard.with_limits_of_fairness(plain, data) == (plain, {})
    before = configured(module)
    config.DATA.parent.mkdir()
    config.DATA.write_text(onboard.to_yaml(before.data))
    config.GATE.write_text(onboard.to_yaml(before.gate))
    without_age = {name: column for name, column in COLUMNS.items() if name != "age"}
    new = contract(module, columns=without_age, sensitive=[])
    assert onboard.sensitive_columns(new) == ["sex"]
    gate, notes = onboard.with_limits_of_fairness(plain, new)
    assert (gate.fairness, notes) == (before.gate.fairness, {"fairness": "its limits are kept"})
    without_sex = {name: column for name, column in COLUMNS.items() if name != "sex"}
    new = contract(module, columns=without_sex, sensitive=[])
    gate, notes = onboard.with_limits_of_fairness(plain, new)
    assert gate.fairness is None
    assert "WARNING: its limits are dropped" in notes["fairness"]
    assert "'sex' is not a column" in notes["fairness"]


def test_that_no_slice_is_judged_is_a_note_if_one_could_be(module: Module) -> None:
    config = configured(module)
    region = {"region": {"type": "category", "categories": ["north", "south"]}}
    sliced = config.model_copy(update={"data": contract(module, columns=COLUMNS | region)})
    notes = module("pipeline.gate_text").slice_notes
    undefined = SimpleNamespace(skill=SimpleNamespace(high=None))
    judged = SimpleNamespace(skill=SimpleNamespace(high=0.4))

    def notes_on(parts: list[Any], config: Any = sliced) -> Any:
        return notes(SimpleNamespace(slices=parts, metric="roc_auc"), config)

    rows = config.gate.slice_rows
    assert notes_on([]) == [
        f"note: no slice is judged, as no category has {rows} rows of the holdout (slice_rows)"
    ]
    assert notes_on([undefined]) == [
        "note: no slice is judged, as roc_auc is not defined on any of them"
    ]
    assert notes_on([undefined, judged]) == []
    assert notes_on([], config) == []  # without a category there is nothing to say


def test_a_category_without_a_name_is_not_a_missing_one(module: Module) -> None:
    category = module("pipeline.formatting").category
    assert [category(value) for value in (None, "", "north")] == ["(missing)", '""', "north"]
