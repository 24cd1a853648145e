"""Measure what the template promises to cost: all of it, or the parts that are named.

Ratios are measured in one run, on one machine, the two sides in turn; of several runs the best
counts. Memory is the resident memory of the whole process tree, summed and sampled every 50 ms: it
counts pages that processes share once for each, so it errs against us.
"""

from __future__ import annotations

import csv
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import bench_hostile
import bench_pipelines
import bench_scale
import bench_service
import bench_tables
import bench_verdicts
import psutil
from bench_service import Measure, Measures, done, say
from conftest import ROOT, Project, copy, git, snapshot
from test_render import machinery

ROWS = 300_000
# Half an hour of two cores, and no time is measured; the tables come from PyPI, as engines do.
ON_REQUEST = {"verdicts", "tables", "scale"}
BARE = Path(__file__).with_name("bare.py")
COPIER, RUNG = (str(Path(sys.executable).with_name(name)) for name in ("copier", "rung"))


def main() -> int:
    """Measure all or the parts named, and say what is met; a noisy machine fails nobody's build."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        template = snapshot(here / "template")
        git(template, "init", "-q")
        git(template, "add", "-A")
        git(template, "commit", "-q", "-m", "the working tree")
        git(template, "gc", "-q")  # as what was fetched from a host is

        @cache
        def project(level: int) -> Project:
            return install(template, here / f"level-{level}", level)

        @cache
        def apart() -> tuple[Project, Path]:  # the service's own, trained once
            own = install(template, here / "service", 1)
            say("a model to serve")
            done(own.ml("run"))
            return own, own.path.parent

        parts: dict[str, Callable[[], Measures]] = {
            "copy": lambda: copying(template, here),
            "commands": lambda: commands(project(1)),
            "pipeline": lambda: pipelines(project, here),
            "sizes": lambda: sizes(project),
            "ci": lambda: bench_pipelines.pipelines(project(2), here),
            "service": lambda: bench_service.speed(*apart()),
            "hostile": lambda: bench_hostile.hostile(*apart()),
            "bulk": lambda: bench_service.bulk(*apart()),
            "memory": lambda: bench_service.memory(*apart()),
            "environment": lambda: bench_service.environment(*apart()),
            "tables": lambda: bench_tables.tables(here),
            "scale": lambda: bench_scale.scale(template, here),
            "deployments": lambda: bench_service.deployments(*apart()),
            "verdicts": lambda: bench_verdicts.measure_all(here),
        }
        names = sys.argv[1:] or [name for name in parts if name not in ON_REQUEST]
        if unknown := set(names) - set(parts):
            print(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
            return 2
        measures = [measure for name in names for measure in parts[name]()]
    width = max(len(measure.what) for measure in measures)
    print(f"\n{'what':<{width}} | measured |    target | met")
    for measure in measures:
        digits = 0 if isinstance(measure.measured, int) else 2
        sign, target = ("≥", measure.least) if measure.least > -math.inf else ("≤", measure.most)
        goal = f"{sign} {target:.{digits}f}" if math.isfinite(target) else "-"
        met = "-" if goal == "-" else "yes" if measure.met else "NO"
        print(f"{measure.what:<{width}} | {measure.measured:>8.{digits}f} | {goal:>9} | {met}")
    targets = [
        measure
        for measure in measures
        if math.isfinite(measure.most) or math.isfinite(measure.least)
    ]
    missed = [measure.what for measure in targets if not measure.met]
    print(
        f"\n{len(targets) - len(missed)} of {len(targets)} met.",
        *(f"Not met: {m}." for m in missed),
    )
    return 0


def copying(template: Path, here: Path) -> Measures:
    """Compare copies, and updates that bring nothing, with Copier's own start; rung with those."""
    say("copier --version, copies, and updates that bring nothing, in turn")
    home = here / "copies"
    home.mkdir()
    project = copy(template, home / "project", {"level": 2}, vcs_ref="HEAD")
    for words in ("init -q", "add -A", "commit -q -m start"):
        git(project, *words.split())
    new = ["--quiet", "--defaults", "--vcs-ref", "HEAD"]
    commands: dict[str, Callable[[int], list[str]]] = {
        "start": lambda _: [COPIER, "--version"],
        "copy 1": lambda n: [COPIER, "copy", *new, "--data=level=1", str(template), f"one-{n}"],
        "copy 2": lambda n: [COPIER, "copy", *new, "--data=level=2", str(template), f"two-{n}"],
        "update": lambda _: [COPIER, "update", *new, str(project)],
        "rung": lambda _: [RUNG, "update", "--to", "HEAD", str(project)],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(7):
        for name, made in commands.items():
            took[name].append(seconds(made(turn), home))
    best = {name: min(times) for name, times in took.items()}
    return [
        Measure("copier copy at level 1 ÷ copier --version", best["copy 1"] / best["start"], 2.0),
        Measure("copier copy at level 2 ÷ copier --version", best["copy 2"] / best["start"], 2.5),
        Measure(
            "copier update, nothing new, level 2 ÷ copier --version",
            best["update"] / best["start"],
            5.0,
        ),
        Measure("rung update, nothing new ÷ copier update", best["rung"] / best["update"], 1.5),
    ]


def install(template: Path, folder: Path, level: int) -> Project:
    """Make a project with its environment."""
    say(f"a project of level {level} and its environment")
    folder.mkdir()
    both = {"ci": ["github", "gitlab"]} if level == 2 else {}
    path = copy(template, folder / "project", {"level": level, **both}, vcs_ref="HEAD")
    project = Project(path, level, "flight_delays")
    done(project.run("make", "setup"))
    return project


def commands(project: Project) -> Measures:
    """Time what a person waits for most often."""
    say("ml --help, and ml run with nothing stale")
    done(project.ml("run"))
    ml = str(project.path / ".venv/bin/ml")
    helps = min(seconds([ml, "--help"], project.path) for _ in range(7))
    stale = min(seconds([ml, "run"], project.path) for _ in range(3))
    return [Measure("ml --help", helps, 0.25), Measure("ml run with nothing stale", stale, 2.5)]


def pipelines(project: Callable[[int], Project], here: Path) -> Measures:
    """Compare full runs of both levels with the bare script."""
    larger = enlarge(ROOT / "template/data/raw/flights.csv", here / "flights-300k.csv")
    return [measure for level in (1, 0) for measure in pipeline(project(level), larger)]


def pipeline(project: Project, larger: Path) -> Measures:
    """Compare a full run on 300,000 rows with the bare script."""
    say(f"{ROWS:,} rows through level {project.level} and through the bare script, in turn")
    done(project.ml("data", "use", str(larger), "--target", "delayed", "--replace"))
    whole = []
    bare = []
    for _ in range(3):
        for made in ("artifacts", "data/interim", ".dvc/cache", ".dvc/tmp", "dvc.lock"):
            path = project.path / made
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        whole.append(spent([str(project.path / ".venv/bin/ml"), "run"], project.path))
        bare.append(spent([str(project.path / ".venv/bin/python"), str(BARE)], project.path))
    took, memory = (
        (min(ours), min(theirs))
        for ours, theirs in zip(zip(*whole, strict=True), zip(*bare, strict=True), strict=True)
    )
    say(f"{took[0]:.1f} s to {took[1]:.1f} s, {memory[0]:.0f} MB to {memory[1]:.0f} MB")
    what = f"{ROWS:,} rows, level {project.level} ÷ bare script"
    return [
        Measure(f"{what}: time", took[0] / took[1], 2.0),
        Measure(f"{what}: peak memory", memory[0] / memory[1], 2.0),
    ]


def sizes(project: Callable[[int], Project]) -> Measures:
    """Count what a person has to read and own."""
    measures: Measures = []
    for level, most_files in {0: 40, 1: 60, 2: 75}.items():
        path = project(level).path
        tracked = git(path, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
        count = len([name for name in tracked if name != "uv.lock"])
        measures.append(Measure(f"files at level {level}", count, most_files))
        measures.append(Measure(f"lines of machinery at level {level}", machinery(path)))
    return measures + bench_pipelines.lengths(project(2).path)


def enlarge(source: Path, to: Path) -> Path:
    """Draw rows with replacement and shift their times and numbers, so that they differ."""
    rng = random.Random(0)
    with source.open(newline="") as file:
        header, *rows = csv.reader(file)
    with to.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for _ in range(ROWS):
            *known, _ = (shifted(value, rng) for value in rng.choice(rows))
            writer.writerow([*known, rng.random() < risk(dict(zip(header, known, strict=False)))])
    return to


def risk(row: dict[str, str]) -> float:
    """Give a chance of delay that trees can learn: copies of real rows would be known by heart."""
    hour = int(row["scheduled_departure"][11:13])
    wind = float(row["wind_speed"] or 10)
    away = 0.05 * (wind - 10) * (-1 if row["origin"] == "LGA" else 1)
    return 1 / (1 + math.exp(1.5 - 1.5 * math.sin((hour - 9) / 3) - away))


def shifted(value: str, rng: random.Random) -> str:
    """Move a number by about one percent and a time by up to half an hour."""
    if value.isdigit():
        return str(max(1, round(int(value) * rng.gauss(1, 0.01))))
    if value[:4].isdigit() and "T" in value:
        moved = datetime.fromisoformat(value) + timedelta(minutes=rng.randint(-30, 30))
        return moved.isoformat(timespec="minutes")
    try:
        return f"{float(value) * rng.gauss(1, 0.01):.4f}"
    except ValueError:
        return value


def seconds(command: list[str], cwd: Path) -> float:
    """Time a command."""
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=active(cwd), check=True, capture_output=True)
    return time.perf_counter() - began


def active(project: Path) -> dict[str, str]:
    """Make the environment that `uv run` would, without its start."""
    # Threads that spin would make the bare script slower still on a busy machine.
    fair = {"OMP_WAIT_POLICY": "PASSIVE"}
    return os.environ | fair | {"PATH": f"{project / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"}


def spent(command: list[str], cwd: Path) -> tuple[float, float]:
    """Run a command; seconds it took and megabytes its process tree held at most."""
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = psutil.Popen(
            command, cwd=cwd, env=active(cwd), stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, sum(map(resident, [process, *children(process)])))
            time.sleep(0.05)
        took = time.perf_counter() - began
        output.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read()}")
    return took, peak / 1e6


def children(process: psutil.Process) -> list[psutil.Process]:
    """List all below a process, none if it is gone."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def resident(process: psutil.Process) -> int:
    """Return its resident bytes, 0 if it is gone; pages that forks share are shared out."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


if __name__ == "__main__":
    sys.exit(main())
