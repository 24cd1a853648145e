"""Registry: versions of a model that never change, and the one of them that is the champion.

Where it is kept is up to an adapter, `adapters/registry_oci` or `adapters/registry_mlflow`.
"""

from .champion import (
    CHAMPION,
    HISTORY,
    POINTER,
    current_champion,
    earlier_champion,
    history,
    reference,
    refresh_champion_pointer,
    require_expected,
)
from .download import require_replaceable, staged_download
from .fetch import fetch_version
from .interface import Conflict, EnsureLease, Registry, Version
from .listing import print_versions
from .locks import LeaseTiming, file_lock, lease
from .promotion import promote, rollback
from .references import find_exact, open_registry, registry_location
from .registration import register
from .resolve import NEWEST, PREVIOUS, find

__all__ = [
    "CHAMPION",
    "HISTORY",
    "NEWEST",
    "POINTER",
    "PREVIOUS",
    "Conflict",
    "EnsureLease",
    "LeaseTiming",
    "Registry",
    "Version",
    "current_champion",
    "earlier_champion",
    "fetch_version",
    "file_lock",
    "find",
    "find_exact",
    "history",
    "lease",
    "open_registry",
    "print_versions",
    "promote",
    "reference",
    "refresh_champion_pointer",
    "register",
    "registry_location",
    "require_expected",
    "require_replaceable",
    "rollback",
    "staged_download",
]
