"""The graph of a project: the stages of dvc.yaml, and what follows them.

A node is one `ml` command. It depends on the nodes that make what it reads.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ..exceptions import UsageError
from ..yaml_files import read_yaml
from .settings import Settings

STAGES = "dvc.yaml"
DELIVERY = {"register": ("register",), "deploy": ("deploy",)}  # in this order, after the stages
SOURCE = "source"  # the place of the source, which `ml step source` fills
MONITORING = {"monitor": ("monitor",), "retrain": ("retrain",)}
NAME = re.compile(r"\w[\w-]*")  # of a stage: what shells, YAML and Python take as it is
OUTPUTS = ("outs", "metrics", "plots")  # keys of a stage
SEVERAL = {"foreach", "matrix"}
VALUE = re.compile(r"\$\{([^}]+)\}")


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
        UsageError: The project has no stages yet, or dvc.yaml is malformed, or a stage cannot be a
            node, or has the name of a command that is one, too.
    """
    file = project / STAGES
    if not file.exists():
        raise UsageError(f"{project} has no {STAGES}: the graph comes with level 1, by `rung up`")
    try:
        pipeline = read_yaml(file)
        stages = pipeline["stages"]
        _require_plain(stages, file)
        needs = _needs(_resolved(stages, _values(project, pipeline.get("vars") or [])))
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise UsageError(f"{file}: a cycle: {' → '.join(error.args[1])}") from None
    except (OSError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is malformed: {' '.join(str(error).split())}") from None
    if taken := [name for name in order if name in {*DELIVERY, *MONITORING, SOURCE}]:
        raise UsageError(f"{file}: {taken[0]} is the name of a command of ml: rename that stage")
    nodes = [
        Node(name, ("run", "--only", name), tuple(sorted(_direct(name, needs), key=order.index)))
        for name in order
    ]
    end = tuple(name for name in order if not any(name in needs[other] for other in order))
    has_cluster = answer(project, "deployment") != "local"
    for name, arguments in DELIVERY.items():
        if last in list(DELIVERY)[list(DELIVERY).index(name) :]:
            to_cluster = ("--target", "production") if has_cluster and name == "deploy" else ()
            nodes.append(Node(name, (*arguments, *to_cluster), end))
            end = (name,)
    monitoring = [Node("monitor", MONITORING["monitor"], ())]
    # A cluster needs an image of each version, and no node builds one.
    last_of_retraining = "register" if has_cluster and last == "deploy" else last
    end_of_retraining = () if last_of_retraining == "deploy" else ("--last", last_of_retraining)
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
        UsageError: It does not say it, or says what no package is called.
    """
    package = answer(project, "package")
    if not package.isidentifier():
        raise UsageError(f"{project / 'pyproject.toml'}: [tool.rung] has a package {package!r}")
    return package


def answer(project: Path, name: str) -> str:
    """Return a text that `[tool.rung]` of pyproject.toml has.

    Raises:
        UsageError: It has none.
    """
    file = project / "pyproject.toml"
    try:
        return str(tomllib.loads(file.read_text("utf-8"))["tool"]["rung"][name])
    except (OSError, LookupError, TypeError, ValueError):
        raise UsageError(f"{file}: [tool.rung] names no {name}: is this a project?") from None


def _require_plain(stages: Mapping[Any, Mapping[str, Any]], file: Path) -> None:
    """Check that each stage can be a node of any system.

    Raises:
        UsageError: The name of one has other characters, or it stands for several stages.
    """
    for name, stage in stages.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                f"{file}: the stage {name!r} cannot be a node elsewhere: name it by letters,"
                " digits, - and _"
            )
        if several := SEVERAL & set(stage):
            raise UsageError(
                f"{file}: {name} has {several.pop()}, which no other system knows: write its"
                " stages one by one"
            )


def _values(project: Path, sources: Sequence[Mapping[str, Any] | str]) -> dict[str, Any]:
    """Return what `${…}` stands for: of params.yaml, and of what `vars` names, as DVC has it."""
    values: dict[str, Any] = {}
    for source in ["params.yaml", *sources] if (project / "params.yaml").exists() else sources:
        if isinstance(source, str):
            name, _, keys = source.partition(":")
            content = read_yaml(project / name) or {}
            values |= {key: content[key] for key in keys.split(",")} if keys else content
        else:
            values |= source
    return values


def _resolved(stages: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return stages with the values of their `${…}`.

    Raises:
        LookupError: One has none.
    """

    def value(match: re.Match[str]) -> str:
        content: Any = values
        for key in match[1].strip().split("."):
            content = content[key]
        return str(content)

    def resolve(part: Any) -> Any:
        if isinstance(part, str):
            return VALUE.sub(value, part)
        if isinstance(part, dict):
            return {resolve(key): resolve(item) for key, item in part.items()}
        return [resolve(item) for item in part] if isinstance(part, list) else part

    keys = ("wdir", "deps", *OUTPUTS)
    return {
        name: {key: resolve(stage[key]) for key in keys if key in stage}
        for name, stage in stages.items()
    }


def _needs(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return, for each stage, those that make what it reads."""
    made = {name: _paths(stage, *OUTPUTS) for name, stage in stages.items()}
    needs: dict[str, set[str]] = {}
    for name, stage in stages.items():
        read = _paths(stage, "deps")
        needs[name] = {
            maker
            for maker, paths in made.items()
            if (paths & read if maker == name else _overlap(paths, read))
        }
    return needs


def _paths(stage: Mapping[str, Any], *keys: str) -> set[PurePosixPath]:
    """Return the files and folders that a stage has under some keys, from the project on."""
    items = [item for key in keys for item in stage.get(key) or []]
    names = [str(next(iter(item)) if isinstance(item, dict) else item) for item in items]
    folder = str(stage.get("wdir") or ".")
    return {PurePosixPath(posixpath.normpath(posixpath.join(folder, name))) for name in names}


def _overlap(some: set[PurePosixPath], others: set[PurePosixPath]) -> bool:
    """Check whether a file is in both, by itself or in a folder, as DVC has it."""
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in some for b in others)


def _direct(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Return what a stage needs and none of its other needs needs already."""
    return {need for need in needs[name] if not any(need in _all(o, needs) for o in needs[name])}


def _all(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    every = set(needs[name])
    for need in needs[name]:
        every |= _all(need, needs)
    return every
