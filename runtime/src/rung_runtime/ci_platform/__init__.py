"""CI platform: the provider whose runner this is, by an adapter for each that a project uses."""

from .api import ApiError, call_api, pages, variable
from .comments import MARK, author_field, is_marked, render_comment
from .interface import Platform, current_platform, registry_credentials, require_platform

__all__ = [
    "MARK",
    "ApiError",
    "Platform",
    "author_field",
    "call_api",
    "current_platform",
    "is_marked",
    "pages",
    "registry_credentials",
    "render_comment",
    "require_platform",
    "variable",
]
