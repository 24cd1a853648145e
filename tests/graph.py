"""The kit's pipelines as one graph, read from GitHub's files, GitLab's files and ci/README.md.

Both providers' files become the same thing: for each pipeline and each trigger, the jobs that would
run. For GitHub, called workflows are put in the place of their calls. For GitLab, the rules are
worked out for each event, as GitLab does it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

README = Path(__file__).resolve().parent.parent / "ci/README.md"
# Of each provider, neither blank nor comments (docs/decisions/0027).
MOST_LINES = {"github": 800, "gitlab": 600}
COLUMNS = ["pipeline", "level", "job", "needs", "triggers", "environment", "deploys", "gate"]
CLICK = "vars.ML_APPROVAL != 'click' || github.event_name == 'workflow_dispatch'"
# GitLab's words: its own `image` is a keyword, and all pipelines share one list of names.
ALIASES = {
    "build": "image",
    **{f"verify-{subject}": "verify" for subject in ("rollback", "drill", "monitor", "score")},
}
SCOPES = {"comment"}  # environments of GitLab's that only say which job sees a token
# Of the branch, not of its name: a tag may have the same.
DEFAULT = "github.ref == format('refs/heads/{0}', github.event.repository.default_branch)"
TIMED = f"github.event_name == 'schedule' || {DEFAULT}"
STATUS = re.compile(r"\b(always|cancelled|failure|success)\(")
DEPLOYS = re.compile(r"\bml (deploy|rollback|promote|retrain(?!.*--dispatch))\b")
# What has come by the gate, or from the job that verifies; or is a rehearsal of the job before.
DELIVERS = re.compile(
    r'\bml (deploy "\$(VERSION|ML_CHAMPION)" --target [\w/]+'
    r'|rollback --target [\w/]+ --to "\$(VERSION|PREVIOUS)"|deploy --target local/staging)$'
)
GATES = re.compile(r"uv run (--no-sync )?ml run")
# Where a package comes from; an image is asked for besides.
VERIFIES = re.compile(r'(gh attestation verify "artifacts/verified/|sh \.gitlab/verify )')
DECIDES = re.compile(
    r"\bml (ingest|validate|run|gate|register|resolve|promote|image|fetch|deploy|rollback|monitor"
    r"|retrain)"
    r"\b"
)
BYPASSES = {
    "a failure that is made a success": r"\|\|\s*(true|:|/bin/true|exit 0|echo|printf)(?![\w-])",
    "a success at the end": r"(^|;|&&)\s*(true|:)\s*($|;|\})",
    "failures that do not end the script": r"\bset \+(\w*e|o\s+(errexit|pipefail))",
    "ml as a condition": r"(^|[;&|]\s*)(if|elif|while|until|!)\s[^;]*\bml\s",
    "ml whose exit code nobody sees": r"\bml\s[^|;&]*(&&|&\s*$|&\s+\w)",
    "an exit code that echo swallows": r"(^|[;&|{]|\bthen|\bdo|\belse)\s*"
    r"(echo|printf|export|local|readonly|declare)\b.*"
    r"(\$\((?!cat )|`)",
}
# GitLab's runner sets pipefail; GitHub does only where `shell: bash` is said.
PIPE = re.compile(r"\bml\s[^|;&]*\|(?!\|)")
# A plain assignment ends as the command does; anywhere else the command around it decides.
INSIDE = re.compile(r"\$\([^)]*\bml\s")
ASSIGNMENT = re.compile(r"(^|;)\s*\w+=\$\([^()]*\)\s*(?=;|$)")
# What say that there is nothing to do, and then leave the rest out.
MAY_END = {"update", "propose"}

Files = dict[str, Any]  # path in the project -> what is in it


@dataclass(frozen=True)
class Row:
    """A job as the table has it."""

    needs: frozenset[str]
    environment: str
    deploys: bool
    gate: str


Graph = list[tuple[str, str, dict[str, Row]]]  # pipeline, trigger, job -> row


@dataclass
class Task:
    """A job as a provider's files have it, for one trigger."""

    needs: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    certain: list[str] = field(default_factory=list)  # those that no condition leaves out
    environment: str = ""
    waits: bool = True  # for all that it needs to have succeeded
    fails: bool = True  # where it fails, what needs it does not run
    everywhere: bool = False  # by hand, on any branch
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def deploys(self) -> bool:
        """Whether it brings something into service."""
        production = self.environment.partition(",")[0] == "production"
        return production or any(DEPLOYS.search(line) for line in self.lines)

    @property
    def gates(self) -> bool:
        """Whether it runs the gate, as a command by itself."""
        return any(GATES.fullmatch(line.strip()) for line in self.certain)

    @property
    def verifies(self) -> bool:
        """Whether it asks where the package comes from."""
        return any(VERIFIES.match(line) for line in self.lines)


Tasks = dict[str, Task]


# What a project has


class Reference(tuple[str, ...]):
    """GitLab's !reference."""


class Loader(yaml.CSafeLoader):
    """YAML with GitLab's !reference."""


Loader.add_constructor(
    "!reference", lambda loader, node: Reference(part.value for part in node.value)
)


def read(project: Path) -> tuple[Files, Files]:
    """Read the files of both providers that a project has."""
    github = {
        path.relative_to(project).as_posix(): yaml.load(path.read_text("utf-8"), Loader)
        for path in sorted((project / ".github").rglob("*.yml"))
    }
    gitlab: Files = {}
    for path in [project / ".gitlab-ci.yml", *sorted((project / ".gitlab").glob("*.yml"))]:
        documents = list(yaml.load_all(path.read_text("utf-8"), Loader))
        name = path.relative_to(project).as_posix()
        gitlab[name] = documents if name == ".gitlab-ci.yml" else documents[0]
    if (script := project / ".gitlab/schedules").exists():
        gitlab[".gitlab/schedules"] = scheduled(script.read_text("utf-8"))
    return github, gitlab


def scheduled(script: str) -> dict[str, tuple[str, str]]:
    """Give the schedules that the script creates: pipeline -> when, and the file that has it."""
    wanted = next(
        node.value
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WANTED"
    )
    schedules: dict[str, tuple[str, str]] = ast.literal_eval(wanted)
    return schedules


# The table


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    pipeline: str
    level: str
    job: str
    needs: frozenset[str]
    triggers: frozenset[str]
    environment: str
    deploys: bool
    gate: str

    def applies_to(self, level: int) -> bool:
        """Whether a project of a level has it."""
        return level == int(self.level[0]) if "only" in self.level else level >= int(self.level)


@dataclass(frozen=True)
class Table:
    """What ci/README.md says."""

    lines: list[Line]
    times: dict[str, str]  # cron -> its word
    touched: frozenset[str]  # what makes a push a change

    def graph(self, level: int) -> Graph:
        """Give the graph of a level, calls replaced by what they call."""
        lines = [line for line in self.lines if line.applies_to(level)]
        pipelines: dict[str, list[Line]] = {}
        for line in lines:
            pipelines.setdefault(line.pipeline, []).append(line)
        entries: Graph = []
        for name, pipeline_lines in pipelines.items():
            for trigger in sorted({t for line in pipeline_lines for t in line.triggers}):
                jobs: dict[str, Row] = {}
                for line in pipeline_lines:
                    if trigger not in line.triggers:
                        continue
                    if line.job == name or line.job not in pipelines:
                        jobs[line.job] = Row(line.needs, line.environment, line.deploys, line.gate)
                        continue
                    gate = next(other.job for other in pipeline_lines if other.gate == "runs it")
                    for called in pipelines[line.job]:
                        needs = called.needs or line.needs
                        before = gate if called.deploys else called.gate
                        row = Row(needs, called.environment, called.deploys, before)
                        jobs[called.job] = row
                entries.append((name, trigger, jobs))
        return entries


def table(text: str) -> Table:
    """Read the table and its legend."""
    lines = text.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    start = cells.index(COLUMNS)
    end = next(index for index in range(start, len(cells)) if not cells[index])
    entries = []
    for pipeline, level, job, needs, triggers, environment, deploys, gate in cells[start + 2 : end]:
        some = frozenset(filter(None, needs.split(", ")))
        on = frozenset(triggers.split(", "))
        entries.append(Line(pipeline, level, job, some, on, environment, deploys == "yes", gate))
    change = next(line for line in lines if line.strip().startswith("- `change`:"))
    times = {cron: word for word, cron in re.findall(r"`(\w+)` \(`([\d* ]+)`\)", text)}
    return Table(entries, times, frozenset(re.findall(r"`([\w.]+)`", change)) - {"change"})


# The graph


def differences(wanted: Graph, actual: Graph) -> list[str]:
    """Say in what a provider's graph is not the table's."""
    messages = []
    expected = {(pipeline, trigger): jobs for pipeline, trigger, jobs in wanted}
    for pipeline, trigger in expected.keys() - {(p, t) for p, t, _ in actual}:
        messages.append(f"{pipeline}: nothing is started by {trigger}")
    for pipeline, trigger, jobs in actual:
        where = f"{pipeline}, by {trigger}"
        known = expected.get((pipeline, trigger))
        if known is None:
            messages.append(f"{where}: the table has no such trigger")
            continue
        for job in sorted(known.keys() | jobs.keys()):
            if job not in jobs or job not in known:
                messages.append(
                    f"{where}: {job} is only in the {'files' if job in jobs else 'table'}"
                )
                continue
            for name, value in vars(known[job]).items():
                if (is_ := getattr(jobs[job], name)) != value:
                    shown = sorted(is_) if isinstance(is_, frozenset) else is_
                    messages.append(f"{where}: {job} has {name} {shown!r}")
    return list(dict.fromkeys(messages))


def rows(tasks: Tasks) -> dict[str, Row]:
    """Give a pipeline's jobs as the table has them."""
    return {
        name: Row(
            frozenset(
                need
                for need in task.needs
                # What another that it needs has before it anyway.
                if not any(need in before(other, tasks) for other in task.needs - {need})
            ),
            task.environment,
            task.deploys,
            guard(name, tasks),
        )
        for name, task in tasks.items()
    }


def before(name: str, tasks: Tasks, sure: bool = False) -> set[str]:
    """Give all that a job comes after; if sure, only those without whose success it does not run.

    Raises:
        ValueError: It comes after itself.
    """
    earlier: set[str] = set()
    todo = [name]
    while todo:
        task = tasks.get(todo.pop(), Task())
        if sure and not task.waits:
            continue
        needs = {need for need in task.needs if not sure or tasks.get(need, Task()).fails}
        todo += sorted(needs - earlier)
        earlier |= needs
    if name in earlier:
        raise ValueError(f"{name} needs itself")
    return earlier


def guard(name: str, tasks: Tasks) -> str:
    """Say what stands before a job that deploys."""
    task = tasks[name]
    if task.gates:
        return "runs it"
    if not task.deploys:
        return ""
    lines = [line for line in task.lines if DEPLOYS.search(line)]
    if not all(DELIVERS.search(line) for line in lines):
        return "nothing"
    known = {
        other: tasks[other] for other in sorted(before(name, tasks, sure=True)) if other in tasks
    }
    for ok in (Task.gates, Task.verifies):
        if guards := [other for other in known if ok.__get__(known[other])]:
            return guards[0]
    if lines and all(re.search(r'\bml deploy "\$VERSION" ', line) for line in lines):
        return "registry"
    return "nothing"


def graph(events: Iterable[tuple[str, str, Tasks]]) -> Graph:
    """Give the graph of what the events start."""
    return [(pipeline, trigger, rows(tasks)) for pipeline, trigger, tasks in events]


def findings(provider: str, files: Files, wanted: Table, level: int) -> list[str]:
    """Give all in which a provider's files are not as the table says, and every by-pass."""
    read_ = {"github": github, "gitlab": gitlab}[provider]
    try:
        events = read_(files, wanted)
        messages = differences(wanted.graph(level), graph(events))
    except (KeyError, TypeError, ValueError) as error:
        return [f"cannot be read: {error}"]
    for pipeline, _, tasks in events:
        for name, task in tasks.items():
            first = [other for other in (name, *before(name, tasks, sure=True)) if other in tasks]
            if pipeline in ("train", "deliver") and all(tasks[other].everywhere for other in first):
                messages.append(f"{pipeline}: {name} runs on any branch, by hand")
            leads = [other for other in tasks if name in before(other, tasks)]
            if not task.waits and any(tasks[other].deploys for other in [name, *leads]):
                messages.append(f"{pipeline}: {name} does not wait, and leads to a deployment")
    by = {"github": github_bypasses, "gitlab": gitlab_bypasses}[provider]
    return list(dict.fromkeys([*messages, *by(files)]))


# GitHub


def workflows(files: Files) -> dict[str, dict[Any, Any]]:
    """Give the workflows by name."""
    return {
        Path(path).stem: content
        for path, content in files.items()
        if path.startswith(".github/workflows/")
    }


def github(files: Files, wanted: Table) -> list[tuple[str, str, Tasks]]:
    """Give what each trigger starts, on GitHub."""
    starts = []
    for name, flow in workflows(files).items():
        jobs = list(flow["jobs"].values())
        # A workflow that does nothing but start another is one more trigger of that one.
        alone = (_called(jobs[0]) or _asked(jobs[0])) if len(jobs) == 1 else None
        tasks = _expanded(alone or name, files)
        triggers = dict.fromkeys(_triggers(flow, wanted))
        starts += [(alone or name, trigger, tasks) for trigger in triggers]
    return starts


def _asked(job: Mapping[str, Any]) -> str | None:
    lines = [step.get("run") or step["uses"] for step in job["steps"]]
    event = re.fullmatch(
        r'gh api "repos/\$GITHUB_REPOSITORY/dispatches" --field event_type=(\w+)', lines[0]
    )
    return event[1] if event and len(lines) == 1 else None


def _called(job: Mapping[str, Any]) -> str | None:
    if "uses" not in job:
        return None
    ours = re.fullmatch(r"\./\.github/workflows/(\w+)\.yml", job["uses"])
    if not ours:
        raise ValueError(f"{job['uses']} is called, and is not here to be read")
    return ours[1]


def _expanded(name: str, files: Files) -> Tasks:
    tasks: Tasks = {}
    jobs = workflows(files)[name]["jobs"]
    inner: dict[str, Tasks] = {}
    for job, about in jobs.items():
        if to := _called(about):
            called = _expanded(to, files)
            # One job that is all of a workflow goes by the name of its call, as there may be two.
            inner[job] = {job if name == to else name: task for name, task in called.items()}
    for job, about in jobs.items():
        needs: set[str] = set()
        for need in listed(about.get("needs", [])):
            # What needs a call needs the last of what it calls.
            within = inner.get(need, {})
            needed = {required for task in within.values() for required in task.needs}
            needs |= set(within) - needed if within else {need}
        condition = str(about.get("if", ""))
        waits = not STATUS.search(condition)
        fails = not any(key == "continue-on-error" for key, _ in walk(about))
        if job in inner:
            for task in inner[job].values():
                task.waits = task.waits and waits
                task.fails = task.fails and fails
                task.needs = task.needs or set(needs)
                task.everywhere = task.everywhere and condition != DEFAULT
            tasks |= inner[job]
            continue
        where = about.get("environment", "")
        where = where["name"] if isinstance(where, dict) else where
        if condition == CLICK:
            where += ", approved"
        task = tasks[job] = Task(needs, environment=where, waits=waits, fails=fails)
        task.everywhere = condition != DEFAULT
        for step in steps(about, files):
            task.lines += step.get("run", "").splitlines()
            task.certain += [] if "if" in step else step.get("run", "").splitlines()
    return tasks


def listed(value: Any) -> list[Any]:
    """Give what is one or several as several."""
    return value if isinstance(value, list) else [value]


def steps(job: Mapping[str, Any], files: Files) -> Iterator[dict[str, Any]]:
    """Give the steps of a job, those of our own actions too."""
    for step in job.get("steps", []):
        yield step
        if step.get("uses", "").startswith("./"):
            action = files[f"{step['uses'].removeprefix('./')}/action.yml"]
            yield from action["runs"]["steps"]


def _triggers(flow: Mapping[Any, Any], wanted: Table) -> Iterator[str]:
    on = flow[True]  # YAML 1.1 reads the key `on` so
    first = {str(job.get("if", "")) for job in flow["jobs"].values() if "needs" not in job}
    for event, how in on.items():
        match event, how:
            # No filter can name the default branch, so its first jobs do.
            case "push", {"branches": ["**"]} if not first <= {DEFAULT}:
                yield "a push to any branch"
            case "push", {"branches": ["**"], "paths": paths, **more} if not more:
                roots = {path.removesuffix("/**") for path in paths}
                yield "change" if roots == wanted.touched else f"a push to {sorted(roots)}"
            case "push", {"branches": ["**"], **more} if not more:
                yield "push"
            case "pull_request" | "merge_group", None:
                yield "request"
            case "workflow_dispatch", _:
                yield "hand"
            case "repository_dispatch", {"types": types}:
                yield "event" if set(types) == {"train", "new-data"} else f"events {types}"
            case "schedule", times:
                yield from (wanted.times.get(time["cron"], time["cron"]) for time in times)
            case "workflow_call", _:
                pass
            case _:
                yield f"{event} {how or ''}".strip()


def github_bypasses(files: Files) -> list[str]:
    """Find what walks around a gate, in GitHub's files."""
    bypasses = []
    for path, content in files.items():
        bypasses += [f"{path}: {key}" for key, value in walk(content) if key == "continue-on-error"]
        jobs = content.get("jobs") or {"": content.get("runs") or {}}
        for name, job in jobs.items():
            for step in job.get("steps", []):
                lines = step.get("run", "").splitlines()
                bypasses += [f"{path}: {name}: {reason}" for reason in swallowed(lines)]
                bypasses += [
                    f"{path}: {name}: a pipe: {line}" for line in lines if PIPE.search(line)
                ]
                if STATUS.search(str(step.get("if", ""))) and DECIDES.search(step.get("run", "")):
                    bypasses.append(f"{path}: {name}: {step['if']} at {lines[0]}")
                if step.get("shell", "bash") != "bash":
                    bypasses.append(f"{path}: {name}: the shell is {step['shell']}")
        bypasses += [
            f"{path}: the shell is {value}"
            for key, value in walk(content)
            if key == "shell" and value != "bash"
        ]
    return bypasses


# GitLab

SPECIAL = {"include", "stages", "workflow", "variables", "default", "spec"}


def gitlab(files: Files, wanted: Table) -> list[tuple[str, str, Tasks]]:
    """Give what each trigger starts, on GitLab."""
    spec, main = files[".gitlab-ci.yml"]
    if main["include"] != [{"local": ".gitlab/*.yml"}]:
        raise ValueError(f"{main['include']} is included, and is not all here to be read")
    options = spec["spec"]["inputs"]["pipeline"]["options"]
    push = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"}
    branch = push | {"CI_COMMIT_BRANCH": "branch"}
    events: list[tuple[str, dict[str, str], str]] = [
        ("push", push, "README.md"),
        ("push", branch, "src/a.py"),
        ("push beside a request", branch | {"CI_OPEN_MERGE_REQUESTS": "a!1"}, "src/a.py"),
        ("request", {"CI_PIPELINE_SOURCE": "merge_request_event"}, "src/a.py"),
    ]
    for root in wanted.touched:
        events.append(("change", push, root if "." in root else f"{root}/deep/file"))
    for source in ("trigger", "pipeline"):
        events.append(("event", push | {"CI_PIPELINE_SOURCE": source}, ""))
    for source in ("web", "api"):
        for option in options:
            chosen = {"CI_PIPELINE_SOURCE": source, "inputs.pipeline": option}
            events.append(("hand", push | chosen, ""))
            if option != "checks":
                events.append(("hand on a branch", branch | chosen, ""))
    for pipeline, (cron, _) in files.get(".gitlab/schedules", {}).items():
        chosen = {"CI_PIPELINE_SOURCE": "schedule", "inputs.pipeline": pipeline}
        events.append((wanted.times.get(cron, cron), push | chosen, ""))
    named = push | {"CI_PIPELINE_SOURCE": "web", "inputs.pipeline": "checks"}
    checks = set(_started(files, named, "")[1])
    starts: list[tuple[str, str, Tasks]] = []
    started: dict[str, list[set[str]]] = {}  # trigger -> the pipelines of each of its events
    for trigger, known, touched in events:
        pipeline, tasks = _started(files, known, touched)
        # A push that trains is checked by the same pipeline; the table has two.
        on = "push" if trigger == "change" else trigger
        parts = [
            ("checks", on, {name: task for name, task in tasks.items() if name in checks}),
            (pipeline, trigger, {name: task for name, task in tasks.items() if name not in checks}),
        ]
        starts += [part for part in parts if part[2]]
        started.setdefault(trigger, []).append({part[0] for part in parts if part[2]})
    for trigger in ("change", "event", "push"):
        # Whatever is touched, and whoever calls, the same must start.
        every = set().union(*started[trigger])
        starts += [
            (pipeline_name, trigger, {})
            for some in started[trigger]
            for pipeline_name in sorted(every - some)
        ]
    return starts


def _started(files: Files, known: Mapping[str, str], touched: str) -> tuple[str, Tasks]:
    main = files[".gitlab-ci.yml"][1]
    variables = {"CI_DEFAULT_BRANCH": "main"}
    for content in [*_included(files), main]:
        variables |= content.get("variables", {})
    variables["PIPELINE"] = known.get("inputs.pipeline", "checks")
    if main["variables"]["PIPELINE"] != "$[[ inputs.pipeline ]]":
        raise ValueError("the variable PIPELINE is not the input")
    variables |= known
    rule = _first(main["workflow"]["rules"], variables, touched)
    if rule is None or rule.get("when") == "never":
        return "", {}
    variables |= rule.get("variables", {})
    stages = [".pre", *main["stages"], ".post"]
    all_ = jobs_of(files)
    there: dict[str, dict[str, Any]] = {}
    for name, job in all_.items():
        if name.startswith("."):
            continue
        if "trigger" in job:
            raise ValueError(f"{name} starts a pipeline that is not here to be read")
        rule = _first(job["rules"], variables, touched) if "rules" in job else {}
        if rule is not None and rule.get("when") != "never":
            there[name] = job | rule | {"rules": bool(rule)}
            there[name]["variables"] = (
                variables | job.get("variables", {}) | rule.get("variables", {})
            )
    tasks: Tasks = {}
    for name, job in there.items():
        needs = {
            need if isinstance(need, str) else need["job"]
            for need in listed(job.get("needs", []))
            if isinstance(need, str) or not need.get("optional") or need["job"] in there
        }
        if "needs" not in job:
            stage_index = stages.index(job["stage"])
            needs = {other for other in there if stages.index(there[other]["stage"]) < stage_index}
        when = job.get("when", "on_success")
        where = job.get("environment", "")
        where = where["name"] if isinstance(where, dict) else where
        where = "" if where in SCOPES else where
        lines = flat(job.get("before_script", []), all_) + flat(job["script"], all_)
        # By hand outside of rules, nothing waits for it, unless it says so.
        manual = when == "manual" and not job["rules"]
        tasks[ALIASES.get(name, name)] = Task(
            {ALIASES.get(need, need) for need in needs},
            lines,
            lines,
            f"{where}, approved" if when == "manual" else where,
            when not in ("always", "on_failure"),
            not job.get("allow_failure", manual),
            variables=job["variables"],
        )
    return variables["PIPELINE"], tasks


def _included(files: Files) -> list[dict[str, Any]]:
    return [files[path] for path in files if path.startswith(".gitlab/") and path.endswith(".yml")]


def jobs_of(files: Files) -> dict[str, dict[str, Any]]:
    """Give all jobs, the hidden ones too, with what they extend and what is the default."""
    main = files[".gitlab-ci.yml"][1]
    raw: dict[str, Any] = {}
    for content in [*_included(files), main]:
        raw = merged(raw, {key: value for key, value in content.items() if key not in SPECIAL})

    def whole(name: str) -> dict[str, Any]:
        job = dict(raw[name])
        base = dict[str, Any]()
        for parent in listed(job.pop("extends", [])):
            base = merged(base, whole(parent))
        return merged(base, job)

    jobs = {name: main["default"] | whole(name) for name in raw}
    for job in jobs.values():
        if "rules" in job:
            job["rules"] = list(_rules(job["rules"], jobs))
    return jobs


def _rules(rules: Iterable[Any], jobs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for rule in rules:
        if isinstance(rule, Reference):
            job, key = rule
            yield from _rules(jobs[job][key], jobs)
        else:
            yield rule


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge as `extends` does: mappings deep, all else replaced."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        deep = isinstance(old, dict) and isinstance(value, dict)
        both[key] = merged(old, value) if deep else value  # type: ignore[arg-type]
    return both


def flat(script: Any, jobs: Mapping[str, Any]) -> list[str]:
    """Give the lines of a script, references followed."""
    if isinstance(script, str):
        return script.splitlines()
    if isinstance(script, Reference):
        job, key = script
        return flat(jobs[job].get(key, []), jobs)
    return [line for part in script for line in flat(part, jobs)]


def _first(
    rules: Iterable[dict[str, Any]], variables: Mapping[str, str], touched: str
) -> dict[str, Any] | None:
    for rule in rules:
        changes = rule.get("changes")
        if changes and not any(_matches(pattern, touched) for pattern in changes):
            continue
        if "if" not in rule or holds(rule["if"], variables):
            matching: dict[str, Any] = rule
            return matching
    return None


def _matches(pattern: str, path: str) -> bool:
    root = pattern.removesuffix("/**/*")
    if "*" in root:
        raise ValueError(f"{pattern} is not understood")
    return path == root or (root != pattern and path.startswith(f"{root}/"))


TOKEN = re.compile(r'\s*(\$\w+|"[^"]*"|/(?:\\.|[^/\\])+/|==|!=|=~|!~|&&|\|\||[()]|null)')


def holds(expression: str, variables: Mapping[str, str]) -> bool:
    """Work out an `if` of GitLab's rules.

    Raises:
        ValueError: It has something that is not known here.
    """
    tokens = []
    position = 0
    while expression[position:].strip():
        match = TOKEN.match(expression, position)
        if not match:
            raise ValueError(f"{expression} is not understood at {expression[position:]}")
        tokens.append(match[1])
        position = match.end()

    def value() -> str | None:
        token = tokens.pop(0)
        if token == "null":
            return None
        return variables.get(token[1:]) if token[0] == "$" else token[1:-1]

    def compared() -> bool:
        if tokens[0] == "(":
            tokens.pop(0)
            inner = either()
            tokens.pop(0)
            return inner
        left = value()
        if not tokens or tokens[0] in ("&&", "||", ")"):
            return bool(left)
        how = tokens.pop(0)
        right = value()
        if how in ("==", "!="):
            return (left == right) is (how == "==")
        return bool(left is not None and re.search(right or "", left)) is (how == "=~")

    def both() -> bool:
        result = compared()
        while tokens and tokens[0] == "&&":
            tokens.pop(0)
            result = compared() and result
        return result

    def either() -> bool:
        result = both()
        while tokens and tokens[0] == "||":
            tokens.pop(0)
            result = both() or result
        return result

    return either()


def gitlab_bypasses(files: Files) -> list[str]:
    """Find what walks around a gate, in GitLab's files."""
    bypasses = []
    for path, content in files.items():
        if path.endswith(".yml"):
            for key, value in walk(content):
                bypasses += [f"{path}: {key}: {value}"] if key == "allow_failure" and value else []
                if key == "retry" and value != {"max": 1, "when": "runner_system_failure"}:
                    bypasses.append(f"{path}: retry: {value}")
    all_ = jobs_of(files)
    for name, job in all_.items():
        if job.get("when", "on_success") != "on_success":
            bypasses.append(f"{name}: when: {job['when']} outside of rules")
        lines = [line for key in ("before_script", "script") for line in own(job.get(key, []))]
        bypasses += [f"{name}: {reason}" for reason in swallowed(lines)]
        if name not in MAY_END and any(re.search(r"\bexit 0\b", line) for line in lines):
            bypasses.append(f"{name}: exit 0")
        after = own(job.get("after_script", []))
        bypasses += [f"{name}: after_script: {line}" for line in after if DECIDES.search(line)]
    return bypasses


def own(script: Any) -> list[str]:
    """Give the lines that a script has itself."""
    parts = [script] if isinstance(script, str) else script
    return [line for part in parts if isinstance(part, str) for line in part.splitlines()]


# Both


def swallowed(lines: Iterable[str]) -> Iterator[str]:
    """Find in a script what hides how a command ended."""
    for line in lines:
        for what, pattern in BYPASSES.items():
            if re.search(pattern, line):
                yield f"{what}: {line}"
        if INSIDE.search(ASSIGNMENT.sub("", line)):
            yield f"ml inside of another command: {line}"


def walk(content: Any) -> Iterator[tuple[str, Any]]:
    """Give every key and its value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield str(key), value
            yield from walk(value)
    elif isinstance(content, list):
        for value in content:
            yield from walk(value)
