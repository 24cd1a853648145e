"""Train on the workers of a cluster: each reads its own rows of `train.parquet`.

This process reads the first rows, and counts those of each class. What comes of it is the library's
own model, which is saved as one that was trained here.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError, problem, progress
from ..artifacts import TRAIN
from ..compiled import Columns
from ..config import MODEL, Config, Data
from ..engines import open_engine
from ..engines.interface import Files, Job, LibraryError
from ..pipeline.ingest import inputs, labels
from ..pipeline.table_batches import BATCH_ROWS
from . import project_code

FIRST_ROWS = 1_000  # which `problem/model.py` is shown
BLOCK_ROWS = 250_000  # that a worker reads at once
# So that a share is like the others however rows are sorted: LightGBM finds the bins of a column by
# the rows of one worker, and what that worker never sees gets no split.
BLOCKS_PER_SHARE = 64
TAIL_BYTES = 65_536  # of a file, which are its own: those of Parquet say where each column is

Floats = NDArray[np.float64]


class Trainable(Protocol):
    """An estimator that workers can train: what its adapter returns."""

    def require_distributable(self) -> None:
        """Check whether workers can train as one machine would.

        Raises:
            ValueError: A param is in the way.
        """

    def class_weights(self, classes: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats | None:
        """Return (classes,) the weight of a row of each class; None: rows have none.

        Args:
            classes: (classes,) as the params name them.
            counts: (classes,) how many rows of each there are.
        """

    def train_on_dask(
        self, client: Any, X: Any, y: Any, sample_weight: Any, categories: list[int]
    ) -> bytes:
        """Return the file of a model, trained on arrays of Dask."""

    def is_lost(self, error: Exception) -> bool:
        """Check whether an error says that another worker has gone."""


class Trained(NamedTuple):
    """A fitted estimator, and what it was trained with."""

    estimator: Any
    rows: int
    model_inputs: list[str]
    engine: str
    workers: int


class Share(NamedTuple):
    """The rows of a worker."""

    name: str
    blocks: list[tuple[int, int]]  # the first row, and how many

    @property
    def rows(self) -> int:
        """Return how many rows there are."""
        return sum(count for _, count in self.blocks)


class Loaded(NamedTuple):
    """A worker's rows as a library takes them."""

    X: Floats  # (n, columns)
    y: Floats  # (n,) values, or codes of classes
    sample_weight: Floats | None  # (n,)


class Work(NamedTuple):
    """A training, as an engine gets it."""

    job: Job[Share, Loaded]
    shares: list[Share]  # one for each worker
    width: int  # columns
    is_weighted: bool
    trainable: Trainable


class Recipe(NamedTuple):
    """What a worker needs to make matrices of rows."""

    contract: str
    columns: str
    classes: list[int] | None  # of those in the contract, which training has
    weights: list[float] | None  # of each of these classes
    path: str
    tail: str  # the digest of the end of the file


class ShareLoader:
    """Loads shares, one after the other."""

    def __init__(self, recipe: Recipe, features: project_code.Features) -> None:
        self.data = Data.model_validate_json(recipe.contract)
        self.columns = Columns.from_json(recipe.columns)
        self.classes = None if recipe.classes is None else np.array(recipe.classes)
        self.weights = None if recipe.weights is None else np.array(recipe.weights)
        self.path = recipe.path
        self.tail = recipe.tail
        self.features = features

    def __call__(self, share: Share) -> Loaded:
        """Return the rows of a share as a matrix, made batch by batch.

        Raises:
            UsageError: The file is not there, or it is another one.
        """
        self._require_same_file()
        X = np.empty((share.rows, len(self.columns.names)))
        y = np.empty(share.rows)
        first = 0
        for batch in self._batches(share):
            end = first + batch.height
            X[first:end] = self.columns.matrix(self.features(inputs(batch, self.data)))
            y[first:end] = self._codes(labels(batch, self.data))
            first = end
        if self.weights is None:
            return Loaded(X, y, None)
        return Loaded(X, y, self.weights[y.astype(np.int64)])

    def _batches(self, share: Share) -> Iterator[pl.DataFrame]:
        rows = pl.scan_parquet(self.path, glob=False, hive_partitioning=False)
        for first, count in share.blocks:
            yield from rows.slice(first, count).collect().iter_slices(BATCH_ROWS)

    def _codes(self, y: NDArray[Any]) -> NDArray[Any]:
        return y if self.classes is None else np.searchsorted(self.classes, y)

    def _require_same_file(self) -> None:
        path = Path(self.path)
        if not path.is_file() or tail_digest(path) != self.tail:
            raise UsageError(
                f"{path} is not there for a worker, or is another file: put the project into a"
                " folder that all workers see"
            )


def start_loading(recipe: Recipe, files: Files) -> ShareLoader:
    """Return what loads shares."""
    return ShareLoader(recipe, project_code.load_features(files[project_code.PROBLEM]))


def divide(rows: int, workers: int) -> list[Share]:
    """Return a share for each worker; blocks of rows go to the workers by turns."""
    count = max(1, min(workers, rows))
    size = max(1, min(BLOCK_ROWS, -(-rows // (count * BLOCKS_PER_SHARE))))
    blocks = [(first, min(size, rows - first)) for first in range(0, rows, size)]
    return [
        Share(f"share {number + 1} of the rows to train on", blocks[number::count])
        for number in range(count)
    ]


def tail_digest(path: Path) -> str:
    """Return the digest of a file's size and end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        return hashlib.sha256(f"{size} ".encode() + file.read()).hexdigest()


def train_on_cluster(config: Config) -> Trained:
    """Train the estimator of `problem/model.py` on the workers that `config/scale.yaml` names.

    Raises:
        UsageError: The engine does not train, or the estimator is not one that it can train, or
            workers cannot do it.
        LibraryError: A param is in the way, or cannot be; its cause says which.
    """
    model = config.model
    if model.refit:
        raise UsageError(
            f"{MODEL}: refit trains on all rows on this machine: leave out refit, or engine"
        )
    rows = pl.scan_parquet(TRAIN)
    first = rows.head(FIRST_ROWS).collect()
    x = problem.features(inputs(first, config.data))
    with _library():
        fitted = problem.estimator(model.estimator, config.data.task, x, model.seed, model.params)
        trainable: Trainable = _require_trainable(fitted, config)
    counts = _class_counts(rows, config.data)
    total = int(rows.select(pl.len()).collect().item())
    with open_engine(model.engine) as engine:
        train = getattr(engine, "train", None)
        if train is None:
            raise UsageError(f"{MODEL}: engine: {model.engine} does not train: use dask")
        workers = engine.process_count  # type: ignore[attr-defined]
        shares = divide(total, workers)
        progress.begin("train")
        progress.report(f"{total:,} rows on {len(shares)} workers")
        weights = _weights(trainable, counts)
        recipe = Recipe(
            contract=config.data.model_dump_json(),
            columns=Columns.of_frame(x).to_json(),
            classes=None if counts is None else list(counts),
            weights=weights,
            path=str(TRAIN.resolve()),
            tail=tail_digest(TRAIN),
        )
        job = Job(partial(start_loading, recipe), project_code.files())
        classes = None if counts is None else np.array(list(counts))
        work = Work(job, shares, x.width, weights is not None, trainable)
        try:
            fitted.fit_elsewhere(x, classes, partial(train, work))
        except (TypeError, ValueError) as error:  # of the estimator, about what it learned
            raise LibraryError from error
    return Trained(fitted, total, x.columns, model.engine, len(shares))


@contextmanager
def _library() -> Iterator[None]:
    """Raise what a library raises as the cause of LibraryError, and UsageError as it is."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise LibraryError from error


def _require_trainable(fitted: Any, config: Config) -> Any:
    """Return an estimator, if workers can train it."""
    if not hasattr(fitted, "train_on_dask"):
        kind = type(getattr(fitted, "estimator", fitted)).__name__
        raise UsageError(
            f"{MODEL}: engine: {config.model.engine} trains LightGBM's LGBMClassifier and"
            f" LGBMRegressor, as problem/model.py returns them, and estimator"
            f" {config.model.estimator!r} is a {kind}: leave out engine, or use LightGBM"
        )
    fitted.require_distributable()
    return fitted


def _class_counts(rows: pl.LazyFrame, data: Data) -> dict[int, int] | None:
    """Return how many rows of each class there are, in the order of the contract; None: values."""
    if data.task == "regression":
        return None
    table = rows.group_by(data.target).len().collect(engine="streaming")
    codes = labels(table, data).tolist()
    return dict(sorted(zip(codes, table["len"].to_list(), strict=True)))


def _weights(trainable: Trainable, counts: dict[int, int] | None) -> list[float] | None:
    if counts is None:
        return None
    weights = trainable.class_weights(np.array([*counts]), np.array([*counts.values()]))
    return None if weights is None else weights.tolist()
