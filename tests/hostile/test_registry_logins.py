"""Credentials: found where they are kept, sent to the registry alone, and refused with a reason."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from rung_runtime import UsageError
from standins.registry import Registry, Request, Response, error, serving, sha

Import = Callable[[str], ModuleType]
NAME = "team/models"
HUB = "https://index.docker.io/v1/"


def auth(user: str = "us", password: str = "pass:word") -> str:
    """Encode a login as `docker login` writes it."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def client(module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the client, on a machine that has no login and is not a runner."""
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    imported = module("oci_client")
    for part in (imported.connection, imported.remote):
        monkeypatch.setattr(part, "sleep", lambda _: None)
    return imported


@pytest.fixture
def find(client: ModuleType, module: Import, tmp_path: Path) -> Callable[..., Any]:
    """Find a login in a config.json with this content."""

    def find(host: str, config: Any) -> Any:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
        return module("oci_client.docker_login").find(host)

    return find


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install the credential helper `ours`, which is a shell script."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")

    def helper(script: str) -> None:
        program = tmp_path / "bin/docker-credential-ours"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return helper


# --- where logins are kept -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("harbor.example", "harbor.example"),
        ("harbor.example", "https://harbor.example/v2/"),
        ("harbor.example", "HTTPS://Harbor.Example"),
        ("localhost:5000", "http://localhost:5000"),
        ("docker.io", HUB),
        ("docker.io", "index.docker.io"),
        ("registry-1.docker.io", HUB),
        ("index.docker.io", "docker.io"),
    ],
)
def test_a_login_is_found_under_each_name_of_its_host(
    find: Callable[..., Any], host: str, key: str
) -> None:
    login = find(
        host, {"auths": {"other.example": {"auth": auth("x", "y")}, key: {"auth": auth()}}}
    )
    assert (login.user, login.password, login.problem) == ("us", "pass:word", "")
    assert not find("harbor.example.evil", {"auths": {key: {"auth": auth()}}})


def test_docker_hub_is_asked_where_it_answers(client: ModuleType) -> None:
    for host in ("docker.io", "index.docker.io", "Docker.io"):
        remote = client.Remote(f"oci://{host}/us/models")
        assert remote.base == "https://registry-1.docker.io/v2/us/models/"


ODD = [
    "", " \n", "{", "[]", "null", "7", '"x"', "\0", "[" * 100_000, {"auths": None}, {"auths": []},
    {"auths": 7}, {"auths": {"h.example": None}}, {"auths": {"h.example": {}}},
    {"auths": {"h.example": []}}, {"auths": {"h.example": "x"}},
    {"auths": {"h.example": {"auth": None}}}, {"auths": {"h.example": {"auth": 7}}},
    {"auths": {"h.example": {"auth": "%%%"}}}, {"auths": {"h.example": {"auth": "ÿ"}}},
    {"auths": {"h.example": {"auth": base64.b64encode(b"nocolon").decode()}}},
    {"auths": {"h.example": {"auth": base64.b64encode(b"\xff\xfe:").decode()}}},
    {"credHelpers": []}, {"credHelpers": {"h.example": 7}}, {"credHelpers": {"h.example": "../x"}},
    {"credHelpers": {"h.example": "not-installed"}}, {"credsStore": 7}, {"credsStore": ["x"]},
    {"credsStore": "a b"}, {"credsStore": "x\0y"}, {"credsStore": ""},
]  # fmt: skip


@pytest.mark.parametrize("config", ODD, ids=lambda config: str(config)[:40])
def test_an_odd_config_is_no_login_and_no_traceback(
    find: Callable[..., Any], client: ModuleType, config: Any
) -> None:
    login = find("h.example", config)
    assert not login
    assert "\n" not in login.problem
    if not str(config).strip():
        assert login.problem == ""  # as docker has it
    # It is told only once the registry refuses.
    with serving(Registry()) as registry:
        remote = client.Remote(f"oci+http://{registry.address}/{NAME}")
        assert remote.tags() == []
        registry.answers = lambda _: error(401, "UNAUTHORIZED", "authentication required")
        remote.__dict__["login"] = login
        with pytest.raises(UsageError, match=r"401 .*: UNAUTHORIZED: .*`docker login") as refused:
            remote.tags()
        assert login.problem in str(refused.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "prints nothing"),
        ("echo", "prints nothing"),
        ("echo '{'", "not JSON"),
        ("echo 'a secret'", "not JSON"),
        ("echo '[]'", "no Username and Secret"),
        ("echo null", "no Username and Secret"),
        ("""echo '{"Username": "us"}'""", "no Username and Secret"),
        ("""echo '{"Username": null, "Secret": 7}'""", "no Username and Secret"),
        ("echo broken keychain >&2; exit 3", "broken keychain"),
        ("exit 3", "exit code 3"),
        ("printf '\\033[31mred\\nlines'; exit 1", r"\[31mred"),
        ("printf '\\377'", "not JSON"),
    ],
)
def test_a_helper_that_prints_odd_things_is_named_with_the_reason(
    find: Callable[..., Any], helper: Callable[..., None], script: str, reason: str
) -> None:
    helper(script)
    for config in ({"credHelpers": {"h.example": "ours"}}, {"credsStore": "ours"}):
        login = find("h.example", config)
        assert not login
        assert re.search(rf"docker-credential-ours .*{reason}", login.problem)
        assert "secret" not in login.problem
        assert login.problem.isprintable()


def test_a_helper_is_asked_as_docker_asks_it(
    find: Callable[..., Any], helper: Callable[..., None], tmp_path: Path
) -> None:
    helper(f"""cat > {tmp_path}/asked; echo '{{"Username": "us", "Secret": "s"}}'""")
    for host, server in {"h.example": "h.example", "docker.io": HUB}.items():
        login = find(host, {"credsStore": "ours", "auths": {server: {}}})
        assert (login.user, login.password) == ("us", "s")
        assert (tmp_path / "asked").read_text() == server
    helper("""echo '{"Username": "<token>", "Secret": "identity"}'""")  # pragma: allowlist secret
    assert find("h.example", {"credsStore": "ours"}).identity_token == "identity"
    helper("echo credentials not found in native keychain; exit 1")
    known = {"credHelpers": {"h.example": "ours"}, "auths": {"h.example": {"auth": auth()}}}
    assert find("h.example", known).password == "pass:word"  # pragma: allowlist secret


# --- asking for tokens -----------------------------------------------------------------------


class Guarded:
    """A registry with a token server, as the hosted ones have it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.refuses: Response | None = None
        self.scopes: list[str] = []
        self.requests: list[Request] = []
        registry.answers = self.answer

    def answer(self, request: Request) -> Response | None:
        realm = f"http://{self.registry.address}/token"
        if request.path.startswith("/token"):
            self.requests.append(request)
            query = parse_qs(request.body.decode() or urlsplit(request.path).query)
            self.scopes += query["scope"]
            if self.refuses:
                return self.refuses
            token = json.dumps({"access_token": f"T{len(self.scopes)}:{query['scope'][0]}"})
            return Response(200, {}, token.encode())
        scope = f"repository:{NAME}:pull"
        token = request.authorization.removeprefix("Bearer ")
        writes = request.method in ("PUT", "POST")
        if scope in token and (not writes or "push" in token):
            return None
        challenge = f'Bearer realm="{realm}",service="reg",scope="{scope}"'
        more = {"WWW-Authenticate": challenge}
        return error(401, "UNAUTHORIZED", "authentication required", **more)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """Serve a registry that asks who we are."""
    with serving(Registry()) as registry:
        yield Guarded(registry)


@pytest.fixture
def remote(guarded: Guarded, client: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Open it, with a login."""

    def remote(**login: str) -> Any:
        known = {guarded.registry.address: login or {"auth": auth()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": known}))
        return client.Remote(f"oci+http://{guarded.registry.address}/{NAME}")

    return remote


def test_a_token_is_asked_for_once_to_read_and_once_to_write(
    guarded: Guarded, remote: Callable[..., Any]
) -> None:
    opened = remote()
    for _ in range(3):
        assert opened.manifest("champion") is None
    opened.put(b"content")
    opened.tag("champion", b"{}", "")
    assert opened.manifest("champion")
    scope = f"repository:{NAME}:pull"
    assert guarded.scopes == [scope, f"{scope},push"]
    assert {request.authorization for request in guarded.requests} == {f"Basic {auth()}"}


def test_an_identity_token_is_exchanged_and_never_sent_as_a_password(
    guarded: Guarded, remote: Callable[..., Any]
) -> None:
    remote(auth=auth("<token>", ""), identitytoken="identity").put(b"content")
    assert {request.method for request in guarded.requests} == {"POST"}
    forms = [parse_qs(request.body.decode()) for request in guarded.requests]
    assert {form["refresh_token"][0] for form in forms} == {"identity"}
    assert {form["grant_type"][0] for form in forms} == {"refresh_token"}
    assert not any(request.authorization for request in guarded.requests)
    assert not any("identity" in r.authorization for r in guarded.registry.requests)


def test_a_registry_token_is_sent_as_it_is(guarded: Guarded, remote: Callable[..., Any]) -> None:
    assert remote(registrytoken=f"repository:{NAME}:pull").tags() == []
    assert guarded.requests == []


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [
        (Response(401, {}, b'{"details": "incorrect username or password"}'), "incorrect username"),
        (error(401, "UNAUTHORIZED", "your token has expired"), "expired"),
        (error(403, "DENIED", "account is suspended"), "suspended"),
        (Response(400, {}, b'{"error": "invalid_grant", "error_description": "gone"}'), "gone"),
        (Response(200, {}, b"{}"), "token is malformed"),
        (Response(200, {}, b"[]"), "token is malformed"),
        (Response(200, {}, b'{"token": "a\\nb"}'), "token is malformed"),
        (Response(200, {}, b'{"token": 7}'), "token is malformed"),
        (Response(503, {}, b"busy"), "busy"),
        (Response(302, {"Location": "http://127.0.0.1:9/"}), "302"),
    ],
)
def test_a_login_that_is_refused_is_told_with_the_reason(
    guarded: Guarded, remote: Callable[..., Any], client: ModuleType, answer: Response, reasons: str
) -> None:
    guarded.refuses = answer
    with pytest.raises(UsageError, match=reasons) as refused:
        remote().tags()
    message = str(refused.value)
    assert message.startswith("oci+http://127.0.0.1")
    assert "\n" not in message
    assert "pass:word" not in message
    assert ("docker login" in message) == (answer.status in (401, 403))
    assert len(guarded.requests) == (1 + client.limits.RETRIES if answer.status == 503 else 1)


@pytest.mark.parametrize(
    "challenge", ["Basic realm=x", "Bearer", 'Bearer realm="x"', "", "?", "Basic"]
)
def test_a_registry_that_refuses_every_login_is_asked_twice(
    client: ModuleType, tmp_path: Path, challenge: str
) -> None:
    with serving(Registry()) as registry:
        known = {registry.address: {"auth": auth()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": known}))
        more = {"WWW-Authenticate": challenge} if challenge else {}
        registry.answers = lambda _: error(401, "UNAUTHORIZED", "who are you", **more)
        with pytest.raises(UsageError, match=r"who are you|names no address"):
            client.Remote(f"oci+http://{registry.address}/{NAME}").tags()
        assert len(registry.requests) <= 2


def test_a_refusal_says_what_the_registry_said(client: ModuleType) -> None:
    with serving(Registry()) as registry:
        registry.answers = lambda _: error(403, "DENIED", "requested access is denied", {"x": 1})
        with pytest.raises(UsageError, match="403 Forbidden: DENIED: requested access"):
            client.Remote(f"oci+http://{registry.address}/{NAME}").tags()
        assert len(registry.requests) == 1


def test_what_a_registry_repeats_of_a_login_is_not_printed(
    guarded: Guarded, remote: Callable[..., Any], client: ModuleType
) -> None:
    opened = remote()
    assert opened.tags() == []
    token = opened.authorization.partition(" ")[2]
    guarded.registry.answers = lambda r: error(
        403, "DENIED", f"{auth()} {r.authorization} pass:word"
    )
    with pytest.raises(UsageError, match="DENIED: … Bearer … …") as refused:
        opened.tags()
    assert token not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "user", "reason"),
    [
        ({"auths": {"h.example": {"auth": auth("ci")}}}, "ci", ""),
        ({"auths": {"https://H.example/v2/": {"username": "ci", "password": "pass"}}}, "ci", ""),
        ({"auths": {"other.example": {"auth": auth("ci")}}}, "us", ""),
        ("", "us", ""),
        ("{", "", "ML_REGISTRY_AUTH is not JSON"),
        ({"auths": []}, "", "ML_REGISTRY_AUTH: auths is not a JSON object"),
        ({"auths": {"h.example": {"auth": "!"}}}, "", "ML_REGISTRY_AUTH: h.example has an `auth`"),
    ],
)
def test_a_secret_of_a_provider_holds_the_login_before_all_others(
    client: ModuleType,
    find: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    text: Any,
    user: str,
    reason: str,
) -> None:
    find("h.example", {"auths": {"h.example": {"auth": auth("us")}}})
    monkeypatch.setenv("ML_REGISTRY_AUTH", text if isinstance(text, str) else json.dumps(text))
    login = client.Remote("oci://h.example/team/models").login
    assert (login.user, login.problem[: len(reason)]) == (user, reason)


def test_a_user_without_a_home_has_no_login(
    find: Callable[..., Any], module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setattr(Path, "home", no_home)
    assert not module("oci_client.docker_login").find("h.example")


# --- where they go ---------------------------------------------------------------------------


@pytest.fixture
def thief() -> Iterator[Registry]:
    """Serve somebody else's server, which asks for credentials, too."""
    with serving(Registry()) as other:
        yield other


def seen(other: Registry) -> set[str]:
    """The credentials that came with requests."""
    return {request.authorization for request in other.requests}


def test_where_a_registry_leads_to_gets_no_credentials(
    guarded: Guarded, remote: Callable[..., Any], thief: Registry, tmp_path: Path
) -> None:
    own = guarded.answer
    content = b"a blob"
    thief.blobs[sha(content)] = content

    def leads(request: Request) -> Response | None:
        answer = own(request)
        if answer is not None:
            return answer
        there = f"http://{thief.address}"
        if request.method == "POST":
            return Response(202, {"Location": f"{there}/v2/{NAME}/blobs/uploads/1?state=x"})
        if request.method == "GET" and "/blobs/" in request.path:
            return Response(307, {"Location": f"{there}{request.path}"})
        if request.path.endswith("tags/list?n=1000"):
            link = f'<{there}/v2/{NAME}/tags/list?n=1000&last=a>; rel="next"'
            return Response(200, {"Link": link}, b'{"tags": ["a"]}')
        return None

    guarded.registry.answers = leads
    thief.uploads["1"] = []
    opened = remote()
    opened.put(b"content")
    assert opened.download(sha(content), len(content), tmp_path / "out") == sha(content)
    assert opened.tags() == ["a"]
    assert [request.method for request in thief.requests] == ["PUT", "GET"]
    assert seen(thief) == {""}
    # Nor when it asks for them.
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    thief.answers = lambda _: error(401, "UNAUTHORIZED", "who are you", **challenge)
    acts: list[Callable[[], object]] = [
        lambda: opened.put(b"more"),
        lambda: opened.download(sha(b"?"), 1, tmp_path / "o"),
    ]
    for act in acts:
        with pytest.raises(Exception, match="401"):
            act()
    assert seen(thief) == {""}


@pytest.mark.parametrize("name", ["registry.test", "localhost.registry.test", "127.0.0.1.test"])
def test_credentials_do_not_travel_in_clear(
    name: str, guarded: Guarded, client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == name else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    address = f"{name}:{guarded.registry.port}"
    (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth()}}}))
    opened = client.Remote(f"oci+http://{address}/{NAME}")
    assert opened.login
    with pytest.raises(UsageError, match="encrypted only: use oci://"):
        opened.tags()
    # A job's token neither.
    monkeypatch.setattr(
        client.exchange.ci_platform, "registry_credentials", lambda _: ("job", "token")
    )
    with pytest.raises(UsageError, match="encrypted only"):
        client.Remote(f"oci+http://{address}/{NAME}").tags()
    assert seen(guarded.registry) == {""}
    assert guarded.requests == []


@pytest.mark.parametrize(
    ("login", "uri"),
    [
        ("MLFLOW_TRACKING_TOKEN", "http://mlflow.test:5000"),
        ("MLFLOW_TRACKING_PASSWORD", "http://mlflow.test"),
        ("MLFLOW_TRACKING_TOKEN", "HTTP://127.0.0.1.mlflow.test/"),
        ("the login in it", "http://us:pass@mlflow.test"),
        ("the login in it", "http://token@mlflow.test"),
    ],
)
def test_a_login_of_mlflow_does_not_travel_in_clear(
    module: Import, monkeypatch: pytest.MonkeyPatch, login: str, uri: str
) -> None:
    tracker = module("adapters.tracker_mlflow")
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "ML_PLAIN_HTTP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if login.startswith("MLFLOW"):
        tracker._require_encryption()  # without a login nothing is given away
        monkeypatch.setenv(login, "secret")
    with pytest.raises(UsageError, match=f"^MLFLOW_TRACKING_URI, with {login}: .*encrypted") as e:
        tracker.client()
    assert "pass" not in str(e.value).replace("PASSWORD", "")
    with pytest.raises(UsageError, match="encrypted only"):
        module("adapters.registry_mlflow").Mlflow("models")
    for allowed in (
        uri.replace("http://", "https://").replace("HTTP:", "https:"),
        "http://127.0.0.1:5",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", allowed)
        tracker._require_encryption()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("ML_PLAIN_HTTP", "127.0.0.1.mlflow.test,mlflow.test")
    tracker._require_encryption()


def test_what_is_encrypted_leads_nowhere_that_is_not(client: ModuleType) -> None:
    opened = client.Remote("oci://registry.test/team/models")
    opened.__dict__["login"] = client.exchange.docker_login.Login("us", "pass")
    for realm in (
        "http://auth.test/token",
        "http://127.0.0.1:9/",
        "ftp://x/",
        "//x",
        "",
        "http://[",
    ):
        with pytest.raises(UsageError, match="for logins, not one with TLS"):
            opened._token(f'realm="{realm}"', writes=False, seconds=1.0)
    for place in ("http://registry.test/x", "http://other.test/x"):
        answer = client.exchange.Response(202, "", {"Location": place}, b"", opened.base)
        with pytest.raises(UsageError, match="without encryption"):
            opened._target(answer)
    for place in ("", "ftp://x/y", "https://[", "file:///etc/passwd"):
        answer = client.exchange.Response(
            202, "", {"Location": place} if place else {}, b"", opened.base
        )
        with pytest.raises(UsageError, match="names no place"):
            opened._target(answer)


def test_a_netrc_is_not_read(
    client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login us password pass\n")
    with serving(Registry()) as registry:
        client.Remote(f"oci+http://{registry.address}/{NAME}").tags()
        assert seen(registry) == {""}
    # Where the environment counts, as for proxies, the file does not either.
    with serving(Registry()) as registry:
        remote = client.Remote(f"oci+http://{registry.address}/{NAME}")
        remote.client.use_proxies = True
        remote.tags()
        assert seen(registry) == {""}


@pytest.mark.parametrize("path", ["/x", ""])
def test_a_password_in_the_address_is_not_repeated(client: ModuleType, path: str) -> None:
    place = f"oci://us:pass@ghcr.io{path}"  # pragma: allowlist secret
    with pytest.raises(UsageError, match="is not oci://HOST/NAME") as refused:
        client.Remote(place)
    assert "pass" not in str(refused.value)
