"""Nothing that a test starts outlives the run, however the run ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import leftovers
import psutil
import pytest
from conftest import ROOT

PR_SET_CHILD_SUBREAPER = 36
# What tests start: a registry, a job in a session of its own, a disk that is mounted.
STARTS_THINGS = """
import subprocess, time
import pytest
from hosts.registry import serving

@pytest.mark.parametrize("worker", [1, 2])
def test_that_never_ends(worker, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    (tmp_path / "registry").mkdir()
    subprocess.Popen(["sleep", "600"], start_new_session=True, env={"HOME": str(tmp_path)})
    with serving(tmp_path / "registry"):
        (tmp_path / "started").touch()
        time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.needs("docker-registry", "mount", root=True)
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)]
)
def test_a_run_that_is_interrupted_leaves_no_process_and_no_mount(
    tmp_path: Path, how: signal.Signals
) -> None:
    test = tmp_path / "test_never_ends.py"
    test.write_text(STARTS_THINGS)
    folder = tmp_path / "run"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "hooks")])}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-n", "2", str(test)]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    # What the run leaves becomes a child of this process, whatever its environment.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    children = set(psutil.Process().children(recursive=True))
    with subprocess.Popen(
        [*command, f"--basetemp={folder}"], cwd=tmp_path, env=env, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:  # fmt: skip
        try:
            while len(list(folder.rglob("started"))) < 2:
                assert run.poll() is None, run.stdout and run.stdout.read()
                time.sleep(0.1)
            assert len(list(leftovers.processes(folder))) >= 4
            assert len(leftovers.mounts(folder)) == 2
            os.killpg(run.pid, how)  # as Ctrl-C does
            run.communicate(timeout=60)
        finally:
            run.kill()
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    left = set(psutil.Process().children(recursive=True)) - children
    alive = [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert [process.cmdline() for process in alive] == []
    assert [process.cmdline() for process in leftovers.processes(folder)] == []
    assert leftovers.mounts(folder) == []
