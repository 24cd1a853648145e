"""What every tracker, target, CI platform and explainer promises, as tests to inherit.

A registry has its own: `testing.registry`.

Example:
    from rung_runtime.testing.adapters import TargetContract

    class TestOurs(TargetContract):
        @pytest.fixture
        def open_target(self, releases):
            return lambda: our_target.open_target("production")

        @pytest.fixture
        def releases(self):
            return Release("v1", "sha256:…"), Release("v2", "sha256:…")

        @pytest.fixture
        def unservable(self):
            return Release("v3", "sha256:…")
"""

from ..model_formats import ModelFormatContract
from .ci_platform import LONGER_THAN_ANY_COMMENT, RESULTS, Job, PlatformContract
from .explainer import (
    BACKGROUND_ROWS,
    CLASSES,
    EXPLAINED,
    EXPLAINED_ROW,
    NOON,
    UNUSED,
    ExplainerContract,
    explained_subject,
)
from .target import Release, TargetContract
from .tracker import CONTRACT, DATA_DIGEST, RecordedRun, TrackerContract, leave_run

__all__ = [
    "BACKGROUND_ROWS",
    "CLASSES",
    "CONTRACT",
    "DATA_DIGEST",
    "EXPLAINED",
    "EXPLAINED_ROW",
    "LONGER_THAN_ANY_COMMENT",
    "NOON",
    "RESULTS",
    "UNUSED",
    "ExplainerContract",
    "Job",
    "ModelFormatContract",
    "PlatformContract",
    "RecordedRun",
    "Release",
    "TargetContract",
    "TrackerContract",
    "explained_subject",
    "leave_run",
]
