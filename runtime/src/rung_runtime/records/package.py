"""The document of the package."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, Digest, Digests, Document, NonNegative, Omittable, Record


class Compiled(Record):
    """Whether the package holds a compiled model, which then answers instead of the estimator."""

    is_compiled: bool
    largest_difference: Omittable[NonNegative] = Field(
        default=None,
        description="From what the estimator predicts: of probabilities, or relative to a value.",
    )
    rows: Omittable[Count] = Field(default=None, description="That were compared.")
    reason: Omittable[str] = Field(default=None, description="Why there is none.")


class PackageDocument(Document):
    """artifacts/package.json: what artifacts/model/ holds."""

    step: Literal["package"] = "package"
    version: Annotated[str, Field(pattern="^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$")] = Field(
        description="When training ended, and the beginning of the package's digest."
    )
    package_digest: Digest = Field(
        description="Of the files' digests by name, as JSON with sorted keys."
    )
    model_digest: Digest = Field(description="Of the model that the gate passed.")
    files: Digests
    refit_digest: Omittable[Digest] = Field(
        default=None,
        description="Of the model in the package, if it was trained once more, on all rows.",
    )
    compiled: Omittable[Compiled] = None
    formats: Omittable[list[str]] = Field(
        default=None, description="The adapters that reading the model takes; absent: skops."
    )
