"""A version that must be signed is imported by nobody before its signature holds."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import uv
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from rung_runtime import RefusedError, UsageError
from typer.testing import CliRunner

Import = Callable[[str], ModuleType]
LIBRARY = "model-signing==1.1.1"  # which imports OpenSSL, and does not require it
FACTS = {"commit": "0" * 40, "data_digest": "sha256:0", "compared_with": "first"}


def write_key(private: Any, to: Path, password: bytes | None = None) -> Path:
    """Write both halves of a key, and return the path of the private one."""
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    to.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    public = private.public_key()
    content = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    to.with_suffix(".pub").write_bytes(content)
    return to


def write_package(folder: Path, n: int) -> dict[str, Any]:
    """Write a package that says so if anything of it is imported."""
    mark = folder.parent / "imported"
    files = {
        "model.skops": b"model %d " % n * 1_000,
        "problem/features.py": f"open({str(mark)!r}, 'w').close()\n".encode(),
        "problem.md": b"sorts between problem/ and its files",
    }
    (folder / "problem").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: f"sha256:{hashlib.sha256(files[name]).hexdigest()}" for name in files}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    manifest = {
        "version": f"20260101-12000{n}-{whole[:8]}",
        "created": f"2026-01-01T12:00:0{n}.000+00:00",
        "package_digest": f"sha256:{whole}",
        "model_digest": digests["model.skops"],
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest


class Place:
    """A folder with two versions in its registry, and two keys."""

    def __init__(self, path: Path, module: Import) -> None:
        self.path = path
        self.module = module
        self.signature = module("registry.signature")
        self.registry = module("registry")
        (path / "config").mkdir()
        self.requires("")
        self.key = write_key(ec.generate_private_key(ec.SECP256R1()), path / "ours.pem")
        self.foreign = write_key(ec.generate_private_key(ec.SECP256R1()), path / "theirs.pem")
        self.versions = []
        for n in (1, 2):
            manifest = write_package(path / f"package-{n}", n)
            self.registry.open_registry().push(path / f"package-{n}", manifest, FACTS)
            self.versions.append(str(manifest["version"]))

    def requires(self, public: str) -> None:
        """Name the key that each version must be signed with."""
        text = json.dumps({"signed_by": public} if public else {})
        (self.path / "config/delivery.yaml").write_text(text)

    def bundle(self, version: str) -> dict[str, Any]:
        """The signature of a version, as the registry has it."""
        text = self.registry.open_registry().get(f"signature-{version}")
        return dict(json.loads(text))

    def keep(self, version: str, bundle: object) -> None:
        """Write a signature to the registry, as whoever can write there may."""
        text = bundle if isinstance(bundle, str) else json.dumps(bundle)
        self.registry.open_registry().set(f"signature-{version}", text)


@pytest.fixture
def place(tmp_path: Path, module: Import, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY", "ML_SIGNING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, module)


def test_what_was_signed_is_verified_and_nothing_else(place: Place) -> None:
    first, second = place.versions
    sign = place.signature.sign
    verify = place.signature.verify
    public = place.key.with_suffix(".pub")
    refused = RefusedError
    with pytest.raises(refused, match="is not signed: `ml sign"):
        verify(first, public)
    assert sign(first, place.key) == first
    assert f"{first} is signed with" in verify(first, public)
    with pytest.raises(refused, match="signed with another key"):
        verify(first, place.foreign.with_suffix(".pub"))
    with pytest.raises(refused, match="is not signed: `ml sign"):
        verify(second, public)
    # The signature of one version is none of another.
    place.keep(second, place.bundle(first))
    with pytest.raises(refused, match="that of another version"):
        verify(second, public)


def altered(bundle: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A bundle with another statement, under the signature that was there."""
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])) | changes
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    return bundle | {"dsseEnvelope": bundle["dsseEnvelope"] | {"payload": payload}}


def test_a_signature_that_was_changed_is_refused_with_its_reason(place: Place) -> None:
    first, second = place.versions
    public = place.key.with_suffix(".pub")
    for version in place.versions:
        place.signature.sign(version, place.key)
    good = place.bundle(first)
    other = place.bundle(second)
    envelope = good["dsseEnvelope"]
    material = good["verificationMaterial"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    both = statement["subject"] * 2
    theirs = hashlib.sha256(place.foreign.with_suffix(".pub").read_bytes()).hexdigest()
    changed: dict[str, list[Any]] = {
        "does not hold": [
            altered(good, predicate=statement["predicate"] | {"more": 1}),
            good | {"dsseEnvelope": envelope | {"signatures": other["dsseEnvelope"]["signatures"]}},
            good | {"dsseEnvelope": envelope | {"signatures": [{"sig": ""}]}},
        ],
        "damaged": [
            "", "{", "[]", "null", "7", "[" * 100_000, {}, good | {"dsseEnvelope": None},
            good | {"dsseEnvelope": envelope | {"payload": "!"}},
            good | {"dsseEnvelope": envelope | {"payload": 7}},
            good | {"dsseEnvelope": envelope | {"signatures": []}},
            good | {"dsseEnvelope": envelope | {"signatures": [{"sig": 7}]}},
            good | {"dsseEnvelope": envelope | {"signatures": envelope["signatures"] * 2}},
            good | {"dsseEnvelope": envelope | {"signatures": [{"sig": "!"}]}},
            altered(good, subject=both),
            altered(good, subject=[{"name": first, "digest": {"sha256": "0" * 64}}]),
            altered(good, predicate={"serialization": {"method": "files", "hash_type": "sha256"}}),
            altered(good, predicate=statement["predicate"] | {"resources": [{"name": "a"}]}),
        ],
        "another key": [good | {"verificationMaterial": {"publicKey": {"hint": theirs}}}],
        "without a key": [
            good | {"verificationMaterial": {"certificate": {"rawBytes": ""}}},
            good | {"verificationMaterial": {}},
            good | {"verificationMaterial": []},
        ],
        "no signature of a model": [
            altered(good, predicateType="https://slsa.dev/provenance/v1"),
            good | {"mediaType": "application/json"},
            good | {"dsseEnvelope": envelope | {"payloadType": "text/plain"}},
        ],
    }  # fmt: skip
    refused = RefusedError
    for reason, bundles in changed.items():
        for bundle in bundles:
            place.keep(first, bundle)
            if bundle == "":
                continue  # what the registry has no text of is not signed
            with pytest.raises(refused, match=reason) as error:
                place.signature.verify(first, public)
            assert str(error.value).isprintable()
    assert material["publicKey"]["hint"] != theirs


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "model.skops").write_bytes(b"other"), "model.skops was changed"),
        (lambda folder: (folder / "problem/evil.py").write_text("x"), "problem/evil.py was added"),
        (lambda folder: (folder / "problem.md").unlink(), "problem.md is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json was changed"),
        (lambda folder: (folder / "more").symlink_to("/etc"), "is a link"),
    ],
)
def test_a_file_that_was_changed_is_named(
    place: Place, change: Callable[[Path], object], reason: str
) -> None:
    version = place.versions[0]
    place.signature.sign(version, place.key)
    text = json.dumps(place.bundle(version))
    folder = place.path.joinpath("package-1")
    change(folder)
    with pytest.raises(RefusedError, match=reason):
        place.signature.check(text, folder, version, place.key.with_suffix(".pub"))


def test_without_the_signature_that_is_required_nothing_leaves_the_registry(place: Place) -> None:
    first, second = place.versions
    registry = place.registry
    open_version = place.module("delivery.service_folder").open_version
    known = {entry.version: entry for entry in registry.open_registry().versions()}
    place.requires("ours.pub")
    place.signature.sign(second, place.foreign)
    for version, reason in ((first, "is not signed"), (second, "signed with another key")):
        with pytest.raises(RefusedError, match=reason), open_version(known[version]):
            pass
        with pytest.raises(RefusedError, match=reason):
            registry.fetch_version(known[version], Path("to"))
    assert not (place.path / "imported").exists()
    place.signature.sign(first, place.key)
    assert registry.fetch_version(known[first], Path("to")) == Path("to")
    # A copy that is here already is no way around it.
    place.keep(first, place.bundle(second))
    with pytest.raises(RefusedError, match="another key"):
        registry.fetch_version(known[first], Path("to"))
    place.requires("nowhere.pub")
    with pytest.raises(UsageError, match=r"the key nowhere\.pub cannot be read"):
        registry.fetch_version(known[first], Path("to"))


def test_a_key_that_cannot_sign_is_a_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = place.versions[0]
    bad = UsageError
    odd = {
        "not a private key": b"nothing",
        "cannot be read": None,
        "not a key of an elliptic curve": rsa.generate_private_key(65_537, 2_048),
        "of an elliptic curve": ed25519.Ed25519PrivateKey.generate(),
        "of the curve secp256k1": ec.generate_private_key(ec.SECP256K1()),
    }
    for n, (reason, key) in enumerate(odd.items()):
        path = place.path / f"odd-{n}.pem"
        if isinstance(key, bytes):
            path.write_bytes(key)
        elif key:
            write_key(key, path)
        with pytest.raises(bad, match=reason):
            place.signature.sign(version, path)
        with pytest.raises(bad):
            place.signature.verify(version, path)
    locked = write_key(ec.generate_private_key(ec.SECP384R1()), place.path / "locked", b"secret")
    with pytest.raises(bad, match="is locked: set ML_SIGNING_PASSWORD"):
        place.signature.sign(version, locked)
    monkeypatch.setenv("ML_SIGNING_PASSWORD", "another")
    with pytest.raises(bad, match="password is another"):
        place.signature.sign(version, locked)
    with pytest.raises(bad, match="is not locked: unset ML_SIGNING_PASSWORD"):
        place.signature.sign(version, place.key)
    monkeypatch.setenv("ML_SIGNING_PASSWORD", "secret")
    assert place.signature.sign(version, locked) == version


def test_a_signature_that_is_brought_must_be_of_that_version(place: Place, tmp_path: Path) -> None:
    first, second = place.versions
    place.signature.sign(first, place.key)
    brought = tmp_path / "brought.json"
    brought.write_text(json.dumps(place.bundle(first)))
    with pytest.raises(RefusedError, match="that of another version"):
        place.signature.sign(second, None, brought)
    place.requires("theirs.pub")
    with pytest.raises(RefusedError, match="signed with another key"):
        place.signature.sign(first, None, brought)


def test_a_tag_that_moves_while_it_is_signed_is_not_signed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = place.versions[0]
    store = place.registry.open_registry()
    (reference,) = [v.reference for v in store.versions() if v.version == version]
    find = place.registry.find
    moved = json.loads((place.path / "package-2/manifest.json").read_text()) | {"version": version}

    def finds_and_moves(name: str) -> Any:
        version_found = find(name)
        shutil.rmtree(place.path / "registry")
        folder = shutil.copytree(place.path / "package-2", place.path / "moved")
        (folder / "manifest.json").write_text(json.dumps(moved))
        store.push(folder, moved, FACTS)
        return version_found

    monkeypatch.setattr(place.signature, "find", finds_and_moves)
    with pytest.raises((RefusedError, UsageError)):
        place.signature.sign(reference, place.key)
    assert place.registry.open_registry().get(f"signature-{version}") is None


def test_what_a_job_is_to_sign_has_the_digest_of_the_signature(place: Place) -> None:
    version = place.versions[0]
    place.signature.sign(version, place.key)
    statement = json.loads(base64.b64decode(place.bundle(version)["dsseEnvelope"]["payload"]))
    subject = place.signature.write_unsigned(version, place.path / "unsigned")
    digest = hashlib.sha256(subject.read_bytes()).hexdigest()
    assert statement["subject"] == [{"name": subject.name, "digest": {"sha256": digest}}]
    predicate = json.loads((place.path / "unsigned/predicate.json").read_text())
    assert predicate == statement["predicate"]


def test_the_commands_sign_verify_and_prepare(place: Place) -> None:
    version = place.versions[0]
    key = str(place.key)
    public = str(place.key.with_suffix(".pub"))
    app = place.module("cli.app").app

    def ml(*command: str) -> Any:
        return CliRunner().invoke(app, list(command))

    assert ml("sign", version, "--key", key).output.strip() == version
    assert "is signed with" in ml("verify", version, "--key", public).output
    to = place.path / "unsigned"
    assert ml("sign", version, "--unsigned", str(to)).output.strip() == f"{to}/subject/{version}"
    for options in ([], ["--key", key, "--unsigned", str(to)]):
        error = ml("sign", version, *options).exception
        assert "one of --key, --bundle and --unsigned" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "curve",
    [
        ec.SECP256R1(),
        *(
            pytest.param(curve, marks=pytest.mark.nightly)
            for curve in (ec.SECP384R1(), ec.SECP521R1())
        ),
    ],
)
def test_the_library_of_the_format_and_ours_believe_each_other(
    place: Place, curve: ec.EllipticCurve
) -> None:
    version = place.versions[0]
    folder = place.path.joinpath("package-1")
    key = write_key(ec.generate_private_key(curve), place.path / "key.pem")
    public = str(key.with_suffix(".pub"))
    library = [uv(), "tool", "run", "--with", "pyopenssl", "--from", LIBRARY, "model_signing"]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*library, *command], env=dict(os.environ), capture_output=True, text=True, check=False
        )

    place.signature.sign(version, key)
    ours = place.path / "ours.sig"
    ours.write_text(json.dumps(place.bundle(version)))
    verify = ["verify", "key", "--public_key", public, "--signature"]
    done = run(*verify, str(ours), str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = place.path / "theirs.sig"
    named = shutil.copytree(folder, place.path / "renamed" / version)
    sign = ["sign", "key", "--private_key", str(key), "--signature", str(theirs), str(named)]
    done = run(*sign)
    assert done.returncode == 0, done.stdout + done.stderr
    place.signature.check(theirs.read_text(), folder, version, Path(public))
    # Neither believes it of other files.
    (folder / "model.skops").write_bytes(b"other")
    assert run(*verify, str(ours), str(folder)).returncode != 0
    with pytest.raises(RefusedError, match=r"model\.skops was changed"):
        place.signature.check(theirs.read_text(), folder, version, Path(public))
