"""The registry as OCI artifacts: an image-layout folder, or any OCI registry by URL.

A version is a manifest whose layers are the package's files, under a tag of its name; `champion` is
a tag, too. So skopeo, oras and the registries' own pages can read it. Credentials for a URL are
the job's own for its platform's registry, and else those of `docker login`
(`~/.docker/config.json`, or where DOCKER_CONFIG says).
Formats: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, image-layout.md;
https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.
"""

import hashlib
import json
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from .. import BadInput, Refused, forge
from ..documents import replacing
from . import CHAMPION, Still, Version, arriving, file_lock, lease

MANIFEST, INDEX = (f"application/vnd.oci.image.{n}.v1+json" for n in ("manifest", "index"))
CONFIG = "application/vnd.oci.image.config.v1+json"
MODEL, NOTE = (f"application/vnd.rung.{name}.v1" for name in ("model", "note"))
FILE = "application/octet-stream"
EMPTY = (b"{}", "application/vnd.oci.empty.v1+json")
STANDARD, OWN, TITLE = "org.opencontainers.image.", "vnd.rung.", "org.opencontainers.image.title"
REF_NAME, NOTES = "org.opencontainers.image.ref.name", "note-"
# With all its retries a request of little content ends within 45 s: see WRITES and LEASE.
CONNECT, ANSWER, RETRIES = 5.0, 10.0, 3


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(content: bytes, kind: str, **annotations: str) -> dict[str, Any]:
    more = {"annotations": annotations} if annotations else {}
    return {"mediaType": kind, "digest": digest(content), "size": len(content), **more}


def parsed(content: bytes, what: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise BadInput(f"{what} is damaged: bring it back from a backup") from None


class Folder:
    """An OCI image layout."""

    def __init__(self, path: Path):
        self.path, self.index = path, path / "index.json"

    def tags(self) -> list[str]:
        return [entry["annotations"][REF_NAME] for entry in self._entries()]

    def blob(self, of: str) -> bytes | None:
        path = self._place(of)
        return path.read_bytes() if path.is_file() else None

    def put(self, content: bytes) -> None:
        of = digest(content)
        if (found := self.blob(of)) is None or digest(found) != of:
            self._write(self._place(of), content)

    def manifest(self, tag: str) -> tuple[str, bytes] | None:
        for entry in self._entries():
            if entry["annotations"][REF_NAME] == tag:
                return entry["digest"], self.blob(entry["digest"]) or b""
        return None

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        self._write(self.path / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        self.put(manifest)
        with file_lock(self.path / ".index.lock"):
            kept = [e for e in self._entries() if e["annotations"][REF_NAME] != name]
            new = descriptor(manifest, MANIFEST, **{REF_NAME: name}) | {"artifactType": kind}
            whole = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, new]}
            self._write(self.index, json.dumps(whole, indent=2).encode())

    def _place(self, of: str) -> Path:
        return self.path / "blobs" / of.replace(":", "/")

    def _entries(self) -> list[dict[str, Any]]:
        if not self.index.exists():
            return []
        found = parsed(self.index.read_bytes(), str(self.index)).get("manifests", [])
        return [entry for entry in found if REF_NAME in entry.get("annotations", {})]

    def _write(self, path: Path, content: bytes) -> None:
        try:
            with replacing(path) as new:
                new.write_bytes(content)
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror or error}") from None


class Patient(HTTPAdapter):
    """Waits for an answer, but not for ever; asks again if one breaks off."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(RETRIES):
            answer = super().send(*args, **kwargs | {"timeout": (CONNECT, ANSWER)})
            asked = answer.headers.get("WWW-Authenticate", "")
            if answer.status_code == 401 and asked.lower().startswith("basic"):
                raise requests.ConnectionError("401, not with these credentials: `docker login`")
            with suppress(requests.exceptions.ChunkedEncodingError):
                answer.content  # noqa: B018 read here, so that it can break off here
                return answer
        raise requests.ConnectionError("its answers break off")


class Remote:
    """A registry that speaks the OCI distribution protocol."""

    def __init__(self, url: str):
        import oras.container
        import oras.provider

        class Client(oras.provider.Registry):  # type: ignore[misc]
            # Without its own retries, which can take two minutes and hide the reason.
            do_request = oras.provider.Registry.do_request.__wrapped__

        scheme, _, name = url.partition("://")
        try:
            self.url, container = url, oras.container.Container(name)
        except ValueError:
            container = None
        if container is None or container.registry != name.partition("/")[0]:  # it has defaults
            said = f"config/delivery.yaml: registry: {url} is not oci://HOST/NAME"
            raise BadInput(f"{said}, with a HOST like ghcr.io or localhost:5000")
        self.client = Client(insecure=scheme == "oci+http")
        again = Retry(
            RETRIES,
            backoff_factor=0.5,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,
            retry_after_max=2,
        )
        self.client.session.mount(f"{self.client.prefix}://", Patient(max_retries=again))
        at = forge.here()
        if at and at.place().partition("/")[0] == container.registry and (own := at.credentials()):
            self.client.auth.set_basic_auth(*own)
        else:
            folder = os.environ.get("DOCKER_CONFIG")
            self.client.auth.load_configs(container, [f"{folder}/config.json"] if folder else None)
        self.base = f"{self.client.prefix}://{container.registry}/v2/{container.api_prefix}/"

    def tags(self) -> list[str]:
        found, page = list[str](), "tags/list"
        while page:
            answer = self._ask("GET", page, 200, 404)
            found += (answer.ok and parsed(answer.content, self.url).get("tags")) or []
            page = answer.links.get("next", {}).get("url", "")
        return found

    def blob(self, of: str) -> bytes | None:
        answer = self._ask("GET", f"blobs/{of}", 200, 404)
        return answer.content if answer.ok else None

    def put(self, content: bytes) -> None:
        of, kind = digest(content), {"Content-Type": FILE}
        if self._ask("HEAD", f"blobs/{of}", 200, 404).status_code == 200:
            return
        for wrong in ((400, 404, 416), ()):  # an upload that was cut off begins anew, once
            session = self._ask("POST", "blobs/uploads/", 202)
            place = urljoin(session.url, session.headers["Location"])
            place += f"{'&' if '?' in place else '?'}digest={of}"
            if self._ask("PUT", place, 201, *wrong, data=content, headers=kind).ok:
                return

    def manifest(self, tag: str) -> tuple[str, bytes] | None:
        answer = self._ask("GET", f"manifests/{tag}", 200, 404, headers={"Accept": MANIFEST})
        of = answer.headers.get("Docker-Content-Digest", digest(answer.content))
        return (of, answer.content) if answer.ok else None

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        headers = {"Content-Type": MANIFEST}
        self._ask("PUT", f"manifests/{name}", 201, data=manifest, headers=headers)

    def _ask(
        self, method: str, path: str, *expected: int, data: bytes = b"", headers: Any = None
    ) -> requests.Response:
        def once() -> requests.Response:
            url, more = urljoin(self.base, path), dict(headers or {})
            if known := getattr(self.client.auth, "_basic_auth", None):  # oras only asks for tokens
                more["Authorization"] = f"Basic {known}"
            answer: requests.Response = self.client.do_request(url, method, data, more)
            return answer

        try:
            answer = once()
            if answer.status_code == 401:  # the token was for reading only, or has expired
                self.client.auth.token = None
                answer = once()
        except Exception as error:  # of requests, or of oras about credentials
            said = str(error).partition("\n")[0]
            raise BadInput(f"{self.url}: the registry does not answer: {said}") from None
        if answer.status_code not in expected:
            said = f"{answer.status_code} {answer.reason} to {method} {path}"
            raise BadInput(f"{self.url}: the registry answers {said}")
        return answer


class Oci:
    """See `Registry`."""

    def __init__(self, store: Folder | Remote, where: str):
        self.store, self.where = store, where

    def push(self, folder: Path, manifest: dict[str, Any], facts: dict[str, str]) -> None:
        version, layers = manifest["version"], []
        known = self._manifest(version)
        if known and _version(known).digest != manifest["package_digest"]:
            raise Refused(f"{version} is in {self.where} already, as another package")
        for name, expected in {**manifest["files"], "manifest.json": None}.items():
            content = (folder / name).read_bytes()
            if expected not in (None, digest(content)):
                raise BadInput(f"{folder / name} has changed: run `ml package` again")
            self.store.put(content)
            layers.append(descriptor(content, FILE, **{TITLE: name}))
        if known:
            return  # its blobs, should one have been damaged, are whole again
        own = facts | {name: manifest[name] for name in ("package_digest", "model_digest")}
        said = {STANDARD + name: manifest[name] for name in ("version", "created")}
        said[STANDARD + "revision"] = facts.get("commit", "none")
        said |= {OWN + key: value for key, value in own.items()}
        # Plain `skopeo inspect` reads no artifact but one that has an image's config.
        files = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        config = {"architecture": "unknown", "os": "unknown", "created": manifest["created"]}
        config |= {"config": {"Labels": said}, "rootfs": files}
        self._tag(version, MODEL, (json.dumps(config).encode(), CONFIG), layers, said)

    def versions(self) -> list[Version]:
        names = sorted(t for t in self.store.tags() if t != CHAMPION and not t.startswith(NOTES))
        found = [self._manifest(name) for name in names]
        return [_version(m) for m in found if m and m.get("artifactType") == MODEL]

    def fetch(self, version: str, to: Path) -> Path:
        manifest = self._manifest(version)
        if manifest is None or _version(manifest).version != version:
            raise BadInput(f"{self.where} has no version {version}: `ml models` lists them")
        with arriving(to, _version(manifest)) as new:
            for layer in manifest.get("layers", []):
                title, of = layer.get("annotations", {}).get(TITLE, ""), layer.get("digest")
                name = PurePosixPath(title)
                if name.is_absolute() or not name.name or {"..", "\\"} & {*name.parts, *title}:
                    raise BadInput(f"{version} in {self.where} names a file outside of it: {title}")
                content = self.store.blob(of)
                if content is None or digest(content) != of:
                    again = f"`ml register` the package of {version} again"
                    said = "is missing" if content is None else "is damaged"
                    raise BadInput(f"{self.where}: the blob {of} ({name}) {said}: {again}")
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(content)
        return to

    def get(self, note: str) -> str | None:
        found = self._manifest(NOTES + note)
        return found["annotations"][OWN + "text"] if found else None

    def set(self, note: str, text: str) -> None:
        self._tag(NOTES + note, NOTE, EMPTY, [descriptor(*EMPTY)], {OWN + "text": text})

    def alias(self, name: str) -> str | None:
        found = self._manifest(name)
        return _version(found).version if found else None

    def point(self, name: str, version: str) -> None:
        found = self.store.manifest(version)
        if found is None or digest(found[1]) != found[0]:
            raise BadInput(f"{version} in {self.where} is missing or damaged")
        self.store.tag(name, found[1], MODEL)

    def lock(self) -> AbstractContextManager[Still]:
        store = self.store
        return file_lock(store.path / ".lock") if isinstance(store, Folder) else lease(self)

    def _tag(
        self, name: str, kind: str, config: tuple[bytes, str], layers: Any, said: dict[str, str]
    ) -> None:
        self.store.put(config[0])
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind}
        manifest |= {"config": descriptor(*config), "layers": layers, "annotations": said}
        self.store.tag(name, json.dumps(manifest, indent=2).encode(), kind)

    def _manifest(self, tag: str) -> dict[str, Any] | None:
        found = self.store.manifest(tag)
        if found is None:
            return None
        expected, content = found
        if digest(content) != expected:
            raise BadInput(f"{self.where}: the manifest {expected} of {tag} is damaged")
        manifest: dict[str, Any] = parsed(content, f"{self.where}: the manifest of {tag}")
        return manifest


def opened(where: str) -> Oci:
    """Open a folder, or `oci://HOST/NAME`, or `oci+http://HOST/NAME` without encryption."""
    if "://" not in where:
        return Oci(Folder(Path(where)), f"{where}/")
    if not where.startswith(("oci://", "oci+http://")):
        raise BadInput(f"config/delivery.yaml: registry: {where} is no folder and no oci://")
    return Oci(Remote(where), where)


def _version(manifest: dict[str, Any]) -> Version:
    try:
        said: dict[str, str] = manifest["annotations"]
        facts = {k.removeprefix(OWN): v for k, v in said.items() if k.startswith(OWN)}
        digests = facts.pop("package_digest"), facts.pop("model_digest")
        return Version(said[f"{STANDARD}version"], *digests, said[f"{STANDARD}created"], facts)
    except (LookupError, TypeError, AttributeError):
        raise BadInput("the registry is damaged: a manifest in it is not of a model") from None
