"""What alarms mean, in words: for the command, for the documents and for the page."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ..config.drift import Drift
from .alarms import Alarm

SAME_MODEL = "made the same model again, as there are no new rows to learn from"  # an outcome
TRAINING_TIMEOUT = timedelta(hours=24)  # one that has not ended by then was killed, most likely


def summarize(alarms: list[Alarm], windows: int, waiting: int, settings: Drift) -> str:
    """Return what the monitor found, in a sentence.

    Args:
        alarms: Those that are open.
        windows: How many were judged.
        waiting: How many rows wait for the next window.
    """
    parts = [f"{a['id']}: {a['reason']}" for a in alarms if a["status"] == "decided"]
    parts += [
        f"{a['reason']}, which a person has to look at"
        for a in alarms
        if a["status"] == "needs_attention"
    ]
    if trainings := describe_trainings(alarms):
        parts.append(trainings)
    if not windows:
        parts.append(
            f"no complete window yet: {waiting} of {settings.window.rows} rows "
            f"(a window also needs {settings.window.hours:g} hours)"
        )
    return "; ".join(parts) or f"no alarm in {windows} windows"


def describe_trainings(alarms: Iterable[Alarm]) -> str:
    """Return what became of the trainings that were started; empty if none was."""
    return "; ".join(
        f"{alarm['id']} had its training at {alarm['started']}, which {_outcome(alarm)}"
        for alarm in alarms
        if alarm["status"] == "started"
    )


def _outcome(alarm: Alarm) -> str:
    outcome = alarm["outcome"]
    if outcome == "done":
        return "is done"
    if outcome == SAME_MODEL:
        return f"{SAME_MODEL}: {new_rows_hint(alarm['id'])}"
    if outcome:
        return outcome
    age = datetime.now(UTC) - datetime.fromisoformat(alarm["started"])
    state = "was killed, it seems" if age > TRAINING_TIMEOUT else "may still run"
    return f"{state}: `ml retrain --again {alarm['id']}` starts another"


def new_rows_hint(alarm: str) -> str:
    """Return what to do where a training had nothing new to learn from."""
    return f"`ml data add` them, then `ml retrain --again {alarm}`"


def headline(alarms: list[Alarm], windows: int) -> str:
    """Return what the alarms ask for, the most urgent first.

    Args:
        alarms: Those that are open.
        windows: How many were judged.
    """
    by_status = {alarm["status"]: alarm for alarm in alarms}
    if "decided" in by_status:
        return "Train again"
    if "needs_attention" in by_status:
        return "A person has to look"
    if started := by_status.get("started"):
        outcome = started["outcome"]
        if outcome == SAME_MODEL:
            return "An alarm is open: new data are needed"
        if outcome and outcome != "done":
            return "An alarm is open: its training failed"
        return "An alarm is open: its training was started"
    return "No alarm" if windows else "Nothing to judge yet"
