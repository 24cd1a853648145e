"""Deliver: a registered version is tried, served and watched, or everything is as it was."""

from .deploy import deploy, rollback
from .status import smoke, status, stop
from .target import OWN_MACHINE_HINT, Target, rehearsal_platform

__all__ = [
    "OWN_MACHINE_HINT",
    "Target",
    "deploy",
    "rehearsal_platform",
    "rollback",
    "smoke",
    "status",
    "stop",
]
