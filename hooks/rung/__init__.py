"""Rung: start, adopt, update and climb, with nothing lost. `rung --help` lists the commands."""

from .exceptions import RefusedError, RungError, UsageError

__all__ = ["RefusedError", "RungError", "UsageError"]
