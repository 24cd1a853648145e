"""The JSON documents that steps leave behind: typed by a schema, chained by digests, never half."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from jsonschema import Draft202012Validator, ValidationError

from . import UsageError, config, project

ARTIFACTS = Path("artifacts")
ROWS, IDENTITY, TRAIN, HOLDOUT, SIDES = (
    Path(f"data/interim/{name}.parquet")
    for name in ("rows", "identity", "train", "holdout", "sides")
)
MODEL, PREDICTIONS, PACKAGE = (
    ARTIFACTS / n for n in ("model.skops", "predictions.parquet", "model")
)
# Of each step in the order of the pipeline: its document, and the other files that it makes.
STEPS: dict[str, list[Path]] = {
    "ingest": [ARTIFACTS / "ingest.json", ROWS, IDENTITY],
    "validate": [ARTIFACTS / "validation.json"],
    "split": [ARTIFACTS / "split.json", TRAIN, HOLDOUT, SIDES],
    "train": [ARTIFACTS / "training.json", MODEL],
    "evaluate": [ARTIFACTS / "metrics.json", PREDICTIONS],
    **({"compare": [ARTIFACTS / "comparison.json"]} if project.current().has_loop else {}),
    "gate": [ARTIFACTS / "gate.json"],
    "package": [ARTIFACTS / "package.json"],
}
DOCUMENTS = {step: files[0] for step, files in STEPS.items()} | {
    "controls": ARTIFACTS / "controls.json",
    "deploy": ARTIFACTS / "deployment.json",
    "drift": ARTIFACTS / "drift.json",
    "image": ARTIFACTS / "image.json",
    "monitor": ARTIFACTS / "monitor.json",
}
MADE_BY = {path: step for step, files in STEPS.items() for path in files}


def digest(*paths: Path) -> str:
    """The SHA-256 of the bytes of all files, one after the other, as `sha256:…`."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return f"sha256:{total.hexdigest()}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name to write to; the file then takes its place whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_rows(rows: pl.DataFrame, path: Path) -> None:
    """Write Parquet through `replacing`.

    Raises:
        UsageError: The disk is full, or the folder cannot be written to.
    """
    with replacing(path) as new:
        try:
            rows.write_parquet(new)
        except pl.exceptions.PolarsError as error:
            said = str(error).splitlines()[0]
            raise UsageError(f"{path} cannot be written, is the disk full? ({said})") from None


def read(step: str) -> dict[str, Any]:
    """The document of a step.

    Raises:
        UsageError: The step has not run, or its document is not what its schema says.
    """
    try:
        text = DOCUMENTS[step].read_text("utf-8")
        document: dict[str, Any] = json.loads(text, parse_constant=_no_number)
        _validate(step, document)
        if document["digest"] != _sealed(document):
            raise ValueError("edited by hand")
    except FileNotFoundError:
        raise UsageError(f"{DOCUMENTS[step]} is missing: run `ml {step}` first") from None
    except (ValueError, ValidationError, RecursionError):
        raise UsageError(f"{DOCUMENTS[step]} cannot be read: run `ml {step}` again") from None
    return document


def _no_number(name: str) -> float:
    """Refuse NaN and Infinity, which are not JSON, and which no document is written with."""
    raise ValueError(f"{name} is no number")


def _validate(step: str, body: Any) -> None:
    schema = json.loads((Path(__file__).parent / "documents.schema.json").read_text("utf-8"))
    Draft202012Validator({**schema, "$ref": f"#/$defs/{step}"}).validate(body)


def checked(path: Path) -> str:
    """The digest of a step's input, found to be what the step before it left.

    Raises:
        UsageError: It is missing; or it, or what it was made from, has changed since.
    """
    step = MADE_BY.get(path)
    if not path.is_file():
        todo = f"run `ml {step}` first" if step else "put a file there, or name another"
        raise UsageError(f"{path} is {'no file' if path.exists() else 'missing'}: {todo}")
    found = digest(path)
    if step:
        document = read(step)
        if document["outputs"].get(str(path), found) != found:
            raise UsageError(f"{path} is not what `ml {step}` wrote: run `ml {step}` again")
        for source, before in document["inputs"].items():
            if Path(source).is_file() and digest(Path(source)) != before:
                raise UsageError(f"{source} has changed since `ml {step}`: run `ml {step}` again")
    return found


@contextmanager
def document(step: str, *inputs: Path) -> Iterator[dict[str, Any]]:
    """Check a step's inputs, time it, and write its document if nothing was raised.

    Yields:
        A dictionary for what the step has to say, besides what every document carries.

    Raises:
        UsageError: As `checked`.
    """
    started, taken = now(), {str(path): checked(path) for path in inputs}
    before = MADE_BY.get(inputs[0], step)
    said: dict[str, Any] = {}
    yield said
    data = taken[str(inputs[0])] if step == "ingest" else read(before)["data_digest"]
    write(step, said, started, data, taken)


def write(
    step: str, said: dict[str, Any], started: str, data_digest: str, inputs: dict[str, str]
) -> None:
    """Write a document: what a step has to say, and what every document carries.

    Args:
        started: As `now` gives it.
        data_digest: Of the source that all of it was made from.
        inputs: The digests of what the step has read, by path.
    """
    body = said | {
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
    body["digest"] = _sealed(body)
    _validate(step, body)
    with replacing(DOCUMENTS[step]) as new:
        new.write_text(json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False), "utf-8")


def _sealed(body: dict[str, Any]) -> str:
    """The digest of a document's content, to tell one that was edited."""
    rest = json.dumps({k: v for k, v in body.items() if k != "digest"}, sort_keys=True)
    return f"sha256:{hashlib.sha256(rest.encode()).hexdigest()}"


def now() -> str:
    """The time as documents write it, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _commit() -> str | None:
    """The commit of the code, with `-dirty` if files differ from it; None outside of Git."""
    # Of all files but the one that DVC writes while the pipeline runs.
    differs = ["git", "status", "--porcelain", "--untracked-files=no", ".", ":!dvc.lock"]
    with suppress(OSError, subprocess.CalledProcessError):
        commit, changed = (
            subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
            for asked in (["git", "rev-parse", "HEAD"], differs)
        )
        return f"{commit}{'-dirty' * bool(changed)}"
    return None
