"""What a Dask worker takes before its first item. Sent by value: see `engines.worker`."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from distributed import Worker, WorkerPlugin


class Shipped(WorkerPlugin):  # type: ignore[misc]  # it comes without types
    """Gives each worker what a job needs, also one that joins later or was started anew."""

    def __init__(
        self,
        shipment: Mapping[str, Any],
        arrive: Callable[[Mapping[str, Any], str], str],
        leave: Callable[[str], None],
    ) -> None:
        self.shipment = shipment
        self.arrive = arrive
        self.leave = leave

    def setup(self, worker: Worker) -> None:
        self.arrive(self.shipment, worker.local_directory)

    def teardown(self, worker: Worker) -> None:
        self.leave(self.shipment["digest"])


def mute() -> None:
    """Have this process print nothing: LightGBM prints of its network whatever `verbose` is."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
