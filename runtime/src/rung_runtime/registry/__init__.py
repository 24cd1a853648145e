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
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Protocol

from filelock import FileLock, Timeout

from .. import RefusedError, UsageError, adapters, ci_platform, project
from ..artifacts import ARTIFACTS, DOCUMENTS, PACKAGE, atomic_write, digest, now, read_fields
from ..escaping import visible
from ..settings import Delivery, delivery

CHAMPION, HISTORY, LOCK = "champion", "history", "lock"
PREVIOUS = "previous"  # as the name of a version: the champion before
NEWEST = 20  # versions that a command reads, where each costs a request
POINTER = ARTIFACTS / "champion.json"  # who it was when the pipeline last looked
REFERENCE = re.compile(r"(?P<version>\w[\w.-]{0,127})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Seconds. Whoever holds a lease starts no write after WRITES of it, as a write with all its
# retries ends before the rest is over. D: the longest a write to the lock may take.
D, LEASE, WRITES, PATIENCE = 2.0, 60.0, 15.0, 90.0
Still = Callable[[], None]


class Conflict(RefusedError):
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
            raise UsageError(f"the registry is damaged: {self.version!r} is no name of a version")
        # Jobs hand these on to each other, as lines of a file and as words of a shell.
        for text in (self.digest, self.model_digest):
            if not DIGEST.fullmatch(text):
                said = f"{self.version} has {text[:100]!r} for a digest"
                raise UsageError(f"the registry is damaged: {said}")

    def __str__(self) -> str:
        return self.version

    @property
    def reference(self) -> str:
        """VERSION@DIGEST: what a job hands on to the next, so that both mean the same package."""
        return f"{self.version}@{self.digest}"

    @property
    def data_digest(self) -> str:
        """The digest of the data that it was made of.

        Raises:
            UsageError: The registry does not say it.
        """
        if found := self.facts.get("data_digest"):
            return found
        raise UsageError(
            f"the registry is damaged: {self.version} does not say of which data it is"
        )

    @property
    def made(self) -> datetime:
        """When it was made, in UTC.

        Raises:
            UsageError: The registry does not say it.
        """
        try:
            return datetime.fromisoformat(self.created).astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(
                f"the registry is damaged: {self.version} was made at {self.created[:100]!r}"
            ) from None


class Registry(Protocol):
    """What an adapter does. All of it raises UsageError if the registry fails or is damaged."""

    def push(self, folder: Path, manifest: dict[str, Any], facts: dict[str, str]) -> None:
        """Keep a package; of one that is there nothing changes."""

    def names(self) -> list[str]:
        """The names of all versions, oldest first, and perhaps of what is none."""

    def version(self, name: str) -> Version | None:
        """The version of a name; None without, and for what somebody else keeps there."""

    def versions(self, newest: int | None = None) -> list[Version]:
        """All of them, or so many, oldest first; more where they cost no request each."""

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
    where = os.environ.get("ML_REGISTRY") or delivery().registry
    is_default = where == Delivery().registry and not os.environ.get("ML_REGISTRY")
    adapter = project.current().registry
    if adapter == "oci" and is_default and (platform_here := ci_platform.here()):
        where = f"oci://{platform_here.place()}/models"
    registry: Registry = adapters.load("registry", adapter).opened(where)
    return registry


def register() -> Version:
    """Put the package that passed into the registry, unless it is the champion's own.

    Raises:
        UsageError: A document or a file of the package is missing or damaged.
        RefusedError: The gate did not pass it, or passed another one; or this is a runner, and it
            was not made of what is committed.
    """
    from ..model_package import verified
    from . import checkout

    gate, package, metrics = read_fields("gate"), read_fields("package"), read_fields("evaluate")
    if gate["verdict"] != "passed":
        raise RefusedError("the gate has not passed this model: see artifacts/gate.json")
    manifest, compared, name = verified(PACKAGE), gate["comparison"], metrics["metric"]
    own = manifest["package_digest"], manifest["model_digest"], manifest["files"].get("gate.json")
    if own != (package["package_digest"], gate["model_digest"], digest(DOCUMENTS["gate"])):
        raise RefusedError(
            f"{PACKAGE}/ is not the package that the gate passed: run `ml run` again"
        )
    if compared is None:
        raise RefusedError(
            "artifacts/gate.json is from level 0, without a champion: run `ml run` again"
        )
    if checkout.on_a_runner():
        checkout.require_clean(manifest)
    if compared["kind"] == "same" and (now := champion()):
        # The champion, trained again: what differs is when. A version of its own would be
        # deployed, compared with and monitored anew, each time that the pipeline runs.
        there = fetched(now, ARTIFACTS / CHAMPION / now.version)
        if _served(verified(there)) == _served(manifest):
            return now
    rival = compared["champion"]
    facts = {
        "commit": gate["commit"] or "none",
        "committed": checkout.committed(gate["commit"] or "none"),
        "data_digest": gate["data_digest"],
        "task": metrics["task"],
        "verdict": gate["verdict"],
        "comparison": compared["kind"],
        "compared_with": rival["package_digest"] if rival else "first",
        "metric": name,
        **{end: f"{metrics['metrics'][name][end]:.6g}" for end in ("value", "low", "high")},
    }
    opened().push(PACKAGE, manifest, facts)
    return find(f"{manifest['version']}@{manifest['package_digest']}")


def _served(manifest: dict[str, Any]) -> dict[str, str]:
    """The files of a package that what it answers depends on, and what it is monitored by."""
    about = {"gate.json", "metrics.json", "lineage.json", "MODEL_CARD.md"}
    return {name: of for name, of in manifest["files"].items() if name not in about}


def find(part: str | None = None) -> Version:
    """A version by what a person or a job calls it; without a name, the newest.

    Args:
        part: A part of its name that only it has, `champion`, `previous` (the champion before), or
            a reference, VERSION@sha256:DIGEST.

    Raises:
        UsageError: There is none, or more than one, or it is no reference.
        RefusedError: The registry has another package than a reference names.
    """
    if part and "@" in part:
        return _referenced(part)
    if part == PREVIOUS:
        return champion_before()
    if part == CHAMPION and (now := champion()):
        return now
    registry = opened()
    names = registry.names()
    if not names:
        raise UsageError("the registry holds no version yet: `ml register` puts one there")
    if part is None:
        # What somebody else keeps there is no version: go back to one.
        for name in names[: -NEWEST - 1 : -1]:
            if newest := registry.version(name):
                return newest
        raise UsageError("the registry holds no version yet: `ml register` puts one there")
    alike = [part] if part in names else [name for name in names if part in name]
    if len(alike) <= NEWEST:
        known = [version for name in alike if (version := registry.version(name))]
        if len(known) == 1:
            return known[0]
        alike = [version.version for version in known]
    raise UsageError(f"{part} is a part of {len(alike)} versions: `ml models` lists them")


def named_exactly(name: str) -> Version:
    """A version by its whole name.

    Raises:
        UsageError: There is none.
    """
    if version := opened().version(name):
        return version
    raise UsageError(f"the registry has no version {name}: `ml models` lists them")


def _referenced(reference: str) -> Version:
    name, digest = _parts(reference)
    found = named_exactly(name)
    if found.digest != digest:
        raise RefusedError(
            f"{found} is in the registry as {found.digest}, and {digest} was asked for: it is"
            " another package than the one that was resolved or verified"
        )
    return found


def _parts(reference: str) -> tuple[str, str]:
    parts = REFERENCE.fullmatch(reference)
    if parts is None:
        raise UsageError(
            f"{reference} is no VERSION@sha256:DIGEST: `ml resolve VERSION` prints one"
        )
    return parts["version"], parts["digest"]


def require_expected(version: Version) -> Version:
    """Return a champion whose code is about to be imported, if it is the one that was verified.

    Args:
        version: The champion as the registry has it now.

    Raises:
        UsageError: ML_CHAMPION is no reference.
        RefusedError: ML_CHAMPION is set, and names another one.
    """
    expected = os.environ.get("ML_CHAMPION", "")
    if expected and not REFERENCE.fullmatch(expected):
        raise UsageError(f"ML_CHAMPION: {expected} is no VERSION@sha256:DIGEST: see `ml resolve`")
    if expected not in ("", version.reference):
        raise RefusedError(
            f"the champion is {version.reference}, and ML_CHAMPION names {expected}, which was"
            " verified: if another one became the champion meanwhile, start the pipeline again"
        )
    return version


def fetched(version: Version, to: Path) -> Path:
    """Bring the very package of a version into a folder; a copy that is there counts if it is it.

    Raises:
        UsageError: It is no longer in the registry, or it is damaged there.
        RefusedError: It is another package there than it was, and what was in the folder is kept;
            or it is not signed as `signed_by` of config/delivery.yaml asks for.
    """
    from . import signature

    bring(version, to)
    signature.require(opened(), version.version, to)
    return to


def bring(version: Version, to: Path) -> None:
    """Do as `fetched`, whoever signed it."""
    if _holds(to, version):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as folder:
        new = opened().fetch(version.version, Path(folder, "new"))
        if not _holds(new, version):
            raise RefusedError(f"{version} is no longer {version.digest} in the registry")
        if to.exists():
            to.rename(Path(folder, "old"))
        new.rename(to)


def _holds(folder: Path, version: Version) -> bool:
    """Tell whether a folder has this very package and nothing else."""
    try:
        _require(folder, version)
    except UsageError:
        return False
    return True


def _require(folder: Path, version: Version) -> None:
    """See that a folder has the package of a version: its files, its name and its model.

    Raises:
        UsageError: It has another one, or a damaged one, or files besides those of its manifest.
    """
    from ..model_package import MANIFEST, verified

    manifest = verified(folder)
    paths = list(folder.rglob("*"))
    if any(path.is_symlink() for path in [folder, *paths]):
        raise UsageError(f"{folder}/ has links to files elsewhere, which may change at any time")
    there = {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    inside = manifest["package_digest"], manifest.get("version"), manifest["model_digest"]
    if inside != (version.digest, version.version, version.model_digest):
        raise UsageError(f"{version} in the registry is another package, of another name or model")
    if manifest.get("created") != version.created:  # else an old model could pass for a new one
        raise UsageError(f"{version} was not made when the registry says it was")
    if there != {*manifest["files"], MANIFEST}:
        raise UsageError(f"{version} has files that its manifest does not name")


def champion() -> Version | None:
    """The version that is to serve; None before the first promotion.

    Raises:
        UsageError: It is no longer there, which is not the same as none.
    """
    registry = opened()
    if (name := registry.alias(CHAMPION)) is None:
        return None
    if version := registry.version(name):
        return version
    raise UsageError(f"the champion {name} is gone from the registry: bring it back from a backup")


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
        with atomic_write(POINTER) as new:
            new.write_text(text, "utf-8")
    return found


def promote(part: str | None = None) -> Version:
    """Make a version, the newest if none is named, the champion.

    Raises:
        UsageError: There is no such version.
        RefusedError: It was compared with another champion than the present one, or is of an older
            commit than it.
        Conflict: Somebody promoted another one meanwhile.
    """
    registry, new = opened(), find(part)
    before = champion()
    with registry.lock() as still:
        at, entries = registry.alias(CHAMPION), history(registry)
        if at == new.version:
            return new
        if at != (before and before.version):
            last = entries[-1] if entries else {}
            who = f" by {last.get('by', '?')} at {last.get('at', '?')}" if last else ""
            raise Conflict(f"{at} became the champion meanwhile{who}: run `ml run` to challenge it")
        if new.facts.get("compared_with") != (before.digest if before else "first"):
            if new.version in [entry["version"] for entry in entries]:
                raise RefusedError(
                    f"{new} was champion before: `ml rollback --to {new}` returns to it"
                )
            raise RefusedError(
                f"{new} was compared with another champion than {at}: run `ml run` again"
            )
        if before:
            _require_newer(new, before)
        who = f"{getpass.getuser()}@{platform.node()}"
        commit = new.facts.get("commit", "none")
        entry = {"version": new.version, "at": now(), "by": who, "commit": commit}
        entry["package_digest"] = new.digest
        still()
        registry.set(HISTORY, json.dumps([*entries[-199:], entry]))
        still()
        registry.point(CHAMPION, new.version)
    return new


def _require_newer(new: Version, before: Version) -> None:
    """See that no older commit takes the place of a newer one: by a job that is run again, say.

    Raises:
        RefusedError: It would, and `replaces` of config/delivery.yaml does not name the champion.
    """
    from . import checkout

    ours, theirs = (
        (version.facts.get("commit", "none"), version.facts.get("committed", "unknown"))
        for version in (new, before)
    )
    if checkout.is_older(*ours, *theirs) and delivery().replaces != before.version:
        raise RefusedError(
            f"{new} is of commit {ours[0]:.8} ({ours[1]}), which is older than {theirs[0]:.8}"
            f" ({theirs[1]}) of the champion {before}: `ml rollback` returns to a champion of"
            f" before; if {new} is to take its place all the same, name {before} in replaces of"
            " config/delivery.yaml"
        )


def rollback(to: str | None = None) -> tuple[str, str]:
    """Return to the champion before, or to an earlier one.

    Returns:
        The version that was the champion, and the one that now is.

    Raises:
        RefusedError: There was none before, or not that one.
    """
    registry = opened()
    with registry.lock() as still:
        last, back_to = registry.alias(CHAMPION) or "", champion_before(to)
        still()
        registry.point(CHAMPION, back_to.version)
    return last, back_to.version


def champion_before(to: str | None = None) -> Version:
    """The champion before, or an earlier one: a version that surely was champion.

    The note of who was champion is a claim: whoever can write to the registry can write it. An
    entry counts if the registry has that version with the digest that its promotion wrote down, and
    if each champion from the present one back to it was compared with the one before.

    Args:
        to: A part of its name, or its reference; None: the last one.

    Raises:
        RefusedError: There was none before, or not that one, or the note does not hold.
    """
    registry = opened()
    *earlier, last = history(registry) or [{"version": ""}]
    if to and "@" in to:
        _parts(to)
    name, _, digest = (to or "").partition("@")
    names = [entry["version"] for entry in earlier]
    places = [n for n, at in enumerate(names) if at == name or (not digest and name in at)]
    if not places:
        raise RefusedError(
            f"the registry knows no champion {name} before {last['version'] or 'this'}"
        )
    if digest:  # whoever names it has verified it
        return find(to)
    known = dict[str, Version]()
    for entry in [*earlier[places[-1] :], last]:
        found = registry.version(entry["version"])
        if found is None:
            raise RefusedError(f"{entry['version']}, which was champion, is gone from the registry")
        known[entry["version"]] = found
        if entry.get("package_digest", found.digest) != found.digest:
            raise RefusedError(
                f"{found} was promoted as {entry['package_digest']}, and is {found.digest} in the"
                " registry now: somebody has changed the one or the other"
            )
    for older, newer in pairwise([*names[places[-1] :], last["version"]]):
        if known[newer].facts.get("compared_with") != known[older].digest:
            raise RefusedError(
                f"the registry's history says that {newer} came after {older}, and {newer} was"
                f" compared with another champion: `ml resolve {older}`, and if that is the right"
                " one, `ml rollback --to` what it prints"
            )
    return known[names[places[-1]]]


def history(registry: Registry) -> list[dict[str, str]]:
    """Who became the champion, when, and by whom: the last entry is of the present one.

    An entry is written before the alias moves. What comes after the champion's never came true, or
    was taken back.
    """
    entries = _entries(registry.get(HISTORY) or "[]")
    at = registry.alias(CHAMPION)
    while entries and entries[-1]["version"] != at:
        entries.pop()
    return entries


def _entries(text: str) -> list[dict[str, str]]:
    """Read the note of champions.

    Raises:
        UsageError: It is malformed.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        entries = None
    names = ("version", "at", "by", "commit")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("version"), str)
        and all(isinstance(entry.get(name, ""), str) for name in names)
        for entry in entries
    ):
        raise UsageError(f"the registry is damaged: its note {HISTORY!r} is no list of champions")
    return entries


def show() -> None:
    """Print a line for each version: whether it is the champion, metric, interval, lineage.

    In a remote registry, where each version costs a request, that is for the newest ones and the
    champion; of the others the names.
    """
    import typer

    registry = opened()
    champion_name = registry.alias(CHAMPION)
    known = {version.version: version for version in registry.versions(NEWEST)}
    if champion_name and champion_name not in known and (found := registry.version(champion_name)):
        known[champion_name] = found
    # Of the names that were not read, those that `ml package` gives.
    pattern = r"[\d-]{16}[\da-f]{8}"
    names = {name for name in registry.names() if re.fullmatch(pattern, name, re.ASCII)}
    for name in sorted(names | set(known)):
        mark = CHAMPION if name == champion_name else ""
        line = f"{name}  {mark:{len(CHAMPION)}}"
        typer.echo(f"{line}  {_summary(known[name])}" if name in known else line.rstrip())


def _summary(version: Version) -> str:
    """The metric and where a version comes from, in a line; what it does not say is `?`."""
    names = ("metric", "value", "low", "high", "commit")
    facts = {name: visible(version.facts.get(name, "?")) for name in names}
    data = visible(version.facts.get("data_digest", "sha256:?")[7:15])
    return "{metric} {value} ({low} to {high})  commit {commit:.8}  data {data}".format(
        **facts, data=data
    )


@contextmanager
def arriving(to: Path, version: Version) -> Iterator[Path]:
    """Yield a folder to bring a package into; it then takes its place if it is whole.

    Raises:
        UsageError: It is damaged, or another one, or has files besides those of its manifest.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    for left in to.parent.glob(f".{to.name}.*"):  # by one that was killed
        if left.stat().st_mtime < time.time() - 3_600:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        new = folder / "new"
        new.mkdir()
        yield new
        if not _holds(new, version):
            raise UsageError(f"{version} in the registry is damaged: it is not what was registered")
        if to.exists():
            to.rename(folder / "old")
        new.rename(to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_lock(path: Path, seconds: float = 30.0) -> Iterator[Still]:
    """A lock between processes of a machine, which ends with the process.

    Raises:
        UsageError: Another process keeps it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=seconds):
            yield lambda: None
    except Timeout:
        raise UsageError(f"{path} is held by another command: wait for it to end") from None


@contextmanager
def lease(registry: Registry) -> Iterator[Still]:
    """A lock between machines, in a registry that only reads and writes.

    After Fischer's algorithm: L. Lamport, "A fast mutual exclusion algorithm", ACM Transactions on
    Computer Systems 5 (1), 1987, section 2. A note that stays the same for LEASE seconds, by the
    reader's own clock, is of one who died; so no two clocks are compared.

    Raises:
        UsageError: It was not to be had.
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
        raise UsageError("another command holds the registry, or it is too slow: try again later")

    def still() -> None:
        if time.monotonic() > entered + WRITES:
            raise UsageError("the registry is too slow to change safely: try again later")

    try:
        yield still
    finally:
        if time.monotonic() < entered + WRITES:
            with suppress(UsageError):  # it ends by itself
                registry.set(LOCK, "")
