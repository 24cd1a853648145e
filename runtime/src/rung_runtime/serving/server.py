"""The HTTP server: uvicorn, which here lets callers move on before it ends.

It uses parts of uvicorn that uvicorn does not document, and so does `connections`, and no other
module. `tests/test_server.py` fails with the name of the part if a new version of uvicorn changes
one.
"""

import asyncio
import socket
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .. import UsageError
from ..config.delivery import Service
from ..listening import listening_socket
from .api import Api
from .connections import BoundedConnection, limits_of

LINGER_SECONDS = 1.0  # in which responses make callers connect elsewhere
BACKLOG = 1024  # connections that wait to be accepted
KEEP_ALIVE_SECONDS = 75  # longer than that of a load balancer
CONNECTION_CLOSE = (b"connection", b"close")


def listen(settings: Service) -> socket.socket:
    """Return a socket that listens where `config/delivery.yaml` says; `::` is IPv6 and IPv4.

    Raises:
        UsageError: The address or the port cannot be had.
    """
    try:
        return listening_socket(settings.host, settings.port, BACKLOG)
    except OSError as error:
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened to ({error.strerror}): name"
            " another port in config/delivery.yaml, service.port"
        ) from None


class DrainingServer(uvicorn.Server):
    """A server that answers all who wait before it ends, and then ends with exit code 0.

    At SIGTERM it still answers for a moment, with `Connection: close` and a readiness of 503, so
    that clients and load balancers connect elsewhere.
    """

    def __init__(self, app: FastAPI, api: Api) -> None:
        protocol = partial(BoundedConnection, limits=limits_of(api.settings))
        config = uvicorn.Config(
            app,
            http=protocol,  # type: ignore[arg-type]  # it is only called
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(api.settings.drain_seconds)),
        )
        super().__init__(config)
        self.api = api
        self.linger = min(LINGER_SECONDS, api.settings.drain_seconds)
        self.end_time = float("inf")  # of `time.monotonic`

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. uvicorn's own method would end the process by the signal."""
        if self.api.draining:
            return
        self.api.draining = True
        self.end_time = time.monotonic() + self.linger
        self.config.encoded_headers.append(CONNECTION_CLOSE)
        # uvicorn copies those headers once a second; until then, into a list of our own.
        self.server_state.default_headers = [*self.server_state.default_headers, CONNECTION_CLOSE]

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to end."""
        return await super().on_tick(counter) or time.monotonic() >= self.end_time

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, and answer the requests that come on those there are.

        Clients that are connected but have not sent a request yet are still served; uvicorn would
        drop them.
        """
        for server in self.servers:
            server.close()
        deadline = time.monotonic() + self.linger
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
