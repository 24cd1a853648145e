"""`config/drift.yaml`: when new data counts as different from the data of the training."""

from pathlib import Path
from typing import Self

from pydantic import AliasChoices, Field, model_validator

from .files import Strict, read

DRIFT = Path("config/drift.yaml")


class Window(Strict):
    """A window closes once it has both: so many hours, and so many rows."""

    hours: float = Field(default=24.0, ge=0)
    rows: int = Field(default=500, ge=50)


class Drift(Strict):
    """When new data counts as different from the data that the champion was trained on."""

    window: Window = Window()
    # Of the newest windows, so many must have a sign, the newest among them.
    recent_windows: int = Field(
        default=5, ge=1, validation_alias=AliasChoices("recent_windows", "windows")
    )
    min_windows_in_alarm: int = Field(
        default=2, ge=1, validation_alias=AliasChoices("min_windows_in_alarm", "alarms")
    )
    significance: float = Field(default=0.01, gt=0, lt=1)  # of a window, all columns together
    min_psi: float = Field(default=0.2, gt=0)
    min_distance: float = Field(default=0.1, gt=0)  # Kolmogorov-Smirnov
    min_cohens_w: float = Field(default=0.15, gt=0)  # of categories, together with
    min_moved: float = Field(default=0.05, gt=0)  # the share of rows that are of another category
    min_correlation_change: float = Field(default=0.2, gt=0)  # of ranks, of two columns
    min_gap_change: float = Field(default=0.05, gt=0)
    max_violation_share: float = Field(default=0.01, ge=0, le=1)
    max_skill_loss: float = Field(default=0.1, gt=0)
    max_calibration_ratio: float = Field(default=1.25, gt=1)  # observed ÷ predicted, either way
    max_age_days: float = Field(default=90.0, gt=0)

    @model_validator(mode="after")
    def _can_alarm(self) -> Self:
        if self.min_windows_in_alarm > self.recent_windows:
            raise ValueError(
                f"min_windows_in_alarm: {self.min_windows_in_alarm} of {self.recent_windows} "
                "recent_windows can never alarm"
            )
        return self


def load_drift() -> Drift:
    """Read `config/drift.yaml`.

    Raises:
        UsageError: As `config.read`.
    """
    return read(DRIFT, Drift)
