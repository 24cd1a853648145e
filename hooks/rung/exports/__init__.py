"""`rung export`: the project's graph as files of another system.

Each system has a folder here with a manifest, `export.toml`, and the Jinja templates of its files;
`test.toml` says how this repository runs them.
"""

from .export import check_all, export, graph_name, list_systems, refresh, render

__all__ = ["check_all", "export", "graph_name", "list_systems", "refresh", "render"]
