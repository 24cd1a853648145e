"""Writing exported files, and keeping them current."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tomllib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..console import bullets, echo
from ..exceptions import RefusedError, UsageError
from .graph import DELIVERY, Graph, answer, read_graph, step_arguments
from .jobs import plan, read_facts
from .settings import SETTINGS, Settings, five_fields, read_settings

SYSTEMS = Path(__file__).parent
MARK = re.compile(r"^(?P<before>.*sha256:)(?P<digest>[0-9a-f]{64})", re.MULTILINE)
NO_DIGEST = "0" * 64
PROOFS = """\
live: the system itself runs them in Rung's tests; validated: its own tool or schema accepts them;
stand-in: something that behaves as the system does runs them."""
# Where the project is in an image.
IN_PROJECT = 'cd "${PROJECT:-/project}" && exec "$@"'


@dataclass(frozen=True)
class System:
    """A system that a graph can be exported to.

    Attributes:
        name: Of its folder here.
        label: What it is called.
        kind: `orchestrator`, `cloud` or `ci`.
        proof: `live`, the exported files run in it in our tests; `validated`, its own tool accepts
            them; or `stand-in`, something that behaves as it does runs them.
        proved_by: What runs or accepts them.
        requires: What has to be installed where it runs.
        files: Where in a project a template's file goes; `{name}` is the graph's name.
        run: How a person starts it, in one line.
        schedules: Whether its files hold the schedules of config/export.yaml.
        is_workspace_kept: Of a CI provider: whether later jobs find the folder of earlier ones.
        needs: Settings that it cannot do without.
        notes: What it cannot do, in a sentence.
    """

    name: str
    label: str
    kind: str
    proof: str
    proved_by: str
    requires: list[str]
    files: dict[str, str]
    run: str
    schedules: bool = True
    is_workspace_kept: bool = False
    needs: tuple[str, ...] = ()
    notes: str = ""

    @cached_property
    def folder(self) -> Path:
        """The folder of its templates."""
        return SYSTEMS / self.name


@dataclass(frozen=True)
class Exported:
    """A file of a project, as it should be now.

    Attributes:
        path: Relative to the project.
        text: What it should hold.
        state: `current`, `missing`, `stale`, `edited`: by somebody, since it was exported, or
            `not needed`, such as that of a schedule that there is no longer.
    """

    path: Path
    text: str
    state: str


def systems() -> dict[str, System]:
    """Return every system, by name."""
    known = {}
    for manifest in sorted(SYSTEMS.glob("*/export.toml")):
        name = manifest.parent.name
        known[name] = System(name=name, **tomllib.loads(manifest.read_text("utf-8")))
    return known


def find_system(name: str) -> System:
    """Return a system.

    Raises:
        UsageError: There is none of that name.
    """
    known = systems()
    if name not in known:
        raise UsageError(f"there is no export {name}: use one of {', '.join(known)}")
    return known[name]


def list_systems() -> None:
    """Print what there is, with its proof."""
    known = systems().values()
    width = max(len(system.name) for system in known)
    label_width = max(len(system.label) for system in known)
    for system in known:
        row = f"{system.name:<{width}}  {system.label:<{label_width}}"
        echo(f"{row}  {system.proof}: {system.proved_by.replace('`', '')}")
    echo(f"\n{PROOFS}\nTo write the files of one: rung export NAME")


def export(project: Path, name: str, *, check: bool = False) -> None:
    """Write the files of a system into a project, or check that they are current.

    Args:
        project: Its top folder.
        name: Of the system.
        check: Write nothing.

    Raises:
        UsageError: There is no such system, or the project has no graph.
        RefusedError: A file was edited since it was exported; with `check`, one is not current.
    """
    system = find_system(name)
    files = render(project, system)
    if check:
        require_current(system, files)
        echo(f"The files for {system.label} are current.")
        return
    require_unedited(system, files)
    write(project, files)
    if all(file.state == "current" for file in files):
        echo(f"Nothing to export: the files for {system.label} are current.")
        return
    echo(f"Run it: {system.run.format(name=graph_name(project))}")
    if system.notes:
        echo(system.notes)


def check_all(project: Path) -> None:
    """Check that all that the project has of exported files is current.

    Raises:
        UsageError: The project has no graph, or a setting that a system needs is missing.
        RefusedError: A file is not current.
    """
    in_use = [system for system in systems().values() if _is_in_use(project, system)]
    if not in_use:
        echo("Nothing to check: the project has no exported files.")
        return
    reasons = []
    for system in in_use:
        try:
            require_current(system, render(project, system))
        except RefusedError as error:
            reasons.append(str(error))
    if reasons:
        raise RefusedError("\n".join(reasons))
    echo(f"The files for {', '.join(system.label for system in in_use)} are current.")


def refresh(project: Path) -> None:
    """Export again what the project has of exported files, after an update.

    A file that was edited stays as it is, and is named; so do those of a project whose graph or
    settings cannot be exported any more, as the update itself is done.
    """
    for system in systems().values():
        try:
            if not _is_in_use(project, system):
                continue
            files = render(project, system)
            write(project, [file for file in files if file.state != "edited"])
        except UsageError as error:
            echo(f"The files for {system.label} stay as they are: {error}")
            continue
        for file in files:
            if file.state == "edited":
                echo(f"{file.path} was edited, and stays as it is: see `rung export {system.name}`")


def _is_in_use(project: Path, system: System) -> bool:
    """Check whether a project has files of a system by an export, edited since or not.

    In orchestration/ nobody else has files. Where a system wants its own elsewhere, a team may have
    written one by hand, which has no digest.
    """
    for target in system.files.values():
        is_ours = target.startswith("orchestration/")
        for file in project.glob(target.format(name="*")):
            text = file.read_text("utf-8", "replace")
            if file == project / target.format(name=graph_name(project)):
                if is_ours or MARK.search(text):
                    return True
            elif is_untouched(text):  # the graph had another name
                return True
    return False


def graph_name(project: Path) -> str:
    """Return what the graph of a project is called."""
    settings = read_settings(project)
    return settings.name or read_graph(project).package


def render(project: Path, system: System) -> list[Exported]:
    """Return the files of a system as they should be now, and in which state they are.

    Raises:
        UsageError: As `read_graph` and `read_settings`, or a setting that the system needs is
            missing.
    """
    settings = read_settings(project)
    graph = read_graph(project, settings.last)
    _require_nodes(settings, graph)
    if "state" in system.needs:
        _require_target(project, settings)
    if missing := [name for name in system.needs if not getattr(settings, name)]:
        raise UsageError(
            f"{SETTINGS} does not set {' and '.join(missing)}, which {system.label} needs"
        )
    environment = Environment(
        loader=FileSystemLoader([system.folder, SYSTEMS]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "python": literal,
        "class_name": class_name,
        "cron": five_fields,
        "plain": plain_yaml,
        "groovy": groovy_text,
        "json": json.dumps,
        "shell": shlex.quote,
    }
    name = settings.name or graph.package
    about = {"name": name, "graph": graph, "settings": settings, "system": system}
    if "ml.jinja" in system.files:
        script = f"sh {system.files['ml.jinja']}"
        facts = read_facts(project)
        if system.is_workspace_kept:
            facts = replace(facts, is_registry_lasting=True)
        about["jobs"] = plan(graph, settings, facts, script)
    files = []
    for template, target in system.files.items():
        path = Path(target.format(name=name))
        text = environment.get_template(template).render(
            about,
            depth=len(path.parts) - 1,
            step=lambda node: step_arguments(node, graph, settings),
            in_project=IN_PROJECT,
        )
        if not text.strip():
            if (project / path).exists() and is_untouched(
                (project / path).read_text("utf-8", "replace")
            ):
                files.append(Exported(path, "", "not needed"))
            continue
        text = sealed(text.strip("\n") + "\n" if "jobs" in about else text)
        files.append(Exported(path, text, state(project / path, text)))
    return [*files, *_of_another_name(project, system, name)]


def _of_another_name(project: Path, system: System, name: str) -> list[Exported]:
    """Return exported files from when the graph had another name: both would be scheduled."""
    targets = [target for target in system.files.values() if "{name}" in target]
    own = {project / target.format(name=name) for target in targets}
    earlier = {file for target in targets for file in project.glob(target.format(name="*"))} - own
    return [
        Exported(file.relative_to(project), "", "not needed")
        for file in sorted(earlier)
        if is_untouched(file.read_text("utf-8", "replace"))
    ]


def literal(value: str | None) -> str:
    """Return a text, or None, as Python writes it."""
    return "None" if value is None else json.dumps(value, ensure_ascii=False)


def _require_nodes(settings: Settings, graph: Graph) -> None:
    """Check that what nodes ask for is for nodes that there are.

    Raises:
        UsageError: It is not.
    """
    nodes = dict.fromkeys(node.name for node in graph.training + graph.monitoring)
    known = ["default", *nodes, *(name for name in DELIVERY if name not in nodes)]
    if others := [name for name in settings.resources if name not in known]:
        raise UsageError(
            f"{SETTINGS}: resources: there is no node {others[0]}: use one of {', '.join(known)}"
        )


def _require_target(project: Path, settings: Settings) -> None:
    """Check that a deployment outlives the container that deploys.

    Raises:
        UsageError: It does not.
    """
    if settings.last == "deploy" and answer(project, "deployment") == "local":
        raise UsageError(
            f"a service on the machine of a node would end with it: set `last: register` in"
            f" {SETTINGS}, or bring Kubernetes by `rung add target kubernetes`"
        )


def class_name(text: str) -> str:
    """Return a name as classes have it: `flight_delays` as `FlightDelays`."""
    return "".join(part.capitalize() for part in re.split(r"[_-]", text))


def plain_yaml(text: str) -> str:
    """Return a line of text as YAML: as it is, or where YAML would read something else, quoted."""
    try:
        is_plain = yaml.safe_load(f"- {text}") == [text]
    except yaml.YAMLError:
        is_plain = False
    return text if is_plain else json.dumps(text)


def groovy_text(text: str) -> str:
    """Return a text as Groovy writes it, which then has nothing of its own in it."""
    quotes = "'''" if "\n" in text else "'"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{quotes}{escaped}{quotes}"


def sealed(text: str) -> str:
    """Put the digest of a text in the place of its first `sha256:000…`.

    Raises:
        ValueError: There is no such place.
    """
    if NO_DIGEST not in text:
        raise ValueError("the template has no place for the digest")
    return text.replace(NO_DIGEST, hashlib.sha256(text.encode()).hexdigest(), 1)


def is_untouched(text: str) -> bool:
    """Check whether a text is one that was exported, to the letter."""
    mark = MARK.search(text)
    if mark is None:
        return False
    original = text.replace(mark["digest"], NO_DIGEST, 1)
    return hashlib.sha256(original.encode()).hexdigest() == mark["digest"]


def state(file: Path, text: str) -> str:
    """Return the state of a file: see `Exported`."""
    if not file.exists():
        return "missing"
    there = file.read_text("utf-8", "replace")
    if there == text:
        return "current"
    return "stale" if is_untouched(there) else "edited"


def require_current(system: System, files: list[Exported]) -> None:
    """Check that nothing has to be exported.

    Raises:
        RefusedError: A file is missing, stale or edited.
    """
    others = [f"{file.path} is {file.state}" for file in files if file.state != "current"]
    if others:
        raise RefusedError(
            f"not what the graph gives: {', '.join(others)}: run `rung export {system.name}`"
        )


def require_unedited(system: System, files: list[Exported]) -> None:
    """Check that nobody's work would be overwritten.

    Raises:
        RefusedError: A file was edited since it was exported, or is somebody's own.
    """
    edited = [file.path for file in files if file.state == "edited"]
    if edited:
        raise RefusedError(
            f"edited since it was exported, or not exported at all, and left alone:"
            f"{bullets(edited)}\nWhat can be configured belongs in {SETTINGS}. Move the file away,"
            f" run `rung export {system.name}`, and compare"
        )


def write(project: Path, files: list[Exported]) -> None:
    """Write the files that are not current, each whole, and remove what is not needed.

    Raises:
        UsageError: One would be outside of the project, by a link.
    """
    for file in files:
        if not (project / file.path).resolve().is_relative_to(project.resolve()):
            raise UsageError(f"{file.path} leads out of the project by a link: remove the link")
    for file in files:
        if file.state == "not needed":
            (project / file.path).unlink()
            for folder in (project / file.path).parents:
                if folder == project or any(folder.iterdir()):
                    break
                folder.rmdir()
            echo(f"Removed {file.path}, which is not needed any more")
        if file.state in ("missing", "stale"):
            target = project / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".{target.name}.new")
            new.write_text(file.text, "utf-8")
            new.replace(target)
            echo(f"{'Wrote' if file.state == 'missing' else 'Updated'} {file.path}")
