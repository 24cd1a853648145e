"""What every CI platform promises."""

from collections.abc import Callable
from typing import Protocol

import pytest

from ... import UsageError
from ...ci_platform import MARK, Platform
from ..model_formats import ModelFormatContract as ModelFormatContract

LONGER_THAN_ANY_COMMENT = "x" * 2_000_000
RESULTS = {"success", "failure", "skipped", "cancelled"}


class Job(Protocol):
    """A job of a pull request, on a platform or what stands in for one."""

    def comments(self) -> list[str]:
        """Return the comments of the pull request, the oldest first."""

    def say(self, text: str) -> None:
        """Have a person write a comment."""

    def trainings(self) -> int:
        """Return how many trainings were started."""

    def revoke(self) -> None:
        """Have the platform refuse the tokens of the job from now on."""

    def leave(self) -> None:
        """Be a process that is not a job of the platform."""


class PlatformContract:
    """Inherit it, and give the fixtures `detect`, `job`: this process is that job."""

    @pytest.fixture
    def detect(self) -> Callable[[], Platform | None]:
        """Return the function of the adapter."""
        raise NotImplementedError("give a fixture detect: see PlatformContract")

    @pytest.fixture
    def job(self) -> Job:
        raise NotImplementedError("give a fixture job: see PlatformContract")

    def test_only_a_job_has_a_platform(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        platform = _platform(detect)
        assert platform.name
        assert platform.workspace.is_dir()
        job.leave()
        assert detect() is None

    def test_its_registry_is_a_host_and_a_name_in_lower_case(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        host, _, name = _platform(detect).registry_prefix().partition("/")
        assert "." in host or ":" in host
        assert name
        assert name == name.lower().strip("/")
        user, password = _platform(detect).credentials() or ("", "")
        assert user
        assert password

    def test_the_comment_is_written_once_and_then_replaced(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        job.say("a person's own words")
        for text in ("refused", "passed"):
            assert _platform(detect).comment(text) is None
        assert job.comments() == ["a person's own words", f"{MARK}\npassed"]

    def test_a_comment_that_quotes_the_report_is_left_alone(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        quote = f"> {MARK}\n> refused"
        job.say(quote)
        assert _platform(detect).comment("passed") is None
        assert job.comments() == [quote, f"{MARK}\npassed"]

    def test_a_comment_is_cut_to_what_the_platform_takes_and_keeps_its_end(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        assert _platform(detect).comment(LONGER_THAN_ANY_COMMENT, tail="\nthe end") is None
        comments = job.comments()
        assert len(comments) == 1
        comment = comments[0]
        assert comment.startswith(MARK)
        assert comment.endswith("\nthe end")
        assert len(comment) < len(LONGER_THAN_ANY_COMMENT)

    def test_a_training_is_started_once(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        _platform(detect).train()
        assert job.trainings() == 1

    def test_a_token_that_may_not_is_a_sentence(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        job.revoke()
        platform = _platform(detect)
        with pytest.raises(UsageError, match="token"):
            platform.train()
        with pytest.raises(UsageError, match="token"):
            platform.comment("passed")
        assert job.comments() == []
        assert job.trainings() == 0

    def test_jobs_have_results_that_the_comment_knows(
        self, detect: Callable[[], Platform | None], job: Job
    ) -> None:
        jobs = _platform(detect).jobs()
        assert jobs
        assert all(jobs)
        assert set(jobs.values()) <= RESULTS

    def test_a_notice_is_seen_and_cannot_be_a_command_of_the_text(
        self,
        detect: Callable[[], Platform | None],
        job: Job,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        _platform(detect).notice("it serves\n::error::no\n\x1b[2Ksection_start:0:x\r")
        out = capsys.readouterr().out
        assert "it serves" in out
        assert not [line for line in out.splitlines() if line.lstrip().startswith("::error")]
        assert "\x1b[2K" not in out
        assert "\r" not in out.replace("\r\n", "\n")


def _platform(detect: Callable[[], Platform | None]) -> Platform:
    platform = detect()
    assert platform is not None
    return platform
