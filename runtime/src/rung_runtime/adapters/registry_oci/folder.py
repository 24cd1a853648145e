"""A registry in a folder: an OCI image layout."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ... import UsageError
from ...atomic_file import atomic_write
from ...oci_content import DIGEST, INDEX, MANIFEST, digest
from ...registry import file_lock
from .artifact import REF_NAME, descriptor, parsed


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
