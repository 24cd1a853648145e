"""Networks of torch and Keras, in an environment that has them: what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import libraries
import pytest
from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.nightly]
PROMISES = ROOT / "tests/networks"
PROMISES_OF = {
    "torch": ["promises.py", "contract.py", "page.py"],
    "keras": ["keras_promises.py"],
}
# Of the versions that are here.
SHARED = (
    *("jinja2", "numpy", "onnx", "onnxruntime", "polars", "pydantic"),
    *("pytest", "pyyaml", "rich", "scikit-learn", "skops"),
)


def torch_requirement() -> str:
    """Return the requirement of torch: a file for the CPU alone, where a folder has one.

    PyPI's comes with CUDA: some gigabytes.
    """
    folder = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    files = sorted(Path(folder).glob(f"torch-*+cpu-{tag}-*.whl")) if folder else []
    return str(files[-1]) if files else "torch>=2.11"


def environment_of_networks() -> Path:
    shared = [f"{name}=={version(name)}" for name in SHARED]
    libraries_of_networks = (torch_requirement(), "keras>=3.13.2", "onnxscript", "safetensors")
    return libraries.environment(*libraries_of_networks, "scipy", "threadpoolctl", *shared)


@pytest.mark.parametrize("library", ["torch", "keras"])
def test_types_hold_where_the_library_is_installed_as_in_a_project(
    library: str, tmp_path: Path
) -> None:
    adapter = f"runtime/src/rung_runtime/adapters/model_format_{library}"
    python = environment_of_networks() / "bin/python"
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), adapter]
    command += ["--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Found" in done.stdout or "Success" in done.stdout, done.stdout + done.stderr
    # What else is not installed there is no mistake of the adapter.
    assert not [line for line in done.stdout.splitlines() if line.startswith(adapter)]


@pytest.mark.parametrize("library", ["torch", "keras"])
def test_what_a_network_and_its_page_promise_holds_on_this_machine(library: str) -> None:
    folder = environment_of_networks()
    command = [
        str(folder / "bin/python"),
        "-m",
        "pytest",
        *PROMISES_OF[library],
        "-q",
        "--noconftest",
    ]
    command += ["-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=PROMISES, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
