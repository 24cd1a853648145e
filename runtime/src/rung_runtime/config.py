"""The three files in `config/`, typed. A mistake in one of them is a sentence with file and key."""

from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import UsageError

DATA, MODEL, GATE = (Path("config") / f"{name}.yaml" for name in ("data", "model", "gate"))
Task = Literal["binary", "multiclass", "regression"]
ColumnType = Literal["number", "integer", "boolean", "category", "text", "datetime"]
# The first metric of a task is the one that `ml data use` chooses for the gate.
METRICS: dict[Task, list[str]] = {
    "binary": ["roc_auc", "average_precision", "log_loss", "brier", "accuracy"],
    "multiclass": ["log_loss", "accuracy", "macro_f1"],
    "regression": ["rmse", "mae", "r2"],
}
HIGHER_IS_BETTER = {"roc_auc", "average_precision", "accuracy", "macro_f1", "r2"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Column(Strict):
    type: ColumnType
    nullable: bool = False
    gaps: list[str] = []  # texts that mean "no value" in this column, besides Data.gaps
    min: float | None = None
    max: float | None = None
    categories: list[str] = []
    open: bool = False  # categories that are not listed are allowed, and read as a gap
    formats: list[str] = []  # of a datetime, tried in this order


class Split(Strict):
    by: Literal["time", "group", "stratified"]
    column: str | None = None  # the time or the group
    holdout: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0


class Data(Strict):
    """The contract: where the rows come from, and what must be true of them."""

    source: str
    separator: str = Field(default=",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    gaps: list[str] = [""]  # texts that mean "no value", in any column
    target: str
    task: Task
    classes: list[str] = []  # of a binary task: the negative one, the positive one
    # Classes that are too rare to be learned: what each is learned as, null to set its rows aside.
    rare_classes: dict[str, str | None] = {}
    split: Split
    keys: list[str] = []  # together unique in every row, and no features
    identity: list[str] = []  # columns that say which row is which, where there are no keys
    time: str | None = None  # when a row came to be
    max_age_days: float | None = Field(default=None, gt=0)  # of the newest row, by `time`
    min_rows: int = Field(default=100, ge=1)
    columns: dict[str, Column]
    left_out: dict[str, str] = {}  # column: the reason

    @property
    def features(self) -> list[str]:
        """The columns that a model may see."""
        group = self.split.column if self.split.by == "group" else None
        return [name for name in self.columns if name not in {self.target, *self.keys, group}]

    def for_predicting(self) -> "Data":
        """The contract of rows without a target: only the features, any number of rows."""
        kept = {name: self.columns[name] for name in self.features}
        gone = self.left_out | {name: "no feature" for name in self.columns if name not in kept}
        changes = {"columns": kept, "left_out": gone, "keys": [], "min_rows": 1}
        return self.model_copy(update=changes | {"max_age_days": None})

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        n, by_time = len(self.classes), self.split.column if self.split.by == "time" else None
        named = [self.target, *self.keys, self.time, self.split.column]
        unknown = [name for name in named if name is not None and name not in self.columns]
        times = [self.columns[name] for name in (self.time, by_time) if name in self.columns]
        fits = {"regression": n == 0, "binary": n == 2, "multiclass": n > 2}[self.task]
        for wrong, said in [
            (unknown, f"{unknown} in keys, time, target or split is not one of the columns"),
            (any(c.type != "datetime" for c in times), "time and split by time need a datetime"),
            (self.split.by != "stratified" and self.split.column is None, "split: needs a column"),
            (self.max_age_days and self.time is None, "max_age_days: needs the key time"),
            (not fits, f"classes: {n} do not fit a {self.task} task"),
            (not self.features, "columns: none is left for the model to learn from"),
        ]:
            if wrong:
                raise ValueError(said)
        return self


class Model(Strict):
    """What `problem/model.py` is given."""

    estimator: str = "boosted"
    seed: int = 0
    params: dict[str, Any] = {}
    refit: bool = False  # after the gate, on the holdout too; that very model is never measured


class Costs(Strict):
    """What the two errors of a binary decision cost, in one unit."""

    false_positive: float = Field(gt=0)
    false_negative: float = Field(gt=0)


class Gate(Strict):
    """What a model must reach. No check has a switch to turn it off."""

    metric: str  # of baselines, slices and importance
    thresholds: dict[str, float] = Field(min_length=1)  # at least, or at most, as the metric goes
    judge: Literal["value", "worse_end"] = "value"  # of the interval
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=200, ge=50)
    min_skill: float = Field(default=0.0, ge=0, lt=1)  # over a constant, surely
    linear_tolerance: float = Field(
        default=0.05, ge=0
    )  # skill that may be lost against a linear model
    slice_rows: int = Field(default=100, ge=2)  # a category with fewer is not judged by itself
    slice_skill: float = Field(default=0.0, lt=1)
    predicts_alone: list[str] = []  # columns that may tell the target alone, as known in time
    max_calibration_error: float = Field(default=0.1, gt=0)  # surely; see docs/gate.md
    # The factor by which observed and expected rows of a class may surely differ.
    max_observed_expected: float = Field(default=1.35, gt=1)
    max_megabytes: float = Field(default=20.0, gt=0)
    max_latency_ms: float = Field(default=50.0, gt=0)  # on a machine of ordinary speed
    costs: Costs | None = None  # the report then shows a threshold, and what it is worth


class Config(Strict):
    data: Data
    model: Model
    gate: Gate


# Pydantic's names of mistakes, as a person says them.
SAYS = {
    "extra_forbidden": "there is no such key",
    "missing": "this key is missing",
    "float_type": "this must be a number, without quotes",
    "model_type": "this must be keys with values",
}
Kind = TypeVar("Kind", bound=Strict)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: PyYAML takes the last, and drops the other silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        known: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in known:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {name[1]!r} is there twice", problem_mark=key.start_mark
                )
            known.add(name)
        return super().construct_mapping(node, deep)


def read(path: Path, kind: type[Kind]) -> Kind:
    """Read one file of `config/`.

    Raises:
        UsageError: It is missing or no YAML, or a key is unknown, absent or of another type.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        todo = (
            "`ml data use` writes it" if path in (DATA, MODEL, GATE) else "bring it back from Git"
        )
        raise UsageError(f"{path} is missing: {todo}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not UTF-8: save it as UTF-8") from None
    return checked(parsed(text, str(path)), kind, str(path))


def parsed(text: str, where: str) -> Any:
    """Parse YAML, which anybody may have written.

    Raises:
        UsageError: It is none, or has a date that there is not, or is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        said = str(getattr(error, "problem", error)).splitlines()[0]
    except (ValueError, RecursionError) as error:
        line, said = "", str(error)
    raise UsageError(f"{where}{line}: this is not YAML: {said}")


def checked(value: object, kind: type[Kind], where: str) -> Kind:
    """Type a value that came from `where`.

    Raises:
        UsageError: A key is unknown, absent or of another type.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first, *rest = error.errors()
        key = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
        more = f" (and {len(rest)} more)" if rest else ""
        said = SAYS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UsageError(f"{where}: {key}{said}{more}") from None


def load() -> Config:
    """Read the `config/` of the current folder.

    Raises:
        UsageError: As `read`, or the gate names a metric that the task does not have.
    """
    data, model, gate = read(DATA, Data), read(MODEL, Model), read(GATE, Gate)
    known = METRICS[data.task]
    for name in (gate.metric, *gate.thresholds):
        if name not in known:
            raise UsageError(
                f"{GATE}: '{name}' is no metric of a {data.task} task: {', '.join(known)}"
            )
    if gate.costs and data.task != "binary":
        raise UsageError(f"{GATE}: costs: a {data.task} task has no false positives")
    return Config(data=data, model=model, gate=gate)
