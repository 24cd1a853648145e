"""A container registry on loopback that behaves as hosted ones do, and counts what it is asked.

It speaks the OCI distribution protocol as far as ours, buildah and skopeo do. With `knows` it
takes the media types of that list alone, and refuses others as GitLab's registry 4.32 does. With
`answers` a test decides what a request gets: to be slow, immutable, hostile. It leaves out
deletion, mounts, ranges and referrers, and never checks that what a manifest names is there.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, urlsplit

GITLAB = frozenset(Path(__file__).with_name("gitlab-media-types.txt").read_text().split("\n")[:-1])
PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>blobs|manifests|tags)/(?P<rest>.*)")


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    file: Path | None = None  # where a body is that is too large to be kept

    @property
    def authorization(self) -> str:
        """The credentials that came with it."""
        return self.headers.get("Authorization", "")


@dataclass
class Response:
    """What is answered. A body may come in parts, as an iterator yields them."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""


def error(status: int, code: str, message: str, detail: Any = None, **headers: str) -> Response:
    """Refuse in the form of the specification."""
    body = {"errors": [{"code": code, "message": message, "detail": detail}]}
    kind = {"Content-Type": "application/json"}
    return Response(status, kind | headers, json.dumps(body).encode())


def sha(content: bytes) -> str:
    """The digest of a content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Registry:
    """The registry, and what it was asked. Blobs are files in a folder, if it has one."""

    knows: Collection[str] | None = None
    answers: Callable[[Request], Response | None] = lambda _: None
    folder: Path | None = None
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes | Path] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, list[bytes | Path]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def count(self, method: str = "", part: str = "") -> int:
        """How many requests of a method there were, of paths with a part."""
        return sum(method in r.method and part in r.path for r in self.requests)

    def tagged(self, name: str) -> list[str]:
        """The tags of a repository."""
        return sorted(
            tag for repository, tag in self.manifests if repository == name and ":" not in tag
        )

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        self.requests.append(request)
        if (own := self.answers(request)) is not None:
            return own
        parts = urlsplit(request.path)
        if parts.path in ("/v2", "/v2/"):
            return Response(200, {"Docker-Distribution-Api-Version": "registry/2.0"})
        if not (match := PATH.fullmatch(parts.path)):
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        act = getattr(self, f"_{match['kind']}")
        return cast(Response, act(request, match["name"], match["rest"], query))

    def _tags(self, request: Request, name: str, _: str, query: dict[str, str]) -> Response:
        tags = self.tagged(name)
        if not tags:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        size = int(query.get("n", 100))
        rest = [tag for tag in tags if tag > query.get("last", "")]
        headers = {"Content-Type": "application/json"}
        if len(rest) > size:
            more = f"/v2/{name}/tags/list?n={size}&last={rest[size - 1]}"
            headers["Link"] = f'<{more}>; rel="next"'
        return Response(200, headers, json.dumps({"name": name, "tags": rest[:size]}).encode())

    def _manifests(self, request: Request, name: str, tag: str, _: dict[str, str]) -> Response:
        if request.method == "PUT":
            if unknown := self._unknown(json.loads(request.body)):
                detail = f"unknown media type: {unknown}"
                return error(400, "MANIFEST_INVALID", "manifest invalid", detail)
            for reference in (tag, sha(request.body)):
                self.manifests[name, reference] = request.body
            return Response(201, {"Docker-Content-Digest": sha(request.body)})
        content = self.manifests.get((name, tag))
        if content is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        kind = re.search(rb'"mediaType": *"([!-~]+?)"', content)
        headers = {"Docker-Content-Digest": sha(content)}
        headers["Content-Type"] = kind[1].decode() if kind else "application/json"
        return Response(200, headers, content)

    def _unknown(self, manifest: dict[str, Any]) -> str | None:
        """The first media type that is not of the list."""
        if self.knows is None:
            return None
        kinds = [manifest.get("mediaType"), manifest.get("artifactType")]
        parts = [manifest.get("config"), *manifest.get("layers", [])]
        kinds += [part["mediaType"] for part in parts if part]
        return next((kind for kind in kinds if kind and kind not in self.knows), None)

    def _blobs(self, request: Request, name: str, rest: str, query: dict[str, str]) -> Response:
        if not rest.startswith("uploads"):
            content = self.blobs.get(rest)
            if content is None:
                return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
            headers = {"Docker-Content-Digest": rest}
            if isinstance(content, Path):
                headers["Content-Length"] = str(content.stat().st_size)
                return Response(200, headers, blocks(content))
            return Response(200, headers, content)
        number = rest.removeprefix("uploads").strip("/") or uuid.uuid4().hex
        place = f"/v2/{name}/blobs/uploads/{number}"
        if request.method == "POST":
            self.uploads[number] = []
            return Response(202, {"Location": place})
        if number not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        parts = self.uploads[number]
        parts.append(request.file or request.body)
        if request.method == "PATCH":
            sizes = [p.stat().st_size if isinstance(p, Path) else len(p) for p in parts]
            return Response(202, {"Location": place, "Range": f"0-{max(0, sum(sizes) - 1)}"})
        whole = self._joined(self.uploads.pop(number))
        digest = f"sha256:{hashlib.sha256(whole).hexdigest()}" if isinstance(whole, bytes) else ""
        if isinstance(whole, Path):
            with whole.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if digest != query.get("digest"):
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[digest] = whole
        return Response(201, {"Docker-Content-Digest": digest, "Location": place})

    def _joined(self, parts: list[bytes | Path]) -> bytes | Path:
        """One content of several, in a file if there is a folder for it."""
        if self.folder is None:
            return b"".join(part for part in parts if isinstance(part, bytes))
        whole = self.folder / uuid.uuid4().hex
        with whole.open("wb") as file:
            for part in parts:
                if isinstance(part, Path):
                    file.writelines(blocks(part))
                    part.unlink()
        return whole


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    """Serve a registry at a port of loopback that is free."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            with suppress(OSError):
                super().handle_one_request()
                return
            self.close_connection = True

        def reply(self) -> None:
            headers = dict(self.headers.items())
            parts = received(cast(BinaryIO, self.rfile), headers)
            request = Request(self.command, self.path, headers)
            if registry.folder and "/blobs/uploads/" in self.path:
                request.file = registry.folder / uuid.uuid4().hex
                with request.file.open("wb") as file:
                    file.writelines(parts)
            else:
                request.body = b"".join(parts)
            answer = registry.answer(request)
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            body = [answer.body] if isinstance(answer.body, bytes) else answer.body
            if isinstance(answer.body, bytes):
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            for part in body if self.command != "HEAD" else []:
                self.wfile.write(part)
                self.wfile.flush()

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = reply  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", registry.port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()


def received(stream: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Read a body, of a known length or in chunks, part by part."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        while size := int(stream.readline().split(b";")[0], 16):
            yield stream.read(size)
            stream.readline()
        stream.readline()
        return
    left = int(headers.get("Content-Length") or 0)
    while left > 0 and (part := stream.read(min(left, 2**20))):
        left -= len(part)
        yield part


def blocks(path: Path) -> Iterator[bytes]:
    """Read a file part by part."""
    with path.open("rb") as file:
        while part := file.read(2**20):
            yield part
