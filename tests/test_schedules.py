"""The script that creates GitLab's schedules, which no YAML can: run against a stand-in API."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Render
from hosts.api import ACCESS, Api


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        yield server


def run(project: Path, url: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script as its docstring says."""
    command = [sys.executable, ".gitlab/schedules", "team/project"]
    known = {"CI_API_V4_URL": f"{url}/api/v4", "GITLAB_TOKEN": ACCESS} | env
    return subprocess.run(
        command, cwd=project, env=known, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("level", "names"),
    [
        (1, {"train", "monitor", "audit"}),
        (2, {"train", "monitor", "audit", "drill"}),
    ],
)
def test_a_level_has_the_schedules_of_its_pipelines(
    render: Render, api: Api, level: int, names: set[str]
) -> None:
    done = run(render(level=level, ci=["gitlab"]), api.url)
    assert done.returncode == 0, done.stderr
    made = {schedule["inputs"][0]["value"]: schedule for schedule in api.schedules}
    assert set(made) == names
    assert {schedule["ref"] for schedule in made.values()} == {"refs/heads/main"}
    assert {schedule["inputs"][0]["name"] for schedule in made.values()} == {"pipeline"}
    assert all(len(schedule["cron"].split()) == 5 for schedule in made.values())
    assert api.unknown == []


def test_nothing_is_scored_on_a_schedule_until_a_source_is_configured(
    render: Render, api: Api, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(render(level=1, ci=["gitlab"]), project)
    assert run(project, api.url).returncode == 0
    assert "ml: score" not in {schedule["description"] for schedule in api.schedules}
    with (project / "config/delivery.yaml").open("a") as file:
        file.write("score: {source: in, sink: out}\n")
    assert run(project, api.url).returncode == 0
    assert "ml: score" in {schedule["description"] for schedule in api.schedules}


def test_again_brings_them_up_to_date_and_leaves_others_alone(render: Render, api: Api) -> None:
    project = render(level=2, ci=["gitlab"])
    other = {
        "id": 1,
        "description": "the team's own",
        "ref": "refs/heads/main",
        "cron": "0 0 * * *",
    }
    api.schedules.append(dict(other))
    run(project, api.url)
    wanted = api.schedules[1]["cron"]
    api.schedules[1]["cron"] = "5 5 5 5 5"
    done = run(project, api.url)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout
    assert len(api.schedules) == 5
    assert api.schedules[1]["cron"] == wanted
    assert api.schedules[0] == other


@pytest.mark.parametrize(("role", "warned"), [("no_one_allowed", False), ("developer", True)])
def test_variables_that_go_before_gitlabs_own_are_warned_of(
    render: Render, api: Api, role: str, warned: bool
) -> None:
    api.may_set_variables = role
    done = run(render(level=1, ci=["gitlab"]), api.url)
    assert done.returncode == 0, done.stderr
    assert ("forbid pipeline variables" in done.stderr) is warned
    assert api.schedules


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"GITLAB_TOKEN": ""}, "set GITLAB_TOKEN"),
        ({"GITLAB_TOKEN": "another"}, "is answered with 401"),
        ({"CI_API_V4_URL": "http://127.0.0.1:9/api/v4"}, "cannot be asked"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    render: Render, api: Api, env: dict[str, str], reason: str
) -> None:
    done = run(render(level=2, ci=["gitlab"]), api.url, **env)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert api.schedules == []
