"""The journal of a deployment, `artifacts/deployment.json`: how far it came, whatever happens.

The document is written as each stage begins, so that the next command knows how far a deployment
came whose process was killed, and finishes or undoes it: `recover`. One thing is always restored:
the alias `champion` names the version that serves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from .. import RefusedError, UsageError, progress
from .service_folder import SERVICE, open_version, read_json, remove_leftovers
from .smoke import smoke_test
from .target import Target, open_target

if TYPE_CHECKING:
    from ..records import DeploymentVerdict, ShadowResult, SmokeResult, Stage, WatchResult
    from ..registry import Registry, Version

JOURNAL = Path("artifacts/deployment.json")
BEFORE_THE_SWITCH = ("fetch", "shadow", "promote")


@dataclass
class Deployment:
    """A deployment, as its document describes it.

    Attributes:
        previous: The version that is restored if this one fails.
        target: The name of the target.
        reason: Why it failed, or how it was repaired.
        inputs: Digests of files that it depends on, by path.
    """

    version: str
    package_digest: str
    previous: str | None
    target: str
    started: str
    data_digest: str
    inputs: dict[str, str]
    stage: "Stage | None" = None
    verdict: "DeploymentVerdict | None" = None
    reason: str | None = None
    shadow: "ShadowResult | None" = None
    smoke: "SmokeResult | None" = None
    watch: "WatchResult | None" = None

    @classmethod
    def unfinished(cls, target: Target) -> Self | None:
        """Return the deployment to a target whose process was killed, if there is one."""
        document = read_json(JOURNAL)
        if document.get("verdict") != "running" or document["target"] != target.name:
            return None
        return cls(**{field.name: document[field.name] for field in fields(cls)})

    def enter(self, stage: "Stage") -> None:
        """Write that a stage begins, and show it."""
        progress.begin(stage)
        self.stage = stage
        self.verdict = "running"
        self.write()

    def end(self, verdict: "DeploymentVerdict", reason: str | None = None) -> None:
        """Write how it ended."""
        self.verdict = verdict
        self.reason = reason
        self.write()

    def write(self) -> None:
        """Write the document."""
        from ..artifacts import write
        from ..records import DeploymentDocument

        assert self.stage is not None
        assert self.verdict is not None
        document = DeploymentDocument(
            version=self.version,
            package_digest=self.package_digest,
            previous=self.previous,
            target=self.target,
            stage=self.stage,
            verdict=self.verdict,
            reason=self.reason,
            shadow=self.shadow,
            smoke=self.smoke,
            watch=self.watch,
        )
        write(document, started=self.started, data_digest=self.data_digest, inputs=self.inputs)


class Session(NamedTuple):
    """What a deployer holds while others are kept out."""

    target: Target
    store: "Registry"
    repaired: str | None  # what was done about a deployment whose process was killed


@contextmanager
def exclusive_deployment(name: str | None) -> Iterator[Session]:
    """Keep other deployers out, and repair what one left that was killed.

    Args:
        name: Of the target, as `open_target` takes it; None: `local`.

    Raises:
        UsageError: Another deployer is running, or the project does not have the target.
    """
    from .. import registry

    target = open_target(name or "local")
    SERVICE.mkdir(exist_ok=True)
    with registry.file_lock(SERVICE / "deployer.lock", 0.0):
        store = registry.open_registry()
        repaired = recover(store, target)
        target.ensure_running()
        yield Session(target, store, repaired)


@contextmanager
def deployment_journal(
    new: "Version", previous: str | None, store: "Registry", target: Target
) -> Iterator[Deployment]:
    """Yield a deployment to write stages to; undo everything if one fails.

    Raises:
        RefusedError: It failed after the switch began; all is as it was.
    """
    from ..artifacts import digest, now
    from ..config.delivery import DELIVERY

    deployment = Deployment(
        version=new.version,
        package_digest=new.digest,
        previous=previous,
        target=target.name,
        started=now(),
        data_digest=new.data_digest,
        inputs={str(DELIVERY): digest(DELIVERY)},
    )
    try:
        with progress.stages():
            yield deployment
    except Exception as error:  # one that is a bug of ours, too
        is_early = deployment.stage in BEFORE_THE_SWITCH
        with progress.stages():
            progress.begin("restore")
            restore_previous(deployment, store, target)
            progress.report(f"{previous} serves again" if previous else "no model serves")
        deployment.end("refused" if is_early else "rolled_back", str(error))
        if is_early or not isinstance(error, UsageError | RefusedError):
            raise
        serving = f"{previous} serves again" if previous else "no model served before it"
        raise RefusedError(f"{new} was rolled back, and {serving}: {error}") from None
    deployment.stage = "done"
    deployment.end("deployed")


def recover(store: "Registry", target: Target) -> str | None:
    """Finish the deployment of a killed process if its version serves; else undo it.

    Returns:
        What was done, in a sentence; None if no deployment was left unfinished.
    """
    from .. import registry

    champion = store.alias("champion")
    serving = target.desired_version()
    remove_leftovers({version for version in (champion, serving) if version})
    deployment = Deployment.unfinished(target)
    if deployment is None:
        return None
    version = deployment.version
    is_first = deployment.previous is None
    is_promoted = champion == version or not target.promotes
    try:
        if not is_promoted or (serving != version and not is_first):
            raise RefusedError("it was not serving yet")
        target.switch(version, deployment.package_digest)
        with target.serving_url() as url:
            new = registry.find(f"{version}@{deployment.package_digest}")
            with open_version(new) as loaded:
                deployment.smoke = smoke_test(loaded, url)
        outcome = "finished"
    except RefusedError as error:
        restore_previous(deployment, store, target)
        outcome = f"undone: {error}"
    sentence = f"the deployment of {version}, killed in its stage {deployment.stage}, was {outcome}"
    deployment.end("repaired", sentence)
    return sentence


def restore_previous(deployment: Deployment, store: "Registry", target: Target) -> None:
    """Have champion and target be what they were before a deployment."""
    previous = deployment.previous
    try:
        if target.desired_version() == deployment.version:
            version = store.version(previous) if previous else None
            target.restore(previous, version.digest if version else None)
    finally:  # of the two, whichever can be done
        if target.promotes and previous:
            with store.lock() as ensure_lease:
                if store.alias("champion") == deployment.version:
                    ensure_lease()
                    store.point("champion", previous)
