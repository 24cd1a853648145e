"""The documents of a model and of what it is worth on the holdout."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import (
    Count,
    Digest,
    Document,
    Interval,
    NonNegative,
    Number,
    Omittable,
    Record,
    Task,
)

Curve = Literal["roc", "precision and recall", "confusion", "predicted and actual"]


class TrainingDocument(Document):
    """artifacts/training.json: what the model was trained with."""

    step: Literal["train"] = "train"
    rows: Count
    estimator: str
    seed: int
    params: dict[str, Any]
    model_inputs: list[str]
    learning_curves: Omittable[dict[str, list[float]]] = Field(
        default=None, description="By metric, its value after each epoch of training."
    )
    engine: Omittable[str] = Field(
        default=None, description="What trained it, if it was the workers of a cluster."
    )
    workers: Omittable[Count] = Field(default=None, description="How many of them there were.")


class Rarest(Record):
    """The class with the fewest rows."""

    class_: Annotated[str, Field(alias="class")]
    rows: Count


class Baseline(Record):
    """What a simple model reaches, and the skill of the model over it."""

    value: float | None
    metrics: Omittable[dict[str, float | None]] = Field(
        default=None, description="Its value of every metric."
    )
    skill: Interval


class Baselines(Record):
    """The simple models that a model is compared with."""

    constant: Baseline
    linear: Baseline


class Slice(Record):
    """The model on the rows with one value of a column."""

    column: str
    value: str | None
    rows: Count
    metric: Interval
    skill: Interval


class Ratio(Record):
    """How many rows of a class there are, and how many the probabilities add up to."""

    class_: Annotated[str, Field(alias="class")]
    observed: Count
    expected: NonNegative
    ratio: Interval


class Bin(Record):
    """Rows with similar predictions."""

    predicted: float
    observed: float
    rows: Count


class Calibration(Record):
    """How far predictions are from what happens."""

    error: NonNegative
    low: Omittable[NonNegative] = Field(
        default=None, description="The lower end of the error's interval."
    )
    bins: list[Bin]
    ratios: Omittable[list[Ratio]] = Field(
        default=None,
        description="Observed and expected rows of each class; of two, of the rarer one.",
    )


class Outcomes(Record):
    """Rows of the holdout by what happened and what was predicted."""

    true_positive: Count
    false_positive: Count
    false_negative: Count
    true_negative: Count


class CostPerRow(Record):
    """The cost of a row with the model, if nobody ever acts, and if everybody always does."""

    model: NonNegative
    never: NonNegative
    always: NonNegative


class Decision(Record):
    """Where config/gate.yaml has costs: from which probability on to act."""

    threshold: NonNegative
    false_positive: float = Field(description="What one costs.")
    false_negative: float = Field(description="What one costs.")
    counts: Outcomes
    cost: CostPerRow
    against: Literal["never", "always"]
    worth: Interval


class Importance(Record):
    """What the metric loses when a column is shuffled."""

    column: str
    loss: float | None


class Leaks(Record):
    """What training knows of the holdout, by kind."""

    rows: Count
    groups: Omittable[Count] = None
    future: Omittable[Count] = None
    encodings: Omittable[Count] = None


class ModelFacts(Record):
    """The model as a file, and how long a prediction takes."""

    digest: Digest
    megabytes: float
    latency_ms: float = Field(description="The fastest of many predictions of one row.")
    yardstick_ms: Omittable[float] = Field(
        default=None, description="The fastest of as many runs of a fixed computation."
    )


class GroupRate(Record):
    """A rate in the rows of a group."""

    group: str
    rows: Annotated[Count, Field(description="Those that count for this rate.")]
    clusters: Omittable[Count] = Field(
        default=None, description="Groups of the split that they are of, where it keeps groups."
    )
    value: Interval = Field(description="Its ends are null where rows are too few to judge.")


class GroupComparison(Record):
    """How far a rate differs among the groups that one or several columns make."""

    columns: Annotated[list[str], Field(min_length=1)]
    rate: str
    groups: list[GroupRate]
    difference: Interval = Field(description="Of the highest and the lowest group.")
    ratio: Omittable[Interval] = Field(default=None, description="Of the lowest to the highest.")
    highest: str | None = Field(description="Of the two groups that surely differ most.")
    lowest: str | None


class Scores(Record):
    """What metrics.json has that follows from predictions alone."""

    task: Task
    metric: str = Field(description="The one that gate, slices and importance go by.")
    rows: Count
    rarest: Rarest | None = Field(default=None, description="null of a regression.")
    metrics: Annotated[dict[str, Interval], Field(min_length=1)]
    baselines: Baselines
    slices: list[Slice]
    calibration: Calibration
    curves: dict[Curve, list[list[Number]]] = Field(
        description="Points for the plots of the report; a confusion matrix has true classes as "
        "rows."
    )
    fairness: Omittable[list[GroupComparison]] = Field(
        default=None, description="Where config/gate.yaml has fairness."
    )


class MetricsDocument(Document, Scores):
    """artifacts/metrics.json: the model on the holdout."""

    step: Literal["evaluate"] = "evaluate"
    importance: list[Importance]
    leaks: Leaks
    alone: Omittable[list[str]] = Field(
        default=None, description="Columns that predict the target almost alone."
    )
    decision: Omittable[Decision] = None
    model: ModelFacts
