"""Tests that a project imports, as `tests/test_controls.py` does. They need pytest."""

import pytest

# So that a failure shows its values, as in a test file; before the modules are imported.
pytest.register_assert_rewrite(
    "rung_runtime.testing.adapters",
    "rung_runtime.testing.controls",
    "rung_runtime.testing.registry",
)
