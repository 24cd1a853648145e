"""Dask: each partition is a task of a cluster, whose workers run Polars.

Without a scheduler, a cluster of processes starts on this machine, for as long as a command runs.
Dask starts a worker anew that has ended, and gives its task to another one.
"""

import logging
import pickle
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl

from ... import UsageError
from ...config.scale import Scale
from ...engines import shipment, worker
from ...engines.interface import Engine, Item, Job, Outcome, Result

if TYPE_CHECKING:
    from ...partitioned.training import Work
    from ...tuning.folds import Folds
    from ...tuning.workers import Crew

CONNECT_TIMEOUT_S = 10
MAX_WORKERS_LOST = 3  # at one item, before it is given up


class Dask:
    """A cluster."""

    name = "dask"
    in_process = False

    def __init__(self, client: Any, cluster: Any = None, folder: Any = None) -> None:
        self.client = client
        self.address = client.scheduler.address
        self.cluster = cluster  # if it was started here
        self.folder = folder

    @property
    def worker_count(self) -> int:
        """Return how many items are done at once."""
        return max(1, sum(map(int, self.client.nthreads().values())))

    @property
    def process_count(self) -> int:
        """Return how many workers there are, each a process.

        Raises:
            UsageError: There is none.
        """
        self.require_workers()
        return len(self.client.nthreads())

    def run(self, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Outcome[Result]]:
        from distributed import KilledWorker, as_completed

        with self.connected():
            name = self.send(job)
            try:
                futures = {
                    self.client.submit(
                        worker.perform,
                        name,
                        pickle.dumps(item),
                        key=f"{name[:8]}-{index}-{uuid.uuid4().hex[:8]}",
                        pure=False,
                    ): index
                    for index, item in enumerate(items)
                }
                for future in as_completed(list(futures)):
                    index = futures.pop(future)
                    try:
                        answer = future.result()
                    except KilledWorker:
                        yield shipment.lost(index, list(items), MAX_WORKERS_LOST + 1)
                        continue
                    yield shipment.unpack(index, answer)
                    future.release()
            finally:
                self.forget(name)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Tell in a sentence that the scheduler has gone in the middle.

        Raises:
            UsageError: It has.
        """
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        try:
            yield
        except (CancelledError, CommClosedError):
            raise UsageError(
                f"the scheduler {self.address} has gone: start it, and run this again"
            ) from None

    def require_workers(self) -> None:
        """Wait for a worker.

        Raises:
            UsageError: There is none.
        """
        try:  # those that have ended may be about to start anew
            self.client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise UsageError(f"{self.address} has no workers: start some") from None

    def send(self, job: Job[Any, Any]) -> str:
        """Send workers what a job needs, and return the name that they know it by.

        Raises:
            UsageError: A worker differs from this machine, or there is none.
        """
        from .plugin import Shipped

        self.require_workers()
        sent = shipment.pack(job)
        name = str(sent["digest"])
        self.client.register_plugin(Shipped(sent, worker.arrive, worker.leave), name=name)
        faults = self.client.run(worker.arrive, sent)
        if fault := next(filter(None, faults.values()), ""):
            self.forget(name)
            raise UsageError(fault)
        return name

    def forget(self, name: str) -> None:
        """Have workers delete what a job has brought, if they are still there."""
        with suppress(OSError):
            self.client.unregister_worker_plugin(name)

    def train(self, work: "Work", categories: list[int]) -> bytes:
        """Return the file of a model that is trained on shares of rows: see `training`."""
        from .training import train

        return train(self, work, categories)

    def start_trials(self, folds: "Folds") -> "Crew":
        """Return what predicts folds of trials, for `ml tune`."""
        from .trials import Trials

        return Trials(self, folds)

    def close(self) -> None:
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()
        if self.folder is not None:
            self.folder.cleanup()


def open_engine(settings: Scale) -> Engine:
    """Connect to a cluster, or start one.

    Raises:
        UsageError: It cannot be reached.
        ModuleNotFoundError: `distributed` is not installed.
    """
    import cloudpickle
    import dask
    from distributed import Client, LocalCluster

    from . import plugin

    cloudpickle.register_pickle_by_value(worker)
    cloudpickle.register_pickle_by_value(plugin)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if settings.scheduler:
        try:
            return Dask(Client(settings.scheduler, timeout=CONNECT_TIMEOUT_S))
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"the scheduler {settings.scheduler}: {reason}") from None
    cores = pl.thread_pool_size()
    count = settings.workers or cores
    threads = str(max(1, cores // count))
    folder = TemporaryDirectory(prefix="rung-dask-")
    dask.config.set(
        {
            "distributed.nanny.pre-spawn-environ.POLARS_MAX_THREADS": threads,
            "distributed.scheduler.allowed-failures": MAX_WORKERS_LOST,
        }
    )
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        memory_limit=settings.memory or "auto",
        dashboard_address=None,
        local_directory=folder.name,
        silence_logs=logging.CRITICAL,
    )
    return Dask(Client(cluster), cluster, folder)
