"""Deploy: a registered version → it serves, or all is as it was; `artifacts/deployment.json`.

fetch → shadow → promote → switch → smoke → watch. The document is written as each stage begins, so
that the next command knows how far one came that was killed, and finishes or undoes it: `_repair`.
What is always restored is one thing: the alias `champion` names the version that serves.
"""

import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import BadInput, Refused, forge

if TYPE_CHECKING:
    import polars as pl

    from ..forge import Forge
    from ..inference import Model
    from ..registry import Registry, Version
    from ..serving.batch import Served
    from ..settings import Delivery, Watch

JOURNAL, STATE = Path("artifacts/deployment.json"), Path("service")
MODELS = STATE / "models"
CLUSTER = Path(__file__).parent / "kubernetes.py"  # is there if the project deploys to one
LASTING = "Set the variables ML_HOME and ML_RUNNER to have it serve on a machine of your own."
FACTS = ("version", "package_digest", "previous", "target", "stage", "verdict", "reason")
FIELDS = (*FACTS, "shadow", "smoke", "watch")  # what deployment.json says, besides the envelope
KEPT = 3  # fetched packages
ENOUGH = 50  # rows, for a shift of their predictions to mean something
REPEATS = 3  # of a replayed request; the fastest counts, as a busy machine only slows down
Stage = Callable[[str], dict[str, Any]]


class Target(Protocol):
    """Where a model serves. It is named by its version and its package digest."""

    name: str
    promotes: bool  # what is deployed there becomes champion

    def check(self, image: str | None) -> None:
        """See that it can be deployed to; BadInput says why not.

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
        """Have it served, and return once it is. Refused says what came between."""

    def undo(self, version: str | None, digest: str | None) -> None:
        """Have the version before served again, or none."""

    def opened(self) -> AbstractContextManager[str]:
        """Yield the address of the service."""


def deploy(version: str | None = None, target: str | None = None) -> str:
    """Deploy a registered version, the newest if none is named.

    Args:
        target: `local`, `local/staging` or `kubernetes/OVERLAY`; `staging` or `production`, those
            of Kubernetes if the project has it, else the local ones.

    Raises:
        BadInput: It is not registered, the port is taken, or another deployment is running.
        Refused: It is worse than the champion in the shadow, or it failed after that: the model
            before is champion and serves.
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
            model = _fetched(store, new.version)
            _private_is_known(model.model.data.columns.keys() | model.model.data.left_out)
            # One that was promoted by hand is judged beside what serves until now.
            rival = champion if champion != new.version else before
            if champion != new.version or rival not in (None, new.version):
                said: dict[str, Any] = {}
                at("shadow")["shadow"] = said
                old = _fetched(store, rival) if rival else None
                shadow(model, old, settings.delivery(), said)
            if to.promotes and champion != new.version:
                at("promote")
                registry.promote(new.version)
            _serve(model, to, at)
    if to.name == "local" and (runner := rehearsal()):
        runner.notice(f"This was a rehearsal: {new} serves until the job ends. {LASTING}")
    done = "serves" if to.promotes else f"passed {to.name}"
    return f"{new} {done}: see {JOURNAL}"


def rollback(back_to: str | None = None, target: str | None = None) -> str:
    """Return to the champion before, or to an earlier one.

    Raises:
        BadInput: As `deploy`.
        Refused: There was none, or it fails the smoke test; all is as it was.
    """
    from .. import registry

    with _alone(target) as (to, store, _):
        last, *before = [e["version"] for e in reversed(registry.history(store))] or [""]
        new = next((name for name in before if back_to is None or back_to in name), None)
        if new is None:
            raise Refused(f"no champion before {last or 'the first'} is {back_to or 'known'}")
        to.check(store.get(f"image-{new}"))
        with _journal(registry.find(new), last if to.promotes else to.asked(), store, to) as at:
            at("fetch")
            model = _fetched(store, new)
            if to.promotes:
                at("promote")
                registry.rollback(new)
            _serve(model, to, at)
    return f"{new} {'serves again' if to.promotes else f'passed {to.name}'}, after {last}"


def status(target: str | None = None) -> str:
    """Start or repair what a killed process left, and say what serves."""
    with _alone(target) as (to, store, repaired):
        champion, lines = store.alias("champion"), [repaired] if repaired else []
        if to.asked() is None:
            lines += [f"nothing is deployed; the champion is {champion or 'none yet'}"]
        else:
            with to.opened() as url:
                try:
                    found = ask(f"{url}/version")[1]
                except OSError as error:
                    raise Refused(f"{url} does not answer: {error}") from None
            lines += [f"{found['version']} serves at {url} since {found['since']}"]
            if champion != found["version"]:
                lines += [f"the champion is {champion}: `ml deploy {champion}` brings it there"]
    said = read(JOURNAL)
    if said.get("verdict") in ("refused", "rolled_back"):
        lines += [f"the last deployment, of {said['version']}, failed: {said['reason']}"]
    return "\n".join(lines)


def stop() -> str:
    """End the service of this machine, after the requests that it has."""
    from ..registry import file_lock
    from .local import Local

    STATE.mkdir(exist_ok=True)
    with file_lock(STATE / "deployer.lock", 0.0):
        return "the service has ended" if Local().stop() else "no service was running"


def smoke(url: str | None = None) -> str:
    """Ask a service, the local one if none is named, whether it answers as the champion does.

    Raises:
        Refused: It does not.
    """
    with _alone(None) as (to, store, _):
        if (version := store.alias("champion")) is None:
            raise BadInput("there is no champion yet: `ml deploy` makes one")
        served = _fetched(store, version)
        with nullcontext(url) if url else to.opened() as at:
            return str(smoke_test(served, at)["parity"])


@contextmanager
def _alone(name: str | None) -> "Iterator[tuple[Target, Registry, str | None]]":
    """Keep other deployers out, and repair what one left that was killed."""
    from .. import registry

    target = _target(name or "local")
    STATE.mkdir(exist_ok=True)
    with registry.file_lock(STATE / "deployer.lock", 0.0):
        store = registry.opened()
        came = _repair(store, target)
        target.ensure()
        yield target, store, came


def _target(name: str) -> Target:
    if name in ("staging", "production"):
        local = {"staging": "local/staging", "production": "local"}
        name = f"kubernetes/{name}" if CLUSTER.exists() else local[name]
    kind, _, overlay = name.partition("/")
    if name == "local":
        from .local import Local

        return Local()
    if name == "local/staging":
        from .staging import Staging

        return Staging()
    if kind == "kubernetes" and CLUSTER.exists():
        there: Target = import_module(".kubernetes", __name__).Kubernetes(overlay or "production")
        return there
    raise BadInput(f"target {name}: this project has none of that name")


def rehearsal() -> "Forge | None":
    """The platform, if this is a runner of it from which nothing that serves will stay."""
    at = forge.here()
    stays = CLUSTER.exists() or (at and at.workspace.resolve() != Path.cwd().resolve())
    return None if stays else at


def _repair(store: "Registry", target: Target) -> str | None:
    """Finish the deployment of one that was killed, if what it deployed serves; else undo it."""
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
            raise Refused("it did not serve yet")
        target.switch(version, said["package_digest"])
        with target.opened() as url:
            said["smoke"] = smoke_test(_fetched(store, version), url)
        came = "finished"
    except Refused as error:
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
            known = {found.version: found.digest for found in store.versions()}
            target.undo(previous, known.get(previous))
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
    from ..documents import digest, now
    from ..settings import DELIVERY

    said = dict.fromkeys(FIELDS) | {"version": new.version, "package_digest": new.digest}
    said |= {"previous": before, "target": target.name}
    said |= {"started": now(), "data_digest": new.facts["data_digest"]}
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
        if early or not isinstance(error, BadInput | Refused):
            raise
        back = f"{said['previous']} serves" if said["previous"] else "no model was before it"
        raise Refused(f"{new} was taken back, {back}: {error}") from None
    _write(said, stage="done", verdict="deployed")


def _write(said: dict[str, Any], **changes: Any) -> None:
    from ..documents import write

    said |= changes
    kept = {name: said[name] for name in FIELDS}
    write("deploy", kept, said["started"], said["data_digest"], said["inputs"])


def _private_is_known(columns: Collection[str]) -> None:
    """See that `service.private` names columns: a misspelt one would be logged."""
    from ..settings import DELIVERY, delivery

    if odd := set(delivery().service.private) - set(columns):
        raise BadInput(f"{DELIVERY}, service.private: {sorted(odd)[0]} is no column of this model")


def _fetched(store: "Registry", version: str) -> "Served":
    from ..inference import verified
    from ..serving.batch import load

    folder = MODELS / version
    try:
        verified(folder)
    except BadInput:  # it is not there yet, or damaged
        store.fetch(version, folder)
    os.utime(folder)  # the last ones used are kept
    return load(folder)


def _serve(served: "Served", target: Target, at: Stage) -> None:
    from ..settings import delivery

    at("switch")
    target.switch(served.model.version, served.model.manifest["package_digest"])
    at("smoke")
    with target.opened() as url:
        smoked, watched, before = smoke_test(served, url), dict[str, Any](), _counted(url)
        at("watch").update(smoke=smoked, watch=watched)
        watch(url, delivery().watch, before, watched)


def shadow(new: "Served", old: "Served | None", wanted: "Delivery", said: dict[str, Any]) -> None:
    """Let a candidate and the champion answer the last requests of the log, in this process.

    A request that the champion cannot answer says nothing of the candidate, and is not counted.

    Args:
        said: Gets the numbers: `requests`, `errors` (of the candidate), `error_share`, `p95_ms` and
            `champion_p95_ms` of a request, `latency_ratio`, `rows`, and `shift`: the
            Kolmogorov-Smirnov distance between the probabilities or values that the two give, or
            the total variation distance between the shares of their classes. And `note`, of what
            was done otherwise.

    Raises:
        Refused: A number is beyond `config/delivery.yaml`.
    """
    import numpy as np

    if old is None:
        said["note"] = "the first model has no champion beside it"
        return
    times, answers, errors, beyond, limit = [], [], 0, [], wanted.shadow
    for rows in _requests(old, new, wanted, said):
        tries = [(_answer(new.model, rows), _answer(old.model, rows)) for _ in range(REPEATS)]
        (_, mine), (_, theirs) = tries[0]
        if mine is not None and theirs is not None:
            times.append(np.min([[one[0], two[0]] for one, two in tries], axis=0))
            answers.append((mine, theirs))
        errors += mine is None and theirs is not None
    counted = errors + len(answers)
    said |= {"requests": counted, "errors": errors, "error_share": errors / max(counted, 1)}
    if said["error_share"] > limit.max_error_share:
        beyond += [f"{errors} of {counted} requests fail, that the champion answers"]
    if answers:
        p95, champion = np.percentile(times, 95, axis=0).tolist()
        said |= {"p95_ms": p95 * 1e3, "champion_p95_ms": champion * 1e3}
        said |= {"latency_ratio": p95 / champion, "rows": sum(len(mine) for mine, _ in answers)}
        said["shift"] = _shift(new.model, old.model, answers)
        if said["latency_ratio"] > limit.latency_ratio:
            beyond += [f"it takes {p95 / champion:.1f} times as long as the champion"]
        if said["shift"] > limit.max_shift and said["rows"] >= ENOUGH:
            beyond += [f"its predictions are {said['shift']:.2f} away from the champion's"]
    if beyond:
        said["note"] = "; ".join(filter(None, [said.get("note"), *beyond]))
        raise Refused(f"refused in the shadow by config/delivery.yaml: {'; '.join(beyond)}")


def _requests(
    old: "Served", new: "Served", wanted: "Delivery", said: dict[str, Any]
) -> "list[pl.DataFrame]":
    """The last requests of the log; the champion's commonest row if there are none."""
    import polars as pl

    from ..serving.batch import frame
    from ..serving.log import read

    now, n = datetime.now(UTC).replace(tzinfo=None), wanted.shadow.requests
    rows = pl.DataFrame({"request_id": []})
    for since in (timedelta(hours=1), timedelta(days=1), timedelta(days=366)):
        if wanted.service.log and rows["request_id"].n_unique() < n:
            rows = read(wanted.service.log, now - since).sort("time").collect()
    last = rows["request_id"].unique(maintain_order=True).tail(n)
    if last.is_empty():
        said["note"] = "no request is logged: the champion's commonest row was asked instead"
        return [frame([old.example], old.model.asked)]
    parts = rows.filter(pl.col("request_id").is_in(last.implode())).partition_by("request_id")
    common = new.example
    absent = [name for name in wanted.service.private if name in common]
    if absent:
        said["note"] = f"private, so asked with a common value: {', '.join(absent)}"
    fill = [pl.lit(common[name]).alias(name) for name in absent]
    return [
        pl.DataFrame({n[2:]: part[n] for n in part.columns if n[:2] == "x:"}).with_columns(fill)
        for part in parts
    ]


def _answer(model: "Model", rows: "pl.DataFrame") -> tuple[float, Any]:
    """How long a model takes for a request, in seconds, and what it answers; None if it cannot."""
    began, found = time.perf_counter(), None
    try:
        typed = model.read(rows)
        found = None if model.failures(typed) else model.predict(typed)
    except Exception:  # of problem/, which is the user's: callers would see an error
        found = None
    return time.perf_counter() - began, found


def _shift(new: "Model", old: "Model", answers: list[tuple[Any, Any]]) -> float:
    """How far apart the predictions of two models for the same rows are, from 0 to 1."""
    import numpy as np
    from scipy.stats import ks_2samp

    found = [np.concatenate(of) for of in zip(*answers, strict=True)]
    if new.data.task != "multiclass":
        return float(ks_2samp(*(f if f.ndim == 1 else f[:, -1] for f in found)).statistic)
    named = [
        np.array(model.data.classes)[of.argmax(axis=1)]
        for model, of in zip((new, old), found, strict=True)
    ]
    classes = np.unique(np.concatenate(named))
    return float(sum(abs(np.subtract(*((of == c).mean() for of in named))) for c in classes)) / 2


def smoke_test(served: "Served", url: str) -> dict[str, Any]:
    """See that what answers is a package, and answers its commonest row as it does.

    Raises:
        Refused: It is not ready, is another model, or answers something else.
    """
    from ..serving import parity
    from ..serving.batch import frame

    model = served.model
    rows = frame([served.example], model.asked)
    try:
        ready, found = ask(f"{url}/readyz")[0], ask(f"{url}/version")[1]
        if ready != 200:
            raise Refused(f"{url}/readyz answers {ready}")
        if found["package_digest"] != model.manifest["package_digest"]:
            raise Refused(f"{url} serves {found['version']}, not {model.version}")
        said = "the commonest values are no row: they break a rule together"
        if not model.failures(model.read(rows)):
            said = parity(url, rows, model)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(f"{url} does not answer as it should: {error!r}") from None
    return {"url": url, "package_digest": found["package_digest"], "parity": said}


def watch(url: str, limits: "Watch", before: list[float], said: dict[str, Any]) -> None:
    """Look at a service's own numbers for the configured time.

    Args:
        before: What `_counted` gave when the watch was said to begin.
        said: Gets `seconds`, and of the requests meanwhile their number, `requests`, `errors`
            (5xx), `error_share`, and `mean_ms`.

    Raises:
        Refused: It fails or is too slow, or does not answer.
    """
    began = time.monotonic()
    while time.monotonic() < began + limits.seconds:
        time.sleep(min(1.0, limits.seconds))
        now = _counted(url)
        if now[0] < before[0]:  # it was killed, and counts from zero
            before = [0.0, 0.0, 0.0]
        requests, errors, seconds = (b - a for a, b in zip(before, now, strict=True))
        said |= {"seconds": time.monotonic() - began, "requests": requests, "errors": errors}
        said |= {
            "error_share": errors / max(requests, 1),
            "mean_ms": 1e3 * seconds / max(requests, 1),
        }
        if said["error_share"] > limits.max_error_share:
            raise Refused(f"{errors:.0f} of {requests:.0f} requests failed since the switch")
        if said["mean_ms"] > limits.max_latency_ms:
            raise Refused(f"requests take {said['mean_ms']:.0f} ms since the switch")


def _counted(url: str) -> list[float]:
    """Requests, those that ended with 5xx, and the seconds they took, since the service started."""
    from prometheus_client.parser import text_string_to_metric_families as parsed

    try:
        text = ask(f"{url}/metrics")[1]
    except OSError as error:
        raise Refused(f"{url} does not answer: {error}") from None
    total = [0.0, 0.0, 0.0]
    for one in (sample for family in parsed(text) for sample in family.samples):
        asked, failed = one.name == "ml_requests_total", one.name == "ml_model_errors_total"
        total[0] += one.value * asked
        # What the model cannot answer is answered with 422: its caller may do without.
        total[1] += one.value * (failed or (asked and one.labels["status"] >= "500"))
        total[2] += one.value * (one.name == "ml_request_seconds_sum")
    return total


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    """GET, or POST JSON: the status and what was answered, read if it is JSON.

    A connection that breaks is tried again: a service that was killed is back in seconds.

    Raises:
        OSError: There was no answer.
    """
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for wait in (0.5, 0.5, 0.0):
        try:
            try:
                answer = direct.open(asked, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:  # it may break off at any byte
            if not wait:
                raise OSError(str(error) or repr(error)) from None
            time.sleep(wait)
            continue
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if "json" in kind else text
    raise AssertionError


def read(path: Path) -> dict[str, Any]:
    """A small JSON file, or {} if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
