"""Report: documents → `report.html`, and `report.md`: a summary, and the card of a package."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..artifacts import ARTIFACTS, DOCUMENTS, STEPS, atomic_write, digest, read_fields
from ..config import Config
from ..escaping import cell, code, listed


def render(template: str, config: Config) -> str:
    """Fill in one of `templates/` from the documents that are there."""
    folder = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(loader=folder, trim_blocks=True, lstrip_blocks=True)
    environment.undefined, environment.autoescape = StrictUndefined, template.endswith(".html")
    environment.filters |= {"short": short, "ends": ends, "versus": versus}
    # What comes from data is quoted, so that it is read as nothing else.
    environment.filters |= {"code": code, "cell": cell, "listed": listed}
    environment.filters["compared"] = lambda comparison: versus(comparison, code)
    steps = {name: read_fields(name) for name, (path, *_) in STEPS.items() if path.exists()}
    if "gate" in steps:
        metrics = STEPS["evaluate"][0]
        judged_then = steps["gate"]["inputs"].get(str(metrics))
        if "evaluate" not in steps or judged_then != digest(metrics):
            del steps["gate"]  # the verdict on an earlier evaluation
    judged = steps.get("gate", {}).get("model_digest")
    controls = read_fields("controls") if DOCUMENTS["controls"].exists() else None
    if controls and controls["model_digest"] != judged:
        controls = None
    return environment.get_template(template).render(steps=steps, config=config, controls=controls)


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


def ends(interval: dict[str, float | None]) -> str:
    """The interval of a number, as a person reads it."""
    return " to ".join(short(interval[end]) for end in ("low", "high"))


def versus(comparison: dict[str, Any], quote: Callable[[object], str] = str) -> str:
    """How a model compares with the champion, in a sentence.

    Args:
        quote: What to do with names and reasons, which may come from data.
    """
    version = quote((comparison["champion"] or {}).get("version"))
    if comparison["kind"] == "first":
        return "There is no champion: this would be the first model."
    if comparison["kind"] == "same":
        return f"This is the champion, {version}, trained again: there is nothing to compare."
    if comparison["kind"] == "unreadable":
        reason = quote(comparison["reason"])
        return f"The champion, {version}, cannot predict this data: {reason}."
    if comparison["kind"] in ("unrecognised", "seen"):
        reason = quote(comparison["reason"])
        return (
            f"The champion, {version}, cannot be compared with: {reason}. Bring"
            " rows that are new to it, or name it in replaces of config/delivery.yaml."
        )
    metric = quote(comparison["metric"])
    ours, theirs, over = (ends(comparison[name]) for name in ("challenger", "own", "skill"))
    message = (
        f"On the {comparison['unseen']:,} rows that neither was trained on, {metric}"
        f" is {ours}, and that of the champion, {version}, {theirs}: a skill of {over} over it."
    )
    if recipes := comparison.get("recipes"):
        message += (
            f" These rows leave it open; trained anew on folds of {recipes['rows']:,} rows, this"
            f" recipe has a skill of {ends(recipes['skill'])} over the champion's."
        )
    if best := comparison.get("best"):
        skill = (best.get("recipes") or best)["skill"]
        name = quote(best["champion"]["version"])
        message += f" Over {name}, the best champion so far: {ends(skill)}."
    return message


def _openmetric(value: float | None) -> str:
    return "NaN" if value is None else str(value)


def write(config: Config) -> str:
    """Write `artifacts/report.md`, and return it.

    Once there is a model to show, `report.html` too, and `metrics.txt`: OpenMetrics, for platforms.
    """
    text, files = render("report.md", config), dict[str, str]()
    if DOCUMENTS["evaluate"].exists():
        found = read_fields("evaluate")["metrics"].items()
        lines = [f"{name} {_openmetric(metric['value'])}\n" for name, metric in found]
        files = {"report.html": render("report.html", config), "metrics.txt": "".join(lines)}
    for name, content in {**files, "report.md": text}.items():
        with atomic_write(ARTIFACTS / name) as new:
            new.write_text(content, "utf-8")
    return text
