"""The model of a project behind BentoML, with its adaptive batching: `bentoml serve bento:Rows`.

The model is what `ml serve` answers with, its code and its features; but neither is a row checked
against the contract nor is a prediction written down, which only ours does.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import bentoml
import polars as pl


@bentoml.service
class Rows:
    """One worker, as both others have."""

    def __init__(self) -> None:
        """Open the package that BENCH_MODEL names."""
        inference = import_module("rung_runtime.model_package")  # of the project, by PYTHONPATH
        self.model = inference.load_package(Path(os.environ["BENCH_MODEL"]))

    @bentoml.api(batchable=True, max_batch_size=1000, max_latency_ms=1000)
    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer rows of one or of several requests."""
        typed = self.model.read(pl.DataFrame(rows, infer_schema_length=None))
        answers: list[dict[str, Any]] = self.model.answers(self.model.predict(typed))
        return answers
