"""The jobs that a CI provider runs: checks, requests, training and monitoring.

They are those of the project's pipelines on GitHub and GitLab. What only these platforms offer,
such as provenance by the job's identity and a comment on the request, is left out.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from ..exceptions import UsageError
from ..yaml_files import read_yaml
from .graph import DELIVERY, Graph
from .settings import SETTINGS, Settings

UV = "uv run --locked"
DATA = f"test -z \"$(find data -name '*.dvc')\" || {UV} dvc pull"
LINT_MINUTES = 15
TEST_MINUTES = 30
LOGINS = {"mlflow": ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN")}
SET_BY_JOBS = ("ML_BASE", "ML_REGISTRY", "VERSION", "UV_CACHE_DIR")
VERSION = "artifacts/version"  # what register leaves for the jobs after it


@dataclass(frozen=True)
class Step:
    """Lines of shell under a name."""

    name: str
    run: str


@dataclass(frozen=True)
class Job:
    """What runs on one machine, in a checkout of its own.

    Attributes:
        name: Of the same job on GitHub and GitLab.
        title: For a person.
        needs: The job that must have succeeded; none if it waits for no one.
        steps: In this order; the first that fails ends the job as failed.
        afterwards: However those ended.
        minutes: At most.
        has_cache: Whether packages come from a cache, which requests may fill too.
        keeps: The files that it leaves for other jobs and for people, below the checkout.
        fetches: The job whose files it starts with.
        registry: What it may do there: its login is one that reads, or one that writes.
        variables: Of its environment.
        environment: What it deploys to.
        is_approved: Whether a person approves before it runs.
        is_judged_by_base: Whether ML_BASE is the commit that a request would change.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    minutes: int
    needs: tuple[str, ...] = ()
    afterwards: tuple[Step, ...] = ()
    has_cache: bool = False
    keeps: str = ""
    fetches: str = ""
    registry: Literal["", "read", "write"] = ""
    variables: dict[str, str] = field(default_factory=dict)
    environment: str = ""
    is_approved: bool = False
    is_judged_by_base: bool = False


@dataclass(frozen=True)
class Jobs:
    """The jobs of each pipeline, each after those that it needs.

    Attributes:
        checks: Of every push and request.
        request: Of a request to change the branch that is deployed.
        train: Of a change of that branch.
        deliver: By hand, with the version in the variable VERSION.
        monitor: At its times.
        registry_variable: What names the registry to jobs, where config/delivery.yaml names none
            that they reach.
        secrets: Variables of jobs that use it; the first is its login.
    """

    checks: tuple[Job, ...]
    request: tuple[Job, ...]
    train: tuple[Job, ...]
    deliver: Job
    monitor: tuple[Job, ...]
    registry_variable: str
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What the jobs depend on besides graph and settings."""

    level: int
    registry: str  # the adapter
    deployment: str
    is_registry_lasting: bool  # whether the jobs after it, and later ones, find it


def read_facts(project: Path) -> Facts:
    """Read what `[tool.rung]` and config/delivery.yaml say of a project.

    Raises:
        UsageError: One of them is malformed.
    """
    manifest = project / "pyproject.toml"
    delivery = project / "config/delivery.yaml"
    try:
        about = tomllib.loads(manifest.read_text("utf-8"))["tool"]["rung"]
        level = int(about["level"])
    except (OSError, LookupError, TypeError, ValueError):
        raise UsageError(f"{manifest}: [tool.rung] has no level: is this a project?") from None
    try:
        settings = read_yaml(delivery) if delivery.exists() else None
        place = str((settings or {}).get("registry") or "")
    except (yaml.YAMLError, AttributeError) as error:
        raise UsageError(f"{delivery} is malformed: {' '.join(str(error).split())}") from None
    registry = str(about.get("registry", "oci"))
    is_remote = registry == "oci" and "://" in place
    return Facts(level, registry, str(about.get("deployment", "local")), is_remote)


def plan(graph: Graph, settings: Settings, facts: Facts, ml: str) -> Jobs:
    """Return the jobs of a project.

    Args:
        graph: Its graph, which ends where `settings.last` says.
        settings: What the project says about its exports.
        facts: What it is.
        ml: What starts its `ml` in a job, with retries and a time limit.

    Raises:
        UsageError: Its models are to be deployed to a cluster, for which these jobs make no image;
            or a secret has the name of a variable of theirs.
    """
    if facts.deployment == "kubernetes" and settings.last == "deploy":
        raise UsageError(
            f"{SETTINGS}: last: deploy: a cluster needs an image of each version, which these jobs"
            " do not build: set it to register, then use `ml image VERSION --push` and `ml deploy`"
        )
    # An MLflow registry is known by its server, any other by its address.
    variable, login = LOGINS.get(facts.registry, ("ML_REGISTRY", "ML_REGISTRY_AUTH"))
    if taken := [name for name in settings.secrets if name in {*SET_BY_JOBS, variable}]:
        raise UsageError(
            f"{SETTINGS}: secrets: {taken[0]} is set by the jobs themselves: leave it out"
        )
    return Jobs(
        checks=_checks(),
        request=tuple(_request(settings, facts, ml)),
        train=tuple(_train(graph, settings, facts, ml, variable)),
        deliver=_deploy("deliver", settings, ml),
        monitor=tuple(_monitor(graph, settings, facts, ml)),
        registry_variable=variable,
        secrets=tuple(dict.fromkeys((login, *settings.secrets))),
    )


def _checks() -> tuple[Job, ...]:
    lint = f"{UV} --only-group dev pre-commit run --all-files --show-diff-on-failure"
    test = f"{UV} --all-groups pytest --cov --cov-report=term"
    return (
        Job("lint", "Lint", (Step("Hooks find nothing", lint),), LINT_MINUTES, has_cache=True),
        Job(
            "types",
            "Types",
            (Step("Types hold", f"{UV} --all-groups mypy"),),
            LINT_MINUTES,
            has_cache=True,
        ),
        Job("test", "Test", (Step("Tests pass", test),), TEST_MINUTES, has_cache=True),
    )


def _report(ml: str) -> tuple[Step, ...]:
    """Return what ends a job that trains: the report, and the champion's package left out."""
    return (Step("Report", f"{ml} report\nrm -rf artifacts/champion"),)


def _request(settings: Settings, facts: Facts, ml: str) -> list[Job]:
    jobs = []
    if facts.level >= 2:
        controls = f"{UV} --all-groups pytest tests/test_controls.py"
        name = "Every gate refuses what it must, and accepts the rest"
        jobs.append(
            Job("controls", "Controls", (Step(name, controls),), TEST_MINUTES, has_cache=True)
        )
    jobs.append(
        Job(
            name="candidate",
            title="Candidate",
            steps=(
                Step("The data are there", DATA),
                Step("The model passes the gate, and that of the base", f"{ml} run"),
            ),
            afterwards=_report(ml),
            minutes=settings.timeout_minutes,
            has_cache=True,
            keeps="artifacts",
            registry="read",
            is_judged_by_base=True,
        )
    )
    if facts.level >= 2:
        rehearsal = f"{ml} register\n{ml} deploy --target local/staging\n{ml} stop"
        jobs.append(
            Job(
                name="rehearsal",
                title="Rehearsal",
                steps=(
                    Step("The candidate is registered, deployed and asked", rehearsal),
                    Step("No requirement has a known vulnerability", "uv audit --locked"),
                ),
                minutes=settings.timeout_minutes,
                needs=("candidate",),
                has_cache=True,
                fetches="candidate",
                variables={"ML_REGISTRY": "rehearsal"},  # a folder, which ends with the job
            )
        )
    return jobs


def _train(graph: Graph, settings: Settings, facts: Facts, ml: str, variable: str) -> list[Job]:
    steps = [node for node in graph.training if node.name not in DELIVERY]
    jobs = [
        Job(
            name="train",
            title="Train",
            steps=(
                Step("The data are there", DATA),
                *(Step(node.name, f"{ml} {' '.join(node.arguments)}") for node in steps),
            ),
            afterwards=_report(ml),
            minutes=settings.timeout_minutes,
            keeps="artifacts",
            registry="read",
        )
    ]
    if settings.last == "package":
        return jobs
    named = () if facts.is_registry_lasting else (Step("The registry is named", _named(variable)),)
    register = f'VERSION=$({ml} register --pinned)\necho "$VERSION" > {VERSION}'
    jobs.append(
        Job(
            name="register",
            title="Register",
            steps=(*named, Step("The version is in the registry", register)),
            minutes=TEST_MINUTES,
            needs=("train",),
            fetches="train",
            keeps=VERSION,
            registry="write",
        )
    )
    if settings.last == "register":
        return jobs
    if facts.level >= 2:
        jobs.append(_deploy("staging", settings, ml, "register"))
    production = _deploy("production", settings, ml, jobs[-1].name)
    return [*jobs, replace(production, is_approved=facts.level >= 2 and settings.approval)]


def _named(variable: str) -> str:
    example = "a server" if variable == "MLFLOW_TRACKING_URI" else "oci://HOST/NAME"
    reason = f"{variable} is not set, and a folder would end with the job. Set it to {example}"
    return f'test -n "${variable}" || {{ echo "{reason}"; exit 2; }}'


def _deploy(name: str, settings: Settings, ml: str, after: str = "") -> Job:
    """Return a job that deploys VERSION: what `register` left, or what a person names."""
    target = "production" if name == "deliver" else name
    read = f"VERSION=$(cat {VERSION})\n" if after else "mkdir -p artifacts\n"
    return Job(
        name=name,
        title=name.capitalize(),
        steps=(
            Step(
                "It passes shadow, smoke and watch, or is rolled back",
                f'{read}{ml} deploy "$VERSION" --target {target}',
            ),
        ),
        minutes=settings.timeout_minutes,
        needs=(after,) if after else (),
        fetches="register" if after else "",
        keeps="artifacts",
        registry="write" if target == "production" else "read",
        environment=target,
    )


def _monitor(graph: Graph, settings: Settings, facts: Facts, ml: str) -> list[Job]:
    arguments = " ".join(graph.monitoring[-1].arguments)
    # What waits for a person is registered here, and delivered by the next training.
    if facts.level >= 2 and settings.approval and settings.last == "deploy":
        arguments += " --last register"
    return [
        Job(
            name="monitor",
            title="Monitor",
            steps=(Step("The newest predictions are judged", f"mkdir -p artifacts\n{ml} monitor"),),
            minutes=TEST_MINUTES,
            keeps="artifacts",
            registry="write",
        ),
        Job(
            name="retrain",
            title="Retrain",
            steps=(
                Step("The data are there", DATA),
                Step("What alarms starts one training", f"{ml} {arguments}"),
            ),
            minutes=settings.timeout_minutes,
            needs=("monitor",),
            registry="write",
        ),
    ]
