"""Snapshots: what a step left at a place, and what the steps before it did.

    FOLDER/train.json          the manifest of the place FOLDER/train
    FOLDER/objects/DIGEST      the files, each by its digest, for all places of the folder

A manifest names every file that a later step may need, and is written last: a step that was killed
leaves the manifest that was there before, and files that no manifest names. A file is never
replaced by another content, so that a manifest that was read stays true while others are written.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import RefusedError, UsageError
from ..prediction_log.layout import is_remote
from ..storage import Storage, open_storage

OBJECTS = "objects"
SCHEMES = ("file", "s3", "gs", "az")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
DIGEST = r"^sha256:[0-9a-f]{64}$"
MAX_MANIFEST_BYTES = 64 << 20
MAX_NAMED = 3  # files that a message names


class Damaged(UsageError):
    """What is at a place is not what a step has left there."""


class StoredOutput(BaseModel):
    """A file of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    digest: Annotated[str, Field(pattern=DIGEST)]
    size: Annotated[int, Field(ge=0)]
    step: str  # that made it

    @property
    def object_name(self) -> str:
        """Return where its content is, below the folder of the place."""
        return f"{OBJECTS}/{self.digest.removeprefix('sha256:')}"


class Manifest(BaseModel):
    """What is at a place.

    Attributes:
        step: That wrote it.
        outcome: `refused`, if a check of the step did; nothing may be built on it.
        reason: Why.
        inputs: What the step was given of the files of others: path and digest.
        files: What it made, and what it was given; by path in the project.
        lock: What dvc.lock has of it, if it is a stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = 1
    step: str
    outcome: Literal["done", "refused"] = "done"
    reason: str = ""
    written: str
    inputs: dict[str, Annotated[str, Field(pattern=DIGEST)]]
    files: dict[str, StoredOutput]
    lock: dict[str, Any] | None = None


class Place(NamedTuple):
    """Where a snapshot is."""

    folder: str  # a path, or a URL
    name: str
    storage: Storage

    @property
    def uri(self) -> str:
        """Return it as it is named."""
        return f"{self.folder}/{self.name}"

    @property
    def manifest_name(self) -> str:
        """Return where the manifest is, below the folder."""
        return f"{self.name}.json"


def open_place(uri: str, start: Path) -> Place:
    """Return the place that a URI names.

    Args:
        uri: `s3://…`, `gs://…`, `az://…`, `file://…` or a path; its last part is a name.
        start: The folder that a path is relative to.

    Raises:
        UsageError: It is another kind of URI, has a login in it, or cannot be used.
    """
    folder = _folder_of_path(uri, start) if not is_remote(uri) else _folder_of_url(uri)
    folder, _, name = folder.rpartition("/")
    if not NAME.fullmatch(name) or name == OBJECTS:
        raise UsageError(f"{uri}: its last part names the place, such as {folder}/{name}/train")
    return Place(folder, name, open_storage(folder))


def _folder_of_path(path: str, start: Path) -> str:
    return (start / path).absolute().as_posix()


def _folder_of_url(uri: str) -> str:
    scheme = uri.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError(f"{scheme}:// is not a kind of place that `ml step` knows: use {known}")
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise UsageError(f"{scheme}://… is not a URL: use one such as s3://BUCKET/train") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"{scheme}://…: a login does not belong in a URI, which logs and documents show: set"
            " the usual variables of the object store"
        )
    path = parts.path.rstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")[1:]):
        raise UsageError(f"{uri} is not the URL of a place: leave out empty parts, . and ..")
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UsageError(f"{uri} is on another machine: write file:///FOLDER/NAME")
        return unquote(path)
    if not parts.netloc or not path:
        raise UsageError(f"{uri} names no place in a bucket: use {scheme}://BUCKET/…/train")
    return f"{scheme}://{parts.netloc}{path}"


def read_manifest(place: Place) -> Manifest | None:
    """Return the manifest of a place; None if it has none.

    Raises:
        Damaged: It is not a manifest.
        UsageError: The place cannot be used.
    """
    entry = place.storage.find(place.manifest_name)
    if entry is None:
        return None
    if entry.size > MAX_MANIFEST_BYTES:
        raise Damaged(f"{place.uri}.json is too large to be a manifest: run the step again")
    content = place.storage.read(place.manifest_name)
    try:
        return Manifest.model_validate_json(content or b"")
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "its text"
        raise Damaged(
            f"{place.uri}.json is not a manifest ({where}: {problem['msg']}): run the step that"
            " writes it again"
        ) from None


def require_manifest(place: Place) -> Manifest:
    """Return the manifest of a place that a step reads.

    Raises:
        UsageError: There is none, or it cannot be read.
        RefusedError: The step before refused.
    """
    manifest = read_manifest(place)
    if manifest is None:
        raise UsageError(f"{place.uri} has no manifest: the step that writes it has not ended")
    if manifest.outcome == "refused":
        raise RefusedError(f"{place.uri}: {manifest.step} refused: {manifest.reason}")
    return manifest


def write_manifest(place: Place, manifest: Manifest) -> None:
    """Write the manifest of a place, in the place of the last one."""
    content = manifest.model_dump_json(indent=2).encode()
    place.storage.upload(place.manifest_name, [content], len(content))


def merged(sources: Iterable[tuple[Place, Manifest]]) -> dict[str, tuple[Place, StoredOutput]]:
    """Return the files of several snapshots, by path.

    Raises:
        UsageError: Two of them have different contents of one file.
    """
    files: dict[str, tuple[Place, StoredOutput]] = {}
    for place, manifest in sources:
        for path, stored in manifest.files.items():
            other, known = files.setdefault(path, (place, stored))
            if known.digest != stored.digest:
                raise UsageError(
                    f"{path} differs between {other.uri} and {place.uri}, as if two runs had"
                    f" written them: run {stored.step} again, and what follows it"
                )
    return files


def require_own_paths(manifest: Manifest, place: Place, outputs: set[str]) -> None:
    """Check that a snapshot has files only where steps of this project write them.

    Args:
        outputs: These files and folders.

    Raises:
        Damaged: It has another one, such as code or `../x`.
    """
    others = [path for path in manifest.files if not is_output(path, outputs)]
    if others:
        names = ", ".join(map(repr, others[:MAX_NAMED]))
        raise Damaged(
            f"{place.uri}.json has {names}, which no step of this project makes: nothing of it is"
            " written. If dvc.yaml has changed, run the steps from the first one"
        )


def is_output(path: str, outputs: set[str]) -> bool:
    """Check whether a path is one of some files, or in one of some folders, and leads nowhere else.

    Args:
        path: As a manifest has it, which anybody may have written.
        outputs: Relative to the project, with slashes.
    """
    parts = path.split("/")
    is_plain = all(part not in ("", ".", "..") for part in parts) and path.isprintable()
    if not is_plain or "\\" in path or ":" in path:
        return False
    pure = PurePosixPath(path)
    return any(str(parent) in outputs for parent in (pure, *pure.parents))
