"""The log of a runner, which takes some lines for commands: none of ours is one by accident.

GitHub obeys a line that starts with `::NAME::`, behind any white space, or has `##[NAME]` anywhere
(github.com/actions/runner, ActionCommand.cs); Azure one with `##vso[NAME]`; GitLab folds lines
between `section_start:…` and `section_end:…`, which need a carriage return and an escape character.
Such a line can set a variable, mask a word, stop all commands after it, or show an error that is
not there. So what `ml` prints on a runner goes through a filter; `command` alone goes around it.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from .escaping import visible

_COLONS = re.compile(r"^([^\S\n]*:)(?=:)", re.MULTILINE)
_HASHES = re.compile(r"(##\w*)\[")


class RunnerLog:
    """A text stream that writes to another, no line of which is a command.

    What is written in pieces is judged as the line that it becomes: a space comes in before the
    character that would make it a command.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.line = ""  # so far, or what matters of it

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        whole = self.line + visible(text.replace("\r\n", "\n"), keep="\n\t")
        whole = _HASHES.sub(r"\1 [", _COLONS.sub(r"\1 ", whole))
        self.stream.write(whole[len(self.line) :])
        last = whole.rpartition("\n")[2]
        # What may yet become a command: a line that is blank, or a colon; the end of any other.
        start = last.lstrip()
        self.line = start if start in ("", ":") else f"…{last[-20:]}"
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def command(self, text: str) -> None:
        """Write a command to the runner: a line that is taken as it is."""
        start = "\n" if self.line.strip() else ""
        self.line = ""
        self.stream.write(f"{start}{text}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def command(text: str) -> None:
    """Print a command to the runner, past the filter if there is one."""
    stream: object = sys.stdout
    if isinstance(stream, RunnerLog):
        stream.command(text)
    else:
        sys.stdout.write(f"{text}\n")


@contextmanager
def filtered() -> Iterator[None]:
    """Have all that this process prints go through the filter, on a runner."""
    out, err = sys.stdout, sys.stderr
    is_runner = any(os.environ.get(name) for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI"))
    if not is_runner or isinstance(cast(object, out), RunnerLog):  # a step of `ml run` is its fork
        yield
        return
    sys.stdout = cast(TextIO, RunnerLog(out))
    sys.stderr = cast(TextIO, RunnerLog(err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
