"""`config/model.yaml`: what `problem/model.py` is given to train with."""

from pathlib import Path
from typing import Any

from pydantic import Field

from .files import Strict

MODEL = Path("config/model.yaml")


class Model(Strict):
    """What `problem/model.py` is given."""

    estimator: str = "boosted"
    seed: int = 0
    params: dict[str, Any] = Field(default={})
    engine: str = ""  # an adapter whose workers train it, such as dask; "": this machine
    refit: bool = False  # after the gate, on the holdout too; that very model is never measured
