"""The code of the pages in docs/howto: where each block belongs in a project."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PAGES = Path(__file__).resolve().parent.parent / "docs/howto"
BLOCK = re.compile(r"^```python\n# (?P<place>\S+)\n(?P<code>.*?)^```$", re.M | re.S)
LAST_LINE = '    raise ValueError(\n        f"unknown estimator'


def blocks(page: str) -> list[tuple[str, str]]:
    """Return where each block of Python on a page belongs, and the block."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    page_blocks = [(match["place"], match["code"]) for match in BLOCK.finditer(text)]
    assert len(page_blocks) == text.count("```python"), (
        f"{page}: a block does not say where it belongs"
    )
    return page_blocks


def follow_block(problem: Path, place: str, code: str) -> None:
    """Put a block where it belongs: into `estimator`, below TRUSTED, or at the end of a module."""
    model = problem / "model.py"
    text = model.read_text("utf-8")
    if place == "estimator()":
        assert text.count(LAST_LINE) == 1
        model.write_text(text.replace(LAST_LINE, textwrap.indent(code, "    ") + LAST_LINE))
    elif place == "problem/model.py":
        model.write_text(text.replace("PENALTIES = ", f"{code}PENALTIES = ", 1))
    else:
        file = problem.parent / place
        before = file.read_text("utf-8") + "\n\n" if file.exists() else ""
        file.write_text(before + code)
