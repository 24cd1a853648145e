"""Batch scoring: a source of many rows → a sink with a score for each, exactly once.

The rows of a source are in partitions: its files, or the partitions of a Delta table. `sources`
finds them, `rows` judges and predicts them as the service would, `sink` keeps the results and a
journal of what is done, and `sample` puts rows into the prediction log, for `ml monitor`.
"""

from .score import Options, score

__all__ = ["Options", "score"]
