"""The study: all trials of one search, in Optuna's journal, which survives whatever ends `ml tune`.

A study is named by the digest of all that decides on the value of a trial, so trials of other rows,
other code or another space are never mixed in. Only one process writes at a time.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from .. import UsageError
from ..artifacts import ARTIFACTS
from ..config import Model
from ..config.tune import Key
from ..problem import folder
from ..records import Interval
from . import space as spaces
from .folds import Folds
from .space import Space

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial, Trial

JOURNAL = ARTIFACTS / "tune/journal.log"
LOCK = ARTIFACTS / "tune/lock"
MISSING = (
    "`ml tune` needs {name}, which is not installed: run "
    "`uv add --group train 'optuna>=5.0' 'filelock>=4.2'`"
)
STARTUP_TRIALS = 10  # that are drawn at random, and that none is given up before
INTERRUPTED = "interrupted"  # of a trial that says nothing, as it was stopped
# Attributes of a trial.
ENDS = "ends"  # of the interval of its metric
PRESENT = "present"  # it was not drawn: these are the params of config/model.yaml
# Attributes of a study.
ERRORS = "errors"  # why trials failed, by their numbers


@contextmanager
def open_storage() -> Iterator["JournalStorage"]:
    """Open the journal of this project, for one process at a time.

    Raises:
        UsageError: Optuna is not installed, another `ml tune` is at work, or the file is damaged.
    """
    try:
        import optuna
        from filelock import FileLock, Timeout
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise UsageError(MISSING.format(name=error.name)) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError("another `ml tune` is at work in this project: wait for its end") from None
    try:
        _drop_torn_line(JOURNAL)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            try:
                storage = JournalStorage(JournalFileBackend(str(JOURNAL)))
            except (ValueError, KeyError) as error:
                raise UsageError(
                    f"{JOURNAL} is damaged: delete it to search anew ({error})"
                ) from None
        yield storage
    finally:
        lock.release()


def _drop_torn_line(journal: Path) -> None:
    """Cut off what a process that was killed had begun to write."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("rb+") as file:
            file.truncate(whole)


def rows_digest(rows: pl.DataFrame) -> str:
    """Return a digest of the content of rows."""
    return _digest(rows.write_ndjson().encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def study_name(folds: Folds, space: Space) -> str:
    """Return the digest of what decides on the value of a trial.

    The params that are searched have no part in it, so a search continues where its best params
    have been taken over.
    """
    config = folds.config
    fixed = spaces.with_values(config.model, dict.fromkeys(space))
    entries = {
        spaces.name_of(key): entry if isinstance(entry, list) else entry.model_dump()
        for key, entry in space.items()
    }
    code = {str(path): path.read_text("utf-8") for path in sorted(folder().rglob("*.py"))}
    facts = {
        "rows": rows_digest(folds.rows),
        "parts": hashlib.sha256(
            repr([part[1].tolist() for part in folds.parts]).encode()
        ).hexdigest(),
        "data": config.data.model_dump(),
        "metric": folds.metric,
        "model": fixed.model_dump(),
        "space": entries,
        "problem": code,
    }
    return _digest(json.dumps(facts, sort_keys=True, default=str).encode())[:16]


class Study:
    """The trials of one search: those of earlier runs, and those that are asked for now."""

    def __init__(self, storage: "JournalStorage", folds: Folds, space: Space) -> None:
        """Load the study, or begin it."""
        import optuna

        self.folds = folds
        self.space = space
        self._storage = storage
        self._distributions = spaces.distributions(space)
        self._study = optuna.create_study(
            storage=storage,
            study_name=study_name(folds, space),
            direction="maximize" if folds.higher_is_better else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
        for trial in self._trials("RUNNING"):  # of a process that was killed
            self.fail(trial, "`ml tune` was killed while it was tried")
        self.earlier = len(self.ended())

    def ended(self) -> list["FrozenTrial"]:
        """Return the trials that count: drawn, and neither interrupted nor running."""
        return self._trials("COMPLETE", "PRUNED", "FAIL")

    def pruned(self) -> list["FrozenTrial"]:
        """Return the trials that were given up after some folds."""
        return self._trials("PRUNED")

    def errors(self) -> dict[int, str]:
        """Return why trials failed, by their numbers."""
        errors: dict[str, str] = self._study.user_attrs.get(ERRORS, {})
        return {int(number): text for number, text in errors.items() if text != INTERRUPTED}

    def best(self) -> "FrozenTrial | None":
        """Return the best of the trials of which all folds were predicted; of equals the first."""
        sign = -1 if self.folds.higher_is_better else 1
        trials = self._trials("COMPLETE")
        return min(trials, key=lambda trial: sign * (trial.value or 0.0), default=None)

    def ask(self) -> tuple["Trial", Model]:
        """Begin a trial, and return it with the model that it is to try.

        What is drawn depends on the seed and on the trials so far alone, so a search that was
        interrupted comes out as one that was not, as long as there is one worker.
        """
        import optuna

        begun = len(self.ended()) + len(self._trials("RUNNING"))
        entropy = [self.folds.config.model.seed % 2**32, begun]
        (seed,) = np.random.SeedSequence(entropy).generate_state(1)
        self._study.sampler = optuna.samplers.TPESampler(
            seed=int(seed), n_startup_trials=STARTUP_TRIALS
        )
        trial = self._study.ask(self._distributions)
        return trial, self.model_of(trial)

    def values_of(self, trial: "Trial | FrozenTrial") -> dict[Key, Any]:
        """Return the params that a trial tries."""
        return spaces.values_of(trial.params, self.space)

    def model_of(self, trial: "Trial | FrozenTrial") -> Model:
        """Return the model that a trial tries."""
        return spaces.with_values(self.folds.config.model, self.values_of(trial))

    def add_present(self, value: float) -> None:
        """Let the search know what the present params reach, if it could have drawn them."""
        import optuna

        drawn = spaces.drawn_of(self.folds.config.model, self.space)
        if drawn is None:
            return
        values = spaces.values_of(drawn, self.space)
        known = self._study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
        if all(self.values_of(trial) != values for trial in known):
            trial = optuna.trial.create_trial(
                params=drawn,
                distributions=self._distributions,
                value=value,
                user_attrs={PRESENT: True},
            )
            self._study.add_trial(trial)

    def should_prune(self, trial: "Trial", value: float, fold: int) -> bool:
        """Check whether a trial is worse than most were after as many folds."""
        if not np.isfinite(value):
            return False
        trial.report(value, fold)
        return bool(trial.should_prune())

    def complete(self, trial: "Trial", value: float, interval: Interval | None) -> None:
        """End a trial of which all folds were predicted."""
        if interval is not None:
            trial.set_user_attr(ENDS, [interval.low, interval.high])
        self._study.tell(trial, value)

    def prune(self, trial: "Trial") -> None:
        """Give a trial up."""
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    def fail(self, trial: "Trial | FrozenTrial", error: str) -> None:
        """End a trial that failed, or was interrupted."""
        import optuna

        errors = self._study.user_attrs.get(ERRORS, {})
        self._study.set_user_attr(ERRORS, errors | {str(trial.number): error})
        self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def attribute(self, name: str, default: Any) -> Any:
        """Return what was stored with the study."""
        return self._study.user_attrs.get(name, default)

    def store(self, name: str, value: Any) -> None:
        """Store something that JSON can express with the study."""
        self._study.set_user_attr(name, value)

    def all_attributes(self) -> list[dict[str, Any]]:
        """Return what was stored with each study of the project."""
        import optuna

        summaries = optuna.get_all_study_summaries(self._storage, include_best_trial=False)
        return [summary.user_attrs for summary in summaries]

    def _trials(self, *names: str) -> list["FrozenTrial"]:
        from optuna.trial import TrialState

        errors = self._study.user_attrs.get(ERRORS, {})
        trials = self._study.get_trials(
            deepcopy=False, states=tuple(TrialState[name] for name in names)
        )
        return [
            trial
            for trial in trials
            if PRESENT not in trial.user_attrs and errors.get(str(trial.number)) != INTERRUPTED
        ]
