"""The slot forge: what `ml` asks of GitHub and of GitLab, of a stand-in of their APIs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hosts.api import TOKEN, Api
from hosts.jobs import api, quoted, runner
from rung_runtime import UsageError

__all__ = ["api", "runner"]
Import = Callable[[str], ModuleType]
NAMES = ["github", "gitlab"]
names = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def forge(module: Import) -> ModuleType:
    return module("ci_platform")


def test_a_laptop_is_no_runner(
    forge: ModuleType, module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("CI_API_V4_URL", raising=False)
    assert forge.current_platform() is None
    with pytest.raises(UsageError, match="not running inside a supported CI job"):
        forge.require_platform()


@names
def test_a_runner_knows_its_registry_in_the_lower_case_that_registries_ask_for(
    name: str, runner: Callable[..., None], forge: ModuleType
) -> None:
    runner(name)
    assert forge.require_platform().registry_prefix() == "ghcr.io/team/project"
    assert forge.require_platform().credentials() == ("somebody", TOKEN)


@names
def test_without_a_token_there_are_no_credentials(
    name: str, runner: Callable[..., None], forge: ModuleType
) -> None:
    runner(name, GITHUB_TOKEN="", CI_REGISTRY_PASSWORD="")
    assert forge.require_platform().credentials() is None


@names
def test_a_comment_is_written_once_and_then_replaced(
    name: str, runner: Callable[..., None], forge: ModuleType, api: Api
) -> None:
    runner(name)
    for text in ("refused", "passed"):
        assert forge.require_platform().comment(text) is None
    assert api.comments == [f"{forge.MARK}\npassed"]


@names
def test_a_comment_of_somebody_who_quotes_ours_is_left_alone(
    name: str, runner: Callable[..., None], forge: ModuleType, api: Api
) -> None:
    runner(name)
    quoted(name, api, f"> {forge.MARK}\n> refused")
    assert forge.require_platform().comment("passed") is None
    assert len(api.comments) == 2
    assert api.comments[-1].endswith("passed")


@names
def test_a_comment_is_found_behind_a_hundred_others(
    name: str, runner: Callable[..., None], forge: ModuleType, api: Api
) -> None:
    runner(name)
    for n in range(130):
        quoted(name, api, f"comment {n}")
    for text in ("refused", "passed"):
        forge.require_platform().comment(text)
    assert [text for text in api.comments if forge.MARK in text] == [f"{forge.MARK}\npassed"]


def test_where_no_token_may_write_notes_gitlab_says_which_is_missing(
    runner: Callable[..., None], forge: ModuleType, api: Api
) -> None:
    runner("gitlab", GITLAB_TOKEN="")
    assert "GITLAB_TOKEN" in forge.require_platform().comment("passed")
    assert forge.require_platform().jobs() == {}
    assert api.comments == []


def test_a_push_is_no_pull_request(
    runner: Callable[..., None], forge: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner("github")
    (tmp_path / "event.json").write_text("{}")
    assert "not a pull request" in forge.require_platform().comment("passed")
    runner("gitlab")
    monkeypatch.delenv("CI_MERGE_REQUEST_IID")
    assert "not a merge request" in forge.require_platform().comment("passed")


@names
def test_a_token_that_may_not_is_a_sentence(
    name: str, runner: Callable[..., None], forge: ModuleType, module: Import
) -> None:
    runner(name, GITHUB_TOKEN="another", GITLAB_TOKEN="another", CI_JOB_TOKEN="another")
    for ask in (lambda: forge.require_platform().comment("passed"), forge.require_platform().train):
        with pytest.raises(UsageError, match=r"answers 40\d .*: may the job's token"):
            ask()


@names
def test_an_api_that_is_down_is_a_sentence(
    name: str, runner: Callable[..., None], forge: ModuleType, module: Import
) -> None:
    down = "http://127.0.0.1:9"
    runner(name, GITHUB_API_URL=down, CI_API_V4_URL=down)
    with pytest.raises(UsageError, match="the API does not answer"):
        forge.require_platform().train()


@names
def test_a_training_is_started_by_the_platform(
    name: str, runner: Callable[..., None], forge: ModuleType, api: Api
) -> None:
    runner(name)
    forge.require_platform().train()
    (event,) = api.dispatched
    if name == "github":
        assert event["kind"] == "train"


def test_github_tells_how_jobs_ended(runner: Callable[..., None], forge: ModuleType) -> None:
    runner("github")
    assert forge.require_platform().jobs() == {"train": "success", "image": "skipped"}


@names
def test_the_default_registry_is_the_platforms_own_and_any_other_is_used_as_it_is(
    name: str, runner: Callable[..., None], module: Import, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    runner(name)
    settings = module("config.delivery")
    registry = module("registry")
    references = module("registry.references")
    opened: list[str] = []
    adapter = module("adapters.registry_oci")
    monkeypatch.setattr(adapter, "open_registry", opened.append)
    for wanted in ("registry", "oci://harbor.example/team", "elsewhere"):
        delivery = settings.Delivery(registry=wanted)
        monkeypatch.setattr(references, "load_delivery", lambda delivery=delivery: delivery)
        registry.open_registry()
    monkeypatch.setenv("ML_REGISTRY", "rehearsal")
    registry.open_registry()
    own = "oci://ghcr.io/team/project/models"
    assert opened == [own, "oci://harbor.example/team", "elsewhere", "rehearsal"]


@names
def test_a_jobs_token_goes_to_its_platforms_registry_alone(
    name: str, runner: Callable[..., None], module: Import, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runner(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {}}))

    def login(url: str) -> Any:
        return module("oci_client").Remote(url).login

    assert login("oci://ghcr.io/team/project/models").password == TOKEN
    assert not login("oci://harbor.example/team/models")


@pytest.mark.parametrize(
    ("server", "runner_of", "host"),
    [
        ("https://github.com", "", "ghcr.io"),
        ("https://GitHub.com/", "", "ghcr.io"),
        ("https://acme.ghe.com", "", "containers.acme.ghe.com"),
        ("https://git.example.com", "", "containers.git.example.com"),
        ("https://git.example.com:8443/x", "", "containers.git.example.com:8443"),
        ("https://github.com.example.com", "", "containers.github.com.example.com"),
        ("https://github.com@example.com", "", "containers.example.com"),
        ("https://git.example.com", "GITEA_ACTIONS", "git.example.com"),
        ("http://git.example.com:3000/", "GITEA_ACTIONS", "git.example.com:3000"),
        ("https://codeberg.org", "FORGEJO_ACTIONS", "codeberg.org"),
    ],
)
def test_the_registry_is_the_servers_own_and_nobody_else_gets_its_token(
    server: str, runner_of: str, host: str, runner: Callable[..., None], forge: ModuleType
) -> None:
    runner("github", GITHUB_SERVER_URL=server, **({runner_of: "true"} if runner_of else {}))
    assert forge.require_platform().registry_prefix() == f"{host}/team/project"
    for other in ("ghcr.io", "docker.io", "git.example.com", host):
        known = forge.registry_credentials(other)
        assert known == (("somebody", TOKEN) if other == host else None)


@pytest.mark.parametrize(
    "env", [{"GITHUB_SERVER_URL": ""}, {"GITHUB_SERVER_URL": "https://github.com"}]
)
def test_a_server_that_does_not_say_where_it_is_gets_no_registry_of_somebody_else(
    env: dict[str, str], runner: Callable[..., None], forge: ModuleType, module: Import
) -> None:
    runner("github", GITEA_ACTIONS="true", **env)
    with pytest.raises(UsageError, match="GITHUB_SERVER_URL"):
        forge.require_platform().registry_prefix()
    assert forge.registry_credentials("ghcr.io") is None


def test_a_gitlab_without_a_registry_is_a_sentence_and_another_one_works(
    runner: Callable[..., None], module: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runner("gitlab")
    monkeypatch.delenv("CI_REGISTRY_IMAGE")
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    registry = module("registry")
    with pytest.raises(UsageError, match=r"has no container registry .* ML_REGISTRY"):
        registry.open_registry()
    monkeypatch.setenv("ML_REGISTRY", "oci://harbor.example/team/models")
    store = registry.open_registry().store
    assert store.base == "https://harbor.example/v2/team/models/"
    assert not store.login
    monkeypatch.setenv("ML_REGISTRY", str(tmp_path / "registry"))
    assert registry.open_registry().versions() == []
