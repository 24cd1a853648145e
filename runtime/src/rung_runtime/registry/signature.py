"""Signatures of registered versions: `ml sign`, `ml verify`, and the check before each use.

A signature names every file of a package by its SHA-256, so it holds wherever the package lies, and
whoever can write to the registry cannot forge one. `model_signing.py` has the format. With a key
everything happens here; without one, `write_unsigned` writes what a platform's identity signs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import RefusedError, UsageError
from ..artifacts import ARTIFACTS
from ..config.delivery import load_delivery
from ..escaping import visible
from .download import download
from .interface import Registry, Version
from .model_signing import (
    SERIALIZATION,
    check,
    compare,
    join_digests,
    parse_bundle,
    resources,
    sign_folder,
)
from .references import open_registry
from .resolve import find
from .signing_keys import load_public_key


def sign(name: str, key: Path | None, bundle: Path | None = None) -> str:
    """Sign a registered version with a key, or store a signature that was made elsewhere.

    Args:
        name: The version, as `find` resolves it.
        key: A private key, PEM; ML_SIGNING_PASSWORD decrypts one that is locked.
        bundle: What `model_signing sign`, or another tool of that format, wrote.

    Returns:
        The name of the version.

    Raises:
        UsageError: There is no such version, or the key cannot sign models.
        RefusedError: The bundle is not a signature of this version.
    """
    store = open_registry()
    version = find(name)
    with _package(version) as folder:
        if key:
            text = sign_folder(folder, version.version, key)
        else:
            text = _read_bundle(bundle)
            public_key = required_key()
            if public_key is not None:
                check(text, folder, version.version, public_key)
            else:
                compare(parse_bundle(text, version.version), folder, version.version)
    store.set(note(version.version), text)
    return version.version


def verify(name: str, key: Path | None) -> str:
    """Verify the signature of a registered version.

    Args:
        name: The version, as `find` resolves it.
        key: A public key, PEM; by default `signed_by` of config/delivery.yaml.

    Returns:
        A sentence with the key.

    Raises:
        UsageError: There is no such version, or no key.
        RefusedError: It has no signature, or one that does not hold.
    """
    store = open_registry()
    version = find(name)
    public_key = key or required_key()
    if public_key is None:
        raise UsageError("name a public key: --key FILE, or signed_by in config/delivery.yaml")
    load_public_key(public_key)
    with _package(version) as folder:
        check(_stored_bundle(store, version.version), folder, version.version, public_key)
    return f"{version.version} is signed with {public_key}"


def require(store: Registry, version: str, folder: Path) -> None:
    """Check a package that was fetched, before anything of it is imported.

    Without `signed_by` in config/delivery.yaml nothing is required.

    Raises:
        RefusedError: It has no signature by that key, or is not what was signed.
    """
    public_key = required_key()
    if public_key is not None:
        check(_stored_bundle(store, version), folder, version, public_key)


def write_unsigned(name: str, to: Path) -> Path:
    """Write what is to be signed of a registered version by a job, say, that has no key.

    Args:
        name: The version, as `find` resolves it.
        to: The folder to write to.

    Returns:
        `to`/subject/VERSION, a file whose SHA-256 is the digest that the signature is of. What the
        signature states about it is in `to`/predicate.json.
    """
    version = find(name)
    with _package(version) as folder:
        files = resources(folder)
    subject = to / "subject" / version.version
    subject.parent.mkdir(parents=True, exist_ok=True)
    predicate = {"serialization": SERIALIZATION, "resources": files}
    (to / "predicate.json").write_text(json.dumps(predicate, indent=2), "utf-8")
    subject.write_bytes(join_digests(files))
    return subject


def required_key() -> Path | None:
    """Return the public key that each version must be signed with; None if none must be."""
    name = load_delivery().signed_by
    return Path(name) if name else None


def note(version: str) -> str:
    """Return the name of the note in which the registry keeps the signature of a version."""
    return f"signature-{version}"


def _stored_bundle(store: Registry, version: str) -> str:
    if text := store.get(note(version)):
        return text
    raise RefusedError(f"{version} is not signed: `ml sign {version} --key FILE` signs it")


def _read_bundle(path: Path | None) -> str:
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
        download(version, package)
        yield package
