"""Compare: the champion, on the challenger's own holdout → `comparison.json`.

Both predict the same rows, and rows are drawn for both at once (paired bootstrap), so that what is
hard about a row for either cancels out. A model is never compared with itself.
"""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from statistics import NormalDist
from typing import Any

import polars as pl

from .. import registry
from ..config import DATA, GATE, Config
from ..documents import ARTIFACTS, HOLDOUT, MODEL, PREDICTIONS, digest, document
from ..inference import Model, opened
from ..settings import DELIVERY, delivery
from .evaluate import slices_of
from .ingest import labels
from .metrics import SCORES, bootstrap, skill
from .report import versus

FOLDER = ARTIFACTS / "champion"


def step(config: Config) -> str:
    champion = registry.named(registry.look())
    files = (MODEL, HOLDOUT, PREDICTIONS, DATA, GATE, DELIVERY, registry.POINTER)
    with document("compare", *files) as said:
        found: dict[str, Any] = {"kind": "first", "champion": champion}
        if champion and champion["model_digest"] == digest(MODEL):
            found["kind"] = "same"
        elif champion:
            version = champion["version"]
            model = opened(registry.opened().fetch(version, FOLDER / version))
            found |= compare(model, pl.read_parquet(HOLDOUT), pl.read_parquet(PREDICTIONS), config)
        said["comparison"] = found
    return versus(found)


def compare(
    champion: Model, rows: pl.DataFrame, predictions: pl.DataFrame, config: Config
) -> dict[str, Any]:
    """Score a champion and its challenger on the same rows.

    Args:
        rows: (n,) typed rows, the challenger's holdout.
        predictions: The challenger's `given` for these rows.

    Returns:
        `kind`: `compared` or, with a `reason`, `unreadable`; `skill` over the champion and that of
        each of the `slices`, the one that lost most first. The ends of the slices are of the
        configured confidence for all of them together (Bonferroni).
    """
    wanted, data = delivery(), config.data
    found: dict[str, Any] = {"tolerance": wanted.tolerance, "replaces": wanted.replaces}
    before, seen = champion.data, champion.read(rows)
    if (data.task, data.classes) != (before.task, before.classes):
        return found | {"kind": "unreadable", "reason": "it predicts other classes"}
    broken = [f for f in champion.failures(seen) if f["rule"].startswith(("missing", "not of"))]
    if broken:
        reason = f"column {broken[0]['column']}: {broken[0]['rule']}"
        return found | {"kind": "unreadable", "reason": reason}
    try:
        theirs = champion.predict(seen)
    except Exception as error:  # of the code that it brought, which these rows are new to
        reason = f"its features fail, {type(error).__name__}: {str(error)[:200]}"
        return found | {"kind": "unreadable", "reason": reason}
    metric, truth, ours = config.gate.metric, labels(rows, data), predictions["given"].to_numpy()
    gate = config.gate.model_copy(update={"confidence": wanted.confidence})

    def both(at: Any) -> list[float]:
        values = [float(SCORES[metric](truth[at], given[at])) for given in (ours, theirs)]
        return [*values, skill(metric, *values)]

    challenger, own, over = bootstrap(both, len(truth), gate)
    parts = list(slices_of(rows, config))
    wider = _normal(1 - (1 - wanted.confidence) / max(1, len(parts))) / _normal(wanted.confidence)
    slices = []
    for column, value, at in parts:
        *_, ends = bootstrap(partial(_part, both, at), len(at), gate)
        if (middle := ends["value"]) is not None:
            low, high = (
                middle + (float(ends[end] or 0) - middle) * wider for end in ("low", "high")
            )
            part = {"column": column, "value": value, "rows": len(at)}
            slices.append((high, part | {"skill": {"value": middle, "low": low, "high": high}}))
    found |= {"kind": "compared", "metric": metric, "confidence": wanted.confidence}
    found["slices"] = [part for _, part in sorted(slices, key=itemgetter(0))]
    return found | {"challenger": challenger, "own": own, "skill": over}


def _part(of: Callable[[Any], list[float]], at: Any, drawn: Any) -> list[float]:
    return of(at[drawn])


def _normal(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
