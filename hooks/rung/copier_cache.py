"""Copier, without the work that it repeats for each file.

For each file of a project, Copier 9.19 asks Git for one and the same setting, and renders each
part of its path, and the name of the file of answers beside it, as a Jinja template. That is four
fifths of what a copy takes. Here it is done once, or not at all for a text without an expression:
the results are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import Template
from jinja2.sandbox import SandboxedEnvironment

from .process import run

SYNC = "_sync_git_index_executable_bit"
RENDER = "_render_string"
ANSWERS = "answers_relpath"


@contextmanager
def repeating_nothing() -> Iterator[None]:
    """Have Copier do so in this context; a release without such a method does as it always did."""
    from copier import _main

    worker = getattr(_main, "Worker", None)
    faster: dict[str, Callable[[Any], Any]] = {
        SYNC: syncing_where_it_matters,
        RENDER: rendering_expressions,
        ANSWERS: naming_the_answers_once,
    }
    before = {name: getattr(worker, name) for name in faster if hasattr(worker, name)}
    compile_template = SandboxedEnvironment.from_string
    SandboxedEnvironment.from_string = compiling_once(compile_template)  # type: ignore[method-assign]
    for name, method in before.items():
        setattr(worker, name, faster[name](method))
    try:
        yield
    finally:
        SandboxedEnvironment.from_string = compile_template  # type: ignore[method-assign]
        for name, method in before.items():
            setattr(worker, name, method)


def rendering_expressions(render: Callable[..., str]) -> Callable[..., str]:
    """Return Copier's method that renders a text, which leaves one alone that Jinja would."""

    def render_string(self: Any, string: Any, *args: Any, **options: Any) -> str:
        is_plain = isinstance(string, str) and has_no_expression(self.jinja_env, string)
        return string if is_plain else render(self, string, *args, **options)

    return render_string


def has_no_expression(environment: SandboxedEnvironment, text: str) -> bool:
    """Return whether a text comes out of Jinja as it went in, whatever the answers are."""
    marks = [
        environment.block_start_string,
        environment.variable_start_string,
        environment.comment_start_string,
        environment.line_statement_prefix or "\n",
        environment.line_comment_prefix or "\n",
        "\n",  # the last one is cut off
        "\r",  # becomes one
    ]
    return not any(mark in text for mark in marks)


def naming_the_answers_once(named: property) -> property:
    """Return Copier's property for the file of answers, which is found once for each name."""
    known: WeakKeyDictionary[SandboxedEnvironment, dict[str, Path]] = WeakKeyDictionary()

    def answers_relpath(self: Any) -> Any:
        if not isinstance(self.jinja_env, SandboxedEnvironment):
            return named.__get__(self)
        text = str(self.answers_file or self.template.answers_relpath)
        if not has_no_expression(self.jinja_env, text):
            return named.__get__(self)
        paths = known.setdefault(self.jinja_env, {})
        if text not in paths:
            paths[text] = Path(text)
        return paths[text]

    return property(answers_relpath)


def compiling_once(compile_template: Callable[..., Template]) -> Callable[..., Template]:
    """Return `from_string` of an environment that compiles each text once."""
    compiled: WeakKeyDictionary[SandboxedEnvironment, dict[str, Template]] = WeakKeyDictionary()

    def from_string(
        self: SandboxedEnvironment, source: Any, *args: Any, **options: Any
    ) -> Template:
        if args or options or not isinstance(source, str):
            return compile_template(self, source, *args, **options)
        known = compiled.setdefault(self, {})
        if source not in known:
            known[source] = compile_template(self, source)
        return known[source]

    return from_string


def syncing_where_it_matters(sync: Callable[..., None]) -> Callable[..., None]:
    """Return Copier's method for a file's executable bit, which asks Git once for each folder.

    The method does nothing unless Git ignores the mode of files there.
    """
    ignoring: dict[Path, bool] = {}

    def sync_executable_bit(self: Any, path: Path, mode: int) -> None:
        folder = self.subproject.local_abspath
        if folder not in ignoring:
            setting = run(["git", "config", "--type=bool", "--get", "core.fileMode"], folder)
            ignoring[folder] = setting.text.strip() == "false"
        if ignoring[folder]:
            sync(self, path, mode)

    return sync_executable_bit
