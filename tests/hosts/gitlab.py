"""GitLab: gitlab-ci-local runs the jobs on this machine.

Each job gets a copy of a clone at the pipeline's commit, history included, and only the artifacts
that it is told to fetch. Four things are done here because gitlab-ci-local 4.75.1 does not do them.
It compares `rules:changes` with origin's default branch, so the throw-away clone is told that this
branch is where it was before the push; where no push started the pipeline, or a branch is new,
every such rule holds, as on GitLab. It knows no `id_tokens`: BASH_ENV names a script that sets a
stand-in for those that a job declares. It will not run where a job needs one that waits for a
person: what waits, and what waits for it, is left out. And it leaves running what a job started:
without tags a job runs in a container on GitLab, so what is left of it is killed; with tags it runs
on a machine of the team's own, where what has a session of its own lives on.

`image` and `services` mean nothing here, `after_script` starts in a workspace that has been reset.
Of requests from forks: GitLab runs them in the fork, so they get none of the project's variables.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from hosts import ANSI, ROOT, Host, Run, follow, kill
from hosts.api import TOKEN

NODE = ROOT / ".tools/node/node_modules/.bin"
SERVER = "https://gitlab.com"
STATES = {"PASS": "success", "WARN": "failure", "FAIL": "failure"}


class GitLab(Host):
    """A project on GitLab."""

    name = "gitlab"
    server = SERVER

    def push(self) -> Run:
        """Push HEAD to main, and run the pipeline of that push."""
        before, after, _ = self.pushed()
        new = before == "0" * 40
        return self.run("push", after, "main", {"CI_COMMIT_BEFORE_SHA": before}, new or before)

    def propose(self, branch: str, *, fork: bool = False) -> Run:
        """Push a branch, and run the pipeline of a merge request from it to main."""
        self.main  # noqa: B018
        proposal = self.proposed(branch)
        common = self.git("merge-base", proposal.base, proposal.head, cwd=self.origin)
        path = f"somebody/{self.repository.split('/')[1]}" if fork else self.repository
        more = {
            "CI_MERGE_REQUEST_ID": str(100 + proposal.number),
            "CI_MERGE_REQUEST_IID": str(proposal.number),
            "CI_MERGE_REQUEST_PROJECT_ID": "1",
            "CI_MERGE_REQUEST_PROJECT_PATH": self.repository,
            "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2" if fork else "1",
            "CI_MERGE_REQUEST_SOURCE_PROJECT_PATH": path,
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": branch,
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": common,
            "CI_MERGE_REQUEST_EVENT_TYPE": "detached",
            "CI_MERGE_REQUEST_REF_PATH": f"refs/merge-requests/{proposal.number}/head",
            "CI_PROJECT_PATH": path,
            "CI_PROJECT_ID": "2" if fork else "1",
        }
        variables = self.variables
        if fork:
            self.variables = {}
        try:
            return self.run("merge_request_event", proposal.head, branch, more, common)
        finally:
            self.variables = variables

    def by_hand(self, pipeline: str, **inputs: str) -> Run:
        """Start a pipeline in the browser: inputs name it, and what it wants to know."""
        return self.run("web", self.main, "main", {}, inputs={"pipeline": pipeline, **inputs})

    def schedule(self, pipeline: str) -> Run:
        """Start a pipeline that waits for a time, as .gitlab/schedules says it."""
        return self.run("schedule", self.main, "main", {}, inputs={"pipeline": pipeline})

    def dispatch(self, kind: str, **payload: str) -> Run:
        """Start what a trigger token starts, with variables."""
        named = {key.upper(): value for key, value in payload.items()}
        return self.run("trigger", self.main, "main", {"EVENT": kind, **named})

    def run(
        self,
        source: str,
        commit: str,
        branch: str,
        more: Mapping[str, str],
        before: str | bool = True,
        inputs: Mapping[str, str] | None = None,
    ) -> Run:
        """Run the pipeline of a commit; `before` is what it is compared with, or True."""
        started = time.monotonic()
        clone = self.clone(commit, branch, "--depth", "20")
        here = clone.parent
        url = f"{self.server}/{self.repository}"
        self.git("config", "--global", f"url.{self.origin.as_uri()}.insteadOf", f"{url}.git")
        self.git("remote", "add", "origin", f"{url}.git", cwd=clone)
        self.git("remote", "add", "gcl-origin", url, cwd=clone)  # read by gitlab-ci-local alone
        self.git("checkout", "-q", "--detach", cwd=clone)
        self.git("branch", "-q", "-D", branch, cwd=clone)
        if isinstance(before, str):
            self.git("fetch", "-q", "--depth", "1", self.origin.as_uri(), before, cwd=clone)
        self.git(
            "update-ref",
            "refs/remotes/origin/main",
            before if isinstance(before, str) else commit,
            cwd=clone,
        )
        self.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main", cwd=clone)
        env = self.environment() | {
            "BASH_ENV": str(here / "first.sh"),
            "STANDIN_RUN": str(here),
            "FORCE_COLOR": "0",
        }
        more = {"UV_CACHE_DIR": env["UV_CACHE_DIR"], **more}  # whatever folder the project names
        command = self.command(source, commit, branch, more, before)
        command += [
            f"--input={name}={value}" for name, value in self.checked_inputs(clone, inputs or {})
        ]
        jobs = self.jobs(command, clone, env)
        blocked = self.blocked(jobs)
        todo = [name for name in jobs if name not in blocked]
        if not todo:
            waiting = [name for name in jobs if name not in self.left_out]
            return Run(dict.fromkeys(waiting, "skipped"), "", "", time.monotonic() - started)
        about = yaml.safe_load(
            self.outcome([*command, "--no-json-schema-validation", "--preview"], clone, env)
        )
        self.first(here / "first.sh", about)
        manual = [name for name in todo if jobs[name]["when"] == "manual"]
        command += [f"--manual={name}" for name in manual]
        if blocked:
            command += [*todo, "--needs"]
        log = Log(here, {name for name in jobs if self.own(about, name)})
        self.api.jobs = lambda: statuses(jobs, log.ended)
        code = follow(command, env, log.add, cwd=clone)
        # What runs even after a failure would wait here for what never starts: it runs by itself.
        late = [n for n in todo if jobs[n]["when"] == "always" and n not in log.ended]
        if late:
            own = [part for part in command if part not in {*todo, "--needs"}]
            code = follow([*own, *late], env, log.add, cwd=clone) or code
        run = self.read(jobs, log, code, here, started)
        shutil.rmtree(here / "state/builds", ignore_errors=True)  # an environment in each
        return run

    def checked_inputs(self, clone: Path, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
        """See that the project knows the inputs."""
        head = next(yaml.safe_load_all((clone / ".gitlab-ci.yml").read_text("utf-8")))
        known = head.get("spec", {}).get("inputs", {})
        if unknown := set(inputs) - set(known):
            raise LookupError(f".gitlab-ci.yml has no input {', '.join(sorted(unknown))}")
        for name, value in inputs.items():
            options = known[name].get("options", [value])
            if value not in options or not re.search(known[name].get("regex", ""), value):
                raise LookupError(f".gitlab-ci.yml has no choice {value!r} for {name}")
        return list(inputs.items())

    def command(
        self, source: str, commit: str, branch: str, more: Mapping[str, str], before: str | bool
    ) -> list[str]:
        """Give the command of gitlab-ci-local."""
        host = self.registry or "registry.example.invalid"
        url = f"{self.server}/{self.repository}"
        variables = {
            "CI": "true",
            "GITLAB_CI": "true",
            "CI_API_V4_URL": f"{self.api.url}/api/v4",
            "CI_COMMIT_BRANCH": branch,
            "CI_COMMIT_REF_NAME": branch,
            "CI_COMMIT_REF_PROTECTED": "true" if branch == "main" else "false",
            "CI_COMMIT_REF_SLUG": re.sub(r"[^a-z0-9]+", "-", branch.lower())[:63].strip("-"),
            "CI_COMMIT_SHA": commit,
            "CI_COMMIT_TITLE": self.git("log", "-1", "--format=%s", commit, cwd=self.origin),
            "CI_CONFIG_PATH": ".gitlab-ci.yml",
            "CI_DEFAULT_BRANCH": "main",
            "CI_JOB_TOKEN": TOKEN,
            "CI_PIPELINE_ID": str(1000 + self.count),
            "CI_PIPELINE_IID": str(self.count),
            "CI_PIPELINE_SOURCE": source,
            "CI_PROJECT_ID": "1",
            "CI_PROJECT_NAME": self.repository.rpartition("/")[2],
            "CI_PROJECT_NAMESPACE": self.repository.rpartition("/")[0],
            "CI_PROJECT_PATH": self.repository,
            "CI_PROJECT_URL": url,
            "CI_PROJECT_VISIBILITY": self.visibility,
            "CI_REGISTRY": host,
            "CI_REGISTRY_IMAGE": f"{host}/{self.repository}",
            "CI_REGISTRY_PASSWORD": TOKEN,
            "CI_REGISTRY_USER": "gitlab-ci-token",
            "CI_REPOSITORY_URL": f"{url}.git",
            "CI_SERVER_HOST": self.server.partition("://")[2],
            "CI_SERVER_URL": self.server,
            "GITLAB_USER_LOGIN": "somebody",
            **self.variables,
            **more,
        }
        command = [
            str(NODE / "node"),
            str(NODE / "gitlab-ci-local"),
            "--state-dir=../state",
            "--force-shell-executor",
        ]
        command += ["--shell-isolation", "--concurrency=2", "--no-color"]
        command += ["--variables-file=/dev/null", f"--home={self.home}"]
        # On GitLab such a rule holds where nothing was pushed, or where the branch is new.
        command += [] if isinstance(before, str) else ["--no-evaluate-rule-changes"]
        if source == "merge_request_event":
            del variables["CI_COMMIT_BRANCH"]
            command += ["--unset-variable=CI_COMMIT_BRANCH"]
        command += [f"--ignore-predefined-vars={','.join(variables)}"]
        return command + [f"--variable={key}={value}" for key, value in variables.items()]

    def outcome(self, command: list[str], clone: Path, env: Mapping[str, str]) -> str:
        """Ask gitlab-ci-local what it read."""
        done = subprocess.run(
            command, cwd=clone, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(
                f"gitlab-ci-local ended with {done.returncode}:\n{done.stderr}{done.stdout}"
            )
        return done.stdout

    def jobs(
        self, command: list[str], clone: Path, env: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """Give the jobs of the pipeline, and when each runs."""
        output = self.outcome([*command, "--no-json-schema-validation", "--list-json"], clone, env)
        listing = json.loads(output[output.index("[") :])
        return {job["name"]: job for job in listing if job["when"] != "never"}

    def blocked(self, jobs: Mapping[str, dict[str, Any]]) -> set[str]:
        """Return the jobs that are left out or wait for a person, and those that wait for them."""
        blocked = {name for name in jobs if name in self.left_out}
        if not self.approve:
            blocked |= {name for name, job in jobs.items() if job["when"] == "manual"}
        stages = list(dict.fromkeys(job["stage"] for job in jobs.values()))
        for _ in jobs:
            for name, job in jobs.items():
                if job.get("needs") is not None:
                    before = {
                        need["job"] if isinstance(need, dict) else need for need in job["needs"]
                    }
                else:
                    earlier = stages[: stages.index(job["stage"])]
                    before = {
                        other
                        for other, preceding in jobs.items()
                        if preceding["stage"] in earlier and not preceding.get("allow_failure")
                    }
                if before & blocked:
                    blocked.add(name)
        return blocked

    def first(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write what every bash of a job reads first: the identity tokens that the job declares."""
        lines = ['case "${CI_JOB_NAME-}" in']
        for name, job in about.items():
            tokens = job.get("id_tokens") if isinstance(job, dict) else None
            exports = " ".join(f"{token}=token-of-{name}" for token in tokens or {})
            lines += [f"{shlex.quote(name)}) export {exports} ;;"] if exports else []
        path.write_text("\n".join([*lines, "esac", ""]))

    def own(self, about: Mapping[str, Any], name: str) -> bool:
        """Whether a job asks for a machine of the team's own: a tag that is not empty."""
        known = {**about.get("variables", {}), **about[name].get("variables", {}), **self.variables}
        tags = (Template(tag) for tag in about[name].get("tags", []))
        return any(tag.safe_substitute(defaultdict(str, known)) for tag in tags)

    def read(self, jobs: Mapping[str, Any], log: Log, code: int, here: Path, started: float) -> Run:
        """Say how each job ended."""
        known = [name for name in jobs if name not in self.left_out]
        results = {name: log.results.get(name, "skipped") for name in known}
        # A pipeline that another one starts has its jobs in the report alone.
        results |= log.results
        text = "\n".join(log.lines)
        if code and "failure" not in results.values():
            raise RuntimeError(f"gitlab-ci-local ended with {code}, and no job failed:\n{text}")
        files = {path.stem: path for path in (here / "state").rglob("output/*.log")}
        logs = {
            name: ANSI.sub("", files[name].read_text("utf-8")) for name in results if name in files
        }
        printed = [line for log in logs.values() for line in log.splitlines() if line[:2] != "$ "]
        return Run(
            results,
            text,
            "\n".join(printed),
            time.monotonic() - started,
            logs,
            here / "state/artifacts",
        )


def statuses(jobs: Mapping[str, Any], ended: Mapping[str, str]) -> dict[str, str]:
    """How each job is while the pipeline runs: what needs one that failed is skipped."""
    states = {name: ended.get(name, "created") for name in jobs}
    for _ in jobs:
        for name, job in jobs.items():
            needed = {states.get(need["job"]) for need in job.get("needs", [])}
            if states[name] == "created" and needed & {"failed", "skipped"}:
                states[name] = "skipped"
    return states


class Log:
    """What gitlab-ci-local says, line by line."""

    def __init__(self, here: Path, tagged: set[str]) -> None:
        """Start with nothing."""
        self.here = here
        self.tagged = tagged
        self.results: dict[str, str] = {}
        self.ended: dict[str, str] = {}  # as GitLab's API says it
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Read one line."""
        text = ANSI.sub("", line).rstrip()
        self.lines.append(text)
        ended = re.match(r"(\S+) +finished in ", text)
        if ended:
            self.ended[ended[1]] = "failed" if re.search(r" FAIL | WARN ", text) else "success"
        if ended and ended[1] not in self.tagged:
            for process in kill({"STANDIN_RUN": str(self.here), "CI_JOB_NAME": ended[1]}):
                self.lines.append(f"{ended[1]} left running, and killed: {process}")
        # The report at the end; a job of a pipeline that another job started is named after it.
        if match := re.match(r" (PASS|WARN|FAIL) +(?:\[.*\] -> )?(\S+)(?!.*after_script)", text):
            self.results[match[2]] = STATES[match[1]]
