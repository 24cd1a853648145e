"""Controls: contract and gate are fed what they must refuse, and what they must accept."""

from rung_runtime.testing.controls import *  # noqa: F403
