"""The package that should be served: `service/desired.json`, which `ml deploy` writes."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from .. import UsageError
from ..prediction_log.writer import ANY_ERROR
from .batcher import Batcher
from .loaded_model import LoadedModel, load

DESIRED = Path("service/desired.json")
POLL_SECONDS = 0.2


class Desired(BaseModel):
    """The document. If the desired package cannot be opened, the previous one is served."""

    folder: str
    version: str | None = None
    package_digest: str | None = None
    previous: str | None = None  # a folder
    previous_digest: str | None = None


class Stamp(NamedTuple):
    """What distinguishes the document from the one that replaces it."""

    modified_ns: int
    inode: int


def desired_stamp() -> Stamp | None:
    """Return the stamp of the document; None if there is none."""
    with suppress(FileNotFoundError):
        status = DESIRED.stat()
        return Stamp(status.st_mtime_ns, status.st_ino)
    return None


def load_desired() -> tuple[LoadedModel, str | None]:
    """Open the desired package, or else the previous one.

    Returns:
        The model, and why it is not the desired one; None if it is.

    Raises:
        UsageError: Neither can be opened.
    """
    try:
        desired = Desired.model_validate_json(DESIRED.read_text("utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{DESIRED} names no package: run `ml deploy`") from None
    try:
        return load(Path(desired.folder), desired.package_digest), None
    except UsageError as error:
        reason = f"{desired.version}: {error}"
    if desired.previous is not None:
        with suppress(UsageError):
            return load(Path(desired.previous), desired.previous_digest), reason
    raise UsageError(reason)


def follow_desired(
    batcher: Batcher,
    stamp: Stamp | None,
    stopped: threading.Event,
    report: Callable[[str | None], None],
) -> None:
    """Replace the batcher's model whenever the document names another one, until stopped.

    Args:
        stamp: The stamp of the document that names the present model.
        report: Called with the reason why the desired model is not served; None if it is.
    """
    while not stopped.wait(POLL_SECONDS):
        new_stamp = desired_stamp()
        if new_stamp is None or new_stamp == stamp:
            continue
        stamp = new_stamp
        version: str | None = None
        try:
            desired = Desired.model_validate_json(DESIRED.read_text("utf-8"))
            version = desired.version
            if not _is_served(desired, batcher.loaded):
                batcher.loaded = load(Path(desired.folder), desired.package_digest)
            report(None)
        except ANY_ERROR as error:  # whatever is wrong with it, the present model stays in service
            report(f"{version}: {error}")


def _is_served(desired: Desired, loaded: LoadedModel) -> bool:
    manifest = loaded.model.manifest
    is_same_package = desired.package_digest in (None, manifest["package_digest"])
    return is_same_package and desired.version == manifest["version"]
