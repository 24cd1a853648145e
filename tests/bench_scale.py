"""Measure what each engine costs on a source of many partitions: part of `make bench`, on request.

`RUNG_ROWS` is how many rows, several sizes separated by commas, and `RUNG_ENGINES` which engines.
Times are CPU seconds of the whole process tree, and memory its proportional set size, summed; both
are sampled five times a second. Engines have two workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import libraries
import polars as pl
import psutil
from bench_service import Measure, Measures, say
from conftest import ROOT, copy

LIBRARIES = {
    "polars": (),
    "dask": ("distributed>=2026.8",),
    "spark": ("pyspark[sql]>=4.2",),
}
SIZES = "1000000,5000000"
ROWS_PER_FILE = 500_000
SAMPLED_S = 0.2
STEPS = ("ingest", "validate", "split", "train", "evaluate", "compare", "gate", "package")
MAIN = "from rung_runtime.cli import main; main()"
# What the contract asks of a row, as one query of Polars: what the verdict costs at least.
STREAMING = """
import sys
import polars as pl
from rung_runtime import config, problem
from rung_runtime.pipeline.validate import rules

data = config.load().data
columns = [name for name in data.columns if data.columns[name].type != "datetime"]
required = [rule for rule in rules(data, columns, problem.rules)]
rows = pl.scan_parquet(sys.argv[1] + "/*.parquet")
broken = rows.select(
    (~rule.holds.fill_null(True)).sum().alias(str(number)) for number, rule in enumerate(required)
)
print(broken.collect(engine="streaming"))
"""


def scale(template: Path, here: Path) -> Measures:
    """Measure validation, features and scores by each engine, for each size."""
    place = here / "scale"
    copy(template, place, {"level": 1}, vcs_ref="HEAD")
    say("a model to score with")
    for step in STEPS:
        spent([sys.executable, "-c", MAIN, step], place, "polars")
    measures: Measures = []
    engines = os.environ.get("RUNG_ENGINES", ",".join(LIBRARIES)).split(",")
    for size in map(int, os.environ.get("RUNG_ROWS", SIZES).split(",")):
        source = write_source(place, size)
        measures += measured(
            f"{size:,} rows, one query of Polars: validate",
            [sys.executable, "-c", STREAMING, source.name],
            place,
            "polars",
        )
        for engine in engines:
            commands = {
                "validate": ["validate", source.name],
                "features": ["features", source.name, "--to", f"features-{engine}-{size}"],
                "score": [
                    "score", source.name, "--to", f"scores-{engine}-{size}",
                    "--package", "artifacts/model", "--max-refused", "1",
                ],
            }  # fmt: skip
            for name, words in commands.items():
                command = [sys.executable, "-c", MAIN, *words, "--engine", engine]
                what = f"{size:,} rows, {engine}: {name}"
                measures += measured(what, command, place, engine)
    return measures


def write_source(place: Path, size: int) -> Path:
    """Write so many rows of the example, drawn with replacement, as files."""
    folder = place / f"rows-{size}"
    folder.mkdir()
    (place / "config/scale.yaml").write_text("workers: 2\n")
    rows = pl.read_parquet(place / "data/interim/rows.parquet")
    for number, first in enumerate(range(0, size, ROWS_PER_FILE)):
        count = min(ROWS_PER_FILE, size - first)
        drawn = rows.sample(count, with_replacement=True, seed=number)
        drawn.write_parquet(folder / f"part-{number:04}.parquet")
    say(f"{size:,} rows: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.0f} MB")
    return folder


def measured(what: str, command: list[str], place: Path, engine: str) -> Measures:
    """Return what a command costs."""
    cpu, memory, wall = spent(command, place, engine)
    say(f"{what}: {cpu:.1f} s of CPU, {memory:.0f} MB, {wall:.1f} s")
    return [Measure(f"{what}: CPU s", cpu), Measure(f"{what}: peak MB", memory)]


def spent(command: list[str], place: Path, engine: str) -> tuple[float, float, float]:
    """Run a command; return its CPU seconds, its peak of megabytes, and the seconds it took."""
    paths = [ROOT / "runtime/src", place / "src"]
    if LIBRARIES[engine]:
        paths += libraries.environment(*LIBRARIES[engine]).glob("lib/*/site-packages")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    used: dict[int, float] = {}
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = psutil.Popen(command, cwd=place, env=env, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            total = 0
            for member in members(process):
                try:
                    with member.oneshot():
                        times = member.cpu_times()
                        used[member.pid] = times.user + times.system
                        total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            peak = max(peak, total)
            time.sleep(SAMPLED_S)
        took = time.perf_counter() - began
        output.seek(0)
        if process.returncode not in (0, 1):  # rows that are drawn twice may be refused
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read()}")
    return sum(used.values()), peak / 1e6, took


def members(process: psutil.Process) -> list[psutil.Process]:
    """List a process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
