"""Registry: versions of a model that never change, and the one of them that is the champion.

Where it is kept is an adapter's: `oci.py` or `mlflow.py`, of which a project has one.
"""

import getpass
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

from filelock import FileLock, Timeout

from .. import BadInput, Refused, forge
from ..documents import ARTIFACTS, DOCUMENTS, PACKAGE, digest, now, read, replacing
from ..settings import Delivery, delivery

ADAPTER = next(n for n in ("oci", "mlflow") if (Path(__file__).parent / f"{n}.py").exists())
CHAMPION, HISTORY, LOCK = "champion", "history", "lock"
POINTER = ARTIFACTS / "champion.json"  # who it was when the pipeline last looked
# Seconds. Whoever holds a lease starts no write after WRITES of it, as a write with all its
# retries ends before the rest is over. D: the longest a write to the lock may take.
D, LEASE, WRITES, PATIENCE = 2.0, 60.0, 15.0, 90.0
Still = Callable[[], None]


class Conflict(Refused):
    """Somebody else was first."""


@dataclass(frozen=True)
class Version:
    """A package as the registry knows it."""

    version: str
    digest: str  # of the package
    model_digest: str
    created: str
    facts: dict[str, str]

    def __post_init__(self) -> None:
        # It becomes a folder's name, and whoever can write to the registry has chosen it.
        if not re.fullmatch(r"\w[\w.-]{0,127}", self.version, re.ASCII):
            raise BadInput(f"the registry is damaged: {self.version!r} is no name of a version")

    def __str__(self) -> str:
        return self.version


class Registry(Protocol):
    """What an adapter does. All of it raises BadInput if the registry fails or is damaged."""

    def push(self, folder: Path, manifest: dict[str, Any], facts: dict[str, str]) -> None:
        """Keep a package; of one that is there nothing changes."""

    def versions(self) -> list[Version]:
        """All of them, oldest first."""

    def fetch(self, version: str, to: Path) -> Path:
        """Bring a package into the folder `to`, found whole, or leave nothing there."""

    def get(self, note: str) -> str | None:
        """A small text that all who use the registry share."""

    def set(self, note: str, text: str) -> None:
        """Replace that text in one step."""

    def alias(self, name: str) -> str | None:
        """The version that an alias points at."""

    def point(self, name: str, version: str) -> None:
        """Move an alias in one step."""

    def lock(self) -> AbstractContextManager[Still]:
        """Keep others out. Call what it yields before a write: it raises once time is up."""


def opened() -> Registry:
    """The registry of `config/delivery.yaml`.

    ML_REGISTRY goes before it. On a runner, where a folder would end with the job, the platform's
    own container registry takes the place of the folder that is the default.
    """
    where, said = delivery().registry, os.environ.get("ML_REGISTRY")
    if ADAPTER == "oci" and where == Delivery().registry and (at := forge.here()):
        where = f"oci://{at.place()}/models"
    found: Registry = import_module(f".{ADAPTER}", __name__).opened(said or where)
    return found


def register() -> Version:
    """Put the package that passed into the registry, unless it is the champion's own.

    Raises:
        BadInput: A document or a file of the package is missing or damaged.
        Refused: The gate did not pass it, or passed another one.
    """
    from ..inference import verified

    gate, package, metrics = read("gate"), read("package"), read("evaluate")
    if gate["verdict"] != "passed":
        raise Refused("the gate has not passed this model: see artifacts/gate.json")
    manifest, compared, name = verified(PACKAGE), gate["comparison"], metrics["metric"]
    own = manifest["package_digest"], manifest["model_digest"], manifest["files"].get("gate.json")
    if own != (package["package_digest"], gate["model_digest"], digest(DOCUMENTS["gate"])):
        raise Refused(f"{PACKAGE}/ is not the package that the gate passed: run `ml run` again")
    if compared is None:
        raise Refused("artifacts/gate.json is from level 0, without a champion: run `ml run` again")
    if compared["kind"] == "same" and (now := champion()):
        # The champion, trained again: what differs is when. A version of its own would be
        # deployed, compared with and monitored anew, each time that the pipeline runs.
        there = opened().fetch(now.version, ARTIFACTS / CHAMPION / now.version)
        if _served(verified(there)) == _served(manifest):
            return now
    rival = compared["champion"]
    facts = {
        "commit": gate["commit"] or "none",
        "data_digest": gate["data_digest"],
        "task": metrics["task"],
        "verdict": gate["verdict"],
        "comparison": compared["kind"],
        "compared_with": rival["package_digest"] if rival else "first",
        "metric": name,
        **{end: f"{metrics['metrics'][name][end]:.6g}" for end in ("value", "low", "high")},
    }
    opened().push(PACKAGE, manifest, facts)
    return find(manifest["version"])


def _served(manifest: dict[str, Any]) -> dict[str, str]:
    """The files of a package that what it answers depends on, and what it is monitored by."""
    about = {"gate.json", "metrics.json", "lineage.json", "MODEL_CARD.md"}
    return {name: of for name, of in manifest["files"].items() if name not in about}


def find(part: str | None = None) -> Version:
    """A version by a part of its name that only it has, or `champion`; without, the newest.

    Raises:
        BadInput: There is none, or more than one.
    """
    known = opened().versions()
    if part == CHAMPION and (now := champion()):
        return now
    found = [v for v in known if part in v.version] if part else known[-1:]
    if len(found) == 1:
        return found[0]
    if not known:
        raise BadInput("the registry holds no version yet: `ml register` puts one there")
    raise BadInput(f"{part} is a part of {len(found)} versions: `ml models` lists them")


def champion() -> Version | None:
    """The version that is to serve; None before the first promotion.

    Raises:
        BadInput: It is no longer there, which is not the same as none.
    """
    registry = opened()
    if (name := registry.alias(CHAMPION)) is None:
        return None
    if found := [version for version in registry.versions() if version.version == name]:
        return found[0]
    raise BadInput(f"the champion {name} is gone from the registry: bring it back from a backup")


def named(version: Version | None) -> dict[str, str] | None:
    """A version as documents name it."""
    if version is None:
        return None
    digests = {"package_digest": version.digest, "model_digest": version.model_digest}
    return {"version": version.version, **digests}


def look() -> Version | None:
    """The champion, and its name in a file that changes only with it."""
    found = champion()
    text = json.dumps(named(found), indent=2)
    if not POINTER.exists() or POINTER.read_text("utf-8") != text:
        with replacing(POINTER) as new:
            new.write_text(text, "utf-8")
    return found


def promote(part: str | None = None) -> Version:
    """Make a version, the newest if none is named, the champion.

    Raises:
        BadInput: There is no such version.
        Refused: It was compared with another champion than the present one.
        Conflict: Somebody promoted another one meanwhile.
    """
    registry, new = opened(), find(part)
    before = champion()
    with registry.lock() as still:
        at, entries = registry.alias(CHAMPION), history(registry)
        if at == new.version:
            return new
        if at != (before and before.version):
            who = f" by {entries[-1]['by']} at {entries[-1]['at']}" if entries else ""
            raise Conflict(f"{at} became the champion meanwhile{who}: run `ml run` to challenge it")
        if new.facts["compared_with"] != (before.digest if before else "first"):
            if new.version in [entry["version"] for entry in entries]:
                raise Refused(f"{new} was champion before: `ml rollback --to {new}` returns to it")
            raise Refused(f"{new} was compared with another champion than {at}: run `ml run` again")
        who = f"{getpass.getuser()}@{platform.node()}"
        entry = {"version": new.version, "at": now(), "by": who, "commit": new.facts["commit"]}
        still()
        registry.set(HISTORY, json.dumps([*entries[-199:], entry]))
        still()
        registry.point(CHAMPION, new.version)
    return new


def rollback(to: str | None = None) -> tuple[str, str]:
    """Return to the champion before, or to an earlier one.

    Returns:
        The version that was the champion, and the one that now is.

    Raises:
        Refused: There was none before, or not that one.
    """
    registry = opened()
    with registry.lock() as still:
        *before, last = [entry["version"] for entry in history(registry)] or [""]
        found = [name for name in before if to is None or to in name]
        if not found:
            raise Refused(f"the registry knows no champion {to or ''} before {last or 'this'}")
        still()
        registry.point(CHAMPION, found[-1])
    return last, found[-1]


def history(registry: Registry) -> list[dict[str, str]]:
    """Who became the champion, when, and by whom: the last entry is of the present one.

    An entry is written before the alias moves. What comes after the champion's never came true, or
    was taken back.
    """
    entries: list[dict[str, str]] = json.loads(registry.get(HISTORY) or "[]")
    at = registry.alias(CHAMPION)
    while entries and entries[-1]["version"] != at:
        entries.pop()
    return entries


def show() -> None:
    """Print a line for each version: whether it is the champion, metric, interval, lineage."""
    import typer

    registry = opened()
    at = registry.alias(CHAMPION)
    for found in registry.versions():
        mark, data = CHAMPION * (found.version == at), found.facts["data_digest"][7:15]
        said = "{metric} {value} ({low} to {high})  commit {commit:.8}".format(**found.facts)
        typer.echo(f"{found.version}  {mark:{len(CHAMPION)}}  {said}  data {data}")


@contextmanager
def arriving(to: Path, version: Version) -> Iterator[Path]:
    """Yield a folder to bring a package into; it then takes its place if it is whole.

    Raises:
        BadInput: It is damaged, or another one, or has files besides those of its manifest.
    """
    from ..inference import MANIFEST, verified

    to.parent.mkdir(parents=True, exist_ok=True)
    for left in to.parent.glob(f".{to.name}.*"):  # by one that was killed
        if left.stat().st_mtime < time.time() - 3_600:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        new = folder / "new"
        new.mkdir()
        yield new
        try:
            found = verified(new)
            there = {p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file()}
            whole = found["package_digest"] == version.digest
            whole = whole and there == {*found["files"], MANIFEST}
        except BadInput:
            whole = False
        if not whole:
            raise BadInput(f"{version} in the registry is damaged: it is not what was registered")
        if to.exists():
            to.rename(folder / "old")
        new.rename(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_lock(path: Path, seconds: float = 30.0) -> Iterator[Still]:
    """A lock between processes of a machine, which ends with the process.

    Raises:
        BadInput: Another process keeps it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=seconds):
            yield lambda: None
    except Timeout:
        raise BadInput(f"{path} is held by another command: wait for it to end") from None


@contextmanager
def lease(registry: Registry) -> Iterator[Still]:
    """A lock between machines, in a registry that only reads and writes.

    After Fischer's algorithm: L. Lamport, "A fast mutual exclusion algorithm", ACM Transactions on
    Computer Systems 5 (1), 1987, section 2. A note that stays the same for LEASE seconds, by the
    reader's own clock, is of one who died; so no two clocks are compared.

    Raises:
        BadInput: It was not to be had.
    """
    own, start = uuid.uuid4().hex, time.monotonic()
    seen, since = "", start
    while time.monotonic() < start + PATIENCE:
        read_at = time.monotonic()
        held = registry.get(LOCK) or ""
        if held != seen:
            seen, since = held, read_at
        if held and read_at < since + LEASE:
            time.sleep(D / 4)
            continue
        registry.set(LOCK, own)
        entered = time.monotonic()
        if entered - read_at > D:
            continue  # too late to be sure: the note now looks held, which harms nobody
        time.sleep(D)
        if registry.get(LOCK) == own:
            break
    else:
        raise BadInput("another command holds the registry, or it is too slow: try again later")

    def still() -> None:
        if time.monotonic() > entered + WRITES:
            raise BadInput("the registry is too slow to change safely: try again later")

    try:
        yield still
    finally:
        if time.monotonic() < entered + WRITES:
            with suppress(BadInput):  # it ends by itself
                registry.set(LOCK, "")
