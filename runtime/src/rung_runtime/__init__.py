"""From raw data to a model that passed its gate: `ml --help`."""

import os

from .exceptions import RefusedError, RungError, UsageError

__all__ = ["BadInput", "Refused", "RefusedError", "RungError", "UsageError"]

# Their names before 0.3, for the code of projects.
BadInput = UsageError
Refused = RefusedError

STEP_RUNNER = "ML_STEP_RUNNER"  # the variable with the address of what runs the steps of `ml run`
# Threads that wait without spinning: scikit-learn's trees are twice as fast on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
