"""Compare: champion and challenger, on rows that neither was trained on → `comparison.json`.

Both predict the same rows, and rows are drawn for both at once (paired bootstrap), so that what is
hard about a row for either cancels out. Where the holdout cannot decide, their recipes are compared
out of fold on all rows. The same is done with the best champion so far, so that many small losses
do not add up. A model is never compared with itself.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError, registry
from ..artifacts import ARTIFACTS, HOLDOUT, MODEL, PREDICTIONS, SIDES, TRAIN, digest, step_record
from ..config import DATA, GATE, Config, Data
from ..isolation import model as isolated
from ..model_package import Model, load_estimator
from ..problem import features, trusted
from ..records import ComparisonDocument
from ..settings import DELIVERY, Delivery, delivery
from . import identity, ingest
from .evaluate import groups_of, slices_of
from .ingest import labels
from .intervals import Interval
from .recipes import Recipe, cross_fitted, out_of_fold
from .report import versus
from .resampling import Resampler, simultaneous_intervals

FOLDER = ARTIFACTS / "champion"
LEAST = 50  # rows that the champion has not seen: fewer say nothing
Floats = NDArray[np.float64]


class Challenger(NamedTuple):
    """A trained model, the rows it was trained on, and those that it was not."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    y_pred: Floats  # of the holdout
    recipe: Recipe


class Rival(NamedTuple):
    """A model of the registry, and which of the holdout's rows it was not trained on."""

    model: Model
    unseen: NDArray[np.bool_] | None  # None: that cannot be told


def step(config: Config) -> str:
    found = registry.refresh_champion_pointer()
    champion = registry.reference(found)
    source = Path(config.data.source)
    rows = (MODEL, source, TRAIN, HOLDOUT, SIDES, PREDICTIONS)
    with (
        step_record("compare", *rows, DATA, GATE, DELIVERY, registry.POINTER) as record,
        ExitStack() as processes,
    ):
        comparison: dict[str, Any] = {"kind": "first", "champion": champion}
        if found and champion:
            # Before anything is believed of it: that it is the same model, above all.
            registry.fetch_version(registry.require_expected(found), FOLDER / found.version)
            comparison["kind"] = "same"
        if found and champion and found.model_digest != digest(MODEL):
            came = ingest.read(source, config.data.separator)
            held = pl.read_parquet(SIDES)["held"].fill_null(False).to_numpy()
            if len(held) != came.height:
                raise UsageError(f"{source} has changed since `ml ingest`: run `ml run`")
            challenger = Challenger(
                pl.read_parquet(TRAIN),
                pl.read_parquet(HOLDOUT),
                pl.read_parquet(PREDICTIONS)["given"].to_numpy(),
                Recipe(load_estimator(MODEL, trusted()), features, config.data),
            )
            rival = processes.enter_context(opened(found, came, held, challenger.holdout))
            comparison |= compare(challenger, rival, config, delivery())
            best = anchor(champion)
            if comparison["kind"] == "compared" and best["version"] != champion["version"]:
                try:
                    version = registry.find(f"{best['version']}@{best['package_digest']}")
                    earlier = processes.enter_context(
                        opened(version, came, held, challenger.holdout)
                    )
                except UsageError:  # it is no longer in the registry
                    best = champion
                else:
                    against = compare(challenger, earlier, config, delivery())
                    if against["kind"] == "compared":
                        facts = ("skill", "recipes", "unseen")
                        comparison["best"] = {"champion": best} | {
                            name: against[name] for name in facts if name in against
                        }
                    else:  # a contract or classes that it does not know
                        best = champion
            if comparison["kind"] == "compared":
                latest = comparison.get("best", comparison)
                better = evidence(latest)["value"]
                comparison["anchor"] = None if better is not None and better >= 0 else best
        record.document = ComparisonDocument.model_validate({"comparison": comparison})
    return versus(comparison)


@contextmanager
def opened(
    version: registry.Version, rows: pl.DataFrame, held: Any, holdout: pl.DataFrame
) -> Iterator[Rival]:
    """Bring a model from the registry, and find the rows of the holdout that it has not seen.

    Its code runs in a process of its own, so that it can answer and do nothing else.

    Args:
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
            yield Rival(model, _newer(model, folder, holdout))
        else:
            known = training.includes(rows)
            yield Rival(model, None if known is None else ~known[held])


def _newer(model: Model, folder: Path, holdout: pl.DataFrame) -> NDArray[np.bool_] | None:
    """Find rows that are newer than all that a model of before 0.3 was trained on."""
    column = model.data.split.column or ""
    if model.data.split.by != "time" or column not in holdout.columns:
        return None
    profile = json.loads((folder / "profile.json").read_text("utf-8"))
    newest = profile["columns"].get(column, {}).get("percentiles", [None])[-1]
    if newest is None or holdout[column].dtype != pl.Datetime:
        return None
    newer: NDArray[np.bool_] = (holdout[column].dt.epoch("s") > newest).fill_null(False).to_numpy()
    return newer


def anchor(champion: dict[str, str]) -> dict[str, str]:
    """Name the best champion so far: this one, or one that it was found to be worse than."""
    path = FOLDER / champion["version"] / "gate.json"
    gate = json.loads(path.read_text("utf-8")) if path.exists() else {}
    comparison = gate.get("comparison") or {}
    return comparison.get("anchor") or champion


def evidence(found: dict[str, Any]) -> Interval:
    """Return the skill that says most: of recipes if they were compared, else of the holdout."""
    interval: Interval = (found.get("recipes") or found)["skill"]
    return interval


def compare(
    challenger: Challenger, rival: Rival, config: Config, settings: Delivery
) -> dict[str, Any]:
    """Score a champion and its challenger on the same rows, none of which either has seen.

    Args:
        challenger: With its typed rows.
        rival: The champion.
        config: Of the challenger.
        settings: Tolerance and confidence of the comparison.

    Returns:
        `kind`: `compared`, or with a `reason` `unreadable`, `unrecognised` (which rows the
        champion has seen cannot be told) or `seen` (too few that it has not). Of those compared:
        `skill` over the champion on the `unseen` rows, and that of each of the `slices`, the one
        that lost most first; where these rows leave it open, `recipes`, the skill out of fold. The
        ends of the slices are of the configured confidence for all of them together.
    """
    data = config.data
    model = rival.model
    found: dict[str, Any] = {"tolerance": settings.tolerance, "replaces": settings.replaces}
    if (data.task, data.classes) != (model.data.task, model.data.classes):
        return found | {"kind": "unreadable", "reason": "it predicts other classes"}
    seen = model.read(challenger.holdout)
    try:
        failures = model.failures(seen)
    except Exception as error:  # of the code that it brought, which these rows are new to
        return found | {"kind": "unreadable", "reason": f"its rules fail, {_told(error)}"}
    broken = [f for f in failures if f["rule"].startswith(("missing", "not of"))]
    if broken:
        reason = f"column {broken[0]['column']}: {broken[0]['rule']}"
        return found | {"kind": "unreadable", "reason": reason}
    if rival.unseen is None:
        reason = "its package does not say which rows it was trained on in a way that fits these"
        return found | {"kind": "unrecognised", "reason": reason}
    unseen = np.flatnonzero(rival.unseen)
    found |= {"unseen": len(unseen), "rows": challenger.holdout.height}
    if len(unseen) < min(LEAST, challenger.holdout.height):
        reason = (
            f"it was trained on all but {len(unseen)} of the {challenger.holdout.height:,} rows"
            " held out"
        )
        return found | {"kind": "seen", "reason": reason}
    try:
        theirs = model.predict(seen[unseen])
    except Exception as error:  # of the code that it brought, which these rows are new to
        return found | {"kind": "unreadable", "reason": f"its features fail, {_told(error)}"}
    rows = challenger.holdout[unseen]
    y_true = labels(rows, data)
    ours = challenger.y_pred[unseen]
    if np.ptp(y_true) == 0:
        reason = f"the {len(unseen):,} rows that are new to it all have the same {data.target}"
        return found | {"kind": "seen", "reason": reason}
    metric = config.gate.metric
    classes = len(data.classes)
    resampler = Resampler(y_true, metric, classes, config.gate, groups_of(rows, data))
    found |= {"kind": "compared", "metric": metric, "confidence": settings.confidence}
    found["challenger"] = resampler.score(metric, ours).interval(settings.confidence)
    found["own"] = resampler.score(metric, theirs).interval(settings.confidence)
    found["skill"] = resampler.skill(ours, theirs).interval(settings.confidence)
    found["slices"] = _slices(rows, resampler, ours, theirs, config, settings)
    if undecided(found["skill"], settings.tolerance):
        every = pl.concat([challenger.train, challenger.holdout])
        try:
            y_true, ours, theirs = _both_recipes(challenger.recipe, model, every, data)
        except Exception as error:  # of either's code, which was not made to be trained here
            found["recipes_failed"] = _told(error)
        else:
            groups = groups_of(cross_fitted(every, data), data)
            resampler = Resampler(y_true, metric, classes, config.gate, groups)
            over = resampler.skill(ours, theirs).interval(settings.confidence)
            found["recipes"] = {"skill": over, "rows": len(y_true)}
    return found


def _both_recipes(
    recipe: Recipe, rival: Model, rows: pl.DataFrame, data: Data
) -> tuple[NDArray[Any], Floats, Floats]:
    """Return the labels of (m,) rows, and what each recipe predicts of them out of fold."""
    if isinstance(rival, isolated.IsolatedModel):
        y_true, (ours,) = out_of_fold([recipe], rows, data)
        return y_true, ours, rival.out_of_fold(rows, data, len(y_true))
    recipes = [recipe, Recipe(rival.fitted, rival.features, rival.request_contract)]
    y_true, (ours, theirs) = out_of_fold(recipes, rows, data)
    return y_true, ours, theirs


def _told(error: Exception) -> str:
    """Return what failed, in a line; of an isolated package it is one already."""
    if isinstance(error, isolated.PackageError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def undecided(over: Interval, tolerance: float) -> bool:
    """Check whether a skill may be above or below what a challenger may lose."""
    low, high = over["low"], over["high"]
    return low is not None and high is not None and low < -tolerance <= high


def _slices(
    rows: pl.DataFrame,
    resampler: Resampler,
    ours: Floats,
    theirs: Floats,
    config: Config,
    settings: Delivery,
) -> list[dict[str, Any]]:
    """Return the skill of each slice, with ends that hold for all of them together."""
    parts = list(slices_of(rows, config))
    places = [place for *_, place in parts]
    intervals = simultaneous_intervals(
        resampler, ours, theirs, places, settings.confidence, -settings.tolerance
    )
    slices = [
        {"column": column, "value": value, "rows": len(place), "skill": interval}
        for (column, value, place), interval in zip(parts, intervals, strict=True)
        if interval["high"] is not None
    ]
    return sorted(slices, key=lambda part: part["skill"]["high"])
