"""Whose rows these are is found, by what rows of one subject have in common."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

Module = Callable[[str], ModuleType]


def panel(
    seed: int, subjects: int = 60, rows: int = 6, *, name: str = "nr", alike: bool = True
) -> pl.DataFrame:
    """Rows of subjects, with a sex and a height that stay, a dose that does not, and a target."""
    rng = np.random.default_rng(seed)
    who = np.repeat(rng.permutation(5 * subjects)[:subjects], rows)
    _, place = np.unique(who, return_inverse=True)
    if not alike:
        place = rng.permutation(place)
    own = rng.normal(size=subjects)
    return pl.DataFrame(
        {
            name: who,
            "sex": np.where(rng.random(subjects) < 0.5, "f", "m")[place],
            "height": rng.normal(170, 9, subjects).round(1)[place],
            "dose": rng.normal(size=len(who)),
            "pulse": rng.normal(size=len(who)),
            "y": own[place] + rng.normal(size=len(who)),
        }
    )


def find_subject(module: Module, rows: pl.DataFrame, *, classified: bool = False) -> str | None:
    subject = module("pipeline.subjects").find_subject(
        {name: rows[name] for name in rows.columns}, "y", None, classified=classified
    )
    return subject.column if subject and not subject.too_few else None


@pytest.mark.parametrize("name", ["nr", "chick", "customer id", "ID"])
def test_a_column_that_names_subjects_is_found_whatever_it_is_called(
    module: Module, name: str
) -> None:
    """By its name, or by rows that stand together."""
    assert find_subject(module, panel(1, name=name)) == name


CODES = {
    "email": "u{}@mail.com",
    "uuid": "{:08x}-4a4a-9b9b",
    "ssn": "{:03}-12-3456",
    "phone": "+49 171 {:05}",
    "Kundennummer": "K{:05}",
    "pid": "{}",
    "ref": "R{:04}",
}


@pytest.mark.parametrize("name", CODES)
def test_subjects_are_found_under_words_as_well_as_under_numbers(module: Module, name: str) -> None:
    """By a name, shuffled; a ref by numbered words that stand together."""
    rows = panel(9, name=name)
    rows = rows.with_columns(rows[name].map_elements(CODES[name].format, pl.String))
    if name != "ref":
        rows = rows.sample(fraction=1.0, shuffle=True, seed=1)
    assert find_subject(module, rows) == name


def test_subjects_are_found_beside_rows_that_do_not_say_whose_they_are(module: Module) -> None:
    """And beside rows of somebody who is there but once."""
    rows = panel(10, name="customer_id")
    gaps = pl.when(pl.int_range(pl.len()) % 20 > 0).then("customer_id").alias("customer_id")
    assert find_subject(module, rows.with_columns(gaps)) == "customer_id"
    once = pl.when(pl.int_range(pl.len()) < 270).then(pl.int_range(pl.len()) + 10_000)
    lonely = rows.with_columns(once.otherwise("customer_id").alias("customer_id"))
    assert lonely["customer_id"].n_unique() > len(lonely) / 2
    assert find_subject(module, lonely) == "customer_id"


def test_numbers_that_begin_anew_at_every_site_name_subjects_with_the_site(module: Module) -> None:
    rng = np.random.default_rng(11)
    who = np.repeat(np.arange(100), 6)
    own = rng.normal(size=100)
    height = rng.normal(170, 9, 100)
    columns = {
        "site": pl.Series([f"s{n // 20}" for n in who]),
        "patient": who % 20,
        "height": height[who],
        "dose": rng.normal(size=600),
        "y": own[who],
    }
    rows = pl.DataFrame(columns).sample(fraction=1.0, shuffle=True, seed=1)
    assert find_subject(module, rows) == "patient"
    assert find_subject(module, rows.with_columns(pl.col("height", "y").shuffle(seed=2))) is None


@pytest.mark.parametrize("few", ["subjects", "of a class"])
def test_subjects_too_few_to_split_by_are_told_loudly(module: Module, few: str) -> None:
    """Labels are noise, one for each customer: a score on known customers says nothing."""
    rng = np.random.default_rng(12)
    count = 8 if few == "subjects" else 60
    who = np.repeat(np.arange(count), 480 // count)
    label = (np.arange(count) % 2 == 0) if few == "subjects" else np.arange(count) < 3
    rows = pl.DataFrame({"customer_id": who, "a": rng.normal(size=480), "y": label[who]})
    data, notes = module("contract.propose").infer(rows, "y", source="t.csv", separator=",")
    assert data.split.by == "stratified"
    assert "WARNING: rows of the same 'customer_id' are alike" in notes["(split)"]


def test_labels_without_anything_in_common_name_no_subjects(module: Module) -> None:
    """Numbers of groups of rows that differ as much as any rows do."""
    wrong = [
        seed
        for seed in range(40)
        if find_subject(module, panel(seed, alike=False, name="customer_id")) is not None
    ]
    assert not wrong, f"seeds {wrong}"


def test_a_target_that_hardly_varies_within_subjects_is_enough(module: Module) -> None:
    """Labels that are noise, nearly one for each customer: nothing else is alike."""
    rng = np.random.default_rng(2)
    who = rng.permutation(np.repeat(np.arange(50), 8))
    label = (rng.random(50) < 0.4)[who] ^ (rng.random(400) < 0.05)
    rows = pl.DataFrame({"customer id": who, "a": rng.normal(size=400), "y": label})
    assert find_subject(module, rows, classified=True) == "customer id"
    shuffled = rows.with_columns(rows["y"].shuffle(3))
    assert find_subject(module, shuffled, classified=True) is None


@pytest.mark.parametrize("name", ["store_id", "zip", "airline_code", "product id"])
def test_places_and_things_are_no_subjects(module: Module, name: str) -> None:
    """The same ones are there when the model is used, so it may know them."""
    assert find_subject(module, panel(4, name=name)) is None


def test_rows_sorted_by_a_quantity_are_not_rows_of_subjects(module: Module) -> None:
    """Equal ages stand together, and what depends on age hardly varies at one age."""
    rng = np.random.default_rng(5)
    age = np.sort(rng.integers(20, 90, 600))
    pay = age * 100.0 + rng.normal(0, 40, 600)
    years = age * 2.0 + rng.normal(0, 1, 600)
    rows = pl.DataFrame({"age": age, "pay": pay, "years": years, "y": pay * rng.normal(1, 0.1)})
    assert find_subject(module, rows) is None


def test_a_subject_is_not_split_by_where_a_class_would_be_on_one_side(module: Module) -> None:
    rows = panel(6, subjects=20).with_columns(y=pl.Series([1] * 12 + [0] * 108))
    assert find_subject(module, rows, classified=True) is None


def test_the_contract_splits_by_the_subject_and_says_so_loudly(module: Module) -> None:
    """It is not a feature either; `none` undoes it."""
    rows = panel(7)
    infer: Any = module("contract.propose").infer
    data, notes = infer(rows, "y", source="t.csv", separator=",")
    assert (data.split.by, data.split.column) == ("group", "nr")
    assert "nr" not in data.features
    assert "WARNING" in notes["(split)"]
    assert "'sex', 'height'" in notes["(split)"]
    data, notes = infer(rows, "y", source="t.csv", separator=",", group="none")
    assert data.split.by == "stratified"
    assert "nr" in data.features
    data, _ = infer(rows, "y", source="t.csv", separator=",", group="sex")
    assert data.split.column == "sex"


def test_variance_within_groups_is_that_of_an_analysis_of_variance(module: Module) -> None:
    """Of numbers as of yes and no, and about 1 by chance."""
    within = module("pipeline.subjects").variance_within
    rng = np.random.default_rng(8)
    groups = rng.integers(0, 30, 400)
    values = rng.normal(size=400)
    sums = sum(
        ((part - part.mean()) ** 2).sum() for g in set(groups) if len(part := values[groups == g])
    )
    direct = (sums / (400 - len(set(groups)))) / values.var(ddof=1)
    assert within(pl.Series(groups), pl.Series(values)) == pytest.approx(direct)
    yes = values > 0
    numbers = within(pl.Series(groups), pl.Series(yes.astype(float)))
    assert within(pl.Series(groups), pl.Series(yes)) == pytest.approx(numbers)
    assert 0.8 < direct < 1.2
