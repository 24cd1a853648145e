"""`ml validate SOURCE` and `ml features`: sources of many partitions, by any engine."""

import importlib
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import UsageError, progress

START = Path.cwd()

EngineOption = Annotated[
    str | None, Option("--engine", help="polars, dask or spark; default: config/scale.yaml.")
]
SchedulerOption = Annotated[
    str | None, Option("--scheduler", help="The address of a cluster; default: one starts here.")
]
VersionOption = Annotated[int | None, Option("--source-version", help="Of a Delta table.")]


def validate(
    source: Annotated[
        str | None,
        Argument(help="A folder of files, a Delta table or a URL of one; default: the pipeline's."),
    ] = None,
    source_version: VersionOption = None,
    engine: EngineOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Check the rows against the contract in config/data.yaml.

    With a SOURCE, its partitions instead of the pipeline's rows; by any engine, in bounded memory.
    """
    if source is None:
        if engine or scheduler or source_version is not None:
            raise UsageError(
                "--engine, --scheduler and --source-version are for a SOURCE: name one"
            )
        importlib.import_module(".app", __package__).perform("validate")
        return
    from .. import config
    from ..engines import open_engine
    from ..partitioned.validate import validate_source

    settings = config.load()
    with open_engine(engine, scheduler) as opened, progress.stages():
        message = validate_source(from_start(source), source_version, settings, opened)
    typer.echo(message)


def features(
    source: Annotated[str, Argument(help="A file, a folder, a Delta table or a URL of one.")],
    to: Annotated[str, Option(help="The sink: a folder or a URL.")],
    source_version: VersionOption = None,
    engine: EngineOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Write the features of each partition of a source."""
    from .. import config
    from ..engines import open_engine
    from ..partitioned.features import make_features

    settings = config.load()
    with open_engine(engine, scheduler) as opened, progress.stages():
        message = make_features(
            from_start(source), source_version, from_start(to), settings, opened
        )
    typer.echo(message)


def from_start(place: str) -> str:
    """Return a place as documents have it: a path below the project is relative to it."""
    if "://" in place:
        return place
    path = (START / place).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
