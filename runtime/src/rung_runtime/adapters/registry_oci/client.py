"""A client of the OCI distribution protocol.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, tokens after
https://distribution.github.io/distribution/spec/auth/token/.

A registry decides what it answers, so that all of it has a bound: bytes, pages, redirects, seconds.
Credentials go to the registry's own origin, and to the token server that it names there, over TLS
or within this machine. What is uploaded is not sent again while nobody knows whether it arrived.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any, BinaryIO
from urllib.parse import urlencode, urljoin, urlsplit

from ... import UsageError, ci_platform
from ...http_client import (
    NO_RETRIES,
    Client,
    Limits,
    NoResponse,
    Response,
    ResponseTooLarge,
    TimedOut,
    is_loopback,
    origin,
)
from . import docker_login
from .artifact import BYTES, DIGEST, MANIFEST, MAX_FILE, UnknownMediaType, digest

# Seconds. A request of little content ends within TOTAL with all its retries, which is less than a
# lease lasts after its last write may start: see LEASE and WRITES.
CONNECT = 5.0
ANSWER = 10.0  # to a question
COMMIT = 30.0  # to an upload: object stores take their time
TOTAL = 40.0
RATE = 100_000.0  # bytes in a second: the slowest line that is waited for
RETRIES = 3
LISTING = 60.0  # for all pages of tags
# Bytes. Registries take manifests of 4 MiB at most.
MAX_JSON = 8 * 2**20
MAX_ERROR = 2**16
MAX_PAGES = 200
MAX_REDIRECTS = 5
PAGE = 1000
AGAIN = (429, 500, 502, 503, 504)
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
NAME = re.compile(r"[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*(/[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*)*")


class Broken(Exception):
    """No answer came, for a reason to be told."""


class Slow(Broken):
    """No answer came in time: what was sent may have arrived."""


class Remote:
    """A registry that speaks the OCI distribution protocol."""

    def __init__(self, url: str):
        scheme, _, place = url.partition("://")
        host, _, name = place.partition("/")
        self.url = url
        host_has_port_or_dot = set(host) & {".", ":"}
        if not (HOST.fullmatch(host) and NAME.fullmatch(name) and host_has_port_or_dot):
            shown = re.sub(r"//[^/]*@", "//…@", url)
            message = f"config/delivery.yaml: registry: {shown} is not oci://HOST/NAME"
            raise UsageError(f"{message}, with a HOST like ghcr.io or localhost:5000")
        self.host = host.lower()
        self.name = name
        server = docker_login.HUB if self.host in docker_login.HUB_NAMES else self.host
        prefix = "http" if scheme == "oci+http" else "https"
        self.origin = origin(f"{prefix}://{server}")
        self.base = f"{prefix}://{server}/v2/{name}/"
        self.encrypted = prefix == "https"
        # Basic, Bearer or nothing, and what belongs to it; known once the registry has asked.
        self.authorization = ""
        self.present = set[str]()  # blobs that are known to be there
        self.client = Client(retries=NO_RETRIES, use_proxies=self.encrypted)

    @cached_property
    def login(self) -> docker_login.Login:
        """What ML_REGISTRY_AUTH says, else the job's own credentials or those of `docker login`."""
        named = docker_login.from_variable(self.host)
        if named or named.problem:
            return named
        if own := ci_platform.registry_credentials(self.host):
            return docker_login.Login(*own, source="the job's token")
        return docker_login.find(self.host)

    # What a registry is asked for. Each raises UsageError if it refuses or does not answer.

    def tags(self) -> list[str]:
        """The names of all manifests."""
        end = monotonic() + LISTING
        tags = dict[str, None]()
        seen = set[str]()
        page = f"tags/list?n={PAGE}"
        while page:
            seen.add(page)
            if len(seen) > MAX_PAGES or monotonic() > end:
                raise UsageError(f"{self.url}: the registry's list of tags does not end")
            answer = self._ask("GET", page, 200, 404, 400)
            if answer.status == 400 and page.endswith(f"?n={PAGE}"):
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

    def tag(self, name: str, manifest: bytes, kind: str) -> None:
        """Store a manifest under a name.

        Raises:
            UnknownMediaType: It takes none of this type.
        """
        path = f"manifests/{name}"
        headers = {"Content-Type": MANIFEST}
        try:
            answer = self._ask("PUT", path, data=manifest, headers=headers, seconds=COMMIT)
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
        seconds = COMMIT + len(content) / RATE
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
            if not again or answer.status not in (*AGAIN, 400, 404, 416):
                raise self._refused(answer, "PUT", "blobs/uploads/")
            if answer.status in AGAIN:
                wait = answer.retry_after()
                if wait is not None and wait > TOTAL:
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
        total = TOTAL + 2 * size / RATE
        with to.open("wb") as file:
            answer = self._ask("GET", f"blobs/{digest}", 200, 404, limit=size, total=total, to=file)
        if answer.status == 404:
            to.unlink()
            return None
        with to.open("rb") as written:
            return f"sha256:{hashlib.file_digest(written, 'sha256').hexdigest()}"

    # Parts of the above.

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

    def _target(self, answer: Response) -> str:
        """Where an answer sends us, which is never from an encrypted place to an open one."""
        location = answer.headers.get("Location", "")
        try:
            place = urljoin(answer.url, location)
            scheme, host, _ = origin(place)
        except ValueError:
            host = ""
        if not location or not host:
            raise UsageError(f"{self.url}: the registry answers {answer.status} and names no place")
        if scheme == "http" and answer.url.startswith("https:"):
            raise UsageError(
                f"{self.url}: the registry leads to {host} without encryption: if it is behind a "
                "proxy, that has to pass X-Forwarded-Proto"
            )
        return place.partition("#")[0]

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

    def _json(self, answer: Response, what: str) -> dict[str, Any]:
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise UsageError(f"{self.url}: the registry's {what} is malformed")
        return content

    # Asking: again where that may help, as whom it has to be, and bounded.

    def _ask(
        self,
        method: str,
        path: str,
        *expected: int,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_JSON,
        seconds: float | None = None,
        total: float = TOTAL,
        retries: int | None = None,
        to: BinaryIO | None = None,
    ) -> Response:
        """Ask, again if the registry is busy or the connection breaks.

        Args:
            expected: What it may answer; without, whatever it does.
            limit: Of the bytes of the answer.
            seconds: For one answer; more as it arrives, at RATE.
            total: For all of it.
            retries: How often to ask again; with 0, no answer is Broken or Slow.
            to: Where to write the content to.

        Raises:
            UsageError: There is no answer, or another one.
        """
        seconds = ANSWER if seconds is None else seconds
        url = urljoin(self.base, path)
        left = RETRIES if retries is None else retries
        end = monotonic() + max(total, seconds)
        pause = 0.5
        more = dict(headers or {}) | ({"Content-Type": BYTES} if data and not headers else {})
        while True:
            problem: UsageError
            wait = pause
            try:
                answer = self._send(method, url, data, more, limit, seconds, to)
            except Broken as error:
                if retries == 0:
                    raise
                problem = self._silent(error)
                if isinstance(error, Slow) and data:
                    raise problem from None  # it may have arrived
            else:
                if answer.status not in AGAIN or retries == 0:
                    if expected and answer.status not in expected:
                        raise self._refused(answer, method, path)
                    return answer
                problem = self._refused(answer, method, path)
                retry_after = answer.retry_after()
                wait = pause if retry_after is None else retry_after
            left -= 1
            seconds = min(seconds, end - monotonic() - wait)
            if left < 0 or seconds <= 0:
                raise problem
            sleep(wait)
            pause *= 2

    def _send(
        self,
        method: str,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        limit: int,
        seconds: float,
        to: BinaryIO | None,
    ) -> Response:
        """Send a request, with credentials where they belong, and follow redirects of reading."""
        tried = False
        for _ in range(MAX_REDIRECTS + 2):
            own = origin(url) == self.origin
            more = dict(headers)
            if own and self.authorization:
                more["Authorization"] = self.authorization
            answer = self._exchange(method, url, data, more, limit, seconds, to)
            if answer.status == 401 and own and not tried:
                tried = True
                self._authorize(answer, writes=method not in ("GET", "HEAD"), seconds=seconds)
            elif answer.status in (301, 302, 303, 307, 308) and method in ("GET", "HEAD"):
                url = self._target(answer)
            else:
                return answer
        raise UsageError(f"{self.url}: the registry redirects without an end")

    def _authorize(self, answer: Response, *, writes: bool, seconds: float) -> None:
        """Be who the registry asks for.

        Raises:
            UsageError: We cannot, or may not.
        """
        challenge = answer.headers.get("WWW-Authenticate", "")
        bearer = re.search(r"(?i)\bbearer\s+(.*)", challenge)
        known = re.match(r"(?i)\s*basic\b|.*,\s*basic\s", challenge)
        if self.login and not self.encrypted and not is_loopback(self.origin[1]):
            raise UsageError(
                f"{self.url}: the registry asks for a login, and that is sent encrypted only: "
                f"use oci://{self.host}/{self.name}"
            )
        if bearer:
            self.authorization = self._token(bearer[1], writes=writes, seconds=seconds)
        elif known and self.login.password and not self.authorization:
            self.authorization = f"Basic {self.login.basic}"
        else:
            raise self._refused(answer, "", "")

    def _token(self, challenge: str, *, writes: bool, seconds: float) -> str:
        """Ask the registry's token server for an access token."""
        if self.login.registry_token:
            return f"Bearer {self.login.registry_token}"
        params = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = params.get("realm", "")
        try:
            scheme, host, _ = origin(realm)
        except ValueError:
            scheme = ""
            host = ""
        if not host or (scheme != "https" and (self.encrypted or not is_loopback(host))):
            named = f"{scheme}://{host}" if host else "no address"
            raise UsageError(f"{self.url}: the registry names {named} for logins, not one with TLS")
        scope = f"repository:{self.name}:pull,push" if writes else params.get("scope")
        query = {"scope": scope or f"repository:{self.name}:pull"}
        if params.get("service"):
            query["service"] = params["service"]
        if self.login.identity_token:
            query |= {"grant_type": "refresh_token", "client_id": "rung"}
            body = urlencode(query | {"refresh_token": self.login.identity_token}).encode()
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._exchange("POST", realm, body, form, MAX_JSON, seconds, None)
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            own = {"Authorization": f"Basic {self.login.basic}"} if self.login.password else {}
            answer = self._exchange("GET", url, b"", own, MAX_JSON, seconds, None)
        if answer.status in AGAIN:
            raise Broken(f"its token server answers {_reason(answer)}")
        if answer.status != 200:
            raise self._refused(replace(answer, url=self.base), "", "")
        content = self._json(answer, "token")
        token = content.get("token") or content.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UsageError(f"{self.url}: the registry's token is malformed")
        return f"Bearer {token}"

    def _exchange(
        self,
        method: str,
        url: str,
        data: bytes,
        headers: Mapping[str, str],
        limit: int,
        seconds: float,
        to: BinaryIO | None,
    ) -> Response:
        """Send one request and read one answer.

        Raises:
            UsageError: It is larger than its limit, or the disk cannot be written.
            Broken: The connection does.
            Slow: It is not there in time, whatever the registry sends meanwhile.
        """
        limits = Limits(CONNECT, seconds, RATE, max_bytes=limit, max_error_bytes=MAX_ERROR)
        try:
            return self.client.exchange(
                method, url, body=data or None, headers=headers, limits=limits, to=to
            )
        except ResponseTooLarge:
            raise UsageError(
                f"{self.url}: the registry's answer has more than {limit} bytes: "
                "it is damaged, or another one is there"
            ) from None
        except TimedOut as error:
            raise Slow(str(error)) from None
        except (NoResponse, ValueError) as error:
            raise Broken(str(error)) from None
        except OSError as error:
            if to is None or error.filename is not None:  # of certificates, for one
                raise Broken(str(error)) from None
            raise UsageError(f"the disk cannot be written: {error.strerror}") from None

    # Reasons.

    def _silent(self, error: Broken) -> UsageError:
        return UsageError(f"{self.url}: the registry does not answer: {error}")

    def _refused(self, answer: Response, method: str, path: str) -> UsageError:
        """What to tell a person of an answer: the registry's own reason, and what to do."""
        text = _reason(answer)
        for secret in self._secrets():
            text = text.replace(secret, "…")  # a registry may repeat what it was sent
        if answer.status == 429:
            wait = answer.retry_after()
            when = "later" if wait is None else f"in {wait:.0f} s"
            return UsageError(f"{self.url}: the registry takes no more for now: {text}: try {when}")
        if answer.status >= 500:
            return UsageError(f"{self.url}: the registry does not answer: {text}: try again later")
        if answer.status in (401, 403):
            return UsageError(f"{self.url}: the registry refuses: {text}: {self._advice(answer)}")
        request = f" to {method} {path.partition('?')[0]}" if method else ""
        if answer.status == 404 and method != "GET":
            request += ": is there such a repository, and may this login write to it?"
        return UsageError(f"{self.url}: the registry answers {text}{request}")

    def _secrets(self) -> list[str]:
        """What was sent to prove who we are."""
        sent = [self.authorization.partition(" ")[2]]
        if "login" in self.__dict__:
            login = self.login
            sent += [login.password, login.identity_token, login.registry_token]
            sent += [login.basic] if login.password else []
        return [secret for secret in sent if len(secret) > 3]

    def _advice(self, answer: Response) -> str:
        if origin(answer.url) != self.origin:
            return f"that is {urlsplit(answer.url).hostname}, where it keeps its files"
        login = f"`docker login {self.host}`"
        if self.login.problem:
            return f"{self.login.problem}; {login} makes a new login"
        if not self.login:
            return f"log in with {login}"
        if self.login.source == "the job's token":
            return "the job's token may not do that: see the permissions of job and package"
        if answer.status == 401:
            return f"the login of {self.login.source} is wrong or has expired: {login}"
        return f"may the login of {self.login.source} do that? {login} makes another"


def _reason(answer: Response) -> str:
    """Return the registry's own reason, in one printable line.

    Errors are https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes;
    token servers have `details` or `message`, after OAuth 2 `error_description`.
    """
    text = ""
    try:
        content = answer.json()
    except ValueError:
        content = None
        if not answer.headers.get("Content-Type", "").startswith("text/html"):
            text = answer.body.decode("utf-8", "replace")
    if isinstance(content, dict):
        errors = content.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            parts = [errors[0].get(key) for key in ("code", "message", "detail")]
        else:
            names = ("details", "message", "error_description", "error")
            parts = [content[name] for name in names if content.get(name)][:1]
        texts = [part if isinstance(part, str) else json.dumps(part) for part in parts if part]
        text = ": ".join(dict.fromkeys(texts))
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    head = f"{answer.status} {answer.reason}".strip()
    return f"{head}: {line[:300]}" if line else head
