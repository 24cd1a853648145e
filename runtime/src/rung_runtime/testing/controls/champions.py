"""What the gate must refuse and accept beside a champion."""

from typing import Any, Literal

import pytest

from ...records import (
    BestComparison,
    Champion,
    Compared,
    ComparedSlice,
    Comparison,
    Incomparable,
    NotCompared,
    Recipes,
)
from .judging import HELD, honest, interval, refused, verdicts

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
