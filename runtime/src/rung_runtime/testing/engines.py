"""What every engine promises, as tests to inherit.

Example:
    from rung_runtime.testing.engines import EngineContract

    class TestOurs(EngineContract):
        @pytest.fixture
        def engine(self):
            engine = our_engine.open_engine(Scale(workers=2))
            yield engine
            engine.close()
"""

import os
import signal
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest

from .. import UsageError
from ..engines.interface import Engine, Files, Job


class Task(NamedTuple):
    """An item: a number, and what happens at it."""

    name: str
    number: int
    event: str = ""  # fails, kills once, kills always or breaks


class EngineContract:
    """Inherit it, and give the fixture `engine`, with two workers."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError("give an engine that has started")

    @pytest.fixture
    def job(self, tmp_path: Path) -> Job[Task, int]:
        """A job that adds what a file says to the number of an item."""
        (tmp_path / "added.txt").write_text("100", "utf-8")
        (tmp_path / "problem").mkdir()
        (tmp_path / "problem/features.py").write_text("def features(n):\n    return 1 / n\n")
        files = {"added": tmp_path / "added.txt", "problem": tmp_path / "problem"}
        return Job(partial(start, str(tmp_path)), files)

    def test_each_item_has_its_result_under_its_number(
        self, engine: Engine, job: Job[Task, int]
    ) -> None:
        tasks = [Task(f"part-{number}", number) for number in range(20)]
        outcomes = sorted(engine.run(job, tasks), key=attrgetter("index"))
        assert [outcome.index for outcome in outcomes] == list(range(20))
        assert [outcome.result for outcome in outcomes] == [100 + number for number in range(20)]

    def test_no_item_is_no_work(self, engine: Engine, job: Job[Task, int]) -> None:
        assert list(engine.run(job, [])) == []

    def test_an_item_that_fails_is_named_and_the_others_are_done(
        self, engine: Engine, job: Job[Task, int]
    ) -> None:
        tasks = [Task("part-0", 0), Task("part-1", 1, "fails"), Task("part-2", 2)]
        outcomes = sorted(engine.run(job, tasks), key=attrgetter("index"))
        assert [outcome.result for outcome in outcomes] == [100, None, 102]
        assert "part-1 cannot be read" in outcomes[1].error

    def test_code_of_the_project_that_fails_is_named_with_its_line(
        self, engine: Engine, job: Job[Task, int]
    ) -> None:
        if engine.in_process:  # `ml` itself finds the line, whatever the command
            pytest.skip("the traceback is that of this process")
        with pytest.raises(UsageError, match=r"problem/features\.py, line 2: ZeroDivisionError"):
            list(engine.run(job, [Task("part-0", 0, "breaks")]))

    def test_a_worker_that_is_killed_costs_time_and_no_result(
        self, engine: Engine, job: Job[Task, int]
    ) -> None:
        if engine.in_process:
            pytest.skip("it has no workers")
        tasks = [Task(f"part-{number}", number) for number in range(8)]
        tasks[2] = Task("part-2", 2, "kills once")
        outcomes = sorted(engine.run(job, tasks), key=attrgetter("index"))
        assert [outcome.result for outcome in outcomes] == [100 + number for number in range(8)]

    def test_an_item_that_ends_every_worker_is_named(
        self, engine: Engine, job: Job[Task, int]
    ) -> None:
        if engine.in_process:
            pytest.skip("it has no workers")
        tasks = [Task("part-0", 0), Task("part-1", 1, "kills always")]
        try:
            outcomes = list(engine.run(job, tasks))
        except UsageError as error:  # an engine may give up the others, too
            errors = [str(error)]
        else:
            errors = [outcome.error for outcome in outcomes if outcome.error]
            assert [outcome.result for outcome in outcomes if not outcome.error] == [100]
        assert len(errors) == 1
        assert errors[0].startswith("part-1: ")
        assert "memory" in errors[0]

    def test_a_worker_with_other_versions_of_packages_is_told(
        self, engine: Engine, job: Job[Task, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if engine.in_process:
            pytest.skip("it has no workers")
        from ..engines import shipment

        older = {"Python": "3.2.1", "polars": "0.1"}
        monkeypatch.setattr(shipment, "present_versions", lambda: older)
        with pytest.raises(
            UsageError, match=r"a worker on .* has Python .*, and 3\.2\.1 here; pol"
        ):
            list(engine.run(job, [Task("part-0", 0)]))


def start(marks: str, files: Files) -> "Adder":
    """Return what does an item."""
    return Adder(Path(marks), int(files["added"].read_text("utf-8")), files["problem"])


class Adder:
    """Adds to the number of an item."""

    def __init__(self, marks: Path, added: int, problem: Path) -> None:
        self.marks = marks
        self.added = added
        self.problem = problem

    def __call__(self, task: Task) -> int:
        """Return the sum, unless something happens."""
        mark = self.marks / f"{task.name}.was-killed"
        if task.event == "fails":
            raise UsageError(f"{task.name} cannot be read")
        if task.event == "breaks":
            from ..model_package import import_problem

            return int(import_problem(self.problem, "features", "contract").features(0))
        if task.event == "kills always" or (task.event == "kills once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.added + task.number
