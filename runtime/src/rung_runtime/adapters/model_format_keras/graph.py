"""What a model of Keras computes as a graph of ONNX, in single precision as Keras does."""

# mypy: disable-error-code="misc,no-any-return"
# (Where Keras is not installed, its types are not known.)

import io
from typing import Any

import keras
import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, inliner

from ...compiled.graph import OPSET, Graph
from .network import LARGEST

PREFIX = "model_"  # of the names in the graph of a model
ROWS = 3  # any number but 0 and 1, which torch takes for constants


class _Model(torch.nn.Module):
    """A model that takes its inputs one by one."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, numbers: torch.Tensor, *codes: torch.Tensor) -> torch.Tensor:
        return self.model([numbers, *codes], training=False)


def add_scores(graph: Graph, model: keras.Model, numbers: str, codes: list[str]) -> str:
    """Add what is between the inputs of a model and its scores.

    Args:
        graph: The graph.
        model: A model, on the CPU.
        numbers: The name of (n, width) numbers.
        codes: The names of the (n, 1) codes of each column of categories.

    Returns:
        The name of (n, outputs) scores.
    """
    content = _exported(model, len(codes))
    limits = [graph.constant(np.array(end)) for end in (-LARGEST, LARGEST)]
    clipped = graph.add("Clip", numbers, *limits)
    names = {f"{PREFIX}numbers": graph.add("Cast", clipped, to=TensorProto.FLOAT)}
    for index, code in enumerate(codes):
        names[f"{PREFIX}code_{index}"] = graph.add("Cast", code, to=TensorProto.INT64)
    content = compose.add_prefix(inliner.inline_local_functions(content), PREFIX)
    inputs = {tensor.name: names[tensor.name] for tensor in content.graph.input}
    return graph.add("Cast", graph.include(content, inputs), to=TensorProto.DOUBLE)


def _exported(model: keras.Model, columns: int) -> onnx.ModelProto:
    """Return the graph of a model.

    Raises:
        ValueError: torch cannot write it.
    """
    width = model.inputs[0].shape[1]
    numbers = torch.zeros((ROWS, width), dtype=torch.float32)
    codes = [torch.zeros((ROWS, 1), dtype=torch.int64) for _ in range(columns)]
    count = torch.export.Dim("n")
    with keras.device("cpu"):
        program = torch.onnx.export(
            _Model(model).eval(),
            (numbers, *codes),
            dynamo=True,
            opset_version=OPSET,
            input_names=["numbers", *(f"code_{index}" for index in range(columns))],
            output_names=["scores"],
            dynamic_shapes=({0: count}, tuple({0: count} for _ in codes)),
            verbose=False,
        )
    if program is None:
        raise ValueError("torch has written no graph")
    content: Any = io.BytesIO()  # save() writes to a file, which its type does not have
    program.save(content)
    return onnx.load_from_string(content.getvalue())
