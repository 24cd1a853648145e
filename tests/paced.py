"""Send requests at a constant rate, and say how long the answers took.

    python paced.py URL RATE SECONDS < BODIES

A line of BODIES is the body of a request; after the last one comes the first again.

The loop is open: a request is due at its time whether or not those before it were answered, and its
latency counts from that time. So a server that stalls is charged for all who would have waited
(what G. Tene calls coordinated omission is the opposite). Prints a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit

TIMEOUT = 30.0
MOST = 256  # connections; a request that finds none free waits for one, which counts


class Connections:
    """Connections that are kept alive, as a proxy in front of a service keeps them."""

    def __init__(self, host: str, port: int) -> None:
        """Open none yet."""
        self.host = host
        self.port = port
        self.most = asyncio.Semaphore(MOST)
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> int:
        """Send a request, read the answer whole; its status."""
        async with self.most:
            while self.free and (self.free[-1][0].at_eof() or self.free[-1][1].is_closing()):
                self.free.pop()[1].close()  # the server ended it between two requests
            pair = self.free.pop() if self.free else None
            reader, writer = pair or await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
            except BaseException:
                writer.close()
                raise
            if b"connection: close" in head:
                writer.close()
            else:
                self.free.append((reader, writer))
            return int(head.split(b" ", 2)[1])


async def send(url: str, bodies: list[bytes], rate: float, seconds: float) -> dict[str, object]:
    """Send `rate` requests a second for so many seconds, or until SIGTERM."""
    address = urlsplit(url)
    head = (
        f"POST {address.path} HTTP/1.1\r\n"
        f"Host: {address.netloc}\r\n"
        "Content-Type: application/json\r\n"
    )
    requests = [f"{head}Content-Length: {len(b)}\r\n\r\n".encode() + b for b in bodies]
    connections = Connections(str(address.hostname), address.port or 80)
    loop = asyncio.get_running_loop()
    took = []
    statuses = Counter[str]()

    async def send_one(request: bytes, due: float) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await connections.ask(request)
            statuses[str(status)] += 1
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            statuses[type(error).__name__] += 1
        took.append(loop.time() - due)

    began = loop.time()
    tasks = set()
    sent = 0
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    while (due := began + sent / rate) < began + seconds and not stop.is_set():
        if (early := due - loop.time()) > 0:
            await asyncio.sleep(early)
        tasks.add(task := loop.create_task(send_one(requests[sent % len(requests)], due)))
        task.add_done_callback(tasks.discard)
        sent += 1
    await asyncio.gather(*tasks)
    took.sort()
    failed = {name: count for name, count in statuses.items() if name != "200"}
    p50, p99 = (1000 * took[min(int(q * sent), sent - 1)] for q in (0.5, 0.99))
    return {
        "sent": sent,
        "failed": failed,
        "p50_ms": p50,
        "p99_ms": p99,
        "most_ms": 1000 * took[-1],
    }


def main() -> None:
    """Send what standard input holds."""
    url = sys.argv[1]
    rate = float(sys.argv[2])
    seconds = float(sys.argv[3])
    bodies = sys.stdin.buffer.read().splitlines()
    print(json.dumps(asyncio.run(send(url, bodies, rate, seconds))))


if __name__ == "__main__":
    main()
