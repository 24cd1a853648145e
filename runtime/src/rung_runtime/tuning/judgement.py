"""The judgement: are the best params better on rows that the search has not seen?

The best of many trials is the best on its own folds by some luck, so those folds cannot say what it
gained. A part of the training rows is kept back, as the split of the project parts rows; both
models are trained on the other part and predict it. The holdout has no part in it.
"""

from typing import NamedTuple

import polars as pl

from .. import UsageError
from ..config import Config, Data, Model
from ..model_package import predict
from ..pipeline.ingest import labels
from ..pipeline.resampling import Resampler
from ..pipeline.slices import row_groups
from ..pipeline.split import split
from ..pipeline.train import fit
from ..problem import features
from ..records import Interval

KEPT_BACK = 0.3  # of the training rows
ERROR_RATE = 0.05  # how often params that are no better may be taken over, however often one looks
RESAMPLES = 2_000  # for ends that are far out


class Parts(NamedTuple):
    """The training rows of a search, and those that are kept back to judge it."""

    searched: pl.DataFrame
    kept_back: pl.DataFrame


class Judgement(NamedTuple):
    """What the best params are worth on the rows that were kept back."""

    rows: int
    present: float
    best: float
    skill: Interval  # of the best over the present params
    confidence: float

    @property
    def is_better(self) -> bool:
        """Whether the gain is beyond noise."""
        return self.skill.low is not None and self.skill.low > 0


def divide(train: pl.DataFrame, data: Data, max_rows: int) -> Parts:
    """Keep back a part of the training rows: the newest, whole groups, or a random one.

    Args:
        train: (n, …) typed rows.
        data: Their contract.
        max_rows: Of more rows than these, each part gets a random sample.

    Raises:
        UsageError: The rows cannot be divided, as there is a single group or instant.
    """
    # Another seed than that of the holdout, whose neighbours would be kept back otherwise.
    inner = data.split.model_copy(update={"holdout": KEPT_BACK, "seed": data.split.seed + 1})
    try:
        searched, kept_back = split(train, data.model_copy(update={"split": inner}))
    except UsageError as error:
        raise UsageError(
            f"no part of the training rows can be kept back to judge the best params by: {error}"
        ) from None
    return Parts(*(_sampled(part, max_rows) for part in (searched, kept_back)))


def _sampled(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    return rows.sample(most, seed=0) if rows.height > most else rows


def confidence(looks: int) -> float:
    """Return the confidence of a judgement after so many others on the same rows.

    Whoever looks often enough sees a gain by chance. So the k-th look may be wrong in a
    1 ÷ (k (k + 1)) part of the error rate, which adds up to all of it, however many there are.
    """
    k = looks + 1
    return 1 - 2 * ERROR_RATE / (k * (k + 1))


def judge(parts: Parts, config: Config, best: Model, looks: int) -> Judgement:
    """Compare two models on the rows that were kept back, paired.

    The interval is that of two ways to train, not of these two models alone: as they would differ
    a little on other training rows, it is wider by the root of 1 + kept back ÷ searched (Nadeau
    and Bengio, Inference for the generalization error, Machine Learning 52, 2003).

    Args:
        parts: Typed rows.
        config: With the present params.
        best: The other model.
        looks: How often params were judged by these rows before.
    """
    data = config.data
    rows = parts.kept_back
    present_pred, best_pred = (
        predict(fit(parts.searched, data, model), rows, data, features)
        for model in (config.model, best)
    )
    gate = config.gate.model_copy(update={"resamples": RESAMPLES})
    metric = config.gate.metric
    groups = row_groups(rows, data)
    resampler = Resampler(labels(rows, data), metric, len(data.classes), gate, groups)
    skill = resampler.skill(best_pred, present_pred)
    wider = (1 + rows.height / parts.searched.height) ** 0.5
    level = confidence(looks)
    return Judgement(
        rows=rows.height,
        present=resampler.score(metric, present_pred).value,
        best=resampler.score(metric, best_pred).value,
        skill=Interval(**skill._replace(deviations=wider * skill.deviations).interval(level)),
        confidence=level,
    )
