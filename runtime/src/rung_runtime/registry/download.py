"""Download a package: staged beside its folder, verified, and moved there in one step."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from .. import RefusedError, UsageError
from .interface import VERSION_NAME, Version
from .references import open_registry

STALE_S = 3_600  # seconds after which a staging folder was left by a process that was killed


def download(version: Version, to: Path) -> None:
    """Bring the package of a version into a folder, unless it already has it.

    Raises:
        UsageError: The version is gone from the registry, or is damaged there.
        RefusedError: The registry has another package now; what was in the folder is kept.
    """
    if _holds(to, version):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as folder:
        new = open_registry().fetch(version.version, Path(folder, "new"))
        if not _holds(new, version):
            raise RefusedError(f"{version} is no longer {version.digest} in the registry")
        if to.exists():
            to.rename(Path(folder, "old"))
        new.rename(to)


def require_replaceable(folder: Path) -> None:
    """Check that a download into a folder would delete nothing but what the registry has.

    Raises:
        UsageError: It is a file or a link, or has files that no package brought, or a package that
            is not in the registry.
    """
    from ..model_package import MANIFEST, verified_manifest

    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is a file or a link, and would be replaced: name a folder")
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    if not paths:
        return
    try:
        manifest = verified_manifest(folder)
    except UsageError:
        reason = "is not a package, or is one that was changed"
        raise UsageError(f"{folder} {reason}, and would be replaced: name another folder") from None
    names = {path.relative_to(folder).as_posix() for path in paths}
    if others := sorted(names - {*manifest["files"], MANIFEST}):
        raise UsageError(
            f"{folder} has {others[0]}, which is not part of the package there and would be "
            "deleted: name another folder"
        )
    name = str(manifest.get("version"))
    registered = open_registry().version(name) if VERSION_NAME.fullmatch(name) else None
    if registered is None or registered.digest != manifest["package_digest"]:
        raise UsageError(
            f"{folder} has a package that the registry does not have, and would be replaced: "
            "`ml register` it first, or name another folder"
        )


@contextmanager
def staged_download(to: Path, version: Version) -> Iterator[Path]:
    """Yield a folder to download a package into; it then replaces `to` if it is whole.

    Raises:
        UsageError: It is damaged, or another package, or has files that its manifest does not list.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    for leftover in to.parent.glob(f".{to.name}.*"):
        if leftover.stat().st_mtime < time.time() - STALE_S:
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        new = folder / "new"
        new.mkdir()
        yield new
        if not _holds(new, version):
            raise UsageError(f"{version} in the registry is damaged: it is not what was registered")
        if to.exists():
            to.rename(folder / "old")
        new.rename(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _holds(folder: Path, version: Version) -> bool:
    """Check whether a folder has the package of a version and nothing else."""
    try:
        _require(folder, version)
    except UsageError:
        return False
    return True


def _require(folder: Path, version: Version) -> None:
    """Check that a folder has the package of a version: its files, its name and its model.

    Raises:
        UsageError: It has another package, a damaged one, or files that its manifest does not list.
    """
    from ..model_package import MANIFEST, verified_manifest

    manifest = verified_manifest(folder)
    paths = list(folder.rglob("*"))
    if any(path.is_symlink() for path in [folder, *paths]):
        raise UsageError(f"{folder}/ has links to files elsewhere, which may change at any time")
    actual = (manifest["package_digest"], manifest.get("version"), manifest["model_digest"])
    if actual != (version.digest, version.version, version.model_digest):
        raise UsageError(f"{version} in the registry is another package, of another name or model")
    if manifest.get("created") != version.created:  # else an old model could pass for a new one
        raise UsageError(f"{version} was not made when the registry says it was")
    files = {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    if files != {*manifest["files"], MANIFEST}:
        raise UsageError(f"{version} has files that its manifest does not list")
