"""Predict: rows from outside → answers of the packaged model. Refuses rows that break the contract."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import BadInput, Refused
from .frames import typed
from .ingest import read
from .package import opened
from .train import predict
from .validate import check, tell


def answers(file: Path | None, text: str | None) -> list[dict[str, Any]]:
    """Predict the rows of a file, or of JSON: an object, or a list of them.

    Raises:
        BadInput: There is no package or nothing to predict, or it cannot be read.
        Refused: The rows break the contract.
    """
    fitted, trained = opened()
    data = trained.for_predicting()
    if (file is None) == (text is None):
        raise BadInput("name either a file or, with --json, rows")
    try:
        given = json.loads(text or "[]")
        table = given if isinstance(given, list) else [given]
        rows = read(file, data.separator) if file else pl.DataFrame(table, infer_schema_length=None)
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise BadInput(f"--json: {str(error).splitlines()[0]}") from None
    rows = typed(rows, data)
    if failures := check(rows, data)["failures"]:
        raise Refused("\n  ".join(["the rows break the contract:", *tell(failures)]))
    found = predict(fitted, rows, data)
    if data.task == "regression":
        return [{"prediction": float(value)} for value in found]
    shares = [dict(zip(data.classes, row.round(6).tolist(), strict=True)) for row in found]
    return [{"prediction": max(row, key=row.__getitem__), "probabilities": row} for row in shares]
