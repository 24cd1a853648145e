"""Debian's docker-registry, a real one, on loopback."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from conftest import need

OCI = "application/vnd.oci.image"


@contextmanager
def serving(folder: Path, **more: Any) -> Iterator[str]:
    """Run docker-registry in a folder; give its address. It stores under store/."""
    need("docker-registry")
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": address},
        **more,
    }
    (folder / "config.yml").write_text(json.dumps(config))
    log = (folder / "log").open("wb")
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))):
                        break
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def push_index(client: ModuleType, address: str, name: str, tag: str, author: str = "") -> str:
    """Push an index of two images, for two kinds of machine; give its digest."""

    def described(content: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": f"{OCI}.{kind}.v1+json", "digest": digest, "size": len(content)}

    remote = client.Remote(f"oci+http://{address}/{name}")
    entries = []
    for architecture in ("amd64", "arm64"):
        config = {"os": "linux", "architecture": architecture, "author": author}
        content = json.dumps(config | {"rootfs": {"type": "layers", "diff_ids": []}}).encode()
        remote.put(content)
        manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "layers": []}
        image = json.dumps(manifest | {"config": described(content, "config")}).encode()
        remote.tag(architecture, image, "image")
        platform = {"platform": {"os": "linux", "architecture": architecture}}
        entries.append(described(image, "manifest") | platform)
    kind = f"{OCI}.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    answer = remote._ask("PUT", f"manifests/{tag}", data=index, headers={"Content-Type": kind})
    assert answer.status == 201, answer.body
    return str(described(index, "index")["digest"])


def free_port() -> int:
    """Give a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
