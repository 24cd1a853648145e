"""The format of OpenSSF Model Signing 1.0: sign the files of a folder, and check a signature.

Statement: github.com/sigstore/model-transparency, "Model Signing Format" in README.md, of which the
library `model-signing` 1.1 is the reference. Envelope: DSSE 1.0.2,
https://github.com/secure-systems-lab/dsse. Bundle: Sigstore's, version 0.3.
"""

import base64
import binascii
import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from .. import RefusedError
from ..artifacts import digest
from ..escaping import visible
from .signing_keys import hash_algorithm, key_hint, load_private_key, load_public_key

PREDICATE = "https://model_signing/signature/v1.0"
STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


class Signature(NamedTuple):
    """A bundle that was parsed and agrees with itself; no key was checked."""

    bundle: dict[str, Any]
    statement: dict[str, Any]


def resources(folder: Path) -> list[dict[str, str]]:
    """Return each file of a folder with its digest, in the order of the format.

    Raises:
        RefusedError: A file is a link, which no package has.
    """
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    paths = {PurePosixPath(path.relative_to(folder).as_posix()): path for path in files}
    links = [str(name) for name, path in paths.items() if path.is_symlink()]
    if links:
        raise RefusedError(f"{folder}/{visible(links[0])} is a link, which no package has")
    return [
        {
            "name": str(name),
            "algorithm": "sha256",
            "digest": digest(paths[name]).removeprefix("sha256:"),
        }
        for name in sorted(paths)
    ]


def join_digests(files: list[dict[str, str]]) -> bytes:
    """Return the digests of resources, one after the other: what the subject's digest is of."""
    return b"".join(bytes.fromhex(item["digest"]) for item in files)


def sign_folder(folder: Path, name: str, key: Path) -> str:
    """Sign a folder.

    Args:
        folder: The package.
        name: The name of the version.
        key: A private key, PEM.

    Returns:
        The bundle, JSON.

    Raises:
        UsageError: The key cannot sign models.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    private_key = load_private_key(key)
    public_key = private_key.public_key()
    files = resources(folder)
    subject = {"name": name, "digest": {"sha256": hashlib.sha256(join_digests(files)).hexdigest()}}
    statement = {
        "_type": STATEMENT,
        "subject": [subject],
        "predicateType": PREDICATE,
        "predicate": {"serialization": SERIALIZATION, "resources": files},
    }
    payload = json.dumps(statement, separators=(",", ":")).encode()
    signature = private_key.sign(_pre_authentication(payload), ec.ECDSA(hash_algorithm(public_key)))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": key_hint(public_key)}, "tlogEntries": []}
    bundle = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(bundle, separators=(",", ":"))


def check(text: str, folder: Path, name: str, key: Path) -> None:
    """Check that a folder is what was signed with a key.

    Args:
        text: The bundle.
        folder: The package.
        name: The name of the version.
        key: The public key, PEM.

    Raises:
        UsageError: The key is not one that models are signed with.
        RefusedError: The signature is damaged, is by another key, or is of other files.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    public_key = load_public_key(key)
    signature = parse_bundle(text, name)
    material = signature.bundle["verificationMaterial"]
    hint = material.get("publicKey", {}).get("hint") if isinstance(material, dict) else None
    if hint is None:
        raise RefusedError(f"{name} is signed without a key, and not with {key}")
    if hint != key_hint(public_key):
        raise RefusedError(f"{name} is signed with another key than {key}")
    envelope = signature.bundle["dsseEnvelope"]
    try:
        public_key.verify(
            _decode(envelope["signatures"][0]["sig"]),
            _pre_authentication(_decode(envelope["payload"])),
            ec.ECDSA(hash_algorithm(public_key)),
        )
    except InvalidSignature:
        reason = f"the signature of {name} does not hold: it was changed, or is not by {key}"
        raise RefusedError(reason) from None
    compare(signature, folder, name)


def compare(signature: Signature, folder: Path, name: str) -> None:
    """Check that a folder has the files that a signature names, and no others.

    Raises:
        RefusedError: It has not, or the signature is that of another version.
    """
    statement = signature.statement
    if statement["subject"][0]["name"] != name:
        subject = visible(statement["subject"][0]["name"])
        raise RefusedError(f"the signature of {name} is that of another version, {subject}")
    expected = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    present = {item["name"]: item["digest"] for item in resources(folder)}
    for file in sorted(expected.keys() | present.keys()):
        if file not in present:
            change = "is missing"
        elif file not in expected:
            change = "was added"
        elif expected[file] != present[file]:
            change = "was changed"
        else:
            continue
        raise RefusedError(f"{name} is not what was signed: its file {visible(file)} {change}")


def parse_bundle(text: str, name: str) -> Signature:
    """Parse a bundle.

    Args:
        text: The bundle, JSON.
        name: The name of the version, for the reason.

    Raises:
        RefusedError: The bundle is not of this format, or contradicts itself.
    """
    try:
        bundle = json.loads(text)
        envelope = bundle["dsseEnvelope"]
        statement = json.loads(_decode(envelope["payload"]))
        _require_type(name, "a bundle", bundle["mediaType"], BUNDLE)
        _require_type(name, "a payload", envelope["payloadType"], PAYLOAD)
        _require_type(name, "a statement", statement["_type"], STATEMENT)
        _require_type(name, "a predicate", statement["predicateType"], PREDICATE)
        (subject,) = statement["subject"]
        serialization = statement["predicate"]["serialization"]
        if [serialization["method"], serialization["hash_type"]] != ["files", "sha256"]:
            reason = "`model_signing sign` has to hash files, with SHA-256"
            raise RefusedError(f"the signature of {name} is of parts of files: {reason}")
        files = statement["predicate"]["resources"]
        names = [str(item["name"]) for item in files]
        if len(set(names)) < len(names):
            raise ValueError("a file has two digests")
        total = hashlib.sha256(join_digests(files)).hexdigest()
        if subject["digest"]["sha256"] != total or not isinstance(subject["name"], str):
            raise ValueError("its digest is not that of the files that it names")
        (signature,) = envelope["signatures"]
        _decode(signature["sig"])
        bundle["verificationMaterial"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"the signature of {name} is damaged: {visible(error)[:200]}") from None
    return Signature(bundle, statement)


def _require_type(name: str, part: str, actual: Any, expected: str) -> None:
    if actual != expected:
        reason = f"it is {part} of type {visible(actual)[:100]}"
        raise RefusedError(f"{name} has no signature of a model, but another: {reason}")


def _pre_authentication(payload: bytes) -> bytes:
    """Return what is signed of a payload: DSSE's pre-authentication encoding (PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def _decode(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("it has parts that are not base64") from None
