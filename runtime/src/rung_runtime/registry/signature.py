"""Signatures of packages, in the format of OpenSSF Model Signing 1.0: `ml sign`, `ml verify`.

A signature names every file of a package by its SHA-256, so it holds wherever the package lies, and
whoever can write to the registry cannot make one. With a key (ECDSA on P-256, P-384 or P-521) all
of it is here; without one, `unsigned` writes what a platform's identity is to sign.

Statement: github.com/sigstore/model-transparency, "Model Signing Format" in README.md, of which the
library `model-signing` 1.1 is the reference. Envelope: DSSE 1.0.2,
https://github.com/secure-systems-lab/dsse. Bundle: Sigstore's, version 0.3.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .. import RefusedError, UsageError
from ..artifacts import ARTIFACTS, digest
from ..escaping import visible
from ..settings import delivery
from . import Registry, Version, bring, find, opened

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
VARIABLE = "ML_SIGNING_PASSWORD"


def sign(version: str, key: Path | None, bundle: Path | None = None) -> str:
    """Sign a registered version with a key, or bring a signature that was made elsewhere.

    Args:
        key: A private key, PEM; ML_SIGNING_PASSWORD opens one that is locked.
        bundle: What `model_signing sign` wrote, or another tool of that format.

    Raises:
        UsageError: There is no such version, or the key is none that can sign.
        RefusedError: The signature that was brought is not of this version.
    """
    store, found = opened(), find(version)
    with _package(found) as folder:
        if key:
            text = signed(folder, found.version, key)
        else:
            text = _text(bundle)
            if (public := signer()) is not None:
                check(text, folder, found.version, public)
            else:
                _compare(_statement(text, found.version)[0], folder, found.version)
    store.set(note(found.version), text)
    return found.version


def verify(version: str, key: Path | None) -> str:
    """Verify the signature of a registered version.

    Args:
        key: A public key, PEM; by default `signed_by` of config/delivery.yaml.

    Raises:
        UsageError: There is no such version, or no key.
        RefusedError: It has no signature, or one that does not hold.
    """
    store, found, public = opened(), find(version), key or signer()
    if public is None:
        raise UsageError("name a public key: --key FILE, or signed_by in config/delivery.yaml")
    _public(public)
    with _package(found) as folder:
        check(_known(store, found.version), folder, found.version, public)
    return f"{found.version} is signed with {public}"


def require(store: Registry, version: str, folder: Path) -> None:
    """Check a package that was fetched, before anything of it is imported.

    Without `signed_by` in config/delivery.yaml nothing is required.

    Raises:
        RefusedError: It has no signature by that key, or is not what was signed.
    """
    if (public := signer()) is not None:
        check(_known(store, version), folder, version, public)


def unsigned(version: str, to: Path) -> Path:
    """Write what is to be signed of a registered version by one who has no key, such as a job.

    Returns:
        `to`/subject/VERSION, a file whose SHA-256 is the digest that the signature is of. What the
        signature says of it is in `to`/predicate.json.
    """
    found = find(version)
    with _package(found) as folder:
        files = resources(folder)
    (to / "subject").mkdir(parents=True, exist_ok=True)
    predicate = {"serialization": SERIALIZATION, "resources": files}
    (to / "predicate.json").write_text(json.dumps(predicate, indent=2), "utf-8")
    subject = to / "subject" / found.version
    subject.write_bytes(_digests(files))
    return subject


def signer() -> Path | None:
    """The public key that each version must be signed with; None if none must."""
    name = delivery().signed_by
    return Path(name) if name else None


def note(version: str) -> str:
    """What the registry keeps the signature of a version as."""
    return f"signature-{version}"


# --- the format ------------------------------------------------------------------------------


def resources(folder: Path) -> list[dict[str, str]]:
    """Return each file of a folder with its digest, in the order of the format."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    names = {PurePosixPath(path.relative_to(folder).as_posix()): path for path in files}
    if links := [str(name) for name, path in names.items() if path.is_symlink()]:
        raise RefusedError(f"{folder}/{visible(links[0])} is a link, which no package has")
    return [
        {"name": str(name), "algorithm": "sha256", "digest": digest(names[name])[7:]}
        for name in sorted(names)
    ]


def signed(folder: Path, name: str, key: Path) -> str:
    """Sign a folder.

    Returns:
        The bundle, JSON.

    Raises:
        UsageError: The key is none that can sign.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    private = _private(key)
    files = resources(folder)
    subject = {"name": name, "digest": {"sha256": hashlib.sha256(_digests(files)).hexdigest()}}
    statement = {
        "_type": STATEMENT,
        "subject": [subject],
        "predicateType": PREDICATE,
        "predicate": {"serialization": SERIALIZATION, "resources": files},
    }
    payload = json.dumps(statement, separators=(",", ":")).encode()
    signature = private.sign(_enveloped(payload), ec.ECDSA(_hash(private.public_key())))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": _hint(private.public_key())}, "tlogEntries": []}
    bundle = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(bundle, separators=(",", ":"))


def check(text: str, folder: Path, name: str, key: Path) -> None:
    """Check that a folder is what was signed with a key.

    Args:
        text: The bundle.
        name: Of the version, for the reason.
        key: The public key, PEM.

    Raises:
        UsageError: The key is none.
        RefusedError: The signature is damaged, is by another key, or is of other files.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    public = _public(key)
    statement, bundle = _statement(text, name)
    material = bundle["verificationMaterial"]
    hint = material.get("publicKey", {}).get("hint") if isinstance(material, dict) else None
    if hint is None:
        raise RefusedError(f"{name} is signed without a key, and not with {key}")
    if hint != _hint(public):
        raise RefusedError(f"{name} is signed with another key than {key}")
    envelope = bundle["dsseEnvelope"]
    try:
        public.verify(
            _decoded(envelope["signatures"][0]["sig"]),
            _enveloped(_decoded(envelope["payload"])),
            ec.ECDSA(_hash(public)),
        )
    except InvalidSignature:
        reason = f"the signature of {name} does not hold: it was changed, or is not by {key}"
        raise RefusedError(reason) from None
    _compare(statement, folder, name)


def _compare(statement: dict[str, Any], folder: Path, name: str) -> None:
    """Check that a folder has the files that a statement names, and no others."""
    if statement["subject"][0]["name"] != name:
        subject = visible(statement["subject"][0]["name"])
        raise RefusedError(f"the signature of {name} is that of another version, {subject}")
    expected = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    present = {item["name"]: item["digest"] for item in resources(folder)}
    for file in sorted(expected.keys() | present.keys()):
        if file not in present:
            what = "is missing"
        elif file not in expected:
            what = "was added"
        elif expected[file] != present[file]:
            what = "was changed"
        else:
            continue
        raise RefusedError(f"{name} is not what was signed: its file {visible(file)} {what}")


def _statement(text: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a bundle says, and the bundle.

    Raises:
        RefusedError: It is none of this format, or contradicts itself.
    """
    try:
        bundle = json.loads(text)
        envelope = bundle["dsseEnvelope"]
        statement = json.loads(_decoded(envelope["payload"]))
        facts = {
            "a bundle": (bundle["mediaType"], BUNDLE),
            "a payload": (envelope["payloadType"], PAYLOAD),
            "a statement": (statement["_type"], STATEMENT),
            "a predicate": (statement["predicateType"], PREDICATE),
        }
        for what, (value, expected) in facts.items():
            if value != expected:
                reason = f"it is {what} of type {visible(value)[:100]}"
                raise RefusedError(f"{name} has no signature of a model, but another: {reason}")
        (subject,) = statement["subject"]
        serialization = statement["predicate"]["serialization"]
        if [serialization["method"], serialization["hash_type"]] != ["files", "sha256"]:
            reason = "`model_signing sign` has to hash files, with SHA-256"
            raise RefusedError(f"the signature of {name} is of parts of files: {reason}")
        files = statement["predicate"]["resources"]
        names = [str(item["name"]) for item in files]
        if len(set(names)) < len(names):
            raise ValueError("a file has two digests")
        total = hashlib.sha256(_digests(files)).hexdigest()
        if subject["digest"]["sha256"] != total or not isinstance(subject["name"], str):
            raise ValueError("its digest is not that of the files that it names")
        (signature,) = envelope["signatures"]
        _decoded(signature["sig"])
        bundle["verificationMaterial"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"the signature of {name} is damaged: {visible(error)[:200]}") from None
    return statement, bundle


def _digests(files: list[dict[str, str]]) -> bytes:
    return b"".join(bytes.fromhex(item["digest"]) for item in files)


def _enveloped(payload: bytes) -> bytes:
    """What is signed of a payload: PAE of DSSE."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("it has parts that are not base64") from None


# --- keys ------------------------------------------------------------------------------------


def _private(path: Path) -> "ec.EllipticCurvePrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(VARIABLE)
    try:
        key = load_pem_private_key(_bytes(path), password.encode() if password else None)
    except TypeError:
        said = "is locked: set" if not password else "is not locked: unset"
        raise UsageError(f"{path} {said} {VARIABLE}") from None
    except (ValueError, UnsupportedAlgorithm):
        reason = "or its password is another" if password else "PEM"
        raise UsageError(f"{path} is no private key, {reason}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} is no key of an elliptic curve, with which models are signed")
    _hash(key.public_key())
    return key


def _public(path: Path) -> "ec.EllipticCurvePublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_bytes(path))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path} is no public key, PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path} is no key of an elliptic curve, with which models are signed")
    _hash(key)
    return key


def _hash(public: "ec.EllipticCurvePublicKey") -> "HashAlgorithm":
    """The hash that goes with a curve, by Sigstore's specification."""
    from cryptography.hazmat.primitives import hashes

    known: dict[str, HashAlgorithm] = {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }
    if public.curve.name not in known:
        curves = "P-256, P-384 or P-521"
        raise UsageError(f"the key is of the curve {public.curve.name}: make one of {curves}")
    return known[public.curve.name]


def _hint(public: "ec.EllipticCurvePublicKey") -> str:
    """What a bundle tells a key by: the SHA-256 of its PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror or error}") from None


# --- the registry ----------------------------------------------------------------------------


def _known(store: Registry, version: str) -> str:
    if text := store.get(note(version)):
        return text
    raise RefusedError(f"{version} is not signed: `ml sign {version} --key FILE` signs it")


def _text(path: Path | None) -> str:
    if path is None:
        raise UsageError("name a private key, --key FILE, or a signature, --bundle FILE")
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the signature {path} cannot be read: {visible(error)}") from None


@contextmanager
def _package(version: Version) -> Iterator[Path]:
    """Yield a folder with the very package of a version, whatever its name means by now."""
    ARTIFACTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".sign-", dir=ARTIFACTS) as folder:
        package = Path(folder, version.version)
        bring(version, package)
        yield package
