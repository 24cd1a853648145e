"""Monitor: judge what was logged so far, and decide whether to train again."""

from datetime import UTC, datetime, timedelta
from typing import cast

from .. import UsageError, registry
from ..artifacts import ARTIFACTS, digest, now, write
from ..config.delivery import load_delivery
from ..config.drift import DRIFT, load_drift
from ..records import AlarmRecord, Champion, DriftDocument, MonitorDocument
from .alarms import Alarm, Alarms, update_alarms
from .champion import load_champion
from .labels import judge_labels
from .page import write_page
from .summary import headline, summarize
from .windows import judge_windows

SECONDS_PER_DAY = 86_400


def monitor() -> str:
    """Judge what was logged so far, and decide.

    Returns:
        The decision, in a sentence.

    Raises:
        UsageError: There is no champion or no log, or one of them cannot be read.
    """
    version = registry.current_champion()
    settings = load_drift()
    service = load_delivery().service
    if version is None or not service.log:
        missing = "service.log is empty" if version else "the registry has no champion"
        raise UsageError(f"nothing to monitor, as {missing}: `ml deploy` serves a model with a log")
    started = now()
    champion = load_champion(version)
    # What is younger may not be written yet.
    until = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=service.log_seconds)
    windows, waiting = judge_windows(champion, service.log, until, settings)
    outcomes, labels = judge_labels(champion, service.log, settings)
    age_days = (datetime.now(UTC) - version.made).total_seconds() / SECONDS_PER_DAY
    summaries = [window.summary for window in windows]

    def change(alarms: Alarms) -> Alarms:
        return alarms.next_alarms(summaries, outcomes, age_days, settings)

    before, after = update_alarms(version, change)
    open_alarms = after.open()
    known = [alarm["id"] for alarm in before.by_kind.values()]
    first = next(iter(after.with_status("decided")), None)
    reason = summarize(open_alarms, len(windows), waiting, settings)
    thresholds = settings.model_dump()
    document = MonitorDocument(
        champion=Champion.model_validate(registry.reference(version)),
        thresholds=thresholds,
        decision="retrain" if first else "none",
        reason=reason,
        alarm=first["id"] if first else None,
        kind=first["kind"] if first else None,
        new=first is not None and first["id"] not in known,
        age_days=age_days,
        metric=champion.metric,
        expected=champion.expected,
        alarms=[_record(alarm, is_new=alarm["id"] not in known) for alarm in open_alarms],
        waiting=waiting,
        windows=summaries,
        labels=labels,
        outcomes=outcomes,
    )
    drift = DriftDocument(
        champion=document.champion,
        thresholds=thresholds,
        windows=[window.drift for window in windows],
    )
    inputs = {str(DRIFT): digest(DRIFT)}
    columns = champion.data.columns
    with registry.file_lock(ARTIFACTS / "monitor.lock"):  # of two at once, one after the other
        for content in (drift, document):
            write(content, started=started, data_digest=version.data_digest, inputs=inputs)
        write_page(
            document,
            drift,
            started=started,
            headline=headline(open_alarms, len(windows)),
            times=[name for name, column in columns.items() if column.type == "datetime"],
        )
    return f"{'retrain' if first else 'no training'}: {reason}"


def _record(alarm: Alarm, is_new: bool) -> AlarmRecord:
    """Return an alarm that is not cleared as the document has it."""
    return cast(AlarmRecord, {**alarm, "new": is_new})
