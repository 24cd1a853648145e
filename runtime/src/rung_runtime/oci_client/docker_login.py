"""Logins of container registries, as `docker login` leaves them in `config.json`.

Formats: https://docs.docker.com/reference/cli/docker/login/ and, of helpers,
https://github.com/docker/docker-credential-helpers. What cannot be read is never an error by
itself: the registry may ask for no login. It is a reason to give once the registry refuses.
"""

import base64
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..exceptions import UsageError
from ..process import run

# Docker Hub answers at one name, and logins to it are kept under another.
HUB = "registry-1.docker.io"
HUB_NAMES = ("docker.io", "index.docker.io", HUB)
HUB_KEY = "https://index.docker.io/v1/"
HELPER_SECONDS = 20
VARIABLE = "ML_REGISTRY_AUTH"  # what config.json would have, as a secret of a CI provider
IDENTITY = "<token>"  # the user name by which a helper marks an identity token


@dataclass(frozen=True)
class Login:
    """What is known of a login; empty if nothing is."""

    user: str = ""
    password: str = ""
    identity_token: str = ""  # to be exchanged for an access token
    registry_token: str = ""  # an access token itself
    source: str = ""
    problem: str = ""  # why a login that seems to be there could not be read

    def __bool__(self) -> bool:
        return bool(self.password or self.identity_token or self.registry_token)

    @property
    def basic(self) -> str:
        """User and password as the header `Authorization` has them."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


class Unreadable(Exception):
    """A login is there, and cannot be read."""


def find(host: str) -> Login:
    """Return the login of a registry: from its helper, from the file itself, or from the store."""
    try:
        path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker", "config.json")
    except RuntimeError:  # in a container whose user has no name and no home
        return Login()
    names = HUB_NAMES if host in HUB_NAMES else (host,)
    server = HUB_KEY if host in HUB_NAMES else host
    try:
        config = _config(path)
        helpers = _mapping(config.get("credHelpers"), f"{path}: credHelpers")
        auths = _mapping(config.get("auths"), f"{path}: auths")
    except Unreadable as error:
        return Login(problem=str(error))
    problems = list[str]()
    for kind, entry in (
        ("helper", next((helpers[key] for key in helpers if _host(key) in names), None)),
        ("entry", next((auths[key] for key in auths if _host(key) in names and auths[key]), None)),
        ("helper", config.get("credsStore")),
    ):
        if not entry:
            continue
        try:
            if kind == "helper":
                login = _from_helper(entry, server)
            else:
                login = _from_entry(entry, f"{path}: {host}")
        except Unreadable as error:
            problems.append(str(error))
            continue
        if login:
            return login
    return Login(problem=problems[0] if problems else "")


def from_variable(host: str) -> Login:
    """Return the login that ML_REGISTRY_AUTH has for a registry; an empty one if it has none."""
    text = os.environ.get(VARIABLE)
    if not text:
        return Login()
    names = HUB_NAMES if host in HUB_NAMES else (host,)
    try:
        auths = _mapping(_parsed(text, VARIABLE).get("auths"), f"{VARIABLE}: auths")
        entry = next((auths[key] for key in auths if _host(key) in names and auths[key]), None)
        return _from_entry(entry, f"{VARIABLE}: {host}") if entry else Login()
    except Unreadable as error:
        return Login(problem=str(error))


def _config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    return _parsed(text, str(path)) if text.strip() else {}


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return _mapping(json.loads(text), where)
    except (ValueError, RecursionError):
        raise Unreadable(f"{where} is not JSON") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{where} is not a JSON object")
    return value


def _host(key: str) -> str:
    """The host of a key of `auths`, which may be a URL."""
    return re.sub(r"^https?://", "", key.strip().lower()).partition("/")[0]


def _from_entry(entry: Any, where: str) -> Login:
    entry = _mapping(entry, where)
    fields = {name: entry.get(name) or "" for name in ("auth", "username", "password")}
    tokens = {name: entry.get(name) or "" for name in ("identitytoken", "registrytoken")}
    if not all(isinstance(value, str) for value in (fields | tokens).values()):
        raise Unreadable(f"{where} has a login that is not text")
    user = fields["username"]
    password = fields["password"]
    if fields["auth"]:
        try:
            text = base64.b64decode(fields["auth"], validate=True).decode("utf-8")
        except ValueError:
            raise Unreadable(f"{where} has an `auth` that is not base64") from None
        user, colon, password = text.partition(":")
        password = password.rstrip("\0")
        if not colon:
            raise Unreadable(f"{where} has an `auth` that is not USER:PASSWORD")
    return Login(user, password, tokens["identitytoken"], tokens["registrytoken"], where)


def _from_helper(name: Any, server: str) -> Login:
    """Ask a credential helper; an empty login if it knows none.

    Raises:
        Unreadable: It fails, or prints something else than a login.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise Unreadable(f"{name!r} is not the name of a credential helper")
    program = f"docker-credential-{name}"
    try:
        result = run([program, "get"], stdin=server.encode(), seconds=HELPER_SECONDS)
    except UsageError as error:
        raise Unreadable(f"the credential helper {error}") from None
    output = result.text.strip()
    if not result.succeeded:
        message = (output or result.error_text).strip()
        if "not found" in message.lower():
            return Login()
        line = "".join(c for c in message.partition("\n")[0] if c.isprintable())
        raise Unreadable(f"{program} fails: {line[:200] or f'exit code {result.returncode}'}")
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        # Never print what it printed: it may be a secret.
        output_kind = "something that is not JSON" if output else "nothing"
        raise Unreadable(f"{program} prints {output_kind}") from None
    user = answer.get("Username") if isinstance(answer, dict) else None
    secret = answer.get("Secret") if isinstance(answer, dict) else None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise Unreadable(f"{program} prints no Username and Secret")
    if user == IDENTITY:
        return Login(identity_token=secret, source=program)
    return Login(user, secret, source=program)
