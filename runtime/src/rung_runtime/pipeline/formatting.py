"""Numbers, intervals and comparisons, as people write them."""

import math
from collections.abc import Callable

from ..records import Compared, Comparison, FairnessChange, Incomparable, Interval

MISSING = "(missing)"  # the category of rows without a value


def short(value: float | None) -> str:
    """Return a number as people write it: 23,520, 0.7133 or 0.00012."""
    if value is None:
        return "unknown"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e15 or size < 1e-6:
        return f"{value:.3g}"
    if size >= 999.95:
        return f"{value:,.0f}"
    decimals = 3 - math.floor(math.log10(size))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def category(value: str | None) -> str:
    """Return the value of a category for a person: None is a missing one, "" an empty text."""
    if value is None:
        return MISSING
    return value or '""'


def ends(interval: Interval) -> str:
    """Return the ends of an interval: 0.68 to 0.75."""
    return f"{short(interval.low)} to {short(interval.high)}"


def comparison_text(comparison: Comparison, quote: Callable[[object], str] = str) -> str:
    """Return in a sentence how a model compares with the champion.

    Args:
        comparison: Its result.
        quote: Applied to names and reasons, which may come from data.
    """
    if isinstance(comparison, Compared):
        return _compared_text(comparison, quote)
    if comparison.champion is None:
        return "There is no champion: this would be the first model."
    version = quote(comparison.champion.version)
    if not isinstance(comparison, Incomparable):
        return f"This is the champion, {version}, trained again: there is nothing to compare."
    reason = quote(comparison.reason)
    if comparison.kind == "unreadable":
        return f"The champion, {version}, cannot predict this data: {reason}."
    return (
        f"The champion, {version}, cannot be compared with: {reason}. Bring"
        " rows that are new to it, or name it in accept_incomparable of config/delivery.yaml."
    )


def _compared_text(comparison: Compared, quote: Callable[[object], str]) -> str:
    version = quote(comparison.champion.version)
    rows = "rows" if comparison.unseen is None else f"{comparison.unseen:,} rows"
    text = (
        f"On the {rows} that neither was trained on, {quote(comparison.metric)}"
        f" is {ends(comparison.challenger)}; that of the champion, {version}, is"
        f" {ends(comparison.own)}. The skill over the champion is {ends(comparison.skill)}."
    )
    if recipes := comparison.recipes:
        text += (
            f" These rows do not decide it: trained again on folds of {recipes.rows:,} rows, this"
            f" recipe has a skill of {ends(recipes.skill)} over the champion's."
        )
    if best := comparison.best:
        skill = best.recipes.skill if best.recipes else best.skill
        name = quote(best.champion.version)
        text += f" Over {name}, the best champion so far, it is {ends(skill)}."
    worse = [part for part in comparison.fairness or [] if (part.change.low or 0.0) > 0]
    if worse:
        rates = [f"{part.rate.replace('_', ' ')} by {_columns(part, quote)}" for part in worse]
        text += f" Groups are surely further apart than with the champion in {', '.join(rates)}."
    return text


def _columns(part: FairnessChange, quote: Callable[[object], str]) -> str:
    return " and ".join(map(quote, part.columns))
