"""GitHub: act runs the jobs on this machine.

Three things are done here because act 0.2.89 does not do them. It knows no filters of branches and
paths, so the workflow files that an event starts are chosen here, and run one after another. It
says nothing of a job that it skips, so the jobs that should have run are read from the files. And
its schema refuses the key `queue` of a concurrency group, which is younger than act: exactly that
key is taken out of a throw-away clone; the project and what jobs check out keep it.

act sets GITHUB_API_URL itself, over any --env, so BASH_ENV names a script that every bash of a step
reads first: it sets the address of the stand-in. Whatever a step starts by another shell has
GitHub's own. `${{ github.api_url }}` is GitHub's own too.

As a real runner does, what a job leaves running is killed when the job has ended, unless it was
started with another RUNNER_TRACKING_ID. (An empty one in a workflow's `env` cannot be told from
act's own: "0" works everywhere.)
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from hosts import ANSI, STANDINS, Host, Run, follow, joined, kill, worst
from hosts.api import TOKEN

HOSTED = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-24.04-arm", "ubuntu-22.04", "self-hosted")


@dataclass(frozen=True)
class Job:
    """A job that a workflow file may run, with those of the workflows that it calls."""

    name: str
    caller: str  # the job that called its workflow, or nothing
    calls: bool
    workflow: str  # the file
    permissions: Mapping[str, str] | str | None


class GitHub(Host):
    """A repository on GitHub."""

    name = "github"
    protected = ("production",)  # environments that wait for a person
    workflows: ClassVar[str] = ".github/workflows"
    labels: ClassVar[tuple[str, ...]] = HOSTED

    def push(self) -> Run:
        """Push HEAD to main, and run every workflow that such a push starts."""
        before, after, changed = self.pushed()
        event = {"ref": "refs/heads/main", "before": before, "after": after, "forced": False}
        files = [
            file for file, on in self.triggers(after, "push").items() if chosen(on, "main", changed)
        ]
        return self.run("push", files, after, "main", event)

    def propose(self, branch: str, *, fork: bool = False) -> Run:
        """Push a branch, and run what a pull request from it to main starts.

        The push of the branch itself starts nothing here: a workflow on both would run twice.
        """
        self.main  # noqa: B018
        proposal = self.proposed(branch)
        head = f"somebody/{self.repository.split('/')[1]}" if fork else self.repository
        action = "synchronize" if proposal.again else "opened"
        request = {
            "number": proposal.number,
            "head": {
                "ref": branch,
                "sha": proposal.head,
                "repo": {"full_name": head, "fork": fork},
            },
            "base": {
                "ref": "main",
                "sha": proposal.base,
                "repo": {"full_name": self.repository, "fork": False},
            },
            "draft": False,
        }
        event = {"action": action, "number": proposal.number, "pull_request": request}
        files = [
            file
            for file, on in self.triggers(proposal.merge, "pull_request").items()
            if action in on.get("types", ["opened", "synchronize", "reopened"])
            and chosen(on, "main", proposal.changed)
        ]
        may = self.api.may_write
        self.api.may_write = not fork and may
        try:
            return self.run("pull_request", files, proposal.merge, branch, event)
        finally:
            self.api.may_write = may

    def by_hand(self, pipeline: str, **inputs: str) -> Run:
        """Start a workflow by hand, with inputs that it has."""
        file = f"{pipeline}.yml"
        known = self.started(file, "workflow_dispatch").get("inputs") or {}
        if unknown := set(inputs) - set(known):
            raise LookupError(f"{file} has no input {', '.join(sorted(unknown))}")
        values = {}
        for name, about in known.items():
            value = inputs.get(name, about.get("default", ""))
            if about.get("required") and value == "":
                raise LookupError(f"{file} wants the input {name}")
            if about.get("type") == "choice" and value not in about["options"]:
                raise LookupError(f"{file} has no choice {value!r} for {name}")
            values[name] = value
        event = {"inputs": values, "ref": "refs/heads/main", "workflow": f"{self.workflows}/{file}"}
        return self.run("workflow_dispatch", [file], self.main, "main", event)

    def schedule(self, pipeline: str) -> Run:
        """Start a workflow that waits for a time, or the one that does and only calls it."""
        waiting = self.triggers(self.main, "schedule")
        for file, times in waiting.items():
            text = self.git("show", f"{self.main}:{self.workflows}/{file}", cwd=self.origin)
            calls = {job.get("uses") for job in yaml.safe_load(text)["jobs"].values()}
            if file == f"{pipeline}.yml" or calls == {f"./{self.workflows}/{pipeline}.yml"}:
                when: Any = times
                event = {"schedule": when[0]["cron"]}
                return self.run("schedule", [file], self.main, "main", event)
        raise LookupError(f"no workflow {pipeline}.yml waits for schedule")

    def dispatch(self, kind: str, **payload: str) -> Run:
        """Start what waits for a repository_dispatch of this kind."""
        files = [
            file
            for file, on in self.triggers(self.main, "repository_dispatch").items()
            if kind in listed(on.get("types", kind))
        ]
        event = {"action": kind, "client_payload": payload, "branch": "main"}
        return self.run("repository_dispatch", files, self.main, "main", event)

    def started(self, file: str, event: str) -> dict[str, Any]:
        """What a workflow says of an event that it must know."""
        known = self.triggers(self.main, event)
        if file not in known:
            raise LookupError(f"no workflow {file} waits for {event}")
        return known[file]

    def triggers(self, commit: str, event: str) -> dict[str, dict[str, Any]]:
        """What each workflow file of a commit says of an event, where it says something."""
        names = self.git("ls-tree", "--name-only", commit, f"{self.workflows}/", cwd=self.origin)
        waiting = {}
        for name in names.splitlines():
            if name.endswith((".yml", ".yaml")):
                text = self.git("show", f"{commit}:{name}", cwd=self.origin)
                on = events(yaml.safe_load(text))
                if event in on:
                    waiting[Path(name).name] = on[event] or {}
        return waiting

    def run(
        self, event: str, files: list[str], commit: str, branch: str, payload: dict[str, Any]
    ) -> Run:
        """Run workflow files one after another, as one event."""
        started = time.monotonic()
        about = {
            "full_name": self.repository,
            "name": self.repository.split("/")[1],
            "owner": {"login": self.repository.split("/")[0]},
            "default_branch": "main",
            "fork": False,
            "private": self.visibility == "private",
            "visibility": self.visibility,
        }
        # GitHub tells a schedule nothing of the repository.
        known = {} if event == "schedule" else {"repository": about}
        payload = {**known, "sender": {"login": "somebody"}, **payload}
        return joined(
            [self.workflow(event, file, commit, branch, payload) for file in files], started
        )

    def workflow(
        self, event: str, file: str, commit: str, branch: str, payload: dict[str, Any]
    ) -> Run:
        """Run one workflow file."""
        started = time.monotonic()
        clone = self.clone(commit, branch)
        self.git("remote", "add", "origin", f"https://github.com/{self.repository}.git", cwd=clone)
        here = clone.parent
        for path in (clone / self.workflows).glob("*.y*ml"):
            text = path.read_text("utf-8")
            path.write_text(self.readable(text), "utf-8")
        jobs = list(expand(clone / self.workflows, file))
        if {job.name for job in jobs} <= self.left_out:
            return Run({}, "", "", 0)
        number = {"run_number": self.count}
        (here / "event.json").write_text(json.dumps(payload | number))
        (here / "artifacts").mkdir()
        (here / "jobs.json").write_text(
            json.dumps(
                {
                    job.name: {"workflow": job.workflow, "permissions": job.permissions}
                    for job in jobs
                    if not job.calls
                }
            )
        )
        # The whole path: another worker's host has runs of the same number.
        tracking = f"github_{here}"
        ref = (
            f"refs/pull/{payload['number']}/merge"
            if "number" in payload
            else f"refs/heads/{branch}"
        )
        source = f"{self.repository}/{self.workflows}/{file}@{ref}"
        (here / "first.sh").write_text(
            f"export GITHUB_API_URL='{self.api.url}' GITHUB_RUN_ID={1000 + self.count}\n"
            f"export GITHUB_RUN_NUMBER={self.count} GITHUB_WORKFLOW_REF='{source}'\n"
            # uv is on the PATH already: see the stand-in. Its bytes are test_pipelines_uv.py's.
            'python3() { case "$*" in "-m pip "*) "$STANDINS/pip" "$@" ;; '
            '*) command python3 "$@" ;; esac; }\n'
            'if [ -z "$STANDIN_TRACKED" ]; then\n'
            f'export STANDIN_TRACKED=1 RUNNER_TRACKING_ID="${{RUNNER_TRACKING_ID:-{tracking}}}"\n'
            "fi\n"
        )
        log = Log(tracking)
        command = self.command(event, file, clone, actions(clone / self.workflows))
        env = self.environment() | {
            "BASH_ENV": str(here / "first.sh"),
            "STANDIN_RUN": str(here),
            "STANDIN_TRACKED": "",
            "STANDIN_REF": ref,
        }
        code = follow(command, env, log.add)
        return self.read(jobs, log, code, here, started)

    def command(self, event: str, file: str, clone: Path, used: set[str]) -> list[str]:
        """Give the command of act."""
        command = [act(), event, "--json", "-C", str(clone), "-W", f"{self.workflows}/{file}"]
        command += ["-e", str(clone.parent / "event.json"), "--actor", "somebody"]
        command += ["--no-skip-checkout", "--no-cache-server", "--concurrent-jobs", "2"]
        command += ["--action-cache-path", str(self.folder / "act"), "--defaultbranch", "main"]
        # None of these files is the project's: act would read them from where it is started.
        for option in ("env", "secret", "var", "input"):
            command += [f"--{option}-file", "/dev/null"]
        for label in (
            *self.labels,
            *(v for v in self.variables.values() if re.fullmatch(r"[\w-]+", v)),
        ):
            command += ["-P", f"{label}=-self-hosted"]
        command += ["-s", f"GITHUB_TOKEN={TOKEN}"]
        for name, value in self.variables.items():
            command += ["--var", f"{name}={value}"]
        repositories = {}
        for action in sorted(used):
            name, _, commit = action.partition("@")
            folder = STANDINS / "github" / name.lower()
            if not folder.exists():
                raise LookupError(f"no stand-in for {name}: write {folder}/action.yml")
            # An action may be a folder of its repository, such as actions/cache/restore.
            repository = "/".join(name.split("/")[:2])
            repositories[f"{repository}@{commit}"] = STANDINS / "github" / repository.lower()
        for repository, folder in repositories.items():
            command += ["--local-repository", f"{repository}={folder}"]
        return command

    def readable(self, text: str) -> str:
        """Take what act cannot read out of a workflow's text."""
        return adapted(text, self.never_starts)

    def never_starts(self, name: str, job: Mapping[str, Any]) -> bool:
        """Whether a job is left out, or waits for an approval that nobody gives."""
        return name in self.left_out or self.waits(job)

    def waits(self, job: Mapping[str, Any]) -> bool:
        """Whether a job waits for an approval that nobody gives."""
        environment = job.get("environment")
        name = environment.get("name") if isinstance(environment, dict) else environment
        return name in self.protected and not self.approve

    def read(self, jobs: list[Job], log: Log, code: int, here: Path, started: float) -> Run:
        """Say how each job ended."""
        ended = {name: worst(results) for name, results in log.results.items()}
        results: dict[str, str] = {}
        for job in jobs:
            if not job.calls:
                results[job.name] = ended.get(job.name, "skipped")
        for job in reversed(jobs):  # a caller ends as the jobs that it called
            if job.calls and job.name not in results:
                inner = [results[called.name] for called in jobs if called.caller == job.name]
                results[job.name] = worst(inner)
        text = "\n".join(log.lines)
        if code and "failure" not in results.values():
            raise RuntimeError(f"act ended with {code}, and no job failed:\n{text}")
        order = {job.name: results[job.name] for job in jobs if job.name not in self.left_out}
        logs = {name: "".join(lines) for name, lines in log.jobs.items()}
        return Run(
            order,
            text,
            "\n".join(log.summary),
            time.monotonic() - started,
            logs,
            here / "artifacts",
        )


class Log:
    """What act says, line by line."""

    def __init__(self, tracking: str) -> None:
        """Start with nothing."""
        self.tracking = tracking
        self.results: dict[str, list[str]] = {}
        self.jobs: dict[str, list[str]] = {}
        self.lines: list[str] = []
        self.summary: list[str] = []

    def add(self, line: str) -> None:
        """Read one line."""
        try:
            entry = json.loads(line)
        except ValueError:
            self.lines.append(line.rstrip())
            return
        job = entry.get("jobID", "")
        message = ANSI.sub("", entry["msg"])
        if "LocalRepositoryCache" in message or "docker connection" in message:
            return
        self.lines.append(f"[{job}] {message.rstrip()}" if job else message.rstrip())
        if entry.get("raw_output"):
            self.jobs.setdefault(job, []).append(message)
        if message.lstrip().startswith("⚙  Summary - "):
            self.summary.append(message.partition(" - ")[2])
        if "jobResult" in entry:
            self.results.setdefault(job, []).append(entry["jobResult"])
            for process in kill({"RUNNER_TRACKING_ID": self.tracking, "GITHUB_JOB": job}):
                self.lines.append(f"[{job}] Terminate orphan process: {process}")


def adapted(text: str, never_starts: Callable[[str, Mapping[str, Any]], bool]) -> str:
    """Take what act cannot read out of a workflow's text, and disable the jobs that never start.

    The text is changed at its marks, so that act reads all else byte for byte.
    """
    top = keys(yaml.compose(text))
    nodes = keys(top["jobs"][1])
    changes: list[tuple[int, int, str]] = []
    for mapping in [top, *(keys(job) for _, job in nodes.values())]:
        group = keys(mapping["concurrency"][1]) if "concurrency" in mapping else {}
        if "queue" in group:
            key, value = group["queue"]
            concurrency = mapping["concurrency"][1]
            changes.append(cut(text, key.start_mark.index, value.end_mark.index, concurrency))
    for name, job in yaml.safe_load(text)["jobs"].items():
        if never_starts(name, job):
            changes.append(never(nodes[name][1]))
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def keys(node: Any) -> dict[str, tuple[Any, Any]]:
    """The nodes of a mapping's keys and values."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: (key, value) for key, value in node.value}


def cut(text: str, start: int, end: int, mapping: Any) -> tuple[int, int, str]:
    """Cut a key and its value, with the comma or the line that they need."""
    if not mapping.flow_style:
        return text.rindex("\n", 0, start), text.index("\n", end), ""
    before = re.search(r",\s*$", text[:start])
    after = re.match(r"\s*,\s*", text[end:])
    if before:
        return before.start(), end, ""
    return start, end + (after.end() if after else 0), ""


def never(job: Any) -> tuple[int, int, str]:
    """Let a job wait for ever."""
    if "if" in keys(job):
        value = keys(job)["if"][1]
        tail = "\n" if value.style in ("|", ">") else ""
        return value.start_mark.index, value.end_mark.index, f"false{tail}"
    start = job.start_mark.index + bool(job.flow_style)
    more = ", " if job.flow_style else "\n" + " " * job.start_mark.column
    return start, start, f"if: false{more}"


def act() -> str:
    """Where the program is: beside this Python, as its package puts it, or on the PATH."""
    beside = Path(sys.prefix, "bin/act")
    return str(beside) if beside.exists() else shutil.which("act") or ""


def events(workflow: dict[Any, Any]) -> dict[str, Any]:
    """What starts a workflow. YAML reads the key `on` as a truth."""
    on = workflow.get("on", workflow.get(True))
    return on if isinstance(on, dict) else dict.fromkeys(listed(on))


def listed(value: Any) -> list[Any]:
    """A list of what is one or a list."""
    return value if isinstance(value, list) else [value]


def expand(
    folder: Path, file: str, caller: str = "", limit: Mapping[str, str] | str | None = None
) -> Iterator[Job]:
    """Give the jobs of a workflow file and of those that it calls, with what each may do."""
    workflow = yaml.safe_load((folder / file).read_text("utf-8"))
    where = f"{folder.parent.name}/{folder.name}"
    for name, job in workflow["jobs"].items():
        may = job.get("permissions", workflow.get("permissions"))
        may = may if limit is None else least(may, limit)
        called = job.get("uses", "")
        yield Job(name, caller, bool(called), f"{where}/{file}", may)
        if called:
            yield from expand(folder, Path(called.partition("@")[0]).name, name, may)


def least(
    may: Mapping[str, str] | str | None, limit: Mapping[str, str] | str
) -> Mapping[str, str] | str:
    """What a called workflow's job may do: never more than its caller."""
    if may is None or isinstance(may, str) or isinstance(limit, str):
        return limit if may is None or isinstance(may, str) else may
    order = ["none", "read", "write"]
    return {key: min(value, limit.get(key, "none"), key=order.index) for key, value in may.items()}


def actions(workflows: Path) -> set[str]:
    """Give every hosted action that the project's files name, with its commit."""
    used_actions = set()
    for path in workflows.parent.rglob("*.y*ml"):
        for used in re.findall(r"^[\s-]*uses:\s*[\"']?([^\s\"'#]+)", path.read_text("utf-8"), re.M):
            if not used.startswith("./"):
                used_actions.add(used)
    return used_actions


def chosen(on: Mapping[str, Any], branch: str, changed: list[str]) -> bool:
    """Whether filters of branches and paths let an event through.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#filter-pattern-cheat-sheet
    """
    if "branches" in on and not passes(branch, listed(on["branches"])):
        return False
    if "branches-ignore" in on and passes(branch, listed(on["branches-ignore"])):
        return False
    if "tags" in on and "branches" not in on:
        return False
    if "paths" in on and not any(passes(path, listed(on["paths"])) for path in changed):
        return False
    ignored = listed(on.get("paths-ignore", []))
    return not ignored or not all(passes(path, ignored) for path in changed)


def passes(name: str, patterns: list[str]) -> bool:
    """Whether a name matches patterns of which each may take back what those before it said."""
    included = False
    for pattern in patterns:
        if re.fullmatch(translated(pattern.removeprefix("!")), name):
            included = not pattern.startswith("!")
    return included


def translated(pattern: str) -> str:
    """Give the regular expression of a filter pattern."""
    parts = re.split(r"(\*\*/?|\*|\?|\+|\[[^\]]+\])", pattern)
    known = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*", "?": "?", "+": "+"}
    return "".join(
        known.get(part, part if part.startswith("[") else re.escape(part)) for part in parts
    )
