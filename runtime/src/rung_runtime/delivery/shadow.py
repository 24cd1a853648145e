"""Shadow: candidate and champion answer the last logged requests, and are compared row by row.

Nobody knows yet what became of these rows, so the shadow cannot tell which of the two is right. It
can tell that they do not do the same job: a candidate that orders the rows unlike the champion, or
whose predictions are far from the champion's, is refused before anything changes. Models that are
equally good differ too, because they learned from other rows; `Shadow` says how much is
allowed. The template's decision 0042 has the measurements.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .. import RefusedError, progress

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from ..config.delivery import Delivery, Shadow
    from ..model_package import Model
    from ..records import ShadowResult
    from ..serving.loaded_model import LoadedModel

    Floats = NDArray[np.float64]

ENOUGH_ROWS = 50  # for the predictions of two models to be compared
TRIES = 3  # of a request in a row; the fastest counts, as a busy machine only slows down
# A candidate that seems slow is measured again, both beside each other: at most so often, so long.
MAX_ROUNDS = 6
MAX_MEASURING_S = 10.0
ENOUGH_REPLIES = 30  # of all requests together: a few requests are repeated more often
NARROW = 0.5  # of the champion's usual range: below it, the rows are too alike to be put in order
ONE_SIDED_95 = 1.645  # quantile of the normal distribution
ARITHMETIC = 1e-9  # relative differences that come from the order of additions


@dataclass(frozen=True)
class Replay:
    """The requests that both models answer.

    Attributes:
        seconds: (requests, 2), of the candidate and of the champion.
        candidate: Predictions of all rows: (rows, classes) probabilities or (rows,) values.
        champion: The same of the champion.
        row_hashes: (rows,), equal for equal rows.
    """

    seconds: "Floats"
    candidate: "Floats"
    champion: "Floats"
    row_hashes: "NDArray[np.uint64]"


def shadow(
    new: "LoadedModel", old: "LoadedModel | None", settings: "Delivery", result: "ShadowResult"
) -> None:
    """Let a candidate and the champion answer the last requests of the log.

    A request that the champion cannot answer says nothing about the candidate and is not counted.

    Args:
        new: The candidate.
        old: The champion, if there is one.
        settings: `config/delivery.yaml`.
        result: Gets the numbers, also where they refuse the candidate.

    Raises:
        RefusedError: A number is beyond `config/delivery.yaml`.
    """
    import numpy as np

    if old is None:
        result["note"] = "the first model has no champion beside it"
        progress.report(result["note"])
        return
    limits = settings.shadow
    requests = _requests(old, new, settings, result)
    errors, replay = _replay(new, old, requests, limits.latency_ratio)
    answered = 0 if replay is None else len(replay.seconds)
    total = errors + answered
    result["requests"] = total
    result["errors"] = errors
    result["error_share"] = errors / max(total, 1)
    if not total:
        result["note"] = "the champion answers none of the requests: nothing is compared"
    objections: list[str] = []
    if result["error_share"] > limits.max_error_share:
        objections.append(f"{errors} of {total} requests fail that the champion answers")
    if replay is not None:
        p95, champion_p95 = np.percentile(replay.seconds, 95, axis=0).tolist()
        result["p95_ms"] = p95 * 1e3
        result["champion_p95_ms"] = champion_p95 * 1e3
        result["latency_ratio"] = p95 / champion_p95
        if result["latency_ratio"] > limits.latency_ratio:
            objections.append(f"it takes {p95 / champion_p95:.1f} times as long as the champion")
        objections += compare_predictions(new.model, old, replay, limits, result)
    if objections:
        notes = [result["note"]] if "note" in result else []
        result["note"] = "; ".join([*notes, *objections])
        raise RefusedError(
            f"refused in the shadow by config/delivery.yaml: {'; '.join(objections)}"
        )


def _replay(
    new: "LoadedModel", old: "LoadedModel", requests: "list[pl.DataFrame]", latency_ratio: float
) -> tuple[int, Replay | None]:
    """Return how many requests only the candidate fails, and what both answer to the others.

    Args:
        new: The candidate.
        old: The champion.
        requests: What they are asked.
        latency_ratio: How many times as long as the champion the candidate may take.
    """
    import numpy as np

    errors = 0
    tries = max(TRIES, ENOUGH_REPLIES // max(len(requests), 1))
    answered: list[pl.DataFrame] = []
    seconds: list[list[float]] = []
    candidate_parts: list[Floats] = []
    champion_parts: list[Floats] = []
    hashes: list[NDArray[np.uint64]] = []
    for number, rows in enumerate(requests, 1):
        progress.report(f"{number} of {len(requests)} requests, answered by both models")
        candidate = new.model.reply(rows, tries)
        champion = old.model.reply(rows, tries)
        if champion.predictions is None:
            continue
        if candidate.predictions is None:
            errors += 1
            continue
        answered.append(rows)
        seconds.append([candidate.seconds, champion.seconds])
        candidate_parts.append(candidate.predictions)
        champion_parts.append(champion.predictions)
        hashes.append(rows.hash_rows().to_numpy())
    if not seconds:
        return errors, None
    fastest = np.array(seconds)
    until = time.monotonic() + MAX_MEASURING_S
    for _ in range(MAX_ROUNDS - 1):
        p95, champion_p95 = np.percentile(fastest, 95, axis=0)
        if p95 / champion_p95 <= latency_ratio or time.monotonic() > until:
            break
        for index, rows in enumerate(answered):
            again = [model.reply(rows, tries).seconds for model in (new.model, old.model)]
            fastest[index] = np.minimum(fastest[index], again)
            if time.monotonic() > until:
                break
    return errors, Replay(
        fastest,
        np.concatenate(candidate_parts),
        np.concatenate(champion_parts),
        np.concatenate(hashes),
    )


def compare_predictions(
    model: "Model", old: "LoadedModel", replay: Replay, limits: "Shadow", result: "ShadowResult"
) -> list[str]:
    """Write down how far apart the predictions are, and return what is beyond the limits."""
    import numpy as np

    rows = len(replay.candidate)
    _, first = np.unique(replay.row_hashes, return_index=True)
    result["rows"] = rows
    result["distinct_rows"] = len(first)
    candidate, champion = comparable(model, old.model, replay)
    usual = usual_range(old)
    shift = prediction_shift(candidate, champion, usual)
    if shift is not None:
        result["shift"] = shift
    # A row that is sent again and again says no more about the order than once.
    agreement = rank_agreement(candidate[first], champion[first], usual)
    if agreement is not None:
        result["agreement"] = agreement
    objections: list[str] = []
    if rows < ENOUGH_ROWS:
        return objections
    if shift is not None and shift > limits.max_shift:
        objections.append(f"its predictions are {shift:.2f} away from the champion's")
    if agreement is not None and upper_bound(agreement, len(first)) < limits.min_agreement:
        objections.append(
            "it puts the rows in another order than the champion "
            f"(rank correlation {agreement:.2f})"
        )
    return objections


def prediction_shift(
    candidate: "Floats", champion: "Floats", usual: float | None = None
) -> float | None:
    """Measure how far the predictions of two models for the same rows are apart.

    Args:
        candidate: (n, classes) probabilities or (n,) values.
        champion: The same of the champion, with its classes in the same order.
        usual: Of a regression, the champion's range as `usual_range` gives it.

    Returns:
        Of two classes, the mean absolute difference of the probabilities. Of more, the share of
        rows that would have to change their class for both models to name each class equally
        often (total variation distance). Of a regression, the mean absolute difference as a share
        of the champion's range; None if that is unknown and the champion's predictions are all one.
    """
    import numpy as np

    if candidate.ndim != champion.ndim:  # one predicts classes and the other values
        return 1.0
    if champion.ndim == 1:
        scale = max(usual or 0.0, spread(champion))
        with np.errstate(over="ignore"):
            difference = float(np.abs(candidate - champion).mean())
            if scale:
                return min(difference / scale, float(np.finfo(float).max))
        return None if difference else 0.0
    classes = champion.shape[1]
    if classes == 2:
        return float(np.abs(candidate[:, 1] - champion[:, 1]).mean())
    counts = [np.bincount(side.argmax(axis=1), minlength=classes) for side in (candidate, champion)]
    return float(np.abs(counts[0] - counts[1]).sum()) / len(champion) / 2


def rank_agreement(
    candidate: "Floats", champion: "Floats", usual: float | None = None
) -> float | None:
    """Measure whether two models put the same rows in the same order.

    Args:
        candidate: (n, classes) probabilities or (n,) values of distinct rows.
        champion: The same of the champion, with its classes in the same order.
        usual: The champion's range as `usual_range` gives it.

    Returns:
        Spearman's rank correlation: of the values, of the probability of the positive class, or of
        each class's probabilities, weighted by the champion's mean probability of it. 1 is the same
        order, -1 the reverse, 0 what chance or a constant gives. None where the champion itself
        does not distinguish the rows, or far less than it usually does, so that what remains are
        differences that two good models need not have in common.
    """
    import numpy as np
    from scipy.stats import spearmanr

    if candidate.ndim != champion.ndim:
        return None
    if champion.ndim == 2 and champion.shape[1] == 2:
        candidate = candidate[:, 1]
        champion = champion[:, 1]
    if champion.ndim == 1:
        if usual is not None and spread(champion) < NARROW * usual:
            return None
        candidate = candidate[:, None]
        champion = champion[:, None]
    correlations: list[float] = []
    weights: list[float] = []
    for mine, theirs in zip(candidate.T, champion.T, strict=True):
        unit = ARITHMETIC * np.abs(theirs).max()
        if len(theirs) < 3 or np.ptp(theirs) <= unit:
            continue
        constant = np.ptp(mine) <= unit
        with np.errstate(over="ignore"):
            rounded = [np.round(side / unit) for side in (mine, theirs)]
        correlations.append(0.0 if constant else spearmanr(*rounded).statistic)
        weights.append(theirs.mean() if champion.shape[1] > 1 else 1.0)
    return float(np.average(correlations, weights=weights)) if correlations else None


def upper_bound(correlation: float, rows: int) -> float:
    """Return the upper end of a rank correlation's one-sided 95 % interval.

    Fisher's transformation with the standard error of Bonett and Wright (2000), Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations, Psychometrika 65.
    """
    import numpy as np

    if rows < 4:
        return 1.0
    error = np.sqrt((1 + correlation**2 / 2) / (rows - 3))
    inside = np.clip(correlation, -1 + 1e-9, 1 - 1e-9)
    return float(np.tanh(np.arctanh(inside) + ONE_SIDED_95 * error))


def spread(predictions: "Floats") -> float:
    """Return the distance between the 5th and the 95th percentile."""
    import numpy as np

    low, high = np.percentile(predictions, [5, 95])
    return float(high - low)


def usual_range(loaded: "LoadedModel") -> float | None:
    """Return the same distance for a model's predictions of its holdout; None of many classes."""
    percentiles = loaded.profile.get("prediction", {}).get("percentiles")
    return float(percentiles[95] - percentiles[5]) if percentiles else None


def comparable(new: "Model", old: "Model", replay: Replay) -> "tuple[Floats, Floats]":
    """Return the predictions of candidate and champion with one column for each class of either.

    A class that a model does not know has probability 0 in its column.
    """
    import numpy as np

    classes = [*old.data.classes, *(set(new.data.classes) - set(old.data.classes))]
    sides = []
    for model, predictions in ((new, replay.candidate), (old, replay.champion)):
        if predictions.ndim == 2:
            columns = [classes.index(name) for name in model.data.classes]
            spaced = np.zeros((len(predictions), len(classes)))
            spaced[:, columns] = predictions
            predictions = spaced
        sides.append(predictions)
    return sides[0], sides[1]


def _requests(
    old: "LoadedModel", new: "LoadedModel", settings: "Delivery", result: "ShadowResult"
) -> "list[pl.DataFrame]":
    """Return the last requests of the log, or the champion's commonest row if there are none."""
    import polars as pl

    from ..prediction_log import read
    from ..serving.rows import frame_from_rows

    now = datetime.now(UTC).replace(tzinfo=None)
    count = settings.shadow.requests
    rows = pl.DataFrame({"request_id": []})
    for period in (timedelta(hours=1), timedelta(days=1), timedelta(days=366)):
        if settings.service.log and rows["request_id"].n_unique() < count:
            rows = read(settings.service.log, now - period).sort("time").collect()
    last = rows["request_id"].unique(maintain_order=True).tail(count)
    if last.is_empty():
        result["note"] = "no request is logged: the champion's commonest row was sent instead"
        return [frame_from_rows([old.example], old.model.request_contract)]
    parts = rows.filter(pl.col("request_id").is_in(last.implode())).partition_by("request_id")
    private = [name for name in settings.service.private if name in new.example]
    if private:
        result["note"] = f"private, so sent with a common value: {', '.join(private)}"
    common = [pl.lit(new.example[name]).alias(name) for name in private]
    return [_features(part).with_columns(common) for part in parts]


def _features(rows: "pl.DataFrame") -> "pl.DataFrame":
    """Return the columns of the log that were sent: `x:NAME`, as NAME."""
    names = [name for name in rows.columns if name.startswith("x:")]
    return rows.select(names).rename({name: name.removeprefix("x:") for name in names})
