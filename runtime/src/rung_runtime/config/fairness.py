"""The key `fairness` of `config/gate.yaml`: what must not differ among groups of rows."""

from typing import Literal, Self

from pydantic import Field, model_validator

from .data import Data, Task
from .files import Strict

Criterion = Literal[
    "demographic_parity",
    "equal_opportunity",
    "predictive_equality",
    "equalized_odds",
    "calibration",
    "error_rate",
    "mean_absolute_error",
]
# What each criterion compares between groups, in fairlearn's terms.
CLASSIFICATION: dict[Criterion, list[str]] = {
    "demographic_parity": ["selection_rate"],
    "equal_opportunity": ["true_positive_rate"],
    "predictive_equality": ["false_positive_rate"],
    "equalized_odds": ["true_positive_rate", "false_positive_rate"],
    "calibration": ["calibration"],
    "error_rate": ["error_rate"],
}
REGRESSION: dict[Criterion, list[str]] = {
    "demographic_parity": ["mean_prediction"],
    "calibration": ["mean_error"],
    "mean_absolute_error": ["mean_absolute_error"],
}
# Those that need no class that is favorable.
OF_ANY_CLASS: tuple[Criterion, ...] = ("calibration", "error_rate")
# Shares of rows: of other numbers a ratio means nothing.
SHARES = ("selection_rate", "true_positive_rate", "false_positive_rate", "error_rate")
GROUPED = ("category", "boolean")  # types of columns whose values are groups
BANDED = ("number", "integer")  # and those that may have them in bands


class Fairness(Strict):
    """What must not differ among groups of rows, and by how much it may."""

    # Each a column, or a list of columns whose values together make a group.
    columns: list[str | list[str]] = Field(min_length=1)
    bands: dict[str, list[float]] = Field(default={})  # of a number: where each group begins
    max_difference: dict[Criterion, float] = Field(default={})
    min_ratio: dict[Criterion, float] = Field(default={})  # of the lowest to the highest group
    favorable: str | None = None  # the class that people hope for; binary: the positive one
    # The probability from which a row is selected; by default, if the class is the likeliest.
    threshold: float | None = Field(default=None, gt=0, lt=1)
    min_rows: int = Field(default=30, ge=10)  # a group with fewer is not judged
    # Which end of a difference must meet the limit: that it is surely too large, or surely not.
    compare: Literal["optimistic", "pessimistic"] = "optimistic"

    @property
    def partitions(self) -> list[list[str]]:
        """The columns that make groups, together."""
        return [[entry] if isinstance(entry, str) else entry for entry in self.columns]

    @property
    def named(self) -> list[str]:
        """All columns that are named in `columns`, each once."""
        return list(dict.fromkeys(name for names in self.partitions for name in names))

    def limits(self, task: Task, kind: Literal["difference", "ratio"]) -> dict[str, float]:
        """Return the limit of each rate: the strictest, where several criteria compare it."""
        criteria = REGRESSION if task == "regression" else CLASSIFICATION
        configured = self.max_difference if kind == "difference" else self.min_ratio
        strictest = min if kind == "difference" else max
        result: dict[str, float] = {}
        for criterion, limit in configured.items():
            for rate in criteria[criterion]:
                result[rate] = strictest(limit, result.get(rate, limit))
        return result

    def rates(self, task: Task) -> list[str]:
        """Return all rates that have a limit."""
        return list(self.limits(task, "difference") | self.limits(task, "ratio"))

    def problem(self, data: Data) -> str | None:
        """Return what does not fit a contract, in words; None if all does."""
        for name in self.named:
            if name in data.ignored:
                return (
                    f"columns: {name} is left out when rows are read: move it from ignored to "
                    "columns and sensitive of config/data.yaml"
                )
            if name not in data.columns or name == data.target:
                return f"columns: {name!r} is not a column of config/data.yaml, or is the target"
            kind = data.columns[name].type
            if kind == "number" and name not in self.bands:
                return f"columns: {name} has numbers: name where its groups begin in bands"
            if kind not in (*GROUPED, *BANDED):
                return f"columns: the values of {name}, of type {kind}, are not groups"
        for name in self.bands:
            if name not in self.named or data.columns[name].type not in BANDED:
                return f"bands: {name} is not a number among columns"
        return self._problem_of_criteria(data)

    def _problem_of_criteria(self, data: Data) -> str | None:
        if data.task == "regression":
            if self.favorable is not None or self.threshold is not None:
                return "favorable and threshold: a regression has no classes"
        elif self.favorable is not None and self.favorable not in data.classes:
            return f"favorable: {self.favorable!r} is not one of the classes {data.classes}"
        known = REGRESSION if data.task == "regression" else CLASSIFICATION
        for criterion in (*self.max_difference, *self.min_ratio):
            if criterion not in known:
                return f"a {data.task} task has no {criterion}: {', '.join(known)}"
            is_selective = criterion not in OF_ANY_CLASS
            if data.task == "multiclass" and self.favorable is None and is_selective:
                return f"{criterion} needs to know which class is favorable"
        for criterion in self.min_ratio:
            if not set(known[criterion]) <= set(SHARES):
                return f"min_ratio: {criterion} is not a share of rows: use max_difference"
        return None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.max_difference and not self.min_ratio:
            raise ValueError("name a criterion in max_difference or min_ratio")
        partitions = [tuple(sorted(names)) for names in self.partitions]
        if any(len(set(names)) != len(names) or not names for names in self.partitions):
            raise ValueError("columns: a list of columns is empty, or names one twice")
        if len(set(partitions)) != len(partitions):
            raise ValueError("columns: one is named twice")
        for name, edges in self.bands.items():
            if not edges or sorted(set(edges)) != edges:
                raise ValueError(f"bands: those of {name} must be numbers that rise")
        if any(limit < 0 for limit in self.max_difference.values()):
            raise ValueError("max_difference: a limit is below 0")
        if any(not 0 < limit <= 1 for limit in self.min_ratio.values()):
            raise ValueError("min_ratio: a limit is not above 0 and at most 1")
        return self
