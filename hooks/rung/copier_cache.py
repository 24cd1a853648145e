"""Copier, without the work that it repeats for each file.

For each file of a project, Copier 9.19 asks Git for one and the same setting, and compiles each
part of its path, and the name of the file of answers beside it, as a Jinja template. That is two
thirds of what a copy takes. Here it is done once: the results are the same.
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


@contextmanager
def repeating_nothing() -> Iterator[None]:
    """Have Copier do so in this context; a release without such a method does as it always did."""
    from copier import _main

    worker = getattr(_main, "Worker", None)
    sync = getattr(worker, SYNC, None)
    compile_template = SandboxedEnvironment.from_string
    SandboxedEnvironment.from_string = compiling_once(compile_template)  # type: ignore[method-assign]
    if sync:
        setattr(worker, SYNC, syncing_where_it_matters(sync))
    try:
        yield
    finally:
        SandboxedEnvironment.from_string = compile_template  # type: ignore[method-assign]
        if sync:
            setattr(worker, SYNC, sync)


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
