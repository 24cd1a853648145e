"""While another program works: a line that moves on a terminal, one line everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .process import CompletedCommand, run

if TYPE_CHECKING:
    from rich.console import Console

DETAIL_WIDTH = 60  # characters of what the program says


def run_with_progress(command: Sequence[str], folder: Path, name: str) -> CompletedCommand:
    """Run a command, and show a name, the time that it takes, and the last line that it printed.

    What it printed as a whole is shown if it fails.

    Args:
        command: A program and its arguments.
        folder: The working directory.
        name: What is being done, in a word or two.
    """
    console = open_console()
    started = time.monotonic()
    with moving_line(name) as show:
        result = run(command, folder, output="merged", report=show)
    mark = "[green]✓[/]" if result.succeeded else "[red]✗[/]"
    console.print(f"{mark} {name} [dim]{time.monotonic() - started:.1f} s[/]")
    if not result.succeeded:
        console.print(result.text.rstrip(), markup=False)
    return result


@contextmanager
def moving_line(name: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being done, and how long it takes; nothing of it stays.

    Yields:
        What shows a detail behind it.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = open_console()
    line = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    )
    task = line.add_task(name, total=None, detail="")
    with line:
        yield lambda text: line.update(task, detail=text.strip()[:DETAIL_WIDTH])


def open_console() -> Console:
    """Return the console of standard error, a terminal only if it is one."""
    from rich.console import Console  # slow to import

    return Console(
        file=sys.stderr, force_terminal=sys.stderr.isatty(), highlight=False, soft_wrap=True
    )
