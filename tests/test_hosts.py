"""The harness keeps its promises, on a toy: what a job leaves out is out, what fails fails."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from hosts import STANDINS, Host, Run
from hosts.api import ACCESS, TOKEN, TRIGGER
from hosts.fixtures import hosted, loopback
from hosts.github import adapted, chosen

__all__ = ["hosted", "loopback"]
pytestmark = pytest.mark.slow  # no project is installed, but act and gitlab-ci-local run
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
UPLOAD = "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a"
DOWNLOAD = "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c"
ATTEST = "actions/attest@1e69f48acb82d1966a394da916b4c1698aa569d6"
COMMENT = """\
import json, os, urllib.request
if "GITLAB_CI" in os.environ:
    url = "{CI_API_V4_URL}/projects/{CI_PROJECT_ID}/merge_requests/{CI_MERGE_REQUEST_IID}/notes"
    headers = {"PRIVATE-TOKEN": os.environ["ML_TOKEN"]}
else:
    number = json.load(open(os.environ["GITHUB_EVENT_PATH"]))["number"]
    url = "{GITHUB_API_URL}/repos/{GITHUB_REPOSITORY}/issues/%d/comments" % number
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
body = json.dumps({"body": open("report.md").read()}).encode()
headers["Content-Type"] = "application/json"
request = urllib.request.Request(url.format_map(os.environ), body, headers)
print(urllib.request.urlopen(request).status)
"""
TRAIN = f"""\
name: train
on:
  push: {{branches: [main], paths: ["data/**", "*.sh"]}}
  repository_dispatch: {{types: [new-data]}}
  workflow_dispatch: {{inputs: {{where: {{type: choice, options: [here, there], default: here}}}}}}
  schedule: [{{cron: "0 3 * * 1"}}]
permissions: {{}}
concurrency: {{group: train, queue: max}}
jobs:
  train:
    runs-on: ${{{{ vars.ML_RUNNER || 'ubuntu-latest' }}}}
    permissions: {{contents: read, id-token: write, attestations: write}}
    outputs: {{version: "${{{{ steps.train.outputs.version }}}}"}}
    steps:
      - uses: {CHECKOUT}
        with: {{persist-credentials: false}}
      - id: train
        env:
          ALARM: ${{{{ github.event.client_payload.alarm || inputs.where }}}}
        run: sh train.sh && echo version=7 >> "$GITHUB_OUTPUT"
      - uses: {ATTEST}
        with: {{subject-path: kept/model}}
      - uses: {UPLOAD}
        with: {{name: model, path: kept, if-no-files-found: error}}
  deliver:
    needs: train
    uses: ./.github/workflows/deliver.yml
    permissions: {{contents: read, attestations: read}}
    with: {{version: "${{{{ needs.train.outputs.version }}}}"}}
"""
DELIVER = f"""\
name: deliver
on: {{workflow_call: {{inputs: {{version: {{type: string, required: true}}}}}}}}
permissions: {{}}
jobs:
  verify:
    runs-on: ubuntu-latest
    permissions: {{contents: read, attestations: read}}
    steps:
      - uses: {CHECKOUT}
      - uses: {DOWNLOAD}
        with: {{name: model, path: got}}
      - run: sh look.sh
      - env: {{GH_TOKEN: "${{{{ github.token }}}}"}}
        run: >-
          sh tamper.sh got/model; gh attestation verify got/model --repo "$GITHUB_REPOSITORY"
          --source-ref refs/heads/main
          --signer-workflow "$GITHUB_REPOSITORY/.github/workflows/train.yml"
  production:
    needs: verify
    runs-on: ubuntu-latest
    environment: production
    steps:
      - env: {{VERSION: "${{{{ inputs.version }}}}"}}
        run: ls -A; echo "## Version $VERSION" >> "$GITHUB_STEP_SUMMARY"
"""
CHECKS = f"""\
name: checks
on: pull_request
permissions: {{}}
jobs:
  report:
    runs-on: ubuntu-latest
    permissions: {{contents: read, pull-requests: write}}
    steps:
      - uses: {CHECKOUT}
      - env: {{TOKEN: "${{{{ github.token }}}}"}}
        run: python3 comment.py
"""
GITLAB = """\
spec:
  inputs:
    pipeline: {options: [checks, train], default: checks}
    where: {regex: ^h, default: here}
---
workflow:
  rules:
    - if: $CI_PIPELINE_SOURCE != "none"
stages: [train, verify, production]
variables: {PIPELINE: "$[[ inputs.pipeline ]]", ALARM: "$[[ inputs.where ]]"}
.train:
  rules:
    - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
      changes: &changes [data/**/*, "*.sh"]
    - if: $CI_PIPELINE_SOURCE == "trigger" || $PIPELINE == "train"
train:
  stage: train
  extends: .train
  id_tokens: {SIGSTORE_ID_TOKEN: {aud: sigstore}}
  script:
    - sh train.sh
    - uvx sigstore@4.5.1 sign kept/model
  artifacts: {paths: [kept]}
verify:
  stage: verify
  extends: .train
  needs: [train]
  script:
    - sh look.sh
    - sh tamper.sh kept/model
    - uvx sigstore@4.5.1 verify identity kept/model
      --cert-identity "$CI_SERVER_URL/$CI_PROJECT_PATH//.gitlab-ci.yml@refs/heads/main"
      --cert-oidc-issuer "$CI_SERVER_URL"
production:
  stage: production
  needs: [verify]
  rules:
    - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
      changes: *changes
      when: manual
      allow_failure: false
    - if: $CI_PIPELINE_SOURCE == "trigger" || $PIPELINE == "train"
      when: manual
      allow_failure: false
  environment: {name: production}
  script:
    - |
      echo "## Version 7"
report:
  stage: train
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
  script: [python3 comment.py]
"""
FILES = {
    ".github/workflows/train.yml": TRAIN,
    ".github/workflows/deliver.yml": DELIVER,
    ".github/workflows/checks.yml": CHECKS,
    ".gitlab-ci.yml": GITLAB,
    ".gitignore": "ignored\n",
    "comment.py": COMMENT,
    "data/x.csv": "x\n",
    "look.sh": "find . -path ./.git -prune -o -type f -print; env\n",
    "README.md": "A toy.\n",
    "report.md": "# Report\n",
    "tamper.sh": "true\n",
    "train.sh": "mkdir kept; echo trained $ALARM; date +%N >kept/model; touch left ignored\n",
}
JOBS = ["train", "verify", "production"]
both = pytest.mark.parametrize("platform", ["github", "gitlab"])

Toy = Callable[..., Host]


@pytest.fixture
def toy(tmp_path: Path, hosted: Callable[..., Host]) -> Toy:
    """Bring the toy to a platform, with other texts of some of its files."""

    def toy(platform: str, files: dict[str, str] | None = None, **options: Any) -> Host:
        folder = tmp_path / "toy"
        for name, text in {**FILES, **(files or {})}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        options.setdefault("variables", {"ML_TOKEN": ACCESS})
        return hosted(platform, folder, **options)

    return toy


def change(host: Host, name: str, text: str) -> None:
    path = host.project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    host.commit(f"Change {name}")


def results(run: Run) -> list[str]:
    return [run.jobs[name] for name in JOBS]


@both
def test_a_push_runs_every_job_in_a_checkout_of_its_own(toy: Toy, platform: str) -> None:
    run = toy(platform).push()
    assert results(run) == ["success"] * 3, run.log
    assert run.ok
    assert run.jobs.get("deliver", "success") == "success"
    assert "## Version 7" in run.summary.splitlines()
    log = run.logs["verify"]
    assert "./look.sh" in log, "the checkout"
    assert "/model" in log, "the artifact"
    assert "./left" not in log, "what train left in its own workspace"
    assert "./ignored" not in log
    if platform == "github":
        assert run.logs.get("production", "") == "", "nothing where nothing was checked out"


@both
def test_jobs_find_nothing_of_the_environment_that_tests_run_in(
    toy: Toy, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_REGISTRY", "somewhere")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    host = toy(platform)
    log = host.push().logs["verify"]
    assert f"HOME={host.home}\n" in log
    assert f"{sys.prefix}/bin" not in log
    assert "ML_REGISTRY" not in log
    assert "VIRTUAL_ENV" not in log


@both
def test_what_needs_a_job_that_failed_is_skipped(toy: Toy, platform: str) -> None:
    run = toy(platform, {"train.sh": "echo no; exit 3\n"}).push()
    assert results(run) == ["failure", "skipped", "skipped"]
    assert run.jobs.get("deliver", "skipped") == "skipped"
    assert not run.ok


@both
def test_a_push_starts_what_its_paths_and_its_branch_ask_for(toy: Toy, platform: str) -> None:
    host = toy(platform)
    assert host.push().ok, "the first push brings everything"
    change(host, "README.md", "Still a toy.\n")
    assert host.push().jobs == {}
    change(host, "data/more/y.csv", "y\n")
    assert results(host.push()) == ["success"] * 3
    change(host, "more.csv", "y\n")
    assert host.push().jobs == {}, "the change before was pushed before"


@both
def test_an_event_from_outside_brings_its_payload(toy: Toy, platform: str) -> None:
    run = toy(platform).dispatch("new-data", alarm="drift")
    assert results(run) == ["success"] * 3
    assert "trained drift\n" in run.logs["train"]


@both
def test_time_and_hand_start_what_is_on_main(toy: Toy, platform: str) -> None:
    host = toy(platform)
    assert host.schedule("train").ok
    change(host, "train.sh", "exit 1\n")
    assert host.by_hand("train").ok, "not pushed yet"
    host.push()
    assert not host.by_hand("train").ok


@both
def test_a_pipeline_is_started_only_by_what_it_waits_for(toy: Toy, platform: str) -> None:
    host = toy(platform)
    for start in (host.by_hand, host.schedule):
        with pytest.raises(LookupError, match=r"waits for|has no choice"):
            start("deliver")
    with pytest.raises(LookupError, match="has no input when"):
        host.by_hand("train", when="now")
    with pytest.raises(LookupError, match="has no choice 'nowhere'"):
        host.by_hand("train", where="nowhere")
    assert "trained here\n" in host.by_hand("train").logs["train"]


def test_an_event_that_no_workflow_waits_for_starts_nothing(toy: Toy) -> None:
    assert toy("github").dispatch("elsewhere").jobs == {}


@both
def test_a_proposal_gets_a_comment_and_one_from_a_fork_may_not(toy: Toy, platform: str) -> None:
    host = toy(platform)
    run = host.propose("feature")
    assert run.jobs == {"report": "success"}, run.log
    assert host.comments == ["# Report\n"]
    change(host, "report.md", "# Other\n")
    assert host.propose("other", fork=True).jobs == {"report": "failure"}
    assert host.comments == ["# Report\n"]
    assert host.propose("other").jobs == {"report": "success"}
    assert host.comments == ["# Report\n", "# Other\n"]
    assert host.api.unknown == []


@both
def test_what_nobody_attested_is_refused(toy: Toy, platform: str) -> None:
    run = toy(platform, {"tamper.sh": 'echo more >>"$1"\n'}).push()
    assert results(run) == ["success", "failure", "skipped"]
    reasons = {"github": "no attestation has digest sha256:", "gitlab": "digest is sha256:"}
    assert reasons[platform] in run.log


def test_github_attests_only_where_the_job_may(toy: Toy) -> None:
    less = TRAIN.replace("id-token: write, ", "")
    run = toy("github", {".github/workflows/train.yml": less}).push()
    assert run.jobs["train"] == "failure"
    assert "missing id-token permission" in run.log


def test_gitlab_signs_only_with_an_identity(toy: Toy) -> None:
    less = GITLAB.replace("  id_tokens: {SIGSTORE_ID_TOKEN: {aud: sigstore}}\n", "")
    run = toy("gitlab", {".gitlab-ci.yml": less}).push()
    assert run.jobs["train"] == "failure"
    assert "no identity" in run.log


@both
def test_what_nobody_approves_waits(toy: Toy, platform: str) -> None:
    run = toy(platform, approve=False).push()
    assert results(run) == ["success", "success", "skipped"], run.log
    assert "## Version 7" not in run.summary.splitlines()


@both
def test_a_job_that_is_left_out_does_not_run_and_what_needs_it_is_skipped(
    toy: Toy, platform: str
) -> None:
    host = toy(platform)
    with host.without({"verify"}):
        run = host.push()
    assert "verify" not in run.jobs
    assert (run.jobs["train"], run.jobs["production"]) == ("success", "skipped")
    change(host, "data/x.csv", "x\n1\n")
    with host.without(run.jobs.keys() | {"verify"}):
        assert host.push().jobs == {}
    change(host, "data/x.csv", "x\n2\n")
    assert results(host.push()) == ["success"] * 3


@both
def test_what_a_job_leaves_running_ends_with_it(toy: Toy, platform: str) -> None:
    """On GitHub it may ask to live on, as on a team's own machine; then it ends with the host."""
    quiet = ">/dev/null 2>&1 &\n"
    script = f"setsid sleep 901 {quiet}RUNNER_TRACKING_ID=0 setsid sleep 902 {quiet}sleep 0.2\n"
    host = toy(platform, {"train.sh": FILES["train.sh"] + script})

    def left(wanted: list[str]) -> list[str]:
        """What is left of both, when what is killed has had its time to end."""
        for _ in range(50):
            processes = [
                p.info for p in psutil.process_iter(["environ", "cmdline"]) if p.info["environ"]
            ]
            here = [
                process
                for process in processes
                if process["environ"].get("STANDIN_HOST") == str(host.folder)
            ]
            commands = [process["cmdline"][-1] for process in here if "sleep" in process["cmdline"]]
            if commands == wanted:
                break
            time.sleep(0.1)
        return commands

    run = host.push()
    assert run.ok, run.log
    wanted = {"github": ["902"], "gitlab": []}[platform]
    assert left(wanted) == wanted
    host.close()
    assert left([]) == []


def test_only_the_key_that_act_does_not_know_is_taken_out() -> None:
    assert "queue: max" in TRAIN
    for before, after in {
        "concurrency: {group: a, queue: max}\n": "concurrency: {group: a}\n",
        "concurrency: {queue: max, group: a}\n": "concurrency: {group: a}\n",
        "concurrency:\n  group: a # b\n  queue: max\n": "concurrency:\n  group: a # b\n",
        "concurrency:\n  queue: max\n  group: a\n": "concurrency:\n  group: a\n",
        "concurrency: queue\n": "concurrency: queue\n",
    }.items():
        rest = "on: push\njobs:\n  a:\n    %ssteps: [{run: 'queue: max'}]\n"
        for form in ("%s" + rest % "", rest.replace("%s", "%s    ")):
            workflow = form % before.replace("\n  ", "\n      " if form[0] == "o" else "\n  ")
            wanted = form % after.replace("\n  ", "\n      " if form[0] == "o" else "\n  ")
            assert adapted(workflow, lambda name, job: False) == wanted


@pytest.mark.parametrize("job", ["{runs-on: a, steps: []}", "\n    if: >-\n      x\n    steps: []"])
def test_a_job_that_waits_never_starts(job: str) -> None:
    text = f"on: push\njobs:\n  a: {job}\n  b: {{steps: []}}\n"
    jobs = yaml.safe_load(adapted(text, lambda name, job: name == "a"))["jobs"]
    assert jobs["a"]["if"] is False
    assert jobs["a"]["steps"] == []
    assert "if" not in jobs["b"]


@pytest.mark.parametrize(
    ("on", "branch", "changed", "starts"),
    [
        ({}, "x", ["a"], True),
        ({"branches": ["main"]}, "main", ["a"], True),
        ({"branches": ["main"]}, "maintenance", ["a"], False),
        ({"branches": ["releases/**"]}, "releases/1/2", ["a"], True),
        ({"branches": ["releases/*"]}, "releases/1/2", ["a"], False),
        ({"branches-ignore": ["main"]}, "main", ["a"], False),
        ({"tags": ["v*"]}, "main", ["a"], False),
        ({"paths": ["data/**"]}, "main", ["data/raw/x.csv"], True),
        ({"paths": ["data/**"]}, "main", ["src/data/x.csv"], False),
        ({"paths": ["**/x.csv"]}, "main", ["x.csv"], True),
        ({"paths": ["*.py"]}, "main", ["src/a.py"], False),
        ({"paths": ["src/**", "!src/**.md"]}, "main", ["src/README.md"], False),
        ({"paths": ["src/**", "!src/**.md"]}, "main", ["src/README.md", "src/a.py"], True),
        ({"paths": ["uv.lock"]}, "main", ["uvxlock"], False),
        ({"paths-ignore": ["docs/**"]}, "main", ["docs/a"], False),
        ({"paths-ignore": ["docs/**"]}, "main", ["docs/a", "b"], True),
    ],
)
def test_filters_are_those_of_github(
    on: dict[str, list[str]], branch: str, changed: list[str], starts: bool
) -> None:
    assert chosen(on, branch, changed) is starts


@pytest.mark.parametrize(
    ("paths", "more", "kept"),
    [
        ("out", {}, ["a/b.txt", "c.txt"]),
        ("out/c.txt", {}, ["c.txt"]),
        ("out/**/*.txt", {}, ["a/b.txt", "c.txt"]),
        ("out/c.txt\nother/d.txt", {}, ["other/d.txt", "out/c.txt"]),
        ("out\n!out/c.txt", {}, ["a/b.txt"]),
        ("out", {"HIDDEN_FILES": "true"}, [".hidden", "a/b.txt", "c.txt"]),
        ("nothing", {}, []),
        ("nothing", {"NONE": "error"}, None),
    ],
)
def test_artifacts_keep_what_github_would(
    tmp_path: Path, paths: str, more: dict[str, str], kept: list[str] | None
) -> None:
    for name in ("out/a/b.txt", "out/c.txt", "out/.hidden", "other/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "artifacts").mkdir()
    env = {"STANDIN_RUN": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "output"), "NAME": "n"}
    env |= {"PATHS": paths, "NONE": "warn", "OVERWRITE": "false", "HIDDEN_FILES": "false"} | more
    env |= {"TO": "back", "PATTERN": "", "MERGE": "false"}

    def does(what: str) -> int:
        command = [sys.executable, str(STANDINS / "artifacts.py"), what]
        return subprocess.run(command, cwd=tmp_path, env=env, check=False).returncode

    assert does("upload") == (kept is None)
    assert does("download") == (not kept), "what is not there cannot be brought"
    back = tmp_path / "back"
    assert sorted(p.relative_to(back).as_posix() for p in back.rglob("*") if p.is_file()) == (
        kept or []
    )
    if kept:
        assert does("upload") == 1, "a name is taken once"


def test_uv_audit_asks_the_stand_in(tmp_path: Path, toy: Toy) -> None:
    host = toy("github")
    lock = """version = 1
requires-python = ">=3.11"

[[package]]
name = "a"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "six" }]

[package.metadata]
requires-dist = [{ name = "six" }]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://example.invalid/simple" }
"""
    (tmp_path / "uv.lock").write_text(lock)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["six"]\n'
    )

    def audit() -> subprocess.CompletedProcess[str]:
        command = ["uv", "audit", "--frozen", "--preview-features", "audit"]
        env = host.environment()
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    clean = audit()
    assert clean.returncode == 0, clean.stderr
    host.api.vulnerable["six"] = "PYSEC-2026-1"
    report = audit()
    assert report.returncode == 1, report.stderr
    assert "PYSEC-2026-1" in report.stdout + report.stderr


def ask(host: Host, method: str, path: str, body: dict[str, Any], **headers: str) -> int:
    data = json.dumps(body).encode()
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(host.api.url + path, data, headers, method=method)
    try:
        return int(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_apis_answer_only_who_may_ask(toy: Toy) -> None:
    host = toy("github")
    event = {"event_type": "train", "client_payload": {"alarm": "drift"}}
    dispatches = "/repos/team/project/dispatches"
    assert ask(host, "POST", dispatches, event) == 401
    assert ask(host, "POST", dispatches, event, Authorization=f"Bearer {TOKEN}") == 204
    assert host.dispatched == [{"kind": "train", "payload": {"alarm": "drift"}}]
    host.api.may_write = False
    assert ask(host, "POST", dispatches, event, Authorization=f"Bearer {TOKEN}") == 403
    notes = "/api/v4/projects/1/merge_requests/1/notes"
    job = {"JOB-TOKEN": TOKEN}
    project = {"PRIVATE-TOKEN": ACCESS}
    assert ask(host, "POST", notes, {"body": "x"}, **job) == 401, "GitLab's jobs may not"
    assert ask(host, "POST", notes, {"body": "x"}, **project) == 201
    assert ask(host, "PUT", f"{notes}/1", {"body": "y"}, **project) == 200
    assert (host.comments, host.api.notes[0].edits) == (["y"], 1)
    trigger = "/api/v4/projects/1/trigger/pipeline"
    body: dict[str, Any] = {"ref": "main", "variables": {"EVENT": "new-data"}}
    assert ask(host, "POST", trigger, body | {"token": "no"}) == 404
    assert ask(host, "POST", trigger, body | {"token": TRIGGER}) == 201
    assert host.dispatched[1]["kind"] == "new-data"
    packages = "/api/v4/projects/1/packages/generic/model/1/a.json"
    assert ask(host, "PUT", packages, {"a": 1}, **job) == 201
    assert host.api.packages["model/1/a.json"] == b'{"a": 1}'
    assert ask(host, "POST", "/elsewhere", {}) == 404
    assert host.api.unknown == ["POST /elsewhere"]


@both
def test_a_registry_of_the_platform_is_a_real_one(toy: Toy, platform: str, loopback: str) -> None:
    look = f"curl --silent --fail http://{loopback}/v2/ && echo there"
    host = toy(platform, {"look.sh": look}, registry=loopback)
    assert host.variables["ML_REGISTRY"].startswith(f"oci+http://{loopback}/")
    assert "there" in host.push().logs["verify"]


def test_a_project_without_its_lock_is_refused(toy: Toy) -> None:
    with pytest.raises(LookupError, match=r"has no uv\.lock"):
        toy("github", {"pyproject.toml": "[project]\n"})
