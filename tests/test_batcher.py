"""The thread that predicts."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
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


class Seen:
    """In which thread each batch of a model was predicted, and how many rows it had."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.here: list[bool] = []
        self.rows: list[int] = []
        predict = type(model).predict

        def predict_and_note(packaged: Any, frame: pl.DataFrame) -> Any:
            self.here.append(threading.current_thread() is threading.main_thread())
            self.rows.append(frame.height)
            time.sleep(seconds)
            return predict(packaged, frame)

        monkeypatch.setattr(type(model), "predict", predict_and_note)


def serve_rows(
    module: Module, example: Any, requests: list[list[dict[str, Any]]], *, at_once: bool = True
) -> tuple[list[Any], Any]:
    """Ask a batcher that knows its model as a quick one; return answers or errors, and it."""
    parts = module("serving.batcher")
    log = module("prediction_log").PredictionLog(module("config.delivery").Service(log=""))
    batcher = parts.Batcher(example, log, max_waiting_rows=10_000, batch_rows=1_000)
    batcher.quick = example
    take = batcher.queue.take
    waits = threading.Event()

    def take_and_tell(max_rows: int) -> Any:
        with batcher.queue.changed:  # until it waits
            waits.set()
            return take(max_rows)

    batcher.queue.take = take_and_tell

    async def run() -> list[Any]:
        batcher.start()
        await asyncio.to_thread(waits.wait, 20)
        with batcher.queue.changed:  # so now the thread has nothing to do
            pass
        asks = [batcher.ask(str(n), rows, f"{n % 3}") for n, rows in enumerate(requests)]
        if at_once:
            return await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), 60)
        return [await asyncio.wait_for(ask, 60) for ask in asks]

    try:
        return asyncio.run(run()), batcher
    finally:
        batcher.stop()
        batcher.thread.join(20)
        assert not batcher.thread.is_alive()
        assert batcher.queue.count == batcher.admission.rows == 0


def test_the_event_loop_itself_answers_small_requests_of_a_quick_model_together(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [[flight(seats=seats)] for seats in range(50, 58)]
    expected = example.model.answers(
        example.model.predict(example.reader.read([rows[0] for rows in requests])[0])
    )
    seen = Seen(example.model, monkeypatch)
    answers, batcher = serve_rows(module, example, requests)
    assert [answer.predictions for answer in answers] == [[answer] for answer in expected]
    assert (seen.here, seen.rows) == ([True], [8])
    (batch,) = batcher.log.batches
    assert sorted(request.id for request in batch.requests) == [str(n) for n in range(8)]


def test_more_small_requests_than_are_answered_at_once_are_answered_in_turns(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = module("serving.batcher").HERE_ROWS
    seen = Seen(example.model, monkeypatch)
    answers, _ = serve_rows(module, example, [[flight()]] * (2 * most + 5))
    assert all(len(answer.predictions) == 1 for answer in answers)
    assert (seen.here, seen.rows) == ([True] * 3, [most, most, 5])


def test_what_breaks_the_contract_is_judged_by_the_thread_and_not_by_the_event_loop(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the faults that it has in a thread; and the others are answered all the same."""
    parts = module("serving.batcher")
    bad = [
        [flight(seats=801)],
        [flight(origin="JFK", dest="JFK")],
        [flight(flight="many")],
        [{"colour": "red"}],
    ]
    alone = parts.Batcher(example, log=None, max_waiting_rows=10, batch_rows=10)
    expected = []
    for rows in bad:
        (outcome,) = alone._outcomes([parts.PendingRequest("id", "", rows, None)], example)
        expected.append(outcome.result.faults)
    kind = type(example.reader)
    judged: list[bool] = []
    read = kind.read

    def read_and_note(reader: Any, *rows: Any) -> Any:
        judged.append(threading.current_thread() is threading.main_thread())
        return read(reader, *rows)

    monkeypatch.setattr(kind, "read", read_and_note)
    answers, _ = serve_rows(module, example, [*bad, [flight()]])
    assert [error.faults for error in answers[:4]] == expected
    assert len(answers[4].predictions) == 1
    assert judged
    assert not any(judged)


def test_a_model_that_takes_long_holds_up_the_event_loop_once(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = module("serving.batcher")
    monkeypatch.setattr(parts, "HERE_CREDIT", 0.0)
    monkeypatch.setattr(parts, "HERE_PAUSE", 1e6)
    seen = Seen(example.model, monkeypatch, seconds=2 * parts.HERE_WALL_SECONDS)
    answers, _ = serve_rows(module, example, [[flight()]] * 3, at_once=False)
    assert len(answers) == 3
    assert seen.here == [True, False, False]


def test_the_event_loop_does_not_predict_while_the_thread_does(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of `problem/` need not know of threads."""
    begun = threading.Event()
    release = threading.Event()
    predicting: list[int] = []
    most: list[int] = []
    predict = type(example.model).predict

    def predict_and_wait(packaged: Any, frame: pl.DataFrame) -> Any:
        predicting.append(frame.height)
        most.append(len(predicting))
        if frame.height > 1:
            begun.set()
            release.wait(20)
        predicting.pop()
        return predict(packaged, frame)

    monkeypatch.setattr(type(example.model), "predict", predict_and_wait)
    parts = module("serving.batcher")
    log = module("prediction_log").PredictionLog(module("config.delivery").Service(log=""))
    batcher = parts.Batcher(example, log, max_waiting_rows=1_000, batch_rows=1_000)
    batcher.quick = example

    async def run() -> list[Any]:
        batcher.start()
        large = asyncio.create_task(batcher.ask("large", [flight()] * 40))
        await asyncio.to_thread(begun.wait, 20)
        batcher.quick = example  # whatever the thread makes of it
        small = asyncio.create_task(batcher.ask("small", [flight()]))
        for _ in range(10):
            await asyncio.sleep(0)
        batcher._answer_here(batcher.queue.count)  # as if the thread had begun since it was asked
        assert most == [1]
        assert not small.done()
        release.set()
        return [await asyncio.wait_for(answer, 60) for answer in (large, small)]

    answers = asyncio.run(run())
    batcher.stop()
    batcher.thread.join(20)
    assert [len(answer.predictions) for answer in answers] == [40, 1]
    assert set(most) == {1}


def test_a_model_that_nobody_has_timed_is_asked_by_the_thread(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that replaces another: only the one before it was quick."""
    seen = Seen(example.model, monkeypatch)
    other = dataclasses.replace(example)
    parts = module("serving.batcher")
    log = module("prediction_log").PredictionLog(module("config.delivery").Service(log=""))
    batcher = parts.Batcher(example, log, max_waiting_rows=10, batch_rows=10)
    batcher.quick = example

    async def run() -> None:
        batcher.start()
        for number, model in enumerate([example, other]):
            batcher.loaded = model
            await batcher.ask(f"request-{number}", [flight()])

    asyncio.run(run())
    batcher.stop()
    assert seen.here == [True, False]


def test_requests_of_all_kinds_at_once_each_get_their_own_answer(
    module: Module, example: Any
) -> None:
    """Whoever predicts, the event loop or the thread, and whatever waits meanwhile."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    requests = []
    for _ in range(60):
        kind = drawn.random()
        size = 1 if kind < 0.8 else drawn.choice([3, 40, 200])
        rows = [flight(seats=drawn.randrange(50, 200)) for _ in range(size)]
        if 0.7 < kind < 0.8:
            rows[0]["seats"] = "many"
        requests.append(rows)
    answers, _ = serve_rows(module, example, requests)
    for rows, answer in zip(requests, answers, strict=True):
        if rows[0]["seats"] == "many":
            assert [fault.column for fault in answer.faults] == ["seats"]
        else:
            frame, _ = example.reader.read(rows)
            expected = example.model.answers(example.model.predict(frame))
            assert [a["prediction"] for a in answer.predictions] == [
                e["prediction"] for e in expected
            ]
            assert [a["probabilities"]["true"] for a in answer.predictions] == pytest.approx(
                [e["probabilities"]["true"] for e in expected], abs=1e-12
            )


def test_the_log_makes_tables_of_many_batches_in_its_own_thread(
    module: Module, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is time to write them, and not in that of whoever predicts."""
    writer = module("prediction_log.writer")
    settings = module("config.delivery").Service(log="unused", log_seconds=3_600)
    log = writer.PredictionLog(settings)
    made = threading.Event()
    threads: list[bool] = []

    def compact() -> None:
        threads.append(threading.current_thread() is log.thread)
        log.batches.clear()
        made.set()

    monkeypatch.setattr(log, "compact", compact)
    log.thread.start()
    frame, _ = example.reader.read([flight()])
    y_pred = example.model.predict(frame)
    for n in range(writer.COMPACT_AT):
        log.add(example, [writer.LoggedRequest(str(n), 1)], [flight()], frame, y_pred)
    assert made.wait(20)
    assert threads == [True]
    log.close()  # at once, although there is an hour to the next time
    assert not log.thread.is_alive()
