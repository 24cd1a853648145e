"""`config/export.yaml`: names, schedules and resources of what is exported; all optional."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from ..exceptions import UsageError
from ..yaml_files import read_yaml

SETTINGS = Path("config/export.yaml")
STATE = r"^(s3|gs|az|file)://[\w.-]*(/[\w.=-]+)*$|^$"
# The fields of cron that every system reads alike: Sunday is 0, as some know no 7.
CRON = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
CRON_NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
CRON_PART = re.compile(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/0*[1-9]\d*)?", re.ASCII)
# Pydantic's names of mistakes, in plain words. A value is not repeated: it may hold a secret.
MESSAGES = {
    "extra_forbidden": "there is no such key: use one of {keys}",
    "model_type": "this must be keys with values",
    "dict_type": "this must be keys with values",
    "string_pattern_mismatch": "this is not of the form {pattern}",
    "value_error": "{error}",
}
MAX_PROBLEMS = 5
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
UV_IMAGE = "ghcr.io/astral-sh/uv:0.13.8-python3.13-trixie"
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
# CPUs and GiB of memory.
SAGEMAKER_INSTANCES = {
    "ml.t3.medium": (2, 4),
    "ml.m5.large": (2, 8),
    "ml.m5.xlarge": (4, 16),
    "ml.m5.2xlarge": (8, 32),
    "ml.m5.4xlarge": (16, 64),
    "ml.m5.12xlarge": (48, 192),
    "ml.m5.24xlarge": (96, 384),
}


Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]


class Strict(BaseModel):
    """Settings, of which an unknown one is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Resources(Strict):
    """What a node asks a cluster for, in the words of Kubernetes."""

    cpu: str = Field(default="1", pattern=r"^\d+(\.\d+)?m?$")
    memory: str = Field(default="2Gi", pattern=r"^\d+(Ki|Mi|Gi|K|M|G)?$")
    disk: str = Field(default="30Gi", pattern=r"^\d+Gi$")  # where the machine is started for it
    instance: str = Field(default="", pattern=r"^[\w.-]*$")  # in the words of a cloud

    @property
    def sagemaker_instance(self) -> str:
        """Return the smallest of SageMaker's general machines that has what is asked for.

        Raises:
            UsageError: There is none; `instance` can name another one.
        """
        if self.instance:
            return self.instance
        for name, (cores, gibibytes) in SAGEMAKER_INSTANCES.items():
            if cores >= self.cores and gibibytes * UNITS["Gi"] >= self.memory_bytes:
                return name
        raise UsageError(
            f"{SETTINGS}: no ml.m5 machine has {self.cpu} CPU and {self.memory}: set instance"
        )

    @property
    def cores(self) -> float:
        """The CPUs as a number: `500m` is a half."""
        return float(self.cpu.removesuffix("m")) / (1000 if self.cpu.endswith("m") else 1)

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes: `2Gi` is two times 2 to the power of 30."""
        number = self.memory.rstrip("KMGi")
        return int(number) * UNITS[self.memory.removeprefix(number)]


class Settings(Strict):
    """What a project says about its exports.

    Attributes:
        name: What the graph is called there; by default the package's name.
        schedule: When to train, as cron writes it; by default only when somebody starts it.
        monitor_schedule: The same for monitoring.
        last: What a training ends with.
        retries: How often a node is tried again that neither refused nor was given bad input.
        retry_delay_seconds: The pause before.
        timeout_minutes: Of a node.
        branch: For CI providers: the branch whose commits are trained and deployed.
        approval: For CI providers, from level 2: whether a person approves production.
        runner: For CI providers: the label, pool, queue or resource class of their machines.
        secrets: For CI providers: variables that jobs find besides the login of the registry.
        secret_group: Where jobs that write have their secrets: a context of CircleCI, a variable
            group of Azure, a deployment of Bitbucket, a queue of agents of Buildkite.
        ci_image: For CI providers that run containers: an image with uv, git and Python.
        command: What starts `ml` in the project's folder.
        image: For systems that run containers: one with the project and its environment.
        volume: For these: the claim of a volume that the nodes share.
        resources: By node; `default` is for all others.
        state: For systems whose nodes share no folder: the place in an object store for what they
            leave to each other.
        source_in_state: Whether the source of the data is there, too, and not in the image.
        environment: Variables of the nodes' environment. What logs in is not for them.
        role: For SageMaker: the ARN of the role that the nodes have.
        compute: For Azure ML: the cluster; by default serverless.
    """

    name: str = Field(default="", pattern=r"^[a-z][a-z0-9_]{0,39}$|^$")
    schedule: str | None = None
    monitor_schedule: str | None = None
    last: Literal["package", "register", "deploy"] = "deploy"
    retries: int = Field(default=2, ge=0, le=20)
    retry_delay_seconds: int = Field(default=60, ge=0)
    timeout_minutes: int = Field(default=120, ge=1)
    branch: str = Field(default="main", pattern=r"^[\w./-]+$")
    approval: bool = True
    runner: str = Field(default="", pattern=r"^[\w./:-]*$")
    secrets: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], ...] = ()
    secret_group: str = Field(default="", pattern=r"^[\w.-]*$")
    ci_image: str = Field(default=UV_IMAGE, pattern=r"^[\w./:@-]+$")
    command: tuple[str, ...] = Field(default=("uv", "run", "--locked", "ml"), min_length=1)
    image: str = Field(default="", pattern=r"^[\w./:@-]*$")
    volume: str = Field(default="", pattern=r"^[\w.-]*$")
    resources: dict[str, Resources] = {}
    state: str = Field(default="", pattern=STATE)
    source_in_state: bool = False
    environment: dict[Variable, str] = {}
    role: str = Field(default="", pattern=r"^arn:[\w:/+=,.@-]+$|^$")
    compute: str = Field(default="", pattern=r"^[\w-]*$")

    @field_validator("schedule", "monitor_schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        if value is not None and value not in NICKNAMES:
            require_cron(value)
        return value

    @property
    def step_minutes(self) -> float:
        """Return how long a node may take that is tried again inside."""
        pauses = self.retries * self.retry_delay_seconds / 60
        return (self.retries + 1) * self.timeout_minutes + pauses

    def resources_of(self, node: str) -> Resources:
        """Return what a node asks for."""
        return self.resources.get(node, self.resources.get("default", Resources()))


def require_cron(schedule: str) -> None:
    """Check that a schedule is one that every system reads.

    Raises:
        ValueError: It is not.
    """
    fields = schedule.split(" ")
    if len(fields) != len(CRON):
        raise ValueError(f"this is not five fields of cron, or one of {', '.join(NICKNAMES)}")
    for field, (unit, low, high) in zip(fields, CRON, strict=True):
        for part in field.split(","):
            names = CRON_NAMES.get(unit, [])
            if not _is_part(part, low, high, names):
                known = f"{low} to {high}" + (f" or {names[0]} to {names[-1]}" if names else "")
                raise ValueError(f"the {unit} {part!r} is not what cron reads: {known}")


def _is_part(part: str, low: int, high: int, names: list[str]) -> bool:
    """Check one of the parts of a field that commas separate, such as `1-5` or `*/10`."""
    match = CRON_PART.fullmatch(part)
    if match is None:
        return False
    ends = [end.lower() for end in match.group("first", "last") if end]
    known = [str(low + names.index(end)) if end in names else end for end in ends]
    if not all(end.isdecimal() and low <= int(end) <= high for end in known):
        return False
    return known == sorted(known, key=int)


def five_fields(schedule: str) -> str:
    """Return a schedule in five fields, for systems that know no @hourly."""
    return NICKNAMES.get(schedule, schedule)


def read_settings(project: Path) -> Settings:
    """Read the settings of a project; those of one that has none are the defaults.

    Raises:
        UsageError: The file is malformed.
    """
    file = project / SETTINGS
    if not file.exists():
        return Settings()
    try:
        content = read_yaml(file)
        return Settings.model_validate({} if content is None else content)
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problems = [in_words(problem) for problem in error.errors()]
        raise UsageError(f"{file}: {'; '.join(problems[:MAX_PROBLEMS])}") from None


def in_words(problem: ErrorDetails) -> str:
    """Return one of pydantic's mistakes in plain words, behind its key."""
    place = [str(part) for part in problem["loc"]]
    model = Resources if place[:1] == ["resources"] else Settings
    known = {"keys": ", ".join(model.model_fields)} | problem.get("ctx", {})
    message = MESSAGES.get(problem["type"], problem["msg"].replace("{", "{{").replace("}", "}}"))
    return ": ".join(filter(None, (".".join(place), message.format(**known))))
