"""The page `artifacts/monitor.html`: what both documents say, in plots and tables."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..artifacts import ARTIFACTS
from ..atomic_file import atomic_write
from ..pipeline.formatting import short
from ..records import DriftDocument, MonitorDocument

PAGE = ARTIFACTS / "monitor.html"
TEMPLATES = Path(__file__).parents[1] / "templates"


def write_page(
    monitor: MonitorDocument,
    drift: DriftDocument,
    *,
    started: str,
    headline: str,
    times: Sequence[str],
) -> None:
    """Write the page.

    Args:
        monitor: The decision.
        drift: Of each column.
        started: When the monitor was, as documents have a time.
        headline: The decision in a sentence.
        times: The columns that are datetimes.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["short"] = short
    text = environment.get_template("monitor.html").render(
        monitor=monitor.content(), drift=drift.windows, at=started, headline=headline, times=times
    )
    with atomic_write(PAGE) as new:
        new.write_text(text, "utf-8")
