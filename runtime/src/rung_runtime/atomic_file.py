"""A file that is written completely or not at all; without Polars, which takes long to import."""

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path

LEFTOVER_SECONDS = 86_400
WRITER = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,9})-[0-9a-f]{4}\.new$")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file then replaces `path` completely, or not at all.

    Nobody else writes there: of several processes that write the same file, the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(2)}"
    new = path.with_name(f".{path.name}.{writer}.new")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left beside a file.

    One of this machine is known to have ended. Of others, which may share the folder, a day has to
    pass.
    """
    for old in path.parent.glob(f".{escape(path.name)}.*new"):
        writer = WRITER.search(old.name)
        is_of_this_machine = writer is not None and writer["machine"] == _machine()
        with suppress(OSError):
            is_old = time.time() - old.stat().st_mtime > LEFTOVER_SECONDS
            if is_old or (writer and is_of_this_machine and _has_ended(int(writer["pid"]))):
                old.unlink()


@cache
def _machine() -> str:
    """Return what tells this machine, or container, from others."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _has_ended(pid: int) -> bool:
    """Check whether a process is known to have ended; on Windows, one would be ended by asking."""
    if os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
