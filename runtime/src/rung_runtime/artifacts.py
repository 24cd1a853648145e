"""The files that steps leave behind: where they are, and how documents are read and written.

A document is typed by `records`, chained to others by digests, and never half written.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from . import UsageError, config, process, project, records
from .atomic_file import atomic_write
from .records import Document

ARTIFACTS = Path("artifacts")
INTERIM = Path("data/interim")
ROWS = INTERIM / "rows.parquet"
IDENTITY = INTERIM / "identity.parquet"
TRAIN = INTERIM / "train.parquet"
HOLDOUT = INTERIM / "holdout.parquet"
SIDES = INTERIM / "sides.parquet"
MODEL = ARTIFACTS / "model.skops"
PREDICTIONS = ARTIFACTS / "predictions.parquet"
PACKAGE = ARTIFACTS / "model"
# Of each step in the order of the pipeline: its document, and the other files that it makes.
STEPS: dict[str, list[Path]] = {
    "ingest": [ARTIFACTS / "ingest.json", ROWS, IDENTITY],
    "validate": [ARTIFACTS / "validation.json"],
    "split": [ARTIFACTS / "split.json", TRAIN, HOLDOUT, SIDES],
    "train": [ARTIFACTS / "training.json", MODEL],
    "evaluate": [ARTIFACTS / "metrics.json", PREDICTIONS],
    "compare": [ARTIFACTS / "comparison.json"],
    "gate": [ARTIFACTS / "gate.json"],
    "package": [ARTIFACTS / "package.json"],
}
if not project.current().has_loop:
    del STEPS["compare"]
DOCUMENTS = {step: files[0] for step, files in STEPS.items()} | {
    "controls": ARTIFACTS / "controls.json",
    "deploy": ARTIFACTS / "deployment.json",
    "drift": ARTIFACTS / "drift.json",
    "explain": ARTIFACTS / "explanations.json",
    "image": ARTIFACTS / "image.json",
    "monitor": ARTIFACTS / "monitor.json",
    "privacy": ARTIFACTS / "privacy.json",
    "robustness": ARTIFACTS / "robustness.json",
    "validate_source": ARTIFACTS / "source_validation.json",
}
MADE_BY = {path: step for step, files in STEPS.items() for path in files}
SCHEMA = Path(__file__).parent / "documents.schema.json"  # for programs that read documents

DocumentType = TypeVar("DocumentType", bound=Document)


def digest(*paths: Path) -> str:
    """Return the SHA-256 of the bytes of all files, one after the other, as `sha256:…`."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def write_rows(rows: pl.DataFrame, path: Path) -> None:
    """Write Parquet with `atomic_write`.

    Raises:
        UsageError: The disk is full, or the folder cannot be written to.
    """
    with atomic_write(path) as new:
        try:
            rows.write_parquet(new)
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{path} cannot be written, is the disk full? ({reason})") from None


def read(kind: type[DocumentType]) -> DocumentType:
    """Return the document of a step.

    Args:
        kind: Its type, such as `records.GateDocument`.

    Raises:
        UsageError: The step has not run, or its document is invalid or was edited.
    """
    step: str = kind.model_fields["step"].default
    document = read_step(step)
    assert isinstance(document, kind)
    return document


def read_step(step: str) -> Document:
    """Return the document of a step, where only its envelope counts.

    Raises:
        UsageError: As `read`.
    """
    path = DOCUMENTS[step]
    try:
        text = path.read_text("utf-8")
        fields = json.loads(text, parse_constant=_refuse_constant)
        document = _validated(step, fields)
        if document.digest != _seal(fields):
            raise ValueError("edited by hand")
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: run `ml {step}` first") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} cannot be read: run `ml {step}` again") from None
    return document


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which are not JSON, and which no document is written with."""
    raise ValueError(f"{name} is not a number")


def _validated(step: str, fields: Any) -> Document:
    """Return a document made of its fields, the envelope included.

    Raises:
        ValueError: They are not those of its type.
    """
    document = records.DOCUMENTS[step].model_validate(fields)
    if missing := set(Document.envelope) - document.model_fields_set:
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    return document


def verified_digest(path: Path) -> str:
    """Return the digest of a step's input, which is what the previous step left.

    Raises:
        UsageError: The input is missing; or it, or what it was made from, has changed since.
    """
    step = MADE_BY.get(path)
    if not path.is_file():
        todo = f"run `ml {step}` first" if step else "put a file there, or name another"
        problem = "not a file" if path.exists() else "missing"
        raise UsageError(f"{path} is {problem}: {todo}")
    current = digest(path)
    if step:
        document = read_step(step)
        if document.outputs.get(str(path), current) != current:
            raise UsageError(f"{path} is not what `ml {step}` wrote: run `ml {step}` again")
        for source, recorded in document.inputs.items():
            if Path(source).is_file() and digest(Path(source)) != recorded:
                raise UsageError(f"{source} has changed since `ml {step}`: run `ml {step}` again")
    return current


@dataclass
class StepRecord:
    """What a step hands over while it runs: its document, without the envelope."""

    document: Document | None = None


@contextmanager
def step_record(step: str, *inputs: Path) -> Iterator[StepRecord]:
    """Check a step's inputs, time it, and write its document if nothing was raised.

    Yields:
        A record that the step puts its document in.

    Raises:
        UsageError: As `verified_digest`.
    """
    started = now()
    digests = {str(path): verified_digest(path) for path in inputs}
    record = StepRecord()
    yield record
    assert record.document is not None, f"the step {step} has made no document"
    if step == "ingest":
        data_digest = digests[str(inputs[0])]
    else:
        data_digest = read_step(MADE_BY.get(inputs[0], step)).data_digest
    write(record.document, started=started, data_digest=data_digest, inputs=digests)


def write(document: Document, *, started: str, data_digest: str, inputs: dict[str, str]) -> None:
    """Write a document: the fields of its own, and the envelope.

    Args:
        document: Without the envelope.
        started: As `now` returns it.
        data_digest: Of the source that all of it was made from.
        inputs: The digests of what the step has read, by path.
    """
    step: str = type(document).model_fields["step"].default
    fields = document.content() | {
        "schema_version": 1,
        "step": step,
        "commit": _commit(),
        "data_digest": data_digest,
        "config_digest": digest(config.DATA, config.MODEL, config.GATE),
        "started": started,
        "ended": now(),
        "executor": f"{platform.node()}, Python {platform.python_version()}",
        "arguments": sys.argv[1:],
        "inputs": inputs,
        "outputs": {str(path): digest(path) for path in STEPS.get(step, [])[1:]},
    }
    fields["digest"] = _seal(fields)
    _validated(step, fields)
    with atomic_write(DOCUMENTS[step]) as new:
        new.write_text(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False), "utf-8")


def _seal(fields: dict[str, Any]) -> str:
    """Return the digest of a document's content, which reveals an edit."""
    content = {name: value for name, value in fields.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def now() -> str:
    """Return the time as documents have it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _commit() -> str | None:
    """Return the commit of the code, with `-dirty` if files differ from it; None outside of Git."""
    commit = _git("rev-parse", "HEAD")
    # All files count but the one that DVC writes while the pipeline runs.
    changes = _git("status", "--porcelain", "--untracked-files=no", ".", ":!dvc.lock")
    if commit is None or changes is None:
        return None
    return f"{commit}-dirty" if changes else commit


def _git(*arguments: str) -> str | None:
    """Return what git prints; None if it fails or is not installed."""
    try:
        result = process.run(["git", *arguments])
    except UsageError:
        return None
    return result.text.strip() if result.succeeded else None
