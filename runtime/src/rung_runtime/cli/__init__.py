"""The command `ml`. What is heavy is imported by the command that needs it."""

from .start import main

__all__ = ["main"]
