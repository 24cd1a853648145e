"""What a registry is asked for: tags, manifests and blobs."""

import hashlib
import re
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlencode, urljoin, urlsplit

from .. import UsageError
from ..http_client import Response
from ..oci_content import (
    DIGEST,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    MAX_FILE,
    UnknownMediaType,
    digest,
)
from . import limits
from .connection import Connection
from .exchange import Broken, Slow

TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
INDEXES = (INDEX, DOCKER_INDEX)
IMAGES = (*INDEXES, MANIFEST, DOCKER_MANIFEST)


class Remote(Connection):
    """A registry that speaks the OCI distribution protocol.

    Each method raises UsageError if the registry refuses or does not answer.
    """

    def tags(self) -> list[str]:
        """The names of all manifests."""
        end = monotonic() + limits.LISTING
        tags = dict[str, None]()
        seen = set[str]()
        page = f"tags/list?n={limits.PAGE}"
        while page:
            seen.add(page)
            if len(seen) > limits.MAX_PAGES or monotonic() > end:
                raise UsageError(f"{self.url}: the registry's list of tags does not end")
            answer = self._ask("GET", page, 200, 404, 400)
            if answer.status == 400 and page.endswith(f"?n={limits.PAGE}"):
                page = "tags/list"  # it has a smaller limit
                continue
            if answer.status == 400:
                raise self._refused(answer, "GET", page)
            content = self._json(answer, "list of tags") if answer.status == 200 else {}
            names = content.get("tags")
            names = [] if names is None else names
            if not isinstance(names, list):
                raise UsageError(f"{self.url}: the registry's list of tags is malformed")
            tags |= dict.fromkeys(t for t in names if isinstance(t, str) and TAG.fullmatch(t))
            page = self._next_page(answer)
            if page in seen:
                raise UsageError(f"{self.url}: the registry's list of tags does not end")
        return list(tags)

    def manifest(self, reference: str) -> tuple[str, bytes] | None:
        """The digest that a tag, or a digest, is said to have, and the bytes; None without."""
        by_digest = DIGEST.fullmatch(reference)
        if not by_digest and not TAG.fullmatch(reference):
            return None
        answer = self._ask("GET", f"manifests/{reference}", 200, 404, headers={"Accept": MANIFEST})
        if answer.status == 404:
            return None
        named = answer.headers.get("Docker-Content-Digest") or digest(answer.body)
        return (reference if by_digest else named), answer.body

    def image(self, tag: str) -> tuple[str, bool] | None:
        """The digest of the image that a tag names, and whether it is an index; None without.

        An index names an image for each kind of machine. The digest is that of the bytes that came.
        """
        answer = self._ask(
            "GET", f"manifests/{tag}", 200, 404, headers={"Accept": ", ".join(IMAGES)}
        )
        if answer.status == 404:
            return None
        content_digest = digest(answer.body)
        named = answer.headers.get("Docker-Content-Digest", content_digest)
        kind = self._json(answer, f"manifest of {tag}").get("mediaType")
        kind = kind or answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if DIGEST.fullmatch(named) and named != content_digest:
            raise UsageError(f"{self.url}: what the registry has for {tag} is not {named}")
        if kind not in IMAGES:
            raise UsageError(f"{self.url}: what the registry has for {tag} is not an image")
        return content_digest, kind in INDEXES

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        """Store a manifest under a name.

        Raises:
            UnknownMediaType: It takes none of this type.
        """
        path = f"manifests/{name}"
        headers = {"Content-Type": MANIFEST}
        try:
            answer = self._ask("PUT", path, data=manifest, headers=headers, seconds=limits.COMMIT)
        except UsageError:
            if self._has(name, manifest):  # what failed was the answer
                return
            raise
        if answer.status in (200, 201, 202):
            return
        text = answer.body.decode("utf-8", "replace").lower()
        refused = self._refused(answer, "PUT", path)
        # GitLab: `MANIFEST_INVALID`, `unknown media type: …`; others say it in fewer words.
        signs = ("manifest_invalid", "unsupported", "media type", "mediatype")
        if answer.status in (400, 415, 422) and any(sign in text for sign in signs):
            raise UnknownMediaType(str(refused))
        if self._has(name, manifest):
            return
        if "immutable" in text or "already exist" in text or "overwritten" in text:
            advice = "`champion` and `note-…` must be free to move: exclude them from the rule"
            raise UsageError(f"{refused}; {advice} that keeps tags from changing")
        raise refused

    def put(self, content: bytes) -> None:
        """Store a blob, unless it is there."""
        blob = digest(content)
        if blob in self.present or self._has_blob(blob):
            return
        seconds = limits.COMMIT + len(content) / limits.RATE
        place = self._upload(blob)
        # Sent anew once where the connection broke, and once more in a session of its own.
        for again in (True, True, False):
            try:
                answer = self._ask("PUT", place, data=content, seconds=seconds, retries=0)
            except Slow as error:
                if self._has_blob(blob):
                    return
                raise UsageError(
                    f"{self.url}: the registry has not confirmed an upload of {len(content)} "
                    f"bytes within {seconds:.0f} s: {error}; try again later"
                ) from None
            except Broken as error:
                if self._has_blob(blob):
                    return
                if not again:
                    raise self._silent(error) from None
                continue
            if answer.status in (200, 201, 202, 204):
                self.present.add(blob)
                return
            if not again or answer.status not in (*limits.AGAIN, 400, 404, 416):
                raise self._refused(answer, "PUT", "blobs/uploads/")
            if answer.status in limits.AGAIN:
                wait = answer.retry_after()
                if wait is not None and wait > limits.TOTAL:
                    raise self._refused(answer, "PUT", "blobs/uploads/")
                sleep(1.0 if wait is None else wait)
            else:
                place = self._upload(blob)  # the old one was cut off

    def download(self, digest: str, size: int, to: Path) -> str | None:
        """Write a blob of a known size to a file.

        Returns:
            The digest of what came; None if there is no such blob.
        """
        if size > MAX_FILE:
            raise UsageError(
                f"{self.url}: the blob {digest} is said to have {size} bytes: too many"
            )
        total = limits.TOTAL + 2 * size / limits.RATE
        with to.open("wb") as file:
            answer = self._ask("GET", f"blobs/{digest}", 200, 404, limit=size, total=total, to=file)
        if answer.status == 404:
            to.unlink()
            return None
        with to.open("rb") as written:
            return f"sha256:{hashlib.file_digest(written, 'sha256').hexdigest()}"

    def _has(self, name: str, manifest: bytes) -> bool:
        """Whether a tag holds this manifest; no if that is not to be known."""
        try:
            stored = self.manifest(name)
        except UsageError:
            return False
        return stored is not None and stored[1] == manifest

    def _has_blob(self, digest: str) -> bool:
        is_stored = self._ask("HEAD", f"blobs/{digest}", 200, 404).status == 200
        if is_stored:
            self.present.add(digest)
        return is_stored

    def _upload(self, digest: str) -> str:
        """Open an upload; return where its content is to be put."""
        answer = self._ask("POST", "blobs/uploads/", 202)
        place = self._target(answer)
        return f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest}, safe=':')}"

    def _next_page(self, answer: Response) -> str:
        """The path of the next page of tags; empty at the end.

        Of the address only path and query are followed, always to this registry: behind a proxy
        registries name hosts that only they know, and a hostile one somebody else's.
        """
        try:
            link = answer.link("next")
            target = urlsplit(urljoin(answer.url, link or ""))
        except ValueError:
            link = None
        if not link:
            return ""
        if not target.path.endswith("/tags/list"):
            raise UsageError(f"{self.url}: the registry's list of tags is malformed")
        return f"tags/list?{target.query}"
