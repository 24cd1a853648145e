"""Monitoring: the champion's predictions, window by window → `drift.json`, `monitor.json`, a page.

A rule decides whether to train again. What it decided is kept in the registry, so that the next
run, wherever it is, neither forgets it nor does it twice.
"""

from .monitor import monitor
from .retrain import retrain

__all__ = ["monitor", "retrain"]
