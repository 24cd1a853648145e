"""After a project is rendered: lock, environment, hooks, first commit.

This is `make setup`: there is one list of what to do, and a project that Copier alone rendered can
run it later. `python -m rung.post_gen FOLDER` runs it, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .console import exit_code
from .exceptions import RefusedError
from .process import run


def setup(project: Path) -> None:
    """Set up a project.

    Raises:
        RefusedError: It failed, and the reason was printed.
    """
    result = run(["make", "--no-print-directory", "setup"], project, output="shown")
    if not result.succeeded:
        raise RefusedError(f"make setup ended with exit code {result.returncode} (see above)")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: setup(Path(sys.argv[1]))))
