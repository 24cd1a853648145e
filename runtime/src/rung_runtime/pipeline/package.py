"""Package: the gated model → `artifacts/model/`, all that serving and monitoring need of it.

Refuses a model that the gate did not pass, or that is not the one it judged.
"""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .. import RefusedError, UsageError
from ..artifacts import (
    DOCUMENTS,
    HOLDOUT,
    MODEL,
    PACKAGE,
    PREDICTIONS,
    SIDES,
    STEPS,
    TRAIN,
    digest,
    read,
    read_step,
    step_record,
)
from ..config import DATA, Config, Data
from ..config import MODEL as CONFIG
from ..model_format import formats, save
from ..model_package import MANIFEST, OLD, package_digest, predict, repair
from ..problem import features
from ..problem import folder as problem_folder
from ..records import Compiled, Document, GateDocument, MetricsDocument, PackageDocument
from . import identity
from .compile import compile_package
from .correlations import add_correlations
from .gate import decide
from .ingest import inputs
from .profiles import summaries, summary
from .report import render
from .seasons import CLOCK, add_usual
from .train import fit

NEW = PACKAGE.with_name(".model.new")
# What lineage.json has of each step.
LINEAGE = {"commit", "data_digest", "config_digest", "started", "ended", "inputs", "outputs"}


def step(config: Config) -> str:
    documents = [DOCUMENTS["evaluate"], DOCUMENTS["gate"]]
    inputs = (MODEL, TRAIN, HOLDOUT, SIDES, PREDICTIONS, *documents, DATA, CONFIG)
    with step_record("package", *inputs) as record:
        gate = read(GateDocument)
        if gate.verdict != "passed" or gate.model_digest != digest(MODEL):
            raise RefusedError("the gate has not passed this model: see artifacts/gate.json")
        if gate.checks != decide(read(MetricsDocument), config.gate, gate.comparison):
            raise UsageError("artifacts/gate.json is not what the gate says: run `ml gate` again")
        steps = {name: read_step(name) for name in STEPS if name != "package"}
        compiled = build(NEW, config, steps, gate.model_digest)
        files = {
            path.relative_to(NEW).as_posix(): digest(path)
            for path in sorted(NEW.rglob("*"))
            if path.is_file()
        }
        whole = package_digest(files)
        trained = datetime.fromisoformat(steps["train"].ended)
        document = PackageDocument(
            version=f"{trained:%Y%m%d-%H%M%S}-{whole[7:15]}",
            package_digest=whole,
            model_digest=gate.model_digest,
            files=files,
            refit_digest=files[MODEL.name] if config.model.refit else None,
            compiled=compiled,
            formats=formats(NEW / MODEL.name),
        )
        record.document = document
        manifest = {"created": steps["train"].ended, **document.content()}
        (NEW / MANIFEST).write_text(json.dumps(manifest, indent=2), "utf-8")
        replace_package()
    message = f"{PACKAGE}/, {len(files) + 1} files, version {document.version}"
    if document.refit_digest is not None:
        message += ", trained once more on all rows, which nothing has measured"
    if not compiled.is_compiled:
        message += f"\n  answered by the estimator, as {compiled.reason}"
    return message


def replace_package() -> None:
    """Move the new package to its place; a kill in between leaves what `repair` puts right."""
    repair()
    if PACKAGE.exists():
        PACKAGE.rename(OLD)
    NEW.rename(PACKAGE)
    repair()


def build(folder: Path, config: Config, steps: dict[str, Document], model_digest: str) -> Compiled:
    """Write a package but for its manifest.

    Args:
        folder: Where; what is there is removed.
        config: Of the project.
        steps: The document of each step.
        model_digest: Of the model that the gate passed.

    Returns:
        Whether it has a compiled model.

    Raises:
        UsageError: As `refit`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "problem").mkdir(parents=True)
    for path in (MODEL, DOCUMENTS["evaluate"], DOCUMENTS["gate"]):
        shutil.copy(path, folder)
    if config.model.refit:
        refit(folder / MODEL.name, config)
    for path in problem_folder().glob("*.py"):
        shutil.copy(path, folder / "problem")
    compiled = compile_package(folder, pl.read_parquet(HOLDOUT), config)
    write(folder, config, steps, compiled)
    sides = pl.read_parquet(SIDES)
    is_trained_on = ~pl.col("held") | config.model.refit
    trained_on = sides.filter(is_trained_on)["identity"]
    identity.write(folder, identity.identifying(config.data), trained_on, model_digest)
    return compiled


def refit(path: Path, config: Config) -> None:
    """Train the recipe that passed once more, on the rows that were held out as well.

    Raises:
        UsageError: It predicts values that are not finite.
    """
    rows = pl.concat([pl.read_parquet(TRAIN), pl.read_parquet(HOLDOUT)])
    fitted = fit(rows, config.data, config.model)
    if not np.isfinite(predict(fitted, rows, config.data, features)).all():
        raise UsageError(
            f"{CONFIG}: refit: trained on all rows, the model predicts values that are not finite"
        )
    save(fitted, path)


def write(folder: Path, config: Config, steps: dict[str, Document], compiled: Compiled) -> None:
    """Write what describes a model: contract, signature, profile, lineage and card."""
    data = config.data
    columns = {name: data.columns[name].model_dump(exclude_defaults=True) for name in data.features}
    train = pl.read_parquet(TRAIN)
    predictions = pl.read_parquet(PREDICTIONS)
    files = {
        "contract": data.model_dump(),
        "signature": {"task": data.task, "inputs": columns, "classes": data.classes},
        "profile": profile(train, predictions, data, pl.read_parquet(HOLDOUT)),
        "lineage": {name: document.model_dump(include=LINEAGE) for name, document in steps.items()},
    }
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text, "utf-8")
    (folder / "MODEL_CARD.md").write_text(render("report.md", config, compiled), "utf-8")


def profile(
    train: pl.DataFrame,
    predictions: pl.DataFrame,
    data: Data,
    holdout: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """Return what rows and predictions looked like, so that drift can be recognised later.

    Returns:
        For each feature of the training rows, under `columns`, its share of `gaps`, and
        `percentiles` 0 to 100 (of seconds for a datetime, of characters for a text, which the
        profile must not repeat) or the `counts` of its categories. The
        same of the predictions for the holdout: of the positive class's probability, of the
        classes that were named, or of the values. Categories have `missing` too, the share of real
        gaps, and `unlisted`, the share of values to expect that the contract does not list. Numbers
        have their `correlations` with the columns after them. Where the contract has a time, all
        have what is `usual` of windows of the training rows (`seasons.add_usual`).
    """
    y_pred = predictions["given"]
    if data.task == "multiclass":
        likeliest = y_pred.arr.arg_max().cast(pl.Int64)
        y_pred = likeliest.replace_strict(dict(enumerate(data.classes)), return_dtype=pl.String)
    elif data.task == "binary":
        y_pred = y_pred.arr.last()
    columns = summaries(train, data)
    for name, seen in columns.items():
        if data.columns[name].type == "category":
            seen["missing"] = train[name].null_count() / max(1, train.height)
            parts = [train[name]] if holdout is None else [train[name], holdout[name]]
            share, weight = unlisted_share(pl.concat(parts), data.columns[name].categories)
            seen["unlisted"] = share
            seen["unlisted_rows"] = round(train.height * weight)
    add_correlations(columns, inputs(train, data))
    prediction = summary(y_pred)
    if data.time and data.time in train.columns:
        if data.time in columns:
            columns[data.time][CLOCK] = True
        frame = inputs(train, data)
        add_usual(columns, frame, train[data.time], train.height)
        if holdout is not None and holdout.height == y_pred.len():
            answers = {"prediction": prediction}
            add_usual(
                answers,
                pl.DataFrame({"prediction": y_pred}),
                holdout[data.time],
                y_pred.len(),
            )
    return {"rows": train.height, "columns": columns, "prediction": prediction}


def unlisted_share(values: pl.Series, listed: list[str]) -> tuple[float, float]:
    """Return the share of values to expect, in rows to come, that a list does not have.

    A list of the most frequent values was chosen by these very rows, and covers them better than it
    will cover others: of 300 equally frequent values, the 200 that happened to come most often. So
    each row is judged by the list that the other rows would choose (Stone, 1974). Where the list is
    complete, the share is that of the values seen once (Good, 1953). The less the list is that of
    the most frequent values, as people chose it or other rows, the less is corrected.

    Args:
        values: (n,) as the source has them, gaps as null.
        listed: The categories of the contract.

    Returns:
        The share, of all n rows, gaps among them; and the part of these rows that would tell a
        share without such a correction as exactly.
    """
    frequencies = values.drop_nulls().alias("value").cast(pl.String).value_counts()
    known = frequencies["value"].is_in(listed)
    outside = int(frequencies["count"].filter(~known).sum())
    size = int(known.sum())
    if not size:
        return outside / max(1, len(values)), 1.0
    counts = frequencies["count"].sort(descending=True)
    least = int(counts[size - 1])
    # How far the list is that of the most frequent values: 1 if it is, 0 if it is no better than
    # any other of its length, and so was not chosen by these rows.
    shared = int((frequencies.filter(known)["count"] >= least).sum()) / size
    by_chance = size / len(counts)
    alike = 1.0
    if by_chance < 1:
        # In a design in which each value comes equally often, nothing was chosen by chance.
        spread = min(1.0, float(np.var(counts.to_numpy()) / counts.to_numpy().mean()))
        alike = spread * max(0.0, (shared - by_chance) / (1 - by_chance))
    above = int((counts > least).sum())
    equal = int((counts == least).sum())
    places = size - above  # of the list, for those that came `least` times
    # A row of one that came once more is one of `equal + 1` without itself, a row of one that came
    # `least` times one of those that came once less.
    lost = (least + 1) * int((counts == least + 1).sum()) * (1 - (places + 1) / (equal + 1))
    below = int((counts == least - 1).sum()) + 1
    kept = 1 / below if places == equal and least > 1 else 0.0
    lost += least * places * (1 - kept)
    lost *= alike
    share = (outside + lost) / len(values)
    binomial = len(values) * share * (1 - share)
    # Lost rows come and go with whole categories, some `least` at a time.
    return share, binomial / (binomial + least * lost) if binomial else 1.0
