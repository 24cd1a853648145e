"""What a worker does with what it is sent: it unpacks, compares versions, and calls a function.

Sent by value to machines that may not have the runtime yet: it imports the standard library alone.
What has arrived is kept in a place of its own, as code that was sent has new globals each time.
"""

import hashlib
import importlib.util
import io
import pickle
import platform
import shutil
import sys
import tempfile
import threading
import traceback
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

RUNTIME = "rung_runtime"
CODE = "code"  # folders of a shipment
FILES = "files"
STORE = "_rung_jobs"
MAX_NAMED = 3  # packages that a message names


def arrive(shipment: Mapping[str, Any], where: str | None = None) -> str:
    """Take what a job needs, once in a process.

    Args:
        shipment: See `shipment.pack`.
        where: The folder to unpack into; None: that of temporary files.

    Returns:
        Why this worker cannot do it, in a sentence; "": it can.
    """
    jobs = _jobs()
    with _lock():
        if shipment["digest"] not in jobs:
            jobs[shipment["digest"]] = _Job(shipment, where)
        return str(jobs[shipment["digest"]].fault)


def leave(digest: str) -> None:
    """Forget a job that has ended, and delete its files; code that was imported stays."""
    with _lock():
        job = _jobs().pop(digest, None)
    if job and not job.fault:
        shutil.rmtree(
            job.folder / FILES if job.has_brought_code else job.folder, ignore_errors=True
        )


def perform(digest: str, item: bytes) -> bytes:
    """Do an item of a job that has arrived.

    Returns:
        A pickle of what came of it, and the result, a sentence or a traceback:
        `done`, `failed` (this item), `refused` (the job cannot be done) or `bug`.
    """
    return pickle.dumps(_perform(digest, item))


def hold(digest: str, item: bytes) -> tuple[str, Any]:
    """Do an item of a job that has arrived, whose result stays here, as what came of it."""
    return _perform(digest, item)


def verdict(answer: tuple[str, Any]) -> bytes:
    """Return what came of an item whose result stays here, as `perform` does, without it."""
    kind, content = answer
    return pickle.dumps((kind, None if kind == "done" else content))


def part(answer: tuple[str, Any], number: int) -> Any:
    """Return a member of a result that stays here."""
    return answer[1][number]


def _perform(digest: str, item: bytes) -> tuple[str, Any]:
    job = _jobs()[digest]
    if job.fault:
        return "refused", job.fault
    try:
        return "done", job.function()(pickle.loads(item))
    except Exception as error:
        if type(error).__module__ == f"{RUNTIME}.exceptions":  # a sentence for a person
            return "failed", str(error)
        if isinstance(error, OSError):
            where = error.filename or "a file"
            return "failed", f"{where} cannot be used: {error.strerror or error}"
        if sentence := getattr(error, "sentence", ""):  # of a package, in a process of its own
            return "refused", str(sentence)
        for call in reversed(traceback.extract_tb(error.__traceback__)):
            if Path(call.filename).parent.name == "problem":
                reason = str(error).strip().partition("\n")[0]
                name = Path(call.filename).name
                text = f"problem/{name}, line {call.lineno}: {type(error).__name__}: {reason}"
                return "refused", text
        return "bug", traceback.format_exc()


def versions(names: list[str]) -> dict[str, str]:
    """Return the versions of packages and of Python in this process; "none": it is not there."""
    present = {"Python": platform.python_version()}
    for name in names:
        try:
            present[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            present[name] = "none"
    return present


def code_digest(folder: Path) -> str:
    """Return the digest of names and contents of a package's files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


class _Job:
    """A job that has arrived."""

    def __init__(self, shipment: Mapping[str, Any], where: str | None) -> None:
        self.start: bytes = shipment["start"]
        self.names: list[str] = shipment["files"]
        self.lock = threading.Lock()
        self.fault = _fault(shipment)
        self.present: Any = None
        if self.fault:
            return
        self.folder = Path(tempfile.mkdtemp(prefix="rung-job-", dir=where))
        with zipfile.ZipFile(io.BytesIO(shipment["content"])) as archive:
            archive.extractall(self.folder)
        self.has_brought_code = RUNTIME not in sys.modules
        if self.has_brought_code:
            sys.path.insert(0, str(self.folder / CODE))

    def function(self) -> Any:
        """Return what is called for each item."""
        with self.lock:
            if self.present is None:
                start = pickle.loads(self.start)
                self.present = start({name: self.folder / FILES / name for name in self.names})
            return self.present


def _fault(shipment: Mapping[str, Any]) -> str:
    """Return why this process cannot do a job."""
    expected: dict[str, str] = shipment["versions"]
    present = versions([name for name in expected if name != "Python"])
    differing = [
        f"{name} {present[name]}, and {version} here"
        for name, version in expected.items()
        if present[name] != version
    ]
    where = platform.node()
    if differing:
        more = f" and {len(differing) - MAX_NAMED} more" if len(differing) > MAX_NAMED else ""
        return (
            f"a worker on {where} has {'; '.join(differing[:MAX_NAMED])}{more}: give workers the "
            "environment of uv.lock, as results could differ"
        )
    if RUNTIME in sys.modules:
        spec = importlib.util.find_spec(RUNTIME)
        folder = Path(str(spec.origin)).parent if spec else Path()
        if code_digest(folder) != shipment["runtime"]:
            return (
                f"a worker on {where} has loaded another version of {RUNTIME}: restart the workers"
            )
    return ""


def _place() -> ModuleType:
    return sys.modules.setdefault(STORE, ModuleType(STORE))


def _jobs() -> dict[str, Any]:
    jobs: dict[str, Any] = _place().__dict__.setdefault("jobs", {})
    return jobs


def _lock() -> Any:
    return _place().__dict__.setdefault("lock", threading.Lock())
