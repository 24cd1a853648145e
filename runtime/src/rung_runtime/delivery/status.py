"""Status: what serves. It is asked, started again after a kill, tested, and stopped."""

from contextlib import nullcontext

from .. import RefusedError, UsageError
from .journal import JOURNAL, Session, exclusive_deployment
from .service_folder import SERVICE, open_version, read_json
from .smoke import smoke_test
from .watch import caution


def status(target: str | None = None) -> str:
    """Start or repair what a killed process left, and return what serves, a fact in each line.

    Raises:
        UsageError: As `deploy`.
        RefusedError: It should serve, and does not answer.
    """
    with exclusive_deployment(target) as session:
        lines = [session.repaired] if session.repaired else []
        lines += _serving(session)
    return "\n".join(lines + _last_deployment())


def _serving(session: Session) -> list[str]:
    from ..http_client import http_json

    champion = session.store.alias("champion")
    if session.target.desired_version() is None:
        if champion:
            return [f"nothing is deployed: `ml deploy {champion}` has the champion serve"]
        return ["nothing is deployed, and there is no champion yet: `ml deploy` makes one"]
    with session.target.serving_url() as url:
        try:
            _, serving = http_json(f"{url}/version")
        except (OSError, ValueError) as error:
            raise RefusedError(f"{url} does not answer: {error}") from None
    if not isinstance(serving, dict) or not serving.keys() >= {"version", "since"}:
        raise RefusedError(f"{url} is not a prediction service: which program listens there?")
    lines = [f"{serving['version']} serves at {url} since {serving['since']}"]
    if champion != serving["version"]:
        lines.append(f"the champion is {champion}: `ml deploy {champion}` has it serve")
    return lines


def _last_deployment() -> list[str]:
    """Return what went wrong in the last deployment, and what its watch could not find out."""
    from ..config.delivery import load_delivery

    document = read_json(JOURNAL)
    verdict = document.get("verdict")
    if verdict in ("refused", "rolled_back"):
        return [f"the last deployment, of {document['version']}, failed: {document['reason']}"]
    if verdict == "deployed" and (warning := caution(document["watch"], load_delivery().watch)):
        return [f"WARNING about the last deployment, of {document['version']}: {warning}"]
    return []


def stop() -> str:
    """End the service of this machine, after the requests that it has."""
    from ..adapters.target_local import Local
    from ..registry import file_lock

    SERVICE.mkdir(exist_ok=True)
    with file_lock(SERVICE / "deployer.lock", 0.0):
        return "the service has ended" if Local().stop() else "no service was running"


def smoke(url: str | None = None, version: str | None = None) -> str:
    """Check whether a service, the local one if none is named, answers as a version does.

    Args:
        version: As `registry.find` takes it; None: the champion.

    Returns:
        What was compared, in words.

    Raises:
        RefusedError: It does not.
    """
    from .. import registry

    with exclusive_deployment(None) as session:
        if version is None:
            champion = registry.current_champion()
            if champion is None:
                raise UsageError("there is no champion yet: `ml deploy` makes one")
            wanted = registry.require_expected(champion)
        else:
            wanted = registry.find(version)
        address = nullcontext(url) if url else session.target.serving_url()
        with open_version(wanted) as loaded, address as service:
            return smoke_test(loaded, service)["parity"]
