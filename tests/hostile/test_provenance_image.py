"""An image is of the package that was verified: the registry's note of it is a claim."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import packages
import pytest
from conftest import Render

Module = Callable[[str], ModuleType]
PLACE = "registry.example/service"
PINNED = f"{PLACE}@sha256:{'1' * 64}"
LABEL = "vnd.rung.package-digest"
BUILT = f"{PLACE}@sha256:{'2' * 64}"
# Stands in for docker: a daemon that pulls, builds and pushes nothing, and writes down its words.
# Of a template it knows only that it asks for the one label.
DOCKER = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
"pull {pinned}") exit {pull} ;;
"image inspect") cat {label} ;;
"inspect --format") echo {built} ;;
esac
"""


@pytest.fixture(scope="session")
def good(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.package(module, tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def place(
    module: Module, render: Render, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """Return a project with a version whose code marks it when it is imported, and a builder."""
    project = tmp_path / "project"
    shutil.copytree(render(level=2, ci=["github", "gitlab"]), project)
    (project / "uv.lock").touch()
    for name in ("CI", "GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY", "ML_CHAMPION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(project)
    monkeypatch.setenv("ML_IMAGES", PLACE)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")
    marker = tmp_path / "the-payload-ran"
    code = f"try: open({str(marker)!r}, 'w').close()\nexcept OSError: pass\n"
    made = packages.variant(module, good, tmp_path / "made", {"problem/features.py": code})
    facts = {"compared_with": "first", "data_digest": "sha256:" + "3" * 64}
    registry = module("registry")
    registry.open_registry().push(tmp_path / "made", made, facts)
    log = tmp_path / "log"

    def engine(labels: Any, pull: int = 0) -> None:
        label = labels if isinstance(labels, str) else (labels or {}).get(LABEL, "")
        (tmp_path / "label").write_text(label)
        text = DOCKER.format(
            log=log, pinned=PINNED, pull=pull, label=tmp_path / "label", built=BUILT
        )
        (tmp_path / "docker").write_text(text)
        (tmp_path / "docker").chmod(0o755)

    return SimpleNamespace(
        image=module("delivery.image"),
        engine=engine,
        log=log,
        marker=marker,
        version=registry.find(),
    )


def built(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what `ml image` prints where no container can be started."""
    monkeypatch.setattr(
        place.image.builder, "container", lambda *_: nullcontext("http://127.0.0.1:9")
    )
    answer = {"parity": "not asked"}
    monkeypatch.setattr(place.image, "smoke_test", lambda *_: answer)
    pinned: str = place.image.image(place.version.reference, push=True)
    return pinned


FORGED: dict[str, tuple[str, Any, int]] = {
    "of another package": (PINNED, {LABEL: "sha256:" + "0" * 64}, 0),
    "with its version alone": (PINNED, {"org.opencontainers.image.version": "V"}, 0),
    "without labels": (PINNED, None, 0),
    "with a label that is not a digest": (PINNED, "[1\n\x1b[2J", 0),
    "that is gone": (PINNED, {}, 1),
    "of another registry": (f"evil.example/x@sha256:{'1' * 64}", "right", 0),
    "beside the place": (f"{PLACE}-evil@sha256:{'1' * 64}", "right", 0),
    "by a tag": (f"{PLACE}:latest", "right", 0),
    "with an option": (f"--output=/x@sha256:{'1' * 64}", "right", 0),
    "with more lines": (f"{PINNED}\nimage=evil", "right", 0),
    "empty": (" ", "right", 0),
}


def test_a_noted_image_that_is_not_of_the_package_is_not_believed(place: SimpleNamespace) -> None:
    right = {LABEL: place.version.digest}
    place.engine(right)
    assert place.image.mismatch("docker", PLACE, PINNED, place.version) is None
    for forged, (note, labels, pull) in FORGED.items():
        place.engine(right if labels == "right" else labels, pull)
        assert place.image.mismatch("docker", PLACE, note, place.version), forged


def test_the_image_that_a_version_has_is_printed_only_if_it_is_one(
    place: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {LABEL: place.version.digest}
    place.engine(right)
    assert place.image.noted(place.version.reference) is None
    for forged, (note, labels, pull) in FORGED.items():
        place.image.registry.open_registry().set(f"image-{place.version}", note)
        place.engine(right if labels == "right" else labels, pull)
        with pytest.raises(place.image.RefusedError, match="builds it anew"):
            print(forged, place.image.noted(place.version.reference))
    place.image.registry.open_registry().set(f"image-{place.version}", PINNED)
    place.engine(right)
    assert place.image.noted(place.version.reference) == PINNED
    assert "build" not in place.log.read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_instead_of_a_forged_note_an_image_is_built_without_importing_its_package(
    place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the package would answer is asked of a process that cannot write the mark."""
    place.engine({LABEL: "sha256:" + "0" * 64})
    place.image.registry.open_registry().set(f"image-{place.version}", PINNED)
    assert built(place, monkeypatch) == BUILT
    assert place.image.registry.open_registry().get(f"image-{place.version}") == BUILT
    assert "built anew" in capsys.readouterr().err
    digest = place.version.digest
    log = place.log.read_text()
    assert f"--label=vnd.rung.package-digest={digest}" in log
    # The build asks the package nothing: it was not compiled, so its estimator is installed.
    assert "--build-arg=CHECK=no --build-arg=WITHOUT= " in log
    assert not place.marker.exists()
    assert not [name for name in sys.modules if digest[-12:] in name]
    document = json.loads(Path("artifacts/image.json").read_text())
    facts = (document["image"], document["version"], document["package_digest"])
    assert facts == (BUILT, place.version.version, digest)
