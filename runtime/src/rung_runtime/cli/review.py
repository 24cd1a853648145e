"""The commands for a pull request: what it changes of the gate, and the comment on it."""

import os
from typing import Annotated

import typer
from typer import Option

from .. import UsageError
from .parts import load_part


def show_controls(
    base: Annotated[str, Option(envvar="ML_BASE", help="A commit of this clone, to compare with.")],
    head: Annotated[
        str | None, Option(envvar="ML_HEAD", help="Another commit, instead of this checkout.")
    ] = None,
) -> None:
    """Print what differs in settings of gate, delivery and service.

    The output is a Markdown table.
    """
    controls = load_part("controls")
    if table := controls.table(controls.compared(base, head or None).changes):
        typer.echo(table)
    else:
        typer.echo(f"no setting differs from {base}", err=True)


def comment() -> None:
    """Write or update the report comment on a pull request."""
    from ..config import load
    from ..escaping import cell, code
    from ..pipeline import report

    platform = load_part("ci_platform").require_platform()
    settings = load()
    jobs = platform.jobs()
    try:
        text = report.write(settings)
    except Exception as error:  # of documents that the request's own code has made
        reason = code(f"{type(error).__name__}: {error}", 500)
        text = f"# Predicting {code(settings.data.target)}\n\n❌ There is no report: {reason}\n"
    marks = {"success": "✅", "skipped": "not run"}
    rows = []
    for name, result in jobs.items():
        mark = f"❌ {result if result.isalpha() else cell(result)}"
        rows.append(f"| {cell(name)} | {marks.get(result, mark)} |")
    table = "\n".join(["", "## Jobs", "", "| | |", "|---|---|", *rows, ""]) if jobs else ""
    base = os.environ.get("ML_BASE")
    head = os.environ.get("ML_HEAD")
    if base and head:  # told by this job, and not by documents of the request
        controls = load_part("controls")
        try:
            changes = controls.table(controls.compared(base, head).changes)
        except UsageError as error:  # else a comment of before would stay
            changes = f"❌ It cannot be read: {code(error, 500)}"
        about = "\n## Gate, delivery and service\n\nThis request changes their settings, says Git:"
        table += f"{about}\n\n{changes}\n" if changes else ""
    reason = platform.comment(text, table)
    typer.echo(f"no comment: {reason}" if reason else "the comment is up to date")
