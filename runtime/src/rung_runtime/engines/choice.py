"""Which engine a command uses."""

from collections.abc import Iterator
from contextlib import contextmanager

from .. import UsageError, adapters, project
from ..config.scale import SCALE, load_scale
from .interface import Engine

BUILT_IN = "polars"


@contextmanager
def open_engine(name: str | None = None, scheduler: str | None = None) -> Iterator[Engine]:
    """Yield the engine that is named, else that of `config/scale.yaml`, else of `[tool.rung]`.

    Args:
        name: An adapter of the slot `engine`.
        scheduler: The address of its cluster; None: as `config/scale.yaml` has it.

    Raises:
        UsageError: There is none of that name, or its library is missing, or its cluster cannot be
            reached.
    """
    settings = load_scale()
    own = settings.engine or project.current().engine
    chosen = name or own
    place = "--engine" if name else str(SCALE) if settings.engine else adapters.CHOSEN
    if scheduler is not None:
        settings = settings.model_copy(update={"scheduler": scheduler})
    elif chosen != own:  # the scheduler in the file is another engine's
        settings = settings.model_copy(update={"scheduler": ""})
    if settings.scheduler and chosen == BUILT_IN:
        option = "--scheduler" if scheduler else f"{SCALE}: scheduler"
        raise UsageError(
            f"{option} is for a cluster, and polars has none: name another engine in {SCALE}, after"
            " `rung add engine NAME`"
        )
    adapter = adapters.load("engine", chosen, place)
    try:
        engine: Engine = adapter.open_engine(settings)
    except ModuleNotFoundError as error:
        raise adapters.missing_library("engine", chosen, error) from None
    try:
        yield engine
    finally:
        engine.close()
