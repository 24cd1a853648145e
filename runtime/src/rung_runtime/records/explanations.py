"""The document of explanations."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Digest, Document, NonNegative, Omittable, Record

Which = Literal["highest", "lowest", "worst"]


class Point(Record):
    """What a column contributes to the prediction of a row."""

    contribution: float
    rank: float | None = Field(
        description="Of its value among those of all rows here: 0 of the lowest, 1 of the highest."
    )


class ColumnContributions(Record):
    """What a column contributes to predictions."""

    column: str
    mean: NonNegative = Field(description="Of the contributions without their signs.")
    points: list[Point]


class Contribution(Record):
    """What a column contributes to one prediction."""

    column: str
    value: str | None = Field(description="As a person reads it; null of a gap.")
    contribution: float


class ExplainedRow(Record):
    """A row of the holdout whose prediction is explained."""

    which: Which = Field(description="By its prediction; or that of the largest error.")
    class_: Annotated[Omittable[str], Field(alias="class")] = None
    predicted: float = Field(description="The probability of the class, or the value.")
    actual: str
    base_value: float
    contributions: list[Contribution]
    private: Omittable[float] = Field(default=None, description="Of columns that are private.")
    remainder: Omittable[float] = Field(default=None, description="Attributed to no column.")


class ExplanationsDocument(Document):
    """artifacts/explanations.json: which columns predictions for the holdout come from."""

    step: Literal["explain"] = "explain"
    model_digest: Digest
    method: str = Field(description="The explainer.")
    rows: Count = Field(description="Of the holdout that the contributions of columns are of.")
    columns: list[ColumnContributions]
    examples: list[ExplainedRow]
    reason: Omittable[str] = Field(default=None, description="Why there are none.")
