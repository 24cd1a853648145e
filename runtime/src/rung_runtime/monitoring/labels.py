"""Labels that arrived, batch by batch, each of which is judged against the holdout."""

import numpy as np
import polars as pl

from ..config import GATE, Gate
from ..config import read as read_config
from ..config.drift import Drift
from ..prediction_log import joined, read
from ..records import LabelCounts, Outcome
from . import performance
from .champion import Champion
from .label_batches import batches as in_batches
from .label_batches import labelled, pooled, score
from .windows import MAX_WINDOWS, iso


def judge_labels(
    champion: Champion, log: str, settings: Drift
) -> tuple[list[Outcome], LabelCounts]:
    """Judge the newest batches of labels, in the order in which they arrived.

    Returns:
        The batches, oldest first; and how many predictions there are, how many of them have a
        label, and how many of these wait for the next batch.
    """
    digest = champion.version.model_digest
    data = champion.data
    with_label = joined(log, None, digest, arrival=True).filter(pl.col("truth").is_not_null())
    answers = [name for name in with_label.collect_schema().names() if name.startswith("p:")]
    columns = ["request_id", "row", "time", "told", "truth", "prediction", *answers]
    rows = with_label.select(columns).collect()
    if rows.is_empty():
        count = int(read(log, None, digest).select(pl.len()).collect().item())
        return [], {"predictions": count, "labels": 0, "waiting": 0}
    rows = labelled(rows, data)
    predictions = read(log, None, digest).select("time", score=score(data)).sort("time").collect()
    times = predictions["time"].to_physical().to_numpy()
    batches = in_batches(rows, settings)
    counts: LabelCounts = {
        "predictions": len(times),
        "labels": len(rows),
        "waiting": len(rows) - sum(len(batch.rows) for batch in batches),
    }
    gate = read_config(GATE, Gate)
    outcomes = []
    for batch in pooled(batches, settings.window.rows)[-MAX_WINDOWS:]:
        predicted = batch.rows["time"].to_physical().to_numpy()
        begin = int(predicted.min())
        end = int(predicted.max())
        first = int(np.searchsorted(times, begin, "left"))
        last = int(np.searchsorted(times, end, "right"))
        scores = predictions["score"][first:last].to_numpy()
        judgement = performance.judge(batch.rows, scores, champion.holdout, data, gate, settings)
        outcome: Outcome = {
            "arrived": iso(batch.arrived),
            "from": iso(begin),
            "to": iso(end),
            "labels": judgement["labels"],
            "predictions": judgement["predictions"],
            "coverage": judgement["coverage"],
            "basis": judgement["basis"],
            "note": judgement["note"],
            "checks": judgement["checks"],
            "calibration": judgement["calibration"],
            "signs": {},
        }
        if judgement["basis"] != "none":
            outcome["signs"] = {"performance": judgement["signs"]}
        outcomes.append(outcome)
    return outcomes, counts
