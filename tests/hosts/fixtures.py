"""Fixtures to import into a test module: a registry for the session, and hosts that are closed."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need

from hosts import Host
from hosts.forgejo import Forgejo, Gitea
from hosts.github import GitHub, act
from hosts.gitlab import NODE, GitLab
from hosts.registry import serving

HOSTS: dict[str, type[Host]] = {
    "github": GitHub,
    "gitlab": GitLab,
    "forgejo": Forgejo,
    "gitea": Gitea,
}
numbers = itertools.count()


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry of containers."""
    with serving(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Bring a project's folder to a platform, such as "github"; options are those of a Host.

    With registry=ADDRESS the variables ML_REGISTRY and ML_IMAGES name places there.
    """
    made: list[Host] = []

    def hosted(platform: str, project: Path, **options: Any) -> Host:
        ready(platform)
        if options.get("registry"):
            name = f"{options['registry']}/team/project-{tmp_path.name.lower()}-{next(numbers)}"
            places = {"ML_REGISTRY": f"oci+http://{name}/models", "ML_IMAGES": f"{name}/service"}
            options["variables"] = places | dict(options.get("variables", {}))
        folder = tmp_path / f"{platform}-{len(made)}"
        made.append(HOSTS[platform](project, folder, **options))
        return made[-1]

    yield hosted
    for host in made:
        host.close()


def ready(platform: str) -> None:
    """Leave a test out where its platform's program cannot be installed; see conftest.need."""
    need("git", "rsync")
    missing = not act() if platform != "gitlab" else not (NODE / "gitlab-ci-local").exists()
    if missing:
        may_install = shutil.which("npm") or platform != "gitlab"
        message = f"needs what runs {platform}'s pipelines: run .ci/packages"
        (pytest.fail if may_install else pytest.skip)(message)
