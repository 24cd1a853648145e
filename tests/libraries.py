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
from pathlib import Path

import pytest
from environments import FETCHED
from filelock import FileLock

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rung-tests")


def environment(*requirements: str) -> Path:
    """Return the folder of an environment; the test is left out where it cannot be had."""
    key = hashlib.sha256("\0".join([sys.version, *sorted(requirements)]).encode()).hexdigest()[:16]
    folder = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{key}.lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv("venv", "--quiet", "--python", sys.executable, str(folder))
            uv("pip", "install", "--quiet", "--python", str(folder / "bin/python"), *requirements)
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
