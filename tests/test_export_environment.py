"""Exports tell a failure of `uv run`, which prepares the environment, from a verdict of `ml`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader
from rung.exports.export import SYSTEMS

OFFLINE = (
    "Using CPython 3.11\nerror: Failed to fetch: `https://index.test/typer/`\n  cause: error\n"
)
USAGE = "Usage: ml train [OPTIONS]\n\nError: No such option: --x\n"
REFUSED = "error: a library's own line\nml: the gate refused this model\n"


def run(folder: Path, text: str, code: int) -> tuple[int, str]:
    """Run the function `ml` that exported Python files have, with a stand-in for `uv run ml`."""
    (folder / "uv.py").write_text(f"import sys\nsys.stderr.write({text!r})\nsys.exit({code})\n")
    environment = Environment(loader=FileSystemLoader(SYSTEMS), trim_blocks=True)
    settings = SimpleNamespace(command=[sys.executable, "uv.py"], timeout_minutes=1)
    macros: Any = environment.get_template("python.jinja").make_module(
        {"settings": settings, "depth": 0}
    )
    head = "import os, subprocess\nfrom pathlib import Path\nfrom threading import Timer\n"
    names: dict[str, Any] = {"__file__": str(folder / "dag.py")}
    exec(head + macros.constants() + macros.ml("str"), names)
    ended: tuple[int, str] = names["ml"](["train"])
    return ended


@pytest.mark.parametrize("code", [1, 2])
def test_an_environment_that_uv_cannot_prepare_is_no_verdict(tmp_path: Path, code: int) -> None:
    reason = "uv could not prepare the environment: Failed to fetch: `https://index.test/typer/`"
    assert run(tmp_path, OFFLINE, code) == (75, reason)


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        (REFUSED, 1, "ml: the gate refused this model"),
        ("ml: rows.csv is missing\n", 2, "ml: rows.csv is missing"),
        (USAGE, 2, "exit code 2"),
        (OFFLINE, 70, "exit code 70"),
    ],
)
def test_what_ml_ends_with_stays_as_it_is(
    tmp_path: Path, text: str, code: int, reason: str
) -> None:
    assert run(tmp_path, text, code) == (code, reason)
