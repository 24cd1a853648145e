"""`ml data use`: any table → contract, task, split and gate in `config/`, each explained."""

import csv
import gzip
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .. import UsageError, config
from ..artifacts import atomic_write, digest
from ..config import METRICS, Data, Strict
from ..pipeline.identity import identifying, identities
from ..pipeline.ingest import read, typed
from ..pipeline.leaks import features_that_predict_alone
from ..pipeline.validate import check, tell
from ..problem import rules
from . import example
from .choose import first_gate, without_unread_texts
from .propose import infer

ABOUT = {
    config.DATA: "The contract: what must be true of the rows. All keys: class Data in config.py.",
    config.MODEL: "What problem/model.py is given to train with.",
    config.GATE: "What a model must reach. All keys: class Gate in config.py.",
}
EXAMPLE = "# The example's own, which `ml data use` may replace as long as nobody edited it: "


def use(file: Path, target: str, *, replace: bool, **asked: Any) -> None:
    """Decide, explain, and write `config/` and a copy of the file in `data/raw/`.

    Raises:
        UsageError: The file cannot be read or learned from, or something of the user's is in the
            way.
    """
    for option, known in (("task", METRICS), ("rare_classes", ("drop", "other"))):
        if asked.get(option) not in (None, *known):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} {asked[option]}: choose one of {', '.join(known)}")
    console = Console(highlight=False, markup=False)
    with console.status(f"reading {file.name} …"):
        source, separator = Path("data/raw") / file.name, delimiter(file)
        rows = read(file, separator)
    with console.status(f"understanding {rows.height:,} rows of {rows.width} columns …"):
        data, notes = infer(rows, target, source=str(file.name), separator=separator, **asked)
        data, unread = without_unread_texts(typed(rows, data), data)
        notes |= unread
        data = data.model_copy(update={"source": str(source), "identity": recognised(rows, data)})
    with console.status("checking that the contract keeps the file …"):
        keeps(rows, data)
        notes |= example.size(file, source)
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as bar:
        trying = bar.add_task("trying a first model", total=1.0)
        model, gate, more = first_gate(
            typed(rows, data),
            data,
            lambda what, share: bar.update(trying, description=what, completed=share),
            identities(rows, identifying(data)),
        )
        # Each has its WARNING in the table: from now on a person knows of these, and of no others.
        gate = gate.model_copy(
            update={"predicts_alone": features_that_predict_alone(typed(rows, data), data)}
        )
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
        raise UsageError(f"{', '.join(map(str, taken))} would be replaced: say so with --replace")
    if file.resolve() != source.resolve():
        with atomic_write(source) as new:
            shutil.copyfile(file, new)
    for path, content in files.items():
        with atomic_write(path) as new:
            new.write_text(f"# {ABOUT[path]}\n{as_yaml(content)}", "utf-8")
    for message in example.leave(source, data.target):
        console.print(message)
    console.print(f"\nWrote {', '.join(map(str, files))} and {source}. Next: ml run")


def recognised(rows: pl.DataFrame, data: Data) -> list[str]:
    """Return the columns that are to tell which row is which, where a split at random needs them.

    They are written down, and kept when the file comes again with a further column, so that no row
    changes its side for that.
    """
    if data.keys or data.split.by != "stratified":
        return []
    if config.DATA.exists():
        with suppress(UsageError):
            before = config.read(config.DATA, Data)
            known = set(before.identity)
            if known and before.target == data.target and known <= set(rows.columns):
                return before.identity
    return data.features


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
        UsageError: It is not, which is said with columns and values.
    """
    written = config.checked(yaml.safe_load(as_yaml(data)), Data, str(config.DATA))
    failures = check(typed(rows, written), written)["failures"]
    if example.is_schema():  # it goes, with its rule
        failures = [failure for failure in failures if failure["rule"] != example.RULE]
    if not failures:
        return
    shown = "; ".join(tell(failures))
    own = set(rules(data.columns))
    if all(failure["rule"] in own for failure in failures):
        raise UsageError(f"the file breaks a rule of problem/schema.py: {shown}")
    raise UsageError(f"the file breaks the contract drawn from it, please report this: {shown}")


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


def _untouched(path: Path) -> bool:
    first, _, rest = path.read_text("utf-8", "replace").partition("\n")
    return first == EXAMPLE + sha256(rest.encode()).hexdigest()[:12]
