"""Object stores of this machine, each with a bucket: what `ml step` has between its nodes.

Azure's is Azurite, which Microsoft makes for this. Google's is moto's S3, as both speak the same
XML: its own checks of a login are left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import httpx
import libraries
import pytest

AZURITE = "azurite@3.37.0"
ACCOUNT = "test"
KEY = "dGVzdA=="  # pragma: allowlist secret


@pytest.fixture
def google_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return a bucket of a server that stands in for Google's."""
    account = {"gcs_base_url": os.environ["AWS_ENDPOINT_URL"], "disable_oauth": True}
    account |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    (tmp_path / "account.json").write_text(json.dumps(account))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "test")
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    return bucket.replace("s3://", "gs://")


@pytest.fixture
def azure_container(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start Azurite, with a container."""
    program = libraries.npm(AZURITE) / "node_modules/azurite/dist/src/blob/main.js"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AZURITE_ACCOUNTS", f"{ACCOUNT}:{KEY}")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    command = [str(libraries.node()), str(program), *options, "--blobPort", str(port)]
    store = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with suppress(httpx.TransportError):
                if create_container(port, "bucket") == 201:
                    break
            time.sleep(0.2)
        yield "az://bucket"
    finally:
        store.terminate()
        store.wait()


def create_container(port: int, name: str) -> int:
    """Create a container, as Azure wants it to be signed; return the status of the answer."""
    path = f"/{ACCOUNT}/{name}"
    headers = {
        "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True),
        "x-ms-version": "2021-12-02",
    }
    lines = [*(f"{key}:{value}" for key, value in headers.items()), f"/{ACCOUNT}{path}"]
    text = "PUT" + "\n" * 12 + "\n".join([*lines, "restype:container"])
    signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}"
    url = f"http://127.0.0.1:{port}{path}"
    return httpx.put(url, params={"restype": "container"}, headers=headers).status_code
