"""The bill of materials of a service: its requirements, its model and the data it learned from.

CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/. The requirements are what `uv export` knows of
uv.lock, each with the hashes of its files; the model is a component `machine-learning-model` with
the model card of its package. Nothing of the package is imported.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Required, TypedDict, cast

from .. import UsageError, compiled, process, registry
from ..artifacts import ARTIFACTS, PACKAGE
from ..atomic_file import atomic_write
from ..escaping import visible
from ..model_package import PackagedMetrics, verified_manifest
from ..pipeline.formatting import category
from ..records import Ends

SBOM = ARTIFACTS / "sbom.json"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
EXPORT = ("uv", "export", "--quiet", "--locked", "--no-default-groups", "--format", "cyclonedx1.5")
TASKS = {
    "binary": "binary classification",
    "multiclass": "multiclass classification",
    "regression": "regression",
}
DOCKERFILE = Path("Dockerfile")
LEFT_OUT = re.compile(r"--no-install-package[ =]([\w.-]+)")
LIMITS = (
    "It was judged on rows like those it was trained on. Of rows beyond the ranges and categories"
    " of its contract nothing is known, and the contract refuses them."
)


class Hash(TypedDict):
    """The digest of a file."""

    alg: str
    content: str


class Property(TypedDict):
    """What the standard has no field for."""

    name: str
    value: str


class PerformanceMetric(TypedDict, total=False):
    """A metric of the model card, of all rows or of a slice."""

    type: Required[str]
    value: Required[str]
    confidenceInterval: Required[dict[str, str]]  # lowerBound, upperBound
    slice: str


class ModelParameters(TypedDict, total=False):
    """What the model does, and what it learned from."""

    approach: Required[dict[str, str]]
    datasets: Required[list[dict[str, str]]]
    inputs: Required[list[dict[str, str]]]
    task: str


class ModelCard(TypedDict, total=False):
    """What the model does, how well, and where not."""

    modelParameters: Required[ModelParameters]
    considerations: Required[dict[str, list[str]]]
    quantitativeAnalysis: dict[str, list[PerformanceMetric]]
    properties: list[Property]


Component = TypedDict(
    "Component",
    {
        "type": Required[str],
        "bom-ref": str,
        "name": Required[str],
        "version": str,
        "scope": str,
        "hashes": list[Hash],
        "modelCard": ModelCard,
        "components": list["Component"],
        "properties": list[Property],
        "data": list[dict[str, str]],
    },
    total=False,
)


class Dependency(TypedDict, total=False):
    """What a component depends on."""

    ref: Required[str]
    dependsOn: list[str]


class Metadata(TypedDict):
    """What the bill is of; uv writes more of it, which is kept."""

    component: Component


Bill = TypedDict(
    "Bill",
    {
        "$schema": str,
        "specVersion": Required[str],
        "metadata": Required[Metadata],
        "components": list[Component],
        "dependencies": list[Dependency],
    },
    total=False,
)


def sbom(version: str | None = None) -> Path:
    """Write `artifacts/sbom.json` for a registered version; without one, for `artifacts/model/`.

    Raises:
        UsageError: There is no such version or package, or the lock file is missing or stale.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".sbom-", dir=ARTIFACTS) as folder:
        package = PACKAGE
        if version:
            package = registry.fetch_version(registry.find(version), Path(folder, "model"))
        try:
            bill = described(package, _requirements(), left_out())
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = f"is not what `ml package` writes ({visible(error)[:100]})"
            raise UsageError(f"the package of {version or PACKAGE} {reason}") from None
    with atomic_write(SBOM) as new:
        new.write_text(json.dumps(bill, indent=2, ensure_ascii=False), "utf-8")
    return SBOM


def left_out() -> set[str]:
    """Return the requirements that the Dockerfile leaves out if the model answers without them."""
    if not DOCKERFILE.is_file():
        return set()
    return set(LEFT_OUT.findall(DOCKERFILE.read_text("utf-8")))


def described(package: Path, bill: Bill, unneeded: Collection[str] = ()) -> Bill:
    """Return a bill of materials with the model of a package in it.

    Args:
        package: A folder that `ml package` wrote, by this version or an earlier one.
        bill: The requirements, CycloneDX 1.5 or newer.
        unneeded: Those that an image has only if the model does not answer without them; that of a
            compiled one does, unless `problem/` imports them. In the bill they are optional.
    """
    manifest = verified_manifest(package)
    contract = _document(package, "contract")
    metrics = cast(PackagedMetrics, _document(package, "metrics"))
    model = f"model@{manifest['version']}"
    data = f"data@{manifest['version']}"
    components: list[Component] = [
        {
            "type": "machine-learning-model",
            "bom-ref": model,
            "name": f"model of {contract.get('target', 'unknown')}",
            "version": manifest["version"],
            "hashes": [_hash(manifest["model_digest"])],
            "modelCard": _card(package, metrics, data),
            "components": [
                {"type": "file", "name": name, "hashes": [_hash(digest)]}
                for name, digest in manifest["files"].items()
            ],
            "properties": [_property("package_digest", manifest["package_digest"])],
        },
        {
            "type": "data",
            "bom-ref": data,
            "name": str(contract.get("source", "training data")),
            "data": [{"type": "dataset"}],
        },
    ]
    if metrics.get("data_digest"):
        components[1]["hashes"] = [_hash(metrics["data_digest"])]
    requirements = list(bill.get("components", []))
    if compiled.FILE in manifest["files"]:
        requirements = [
            {**part, "scope": "optional"} if part.get("name") in unneeded else part
            for part in requirements
        ]
    service: Component = {**bill["metadata"]["component"], "type": "application"}
    edges = {edge["ref"]: list(edge.get("dependsOn", [])) for edge in bill.get("dependencies", [])}
    edges.setdefault(service["bom-ref"], []).append(model)
    edges |= {model: [data], data: []}
    return {
        **bill,
        "$schema": SCHEMA,
        "specVersion": "1.6",
        "metadata": {**bill["metadata"], "component": service},
        "components": [*requirements, *components],
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in edges.items()],
    }


def _card(package: Path, metrics: PackagedMetrics, data: str) -> ModelCard:
    """Return the model card: what it does, how well, and where not, as the package knows it."""
    signature = _document(package, "signature")
    gate = _document(package, "gate")
    task = signature.get("task")
    card: ModelCard = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "datasets": [{"ref": data}],
            "inputs": [
                {"format": visible(f"{name}: {column.get('type', 'unknown')}")}
                for name, column in signature.get("inputs", {}).items()
            ],
        },
        "considerations": {"technicalLimitations": [LIMITS]},
    }
    if task in TASKS:
        card["modelParameters"]["task"] = TASKS[task]
    performance = [_metric(name, value) for name, value in metrics.get("metrics", {}).items()]
    for part in metrics.get("slices", []):
        slice_name = visible(f"{part['column']} is {category(part['value'])}")
        metric = _metric(metrics["metric"], part["metric"])
        metric["slice"] = slice_name
        performance.append(metric)
    if performance:
        card["quantitativeAnalysis"] = {"performanceMetrics": performance}
    if gate:
        card["properties"] = [_property("gate", gate.get("verdict", "unknown"))]
    return card


def _metric(name: str, metric: Ends) -> PerformanceMetric:
    interval = {"lowerBound": metric.get("low"), "upperBound": metric.get("high")}
    known = {end: str(value) for end, value in interval.items() if value is not None}
    return {
        "type": name,
        "value": "unknown" if metric.get("value") is None else str(metric["value"]),
        "confidenceInterval": known,
    }


def _hash(digest: str) -> Hash:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def _property(name: str, value: str) -> Property:
    return {"name": f"rung:{name}", "value": value}


def _document(package: Path, name: str) -> dict[str, Any]:
    """Return a document of a package; {} if one of an earlier version has none.

    It is JSON that any version may have written, so nothing of its form is certain.
    """
    path = package / f"{name}.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text("utf-8"))
    return content if isinstance(content, dict) else {}


def _requirements() -> Bill:
    """Return what uv knows of the requirements of the service."""
    result = process.run(EXPORT)
    if not result.succeeded:
        lines = result.error_text.strip().splitlines()
        reason = visible(lines[-1] if lines else "")
        raise UsageError(f"uv.lock has no requirements to list: {reason or 'run `uv lock`'}")
    bill: Bill = json.loads(result.text)
    return bill
