"""The queue of requests: fair among callers, and between small requests and large ones."""

import threading
from collections import Counter, deque
from enum import Enum
from typing import Generic, Protocol, TypeVar

SMALL_ROWS = 32  # a request of so many rows costs little more than one of a single row
RESERVED_SHARE = 10  # 1/10 of the queue is for small requests


class Lane(Enum):
    """Where a request waits."""

    SMALL = "small"
    LARGE = "large"
    DOUBTFUL = "doubtful"  # only queries can tell whether it keeps the contract
    ALONE = "alone"  # it seems to break the contract, and its faults are looked for


class Queued(Protocol):
    """What can wait in the queue."""

    @property
    def client(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def lane(self) -> Lane: ...


T = TypeVar("T", bound=Queued)


def lane_of(rows: int) -> Lane:
    """Return the lane of a new request."""
    return Lane.SMALL if rows <= SMALL_ROWS else Lane.LARGE


class FairQueue(Generic[T]):
    """Requests that wait, handed out in batches.

    Callers take turns, so that one with many requests delays the others by one of them at most.
    Every second batch is one of small requests, if there are any, and the other lanes take turns:
    so a small request waits for one other batch at most.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.lanes: dict[Lane, dict[str, deque[T]]] = {lane: {} for lane in Lane}
        self.others = deque(lane for lane in Lane if lane is not Lane.SMALL)
        self.count = 0
        self.is_closed = False
        self.was_small = False  # the last batch

    @property
    def has_small(self) -> bool:
        """Whether a small request waits."""
        return bool(self.lanes[Lane.SMALL])

    def put(self, request: T, *, wake: bool = True) -> None:
        """Add a request.

        Args:
            wake: Whether to end the waiting of `take`; else others take the request.
        """
        with self.changed:
            self.lanes[request.lane].setdefault(request.client, deque()).append(request)
            self.count += 1
            if wake:
                self.changed.notify()

    def close(self) -> None:
        """Have `take` return nothing once nothing waits."""
        with self.changed:
            self.is_closed = True
            self.changed.notify()

    def take(self, max_rows: int) -> list[T]:
        """Wait for requests, and return a batch of one lane; an empty one: the queue is closed.

        Args:
            max_rows: Rows that a batch has at most, unless it is a single request.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.count or self.is_closed)
            lane = self._next_lane()
            self.was_small = lane is Lane.SMALL
            return self._batch(lane, 1 if lane is Lane.ALONE else max_rows)

    def take_small(self, max_rows: int) -> list[T]:
        """Return a batch of small requests, without waiting for any."""
        with self.changed:
            return self._batch(Lane.SMALL, max_rows)

    def _next_lane(self) -> Lane:
        waiting = [lane for lane in self.others if self.lanes[lane]]
        if not waiting or (self.lanes[Lane.SMALL] and not self.was_small):
            return Lane.SMALL
        self.others.remove(waiting[0])
        self.others.append(waiting[0])
        return waiting[0]

    def _batch(self, lane: Lane, max_rows: int) -> list[T]:
        queue = self.lanes[lane]
        batch: list[T] = []
        size = 0
        while queue:
            client, requests = next(iter(queue.items()))
            size += requests[0].size
            if batch and size > max_rows:
                break
            batch.append(requests.popleft())
            del queue[client]
            if requests:
                queue[client] = requests  # behind the other callers
        self.count -= len(batch)
        return batch


class Admission:
    """Rows that wait, and who may add to them.

    Attributes:
        max_rows: Rows that may wait, but for callers that have less than their share.
        rows: Rows that wait.
        by_client: The same, of each caller.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.rows = 0
        self.by_client: Counter[str] = Counter()

    def accepts(self, client: str, rows: int) -> bool:
        """Check whether a request may wait."""
        if not self.rows:
            return True
        reserved = 0 if rows <= SMALL_ROWS else self.max_rows // RESERVED_SHARE
        if self.rows + rows <= self.max_rows - reserved:
            return True
        callers = len(self.by_client.keys() | {client})
        return callers > 1 and self.by_client[client] + rows <= self.max_rows // callers

    def add(self, client: str, rows: int) -> None:
        self.rows += rows
        self.by_client[client] += rows

    def remove(self, client: str, rows: int) -> None:
        self.rows -= rows
        self.by_client[client] -= rows
        if not self.by_client[client]:
            del self.by_client[client]
