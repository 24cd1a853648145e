"""What a tracker promises, whose adapters are `tracker_mlflow` and a company's own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ..tuning.tracking import TrialRecord


class Tracker(Protocol):
    """What the module of a tracker has: each run that reaches its gate is recorded."""

    def prepare(self) -> None:
        """Prepare to record while the pipeline runs, such as by an import."""

    def record(self) -> str:
        """Record the last run, once.

        Returns:
            A sentence: where it was recorded, or why it was not and what to do. Nothing is raised,
            as no tracker may fail a training.
        """

    def record_trials(self, name: str, run: str, trials: "Sequence[TrialRecord]") -> "Recorded":
        """Record trials of `ml tune`; without this function, none are.

        Args:
            name: Of the search.
            run: The identifier of the search's own run, below which those of trials are; "": there
                is none yet.
            trials: Those that were not recorded before.
        """


class Recorded(NamedTuple):
    """What came of recording trials. Nothing is raised, as no tracker may fail a search."""

    message: str  # where they were recorded, or why they were not
    run: str  # the identifier of the search's own run; "" if nothing was recorded
