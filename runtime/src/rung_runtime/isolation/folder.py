"""The temporary folder of a package's process: it is removed at the end, or by whoever comes next.

Its owner holds a lock on it, which the kernel lets go of when the owner ends, however that is.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "ml-process-"  # "ml-isolated-" until 0.3, whose folders have no lock


@contextmanager
def temporary_home(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder. Those of processes that were killed are removed first.

    Args:
        parent: Where it is made; None: where temporary folders usually are.
    """
    where = Path(tempfile.gettempdir() if parent is None else parent)
    remove_leftovers(where)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=where) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # a file system without locks: nobody removes it then
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name).resolve()
        finally:
            os.close(descriptor)


def remove_leftovers(where: Path) -> None:
    """Remove the folders of this user there whose owner has ended."""
    for folder in where.glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Remove a folder that nobody holds.

    Raises:
        OSError: Its owner holds it, or it is gone, or is a link, or another user's.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.fstat(descriptor).st_uid == os.getuid()
        # An empty one was made this moment: its owner writes to it once it has the lock.
        if is_ours and any(folder.iterdir()):
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
