"""Spark: each partition of a source is a task with one row, which a Python worker does by Polars.

Rows of the source do not pass through Spark: a worker reads and writes its own, so they are the
same as with any other engine.
"""

import os
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from ... import UsageError
from ...config.scale import Scale
from ...engines import shipment, worker
from ...engines.interface import Engine, Item, Job, Outcome, Result

ATTEMPTS = 4  # of a task whose worker ends
MASTER = re.compile(r"(spark|k8s)://.+|yarn|local(\[.+\])?")
FAILED_TASK = re.compile(r"Task (\d+) in stage \S+ failed")


class Spark:
    """A session."""

    name = "spark"
    in_process = False

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Outcome[Result]]:
        from py4j.protocol import Py4JJavaError
        from pyspark.errors import PySparkException

        if not items:
            return
        context = self.session.sparkContext
        sent = shipment.pack(job)
        shared = context.broadcast(sent)
        rows = [(index, bytearray(pickle.dumps(item))) for index, item in enumerate(items)]
        tasks = context.parallelize(rows, len(rows))  # so that task n is item n
        table = self.session.createDataFrame(tasks, "number long, item binary")
        answers = table.mapInArrow(_task(shared, sent["digest"]), "number long, answer binary")
        try:
            done = answers.collect()
        except (Py4JJavaError, PySparkException) as error:
            if match := FAILED_TASK.search(str(error)):
                outcome: Outcome[Result] = shipment.lost(int(match[1]), list(items), ATTEMPTS)
                raise UsageError(outcome.error) from None
            raise
        finally:
            shared.destroy()
        for row in done:
            yield shipment.unpack(row["number"], bytes(row["answer"]))

    def close(self) -> None:
        self.session.stop()


def _task(shared: Any, digest: str) -> Any:
    """Return what Spark calls in its Python workers; it is sent by value."""
    arrive = worker.arrive
    perform = worker.perform

    def answers(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow
        from pyspark import SparkFiles

        arrive(shared.value, SparkFiles.getRootDirectory())  # which ends with the session
        for batch in batches:
            for number, item in zip(batch.column(0), batch.column(1), strict=True):
                answer = perform(digest, item.as_py())
                columns = [
                    pyarrow.array([number.as_py()], pyarrow.int64()),
                    pyarrow.array([answer], pyarrow.binary()),
                ]
                yield pyarrow.RecordBatch.from_arrays(columns, ["number", "answer"])

    return answers


def open_engine(settings: Scale) -> Engine:
    """Start a session, on this machine unless a master is named.

    Raises:
        UsageError: There is no Java, or the master cannot be reached.
        ModuleNotFoundError: `pyspark` is not installed.
    """
    if settings.scheduler and not MASTER.fullmatch(settings.scheduler):
        raise UsageError(
            f"the scheduler {settings.scheduler} is not a master of Spark: name one such as"
            " spark://HOST:7077, k8s://HOST or yarn"
        )
    import pyarrow  # noqa: F401  # which mapInArrow needs
    from py4j.protocol import Py4JJavaError
    from pyspark import cloudpickle
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    cloudpickle.register_pickle_by_value(worker)
    cores = pl.thread_pool_size()
    count = settings.workers or cores
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("rung").config("spark.log.level", "FATAL")
    builder = builder.config("spark.ui.enabled", "false")
    builder = builder.config("spark.task.maxFailures", str(ATTEMPTS))
    if settings.scheduler:
        builder = builder.master(settings.scheduler)
    else:
        builder = builder.master(f"local[{count},{ATTEMPTS}]")
        builder = builder.config("spark.driver.host", "127.0.0.1")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = before or str(max(1, cores // count))  # of Python workers
    try:
        return Spark(builder.getOrCreate())
    except PySparkException as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"Spark cannot start, is there Java 17 or later? ({reason})") from None
    except Py4JJavaError as error:
        reason = str(error.java_exception.getMessage()).partition("\n")[0]
        master = settings.scheduler or "of this machine"
        raise UsageError(
            f"the master {master} cannot be used, is it there? ({reason.rstrip('.')})"
        ) from None
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
