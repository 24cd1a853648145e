"""Register the package that passed the gate."""

from typing import TYPE_CHECKING

from .. import RefusedError
from ..artifacts import ARTIFACTS, DOCUMENTS, PACKAGE, digest, read
from ..records import Comparison, GateDocument, MetricsDocument, PackageDocument
from . import checkout
from .champion import CHAMPION, current_champion
from .fetch import fetch_version
from .interface import Version
from .references import open_registry
from .resolve import find

if TYPE_CHECKING:
    from ..model_package import Manifest

# The files of a package that describe it. What it answers, and is monitored by, is in the others.
DESCRIPTIVE = {"gate.json", "metrics.json", "lineage.json", "MODEL_CARD.md"}


def register() -> Version:
    """Put the package that passed the gate into the registry, unless it equals the champion.

    Returns:
        The version; the champion if the package answers as the champion does.

    Raises:
        UsageError: A document or a file of the package is missing or damaged.
        RefusedError: The gate did not pass it, or passed another package; or this is a runner, and
            the package was not made from what is committed.
    """
    from ..model_package import verified_manifest

    gate = read(GateDocument)
    package = read(PackageDocument)
    metrics = read(MetricsDocument)
    if gate.verdict != "passed":
        raise RefusedError("the gate has not passed this model: see artifacts/gate.json")
    manifest = verified_manifest(PACKAGE)
    comparison = gate.comparison
    packaged = (
        manifest["package_digest"],
        manifest["model_digest"],
        manifest["files"].get("gate.json"),
    )
    passed = (package.package_digest, gate.model_digest, digest(DOCUMENTS["gate"]))
    if packaged != passed:
        raise RefusedError(
            f"{PACKAGE}/ is not the package that the gate passed: run `ml run` again"
        )
    if comparison is None:
        raise RefusedError(
            "artifacts/gate.json is from level 0, without a champion: run `ml run` again"
        )
    if checkout.is_runner():
        checkout.require_clean(manifest)
    if comparison.kind == "same" and (champion := current_champion()):
        # The champion, trained again: only the time differs. A version of its own would be
        # deployed, compared with and monitored anew, each time that the pipeline runs.
        folder = fetch_version(champion, ARTIFACTS / CHAMPION / champion.version)
        if _functional_files(verified_manifest(folder)) == _functional_files(manifest):
            return champion
    facts = _facts(gate, comparison, metrics)
    open_registry().push(PACKAGE, manifest, facts)
    return find(f"{manifest['version']}@{manifest['package_digest']}")


def _facts(gate: GateDocument, comparison: Comparison, metrics: MetricsDocument) -> dict[str, str]:
    """Return what the registry records of a version, from the documents of gate and evaluation."""
    commit = gate.commit or "none"
    champion = comparison.champion
    interval = metrics.metrics[metrics.metric]
    return {
        "commit": commit,
        "committed": checkout.committed(commit),
        "data_digest": gate.data_digest,
        "task": metrics.task,
        "verdict": gate.verdict,
        "comparison": comparison.kind,
        "compared_with": champion.package_digest if champion else "first",
        "metric": metrics.metric,
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
    }


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def _functional_files(manifest: "Manifest") -> dict[str, str]:
    """Return the digests of the files that a package's answers and its monitoring depend on."""
    return {name: sha for name, sha in manifest["files"].items() if name not in DESCRIPTIVE}
