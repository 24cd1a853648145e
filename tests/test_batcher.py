"""The thread that predicts."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from conftest import ROOT
from packages import package

Module = Callable[[str], ModuleType]
FLIGHTS = ROOT / "template/data/raw/flights.csv"


@pytest.fixture(scope="module")
def example(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example's model, loaded."""
    folder = package(module, tmp_path_factory.mktemp("package") / "model")
    return module("serving.loaded_model").load(folder)


def test_a_batcher_that_is_stopped_answers_those_who_wait_and_ends(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign to stop may be in the queue behind requests of a batch, and counts even so."""
    parts = module("serving.batcher")
    release = threading.Event()

    def outcomes(_: Any, batch: list[Any], loaded: Any) -> list[Any]:
        release.wait(20)
        return [parts.Outcome(request, parts.Answer(loaded, request.rows)) for request in batch]

    monkeypatch.setattr(parts.Batcher, "_outcomes", outcomes)
    batcher = parts.Batcher(loaded=None, log=None, max_waiting_rows=10, batch_rows=10)

    async def run() -> list[Any]:
        batcher.start()
        first, second, third = (
            asyncio.create_task(batcher.ask(name, [{"x": name}])) for name in "abc"
        )
        await asyncio.sleep(0.2)  # one is being answered, and two wait
        batcher.stop()
        release.set()
        return [answer.predictions for answer in await asyncio.gather(first, second, third)]

    assert asyncio.run(run()) == [[{"x": name}] for name in "abc"]
    batcher.thread.join(20)
    assert not batcher.thread.is_alive()
    assert batcher.admission.rows == 0


def flight(**changes: Any) -> dict[str, Any]:
    """A row of the example, with other values."""
    return pl.read_csv(FLIGHTS, n_rows=1).drop("delayed").to_dicts()[0] | changes


TWO_FAULTS = {
    "an unknown column": ({"colour": "red", "seats": 801}, (None, "unknown column")),
    "a missing column": ({"origin": ..., "seats": 801}, ("origin", "missing column")),
    "a nested value": ({"origin": ["JFK"], "seats": 801}, ("origin", "not a single value")),
}


@pytest.mark.parametrize(("changes", "first"), TWO_FAULTS.values(), ids=TWO_FAULTS)
def test_a_fault_of_shape_hides_no_other_fault_of_a_request(
    module: Module, example: Any, changes: dict[str, Any], first: tuple[str | None, str]
) -> None:
    parts = module("serving.batcher")
    crooked = {name: value for name, value in flight(**changes).items() if value is not ...}
    rows = [flight(), crooked, flight(flight="many"), flight()]
    request = parts.PendingRequest("id", "", rows, None)
    batcher = parts.Batcher(example, log=None, max_waiting_rows=10, batch_rows=10)
    (outcome,) = batcher._outcomes([request], example)
    faults = [(fault.row, fault.column, fault.rule) for fault in outcome.result.faults]
    others = [(2, "flight", "not of type integer"), (1, "seats", "above 800")]
    assert faults == [(1, *first), *others]


def test_a_rule_of_problem_that_fails_without_a_column_leaves_the_fault_of_shape(
    module: Module, example: Any
) -> None:
    parts = module("serving.batcher")

    def rules(columns: Any) -> Any:
        raise KeyError("origin")

    model = dataclasses.replace(example.model, rules=rules)
    row = flight()
    del row["origin"]
    (fault,) = parts.shape_faults([row], model.request_contract)
    assert parts._value_faults([row], [fault], model) == []


def test_whoever_sends_good_rows_waits_for_no_fault_of_others(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks the contract is judged alone, after those that do not have been answered."""
    parts = module("serving.batcher")
    log = module("prediction_log").PredictionLog(module("config.delivery").Service(log=""))
    batcher = parts.Batcher(example, log, max_waiting_rows=1_000, batch_rows=1_000)
    bad = [flight(seats=801), flight(carrier="??"), flight(flight="many"), {"colour": "red"}]
    requests = [parts.PendingRequest(str(n), "a", [bad[n % 4]], None) for n in range(60)]
    requests.insert(30, parts.PendingRequest("good", "b", [flight()], None))
    kind = type(example.reader)
    read = kind.read
    reads = []

    def counted(reader: Any, *rows: Any) -> Any:
        reads.append(rows)
        return read(reader, *rows)

    monkeypatch.setattr(kind, "read", counted)
    (outcome,) = batcher._outcomes(requests, example)
    assert outcome.request.id == "good"
    assert len(outcome.result.predictions) == 1
    assert len(reads) <= 5
    (doubtful,) = [
        batch
        for batch in (batcher.queue.take(1_000) for _ in range(16))
        if batch[0].lane is parts.Lane.DOUBTFUL
    ]
    assert len(doubtful) == 45, "which only queries can tell, of all at once"
    assert batcher._outcomes(doubtful, example) == []
    alone = [batcher.queue.take(1_000) for _ in range(45)]
    assert batcher.queue.count == 0
    assert all(len(batch) == 1 and batch[0].lane is parts.Lane.ALONE for batch in alone)
    for (request,) in alone:
        (outcome,) = batcher._outcomes([request], example)
        assert outcome.result.faults


def test_small_requests_are_answered_in_the_middle_of_a_large_one(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the large one is answered whole: its rows in order, and one request in the log."""
    parts = module("serving.batcher")
    monkeypatch.setattr(parts, "PART_ROWS", 40)
    log = module("prediction_log").PredictionLog(module("config.delivery").Service(log=""))
    batcher = parts.Batcher(example, log, max_waiting_rows=1_000, batch_rows=1_000)
    rows = pl.read_csv(FLIGHTS, n_rows=100).drop("delayed").to_dicts()
    large = parts.PendingRequest("large", "a", rows, None, None, parts.Lane.LARGE)
    predict = example.model.predict
    delivered: list[str] = []

    class Loop:
        def call_soon_threadsafe(self, _: Any, outcomes: list[Any]) -> None:
            delivered.extend(outcome.request.id for outcome in outcomes)

    def predict_and_send(_: Any, frame: pl.DataFrame) -> Any:
        if frame.height > 1:  # another caller sends a row while a part is predicted
            name = f"small {len(delivered)}"
            batcher.queue.put(parts.PendingRequest(name, "b", [flight()], None))
        return predict(frame)

    monkeypatch.setattr(type(example.model), "predict", predict_and_send)
    batcher.loop = Loop()
    (outcome,) = batcher._outcomes([large], example)
    assert delivered == ["small 0", "small 1", "small 2"]
    monkeypatch.undo()
    expected = example.model.answers(example.model.predict(example.reader.read(rows)[0]))
    assert outcome.result.predictions == expected
    assert [batch.typed.height for batch in log.batches] == [1, 1, 1, 100]


@pytest.mark.parametrize(
    ("index", "changes"), [(99, {"seats": 801}), (3, {"flight": "many"}), (50, {"dest": "JFK"})]
)
def test_the_faults_of_a_large_request_are_those_of_the_whole(
    module: Module,
    example: Any,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    changes: dict[str, Any],
) -> None:
    parts = module("serving.batcher")
    rows = [flight(origin="EWR", dest="IAH") for _ in range(100)]
    rows[index] |= {"origin": "JFK"} | changes
    rows[0] |= {"carrier": "??"}
    faults = []
    for part_rows in (1_000, 30):
        monkeypatch.setattr(parts, "PART_ROWS", part_rows)
        batcher = parts.Batcher(example, log=None, max_waiting_rows=1_000, batch_rows=1_000)
        request = parts.PendingRequest("id", "a", rows, None, None, parts.Lane.LARGE)
        (outcome,) = batcher._outcomes([request], example)
        faults.append(outcome.result.faults)
    assert faults[0] == faults[1]
    assert {fault.row for fault in faults[0]} == {0, index}


JUDGED = {
    "nothing": {},
    "types": {"flight": "many", "seats": "few", "scheduled_departure": "soon"},
    "values": {"seats": 801, "carrier": "??", "origin": None},
    "an own rule": {"origin": "JFK", "dest": "JFK"},
    "a rule of a column that is not read": {"origin": "JFK", "dest": "JFK", "flight": "many"},
    "everything": dict.fromkeys(flight(), "x" * 20),
}


@pytest.mark.parametrize("changes", JUDGED.values(), ids=JUDGED)
def test_faults_that_are_looked_for_column_by_column_are_those_of_the_whole(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """And small requests are answered between some columns and the next."""
    parts = module("serving.batcher")
    passed: list[str] = []
    monkeypatch.setattr(parts.Batcher, "_let_small_pass", lambda _, lane: passed.append(lane))
    batcher = parts.Batcher(example, log=None, max_waiting_rows=10, batch_rows=10)
    rows = [flight(), flight(**changes), flight(), flight(**(changes | {"distance": -1}))]
    judged = batcher._judge(rows, example.model, 2)
    assert judged == example.reader.read(rows, 2)[1]
    assert len(passed) == -(-len(flight()) // parts.COLUMNS_AT_ONCE) > 2
