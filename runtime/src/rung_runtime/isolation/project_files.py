"""The files of the project: whether one changes while a package's code runs beside them."""

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import RefusedError
from ..registry.checkout import is_runner

# Written by us meanwhile: copies of packages, which count by their digest, and the state of Git and
# DVC. The hooks and the settings in .git are looked at.
EXEMPT = [Path(name) for name in ("artifacts/champion", ".dvc/tmp", ".git/index", ".git/objects")]
MAX_NAMED = 5  # changed files in a message


@contextmanager
def unchanged(unconfined: str) -> Iterator[None]:
    """Check that no file changes, if this is a runner where a process could not be confined.

    Args:
        unconfined: Why it could not be confined; "" if it was.

    Raises:
        RefusedError: A file has changed, however the code within ended.
    """
    if not unconfined or not is_runner():
        yield
        return
    previous = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # else our own imports would be changes
    before = snapshot()
    try:
        yield
    finally:
        sys.dont_write_bytecode = previous
        changed = sorted(dict(before.items() ^ snapshot().items()))
        if changed:
            raise RefusedError(
                f"while a package was scored that could not be confined ({unconfined}), files of"
                f" the project changed: {', '.join(changed[:MAX_NAMED])}"
            )


def snapshot() -> dict[str, tuple[int, ...]]:
    """Return what distinguishes each file from another one in its place, without reading it."""
    files: dict[str, tuple[int, ...]] = {}
    for path in Path().rglob("*"):
        if any(path.is_relative_to(exempt) for exempt in EXEMPT):
            continue
        with suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                files[str(path)] = (
                    status.st_mode,
                    status.st_size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                    status.st_ino,
                )
    return files
