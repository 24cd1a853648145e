"""Workers: the processes that train and predict folds, one on each core.

A worker gets the rows once, then a fold at a time. It is started anew, not forked, as the threads
of numeric libraries do not survive a fork (docs/decisions/0049); and it computes in as many threads
as it has cores for. A single worker is this process itself.
"""

import os
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Protocol

import polars as pl

from ..config import Model
from ..pipeline.metrics import Floats
from .folds import Failed, Folds

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class Job(NamedTuple):
    """A fold to predict."""

    trial: int
    model: Model
    fold: int


class Outcome(NamedTuple):
    """What came of a job: predictions, or why there are none."""

    job: Job
    y_pred: Floats | None
    error: str = ""


class Crew(Protocol):
    """What predicts folds, some at a time: processes of this machine, or workers of a cluster."""

    count: int

    @property
    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""

    def submit(self, job: Job) -> None:
        """Give a job to a worker that has nothing to do."""

    def outcomes(self) -> Iterator[Outcome]:
        """Wait for the next jobs to end, and yield what came of them."""

    def close(self) -> None:
        """End what has not ended."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    job: Job | None = None


class Workers:
    """Some processes, each of which predicts a fold at a time."""

    def __init__(self, count: int, folds: Folds) -> None:
        """Start them, unless there is only one.

        Args:
            count: How many; of one, jobs are done in this process.
            folds: Of which all jobs are.
        """
        self.count = count
        self._folds = folds
        self._here: deque[Job] = deque()
        self._workers = [self._start() for _ in range(count)] if count > 1 else []
        for worker in self._workers:  # after all have started, as each takes its time to import
            worker.connection.send(folds)

    @property
    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""
        if self.count == 1:
            return not self._here
        return any(worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Give a job to a worker that has nothing to do."""
        if self.count == 1:
            self._here.append(job)
            return
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.job = job
        with suppress(OSError):  # it has ended, which `outcomes` will find
            worker.connection.send(job)

    def outcomes(self) -> Iterator[Outcome]:
        """Wait for the next jobs to end, and yield what came of them."""
        if self.count == 1:
            yield done(self._here.popleft(), self._folds)
            return
        busy = {worker.connection: worker for worker in self._workers if worker.job}
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            worker = busy[connection]
            job = worker.job
            assert job is not None
            try:
                outcome: Outcome = connection.recv()
            except (EOFError, OSError):
                outcome = Outcome(job, None, self._replace(worker))
            worker.job = None
            yield outcome

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self._workers = []

    def _start(self) -> _Worker:
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
        with _inherited(self.count):
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _replace(self, worker: _Worker) -> str:
        """Start another process for one that has ended, and return why it did."""
        worker.process.join()
        code = worker.process.exitcode or 0
        worker.connection.close()
        new = self._start()
        new.connection.send(self._folds)
        worker.process = new.process
        worker.connection = new.connection
        if code < 0:
            name = signal.Signals(-code).name
            memory = " (is there too little memory?)" if -code == signal.SIGKILL else ""
            return f"the library ended its process by {name}{memory}"
        return f"the library ended its process with exit code {code}"


def work(connection: Connection) -> None:
    """Predict folds until the other end is closed: what a worker's process does."""
    with suppress(EOFError):
        folds = connection.recv()
        while True:
            connection.send(done(connection.recv(), folds))


def done(job: Job, folds: Folds) -> Outcome:
    """Predict a fold, and return what came of it."""
    try:
        return Outcome(job, folds.predict(job.model, job.fold))
    except Failed as error:
        return Outcome(job, None, str(error))


def core_count() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    return pl.thread_pool_size()


@contextmanager
def _inherited(workers: int) -> Iterator[None]:
    """Have processes that start now share the cores among them, and leave Ctrl-C to this one."""
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    threads = str(max(1, core_count() // workers))
    os.environ.update({name: threads for name, value in before.items() if value is None})
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
