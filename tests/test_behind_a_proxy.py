"""The configuration of nginx in docs/service.md, run by nginx in front of a service."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import polars as pl
import pytest
from conftest import ROOT, Render
from packages import Server, package

pytestmark = [pytest.mark.slow, pytest.mark.needs("nginx")]
Module = Callable[[str], ModuleType]
PAGE = (ROOT / "docs/service.md").read_text("utf-8")
NAME = "model.example.com"
KEY = "a key of no meaning".replace(" ", "-")
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
{server}
}}
"""


def certificate(folder: Path) -> None:
    """Write a certificate that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "model.key").write_bytes(private)
    (folder / "model.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))


class Proxy:
    """nginx, with the configuration of the page."""

    def __init__(self, folder: Path, upstream: str, *, with_logins: bool) -> None:
        """Start it, and wait until it answers."""
        certificate(folder)
        (folder / "model.users").write_text("ann:{PLAIN}a-word\n")
        server, logins = re.findall(r"^```nginx\n(.*?)^```", PAGE, re.M | re.S)
        if with_logins:
            empty = '        proxy_set_header X-Forwarded-User "";\n'
            assert empty in server
            server = server.replace(empty, logins)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        server = server.replace("127.0.0.1:8080", upstream).replace("/etc/nginx", str(folder))
        server = server.replace("    listen [::]:443 ssl;\n", "")  # not every machine has IPv6
        server = server.replace("listen 443", f"listen 127.0.0.1:{self.port}")
        user = "user root;" if os.geteuid() == 0 else ""
        main = folder / "nginx.conf"
        main.write_text(MAIN.format(folder=folder, server=server, user=user))
        command = ["nginx", "-c", str(main), "-e", str(folder / "error.log")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.context = ssl.create_default_context(cafile=str(folder / "model.crt"))
        for _ in range(200):
            try:
                self("GET", "/")
                return
            except httpx.TransportError:
                assert self.process.poll() is None, (folder / "error.log").read_text()
                time.sleep(0.05)
        raise AssertionError((folder / "error.log").read_text())

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Host": NAME, **options.pop("headers", {})}
        with httpx.Client(verify=self.context, trust_env=False) as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            extensions = {"sni_hostname": NAME}
            return client.request(method, url, headers=headers, extensions=extensions, **options)


@pytest.fixture(scope="module")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(module, tmp_path_factory.mktemp("package") / "model")


@pytest.fixture
def behind(
    sources: Render, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Proxy, Server]]]:
    started: list[tuple[Proxy, Server]] = []

    def behind(*, with_logins: bool = False, key: str | None = None, **settings: Any) -> Any:
        if key:
            monkeypatch.setenv("ML_API_KEY", key)
        server = Server(
            sources(level=1),
            made,
            tmp_path / "serve",
            proxies=["127.0.0.1"],
            hosts=[NAME],
            **settings,
        )
        assert server.ready(), (server.cwd / "output.log").read_text()
        folder = tmp_path / "nginx"
        folder.mkdir()
        upstream = server.url.removeprefix("http://")
        started.append((Proxy(folder, upstream, with_logins=with_logins), server))
        return started[-1]

    yield behind
    for proxy, server in started:
        proxy.process.terminate()
        proxy.process.wait(30)
        server.stop()


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    row: dict[str, Any] = (
        pl.read_csv(ROOT / "template/data/raw/flights.csv", n_rows=1).drop("delayed").to_dicts()[0]
    )
    return row


def test_behind_nginx_a_caller_needs_tls_and_a_key(
    behind: Callable[..., tuple[Proxy, Server]], row: dict[str, Any]
) -> None:
    proxy, server = behind(key=KEY)
    bearer = {"Authorization": f"Bearer {KEY}"}
    answer = proxy("POST", "/predict", json=row, headers=bearer)
    assert answer.status_code == 200, answer.text
    slash = proxy("POST", "/predict/", json=row, headers=bearer)
    assert (slash.status_code, "location" in slash.headers) == (200, False)
    for headers in ({}, {"X-Forwarded-User": "ann"}, {"Authorization": "Bearer x"}):
        assert proxy("POST", "/predict", json=row, headers=headers).status_code == 401
    assert proxy("GET", "/v2/models/flight_delays", headers=bearer).status_code == 200
    for inside in ("/metrics", "/version", "/healthz", "/readyz"):
        assert proxy("GET", inside, headers=bearer).status_code == 404
        assert httpx.get(f"{server.url}{inside}").status_code == 200
    plain = httpx.get(f"http://127.0.0.1:{proxy.port}/predict", headers={"Host": NAME})
    assert plain.status_code == 400  # to a port of TLS
    assert proxy("POST", "/predict", content=b" " * 6_000_000, headers=bearer).status_code == 413


def test_behind_nginx_a_login_of_the_proxy_is_enough(
    behind: Callable[..., tuple[Proxy, Server]], row: dict[str, Any]
) -> None:
    proxy, server = behind(with_logins=True, user_header="X-Forwarded-User")
    login = {"Authorization": f"Basic {base64.b64encode(b'ann:a-word').decode()}"}
    assert proxy("POST", "/predict", json=row, headers=login).status_code == 200
    forged = {"X-Forwarded-User": "ann"}
    assert proxy("POST", "/predict", json=row, headers=forged).status_code == 401
    past = httpx.post(f"{server.url}/predict", json=row, headers={"Host": NAME})
    assert past.status_code == 401
