"""Gate: `metrics.json` → `gate.json` and the report. Refuses a model that fails a single check.

It reads documents alone, so that whoever has them can judge again.
"""

from operator import ge, gt, le
from typing import Any

from .. import Refused
from ..config import GATE, HIGHER_IS_BETTER, Config, Gate
from ..documents import DOCUMENTS, MODEL, STEPS, document, read
from . import report

CONSTANT = "skill over a constant, lower end"
RULES = {"≥": ge, ">": gt, "≤": le}


def step(config: Config) -> str:
    against = [DOCUMENTS[name] for name in STEPS if name == "compare"]  # from level 1
    with document("gate", DOCUMENTS["evaluate"], *against, MODEL, GATE) as said:
        metrics = read("evaluate")
        said["comparison"] = read("compare")["comparison"] if against else None
        said["checks"] = decide(metrics, config.gate, said["comparison"])
        said["model_digest"] = metrics["model"]["digest"]
        failed = [check for check in said["checks"] if check["verdict"] == "refused"]
        said["verdict"] = "refused" if failed else "passed"
    report.write(config)
    rows = [(c["check"], report.short(c["value"]), c) for c in failed or said["checks"]]
    if failed:
        lines = [f"{n}: {value} is not {c['rule']} {c['threshold']:.4g}" for n, value, c in rows]
        nothing = any(name == CONSTANT for name, *_ in rows)
        why = ", as the columns tell it too little of the target to beat a constant" * nothing
        raise Refused("\n  ".join([f"the gate refused this model{why}:", *lines]))
    lines = [f"{name}: {value} {c['rule']} {c['threshold']:.4g}" for name, value, c in rows]
    return "\n  ".join([f"passed all {len(rows)} checks:", *lines])


def decide(
    metrics: dict[str, Any], gate: Gate, comparison: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Judge a model by its metrics and, from level 1, by how it compares with the champion.

    Returns:
        Each check with `check`, `value`, `rule`, `threshold` and `verdict`; what has no value is
        refused.
    """
    over = {name: found["skill"] for name, found in metrics["baselines"].items()}
    model = metrics["model"]
    asked: list[tuple[str, float | None, str, float]] = []
    for name, threshold in gate.thresholds.items():
        up = name in HIGHER_IS_BETTER
        end = {"value": "value", "worse_end": "low" if up else "high"}[gate.judge]
        asked.append((name, metrics["metrics"][name][end], "≥" if up else "≤", threshold))
    # Surely better than knowing nothing; not surely worse than a linear model; no slice that is
    # surely below its skill.
    asked.append((CONSTANT, over["constant"]["low"], ">", gate.min_skill))
    asked.append(
        ("skill over linear, upper end", over["linear"]["high"], "≥", -gate.linear_tolerance)
    )
    known = [found for found in metrics["slices"] if found["skill"]["high"] is not None]
    if known:
        worst = min(known, key=lambda found: found["skill"]["high"])
        name = f"worst slice, {worst['column']} = {worst['value'] or '(gap)'}, upper end"
        asked.append((name, worst["skill"]["high"], ">", gate.slice_skill))
    asked += [
        ("calibration error", metrics["calibration"]["error"], "≤", gate.max_calibration_error),
        *leaks(metrics, gate),
        ("model size, MB", model["megabytes"], "≤", gate.max_megabytes),
        ("latency of a row, ms", model["latency_ms"], "≤", gate.max_latency_ms),
    ]
    if comparison and comparison["kind"] == "compared":
        # Equal within the tolerance is good enough: what learned from newer rows takes over.
        lost, weakest = -comparison["tolerance"], comparison["slices"][:1]
        asked.append(("skill over the champion, lower end", comparison["skill"]["low"], "≥", lost))
        for found in weakest:
            name = f"slice against the champion, {found['column']} = {found['value'] or '(gap)'}"
            asked.append((f"{name}, upper end", found["skill"]["high"], "≥", lost))
    if comparison and comparison["kind"] == "unreadable":
        named = float(comparison["replaces"] == comparison["champion"]["version"])
        asked.append(("champion that cannot be compared with is named in replaces", named, "≥", 1))
    names = ("check", "value", "rule", "threshold", "verdict")
    verdicts = [v is not None and bool(RULES[rule](v, bound)) for _, v, rule, bound in asked]
    judged = zip(asked, verdicts, strict=True)
    return [dict(zip(names, [*a, "passed" if ok else "refused"], strict=True)) for a, ok in judged]


# Of each kind of leak in `metrics.json`, what its number counts.
LEAKS = {
    "rows": "holdout rows that are copies of training rows",
    "groups": "holdout rows of a group that training knows",
    "future": "holdout rows that are not after the training rows",
    "encodings": "columns made of the holdout's target",
}


def leaks(metrics: dict[str, Any], gate: Gate) -> list[tuple[str, float | None, str, float]]:
    """Ask that nothing leaked, and that a person knows of each column that tells the target."""
    counted: list[tuple[str, float | None, str, float]] = [
        (LEAKS[kind], count, "≤", 0) for kind, count in metrics["leaks"].items()
    ]
    unknown = [name for name in metrics.get("alone", []) if name not in gate.predicts_alone]
    named = f" ({', '.join(unknown)}; see predicts_alone)" if unknown else ""
    return [*counted, (f"columns that predict the target alone{named}", len(unknown), "≤", 0)]
