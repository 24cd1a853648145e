"""`config/scale.yaml`: what works through sources of many partitions, and where."""

from pathlib import Path

from pydantic import Field

from .files import Strict, read

SCALE = Path("config/scale.yaml")


class Scale(Strict):
    """An engine, and its cluster."""

    engine: str = ""  # an adapter, such as dask; "": that of [tool.rung]
    # Of a cluster that runs, such as tcp://HOST:8786 or spark://HOST:7077; "": one is started here.
    scheduler: str = ""
    workers: int = Field(default=0, ge=0)  # of one that is started here; 0: one for each core
    # Of each worker that is started here, such as 4GiB; "": its share of this machine.
    memory: str = Field(default="", pattern=r"^([1-9]\d*(MiB|GiB))?$")


def load_scale() -> Scale:
    """Read `config/scale.yaml`; without one, the defaults hold.

    Raises:
        UsageError: It is not YAML, or a key is unknown or of another type.
    """
    return read(SCALE, Scale) if SCALE.exists() else Scale()
