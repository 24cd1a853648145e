"""Training on a cluster: each worker holds a share of the rows, and all train one model.

Libraries that do so, such as `lightgbm.dask`, end in the middle, or never, if a worker does. So a
training from which one is lost is given up, its workers start anew, and so does the training.
"""

import pickle
import uuid
from threading import Thread
from typing import TYPE_CHECKING, Any

from ... import UsageError, adapters
from ...engines import shipment, worker
from ...engines.interface import LibraryError
from . import CONNECT_TIMEOUT_S, MAX_WORKERS_LOST, Dask

if TYPE_CHECKING:
    from ...partitioned.training import Work

LOOK_S = 0.2  # how often it is seen whether all workers are there
GRACE_S = 1  # for what waited for a worker that is lost, once the client is closed
RETURN_S = 60  # for workers to start anew


class Lost(Exception):
    """A worker has gone in the middle of a training."""


def train(engine: Dask, work: "Work", categories: list[int]) -> bytes:
    """Return the file of a model that is trained on shares of rows.

    Args:
        engine: The cluster.
        work: The shares, what loads them, and the estimator.
        categories: The positions of the columns that hold codes.

    Raises:
        UsageError: Workers cannot do it, or several were lost.
        LibraryError: The library raises what no lost worker explains.
    """
    with engine.connected():
        name = engine.send(work.job)
        try:
            for _ in range(MAX_WORKERS_LOST + 1):
                workers = sorted(engine.client.nthreads())
                try:
                    return _attempt(engine, name, work, categories)
                except Lost:
                    _start_anew(engine, workers)
        finally:
            engine.forget(name)
    raise UsageError(
        f"the training was given up: {MAX_WORKERS_LOST + 1} times a worker ended in it, the last"
        f" one without a word: is a share of the rows too large for the memory of one of"
        f" {len(work.shares)} workers? Give them more, or more workers"
    )


def _attempt(engine: Dask, name: str, work: "Work", categories: list[int]) -> bytes:
    """Train once.

    Raises:
        Lost: A worker has gone.
        UsageError, LibraryError: As `train`.
    """
    from distributed import Client

    from .plugin import mute

    # A client of its own: once it is closed, nothing that waits for a lost worker goes on waiting.
    with Client(engine.address, timeout=CONNECT_TIMEOUT_S, set_as_default=False) as client:
        workers = sorted(client.nthreads())
        if engine.cluster is not None:  # of this machine, whose workers print where it does
            client.run(mute)
        files: list[bytes] = []
        errors: list[Exception] = []  # of this code, or of the cluster
        refusals: list[Exception] = []  # of the library

        def wait_for_file() -> None:
            try:
                X, y, sample_weight = _load(client, name, work, workers)
            except Exception as error:
                errors.append(error)
                return
            try:
                files.append(work.trainable.train_on_dask(client, X, y, sample_weight, categories))
            except Exception as error:
                refusals.append(error)

        # A daemon, so that one that never ends does not keep the command from ending.
        thread = Thread(target=wait_for_file, daemon=True)
        thread.start()
        is_lost = False
        while thread.is_alive() and not is_lost:
            thread.join(LOOK_S)
            is_lost = not {*workers} <= {*client.nthreads()}
    thread.join(GRACE_S)
    if files:
        return files[0]
    for error in [*errors, *refusals]:
        if isinstance(error, ModuleNotFoundError):
            raise adapters.missing_library("engine", f"{Dask.name}, to train,", error)
    for error in errors:
        if isinstance(error, UsageError) or not is_lost:
            raise error
    for refusal in refusals:
        if not (is_lost or work.trainable.is_lost(refusal)):
            raise LibraryError from refusal
    raise Lost


def _load(client: Any, name: str, work: "Work", workers: list[str]) -> tuple[Any, Any, Any]:
    """Have each worker load a share, and return all of them as arrays of Dask: X, y, weights.

    Raises:
        UsageError: A share cannot be loaded.
    """
    import dask.array as da
    from dask import delayed

    shares = work.shares
    places = [[workers[number % len(workers)]] for number in range(len(shares))]
    run = uuid.uuid4().hex[:8]
    answers = [
        client.submit(
            worker.hold,
            name,
            pickle.dumps(share),
            key=f"{name[:8]}-{run}-{number}",
            workers=places[number],
            pure=False,
        )
        for number, share in enumerate(shares)
    ]
    for number, answer in enumerate(answers):
        verdict = client.submit(worker.verdict, answer, pure=False).result()
        if sentence := shipment.unpack(number, verdict).error:
            raise UsageError(sentence)

    def array(member: int, *more: int) -> Any:
        parts = [
            client.submit(worker.part, answer, member, workers=place, pure=False)
            for answer, place in zip(answers, places, strict=True)
        ]
        blocks = [
            da.from_delayed(delayed(part), shape=(share.rows, *more), dtype=float)
            for part, share in zip(parts, shares, strict=True)
        ]
        return da.concatenate(blocks)

    return array(0, work.width), array(1), array(2) if work.is_weighted else None


def _start_anew(engine: Dask, workers: list[str]) -> None:
    """Start those anew that were in a training, as they may still wait for the lost one.

    Raises:
        UsageError: They cannot be started from here.
    """
    client = engine.client
    present = sorted({*workers} & {*client.nthreads()})
    try:
        if present:
            client.restart_workers(present, timeout=RETURN_S, raise_for_error=False)
    except ValueError:  # one has no nanny
        raise UsageError(
            f"a worker ended in the training, and those of {engine.address} have no nanny, which"
            " would start them anew: start them, and run this again"
        ) from None
    try:
        client.wait_for_workers(len(workers), timeout=RETURN_S)
    except TimeoutError:  # fewer have to do
        engine.require_workers()
