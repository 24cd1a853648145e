"""Graphs of ONNX, built node by node; all numbers are in double precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT = "rows"
OUTPUT = "predictions"
OPSET = 21
TREES_OPSET = 5  # the first that has TreeEnsemble, whose numbers may be doubles
IR_VERSION = 10
# `nodes_modes` of TreeEnsemble.
BRANCH_LEQ = 0
BRANCH_MEMBER = 6


class Graph:
    """A graph under construction. Each method returns the name of what it computes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output."""
        output = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, list(inputs), [output], domain=domain, **attributes)
        )
        return output

    def constant(self, values: Any, dtype: Any = np.float64) -> str:
        """Add a constant."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def select(self, matrix: str, columns: Sequence[int]) -> str:
        """Return some columns of a matrix."""
        return self.add("Gather", matrix, self.constant(columns, np.int64), axis=1)

    def concat(self, matrices: Sequence[str]) -> str:
        """Return the columns of several matrices side by side."""
        if len(matrices) == 1:
            return matrices[0]
        return self.add("Concat", *matrices, axis=1)

    def replace_missing(self, matrix: str, values: NDArray[np.float64]) -> str:
        """Return a matrix with a value for each column where it has NaN."""
        return self.add("Where", self.add("IsNaN", matrix), self.constant(values), matrix)

    def look_up(self, code: str, table: NDArray[np.float64]) -> str:
        """Return the row of a table for each code; the last one is that of NaN.

        Args:
            code: (n, 1) from 0 on, or NaN.
            table: (codes + 1, k).
        """
        index = self.replace_missing(code, np.array([len(table) - 1.0]))
        index = self.add("Cast", index, to=TensorProto.INT64)
        index = self.add("Squeeze", index, self.constant([1], np.int64))
        return self.add("Gather", self.constant(table), index, axis=0)

    def linear(self, matrix: str, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> str:
        """Return `matrix @ weights + bias`: (n, k) of (k, outputs)."""
        product = self.add("MatMul", matrix, self.constant(weights))
        return self.add("Add", product, self.constant(np.atleast_1d(bias)))

    def probabilities(self, raw: str, outputs: int) -> str:
        """Return (n, classes) probabilities of (n, 1) log-odds, or of (n, classes) scores."""
        if outputs > 1:
            return self.add("Softmax", raw, axis=1)
        positive = self.add("Sigmoid", raw)
        negative = self.add("Sub", self.constant([1.0]), positive)
        return self.concat([negative, positive])

    def mean(self, matrices: Sequence[str], weights: Sequence[float]) -> str:
        """Return the weighted mean of matrices."""
        total = sum(weights)
        parts = [
            self.add("Mul", matrix, self.constant([weight / total]))
            for matrix, weight in zip(matrices, weights, strict=True)
        ]
        result = parts[0]
        for part in parts[1:]:
            result = self.add("Add", result, part)
        return result

    def include(self, model: onnx.ModelProto, inputs: Mapping[str, str]) -> str:
        """Add all nodes of another graph, whose names are its own. Returns its one output.

        Args:
            model: The other graph.
            inputs: For each of its inputs, what goes in.
        """
        for name, value in inputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._nodes += model.graph.node
        self._constants += model.graph.initializer
        (output,) = model.graph.output
        return str(output.name)

    def to_bytes(self, output: str, columns: int, outputs: int, metadata: dict[str, str]) -> bytes:
        """Return the model as a file has it: the same bytes for the same graph.

        Args:
            output: The name of what the graph computes.
            columns: How many columns its input has.
            outputs: How many columns its output has.
            metadata: Texts to store beside it.
        """
        self._nodes.append(helper.make_node("Identity", [output], [OUTPUT]))
        double = TensorProto.DOUBLE
        graph = helper.make_graph(
            self._nodes,
            "rung",
            [helper.make_tensor_value_info(INPUT, double, ["n", columns])],
            [helper.make_tensor_value_info(OUTPUT, double, ["n", outputs])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "rung"
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


class Trees:
    """Decision trees whose leaves are added up: the attributes of one TreeEnsemble."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.constant = np.zeros(outputs)  # of trees without any split
        self._roots: list[int] = []
        self._features: list[int] = []
        self._splits: list[float] = []
        self._modes: list[int] = []
        self._missing_is_true: list[int] = []
        self._children: list[list[int]] = [[], []]  # if true, if false
        self._is_leaf: list[list[int]] = [[], []]
        self._members: list[float] = []
        self._leaf_outputs: list[int] = []
        self._leaf_values: list[float] = []

    def begin(self) -> int:
        """Begin a tree, whose root is the next node."""
        self._roots.append(len(self._features))
        return len(self._features)

    def split(self, feature: int, threshold: float, *, missing_is_true: bool) -> int:
        """Add a split by a number: true at most at the threshold. Returns its index."""
        return self._split(feature, threshold, BRANCH_LEQ, missing_is_true)

    def split_categories(self, feature: int, codes: Sequence[int], *, missing_is_true: bool) -> int:
        """Add a split by a category: true for some codes. Returns its index."""
        self._members += [*map(float, codes), float("nan")]
        return self._split(feature, 0.0, BRANCH_MEMBER, missing_is_true)

    def _split(self, feature: int, threshold: float, mode: int, missing_is_true: bool) -> int:
        self._features.append(feature)
        self._splits.append(threshold)
        self._modes.append(mode)
        self._missing_is_true.append(int(missing_is_true))
        for side in (0, 1):
            self._children[side].append(0)
            self._is_leaf[side].append(0)
        return len(self._features) - 1

    def connect(self, node: int, *, if_true: bool, child: int) -> None:
        """Let one side of a split lead to another split."""
        side = 0 if if_true else 1
        self._children[side][node] = child

    def connect_leaf(self, node: int, *, if_true: bool, output: int, value: float) -> None:
        """Let one side of a split end in a value."""
        side = 0 if if_true else 1
        self._children[side][node] = len(self._leaf_values)
        self._is_leaf[side][node] = 1
        self._leaf_outputs.append(output)
        self._leaf_values.append(value)

    def add_to(self, graph: Graph, matrix: str) -> str:
        """Add the trees to a graph. Returns the sums, (n, outputs)."""
        if not self._roots:
            zeros = self.constant * np.ones((1, self.outputs))
            first = graph.select(matrix, [0])
            shape = graph.add("Shape", first)
            rows = graph.add("Slice", shape, *(graph.constant([i], np.int64) for i in (0, 1)))
            wanted = graph.add("Concat", rows, graph.constant([self.outputs], np.int64), axis=0)
            return graph.add("Expand", graph.constant(zeros), wanted)
        sums = graph.add(
            "TreeEnsemble",
            matrix,
            domain="ai.onnx.ml",
            aggregate_function=1,  # SUM
            n_targets=self.outputs,
            post_transform=0,  # NONE
            tree_roots=self._roots,
            nodes_featureids=self._features,
            nodes_splits=_tensor(self._splits),
            nodes_modes=_tensor(self._modes, np.uint8),
            nodes_missing_value_tracks_true=self._missing_is_true,
            nodes_truenodeids=self._children[0],
            nodes_trueleafs=self._is_leaf[0],
            nodes_falsenodeids=self._children[1],
            nodes_falseleafs=self._is_leaf[1],
            leaf_targetids=self._leaf_outputs,
            leaf_weights=_tensor(self._leaf_values),
            **({"membership_values": _tensor(self._members)} if self._members else {}),
        )
        return graph.add("Add", sums, graph.constant(self.constant))


def _tensor(values: Sequence[float], dtype: Any = np.float64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=dtype))
