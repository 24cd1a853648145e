"""One request to a registry, its answer, and the sentence for a person if it refuses."""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from .. import UsageError, ci_platform
from ..http_client import (
    NO_RETRIES,
    Client,
    Limits,
    NoResponse,
    Response,
    ResponseTooLarge,
    TimedOut,
    origin,
)
from . import docker_login, limits

HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
NAME = re.compile(r"[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*(/[A-Za-z0-9]+([._-]+[A-Za-z0-9]+)*)*")


class Broken(Exception):
    """No answer came, for a reason to be told."""


class Slow(Broken):
    """No answer came in time: what was sent may have arrived."""


class Exchange:
    """A registry at its address, and who we are to it."""

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
        bounds = Limits(
            limits.CONNECT,
            seconds,
            limits.RATE,
            max_bytes=limit,
            max_error_bytes=limits.MAX_ERROR,
        )
        try:
            return self.client.exchange(
                method, url, body=data or None, headers=headers, limits=bounds, to=to
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

    def _json(self, answer: Response, what: str) -> dict[str, Any]:
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise UsageError(f"{self.url}: the registry's {what} is malformed")
        return content

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

    def _silent(self, error: Broken) -> UsageError:
        return UsageError(f"{self.url}: the registry does not answer: {error}")

    def _refused(self, answer: Response, method: str, path: str) -> UsageError:
        """What to tell a person of an answer: the registry's own reason, and what to do."""
        text = reason(answer)
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


def reason(answer: Response) -> str:
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
