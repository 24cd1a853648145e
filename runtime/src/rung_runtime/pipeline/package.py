"""Package: the gated model → `artifacts/model/`, all that serving and monitoring need of it.

Refuses a model that the gate did not pass, or that is not the one it judged.
"""

import json
import shutil
from datetime import datetime
from pathlib import Path

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
from ..config import DATA, Config
from ..config import MODEL as CONFIG
from ..model_format import formats, save
from ..model_package import MANIFEST, OLD, package_digest, predict, repair
from ..problem import features
from ..problem import folder as problem_folder
from ..records import Compiled, Document, GateDocument, MetricsDocument, PackageDocument
from . import identity
from .compile import compile_package
from .gate import decide
from .report import render
from .train import fit
from .training_profile import profile

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
