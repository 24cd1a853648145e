"""The gate's verdict in words: each check, the reason of a refusal, and what to know besides."""

from ..config import HIGHER_IS_BETTER, Config
from ..escaping import visible
from ..records import Check, MetricsDocument
from .formatting import short
from .slices import sliced_columns

# From fewer rows of a class, an interval says little: as `intervals.MIN_CLASS_ROWS`.
MIN_CLASS_ROWS = 10
# A skill that is clearly above nothing, if there were rows enough to be sure of it.
CLEAR_SKILL = 0.1


def sentence(check: Check) -> str:
    """Return a check and its outcome as a person reads it."""
    name = visible(check.check)
    threshold = short(check.threshold)
    if check.value is None:
        return f"{name}: not defined on this holdout, and must be {check.rule} {threshold}"
    negation = "is not " if check.verdict == "refused" else ""
    return f"{name}: {short(check.value)} {negation}{check.rule} {threshold}"


def reason(metrics: MetricsDocument, failed: list[Check]) -> str:
    """Return why a model is not surely better than a constant; "" if that did not refuse it."""
    if all(check.id != "constant" for check in failed):
        return ""
    skill = metrics.baselines.constant.skill
    if skill.value is None or skill.low is None or skill.high is None:
        return ""
    if skill.high < 0:
        return ", which predicts worse than a constant: do training rows and holdout differ?"
    if skill.value < CLEAR_SKILL < linear_skill(metrics):
        return ", although a linear model does beat a constant"
    if skill.value > CLEAR_SKILL and skill.low <= 0:
        rows = f"{metrics.rows:,} rows"
        return f", as a holdout of {rows} is too small to tell it from a constant"
    if skill.low > 0:
        return ", as it beats a constant by less than min_skill asks for"
    return ", as the features do not carry enough signal to beat a constant"


def linear_skill(metrics: MetricsDocument) -> float:
    """Return the skill of the linear model over the constant; 0 where it is not defined."""
    best = 1.0 if metrics.metric in HIGHER_IS_BETTER else 0.0
    linear = metrics.baselines.linear.value
    constant = metrics.baselines.constant.value
    if linear is None or constant is None or constant == best:
        return 0.0
    return float((linear - constant) / (best - constant))


def notes(metrics: MetricsDocument) -> list[str]:
    """Return what to know before believing the intervals."""
    rarest = metrics.rarest
    if rarest is None or rarest.rows >= MIN_CLASS_ROWS:
        return []
    rows = "1 row" if rarest.rows == 1 else f"{rarest.rows} rows"
    return [f"note: the holdout has {rows} of class {rarest.class_}, so the intervals mean little"]


def slice_notes(metrics: MetricsDocument, config: Config) -> list[str]:
    """Return that no slice is judged, and why, if there are columns whose categories could be."""
    if not sliced_columns(config.data):
        return []
    if not metrics.slices:
        rows = config.gate.slice_rows
        return [
            f"note: no slice is judged, as no category has {rows} rows of the holdout (slice_rows)"
        ]
    if all(part.skill.high is None for part in metrics.slices):
        return [f"note: no slice is judged, as {metrics.metric} is not defined on any of them"]
    return []
