"""Measure what each engine costs on a source of many partitions: part of `make bench`, on request.

`RUNG_ROWS` is how many rows, several sizes separated by commas, and `RUNG_ENGINES` which engines.
Times are CPU seconds of the whole process tree, and memory its proportional set size, summed; both
are sampled five times a second. Engines have two workers. Sizes that one machine trains on go
through the pipeline as well, and LightGBM trains on them here and on workers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import howto_pages
import libraries
import polars as pl
import psutil
from bench_service import Measure, Measures, say
from conftest import ROOT, copy

LIBRARIES = {
    "polars": (),
    "dask": ("distributed>=2026.8", "pandas>=3"),
    "spark": ("pyspark[sql]>=4.2",),
}
SIZES = "1000000,5000000,20000000"
ROWS_PER_FILE = 500_000
DATA = "config/data.yaml"
SINK = "made"
MAX_TRAINED = 1_000_000  # rows: what one machine trains on in a minute
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
                "features": ["features", source.name, "--to", SINK],
                "score": [
                    "score", source.name, "--to", SINK,
                    "--package", "artifacts/model", "--max-refused", "1",
                ],
            }  # fmt: skip
            for name, words in commands.items():
                command = [sys.executable, "-c", MAIN, *words, "--engine", engine]
                what = f"{size:,} rows, {engine}: {name}"
                measures += measured(what, command, place, engine)
                shutil.rmtree(place / SINK, ignore_errors=True)  # gigabytes
        if size <= MAX_TRAINED:
            measures += trained(template, source, size)
        shutil.rmtree(source)
    return measures


def trained(template: Path, source: Path, size: int) -> Measures:
    """Measure each step of the pipeline, and training by LightGBM on one machine and on workers."""
    place = source.with_name(f"trained-{size}")
    answers = {"level": 1, "engine": "dask", "model_format": ["skops", "lightgbm"]}
    copy(template, place, answers, vcs_ref="HEAD")
    pl.read_parquet(source / "*.parquet").write_parquet(place / "rows.parquet")
    contract = (place / DATA).read_text()
    (place / DATA).write_text(re.sub("^source: .*", "source: rows.parquet", contract, flags=re.M))
    (place / "config/scale.yaml").write_text("workers: 2\n")
    measures: Measures = []
    for step in STEPS:
        command = [sys.executable, "-c", MAIN, step]
        measures += measured(f"{size:,} rows, pipeline: {step}", command, place, "polars")
    for path, code in howto_pages.blocks("lightgbm"):
        howto_pages.follow_block(next(place.glob("src/*/problem")), path, code)
    for engine in ("polars", "dask"):
        chosen = {} if engine == "polars" else {"engine": engine}
        model = {"estimator": "lightgbm", "params": {"n_estimators": 50}, **chosen}
        (place / "config/model.yaml").write_text(json.dumps(model))
        what = f"{size:,} rows, {engine}: train by LightGBM"
        measures += measured(what, [sys.executable, "-c", MAIN, "train"], place, engine)
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
    cost = spent(command, place, engine)
    each = f"; {cost.own_mb:.0f} MB itself, at most {cost.other_mb:.0f} MB another process"
    say(f"{what}: {cost.cpu:.1f} s of CPU, {cost.mb:.0f} MB{each}; {cost.wall:.1f} s")
    return [Measure(f"{what}: CPU s", cost.cpu), Measure(f"{what}: peak MB", cost.mb)]


class Cost(NamedTuple):
    """What a command costs."""

    cpu: float  # seconds
    mb: float  # at the peak of all its processes
    own_mb: float  # at the peak of the process itself
    other_mb: float  # at the highest peak of a process below it
    wall: float  # seconds


def spent(command: list[str], place: Path, engine: str) -> Cost:
    """Run a command, and return what it costs."""
    paths = [ROOT / "runtime/src", place / "src"]
    if LIBRARIES[engine]:
        paths += libraries.environment(*LIBRARIES[engine]).glob("lib/*/site-packages")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    used: dict[int, float] = {}
    peaks: dict[int, int] = {}
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
                        memory = member.memory_full_info().pss
                        peaks[member.pid] = max(peaks.get(member.pid, 0), memory)
                        total += memory
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            peak = max(peak, total)
            time.sleep(SAMPLED_S)
        took = time.perf_counter() - began
        output.seek(0)
        if process.returncode not in (0, 1):  # rows that are drawn twice may be refused
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read()}")
    own = peaks.pop(process.pid, 0)
    other = max(peaks.values(), default=0)
    return Cost(sum(used.values()), peak / 1e6, own / 1e6, other / 1e6, took)


def members(process: psutil.Process) -> list[psutil.Process]:
    """List a process and all below it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
