"""Champion and challenger: what a comparison can come to, and the document that has it."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from .base import Champion, Count, Document, Interval, NonNegative, Omittable, Record


class Recipes(Record):
    """Both trained anew on folds, each row predicted by models that had not seen it."""

    skill: Interval
    rows: Count


class BestComparison(Record):
    """The challenger against the best champion so far, where that is another one."""

    champion: Champion
    skill: Interval
    recipes: Omittable[Recipes] = None
    unseen: Count


class ComparedSlice(Record):
    """The skill over the champion on the rows with one value of a column."""

    column: str
    value: str | None
    rows: Count
    skill: Interval


class FairnessChange(Record):
    """How far a rate differs among groups, beside how far it does for the champion."""

    columns: Annotated[list[str], Field(min_length=1)]
    rate: str
    highest: str = Field(description="Of the two groups that surely differ most.")
    lowest: str
    challenger: Interval = Field(description="The largest difference.")
    own: Interval = Field(description="The champion's own.")
    change: Interval = Field(
        description="Of the difference of these two groups, from the champion to the challenger."
    )


class NotCompared(Record):
    """first: there is no champion. same: the challenger is it."""

    kind: Literal["first", "same"]
    champion: Champion | None


class Incomparable(Record):
    """The champion cannot be compared with, and reason says why.

    unreadable: it cannot predict these rows. unrecognised: the rows that it was trained on cannot
    be identified. seen: too few rows are new to it.
    """

    kind: Literal["unreadable", "unrecognised", "seen"]
    champion: Champion
    tolerance: NonNegative
    replaces: str | None = Field(description="accept_incomparable of config/delivery.yaml.")
    unseen: Omittable[Count] = None
    rows: Omittable[Count] = None
    reason: str


class Compared(Record):
    """Champion against challenger, on rows that neither was trained on."""

    kind: Literal["compared"]
    champion: Champion
    tolerance: NonNegative
    replaces: str | None = Field(description="accept_incomparable of config/delivery.yaml.")
    unseen: Omittable[Count] = Field(
        default=None,
        description="Of the rows, those that the champion was not trained on: all that is "
        "compared.",
    )
    rows: Omittable[Count] = Field(default=None, description="Held out.")
    metric: str
    confidence: float
    challenger: Interval
    own: Interval = Field(description="The champion's own.")
    skill: Interval = Field(description="Of the challenger over the champion.")
    slices: list[ComparedSlice]
    fairness: Omittable[list[FairnessChange]] = Field(
        default=None, description="Where config/gate.yaml has fairness."
    )
    recipes_failed: Omittable[str] = Field(
        default=None, description="Why recipes could not be compared."
    )
    recipes: Omittable[Recipes] = None
    best: Omittable[BestComparison] = None
    anchor: Champion | None = Field(
        default=None,
        description="The best champion so far, if that is not this model; the next is compared "
        "with it.",
    )


Comparison = TypeAliasType(
    "Comparison",
    Annotated[
        NotCompared | Incomparable | Compared,
        Field(
            discriminator="kind",
            description="Champion against challenger, on the challenger's holdout.",
        ),
    ],
)


class ComparisonDocument(Document):
    """artifacts/comparison.json: the challenger against the champion."""

    step: Literal["compare"] = "compare"
    comparison: Comparison
