"""A project's lock: made by uv, and the same for everybody."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .certificates import with_certificate_hint
from .console import bullets
from .process import failure_reason, run
from .progress import moving_line

# Settings of uv that uv.lock has under another name. Whatever else it has, and pyproject.toml has
# not, is a person's, too.
LOCKED_SETTINGS = {
    "build-constraints": "build-constraint-dependencies",
    "constraints": "constraint-dependencies",
    "excludes": "exclude-dependencies",
    "exclude-newer-span": "exclude-newer",
    "overrides": "override-dependencies",
    "prerelease-mode": "prerelease",
    "resolution-mode": "resolution",
}
OWN_KEYS = ("members", "requirements", "dependency-groups")  # what uv.lock says of the project
PUBLIC_INDEX = "https://pypi.org/simple"


def lock(project: Path) -> str | None:
    """Make or refresh a project's uv.lock, and return uv's reason if it cannot."""
    with moving_line("Versions of all packages (uv lock)"):
        result = run(["uv", "lock", "--quiet"], project)
    if result.succeeded:
        return None
    reason = failure_reason(result.error_text or result.text) or result.reason
    return with_certificate_hint(reason)


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
    locked = content.get("options", {}) | content.get("manifest", {})
    sentences = [
        personal_setting(LOCKED_SETTINGS.get(key, key), value)
        for key, value in locked.items()
        if key not in OWN_KEYS and is_personal(value, declared.get(LOCKED_SETTINGS.get(key, key)))
    ]
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


def is_personal(locked: Any, declared: Any) -> bool:
    """Check whether a setting in a lock has more than the project itself declares."""
    if declared is None:
        return True
    # uv puts a person's lists and tables together with the project's.
    is_both = isinstance(locked, list | dict) and isinstance(declared, list | dict)
    return is_both and len(locked) > len(declared)


def personal_setting(name: str, value: Any) -> str:
    """Return the sentence on a setting of a person's that has become a part of a lock."""
    if isinstance(value, str):
        return f'{name}: add {name} = "{value}" to [tool.uv] of pyproject.toml'
    return f"{name}: add what your own settings say of it to [tool.uv] of pyproject.toml"
