"""Fixtures to import into a test module: be a job of a request, and the API that it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hosts.api import ACCESS, TOKEN, Api, Comment


@pytest.fixture
def api() -> Iterator[Api]:
    """Serve the stand-in of both APIs."""
    with Api() as server:
        yield server


@pytest.fixture
def runner(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Be a job of a pull request on a platform, with more or less in its environment."""

    def runner(name: str, **more: str) -> None:
        (tmp_path / "event.json").write_text('{"number": 1}')
        env = {
            "github": {
                "GITHUB_ACTIONS": "true",
                "GITHUB_ACTOR": "somebody",
                "GITHUB_API_URL": api.url,
                "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
                "GITHUB_REPOSITORY": "Team/Project",
                "GITHUB_TOKEN": TOKEN,
                "GITHUB_WORKSPACE": str(tmp_path),
                "ML_JOBS": '{"train": {"result": "success"}, "image": {"result": "skipped"}}',
            },
            "gitlab": {
                "CI_API_V4_URL": f"{api.url}/api/v4",
                "CI_DEFAULT_BRANCH": "main",
                "CI_JOB_TOKEN": TOKEN,
                "CI_MERGE_REQUEST_IID": "1",
                "CI_PIPELINE_ID": "1001",
                "CI_PROJECT_DIR": str(tmp_path),
                "CI_PROJECT_ID": "1",
                "CI_REGISTRY_IMAGE": "ghcr.io/Team/Project",  # any host
                "CI_REGISTRY_USER": "somebody",
                "CI_REGISTRY_PASSWORD": TOKEN,
                "GITLAB_TOKEN": ACCESS,
            },
        }[name]
        for variable in ("GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY"):
            monkeypatch.delenv(variable, raising=False)
        for variable, value in (env | more).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.chdir(tmp_path)

    return runner


def quoted(name: str, api: Api, text: str) -> None:
    """Have a person say something in the request."""
    thread = {"github": "Team/Project/pull/1", "gitlab": "1/merge_requests/1"}[name]
    api.notes.append(Comment(1_000 + len(api.notes), thread, text, human=True))
