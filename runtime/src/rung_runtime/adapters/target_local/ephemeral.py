"""Target `local/staging`: the service on a free port, for as long as the command takes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ... import RefusedError, settings
from ...delivery import MODELS, STATE, ask

LOG = STATE / "staging.log"
PATIENCE = 60.0  # seconds, for a model to be loaded


class Staging:
    """See `delivery.Target`. Nothing that serves already is touched."""

    name, promotes = "local/staging", False

    def check(self, image: str | None) -> None:
        """Any free port will do."""

    def ensure(self) -> None:
        """Nothing should serve between commands."""

    def asked(self) -> str | None:
        return None

    def serves(self, version: str, digest: str) -> bool:
        return False

    def switch(self, version: str, digest: str) -> None:
        self.folder = MODELS / version

    def undo(self, version: str | None, digest: str | None) -> None:
        """It has ended already."""

    @contextmanager
    def opened(self) -> Iterator[str]:
        program = str(Path(sys.executable).parent / "ml-serve")
        with started([program, str(self.folder)], free_port()) as url:
            yield url


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a service that will listen to a port, yield its address once it is ready, and end it.

    Args:
        env: Of the command; None: what a service gets, which is no token and no key.

    Raises:
        RefusedError: It ends, or is not ready in time.
    """
    own = {"ML_HOST": "127.0.0.1", "ML_PORT": str(port), "ML_LOG": ""}
    whole = {**(settings.service_environment() if env is None else env), **own}
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        # A session of its own, so that what it starts can be ended with it.
        process = subprocess.Popen(
            command, env=whole, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RefusedError(f"the service does not start: see {LOG}")
            time.sleep(0.1)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _ready(url: str) -> bool:
    with suppress(OSError, ValueError):
        return ask(f"{url}/readyz")[0] == 200
    return False
