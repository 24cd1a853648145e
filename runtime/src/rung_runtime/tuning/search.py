"""The search: trials begin as workers have room, fold by fold, until the budget is used up."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .. import UsageError
from ..config import MODEL, Model
from ..config.tune import TUNE
from ..pipeline.metrics import Floats
from ..records import Interval
from .folds import Folds
from .study import ENDS, INTERRUPTED, Study
from .workers import Crew, Job, Outcome, Workers

if TYPE_CHECKING:
    from optuna.trial import Trial

MAX_FAILURES = 5  # in a row, of the first trials: then it is the space that is wrong
PRESENT = -1  # in place of the number of a trial


@dataclass(frozen=True)
class Budget:
    """How long a search lasts."""

    trials: int  # of the study, those of earlier runs included
    minutes: float  # of this run


@dataclass
class Measured:
    """A model, and what it reaches out of fold."""

    model: Model
    number: int  # of the trial; -1: none
    interval: Interval

    @property
    def value(self) -> float:
        """The metric on all folds."""
        assert self.interval.value is not None
        return self.interval.value


@dataclass
class Progress:
    """How far a search is."""

    trials: int  # that have ended, of the whole study
    budget: Budget
    best: Measured | None
    present: Measured | None
    seconds_left: float | None  # None: not known yet


@dataclass
class _Running:
    """A trial, or the present params, while folds are predicted."""

    trial: "Trial | None"
    model: Model
    predictions: list[Floats] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """What a search has come to."""

    present: Measured
    best: Measured | None  # None: nothing is better than the present params
    is_complete: bool  # the trials of the budget have ended


class Search:
    """One run of a search."""

    def __init__(
        self,
        study: Study,
        budget: Budget,
        workers: int,
        show: Callable[[Progress], None],
        start_crew: Callable[[Folds], Crew] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            study: Whose trials it adds to.
            budget: When it ends.
            workers: How many trials run at once.
            show: Called as trials end.
            start_crew: What predicts folds elsewhere; None: processes of this machine.
        """
        self.study = study
        self.budget = budget
        self.worker_count = workers
        self._show = show
        self._start_crew = start_crew
        self._present: Measured | None = None
        self._best = _earlier_best(study)
        self._running: dict[int, _Running] = {}
        self._failures = 0
        self._started = time.monotonic()

    def run(self) -> Result:
        """Search until the budget is used up.

        Raises:
            UsageError: The present params cannot be tried, or no trial of the space can.
            KeyboardInterrupt: Trials that have ended are kept; the others begin anew next time.
        """
        model = self.study.folds.config.model
        missing = max(1, self.budget.trials - self.study.earlier)
        count = min(self.worker_count, missing)
        start = self._start_crew or partial(Workers, count)
        with closing(start(self.study.folds)) as workers:
            try:
                self._begin(workers, PRESENT, _Running(None, model))
                while self._running:
                    for outcome in workers.outcomes():
                        self._receive(workers, outcome)
                    while workers.has_room and self._may_begin():
                        trial, model = self.study.ask()
                        self._begin(workers, trial.number, _Running(trial, model))
                    self._show(self._progress())
            except BaseException:
                for running in self._running.values():
                    if running.trial:
                        self.study.fail(running.trial, INTERRUPTED)
                raise
        assert self._present is not None
        self.study.add_present(self._present.value)
        is_complete = len(self.study.ended()) >= self.budget.trials
        best = self._best if self._is_better(self._best, self._present.value) else None
        return Result(self._present, best, is_complete)

    def _begin(self, workers: Crew, number: int, running: _Running) -> None:
        self._running[number] = running
        workers.submit(Job(number, running.model, 0))

    def _may_begin(self) -> bool:
        """Check whether the budget has room for a trial."""
        trials_running = sum(running.trial is not None for running in self._running.values())
        begun = len(self.study.ended()) + trials_running
        return begun < self.budget.trials and self._seconds() < 60 * self.budget.minutes

    def _receive(self, workers: Crew, outcome: Outcome) -> None:
        """Continue a trial with its next fold, or end it."""
        number = outcome.job.trial
        running = self._running[number]
        if outcome.y_pred is None:
            del self._running[number]
            self._fail(running, outcome.error)
            return
        running.predictions.append(outcome.y_pred)
        fold = len(running.predictions)
        value = self.study.folds.score(running.predictions)
        if fold == len(self.study.folds.parts):
            del self._running[number]
            self._complete(running, value)
        elif running.trial and self.study.should_prune(running.trial, value, fold):
            del self._running[number]
            self.study.prune(running.trial)
        else:
            workers.submit(Job(number, running.model, fold))

    def _complete(self, running: _Running, value: float) -> None:
        folds = self.study.folds
        if not np.isfinite(value):
            self._fail(running, f"{folds.metric} is not defined for its predictions")
            return
        self._failures = 0
        trial = running.trial
        interval: Interval | None = None
        if trial is None:
            interval = folds.interval(running.predictions)
            self._present = Measured(running.model, PRESENT, interval)
            return
        if self._is_better(Measured(running.model, trial.number, _point(value)), self._best):
            interval = folds.interval(running.predictions)
            self._best = Measured(running.model, trial.number, interval)
        self.study.complete(trial, value, interval)

    def _fail(self, running: _Running, error: str) -> None:
        if running.trial is None:
            raise UsageError(f"{MODEL}: the present params cannot be tried: {error}")
        self.study.fail(running.trial, error)
        self._failures += 1
        if self._best is None and self._failures >= MAX_FAILURES:
            raise UsageError(f"{TUNE}: the first {self._failures} trials failed, the last: {error}")

    def _is_better(self, measured: Measured | None, than: "Measured | float | None") -> bool:
        if measured is None:
            return False
        if than is None:
            return True
        value = than.value if isinstance(than, Measured) else than
        return (
            (measured.value > value)
            if self.study.folds.higher_is_better
            else (measured.value < value)
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _progress(self) -> Progress:
        ended = len(self.study.ended())
        done = ended - self.study.earlier
        left: float | None = None
        if done:
            by_trials = (self.budget.trials - ended) * self._seconds() / done
            left = max(0.0, min(by_trials, 60 * self.budget.minutes - self._seconds()))
        return Progress(ended, self.budget, self._best, self._present, left)


def _earlier_best(study: Study) -> Measured | None:
    """Return the best trial of earlier runs."""
    trial = study.best()
    if trial is None or trial.value is None:
        return None
    low, high = trial.user_attrs.get(ENDS, [None, None])
    interval = Interval(value=trial.value, low=low, high=high)
    return Measured(study.model_of(trial), trial.number, interval)


def _point(value: float) -> Interval:
    return Interval(value=value, low=None, high=None)
