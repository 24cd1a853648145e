"""Whether the labels that have arrived stand for all predictions, and which of them do."""

from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, ks_2samp

from ..pipeline.formatting import short
from .label_batches import MIN_LABELS

CHANCE = 0.001  # of calling labels selected that are not


def balanced(
    rows: pl.DataFrame, scores: NDArray[np.float64]
) -> tuple[pl.DataFrame, Literal["all", "balanced", "none"], str | None]:
    """Return labels that stand for all predictions, whichever scores were given a label.

    Where labels depend on the score, as only loans that were granted can default, each tenth of the
    scores keeps as large a share of its labels as the tenth that has the fewest: weighting by the
    inverse probability of a label (Horvitz and Thompson, 1952), done by leaving out. Where a tenth
    has none, nothing can stand for it.
    """
    edges = np.unique(np.quantile(scores, np.arange(1, 10) / 10))
    tenth = np.searchsorted(edges, rows["score"].to_numpy(), "left")
    labels = np.bincount(tenth, minlength=len(edges) + 1)
    predictions = np.bincount(np.searchsorted(edges, scores, "left"), minlength=len(edges) + 1)
    used = predictions > 0
    table = np.array([labels[used], np.maximum(predictions[used] - labels[used], 0)])
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return rows, "all", None
    if chi2_contingency(table).pvalue >= CHANCE:
        return rows, "all", None
    share = float((labels[used] / predictions[used]).min())
    random = np.random.default_rng(0)
    kept = [
        random.permutation(np.flatnonzero(tenth == k))[: round(share * predictions[k])]
        for k in np.flatnonzero(used)
    ]
    index = np.sort(np.concatenate(kept))
    if len(index) < MIN_LABELS:
        labelled_scores = rows["score"].to_numpy()
        low = short(float(labelled_scores.min()))
        high = short(float(labelled_scores.max()))
        note = (
            f"labels are known for some scores only ({low} to {high}, most of them), "
            "which say nothing of the others"
        )
        return rows[:0], "none", note
    note = f"labels depend on the score: {len(index)} of {len(rows)} were kept, in equal shares"
    return rows[index], "balanced", note


def one_class_arrives_sooner(rows: pl.DataFrame) -> bool:
    """Check whether the delay of labels depends on the class: what has arrived is not all."""
    delay = (rows["told"] - rows["time"]).dt.total_seconds().to_numpy()
    classes = rows["truth"].to_physical().to_numpy()
    counts = np.bincount(classes.astype(int))
    if (counts > 0).sum() < 2:
        return True
    first = classes == counts.argmax()
    if min(first.sum(), (~first).sum()) < 5:
        return False
    test = ks_2samp(delay[first], delay[~first], method="asymp")
    return bool(test.statistic > 0.3 and test.pvalue < CHANCE)
