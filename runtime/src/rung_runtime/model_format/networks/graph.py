"""The inputs and the answers of a network as a graph of ONNX, in double precision."""

import numpy as np
from onnx import TensorProto

from ...compiled.graph import Graph
from .network import NetworkRegressor, TableNetwork
from .table import Table


def add_to(graph: Graph, network: TableNetwork, matrix: str) -> str:
    """Add a network to a graph.

    Args:
        graph: The graph.
        network: A fitted network.
        matrix: The name of (n, columns) rows, as `Columns.matrix` returns them.

    Returns:
        The name of (n, classes) probabilities, or of (n, 1) values.
    """
    numbers = _numbers(graph, network.table_, matrix)
    codes = _codes(graph, network.table_, matrix)
    scores = network._scores_in_graph(graph, numbers, codes)
    if isinstance(network, NetworkRegressor):
        scaled = graph.add("Mul", scores, graph.constant([network.scale_]))
        return graph.add("Add", scaled, graph.constant([network.mean_]))
    return graph.add("Softmax", scores, axis=1)


def _numbers(graph: Graph, table: Table, matrix: str) -> str:
    """Return the numbers that a module takes: see `Table.encode`."""
    chosen = graph.select(matrix, table.positions([number.name for number in table.numbers]))
    mean = np.array([number.mean for number in table.numbers])
    scale = np.array([number.scale for number in table.numbers])
    known = graph.replace_missing(chosen, mean)
    centered = graph.add("Sub", known, graph.constant(mean))
    standardized = graph.add("Div", centered, graph.constant(scale))
    if not table.with_gaps:
        return standardized
    is_missing = graph.add("IsNaN", graph.select(chosen, table.with_gaps))
    indicators = graph.add("Cast", is_missing, to=TensorProto.DOUBLE)
    return graph.concat([standardized, indicators])


def _codes(graph: Graph, table: Table, matrix: str) -> list[str]:
    """Return the (n, 1) codes of each column of categories, as numbers."""
    codes = []
    for category in table.categories:
        place = graph.select(matrix, table.positions([category.name]))
        codes.append(graph.look_up(place, np.array(category.codes, dtype=float)[:, None]))
    return codes
