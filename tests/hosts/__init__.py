"""Run a generated project's pipelines for real, on this machine, as GitHub and GitLab would.

`GitHub` and `GitLab` each take a project's folder, copy it, give it a bare origin and run what an
event starts: act and gitlab-ci-local execute the jobs, each in a fresh checkout of its own. Actions
and services of the platforms are stand-ins (`tests/standins`, `hosts.api`); uv, git, buildah and
the registry are the real ones.

    with GitHub(folder, tmp_path) as host:
        run = host.push()
        assert run.jobs["train"] == "success", run.log
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from hosts.api import Api

ROOT = Path(__file__).resolve().parents[2]
STANDINS = ROOT / "tests/standins"
ANSI = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;;.*?(?:\x07|\x1b\\)")
PATIENCE = 1500  # seconds for what one event starts


@dataclass(frozen=True)
class Run:
    """What an event started, and how each of its jobs ended."""

    jobs: dict[str, str]  # name -> success, failure or skipped
    log: str
    summary: str
    seconds: float
    logs: dict[str, str] = field(default_factory=dict)  # job -> what it printed
    artifacts: Path | None = None  # a folder for each artifact that was kept

    @property
    def ok(self) -> bool:
        """Whether a job ran and none failed."""
        return "failure" not in self.jobs.values() and "success" in self.jobs.values()


class Host(ABC):
    """A platform with one project on it."""

    name: ClassVar[str]

    def __init__(
        self,
        project: Path,
        folder: Path,
        *,
        variables: Mapping[str, str] | None = None,
        approve: bool = True,
        repository: str = "team/project",
        registry: str = "",
        visibility: str = "public",
    ) -> None:
        """Bring a copy of the project to the platform, in a folder that is the host's own.

        Variables are those of the repository. Where approve is False, nobody approves what waits
        for a person: such jobs are skipped. The registry, as HOST:PORT, is the platform's own.
        """
        if (project / "pyproject.toml").exists() and not (project / "uv.lock").exists():
            raise LookupError(f"{project} has no uv.lock: run uv lock there first")
        self.folder = folder
        self.project = folder / "project"
        self.origin = folder / "origin.git"
        self.home = folder / "home"
        self.runs = folder / "runs"
        self.attestations = folder / "attestations"
        self.variables = dict(variables or {})
        self.approve = approve
        self.repository = repository
        self.registry = registry
        self.visibility = visibility
        self.proposals: list[str] = []
        self.more: dict[str, str] = {}  # that jobs find in their environment
        self.left_out: frozenset[str] = frozenset()  # jobs, see without()
        self.count = 0
        for made in (self.home, self.runs, self.attestations):
            made.mkdir(parents=True)
        ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__")
        shutil.copytree(project, self.project, symlinks=True, ignore=ignored)
        self.git("init", "-q", "-b", "main")
        self.git("init", "-q", "--bare", "-b", "main", str(self.origin))
        # Jobs fetch a commit by its name, merge commits of proposals too.
        self.git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=self.origin)
        self.git("remote", "add", "origin", self.origin.as_uri())
        self.commit("A project")
        self.api = Api(visibility=visibility)

    def __enter__(self) -> Self:
        """Give the host."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop the API and whatever the jobs left running."""
        self.api.close()
        list(kill({"STANDIN_HOST": str(self.folder)}))

    @contextmanager
    def without(self, jobs: Collection[str]) -> Iterator[None]:
        """Leave jobs out of what events start meanwhile, as if their conditions did not hold.

        A run says nothing of them; what needs one of them is skipped.
        """
        before = self.left_out
        self.left_out = frozenset(jobs)
        try:
            yield
        finally:
            self.left_out = before

    @abstractmethod
    def push(self) -> Run:
        """Push HEAD to main, and run every pipeline that such a push starts."""

    @abstractmethod
    def propose(self, branch: str, *, fork: bool = False) -> Run:
        """Push a branch, and run what a pull or merge request from it to main starts.

        A branch that is not there is made at HEAD. From a fork, the token may only read.
        """

    @abstractmethod
    def by_hand(self, pipeline: str, **inputs: str) -> Run:
        """Start a pipeline by hand."""

    @abstractmethod
    def schedule(self, pipeline: str) -> Run:
        """Start a pipeline that waits for a time."""

    @abstractmethod
    def dispatch(self, kind: str, **payload: str) -> Run:
        """Start what an event from outside starts: repository_dispatch, a trigger token."""

    @property
    def comments(self) -> list[str]:
        """The comments of all requests."""
        return self.api.comments

    def comments_on(self, branch: str) -> list[str]:
        """Return the comments of the request from a branch."""
        number = self.proposals.index(branch) + 1
        return [note.body for note in self.api.notes if note.thread.endswith(f"/{number}")]

    @property
    def dispatched(self) -> list[dict[str, Any]]:
        """What the jobs asked the platform to start: kind and payload."""
        return self.api.dispatched

    def commit(self, message: str) -> str:
        """Commit everything in the project; give the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *args: str, cwd: Path | None = None) -> str:
        """Run git as somebody, in the project."""
        who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.invalid"]
        command = ["git", *who, "-c", "protocol.file.allow=always", *args]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        done = subprocess.run(
            command, cwd=cwd or self.project, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(args)}: {done.stderr}")
        return done.stdout.strip()

    def pushed(self) -> tuple[str, str, list[str]]:
        """Push HEAD to main: the commits before and after, and the paths in which they differ."""
        before = self.git(
            "for-each-ref", "--format=%(objectname)", "refs/heads/main", cwd=self.origin
        )
        after = self.git("rev-parse", "HEAD")
        self.git("push", "-q", "--force", "origin", "HEAD:refs/heads/main")
        if not before:
            return "0" * 40, after, self.git("ls-tree", "-r", "--name-only", after).splitlines()
        return before, after, self.git("diff", "--name-only", before, after).splitlines()

    def proposed(self, branch: str) -> Proposal:
        """Push a branch as a request to main, with the commit that merges the two."""
        if not self.git("branch", "--list", branch):
            self.git("branch", branch)
        head = self.git("rev-parse", branch)
        self.git("push", "-q", "--force", "origin", f"{branch}:refs/heads/{branch}")
        base = self.git("rev-parse", "refs/heads/main", cwd=self.origin)
        again = branch in self.proposals
        self.proposals += [] if again else [branch]
        number = self.proposals.index(branch) + 1
        tree = self.git("merge-tree", "--write-tree", base, head, cwd=self.origin).split("\n")[0]
        merge = self.git(
            "commit-tree", tree, "-p", base, "-p", head, "-m", "Merge", cwd=self.origin
        )
        self.git("update-ref", f"refs/pull/{number}/merge", merge, cwd=self.origin)
        self.git("update-ref", f"refs/merge-requests/{number}/head", head, cwd=self.origin)
        changed = self.git("diff", "--name-only", f"{base}...{head}", cwd=self.origin)
        return Proposal(number, branch, base, head, merge, changed.splitlines(), again)

    @property
    def main(self) -> str:
        """The commit of main on the platform; pushed without an event where there is none."""
        return (
            self.git("for-each-ref", "--format=%(objectname)", "refs/heads/main", cwd=self.origin)
            or self.pushed()[1]
        )

    def clone(self, commit: str, ref: str, *options: str) -> Path:
        """Make a throw-away clone of a commit, in a folder for one more run."""
        self.count += 1
        clone = self.runs / str(self.count) / "clone"
        clone.mkdir(parents=True)
        self.git("init", "-q", "-b", ref, cwd=clone)
        self.git("fetch", "-q", *options, self.origin.as_uri(), commit, cwd=clone)
        self.git("reset", "-q", "--hard", "FETCH_HEAD", cwd=clone)
        return clone

    def environment(self) -> dict[str, str]:
        """What every job finds, whatever this process has: programs, a home, uv's warm cache."""
        ours = {str(Path(sys.prefix, "bin")), str(Path(os.environ.get("VIRTUAL_ENV", "/"), "bin"))}
        folders = [p for p in os.environ["PATH"].split(os.pathsep) if p and p not in ours]
        uv = shutil.which("uv", path=os.pathsep.join(folders)) or str(ROOT / ".tools/bin/uv")
        cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True)
        version = f"python3.{sys.version_info.minor}"
        keep = {"LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
        env = {k: v for k, v in os.environ.items() if k in keep or k.lower().endswith("_proxy")}
        python = str(Path(sys.base_prefix, "bin", version))
        path = [str(STANDINS / "bin"), str(Path(uv).parent), *folders]
        return env | {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.home),
            "UV_CACHE_DIR": cache.stdout.strip(),
            "UV_PYTHON": python,
            "UV_NO_PROGRESS": "1",
            "STANDIN_ATTESTATIONS": str(self.attestations),
            "STANDIN_AUDIT": f"{self.api.url}/osv/",
            "STANDIN_HOST": str(self.folder),
            "STANDIN_ORIGIN": self.origin.as_uri(),
            "STANDIN_PYTHON": python,
            "STANDIN_UV": uv,
            "STANDINS": str(STANDINS),
            **self.more,
        }


@dataclass(frozen=True)
class Proposal:
    """A pull or merge request to main."""

    number: int
    branch: str
    base: str
    head: str
    merge: str
    changed: list[str]
    again: bool


def kill(env: Mapping[str, str]) -> Iterator[str]:
    """Kill every process that was started with these variables; say which."""
    for process in psutil.process_iter(["environ", "name"]):
        has = process.info["environ"] or {}
        if process.pid != os.getpid() and all(has.get(key) == env[key] for key in env):
            with suppress(psutil.Error):
                process.kill()
                yield f"pid ({process.pid}) ({process.info['name']})"


def follow(
    command: list[str], env: Mapping[str, str], add: Callable[[str], None], cwd: Path | None = None
) -> int:
    """Run a command, handing on each line as it comes; kill it where it takes too long."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        # Whoever holds the pipe is killed: what a job left running may hold it too.
        late = threading.Timer(PATIENCE, lambda: list(kill({"STANDIN_RUN": env["STANDIN_RUN"]})))
        late.start()
        try:
            assert process.stdout
            for line in process.stdout:
                add(line)
            return process.wait()
        finally:
            late.cancel()
            process.kill()


def worst(results: list[str]) -> str:
    """One result for several."""
    return next((r for r in ("failure", "success") if r in results), "skipped")


def joined(runs: list[Run], started: float) -> Run:
    """One run of several that one event started; a name that two share is told apart by number."""
    jobs: dict[str, str] = {}
    logs: dict[str, str] = {}
    for run in runs:
        for name, result in run.jobs.items():
            free = name if name not in jobs else f"{name}-{len(jobs)}"
            jobs[free] = result
            logs[free] = run.logs.get(name, "")
    return Run(
        jobs,
        "\n".join(run.log for run in runs),
        "\n".join(run.summary for run in runs if run.summary),
        time.monotonic() - started,
        logs,
        runs[-1].artifacts if runs else None,
    )
