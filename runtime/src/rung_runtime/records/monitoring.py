"""The documents of monitoring: the drift of each column, and the decision.

Their parts are typed dictionaries, which monitoring fills in and the page reads.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from .base import Champion, Count, Document, Omittable, Timestamp
from .deployment import STRICT

AlarmKind = Literal["drift", "prediction", "performance", "violations", "fairness", "age"]
Share = Annotated[float, Field(ge=0, le=1)]


@with_config(STRICT)
class Ends(TypedDict):
    """A number and the ends of its confidence interval; each is null where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


Signs = dict[str, dict[str, str]]  # by kind of alarm, what speaks for it, and why


@with_config(STRICT)
class Finding(TypedDict):
    """How a column of a window differs from the training rows.

    It drifts if a change is both large and statistically significant.
    """

    verdict: Literal["drift", "quiet"]
    reason: Annotated[str | None, Field(description="In words; null if it does not drift.")]
    psi: Annotated[float, Field(description="Population stability index.")]
    distance: Annotated[float | None, Field(description="Kolmogorov-Smirnov; null for categories.")]
    cohens_w: NotRequired[
        Annotated[
            float | None,
            Field(
                description="Effect size of categories, without what chance adds; null for numbers."
            ),
        ]
    ]
    total_variation: NotRequired[
        Annotated[
            float | None,
            Field(description="Share of rows that are of another category; null for numbers."),
        ]
    ]
    p_values: Annotated[
        float, Field(ge=0, le=1, description="Of a change that is no larger than usual.")
    ]
    gaps: Annotated[
        float, Field(ge=0, le=1, description="Share, with categories that are not known.")
    ]
    gap_change: Annotated[float, Field(ge=-1, le=1)]
    new: Annotated[float, Field(ge=0, le=1, description="Share of categories that are not known.")]
    p_gaps: Share
    usual: NotRequired[
        Annotated[
            dict[str, float],
            Field(
                description="The largest of these changes among windows of the training rows that "
                "are as long."
            ),
        ]
    ]


# Of a window, `from` and `to` are keywords: these cannot be written as classes.
WindowDrift = TypedDict(
    "WindowDrift",
    {
        "from": Timestamp,
        "to": Timestamp,
        "rows": Count,
        "columns": dict[str, Finding],
        "prediction": Finding | None,
    },
)
WindowDrift.__pydantic_config__ = STRICT  # type: ignore[attr-defined]


@with_config(STRICT)
class WindowPerformance(TypedDict):
    """What the labels of a window say of the metric."""

    labels: Count
    value: Ends
    skill: Annotated[Ends, Field(description="Over what metrics.json has: below 0 it was lost.")]


@with_config(STRICT)
class WindowComparison(TypedDict):
    """A rate that was compared among groups; all intervals of a window hold together."""

    columns: list[str]
    rate: str
    difference: Annotated[Ends, Field(description="Of the highest and the lowest group.")]
    ratio: Annotated[
        Ends | None, Field(description="Of the lowest to the highest; null: it has no limit.")
    ]
    highest: Annotated[str | None, Field(description="null: too few rows in all but one group.")]
    lowest: str | None


WindowSummary = TypedDict(
    "WindowSummary",
    {
        "from": Timestamp,
        "to": Timestamp,
        "rows": Count,
        "refused": Count,
        "violation_share": Share,
        "performance": Annotated[
            WindowPerformance | None, Field(description="null: too few labels.")
        ],
        "fairness": NotRequired[
            Annotated[
                list[WindowComparison] | None,
                Field(description="null: there are no limits, or the log lacks what they are for."),
            ]
        ],
        "signs": Annotated[
            Signs,
            Field(
                description="By kind what speaks for an alarm, and why; a kind that cannot be "
                "judged is left out."
            ),
        ],
    },
)
WindowSummary.__pydantic_config__ = STRICT  # type: ignore[attr-defined]


@with_config(STRICT)
class AlarmRecord(TypedDict):
    """An alarm that is not cleared."""

    id: str
    kind: AlarmKind
    raised: Timestamp
    status: Annotated[
        Literal["decided", "started", "needs_attention", "told"],
        Field(
            description="needs_attention: no training answers it, a person has to look. It was "
            "told before 0.3."
        ),
    ]
    reason: str
    started: NotRequired[Timestamp]
    outcome: NotRequired[
        Annotated[
            str | None,
            Field(description="Of the training: null while it runs, or if it was killed."),
        ]
    ]
    cleared: NotRequired[Annotated[str, Field(description="Left of an earlier alarm.")]]
    new: Annotated[bool, Field(description="Raised now, not by an earlier run.")]


@with_config(STRICT)
class LabelCounts(TypedDict):
    """Of all predictions of the champion."""

    predictions: Count
    labels: Count
    waiting: Annotated[Count, Field(description="Labels since the last batch, too few for one.")]


@with_config(STRICT)
class MetricCheck(TypedDict):
    """A metric of labelled predictions, and of the holdout."""

    value: Ends
    expected: Ends
    skill: Annotated[Ends, Field(description="Over what is expected: below 0 it was lost.")]


@with_config(STRICT)
class CalibrationCheck(TypedDict):
    """Observed ÷ predicted, and the interval of its ratio to that of the holdout."""

    value: float
    expected: float
    low: float
    high: float


Outcome = TypedDict(
    "Outcome",
    {
        "arrived": Timestamp,
        "from": Annotated[Timestamp, Field(description="Of the predictions.")],
        "to": Timestamp,
        "labels": Count,
        "predictions": Annotated[Count, Field(description="Of the same time, labelled or not.")],
        "coverage": Annotated[float, Field(ge=0)],
        "basis": Annotated[
            Literal["all", "balanced", "none"],
            Field(
                description="balanced: a part of the labels that has all scores in their shares."
            ),
        ],
        "note": Annotated[str | None, Field(description="Why it is a part or none.")],
        "checks": Annotated[dict[str, MetricCheck], Field(description="By metric.")],
        "calibration": CalibrationCheck | None,
        "signs": Signs,
    },
)
Outcome.__pydantic_config__ = STRICT  # type: ignore[attr-defined]


class DriftDocument(Document):
    """artifacts/drift.json: every column of the newest windows of the champion's log."""

    step: Literal["drift"] = "drift"
    champion: Champion
    thresholds: dict[str, Any] = Field(description="config/drift.yaml, with what it leaves out.")
    windows: list[WindowDrift]


class MonitorDocument(Document):
    """artifacts/monitor.json: whether to train again, and why."""

    step: Literal["monitor"] = "monitor"
    champion: Champion
    thresholds: dict[str, Any]
    decision: Literal["retrain", "none"] = Field(
        description="retrain until a training was started for it."
    )
    reason: str
    alarm: str | None = Field(
        description="The one that the decision is for; the first, if there are more."
    )
    kind: str | None
    new: bool = Field(description="Decided now, not by an earlier run.")
    age_days: float
    metric: str
    expected: Ends = Field(description="What metrics.json has of it, on the holdout.")
    alarms: list[AlarmRecord] = Field(description="Those that are not cleared.")
    waiting: Count = Field(description="Rows since the last window, too few or too new for one.")
    windows: list[WindowSummary]
    labels: Omittable[LabelCounts] = Field(
        default=None, description="Of all predictions of the champion."
    )
    outcomes: Omittable[list[Outcome]] = Field(
        default=None,
        description="The newest batches of labels, in the order in which they arrived.",
    )
