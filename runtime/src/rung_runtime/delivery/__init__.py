"""Deploy: a registered version → it serves, or all is as it was; `artifacts/deployment.json`.

fetch → shadow → promote → switch → smoke → watch. The document is written as each stage begins, so
that the next command knows how far one came that was killed, and finishes or undoes it: `_repair`.
What is always restored is one thing: the alias `champion` names the version that serves.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import RefusedError, UsageError, adapters, ci_platform, project
from .shadow import shadow
from .watch import caution, scrape, watch

if TYPE_CHECKING:
    from ..ci_platform import Platform
    from ..registry import Registry, Version
    from ..serving.loaded_model import LoadedModel

JOURNAL, STATE = Path("artifacts/deployment.json"), Path("service")
MODELS = STATE / "models"
LASTING = "Set the variables ML_HOME and ML_RUNNER to have it serve on a machine of your own."
FACTS = ("version", "package_digest", "previous", "target", "stage", "verdict", "reason")
FIELDS = (*FACTS, "shadow", "smoke", "watch")  # what deployment.json says, besides the envelope
KEPT = 3  # fetched packages
Stage = Callable[[str], dict[str, Any]]


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    from ..http_client import http_json

    return http_json(url, body)


class Target(Protocol):
    """Where a model serves. It is named by its version and its package digest."""

    name: str
    promotes: bool  # what is deployed there becomes champion

    def check(self, image: str | None) -> None:
        """See that it can be deployed to; UsageError says why not.

        Args:
            image: What the registry knows as the image of the version, NAME@sha256:DIGEST.
        """

    def ensure(self) -> None:
        """Start again what should serve and does not."""

    def asked(self) -> str | None:
        """The version that should serve."""

    def serves(self, version: str, digest: str) -> bool:
        """Tell whether deploying it would change nothing."""

    def switch(self, version: str, digest: str) -> None:
        """Have it served, and return once it is. RefusedError says what came between."""

    def undo(self, version: str | None, digest: str | None) -> None:
        """Have the version before served again, or none."""

    def opened(self) -> AbstractContextManager[str]:
        """Yield the address of the service."""


def deploy(version: str | None = None, target: str | None = None) -> str:
    """Deploy a registered version, the newest if none is named.

    Args:
        version: What `registry.find` knows it by: of VERSION@sha256:DIGEST no other package.
        target: `local`, `local/staging` or `kubernetes/OVERLAY`; `staging` or `production`, those
            of Kubernetes if the project has it, else the local ones.

    Raises:
        UsageError: It is not registered, the port is taken, or another deployment is running.
        RefusedError: It is worse than the champion in the shadow, or it failed after that: the
            model before is champion and serves.
    """
    from .. import registry, settings

    with _alone(target) as (to, store, _):
        new, champion, before = registry.find(version), store.alias("champion"), to.asked()
        to.check(store.get(f"image-{new.version}"))
        if to.serves(new.version, new.digest) and (champion == new.version or not to.promotes):
            return f"{new} serves already"
        # A champion that does not serve yet was promoted by hand: what serves is what was before.
        if to.promotes and champion != new.version:
            before = champion
        with _journal(new, before, store, to) as at:
            at("fetch")
            model = _fetched(new)
            _private_is_known(model.model.data.columns.keys() | model.model.data.left_out)
            # One that was promoted by hand is judged beside what serves until now.
            rival = champion if champion != new.version else before
            if champion != new.version or rival not in (None, new.version):
                said: dict[str, Any] = {}
                at("shadow")["shadow"] = said
                old = _fetched(_rival(rival, champion)) if rival else None
                shadow(model, old, settings.delivery(), said)
            if to.promotes and champion != new.version:
                at("promote")
                registry.promote(new.version)
            warning = _serve(model, to, at)
    if to.name == "local" and (runner := rehearsal()):
        runner.notice(f"This was a rehearsal: {new} serves until the job ends. {LASTING}")
    done = "serves" if to.promotes else f"passed {to.name}"
    return _with_warning(f"{new} {done}: see {JOURNAL}", warning)


def rollback(back_to: str | None = None, target: str | None = None) -> str:
    """Return to the champion before, or to an earlier one.

    Raises:
        UsageError: As `deploy`.
        RefusedError: There was none, or it fails the smoke test; all is as it was.
    """
    from .. import registry

    with _alone(target) as (to, store, _):
        last, new = store.alias("champion"), registry.earlier_champion(back_to)
        to.check(store.get(f"image-{new}"))
        with _journal(new, last if to.promotes else to.asked(), store, to) as at:
            at("fetch")
            model = _fetched(new)
            if to.promotes:
                at("promote")
                registry.rollback(new.reference)
            warning = _serve(model, to, at)
    done = "serves again" if to.promotes else f"passed {to.name}"
    return _with_warning(f"{new} {done}, after {last}", warning)


def status(target: str | None = None) -> str:
    """Start or repair what a killed process left, and say what serves."""
    from .. import settings

    with _alone(target) as (to, store, repaired):
        champion, lines = store.alias("champion"), [repaired] if repaired else []
        if to.asked() is None:
            lines += [f"nothing is deployed; the champion is {champion or 'none yet'}"]
        else:
            with to.opened() as url:
                try:
                    found = ask(f"{url}/version")[1]
                except (OSError, ValueError) as error:
                    raise RefusedError(f"{url} does not answer: {error}") from None
            if not isinstance(found, dict) or not found.keys() >= {"version", "since"}:
                raise RefusedError(f"{url} is no service of this kind: what else listens there?")
            lines += [f"{found['version']} serves at {url} since {found['since']}"]
            if champion != found["version"]:
                lines += [f"the champion is {champion}: `ml deploy {champion}` brings it there"]
    said = read(JOURNAL)
    if said.get("verdict") in ("refused", "rolled_back"):
        lines += [f"the last deployment, of {said['version']}, failed: {said['reason']}"]
    if said.get("verdict") == "deployed" and (
        warning := caution(said["watch"], settings.delivery().watch)
    ):
        lines += [f"the last deployment, of {said['version']}, is {warning}"]
    return "\n".join(lines)


def _with_warning(message: str, warning: str | None) -> str:
    return f"{message}\nWARNING: {warning}" if warning else message


def stop() -> str:
    """End the service of this machine, after the requests that it has."""
    from ..adapters.target_local import Local
    from ..registry import file_lock

    STATE.mkdir(exist_ok=True)
    with file_lock(STATE / "deployer.lock", 0.0):
        return "the service has ended" if Local().stop() else "no service was running"


def smoke(url: str | None = None, version: str | None = None) -> str:
    """Ask a service, the local one if none is named, whether it answers as a version does.

    Args:
        version: What `registry.find` knows it by; None: the champion.

    Raises:
        RefusedError: It does not.
    """
    from .. import registry

    with _alone(None) as (to, _, _):
        if version is None:
            champion = registry.current_champion()
            if champion is None:
                raise UsageError("there is no champion yet: `ml deploy` makes one")
            served = _fetched(registry.require_expected(champion))
        else:
            served = _fetched(registry.find(version))
        with nullcontext(url) if url else to.opened() as at:
            return str(smoke_test(served, at)["parity"])


@contextmanager
def _alone(name: str | None) -> "Iterator[tuple[Target, Registry, str | None]]":
    """Keep other deployers out, and repair what one left that was killed."""
    from .. import registry

    target = _target(name or "local")
    STATE.mkdir(exist_ok=True)
    with registry.file_lock(STATE / "deployer.lock", 0.0):
        store = registry.open_registry()
        came = _repair(store, target)
        target.ensure()
        yield target, store, came


def _target(name: str) -> Target:
    if name in ("staging", "production"):
        local = {"staging": "local/staging", "production": "local"}
        name = f"{project.current().deployment}/{name}" if _has_cluster() else local[name]
    kind, _, overlay = name.partition("/")
    if name == "local":
        from ..adapters.target_local import Local

        return Local()
    if name == "local/staging":
        from ..adapters.target_local.ephemeral import Staging

        return Staging()
    if _has_cluster() and kind == project.current().deployment:
        there: Target = adapters.load("target", kind).opened(overlay or "production")
        return there
    raise UsageError(f"target {name}: this project has none of that name")


def _has_cluster() -> bool:
    """Whether there is a target besides this machine."""
    name = project.current().deployment
    if name != "local":
        adapters.load("target", name)  # or says that there is none
    return name != "local"


def rehearsal() -> "Platform | None":
    """The platform, if this is a runner of it from which nothing that serves will stay."""
    at = ci_platform.current_platform()
    stays = _has_cluster() or (at and at.workspace.resolve() != Path.cwd().resolve())
    return None if stays else at


def _repair(store: "Registry", target: Target) -> str | None:
    """Finish the deployment of one that was killed, if what it deployed serves; else undo it."""
    from .. import registry

    for left in [*STATE.glob(".desired.*"), *MODELS.glob(".*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    used = {champion := store.alias("champion"), serving := target.asked()}
    for old in sorted(MODELS.glob("*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        if old.name not in used:
            shutil.rmtree(old)
    said = read(JOURNAL)
    if said.get("verdict") != "running" or said["target"] != target.name:
        return None
    version, first = said["version"], said["previous"] is None
    try:
        if (target.promotes and champion != version) or (serving != version and not first):
            raise RefusedError("it did not serve yet")
        target.switch(version, said["package_digest"])
        with target.opened() as url:
            new = registry.find(f"{version}@{said['package_digest']}")
            said["smoke"] = smoke_test(_fetched(new), url)
        came = "finished"
    except RefusedError as error:
        _undo(said, store, target)
        came = f"undone: {error}"
    came = f"the deployment of {version} that was killed in its stage {said['stage']} is {came}"
    _write(said, verdict="repaired", reason=came)
    return came


def _undo(said: dict[str, Any], store: "Registry", target: Target) -> None:
    """Have champion and target be what they were before a deployment."""
    version, previous = said["version"], said["previous"]
    try:
        if target.asked() == version:
            before = store.version(previous) if previous else None
            target.undo(previous, before.digest if before else None)
    finally:  # of the two, whichever can be done
        if target.promotes and previous:
            with store.lock() as still:
                if store.alias("champion") == version:
                    still()
                    store.point("champion", previous)


@contextmanager
def _journal(
    new: "Version", before: str | None, store: "Registry", target: Target
) -> Iterator[Stage]:
    """Write `deployment.json` at each stage, and undo all if one fails."""
    from ..artifacts import digest, now
    from ..settings import DELIVERY

    said = dict.fromkeys(FIELDS) | {"version": new.version, "package_digest": new.digest}
    said |= {"previous": before, "target": target.name}
    said |= {"started": now(), "data_digest": new.data_digest}
    said |= {"inputs": {str(DELIVERY): digest(DELIVERY)}}

    def at(stage: str) -> dict[str, Any]:
        _write(said, stage=stage, verdict="running")
        return said

    try:
        yield at
    except Exception as error:  # one that is a bug of ours, too
        early = said["stage"] in ("fetch", "shadow", "promote")
        _undo(said, store, target)
        _write(said, verdict="refused" if early else "rolled_back", reason=str(error))
        if early or not isinstance(error, UsageError | RefusedError):
            raise
        back = f"{said['previous']} serves" if said["previous"] else "no model was before it"
        raise RefusedError(f"{new} was taken back, {back}: {error}") from None
    _write(said, stage="done", verdict="deployed")


def _write(said: dict[str, Any], **changes: Any) -> None:
    from ..artifacts import write_fields

    said |= changes
    kept = {name: said[name] for name in FIELDS}
    write_fields("deploy", kept, said["started"], said["data_digest"], said["inputs"])


def _private_is_known(columns: Collection[str]) -> None:
    """See that `service.private` names columns: a misspelt one would be logged."""
    from ..settings import DELIVERY, delivery

    if odd := set(delivery().service.private) - set(columns):
        raise UsageError(
            f"{DELIVERY}, service.private: {sorted(odd)[0]} is no column of this model"
        )


def _rival(name: str, champion: str | None) -> "Version":
    """The version beside which another one is judged: the champion, or what still serves.

    Raises:
        RefusedError: It is not what was verified (`registry.require_expected`), nor was it
            champion.
    """
    from .. import registry

    if name == champion:
        return registry.require_expected(registry.find_exact(name))
    if os.environ.get("ML_CHAMPION"):
        return registry.earlier_champion(name)
    return registry.find_exact(name)


def _fetched(version: "Version") -> "LoadedModel":
    """Open the very package of a version, which is fetched unless its copy is here already."""
    from .. import registry
    from ..serving.loaded_model import load

    folder = registry.fetch_version(version, MODELS / version.version)
    os.utime(folder)  # the last ones used are kept
    return load(folder, version.digest)


def _serve(served: "LoadedModel", target: Target, at: Stage) -> str | None:
    """Switch to a model, try it and watch it; return what the watch could not find out."""
    from ..settings import delivery

    at("switch")
    target.switch(served.model.version, served.model.manifest["package_digest"])
    at("smoke")
    with target.opened() as url:
        smoked = smoke_test(served, url)
        watched: dict[str, Any] = {}
        before = scrape(url)
        at("watch").update(smoke=smoked, watch=watched)
        limits = delivery().watch
        watch(url, limits, before, watched)
    return caution(watched, limits)


def smoke_test(served: "LoadedModel", url: str) -> dict[str, Any]:
    """See that what answers is a package, and answers its commonest row as it does.

    Raises:
        RefusedError: It is not ready, is another model, or answers something else.
    """
    from ..serving import check_parity
    from ..serving.rows import frame_from_rows

    model = served.model
    rows = frame_from_rows([served.example], model.request_contract)
    try:
        ready, found = ask(f"{url}/readyz")[0], ask(f"{url}/version")[1]
        if ready != 200:
            raise RefusedError(f"{url}/readyz answers {ready}")
        if found["package_digest"] != model.manifest["package_digest"]:
            raise RefusedError(f"{url} serves {found['version']}, not {model.version}")
        said = "the commonest values are no row: they break a rule together"
        if not model.failures(model.read(rows)):
            said = check_parity(url, rows, model)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RefusedError(f"{url} does not answer as it should: {error!r}") from None
    return {"url": url, "package_digest": found["package_digest"], "parity": said}


def read(path: Path) -> dict[str, Any]:
    """A small JSON file, or {} if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
