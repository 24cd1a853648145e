"""The graph of a project: the stages of dvc.yaml, and what follows them.

A node is one `ml` command. It depends on the nodes that make what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import tomlkit
import yaml

from ..exceptions import UsageError
from .settings import Settings

STAGES = "dvc.yaml"
DELIVERY = {"register": ("register",), "deploy": ("deploy",)}  # in this order, after the stages
SOURCE = "source"  # the place of the source, which `ml step source` fills
MONITORING = {"monitor": ("monitor",), "retrain": ("retrain",)}


@dataclass(frozen=True)
class Node:
    """One command of the graph.

    Attributes:
        name: Also that of the DVC stage, if it is one.
        arguments: Of `ml`.
        after: The nodes that must have succeeded; none that follows from another one.
    """

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """What a system has to run.

    Attributes:
        package: The project's package.
        training: From the data to the deployment, each node after those that it depends on.
        monitoring: What is run again and again between trainings.
    """

    package: str
    training: tuple[Node, ...]
    monitoring: tuple[Node, ...]


def read_graph(project: Path, last: str = "deploy") -> Graph:
    """Read the graph of a project.

    Args:
        project: Its top folder.
        last: The node that training ends with: `package`, `register` or `deploy`.

    Raises:
        UsageError: The project has no stages yet, or dvc.yaml is malformed, or a stage has the
            name of a command that is a node, too.
    """
    file = project / STAGES
    if not file.exists():
        raise UsageError(f"{project} has no {STAGES}: the graph comes with level 1, by `rung up`")
    try:
        stages = yaml.safe_load(file.read_text("utf-8"))["stages"]
        needs = _needs(stages)
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise UsageError(f"{file}: a cycle: {' → '.join(error.args[1])}") from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is malformed: {error}") from None
    if taken := [name for name in order if name in {*DELIVERY, *MONITORING, SOURCE}]:
        raise UsageError(f"{file}: {taken[0]} is the name of a command of ml: rename that stage")
    nodes = [
        Node(name, ("run", "--only", name), tuple(sorted(_direct(name, needs), key=order.index)))
        for name in order
    ]
    end = tuple(name for name in order if not any(name in needs[other] for other in order))
    for name, arguments in DELIVERY.items():
        if last in list(DELIVERY)[list(DELIVERY).index(name) :]:
            nodes.append(Node(name, arguments, end))
            end = (name,)
    monitoring = [Node("monitor", MONITORING["monitor"], ())]
    end_of_retraining = () if last == "deploy" else ("--last", last)
    monitoring.append(Node("retrain", (*MONITORING["retrain"], *end_of_retraining), ("monitor",)))
    return Graph(package_name(project), tuple(nodes), tuple(monitoring))


def step_arguments(node: Node, graph: Graph, settings: Settings) -> list[str]:
    """Return the arguments of `ml` that run a node where nodes share no folder."""
    before = list(node.after) if node in graph.training else []  # monitoring reads what serves
    reads_source = node in (graph.training[0], graph.monitoring[-1])
    if settings.source_in_state and reads_source:
        before.append(SOURCE)
    arguments = ["step", node.name]
    if node in graph.monitoring:
        arguments += node.arguments[1:]  # such as what a training ends with
    for name in before:
        arguments += ["--in", f"{settings.state}/{name}"]
    arguments += ["--out", f"{settings.state}/{node.name}"]
    arguments += ["--retries", str(settings.retries)]
    arguments += ["--retry-delay", str(settings.retry_delay_seconds)]
    return [*arguments, "--timeout", str(settings.timeout_minutes)]


def package_name(project: Path) -> str:
    """Return what `[tool.rung]` of pyproject.toml calls the project's package.

    Raises:
        UsageError: It does not say it.
    """
    return answer(project, "package")


def answer(project: Path, name: str) -> str:
    """Return a text that `[tool.rung]` of pyproject.toml has.

    Raises:
        UsageError: It has none.
    """
    file = project / "pyproject.toml"
    try:
        return str(tomlkit.parse(file.read_text("utf-8"))["tool"]["rung"][name])
    except (OSError, tomlkit.exceptions.TOMLKitError):
        raise UsageError(f"{file}: [tool.rung] names no {name}: is this a project?") from None


def _needs(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return, for each stage, those that make what it reads."""
    makers = {
        next(iter(out)) if isinstance(out, dict) else out: name
        for name, stage in stages.items()
        for out in stage.get("outs", [])
    }
    return {
        name: {makers[dep] for dep in stage.get("deps", []) if dep in makers}
        for name, stage in stages.items()
    }


def _direct(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Return what a stage needs and none of its other needs needs already."""
    return {need for need in needs[name] if not any(need in _all(o, needs) for o in needs[name])}


def _all(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    every = set(needs[name])
    for need in needs[name]:
        every |= _all(need, needs)
    return every
