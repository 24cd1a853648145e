"""The start of `ml`, which ends with an exit code of its own whatever fails, imports included.

Python ends with 1 after any exception, and 1 is what a refusal ends with: whoever runs `ml` again
after failures would take a crash for a verdict.
"""

import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

from .. import STEP_RUNNER
from ..escaping import visible

BUG = 70  # sysexits.h calls it EX_SOFTWARE
NEWLINE = "\n"
OWN_PACKAGE = __name__.partition(".")[0]
# The steps, in the order of the pipeline.
STEPS = {
    "ingest": "Read the source of config/data.yaml into typed rows.",
    "validate": "Check the rows against the contract in config/data.yaml.",
    "split": "Set the holdout aside.",
    "train": "Train the estimator from problem/model.py.",
    "evaluate": "Score the model on the holdout.",
    "compare": "Score the champion on the same holdout.",
    "gate": "Check the model against config/gate.yaml.",
    "package": "Bundle the accepted model with everything serving needs.",
}


def main() -> None:
    """Run `ml` in the project that the current folder is in."""
    try:
        if STEP_RUNNER in os.environ and len(sys.argv) == 2 and sys.argv[1] in STEPS:
            # In `ml run`: what performs the step is there, and has the libraries that it needs.
            import_module("..step_runner", __package__).delegate()
        from .app import main as run
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == OWN_PACKAGE:
            leave_with_bug()  # a part of the runtime is missing
        leave(2, f"ml needs {error.name}, which is not installed: run `uv sync`")
    except Exception:
        leave_with_bug()
    try:
        run()
    except Exception:
        leave_with_bug()


def leave_with_bug() -> NoReturn:
    """Print the exception that is being handled, and end as a bug does."""
    traceback.print_exc()
    leave(BUG, "this is a bug of ml, not of your input: please report the lines above")


def leave(code: int, message: object) -> NoReturn:
    """Print a message, and end."""
    sys.stderr.write(f"ml: {visible(message, keep=NEWLINE)}\n")
    sys.exit(code)
