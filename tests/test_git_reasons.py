"""What Git refuses is told with Git's own reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import git
from plumbum import local
from rung import UsageError, pre_update
from rung.adopt import repository


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """Return a repository with a commit, which Git takes for another user's."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".copier-answers.yml").write_text("_commit: v1\n_src_path: x\nlevel: 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=T", "-c", "user.email=t@example.invalid", "commit", "-qm", "one")
    # Git's own way to test this; rung starts Git by plumbum, which has an environment of its own.
    with local.env(GIT_TEST_ASSUME_DIFFERENT_OWNER="1"):
        yield tmp_path


def test_an_update_of_another_users_repository_says_that_git_does_not_trust_it(
    foreign: Path,
) -> None:
    with pytest.raises(
        UsageError, match=r"belongs to another user\. Run: git config .*safe.directory"
    ):
        pre_update.check(foreign)


def test_adopting_another_users_repository_says_so_too(foreign: Path) -> None:
    (foreign / ".copier-answers.yml").unlink()
    with pytest.raises(UsageError, match="belongs to another user"):
        repository.inspect(foreign)


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".copier-answers.yml").write_text("_commit: v1\n_src_path: x\nlevel: 1\n")
    with pytest.raises(UsageError, match="has no commit yet"):
        pre_update.check(tmp_path)
