"""A project's lock: made by uv, and the same for everybody."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .console import bullets
from .process import failure_reason, run
from .progress import moving_line

# Settings of uv that become a part of uv.lock, and what they are called there.
LOCKED_SETTINGS = {
    "exclude-newer": "exclude-newer",
    "fork-strategy": "fork-strategy",
    "prerelease-mode": "prerelease",
    "resolution-mode": "resolution",
}
PUBLIC_INDEX = "https://pypi.org/simple"
CERTIFICATE = re.compile(r"UnknownIssuer|invalid peer certificate|CA certificates", re.IGNORECASE)


def lock(project: Path) -> str | None:
    """Make or refresh a project's uv.lock, and return uv's reason if it cannot."""
    with moving_line("Versions of all packages (uv lock)"):
        result = run(["uv", "lock", "--quiet"], project)
    if result.succeeded:
        return None
    reason = failure_reason(result.error_text or result.text) or result.reason
    if CERTIFICATE.search(reason):
        reason += (
            "\nIf your network has a certificate authority of its own, set SSL_CERT_FILE to its "
            "certificates, or add them to the system's"
        )
    return reason


def lock_elsewhere(project: Path) -> str | None:
    """Lock a project that is not in its place yet, so that no folder around it matters to uv.

    Returns:
        uv's reason, if it cannot.
    """
    with TemporaryDirectory(prefix="rung-") as temporary:
        folder = Path(temporary, "lock")
        folder.mkdir()
        shutil.copy2(project / "pyproject.toml", folder)
        reason = lock(folder)
        if reason is None:
            shutil.copyfile(folder / "uv.lock", project / "uv.lock")
    return reason


def personal_settings(project: Path) -> str:
    """Return a sentence if a project's lock depends on a person's own settings of uv, else nothing.

    Pipelines and other people do not have them, so uv would refuse the lock there.
    """
    file = project / "uv.lock"
    content = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    pyproject = (project / "pyproject.toml").read_text("utf-8")
    declared: dict[str, Any] = tomllib.loads(pyproject).get("tool", {}).get("uv", {})
    sentences = []
    for key, value in content.get("options", {}).items():
        setting = LOCKED_SETTINGS.get(key)
        if setting and setting not in declared:
            sentences.append(f'{setting}: add {setting} = "{value}" to [tool.uv] of pyproject.toml')
    registries = {
        str(package["source"]["registry"])
        for package in content.get("package", [])
        if "registry" in package["source"]
    }
    for registry in sorted(registries - {PUBLIC_INDEX}):
        if registry.rstrip("/") not in pyproject:
            sentences.append(
                f"the index {registry}: add [[tool.uv.index]] with this url and default = true to "
                "pyproject.toml"
            )
    if not sentences:
        return ""
    return f"uv.lock depends on your own settings of uv, which pipelines lack:{bullets(sentences)}"
