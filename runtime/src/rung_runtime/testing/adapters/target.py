"""What every target promises."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from ... import RefusedError
from ...delivery.target import Target
from ...http_client import http_json
from ..model_formats import ModelFormatContract as ModelFormatContract


class Release(NamedTuple):
    """What a target is given to serve."""

    version: str
    digest: str  # of the package
    image: str | None = None  # NAME@sha256:DIGEST, for a target that runs images


class TargetContract:
    """Inherit it, and give the fixtures `open_target`, `releases` and `unservable`.

    Each call of `open_target` opens the same target anew, as another command would. Nothing is
    deployed there at first.
    """

    keeps_serving = True  # False: it serves only while `serving_url` is open

    @pytest.fixture
    def open_target(self) -> Callable[[], Target]:
        raise NotImplementedError("give a fixture open_target: see TargetContract")

    @pytest.fixture
    def releases(self) -> tuple[Release, Release]:
        """Return two versions that can be served, the earlier one first."""
        raise NotImplementedError("give a fixture releases: see TargetContract")

    @pytest.fixture
    def unservable(self) -> Release:
        """Return a version that does not come to serve."""
        raise NotImplementedError("give a fixture unservable: see TargetContract")

    def test_a_version_that_was_switched_to_serves(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        for release in releases:
            assert _served(_switched(open_target(), release)) == release.version

    def test_what_should_serve_is_the_targets_own_to_remember(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        first, second = releases
        assert open_target().desired_version() is None
        _switched(open_target(), first)
        other = open_target()
        other.check(first.image)
        other.ensure_running()
        expected = first.version if self.keeps_serving else None
        assert other.desired_version() == expected
        assert other.is_serving(first.version, first.digest) == self.keeps_serving
        assert not other.is_serving(second.version, second.digest)

    def test_to_switch_again_changes_nothing(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        for _ in range(2):
            target = _switched(open_target(), releases[0])
        assert _served(target) == releases[0].version

    def test_the_previous_version_is_restored(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        first, second = releases
        _switched(open_target(), first)
        target = _switched(open_target(), second)
        target.restore(first.version, first.digest)
        if self.keeps_serving:
            assert open_target().desired_version() == first.version
            assert _served(open_target()) == first.version

    def test_a_first_version_is_taken_back_without_an_error(
        self, open_target: Callable[[], Target], releases: tuple[Release, Release]
    ) -> None:
        _switched(open_target(), releases[0]).restore(None, None)
        assert open_target().desired_version() in (None, releases[0].version)

    def test_a_version_that_does_not_serve_is_refused_with_a_reason(
        self,
        open_target: Callable[[], Target],
        releases: tuple[Release, Release],
        unservable: Release,
    ) -> None:
        target = _switched(open_target(), releases[0])
        with pytest.raises(RefusedError, match=r"\w+"):
            _served(_switched(open_target(), unservable))
        if self.keeps_serving:
            target.restore(releases[0].version, releases[0].digest)
            assert _served(open_target()) == releases[0].version

    def test_its_name_is_that_of_the_option(self, open_target: Callable[[], Target]) -> None:
        """As in `ml deploy --target`; only production makes a champion."""
        target = open_target()
        assert target.name == target.name.strip() != ""
        assert target.promotes in (True, False)
        assert target.promotes != ("staging" in target.name)


def _switched(target: Target, release: Release) -> Target:
    """Have a release served, in the order of `ml deploy`."""
    target.check(release.image)
    target.ensure_running()
    target.switch(release.version, release.digest)
    return target


def _served(target: Target) -> object:
    """Return the version that the service itself answers with."""
    with target.serving_url() as url:
        status, answer = http_json(f"{url}/version")
    assert status == 200
    assert isinstance(answer, dict)
    return answer["version"]
