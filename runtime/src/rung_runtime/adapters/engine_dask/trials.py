"""Trials of `ml tune` on a cluster: its workers train and predict folds, not this machine."""

import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ... import problem, project
from ...engines import shipment, worker
from ...engines.interface import Files
from ...engines.interface import Job as Work
from ...tuning.folds import Folds
from ...tuning.workers import Job, Outcome, done
from . import MAX_WORKERS_LOST, Dask

FOLDS = "folds.pickle"


def _problem(package: str) -> str:
    return f"src/{package}/problem"


def start_folds(package: str, files: Files) -> Callable[[Job], Outcome]:
    """Return what predicts a fold by the project's own `problem/`, which was sent."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        del sys.modules[name]  # of an earlier search, or of another project
    sys.path.insert(0, str(files[_problem(package)].parents[1]))
    project.use(project.Project(package=package))
    folds: Folds = pickle.loads(files[FOLDS].read_bytes())
    return partial(_predict, folds)


def _predict(folds: Folds, job: Job) -> Outcome:
    return done(job, folds)


class Trials:
    """Predicts folds on the workers of a cluster, one on each."""

    def __init__(self, engine: Dask, folds: Folds) -> None:
        self.engine = engine
        self.count = engine.worker_count
        self._futures: dict[Any, Job] = {}
        with TemporaryDirectory(prefix="ml-tune-") as folder:
            path = Path(folder, FOLDS)
            path.write_bytes(pickle.dumps(folds))
            package = project.current().package
            files = {FOLDS: path, _problem(package): problem.folder()}
            self._name = engine.send(Work(partial(start_folds, package), files))

    @property
    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""
        return len(self._futures) < self.count

    def submit(self, job: Job) -> None:
        """Give a job to a worker that has nothing to do."""
        item = pickle.dumps(job)
        future = self.engine.client.submit(worker.perform, self._name, item, pure=False)
        self._futures[future] = job

    def outcomes(self) -> Iterator[Outcome]:
        """Wait for the next jobs to end, and yield what came of them."""
        from distributed import KilledWorker, wait

        with self.engine.connected():
            for future in wait(list(self._futures), return_when="FIRST_COMPLETED").done:
                job = self._futures.pop(future)
                try:
                    answer = shipment.unpack(job.fold, future.result())
                except KilledWorker:
                    reason = (
                        f"{MAX_WORKERS_LOST + 1} workers ended at it: is there too little memory?"
                    )
                    yield Outcome(job, None, reason)
                    continue
                yield answer.result or Outcome(job, None, answer.error)

    def close(self) -> None:
        """Give up what has not ended."""
        self.engine.client.cancel(list(self._futures))
        self.engine.forget(self._name)
