"""The target of this machine: `service/desired.json` and the processes that follow it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ... import RefusedError, UsageError
from ...config.delivery import DELIVERY, load_delivery
from ...delivery.service_folder import MODELS, SERVICE, read_json
from .supervisor import (
    Running,
    code_digest,
    is_alive,
    listen,
    running,
    start_process,
    write_json,
)

DESIRED = SERVICE / "desired.json"
START_TIMEOUT_S = 60.0  # for a model to be loaded and to answer


class Local:
    """A service below a supervisor: see `delivery.Target`."""

    name = "local"
    promotes = True

    def check(self, image: str | None) -> None:
        service = load_delivery().service
        current = running()
        if current is None:
            listen(service.host, service.port).close()
        elif service.port not in (0, current["port"]):
            raise UsageError(
                f"the service listens to {current['url']}, and {DELIVERY} has port "
                f"{service.port}: `ml stop` it first"
            )

    def desired_version(self) -> str | None:
        return read_json(DESIRED).get("version")

    def is_serving(self, version: str, digest: str) -> bool:
        if self.desired_version() != version:
            return False
        try:
            return bool(_ask_version()["package_digest"] == digest)
        except (OSError, ValueError, LookupError):
            return False

    def switch(self, version: str, digest: str) -> None:
        """Have the package in `service/models/` served: a running service loads it.

        One that was started before an update may not know what packages have now: it is replaced.

        Raises:
            UsageError: As `check`.
            RefusedError: It is not served in time; the previous model still is, if there is one.
        """
        _write_desired(version, digest)
        until = time.monotonic() + START_TIMEOUT_S
        problem = "no answer"
        while time.monotonic() < until and version not in problem:
            self.ensure_running()
            if self.is_serving(version, digest):
                return
            with suppress(OSError, ValueError, LookupError):
                problem = _ask_version()["error"] or problem
            if version in problem and _is_of_other_code(running()):
                self._end_processes()
                problem = "no answer"
            time.sleep(0.1)
        raise RefusedError(f"{version} is not served: {problem} (see {SERVICE}/serve.log)")

    def restore(self, version: str | None, digest: str | None) -> None:
        if not version or not digest:
            self.stop()
        elif version != self.desired_version():  # else it serves, and nothing better is known
            self.switch(version, digest)

    def ensure_running(self) -> None:
        current = running()
        # After an update, a supervisor of before has no code to start its service from.
        if current and not is_alive(current["service"]) and _is_of_other_code(current):
            self._end_processes()
            current = None
        if current or not DESIRED.exists():
            return
        service = load_delivery().service
        with listen(service.host, service.port) as listener:
            start_process("supervise", listener.fileno())
        until = time.monotonic() + START_TIMEOUT_S
        while not running():
            if time.monotonic() > until:
                raise RefusedError(f"the supervisor does not start: see {SERVICE}/supervise.log")
            time.sleep(0.05)

    def stop(self) -> bool:
        """End supervisor and service, after the requests they have; return whether they ran."""
        was_running = running() is not None
        self._end_processes()
        DESIRED.unlink(missing_ok=True)
        return was_running

    def _end_processes(self) -> None:
        while current := running():
            with suppress(ProcessLookupError):
                os.kill(current["pid"], signal.SIGTERM)
            time.sleep(0.2)

    @contextmanager
    def serving_url(self) -> Iterator[str]:
        current = running()
        if current is None:
            raise RefusedError("no service runs: `ml deploy` starts one")
        yield current["url"]


def _is_of_other_code(current: Running | None) -> bool:
    """Return whether a service was started by another release of the runtime than this one."""
    return current is not None and current.get("code") != code_digest()


def _ask_version() -> Any:
    """Return what the running service answers at /version.

    Raises:
        OSError, ValueError: It does not answer, or not in JSON.
        LookupError: No service runs.
    """
    from ...http_client import http_json

    current: Running | None = running()
    if current is None:
        raise LookupError("no service runs")
    return http_json(f"{current['url']}/version")[1]


def _write_desired(version: str, digest: str) -> None:
    """Write which package is to be served, and the previous one, which serves if it cannot be."""
    before = read_json(DESIRED)
    if (before.get("version"), before.get("package_digest")) == (version, digest):
        return
    if before.get("version") == version:  # in another package, or written without a digest
        previous = before.get("previous")
        previous_digest = before.get("previous_digest")
    else:
        previous = before.get("folder")
        previous_digest = before.get("package_digest")
    desired = {
        "folder": str(MODELS / version),
        "version": version,
        "package_digest": digest,
        "previous": previous,
        "previous_digest": previous_digest,
    }
    write_json(DESIRED, desired)
