"""Adapters: each system that can take a slot has a folder here, with a manifest, `adapter.toml`.

`[tool.rung]` of pyproject.toml names those that a project uses. One of your own comes with an entry
point of the group `rung.adapters`, called like a folder here, such as `registry_artifactory`; it
goes before a folder of that name.
"""

from .loading import CHOSEN, GROUP, load, missing_library, names
from .tracker import Recorded, Tracker

__all__ = ["CHOSEN", "GROUP", "Recorded", "Tracker", "load", "missing_library", "names"]
