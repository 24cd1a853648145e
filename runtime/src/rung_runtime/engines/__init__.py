"""Engines: what calls a function for each of many items, on this machine or on many.

    interface.py    what an engine is, and the work that it is given
    shipment.py     the code and the files that workers need, packed
    worker.py       what a worker does with them: the standard library alone
    choice.py       which engine a command uses

An item is a partition of a source. The function, the modules of `problem/` that it calls, and
Polars, which reads a partition, are the same whatever the engine; so are the results.
"""

from .choice import open_engine
from .interface import Engine, Job, Outcome

__all__ = ["Engine", "Job", "Outcome", "open_engine"]
