"""Measure how often verdicts are wrong, by simulation with known truth: part of `make bench`.

The simulations stand in `verdicts*.py`; they call the code that a project gets, rendered and
imported. Here are the lines of the table: what is measured, what it was in 0.2.0, the target, and
how many trials make the target decidable. Each line is printed as soon as it is measured.

`RUNG_TRIALS` sets the trials of every line (a few show that it runs), `RUNG_SEED` the seed, and
`RUNG_LINES` is a regular expression that chooses lines by their names.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import verdicts
import verdicts_champion
import verdicts_delivery
import verdicts_drift
import verdicts_fairness
import verdicts_gate
import verdicts_identity
import verdicts_monitoring
import verdicts_tune
from bench_service import Measure, Measures, say
from conftest import ROOT
from scipy.stats import beta

Import = Callable[[str], ModuleType]
Simulation = Callable[[Import, int, int], float]  # modules, trials, seed → a share, mostly


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        what: Is measured.
        before: What 0.2.0 got, as text.
        simulation: Measures it.
        trials: So many that a value that is as good as it should be meets the target.
        most, least: The target.
        cases: Of which the value is a share in each trial, for its binomial interval; 0: it is
            not a share.
    """

    what: str
    before: str
    simulation: Simulation
    trials: int
    most: float = math.inf
    least: float = -math.inf
    cases: int = 1

    @property
    def target(self) -> str:
        """The target as people write it."""
        return f"≤ {self.most:g}" if math.isfinite(self.most) else f"≥ {self.least:g}"


def _watch(error_rate: float, *, requests: bool = False) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        watch = module("delivery.watch")
        rate, needed = verdicts_delivery.failing_watches(watch, error_rate, 0.01, 30, trials, seed)
        return needed if requests else rate

    return simulation


def _shadow(names: tuple[str, ...], worst: Callable[..., float]) -> Simulation:
    """Return the share of refusals of the worst of these candidates."""

    def simulation(module: Import, trials: int, seed: int) -> float:
        shadow = module("delivery.shadow")
        limits = module("config.delivery").Shadow()
        rates = verdicts_delivery.shadow_refusals(shadow, limits, trials, seed)
        return worst(rates[name] for name in names)

    return simulation


def _category_shift(module: Import, trials: int, seed: int) -> float:
    return verdicts_monitoring.category_shift(
        module("monitoring.drift"),
        module("pipeline.training_profile"),
        module("config.drift").Drift(),
        0.3,
        [0.4, 0.3, 0.2, 0.1],
        trials,
        seed,
    )


def _year(change: str, *, alarms: bool = False) -> Simulation:
    """Return the share of daily windows with a sign, or with an alarm; a trial is a halving."""

    def simulation(module: Import, trials: int, seed: int) -> float:
        config = module("config")
        project = ROOT / "template"
        data = config.read(project / config.DATA, config.Data)
        flights = verdicts_monitoring.year_of_flights()
        shares = [
            verdicts_monitoring.year_against_itself(module, data, flights, change, seed + trial)
            for trial in range(trials)
        ]
        return sum(share[alarms] for share in shares) / trials

    return simulation


def _performance(holdout: int, change: str | None = None) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_monitoring.performance_alarm(
            module, holdout, 20, trials, seed, change=change
        )

    return simulation


def _on_holdout(simulation: Callable[..., float], rows: int) -> Simulation:
    def on_holdout(module: Import, trials: int, seed: int) -> float:
        return simulation(module, rows, trials=trials, seed=seed)

    return on_holdout


def _holdouts(
    what: str, simulation: Callable[..., float], sizes: dict[int, tuple[str, int, float]]
) -> list[Line]:
    """Return a line for each size of the holdout, with what was before, trials and the target."""
    return [
        Line(f"{what}, holdout {rows:,}", before, _on_holdout(simulation, rows), count, most)
        for rows, (before, count, most) in sizes.items()
    ]


def _miscalibrated(holdout: int, times: float, *, accepted: bool) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        refused = verdicts_gate.miscalibrated_refused(
            module, holdout, times=times, trials=trials, seed=seed
        )
        return 1 - refused if accepted else refused

    return simulation


def _coverage(names: list[str], positives: float, rows: int) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_gate.intervals_cover(
            module, names, rows=rows, positives=positives, trials=trials, seed=seed
        )

    return simulation


def _challenger(better: float, holdout: int) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_champion.accepted(
            module, better=better, holdout=holdout, trials=trials, seed=seed
        )

    return simulation


def _unfair(criterion: str, beyond: float, rows: int, groups: int) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_fairness.unfair_model_refused(
            module,
            criterion=criterion,
            beyond=beyond,
            rows=rows,
            groups=groups,
            trials=trials,
            seed=seed,
        )

    return simulation


def _fair(limit: float) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_fairness.equal_groups_refused(module, limit=limit, trials=trials, seed=seed)

    return simulation


def _difference(rows: int, share: float) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_fairness.difference_is_covered(
            module, rows=rows, share=share, trials=trials, seed=seed
        )

    return simulation


def _best_params_replaced(searches: int) -> Simulation:
    def simulation(module: Import, trials: int, seed: int) -> float:
        return verdicts_tune.replaced_without_need(
            module, rows=500, searches=searches, trials=trials, seed=seed
        )

    return simulation


def _bad_params(times: float, *, gain: bool = False) -> Simulation:
    """Return how often bad params are replaced, or the share of the possible gain."""

    def simulation(module: Import, trials: int, seed: int) -> float:
        replaced, share = verdicts_tune.gain_found(
            module, rows=500, times=times, trials=trials, seed=seed
        )
        return share if gain else replaced

    return simulation


def _rows_judged(module: Import, trials: int, seed: int) -> float:
    return max(
        verdicts_identity.champion_rows_judged(module, change, trials, seed)
        for change in verdicts_identity.CHANGES
    )


LINES = [
    *_holdouts(
        "good model refused",
        verdicts.good_model_refused,
        {80: (".17", 60, 0.05), 300: ("0", 60, 0.05), 1_200: ("0", 40, 0.05)},
    ),
    *_holdouts(
        "shuffled labels accepted",
        verdicts.shuffled_labels_accepted,
        {80: (".08", 80, 0.025), 300: ("0", 60, 0.025)},
    ),
    *_holdouts(
        "three best columns destroyed, accepted",
        verdicts.best_columns_destroyed_accepted,
        {300: (".75", 60, 0.1), 1_200: (".90", 40, 0.05)},
    ),
    *(
        Line(
            f"probabilities 3 times too high at 3 % positives, accepted, holdout {rows:,}",
            before,
            _miscalibrated(rows, 3.0, accepted=True),
            200,
            most,
        )
        for rows, before, most in ((300, ".75", 0.25), (1_200, ".92", 0.05), (5_000, "1.0", 0))
    ),
    *(
        Line(
            f"right probabilities at 3 % positives, refused, holdout {rows:,}",
            "-",
            _miscalibrated(rows, 1.0, accepted=False),
            200,
            0.05,
        )
        for rows in (300, 5_000)
    ),
    Line(
        "ROC AUC interval, 2 % positives, 1,200 rows: coverage",
        ".945",
        _coverage(["roc_auc"], 0.02, 1_200),
        1_000,
        least=0.93,
    ),
    Line(
        "ROC AUC interval, 5 % positives, 300 rows: coverage",
        "-",
        _coverage(["roc_auc"], 0.05, 300),
        1_000,
        least=0.93,
    ),
    Line(
        "ROC AUC interval, 50 % positives, 1,200 rows: coverage, no wider than it need be",
        "-",
        _coverage(["roc_auc"], 0.5, 1_200),
        400,
        0.975,
    ),
    Line(
        "the other metrics' intervals, 2 % positives, 1,200 rows: lowest coverage",
        "-",
        _coverage(["average_precision", "log_loss", "brier", "accuracy"], 0.02, 1_200),
        400,
        least=0.93,
    ),
    Line(
        "skill over an equally good model, 2 % positives, 1,200 rows: coverage",
        "-",
        lambda module, trials, seed: verdicts_gate.skill_interval_covers(
            module, rows=1_200, positives=0.02, trials=trials, seed=seed
        ),
        1_000,
        least=0.93,
    ),
    Line(
        "RMSE interval, lognormal, 300 rows: coverage",
        ".65",
        lambda module, trials, seed: verdicts_gate.rmse_interval_covers(
            module, rows=300, trials=trials, seed=seed
        ),
        400,
        least=0.9,
    ),
    Line(
        "equal models refused by slices, 20 slices, 3 % positives",
        ".175",
        lambda module, trials, seed: verdicts_gate.equal_slices_refused(
            module, trials=trials, seed=seed
        ),
        200,
        0.025,
    ),
    Line(
        "fairness: 20 groups of 40 to 2,500 rows treated alike, limits of .05, refused",
        "-",
        _fair(0.05),
        400,
        0.05,
    ),
    Line(
        "fairness: the same, and no difference at all is allowed, refused",
        "-",
        _fair(0.0),
        1_000,
        0.05,
    ),
    Line(
        "fairness: the same 20 groups, ten beyond the others by just the limit, refused",
        "-",
        lambda module, trials, seed: verdicts_fairness.groups_at_the_limit_refused(
            module, trials=trials, seed=seed
        ),
        400,
        0.05,
    ),
    *(
        Line(
            f"fairness: selection rates of two groups of {rows:,} beyond the limit by {beyond:g}, "
            "refused",
            "-",
            _unfair("demographic_parity", beyond, rows, 2),
            400,
            least=least,
        )
        for rows, beyond, least in ((500, 0.1, 0.8), (1_000, 0.1, 0.95), (2_000, 0.05, 0.8))
    ),
    Line(
        "fairness: one of 20 groups, 300 rows, beyond the limit by .2, refused",
        "-",
        _unfair("demographic_parity", 0.2, 300, 20),
        400,
        least=0.95,
    ),
    Line(
        "fairness: true positive rates, 2,000 rows each, beyond the limit by .1, refused",
        "-",
        _unfair("equal_opportunity", 0.1, 2_000, 2),
        400,
        least=0.95,
    ),
    *(
        Line(
            f"fairness: interval of a difference, two groups of {rows}, rates {share:g} and "
            f"{share + 0.1:g}: coverage",
            "-",
            _difference(rows, share),
            1_000,
            least=0.93,
        )
        for rows, share in ((50, 0.05), (300, 0.4))
    ),
    Line(
        "truly better challenger (.02 skill), accepted, holdout 360",
        ".275",
        _challenger(0.02, 360),
        200,
        least=0.8,
    ),
    Line("worse by .10, accepted, holdout 360", "0", _challenger(-0.1, 360), 200, 0.025),
    Line("worse by .10, accepted, holdout 1,440", "0", _challenger(-0.1, 1_440), 200, 0.025),
    Line(
        "six challengers each worse by .02, total loss at 10,000 rows",
        "-.12",
        lambda module, trials, seed: verdicts_champion.creep(
            module, rows=10_000, trials=trials, seed=seed
        ),
        20,
        least=-0.05,
        cases=0,
    ),
    Line(
        "ml tune: the best params replaced, 500 training rows",
        "-",
        _best_params_replaced(1),
        200,
        0.05,
    ),
    Line(
        "the same in three searches, one after the other",
        "-",
        _best_params_replaced(3),
        40,
        0.05,
    ),
    Line(
        "ml tune: params replaced where labels are noise, 500 training rows",
        "-",
        lambda module, trials, seed: verdicts_tune.noise_replaced(
            module, rows=500, trials=trials, seed=seed
        ),
        60,
        0.05,
    ),
    Line("ml tune: a penalty 30 times too large replaced", "-", _bad_params(30), 40, least=0.8),
    Line(
        "the same: share of the possible gain",
        "-",
        _bad_params(30, gain=True),
        40,
        least=0.7,
        cases=0,
    ),
    Line(
        "champion's training rows among those it is judged on, worst of 7 changes",
        ".80",
        _rows_judged,
        10,
        0,
        cases=0,
    ),
    Line(
        "year of flights against itself: windows with a sign",
        "1",
        _year("nothing"),
        1,
        0.05,
        cases=0,
    ),
    Line(
        "year of flights against itself: windows with an alarm",
        ".50",
        _year("nothing", alarms=True),
        1,
        0,
        cases=0,
    ),
    Line(
        "year of flights, seats + 25 %: windows with a sign",
        "1",
        _year("seats"),
        1,
        least=0.95,
        cases=0,
    ),
    Line(
        "year of flights, one carrier for two: windows with a sign",
        "1",
        _year("merged carrier"),
        1,
        least=0.95,
        cases=0,
    ),
    Line(
        "shift of .3 sd in one column of numbers, 2 of 5 windows",
        "1.0",
        lambda *arguments: verdicts_drift.number_shift(arguments[0], 0.3, *arguments[1:]),
        100,
        least=0.95,
    ),
    Line(
        "nothing changed in 12 columns of numbers, 2 of 5 windows",
        "0",
        lambda *arguments: verdicts_drift.number_shift(arguments[0], 0.0, *arguments[1:]),
        100,
        0.02,
    ),
    Line("shift of .3 sd in a category, 2 of 5 windows", "0", _category_shift, 100, least=0.8),
    Line(
        "300 equal shops, 1,500 rows: windows with a sign",
        ".93",
        lambda *arguments: verdicts_drift.equal_shops(arguments[0], 1_500, *arguments[1:]),
        40,
        1 / 40,
        cases=verdicts_drift.WINDOWS_OF_SHOPS,
    ),
    Line(
        "300 equal shops, 12,000 rows: windows with a sign",
        ".93",
        lambda *arguments: verdicts_drift.equal_shops(arguments[0], 12_000, *arguments[1:]),
        40,
        1 / 40,
        cases=verdicts_drift.WINDOWS_OF_SHOPS,
    ),
    Line("performance alarm in 20 windows, holdout 75", ".23", _performance(75), 100, 0.05),
    Line("performance alarm in 20 windows, holdout 300", ".12", _performance(300), 100, 0.05),
    Line(
        "the same of a worthless model, whenever its labels arrive, 300",
        "0",
        _performance(300, "worthless"),
        50,
        least=0.95,
    ),
    Line(
        "the same of probabilities one logit too high, 300",
        ".02",
        _performance(300, "logit"),
        50,
        least=0.8,
    ),
    Line(
        "shadow: equally good models refused, the worst of four kinds",
        ".45",
        _shadow(verdicts_delivery.GOOD, max),
        40,
        0.05,
    ),
    Line(
        "shadow: reversed or constant model, or one of other rows, refused",
        "0",
        _shadow(verdicts_delivery.BAD[:3], min),
        40,
        least=0.95,
    ),
    Line("true error rate half the limit, rolled back", ".36", _watch(0.005), 2_000, 0.05),
    Line("true error rate at the limit, rolled back", "-", _watch(0.01), 2_000, 0.05),
    Line("true error rate 3 times the limit, rolled back", "-", _watch(0.03), 1_000, least=0.95),
    Line(
        "the same, after how many requests",
        "-",
        _watch(0.03, requests=True),
        1_000,
        1_000,
        cases=0,
    ),
]


def measure_all(here: Path) -> Measures:
    """Measure the lines, two at a time, and print each as soon as it is known.

    Args:
        here: A folder for it.
    """
    seed = int(os.environ.get("RUNG_SEED", "0"))
    chosen = [
        index
        for index, line in enumerate(LINES)
        if re.search(os.environ.get("RUNG_LINES", ""), line.what)
    ]
    if not chosen:
        raise SystemExit("RUNG_LINES chooses no line")
    problem = ROOT / "template/src/{{package_name}}/problem"
    shutil.copytree(problem, here / "verdicts/model/problem")
    say(f"verdicts by simulation with known truth, seed {seed}")
    width = max(len(LINES[index].what) for index in chosen)
    print(f"{'what':<{width}} |   0.2.0 | target | measured (95 % interval), trials, seconds")
    for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):  # a process for each core
        os.environ[name] = "1"
    results: dict[int, float] = {}
    context = get_context("spawn")  # threads of numeric libraries do not survive a fork
    with ProcessPoolExecutor(_workers(), context, _prepare, (str(here / "verdicts"),)) as pool:
        futures = {pool.submit(measure, index, seed): index for index in chosen}
        for future in as_completed(futures):
            index = futures[future]
            line = LINES[index]
            results[index], seconds = future.result()
            print(
                f"{line.what:<{width}} | {line.before:>7} | {line.target:>6} | "
                f"{described(results[index], line)}, {trials(line)}, {seconds:.0f}",
                flush=True,
            )
    return [
        Measure(LINES[index].what, results[index], LINES[index].most, LINES[index].least)
        for index in chosen
    ]


def measure(index: int, seed: int) -> tuple[float, float]:
    """Measure a line in this process; return its value and the seconds it took."""
    line = LINES[index]
    began = time.perf_counter()
    value = line.simulation(_import, trials(line), seed)
    return float(value), time.perf_counter() - began


def trials(line: Line) -> int:
    """Return how many trials there are of a line."""
    return int(os.environ.get("RUNG_TRIALS", line.trials))


def described(value: float, line: Line) -> str:
    """Return a value as text, with the Clopper-Pearson interval of a share."""
    if not line.cases:
        return f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"
    count = trials(line) * line.cases
    hits = round(value * count)
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _workers() -> int:
    return max(1, min(len(os.sched_getaffinity(0)), len(LINES)))


def _prepare(source: str) -> None:
    """Make the runtime importable in a worker, and the template's `problem/` where it looks."""
    sys.path[:0] = [source, str(ROOT / "runtime/src")]
    sys.dont_write_bytecode = True


def _import(name: str) -> Any:
    package = "model" if name.startswith("problem.") else "rung_runtime"
    return importlib.import_module(f"{package}.{name}")
