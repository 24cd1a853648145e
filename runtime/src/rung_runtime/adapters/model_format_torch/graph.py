"""What a network of torch computes as a graph of ONNX, in double precision."""

import io
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, inliner

from ...compiled.graph import OPSET, Graph
from .network import NeuralNetwork

PREFIX = "module_"  # of the names in the graph of a module


def add_scores(graph: Graph, network: NeuralNetwork, numbers: str, codes: list[str]) -> str:
    """Add what is between the inputs of a network and its scores.

    Args:
        graph: The graph.
        network: A fitted network.
        numbers: The name of (n, width) numbers.
        codes: The names of the (n, 1) codes of each column of categories.

    Returns:
        The name of (n, outputs) scores.
    """
    if network.module is None:
        return _perceptron(graph, network, numbers, codes)
    return _module(graph, network, numbers, codes)


def _perceptron(graph: Graph, network: NeuralNetwork, numbers: str, codes: list[str]) -> str:
    weights = {name: np.asarray(values, float) for name, values in network.weights_.items()}
    parts = [numbers]
    for index, code in enumerate(codes):
        table = weights[f"embeddings.{index}.weight"]
        place = graph.add("Cast", code, to=TensorProto.INT64)
        place = graph.add("Squeeze", place, graph.constant([1], np.int64))
        parts.append(graph.add("Gather", graph.constant(table), place, axis=0))
    layer = graph.concat(parts)
    # Between two linear layers are what makes them non-linear, and what is for training only.
    names = [name for name in weights if name.startswith("layers.") and name.endswith(".weight")]
    names.sort(key=lambda name: int(name.split(".")[1]))
    for name in names:
        bias = weights[name.removesuffix("weight") + "bias"]
        layer = graph.linear(layer, weights[name].T, bias)
        if name != names[-1]:
            layer = graph.add("Relu", layer)
    return layer


def _module(graph: Graph, network: NeuralNetwork, numbers: str, codes: list[str]) -> str:
    """Add a module of `problem/`, as torch writes it.

    Raises:
        ValueError: It has a part that there is no operator for, or onnxscript is not installed.
    """
    model = _exported(network)
    # Without categories, a matrix without columns.
    columns = graph.concat(codes) if codes else graph.select(numbers, [])
    joined = graph.add("Cast", columns, to=TensorProto.INT64)
    model = compose.add_prefix(inliner.inline_local_functions(model), PREFIX)
    names = {f"{PREFIX}numbers": numbers, f"{PREFIX}codes": joined}
    inputs = {tensor.name: names[tensor.name] for tensor in model.graph.input}
    return graph.include(model, inputs)


def _exported(network: NeuralNetwork) -> onnx.ModelProto:
    """Return the graph of a module: (n, outputs) scores of `numbers` and `codes`."""
    import torch

    module = network.loaded_module().double().eval()
    rows = 3  # any number but 0 and 1, which torch takes for constants
    numbers = torch.zeros((rows, network.table_.width), dtype=torch.float64)
    codes = torch.zeros((rows, len(network.table_.categories)), dtype=torch.int64)
    count = torch.export.Dim("n")
    program = torch.onnx.export(
        module,
        (numbers, codes),
        dynamo=True,
        opset_version=OPSET,
        input_names=["numbers", "codes"],
        output_names=["scores"],
        dynamic_shapes=({0: count}, {0: count}),
        verbose=False,
    )
    if program is None:
        raise ValueError("torch has written no graph")
    content: Any = io.BytesIO()  # save() writes to a file, which its type does not have
    program.save(content)
    return onnx.load_from_string(content.getvalue())
