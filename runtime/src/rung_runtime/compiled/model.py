"""A compiled model in use."""

import os
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError
from .columns import Columns

FILE = "model.onnx"  # in a package
COLUMNS = "columns"  # the metadata of the file that says what it takes
BATCH_ROWS = 65_536  # that are predicted at once, so that memory stays bounded


class CompiledModel:
    """A graph that predicts as the estimator does that it was made of.

    Attributes:
        columns: What it takes.
    """

    def __init__(self, content: bytes, threads: int = 0) -> None:
        """Open a graph.

        Args:
            content: Of the file.
            threads: How many may share the trees of a large batch; 0: as many as there are cores.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A graph that somebody else wrote reads no file of the folder that the process runs in.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.devnull
        )
        # What is fused beyond this level, such as the SiLU of a network, has no kernel in double
        # precision, and another release of onnxruntime may fuse what the one that packaged did not.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.columns = Columns.from_json(metadata[COLUMNS])
        (self._input,) = [tensor.name for tensor in self._session.get_inputs()]
        (self._outputs,) = [tensor.shape[1] for tensor in self._session.get_outputs()]

    def predict(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """Predict rows.

        Args:
            frame: (n, …) what `features` returned.

        Returns:
            (n, outputs): probabilities in the order of the contract's classes, or one value.

        Raises:
            ValueError: It has other columns or categories than in training.
        """
        return self.predict_matrix(self.columns.matrix(frame))

    def predict_matrix(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict (n, columns) numbers, as `columns` makes them; returns what `predict` does."""
        if len(matrix) <= BATCH_ROWS:
            return self._run(matrix)
        starts = range(0, len(matrix), BATCH_ROWS)
        return np.concatenate([self._run(matrix[start : start + BATCH_ROWS]) for start in starts])

    def _run(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(matrix):
            return np.zeros((0, self._outputs))
        (y_pred,) = self._session.run(None, {self._input: matrix})
        predictions: NDArray[np.float64] = y_pred
        return predictions


def load(path: Path, threads: int = 0) -> CompiledModel:
    """Open the compiled model of a package.

    Raises:
        UsageError: The file is damaged, or onnxruntime is missing.
    """
    try:
        return CompiledModel(path.read_bytes(), threads)
    except ImportError as error:
        raise UsageError(f"{path} needs onnxruntime: run `uv sync` ({error})") from None
    except Exception as error:  # onnxruntime has a type for each reason
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is damaged ({reason}): run `ml package` again") from None
