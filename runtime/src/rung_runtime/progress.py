"""What a long command is doing, for the person who waits for it.

On a terminal, the present stage is a line that moves, with how far it is and how long it takes.
Everywhere else, as in the log of a CI job or in a pipe, a stage is one line once it has ended,
without control characters. All of it goes to stderr: what a command answers stays alone on stdout.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# Of a console that is not a terminal: a table is as wide as its content, and never cut.
PIPE_WIDTH = 10_000
_present: ContextVar["Stages | None"] = ContextVar("stages", default=None)


def open_console(stream: TextIO) -> "Console":
    """Return a console that takes a stream for a terminal only if it is one.

    Variables such as FORCE_COLOR would have a line move in a log, too.
    """
    from rich.console import Console

    is_terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=is_terminal,
        highlight=False,
        soft_wrap=True,
        width=None if is_terminal else PIPE_WIDTH,
    )


@contextmanager
def stages(quiet_until: str = "") -> Iterator[None]:
    """Show the stages that begin in this context; inside another one, they are shown there.

    Args:
        quiet_until: The first stage that takes long. Those before it have no lines until it begins,
            so that bad input is answered by one sentence alone.
    """
    if _present.get():
        yield
        return
    present = Stages(quiet_until)
    token = _present.set(present)
    try:
        yield
    except BaseException:
        present.fail()
        raise
    else:
        present.end()
        present.show_held()
    finally:
        _present.reset(token)


def begin(name: str) -> None:
    """End the present stage, and begin one."""
    if present := _present.get():
        present.begin(name)


def report(detail: str) -> None:
    """Show how far the present stage is, or what came of it."""
    if present := _present.get():
        present.report(detail)


class Stages:
    """The stages of a command, one after the other."""

    def __init__(self, quiet_until: str) -> None:
        self.console = open_console(sys.stderr)
        self.quiet_until = quiet_until
        self.held: list[str] | None = [] if quiet_until else None  # lines that are not shown yet
        self.name = ""  # of the present stage; "": there is none
        self.detail = ""
        self.started = 0.0
        self.line: Progress | None = None

    def begin(self, name: str) -> None:
        from .escaping import visible

        self.end()
        if name == self.quiet_until:
            self.show_held()
        self.name = visible(name)  # of a partition, which may hold anything
        self.detail = ""
        self.started = time.monotonic()
        if self.console.is_interactive:
            self.line = self._moving_line()
            self.line.start()

    def report(self, detail: str) -> None:
        self.detail = detail
        if self.line:
            self.line.update(self.line.task_ids[0], detail=detail)

    def end(self, mark: str = "[green]✓[/]") -> None:
        if not self.name:
            return
        if self.line:
            self.line.stop()
            self.line = None
        line = stage_line(mark, self.name, time.monotonic() - self.started, self.detail)
        if self.held is None:
            self.console.print(line)
        else:
            self.held.append(line)
        self.name = ""

    def fail(self) -> None:
        """End the present stage as one that failed."""
        self.end(mark="[red]✗[/]")
        self.held = None

    def show_held(self) -> None:
        """Show the lines that were held back, and all that follow."""
        for line in self.held or ():
            self.console.print(line)
        self.held = None

    def _moving_line(self) -> "Progress":
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        # What is wider than the terminal takes another line.
        line = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<9}", markup=False, table_column=Column(overflow="fold")),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(overflow="fold")),
            console=self.console,
            transient=True,
        )
        line.add_task(self.name, total=None, detail=self.detail)
        return line


def stage_line(mark: str, name: str, seconds: float, outcome: str) -> str:
    """Return the line of a stage that has ended, in rich's markup."""
    from rich.markup import escape

    from .escaping import visible

    text = escape(visible(outcome, keep="\n"))
    return f"{mark} {escape(f'{name:<9}')} [dim]{seconds:4.1f} s[/]  {text}".rstrip()
