"""What ends a command early, with one sentence: what, where, and what to do.

    RungError
    ├── UsageError      bad usage or bad input: exit code 2
    └── RefusedError    a contract, a gate or a check refused: exit code 1

The command `rung` has the same tree, in a package that does not import this one.
"""


class RungError(Exception):
    """A command cannot do what it was asked to; the message is one sentence for a person."""


class UsageError(RungError):
    """It was called wrongly, or its input or configuration is invalid."""


class RefusedError(RungError):
    """A contract, a gate or a check refused; a document says why."""
