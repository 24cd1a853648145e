"""Where packages come from besides the Python Package Index, as pip names it and as uv does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..pip_config import pip_settings

PIP_INDEXES = ("index-url", "extra-index-url")
PYPI_HOSTS = ("pypi.org", "pypi.python.org", "files.pythonhosted.org")


@dataclass(frozen=True)
class PackageIndex:
    """An index of packages, or a page with links to them."""

    # extra: before PyPI; default: instead of it; explicit: for what names it; find-links: a page
    kind: str
    url: str
    file: str  # that names it

    @property
    def name(self) -> str:
        """The name by which uv takes a user and a password from the environment."""
        return re.sub(r"\W+", "-", urlsplit(self.url).hostname or "index").strip("-")


def is_pypi(url: str) -> bool:
    """Check whether an address is that of the Python Package Index itself."""
    return urlsplit(url).hostname in PYPI_HOSTS


def parse_index(kind: str, url: str, file: str) -> PackageIndex | str | None:
    """Return an index without the password in its address; None if it is PyPI.

    Args:
        kind: What it is to uv: `extra`, `default` or `find-links`.
        url: Its address.
        file: The file that names it.

    Returns:
        The index, or a sentence on why it is not used.
    """
    if is_pypi(url):
        return None
    # A password stays out of pyproject.toml, and so does the variable that has one.
    without_user = re.sub(r"(?<=://)[^/@]*@", "", url)
    if not re.match(r"https?://", without_user) or "$" in without_user:
        key = "find-links" if kind == "find-links" else "index"
        return f"{file}: {url} is not an address that adopt can use: name it in [tool.uv] as {key}"
    return PackageIndex(kind, without_user, file)


def pip_indexes() -> dict[str, str]:
    """Return the indexes that a person has set for pip, which uv does not read, and where.

    Addresses have no passwords, and PyPI itself is none of them.
    """
    by_url: dict[str, str] = {}
    for place, value in pip_settings(*PIP_INDEXES):
        for url in value.split():
            without_user = re.sub(r"(?<=://)[^/@]*@", "", url)
            if re.match(r"https?://", without_user) and not is_pypi(without_user):
                by_url.setdefault(without_user, place)
    return by_url
