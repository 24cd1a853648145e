"""`ml data use`: any table → contract, task, split and gate in `config/`, each explained."""

import csv
import gzip
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from rich.console import Console
from rich.table import Table

from .. import BadInput, config
from ..config import METRICS, Config, Data, Gate, Model, Strict
from ..documents import digest, replacing
from ..inference import predict
from ..problem.features import features
from . import example
from .evaluate import baselines, judge, latency
from .infer import infer
from .ingest import labels, read, typed
from .split import split
from .train import fit
from .validate import check, tell

ABOUT = {
    config.DATA: "The contract: what must be true of the rows. All keys: class Data in config.py.",
    config.MODEL: "What problem/model.py is given to train with.",
    config.GATE: "What a model must reach. All keys: class Gate in config.py.",
}
# Many small steps of shallow trees; fewer where each step takes a tree for every class.
PARAMS = {"max_iter": 300, "learning_rate": 0.03, "max_leaf_nodes": 15}
FEWER = {"max_iter": 100, "learning_rate": 0.1}
EXAMPLE = "# The example's own, which `ml data use` may replace as long as nobody edited it: "


def use(file: Path, target: str, *, replace: bool, **asked: Any) -> None:
    """Decide, explain, and write `config/` and a copy of the file in `data/raw/`.

    Raises:
        BadInput: The file cannot be read or learned from, or something of the user's is in the way.
    """
    for option, known in (("task", METRICS), ("rare_classes", ("drop", "other"))):
        if asked.get(option) not in (None, *known):
            name = option.replace("_", "-")
            raise BadInput(f"--{name} {asked[option]}: choose one of {', '.join(known)}")
    console = Console(highlight=False, markup=False)
    with console.status(f"reading {file.name} …"):
        source, separator = Path("data/raw") / file.name, delimiter(file)
        rows = read(file, separator)
    with console.status(f"understanding {rows.height:,} rows of {rows.width} columns …"):
        data, notes = infer(rows, target, source=str(file.name), separator=separator, **asked)
        data = data.model_copy(update={"source": str(source)})
    with console.status("checking that the contract keeps the file …"):
        keeps(rows, data)
        notes |= example.size(file, source)
    with console.status("trying a first model …"):
        model, gate, more = first_gate(typed(rows, data), data)
    table = Table("what", "decided", "why", box=None, pad_edge=False)
    for name, said in (notes | more).items():
        kind = data.columns[name].type if name in data.columns else ""
        table.add_row(name, "left out" if name in data.left_out else kind, said)
    console.print(f"{data.task}: {target}, from {rows.height:,} rows\n", table, sep="\n")
    files = {config.DATA: data, config.MODEL: model, config.GATE: gate}
    taken = [path for path in files if path.exists() and not _untouched(path)]
    if source.exists() and digest(source) != digest(file):
        taken.append(source)
    if taken and not replace:
        raise BadInput(f"{', '.join(map(str, taken))} would be replaced: say so with --replace")
    if file.resolve() != source.resolve():
        with replacing(source) as new:
            shutil.copyfile(file, new)
    for path, content in files.items():
        with replacing(path) as new:
            new.write_text(f"# {ABOUT[path]}\n{as_yaml(content)}", "utf-8")
    for message in example.leave(source):
        console.print(message)
    console.print(f"\nWrote {', '.join(map(str, files))} and {source}. Next: ml run")


def as_yaml(content: Strict) -> str:
    """A file of `config/`, without what is as by default."""
    return yaml.safe_dump(
        content.model_dump(exclude_defaults=True),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None if isinstance(content, Data) else False,
        width=10_000,
    )


def keeps(rows: pl.DataFrame, data: Data) -> None:
    """Check that the contract, as it will be written, is kept by the rows it was drawn from.

    Raises:
        BadInput: It is not, which is said with columns and values.
    """
    written = config.checked(yaml.safe_load(as_yaml(data)), Data, str(config.DATA))
    failures = check(typed(rows, written), written)["failures"]
    if example.is_schema():  # it goes, with its rule
        failures = [failure for failure in failures if failure["rule"] != example.RULE]
    if failures:
        raise BadInput(
            "the contract drawn from the file is not kept by the file itself; "
            f"please report this: {'; '.join(tell(failures))}"
        )


def delimiter(file: Path) -> str:
    """What parts the first lines of a text file into the most fields, equally many in each."""
    csv.field_size_limit(2**31 - 1)
    try:
        with file.open("rb") as start:
            opener = gzip.open if start.read(2) == b"\x1f\x8b" else open
        with opener(file, "rt", encoding="utf-8-sig") as text:
            lines = [line for _, line in zip(range(50), text, strict=False)]
    except (OSError, EOFError, UnicodeDecodeError):
        return ","  # `read` will say what is wrong, or it is Parquet

    def fields(separator: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row] or [0]
        return len(set(widths)) == 1 < widths[0], widths[0]

    return max(",;\t|", key=fields)


def first_gate(rows: pl.DataFrame, data: Data) -> tuple[Model, Gate, dict[str, str]]:
    """Choose the estimator, and thresholds of half of what it gains over a constant.

    It is tried on 50,000 rows at most, none of them of the holdout; linear is chosen where the
    boosted trees lose more to it than the gate tolerates.
    """
    rows = split(rows, data)[0]
    train, rest = split(rows.sample(min(rows.height, 50_000), seed=0), data)
    metric, others = METRICS[data.task][0], baselines(train, rest, data)
    gate, tried = Gate(metric=metric, thresholds={metric: 0.0}), []
    boosted = PARAMS | (FEWER if data.task == "multiclass" else {})
    for model in (Model(params=boosted), Model(estimator="linear")):
        fitted, whole = fit(train, data, model), Config(data=data, model=model, gate=gate)
        found = judge(
            labels(rest, data), predict(fitted, rest, data, features), others, rest, whole
        )
        tried.append((model, found, latency(fitted, rest, data)))
    lost = tried[0][1]["baselines"]["linear"]["skill"]["value"] or 0.0
    model, found, taken = tried[lost < -gate.linear_tolerance]
    value, constant = found["metrics"][metric]["value"], found["baselines"]["constant"]
    gained = max(constant["skill"]["value"] or 0.0, 0.0)
    weakest = [s["skill"]["value"] for s in found["slices"] if s["skill"]["value"] is not None]
    gate = Gate(
        metric=metric,
        thresholds={metric: float(f"{(value + constant['value']) / 2:.3g}")},
        slice_skill=round(min([0.4 * gained, *(skill - 0.1 for skill in weakest)]), 3),
        max_calibration_error=round(max(0.1, 2 * found["calibration"]["error"]), 3),
        max_latency_ms=max(50.0, round(5 * taken)),
    )
    reached = f"a first model has {metric} {value:.4g}, a constant {constant['value']:.4g}"
    notes = {"(estimator)": f"{model.estimator}: {reached}"}
    notes["(gate)"] = f"asks for {metric} {gate.thresholds[metric]:.4g}, half of that gain"
    if (constant["skill"]["low"] or 0.0) <= 0:
        notes["(gate)"] = f"WARNING: {reached}: the columns tell next to nothing of the target"
    return model, gate, notes


def _untouched(path: Path) -> bool:
    first, _, rest = path.read_text("utf-8", "replace").partition("\n")
    return first == EXAMPLE + sha256(rest.encode()).hexdigest()[:12]
