"""A company's proxy that looks into TLS: each host has a certificate of the company's authority.

Left out: HTTP/2, plain HTTP, and filters. What it passes on is real: the registries that are asked.
"""

from __future__ import annotations

import contextlib
import http.server
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAYS = timedelta(days=2)
CHUNK_BYTES = 1 << 16


class Authority:
    """A certificate authority of two days, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make its key and its certificate, `ca.pem`."""
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A company")])
        self.lock = threading.Lock()
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = folder / "ca.pem"
        signed = self._builder(self.name, self.key).add_extension(constraints, critical=True)
        self.certificate.write_bytes(self._pem(signed))

    def context(self, host: str, address: x509.GeneralName) -> ssl.SSLContext:
        """Return what serves as a host."""
        path = self.folder / f"{host}.pem"
        with self.lock:
            if not path.exists():
                key = ec.generate_private_key(ec.SECP256R1())
                names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
                builder = self._builder(names, key).add_extension(
                    x509.SubjectAlternativeName([address]), critical=False
                )
                private = key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                path.write_bytes(private + self._pem(builder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now()
        return (
            x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAYS)
            .not_valid_after(now + DAYS)
        )

    def _pem(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@contextmanager
def inspecting_proxy(authority: Authority) -> Iterator[tuple[str, set[str]]]:
    """Run a proxy, and yield its address and the hosts that were asked for."""
    hosts: set[str] = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        """A connection to a host."""

        def do_CONNECT(self) -> None:
            host, _, port = self.path.rpartition(":")
            hosts.add(host)
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self.close_connection = True
            with contextlib.suppress(OSError):
                context = authority.context(host, x509.DNSName(host))
                client = context.wrap_socket(self.connection, server_side=True)
                direct = socket.create_connection((host, int(port)), timeout=60)
                server = ssl.create_default_context().wrap_socket(direct, server_hostname=host)
                with client, server:
                    pump(client, server)

        def do_GET(self) -> None:
            self.send_error(502, "this proxy serves nothing in clear")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", hosts
    server.shutdown()
    server.server_close()


def pump(client: ssl.SSLSocket, server: ssl.SSLSocket) -> None:
    """Pass on what each sends to the other, until either ends."""
    ends = {client: server, server: client}
    while True:
        ready = [end for end in ends if end.pending()] or select.select(list(ends), [], [])[0]
        for end in ready:
            data = end.recv(CHUNK_BYTES)
            if not data:
                return
            ends[end].sendall(data)
