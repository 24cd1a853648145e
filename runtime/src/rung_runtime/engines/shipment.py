"""The code and the files that workers need, packed; and their answers, unpacked."""

import hashlib
import io
import pickle
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import rung_runtime

from .. import UsageError
from . import worker
from .interface import Item, Job, Outcome, Result

# Packages that decide on results, or on whether they can be sent.
COMPARED = (
    "polars",
    "numpy",
    "scikit-learn",
    "scipy",
    "onnxruntime",
    "skops",
    "pydantic",
    "catboost",
    "keras",
    "lightgbm",
    "torch",
    "xgboost-cpu",
    "deltalake",
    "obstore",
)


def pack(job: Job[Any, Any]) -> dict[str, Any]:
    """Return what a worker needs to do a job: see `worker.arrive`."""
    package = Path(rung_runtime.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _add(archive, package, f"{worker.CODE}/{worker.RUNTIME}")
        for name, path in job.files.items():
            _add(archive, path, f"{worker.FILES}/{name}")
    content = buffer.getvalue()
    start = pickle.dumps(job.start)
    return {
        "digest": hashlib.sha256(start + content).hexdigest(),
        "content": content,
        "start": start,
        "files": list(job.files),
        "runtime": worker.code_digest(package),
        "versions": present_versions(),
    }


def present_versions() -> dict[str, str]:
    """Return the versions of Python and of packages here that workers must have, too."""
    return worker.versions([name for name in COMPARED if _is_installed(name)])


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    """Add a file or a folder, without bytecode, the same bytes each time."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            inner = file.relative_to(path).as_posix() if path.is_dir() else ""
            info = zipfile.ZipInfo(f"{name}/{inner}" if inner else name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def unpack(index: int, answer: bytes) -> Outcome[Any]:
    """Return what a worker answers as the outcome of an item.

    Raises:
        UsageError: The job cannot be done, by any worker.
    """
    kind, content = pickle.loads(answer)
    if kind == "done":
        return Outcome(index, content)
    if kind == "failed":
        return Outcome(index, None, str(content))
    if kind == "refused":
        raise UsageError(str(content))
    print(content, file=sys.stderr)  # noqa: T201
    raise RuntimeError("a worker failed")


def lost(index: int, items: list[Item], attempts: int) -> Outcome[Result]:
    """Return the outcome of an item at which workers ended."""
    name = getattr(items[index], "name", f"item {index}")
    return Outcome(
        index,
        None,
        f"{name}: {attempts} workers ended at it, the last one without a word: is it too large "
        "for their memory? Give them more, or split it",
    )
