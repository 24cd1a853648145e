"""Gate: `metrics.json` → `gate.json` and the report. Refuses a model that fails a single check.

It reads documents alone, so that whoever has them can judge again. docs/gate.md of the template
explains every check and every number.
"""

from operator import ge, gt, le
from typing import Any

from .. import RefusedError
from ..artifacts import DOCUMENTS, MODEL, STEPS, read_fields, step_record
from ..config import GATE, HIGHER_IS_BETTER, Config, Gate
from ..escaping import visible
from ..records import GateDocument
from . import report

RULES = {"≥": ge, ">": gt, "≤": le}
# What `evaluate.yardstick` takes on an ordinary machine. On a slower one the limit of the latency
# grows as much.
YARDSTICK_MS = 1.0
# From fewer rows of a class, an interval says little: as intervals.MIN_CLASS_ROWS.
FEW = 10
# A skill that is more than nothing, if there were rows enough to be sure of it.
CLEAR = 0.1


def step(config: Config) -> str:
    against = [DOCUMENTS[name] for name in STEPS if name == "compare"]  # from level 1
    with step_record("gate", DOCUMENTS["evaluate"], *against, MODEL, GATE) as record:
        said: dict[str, Any] = {}
        metrics = read_fields("evaluate")
        said["comparison"] = read_fields("compare")["comparison"] if against else None
        said["checks"] = decide(metrics, config.gate, said["comparison"])
        said["notes"] = notes(metrics)
        said["model_digest"] = metrics["model"]["digest"]
        failed = [check for check in said["checks"] if check["verdict"] == "refused"]
        said["verdict"] = "refused" if failed else "passed"
        record.document = GateDocument.model_validate(said)
    report.write(config)
    if failed:
        lines = [sentence(check) for check in failed] + said["notes"]
        why = reason(metrics, failed)
        raise RefusedError("\n  ".join([f"the gate refused this model{why}:", *lines]))
    lines = [sentence(check) for check in said["checks"]] + said["notes"]
    return "\n  ".join([f"passed all {len(said['checks'])} checks:", *lines])


def sentence(check: dict[str, Any]) -> str:
    """Return a check and its outcome as a person reads it."""
    rule, threshold = check["rule"], report.short(check["threshold"])
    name = visible(check["check"])
    if check["value"] is None:
        return f"{name}: not defined on this holdout, and must be {rule} {threshold}"
    negation = "is not " if check["verdict"] == "refused" else ""
    return f"{name}: {report.short(check['value'])} {negation}{rule} {threshold}"


def reason(metrics: dict[str, Any], failed: list[dict[str, Any]]) -> str:
    """Return why a model is not surely better than a constant, if that refused it."""
    if all(check["id"] != "constant" for check in failed):
        return ""
    over = {name: baseline["skill"] for name, baseline in metrics["baselines"].items()}
    rows, gained = f"{metrics['rows']:,} rows", over["constant"]
    if gained["value"] is None:
        return ""
    if gained["high"] < 0:
        return ", which predicts worse than a constant: do training rows and holdout differ?"
    if gained["value"] < CLEAR < linear_skill(metrics):
        return ", although a linear model does beat a constant"
    if gained["value"] > CLEAR and gained["low"] <= 0:
        return f", as a holdout of {rows} is too small to tell it from a constant"
    if gained["low"] > 0:
        return ", as it beats a constant by less than min_skill asks for"
    return ", as the features do not carry enough signal to beat a constant"


def linear_skill(metrics: dict[str, Any]) -> float:
    """Return the skill of the linear model over the constant; 0 where it is not defined."""
    best = 1.0 if metrics["metric"] in HIGHER_IS_BETTER else 0.0
    linear, constant = (metrics["baselines"][name]["value"] for name in ("linear", "constant"))
    if linear is None or constant is None or constant == best:
        return 0.0
    return float((linear - constant) / (best - constant))


def notes(metrics: dict[str, Any]) -> list[str]:
    """Return what to know before believing the intervals."""
    rarest = metrics.get("rarest")
    if not rarest or rarest["rows"] >= FEW:
        return []
    rows = "1 row" if rarest["rows"] == 1 else f"{rarest['rows']} rows"
    return [
        f"note: the holdout has {rows} of class {rarest['class']}, so the intervals mean little"
    ]


def check(
    identity: str, name: str, value: float | None, rule: str, threshold: float
) -> dict[str, Any]:
    """Judge a value; what has no value is refused.

    Args:
        identity: Its `id`, which stays the same whatever the name says.
    """
    passed = value is not None and bool(RULES[rule](value, threshold))
    return {
        "id": identity,
        "check": name,
        "value": value,
        "rule": rule,
        "threshold": threshold,
        "verdict": "passed" if passed else "refused",
    }


def decide(
    metrics: dict[str, Any], gate: Gate, comparison: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Judge a model by its metrics and, from level 1, by how it compares with the champion.

    Returns:
        Each check with `id`, `check`, `value`, `rule`, `threshold` and `verdict`.
    """
    over = {name: baseline["skill"] for name, baseline in metrics["baselines"].items()}
    checks = []
    for name, threshold in gate.thresholds.items():
        higher = name in HIGHER_IS_BETTER
        end = {"value": "value", "worse_end": "low" if higher else "high"}[gate.judge]
        value = metrics["metrics"][name][end]
        checks.append(check(f"threshold {name}", name, value, "≥" if higher else "≤", threshold))
    # Surely better than knowing nothing; not surely worse than a linear model; no slice that is
    # surely below its skill.
    lowest, highest = over["constant"]["low"], over["linear"]["high"]
    checks += [
        check("constant", "skill over a constant, lower end", lowest, ">", gate.min_skill),
        check("linear", "skill over linear, upper end", highest, "≥", -gate.linear_tolerance),
    ]
    known = [part for part in metrics["slices"] if part["skill"]["high"] is not None]
    if known:
        worst = min(known, key=lambda part: float(part["skill"]["high"]))
        name = f"worst slice, {worst['column']} = {worst['value'] or '(gap)'}, upper end"
        checks.append(check("slice", name, worst["skill"]["high"], ">", gate.slice_skill))
    model = metrics["model"]
    checks += [
        *calibrated(metrics["calibration"], gate),
        *leaks(metrics, gate),
        check("size", "model size, MB", model["megabytes"], "≤", gate.max_megabytes),
        check("latency", "latency of a row, ms", model["latency_ms"], "≤", slowest(model, gate)),
    ]
    return checks + against_champion(comparison)


def calibrated(found: dict[str, Any], gate: Gate) -> list[dict[str, Any]]:
    """Ask that probabilities are not surely wrong: of all rows, and of how many a class has."""
    # Documents of before 0.3 have no lower end.
    error = found.get("low", found["error"])
    limit = gate.max_calibration_error
    checks = [check("calibration", "calibration error, lower end", error, "≤", limit)]
    if ratios := found.get("ratios"):
        worst = max(ratios, key=surely_off)
        name = (
            f"factor between observed and expected rows of class {worst['class']} "
            f"({worst['observed']:,} and {report.short(worst['expected'])}), lower end"
        )
        limit = gate.max_observed_expected
        checks.append(check("observed expected", name, surely_off(worst), "≤", limit))
    return checks


def surely_off(found: dict[str, Any]) -> float:
    """Return the factor by which observed and expected rows of a class surely differ, 1 if none."""
    low, high = found["ratio"]["low"], found["ratio"]["high"]
    return float(max(low, 1 / max(high, 1e-9), 1.0))


def slowest(model: dict[str, Any], gate: Gate) -> float:
    """Return the limit of the latency, in milliseconds, for the machine that it was measured on."""
    return gate.max_latency_ms * max(1.0, float(model.get("yardstick_ms", 0.0)) / YARDSTICK_MS)


def against_champion(comparison: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Judge whether a model is no worse than the champion, and than the best champion so far."""
    if not comparison:
        return []
    checks = []
    if comparison["kind"] == "compared":
        # Equal within the tolerance is good enough: what learned from newer rows takes over.
        lost = -comparison["tolerance"]
        checks += no_worse(comparison, "the champion", lost)
        for part in comparison["slices"][:1]:
            name = f"slice against the champion, {part['column']} = {part['value'] or '(gap)'}"
            value = part["skill"]["high"]
            checks.append(check("champion slice", f"{name}, upper end", value, "≥", lost))
        if "best" in comparison:
            checks += no_worse(comparison["best"], "the best champion so far", lost)
    if comparison["kind"] in ("unreadable", "unrecognised", "seen"):
        named = float(comparison["replaces"] == comparison["champion"]["version"])
        name = "champion that cannot be compared with is named in replaces"
        checks.append(check("incomparable champion", name, named, "≥", 1))
    return checks


def no_worse(found: dict[str, Any], whom: str, lost: float) -> list[dict[str, Any]]:
    """Judge a comparison by the lower end; if only recipes can tell, by theirs.

    Then the models themselves must not be surely worse.
    """
    recipes = found.get("recipes")
    if recipes is None:
        name = f"skill over {whom}, lower end"
        return [check("champion", name, found["skill"]["low"], "≥", lost)]
    name = f"skill of the recipe over {whom}, lower end"
    return [
        check("champion", f"skill over {whom}, upper end", found["skill"]["high"], "≥", lost),
        check("champion recipe", name, recipes["skill"]["low"], "≥", lost),
    ]


# Of each kind of leak in `metrics.json`, what its number counts.
LEAKS = {
    "rows": "holdout rows that are copies of training rows",
    "groups": "holdout rows of a group that training knows",
    "future": "holdout rows that are not after the training rows",
    "encodings": "columns made of the holdout's target",
}


def leaks(metrics: dict[str, Any], gate: Gate) -> list[dict[str, Any]]:
    """Ask that nothing leaked, and that a person knows of each column that tells the target."""
    counted = [
        check(f"leaks {kind}", LEAKS[kind], count, "≤", 0)
        for kind, count in metrics["leaks"].items()
    ]
    unknown = [name for name in metrics.get("alone", []) if name not in gate.predicts_alone]
    named = f" ({', '.join(unknown)}; see predicts_alone)" if unknown else ""
    name = f"columns that predict the target alone{named}"
    return [*counted, check("alone", name, len(unknown), "≤", 0)]
