"""The queue of requests: fair among callers, and between small requests and large ones."""

import threading
from collections import Counter, deque
from typing import Generic, Protocol, TypeVar

SMALL_ROWS = 32  # a request of so many rows costs little more than one of a single row
RESERVED_SHARE = 10  # 1/10 of the queue is for small requests


class Queued(Protocol):
    """What can wait in the queue."""

    @property
    def client(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def is_suspect(self) -> bool: ...  # of being wrong, and to be judged alone


T = TypeVar("T", bound=Queued)


class FairQueue(Generic[T]):
    """Requests that wait, handed out in batches.

    Callers take turns, so that one with many requests delays the others by one of them at most.
    Batches of small requests and of large ones take turns, so that a small request waits for one
    batch of large ones at most, and a large one for one batch of small ones.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.small: dict[str, deque[T]] = {}
        self.large: dict[str, deque[T]] = {}
        self.count = 0
        self.is_closed = False
        self.was_small = False  # the last batch

    def put(self, request: T) -> None:
        """Add a request."""
        with self.changed:
            is_small = request.size <= SMALL_ROWS and not request.is_suspect
            queue = self.small if is_small else self.large
            queue.setdefault(request.client, deque()).append(request)
            self.count += 1
            self.changed.notify()

    def close(self) -> None:
        """Have `take` return nothing once nothing waits."""
        with self.changed:
            self.is_closed = True
            self.changed.notify()

    def take(self, max_rows: int) -> list[T]:
        """Wait for requests, and return a batch of them; an empty one: the queue is closed.

        Args:
            max_rows: Rows that a batch has at most, unless it is a single request.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.count or self.is_closed)
            self.was_small = bool(self.small) and not (self.was_small and self.large)
            queue = self.small if self.was_small else self.large
            batch: list[T] = []
            size = 0
            while queue:
                client, requests = next(iter(queue.items()))
                size += requests[0].size
                if batch and (size > max_rows or requests[0].is_suspect or batch[0].is_suspect):
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
