"""The documents of a deployment and of an image.

Their parts are typed dictionaries: they are filled in while a deployment runs, and what is known is
written wherever it ends.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from .base import Count, Digest, Document, NonNegative

Stage = Literal["fetch", "shadow", "promote", "switch", "smoke", "watch", "done"]
DeploymentVerdict = Literal["running", "deployed", "refused", "rolled_back", "repaired"]
WatchVerdict = Literal["passed", "failed", "slow", "undecided", "not seen"]
Total = Count | NonNegative
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@with_config(STRICT)
class ShadowResult(TypedDict, total=False):
    """What the shadow measured; a number that cannot be measured is absent."""

    requests: Annotated[Count, Field(description="Those that the champion can answer.")]
    errors: Annotated[
        Count, Field(description="Requests that the candidate cannot answer, and the champion can.")
    ]
    error_share: Annotated[float, Field(ge=0, le=1)]
    p95_ms: NonNegative
    champion_p95_ms: NonNegative
    latency_ratio: NonNegative
    rows: Count
    distinct_rows: Count
    shift: Annotated[
        float,
        Field(
            ge=0,
            description="Mean absolute difference of two predictions for a row: of the "
            "probability, of a regression as a share of the champion's range (5th to 95th "
            "percentile). Of more than two classes the total variation distance between the "
            "shares of the classes.",
        ),
    ]
    agreement: Annotated[
        float,
        Field(
            ge=-1,
            le=1,
            description="Rank correlation (Spearman) of the predictions for distinct rows; of more "
            "than two classes the mean over the classes. Absent where the champion does not "
            "distinguish the rows.",
        ),
    ]
    note: Annotated[
        str, Field(description="What was done differently, and why the candidate was refused.")
    ]


@with_config(STRICT)
class SmokeResult(TypedDict, total=False):
    """A smoke test that passed."""

    url: str
    package_digest: Digest
    parity: Annotated[str, Field(description="What was compared, in words.")]


@with_config(STRICT)
class WatchResult(TypedDict, total=False):
    """What the watch has measured so far."""

    seconds: NonNegative
    requests: Annotated[Total, Field(description="Those that the service answered meanwhile.")]
    errors: Annotated[
        Total, Field(description="Of these, with a status of 5xx or a failure of the model's code.")
    ]
    error_share: NonNegative
    mean_ms: Annotated[
        float,
        Field(
            ge=0,
            description="Of the requests after the first ones; of all, if there were no more.",
        ),
    ]
    verdict: Annotated[
        WatchVerdict,
        Field(description="undecided: too few requests to tell; not seen: there was none."),
    ]


class DeploymentDocument(Document):
    """artifacts/deployment.json: written anew as each stage begins; `ended` is when."""

    step: Literal["deploy"] = "deploy"
    version: str
    package_digest: Digest
    previous: str | None = Field(
        description="The previous version, which is restored after a failure."
    )
    target: Annotated[str, Field(description="local, or kubernetes/ and an overlay.")]
    stage: Stage
    verdict: DeploymentVerdict
    reason: str | None
    shadow: ShadowResult | None
    smoke: SmokeResult | None
    watch: WatchResult | None


class ImageDocument(Document):
    """artifacts/image.json: an image that was built here, tested, and pushed."""

    step: Literal["image"] = "image"
    image: Annotated[str, Field(pattern="@sha256:[0-9a-f]{64}$")]
    version: str
    package_digest: Digest
    parity: str = Field(description="What it was asked, and answered as the package does.")
