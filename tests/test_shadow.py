"""Shadow: models that do the champion's job pass, and models that do another one do not."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import verdicts_delivery
from numpy.typing import NDArray

Module = Callable[[str], ModuleType]
Compare = Callable[..., tuple[dict[str, Any], list[str]]]
SEED = 20_261


@pytest.fixture
def shadow(module: Module) -> ModuleType:
    """Return the module."""
    return module("delivery.shadow")


@pytest.fixture
def compare(module: Module, shadow: ModuleType) -> Compare:
    """Return a function: what is written down of two models' predictions, and the objections."""

    def compare(
        candidate: NDArray[Any],
        champion: NDArray[Any],
        classes: tuple[list[str], list[str]] = ([], []),
        percentiles: list[float] | None = None,
        distinct: int | None = None,
    ) -> tuple[dict[str, Any], list[str]]:
        new, old = (SimpleNamespace(data=SimpleNamespace(classes=names)) for names in classes)
        prediction = {"percentiles": percentiles} if percentiles else {}
        served = SimpleNamespace(model=old, profile={"prediction": prediction})
        hashes = np.arange(len(champion), dtype=np.uint64) % (distinct or len(champion))
        replay = shadow.Replay(np.ones((1, 2)), candidate, champion, hashes)
        document: dict[str, Any] = {}
        limits = module("config.delivery").Shadow()
        return document, shadow.compare_predictions(new, served, replay, limits, document)

    return compare


def both(positive: NDArray[Any]) -> NDArray[Any]:
    """Give probabilities of two classes."""
    return np.column_stack([1 - positive, positive])


@pytest.mark.slow
def test_candidates_of_equal_worth_pass_and_those_that_do_another_job_do_not(
    module: Module, shadow: ModuleType
) -> None:
    rates = verdicts_delivery.shadow_refusals(shadow, module("config.delivery").Shadow(), 5, SEED)
    assert {name: rates[name] for name in verdicts_delivery.GOOD} == dict.fromkeys(
        verdicts_delivery.GOOD, 0
    )
    for name in ("reversed", "constant", "predictions of other rows"):
        assert rates[name] == 1, name


@pytest.mark.parametrize("rows", [60, 500])
@pytest.mark.parametrize("base_rate", [0.03, 0.5])
def test_a_reversed_model_is_refused_at_any_base_rate(
    compare: Compare, base_rate: float, rows: int
) -> None:
    champion = np.random.default_rng(SEED).beta(2, 2 / base_rate - 2, rows)
    _, objections = compare(both(1 - champion), both(champion), (["a", "b"],) * 2)
    assert any("in another order" in objection for objection in objections)


def test_a_change_of_all_probabilities_alone_is_judged_by_its_size(compare: Compare) -> None:
    champion = np.random.default_rng(SEED).beta(2, 18, 500)
    odds = champion / (1 - champion)
    for factor, refused in ((1.35, False), (30, True)):  # from 10 to 13 %, and to 70 %
        more = factor * odds / (1 + factor * odds)
        document, objections = compare(both(more), both(champion), (["a", "b"],) * 2)
        assert document["agreement"] == pytest.approx(1)
        assert bool(objections) == refused, document


def test_a_regression_is_judged_in_units_of_the_champions_range(compare: Compare) -> None:
    rng = np.random.default_rng(SEED)
    champion = rng.lognormal(10, 0.5, 400)
    assert compare(champion * 1.05, champion)[1] == []
    for wrong in (champion / 1000, np.log(champion), champion.max() + champion):
        document, objections = compare(wrong, champion)
        assert document["agreement"] == pytest.approx(1)
        assert "away from the champion's" in objections[0]
    for wrong in (-champion, rng.permutation(champion), np.full(400, champion.mean())):
        assert "in another order" in compare(wrong, champion)[1][-1]


def test_values_at_the_end_of_what_a_number_holds_are_judged_too(compare: Compare) -> None:
    champion = np.linspace(-1e300, 1e300, 100)
    assert compare(champion, champion)[1] == []
    document, objections = compare(np.full(100, 1.7e308), champion / 1e300)
    assert np.isfinite(document["shift"])
    assert len(objections) == 2


def test_classes_are_compared_by_their_names_and_not_by_their_places(compare: Compare) -> None:
    champion = np.random.default_rng(SEED).dirichlet([1, 1, 1], 200)
    names = ["a", "b", "c"]
    document, objections = compare(champion[:, [2, 0, 1]], champion, (["c", "a", "b"], names))
    assert (document["shift"], objections) == (0, [])
    assert document["agreement"] == pytest.approx(1)
    document, objections = compare(champion[:, [2, 0, 1]], champion, (names, names))
    assert "in another order" in objections[-1]
    wider = np.column_stack([champion, np.zeros(200)])
    assert compare(wider, champion, ([*names, "d"], names))[1] == []


def test_a_model_of_many_classes_that_names_one_class_alone_is_refused(compare: Compare) -> None:
    rng = np.random.default_rng(SEED)
    champion = rng.dirichlet(np.ones(6) / 2, 300)
    concentrated = np.full_like(champion, 0.1)
    concentrated[:, 3] = 0.5
    names = list("abcdef")
    assert len(compare(concentrated, champion, (names, names))[1]) == 2
    weak = 0.7 * champion + 0.3 * rng.dirichlet(np.ones(6) / 2, 300)
    assert compare(weak, champion, (names, names))[1] == []


def test_rows_that_the_champion_does_not_tell_apart_say_nothing_of_the_order(
    compare: Compare,
) -> None:
    rng = np.random.default_rng(SEED)
    flat = np.full(100, 0.2)
    document, objections = compare(both(rng.uniform(0.1, 0.3, 100)), both(flat), (["a", "b"],) * 2)
    assert "agreement" not in document
    assert objections == []
    usual = np.linspace(0, 1, 101).tolist()  # the log holds one kind of row only
    narrow = both(rng.uniform(0.2, 0.25, 100))
    document, objections = compare(narrow[::-1], narrow, (["a", "b"],) * 2, percentiles=usual)
    assert ("agreement" in document, objections) == (False, [])


def test_a_row_that_is_asked_a_hundred_times_says_no_more_of_the_order_than_once(
    compare: Compare,
) -> None:
    champion, candidate = (np.tile(values, 100) for values in ([0.1, 0.2, 0.3], [0.2, 0.3, 0.1]))
    document, objections = compare(candidate, champion, distinct=3)
    assert (document["rows"], document["distinct_rows"]) == (300, 3)
    assert not any("in another order" in objection for objection in objections)


def test_the_interval_of_a_rank_correlation_covers_it(shadow: ModuleType) -> None:
    rng = np.random.default_rng(SEED)
    correlation = 0.5
    below = 0
    for _ in range(400):
        x = rng.normal(size=80)
        y = correlation * x + np.sqrt(1 - correlation**2) * rng.normal(size=80)
        below += shadow.upper_bound(shadow.rank_agreement(x, y), 80) < 0.483  # Spearman's of it
    print(f"seed {SEED}: {below} of 400")
    assert below <= 32  # 20 expected
    assert shadow.upper_bound(0.9, 3) == 1


def test_a_champion_of_another_task_is_no_traceback(compare: Compare) -> None:
    values = np.linspace(0, 1, 80)
    document, objections = compare(values, both(values), ([], ["a", "b"]))
    assert document["shift"] == 1
    assert objections
