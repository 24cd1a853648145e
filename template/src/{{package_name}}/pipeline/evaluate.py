"""Evaluate: model and holdout → `metrics.json` and `report.html`. Refuses predictions of no value.

Only the holdout is scored, with the model read back from its file, not the one in memory.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from .. import BadInput
from ..config import DATA, GATE, HIGHER_IS_BETTER, METRICS, Config, Data
from ..documents import HOLDOUT, MODEL, PREDICTIONS, TRAIN, digest, document, write_rows
from ..inference import load, predict
from ..problem.features import features
from ..problem.model import TRUSTED, linear
from . import report
from .ingest import inputs, labels
from .leaks import alone, leaks
from .metrics import SCORES, Floats, bootstrap, calibration, curves, skill


def step(config: Config) -> str:
    with document("evaluate", MODEL, TRAIN, HOLDOUT, DATA, GATE) as said:
        train, holdout, fitted = (
            pl.read_parquet(TRAIN),
            pl.read_parquet(HOLDOUT),
            load(MODEL, TRUSTED),
        )
        truth, given = labels(holdout, config.data), predict(fitted, holdout, config.data, features)
        if not np.isfinite(given).all():
            raise BadInput(f"{MODEL} predicts values that are not finite: train another model")
        write_rows(pl.DataFrame({"truth": truth, "given": given}), PREDICTIONS)
        said |= judge(truth, given, baselines(train, holdout, config.data), holdout, config)
        said["importance"] = importance(fitted, holdout, config)
        said["leaks"] = leaks(train, holdout, config.data, given)
        said["alone"] = alone(pl.concat([train, holdout]), config.data)
        size, taken = MODEL.stat().st_size / 1e6, latency(fitted, holdout, config.data)
        said["model"] = {"digest": digest(MODEL), "megabytes": size, "latency_ms": taken}
    report.write(config)
    shorts = {n: [report.short(m[end]) for end in m] for n, m in said["metrics"].items()}
    told = [f"{name} {value} ({low} to {high})" for name, (value, low, high) in shorts.items()]
    return "\n  ".join([f"on the {holdout.height:,} rows held out:", *told])


def judge(
    truth: Floats, given: Floats, others: dict[str, Floats], rows: pl.DataFrame, config: Config
) -> dict[str, Any]:
    """Score predictions.

    Args:
        truth: (n,) class indices or values.
        given: (n, classes) probabilities or (n,) values.
        others: The same of each baseline.
        rows: (n,) typed rows, to slice by.

    Returns:
        What `metrics.json` says of predictions alone.
    """
    names, metric = METRICS[config.data.task], config.gate.metric
    score = SCORES[metric]

    def against(at: Any, *references: Floats) -> list[float]:
        value = score(truth[at], given[at])
        return [value, *(skill(metric, value, score(truth[at], r[at])) for r in references)]

    def whole(at: Any) -> list[float]:
        every = [SCORES[name](truth[at], given[at]) for name in names]
        return every + against(at, *others.values())[1:]

    found, slices = bootstrap(whole, len(truth), config.gate), []
    for column, value, rows_of in slices_of(rows, config):

        def part(drawn: Any, of: Any = rows_of) -> list[float]:
            return against(of[drawn], others["constant"])

        ends = bootstrap(part, len(rows_of), config.gate)
        row = {"column": column, "value": value, "rows": len(rows_of)}
        slices.append(row | {"metric": ends[0], "skill": ends[1]})
    values = {name: float(score(truth, other)) for name, other in others.items()}
    skills = zip(others, found[len(names) :], strict=True)
    return {
        "task": config.data.task,
        "metric": metric,
        "rows": len(truth),
        "metrics": dict(zip(names, found, strict=False)),
        "baselines": {name: {"value": values[name], "skill": ends} for name, ends in skills},
        "slices": sorted(slices, key=lambda s: (s["skill"]["high"] is None, s["skill"]["high"])),
        "calibration": calibration(truth, given),
        "curves": curves(truth, given),
    }


def baselines(train: pl.DataFrame, holdout: pl.DataFrame, data: Data) -> dict[str, Floats]:
    """What a constant and a linear model, on 10,000 rows at most, predict for the holdout."""
    sample, known = train.sample(min(train.height, 10_000), seed=0), labels(train, data)
    constant: Floats = np.asarray(known.mean())
    if data.task != "regression":
        constant = np.bincount(known, minlength=len(data.classes)) / len(known)
    asked = features(inputs(sample, data))
    simple = linear(data.task, asked).fit(asked, labels(sample, data))
    same = np.repeat(np.expand_dims(constant, 0), holdout.height, axis=0)
    return {"constant": same, "linear": predict(simple, holdout, data, features)}


def slices_of(rows: pl.DataFrame, config: Config) -> Iterator[tuple[str, str | None, Any]]:
    """Every category that has enough rows: its column, its value, the indices of its rows."""
    for name in config.data.features:
        if config.data.columns[name].type in {"category", "boolean"}:
            values = rows[name].alias("of").to_frame().with_row_index("at")
            for (value,), part in values.group_by("of", maintain_order=True):
                if part.height >= config.gate.slice_rows:
                    yield name, None if value is None else str(value), part["at"].to_numpy()


def importance(fitted: Any, holdout: pl.DataFrame, config: Config) -> list[dict[str, Any]]:
    """What the gate's metric loses when a column is shuffled (Breiman, 2001), on 1,000 rows."""
    data, score = config.data, SCORES[config.gate.metric]
    rows = holdout.sample(min(holdout.height, 1_000), seed=0)
    truth, sign = labels(rows, data), 1 if config.gate.metric in HIGHER_IS_BETTER else -1
    base, found = score(truth, predict(fitted, rows, data, features)), []
    for name in data.features:
        shuffled = rows.with_columns(rows[name].shuffle(seed=1))
        value = score(truth, predict(fitted, shuffled, data, features))
        found.append({"column": name, "loss": float(np.nan_to_num(sign * (base - value)))})
    return sorted(found, key=lambda item: -item["loss"])


def latency(fitted: Any, rows: pl.DataFrame, data: Data) -> float:
    """Median time of predicting a single row, features included, in milliseconds."""
    clock = [time.perf_counter()]
    for at in range(30):
        predict(fitted, rows[at % rows.height], data, features)
        clock.append(time.perf_counter())
    return float(np.median(np.diff(clock))) * 1000
