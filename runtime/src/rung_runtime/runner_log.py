"""The log of a runner, which takes some lines for commands: a filter, so that none is by accident.

GitHub obeys a line that starts with `::NAME::`, after any white space, or has `##[NAME]` anywhere
(github.com/actions/runner, ActionCommand.cs); Azure one with `##vso[NAME]`; GitLab folds lines
between `section_start:…` and `section_end:…`, which need a carriage return and an escape character.
Such a line can set a variable, mask a word, stop all commands after it, or show an error that did
not occur. So what `ml` prints on a runner goes through a filter, which only `command` bypasses.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from .escaping import visible

COLONS = re.compile(r"^([^\S\n]*:)(?=:)", re.MULTILINE)
HASHES = re.compile(r"(##\w*)\[")
HASHES_TAIL = 20  # characters in which `##NAME` may begin what the next piece completes
RUNNER_VARIABLES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI")


class RunnerLog:
    """A text stream that writes to another one, in which no line is a command.

    What is written in pieces is judged as the line that it becomes: a space is inserted before the
    character that would make it a command.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.line = ""  # the present line, or what matters of it

    def write(self, text: str) -> int:
        """Write text, with invisible characters escaped and commands broken."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, not {type(text).__name__}")
        lines = self.line + visible(text.replace("\r\n", "\n"), keep="\n\t")
        lines = COLONS.sub(r"\1 ", lines)
        lines = HASHES.sub(r"\1 [", lines)
        self._pass_on(lines[len(self.line) :])
        last = lines.rpartition("\n")[2]
        # What may yet become a command: a line that is blank, or a colon; the end of any other.
        start = last.lstrip()
        self.line = start if start in ("", ":") else f"…{last[-HASHES_TAIL:]}"
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def command(self, text: str) -> None:
        """Write a command to the runner: a line that is written as it is."""
        if self.line.strip():
            self.stream.write("\n")
        self.line = ""
        self._pass_on(f"{text}\n")

    def _pass_on(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # a runner whose locale has no UTF-8
            self.stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))

    def __getattr__(self, name: str) -> Any:
        if (
            name == "buffer"
        ):  # of bytes, past this filter: Click writes to it where there is no UTF-8
            raise AttributeError(name)
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
    """Pass all that this process prints through the filter, if it runs on a runner."""
    stdout = sys.stdout
    stderr = sys.stderr
    is_runner = any(os.environ.get(name) for name in RUNNER_VARIABLES)
    is_filtered = isinstance(cast(object, stdout), RunnerLog)  # a step of `ml run` is its fork
    if is_filtered or not is_runner:
        yield
        return
    sys.stdout = cast(TextIO, RunnerLog(stdout))
    sys.stderr = cast(TextIO, RunnerLog(stderr))
    try:
        yield
    finally:
        sys.stdout = stdout
        sys.stderr = stderr
