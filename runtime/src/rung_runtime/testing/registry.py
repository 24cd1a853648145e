"""What every registry promises, as tests to inherit, for an adapter of your own.

Example:
    from rung_runtime.testing.registry import RegistryContract

    class TestOurs(RegistryContract):
        @pytest.fixture
        def open_registry(self, tmp_path):
            return lambda: our_registry.open_registry(str(tmp_path / "registry"))
"""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .. import RefusedError, UsageError
from ..registry import Registry

if TYPE_CHECKING:
    from ..model_package import Manifest

FACTS = {
    "commit": "c0ffee",
    "data_digest": f"sha256:{'1' * 64}",
    "metric": "roc_auc",
    "value": "0.75",
    "low": "0.74",
    "high": "0.76",
    "verdict": "passed",
    "compared_with": "first",
}


def make_package(folder: Path, number: int) -> "Manifest":
    """Write a package as a registry sees one, and return its manifest.

    Args:
        folder: Where; it is made.
        number: 1 to 9; of two packages, that with the higher number is the newer one.
    """
    files = {
        "contract.json": b'{"task": "binary"}',
        "gate.json": b"{}",
        "model.skops": b"model %d " % number * 1_000,
        "problem/features.py": b"x = %d\n" % number,
    }
    (folder / "problem").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: _sha256(content) for name, content in files.items()}
    whole = _sha256(json.dumps(digests, sort_keys=True).encode())
    manifest: Manifest = {
        "version": f"20260101-12000{number}-{whole[7:15]}",
        "created": f"2026-01-01T12:00:0{number}.000+00:00",
        "package_digest": whole,
        "model_digest": digests["model.skops"],
        "files": digests,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return manifest


class RegistryContract:
    """Inherit it, and give the fixture `open_registry`: a function that opens an empty registry.

    Each call opens the same registry anew, as another command would.
    """

    @pytest.fixture
    def open_registry(self) -> Callable[[], Registry]:
        raise NotImplementedError("give a fixture open_registry: see RegistryContract")

    def test_what_was_pushed_comes_back_byte_for_byte(
        self, open_registry: Callable[[], Registry], tmp_path: Path
    ) -> None:
        assert open_registry().versions() == []
        manifests = {n: make_package(tmp_path / f"package-{n}", n) for n in (2, 1)}
        for number, manifest in manifests.items():
            open_registry().push(tmp_path / f"package-{number}", manifest, FACTS)
        first, second = open_registry().versions()
        assert first.version == manifests[1]["version"]
        assert second.version == manifests[2]["version"]
        assert second.digest == manifests[2]["package_digest"]
        assert second.model_digest == manifests[2]["model_digest"]
        assert second.created == manifests[2]["created"]
        assert second.facts == FACTS
        for _ in range(2):  # the second time in the place of the first
            place = tmp_path / "to/out"
            assert open_registry().fetch(second.version, place) == place
            assert _content(place) == _content(tmp_path / "package-2")
            assert [path.name for path in (tmp_path / "to").iterdir()] == ["out"]

    def test_a_version_never_changes(
        self, open_registry: Callable[[], Registry], tmp_path: Path
    ) -> None:
        manifest = make_package(tmp_path / "package-1", 1)
        open_registry().push(tmp_path / "package-1", manifest, FACTS)
        before = open_registry().versions()
        open_registry().push(tmp_path / "package-1", manifest, FACTS | {"value": "0.99"})
        assert open_registry().versions() == before
        other = make_package(tmp_path / "other", 2) | {"version": manifest["version"]}
        with pytest.raises(RefusedError, match=manifest["version"]):
            open_registry().push(tmp_path / "other", other, FACTS)
        open_registry().fetch(manifest["version"], tmp_path / "out")
        assert _content(tmp_path / "out") == _content(tmp_path / "package-1")

    def test_a_package_that_changes_while_it_is_pushed_is_refused(
        self, open_registry: Callable[[], Registry], tmp_path: Path
    ) -> None:
        manifest = make_package(tmp_path / "package-1", 1)
        (tmp_path / "package-1/model.skops").write_bytes(b"another")
        with pytest.raises(UsageError, match="package-1"):
            open_registry().push(tmp_path / "package-1", manifest, FACTS)
        assert open_registry().versions() == []

    def test_notes_and_aliases_are_no_versions(
        self, open_registry: Callable[[], Registry], tmp_path: Path
    ) -> None:
        names = []
        for number in (1, 2):
            manifest = make_package(tmp_path / f"package-{number}", number)
            open_registry().push(tmp_path / f"package-{number}", manifest, FACTS)
            names.append(manifest["version"])
        registry = open_registry()
        assert registry.get("alarms") is None
        assert registry.alias("champion") is None
        for text in ("one", "", "ß" * 50_000, '{"two": "\\n"}'):
            registry.set("alarms", text)
            assert open_registry().get("alarms") == text
        for version in reversed(names):
            registry.point("champion", version)
            assert open_registry().alias("champion") == version
        assert [version.version for version in open_registry().versions()] == names
        assert registry.get("history") is None

    def test_what_is_not_there_is_said_and_leaves_nothing(
        self, open_registry: Callable[[], Registry], tmp_path: Path
    ) -> None:
        assert open_registry().version("nothing") is None
        with pytest.raises(UsageError, match="nothing"):
            open_registry().fetch("nothing", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        with pytest.raises(UsageError, match="nothing"):
            open_registry().point("champion", "nothing")
        assert open_registry().alias("champion") is None

    def test_a_lock_keeps_others_out(self, open_registry: Callable[[], Registry]) -> None:
        """Two commands on one machine; what two machines see is the adapter's own to test."""
        order: list[str] = []
        held = threading.Event()

        def hold() -> None:
            with open_registry().lock() as still_held:
                order.append("first in")
                held.set()
                still_held()
                threading.Event().wait(0.3)
                order.append("first out")

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(60)
        with open_registry().lock():
            order.append("second in")
        thread.join()
        assert order == ["first in", "first out", "second in"]


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
