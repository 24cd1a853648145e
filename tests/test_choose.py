"""`ml data use` chooses recipe and thresholds by cross-validation, and judges them rightly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import verdicts
from sklearn.linear_model import LogisticRegression

Module = Callable[[str], ModuleType]
DAY = pl.datetime(2024, 1, 1)


def table(rows: int, seed: int = 0) -> pl.DataFrame:
    """Rows with a time (four of each), a group (of three) and a rare class."""
    random = np.random.default_rng(seed)
    number = pl.int_range(rows)
    return verdicts.draw_rows("binary", rows, random).with_columns(
        day=(DAY + pl.duration(days=number // 4)).cast(pl.Datetime("us")),
        shop=(number % (rows // 3)).cast(pl.String),
    )


def contract(module: Module, by: str, column: str | None = None) -> Any:
    config = module("config")
    data = verdicts.contract("binary", module)
    columns = data.columns | {
        "day": config.Column(type="datetime"),
        "shop": config.Column(type="category", allow_unknown=True),
    }
    return data.model_copy(update={"columns": columns, "split": config.Split(by=by, column=column)})


def folds(module: Module, rows: pl.DataFrame, data: Any) -> Any:
    """Return the folds that an estimator is chosen by."""
    choose = module("contract.choose")
    return choose.folds(rows, data, choose.FOLDS, choose.MIN_FITTED_SHARE)


def test_folds_go_forward_in_time_and_no_instant_is_on_both_sides(module: Module) -> None:
    rows = table(403).sample(fraction=1, shuffle=True, seed=1)
    seen: list[int] = []
    for fitted, test in folds(module, rows, contract(module, "time", "day")):
        assert rows["day"][fitted].max() < rows["day"][test].min()
        seen += test.tolist()
    assert len(seen) == len(set(seen)) > 150


def test_folds_keep_groups_whole(module: Module) -> None:
    rows = table(300)
    seen: list[int] = []
    for fitted, test in folds(module, rows, contract(module, "group", "shop")):
        assert not set(rows["shop"][fitted]) & set(rows["shop"][test])
        seen += test.tolist()
    assert sorted(seen) == list(range(300))


def test_folds_at_random_are_equally_large_and_have_a_share_of_every_class(module: Module) -> None:
    rows = table(400).with_columns(y=pl.Series(["yes"] * 20 + ["no"] * 380))
    parts = list(folds(module, rows, contract(module, "stratified")))
    assert [len(test) for _, test in parts] == [100] * 4
    assert [rows["y"][test].eq("yes").sum() for _, test in parts] == [5] * 4


def test_a_split_whose_parts_have_one_class_is_told(module: Module) -> None:
    rows = table(400).sort("day").with_columns(y=pl.Series(["no"] * 390 + ["yes"] * 10))
    with pytest.raises(module("exceptions").UsageError, match="one class of 'y'"):
        module("contract.choose").first_gate(rows, contract(module, "time", "day"))


@pytest.mark.parametrize(
    ("positives", "metric"), [(0.5, "roc_auc"), (0.06, "roc_auc"), (0.04, "average_precision")]
)
def test_rare_positives_are_judged_by_average_precision_and_log_loss(
    module: Module, positives: float, metric: str
) -> None:
    y_true = (np.arange(1000) < positives * 1000).astype(int)
    names = module("contract.choose").gate_metrics(y_true, verdicts.contract("binary", module))
    assert names == [metric, "log_loss"]


def out_of_fold(rows: pl.DataFrame, data: Any, module: Module) -> tuple[Any, Any, Any]:
    """Cross-validate logistic regression; return y_true, y_pred and their rows."""
    y = module("pipeline.ingest").labels(rows, data)
    x = rows.select(verdicts.COLUMNS).to_numpy()
    parts = list(folds(module, rows, data))
    tested = np.concatenate([test for _, test in parts])
    y_pred = [LogisticRegression().fit(x[a], y[a]).predict_proba(x[b]) for a, b in parts]
    return y[tested], np.concatenate(y_pred), rows[tested]


@pytest.mark.slow
def test_thresholds_refuse_one_in_fifty_good_models_and_most_that_lost_three_columns(
    module: Module,
) -> None:
    thresholds = module("contract.thresholds")
    scores = module("pipeline.metrics").SCORES
    data = verdicts.contract("binary", module)
    trials = 20
    refused = np.zeros(2)
    for random in np.random.default_rng(3).spawn(trials):
        rows = verdicts.draw_rows("binary", 1500, random)
        train = rows[:1200]
        holdout = rows[1200:]
        y_true, y_pred, tested = out_of_fold(train, data, module)
        constant = np.tile([1 - y_true.mean(), y_true.mean()], (len(y_true), 1))
        sample = thresholds.holdout_sampler(tested, [300] * 4, 300, data)
        bounds = thresholds.thresholds(["roc_auc", "log_loss"], y_true, y_pred, constant, sample)
        y = module("pipeline.ingest").labels
        for case, columns in enumerate([verdicts.COLUMNS, verdicts.COLUMNS[3:]]):
            model = LogisticRegression().fit(train.select(columns), y(train, data))
            predicted = model.predict_proba(holdout.select(columns))
            values = {name: scores[name](y(holdout, data), predicted) for name in bounds}
            met = (
                values["roc_auc"] >= bounds["roc_auc"] and values["log_loss"] <= bounds["log_loss"]
            )
            refused[case] += not met
    good, destroyed = refused / trials
    assert good <= 0.05
    assert destroyed >= 0.9


def test_no_threshold_is_weaker_than_a_constant(module: Module) -> None:
    thresholds = module("contract.thresholds")
    data = verdicts.contract("binary", module)
    random = np.random.default_rng(0)
    y_true = random.integers(0, 2, 300)
    positive = random.uniform(0, 1, 300)  # knows nothing, and is sure of it
    y_pred = np.column_stack([1 - positive, positive])
    constant = np.full((300, 2), 0.5)
    sample = thresholds.holdout_sampler(
        verdicts.draw_rows("binary", 300, random), [75] * 4, 75, data
    )
    bounds = thresholds.thresholds(["roc_auc", "log_loss"], y_true, y_pred, constant, sample)
    assert bounds["roc_auc"] >= 0.5
    assert bounds["log_loss"] <= np.log(2)


def test_a_perfect_model_leaves_room_for_one_that_is_nearly_so(module: Module) -> None:
    thresholds = module("contract.thresholds")
    data = verdicts.contract("binary", module)
    y_true = np.arange(400) % 2
    y_pred = np.column_stack([1 - y_true, y_true]).astype(float)
    constant = np.full((400, 2), 0.5)
    sample = thresholds.holdout_sampler(table(400), [100] * 4, 100, data)
    bounds = thresholds.thresholds(["roc_auc", "log_loss"], y_true, y_pred, constant, sample)
    assert 0.95 < bounds["roc_auc"] < 0.99
    assert 0.01 < bounds["log_loss"] < 0.05


@pytest.mark.parametrize("value", [0.99996, 0.5004, -3.14159, 0.0, 123456.0, 1e-9])
def test_a_threshold_is_rounded_to_the_lenient_side(module: Module, value: float) -> None:
    rounded = module("contract.thresholds").round_down(value)
    assert rounded <= value
    assert rounded == pytest.approx(value, rel=0.01)


@pytest.mark.slow
def test_a_straight_line_over_time_takes_the_linear_model(module: Module) -> None:
    config = module("config")
    random = np.random.default_rng(0)
    day = pl.select(DAY + pl.duration(days=pl.int_range(400))).to_series().cast(pl.Datetime("us"))
    price = 100 + np.arange(400) + random.normal(0, 5, 400)
    rows = pl.DataFrame({"day": day, "price": price})
    data = config.Data(
        source="data/raw/t.csv",
        target="price",
        task="regression",
        split=config.Split(by="time", column="day"),
        columns={"day": config.Column(type="datetime"), "price": config.Column(type="number")},
    )
    model, gate, notes = module("contract.choose").first_gate(rows, data)
    assert model.estimator == "linear"
    assert "linear" in notes["(estimator)"]
    train, holdout = module("pipeline.split").split(rows, data)
    fitted = module("pipeline.train").fit(train, data, model)
    y_pred = module("model_package").predict(
        fitted, holdout, data, module("problem.features").features
    )
    rmse = np.mean((y_pred - holdout["price"].to_numpy()) ** 2) ** 0.5
    assert rmse < 10
    assert rmse <= gate.thresholds["rmse"]


def steps_on_a_slope() -> pl.DataFrame:
    """Rows of which a line explains one part, trees another, and neither both."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6))
    y = 4 * x[:, :5].sum(axis=1) + 5 * np.sign(x[:, 0] * x[:, 1]) + random.normal(0, 2, 200)
    return pl.DataFrame({f"x{number}": x[:, number] for number in range(6)}).with_columns(y=y)


@pytest.mark.slow
@pytest.mark.parametrize("knows_mean", [True, False])
def test_a_mean_is_chosen_where_it_gains_and_problem_model_py_knows_it(
    module: Module, monkeypatch: pytest.MonkeyPatch, knows_mean: bool
) -> None:
    choose = module("contract.choose")
    infer = module("contract.propose")
    train = module("pipeline.train")
    known = train.estimator

    def estimator(name: str, *arguments: Any) -> Any:
        if name == "mean" and not knows_mean:
            raise ValueError("unknown estimator 'mean'")
        return known(name, *arguments)

    monkeypatch.setattr(train, "estimator", estimator)
    rows = steps_on_a_slope()
    data, _ = infer.infer(rows, "y", source="data/raw/t.csv", separator=",")
    model, _, notes = choose.first_gate(rows, data)
    assert (model.estimator == "mean") == knows_mean
    assert ("mean of" in notes["(estimator)"]) == knows_mean
    if not knows_mean:
        return
    assert set(model.params) <= {"linear", "boosted", "forest"}
    # It predicts the mean of its parts.
    features = module("problem.features").features
    make = module("config").Model
    recipes = [make(estimator=part, params=params) for part, params in model.params.items()]
    whole, *parts = (
        module("model_package").predict(train.fit(rows, data, recipe), rows, data, features)
        for recipe in (model, *recipes)
    )
    assert np.allclose(whole, np.mean(parts, axis=0))


@pytest.mark.slow
def test_a_mean_that_gains_next_to_nothing_is_left_out(module: Module) -> None:
    rows = steps_on_a_slope().with_columns(y=2 * pl.col("x0") + pl.col("x1"))
    data, _ = module("contract.propose").infer(rows, "y", source="data/raw/t.csv", separator=",")
    model, _, notes = module("contract.choose").first_gate(rows, data)
    assert model.estimator == "linear"
    assert "mean of" not in notes["(estimator)"]


FEW: dict[str, dict[str, Any]] = {
    "forest": {"n_estimators": 5, "min_samples_leaf": 3},
    "mean": {"linear": {}, "forest": {"n_estimators": 5}, "boosted": {"max_iter": 5}},
}


@pytest.mark.parametrize("estimator", FEW)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_forest_and_a_mean_come_back_from_their_file_as_they_were(
    module: Module, tmp_path: Path, task: str, estimator: str
) -> None:
    config = module("config")
    data = verdicts.contract(task, module)
    rows = verdicts.draw_rows(task, 300, np.random.default_rng(0))
    rows = rows.with_columns(x0=pl.when(rows["x1"] > 0).then("x0"))
    recipe = config.Model(estimator=estimator, params=FEW[estimator])
    fitted = module("pipeline.train").fit(rows, data, recipe)
    module("pipeline.train").save(fitted, tmp_path / "model.skops")
    loaded = module("model_package").load_estimator(
        tmp_path / "model.skops", module("problem.model").TRUSTED
    )
    features = module("problem.features").features
    before, after = (
        module("model_package").predict(model, rows, data, features) for model in (fitted, loaded)
    )
    assert (before == after).all()


def reviews(rows: int) -> pl.DataFrame:
    """Make texts of ten words, of which one in a good and another in a bad review says so."""
    random = np.random.default_rng(0)
    texts = []
    stars = []
    for number in range(rows):
        words = random.choice(["fast", "refund", "size", "colour", "delivery", "works"], 10)
        words[random.integers(10)] = ["bad", "superb"][number % 2]
        texts.append(" ".join(words))
        stars.append(["no", "yes"][number % 2])
    return pl.DataFrame({"review": texts, "y": stars}).with_columns(
        review=pl.when(pl.int_range(rows) % 50 > 0).then("review")
    )


@pytest.mark.parametrize("estimator", ["linear", "forest", "boosted"])
def test_the_words_of_a_text_are_learned_and_saved(
    module: Module, tmp_path: Path, estimator: str
) -> None:
    config = module("config")
    features = module("problem.features").features
    data = verdicts.contract("binary", module)
    columns = {"review": config.Column(type="text", nullable=True), "y": data.columns["y"]}
    data = data.model_copy(update={"columns": columns})
    rows = reviews(400)
    few = {"boosted": {"max_iter": 30}, "forest": {"n_estimators": 30}}
    recipe = config.Model(estimator=estimator, params=few.get(estimator, {}))
    fitted = module("pipeline.train").fit(rows[:300], data, recipe)
    module("pipeline.train").save(fitted, tmp_path / "model.skops")
    loaded = module("model_package").load_estimator(
        tmp_path / "model.skops", module("problem.model").TRUSTED
    )
    y_pred = module("model_package").predict(loaded, rows[300:], data, features)
    y_true = module("pipeline.ingest").labels(rows[300:], data)
    assert module("pipeline.metrics").SCORES["roc_auc"](y_true, y_pred) > 0.95
    one_by_one = [
        module("model_package").predict(loaded, rows[n], data, features) for n in range(300, 305)
    ]
    assert np.allclose(np.concatenate(one_by_one), y_pred[:5])


def test_a_text_that_the_projects_own_features_do_not_read_is_left_out_and_told(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = module("contract.choose")
    config = module("config")
    data = verdicts.contract("binary", module)
    columns = data.columns | {"review": config.Column(type="text", nullable=True)}
    data = data.model_copy(update={"columns": columns})
    rows = verdicts.draw_rows("binary", 400, np.random.default_rng(0))
    rows = rows.with_columns(reviews(400)["review"])
    assert choose.without_unread_texts(rows, data) == (data, {})
    monkeypatch.setattr(choose, "features", lambda rows: rows)  # as before 0.3
    changed, notes = choose.without_unread_texts(rows, data)
    assert "review" not in changed.columns
    assert "problem/features.py" in changed.ignored["review"]
    assert notes["review"].startswith("WARNING")
    alone = {"review": columns["review"], "y": columns["y"]}
    with pytest.raises(module("exceptions").UsageError, match="'review' is a text"):
        choose.without_unread_texts(rows, data.model_copy(update={"columns": alone}))


def test_an_estimator_that_the_projects_own_model_py_lacks_is_not_chosen(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = module("pipeline.train")
    known = train.estimator

    def old(name: str, *arguments: Any) -> Any:
        if name != "linear":
            raise ValueError(f"unknown estimator '{name}'")
        return known(name, *arguments)

    monkeypatch.setattr(train, "estimator", old)
    rows = verdicts.draw_rows("binary", 400, np.random.default_rng(0))
    data = verdicts.contract("binary", module)
    model, _, notes = module("contract.choose").first_gate(rows, data)
    assert model.estimator == "linear"
    assert "forest" not in notes["(estimator)"]


@pytest.mark.parametrize(
    ("classes", "width", "most_trees"),
    [(2, 300, 600), (3, 20, 1_800), (5, 300, 500), (26, 20, 2_600), (26, 300, 2_600)],
)
def test_the_trees_of_boosted_candidates_are_bounded_where_each_is_costly(
    classes: int, width: int, most_trees: int, module: Module
) -> None:
    """A step takes a tree for each class, and a tree the longer the more inputs there are."""
    names = [f"class {number}" for number in range(classes)]
    data = verdicts.contract("binary" if classes == 2 else "multiclass", module)
    data = data.model_copy(update={"classes": names})
    recipes = module("contract.candidates").recipes(data, 5_000, width)
    steps = [recipe.params["max_iter"] for recipe in recipes if recipe.estimator == "boosted"]
    assert steps
    assert sum(steps) * (1 if classes == 2 else classes) <= most_trees
