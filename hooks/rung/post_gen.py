"""After a project is rendered: lock, environment, hooks, first commit.

It is what `make setup` does, so that a project that Copier made by itself can catch up with it, and
so that there is one list of what to do. `python -m rung.post_gen DIR` runs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import RefusedError
from .tools import ended, shown


def setup(project: Path) -> None:
    """Set a project up.

    Raises:
        RefusedError: It failed, and has said why.
    """
    if code := shown(project, "make", "--no-print-directory", "setup"):
        raise RefusedError(f"make setup ended with {code}, as said above")


if __name__ == "__main__":
    sys.exit(ended(lambda: setup(Path(sys.argv[1]))))
