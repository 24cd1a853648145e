"""Report: documents → `report.html`, and `report.md`: a summary, and the card of a package."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import UsageError
from ..artifacts import (
    ARTIFACTS,
    DOCUMENTS,
    STEPS,
    digest,
    read,
    read_step,
)
from ..atomic_file import atomic_write
from ..config import Config
from ..escaping import cell, code, listed
from ..records import (
    Comparison,
    Compiled,
    ControlsDocument,
    Document,
    ExplanationsDocument,
    GateDocument,
    MetricsDocument,
    PackageDocument,
)
from .fairness_text import RATES, panels
from .formatting import comparison_text, ends, short
from .private import private_columns, public

TEMPLATES = Path(__file__).parents[1] / "templates"


@cache
def _environment(is_html: bool) -> Environment:
    """Return what templates are compiled in, once for all reports of a process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        autoescape=is_html,
    )
    environment.filters |= {
        "short": short,
        "ends": ends,
        "versus": comparison_text,
        # What comes from data is quoted, so that Markdown shows it as it is.
        "code": code,
        "cell": cell,
        "listed": listed,
        "rate": RATES.__getitem__,
        "compared": _quoted_comparison,
    }
    return environment


def render(template: str, config: Config, compiled: Compiled | None = None) -> str:
    """Return one of `templates/`, filled in from the documents that are present.

    Args:
        template: Its name.
        config: Of the project.
        compiled: Whether the package has a compiled model, if there is a package.

    Raises:
        UsageError: A document is invalid or was edited.
    """
    steps = current_documents()
    gate = steps.get("gate")
    judged = gate.model_digest if isinstance(gate, GateDocument) else None
    controls = current_controls(judged)
    metrics = steps.get("evaluate")
    fairness = panels(metrics, config.gate) if isinstance(metrics, MetricsDocument) else []
    return (
        _environment(template.endswith(".html"))
        .get_template(template)
        .render(
            steps=steps,
            config=config,
            controls=controls,
            compiled=compiled,
            explanations=current_explanations(),
            fairness=fairness,
        )
    )


def _quoted_comparison(comparison: Comparison) -> str:
    return comparison_text(comparison, code)


def current_documents() -> dict[str, Document]:
    """Return the documents that are present, by step; a verdict on earlier metrics is not."""
    steps = {name: read_step(name) for name, (path, *_) in STEPS.items() if path.exists()}
    gate = steps.get("gate")
    if gate is not None:
        metrics = STEPS["evaluate"][0]
        judged = gate.inputs.get(str(metrics))
        if "evaluate" not in steps or judged != digest(metrics):
            del steps["gate"]
    return steps


def current_controls(model_digest: str | None) -> ControlsDocument | None:
    """Return what the controls of the base say about a model, if they say anything."""
    if not DOCUMENTS["controls"].exists():
        return None
    controls = read(ControlsDocument)
    return controls if controls.model_digest == model_digest else None


def current_explanations() -> ExplanationsDocument | None:
    """Return the explanations of the current model; None if there are none."""
    if not (DOCUMENTS["explain"].exists() and DOCUMENTS["evaluate"].exists()):
        return None
    try:
        explanations = read(ExplanationsDocument)
    except UsageError:  # damaged: nothing depends on it
        return None
    is_current = explanations.model_digest == read(MetricsDocument).model.digest
    return public(explanations, private_columns()) if is_current else None


def current_compiled() -> Compiled | None:
    """Return how the package of the current model answers; None if there is no package."""
    if not (DOCUMENTS["package"].exists() and DOCUMENTS["evaluate"].exists()):
        return None
    package = read(PackageDocument)
    is_current = package.model_digest == read(MetricsDocument).model.digest
    return package.compiled if is_current else None


def write(config: Config) -> str:
    """Write `artifacts/report.md`, and return it.

    Once there is a model to show, `report.html` too, and `metrics.txt`: OpenMetrics, for platforms.
    """
    text = render("report.md", config, current_compiled())
    files = {}
    if DOCUMENTS["evaluate"].exists():
        files["report.html"] = render("report.html", config)
        files["metrics.txt"] = openmetrics(read(MetricsDocument))
    files["report.md"] = text
    for name, content in files.items():
        with atomic_write(ARTIFACTS / name) as new:
            new.write_text(content, "utf-8")
    return text


def openmetrics(metrics: MetricsDocument) -> str:
    """Return the metrics as OpenMetrics has them, one a line."""
    lines = []
    for name, interval in metrics.metrics.items():
        value = "NaN" if interval.value is None else str(interval.value)
        lines.append(f"{name} {value}\n")
    return "".join(lines)
