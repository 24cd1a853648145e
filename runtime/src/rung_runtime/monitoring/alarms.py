"""Alarms of a champion: raised by signs in several windows, cleared by windows without any.

    decided → started → cleared      a training answers it: `ml retrain`, once
    needs_attention → cleared        a person has to look

They are kept in the registry, in one note for all champions, so that a decision is made once
wherever the monitor runs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Required, TypedDict

from .. import UsageError, registry
from ..artifacts import now
from ..config.drift import Drift
from ..records import Outcome, Signs, WindowSummary

NOTE = "alarms"  # of the registry
NOTED_CHAMPIONS = 50  # the newest ones
# What may alarm, and whether a training answers it: rows that break the contract need a person,
# and so do groups that are treated differently, as a training from the same rows would learn that.
IS_ANSWERED_BY_TRAINING = {
    "drift": True,
    "prediction": True,
    "performance": True,
    "violations": False,
    "fairness": False,
    "age": True,
}

Status = Literal["decided", "needs_attention", "started", "cleared"]
EARLIER_STATUS = {"told": "needs_attention"}  # as notes have it that were written before 0.3


class Judged(NamedTuple):
    """What a window of predictions, or a batch of labels, shows.

    Attributes:
        end: What orders it among the others: when the window ended, or the labels arrived.
        signs: By kind of alarm; a kind that was not judged is absent.
    """

    end: str
    signs: Signs


class Alarm(TypedDict, total=False):
    """An alarm, as the registry's note and `monitor.json` have it.

    Attributes:
        raised: When it was raised; of one that was cleared since, when that was.
        started: When its training was started.
        outcome: How the training ended; None: it has not, as far as is known.
        cleared: The end of the window that cleared it.
    """

    id: Required[str]
    kind: Required[str]
    raised: str
    status: Required[Status]
    reason: Required[str]
    started: str
    outcome: str | None
    cleared: str


@dataclass(frozen=True)
class Alarms:
    """The alarms of a champion, of each kind at most one. A transition returns others."""

    by_kind: dict[str, Alarm] = field(default_factory=dict)

    def open(self) -> list[Alarm]:
        """Return those that are not cleared."""
        return [alarm for alarm in self.by_kind.values() if alarm["status"] != "cleared"]

    def with_status(self, status: Status) -> list[Alarm]:
        """Return those with a status."""
        return [alarm for alarm in self.by_kind.values() if alarm["status"] == status]

    def next_alarms(
        self,
        windows: Sequence[WindowSummary],
        outcomes: Sequence[Outcome],
        age_days: float,
        settings: Drift,
    ) -> "Alarms":
        """Return the alarms after what the champion's windows and its labels show.

        A sign alarms that is in `min_windows_in_alarm` of the last `recent_windows`, the newest
        among them. An alarm is cleared by as many windows without any sign of its kind; only later
        ones can raise it again. Performance is judged by batches of labels instead; later means
        arrived later.
        """
        by_kind = dict(self.by_kind)
        judged_windows = [Judged(window["to"], window["signs"]) for window in windows]
        judged_labels = [Judged(outcome["arrived"], outcome["signs"]) for outcome in outcomes]
        for kind in IS_ANSWERED_BY_TRAINING:
            if kind == "performance":
                history = _History(kind, judged_labels, "batches of labels")
            else:
                history = _History(kind, judged_windows, "windows")
            alarm = by_kind.get(kind)
            if alarm is None or alarm["status"] == "cleared":
                since = "" if alarm is None else alarm["cleared"]
                if reasons := history.reasons(since, age_days, settings):
                    by_kind[kind] = _raised(kind, reasons)
            elif history.is_silent(settings):
                by_kind[kind] = {**alarm, "status": "cleared", "cleared": history.end()}
        return Alarms(by_kind)

    def start_trainings(self, again: str | None = None) -> tuple["Alarms", list[str]]:
        """Return the alarms with trainings started for those that wait for one, and their names.

        Args:
            again: An alarm whose training was started already, and did not help.
        """
        waiting = self.with_status("decided")
        waiting += [alarm for alarm in self.with_status("started") if alarm["id"] == again]
        by_kind = dict(self.by_kind)
        for alarm in waiting:
            by_kind[alarm["kind"]] = {
                **alarm,
                "status": "started",
                "started": now(),
                "outcome": None,
            }
        return Alarms(by_kind), [alarm["id"] for alarm in waiting]

    def end_trainings(self, names: Sequence[str], outcome: str) -> "Alarms":
        """Return the alarms with the outcome of the trainings for some of them."""
        by_kind = dict(self.by_kind)
        for kind, alarm in self.by_kind.items():
            if alarm["id"] in names:
                by_kind[kind] = {**alarm, "outcome": outcome}
        return Alarms(by_kind)


@dataclass(frozen=True)
class _History:
    """What windows, or batches of labels, show of one kind of sign.

    Attributes:
        unit: What the items are called.
    """

    kind: str
    items: Sequence[Judged]
    unit: str

    def signs(self, since: str) -> list[dict[str, str]]:
        """Return the signs of each item that ended later, and in which they were looked for."""
        return [
            item.signs[self.kind]
            for item in self.items
            if item.end > since and self.kind in item.signs
        ]

    def reasons(self, since: str, age_days: float, settings: Drift) -> list[str]:
        """Return why an alarm is to be raised; empty if it is not."""
        if self.kind == "age" and age_days > settings.max_age_days:
            limit = f"{settings.max_age_days:g}"
            return [f"the champion is {age_days:.0f} days old; the limit is {limit}"]
        signs = self.signs(since)
        if self.kind != "performance":
            return self._reasons_of_last(signs[-settings.recent_windows :], settings)
        # A file of labels may bring many batches at once: none of them is passed over.
        reasons: list[str] = []
        for count in range(1, len(signs) + 1):
            last = signs[max(0, count - settings.recent_windows) : count]
            if now_reasons := self._reasons_of_last(last, settings):
                reasons = now_reasons
            elif _are_silent(last, settings):
                reasons = []
        return reasons

    def is_silent(self, settings: Drift) -> bool:
        """Check whether the last items clear an alarm."""
        return _are_silent(self.signs("")[-settings.recent_windows :], settings)

    def end(self) -> str:
        """Return when the last item ended."""
        return self.items[-1].end

    def _reasons_of_last(self, last: list[dict[str, str]], settings: Drift) -> list[str]:
        """Return what is a sign in the newest item and in enough others, and why."""
        if not last:
            return []
        reasons = []
        for name, reason in last[-1].items():
            count = sum(name in signs for signs in last)
            if count >= settings.min_windows_in_alarm:
                reasons.append(f"{name} {reason}, in {count} of the last {len(last)} {self.unit}")
        return reasons


def _are_silent(last: list[dict[str, str]], settings: Drift) -> bool:
    """Check whether there are enough items, and none of the newest ones has a sign."""
    return len(last) >= settings.min_windows_in_alarm and not any(
        last[-settings.min_windows_in_alarm :]
    )


def _raised(kind: str, reasons: list[str]) -> Alarm:
    return {
        "id": f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}",
        "kind": kind,
        "raised": now(),
        "status": "decided" if IS_ANSWERED_BY_TRAINING[kind] else "needs_attention",
        "reason": "; ".join(reasons),
    }


def update_alarms(
    version: registry.Version, change: Callable[[Alarms], Alarms]
) -> tuple[Alarms, Alarms]:
    """Change the alarms of a champion in the registry, one process at a time.

    Returns:
        The alarms before and after.
    """
    store = registry.open_registry()
    with store.lock() as ensure_lease:
        noted = parse_note(store.get(NOTE) or "{}")
        before = noted.get(version.digest)
        if before is None:
            before = _of_same_model(version, noted, store)
        after = Alarms(before)
        after = change(after)
        if after.by_kind != before:
            newest = list((noted | {version.digest: after.by_kind}).items())[-NOTED_CHAMPIONS:]
            ensure_lease()
            store.set(NOTE, json.dumps(dict(newest), ensure_ascii=False))
    return Alarms(before), after


def _of_same_model(
    version: registry.Version, noted: dict[str, dict[str, Alarm]], store: registry.Registry
) -> dict[str, Alarm]:
    """Return the alarms of another package of the same model, which has the same predictions."""
    if not noted:
        return {}
    for other in reversed(store.versions(registry.NEWEST)):
        if other.model_digest == version.model_digest and other.digest in noted:
            return noted[other.digest]
    return {}


def parse_note(text: str) -> dict[str, dict[str, Alarm]]:
    """Return the alarms by kind, of each champion by its digest.

    Raises:
        UsageError: It is malformed: anybody who can write to the registry may have written it.
    """
    try:
        noted = json.loads(text)
    except (ValueError, RecursionError):
        noted = None
    if not isinstance(noted, dict) or not all(map(_are_alarms, noted.values())):
        raise UsageError(f"the registry is damaged: its note {NOTE!r} is not a list of alarms")
    for alarms in noted.values():
        for alarm in alarms.values():
            alarm["status"] = EARLIER_STATUS.get(alarm["status"], alarm["status"])
    return noted


def _are_alarms(alarms: object) -> bool:
    return isinstance(alarms, dict) and all(map(_is_alarm, alarms.values()))


def _is_alarm(alarm: object) -> bool:
    names = ("id", "kind", "status", "reason")
    if not isinstance(alarm, dict) or not all(isinstance(alarm.get(n), str) for n in names):
        return False
    if alarm["status"] != "started":
        return True
    try:
        started = datetime.fromisoformat(alarm["started"])
        return started.tzinfo is not None and isinstance(alarm["outcome"], str | None)
    except (ValueError, TypeError, KeyError):
        return False
