"""Deploy: a registered version serves in the end, or everything is as it was.

fetch → shadow → promote → switch → smoke → watch, each written to the journal as it begins. A
rollback leaves out shadow, as its version has served before.
"""

import os
from collections.abc import Collection
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

from .. import UsageError, progress
from .journal import JOURNAL, Deployment, deployment_journal, exclusive_deployment
from .service_folder import open_version
from .shadow import shadow
from .smoke import smoke_test
from .target import OWN_MACHINE_HINT, Target, rehearsal_platform
from .watch import caution, scrape_request_totals, watch

if TYPE_CHECKING:
    from ..registry import Version
    from ..serving.loaded_model import LoadedModel


def deploy(version: str | None = None, target: str | None = None) -> str:
    """Deploy a registered version, the newest if none is named.

    Args:
        version: As `registry.find` takes it; of VERSION@sha256:DIGEST no other package is deployed.
        target: As `open_target` takes it.

    Returns:
        What was done, in a sentence for a person.

    Raises:
        UsageError: It is not registered, the port is taken, or another deployment is running.
        RefusedError: It is worse than the champion in the shadow, or it failed after that: the
            previous model is champion and serves.
    """
    from .. import registry
    from ..config.delivery import load_delivery

    with exclusive_deployment(target) as (place, store, _):
        new = registry.find(version)
        champion = store.alias("champion")
        previous = place.desired_version()
        place.check(store.get(f"image-{new.version}"))
        is_champion = champion == new.version
        if place.is_serving(new.version, new.digest) and (is_champion or not place.promotes):
            return f"{new} is serving already"
        # A champion that does not serve yet was promoted by hand: restored is what serves.
        if place.promotes and not is_champion:
            previous = champion
        with (
            deployment_journal(new, previous, store, place) as deployment,
            ExitStack() as processes,
        ):
            deployment.enter("fetch")
            loaded = processes.enter_context(open_version(new))
            progress.report(new.version)
            _check_private_columns(loaded.model.data.columns.keys() | loaded.model.data.ignored)
            # One that was promoted by hand is judged beside what serves until now.
            rival = previous if is_champion else champion
            if not is_champion or rival not in (None, new.version):
                deployment.enter("shadow")
                deployment.shadow = {}
                opened = open_version(_rival(rival, champion)) if rival else nullcontext()
                with opened as loaded_rival:
                    shadow(loaded, loaded_rival, load_delivery(), deployment.shadow)
            if place.promotes and not is_champion:
                deployment.enter("promote")
                registry.promote(new.version)
                progress.report(f"{new} is champion")
            warning = _serve(loaded, place, deployment)
    if place.name == "local" and (platform := rehearsal_platform()):
        platform.notice(
            f"This was a rehearsal: {new} serves until the job ends. {OWN_MACHINE_HINT}"
        )
    outcome = "serves" if place.promotes else f"passed {place.name}"
    return _with_warning(f"{new} {outcome}: see {JOURNAL}", warning)


def rollback(back_to: str | None = None, target: str | None = None) -> str:
    """Return to the previous champion, or to an earlier one.

    Raises:
        UsageError: As `deploy`.
        RefusedError: There was none, or it fails the smoke test; everything is as it was.
    """
    from .. import registry

    with exclusive_deployment(target) as (place, store, _):
        last = store.alias("champion")
        new = registry.earlier_champion(back_to)
        place.check(store.get(f"image-{new}"))
        previous = last if place.promotes else place.desired_version()
        with (
            deployment_journal(new, previous, store, place) as deployment,
            ExitStack() as processes,
        ):
            deployment.enter("fetch")
            loaded = processes.enter_context(open_version(new))
            progress.report(new.version)
            if place.promotes:
                deployment.enter("promote")
                registry.rollback(new.reference)
                progress.report(f"{new} is champion again")
            warning = _serve(loaded, place, deployment)
    outcome = "serves again" if place.promotes else f"passed {place.name}"
    return _with_warning(f"{new} {outcome}, after {last}", warning)


def _serve(loaded: "LoadedModel", target: Target, deployment: Deployment) -> str | None:
    """Switch to a model, test and watch it; return what the watch could not find out."""
    from ..config.delivery import load_delivery

    deployment.enter("switch")
    progress.report(target.name)
    target.switch(loaded.model.version, loaded.model.manifest["package_digest"])
    deployment.enter("smoke")
    with target.serving_url() as url:
        smoke = smoke_test(loaded, url)
        progress.report(smoke["parity"])
        totals = scrape_request_totals(url)
        deployment.enter("watch")
        deployment.smoke = smoke
        deployment.watch = {}
        limits = load_delivery().watch
        watch(url, limits, totals, deployment.watch)
    return caution(deployment.watch, limits)


def _check_private_columns(columns: Collection[str]) -> None:
    """Check that `service.private` names columns: a misspelt one would be logged.

    Raises:
        UsageError: One is not a column of the model.
    """
    from ..config.delivery import DELIVERY, load_delivery

    unknown = sorted(set(load_delivery().service.private) - set(columns))
    if unknown:
        raise UsageError(f"{DELIVERY}, service.private: {unknown[0]} is not a column of this model")


def _rival(name: str, champion: str | None) -> "Version":
    """Return the version that another one is compared with: the champion, or what still serves.

    Raises:
        RefusedError: It is not what was verified (`registry.require_expected`), and it never was
            champion.
    """
    from .. import registry

    if name == champion:
        return registry.require_expected(registry.find_exact(name))
    if os.environ.get("ML_CHAMPION"):
        return registry.earlier_champion(name)
    return registry.find_exact(name)


def _with_warning(message: str, warning: str | None) -> str:
    return f"{message}\nWARNING: {warning}" if warning else message
