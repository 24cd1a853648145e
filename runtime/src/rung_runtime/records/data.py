"""The documents of the steps that make rows: ingest, validate, split."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Digest, Document, Omittable, Record, Verdict

# What a rule is about. Those of `problem/schema.py` are `custom`, whatever they are called.
RuleKind = Literal[
    "missing_column",
    "extra_column",
    "type",
    "null",
    "range",
    "category",
    "duplicate",
    "row_count",
    "freshness",
    "custom",
]


class IngestDocument(Document):
    """artifacts/ingest.json: the rows that were read."""

    step: Literal["ingest"] = "ingest"
    rows: Count
    columns: list[str]


class Failure(Record):
    """Rows that break a rule of the contract."""

    column: str | None = Field(description="null: the table as a whole")
    rule: str = Field(description="What a person calls it.")
    kind: Omittable[RuleKind] = Field(
        default=None,
        description="What it is about, whatever it is called; custom: a rule of problem/schema.py. "
        "Documents of 0.3 and before lack it.",
    )
    count: Count
    samples: Annotated[list[str], Field(max_length=5)]
    rows: Annotated[list[Count], Field(max_length=5)] = Field(
        description="Where the samples are, counted from 0."
    )


class ValidationDocument(Document):
    """artifacts/validation.json: a verdict on every column, and each failure with values."""

    step: Literal["validate"] = "validate"
    verdict: Verdict
    rows: Count
    columns: dict[str, Verdict]
    failures: list[Failure]


class PartitionVerdict(Record):
    """A partition of a source: whether each of its rows satisfies the contract by itself."""

    name: str
    rows: Count
    digest: Digest
    verdict: Verdict


class SourceValidationDocument(Document):
    """artifacts/source_validation.json: the same of a source of many partitions."""

    step: Literal["validate_source"] = "validate_source"
    source: str
    source_version: Omittable[int] = Field(default=None, description="Of a Delta table.")
    verdict: Verdict
    rows: Count
    columns: dict[str, Verdict]
    failures: list[Failure]
    partitions: list[PartitionVerdict]


class SplitDocument(Document):
    """artifacts/split.json: how many rows are on which side."""

    step: Literal["split"] = "split"
    by: Literal["time", "group", "stratified"]
    train: Count
    holdout: Count
    without_target: Count
