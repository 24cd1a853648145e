"""What to tell a person when a library ends the process of a step, as an abort in C++ does.

The process itself can say nothing any more. Python's `faulthandler` still writes where it was, into
a pipe; at the other end a process waits that was forked for this alone, and tells it in a sentence.
"""

import faulthandler
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

MAX_BYTES = 1 << 20  # of what is read of a stack
PACKAGES = "site-packages"
FRAME = re.compile(r'File "(.+?)", line (\d+)')


@contextmanager
def explained(step: str) -> Iterator[None]:
    """Have a crash of this process explained on stderr, for as long as the context lasts.

    Args:
        step: What the process does, such as `train`.
    """
    if not hasattr(os, "fork") or faulthandler.is_enabled():
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    watcher = os.fork()
    if not watcher:
        os.close(write_end)
        _watch(read_end, step)
    os.close(read_end)
    faulthandler.enable(file=write_end)
    try:
        yield
    finally:
        faulthandler.disable()
        os.close(write_end)
        os.waitpid(watcher, 0)


def _watch(read_end: int, step: str) -> None:
    """Wait for the end of the other process, and explain it if it crashed; this process ends."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack = b""
        while len(stack) < MAX_BYTES and (part := os.read(read_end, 65_536)):
            stack += part
        if stack:
            os.write(2, f"ml: {explain(step, stack.decode('utf-8', 'replace'))}\n".encode())
    finally:
        os._exit(0)


def explain(step: str, stack: str) -> str:
    """Return a sentence on a crash.

    Args:
        step: What the process did.
        stack: What `faulthandler` wrote.
    """
    reason = stack.partition("\n")[0].removeprefix("Fatal Python error: ") or "unknown"
    frames = FRAME.findall(stack)
    inside = [frame for frame in frames if PACKAGES in PurePath(frame[0]).parts]
    advice = "try other params, or OMP_NUM_THREADS=1"
    if not inside:
        return f"{step}: the process was aborted ({reason}): {advice}"
    path, line = inside[0]
    parts = PurePath(path).parts
    module = "/".join(parts[parts.index(PACKAGES) + 1 :])
    library = module.partition("/")[0].removesuffix(".py")
    return (
        f"{step}: the library {library} aborted the process ({reason}, in {module}, line {line}): "
        f"{advice}; if it trains the model, `rung add model_format` may have its format"
    )
