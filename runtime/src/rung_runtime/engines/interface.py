"""What an engine is, and the work that it is given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ..config.scale import Scale

Item = TypeVar("Item")
Result = TypeVar("Result")
Files = Mapping[str, Path]


@dataclass(frozen=True)
class Job(Generic[Item, Result]):
    """Work that is to be done for each of some items.

    An item may be done twice, or half and then once more, as where a worker is killed. So what is
    done must not depend on how often.

    Attributes:
        start: Called once in each process, with the files; it returns what is called for each item.
            A function of a module of the runtime, or a `partial` of one, so that it can be sent.
        files: Files and folders that it needs, by name; a worker gets copies.
        here: What `start` would return, if this process has it already.
    """

    start: Callable[[Files], Callable[[Item], Result]]
    files: Files
    here: Callable[[Item], Result] | None = None


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of an item: its result, or why there is none."""

    index: int  # of the item
    result: Result | None
    error: str = ""  # a sentence; of the item alone, others may have results


class Engine(Protocol):
    """A machine or many, for as long as a command runs."""

    name: str
    in_process: bool  # whether items are done one after the other, in this process

    def run(self, job: Job[Item, Result], items: Sequence[Item]) -> Iterator[Outcome[Result]]:
        """Yield what came of each item, as items are done.

        Raises:
            UsageError: Workers cannot do this: they differ from this machine, or are gone; or
                code of `problem/` failed.
        """

    def close(self) -> None:
        """End what was started for this command."""


class LibraryError(Exception):
    """A library refuses to train on workers; what it raised is the cause."""


class OpenEngine(Protocol):
    """What the module of an adapter has."""

    def open_engine(self, settings: Scale) -> Engine:
        """Return an engine.

        Raises:
            UsageError: Its cluster cannot be reached.
            ModuleNotFoundError: A library of it is not installed.
        """
