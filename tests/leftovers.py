"""End what a test run has left behind: its processes, and what is mounted in its folder.

Fixtures end what they start, but an interrupted run may not get to that, and no Ctrl-C reaches
the jobs of a pipeline, as each has a session of its own. What a run starts can be recognized by its
environment: it inherits MARK, or gets a HOME in the run's folder of temporary files.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "RUNG_TEST_RUN"
MOUNTS = Path("/proc/self/mounts")


def end(folder: Path) -> list[str]:
    """Kill the processes of a run and unmount what is mounted in its folder; return both."""
    ended = []
    for process in processes(folder):
        with suppress(psutil.Error):
            ended.append(f"{process.pid} {process.name()}")
            process.kill()
            process.wait(10)
    for mount in mounts(folder):
        ended.append(mount)
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
    return ended


def processes(folder: Path) -> Iterator[psutil.Process]:
    """Find the processes whose environment names the folder, but for this one and its parents."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid not in ours and process.status() != psutil.STATUS_ZOMBIE:
                values = process.environ().values()
                if any(f"{folder}/" in f"{value}/" for value in values):
                    yield process


def mounts(folder: Path) -> list[str]:
    """Find what is mounted in a folder, the innermost first."""
    if not MOUNTS.exists():  # not Linux, where tests mount nothing
        return []
    points = [line.split()[1] for line in MOUNTS.read_text().splitlines()]
    decoded = [point.encode().decode("unicode_escape") for point in points]
    return sorted((p for p in decoded if p.startswith(f"{folder}/")), reverse=True)
