"""The registry as OCI artifacts: an image-layout folder, or any OCI registry by URL.

A version is a manifest whose layers are the package's files, under a tag of its name; `champion` is
a tag, too. It has the form of a CNCF ModelPack, which skopeo, oras, modctl and the registries' own
pages read. A registry that knows only types of its own list, as GitLab's, gets the same layers
under an image's types, with the kind as an annotation. Both are read, and what 0.2 wrote.
Formats: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, image-layout.md;
https://github.com/modelpack/model-spec/blob/main/docs/spec.md, config.md.
"""

import hashlib
import json
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from ... import RefusedError, UsageError, project
from ...artifacts import MODEL, atomic_write
from ...registry import CHAMPION, EnsureLease, Version, file_lock, lease, staged_download
from .client import (
    BYTES,
    DIGEST,
    MANIFEST,
    MAX_FILE,
    MAX_PACKAGE,
    Remote,
    UnknownMediaType,
)

if TYPE_CHECKING:
    from ...model_package import Manifest

INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
PACK = "application/vnd.cncf.model.manifest.v1+json"
PACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
MODEL_OF_0_2, NOTE_OF_0_2 = (f"application/vnd.rung.{name}.v1" for name in ("model", "note"))
STANDARD = "org.opencontainers.image."
OWN = "vnd.rung."
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
REF_NAME = "org.opencontainers.image.ref.name"
NOTES = "note-"
CARD = "MODEL_CARD.md"
WEIGHTS = (".skops", ".onnx")  # files that hold a model
README = "README.md"  # what a ModelPack calls its card
NOTE = {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []}}
MAX_LAYERS = 1_000


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(content: bytes, kind: str, **annotations: str) -> dict[str, Any]:
    more = {"annotations": annotations} if annotations else {}
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def parsed(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UsageError: It is none.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{what} is damaged: bring it back from a backup")
    return value


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


class Folder:
    """An OCI image layout."""

    def __init__(self, path: Path):
        self.path = path
        self.index = path / "index.json"

    def tags(self) -> list[str]:
        return [entry["annotations"][REF_NAME] for entry in self._entries()]

    def blob(self, digest: str) -> bytes | None:
        path = self._place(digest)
        return path.read_bytes() if path.is_file() else None

    def download(self, digest: str, size: int, to: Path) -> str | None:
        path = self._place(digest)
        if not path.is_file():
            return None
        shutil.copyfile(path, to)
        with to.open("rb") as written:
            return f"sha256:{hashlib.file_digest(written, 'sha256').hexdigest()}"

    def put(self, content: bytes) -> None:
        name = digest(content)
        stored = self.blob(name)
        if stored is None or digest(stored) != name:
            self._write(self._place(name), content)

    def manifest(self, reference: str) -> tuple[str, bytes] | None:
        for entry in self._entries():
            if reference in (entry["annotations"][REF_NAME], entry["digest"]):
                return entry["digest"], self.blob(entry["digest"]) or b""
        return None

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        self._write(self.path / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        self.put(manifest)
        with file_lock(self.path / ".index.lock"):
            kept = [e for e in self._entries() if e["annotations"][REF_NAME] != name]
            new = descriptor(manifest, MANIFEST, **{REF_NAME: name})
            new |= {"artifactType": kind} if kind else {}
            whole = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, new]}
            self._write(self.index, json.dumps(whole, indent=2).encode())

    def _place(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise UsageError(f"{self.path}/ is damaged: {digest!r} is not a digest")
        return self.path / "blobs" / digest.replace(":", "/")

    def _entries(self) -> list[dict[str, Any]]:
        if not self.index.exists():
            return []
        damaged = UsageError(f"{self.index} is damaged: bring it back from a backup")
        entries = parsed(self.index.read_bytes(), str(self.index)).get("manifests", [])
        if not isinstance(entries, list):
            raise damaged
        named = []
        for entry in entries:
            annotations = entry.get("annotations") if isinstance(entry, dict) else None
            name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
            if name is None:
                continue
            if not isinstance(name, str) or not isinstance(entry.get("digest"), str):
                raise damaged
            named.append(entry)
        return named

    def _write(self, path: Path, content: bytes) -> None:
        try:
            with atomic_write(path) as new:
                new.write_bytes(content)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


@dataclass(frozen=True)
class Layer:
    """A file of an artifact."""

    path: PurePosixPath
    digest: str
    size: int


@dataclass(frozen=True)
class Artifact:
    """A manifest, read: whoever can write to the registry has written it."""

    kind: str  # model, note, or empty: somebody else's
    annotations: dict[str, str]
    layers: list[Any] = field(repr=False)

    @classmethod
    def read(cls, content: bytes, where: str) -> "Artifact":
        """Read a manifest in any of the three forms.

        Raises:
            UsageError: It is malformed.
        """
        manifest = parsed(content, where)
        annotations = manifest.get("annotations") or {}
        layers = manifest.get("layers") or []
        texts = isinstance(annotations, dict) and all(
            isinstance(value, str) and _is_unicode(value) for value in annotations.values()
        )
        if not texts or not isinstance(layers, list):
            raise UsageError(f"{where} is malformed: annotations are texts, and layers are a list")
        kinds = {MODEL_OF_0_2: "model", NOTE_OF_0_2: "note"}
        kind = kinds.get(str(manifest.get("artifactType")))
        return cls(kind or annotations.get(f"{OWN}kind", ""), annotations, layers)

    def files(self, where: str) -> list[Layer]:
        """The layers as files.

        Raises:
            UsageError: One is malformed, or named so that it would lie outside of a folder.
        """
        if len(self.layers) > MAX_LAYERS:
            raise UsageError(f"{where} has more than {MAX_LAYERS} layers")
        files = dict[PurePosixPath, Layer]()
        for layer in self.layers:
            entry = layer if isinstance(layer, dict) else {}
            annotations = entry.get("annotations")
            annotations = annotations if isinstance(annotations, dict) else {}
            # The card has another name outside of a package.
            title = annotations.get(f"{OWN}file", annotations.get(TITLE, ""))
            digest = entry.get("digest")
            size = entry.get("size")
            if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or type(size) is not int:
                raise UsageError(f"{where} is malformed: a layer has no digest and size")
            if not isinstance(title, str) or not _inside(title) or size < 0:
                raise UsageError(f"{where} names a file outside of it: {_shown(title)}")
            path = PurePosixPath(title)
            if path in files or any(parent in files for parent in path.parents):
                raise UsageError(f"{where} names a file twice: {_shown(title)}")
            files[path] = Layer(path, digest, size)
        for path in files:
            if any(path in other.parents for other in files):
                raise UsageError(f"{where} names a file twice: {path}")
        return list(files.values())

    def version(self, where: str) -> Version:
        """What it says of its version.

        Raises:
            UsageError: It says nothing, as it is not of a model.
        """
        facts = {k.removeprefix(OWN): v for k, v in self.annotations.items() if k.startswith(OWN)}
        facts.pop("kind", None)
        try:
            digests = facts.pop("package_digest"), facts.pop("model_digest")
            name, created = (self.annotations[STANDARD + key] for key in ("version", "created"))
        except KeyError:
            raise UsageError(f"{where} is damaged: it is not of a model") from None
        return Version(name, *digests, created, facts)


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
            self._tag(name, *_model_pack(files, annotations))
        except UnknownMediaType:
            self._tag(name, *_plain(files, annotations, labels=annotations))

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
        if newest is not None and isinstance(self.store, Remote):
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
        layers = [descriptor(_bytes(NOTE), BYTES)]
        self._tag(NOTES + note, _manifest(IMAGE_CONFIG, NOTE, layers, annotations), NOTE)

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
        self.store.put(_bytes(NOTE))  # before the time in which the lease has to be written
        return lease(self)

    def _require_room(self, sizes: dict[str, int]) -> None:
        """See that a package is no larger than what is fetched from elsewhere, before it is.

        Raises:
            UsageError: A file is, or all of them together are.
        """
        if not isinstance(self.store, Remote):
            return
        for name, size in sizes.items():
            if size > MAX_FILE:
                raise UsageError(f"{self.where}: {name} has {size} bytes, more than {MAX_FILE}")
        if (total := sum(sizes.values())) > MAX_PACKAGE:
            raise UsageError(f"{self.where}: a package of {total} bytes is more than {MAX_PACKAGE}")

    def _tag(self, name: str, manifest: dict[str, Any], config: dict[str, Any]) -> None:
        self.store.put(_bytes(config))
        self.store.tag(name, _bytes(manifest), manifest.get("artifactType", ""))

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
    return Oci(Remote(where), where)


def _model_pack(
    files: dict[str, bytes], annotations: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return manifest and config of a version as CNCF ModelPack."""
    layers = [descriptor(c, _layer_type(path), **_layer_names(path)) for path, c in files.items()]
    config = {
        "descriptor": {
            "name": project.current().package,
            "version": annotations[f"{STANDARD}version"],
            "createdAt": annotations[f"{STANDARD}created"],
            "revision": annotations[f"{STANDARD}revision"],
        },
        "config": {"format": MODEL.suffix.lstrip(".")},
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }
    return _manifest(PACK_CONFIG, config, layers, annotations) | {"artifactType": PACK}, config


def _plain(
    files: dict[str, bytes], annotations: dict[str, str], labels: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the same under types that every registry knows: those of an image."""
    layers = [descriptor(c, BYTES, **_layer_names(path)) for path, c in files.items()]
    config: dict[str, Any] = {"architecture": "unknown", "os": "unknown"}
    if labels:  # so that `skopeo inspect` shows them
        config |= {"created": labels[f"{STANDARD}created"], "config": {"Labels": labels}}
    config["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    return _manifest(IMAGE_CONFIG, config, layers, annotations), config


def _manifest(
    kind: str, config: dict[str, Any], layers: list[dict[str, Any]], annotations: dict[str, str]
) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(_bytes(config), kind),
        "layers": layers,
        "annotations": annotations,
    }


def _bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()


def _layer_type(path: str) -> str:
    """The type of a file of a package in a ModelPack."""
    part = "weight.config"
    if path.endswith(WEIGHTS):
        part = "weight"
    elif path.endswith(".py"):
        part = "code"
    elif path.endswith(".md"):
        part = "doc"
    return f"application/vnd.cncf.model.{part}.v1.raw"


def _layer_names(path: str) -> dict[str, str]:
    if path == CARD:
        return {TITLE: README, FILEPATH: README, f"{OWN}file": path}
    return {TITLE: path, FILEPATH: path}


def _is_unicode(text: str) -> bool:
    """Whether a text of JSON has no half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inside(title: str) -> bool:
    """Whether a name is that of a file within a folder, on every system."""
    path = PurePosixPath(title)
    plain = title.isprintable() and "\\" not in title and len(title.encode()) <= 1_000
    return plain and bool(path.name) and not path.is_absolute() and ".." not in path.parts


def _shown(title: Any) -> str:
    return title if isinstance(title, str) and title.isprintable() else repr(title)
