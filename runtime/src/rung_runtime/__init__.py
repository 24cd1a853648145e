"""From raw data to a model that passed its gate: `ml --help`.

A command ends early in two ways, each with one sentence: what, where, what to do.
"""

import os

STEP_RUNNER = "ML_STEP_RUNNER"  # the variable with the address of what runs the steps of `ml run`
# Threads that wait without spinning: scikit-learn's trees are twice as fast on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class BadInput(Exception):
    """It cannot start or go on with what it was given: exit code 2."""


class Refused(Exception):
    """A contract, a gate or a check said no, and a document says why: exit code 1."""
