"""Which row is which, and on which side it stands: by what the source says, never by its target."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

Module = Callable[[str], ModuleType]
SEED = 20_261_126


def contract(module: Module, columns: dict[str, str], **changes: Any) -> Any:
    """Return a contract of these columns and types, with the boolean target `y`."""
    kinds = {name: {"type": kind} for name, kind in (columns | {"y": "boolean"}).items()}
    fields: dict[str, Any] = {
        "source": "x.csv",
        "target": "y",
        "task": "binary",
        "classes": ["false", "true"],
    }
    fields |= {"split": {"by": "stratified"}, "columns": kinds}
    return module("config").Data.model_validate(fields | changes)


def table(n: int, seed: int = SEED) -> pl.DataFrame:
    """Return text columns, as a CSV file has them, and a target."""
    draw = np.random.default_rng(seed)
    numbers = draw.normal(size=(2, n))
    return pl.DataFrame(
        {
            "a": [f"{value:.3f}" for value in numbers[0]],
            "b": [f"{value:.3f}" for value in numbers[1]],
            "y": draw.random(n) < 0.3,
        }
    )


def held(module: Module, rows: pl.DataFrame, data: Any) -> pl.Series:
    """Return which rows are held out, recognized as the source has them."""
    identity = module("pipeline.identity")
    numbers = identity.identities(rows, identity.identifying(data))
    side: pl.Series = module("pipeline.split").sides(rows, data, numbers)
    return side


def test_the_side_of_a_row_does_not_depend_on_its_target(module: Module) -> None:
    rows = table(800)
    data = contract(module, {"a": "number", "b": "number"})
    before = held(module, rows, data)
    shuffled = rows.with_columns(y=rows["y"].shuffle(seed=1))
    assert held(module, shuffled, data).equals(before)


def test_equal_rows_are_split_as_the_others_are_and_not_by_their_label(module: Module) -> None:
    """Four yes/no questions: an honest split gives what independent rows give, about 0.68."""
    draw = np.random.default_rng(SEED)
    n = 2_200
    answers = draw.random((n, 4)) < 0.5
    chance = 1 / (1 + np.exp(-(answers @ np.array([0.8, 0.6, 0.4, 0.2]) - 1)))
    rows = pl.DataFrame({f"q{k}": answers[:, k] for k in range(4)})
    rows = rows.with_columns(y=pl.Series(draw.random(n) < chance))
    data = contract(module, {f"q{k}": "boolean" for k in range(4)})
    side = held(module, rows, data)
    train = rows.filter(~side)
    holdout = rows.filter(side)
    assert abs(holdout.height / n - 0.2) <= 0.02
    means = train.group_by("q0", "q1", "q2", "q3").agg(pl.col("y").mean().alias("p"))
    scored = holdout.join(means, on=["q0", "q1", "q2", "q3"], how="left").fill_null(0.5)
    honest = roc_auc_score(rows["y"].to_numpy(), chance)
    assert roc_auc_score(scored["y"].to_numpy(), scored["p"].to_numpy()) == pytest.approx(
        honest, abs=0.06
    )


@pytest.mark.parametrize("n", [500, 777, 2_000, 9_999])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.35])
def test_the_holdout_has_the_share_that_was_configured(
    module: Module, n: int, share: float
) -> None:
    data = contract(
        module, {"a": "number", "b": "number"}, split={"by": "stratified", "holdout": share}
    )
    assert held(module, table(n), data).mean() == pytest.approx(share, abs=0.02)


def test_rows_in_place_keep_their_side_when_others_are_appended(module: Module) -> None:
    rows = table(4_000)
    data = contract(module, {"a": "number", "b": "number"})
    before = held(module, rows.head(3_000), data)
    after = held(module, rows, data).head(3_000)
    assert np.mean((before != after).to_numpy()) < 0.01


CHANGES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "a column is added": ({"a": "number", "b": "number", "new": "number"}, {}),
    "a column is left out": ({"a": "number"}, {"ignored": {"b": "as asked"}}),
    "a column is another type": ({"a": "category", "b": "number"}, {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_side_stays_when(module: Module, change: str) -> None:
    """The columns that identify a row are written down, so a changed contract moves no row."""
    rows = table(2_000).with_columns(new=pl.Series(map(str, range(2_000))))
    named = {"identity": ["a", "b"]}
    before = held(module, rows, contract(module, {"a": "number", "b": "number"}, **named))
    columns, more = CHANGES[change]
    assert held(module, rows, contract(module, columns, **named, **more)).equals(before)


def test_keys_alone_say_which_row_it_is(module: Module) -> None:
    rows = table(1_000).with_columns(id=pl.Series([f"u{n}" for n in range(1_000)]))
    data = contract(module, {"id": "category", "a": "number", "b": "number"}, keys=["id"])
    changed = rows.with_columns(a=pl.lit("0"), b=pl.lit("1"))
    assert held(module, rows, data).equals(held(module, changed, data))


def test_a_number_is_the_same_however_the_source_writes_it(module: Module) -> None:
    identities = module("pipeline.identity").identities
    texts = pl.DataFrame({"id": ["7", " 8 ", "9.0", ""]})
    numbers = pl.DataFrame({"id": [7.0, 8.0, 9.0, None]})
    assert identities(texts, ["id"]).equals(identities(numbers, ["id"]))


def test_equal_rows_are_told_apart_by_their_place_among_each_other(module: Module) -> None:
    identities = module("pipeline.identity").identities
    rows = pl.DataFrame({"a": ["1", "1", "2", "1"]})
    numbered = identities(rows, ["a"])
    assert numbered.n_unique() == 4
    more = pl.concat([rows, pl.DataFrame({"a": ["1", "3"]})])
    assert identities(more, ["a"]).head(4).equals(numbered)


def test_the_number_of_a_row_is_the_one_that_packages_of_every_release_have(
    module: Module,
) -> None:
    rows = pl.DataFrame({"b": ["1.0", "é", "1", None], "a": ["x", " y", "x", "x"]})
    numbers = module("pipeline.identity").identities(rows, ["a", "b"])
    texts = ["x\x1f1\x1e0", "y\x1fé\x1e0", "x\x1f1\x1e1", "x\x1f\x1e0"]
    assert numbers.to_list() == [
        int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") for text in texts
    ]


def test_each_class_is_on_both_sides_of_a_small_table(module: Module) -> None:
    for seed in range(20):
        rows = table(60, seed).with_columns(y=pl.int_range(60) < 4)
        data = contract(module, {"a": "number", "b": "number"})
        side = held(module, rows, data)
        assert rows.filter(side)["y"].n_unique() == 2, seed
        assert rows.filter(~side)["y"].n_unique() == 2, seed


def test_a_holdout_of_one_class_is_refused_with_its_reason(module: Module) -> None:
    rows = table(120).with_columns(
        site=pl.Series([f"s{n // 40}" for n in range(120)]), y=pl.int_range(120) < 40
    )
    columns = {"a": "number", "b": "number", "site": "category"}
    data = contract(module, columns, split={"by": "group", "column": "site"})
    with pytest.raises(
        module("pipeline.split").UsageError, match="by group 'site' leaves only rows"
    ):
        held(module, rows, data)


def test_a_time_split_begins_at_the_instant_nearest_to_the_share(module: Module) -> None:
    years = pl.Series([1990 + n // 50 for n in range(500)])  # ten of them
    rows = table(500).with_columns(when=pl.datetime(years, 1, 1))
    columns = {"a": "number", "b": "number", "when": "datetime"}
    data = contract(module, columns, split={"by": "time", "column": "when", "holdout": 0.22})
    assert held(module, rows, data).mean() == pytest.approx(0.2)


def test_one_large_group_does_not_take_the_holdout_beyond_its_share(module: Module) -> None:
    for seed in range(80):
        groups = ["large"] * 500 + [f"g{n % 50}" for n in range(500)]
        rows = table(1_000).with_columns(who=pl.Series(groups))
        columns = {"a": "number", "b": "number", "who": "category"}
        split = {"by": "group", "column": "who", "seed": seed}
        share = held(module, rows, contract(module, columns, split=split)).mean()
        assert share == pytest.approx(0.2, abs=0.06), seed


def test_digests_tell_which_rows_a_model_was_trained_on_and_nothing_else(
    module: Module, tmp_path: Any
) -> None:
    identity = module("pipeline.identity")
    rows = table(1_000)
    numbers = identity.identities(rows, ["a", "b"])
    identity.write(tmp_path, ["a", "b"], numbers.head(700), "sha256:" + "0" * 64)
    training = identity.read(tmp_path)
    assert training.includes(rows).tolist() == [True] * 700 + [False] * 300
    assert training.includes(rows.drop("a")) is None
    other = training._replace(salt=b"another")
    assert not other.includes(rows).any()
    assert (tmp_path / identity.DIGESTS).stat().st_size == 700 * 8


# R's data set Titanic: died and survived, by class, sex and age (Dawson, Journal of Statistics
# Education 3, 1995).
TITANIC = {
    ("1st", "Male", "Child"): (0, 5),
    ("1st", "Female", "Child"): (0, 1),
    ("2nd", "Male", "Child"): (0, 11),
    ("2nd", "Female", "Child"): (0, 13),
    ("3rd", "Male", "Child"): (35, 13),
    ("3rd", "Female", "Child"): (17, 14),
    ("1st", "Male", "Adult"): (118, 57),
    ("1st", "Female", "Adult"): (4, 140),
    ("2nd", "Male", "Adult"): (154, 14),
    ("2nd", "Female", "Adult"): (13, 80),
    ("3rd", "Male", "Adult"): (387, 75),
    ("3rd", "Female", "Adult"): (89, 76),
    ("Crew", "Male", "Adult"): (670, 192),
    ("Crew", "Female", "Adult"): (3, 20),
}


@pytest.mark.parametrize("seed", range(5))
def test_the_titanic_has_the_roc_auc_of_independent_rows_and_no_leak(
    module: Module, seed: int
) -> None:
    rows = [
        (*cell, survived)
        for cell, counts in TITANIC.items()
        for survived in (0, 1)
        for _ in range(counts[survived])
    ]
    frame = pl.DataFrame(rows, ["Class", "Sex", "Age", "y"], orient="row")
    frame = frame.with_columns(pl.col("y") == 1)
    columns = dict.fromkeys(("Class", "Sex", "Age"), "category")
    data = contract(module, columns, split={"by": "stratified", "seed": seed})
    train, holdout = module("pipeline.split").split(frame, data)
    assert holdout.height / 2_201 == pytest.approx(0.2, abs=0.02)
    means = train.group_by(*columns).agg(pl.col("y").mean().alias("p"))
    scored = holdout.join(means, on=list(columns), how="left").fill_null(0.3)
    roc_auc = roc_auc_score(scored["y"].to_numpy(), scored["p"].to_numpy())
    assert roc_auc == pytest.approx(0.77, abs=0.06)
    leaks = module("pipeline.leaks").leaks(train, holdout, data)
    assert leaks == {"rows": 0, "encodings": 0}
