"""What a job may hold beside whose code it runs, read from the very files that a project gets."""

from __future__ import annotations

import ast
import copy
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graph
import pytest
from conftest import ROOT, Render
from graph import Files

LEVELS = [0, 1, 2]
# Programs that import the project, a package of the registry or a requirement, or build one.
RUNS = re.compile(
    r"\b(uv (run|sync|build|tool)|uvx|pip|python3?|pytest|pre-commit|copier|dvc|make|tox|ml|npm)\b"
)
SIGNING = ("id-token", "attestations")
# Jobs that may write, each with all that it runs there. They run after what they use was verified
# (test_graph.py), and none of them signs.
WRITERS: dict[str, tuple[set[str], list[str]]] = {
    "train.register": (
        {"packages"},
        ["ml register --pinned", 'ml sign "$version" --unsigned artifacts/signing'],
    ),
    "deliver.image": ({"packages"}, ['ml image "$VERSION" --push', 'ml sbom "$VERSION"']),
    "deliver.production": ({"packages"}, ['ml deploy "$VERSION" --target production']),
    "rollback.rollback": ({"packages"}, ['ml rollback --target production --to "$VERSION"']),
    "monitor.monitor": ({"packages"}, ["ml monitor"]),
    "monitor.retrain": ({"contents", "packages"}, ["ml retrain --dispatch"]),
    "weekly.start": ({"contents"}, []),
    "pipeline.comment": ({"pull-requests"}, ["ml comment"]),
    "attest.attest": ({"id-token", "attestations"}, []),
}


# GitLab's own token is in each job, and can write. So this is all that `ml` does there. Either it
# runs the project's code of the commit that is checked out, as tests do, or no model's code: that
# of a package runs in a process of its own, without the token.
RUN_THE_PROJECT = {"ingest", "validate", "run"}
RUN_NO_MODEL = {
    *("comment", "deploy", "fetch", "image", "monitor", "register", "report", "resolve"),
    *("retrain", "rollback", "sbom", "score", "stop"),
}
# Functions of the runtime that load a package into the process that they run in: the commands
# `ml predict`, `ml parity` and `ml check`, a service, and the process of an isolated package.
LOADERS = {
    ("cli/app.py", "predict"),
    ("cli/delivery.py", "parity"),
    ("partitioned/predict.py", "start_predicting"),
    ("pipeline/attacks.py", "check_robustness"),
    ("serving/loaded_model.py", "load"),
    ("isolation/worker.py", "main"),
}


@pytest.fixture(scope="module")
def files(render: Render) -> Callable[[int], tuple[Files, Files]]:
    known: dict[int, tuple[Files, Files]] = {}

    def files(level: int) -> tuple[Files, Files]:
        if level not in known:
            known[level] = graph.read(render(level=level, ci=["github", "gitlab"]))
        return known[level]

    return files


Read = Callable[[int], tuple[Files, Files]]


def github_jobs(files: Files) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Give each job that has steps, with those of our own actions."""
    for name, flow in graph.workflows(files).items():
        for job, about in flow["jobs"].items():
            if "steps" in about:
                yield f"{name}.{job}", about, list(graph.steps(about, files))


def lines(steps: list[dict[str, Any]]) -> list[str]:
    return [line for step in steps for line in step.get("run", "").splitlines()]


def may_write(job: dict[str, Any]) -> set[str]:
    return {what for what, how in job["permissions"].items() if how == "write"}


def signers(files: Files) -> list[str]:
    """Give what is wrong with jobs of GitHub's that can sign."""
    findings = []
    for name, job, steps in github_jobs(files):
        if not may_write(job) & set(SIGNING):
            continue
        findings += [f"{name} runs {line}" for line in lines(steps) if RUNS.search(line)]
        findings += [f"{name} uses {s['uses']}" for s in steps if s.get("uses", "")[:2] == "./"]
        findings += [f"{name} checks out" for s in steps if "actions/checkout" in s.get("uses", "")]
    return findings


def tokens(files: Files) -> list[str]:
    """Give what is wrong with jobs of GitLab's that have an identity."""
    findings = []
    all_ = graph.jobs_of(files)
    for name, job in all_.items():
        if "id_tokens" not in job or name[0] == ".":
            continue
        for key in ("before_script", "script", "after_script"):
            for line in graph.flat(job.get(key, []), all_):
                part = line.rpartition("|| ")[2]
                if not re.fullmatch(r"sh \.gitlab/provenance (attest|verify) [\w./ -]+", part):
                    findings.append(f"{name} runs {line}")
        if job["cache"]:
            findings.append(f"{name} reads a cache that other jobs fill")
    return findings


@pytest.mark.parametrize("level", LEVELS)
def test_no_job_that_can_sign_runs_code_of_project_package_or_requirement(
    files: Read, level: int
) -> None:
    github, gitlab = files(level)
    assert signers(github) == []
    assert tokens(gitlab) == []
    if level:
        assert [n for n, job, _ in github_jobs(github) if may_write(job) & set(SIGNING)] == [
            "attest.attest"
        ]
        jobs = graph.jobs_of(gitlab)
        identified = {n for n, job in jobs.items() if "id_tokens" in job and n[0] != "."}
        assert identified == {"attest", "attest-image"} if level == 2 else {"attest"}


def test_a_signer_that_runs_something_is_found(files: Read) -> None:
    github, gitlab = copy.deepcopy(files(2))
    jobs = graph.workflows(github)["attest"]["jobs"]["attest"]
    jobs["steps"] += [{"run": "uv run ml models"}, {"uses": "./.github/actions/setup"}]
    graph.workflows(github)["train"]["jobs"]["train"]["permissions"]["id-token"] = "write"
    findings = "\n".join(signers(github))
    assert "attest.attest runs uv run ml models" in findings
    assert "attest.attest uses ./.github/actions/setup" in findings
    assert "train.train runs uv run --no-sync ml run" in findings
    gitlab[".gitlab/deliver.yml"]["build"]["id_tokens"] = {"SIGSTORE_ID_TOKEN": {"aud": "sigstore"}}
    gitlab[".gitlab/train.yml"]["attest"]["script"] = "uv run ml models"
    gitlab[".gitlab/train.yml"][".sign"].pop("cache")
    findings = "\n".join(tokens(gitlab))
    assert "build runs image=$(uv run ml image" in findings
    assert "attest runs uv run ml models" in findings
    assert "attest-image reads a cache" in findings


@pytest.mark.parametrize("level", LEVELS)
def test_a_job_that_may_write_is_one_of_these_and_runs_no_more_than_this(
    files: Read, level: int
) -> None:
    github, _ = files(level)
    for name, job, steps in github_jobs(github):
        may = may_write(job)
        if not may:
            continue
        allowed, commands = WRITERS[name]
        assert may <= allowed, name
        run = [
            re.sub(r"^.*\buv run --no-sync ", "", line).removesuffix(")")
            for line in lines(steps)
            if re.search(r"\buv run\b", line)
        ]
        setup = {"dvc pull"}  # of the action, where a job asks for data: none of these does
        assert [line for line in run if line not in setup] == commands, name


@pytest.mark.parametrize("level", LEVELS)
def test_beside_gitlabs_token_ml_does_no_more_than_this(files: Read, level: int) -> None:
    _, gitlab = files(level)
    jobs = graph.jobs_of(gitlab)
    commands = set[str]()
    for job in jobs.values():
        for key in ("before_script", "script", "after_script"):
            for line in graph.flat(job.get(key, []), jobs):
                commands |= set(re.findall(r"\buv run ml (\w+)", line))
    for script in (ROOT / "ci/gitlab/.gitlab").iterdir():
        if not script.suffix:  # what jobs call
            commands |= set(re.findall(r"\buv run ml (\w+)", script.read_text("utf-8")))
    assert commands <= RUN_THE_PROJECT | RUN_NO_MODEL
    if level == 2:
        assert commands == RUN_THE_PROJECT | RUN_NO_MODEL


def test_a_package_is_loaded_by_no_command_that_runs_beside_a_token() -> None:
    runtime = ROOT / "runtime/src/rung_runtime"
    loaders = set[tuple[str, str]]()
    for path in runtime.rglob("*.py"):
        text = path.read_text("utf-8")
        if "load_package(" not in text:
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef):
                continue
            called = [ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)]
            if any(name.rpartition(".")[2] == "load_package" for name in called):
                loaders.add((path.relative_to(runtime).as_posix(), function.name))
    assert loaders == LOADERS
    assert not RUN_NO_MODEL & {name for _, name in LOADERS}


def test_what_a_caller_may_is_no_more_than_what_it_calls(files: Read) -> None:
    github, _ = files(2)
    flows = graph.workflows(github)
    for name, flow in flows.items():
        for job, about in flow["jobs"].items():
            if "uses" not in about:
                continue
            called = flows[Path(about["uses"]).stem]["jobs"].values()
            needed = {(w, h) for job_called in called for w, h in job_called["permissions"].items()}
            more = set(about["permissions"].items()) - needed
            assert not more, f"{name}.{job}: {more}"


@pytest.mark.parametrize("level", LEVELS)
def test_a_token_stands_in_the_environment_of_the_step_that_needs_it_alone(
    files: Read, level: int
) -> None:
    for name, job, _ in github_jobs(files(level)[0]):
        assert "token" not in str(job.get("env", {})).lower(), name
    for name, flow in graph.workflows(files(level)[0]).items():
        assert "token" not in str(flow.get("env", {})).lower(), name


def test_the_comment_is_posted_by_code_of_the_base_and_by_nothing_that_a_request_could_fill(
    files: Read,
) -> None:
    github, gitlab = files(2)
    comment = graph.workflows(github)["pipeline"]["jobs"]["comment"]
    first, second, *rest = comment["steps"]
    assert "actions/checkout@" in first["uses"]
    # Of a merge, which is what a request's event names, the first parent is the base.
    assert first["with"] == {"persist-credentials": False, "fetch-depth": "2"}
    assert second["run"] == "git checkout --quiet --force --detach HEAD^1"
    assert "if" not in second
    assert not [s for s in rest if "actions/checkout@" in s.get("uses", "")]
    assert "cache" not in str(rest)  # of the request's own runs
    others = graph.workflows(github)["pipeline"]["jobs"]
    assert {n for n, job in others.items() if may_write(job)} == {"comment"}
    script = graph.own(graph.jobs_of(gitlab)["comment"]["script"])
    assert script[0].startswith("git fetch --quiet --depth 1 origin ")
    assert script[1].startswith("git checkout --quiet --force --detach FETCH_HEAD; ")
    assert graph.jobs_of(gitlab)["comment"]["cache"] == []
    assert [n for n, job in graph.jobs_of(gitlab).items() if "ml comment" in str(job)] == [
        "comment"
    ]


def test_the_update_is_pushed_by_a_job_in_which_no_hook_and_no_code_ran(files: Read) -> None:
    github, gitlab = files(2)
    jobs = graph.workflows(github)["update"]["jobs"]
    for name, job in jobs.items():
        steps = list(graph.steps(job, github))
        token = any("create-github-app-token" in s.get("uses", "") for s in steps)
        assert token is (name == "propose")
        if token:
            assert not [line for line in lines(steps) if RUNS.search(line)]
            assert not [line for line in lines(steps) if re.search(r"git (commit|merge)", line)]
            assert not [s for s in steps if s.get("uses", "")[:2] == "./"]
    jobs = graph.jobs_of(gitlab)
    assert "GITLAB_TOKEN" not in str(jobs["update"])
    script = [*graph.own(jobs["propose"]["before_script"]), *graph.own(jobs["propose"]["script"])]
    assert not [line for line in script if RUNS.search(line) or "git commit" in line]


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_what_a_job_before_left_in_the_repository_gets_no_token(
    files: Read, provider: str, tmp_path: Path
) -> None:
    """A runner that keeps its folder keeps the hooks and settings that are in `.git`."""
    github, gitlab = files(1)
    if provider == "github":
        jobs = graph.workflows(github)["update"]["jobs"]
        lines = "\n".join(step.get("run", "") for step in jobs["propose"]["steps"])
    else:
        job = graph.jobs_of(gitlab)["propose"]
        lines = "\n".join([*graph.own(job["before_script"]), *graph.own(job["script"])])
    server, theirs, here, again = (tmp_path / name for name in ("s.git", "t.git", "here", "again"))
    settings = tmp_path / "settings"
    env = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(settings),
        "GH_TOKEN": "secret-of-the-app",
        "GITLAB_TOKEN": "secret-of-the-project",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REPOSITORY": "a/b",
        "CI_SERVER_PROTOCOL": "https",
        "CI_SERVER_FQDN": "git.example",
        "CI_PROJECT_PATH": "a/b",
        "CI_DEFAULT_BRANCH": "main",
    }

    def run(*command: str, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    settings.write_text("[user]\nname = x\nemail = x@example.invalid\n")
    (tmp_path / "gh").write_text("#!/bin/sh\necho 1\n")
    (tmp_path / "gh").chmod(0o755)
    for bare in (server, theirs):
        run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        run("git", "-C", str(bare), "config", "receive.advertisePushOptions", "true")
    run("git", "clone", "--quiet", str(server), str(again))
    for n in range(3):
        run("git", "commit", "--quiet", "--allow-empty", "--message", f"{n}", cwd=again)
    run("git", "push", "--quiet", "origin", "HEAD:main", cwd=again)
    run("git", "clone", "--quiet", "--depth", "1", server.as_uri(), str(here))
    run("git", "commit", "--quiet", "--allow-empty", "--message", "the update", cwd=again)
    for bundle in (here / "artifacts/update.bundle", here / "update.bundle"):
        bundle.parent.mkdir(exist_ok=True)
        run("git", "bundle", "create", "--quiet", str(bundle), "HEAD~..HEAD", cwd=again)
    # What is left there, and before it what the server is called.
    with settings.open("a") as file:
        for user in ("x-access-token:secret-of-the-app", "oauth2:secret-of-the-project"):
            for path in ("a/b", "a/b.git"):
                file.write(f'[url "{server}"]\ninsteadOf = https://{user}@git.example/{path}\n')
    seen = tmp_path / "seen"
    for name in ("pre-push", "post-checkout", "reference-transaction"):
        hook = here / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} $* >> {seen}\n")
        hook.chmod(0o755)
    run("git", "config", "core.fsmonitor", f"echo fsmonitor >> {seen}; false", cwd=here)
    run("git", "config", "credential.helper", f"!cat >> {seen}", cwd=here)
    for user in ("x-access-token", "oauth2"):
        run("git", "config", "--add", f"url.{theirs}.insteadOf", f"https://{user}:", cwd=here)
    run("bash", "-eo", "pipefail", "-c", lines, cwd=here)
    pushed = run("git", "-C", str(server), "rev-parse", "template-update")
    assert pushed == run("git", "rev-parse", "HEAD", cwd=again)
    assert run("git", "-C", str(theirs), "for-each-ref") == ""
    assert not seen.exists(), seen.read_text()


@pytest.mark.parametrize("level", LEVELS)
def test_the_champion_is_not_handed_on_with_the_documents(files: Read, level: int) -> None:
    """Whoever may read a repository may read its artifacts."""
    github, gitlab = files(level)
    for name, _, steps in github_jobs(github):
        for step in steps:
            if "upload-artifact@" not in step.get("uses", ""):
                continue
            paths = step["with"]["path"].splitlines()
            runs = name in ("train.train", "pipeline.candidate")
            assert ("!artifacts/champion/**" in paths) is runs, name
    for name, job in graph.jobs_of(gitlab).items():
        about = job.get("artifacts", {})
        if "artifacts/" in about.get("paths", []):
            assert "artifacts/champion/**/*" in about["exclude"], name


def test_gitlabs_runner_is_told_to_write_no_token_into_the_checkout(files: Read) -> None:
    """For every job: by default its token is in `.git/config`, for whatever reads the folder."""
    _, gitlab = files(2)
    *_, document = gitlab[".gitlab-ci.yml"]
    flag = "FF_GIT_URLS_WITHOUT_TOKENS"
    assert document["variables"][flag] == "true"
    for name, job in graph.jobs_of(gitlab).items():
        assert flag not in (job.get("variables") or {}) or job["variables"][flag] == "true", name
