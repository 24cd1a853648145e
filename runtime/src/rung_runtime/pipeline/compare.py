"""Compare: champion and challenger, on rows that neither was trained on → `comparison.json`.

Both predict the same rows, and rows are drawn for both at once (paired bootstrap), so that what is
hard about a row for either cancels out. Where the holdout cannot decide, their recipes are compared
out of fold on all rows. The same is done with the best champion so far, so that many small losses
do not add up. A model is never compared with itself.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError

from .. import UsageError, registry
from ..artifacts import ARTIFACTS, HOLDOUT, MODEL, PREDICTIONS, SIDES, TRAIN, digest, step_record
from ..config import DATA, GATE, Config, Data
from ..config.delivery import DELIVERY, Delivery, load_delivery
from ..isolation import model as isolated
from ..model_package import Model, load_estimator
from ..problem import features, trusted
from ..records import (
    BestComparison,
    Champion,
    Compared,
    ComparedSlice,
    Comparison,
    ComparisonDocument,
    Incomparable,
    Interval,
    NotCompared,
    Recipes,
    RuleKind,
)
from . import fairness, identity, ingest
from .formatting import comparison_text
from .ingest import labels
from .metrics import Floats
from .recipes import Recipe, cross_fitted, out_of_fold
from .resampling import Resampler, simultaneous_intervals
from .slices import row_groups, slices

FOLDER = ARTIFACTS / "champion"
MIN_UNSEEN = 50  # rows that the champion has not seen: fewer show nothing
MAX_REASON = 200  # characters of an error message
UNREADABLE: tuple[RuleKind, ...] = ("missing_column", "type")  # then a champion cannot predict


class Challenger(NamedTuple):
    """A trained model, the rows it was trained on, and those that it was not."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    y_pred: Floats  # of the holdout
    recipe: Recipe


class Rival(NamedTuple):
    """A model of the registry, and which of the holdout's rows it was not trained on."""

    champion: Champion
    model: Model
    unseen: NDArray[np.bool_] | None  # None: unknown


def step(config: Config) -> str:
    version = registry.refresh_champion_pointer()
    source = Path(config.data.source)
    rows = (MODEL, source, TRAIN, HOLDOUT, SIDES, PREDICTIONS)
    with step_record("compare", *rows, DATA, GATE, DELIVERY, registry.POINTER) as record:
        comparison = compare_with_champion(version, config)
        record.document = ComparisonDocument(comparison=comparison)
    return comparison_text(comparison)


def compare_with_champion(version: registry.Version | None, config: Config) -> Comparison:
    """Compare the trained model with the champion, and with the best champion so far.

    Args:
        version: The champion.
        config: Of the project.

    Raises:
        UsageError: The registry does not have the champion any more, or the source has changed.
        RefusedError: The registry has another package of that name now.
    """
    if version is None:
        return NotCompared(kind="first", champion=None)
    champion = Champion.model_validate(registry.reference(version))
    # Before anything is believed of it: above all, that it is the same model.
    registry.fetch_version(registry.require_expected(version), FOLDER / version.version)
    if version.model_digest == digest(MODEL):
        return NotCompared(kind="same", champion=champion)
    source = Path(config.data.source)
    raw = ingest.read(source, config.data.separator)
    held = pl.read_parquet(SIDES)["held"].fill_null(False).to_numpy()
    if len(held) != raw.height:
        raise UsageError(f"{source} has changed since `ml ingest`: run `ml run`")
    challenger = Challenger(
        pl.read_parquet(TRAIN),
        pl.read_parquet(HOLDOUT),
        pl.read_parquet(PREDICTIONS)["given"].to_numpy(),
        Recipe(load_estimator(MODEL, trusted()), features, config.data),
    )
    with ExitStack() as processes:
        rival = processes.enter_context(
            open_rival(champion, version, raw, held, challenger.holdout)
        )
        comparison = compare(challenger, rival, config, load_delivery())
        if not isinstance(comparison, Compared):
            return comparison
        best: BestComparison | None = None
        best_champion = anchor(champion)
        if best_champion.version != champion.version:
            try:
                name = f"{best_champion.version}@{best_champion.package_digest}"
                earlier = processes.enter_context(
                    open_rival(best_champion, registry.find(name), raw, held, challenger.holdout)
                )
            except UsageError:  # it is no longer in the registry
                best_champion = champion
            else:
                best = compare_with_best(challenger, earlier, config)
                if best is None:
                    best_champion = champion
    skill = evidence(best or comparison).value
    is_best = skill is not None and skill >= 0
    updates = {"best": best, "anchor": None if is_best else best_champion}
    return comparison.model_copy(update=updates)


def compare_with_best(
    challenger: Challenger, rival: Rival, config: Config
) -> BestComparison | None:
    """Compare a challenger with the best champion so far; None if that is not possible.

    It may have another contract, or classes that are not known any more.
    """
    comparison = compare(challenger, rival, config, load_delivery())
    if not isinstance(comparison, Compared) or comparison.unseen is None:
        return None
    return BestComparison(
        champion=rival.champion,
        skill=comparison.skill,
        recipes=comparison.recipes,
        unseen=comparison.unseen,
    )


@contextmanager
def open_rival(
    champion: Champion,
    version: registry.Version,
    rows: pl.DataFrame,
    held: NDArray[np.bool_],
    holdout: pl.DataFrame,
) -> Iterator[Rival]:
    """Fetch a model from the registry, and find the rows of the holdout that it has not seen.

    Its code runs in a process of its own, so that it can answer and do nothing else.

    Args:
        champion: What documents call it.
        version: Of the registry.
        rows: (n, …) all rows of the source as it is.
        held: (n,) whether a row is held out.
        holdout: (m, …) the typed rows that are.

    Raises:
        UsageError: The registry does not have it, or it is damaged.
        RefusedError: The registry has another package now, or its code changed files of the
            project.
    """
    folder = registry.fetch_version(version, FOLDER / version.version)
    with isolated.open_isolated(folder, version.digest) as model:
        training = identity.read(folder)
        if training is None:
            unseen = _newer_rows(model, folder, holdout)
        else:
            seen = training.includes(rows)
            unseen = None if seen is None else ~seen[held]
        yield Rival(champion, model, unseen)


def _newer_rows(model: Model, folder: Path, holdout: pl.DataFrame) -> NDArray[np.bool_] | None:
    """Find rows that are newer than all rows that a model of before 0.3 was trained on.

    Returns:
        (n,) for each row of the holdout; None if the split is not by time, or the times of the
        training rows are unknown.
    """
    column = model.data.split.column or ""
    if model.data.split.by != "time" or column not in holdout.columns:
        return None
    profile = json.loads((folder / "profile.json").read_text("utf-8"))
    newest = profile["columns"].get(column, {}).get("percentiles", [None])[-1]
    if newest is None or holdout[column].dtype != pl.Datetime:
        return None
    newer: NDArray[np.bool_] = (holdout[column].dt.epoch("s") > newest).fill_null(False).to_numpy()
    return newer


def anchor(champion: Champion) -> Champion:
    """Return the best champion so far: this one, or one that it was measured to be worse than."""
    path = FOLDER / champion.version / "gate.json"
    gate = json.loads(path.read_text("utf-8")) if path.exists() else {}
    comparison = gate.get("comparison") or {}
    best = comparison.get("anchor")
    try:
        return Champion.model_validate(best) if best else champion
    except ValidationError:  # what a package says is a claim; as if it were gone from the registry
        return champion


def evidence(comparison: Compared | BestComparison) -> Interval:
    """Return the strongest evidence: the skill of recipes if they were compared."""
    return comparison.recipes.skill if comparison.recipes else comparison.skill


def compare(
    challenger: Challenger, rival: Rival, config: Config, settings: Delivery
) -> Incomparable | Compared:
    """Score a champion and its challenger on the same rows, none of which either has seen.

    Args:
        challenger: With its typed rows.
        rival: The champion.
        config: Of the challenger.
        settings: Tolerance and confidence of the comparison.

    Returns:
        If compared, the skill over the champion on the unseen rows, and that of each slice, the
        one that lost most first; the ends of slices are of the configured confidence for all of
        them together. Where these rows leave it open, the skill of the recipes, out of fold.
    """
    data = config.data
    model = rival.model
    holdout = challenger.holdout

    def incomparable(
        kind: Literal["unreadable", "unrecognised", "seen"],
        reason: str,
        unseen_rows: int | None = None,
    ) -> Incomparable:
        return Incomparable(
            kind=kind,
            champion=rival.champion,
            tolerance=settings.tolerance,
            replaces=settings.accept_incomparable,
            unseen=unseen_rows,
            rows=None if unseen_rows is None else holdout.height,
            reason=reason,
        )

    if (data.task, data.classes) != (model.data.task, model.data.classes):
        return incomparable("unreadable", "it predicts other classes")
    typed = model.read(holdout)
    try:
        failures = model.failures(typed)
    except Exception as error:  # of the code in the package, which these rows are new to
        return incomparable("unreadable", f"its rules fail, {_error_line(error)}")
    broken = [failure for failure in failures if failure["kind"] in UNREADABLE]
    if broken:
        reason = f"column {broken[0]['column']}: {broken[0]['rule']}"
        return incomparable("unreadable", reason)
    if rival.unseen is None:
        reason = "its package does not say which rows it was trained on in a way that fits these"
        return incomparable("unrecognised", reason)
    unseen = np.flatnonzero(rival.unseen)
    if len(unseen) < min(MIN_UNSEEN, holdout.height):
        reason = f"it was trained on all but {len(unseen)} of the {holdout.height:,} rows held out"
        return incomparable("seen", reason, len(unseen))
    try:
        theirs = model.predict(typed[unseen])
    except Exception as error:  # of the code in the package, which these rows are new to
        reason = f"its features fail, {_error_line(error)}"
        return incomparable("unreadable", reason, len(unseen))
    rows = holdout[unseen]
    y_true = labels(rows, data)
    if np.ptp(y_true) == 0:
        reason = f"the {len(unseen):,} rows that are new to it all have the same {data.target}"
        return incomparable("seen", reason, len(unseen))
    ours = challenger.y_pred[unseen]
    metric = config.gate.metric
    resampler = Resampler(y_true, metric, len(data.classes), config.gate, row_groups(rows, data))
    confidence = settings.confidence
    skill = Interval(**resampler.skill(ours, theirs).interval(confidence))
    recipes: Recipes | None = None
    recipes_failed: str | None = None
    if is_undecided(skill, settings.tolerance):
        all_rows = pl.concat([challenger.train, challenger.holdout])
        try:
            out_of_fold_predictions = _both_recipes(challenger.recipe, model, all_rows, data)
        except Exception as error:  # of either's code, which was not made to be trained in this way
            recipes_failed = _error_line(error)
        else:
            recipes = compare_recipes(all_rows, *out_of_fold_predictions, config, confidence)
    return Compared(
        kind="compared",
        champion=rival.champion,
        tolerance=settings.tolerance,
        replaces=settings.accept_incomparable,
        unseen=len(unseen),
        rows=holdout.height,
        metric=metric,
        confidence=confidence,
        challenger=Interval(**resampler.score(metric, ours).interval(confidence)),
        own=Interval(**resampler.score(metric, theirs).interval(confidence)),
        skill=skill,
        slices=compare_slices(rows, resampler, ours, theirs, config, settings),
        fairness=fairness.changes(y_true, ours, theirs, rows, config)
        if config.gate.fairness
        else None,
        recipes_failed=recipes_failed,
        recipes=recipes,
    )


def compare_recipes(
    rows: pl.DataFrame,
    y_true: NDArray[Any],
    ours: Floats,
    theirs: Floats,
    config: Config,
    confidence: float,
) -> Recipes:
    """Return the skill of the challenger's recipe over that of a model, out of fold.

    Args:
        rows: All of them, (n,).
        y_true: Of the (m,) rows that a fold predicts.
        ours: What the challenger's recipe predicts for them.
        theirs: What the other model's does.
        config: The project's.
        confidence: Of the interval.
    """
    data = config.data
    groups = row_groups(cross_fitted(rows, data), data)
    resampler = Resampler(y_true, config.gate.metric, len(data.classes), config.gate, groups)
    skill = resampler.skill(ours, theirs).interval(confidence)
    return Recipes(skill=Interval(**skill), rows=len(y_true))


def _both_recipes(
    recipe: Recipe, rival: Model, rows: pl.DataFrame, data: Data
) -> tuple[NDArray[Any], Floats, Floats]:
    """Return the labels of (m,) rows, and what each recipe predicts for them out of fold."""
    if isinstance(rival, isolated.IsolatedModel):
        y_true, (ours,) = out_of_fold([recipe], rows, data)
        return y_true, ours, rival.out_of_fold(rows, data, len(y_true))
    recipes = [recipe, Recipe(rival.fitted, rival.features, rival.request_contract)]
    y_true, (ours, theirs) = out_of_fold(recipes, rows, data)
    return y_true, ours, theirs


def _error_line(error: Exception) -> str:
    """Return what failed in one line, which the error of an isolated package is already."""
    if isinstance(error, isolated.PackageError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:MAX_REASON]}"


def is_undecided(skill: Interval, tolerance: float) -> bool:
    """Check whether a skill may be above as well as below what a challenger may lose."""
    if skill.low is None or skill.high is None:
        return False
    return skill.low < -tolerance <= skill.high


def compare_slices(
    rows: pl.DataFrame,
    resampler: Resampler,
    ours: Floats,
    theirs: Floats,
    config: Config,
    settings: Delivery,
) -> list[ComparedSlice]:
    """Return the skill of each slice, with ends that hold for all of them together."""
    parts = list(slices(rows, config))
    skills = simultaneous_intervals(
        resampler,
        ours,
        theirs,
        [part.row_index for part in parts],
        settings.confidence,
        -settings.tolerance,
    )
    compared = []
    for part, skill in zip(parts, skills, strict=True):
        if skill["high"] is not None:
            compared.append(
                ComparedSlice(
                    column=part.column,
                    value=part.value,
                    rows=len(part.row_index),
                    skill=Interval(**skill),
                )
            )
    return sorted(compared, key=attrgetter("skill.high"))
