"""Polars: the engine of one machine. Each partition is read part by part, by all of its cores."""

from collections.abc import Iterator, Sequence

from ...config.scale import Scale
from ...engines.interface import Engine, Item, Job, Outcome, Result


class Polars:
    """This process."""

    name = "polars"
    in_process = True

    def run(self, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Outcome[Result]]:
        from ... import UsageError

        function = job.here or job.start(job.files)
        for index, item in enumerate(items):
            try:
                outcome = Outcome(index, function(item))
            except UsageError as error:
                outcome = Outcome(index, None, str(error))
            yield outcome

    def close(self) -> None:
        pass


def open_engine(settings: Scale) -> Engine:
    """Return this process as an engine."""
    return Polars()
