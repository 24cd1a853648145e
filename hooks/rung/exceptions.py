"""Every error that `rung` raises on purpose.

    RungError
    ├── UsageError     exit code 2
    └── RefusedError   exit code 1

The message is one sentence for the person who ran the command: what, where, and what to do.
"""

from typing import ClassVar


class RungError(Exception):
    """A command ends early."""

    exit_code: ClassVar[int]


class UsageError(RungError):
    """Invalid input, or something is missing that the command needs."""

    exit_code = 2


class RefusedError(RungError):
    """A check failed, or a person declined."""

    exit_code = 1
