"""How long pipelines take, run for real by act as tests do, and how long their files are."""

from __future__ import annotations

from pathlib import Path

import test_image
from bench_service import Measure, Measures, say
from conftest import Project
from graph import MOST_LINES
from hosts import Run
from hosts.github import GitHub


def pipelines(project: Project, here: Path) -> Measures:
    """Measure checks and the pull request's pipeline of a level-2 project, packages cached.

    The second of two runs counts: the first fills the caches of uv and of image layers.
    """
    folder = here / "pipelines"
    folder.mkdir()
    driver = "overlay" if test_image.overlays(folder) else "vfs"
    store = test_image.Buildah(folder / "buildah", driver)
    store.folder.mkdir()
    test_image.base(store)
    measures: Measures = []
    with GitHub(project.path, folder / "host") as host:
        host.more = {"STANDIN_BUILDAH": str(store.folder), "STANDIN_STORAGE": driver}
        say("checks")
        host.by_hand("checks")
        checks = host.by_hand("checks")
        measures.append(Measure("checks pipeline, s", passed(checks).seconds, 60))
        say("a pull request")
        for name in ("first", "second"):
            host.git("checkout", "-q", "-B", name, "main")
            host.git("rm", "-q", ".github/workflows/checks.yml")  # that was measured above
            host.commit(name)
            request = passed(host.propose(name))
        measures.append(Measure("pull-request pipeline, s", request.seconds, 240))
    store("umount", "--all")
    return measures


def passed(run: Run) -> Run:
    """Refuse to measure what failed."""
    if not run.ok:
        raise RuntimeError(f"{run.jobs}\n{run.log[-3000:]}")
    return run


def lengths(project: Path) -> Measures:
    """Count the lines of a level-2 project's pipelines that are neither blank nor comments."""
    measures: Measures = []
    for name, most in MOST_LINES.items():
        own = [path for path in project.glob(f".{name}*") for path in [path, *path.rglob("*")]]
        texts = [path.read_text("utf-8") for path in own if path.is_file()]
        lines = [line.strip() for text in texts for line in text.splitlines()]
        count = len([line for line in lines if line and not line.startswith("#")])
        measures.append(Measure(f"lines of {name}'s files", count, most))
    return measures
