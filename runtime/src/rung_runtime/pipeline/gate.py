"""Gate: `metrics.json` → `gate.json` and the report. Refuses a model that fails a single check.

It reads documents alone, so that anyone who has them can judge again. docs/gate.md of the template
explains every check and every number.
"""

from operator import ge, gt, le

from .. import RefusedError
from ..artifacts import DOCUMENTS, MODEL, STEPS, read, step_record
from ..config import GATE, HIGHER_IS_BETTER, Config, Gate
from ..records import (
    BestComparison,
    Calibration,
    Check,
    Compared,
    Comparison,
    ComparisonDocument,
    GateDocument,
    Incomparable,
    Interval,
    MetricsDocument,
    ModelFacts,
    Ratio,
    Rule,
)
from . import report
from .fairness_text import RATES, fairness_notes
from .formatting import category, short
from .gate_text import notes, reason, sentence, slice_notes

RULES = {"≥": ge, ">": gt, "≤": le}
# The time of `latency.yardstick` on an ordinary machine. On a slower one, the limit of the latency
# grows in proportion.
YARDSTICK_MS = 1.0
# Of each kind of leak in `metrics.json`, what its number counts.
LEAKS = {
    "rows": "holdout rows that are copies of training rows",
    "groups": "holdout rows of a group that training knows",
    "future": "holdout rows that are not after the training rows",
    "encodings": "columns made of the holdout's target",
}


def step(config: Config) -> str:
    has_champion = "compare" in STEPS  # from level 1
    inputs = [DOCUMENTS["evaluate"], MODEL, GATE]
    if has_champion:
        inputs.insert(1, DOCUMENTS["compare"])
    with step_record("gate", *inputs) as record:
        metrics = read(MetricsDocument)
        comparison = read(ComparisonDocument).comparison if has_champion else None
        checks = decide(metrics, config.gate, comparison)
        all_notes = [
            *notes(metrics),
            *slice_notes(metrics, config),
            *fairness_notes(metrics, config.gate),
        ]
        failed = [check for check in checks if check.verdict == "refused"]
        record.document = GateDocument(
            comparison=comparison,
            checks=checks,
            notes=all_notes,
            model_digest=metrics.model.digest,
            verdict="refused" if failed else "passed",
        )
    report.write(config)
    if failed:
        first = f"the gate refused this model{reason(metrics, failed)}:"
        lines = [first, *map(sentence, failed), *all_notes]
        raise RefusedError("\n  ".join(lines))
    lines = [f"passed all {len(checks)} checks:", *map(sentence, checks), *all_notes]
    return "\n  ".join(lines)


def decide(
    metrics: MetricsDocument, gate: Gate, comparison: Comparison | None = None
) -> list[Check]:
    """Judge a model by its metrics and, from level 1, by how it compares with the champion."""
    return [
        *threshold_checks(metrics, gate),
        *baseline_checks(metrics, gate),
        *slice_checks(metrics, gate),
        *calibration_checks(metrics.calibration, gate),
        *fairness_checks(metrics, gate),
        *leak_checks(metrics, gate),
        *model_checks(metrics.model, gate),
        *champion_checks(comparison),
    ]


def judge_value(
    identity: str, name: str, value: float | None, rule: Rule, threshold: float
) -> Check:
    """Return the check of a value; an undefined value is refused.

    Args:
        identity: Its `id`, which stays the same when the name changes.
        name: What a person reads.
        value: What is checked; None if it is not defined.
        rule: How the value must relate to the threshold.
        threshold: The limit.
    """
    passed = value is not None and bool(RULES[rule](value, threshold))
    return Check(
        id=identity,
        check=name,
        value=value,
        rule=rule,
        threshold=threshold,
        verdict="passed" if passed else "refused",
    )


def threshold_checks(metrics: MetricsDocument, gate: Gate) -> list[Check]:
    """Judge each metric that has a threshold, by its value or by the worse end of its interval."""
    checks = []
    for name, threshold in gate.thresholds.items():
        higher_is_better = name in HIGHER_IS_BETTER
        interval = metrics.metrics[name]
        value = interval.value
        if gate.compare == "pessimistic":
            value = interval.low if higher_is_better else interval.high
        rule: Rule = "≥" if higher_is_better else "≤"
        checks.append(judge_value(f"threshold {name}", name, value, rule, threshold))
    return checks


def baseline_checks(metrics: MetricsDocument, gate: Gate) -> list[Check]:
    """Judge whether a model is surely better than a constant, and not surely worse than linear."""
    over_constant = metrics.baselines.constant.skill
    over_linear = metrics.baselines.linear.skill
    return [
        judge_value(
            "constant", "skill over a constant, lower end", over_constant.low, ">", gate.min_skill
        ),
        judge_value(
            "linear", "skill over linear, upper end", over_linear.high, "≥", -gate.linear_tolerance
        ),
    ]


def slice_checks(metrics: MetricsDocument, gate: Gate) -> list[Check]:
    """Judge whether the worst slice is surely below its skill, if any slice can be judged."""
    judged = [(part.skill.high, part) for part in metrics.slices if part.skill.high is not None]
    if not judged:
        return []
    high, worst = min(judged, key=lambda pair: pair[0])
    name = f"worst slice, {worst.column} = {category(worst.value)}, upper end"
    return [judge_value("slice", name, high, ">", gate.slice_skill)]


def calibration_checks(calibration: Calibration, gate: Gate) -> list[Check]:
    """Judge whether probabilities are surely wrong: of all rows, and of how many a class has."""
    # Documents of a release before 0.3 have no lower end.
    error = calibration.error if calibration.low is None else calibration.low
    limit = gate.max_calibration_error
    checks = [judge_value("calibration", "calibration error, lower end", error, "≤", limit)]
    if calibration.ratios:
        worst = max(calibration.ratios, key=certain_factor)
        name = (
            f"factor between observed and expected rows of class {worst.class_} "
            f"({worst.observed:,} and {short(worst.expected)}), lower end"
        )
        limit = gate.max_observed_expected
        checks.append(judge_value("observed expected", name, certain_factor(worst), "≤", limit))
    return checks


def certain_factor(rows: Ratio) -> float:
    """Return the factor by which observed and expected rows of a class surely differ; 1: none."""
    low = rows.ratio.low
    high = rows.ratio.high
    if low is None or high is None:
        return 1.0
    return float(max(low, 1 / max(high, 1e-9), 1.0))


def fairness_checks(metrics: MetricsDocument, gate: Gate) -> list[Check]:
    """Judge whether rates surely differ too much among groups; if so configured, surely do not."""
    fairness = gate.fairness
    if fairness is None:
        return []
    if metrics.fairness is None:
        return [judge_value("fairness", "groups that were compared", None, "≥", 2)]
    differences = fairness.limits(metrics.task, "difference")
    ratios = fairness.limits(metrics.task, "ratio")
    is_lenient = fairness.compare == "optimistic"
    checks = []
    for part in metrics.fairness:
        by = " and ".join(part.columns)
        # One column may be called as two together are.
        joined = " and ".join(repr(name) if " and " in name else name for name in part.columns)
        pair = f" ({part.highest} over {part.lowest})" if part.highest is not None else ""
        if part.rate in differences:
            value = part.difference.low if is_lenient else part.difference.high
            end = "lower end" if is_lenient else "upper end"
            name = f"difference in {RATES[part.rate]} by {by}{pair}, {end}"
            identity = f"fairness difference {part.rate} {joined}"
            checks.append(judge_value(identity, name, value, "≤", differences[part.rate]))
        if part.rate in ratios:
            ratio = part.ratio or Interval(value=None, low=None, high=None)
            value = ratio.high if is_lenient else ratio.low
            end = "upper end" if is_lenient else "lower end"
            name = f"ratio of {RATES[part.rate]}s by {by}, lowest to highest, {end}"
            identity = f"fairness ratio {part.rate} {joined}"
            checks.append(judge_value(identity, name, value, "≥", ratios[part.rate]))
    return checks


def leak_checks(metrics: MetricsDocument, gate: Gate) -> list[Check]:
    """Judge whether nothing leaked, and every column that tells the target alone is known."""
    checks = []
    for kind, name in LEAKS.items():
        count: int | None = getattr(metrics.leaks, kind)
        if count is not None:
            checks.append(judge_value(f"leaks {kind}", name, count, "≤", 0))
    unknown = [name for name in metrics.alone or [] if name not in gate.predicts_alone]
    listed = f" ({', '.join(unknown)}; see predicts_alone)" if unknown else ""
    name = f"columns that predict the target alone{listed}"
    return [*checks, judge_value("alone", name, len(unknown), "≤", 0)]


def model_checks(model: ModelFacts, gate: Gate) -> list[Check]:
    """Judge the size of a model, and the time that a prediction takes."""
    limit = latency_limit(model, gate)
    return [
        judge_value("size", "model size, MB", model.megabytes, "≤", gate.max_megabytes),
        judge_value("latency", "latency of a row, ms", model.latency_ms, "≤", limit),
    ]


def latency_limit(model: ModelFacts, gate: Gate) -> float:
    """Return the limit of the latency, in milliseconds, on the machine that measured it."""
    slowness = (model.yardstick_ms or 0.0) / YARDSTICK_MS
    return gate.max_latency_ms * max(1.0, slowness)


def champion_checks(comparison: Comparison | None) -> list[Check]:
    """Judge whether a model is no worse than the champion, and than the best champion so far."""
    if isinstance(comparison, Incomparable):
        accepted = float(comparison.replaces == comparison.champion.version)
        name = "champion that cannot be compared with is named in accept_incomparable"
        return [judge_value("incomparable champion", name, accepted, "≥", 1)]
    if not isinstance(comparison, Compared):
        return []
    # Equal within the tolerance is good enough: a model that learned from newer rows takes over.
    limit = -comparison.tolerance
    checks = rival_checks("champion", "the champion", comparison, limit)
    for part in comparison.slices[:1]:
        name = f"slice against the champion, {part.column} = {category(part.value)}, upper end"
        checks.append(judge_value("champion slice", name, part.skill.high, "≥", limit))
    if comparison.best:
        best = comparison.best
        checks += rival_checks("best champion", "the best champion so far", best, limit)
    return checks


def rival_checks(
    identity: str, rival: str, comparison: Compared | BestComparison, limit: float
) -> list[Check]:
    """Judge the skill over a rival by its lower end; if only recipes can tell, by theirs.

    Then the models themselves must not be surely worse.

    Args:
        identity: The `id` of the check; that of recipes is followed by `recipe`.
        rival: What a person reads.
        comparison: With the rival.
        limit: What the skill must reach.
    """
    skill: Interval = comparison.skill
    if comparison.recipes is None:
        return [judge_value(identity, f"skill over {rival}, lower end", skill.low, "≥", limit)]
    recipe_skill = comparison.recipes.skill
    name = f"skill of the recipe over {rival}, lower end"
    return [
        judge_value(identity, f"skill over {rival}, upper end", skill.high, "≥", limit),
        judge_value(f"{identity} recipe", name, recipe_skill.low, "≥", limit),
    ]
