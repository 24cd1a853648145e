"""The graph in what `rung export` writes for CI providers, read as each provider reads its files.

The files of each become what `graph` makes of GitHub's and GitLab's: for each event, the jobs that
would run. They are compared with the table of ci/README.md and with the project's own dvc.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graph
import jenkinsfile
import yaml
from graph import Task, Tasks
from rung.exports.export import systems
from rung.exports.graph import read_graph

PROVIDERS = sorted(name for name, system in systems().items() if system.kind == "ci")
YAML = [name for name in PROVIDERS if name != "jenkins"]
AZURE = "orchestration/azure/azure-pipelines.yml"
# Of the table: signatures, comments and images, which only GitHub and GitLab have. The contract is
# part of job candidate, and reports end the jobs that train.
LEFT_OUT = {"attest", "verify", "image", "attest-image", "validate", "report", "comment"}
COMMAND = re.compile(r"\bml (?P<arguments>[a-z][^)';]*)")
FORGIVES = {"continue-on-error", "continueOnError", "soft_fail", "allow_failure", "fail-fast"}
IN_TURN = ("bitbucket", "jenkins")
WHATEVER = ("always", "cancelled", "failed", "Failed", "on_fail")


@dataclass(frozen=True)
class Event:
    """What happens to a repository whose branch `main` is deployed."""

    kind: str  # push, request, or the pipeline that a person or a schedule starts
    branch: str = "main"


EVENTS = {
    "push": Event("push"),
    "push to a branch": Event("push", "topic"),
    "request": Event("request", "topic"),
    **{name: Event(name) for name in ("train", "deliver", "monitor")},
    **{f"{name} on a branch": Event(name, "topic") for name in ("train", "deliver", "monitor")},
}


def read(name: str, project: Path) -> dict[str, Any]:
    """Read the files of a provider that say what runs: path in the project -> content."""
    return parsed(name, texts(name, project))


def texts(name: str, project: Path) -> dict[str, str]:
    """Return the same files as text."""
    files = systems()[name].files
    targets = [target for template, target in files.items() if template != "ml.jinja"]
    return {target: (project / target).read_text("utf-8") for target in targets}


def parsed(name: str, files: dict[str, str]) -> dict[str, Any]:
    """Return the content of files, as the provider reads them."""
    if name == "jenkins":
        return {target: jenkinsfile.parse(text) for target, text in files.items()}
    return {target: yaml.load(text, yaml.CSafeLoader) for target, text in files.items()}


def started(name: str, files: dict[str, Any], event: Event) -> Tasks:
    """Return the jobs that an event starts."""
    reader: Callable[[dict[str, Any], Event], Tasks] = {
        "azure": azure,
        "bitbucket": bitbucket,
        "buildkite": buildkite,
        "circleci": circleci,
        "forgejo": workflows,
        "gitea": workflows,
        "jenkins": jenkins,
    }[name]
    return reader(files, event)


def findings(name: str, files: dict[str, Any], project: Path, level: int) -> list[str]:
    """Return in what a provider's files are not the graph, and every by-pass."""
    messages = []
    wanted = expected(name, level)
    nodes = commands(project, level)
    for title, event in EVENTS.items():
        try:
            tasks = started(name, files, event)
        except (KeyError, ValueError) as error:
            return [f"cannot be read: {error}"]
        jobs = wanted.get(title, {})
        for job in sorted(jobs.keys() ^ tasks.keys()):
            where = "files" if job in tasks else "table"
            messages.append(f"{title}: {job} is only in the {where}")
        for job in sorted(jobs.keys() & tasks.keys()):
            task = tasks[job]
            # Where jobs follow each other, one needs all that is before it.
            if not jobs[job] <= graph.before(job, tasks) | task.needs:
                messages.append(f"{title}: {job} has needs {sorted(task.needs)}")
            if name not in IN_TURN and task.needs != jobs[job]:
                messages.append(f"{title}: {job} has needs {sorted(task.needs)}")
            if called(task.lines) != nodes[job]:
                messages.append(f"{title}: {job} has commands {called(task.lines)}")
            if not task.waits or not task.fails:
                messages.append(f"{title}: {job} continues whatever happens")
            approved = job == "production" and level == 2
            if approved != task.environment.endswith(", approved"):
                messages.append(f"{title}: {job} has environment {task.environment}")
            messages += [f"{job}: {reason}" for reason in graph.swallowed(task.lines)]
    for path, content in files.items():
        messages += [f"{path}: {key}" for key, _ in graph.walk(content) if key in FORGIVES]
    return list(dict.fromkeys(messages))


def expected(name: str, level: int) -> dict[str, dict[str, set[str]]]:
    """Return which jobs each event should start, and what each of them needs: the table's."""
    wanted = graph.table(graph.README.read_text("utf-8")).graph(level)
    table = {(pipeline, trigger): jobs for pipeline, trigger, jobs in wanted}

    def needs(pipeline: str, trigger: str) -> dict[str, set[str]]:
        jobs = table.get((pipeline, trigger), {})

        def kept(job: str) -> set[str]:
            before = jobs[job].needs
            return {
                other
                for need in before
                for other in ({need} if need not in LEFT_OUT else kept(need))
            }

        return {job: kept(job) for job in jobs if job not in LEFT_OUT}

    checks = needs("checks", "push")
    request = {**checks, **needs("pipeline", "request"), "candidate": set()}
    train = needs("train", "change")
    by_hand: dict[str, set[str]] = {"deliver": set()}
    if name in ("forgejo", "gitea") and level == 2:
        del train["production"]  # a person starts Deliver instead
    return {
        "push": checks | train,
        "push to a branch": {"circleci": request, "jenkins": checks}.get(name, {}),
        "request": request,
        "train": (checks | train) if name in ("azure", "buildkite", "jenkins") else train,
        "train on a branch": checks if name in ("azure", "jenkins") else {},
        "deliver": by_hand,
        "monitor": needs("monitor", "daily"),
    }


def commands(project: Path, level: int) -> dict[str, list[str]]:
    """Return what each job should run of `ml`."""
    nodes = read_graph(project).training
    steps = [" ".join(node.arguments) for node in nodes if node.arguments[0] == "run"]
    return {
        **{job: [] for job in ("lint", "types", "test", "controls")},
        "candidate": ["run", "report"],
        "rehearsal": ["register", "deploy --target local/staging", "stop"],
        "train": [*steps, "report"],
        "register": ["register --pinned"],
        "staging": ['deploy "$VERSION" --target staging'],
        "production": ['deploy "$VERSION" --target production'],
        "deliver": ['deploy "$VERSION" --target production'],
        "monitor": ["monitor"],
        "retrain": ["retrain --last register" if level == 2 else "retrain"],
    }


def called(lines: Iterable[str]) -> list[str]:
    """Return what lines of shell run of `ml`; what is run at the end is last."""
    plain = [line for line in lines if not line.startswith("trap ")]
    trapped = [line for line in lines if line.startswith("trap ")]
    matches = [COMMAND.search(line) for line in [*plain, *trapped]]
    return [match["arguments"].strip() for match in matches if match]


# The providers


def workflows(files: dict[str, Any], event: Event) -> Tasks:
    """Return what Forgejo and Gitea start."""
    tasks: Tasks = {}
    for path, content in files.items():
        on = content[True]  # YAML 1.1 reads the key `on` so
        triggers = on if isinstance(on, dict) else {on: None}
        pipeline = Path(path).stem
        match event.kind:
            case "push":
                starts = event.branch in (triggers.get("push") or {}).get("branches", [])
            case "request":
                starts = "pull_request" in triggers
            case _:
                starts = pipeline == event.kind and "workflow_dispatch" in triggers
        if not starts:
            continue
        left_out: set[str] = set()
        for name, job in content["jobs"].items():
            condition = job.get("if", "")
            needs = set(graph.listed(job.get("needs", [])))
            if needs & left_out or condition == f"github.ref == 'refs/heads/{other(event)}'":
                left_out.add(name)
                continue
            lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
            tasks[name] = Task(needs, lines, waits=not any(word in condition for word in WHATEVER))
            for step in job["steps"]:
                _judge(tasks[name], str(step.get("if", "")), step.get("run", ""))
    return tasks


def other(event: Event) -> str:
    """Return the branch whose conditions do not hold."""
    return "main" if event.branch != "main" else "topic"


def _judge(task: Task, condition: str, script: str) -> None:
    """Note that a job decides something whatever became of what is before."""
    if any(word in condition for word in WHATEVER) and graph.DECIDES.search(script):
        task.waits = False


def circleci(files: dict[str, Any], event: Event) -> Tasks:
    """Return what CircleCI starts."""
    (config,) = files.values()
    run = event.kind if event.kind not in ("push", "request") else "push"
    values = {"pipeline.parameters.run": run, "pipeline.git.branch": event.branch}
    if run not in config["parameters"]["run"]["enum"]:
        return {}
    tasks: Tasks = {}
    for workflow in config["workflows"].values():
        if not _logic(workflow["when"], values):
            continue
        approvals: dict[str, list[str]] = {}
        for entry in workflow["jobs"]:
            name, about = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
            if about.get("type") == "approval":
                approvals[name] = about["requires"]
                continue
            needs = set(about.get("requires", []))
            is_approved = bool(needs & approvals.keys())
            needs = {job for need in needs for job in approvals.get(need, [need])}
            steps = [step["run"] for step in config["jobs"][name]["steps"] if "run" in step]
            steps = [{"command": step} if isinstance(step, str) else step for step in steps]
            lines = [line for step in steps for line in step["command"].splitlines()]
            environment = "production, approved" if is_approved else ""
            tasks[name] = Task(needs, lines, environment=environment)
            for step in steps:
                _judge(tasks[name], step.get("when", ""), step["command"])
    return tasks


def _logic(condition: Any, values: dict[str, str]) -> bool:
    (how, operands), *_ = condition.items()
    match how:
        case "and":
            return all(_logic(operand, values) for operand in operands)
        case "or":
            return any(_logic(operand, values) for operand in operands)
        case "not":
            return not _logic(operands, values)
        case "equal":
            left, right = (str(operand) for operand in operands)
            return left == values[right.removeprefix("<<").removesuffix(">>").strip()]
    raise ValueError(f"{how} is not understood")


def buildkite(files: dict[str, Any], event: Event) -> Tasks:
    """Return what Buildkite starts: a pipeline for each file."""
    kind = event.kind if event.kind in ("deliver", "monitor") else "pipeline"
    content = files[f"orchestration/buildkite/{kind}.yml"]
    values = {
        "build.branch": event.branch,
        "build.pull_request.id": "7" if event.kind == "request" else "null",
    }
    tasks: Tasks = {}
    approvals: dict[str, str] = {}
    for step in content["steps"]:
        if not _holds(step["if"], values):
            continue
        needs = set(graph.listed(step.get("depends_on", [])))
        if "block" in step:
            (approvals[step["key"]],) = needs
            continue
        is_approved = bool(needs & approvals.keys())
        needs = {approvals.get(need, need) for need in needs}
        if re.search(r"(?<!\$)\$(?![$])", step["command"].replace("$$", "")):
            raise ValueError(f"{step['key']}: the upload puts its own variables there")
        lines = step["command"].replace("$$", "$").splitlines()
        if lines[0].partition("  #")[0] != "set -e":  # the shell is a setting of the agent
            raise ValueError(f"{step['key']}: it continues after a line that fails")
        environment = "production, approved" if is_approved else ""
        tasks[step["key"]] = Task(needs, lines, environment=environment)
        for line in lines:
            if line.startswith("trap "):
                _judge(tasks[step["key"]], "always", line)
    return tasks


def _holds(expression: str, values: dict[str, str]) -> bool:
    def is_true(comparison: str) -> bool:
        left, how, right = comparison.split(" ")
        return (values[left] == right.strip("'")) is (how == "==")

    return any(
        all(is_true(part) for part in alternative.split(" && "))
        for alternative in expression.split(" || ")
    )


def azure(files: dict[str, Any], event: Event) -> Tasks:
    """Return what Azure Pipelines starts: a pipeline for each file."""
    kind = event.kind if event.kind in ("deliver", "monitor") else "azure-pipelines"
    content = files[f"orchestration/azure/{kind}.yml"]
    if event.kind == "push" and event.branch not in content["trigger"]["branches"]["include"]:
        return {}
    if event.kind == "request" and "main" not in content["pr"]["branches"]["include"]:
        return {}
    is_request = event.kind == "request"
    reasons = {"push": "BatchedCI", "request": "PullRequest"}
    values = {
        "Build.SourceBranch": "refs/pull/7/merge" if is_request else f"refs/heads/{event.branch}",
        "Build.Reason": reasons.get(event.kind, "Manual"),
    }
    known = {
        "all_": lambda *terms: all(terms),
        "eq": lambda left, right: left == right,
        "ne": lambda left, right: left != right,
        "succeeded": lambda: True,
        "variables": values,
    }
    tasks: Tasks = {}
    for stage in content["stages"]:
        condition = re.sub(r"\band\(", "all_(", stage["condition"])
        if stage["dependsOn"] or not eval(condition, {"__builtins__": {}}, known):
            continue
        approvals: dict[str, str] = {}
        for job in stage["jobs"]:
            needs = set(graph.listed(job.get("dependsOn", [])))
            if job.get("pool") == "server":
                (approvals[job["job"]],) = needs
                continue
            name = job.get("job") or job["deployment"]
            is_approved = bool(needs & approvals.keys())
            needs = {approvals.get(need, need) for need in needs}
            steps = job.get("steps") or job["strategy"]["runOnce"]["deploy"]["steps"]
            lines = [line for step in steps for line in step.get("script", "").splitlines()]
            environment = "production, approved" if is_approved else ""
            waits = "condition" not in job
            tasks[name] = Task(needs, lines, environment=environment, waits=waits)
            for step in steps:
                _judge(tasks[name], step.get("condition", ""), step.get("script", ""))
                if "script" in step and not step["script"].startswith("set -e\n"):
                    raise ValueError(f"{name} has a script that continues after a failure")
    return tasks


def bitbucket(files: dict[str, Any], event: Event) -> Tasks:
    """Return what Bitbucket Pipelines starts: steps, each after all that is before it."""
    (content,) = files.values()
    pipelines = content["pipelines"]
    match event.kind:
        case "push":
            items = pipelines.get("branches", {}).get(event.branch, pipelines.get("default", []))
        case "request":
            items = pipelines["pull-requests"]["**"]
        case _:
            items = pipelines["custom"][event.kind]
    anchors = {id(step): name for name, step in _named(pipelines)}
    tasks: Tasks = {}
    earlier: set[str] = set()
    for item in items:
        group = set()
        for step in [entry["step"] for entry in item.get("parallel", [item]) if "step" in entry]:
            name = anchors[id(step)]
            guard = [line for line in step["script"] if line.startswith('test "$BITBUCKET_BRANCH"')]
            if guard and event.branch not in guard[0].split(" ||")[0].split(" "):
                return tasks
            lines = [*step["script"], *step.get("after-script", [])]
            environment = "production, approved" if step.get("trigger") == "manual" else ""
            tasks[name] = Task(set(earlier), lines, environment=environment)
            _judge(tasks[name], "always", "\n".join(step.get("after-script", [])))
            group.add(name)
        earlier |= group
    return tasks


def jenkins(files: dict[str, Any], event: Event) -> Tasks:
    """Return what Jenkins starts: stages, each after those before it.

    Pipelines for monitoring and for a delivery are made for one branch, that which is deployed.
    """
    is_own = event.kind in ("deliver", "monitor")
    if is_own and event.branch != "main":
        return {}
    content = files[f"orchestration/jenkins/Jenkinsfile{f'.{event.kind}' if is_own else ''}"]
    tasks: Tasks = {}
    for stage in jenkinsfile.stages(content):
        if stage.is_for_requests and event.kind != "request":
            continue
        if stage.branch and (event.kind == "request" or stage.branch != event.branch):
            continue
        task = Task(
            set(tasks),
            [*stage.lines, *stage.afterwards],
            environment="production, approved" if stage.is_approved else "",
            variables=stage.environment,
        )
        _judge(task, "always", "\n".join(stage.afterwards))
        tasks[stage.name] = task
    return tasks


def _named(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield each step with its name, in small letters, as the anchors have it."""
    for key, value in graph.walk(content):
        if key == "step":
            yield value["name"].lower(), value
