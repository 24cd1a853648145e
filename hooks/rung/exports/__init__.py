"""`rung export`: the project's graph as files of another system.

Each system has a folder here with a manifest, `export.toml`, and the Jinja templates of its files.
"""

from .export import export, list_systems, refresh

__all__ = ["export", "list_systems", "refresh"]
