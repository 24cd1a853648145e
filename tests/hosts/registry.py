"""Debian's docker-registry, a real one, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import need


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


def free_port() -> int:
    """Give a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
