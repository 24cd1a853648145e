"""The bill of materials names the model, its data and every requirement, each by its hash."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Copy, uv
from packages import package

Import = Callable[[str], ModuleType]
LIBRARY = "cyclonedx-python-lib[json-validation]==11.12.0"
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text = open(sys.argv[1], encoding="utf-8").read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
sys.exit(str(error)[:3000] if error else 0)
"""
BILL: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "metadata": {"component": {"type": "library", "bom-ref": "own", "name": "own"}},
    "components": [{"type": "library", "bom-ref": "polars", "name": "polars"}],
    "dependencies": [{"ref": "own", "dependsOn": ["polars"]}, {"ref": "polars"}],
}


def model_of(bill: dict[str, Any]) -> dict[str, Any]:
    """The one model of a bill."""
    kinds = [c for c in bill["components"] if c["type"] == "machine-learning-model"]
    assert len(kinds) == 1
    return dict(kinds[0])


def assert_valid(path: Path) -> None:
    """Have the library of CycloneDX hold a bill against the official schema."""
    run = [uv(), "run", "--no-project", "--with", LIBRARY, "python", "-c", VALIDATE, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_model_is_a_component_with_its_digest_and_each_of_its_files(
    module: Import, tmp_path: Path
) -> None:
    folder = package(module, tmp_path / "model")
    bill = module("delivery.sbom").described(folder, BILL)
    manifest = json.loads((folder / "manifest.json").read_text())
    model = model_of(bill)
    assert model["version"] == manifest["version"]
    assert f"sha256:{model['hashes'][0]['content']}" == manifest["model_digest"]
    files = {c["name"]: f"sha256:{c['hashes'][0]['content']}" for c in model["components"]}
    assert files == manifest["files"]
    edges = {edge["ref"]: edge.get("dependsOn", []) for edge in bill["dependencies"]}
    assert edges["own"] == ["polars", model["bom-ref"]]
    known = {c["bom-ref"] for c in bill["components"]}
    assert set(edges[model["bom-ref"]]) < known
    assert BILL["specVersion"] == "1.5", "what was given is left as it was"


@pytest.mark.parametrize(
    ("dockerfile", "files", "expected"),
    [
        ('ARG WITHOUT="--no-install-package polars"\n', ["model.onnx"], "optional"),
        ('ARG WITHOUT=""\n', ["model.onnx"], None),
        ('ARG WITHOUT="--no-install-package polars"\n', [], None),  # the estimator answers
        (None, ["model.onnx"], None),
    ],
)
def test_a_requirement_that_the_image_leaves_out_is_optional(
    module: Import,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dockerfile: str | None,
    files: list[str],
    expected: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    if dockerfile is not None:
        (tmp_path / "Dockerfile").write_text(dockerfile)
    folder = package(module, tmp_path / "model")
    sbom = module("delivery.sbom")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] |= dict.fromkeys(files, "sha256:" + "0" * 64)
    monkeypatch.setattr(sbom, "verified_manifest", lambda _: manifest)
    bill = sbom.described(folder, BILL, sbom.left_out())
    (polars,) = [part for part in bill["components"] if part["name"] == "polars"]
    assert polars.get("scope") == expected
    assert "scope" not in BILL["components"][0]


def test_a_package_of_an_older_version_has_a_bill_too(module: Import, tmp_path: Path) -> None:
    folder = package(module, tmp_path / "model")  # without metrics, verdict and signature
    card = model_of(module("delivery.sbom").described(folder, BILL))["modelCard"]
    assert "quantitativeAnalysis" not in card
    assert "task" not in card["modelParameters"]


@pytest.mark.slow
def test_the_bill_of_a_service_is_valid_and_every_requirement_has_a_hash(
    ran: Callable[[int, str], Copy],
) -> None:
    copy = ran(1, "binary")
    copy.ml("sbom", exits=0)
    path = copy.path / "artifacts/sbom.json"
    assert_valid(path)
    bill = json.loads(path.read_text("utf-8"))
    assert bill["specVersion"] == "1.6"
    libraries = [c for c in bill["components"] if c["type"] == "library"]
    assert len(libraries) > 10
    optional = {library["name"] for library in libraries if library.get("scope") == "optional"}
    assert "scikit-learn" in optional
    assert "onnxruntime" not in optional
    for library in libraries:
        files = library["externalReferences"]
        assert files, library["name"]
        assert all(file["hashes"] for file in files), library["name"]
    card = model_of(bill)["modelCard"]
    metrics = copy.read("evaluate")
    reported = {m["type"]: m["value"] for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert reported["roc_auc"]
    assert metrics["metric"] in reported
    assert card["modelParameters"]["task"] == "binary classification"
