"""Monitoring: the champion's predictions, window by window → `drift.json`, `monitor.json`, a page.

A rule decides whether to train again. What it decided stands in the registry, so that whoever runs
this next, and wherever, neither forgets it nor does it twice.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from .. import UsageError, registry
from ..artifacts import ARTIFACTS, atomic_write, digest, now, write_fields
from ..config import GATE, Data, Gate
from ..config import read as read_config
from ..pipeline.report import short
from ..prediction_log import joined, read, refused
from ..settings import DRIFT, Drift, Window, delivery
from ..settings import drift as thresholds
from . import performance
from .drift import Reference, judge

NOTE, PAGE = "alarms", ARTIFACTS / "monitor.html"
# What may alarm, and whether a training answers it: rows that break the contract need a person.
KINDS = {"drift": True, "prediction": True, "performance": True, "violations": False, "age": True}
SHOWN = 30  # windows, at most
POOL = 14  # windows that are also judged together, against seasons
POOL_ROWS = 20_000  # of these, at most
TRAINED = "trained"
SAME = "made the same model again, as there are no new rows to learn from"
PATIENCE = timedelta(hours=24)  # a training that has not ended by then was killed, most likely
Windows = list[dict[str, Any]]
Alarms = dict[str, dict[str, Any]]  # by kind


class Champion(NamedTuple):
    """What its package says of it."""

    version: registry.Version
    data: Data
    metric: str
    expected: dict[str, float]  # of this metric, on the holdout
    references: dict[str, Reference]  # by column of the prediction log
    answer: str  # the one of these that is its prediction
    holdout: performance.Expected


def monitor() -> str:
    """Judge what was logged so far, and decide.

    Returns:
        The decision, in a sentence.

    Raises:
        UsageError: There is no champion or no log, or one of them cannot be read.
    """
    version, settings, service = registry.current_champion(), thresholds(), delivery().service
    if version is None or not service.log:
        missing = "service.log is empty" if version else "the registry has no champion"
        raise UsageError(f"nothing to monitor, as {missing}: `ml deploy` serves a model with a log")
    started, champion = now(), _opened(version)
    # What is younger may not be written yet.
    until = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=service.log_seconds)
    windows, waiting = observed(champion, service.log, until, settings)
    outcomes, labels = judged_labels(champion, service.log, settings)
    age = datetime.now(UTC) - version.made
    days = age.total_seconds() / 86_400
    before, after = _changed(
        version, lambda found: updated(found, windows, outcomes, days, settings)
    )
    old = [alarm["id"] for alarm in before.values()]
    alarms = [a | {"new": a["id"] not in old} for a in after.values() if a["status"] != "cleared"]
    wanted = [alarm for alarm in alarms if alarm["status"] == "decided"]
    first = wanted[0] if wanted else {"id": None, "kind": None, "new": False}
    decision = "retrain" if wanted else "none"
    reason = _said(alarms, windows, waiting, settings)
    both = {"champion": registry.reference(version), "thresholds": settings.model_dump()}
    said = both | {
        "decision": decision,
        "reason": reason,
        "alarm": first["id"],
        "kind": first["kind"],
        "new": first["new"],
        "age_days": days,
        "metric": champion.metric,
        "expected": champion.expected,
        "alarms": alarms,
        "waiting": waiting,
        "windows": [w["monitor"] for w in windows],
        "labels": labels,
        "outcomes": outcomes,
    }
    found = [w["drift"] for w in windows]
    inputs, data = {str(DRIFT): digest(DRIFT)}, version.data_digest
    times = [name for name, column in champion.data.columns.items() if column.type == "datetime"]
    with registry.file_lock(ARTIFACTS / "monitor.lock"):  # of two at once, one after the other
        write_fields("drift", both | {"windows": found}, started, data, inputs)
        write_fields("monitor", said, started, data, inputs)
        page = {"monitor": said, "drift": found, "at": started, "times": times}
        _page(page | {"headline": _headline(alarms, windows)})
    return f"{'retrain' if wanted else 'no training'}: {reason}"


def observed(champion: Champion, log: str, until: datetime, settings: Drift) -> tuple[Windows, int]:
    """The newest windows of a log, judged each by itself; and how many rows wait for the next."""
    version, gate = champion.version, read_config(GATE, Gate)
    good = read(log, None, version.model_digest).select("time").collect()["time"].to_physical()
    broken = refused(log).filter(pl.col("version") == version.version).collect()
    bad = broken["time"].to_physical().to_numpy().repeat(broken["rows"].to_numpy())
    times = np.sort(np.concatenate([good.to_numpy(), bad]))
    spans = boundaries(times, int(until.replace(tzinfo=UTC).timestamp() * 1e6), settings.window)
    waiting = int((times >= spans[-1][1]).sum()) if spans else len(times)
    if not spans:
        return [], waiting
    first = max(0, len(spans) - SHOWN)
    spans = spans[max(0, first - POOL) :]
    since = datetime.fromtimestamp(spans[0][0] / 1e6, UTC).replace(tzinfo=None)
    seen = joined(log, since, version.model_digest, arrival=True)
    rows, found = seen.sort("time", "request_id", "row").collect(), []
    at = rows["time"].to_physical()
    parts = [rows.filter((at >= begin) & (at < end)) for begin, end in spans]
    inputs = judged_inputs(parts, champion.references, settings)
    for (begin, end), part, columns in list(zip(spans, parts, inputs, strict=True))[-SHOWN:]:
        ends = {"from": _iso(begin), "to": _iso(end), "rows": len(part)}
        count = int(((bad >= begin) & (bad < end)).sum())
        found.append(_window(part, columns, ends, count, champion, gate, settings))
    return found, waiting


def judged_labels(
    champion: Champion, log: str, settings: Drift
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Judge the newest batches of labels, in the order in which they arrived.

    Returns:
        The batches, oldest first; and how many predictions there are, how many of them have a
        label, and how many of these wait for the next batch.
    """
    digest, data = champion.version.model_digest, champion.data
    wanted = joined(log, None, digest, arrival=True).filter(pl.col("truth").is_not_null())
    answers = [name for name in wanted.collect_schema().names() if name.startswith("p:")]
    columns = ["request_id", "row", "time", "told", "truth", "prediction", *answers]
    rows = wanted.select(columns).collect()
    if rows.is_empty():
        count = int(read(log, None, digest).select(pl.len()).collect().item())
        return [], {"predictions": count, "labels": 0, "waiting": 0}
    rows = performance.labelled(rows, data)
    every = read(log, None, digest).select("time", score=performance.score(data)).sort("time")
    every_score = every.collect()
    times = every_score["time"].to_physical().to_numpy()
    found = performance.batches(rows, settings)
    counts = {
        "predictions": len(times),
        "labels": len(rows),
        "waiting": len(rows) - sum(len(batch.rows) for batch in found),
    }
    gate = read_config(GATE, Gate)
    outcomes = []
    for batch in performance.pooled(found, settings.window.rows)[-SHOWN:]:
        predicted = batch.rows["time"].to_physical().to_numpy()
        begin, end = int(predicted.min()), int(predicted.max())
        first, last = np.searchsorted(times, begin, "left"), np.searchsorted(times, end, "right")
        scores = every_score["score"][int(first) : int(last)].to_numpy()
        judged = performance.judge(batch.rows, scores, champion.holdout, data, gate, settings)
        signs = {"performance": judged.pop("signs")} if judged["basis"] != "none" else {}
        ends = {"arrived": _iso(batch.arrived), "from": _iso(begin), "to": _iso(end)}
        outcomes.append(ends | judged | {"signs": signs})
    return outcomes, counts


def boundaries(times: NDArray[np.int64], until: int, window: Window) -> list[tuple[int, int]]:
    """Where complete windows begin and end: the same whenever they are asked for.

    Args:
        times: (n,) of rows, sorted, in microseconds.
    """
    begin, first, found = int(times[0]) if len(times) else until, 0, []
    while (enough := first + window.rows - 1) < len(times):
        end = max(begin + round(window.hours * 3.6e9), int(times[enough]) + 1)
        if end > until:
            break
        found.append((begin, end))
        begin, first = end, int(np.searchsorted(times, end))
    return found


def updated(
    before: Alarms,
    windows: Windows,
    outcomes: list[dict[str, Any]],
    days: float,
    settings: Drift,
) -> Alarms:
    """Return the alarms of a champion, after what its windows and its labels show.

    A sign alarms that is in `alarms` of the last `windows` windows, the newest among them. An alarm
    is cleared by as many windows without any sign of its kind; only later ones can raise it again.
    Performance is judged by batches of labels instead, later means arrived later.
    """
    after = dict(before)
    shown = [window["monitor"] for window in windows]
    for kind, trains in KINDS.items():
        by_label = kind == "performance"
        items, end, unit = (
            (outcomes, "arrived", "batches of labels") if by_label else (shown, "to", "windows")
        )
        alarm = before.get(kind, {"status": "cleared", "cleared": ""})
        silent = alarm["status"] == "cleared"
        since = alarm["cleared"] if silent else ""
        judged = [
            item["signs"][kind] for item in items if item[end] > since and kind in item["signs"]
        ]
        last = judged[-settings.windows :]
        reasons = _reasons(last, unit, settings)
        if by_label:  # a file of labels may bring many batches at once: none is passed over
            reasons = _latest_reasons(judged, unit, settings)
        if kind == "age" and days > settings.max_age_days:
            reasons = [f"the champion is {days:.0f} days old, and may be {settings.max_age_days:g}"]
        if silent and reasons:
            after[kind] = {
                "id": f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}",
                "kind": kind,
                "raised": now(),
                "status": "decided" if trains else "told",
                "reason": "; ".join(reasons),
            }
        if not silent and len(last) >= settings.alarms and not any(last[-settings.alarms :]):
            after[kind] = alarm | {"status": "cleared", "cleared": items[-1][end]}
    return after


def _reasons(last: list[dict[str, str]], unit: str, settings: Drift) -> list[str]:
    """Return why the last windows alarm: what is a sign in the newest and in enough others."""
    return [
        f"{name} {reason}, in {count} of the last {len(last)} {unit}"
        for name, reason in (last[-1] if last else {}).items()
        if (count := sum(name in signs for signs in last)) >= settings.alarms
    ]


def _latest_reasons(judged: list[dict[str, str]], unit: str, settings: Drift) -> list[str]:
    """Return why an alarm would be raised, and not be cleared again, by one after the other."""
    reasons: list[str] = []
    for count in range(1, len(judged) + 1):
        last = judged[max(0, count - settings.windows) : count]
        if now_reasons := _reasons(last, unit, settings):
            reasons = now_reasons
        elif len(last) >= settings.alarms and not any(last[-settings.alarms :]):
            reasons = []
    return reasons


def retrain(run: Callable[[], None], again: str | None = None, said: str = TRAINED) -> str:
    """Train for what `monitor` decided, once: who comes second has nothing to do.

    Args:
        run: Trains, registers and deploys.
        again: An alarm whose training was started before, and did not help.
        said: What has been done then.

    Raises:
        UsageError: There is no such alarm; or as `run`.
        RefusedError: As `run`.
    """
    version = registry.current_champion()
    if version is None:
        return "nothing to do: there is no champion, `ml deploy` brings one"
    claimed: list[str] = []

    def claim(alarms: Alarms) -> Alarms:
        ready = [a for a in alarms.values() if a["status"] == "decided"]
        ready += [a for a in alarms.values() if a["status"] == "started" and a["id"] == again]
        claimed.extend(alarm["id"] for alarm in ready)
        fresh = {"status": "started", "started": now(), "outcome": None}
        return alarms | {alarm["kind"]: alarm | fresh for alarm in ready}

    def end(alarms: Alarms) -> Alarms:
        return {k: a | {"outcome": came} if a["id"] in claimed else a for k, a in alarms.items()}

    _, alarms = _changed(version, claim)
    if again and again not in claimed:
        raise UsageError(f"{version} has no alarm {again} to train for: see artifacts/monitor.json")
    if not claimed:
        return f"nothing to do: {_running(alarms) or f'no alarm of {version} waits for a training'}"
    came = "done"
    try:
        run()
        if said == TRAINED and (new := registry.current_champion()):
            came = SAME if new.model_digest == version.model_digest else came
    except BaseException as error:
        came = f"failed: {error or type(error).__name__}"
        raise
    finally:
        _changed(version, end)
    end_of = f"the champion is {registry.current_champion()}"
    if came == SAME:
        end_of = f"it {SAME}: {_missing(claimed[0])}"
    return f"{said} for {', '.join(claimed)}: {end_of}"


def _missing(alarm: str) -> str:
    return f"`ml data add` them, then `ml retrain --again {alarm}`"


def _opened(version: registry.Version) -> Champion:
    folder = registry.fetch_version(version, ARTIFACTS / "champion" / version.version)
    contract, profile, metrics = (
        json.loads((folder / f"{name}.json").read_text("utf-8"))
        for name in ("contract", "profile", "metrics")
    )
    data, metric = Data.model_validate(contract), metrics["metric"]
    columns = {f"x:{n}": Reference(of, profile["rows"]) for n, of in profile["columns"].items()}
    answer = f"p:{data.classes[-1]}" if data.task == "binary" else "prediction"
    columns[answer] = Reference(profile["prediction"], metrics["rows"])
    holdout = performance.expected(metrics)
    return Champion(version, data, metric, metrics["metrics"][metric], columns, answer, holdout)


def _window(
    rows: pl.DataFrame,
    inputs: dict[str, dict[str, Any]],
    ends: dict[str, Any],
    bad: int,
    champion: Champion,
    gate: Gate,
    of: Drift,
) -> dict[str, Any]:
    prediction, share = inputs.pop(champion.answer, None), bad / max(1, bad + len(rows))
    columns = {name.removeprefix("x:"): one for name, one in inputs.items()}
    signs: dict[str, dict[str, str]] = {
        "drift": {name: one["reason"] for name, one in columns.items() if one["reason"]},
        "prediction": {},
        "violations": {},
    }
    if prediction and prediction["reason"]:
        signs["prediction"] = {"the prediction": prediction["reason"]}
    if share > of.max_violation_share:
        signs["violations"] = {"the caller": f"sent {share:.1%} of rows that break the contract"}
    known = None
    if rows["truth"].count() >= performance.LABELS:
        labelled = performance.labelled(rows, champion.data)
        scores = rows.select(performance.score(champion.data).alias("score"))["score"].to_numpy()
        found = performance.judge(labelled, scores, champion.holdout, champion.data, gate, of)
        if check := found["checks"].get(champion.metric):
            known = {"labels": len(labelled), "value": check["value"], "skill": check["skill"]}
            signs["performance"] = found["signs"]
    facts = {"refused": bad, "violation_share": share, "performance": known, "signs": signs}
    return {
        "monitor": ends | facts,
        "drift": ends | {"columns": columns, "prediction": prediction},
    }


def judged_inputs(
    windows: list[pl.DataFrame], references: dict[str, Reference], settings: Drift
) -> list[dict[str, dict[str, Any]]]:
    """Judge each window by itself and, where seasons are known, with those before it.

    The weather of a day says nothing; that of two weeks is compared with other two weeks. Windows
    that have a sign themselves are left out, so that what is over is not found again and again.

    Args:
        windows: Rows of each, the oldest first; of the first 14 fewer are judged together.
        references: By column, as `drift.judge` takes them.
        settings: Of drift; both looks together have its significance.
    """
    if not any(reference.seen.get("usual") for reference in references.values()):
        return [judge(rows, references, settings) for rows in windows]
    half = settings.model_copy(update={"significance": settings.significance / 2})
    results = [judge(rows, references, half) for rows in windows]
    quiet = [all(found["verdict"] == "quiet" for found in result.values()) for result in results]
    for last in [index for index, is_quiet in enumerate(quiet) if is_quiet]:
        several = [k for k in range(max(0, last - POOL + 1), last + 1) if quiet[k]]
        if len(several) < 2:
            continue
        together = pl.concat([windows[k] for k in several])
        # At random, as rows may come in a rhythm.
        thinned = together.sample(min(len(together), POOL_ROWS), seed=0)
        for name, found in judge(thinned, references, half).items():
            if found["reason"] and references[name].seen.get("usual"):
                reason = f"{found['reason']}, over {len(several)} windows"
                results[last][name] |= {"verdict": "drift", "reason": reason}
    return results


def _changed(
    version: registry.Version, change: Callable[[Alarms], Alarms]
) -> tuple[Alarms, Alarms]:
    """The alarms of a champion before and after a change, by one process at a time."""
    store = registry.open_registry()
    with store.lock() as still:
        known = _noted(store.get(NOTE) or "{}")
        before = known.get(version.digest)
        if before is None:  # another package of the same model has the same predictions
            recent = store.versions(registry.NEWEST) if known else []
            same = [v.digest for v in recent if v.model_digest == version.model_digest]
            before = next((known[name] for name in reversed(same) if name in known), {})
        after = change(before)
        if after != before:
            newest = list((known | {version.digest: after}).items())[-50:]
            still()
            store.set(NOTE, json.dumps(dict(newest), ensure_ascii=False))
    return before, after


def _noted(text: str) -> dict[str, Alarms]:
    """Read the note of alarms, by the digest of a champion.

    Raises:
        UsageError: It is malformed: whoever can write to the registry has written it.
    """
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not all(
        isinstance(alarms, dict) and all(map(_is_alarm, alarms.values()))
        for alarms in known.values()
    ):
        raise UsageError(f"the registry is damaged: its note {NOTE!r} is no list of alarms")
    return known


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


def _said(alarms: list[dict[str, Any]], windows: Windows, waiting: int, settings: Drift) -> str:
    by = {s: [a for a in alarms if a["status"] == s] for s in ("decided", "told", "started")}
    said = [f"{a['id']}: {a['reason']}" for a in by["decided"]]
    said += [f"{a['reason']}, which a person has to look at" for a in by["told"]]
    if running := _running({a["id"]: a for a in by["started"]}):
        said.append(running)
    if not windows:
        need = f"{settings.window.rows} rows and {settings.window.hours:g} hours"
        said.append(f"no window is complete, it takes {need}, and there are {waiting} rows")
    return "; ".join(said) or f"no alarm in {len(windows)} windows"


def _headline(alarms: list[dict[str, Any]], windows: Windows) -> str:
    """Return what the alarms ask for, the most urgent first."""
    by_status = {alarm["status"]: alarm for alarm in alarms}
    if "decided" in by_status:
        return "Train again"
    if "told" in by_status:
        return "A person has to look"
    if started := by_status.get("started"):
        outcome = started["outcome"]
        if outcome == SAME:
            return "An alarm is open: new data are needed"
        if outcome and outcome != "done":
            return "An alarm is open: its training failed"
        return "An alarm is open: its training was started"
    return "No alarm" if windows else "Nothing to judge yet"


def _running(alarms: Alarms) -> str:
    """What became of trainings that were started."""
    said = []
    for alarm in (a for a in alarms.values() if a["status"] == "started"):
        late = datetime.now(UTC) - datetime.fromisoformat(alarm["started"]) > PATIENCE
        still = "was killed, it seems" if late else "may still run"
        came = {
            "done": "is done",
            SAME: f"{SAME}: {_missing(alarm['id'])}",
        }.get(alarm["outcome"], alarm["outcome"])
        end = came or f"{still}: `ml retrain --again {alarm['id']}` starts another"
        said.append(f"{alarm['id']} had its training at {alarm['started']}, which {end}")
    return "; ".join(said)


def _iso(time: int | datetime) -> str:
    """Write a time of UTC, in microseconds or without a zone."""
    if isinstance(time, datetime):
        return time.replace(tzinfo=UTC).isoformat(timespec="microseconds")
    return datetime.fromtimestamp(time / 1e6, UTC).isoformat(timespec="microseconds")


def _page(said: dict[str, Any]) -> None:
    folder = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(loader=folder, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    environment.undefined, environment.filters["short"] = StrictUndefined, short
    text = environment.get_template("monitor.html").render(**said)
    with atomic_write(PAGE) as new:
        new.write_text(text, "utf-8")
