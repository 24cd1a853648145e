"""`config/gate.yaml`: what a model must reach."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from .fairness import Fairness
from .files import Strict

GATE = Path("config/gate.yaml")
EARLIER_VALUES = {"worse_end": "pessimistic"}  # of `compare`, which was `judge` before 0.3


def _value_of_now(value: object) -> object:
    return EARLIER_VALUES.get(value, value) if isinstance(value, str) else value


class Costs(Strict):
    """What the two errors of a binary decision cost, in one unit."""

    false_positive: float = Field(gt=0)
    false_negative: float = Field(gt=0)


class Gate(Strict):
    """What a model must reach. No check has a switch to turn it off."""

    metric: str  # of baselines, slices and importance
    thresholds: dict[str, float] = Field(min_length=1)  # minimum, or maximum of an error metric
    # What meets a threshold: the value, or the worse end of its confidence interval.
    compare: Annotated[Literal["value", "pessimistic"], BeforeValidator(_value_of_now)] = Field(
        default="value", validation_alias=AliasChoices("compare", "judge")
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=200, ge=50)
    min_skill: float = Field(default=0.0, ge=0, lt=1)  # over a constant, with confidence
    # Skill that may be lost against a linear model.
    linear_tolerance: float = Field(default=0.05, ge=0)
    slice_rows: int = Field(default=100, ge=2)  # a category with fewer is not judged by itself
    slice_skill: float = Field(default=0.0, lt=1)
    predicts_alone: list[str] = Field(
        default=[]
    )  # columns that may predict the target alone: known in time
    max_calibration_error: float = Field(default=0.1, gt=0)  # with confidence; see docs/gate.md
    # The factor by which observed and expected rows of a class may differ, with confidence.
    max_observed_expected: float = Field(default=1.35, gt=1)
    max_megabytes: float = Field(default=20.0, gt=0)
    max_latency_ms: float = Field(default=50.0, gt=0)  # on a machine of ordinary speed
    costs: Costs | None = None  # the report then shows a threshold, and what it is worth
    fairness: Fairness | None = None  # what must not differ among groups of rows
