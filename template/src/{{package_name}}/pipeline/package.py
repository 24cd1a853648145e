"""Package: the gated model → `artifacts/model/`, all that serving and monitoring need of it.

Refuses a model that the gate did not pass, or that is not the one it judged.
"""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from .. import BadInput, Refused
from ..config import DATA, Config, Data
from ..documents import DOCUMENTS, MODEL, PACKAGE, PREDICTIONS, STEPS, TRAIN, digest, document, read
from ..inference import MANIFEST, OLD, package_digest, repair
from .gate import decide
from .ingest import inputs
from .report import render

PROBLEM = Path(__file__).parents[1] / "problem"
NEW = PACKAGE.with_name(".model.new")


def step(config: Config) -> str:
    documents = [DOCUMENTS[name] for name in ("evaluate", "gate")]
    with document("package", MODEL, TRAIN, PREDICTIONS, *documents, DATA) as said:
        gate = read("gate")
        if gate["verdict"] != "passed" or gate["model_digest"] != digest(MODEL):
            raise Refused("the gate has not passed this model: see artifacts/gate.json")
        if gate["checks"] != decide(read("evaluate"), config.gate, gate["comparison"]):
            raise BadInput("artifacts/gate.json is not what the gate says: run `ml gate` again")
        shutil.rmtree(NEW, ignore_errors=True)
        (NEW / "problem").mkdir(parents=True)
        for path in (MODEL, *documents):
            shutil.copy(path, NEW)
        for path in PROBLEM.glob("*.py"):
            shutil.copy(path, NEW / "problem")
        steps = {name: read(name) for name in STEPS if name != "package"}
        write(NEW, config, steps)
        files = {
            path.relative_to(NEW).as_posix(): digest(path)
            for path in sorted(NEW.rglob("*"))
            if path.is_file()
        }
        whole, trained = package_digest(files), datetime.fromisoformat(steps["train"]["ended"])
        said |= {"version": f"{trained:%Y%m%d-%H%M%S}-{whole[7:15]}", "package_digest": whole}
        said |= {"model_digest": gate["model_digest"], "files": files}
        manifest = {"created": steps["train"]["ended"], **said}
        (NEW / MANIFEST).write_text(json.dumps(manifest, indent=2), "utf-8")
        # A kill between the two renames leaves no package; `repair` brings the old one back.
        repair()
        if PACKAGE.exists():
            PACKAGE.rename(OLD)
        NEW.rename(PACKAGE)
        repair()
    return f"{PACKAGE}/, {len(files) + 1} files, version {said['version']}"


def write(folder: Path, config: Config, steps: dict[str, Any]) -> None:
    """Write what a package says of its model: contract, signature, profile, lineage and card."""
    data = config.data
    seen = {name: data.columns[name].model_dump(exclude_defaults=True) for name in data.features}
    facts = ("commit", "data_digest", "config_digest", "started", "ended", "inputs", "outputs")
    for name, content in {
        "contract": data.model_dump(),
        "signature": {"task": data.task, "inputs": seen, "classes": data.classes},
        "profile": profile(pl.read_parquet(TRAIN), pl.read_parquet(PREDICTIONS), data),
        "lineage": {name: {fact: found[fact] for fact in facts} for name, found in steps.items()},
    }.items():
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / f"{name}.json").write_text(text, "utf-8")
    (folder / "MODEL_CARD.md").write_text(render("report.md", config), "utf-8")


def profile(train: pl.DataFrame, predictions: pl.DataFrame, data: Data) -> dict[str, Any]:
    """What rows and predictions looked like, to tell drift by later.

    Returns:
        For each feature of the training rows, under `columns`, its share of `gaps`, and
        `percentiles` 0 to 100 (of seconds for a datetime, of characters for a text, which the
        profile must not repeat) or the `counts` of its categories. The
        same of the predictions for the holdout: of the positive class's probability, of the
        classes that were named, or of the values.
    """
    given = predictions["given"]
    if data.task == "multiclass":
        named = given.arr.arg_max().cast(pl.Int64)
        given = named.replace_strict(dict(enumerate(data.classes)), return_dtype=pl.String)
    elif data.task == "binary":
        given = given.arr.last()
    columns = {}
    for column in inputs(train, data).get_columns():
        is_text = data.columns[column.name].type == "text"
        columns[column.name] = summary(column.str.len_chars() if is_text else column)
    return {"rows": train.height, "columns": columns, "prediction": summary(given)}


def summary(values: pl.Series) -> dict[str, Any]:
    """The share of gaps, and percentiles or counts."""
    gaps, known = values.null_count() / len(values), values.drop_nulls()
    if values.dtype in (pl.Enum, pl.Boolean, pl.String):
        counts = dict(known.alias("of").cast(pl.String).value_counts(sort=True).iter_rows())
        return {"gaps": gaps, "counts": counts}
    numbers = known.dt.epoch("s") if values.dtype == pl.Datetime else known
    at = [round(q / 100 * (len(known) - 1)) for q in range(101)] if len(known) else []
    return {"gaps": gaps, "percentiles": numbers.sort()[at].to_list()}
