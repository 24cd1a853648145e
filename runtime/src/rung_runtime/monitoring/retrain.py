"""Retrain: run what `monitor` decided, once."""

from collections.abc import Callable

from .. import UsageError, registry
from .alarms import Alarms, update_alarms
from .summary import SAME_MODEL, describe_trainings, new_rows_hint

TRAINED = "trained"


def retrain(run: Callable[[], None], again: str | None = None, action: str = TRAINED) -> str:
    """Train for what `monitor` decided, once: a second process has nothing to do.

    Args:
        run: Trains, registers and deploys.
        again: An alarm whose training was started before, and did not help.
        action: What `run` does, in words.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: There is no such alarm; or as `run`.
        RefusedError: As `run`.
    """
    version = registry.current_champion()
    if version is None:
        return "nothing to do: there is no champion, `ml deploy` brings one"
    claimed: list[str] = []

    def claim(alarms: Alarms) -> Alarms:
        started, names = alarms.start_trainings(again)
        claimed.extend(names)
        return started

    _, alarms = update_alarms(version, claim)
    if again and again not in claimed:
        raise UsageError(f"{version} has no alarm {again} to train for: see artifacts/monitor.json")
    if not claimed:
        trainings = describe_trainings(alarms.by_kind.values())
        return f"nothing to do: {trainings or f'no alarm of {version} waits for a training'}"
    outcome = "done"
    try:
        run()
        if action == TRAINED and (new := registry.current_champion()):
            outcome = SAME_MODEL if new.model_digest == version.model_digest else outcome
    except BaseException as error:
        outcome = f"failed: {error or type(error).__name__}"
        raise
    finally:
        update_alarms(version, lambda alarms: alarms.end_trainings(claimed, outcome))
    if outcome == SAME_MODEL:
        result = f"it {SAME_MODEL}: {new_rows_hint(claimed[0])}"
    else:
        result = f"the champion is {registry.current_champion()}"
    return f"{action} for {', '.join(claimed)}: {result}"
