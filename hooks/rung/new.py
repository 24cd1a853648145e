"""`rung new`: a project that is whole, or nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from . import RefusedError, post_gen, pre_gen, source
from .tools import say, shown


def new(folder: Path, template: source.Source, data: Mapping[str, Any], *, ask: bool) -> None:
    """Make a project in a folder that is empty or not there.

    Raises:
        BadInputError: Something is missing, or an answer is refused.
        RefusedError: It could not be made; nothing is left of it.
    """
    pre_gen.check(folder)
    folder = folder.absolute()
    with whole(folder) as stage:
        about = source.render(template, stage, data, ask=ask)
        # What fails most easily, far away servers, comes before the project is in its place.
        if code := shown(stage, "uv", "lock", "--quiet"):
            raise RefusedError(f"uv lock ended with {code}, as said above: nothing was left")
        os.rename(stage, folder)  # noqa: PTH104 onto an empty folder, which Path.rename also does
        post_gen.setup(folder)
    where = os.path.relpath(folder)
    say(f"""
{about["project_name"]} is in {where}: level {about["level"]}, Rung {template.name}. Next:

  cd {where}
  uv run ml run                             the pipeline, to artifacts/report.html
  uv run ml data use FILE --target COLUMN   your data instead of the example's
  make check                                lint, types, tests and controls""")
    if template.commit is None:
        say("\nIt came from a package: the first `rung update` needs --template URL.")


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yield a folder beside this one, for what is to take its place; if it fails, all goes.

    A signal that ends this process is a failure as well. One that cannot be caught leaves at worst
    the folder beside it, whose name starts with a dot, or a project that `make setup` completes.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    was_there = folder.exists()
    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGHUP)}
    made = next(p for p in (*reversed(folder.parents), folder) if not p.exists() or p == folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    stage.chmod(0o777 & ~umask())
    try:
        yield stage
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(made, ignore_errors=True)
        if was_there:
            folder.mkdir()
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def umask() -> int:
    """Give the process's file mode mask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
