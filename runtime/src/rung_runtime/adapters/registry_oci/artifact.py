"""What a registry holds: manifests of versions and notes, and how they are read.

A version is a manifest whose layers are the package's files, under a tag of its name; `champion` is
a tag, too. It has the form of a CNCF ModelPack, which skopeo, oras, modctl and the registries' own
pages read. A registry that knows only types of its own list, as GitLab's, gets the same layers
under an image's types, with the kind as an annotation. Both are read, and what 0.2 wrote.
Formats: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, image-layout.md;
https://github.com/modelpack/model-spec/blob/main/docs/spec.md, config.md.
"""

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ... import UsageError, project
from ...artifacts import MODEL
from ...oci_content import BYTES, DIGEST, MANIFEST, MAX_FILE, digest
from ...registry import Version

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
MAX_PACKAGE = 4 * MAX_FILE  # bytes


def descriptor(content: bytes, kind: str, **annotations: str) -> dict[str, Any]:
    """Return what a manifest says of a blob."""
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
        folders = {folder for path in files for folder in path.parents}
        for path in files:
            if path in folders:
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


def model_pack(
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
    return image_manifest(PACK_CONFIG, config, layers, annotations) | {"artifactType": PACK}, config


def plain_image(
    files: dict[str, bytes], annotations: dict[str, str], labels: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the same under types that every registry knows: those of an image."""
    layers = [descriptor(c, BYTES, **_layer_names(path)) for path, c in files.items()]
    config: dict[str, Any] = {"architecture": "unknown", "os": "unknown"}
    if labels:  # so that `skopeo inspect` shows them
        config |= {"created": labels[f"{STANDARD}created"], "config": {"Labels": labels}}
    config["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    return image_manifest(IMAGE_CONFIG, config, layers, annotations), config


def image_manifest(
    kind: str, config: dict[str, Any], layers: list[dict[str, Any]], annotations: dict[str, str]
) -> dict[str, Any]:
    """Return a manifest whose config is of a kind, without an artifactType."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(encode(config), kind),
        "layers": layers,
        "annotations": annotations,
    }


def encode(value: dict[str, Any]) -> bytes:
    """Return JSON as it is stored: its digest is that of these bytes."""
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
