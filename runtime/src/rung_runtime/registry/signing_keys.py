"""Keys that models are signed with: ECDSA on P-256, P-384 or P-521, in PEM files."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .. import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

UNLOCKING_VARIABLE = "ML_SIGNING_PASSWORD"


def load_private_key(path: Path) -> "ec.EllipticCurvePrivateKey":
    """Read a private key; ML_SIGNING_PASSWORD decrypts one that is locked.

    Raises:
        UsageError: The file is not such a key, or the password does not fit.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(UNLOCKING_VARIABLE)
    try:
        key = load_pem_private_key(_read(path), password.encode() if password else None)
    except TypeError:
        todo = "is not locked: unset" if password else "is locked: set"
        raise UsageError(f"{path} {todo} {UNLOCKING_VARIABLE}") from None
    except (ValueError, UnsupportedAlgorithm):
        message = f"{path} is not a private key in PEM"
        raise UsageError(
            f"{message}, or its password is another" if password else message
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} is not a key of an elliptic curve, with which models are signed")
    hash_algorithm(key.public_key())
    return key


def load_public_key(path: Path) -> "ec.EllipticCurvePublicKey":
    """Read a public key.

    Raises:
        UsageError: The file is not such a key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{path} is not a public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path} is not a key of an elliptic curve, with which models are signed")
    hash_algorithm(key)
    return key


def hash_algorithm(public_key: "ec.EllipticCurvePublicKey") -> "HashAlgorithm":
    """Return the hash that goes with the curve of a key, by Sigstore's specification.

    Raises:
        UsageError: Models are not signed with this curve.
    """
    from cryptography.hazmat.primitives import hashes

    by_curve: dict[str, HashAlgorithm] = {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }
    curve = public_key.curve.name
    if curve not in by_curve:
        raise UsageError(f"the key is of the curve {curve}: make one of P-256, P-384 or P-521")
    return by_curve[curve]


def key_hint(public_key: "ec.EllipticCurvePublicKey") -> str:
    """Return what a bundle identifies a key by: the SHA-256 of its PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror or error}") from None
