"""Package: the gated model → `artifacts/model/`, all that serving and monitoring need of it.

Refuses a model that the gate did not pass, or that is not the one it judged.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from .. import BadInput, Refused
from ..config import DATA, Config, Data
from ..documents import DOCUMENTS, MODEL, PACKAGE, STEPS, TRAIN, digest, document, read
from .gate import decide
from .ingest import inputs, typed
from .report import render
from .validate import check, tell

OLD, NEW = PACKAGE.with_name(".model.old"), PACKAGE.with_name(".model.new")


def step(config: Config) -> str:
    documents = [DOCUMENTS[name] for name in ("evaluate", "gate")]
    with document("package", MODEL, TRAIN, *documents, DATA) as said:
        gate, data = read("gate"), config.data
        if gate["verdict"] != "passed" or gate["model_digest"] != digest(MODEL):
            raise Refused("the gate has not passed this model: see artifacts/gate.json")
        if gate["checks"] != decide(read("evaluate"), config.gate):
            raise BadInput("artifacts/gate.json is not what the gate says: run `ml gate` again")
        shutil.rmtree(NEW, ignore_errors=True)
        NEW.mkdir()
        shutil.copy(MODEL, NEW)
        shutil.copy(DOCUMENTS["evaluate"], NEW)
        seen = {
            name: data.columns[name].model_dump(exclude_defaults=True) for name in data.features
        }
        steps = {name: read(name) for name in STEPS if name != "package"}
        facts = ("commit", "data_digest", "config_digest", "started", "ended", "inputs", "outputs")
        for name, content in {
            "contract": data.model_dump(),
            "signature": {"task": data.task, "inputs": seen, "classes": data.classes},
            "profile": profile(pl.read_parquet(TRAIN), data),
            "lineage": {
                name: {fact: found[fact] for fact in facts} for name, found in steps.items()
            },
        }.items():
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (NEW / f"{name}.json").write_text(text, "utf-8")
        (NEW / "MODEL_CARD.md").write_text(render("report.md", config), "utf-8")
        said |= {"files": {path.name: digest(path) for path in sorted(NEW.iterdir())}}
        said["model_digest"] = gate["model_digest"]
        # A kill between the two renames leaves no package; `repair` brings the old one back.
        repair()
        if PACKAGE.exists():
            PACKAGE.rename(OLD)
        NEW.rename(PACKAGE)
        repair()
    return f"{PACKAGE}/, {len(said['files'])} files"


def repair() -> None:
    """Finish or undo what a killed run left of replacing the package."""
    if OLD.exists() and not PACKAGE.exists():
        OLD.rename(PACKAGE)
    shutil.rmtree(OLD, ignore_errors=True)


def opened(folder: Path = PACKAGE) -> tuple[Any, Data]:
    """Read a package back: the model for `train.predict`, and the contract it was trained under.

    Raises:
        BadInput: There is none, or it is damaged.
    """
    from .train import load

    repair()
    try:
        data = Data.model_validate_json((folder / "contract.json").read_text("utf-8"))
        made = json.loads((folder / "lineage.json").read_text("utf-8"))["train"]["outputs"]
        whole = digest(folder / MODEL.name) == made[str(MODEL)]
    except FileNotFoundError:
        raise BadInput(f"{folder}/ holds no model: run `ml run` first") from None
    except (OSError, ValueError, LookupError):
        whole = False
    if not whole:
        raise BadInput(f"{folder}/ is damaged, or was changed by hand: run `ml package` again")
    return load(folder / MODEL.name), data


def answers(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Predict rows as `problem.data.load` returns them, without a target.

    Returns:
        For each row the `prediction`, and the `probabilities` of the classes if there are any.

    Raises:
        BadInput: There is no package, or it is damaged.
        Refused: The rows break the contract.
    """
    from .train import predict

    fitted, trained = opened()
    data = trained.for_predicting()
    rows = typed(rows, data)
    if failures := check(rows, data)["failures"]:
        raise Refused("\n  ".join(["the rows break the contract:", *tell(failures)]))
    found = predict(fitted, rows, data)
    if data.task == "regression":
        return [{"prediction": float(value)} for value in found]
    shares = [dict(zip(data.classes, row.round(6).tolist(), strict=True)) for row in found]
    return [{"prediction": max(row, key=row.__getitem__), "probabilities": row} for row in shares]


def profile(train: pl.DataFrame, data: Data) -> dict[str, Any]:
    """What the training rows looked like, to tell drift by later.

    Returns:
        For each feature its share of `gaps`, and `percentiles` 0 to 100 (of seconds for a
        datetime) or the `counts` of its categories.
    """
    columns: dict[str, Any] = {}
    for values in inputs(train, data).get_columns():
        gaps, known = values.null_count() / train.height, values.drop_nulls()
        if values.dtype in (pl.Enum, pl.Boolean):
            counts = dict(known.alias("of").cast(pl.String).value_counts(sort=True).iter_rows())
            columns[values.name] = {"gaps": gaps, "counts": counts}
        else:
            numbers = known.dt.epoch("s") if values.dtype == pl.Datetime else known
            at = [round(q / 100 * (len(known) - 1)) for q in range(101)] if len(known) else []
            columns[values.name] = {"gaps": gaps, "percentiles": numbers.sort()[at].to_list()}
    return {"rows": train.height, "columns": columns}
