"""Windows of the prediction log, each of which is judged: inputs, predictions, refused rows."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import GATE, Data, Gate
from ..config import read as read_config
from ..config.drift import Drift, Window
from ..prediction_log import joined, read, refused
from ..records import Finding, Signs, WindowDrift, WindowPerformance, WindowSummary
from . import performance
from .champion import Champion
from .drift import Reference, judge
from .fairness import judge_groups
from .label_batches import MIN_LABELS, score
from .label_batches import labelled as with_labels

MAX_WINDOWS = 30  # in a document
POOL_WINDOWS = 14  # that are also judged together, against seasons
POOL_ROWS = 20_000  # of these, at most
MICROSECONDS_PER_HOUR = 3.6e9


class JudgedWindow(NamedTuple):
    """A window, as both documents have it."""

    summary: WindowSummary
    drift: WindowDrift


def judge_windows(
    champion: Champion, log: str, until: datetime, settings: Drift
) -> tuple[list[JudgedWindow], int]:
    """Judge the newest complete windows of a log.

    Args:
        until: Without a zone, in UTC: what is younger is not read.

    Returns:
        The windows, oldest first; and how many rows wait for the next one.
    """
    version = champion.version
    answered = read(log, None, version.model_digest).select("time").collect()["time"]
    broken = refused(log).filter(pl.col("version") == version.version).collect()
    broken_times = broken["time"].to_physical().to_numpy().repeat(broken["rows"].to_numpy())
    times = np.sort(np.concatenate([answered.to_physical().to_numpy(), broken_times]))
    until_us = int(until.replace(tzinfo=UTC).timestamp() * 1e6)
    spans = boundaries(times, until_us, settings.window)
    if not spans:
        return [], len(times)
    waiting = int((times >= spans[-1][1]).sum())
    first = max(0, len(spans) - MAX_WINDOWS)
    spans = spans[max(0, first - POOL_WINDOWS) :]
    since = datetime.fromtimestamp(spans[0][0] / 1e6, UTC).replace(tzinfo=None)
    log_rows = joined(log, since, version.model_digest, arrival=True)
    rows = log_rows.sort("time", "request_id", "row").collect()
    row_times = rows["time"].to_physical()
    parts = [rows.filter((row_times >= begin) & (row_times < end)) for begin, end in spans]
    inputs = judge_inputs(parts, champion.references, settings)
    gate = read_config(GATE, Gate)
    judged = []
    for span, part, columns in list(zip(spans, parts, inputs, strict=True))[-MAX_WINDOWS:]:
        begin, end = span
        count = int(((broken_times >= begin) & (broken_times < end)).sum())
        judged.append(_judge_window(span, part, columns, count, champion, gate, settings))
    return judged, waiting


def boundaries(times: NDArray[np.int64], until: int, window: Window) -> list[tuple[int, int]]:
    """Return where complete windows begin and end: the same however often this is called.

    Args:
        times: (n,) of rows, sorted, in microseconds.
        until: In microseconds; no window ends later.
    """
    spans: list[tuple[int, int]] = []
    if not len(times):
        return spans
    begin = int(times[0])
    first = 0
    while first + window.rows - 1 < len(times):
        last_needed = int(times[first + window.rows - 1])
        end = max(begin + round(window.hours * MICROSECONDS_PER_HOUR), last_needed + 1)
        if end > until:
            break
        spans.append((begin, end))
        begin = end
        first = int(np.searchsorted(times, end))
    return spans


def judge_inputs(
    windows: list[pl.DataFrame], references: dict[str, Reference], settings: Drift
) -> list[dict[str, Finding]]:
    """Judge each window by itself and, where seasons are known, with those before it.

    The weather of a day says nothing; that of two weeks is compared with other two weeks. Windows
    that have a sign themselves are left out, so that what is over is not found again and again.

    Args:
        windows: The rows of each, the oldest first; for the first 14, fewer are judged together.
        references: By column, as `drift.judge` takes them.
        settings: Of drift; both looks together have its significance.
    """
    if not any(reference.seen.get("usual") for reference in references.values()):
        return [judge(rows, references, settings) for rows in windows]
    half = settings.model_copy(update={"significance": settings.significance / 2})
    results = [judge(rows, references, half) for rows in windows]
    is_quiet = [
        all(column["verdict"] == "quiet" for column in result.values()) for result in results
    ]
    for last in range(len(windows)):
        if not is_quiet[last]:
            continue
        pool = [k for k in range(max(0, last - POOL_WINDOWS + 1), last + 1) if is_quiet[k]]
        if len(pool) < 2:
            continue
        rows = pl.concat([windows[k] for k in pool])
        # At random, as rows may come in a rhythm.
        sample = rows.sample(min(len(rows), POOL_ROWS), seed=0)
        for name, column in judge(sample, references, half).items():
            if column["reason"] and references[name].seen.get("usual"):
                results[last][name]["verdict"] = "drift"
                results[last][name]["reason"] = f"{column['reason']}, over {len(pool)} windows"
    return results


def iso(time: int | datetime) -> str:
    """Return a time of UTC, in microseconds or without a zone, as documents have it."""
    if isinstance(time, datetime):
        return time.replace(tzinfo=UTC).isoformat(timespec="microseconds")
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="microseconds")


def _judge_window(
    span: tuple[int, int],
    rows: pl.DataFrame,
    inputs: dict[str, Finding],
    refused_rows: int,
    champion: Champion,
    gate: Gate,
    settings: Drift,
) -> JudgedWindow:
    prediction = inputs.pop(champion.prediction, None)
    columns = {name.removeprefix("x:"): column for name, column in inputs.items()}
    share = refused_rows / max(1, refused_rows + len(rows))
    signs: Signs = {
        "drift": {name: column["reason"] for name, column in columns.items() if column["reason"]},
        "prediction": {},
        "violations": {},
    }
    if prediction and prediction["reason"]:
        signs["prediction"] = {"the prediction": prediction["reason"]}
    if share > settings.max_violation_share:
        signs["violations"] = {"the caller": f"sent {share:.1%} of rows that break the contract"}
    window_performance: WindowPerformance | None = None
    if rows["truth"].count() >= MIN_LABELS:
        labelled = with_labels(rows, champion.data)
        scores = rows.select(score(champion.data).alias("score"))["score"].to_numpy()
        judgement = performance.judge(
            labelled, scores, champion.holdout, champion.data, gate, settings
        )
        if check := judgement["checks"].get(champion.metric):
            window_performance = {
                "labels": len(labelled),
                "value": check["value"],
                "skill": check["skill"],
            }
            signs["performance"] = judgement["signs"]
    fairness = None
    if gate.fairness and len(rows):  # a log without an answer has no columns of answers
        fairness = judge_groups(rows, *_answers(rows, champion.data), champion.data, gate)
    if fairness:
        signs["fairness"] = fairness.signs
    begin, end = span
    summary: WindowSummary = {
        "from": iso(begin),
        "to": iso(end),
        "rows": len(rows),
        "refused": refused_rows,
        "violation_share": share,
        "performance": window_performance,
        "fairness": fairness.comparisons if fairness else None,
        "signs": signs,
    }
    drift: WindowDrift = {
        "from": iso(begin),
        "to": iso(end),
        "rows": len(rows),
        "columns": columns,
        "prediction": prediction,
    }
    return JudgedWindow(summary, drift)


def _answers(rows: pl.DataFrame, data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the predictions of rows, and (n,) class indices or values, NaN without a label."""
    if not data.classes:
        truth = rows["truth"].cast(pl.Float64, strict=False)
        return rows["prediction"].to_numpy(), truth.fill_null(np.nan).to_numpy()
    y_pred = rows.select(f"p:{name}" for name in data.classes).to_numpy()
    codes = rows["truth"].cast(pl.Enum(data.classes), strict=False).to_physical()
    return y_pred, codes.cast(pl.Float64).fill_null(np.nan).to_numpy()
