"""Locks: between processes of one machine, and between machines that share a registry."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .. import UsageError
from .interface import EnsureLease, Registry

LOCK = "lock"  # the note that holds the lease


@dataclass(frozen=True)
class LeaseTiming:
    """The timing of a lease, in seconds.

    A write with all its retries ends within `ttl_s - write_window_s`, so no write of a former
    holder arrives after the lease has expired.
    """

    max_write_s: float = 2.0  # the longest that a write of the lock may take
    ttl_s: float = 60.0  # after so long without a change, the holder counts as dead
    write_window_s: float = 15.0  # the holder starts no write later than this
    acquire_timeout_s: float = 90.0


TIMING = LeaseTiming()


@contextmanager
def file_lock(path: Path, seconds: float = 30.0) -> Iterator[EnsureLease]:
    """Hold a lock between processes of one machine; it ends with the process.

    Args:
        path: The lock file, which is created.
        seconds: How long to wait for another process.

    Raises:
        UsageError: Another process still holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=seconds):
            yield lambda: None
    except Timeout:
        raise UsageError(f"{path} is held by another command: wait for it to end") from None


@contextmanager
def lease(registry: Registry) -> Iterator[EnsureLease]:
    """Hold a lock between machines, in a registry that can only read and write.

    Fischer's algorithm: L. Lamport, "A fast mutual exclusion algorithm", ACM Transactions on
    Computer Systems 5 (1), 1987, section 2. A note that has not changed for `ttl_s`, by the
    reader's own clock, belongs to a dead process; so no two clocks are compared.

    Yields:
        A function that raises UsageError once it is too late to start another write.

    Raises:
        UsageError: The lock could not be acquired in time.
    """
    timing = TIMING
    own = uuid.uuid4().hex
    last_holder = ""
    start = time.monotonic()
    last_change = start
    while time.monotonic() < start + timing.acquire_timeout_s:
        read_at = time.monotonic()
        holder = registry.get(LOCK) or ""
        if holder != last_holder:
            last_holder = holder
            last_change = read_at
        if holder and read_at < last_change + timing.ttl_s:
            time.sleep(timing.max_write_s / 4)
            continue
        registry.set(LOCK, own)
        entered = time.monotonic()
        if entered - read_at > timing.max_write_s:
            continue  # too late to be sure: the note now looks held, which harms nobody
        time.sleep(timing.max_write_s)
        if registry.get(LOCK) == own:
            break
    else:
        raise UsageError("another command holds the registry, or it is too slow: try again later")

    def ensure_lease() -> None:
        if time.monotonic() > entered + timing.write_window_s:
            raise UsageError("the registry is too slow to change safely: try again later")

    try:
        yield ensure_lease
    finally:
        if time.monotonic() < entered + timing.write_window_s:
            with suppress(UsageError):  # it expires by itself
                registry.set(LOCK, "")
