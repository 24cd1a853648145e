"""Re-runs, branches, tags, queues and jobs that never end."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import graph
import pytest
from conftest import Render
from graph import Files

LEVELS = [0, 1, 2]


@pytest.fixture(scope="module")
def files(render: Render) -> Callable[[int], tuple[Files, Files]]:
    return lambda level: graph.read(render(level=level, ci=["github", "gitlab"]))


Read = Callable[[int], tuple[Files, Files]]


def jobs(files: Files) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}.{job}", about)
        for name, flow in graph.workflows(files).items()
        for job, about in flow["jobs"].items()
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_every_job_has_a_time_limit(files: Read, level: int) -> None:
    github, gitlab = files(level)
    for name, job in jobs(github):
        if "uses" not in job:  # a call has those of what it calls
            longest = (
                350 if name == "score.score" else 120
            )  # many rows; GitHub ends a job after 360
            assert 0 < job["timeout-minutes"] <= longest, name
    assert all(job.get("timeout") for job in graph.jobs_of(gitlab).values())


@pytest.mark.parametrize("level", LEVELS)
def test_a_job_that_is_run_again_replaces_what_it_left(files: Read, level: int) -> None:
    """Artifacts of an earlier attempt stay: without `overwrite` a second upload is a 409."""
    uploads = [
        (name, step["with"])
        for name, job in jobs(files(level)[0])
        for step in job.get("steps", [])
        if "upload-artifact@" in step.get("uses", "")
    ]
    assert bool(uploads) is (level > 0)
    for name, about in uploads:
        assert about.get("overwrite") is True, name


@pytest.mark.parametrize("level", LEVELS)
def test_no_branch_is_known_by_its_name_and_no_tag_is_taken_for_it(files: Read, level: int) -> None:
    github, gitlab = files(level)
    assert not re.search(r"\b(main|master)\b", str(github))
    assert not re.search(r"\b(main|master)\b", str(gitlab))
    for path, content in github.items():
        for key, value in graph.walk(content):
            if key == "if":
                assert "ref_name" not in str(value), path
    # GitLab knows no branch where a tag is what runs.
    for name, job in graph.jobs_of(gitlab).items():
        for rule in job.get("rules", []):
            assert "CI_COMMIT_REF_NAME" not in str(rule), name
            assert "CI_COMMIT_TAG" not in str(rule), name


@pytest.mark.parametrize("level", LEVELS)
def test_whatever_writes_or_deploys_runs_on_the_default_branch_alone(
    files: Read, level: int
) -> None:
    """By hand a workflow may be started on any branch, with the branch's own files."""
    flows = graph.workflows(files(level)[0])
    for name, flow in flows.items():
        if "workflow_dispatch" not in flow[True] or name in ("checks", "audit"):
            continue
        for job, about in flow["jobs"].items():
            if "needs" not in about:
                assert about["if"] in (graph.DEFAULT, graph.TIMED), f"{name}.{job}"


def test_checks_and_pipeline_run_in_a_merge_queue(files: Read) -> None:
    flows = graph.workflows(files(2)[0])
    for name in ("checks", "pipeline"):
        assert "merge_group" in flows[name][True]


@pytest.mark.parametrize("level", LEVELS)
def test_a_check_that_may_be_required_is_never_skipped_by_the_push_of_a_branch(
    files: Read, level: int
) -> None:
    """A check that was skipped counts as passed: whoever pushes a branch would choose it."""
    flows = graph.workflows(files(level)[0])
    required = {"checks", "pipeline"} & set(flows)
    for name in required:
        assert "push" not in flows[name][True]
        for job, about in flows[name]["jobs"].items():
            condition = str(about.get("if", ""))
            assert "github.ref" not in condition, f"{name}.{job}"


def test_a_request_is_judged_by_the_settings_of_its_base_too(files: Read) -> None:
    github, gitlab = files(2)
    candidate = graph.workflows(github)["pipeline"]["jobs"]["candidate"]
    checkout, *_ = candidate["steps"]
    # The base is the first parent of the merge that is checked out, so that has to be fetched too.
    assert checkout["with"]["fetch-depth"] == (
        "${{ github.event_name == 'merge_group' && '0' || '2' }}"
    )
    (run,) = (step for step in candidate["steps"] if "ml run" in step.get("run", ""))
    assert run["env"]["ML_BASE"] == "${{ github.event.merge_group.base_sha || 'HEAD^1' }}"
    first, second = graph.own(graph.jobs_of(gitlab)["candidate"]["script"])
    target = '"$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"'
    assert first == f"git fetch --quiet --depth 1 origin {target}; export ML_BASE=FETCH_HEAD"
    assert second == "uv run ml run"
