"""Measure what two honest callers see of the service while others attack it: part of `make bench`.

Honest callers send one row at a constant rate, each from a process of its own (`paced.py`), and
time counts from the moment that a request was due. Attackers share their address, which is the
worst case, and run at the lowest priority, as they would not run on the service's own cores.

`RUNG_ATTACKS` is a regular expression that chooses attacks by their names.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from bench_service import Measure, Measures, ports, rows_of, say, started
from conftest import Project

HERE = Path(__file__).parent
RATE = 25  # requests a second, of each honest caller
CALLERS = 2  # honest ones
SECONDS = 12
WARM_UP_SECONDS = 2
CHUNK = 1 << 16
MEGABYTE = 1_000_000
# What an attack may do at most.
LEAST_ANSWERED = 0.99
MOST_OF_CALM = 5.0
MOST_SECONDS = 1.0
MOST_MEMORY = 200.0


class Target(NamedTuple):
    """The service that is attacked."""

    host: str
    port: int
    row: dict[str, Any]

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((self.host, self.port), timeout=60)

    def ask(self, head: str, body: bytes = b"") -> None:
        """Send a request, and wait for an answer or the end of the connection."""
        with suppress(OSError), self.connect() as connection:
            connection.sendall(head.encode() + body)
            connection.recv(CHUNK)

    def post(self, path: str, body: bytes, *headers: str) -> None:
        """Send a body to a path, as `ask`."""
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
        self.ask("\r\n".join([*lines, "", ""]), body)


class Seen(NamedTuple):
    """What honest callers saw."""

    answered: float  # share
    p99_ms: float
    longest_ms: float
    memory_mb: float  # at most, of the service


# --- attacks: each runs until its time is over, in as many threads as it says -------------------


def bool_tensor(target: Target) -> None:
    """A tensor of 4.99 million values, in 5 MB."""
    count = 4_990_000
    tensor = {"name": next(iter(target.row)), "shape": [count], "datatype": "BOOL"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": count}}]}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    target.post("/v2/models/flight_delays/infer", head + bytes(count), length)


def headers(target: Target) -> None:
    """90 MB of headers."""
    line = b"X-Header: " + b"a" * 8_000 + b"\r\n"
    with suppress(OSError), target.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        for _ in range(90 * MEGABYTE // len(line)):
            connection.sendall(line)


def one_header(target: Target) -> None:
    """One header, or trailer, that never ends."""
    starts = [
        b"GET /healthz HTTP/1.1\r\nX-Header: ",
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ",
        b"GET /",
    ]
    with suppress(OSError), target.connect() as connection:
        connection.sendall(random.choice(starts))
        for _ in range(90 * MEGABYTE // CHUNK):
            connection.sendall(b"a" * CHUNK)


def stalled_bodies(target: Target) -> None:
    """A body of 4.5 MB whose last byte never comes; nine of them are 40 MB."""
    size = 4_500_000
    with suppress(OSError), target.connect() as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size + 1}\r\n\r\n"
        connection.sendall(head.encode() + b" " * size)
        connection.recv(CHUNK)
        time.sleep(SECONDS)


def many_rows(target: Target) -> None:
    """Requests of 1,000 rows, one after the other on one connection."""
    body = json.dumps({"rows": [target.row] * 1_000}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with suppress(OSError), target.connect() as connection:
        while True:
            connection.sendall(head + body)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(CHUNK)
            start, _, rest = answer.partition(b"\r\n\r\n")
            left = int(start.lower().partition(b"content-length:")[2].split()[0]) - len(rest)
            while left > 0:
                left -= len(connection.recv(CHUNK))
            if b" 503 " in start[:20]:
                time.sleep(0.1)


def half_requests(target: Target) -> None:
    """A connection with half a request, and then nothing."""
    with suppress(OSError), target.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Le")
        connection.recv(CHUNK)
        time.sleep(0.2)


def many_values(target: Target) -> None:
    """5 MB of JSON with as many values as fit into them."""
    bodies = [b'{"rows": [' + b"{}," * 1_600_000 + b"{}]}", b"[" + b"0," * 2_400_000 + b"0]"]
    target.post("/predict", random.choice(bodies))


def broken_rows(target: Target) -> None:
    """A row that breaks the contract in two ways."""
    row = dict.fromkeys(target.row, "x" * 20)
    target.post("/predict", json.dumps({"rows": [row]}).encode())
    row = {name: value for name, value in target.row.items() if random.random() < 0.9}
    target.post("/predict", json.dumps({"rows": [row | {"another": 1}]}).encode())


def bombs(target: Target) -> None:
    """Gzip of 100 MB."""
    target.post("/predict", BOMB, "Content-Encoding: gzip")


def pipelined(target: Target) -> None:
    """Thousands of requests at once on a connection, whose answers are never read."""
    with suppress(OSError), target.connect() as connection:
        connection.settimeout(1.0)
        for _ in range(100):
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)


def descriptions(target: Target) -> None:
    """Pages that are made for each who asks."""
    path = random.choice(["/openapi.json", "/metrics"])
    target.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


BOMB = gzip.compress(bytes(100 * MEGABYTE), 1)
ATTACKS: dict[str, tuple[Callable[[Target], None], int]] = {
    "a BOOL tensor of 4.99 million": (bool_tensor, 2),
    "90 MB of headers": (headers, 2),
    "a header that never ends": (one_header, 3),
    "nine stalled bodies of 40 MB": (stalled_bodies, 9),
    "six callers with 1,000 rows each": (many_rows, 6),
    "300 half requests": (half_requests, 300),
    "5 MB of JSON in small values": (many_values, 2),
    "10 callers with rows that break the contract": (broken_rows, 10),
    "gzip of 100 MB": (bombs, 2),
    "answers that are not read": (pipelined, 4),
    "descriptions and metrics, 8 callers": (descriptions, 8),
}


def attack(name: str, target: Target, seconds: float) -> None:
    """Run an attack for so many seconds: the main function of the attackers' process."""
    act, threads = ATTACKS[name]
    end = time.monotonic() + seconds

    def repeat() -> None:
        while time.monotonic() < end:
            act(target)

    for _ in range(threads):
        threading.Thread(target=repeat, daemon=True).start()
    time.sleep(seconds)


@contextmanager
def attackers(name: str, target: Target, seconds: float) -> Iterator[None]:
    """Attack from another process, meanwhile."""
    command = [sys.executable, str(Path(__file__)), name, json.dumps(target), str(seconds)]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def honest(target: Target, seconds: float, process: psutil.Process) -> Seen:
    """Send honest requests from two processes, and watch the memory of the service."""
    url = f"http://{target.host}:{target.port}/predict"
    command = [sys.executable, str(HERE / "paced.py"), url, str(RATE), str(seconds)]
    body = json.dumps({"rows": [target.row]}).encode()
    peak = 0
    callers = []
    for _ in range(CALLERS):
        with tempfile.TemporaryFile() as sent:
            sent.write(body)
            sent.seek(0)
            callers.append(subprocess.Popen(command, stdin=sent, stdout=subprocess.PIPE))
    while any(caller.poll() is None for caller in callers):
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.05)
    results = [json.loads(caller.communicate()[0]) for caller in callers]
    sent_count = sum(result["sent"] for result in results)
    failed = sum(sum(result["failed"].values()) for result in results)
    return Seen(
        1 - failed / sent_count,
        max(result["p99_ms"] for result in results),
        max(result["most_ms"] for result in results),
        peak / MEGABYTE,
    )


def hostile(project: Project, here: Path) -> Measures:
    """Compare what honest callers see during each attack with what they see in calm."""
    names = [name for name in ATTACKS if re.search(os.environ.get("RUNG_ATTACKS", ""), name)]
    if not names:
        raise SystemExit("RUNG_ATTACKS chooses no attack")
    row = rows_of(project.path)[:1]
    (port,) = ports(1)
    with started("ours", project, row, port, here) as server:
        return compare(Target("127.0.0.1", port, row[0]), server.process, names)


def compare(target: Target, process: psutil.Process, names: list[str]) -> Measures:
    """Measure calm, and attacks, and print a line for each."""
    honest(target, SECONDS / 4, process)
    calm = honest(target, SECONDS, process)
    say(f"calm: p99 {calm.p99_ms:.0f} ms, longest {calm.longest_ms:.0f} ms")
    measures = [Measure("honest callers in calm: p99, ms", calm.p99_ms)]
    for name in names:
        with attackers(name, target, WARM_UP_SECONDS + SECONDS + 5):
            time.sleep(WARM_UP_SECONDS)
            seen = honest(target, SECONDS, process)
        of_calm = seen.p99_ms / calm.p99_ms
        more = seen.memory_mb - calm.memory_mb
        measures += [
            Measure(f"{name}: answered", seen.answered, least=LEAST_ANSWERED),
            Measure(f"{name}: p99 ÷ calm", of_calm, MOST_OF_CALM),
            Measure(f"{name}: longest, s", seen.longest_ms / 1000, MOST_SECONDS),
            Measure(f"{name}: memory over calm, MB", more, MOST_MEMORY),
        ]
        met = "met" if all(measure.met for measure in measures[-4:]) else "NOT met"
        say(
            f"{name}: {seen.answered:.1%} answered, p99 {seen.p99_ms:.0f} ms, {of_calm:.1f} times"
            f" calm, longest {seen.longest_ms:.0f} ms, {more:+.0f} MB: {met}"
        )
        time.sleep(2)
    return measures


if __name__ == "__main__":
    host, port, row = json.loads(sys.argv[2])
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    attack(sys.argv[1], Target(host, port, row), float(sys.argv[3]))
