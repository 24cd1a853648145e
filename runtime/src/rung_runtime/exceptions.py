"""What ends a command early, with one sentence: what, where, and what to do.

    RungError
    ├── UsageError      bad usage or bad input: exit code 2
    └── RefusedError    a contract, a gate or a check refused: exit code 1

The command `rung` has the same tree, in a package that does not import this one.
"""

import traceback
from pathlib import Path


class RungError(Exception):
    """A command cannot do what it was asked to; the message is one sentence for a person."""


class UsageError(RungError):
    """It was called wrongly, or its input or configuration is invalid."""


class RefusedError(RungError):
    """A contract, a gate or a check refused; a document says why."""


def describe(error: BaseException) -> str:
    """Return what an error of a library says, and the module and line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message} ({_module(last.filename)}, line {last.lineno})"


def _module(filename: str) -> str:
    """Return a file's path in its package, as a traceback's is long and of this machine."""
    path = Path(filename)
    parts = [path.name]
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        parts.insert(0, folder.name)
    return "/".join(parts)
