"""After a project is rendered: lock, environment, hooks, first commit.

This is `make setup`: there is one list of what to do, and a project that Copier alone rendered can
run it later. `python -m rung.post_gen FOLDER` runs it, too.
"""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path

from .console import echo, exit_code
from .exceptions import RefusedError
from .process import run
from .progress import moving_line

# What uv and pre-commit print of each package and each hook, and what `rung new` itself says next.
CHATTER = re.compile(
    r"\s*([-+~] \S+==|Using CPython |Creating virtual environment|pre-commit installed at |Ready: "
    r"|(Resolved|Prepared|Installed|Uninstalled|Audited|Building|Built|Downloading|Downloaded) )"
)
SYNCED = re.compile(r"\s*(Installed|Audited) ")  # uv's last line, or its last but for the packages


def setup(project: Path) -> None:
    """Set up a project, and print what a person has to know of it.

    Raises:
        RefusedError: It failed, and all that it printed is shown.
    """
    with ExitStack() as stack:
        show = stack.enter_context(moving_line("Environment, hooks, first commit (make setup)"))

        def report(line: str) -> None:
            show(line)
            if SYNCED.match(line):  # whatever asks for a passphrase has the terminal for itself
                stack.close()

        command = ["make", "--no-print-directory", "setup"]
        result = run(command, project, output="merged", report=report)
    if not result.succeeded:
        print(result.text.rstrip(), file=sys.stderr, flush=True)
        raise RefusedError(f"make setup ended with exit code {result.returncode} (see above)")
    for line in result.text.splitlines():
        if line.strip() and not CHATTER.match(line):
            echo(line)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: setup(Path(sys.argv[1]))))
