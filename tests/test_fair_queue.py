"""Who is answered next, and who may wait: apart from any model."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest

Module = Callable[[str], ModuleType]


class Request(NamedTuple):
    """What can wait."""

    client: str
    size: int
    lane: Any


@pytest.fixture
def request_of(module: Module) -> Callable[..., Request]:
    """Make a request of a caller with so many rows, in its lane or in one that is named."""
    parts = module("serving.fair_queue")

    def request_of(client: str, size: int, lane: str = "") -> Request:
        return Request(client, size, parts.Lane(lane) if lane else parts.lane_of(size))

    return request_of


def test_a_small_request_waits_for_one_batch_of_large_ones_and_they_for_one_of_small_ones(
    module: Module,
    request_of: Callable[..., Request],
) -> None:
    queue = module("serving.fair_queue").FairQueue()
    for _ in range(3):
        queue.put(request_of("greedy", 1_000))
    for _ in range(40):
        queue.put(request_of("honest", 1))
    sizes = [sum(request.size for request in queue.take(30)) for _ in range(5)]
    assert sorted(sizes[:2]) == [30, 1_000]
    assert sorted(sizes[2:4]) == [10, 1_000]
    assert sizes[4] == 1_000
    assert queue.count == 0


def test_callers_take_turns(module: Module, request_of: Callable[..., Request]) -> None:
    queue = module("serving.fair_queue").FairQueue()
    for _ in range(50):
        queue.put(request_of("greedy", 1))
    queue.put(request_of("honest", 1))
    assert [request.client for request in queue.take(4)].count("honest") == 1
    for client in ("greedy", "greedy", "honest"):
        queue.put(request_of(client, 600))
    large = [request.client for _ in range(4) for request in queue.take(1_000)]
    assert [client for client in large if client != "greedy"] == ["honest"]


def test_a_batch_has_no_more_rows_than_it_may_unless_it_is_one_request(
    module: Module, request_of: Callable[..., Request]
) -> None:
    queue = module("serving.fair_queue").FairQueue()
    for size in (400, 400, 400, 5_000):
        queue.put(request_of("a", size))
    assert [len(queue.take(1_000)) for _ in range(3)] == [2, 1, 1]
    queue.close()
    assert queue.take(1_000) == []


def test_small_requests_are_let_in_where_large_ones_are_not(module: Module) -> None:
    admission = module("serving.fair_queue").Admission(max_rows=4_000)
    while admission.accepts("a", 1_000):
        admission.add("a", 1_000)
    assert admission.rows == 3_000
    for _ in range(1_000):
        assert admission.accepts("a", 1)
        admission.add("a", 1)
    assert not admission.accepts("a", 1)


def test_whoever_has_less_than_a_share_of_a_full_queue_is_let_in(module: Module) -> None:
    admission = module("serving.fair_queue").Admission(max_rows=4_000)
    for _ in range(4_000):
        admission.add("greedy", 1)
    assert not admission.accepts("greedy", 1)
    assert admission.accepts("honest", 1_000)
    admission.add("honest", 2_000)
    assert not admission.accepts("honest", 1)
    admission.remove("greedy", 4_000)
    admission.remove("honest", 2_000)
    assert admission.accepts("greedy", 10_000), "one that is alone may be larger than the queue"
    assert not admission.by_client


def test_a_request_that_is_to_be_judged_alone_is_alone_and_takes_turns_with_others(
    module: Module,
    request_of: Callable[..., Request],
) -> None:
    queue = module("serving.fair_queue").FairQueue()
    for _ in range(3):
        queue.put(request_of("a", 1, "alone"))
        queue.put(request_of("a", 50))
    for _ in range(5):
        queue.put(request_of("b", 1))
    queue.close()
    batches = list(iter(lambda: queue.take(1_000), []))
    assert sum(len(batch) == 5 for batch in batches[:2]) == 1, "the small ones are not behind"
    alone = [batch for batch in batches if any(r.lane.value == "alone" for r in batch)]
    assert [len(batch) for batch in alone] == [1, 1, 1]
    assert sum(map(len, batches)) == 11


def test_every_second_batch_is_of_small_requests_and_the_others_take_turns(
    module: Module, request_of: Callable[..., Request]
) -> None:
    queue = module("serving.fair_queue").FairQueue()
    for lane in ("large", "doubtful", "alone"):
        for _ in range(4):
            queue.put(request_of("a", 40, lane))
    for _ in range(6):
        queue.put(request_of("b", 1))
    lanes = [queue.take(1)[0].lane.value for _ in range(12)]
    assert set(lanes[0::2]) == {"small"}
    assert all(sorted(lanes[n : n + 6 : 2]) == ["alone", "doubtful", "large"] for n in (1, 7))


def test_what_cannot_wait_for_a_batch_is_handed_out_without_waiting(
    module: Module, request_of: Callable[..., Request]
) -> None:
    queue = module("serving.fair_queue").FairQueue()
    assert queue.take_small(10) == []
    queue.put(request_of("a", 1_000))
    assert queue.take_small(10) == []
    for _ in range(3):
        queue.put(request_of("b", 4))
    assert [len(queue.take_small(10)) for _ in range(3)] == [2, 1, 0]
    assert queue.count == 1
