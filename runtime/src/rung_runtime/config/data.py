"""`config/data.yaml`: the contract, that is where rows come from and what must be true of them."""

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from .files import Strict

DATA = Path("config/data.yaml")
Task = Literal["binary", "multiclass", "regression"]
ColumnType = Literal["number", "integer", "boolean", "category", "text", "datetime"]
# The first metric of a task is the one that `ml data use` chooses for the gate.
METRICS: dict[Task, list[str]] = {
    "binary": ["roc_auc", "average_precision", "log_loss", "brier", "accuracy"],
    "multiclass": ["log_loss", "accuracy", "macro_f1"],
    "regression": ["rmse", "mae", "r2"],
}
HIGHER_IS_BETTER = {"roc_auc", "average_precision", "accuracy", "macro_f1", "r2"}


class Column(Strict):
    """What must be true of the values of a column."""

    type: ColumnType
    nullable: bool = False
    # Texts that mean "no value" in this column, besides those of Data.
    missing_values: list[str] = Field(
        default=[], validation_alias=AliasChoices("missing_values", "gaps")
    )
    min: float | None = None
    max: float | None = None
    categories: list[str] = Field(default=[])
    # Categories that are not listed are allowed, and read as a missing value.
    allow_unknown: bool = Field(
        default=False, validation_alias=AliasChoices("allow_unknown", "open")
    )
    formats: list[str] = Field(default=[])  # of a datetime, tried in this order


class Split(Strict):
    """How the holdout is set aside."""

    by: Literal["time", "group", "stratified"]
    column: str | None = None  # the time or the group
    holdout: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0


class Data(Strict):
    """The contract: where the rows come from, and what must be true of them."""

    source: str
    separator: str = Field(default=",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    # Texts that mean "no value", in any column.
    missing_values: list[str] = Field(
        default=[""], validation_alias=AliasChoices("missing_values", "gaps")
    )
    target: str
    task: Task
    classes: list[str] = Field(default=[])  # of a binary task: the negative one, the positive one
    # Classes too rare to be learned: the class that each is merged into; null drops its rows.
    rare_classes: dict[str, str | None] = Field(default={})
    split: Split
    keys: list[str] = Field(default=[])  # together unique in every row, and not features
    # Kept with the rows, and never features: to judge fairness by, for example.
    sensitive: list[str] = Field(default=[])
    identity: list[str] = Field(default=[])  # columns that identify a row, where there are no keys
    time: str | None = None  # when the event of a row happened
    max_age_days: float | None = Field(default=None, gt=0)  # of the newest row, by `time`
    min_rows: int = Field(default=100, ge=1)
    columns: dict[str, Column]
    # Columns that are dropped when rows are read, each with the reason.
    ignored: dict[str, str] = Field(
        default={}, validation_alias=AliasChoices("ignored", "left_out")
    )

    @property
    def features(self) -> list[str]:
        """The columns that a model may see."""
        group = self.split.column if self.split.by == "group" else None
        others = {self.target, *self.keys, *self.sensitive, group}
        return [name for name in self.columns if name not in others]

    def for_predicting(self) -> "Data":
        """Return the contract of rows without a target: only the features, any number of rows."""
        kept = {name: self.columns[name] for name in self.features}
        dropped = {name: "no feature" for name in self.columns if name not in kept}
        return self.model_copy(
            update={
                "columns": kept,
                "ignored": self.ignored | dropped,
                "keys": [],
                "sensitive": [],
                "min_rows": 1,
                "max_age_days": None,
            }
        )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [self.target, *self.keys, *self.sensitive, self.time, self.split.column]
        unknown = [name for name in names if name is not None and name not in self.columns]
        if unknown:
            raise ValueError(
                f"{unknown} in keys, sensitive, time, target or split is not one of the columns"
            )
        if self.target in self.sensitive:
            raise ValueError(f"sensitive: {self.target} is the target")
        time_of_split = self.split.column if self.split.by == "time" else None
        for name in (self.time, time_of_split):
            if name is not None and self.columns[name].type != "datetime":
                raise ValueError("time and split by time need a datetime")
        if self.split.by != "stratified" and self.split.column is None:
            raise ValueError("split: needs a column")
        if self.max_age_days and self.time is None:
            raise ValueError("max_age_days: needs the key time")
        count = len(self.classes)
        fits = {"regression": count == 0, "binary": count == 2, "multiclass": count > 2}
        if not fits[self.task]:
            raise ValueError(f"classes: {count} do not fit a {self.task} task")
        if not self.features:
            raise ValueError("columns: none is left for the model to learn from")
        return self
