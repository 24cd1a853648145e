"""The document of the gate."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Digest, Document, Number, Omittable, Record, Verdict
from .comparison import Comparison

Rule = Literal["≥", ">", "≤"]


class Check(Record):
    """A value, what it must be, and the verdict."""

    id: Omittable[str] = Field(
        default=None,
        description="Which check it is, whatever its name says. In a document of before 0.4, those "
        "of the best champion so far have the ids of the champion's.",
    )
    check: str
    value: Number | None
    rule: Rule
    threshold: Number
    verdict: Verdict


class GateDocument(Document):
    """artifacts/gate.json: every check with its value, threshold and verdict."""

    step: Literal["gate"] = "gate"
    comparison: Comparison | None = Field(
        description="null at level 0, where there is no champion."
    )
    checks: Annotated[list[Check], Field(min_length=7)]
    notes: Omittable[list[str]] = Field(
        default=None, description="What to know before believing the intervals."
    )
    model_digest: Digest
    verdict: Verdict
