"""`dvc repro` as `ml run` starts it: without what a step says itself, and without hints.

DVC's errors are marked, so that they are told from what steps write to stderr.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from ...atomic_file import atomic_write

ERROR_MARK = "dvc: "
CRASHED = 70  # as of `ml` itself
INTERRUPTED = 130  # the exit code that shells give to Ctrl-C
STAGE_MARK = "dvc stage: "  # the stage of this name is about to run
# Their messages: which stage runs, with which command; that the lock file is written; what to do
# with Git; blank lines.
CHATTY = ("dvc.stage.run", "dvc.dvcfile", "dvc.repo.scm_context", "dvc.repo.reproduce")


def is_news(record: logging.LogRecord) -> bool:
    """Check whether a message of DVC says something that no step says."""
    return record.levelno > logging.INFO or record.name not in CHATTY


class _Stages(logging.Handler):
    """Marks on stderr that a stage is about to run."""

    def emit(self, record: logging.LogRecord) -> None:
        if running := re.match(r"Running stage '(.*)'", record.getMessage()):
            sys.stderr.write(f"{STAGE_MARK}{running[1]}\n")


def open_repo() -> Any:
    """Open the project as DVC sees it; an image that has the code may be without its history."""
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.scm import SCMError  # type: ignore[import-untyped]

    try:
        return Repo()
    except SCMError:
        return Repo(config={"core": {"no_scm": True}})


def main() -> None:
    """Run the stages that are stale, or the one that is named if it is.

    The exit code is 1 if a stage fails, or DVC says that it does, and 70 if DVC crashes.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]

    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(is_news)
    logging.getLogger("dvc.stage.run").addHandler(_Stages())
    try:
        with open_repo() as repo:
            write_whole_files(repo)
            drop_unreadable_rwlock(repo)
            repo.reproduce(sys.argv[1:] or None, single_item=bool(sys.argv[1:]))
    except DvcException as error:
        sys.stderr.write(f"{ERROR_MARK}{_with_causes(error)}\n")
        sys.exit(1)
    except KeyboardInterrupt:  # it reaches `ml run`, too, which says so
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        sys.exit(CRASHED)


def write_whole_files(repo: Any) -> None:
    """Let DVC replace dvc.lock and the files of `dvc add`, where it would write into them.

    It empties them first, and a process that is killed then leaves what no later command reads.
    """
    from dvc import dvcfile  # type: ignore[import-untyped]
    from dvc.fs import LocalFileSystem  # type: ignore[import-untyped]
    from dvc.utils.serialize import dump_yaml  # type: ignore[import-untyped]

    class WholeFiles(LocalFileSystem):  # type: ignore[misc]
        def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
            # What is temporary is written often, and need not outlast a loss of power.
            if "w" in mode and not Path(path).is_relative_to(repo.tmp_dir):
                return _replaced(Path(path), mode, **kwargs)
            return super().open(path, mode, **kwargs)

    repo.fs = WholeFiles()
    dvcfile.dump_yaml = partial(dump_yaml, fs=repo.fs)


@contextmanager
def _replaced(path: Path, mode: str, **kwargs: Any) -> Iterator[IO[Any]]:
    with atomic_write(path) as new, new.open(mode, **kwargs) as file:
        yield file


def drop_unreadable_rwlock(repo: Any) -> None:
    """Remove the file in which DVC writes what its processes use, if it is not JSON.

    A process that is killed while it writes this leaves it empty, and DVC then refuses each later
    command. Nobody else writes it meanwhile: whoever does holds the same lock.
    """
    from dvc.lock import make_lock  # type: ignore[import-untyped]
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK  # type: ignore[import-untyped]

    folder = Path(repo.tmp_dir)
    hardlink = repo.config["core"].get("hardlink_lock", False)
    with make_lock(str(folder / RWLOCK_LOCK), str(folder), hardlink_lock=hardlink):
        try:
            json.loads((folder / RWLOCK_FILE).read_text("utf-8"))
        except FileNotFoundError:
            pass
        except ValueError:
            (folder / RWLOCK_FILE).unlink()


def _with_causes(error: BaseException | None) -> str:
    messages = []
    while error is not None:
        messages.append(" ".join(str(error).split()))
        error = error.__cause__
    return ": ".join(filter(None, messages))
