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

from .. import BadInput, registry
from ..config import GATE, Data, Gate
from ..config import read as read_config
from ..documents import ARTIFACTS, digest, now, replacing, write
from ..pipeline.metrics import SCORES, bootstrap, skill
from ..pipeline.report import short
from ..serving.log import joined, read, refused
from ..settings import DRIFT, Drift, Window, delivery
from ..settings import drift as thresholds
from .drift import Reference, judge

NOTE, PAGE = "alarms", ARTIFACTS / "monitor.html"
# What may alarm, and whether a training answers it: rows that break the contract need a person.
KINDS = {"drift": True, "prediction": True, "performance": True, "violations": False, "age": True}
SHOWN = 30  # windows, at most
LABELS = 50  # fewer in a window say nothing of performance
PATIENCE = timedelta(hours=24)  # a training that has not ended by then was killed, most likely
Alarms = dict[str, dict[str, Any]]  # by kind


class Champion(NamedTuple):
    """What its package says of it."""

    version: registry.Version
    data: Data
    metrics: dict[str, Any]
    references: dict[str, Reference]  # by column of the prediction log
    answer: str  # the one of these that is its prediction


def monitor() -> str:
    """Judge what was logged so far, and decide.

    Returns:
        The decision, in a sentence.

    Raises:
        BadInput: There is no champion or no log, or one of them cannot be read.
    """
    version, settings, service = registry.champion(), thresholds(), delivery().service
    if version is None or not service.log:
        missing = "the registry has no champion" if service.log else "service.log is empty"
        raise BadInput(f"nothing to monitor, as {missing}: `ml deploy` serves a model with a log")
    started, champion = now(), _opened(version)
    # What is younger may not be written yet.
    until = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=service.log_seconds)
    windows, waiting = observed(champion, service.log, until, settings)
    before, alarms = _decided(version, windows, settings)
    new = {a["id"] for a in alarms.values()} - {a["id"] for a in before.values()}
    open_ = [a | {"new": a["id"] in new} for a in alarms.values() if a["status"] != "cleared"]
    wanted = [a for a in open_ if a["status"] == "decided"]
    first = wanted[0] if wanted else dict.fromkeys(("id", "kind"))
    reason = _said(open_, wanted, windows, waiting, settings)
    kept = {"from", "to", "rows"}
    found = [{k: w[k] for k in (*kept, "columns", "prediction")} for w in windows]
    judged = [{k: v for k, v in w.items() if k not in ("columns", "prediction")} for w in windows]
    monitored = {"champion": registry.named(version), "thresholds": settings.model_dump()}
    said = monitored | {
        "decision": "retrain" if wanted else "none",
        "reason": reason,
        "alarm": first["id"],
        "kind": first["kind"],
        "new": any(alarm["new"] for alarm in wanted),
        "age_days": _age(version),
        "metric": champion.metrics["metric"],
        "expected": champion.metrics["metrics"][champion.metrics["metric"]],
        "alarms": open_,
        "waiting": waiting,
        "windows": judged,
    }
    inputs, data = {str(DRIFT): digest(DRIFT)}, version.facts["data_digest"]
    write("drift", monitored | {"windows": found}, started, data, inputs)
    write("monitor", said, started, data, inputs)
    _page({"monitor": said, "drift": found, "at": started})
    return f"{'retrain' if wanted else 'no training'}: {reason}"


def observed(
    champion: Champion, log: str, until: datetime, settings: Drift
) -> tuple[list[dict[str, Any]], int]:
    """The newest windows of a log, judged each by itself; and how many rows wait for the next."""
    of = read(log, None, champion.version.model_digest).select("time").collect()["time"]
    broken = refused(log).filter(pl.col("version") == champion.version.version).collect()
    bad = broken["time"].to_physical().to_numpy().repeat(broken["rows"].to_numpy())
    times = np.sort(np.concatenate([of.to_physical().to_numpy(), bad]))
    spans = boundaries(times, int(until.replace(tzinfo=UTC).timestamp() * 1e6), settings.window)
    waiting = int((times >= spans[-1][1]).sum()) if spans else len(times)
    shown = spans[-SHOWN:]
    since = datetime.fromtimestamp(shown[0][0] / 1e6, UTC).replace(tzinfo=None) if shown else until
    rows = joined(log, since, champion.version.model_digest).collect()
    at, gate = rows["time"].to_physical(), read_config(GATE, Gate)
    found = []
    for begin, end in shown:
        part = rows.filter((at >= begin) & (at < end))
        count = int(((bad >= begin) & (bad < end)).sum())
        ends = {"from": _iso(begin), "to": _iso(end)}
        found.append(ends | _window(part, count, champion, gate, settings))
    return found, waiting


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


def updated(before: Alarms, windows: list[dict[str, Any]], age: float, settings: Drift) -> Alarms:
    """The alarms of a champion, after what its windows show.

    A sign alarms that is in `alarms` of the last `windows` windows, the newest among them. An alarm
    is cleared by as many windows without any sign of its kind; only later ones can raise it again.
    """
    after, limit = dict(before), settings.max_age_days
    for kind, trains in KINDS.items():
        alarm = before.get(kind, {"status": "cleared", "cleared": ""})
        silent = alarm["status"] == "cleared"
        since = alarm["cleared"] if silent else ""
        judged = [w["signs"][kind] for w in windows if w["to"] > since and kind in w["signs"]]
        last = judged[-settings.windows :]
        reasons = [
            f"{name} {reason}, in {n} of the last {len(last)} windows"
            for name, reason in (last[-1] if last else {}).items()
            if (n := sum(name in signs for signs in last)) >= settings.alarms
        ]
        if kind == "age" and age > limit:
            reasons = [f"the champion is {age:.0f} days old, and may be {limit:g}"]
        if silent and reasons:
            name = f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
            status = "decided" if trains else "told"
            fields = {"id": name, "kind": kind, "raised": now(), "status": status}
            after[kind] = fields | {"reason": "; ".join(reasons)}
        calm = len(last) >= settings.alarms and not any(last[-settings.alarms :])
        if not silent and calm:
            after[kind] = alarm | {"status": "cleared", "cleared": windows[-1]["to"]}
    return after


def retrain(run: Callable[[], None], again: str | None = None) -> str:
    """Train for what `monitor` decided, once: who comes second has nothing to do.

    Args:
        run: Trains, registers and deploys.
        again: An alarm whose training was started before, and did not help.

    Raises:
        BadInput: There is no such alarm; or as `run`.
        Refused: As `run`.
    """
    version, store = registry.champion(), registry.opened()
    if version is None:
        return "nothing to do: there is no champion, `ml deploy` brings one"

    def claim(alarms: Alarms) -> Alarms:
        fresh = {"status": "started", "started": now(), "outcome": None}
        return {
            kind: alarm | fresh
            if alarm["status"] == "decided" or (alarm["status"], alarm["id"]) == ("started", again)
            else alarm
            for kind, alarm in alarms.items()
        }

    before, after = _changed(store, version, claim)
    claimed = [alarm for kind, alarm in after.items() if alarm != before[kind]]
    if again and again not in [alarm["id"] for alarm in claimed]:
        raise BadInput(f"{version} has no alarm {again} to train for: artifacts/monitor.json")
    if not claimed:
        return f"nothing to do: {_running(after) or f'no alarm of {version} waits for a training'}"
    names, outcome = {alarm["id"] for alarm in claimed}, "done"
    try:
        run()
    except BaseException as error:
        outcome = f"failed: {error or type(error).__name__}"
        raise
    finally:
        told = {"outcome": outcome}
        end = lambda found: {k: a | told if a["id"] in names else a for k, a in found.items()}  # noqa: E731
        _changed(store, version, end)
    return f"trained for {', '.join(sorted(names))}: the champion is {registry.champion()}"


def _opened(version: registry.Version) -> Champion:
    folder = registry.opened().fetch(version.version, ARTIFACTS / "champion" / version.version)
    data = Data.model_validate_json((folder / "contract.json").read_text("utf-8"))
    profile, metrics = (
        json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("profile", "metrics")
    )
    columns = {f"x:{n}": Reference(of, profile["rows"]) for n, of in profile["columns"].items()}
    answer = f"p:{data.classes[-1]}" if data.task == "binary" else "prediction"
    columns[answer] = Reference(profile["prediction"], metrics["rows"])
    return Champion(version, data, metrics, columns, answer)


def _window(
    rows: pl.DataFrame, bad: int, champion: Champion, gate: Gate, settings: Drift
) -> dict[str, Any]:
    columns = judge(rows, champion.references, settings)
    prediction = columns.pop(champion.answer, None)
    columns = {name.removeprefix("x:"): found for name, found in columns.items()}
    share, performance = bad / (bad + len(rows)), _performance(rows, champion, gate)
    drifted = {n: f["reason"] for n, f in columns.items() if f["reason"]}
    signs: dict[str, dict[str, str]] = {"drift": drifted, "prediction": {}, "violations": {}}
    if prediction and prediction["reason"]:
        signs["prediction"] = {"the prediction": prediction["reason"]}
    if share > settings.max_violation_share:
        signs["violations"] = {"the caller": f"sent {share:.1%} of rows that break the contract"}
    if performance:
        surely, metric = performance["skill"]["high"], champion.metrics["metric"]
        lost = surely is not None and surely < -settings.max_skill_loss
        why = f"is {short(performance['value']['value'])} on {performance['labels']} labelled rows"
        signs["performance"] = {metric: why} if lost else {}
    return {
        "rows": len(rows),
        "refused": bad,
        "violation_share": share,
        "performance": performance,
        "signs": signs,
        "columns": columns,
        "prediction": prediction,
    }


def _performance(rows: pl.DataFrame, champion: Champion, gate: Gate) -> dict[str, Any] | None:
    """The metric and, as `skill`, how much of it was lost on the way from perfect to nothing."""
    data, metric = champion.data, champion.metrics["metric"]
    told = rows.filter(pl.col("truth").is_not_null())
    if data.classes:
        places = told["truth"].cast(pl.Enum(data.classes), strict=False).to_physical()
        truth, given = places, told.select(f"p:{name}" for name in data.classes if len(told))
    else:
        truth, given = told["truth"].cast(pl.Float64), told.select("prediction")
    if len(told) < LABELS or truth.null_count():
        return None
    y, p = truth.cast(pl.Float64).to_numpy(), given.to_numpy()
    p, before = p if data.classes else p[:, 0], champion.metrics["metrics"][metric]["value"]

    def of(at: NDArray[np.int64]) -> list[float]:
        value = float(SCORES[metric](y[at], p[at]))
        return [value, skill(metric, value, before)]

    value, over = bootstrap(of, len(y), gate)
    return {"labels": len(y), "value": value, "skill": over}


def _decided(
    version: registry.Version, windows: list[dict[str, Any]], settings: Drift
) -> tuple[Alarms, Alarms]:
    age = _age(version)
    return _changed(
        registry.opened(), version, lambda found: updated(found, windows, age, settings)
    )


def _changed(
    store: registry.Registry, version: registry.Version, change: Callable[[Alarms], Alarms]
) -> tuple[Alarms, Alarms]:
    """The alarms of a champion before and after a change, by one process at a time."""
    with store.lock() as still:
        known = json.loads(store.get(NOTE) or "{}")
        before = known.get(version.digest, {})
        after = change(before)
        if after != before:
            newest = dict(list((known | {version.digest: after}).items())[-50:])
            still()
            store.set(NOTE, json.dumps(newest, ensure_ascii=False))
    return before, after


def _said(
    alarms: list[dict[str, Any]], wanted: list[dict[str, Any]], windows: list[dict[str, Any]],
    waiting: int, settings: Drift,
) -> str:  # fmt: skip
    if wanted:
        return "; ".join(f"{a['id']}: {a['reason']}" for a in wanted)
    if told := [a["reason"] for a in alarms if a["status"] == "told"]:
        return f"{'; '.join(told)}, which a person has to look at"
    if running := _running({alarm["kind"]: alarm for alarm in alarms}):
        return running
    need = f"{settings.window.rows} rows and {settings.window.hours:g} hours"
    if not windows:
        return f"no window is complete, it takes {need}, and there are {waiting} rows"
    return f"no alarm in {len(windows)} windows"


def _running(alarms: Alarms) -> str:
    """What became of trainings that were started, in a sentence for each."""
    said = []
    for alarm in alarms.values():
        if alarm["status"] == "started":
            late = datetime.fromisoformat(alarm["started"]) < datetime.now(UTC) - PATIENCE
            still = "was killed, it seems" if late else "may still run"
            end = alarm["outcome"] or f"{still}: `ml retrain --again {alarm['id']}` starts another"
            said.append(f"{alarm['id']} had its training at {alarm['started']}, which {end}")
    return "; ".join(said)


def _age(version: registry.Version) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(version.created)).total_seconds() / 86_400


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="microseconds")


def _page(said: dict[str, Any]) -> None:
    folder = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(loader=folder, trim_blocks=True, lstrip_blocks=True, autoescape=True)
    environment.undefined, environment.filters["short"] = StrictUndefined, short
    text = environment.get_template("monitor.html").render(**said)
    with replacing(PAGE) as new:
        new.write_text(text, "utf-8")
