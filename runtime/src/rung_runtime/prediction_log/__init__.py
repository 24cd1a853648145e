"""The prediction log: Parquet files by day, the labels that arrive later, and how both are read.

`PredictionLog` writes what a service answered, `add_labels` what really happened; `read`, `joined`
and `refused` return it.
"""

from .labels import add_labels
from .reader import joined, read, refused
from .writer import PredictionLog

__all__ = ["PredictionLog", "add_labels", "joined", "read", "refused"]
