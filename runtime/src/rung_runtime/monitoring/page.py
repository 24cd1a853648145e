"""The page `artifacts/monitor.html`: what both documents say, in plots and tables."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..artifacts import ARTIFACTS, atomic_write
from ..pipeline.formatting import short

PAGE = ARTIFACTS / "monitor.html"
TEMPLATES = Path(__file__).parents[1] / "templates"


def write_page(context: dict[str, Any]) -> None:
    """Write the page.

    Args:
        context: The names that `templates/monitor.html` uses.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["short"] = short
    text = environment.get_template("monitor.html").render(**context)
    with atomic_write(PAGE) as new:
        new.write_text(text, "utf-8")
