"""A team that has Spark adds it to a project, and works through a source with it; all is real."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tables
from conftest import copy, environment, git
from polars.testing import assert_frame_equal
from test_new import Made, released, rung
from test_rung_update import commit

__all__ = ["released", "rung"]

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.needs("groovy")]  # needs Java, too


def made(sink: Path) -> pl.DataFrame:
    """Return all rows of the files of a sink, in the order of their names."""
    files = sorted(sink.rglob("*.parquet"))
    assert len(files) == 3, files
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def test_a_team_adds_spark_and_gets_the_verdict_features_and_scores_of_one_machine(
    rung: Callable[..., Made], released: Path, tmp_path: Path
) -> None:
    team = copy(released, tmp_path / "team", {"level": 1}, vcs_ref="v1.0.0")
    git(team, "init", "-q", "-b", "main")
    commit(team)
    env = environment(tmp_path / "home")

    def run(*command: str, exits: int = 0, **variables: str) -> str:
        done = subprocess.run(
            command, cwd=team, env=env | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == exits, done.stdout + done.stderr
        return done.stderr

    run("make", "setup")
    commit(team)
    added = rung("add", "engine", "spark", cwd=team)
    assert added.returncode == 0, added.stderr
    about = tomllib.loads((team / "pyproject.toml").read_text())
    assert about["tool"]["rung"]["engine"] == "spark"
    commit(team)
    run("make", "setup")
    assert git(team, "status", "--porcelain") == "", "rung add has locked what it requires"
    run("uv", "run", "ml", "run")

    rows = pl.read_csv(tables.FLIGHTS, infer_schema=False)
    (team / "rows").mkdir()
    for number in range(3):
        part = rows[number * 1_000 : (number + 1) * 1_000]
        part.write_parquet(team / f"rows/part-{number}.parquet")
    # Whose engine it is where no command names one: it wants Java.
    message = run("uv", "run", "ml", "validate", "rows", exits=2, JAVA_HOME=str(tmp_path / "none"))
    assert "Spark cannot start, is there Java 17 or later?" in message
    documents: list[Any] = []
    for engine in ([], ["--engine", "polars"]):  # what the project has now, and one machine
        name = engine[-1] if engine else "spark"
        run("uv", "run", "ml", "validate", "rows", *engine)
        documents.append(json.loads((team / "artifacts/source_validation.json").read_text()))
        run("uv", "run", "ml", "features", "rows", "--to", f"features-{name}", *engine)
        package = ["--package", "artifacts/model"]
        run("uv", "run", "ml", "score", "rows", "--to", f"scores-{name}", *package, *engine)
    by_spark, by_polars = documents
    for key in ("verdict", "rows", "columns", "failures", "partitions"):
        assert by_spark[key] == by_polars[key], key
    assert (by_spark["verdict"], by_spark["rows"]) == ("passed", 3_000)
    assert made(team / "features-spark").equals(made(team / "features-polars"))
    scores = [made(team / f"scores-{name}/scored") for name in ("spark", "polars")]
    same = [column for column in scores[0].columns if column != "request_id"]
    assert_frame_equal(*(table.select(same) for table in scores), rel_tol=0, abs_tol=1e-9)
