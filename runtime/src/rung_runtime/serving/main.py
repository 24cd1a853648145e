"""`ml-serve PACKAGE`, the one command of a container; with `--check`, of the build of its image.

It may be told to end before it serves. The first process of a container gets no signal that it has
not asked for, so it asks before it imports what takes a second, and a model that may take many.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ..exceptions import UsageError
from ..isolation.confinement import keep_out


def main() -> None:
    """Run `ml-serve PACKAGE`, or `ml-serve --check PACKAGE`."""
    limit_threads()
    with ended_by_sigterm():
        keep_out()
        arguments = sys.argv[1:]
        if arguments[:1] == ["--check"]:
            _check(arguments[1:])
            return
        if not arguments:
            _fail("name the folder of a package")
        from ..config.delivery import load_delivery
        from .app import serve

        try:
            serve(Path(arguments[0]), load_delivery().service)
        except UsageError as error:
            _fail(str(error))


def limit_threads() -> None:
    """Have Polars use one thread, unless the environment says otherwise; called before its import.

    A few rows are not worth waking others for, and the event loop needs a core, too.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")


def _check(arguments: list[str]) -> None:
    """Tell whether a model answers with the libraries that are installed; exit code 1 if not."""
    if not arguments:
        _fail("name the folder of a package")
    from .loaded_model import why_not_answering

    if reason := why_not_answering(Path(arguments[0])):
        print(f"ml-serve: the model does not answer: {reason}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the process at once, with exit code 0: nobody has been answered yet.

    What serves replaces this while it runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _fail(message: str) -> NoReturn:
    print(f"ml-serve: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
