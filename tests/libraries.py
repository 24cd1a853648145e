"""Libraries that only some tests need, each set in an environment of its own.

They are large, or do not go together with what is here. An environment is made once by uv, in the
user's cache, and kept for the next run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import FETCHED
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rung-tests")


def environment(*requirements: str) -> Path:
    """Return the folder of an environment; the test is left out where it cannot be had."""

    def make(folder: Path) -> None:
        uv("venv", "--quiet", "--python", sys.executable, str(folder))
        uv("pip", "install", "--quiet", "--python", str(folder / "bin/python"), *requirements)

    return _once([sys.version, *sorted(requirements)], make)


def npm(package: str) -> Path:
    """Return a folder with a package of npm; the test is left out where it cannot be had."""

    def make(folder: Path) -> None:
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        command = ["npm", "install", "--prefix", str(folder), *options, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot be had: {' '.join(done.stderr.split())[-300:]}")

    if not (shutil.which("npm") and node().exists()):
        pytest.skip("cannot be had: npm, or node in .tools/node")
    return _once(["npm", package], make)


def node() -> Path:
    """Return the program that runs what npm brings."""
    return ROOT / ".tools/node/node_modules/.bin/node"


def _once(what: list[str], make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which is made if it is not there."""
    key = hashlib.sha256("\0".join(what).encode()).hexdigest()[:16]
    folder = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{key}.lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / "ready").touch()
    return folder


def uv(*arguments: str) -> None:
    """Run uv, without what the tests themselves run in."""
    own = ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON")
    env = {name: value for name, value in os.environ.items() if name not in own}
    command = [shutil.which("uv") or str(FETCHED), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot be had: {' '.join(done.stderr.split())[-300:]}")
