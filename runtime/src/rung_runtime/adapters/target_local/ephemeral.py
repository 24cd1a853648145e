"""Target `local/staging`: the service on a free port, for as long as the command takes."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ... import RefusedError
from ...config.delivery import service_environment
from ...delivery.service_folder import MODELS, SERVICE
from ...process import exit_code, signal_group

LOG = SERVICE / "staging.log"
START_TIMEOUT_S = 60.0  # for a model to be loaded


class Staging:
    """See `delivery.Target`. Nothing that serves already is touched."""

    name = "local/staging"
    promotes = False

    def check(self, image: str | None) -> None:
        """Do nothing: any free port will do."""

    def ensure_running(self) -> None:
        """Do nothing: nothing should serve between commands."""

    def desired_version(self) -> str | None:
        return None

    def is_serving(self, version: str, digest: str) -> bool:
        return False

    def switch(self, version: str, digest: str) -> None:
        self.folder = MODELS / version

    def restore(self, version: str | None, digest: str | None) -> None:
        """Do nothing: it has ended already."""

    @contextmanager
    def serving_url(self) -> Iterator[str]:
        program = str(Path(sys.executable).parent / "ml-serve")
        with ephemeral_service([program, str(self.folder)], free_port()) as url:
            yield url


def free_port() -> int:
    """Return a port of this machine that nothing listens to at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def ephemeral_service(
    command: list[str], port: int, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start a service that will listen to a port, yield its address once it is ready, and end it.

    Args:
        env: Of the command; None: what a service gets, which has no token and no key.

    Raises:
        RefusedError: It ends, or is not ready in time.
    """
    environment = service_environment() if env is None else env
    own = {"ML_HOST": "127.0.0.1", "ML_PORT": str(port), "ML_LOG": ""}
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + START_TIMEOUT_S
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        # A session of its own, so that what it starts can be ended with it.
        process = subprocess.Popen(
            command, env={**environment, **own}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not _is_ready(url):
            if exit_code(process) is not None or time.monotonic() > until:
                raise RefusedError(f"the service does not start: see {LOG}")
            time.sleep(0.1)
        yield url
    finally:
        signal_group(process, signal.SIGTERM)
        process.wait()


def _is_ready(url: str) -> bool:
    from ...http_client import http_json

    try:
        return http_json(f"{url}/readyz")[0] == 200
    except (OSError, ValueError):
        return False
