"""The stamp of the runtime: what stages of dvc.yaml depend on, besides the user's own files.

It is the same whether a project holds the runtime in `src/` or requires it as a package, and
changes with every part of it that a step may run.
"""

import hashlib
from pathlib import Path

from .artifacts import ARTIFACTS, atomic_write

FILE = ARTIFACTS / "runtime.txt"
# What no step runs: a change of these makes no stage stale.
NOT_OF_STEPS = frozenset(
    {
        "adapters",
        "cli",
        "controls.py",
        "delivery",
        "http_client.py",
        "monitoring",
        "prediction_log",
        "scoring",
        "serving",
        "stamp.py",
        "step_runner.py",
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
        if is_code and name.parts[0] not in NOT_OF_STEPS:
            content = path.read_bytes()
            total.update(f"{name.as_posix()} {len(content)}\n".encode() + content)
    return f"sha256:{total.hexdigest()}"
