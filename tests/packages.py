"""Packages to serve, made in a second from the example: no pipeline, no project installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

ROWS = 1_500


def package(
    module: Callable[[str], ModuleType], to: Path, seed: int = 0, **contract: Any
) -> Path:
    """Make a package of the example's first rows, with another seed or parts of the contract."""
    config, ingest, train, inference = map(
        module, ("config", "pipeline.ingest", "pipeline.train", "inference")
    )
    problem = Path(str(module("problem").__file__)).parent
    project = problem.parent.parent.parent
    data = config.read(project / config.DATA, config.Data).model_copy(update=contract)
    source = ingest.read(project / data.source, data.separator).head(ROWS)
    rows = ingest.typed(source, data)
    settings = config.Model(seed=seed, params={"max_iter": 10 + seed})
    fitted = train.fit(rows, data, settings)
    to.mkdir(parents=True)
    train.save(fitted, to / "model.skops")
    shutil.copytree(problem, to / "problem", ignore=shutil.ignore_patterns("__pycache__"))
    features = module("problem.features").features
    given = inference.predict(fitted, rows, data, features)
    dtype = pl.Array(pl.Float64, given.shape[1]) if given.ndim == 2 else pl.Float64
    predictions = pl.DataFrame({"given": pl.Series(given.tolist(), dtype=dtype)})
    profile = module("pipeline.package").profile(rows, predictions, data)
    for name, content in (("contract", data.model_dump()), ("profile", profile)):
        (to / f"{name}.json").write_text(json.dumps(content))
    digest = module("documents").digest
    files = {
        path.relative_to(to).as_posix(): digest(path)
        for path in sorted(to.rglob("*"))
        if path.is_file()
    }
    whole, now = inference.package_digest(files), datetime.now(UTC)
    manifest = {
        "version": f"{now:%Y%m%d-%H%M%S}-{whole[7:15]}",
        "created": now.isoformat(),
        "package_digest": whole,
        "model_digest": files["model.skops"],
        "files": files,
    }
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to
