"""A job of an older commit that is run again does not replace a newer champion unsaid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import git
from rung_runtime import RefusedError

Module = Callable[[str], ModuleType]
OLD = "2026-01-01T00:00:00+00:00"
NEW = "2026-02-01T00:00:00+00:00"


@pytest.fixture
def checkout(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module, in a repository of two commits, of which the second has an older time."""
    git(tmp_path, "init", "-q", "-b", "main")
    for number, day in (("1", "2026-03-02"), ("2", "2026-03-01")):
        (tmp_path / "file").write_text(number)
        git(tmp_path, "add", "-A")
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{day}T12:00:00+0000")
        git(tmp_path, "commit", "-qm", number)
    monkeypatch.chdir(tmp_path)
    return module("registry.checkout")


def test_git_decides_where_it_knows_both_commits(checkout: ModuleType, tmp_path: Path) -> None:
    first, second = git(tmp_path, "rev-list", "--reverse", "HEAD").split()
    times = {commit: checkout.committed(commit) for commit in (first, second)}
    assert times == {first: "2026-03-02T12:00:00+00:00", second: "2026-03-01T12:00:00+00:00"}
    assert checkout.is_older(first, times[first], second, times[second])
    assert not checkout.is_older(second, times[second], first, times[first])
    assert not checkout.is_older(first, times[first], first, times[first])
    assert checkout.is_older(f"{first}-dirty", "unknown", second, "unknown")


@pytest.mark.parametrize(
    ("ours", "since", "theirs", "other_since", "older"),
    [
        ("a" * 40, OLD, "b" * 40, NEW, True),
        ("a" * 40, NEW, "b" * 40, OLD, False),
        ("a" * 40, "unknown", "b" * 40, NEW, False),  # registered by 0.2
        ("none", OLD, "b" * 40, NEW, False),
        ("--all", OLD, "b" * 40, NEW, False),  # what somebody wrote into the registry
        ("HEAD; id", OLD, "b" * 40, NEW, False),
    ],
)
def test_times_decide_where_a_runner_has_one_commit_alone(
    checkout: ModuleType, ours: str, since: str, theirs: str, other_since: str, older: bool
) -> None:
    assert checkout.is_older(ours, since, theirs, other_since) is older


def version(name: str, commit: str, since: str) -> SimpleNamespace:
    facts = {"commit": commit, "committed": since}
    return SimpleNamespace(version=name, facts=facts, __str__=lambda: name)


def test_the_refusal_says_both_commits_and_how_to_do_it_all_the_same(
    module: Module, checkout: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion = module("registry.promotion")
    old = version("v1", "a" * 40, OLD)
    champion = version("v2", "b" * 40, NEW)
    settings = SimpleNamespace(accept_incomparable=None)
    monkeypatch.setattr(promotion, "load_delivery", lambda: settings)
    with pytest.raises(RefusedError) as caught:
        promotion._require_newer(old, champion)
    message = str(caught.value)
    assert re.search(r"aaaaaaaa \(2026-01-01.*older than bbbbbbbb \(2026-02-01", message)
    assert "accept_incomparable of config/delivery.yaml" in message
    promotion._require_newer(champion, old)
    settings.accept_incomparable = "v2"  # said, so it is done
    promotion._require_newer(old, champion)


class Store:
    """A registry of two versions, of which the newer one is the champion."""

    def __init__(self, *versions: SimpleNamespace) -> None:
        self.known = list(versions)
        self.aliases = {"champion": versions[-1].version}

    def names(self) -> list[str]:
        return [version.version for version in self.known]

    def version(self, name: str) -> SimpleNamespace | None:
        return next((version for version in self.known if version.version == name), None)

    def versions(self, newest: int | None = None) -> list[SimpleNamespace]:
        return self.known

    def alias(self, name: str) -> str | None:
        return self.aliases.get(name)

    def get(self, note: str) -> str | None:
        return None

    def set(self, note: str, text: str) -> None: ...

    def point(self, name: str, version: str) -> None:
        self.aliases[name] = version

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        yield lambda: None


def test_promote_asks(
    module: Module, checkout: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = module("registry")
    first, second, model = (f"sha256:{n}" for n in ("1" * 64, "2" * 64, "3" * 64))
    facts = {"commit": "a" * 40, "committed": OLD, "compared_with": second}
    old = registry.Version("v1", first, model, OLD, facts)
    newer = facts | {"commit": "b" * 40, "committed": NEW}
    champion = registry.Version("v2", second, model, NEW, newer)
    store = Store(old, champion)
    for name in ("champion", "promotion", "resolve"):
        monkeypatch.setattr(module(f"registry.{name}"), "open_registry", lambda: store)
    promotion = module("registry.promotion")
    monkeypatch.setattr(
        promotion, "load_delivery", lambda: SimpleNamespace(accept_incomparable=None)
    )
    with pytest.raises(RefusedError, match="older than"):
        registry.promote("v1")
    assert store.alias("champion") == "v2"
    monkeypatch.setattr(
        promotion, "load_delivery", lambda: SimpleNamespace(accept_incomparable="v2")
    )
    registry.promote("v1")
    assert store.alias("champion") == "v1"
