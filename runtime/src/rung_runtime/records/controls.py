"""The document of the controls: how a request changes gate, delivery and service."""

from typing import Literal

from pydantic import Field

from .base import Digest, Document, Record, Verdict


class Change(Record):
    """A setting that differs from the base's."""

    file: str
    key: str
    before: str
    after: str


class ControlsDocument(Document):
    """artifacts/controls.json: how gate and delivery settings differ from those of a base."""

    step: Literal["controls"] = "controls"
    base: str = Field(description="A commit.")
    changes: list[Change]
    own_gate: str | None = Field(description="Why the base's gate cannot judge this task.")
    verdict: Verdict | None = Field(description="By the base's files; null: not judged.")
    reasons: list[str]
    model_digest: Digest
