"""The stamp of the runtime: what stages of dvc.yaml depend on, besides the user's own files.

It is the same whether a project holds the runtime in `src/` or requires it as a package, and
changes with every part of it that a step may run.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from . import project
from .artifacts import ARTIFACTS
from .atomic_file import atomic_write

FILE = ARTIFACTS / "runtime.txt"
# What no step runs: a change of these makes no stage stale.
NOT_OF_STEPS = frozenset(
    {
        "cli",
        "controls.py",
        "delivery",
        "engines",
        "http_client",
        "monitoring",
        "oci_client",
        "oci_content.py",
        "partitioned",
        "prediction_log",
        "remote_step",
        "scoring",
        "serving",
        "stamp.py",
        "step_runner.py",
        "storage.py",
        "testing",
    }
)


def refresh() -> None:
    """Write the stamp if it is not there, or not that of this runtime."""
    text = f"rung_runtime {digest()}\n"
    if not FILE.is_file() or FILE.read_text("utf-8") != text:
        with atomic_write(FILE) as new:
            new.write_text(text, "utf-8")


def digest() -> str:
    """Return the SHA-256 of names and contents of what steps may run, as `sha256:…`."""
    package = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        is_code = path.suffix not in (".pyc", ".pyo") and path.is_file()
        if is_code and _may_be_run(name.parts):
            content = path.read_bytes()
            total.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return f"sha256:{total.hexdigest()}"


def _may_be_run(parts: tuple[str, ...]) -> bool:
    """Return whether a step may run a file of the runtime, by the parts of its path.

    A runtime as a package has every adapter. Those count that this project can come to use.
    """
    if parts[0] != "adapters" or len(parts) == 2:
        return parts[0] not in NOT_OF_STEPS
    slot, _, name = parts[1].rpartition("_")
    if slot == "explainer":
        return name == project.current().explainer
    return slot == "model_format" and (name == "skops" or find_spec(name) is not None)
