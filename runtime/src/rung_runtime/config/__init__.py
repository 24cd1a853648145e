"""The files in `config/`, typed. A mistake in one of them is a sentence with file and key.

`config.delivery` and `config.drift` come with level 1.
"""

from .data import DATA, HIGHER_IS_BETTER, METRICS, Column, ColumnType, Data, Split, Task
from .fairness import Fairness
from .files import Strict, parse_yaml, read, validate
from .gate import GATE, Costs, Gate
from .model import MODEL, Model
from .pipeline import Config, load

__all__ = [
    "DATA",
    "GATE",
    "HIGHER_IS_BETTER",
    "METRICS",
    "MODEL",
    "Column",
    "ColumnType",
    "Config",
    "Costs",
    "Data",
    "Fairness",
    "Gate",
    "Model",
    "Split",
    "Strict",
    "Task",
    "load",
    "parse_yaml",
    "read",
    "validate",
]
