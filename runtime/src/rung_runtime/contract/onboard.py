"""`ml data use`: any table → contract, task, split and gate in `config/`, each explained."""

import csv
import gzip
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import cast

import polars as pl
import yaml
from rich.console import Console
from rich.table import Table

from .. import config, progress
from ..artifacts import digest
from ..atomic_file import atomic_write
from ..config import METRICS, Data, Gate, Strict, Task
from ..exceptions import UsageError
from ..pipeline.identity import identifying, identities
from ..pipeline.ingest import read, typed
from ..pipeline.leaks import features_that_predict_alone
from ..pipeline.validate import check, describe
from . import example
from .choose import FirstGate, first_gate, without_unread_texts
from .propose import infer

# The first line of each file that is written.
HEADINGS = {
    config.DATA: "The contract: what must be true of the rows. All keys: rung_runtime.config.Data.",
    config.MODEL: "What problem/model.py is given to train with.",
    config.GATE: "What a model must reach. All keys: rung_runtime.config.Gate.",
}
# The first line of the example's files, followed by a digest of the rest.
EXAMPLE = "# The example's own, which `ml data use` may replace as long as nobody edited it: "
EXAMPLE_DIGEST_LENGTH = 12

RARE_CLASSES = ("drop", "other")
DELIMITERS = ",;\t|"
DELIMITER_LINES = 50  # of a file that are looked at
MAX_FIELD_SIZE = 2**31 - 1  # bytes; a field may hold a whole document
MAX_YAML_WIDTH = 10_000  # so that no line is broken


def use(
    file: Path,
    target: str,
    *,
    replace: bool,
    time: str | None = None,
    group: str | None = None,
    task: str | None = None,
    rare_classes: str | None = None,
) -> None:
    """Decide, explain, and write `config/` and a copy of the file in `data/raw/`.

    Args:
        file: The table.
        target: The column to predict.
        replace: Whether a user's files may be replaced.
        time: The column that says when a row was created.
        group: The column whose equal values stay on one side of the split, or `none`.
        task: `binary`, `multiclass` or `regression`.
        rare_classes: `drop` or `other`.

    Raises:
        UsageError: The file cannot be read or learned from, or would replace a user's file.
    """
    _require_choice("task", task, METRICS)
    _require_choice("rare-classes", rare_classes, RARE_CLASSES)
    console = Console(highlight=False, markup=False, force_terminal=sys.stdout.isatty())
    source = Path("data/raw") / file.name
    with progress.stages(quiet_until="models"):
        progress.begin("read")
        separator = detect_delimiter(file)
        rows = read(file, separator)
        progress.report(f"{rows.height:,} rows of {rows.width} columns from {file.name}")
        progress.begin("contract")
        data, notes = infer(
            rows,
            target,
            source=file.name,
            separator=separator,
            time=time,
            group=group,
            task=cast(Task | None, task),
            rare_classes=rare_classes,
        )
        data = data.model_copy(update={"sensitive": sensitive_columns(data)})
        data, text_notes = without_unread_texts(typed(rows, data), data)
        notes |= text_notes
        identity = identity_columns(rows, data)
        data = data.model_copy(update={"source": str(source), "identity": identity})
        progress.report(f"{data.task}, {len(data.features)} columns to learn from")
        progress.begin("check")
        require_kept(rows, data)
        progress.report("the rows satisfy the contract")
        notes |= example.warn_of_size(file, source)
        model, gate, more_notes = _try_first_model(rows, data)
        notes |= more_notes
        gate, fairness_notes = with_limits_of_fairness(gate, data)
        notes |= fairness_notes
    _print_decisions(console, data, rows.height, notes)
    contents = {config.DATA: data, config.MODEL: model, config.GATE: gate}
    written = _write(file, source, contents, replace)
    removal = example.remove(source, data.target)
    for message in removal.messages:
        console.print(message)
    sentence = f"Wrote {_listed([*written, *removal.written])}"
    if removal.removed:
        sentence += f"; removed {_listed(removal.removed)}"
    console.print(f"\n{sentence}. Next: ml run", soft_wrap=True)


def _listed(paths: Sequence[Path]) -> str:
    """Return paths as a sentence names them, below the project where they are in it."""
    root = Path.cwd()
    names = [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in paths]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _require_choice(option: str, value: str | None, choices: Collection[str]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"--{option} {value}: choose one of {', '.join(choices)}")


def _try_first_model(rows: pl.DataFrame, data: Data) -> FirstGate:
    """Choose model and gate."""
    frame = typed(rows, data)

    def show(description: str, share: float) -> None:
        progress.report(f"{share:.0%}: {description}")

    progress.begin("models")
    first = first_gate(frame, data, show, identities(rows, identifying(data)))
    progress.report(f"{first.model.estimator} is the best of those tried")
    progress.begin("leaks")
    # Each has its WARNING in the table: from now on a person knows of these, and of no others.
    telltales = features_that_predict_alone(frame, data)
    named = ", ".join(telltales) or "none"
    progress.report(f"columns that predict the target alone: {named}")
    return first._replace(gate=first.gate.model_copy(update={"predicts_alone": telltales}))


def _print_decisions(console: Console, data: Data, rows: int, notes: Mapping[str, str]) -> None:
    table = Table("what", "decided", "why", box=None, pad_edge=False)
    for name, note in notes.items():
        decision = data.columns[name].type if name in data.columns else ""
        table.add_row(name, "ignored" if name in data.ignored else decision, note)
    console.print(f"{data.task}: {data.target}, from {rows:,} rows\n", table, sep="\n")


def _write(file: Path, source: Path, contents: Mapping[Path, Strict], replace: bool) -> list[Path]:
    """Write `config/`, and the file to `data/raw/`.

    Returns:
        What was written.

    Raises:
        UsageError: A user's file is in the way, and may not be replaced.
    """
    in_the_way = [path for path in contents if path.exists() and not _is_untouched_example(path)]
    if source.exists() and digest(source) != digest(file):
        in_the_way.append(source)
    if in_the_way and not replace:
        listed = ", ".join(map(str, in_the_way))
        raise UsageError(f"{listed} would be replaced: add --replace to allow it")
    written = list(contents)
    if file.resolve() != source.resolve():
        written.append(source)
        with atomic_write(source) as new:
            shutil.copyfile(file, new)
    for path, content in contents.items():
        with atomic_write(path) as new:
            new.write_text(f"# {HEADINGS[path]}\n{to_yaml(content)}", "utf-8")
    return written


def identity_columns(rows: pl.DataFrame, data: Data) -> list[str]:
    """Return the columns that say which row is which, where a split at random needs them.

    They are written down, and kept when the file comes again with a further column, so that no row
    changes its side for that.
    """
    if data.keys or data.split.by != "stratified":
        return []
    if config.DATA.exists():
        with suppress(UsageError):
            previous = config.read(config.DATA, Data)
            columns = set(previous.identity)
            if columns and previous.target == data.target and columns <= set(rows.columns):
                return previous.identity
    return data.features


def sensitive_columns(data: Data) -> list[str]:
    """Return the columns that were `sensitive` so far, and that the new contract has.

    A person decided on them, which a new file does not change.
    """
    if not config.DATA.exists():
        return []
    with suppress(UsageError):
        previous = config.read(config.DATA, Data).sensitive
        return [name for name in previous if name in data.columns and name != data.target]
    return []


def with_limits_of_fairness(gate: Gate, data: Data) -> tuple[Gate, dict[str, str]]:
    """Return a gate with the limits of fairness that a person has set, and a note on them."""
    if not config.GATE.exists():
        return gate, {}
    with suppress(UsageError):
        fairness = config.read(config.GATE, Gate).fairness
        if fairness is None:
            return gate, {}
        if problem := fairness.problem(data):
            note = f"WARNING: its limits are dropped, as they do not fit: {problem}"
            return gate, {"fairness": note}
        return gate.model_copy(update={"fairness": fairness}), {"fairness": "its limits are kept"}
    return gate, {}


def to_yaml(content: Strict) -> str:
    """Return the text of a file of `config/`, without settings that have their default."""
    return yaml.safe_dump(
        content.model_dump(exclude_defaults=True),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None if isinstance(content, Data) else False,
        width=MAX_YAML_WIDTH,
    )


def require_kept(rows: pl.DataFrame, data: Data) -> None:
    """Check that the rows satisfy the contract that was drawn from them, as it will be written.

    Raises:
        UsageError: They do not; the message names columns and values.
    """
    written = config.validate(yaml.safe_load(to_yaml(data)), Data, str(config.DATA))
    failures = check(typed(rows, written), written)["failures"]
    if example.has_schema():  # it goes, with its rule
        failures = [failure for failure in failures if failure["kind"] != "custom"]
    if not failures:
        return
    listed = "; ".join(describe(failures))
    if all(failure["kind"] == "custom" for failure in failures):
        raise UsageError(f"the file breaks a rule of problem/schema.py: {listed}")
    raise UsageError(f"the file breaks the contract drawn from it, please report this: {listed}")


def detect_delimiter(file: Path) -> str:
    """Return what splits the first lines of a text file into the most fields, all equally many."""
    csv.field_size_limit(MAX_FIELD_SIZE)
    try:
        with file.open("rb") as start:
            opener = gzip.open if start.read(2) == b"\x1f\x8b" else open
        with opener(file, "rt", encoding="utf-8-sig") as text:
            lines = list(islice(text, DELIMITER_LINES))
    except (OSError, EOFError, UnicodeDecodeError):
        return ","  # `read` will say what is wrong, or it is Parquet

    def rank(separator: str) -> tuple[bool, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row] or [0]
        are_equal = len(set(widths)) == 1 < widths[0]
        return are_equal, widths[0]

    return max(DELIMITERS, key=rank)


def _is_untouched_example(path: Path) -> bool:
    first_line, _, rest = path.read_text("utf-8", "replace").partition("\n")
    return first_line == EXAMPLE + sha256(rest.encode()).hexdigest()[:EXAMPLE_DIGEST_LENGTH]
