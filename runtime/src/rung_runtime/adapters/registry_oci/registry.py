"""Versions, notes and aliases in a folder or a registry."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ... import RefusedError, UsageError
from ...oci_content import BYTES, MAX_FILE, UnknownMediaType, digest
from ...registry import CHAMPION, EnsureLease, Version, file_lock, lease, staged_download
from .. import missing_library
from .artifact import (
    IMAGE_CONFIG,
    MAX_PACKAGE,
    NOTE,
    NOTES,
    OWN,
    STANDARD,
    Artifact,
    descriptor,
    encode,
    image_manifest,
    model_pack,
    parsed,
    plain_image,
)
from .folder import Folder

if TYPE_CHECKING:
    from ...model_package import Manifest


class Store(Protocol):
    """Where manifests and blobs are. All of it raises UsageError."""

    def tags(self) -> list[str]:
        """The names of all manifests."""

    def manifest(self, reference: str) -> tuple[str, bytes] | None:
        """The digest that a tag is said to have, and the bytes; None without."""

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        """Store a manifest under a name; `kind` is its artifactType, or empty."""

    def put(self, content: bytes) -> None:
        """Store a blob."""

    def download(self, digest: str, size: int, to: Path) -> str | None:
        """Write a blob to a file; the digest of what came, None without."""


class Oci:
    """See `Registry`."""

    def __init__(self, store: Store, where: str):
        self.store = store
        self.where = where

    def push(self, folder: Path, manifest: "Manifest", facts: dict[str, str]) -> None:
        name = manifest["version"]
        artifact = self._artifact(name)
        known = artifact.version(self._named(name)) if artifact else None
        if known and known.digest != manifest["package_digest"]:
            raise RefusedError(f"{name} is in {self.where} already, as another package")
        self._require_room({path: (folder / path).stat().st_size for path in manifest["files"]})
        files = dict[str, bytes]()
        for path, expected in {**manifest["files"], "manifest.json": None}.items():
            content = (folder / path).read_bytes()
            if expected not in (None, digest(content)):
                raise UsageError(f"{folder / path} has changed: run `ml package` again")
            self.store.put(content)
            files[path] = content
        if known:
            return  # its blobs, should one have been damaged, are whole again
        own = facts | {key: manifest[key] for key in ("package_digest", "model_digest")}
        annotations = {STANDARD + key: manifest[key] for key in ("version", "created")}
        annotations[f"{STANDARD}revision"] = facts.get("commit", "none")
        annotations |= {OWN + key: value for key, value in (own | {"kind": "model"}).items()}
        try:
            self._tag(name, *model_pack(files, annotations))
        except UnknownMediaType:
            self._tag(name, *plain_image(files, annotations, labels=annotations))

    def names(self) -> list[str]:
        tags = (t for t in self.store.tags() if t != CHAMPION and not t.startswith(NOTES))
        # What cosign and the referrers of OCI keep beside a manifest is named after its digest.
        return sorted(tag for tag in tags if not tag.startswith("sha256-"))

    def version(self, name: str) -> Version | None:
        artifact = self._artifact(name)
        if artifact is None or not artifact.kind:
            return None
        version = artifact.version(self._named(name))
        return version if version.version == name else None  # a tag that was moved

    def versions(self, newest: int | None = None) -> list[Version]:
        versions = list[Version]()
        names = self.names()
        # In a folder it costs nothing to read all of them.
        if newest is not None and not isinstance(self.store, Folder):
            names = names[max(0, len(names) - newest) :]
        for name in names:
            if version := self.version(name):
                versions.append(version)
        return versions

    def fetch(self, version: str, to: Path) -> Path:
        where = self._named(version)
        artifact = self._artifact(version)
        known = artifact.version(where) if artifact else None
        if artifact is None or known is None or known.version != version:
            raise UsageError(f"{self.where} has no version {version}: `ml models` lists them")
        with staged_download(to, known) as new:
            layers = artifact.files(where)
            self._require_room({str(layer.path): layer.size for layer in layers})
            for layer in layers:
                path = new / layer.path
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    arrived = self.store.download(layer.digest, layer.size, path)
                except OSError as error:
                    reason = error.strerror or error
                    raise UsageError(f"{layer.path} of {version}: {reason}") from None
                if arrived != layer.digest:
                    problem = "is missing" if arrived is None else "is damaged"
                    raise UsageError(
                        f"{self.where}: the blob {layer.digest} ({layer.path}) {problem}: "
                        f"`ml register` the package of {version} again"
                    )
        return to

    def get(self, note: str) -> str | None:
        name = NOTES + note
        artifact = self._artifact(name)
        if artifact is None:
            return None
        text = artifact.annotations.get(f"{OWN}text")
        if text is None:
            raise UsageError(f"{self._named(name)} is damaged: it is not of a note")
        return text

    def set(self, note: str, text: str) -> None:
        # In the form that every registry takes: there is no standard for notes. Config and layer
        # are one blob, always the same, so that a note costs one request once it is there.
        annotations = {f"{OWN}kind": "note", f"{OWN}text": text}
        layers = [descriptor(encode(NOTE), BYTES)]
        self._tag(NOTES + note, image_manifest(IMAGE_CONFIG, NOTE, layers, annotations), NOTE)

    def alias(self, name: str) -> str | None:
        artifact = self._artifact(name)
        return artifact.version(self._named(name)).version if artifact else None

    def point(self, name: str, version: str) -> None:
        manifest = self.store.manifest(version)
        if manifest is None or digest(manifest[1]) != manifest[0]:
            raise UsageError(f"{version} in {self.where} is missing or damaged")
        kind = parsed(manifest[1], self._named(version)).get("artifactType")
        self.store.tag(name, manifest[1], kind if isinstance(kind, str) else "")

    def lock(self) -> AbstractContextManager[EnsureLease]:
        if isinstance(self.store, Folder):
            return file_lock(self.store.path / ".lock")
        self.store.put(encode(NOTE))  # before the time in which the lease has to be written
        return lease(self)

    def _require_room(self, sizes: dict[str, int]) -> None:
        """See that a package is no larger than what is fetched from elsewhere, before it is.

        Raises:
            UsageError: A file is, or all of them together are.
        """
        if isinstance(self.store, Folder):
            return
        for name, size in sizes.items():
            if size > MAX_FILE:
                raise UsageError(f"{self.where}: {name} has {size} bytes, more than {MAX_FILE}")
        if (total := sum(sizes.values())) > MAX_PACKAGE:
            raise UsageError(f"{self.where}: a package of {total} bytes is more than {MAX_PACKAGE}")

    def _tag(self, name: str, manifest: dict[str, Any], config: dict[str, Any]) -> None:
        self.store.put(encode(config))
        self.store.tag(name, encode(manifest), manifest.get("artifactType", ""))

    def _artifact(self, tag: str) -> Artifact | None:
        manifest = self.store.manifest(tag)
        if manifest is None:
            return None
        expected, content = manifest
        if digest(content) != expected:
            raise UsageError(f"{self.where}: the manifest {expected} of {tag} is damaged")
        return Artifact.read(content, self._named(tag))

    def _named(self, tag: str) -> str:
        return f"{self.where}: the manifest of {tag}"


def open_registry(where: str) -> Oci:
    """Open a folder, or `oci://HOST/NAME`, or `oci+http://HOST/NAME` without encryption."""
    if "://" not in where:
        return Oci(Folder(Path(where)), f"{where}/")
    if not where.startswith(("oci://", "oci+http://")):
        raise UsageError(f"config/delivery.yaml: registry: {where} is neither a folder nor oci://")
    try:
        from ...oci_client import Remote  # with HTTPX, which a folder does not need
    except ModuleNotFoundError as error:
        raise missing_library("registry", "oci", error) from None
    return Oci(Remote(where), where)
