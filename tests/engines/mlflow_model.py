"""The model of a project as MLflow serves it: a pyfunc model with a signature, saved to a folder.

    python mlflow_model.py FOLDER ROWS.json

The model is what `ml serve` answers with, its code and its features. MLflow checks the row against
the signature; ours checks it against the contract and writes the prediction down.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import polars as pl
from mlflow.models import infer_signature


class Rows(mlflow.pyfunc.PythonModel):
    """The package that BENCH_MODEL names."""

    def load_context(self, context: Any) -> None:
        """Open it, once."""
        inference = import_module("rung_runtime.model_package")  # of the project, by PYTHONPATH
        self.model = inference.load_package(Path(os.environ["BENCH_MODEL"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        """Answer rows."""
        typed = self.model.read(pl.from_pandas(model_input))
        return self.model.answers(self.model.predict(typed))


if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[1],
        python_model=Path(__file__),
        signature=infer_signature(pd.DataFrame(json.loads(Path(sys.argv[2]).read_text()))),
        pip_requirements=[],
    )

mlflow.models.set_model(Rows())
