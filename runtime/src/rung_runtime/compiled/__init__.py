"""Compiled models: an estimator as a graph of ONNX, which answers a row in microseconds.

`convert` and `graph` make it, and need `onnx`; `model` runs it, and needs onnxruntime alone.
"""

from .columns import Columns
from .model import FILE, CompiledModel, load
from .parity import MAX_DIFFERENCE, Parity, check_parity, edge_rows

__all__ = [
    "FILE",
    "MAX_DIFFERENCE",
    "Columns",
    "CompiledModel",
    "Parity",
    "check_parity",
    "edge_rows",
    "load",
]
