"""Evaluate: model and holdout → `metrics.json` and `report.html`. Refuses predictions of no value.

Only the holdout is scored, with the model read back from its file, not the one in memory.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError
from ..artifacts import HOLDOUT, MODEL, PREDICTIONS, TRAIN, digest, step_record, write_rows
from ..config import DATA, GATE, HIGHER_IS_BETTER, METRICS, Config, Data
from ..model_package import load_estimator, predict
from ..problem import features, linear, trusted
from ..records import MetricsDocument
from . import report
from .calibration import calibration
from .curves import curves
from .decision import decision
from .ingest import inputs, labels
from .intervals import rarest_class
from .leaks import features_that_predict_alone, leaks
from .metrics import SCORES, Floats, score
from .recipes import Recipe, out_of_fold
from .resampling import Resampler, simultaneous_intervals

# How often a prediction is timed: this often at least, then until one of the two is reached.
MIN_REPEATS = 30
MAX_REPEATS = 300
MAX_SECONDS = 0.5
LARGEST = 1e150  # beyond it the square of a number is not one


def step(config: Config) -> str:
    with step_record("evaluate", MODEL, TRAIN, HOLDOUT, DATA, GATE) as record:
        train, holdout, fitted = (
            pl.read_parquet(TRAIN),
            pl.read_parquet(HOLDOUT),
            load_estimator(MODEL, trusted()),
        )
        truth, given = labels(holdout, config.data), predict(fitted, holdout, config.data, features)
        write_rows(pl.DataFrame({"truth": truth, "given": given}), PREDICTIONS)
        said = judge(truth, given, baselines(train, holdout, config.data), holdout, config)
        said["importance"] = importance(fitted, holdout, config)
        said["leaks"] = leaks(train, holdout, config.data, given)
        said["alone"] = features_that_predict_alone(pl.concat([train, holdout]), config.data)
        if config.gate.costs:
            recipe = Recipe(fitted, features, config.data)
            known, (out,) = out_of_fold([recipe], train, config.data)
            said["decision"] = decision(
                known, out[:, 1], truth, given[:, 1], config.gate.costs, config.gate
            )
        size, times = MODEL.stat().st_size / 1e6, timed(fitted, holdout, config.data)
        said["model"] = {"digest": digest(MODEL), "megabytes": size, **times}
        record.document = MetricsDocument.model_validate(said)
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

    Raises:
        UsageError: The target is the same in all rows, or a prediction is not a finite number.
    """
    require_judgeable(truth, config.data)
    if not np.isfinite(given).all():
        raise UsageError(f"{MODEL} predicts values that are not finite: train another model")
    data, gate, classes = config.data, config.gate, len(config.data.classes)
    names = METRICS[data.task]
    resampler = Resampler(truth, gate.metric, classes, gate, groups_of(rows, data))
    metrics = {name: resampler.score(name, given).interval(gate.confidence) for name in names}
    baselines = {}
    for name, other in others.items():
        values = {known: _known(score(known, truth, other)) for known in names}
        over = resampler.skill(given, other).interval(gate.confidence)
        baselines[name] = {"value": values[gate.metric], "metrics": values, "skill": over}
    parts = list(slices_of(rows, config))
    places = [at for *_, at in parts]
    over_constant = simultaneous_intervals(
        resampler, given, others["constant"], places, gate.confidence, gate.slice_skill
    )
    slices = []
    for (column, value, at), over in zip(parts, over_constant, strict=True):
        reached = resampler.score(gate.metric, given, at).interval(gate.confidence)
        row = {"column": column, "value": value, "rows": len(at)}
        slices.append(row | {"metric": reached, "skill": over})
    return {
        "task": data.task,
        "metric": gate.metric,
        "rows": len(truth),
        "rarest": rarest_class(truth, data.classes),
        "metrics": metrics,
        "baselines": baselines,
        "slices": sorted(slices, key=lambda s: (s["skill"]["high"] is None, s["skill"]["high"])),
        "calibration": calibration(truth, given, gate.confidence, data.classes),
        "curves": curves(truth, given),
    }


def require_judgeable(truth: Floats, data: Data, rows: str = "the holdout") -> None:
    """Check that something can be told from a target, before a metric has no value.

    Args:
        truth: (n,) class indices or values.
        rows: What a person calls these rows.

    Raises:
        UsageError: It is the same in all rows, or too large to be squared.
    """
    if data.task == "regression" and (largest := np.abs(truth).max()) > LARGEST:
        raise UsageError(
            f"column {data.target} has values such as {largest:.3g}, whose squares are no numbers "
            "to a computer: divide it by a constant in problem/data.py"
        )
    if np.ptp(truth) == 0:
        value = f"{truth[0]:g}" if data.task == "regression" else data.classes[int(truth[0])]
        raise UsageError(
            f"{rows} has a single value of {data.target}, {value}, in all {len(truth):,} rows, so "
            f"no model can be judged by them: choose another split in {DATA}"
        )


def groups_of(rows: pl.DataFrame, data: Data) -> NDArray[np.int64] | None:
    """Return (n,) whose each row is, if the split keeps rows of one group together."""
    column = data.split.column
    if data.split.by != "group" or column is None or column not in rows.columns:
        return None
    return rows[column].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def baselines(train: pl.DataFrame, holdout: pl.DataFrame, data: Data) -> dict[str, Floats]:
    """What a constant and a linear model, on 10,000 rows at most, predict for the holdout.

    Raises:
        UsageError: The linear model cannot be trained, or predicts what is not a finite number.
    """
    sample, known = train.sample(min(train.height, 10_000), seed=0), labels(train, data)
    require_judgeable(known, data, "the training part")
    constant: Floats = np.asarray(known.mean())
    if data.task != "regression":
        constant = np.bincount(known, minlength=len(data.classes)) / len(known)
    asked = features(inputs(sample, data))
    try:
        simple = linear(data.task, asked).fit(asked, labels(sample, data))
        predicted = predict(simple, holdout, data, features)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the linear baseline cannot be trained: {reason}") from error
    if not np.isfinite(predicted).all():
        numbers = [name for name in data.features if train[name].dtype.is_numeric()]
        widest = max(numbers, key=lambda name: abs(train[name]).max() or 0, default=data.target)
        raise UsageError(
            f"the linear baseline predicts no finite numbers: are the values of {widest} right?"
        )
    same = np.repeat(np.expand_dims(constant, 0), holdout.height, axis=0)
    return {"constant": same, "linear": predicted}


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
    data, scored = config.data, SCORES[config.gate.metric]
    rows = holdout.sample(min(holdout.height, 1_000), seed=0)
    truth, sign = labels(rows, data), 1 if config.gate.metric in HIGHER_IS_BETTER else -1
    base, found = scored(truth, predict(fitted, rows, data, features)), []
    for name in data.features:
        shuffled = rows.with_columns(rows[name].shuffle(seed=1))
        value = scored(truth, predict(fitted, shuffled, data, features))
        found.append({"column": name, "loss": float(np.nan_to_num(sign * (base - value)))})
    return sorted(found, key=lambda item: -item["loss"])


def timed(fitted: Any, rows: pl.DataFrame, data: Data) -> dict[str, float]:
    """Time predictions of a single row, features included, beside a computation that never changes.

    What else runs on the machine can only add to a time, so the fastest of many is the model's own.
    The yardstick, timed in turn with it, tells a slow machine from a slow model.

    Returns:
        The fastest of both in milliseconds: `latency_ms` and `yardstick_ms`.
    """
    predictions: list[float] = []
    yardsticks: list[float] = []
    began = time.perf_counter()
    while len(predictions) < MIN_REPEATS or (
        len(predictions) < MAX_REPEATS and time.perf_counter() - began < MAX_SECONDS
    ):
        start = time.perf_counter()
        predict(fitted, rows[len(predictions) % rows.height], data, features)
        middle = time.perf_counter()
        yardstick()
        predictions.append(middle - start)
        yardsticks.append(time.perf_counter() - middle)
    return {"latency_ms": min(predictions) * 1000, "yardstick_ms": min(yardsticks) * 1000}


def yardstick() -> float:
    """Compute what takes `gate.YARDSTICK_MS` on an ordinary machine: half Python, half NumPy."""
    total = 0.0
    for number in range(5_000):
        total += number % 7
    values = np.cos(np.arange(20_000.0))
    values.sort()
    return total + float(values[0])
