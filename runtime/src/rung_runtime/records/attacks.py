"""The documents of `ml check`: what attacks made of the packaged model."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Digest, Document, Interval, NonNegative, Record


class MovedColumn(Record):
    """An input of the model, and in how many rows the attack moved it most."""

    column: str
    rows: Count


class RobustnessDocument(Document):
    """artifacts/robustness.json: by how little a row must change for another answer."""

    step: Literal["robustness"] = "robustness"
    package_digest: Digest
    attack: str
    rows: Count
    flipped: Count = Field(description="Rows that the attack found another answer for.")
    inputs_moved: Annotated[list[str], Field(min_length=1)]
    distances: dict[Literal["10 %", "50 %", "90 %"], NonNegative] = Field(
        description="Percentiles over the rows that were flipped, in standard deviations."
    )
    moved_most: list[MovedColumn]


class PrivacyDocument(Document):
    """artifacts/privacy.json: how well answers tell who was among the training rows."""

    step: Literal["privacy"] = "privacy"
    model_digest: Digest
    attack: str
    rows: Count = Field(description="That the attack was judged on; half of them were trained on.")
    roc_auc: Interval = Field(description="0.5: the answers tell nothing.")
    advantage: float = Field(description="True minus false positive rate of its guesses.")
