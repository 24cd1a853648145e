"""What `ml data use` makes of public tables: the contract against the truth, the model's score.

The score is ROC AUC for two classes (average precision where positives are under 5 %), accuracy for
more, R² for numbers; that of the chosen estimator is divided by that of the better of two of
scikit-learn's estimators as they are, on the same rows and inputs. On small holdouts the scores are
means over several seeds of the split. The better of two is chosen by the same rows, so that even an
equal model has a ratio below 1 on a small holdout: beside the worst ratio stands the worst upper
end of its interval, by a paired bootstrap (97.5 %).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import public_tables
import sklearn
from bench_service import Measure, Measures, say
from conftest import ROOT
from public_tables import Public
from sklearn import metrics
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

DEFAULTS = {
    "regression": [HistGradientBoostingRegressor, RandomForestRegressor],
    "classification": [HistGradientBoostingClassifier, RandomForestClassifier],
}
BENCH = ROOT / ".tools/bench"
RARE = 0.05
DRAWS = 200  # of the bootstrap
# rows held out, below which scores are means over so many splits
FEW = 400
SEEDS = 3


@dataclass
class Result:
    """What was decided about a table, and what is wrong with it; empty is right."""

    name: str
    wrong_task: str = ""
    lost: dict[str, str] = field(default_factory=dict)
    ids_kept: list[str] = field(default_factory=list)
    time_missed: str = ""
    wrong_time: str = ""
    subject_missed: str = ""
    error: str = ""
    split: str = ""
    estimator: str = ""
    score: str = ""
    chosen: float = float("nan")
    boosted: float = float("nan")
    forest: float = float("nan")
    ratio: float = float("nan")
    at_best: float = float("nan")  # the upper end of the ratio's interval
    seconds: float = 0.0


def import_template(folder: Path) -> Any:
    """Import the runtime, with the template's `problem/` copied to where it looks for result."""
    problem = ROOT / "template/src/{{package_name}}/problem"
    shutil.copytree(problem, folder / "model/problem", dirs_exist_ok=True)
    for place in (str(folder), str(ROOT / "runtime/src")):
        if place not in sys.path:
            sys.path.insert(0, place)

    def module(name: str) -> ModuleType:
        package = "model" if name.startswith("problem.") else "rung_runtime"
        return importlib.import_module(f"{package}.{name}")

    return module


def measure(table: Public, file: Path, module: Any, *, scores: bool = True) -> Result:
    """Propose a contract for a table, compare it with the truth, and score the chosen model."""
    began = time.perf_counter()
    result = Result(table.name)
    onboard = module("contract.onboard")
    ingest = module("pipeline.ingest")
    separator = onboard.detect_delimiter(file)
    rows = ingest.read(file, separator)
    try:
        data, notes = module("contract.propose").infer(
            rows, table.target, source=file.name, separator=separator
        )
        compare(table, rows, data, notes, result)
        if scores:
            score(table, ingest.typed(rows, data), data, module, result)
    except Exception as error:  # every table is reported
        result.error = f"{type(error).__name__}: {error}"[:300]
    result.seconds = time.perf_counter() - began
    return result


def compare(
    table: Public, rows: pl.DataFrame, data: Any, notes: dict[str, str], result: Result
) -> None:
    """Note where the contract differs from the truth."""
    by = data.split.by
    column = data.split.column
    result.split = by if column is None else f"{by} {column}"
    if data.task != table.task:
        result.wrong_task = data.task
    allowed = {*table.ids, *table.spare, table.target, *table.time}
    allowed |= {name for name in table.warned if "WARNING" in notes.get(name, "")}
    allowed |= {name for name in rows.columns if rows[name].n_unique() == 1}
    taken = {*data.features}
    if by == "group" and column in (*table.maybe, table.subject):
        taken.add(column)
    for name in {*data.columns, *data.ignored} - taken - allowed:
        result.lost[name] = data.ignored.get(name, f"{by} {column}, no feature")
    result.ids_kept = sorted(taken & set(table.ids))
    noticed = {data.time, column if by == "time" else None}
    if table.time and not noticed & set(table.time):
        result.time_missed = ", ".join(table.time)
    if by == "time" and column not in (*table.time, *table.maybe):
        result.wrong_time = str(column)
    if table.subject and (by, column) != ("group", table.subject):
        result.subject_missed = table.subject


def score(table: Public, rows: pl.DataFrame, data: Any, module: Any, result: Result) -> None:
    """Score the chosen estimator and scikit-learn's two defaults on the same rows."""
    split = module("pipeline.split").split
    fit = module("pipeline.train").fit
    predict = module("model_package").predict
    features = module("problem.features").features
    labels = module("pipeline.ingest").labels
    inputs = module("pipeline.ingest").inputs
    model = module("contract.choose").first_gate(rows, data)[0]
    result.estimator = f"{model.estimator} {model.params or ''}".strip()
    small = min(part.height for part in split(rows, data)) < FEW
    seeds = SEEDS if small and data.split.by != "time" else 1
    drawn: list[Any] = []
    for seed in range(seeds):
        moved = data.model_copy(update={"split": data.split.model_copy(update={"seed": seed})})
        train, holdout = split(rows, moved)
        y_train = labels(train, moved)
        y_true = labels(holdout, moved)
        judge, result.score = judged_by(data.task, y_train)
        y_pred = predict(fit(train, moved, model), holdout, moved, features)
        x_train, x_test = (as_numbers(features(inputs(p, moved))) for p in (train, holdout))
        every = [y_pred, *predict_defaults(data.task, x_train, y_train, x_test, y_pred.shape[1:])]
        drawn.append(resampled(judge, y_true, every))
    scores = np.nanmean(drawn, axis=0)  # (1 + draws, 3); the first are those of the holdout itself
    result.chosen, result.boosted, result.forest = scores[0].tolist()
    better = 1 if result.boosted >= result.forest else 2
    ratios = [ratio_of(row[0], row[better], data.task) for row in scores]
    result.ratio = ratios[0]
    result.at_best = float(np.nanquantile(ratios[1:], 0.975))


def resampled(judge: Any, y_true: Any, every: list[Any]) -> Any:
    """Scores of several predictions, (1 + draws, predictions): of all rows, then of resamples."""
    random = np.random.default_rng(0)
    n = len(y_true)
    scores = [[judge(y_true, y_pred) for y_pred in every]]
    for _ in range(DRAWS):
        rows = random.integers(0, n, n)
        undefined = has_one_value(y_true[rows])
        scores.append(
            [float("nan") if undefined else judge(y_true[rows], y_pred[rows]) for y_pred in every]
        )
    return np.array(scores)


def has_one_value(y_true: Any) -> bool:
    """Whether all rows are equal, so that some scores are not defined."""
    return bool(np.ptp(y_true) == 0)


def judged_by(task: str, y: Any) -> tuple[Any, str]:
    """The score of a task, and its name; all are better when higher, and 1 at best."""
    if task == "regression":
        return metrics.r2_score, "R²"
    if task == "multiclass":
        return (lambda y, p: float(np.mean(p.argmax(axis=1) == y))), "accuracy"
    if min(y.mean(), 1 - y.mean()) < RARE and y.mean() < 0.5:
        return (lambda y, p: metrics.average_precision_score(y, p[:, 1])), "average precision"
    return (lambda y, p: metrics.roc_auc_score(y, p[:, 1])), "ROC AUC"


def ratio_of(chosen: float, better: float, task: str) -> float:
    """The ratio of two scores.

    R² has no floor: where the better one is below 0.2, the ratio is that of the errors' sizes
    (RMSE), the other way up.
    """
    if task == "regression" and better < 0.2:
        return float(((1 - better) / (1 - chosen)) ** 0.5)
    return float(chosen / better)


def predict_defaults(
    task: str, x_train: Any, y_train: Any, x_test: Any, shape: tuple[int, ...]
) -> list[Any]:
    """Predict with scikit-learn's two estimators, a seed and nothing else; once for the same data.

    `shape` is that of a row's prediction: none for a number, else as many as there are classes.
    """
    digest = hashlib.blake2b(f"{task} {sklearn.__version__}".encode(), digest_size=16)
    for part in (x_train, y_train, x_test):
        digest.update(np.ascontiguousarray(part).tobytes())
    known = BENCH / "defaults" / f"{digest.hexdigest()}.npy"
    if known.exists():
        return list(np.load(known))
    every = []
    for default in DEFAULTS["regression" if task == "regression" else "classification"]:
        fitted = default(random_state=0).fit(x_train, y_train)
        if task == "regression":
            every.append(fitted.predict(x_test))
            continue
        whole = np.zeros((len(x_test), *shape))  # training rows may lack a class
        whole[:, fitted.classes_.astype(int)] = fitted.predict_proba(x_test)
        every.append(whole)
    known.parent.mkdir(parents=True, exist_ok=True)
    np.save(known, np.array(every))
    return every


def as_numbers(rows: pl.DataFrame) -> Any:
    """Inputs as numbers, (n, columns): categories by their place in the list, gaps as NaN.

    Texts are left out: the defaults cannot read them.
    """
    numbers = [
        (values.to_physical() if isinstance(values.dtype, pl.Enum) else values).cast(pl.Float64)
        for values in rows.get_columns()
        if values.dtype != pl.String
    ]
    if not numbers:
        return np.zeros((rows.height, 1))
    return np.column_stack([values.fill_null(float("nan")).to_numpy() for values in numbers])


def tables(here: Path, only: Sequence[str] = (), *, scores: bool = True) -> Measures:
    """Measure all tables, or those with a part of the name in `only`, and print a line for each."""
    say("installing packages with public tables")
    files = public_tables.export(BENCH / "tables")
    module = import_template(here)
    results: list[Result] = []
    warnings.simplefilter("ignore")
    for table in public_tables.TABLES:
        if only and not any(part in table.name for part in only):
            continue
        result = measure(table, files / f"{table.name}.csv", module, scores=scores)
        print(line_of(result), flush=True)
        results.append(result)
    (BENCH / "tables.json").write_text(json.dumps([asdict(result) for result in results], indent=1))
    return measures(results)


def measures(results: list[Result]) -> Measures:
    """Count what is wrong in all tables."""
    ratios = [result.ratio for result in results if np.isfinite(result.ratio)]
    counts = {
        "refused or failed": (sum(bool(result.error) for result in results), 0),
        "wrong task": (sum(bool(result.wrong_task) for result in results), 0),
        "useful columns lost": (sum(len(result.lost) for result in results), 0),
        "row numbers kept": (sum(len(result.ids_kept) for result in results), 0),
        "time columns missed": (sum(bool(result.time_missed) for result in results), 1),
        "split by what is not a time": (sum(bool(result.wrong_time) for result in results), 0),
        "subjects missed": (sum(bool(result.subject_missed) for result in results), 0),
    }
    at_best = [result.at_best for result in results if np.isfinite(result.at_best)]
    worst = "worst score ÷ the better default's"
    return [
        Measure("public tables", len(results), least=40),
        *(Measure(f"public tables: {what}", *values) for what, values in counts.items()),
        Measure(f"public tables: {worst}", min(ratios, default=1.0), least=0.97),
        Measure("public tables: the same, upper end", min(at_best, default=1.0), least=0.97),
        Measure("public tables: the same, median", float(np.median(ratios or [1.0]))),
    ]


def line_of(result: Result) -> str:
    """One line for a person."""
    wrong = [
        f"{key}: {value}"
        for key in ("wrong_task", "lost", "ids_kept", "time_missed", "wrong_time",
                    "subject_missed", "error")
        if (value := getattr(result, key))
    ]  # fmt: skip
    numbers = f"{result.chosen:.3f} ({result.boosted:.3f}, {result.forest:.3f}) {result.ratio:.3f}"
    numbers += f" to {result.at_best:.3f}"
    facts = f"{result.split} · {result.estimator} · {result.score} {numbers}"
    return f"{result.name}: {facts} · {result.seconds:.0f} s · {'; '.join(wrong) or 'right'}"


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--contract"]
    with tempfile.TemporaryDirectory() as folder:
        for measured in tables(Path(folder), names, scores="--contract" not in sys.argv):
            print(f"{measured.what}: {measured.measured:g}")
