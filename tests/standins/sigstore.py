"""Sigstore on loopback: a certificate authority and a log, which the real programs sign with.

What is behind it is real: identities are tokens that GitLab's stand-in has signed, certificates are
short-lived and carry a timestamp of a certificate log, entries of the log have a proof. So a bundle
counts here for the reason for which it counts at sigstore.dev, and `sigstore --trust-config` or
`model_signing --trust_config` read where all that is from `trust`.

Left out: the log keeps each entry as a tree of its own, there is no timestamp authority, no TUF
repository, and Fulcio knows one kind of issuer, GitLab (`gitlab-pipeline` of its
config/identity/config.yaml: the subject is https:// and `ci_config_ref_uri`). Requests and answers:
Fulcio's API v2 and Rekor's v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


class Sigstore:
    """A Fulcio, a certificate log and a Rekor, and the GitLab whose tokens Fulcio takes."""

    def __init__(self, issuer: str) -> None:
        """Make all keys anew."""
        self.issuer = issuer
        self.gitlab, self.ca, self.certificate_log, self.log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(4)
        )
        self.root = self._root()
        self.entries: list[dict[str, Any]] = []
        self.url = ""

    # What a job has.

    def token(self, **claims: object) -> str:
        """Return an identity token of a job on the default branch, unless claims say otherwise."""
        now = int(time.time())
        about = {
            "iss": self.issuer,
            "aud": "sigstore",
            "sub": "project_path:team/project:ref_type:branch:ref:main",
            "ci_config_ref_uri": f"{self.issuer[8:]}/team/project//.gitlab-ci.yml@refs/heads/main",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
        head = _url64(json.dumps({"alg": "ES256", "typ": "JWT"}).encode())
        text = f"{head}.{_url64(json.dumps(about | claims).encode())}"
        r, s = decode_dss_signature(self.gitlab.sign(text.encode(), ec.ECDSA(SHA256())))
        return f"{text}.{_url64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def trust(self, to: Path) -> Path:
        """Write the trust configuration."""
        always = {"start": "2020-01-01T00:00:00Z"}

        def service(path: str = "") -> list[dict[str, Any]]:
            url = f"{self.url}{path}"
            return [{"url": url, "majorApiVersion": 1, "validFor": always, "operator": "test"}]

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            return {
                "baseUrl": self.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": _text(_der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": always,
                },
                "logId": {"keyId": _text(_id(key))},
            }

        authority = {
            "subject": {"organization": "test", "commonName": "fulcio"},
            "uri": self.url,
            "certChain": {
                "certificates": [{"rawBytes": _text(self.root.public_bytes(Encoding.DER))}]
            },
            "validFor": always,
        }
        config = {
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log)],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.certificate_log)],
                "timestampAuthorities": [],
            },
            "signingConfig": {
                "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
                "caUrls": service(),
                "oidcUrls": service(),
                "rekorTlogUrls": service(),
                "tsaUrls": [],
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }
        to.write_text(json.dumps(config))
        return to

    @contextmanager
    def serving(self) -> Iterator[Sigstore]:
        """Answer at `url`."""
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200, {"authorization_endpoint": here.url, "token_endpoint": here.url})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length))
                try:
                    if self.path == "/api/v2/signingCert":
                        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                        self.answer(200, here.certificate(body, token))
                    else:
                        self.answer(201, here.entry(body))
                except (ValueError, InvalidSignature) as error:
                    self.answer(400, {"code": 3, "message": str(error)})

            def answer(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()

    # Fulcio.

    def certificate(self, body: dict[str, Any], token: str) -> dict[str, Any]:
        """Return a certificate for what a token says, and for the key of a request."""
        claims = self._claims(token)
        request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
        if not request.is_signature_valid:
            raise ValueError("the request is not signed with its own key")
        subject = f"https://{claims['ci_config_ref_uri']}"
        issuer = str(claims["iss"]).encode()
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=5))
            .not_valid_after(now + timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(_authority(self.ca), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject)]), True
            )
            .add_extension(x509.UnrecognizedExtension(ISSUER, issuer), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(ISSUER_V2, bytes([12, len(issuer)]) + issuer), False
            )
        )
        before = builder.sign(self.ca, SHA256()).tbs_certificate_bytes
        timestamps = x509.UnrecognizedExtension(TIMESTAMPS, self._timestamps(before))
        made = builder.add_extension(timestamps, critical=False).sign(self.ca, SHA256())
        chain = [
            certificate.public_bytes(Encoding.PEM).decode() for certificate in (made, self.root)
        ]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    def _claims(self, token: str) -> dict[str, Any]:
        text, _, signature = token.rpartition(".")
        r, s = (int.from_bytes(half, "big") for half in struct.unpack("32s32s", _plain(signature)))
        self.gitlab.public_key().verify(
            encode_dss_signature(r, s), text.encode(), ec.ECDSA(SHA256())
        )
        claims: dict[str, Any] = json.loads(_plain(text.partition(".")[2]))
        if claims["iss"] != self.issuer or claims["aud"] != "sigstore":
            raise ValueError("the token is of another issuer, or for another audience")
        if not claims["nbf"] - 5 <= time.time() <= claims["exp"]:
            raise ValueError("the token is of another time")
        return claims

    def _root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.ca.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), critical=False
            )
            .sign(self.ca, SHA256())
        )

    def _timestamps(self, before: bytes) -> bytes:
        """Return the list of one timestamp of the certificate log (RFC 6962, 3.2 and 3.3)."""
        when = int(time.time() * 1000)
        entry = _id(self.ca) + len(before).to_bytes(3, "big") + before
        data = struct.pack("!BBQH", 0, 0, when, 1) + entry + struct.pack("!H", 0)
        signature = self.certificate_log.sign(data, ec.ECDSA(SHA256()))
        timestamp = struct.pack("!B32sQH", 0, _id(self.certificate_log), when, 0)
        timestamp += struct.pack("!BBH", 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(timestamp) + 2, len(timestamp)) + timestamp
        return bytes([4, len(listed)]) + listed  # an octet string of less than 128 bytes

    # Rekor.

    def entry(self, body: dict[str, Any]) -> dict[str, Any]:
        """Log a signed envelope, and return the entry with its proof."""
        proposed = body["spec"]["proposedContent"]
        envelope = json.loads(proposed["envelope"])
        payload = base64.b64decode(envelope["payload"])
        (verifier,) = proposed["verifiers"]
        key = x509.load_pem_x509_certificate(base64.b64decode(verifier)).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        kind = envelope["payloadType"]
        for signature_entry in envelope["signatures"]:
            signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
            key.verify(base64.b64decode(signature_entry["sig"]), signed, ec.ECDSA(SHA256()))
        logged = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(proposed["envelope"].encode()),
                "payloadHash": _hash(payload),
                "signatures": [
                    {"signature": signature_entry["sig"], "verifier": verifier}
                    for signature_entry in envelope["signatures"]
                ],
            },
        }
        self.entries.append(json.loads(payload))
        content = _canonical(logged)
        root = hashlib.sha256(b"\0" + content).digest()
        note = f"rekor.test - 1\n1\n{_text(root)}\n"
        signature = _id(self.log)[:4] + self.log.sign(note.encode(), ec.ECDSA(SHA256()))
        promised = {
            "body": _text(content),
            "integratedTime": int(time.time()),
            "logID": _id(self.log).hex(),
            "logIndex": 0,
        }
        promise = self.log.sign(_canonical(promised), ec.ECDSA(SHA256()))
        proof = {
            "checkpoint": f"{note}\n\N{EM DASH} rekor.test {_text(signature)}\n",
            "hashes": [],
            "logIndex": 0,
            "rootHash": root.hex(),
            "treeSize": 1,
        }
        verification = {"inclusionProof": proof, "signedEntryTimestamp": _text(promise)}
        return {root.hex(): promised | {"verification": verification}}


def _usage(**may: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | may))


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_der(key)).digest()


def _hash(content: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}


def _canonical(content: object) -> bytes:
    """Return JSON as RFC 8785 has it, of ASCII text and whole numbers."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _plain(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
