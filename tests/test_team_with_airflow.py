"""A team that has Airflow keeps it: from a new project to an update, one way, with all of it real.

What `rung update` checks at its end is left out here: tests/test_rung_update.py has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Copy, Project, copy, git
from test_new import Made, released, rung
from test_orchestrators import Orchestrator
from test_rung_update import commit, two, uv

__all__ = ["released", "rung", "two"]

pytestmark = [pytest.mark.slow, pytest.mark.nightly]  # a minute, and Airflow's environment
FILE = "orchestration/airflow/flight_delays.py"


def test_airflow_runs_the_project_refuses_a_poisoned_commit_and_follows_an_update(
    rung: Callable[..., Made], two: Path, project: Callable[[int], Project], tmp_path: Path
) -> None:
    team = copy(two, tmp_path / "team", {"level": 1}, vcs_ref="v1.1.0")
    git(team, "init", "-q", "-b", "main")
    ml = Copy(project(1), team).ml
    program = project(1).path / ".venv/bin/ml"
    (team / "config/export.yaml").write_text(
        f"command: [{program}]\nlast: register\nretry_delay_seconds: 0\n"
    )
    assert rung("export", "airflow", cwd=team).returncode == 0
    commit(team)
    airflow = Orchestrator("airflow", tmp_path / "airflow")
    airflow.home.mkdir()

    trained = airflow.run(team)
    assert trained.ok, trained.log
    version = json.loads((team / "artifacts/model/manifest.json").read_text())["version"]
    assert version in ml("models", exits=0).stdout
    commit(team)

    source = team / yaml.safe_load((team / "config/data.yaml").read_text())["source"]
    header, _, rows = source.read_text().partition("\n")
    source.write_text(f"{header}\n" + rows.replace("EWR", "XXX"))
    commit(team)
    poisoned = airflow.run(team)
    assert not poisoned.ok, poisoned.log
    reason = ml("run", exits=1).stderr.strip().splitlines()[-1].strip()
    assert reason
    assert reason in poisoned.log
    commit(team)
    git(team, "revert", "--no-edit", "HEAD~1", "HEAD")

    updated = rung("update", cwd=team, first=uv(tmp_path / "bin"))
    assert updated.returncode == 0, updated.stderr
    assert f"Updated {FILE}" in updated.stdout
    assert rung("export", "airflow", "--check", cwd=team).returncode == 0
    commit(team)
    followed = airflow.run(team)
    assert followed.ok, followed.log
    assert (team / "artifacts/note.txt").read_text() == "noted\n"
    assert "Stage 'train' didn't change, skipping" in followed.log
