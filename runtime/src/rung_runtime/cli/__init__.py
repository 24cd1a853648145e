"""The command `ml`. What is heavy is imported by the command that needs it."""

from .app import main

__all__ = ["main"]
