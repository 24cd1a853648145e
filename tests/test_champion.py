"""A challenger meets the champion on rows that neither was trained on, and with power."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import verdicts_champion as verdicts

Module = Callable[[str], ModuleType]
N = 1_500
HELD = 300


def rival(module: Module, unseen: Any, noise: float = 0.0, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return a challenger, a champion that has not seen such rows of its holdout, and config."""
    config = module("config")
    inference = module("model_package")
    compare = module("pipeline.compare")
    data = verdicts._data(module)
    draw = np.random.default_rng(seed)
    train = verdicts._rows(draw, N - HELD)
    held = verdicts._rows(draw, HELD)
    plain = verdicts._features(0.0)
    noisy = verdicts._features(noise)
    fitted = verdicts._fitted(module, train, 0.0)
    y_pred = inference.predict(fitted, held, data, plain)
    recipe = module("pipeline.recipes").Recipe(fitted, plain, data)
    champion = inference.Model(
        {},
        data,
        data.for_predicting(),
        lambda: verdicts._fitted(module, train, noise),
        noisy,
        verdicts._rules,
    )
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    whole = config.Config(data=data, model=config.Model(), gate=gate)
    challenger = compare.Challenger(train, held, y_pred, recipe)
    return challenger, compare.Rival(verdicts.champion_of(module, "v7"), champion, unseen), whole


def compared(module: Module, unseen: Any, noise: float = 0.0) -> Any:
    challenger, champion, config = rival(module, unseen, noise)
    settings = module("config.delivery").Delivery()
    return module("pipeline.compare").compare(challenger, champion, config, settings)


def test_only_rows_that_the_champion_has_not_seen_are_compared(module: Module) -> None:
    unseen = np.arange(HELD) % 3 == 0
    comparison = compared(module, unseen)
    assert (comparison.kind, comparison.unseen, comparison.rows) == ("compared", 100, HELD)
    challenger, _, config = rival(module, unseen)
    labels = module("pipeline.ingest").labels(challenger.holdout, config.data)
    score = module("pipeline.metrics").SCORES["roc_auc"]
    assert comparison.challenger.value == pytest.approx(
        score(labels[unseen], challenger.y_pred[unseen])
    )


def test_groups_that_are_further_apart_than_with_the_champion_are_told(module: Module) -> None:
    challenger, champion, config = rival(module, np.ones(HELD, bool), noise=3.0)
    column = config.data.features[0]
    fairness = module("config").Fairness(
        columns=[column], bands={column: [0.0]}, max_difference={"demographic_parity": 0.1}
    )
    gate = config.gate.model_copy(update={"fairness": fairness})
    whole = config.model_copy(update={"gate": gate})
    settings = module("config.delivery").Delivery()
    comparison = module("pipeline.compare").compare(challenger, champion, whole, settings)
    (change,) = comparison.fairness
    assert (change.columns, change.rate) == ([column], "selection_rate")
    # The champion sees this column through noise, so that it decides less by it.
    assert change.challenger.value > change.own.value
    text = module("pipeline.formatting").comparison_text(comparison)
    apart = "Groups are surely further apart than with the champion in"
    assert f"{apart} selection rate by {column}." in text
    plain = module("pipeline.compare").compare(challenger, champion, config, settings)
    assert "fairness" not in plain.model_dump()


@pytest.mark.parametrize(
    ("unseen", "kind"),
    [(np.arange(HELD) < 49, "seen"), (np.zeros(HELD, bool), "seen"), (None, "unrecognised")],
)
def test_a_champion_that_has_seen_the_rows_is_a_verdict_of_its_own(
    module: Module, unseen: Any, kind: str
) -> None:
    comparison = compared(module, unseen)
    assert comparison.kind == kind
    gate = module("pipeline.gate")
    versus = module("pipeline.formatting").comparison_text
    assert verdicts._refused(module, comparison)
    assert not verdicts._refused(module, comparison.model_copy(update={"replaces": "v7"}))
    (check,) = gate.champion_checks(comparison)
    assert "accept_incomparable" in check.check
    assert "or name it in accept_incomparable" in versus(comparison)


def test_what_the_holdout_leaves_open_is_decided_by_recipes_out_of_fold(module: Module) -> None:
    comparison = compared(module, np.ones(HELD, bool), noise=0.3)
    assert comparison.skill.low < -0.05 <= comparison.skill.high
    assert comparison.recipes.rows == N
    own, recipes = (
        interval.high - interval.low for interval in (comparison.skill, comparison.recipes.skill)
    )
    assert recipes < 0.7 * own
    # Equal recipes are equally good, whatever the rows.
    same = compared(module, np.ones(HELD, bool), noise=0.0)
    assert same.recipes is None or same.recipes.skill.value == 0


def test_a_far_better_and_a_far_worse_one_need_no_recipes(module: Module) -> None:
    assert compared(module, np.ones(HELD, bool), noise=6.0).recipes is None


@pytest.mark.parametrize("kind", ["time", "group", "stratified"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_each_row_is_predicted_once_by_models_that_had_not_seen_it(
    module: Module, kind: str, task: str
) -> None:
    recipes = module("pipeline.recipes")
    config = module("config")
    draw = np.random.default_rng(1)
    when = pl.datetime(2024, 1, 1) + pl.duration(days=pl.int_range(600) // 7)
    rows = pl.DataFrame({"who": draw.integers(0, 40, 600).astype(str)}).with_columns(when=when)
    column = {"time": "when", "group": "who", "stratified": None}[kind]
    data = config.Data.model_construct(
        split=config.Split(by=kind, column=column), task=task, target="y", classes=["no", "yes"]
    )
    y = draw.choice(["no", "yes"], 600) if task == "binary" else draw.normal(size=600)
    rows = rows.with_columns(y=pl.Series(y))
    seen = np.zeros(600, int)
    for train, held in recipes.folds(rows, data, recipes.FOLDS, 1 / 6):
        assert not set(train) & set(held)
        seen[held] += 1
        if kind == "time":
            assert rows["when"][train].max() < rows["when"][held].min()
        if kind == "group":
            assert not set(rows["who"][train]) & set(rows["who"][held])
    assert set(seen) == ({0, 1} if kind == "time" else {1})
    assert (seen == 0).mean() < 0.2


CHANGES: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "nothing": lambda rows: rows,
    "a column is added": lambda rows: rows.with_columns(new=pl.col("a")),
    "rows are appended": lambda rows: pl.concat([rows, rows.head(300).with_columns(a=pl.lit("9"))]),
    "labels are corrected": lambda rows: rows.with_columns(y=pl.lit("true")),
    "rows are in another order": lambda rows: rows.reverse(),
}
SPLITS = [{"by": "stratified"}, {"by": "stratified", "seed": 7}]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_no_row_that_the_champion_was_trained_on_is_among_those_it_is_judged_on_when(
    module: Module, tmp_path: Path, change: str, split: dict[str, Any]
) -> None:
    identity = module("pipeline.identity")
    splits = module("pipeline.split")
    draw = np.random.default_rng(5)
    before = pl.DataFrame({"a": [f"{v:.9f}" for v in draw.normal(size=1_000)]})
    before = before.with_columns(
        pl.int_range(1_000).cast(pl.String).alias("place"), y=pl.Series(draw.random(1_000) < 0.4)
    )
    kinds = {"a": {"type": "number"}, "y": {"type": "boolean"}}
    contract = {"source": "x.csv", "target": "y", "task": "binary", "columns": kinds}
    contract |= {"classes": ["false", "true"], "split": {"by": "stratified"}, "identity": ["a"]}
    data = module("config").Data.model_validate(contract)
    columns = identity.identifying(data)
    numbers = identity.identities(before, columns)
    side = splits.sides(before, data, numbers)
    identity.write(tmp_path, columns, numbers.filter(~side), "sha256:" + "1" * 64)
    trained = set(before.filter(~side)["place"])

    after = CHANGES[change](before.with_columns(pl.col("y").cast(pl.String)))
    more = {} if "new" not in after.columns else {"new": {"type": "number"}}
    if change == "labels are corrected":
        after = after.with_columns(y=before["y"].shuffle(seed=2).cast(pl.String))
    data = module("config").Data.model_validate(
        contract | {"split": split, "columns": kinds | more}
    )
    held = splits.sides(after, data, identity.identities(after, identity.identifying(data)))
    training = identity.read(tmp_path)
    judged = held.to_numpy() & ~training.includes(after)
    judged_places = set(after.filter(pl.Series(judged) & (pl.col("a") != "9"))["place"])
    assert not judged_places & trained
    # A column that is added or a corrected label moves no row, so all of the holdout is unseen.
    if split == {"by": "stratified"}:
        assert judged.sum() >= 0.9 * held.sum()
    else:
        assert judged.sum() > 0


def test_the_reference_is_also_the_best_champion_of_before(module: Module, tmp_path: Path) -> None:
    """Of challengers each a little worse, the second is refused: the first has spent the room."""
    records = module("records")
    fine = records.Interval(value=-0.03, low=-0.045, high=-0.01)
    worse = records.Interval(value=-0.06, low=-0.075, high=-0.055)
    comparison = compared(module, np.ones(HELD, bool))
    comparison = comparison.model_copy(update={"recipes": None, "skill": fine, "slices": []})
    assert not verdicts._refused(module, comparison)

    def beside_the_best(skill: Any) -> Any:
        earlier = verdicts.champion_of(module, "v1")
        best = records.BestComparison(champion=earlier, skill=skill, unseen=HELD)
        return comparison.model_copy(update={"best": best})

    assert verdicts._refused(module, beside_the_best(worse))
    assert not verdicts._refused(module, beside_the_best(fine))


@pytest.mark.nightly
def test_the_rule_has_power_and_does_not_creep(module: Module) -> None:
    assert verdicts.accepted(module, better=0.02, holdout=360, trials=40) >= 0.8
    assert verdicts.accepted(module, better=-0.10, holdout=360, trials=80) <= 0.025
    assert verdicts.creep(module, rows=10_000, trials=3) >= -0.05


@pytest.mark.parametrize("best", [{"version": "v0"}, {"version": "v0", "novel": 1}, "v0", ["v0"]])
def test_a_best_champion_that_a_package_describes_badly_is_passed_over(
    best: Any, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = module("pipeline.compare").FOLDER / "v1/gate.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"comparison": {"anchor": best}}))
    champion = verdicts.champion_of(module, "v1")
    assert module("pipeline.compare").anchor(champion) == champion
