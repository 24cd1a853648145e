from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ci_exports
import graph
import jenkinsfile
import pytest
import yaml
from conftest import ROOT, Render
from graph import MOST_LINES, Files, Row, Table
from rung import exports

PROVIDERS = ["github", "gitlab"]
LEVELS = [0, 1, 2]
PINS = yaml.safe_load((ROOT / "tests/data/action-pins.yml").read_text("utf-8"))
# Text that anybody can choose who opens a request, pushes a branch or has an account.
UNTRUSTED = re.compile(
    r"CI_(MERGE_REQUEST_(TITLE|DESCRIPTION|LABELS|MILESTONE|SOURCE_BRANCH\w*|REF_PATH)"
    r"|COMMIT_(MESSAGE|TITLE|DESCRIPTION|AUTHOR|BRANCH|REF_NAME|TAG\w*)"
    r"|OPEN_MERGE_REQUESTS|EXTERNAL_PULL_REQUEST\w*)"
    r"|GITLAB_USER_(NAME|EMAIL|LOGIN)|TRIGGER_PAYLOAD"
    r"|GITHUB_(HEAD_REF|REF_NAME|REF|ACTOR)\b|github\.(event|head_ref|ref_name|actor)|\$\[\["
)


@pytest.fixture(scope="module")
def wanted() -> Table:
    return graph.table(graph.README.read_text("utf-8"))


@pytest.fixture(scope="module")
def project(render: Render) -> Callable[[int], Path]:
    return lambda level: render(level=level, ci=["github", "gitlab"])


@pytest.fixture(scope="module")
def files(project: Callable[[int], Path]) -> Callable[[str, int], Files]:
    known: dict[int, tuple[Files, Files]] = {}

    def files(provider: str, level: int) -> Files:
        if level not in known:
            known[level] = graph.read(project(level))
        return known[level][PROVIDERS.index(provider)]

    return files


Read = Callable[[str, int], Files]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_both_providers_have_the_graph_of_the_table_and_no_by_pass(
    files: Read, wanted: Table, provider: str, level: int
) -> None:
    assert graph.findings(provider, files(provider, level), wanted, level) == []


def test_nothing_deploys_that_no_gate_stands_before(wanted: Table) -> None:
    for level in LEVELS:
        for pipeline, _, jobs in wanted.graph(level):
            gates = {job for job, row in jobs.items() if row.gate == "runs it"}
            for row in jobs.values():
                if row.deploys:
                    # What the gate of this pipeline passed, or what is asked where it comes from.
                    assert row.gate in (gates or {"verify"}), pipeline
                assert row.deploys or row.gate in ("", "runs it")


def test_a_job_that_only_another_job_forgives_is_not_dominated() -> None:
    gate = graph.Task(certain=["uv run ml run"])
    forgiven = graph.Task(certain=["uv run ml run"], fails=False)
    deploy = graph.Task({"middle"}, ['uv run ml deploy "$VERSION" --target production'])
    for first, middle, expected in [
        (gate, graph.Task({"gate"}), "gate"),
        (gate, graph.Task({"gate"}, waits=False), "registry"),
        (gate, graph.Task({"gate"}, fails=False), "registry"),
        (forgiven, graph.Task({"gate"}), "registry"),
    ]:
        assert graph.guard("deploy", {"gate": first, "middle": middle, "deploy": deploy}) == (
            expected
        )


# What must be found


def github(pipeline: str, job: str, change: Callable[[Any], object]) -> Callable[[Files], object]:
    """Change a job of a workflow."""
    return lambda files: change(files[f".github/workflows/{pipeline}.yml"]["jobs"][job])


def gitlab(file: str, job: str, change: Callable[[Any], object]) -> Callable[[Files], object]:
    """Change a job of GitLab's."""
    return lambda files: change(files[f".gitlab/{file}.yml"][job])


def rename(jobs: Callable[[Files], dict[str, Any]], old: str, new: str) -> Callable[[Files], None]:
    """Give a job another name."""

    def change(files: Files) -> None:
        jobs(files)[new] = jobs(files).pop(old)

    return change


def step(job: dict[str, Any], says: str) -> Any:
    """Give the step of a job that runs something."""
    return next(candidate for candidate in job["steps"] if says in candidate.get("run", ""))


def script(old: str, new: str) -> Callable[[Any], None]:
    """Replace a part of a job's script."""

    def change(job: dict[str, Any]) -> None:
        if "steps" in job:
            running = step(job, old)
            running["run"] = running["run"].replace(old, new)
            return
        for key in ("before_script", "script"):
            lines = graph.listed(job.get(key, []))
            job[key] = [x.replace(old, new) if isinstance(x, str) else x for x in lines]
        assert new in str(job)

    return change


def flow(files: Files, name: str) -> Any:
    return files[f".github/workflows/{name}.yml"]


def main(files: Files) -> Any:
    return files[".gitlab-ci.yml"][1]


DEPLOY = 'uv run ml deploy "$VERSION" --target production'
LOOSE: dict[str, Any] = {"steps": [{"run": DEPLOY}]}
LOOSE_TOO: dict[str, Any] = {"extends": ".train", "stage": "production", "needs": []}
REMOTE = "other/repository/.github/workflows/deliver.yml@main"
MERGE_REQUEST = {"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}
ALWAYS = [{"if": '$PIPELINE == "train"', "when": "always"}]

MUTATIONS: dict[str, tuple[Callable[[Files], object], str]] = {
    "github: the gate may fail": (
        github("train", "train", lambda job: job.update({"continue-on-error": True})),
        "continue-on-error",
    ),
    "github: a step of the gate may fail": (
        github("train", "train", lambda job: job["steps"][3].update({"continue-on-error": True})),
        "continue-on-error",
    ),
    "gitlab: the gate may fail": (
        gitlab("train", "train", lambda job: job.update(allow_failure=True)),
        "production has gate 'verify'",
    ),
    "gitlab: the gate may fail in one way": (
        gitlab("train", "train", lambda job: job.update(allow_failure={"exit_codes": 1})),
        "allow_failure",
    ),
    "github: register does not need the gate": (
        github("train", "register", lambda job: job.pop("needs")),
        "train, by hand: production has gate 'verify'",
    ),
    "gitlab: register does not need the gate": (
        gitlab("train", "register", lambda job: job.update(needs=[])),
        "train, by event: register has needs []",
    ),
    "github: production does not need staging": (
        github("deliver", "production", lambda job: job.update(needs=["verify", "image"])),
        "deliver, by hand: production has needs ['image']",
    ),
    "gitlab: staging needs nothing": (
        gitlab("deliver", "staging", lambda job: job.update(needs=[])),
        "deliver, by hand: staging has needs []",
    ),
    "gitlab: what is needed follows from stages": (
        gitlab("pipeline", "rehearsal", lambda job: job.pop("needs")),
        "rehearsal has needs ['candidate', 'controls'",
    ),
    "github: the report misses a job": (
        github("pipeline", "report", lambda job: job.update(needs=["validate", "candidate"])),
        "report has needs ['candidate']",
    ),
    "github: a job has another name": (
        rename(lambda files: flow(files, "rollback")["jobs"], "rollback", "back"),
        "rollback is only in the table",
    ),
    "gitlab: a job has another name": (
        rename(lambda files: files[".gitlab/train.yml"], "train", "fit"),
        "train is only in the table",
    ),
    "github: a workflow is missing": (
        lambda files: files.pop(".github/workflows/rollback.yml"),
        "rollback: nothing is started by hand",
    ),
    "github: requests train": (
        lambda files: flow(files, "train")[True].update(pull_request=None),
        "train, by request: the table has no such trigger",
    ),
    "gitlab: requests train": (
        gitlab("train", ".train", lambda job: job["rules"].append(MERGE_REQUEST)),
        "pipeline, by request: train is only in the files",
    ),
    "github: requests run with the rights of the repository": (
        lambda files: flow(files, "pipeline")[True].update(pull_request_target=None),
        "pull_request_target",
    ),
    "github: other branches train": (
        github("train", "train", lambda job: job.update({"if": "github.ref_name == 'main'"})),
        "nothing is started by change",
    ),
    "github: branches are filtered by names": (
        lambda files: flow(files, "train")[True]["push"].update(branches=["main", "master"]),
        "nothing is started by change",
    ),
    "github: other branches are checked as the default one": (
        github("push", "checks", lambda job: job.pop("if")),
        "checks: nothing is started by push",
    ),
    "gitlab: other branches train": (
        gitlab("train", ".train", lambda job: job.update(rules=[{"if": '$PIPELINE == "train"'}])),
        "train, by hand on a branch: the table has no such trigger",
    ),
    "github: any branch trains": (
        github("train", "train", lambda job: job.pop("if")),
        "train: register runs on any branch, by hand",
    ),
    "github: any branch delivers": (
        github("deliver", "verify", lambda job: job.update({"if": "github.ref_name"})),
        "deliver: production runs on any branch, by hand",
    ),
    "gitlab: other branches deliver": (
        gitlab("deliver", "production", lambda job: job.update(rules=[{"when": "manual"}])),
        "by push",
    ),
    "github: documentation trains": (
        lambda files: flow(files, "train")[True]["push"]["paths"].append("docs/**"),
        "a push to",
    ),
    "gitlab: code does not train": (
        lambda files: main(files)["workflow"]["rules"][3]["changes"].remove("src/**/*"),
        "train, by change: train is only in the table",
    ),
    "github: the drill is daily": (
        lambda files: flow(files, "drill")[True]["schedule"][0].update(cron="11 4 * * *"),
        "drill: nothing is started by monthly",
    ),
    "gitlab: nothing is monitored": (
        lambda files: files[".gitlab/schedules"].pop("monitor"),
        "monitor: nothing is started by daily",
    ),
    "github: scored with what nothing verified": (
        github("score", "score", lambda job: job.pop("needs")),
        "score, by nightly: score has needs []",
    ),
    "gitlab: scored with what nothing verified": (
        gitlab("score", "score", lambda job: job.update(needs=[])),
        "score, by nightly: score has needs []",
    ),
    "gitlab: a rehearsal by hand": (
        lambda files: files[".gitlab-ci.yml"][0]["spec"]["inputs"]["pipeline"]["options"].append(
            "pipeline"
        ),
        "pipeline, by hand: the table has no such trigger",
    ),
    "github: checks deploy": (
        lambda files: flow(files, "checks")["jobs"].update(release=LOOSE),
        "release is only in the files",
    ),
    "gitlab: a job beside the gate deploys": (
        lambda files: files[".gitlab/train.yml"].update(release=LOOSE_TOO | {"script": [DEPLOY]}),
        "release is only in the files",
    ),
    "github: lint deploys": (
        github("checks", "lint", lambda job: job["steps"].append({"run": DEPLOY})),
        "lint has deploys True",
    ),
    "github: an action deploys": (
        lambda files: files[".github/actions/setup/action.yml"]["runs"]["steps"].append(
            {"run": DEPLOY, "shell": "bash"}
        ),
        "train has deploys True",
    ),
    "github: each week the newest version is delivered": (
        github("weekly", "start", lambda job: job.update(uses="./.github/workflows/deliver.yml")),
        "deliver, by weekly: the table has no such trigger",
    ),
    "github: delivered whatever the gate said": (
        github("train", "deliver", lambda job: job.update({"if": "always()"})),
        "verify does not wait, and leads to a deployment",
    ),
    "github: staging whatever verify said": (
        github("deliver", "staging", lambda job: job.update({"if": "${{ !cancelled() }}"})),
        "staging does not wait, and leads to a deployment",
    ),
    "gitlab: registered whatever the gate said": (
        gitlab("train", "register", lambda job: job.update(rules=ALWAYS)),
        "register does not wait, and leads to a deployment",
    ),
    "github: registered after a refusal": (
        github(
            "train",
            "train",
            lambda job: job["steps"].append({"if": "always()", "run": "uv run ml register"}),
        ),
        "always() at uv run ml register",
    ),
    "github: || true": (
        github("train", "train", script("ml run", "ml run || true")),
        "a failure that is made a success",
    ),
    "gitlab: || true": (
        gitlab("train", "train", script("ml run", "ml run || true")),
        "a failure that is made a success",
    ),
    "github: ; true": (
        github("train", "train", script("ml run", "ml run; true")),
        "a success at the end",
    ),
    "gitlab: ; true": (
        gitlab("pipeline", "candidate", script("ml run", "ml run; true")),
        "a success at the end",
    ),
    "github: set +e": (
        github("train", "train", script("uv run --no-sync ml run", "set +e\nuv run ml run")),
        "failures that do not end the script",
    ),
    "gitlab: set +o errexit": (
        gitlab("train", "train", script("uv run ml run", "set +o errexit; uv run ml run")),
        "failures that do not end the script",
    ),
    "github: echo swallows": (
        github(
            "train",
            "register",
            script(
                "version=$(uv run --no-sync ml register --pinned)",
                'echo "v=$(uv run ml register)"',
            ),
        ),
        "an exit code that echo swallows",
    ),
    "gitlab: export swallows": (
        gitlab("train", "register", script("version=$(", "export version=$(")),
        "an exit code that echo swallows",
    ),
    "github: ml as a condition": (
        github("train", "train", script("uv run --no-sync ml run", "if uv run ml run; then :; fi")),
        "ml as a condition",
    ),
    "github: ml before a pipe": (
        github("train", "train", script("ml run", "ml run | tee log")),
        "a pipe",
    ),
    "gitlab: ml before &&": (
        gitlab("train", "train", script("ml run", "ml run && uv run ml report")),
        "ml whose exit code nobody sees",
    ),
    "gitlab: ml in the background": (
        gitlab("train", "train", script("ml run", "ml run &")),
        "ml whose exit code nobody sees",
    ),
    "github: a shell that continues after a failure": (
        github("train", "train", lambda job: job["steps"][3].update(shell="bash {0}")),
        "the shell is bash {0}",
    ),
    "gitlab: an early end": (
        gitlab("train", "train", lambda job: job.update(script=["exit 0", "uv run ml run"])),
        "train: exit 0",
    ),
    "gitlab: deployed afterwards": (
        gitlab("train", "train", lambda job: job.setdefault("after_script", []).append(DEPLOY)),
        "after_script",
    ),
    "gitlab: a gate that nobody waits for": (
        gitlab("train", "train", lambda job: job.update(when="manual", rules=[{"if": "$CI"}])),
        "when: manual outside of rules",
    ),
    "gitlab: asked until it agrees": (
        gitlab("train", "train", lambda job: job.update(retry=2)),
        "retry: 2",
    ),
    "github: a gate with a condition": (
        github("train", "train", lambda job: step(job, "ml run").update({"if": "vars.GATE"})),
        "train, by change: train has gate ''",
    ),
    "gitlab: trained, and not judged": (
        gitlab("train", "train", script("ml run", "ml train")),
        "train, by change: train has gate ''",
    ),
    "github: provenance is not verified": (
        lambda files: files[".github/actions/verify/action.yml"]["runs"]["steps"].pop(2),
        "deliver, by hand: production has gate 'registry'",
    ),
    "gitlab: provenance is not verified": (
        gitlab("train", "verify", script("sh .gitlab/verify", "echo")),
        "deliver, by hand: staging has gate 'registry'",
    ),
    "github: production is not an environment": (
        github("deliver", "production", lambda job: job.pop("environment")),
        "production has environment",
    ),
    "gitlab: staging is production": (
        gitlab("deliver", "staging", lambda job: job.update(environment="production")),
        "staging has environment 'production'",
    ),
    "github: nobody is asked": (
        github("deliver", "production", lambda job: job.pop("if")),
        "production has environment 'production'",
    ),
    "gitlab: nobody is asked": (
        gitlab("deliver", "production", lambda job: job["rules"].pop()),
        "production is only in the table",
    ),
    "gitlab: production at once": (
        gitlab("deliver", "production", lambda job: job["rules"][-1].pop("when")),
        "production has environment 'production'",
    ),
    "gitlab: a newer version is rolled back to": (
        gitlab("rollback", "rollback", script("ml rollback --target production", "ml deploy x")),
        "rollback has gate 'nothing'",
    ),
    "github: what is rolled back to is not verified": (
        github("rollback", "rollback", lambda job: job.pop("needs")),
        "rollback has gate 'nothing'",
    ),
    "gitlab: what the drill deploys is not verified": (
        gitlab("rollback", "drill", lambda job: job.update(needs=[])),
        "drill has gate 'nothing'",
    ),
    "github: a package is attested by whom nobody asks": (
        github("train", "deliver", lambda job: job.update(needs="register")),
        "verify has needs ['register']",
    ),
    "gitlab: an image is not attested": (
        gitlab("deliver", "staging", lambda job: job.update(needs=["build", "verify"])),
        "staging has needs ['image']",
    ),
    "github: a workflow from elsewhere": (
        github("train", "deliver", lambda job: job.update(uses=REMOTE)),
        "is not here to be read",
    ),
    "gitlab: a file from elsewhere": (
        lambda files: main(files)["include"].append({"remote": "https://example.invalid/a.yml"}),
        "not all here to be read",
    ),
    "gitlab: a pipeline from elsewhere": (
        gitlab("train", "register", lambda job: job.update(trigger={"project": "a/b"})),
        "not here to be read",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_change_for_the_worse_is_found(files: Read, wanted: Table, name: str) -> None:
    provider = name.partition(":")[0]
    mutate, expected = MUTATIONS[name]
    changed = copy.deepcopy(files(provider, 2))
    mutate(changed)
    findings = graph.findings(provider, changed, wanted, 2)
    assert any(expected in finding for finding in findings), findings


def test_what_hides_an_exit_code_is_told_from_what_does_not() -> None:
    harmless = [
        "version=$(uv run ml register)",
        'image=$(uv run ml image "$VERSION" --push); echo "ML_IMAGE=$image" > artifacts/image.env',
        "test -z \"$(find data -name '*.dvc')\" || uv run dvc pull",
        'test -n "$TOKEN" || { echo "TOKEN is missing."; exit 1; }',
        'uv run ml rollback --target production ${VERSION:+--to "$VERSION"}',
        'uv run ml report >> "$GITHUB_STEP_SUMMARY"',
        "command -v buildah > /dev/null || { apt-get update -qq; apt-get install buildah; }",
    ]
    assert list(graph.swallowed(harmless)) == []
    for line in [
        "uv run ml run || :",
        "uv run ml run || exit 0",
        "uv run ml run || echo refused",
        "{ uv run ml run; :; }",
        "set +eu; uv run ml run",
        "! uv run ml run",
        "uv run ml run & wait",
        'printf "%s" "$(uv run ml register)"',
        'test "$(uv run ml register)"',
        "echo `uv run ml register`",
        "version=$(uv run ml register) uv run ml deploy",
        "uv sync; export version=$(uv run ml register)",
    ]:
        assert list(graph.swallowed([line])), line


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('$A == "a" && $B', False),
        ('$A == "a" || $B', True),
        ('$A != "a" || $B == null', True),
        ("$A =~ /^(a|b)$/ && $A !~ /b/", True),
        ("($B || $A) && $A", True),
        ('$B =~ /x/ || $B !~ /x/ && $A == "b"', False),
    ],
)
def test_rules_are_worked_out_as_gitlab_does(expression: str, expected: bool) -> None:
    assert graph.holds(expression, {"A": "a"}) is expected


def test_a_rule_that_is_not_understood_is_no_rule_that_holds() -> None:
    with pytest.raises(ValueError, match="not understood"):
        graph.holds("$A > 1", {"A": "2"})


# What else must be so in the files


def texts(project: Path, provider: str) -> dict[str, str]:
    """Give all files of a provider in a project."""
    folder = project / f".{provider}"
    paths = [*folder.rglob("*"), *project.glob(f".{provider}-ci.yml")]
    return {p.relative_to(project).as_posix(): p.read_text("utf-8") for p in paths if p.is_file()}


def scripts(files: Files, provider: str) -> Iterator[tuple[str, list[str]]]:
    """Give each script of the jobs, as lines of shell."""
    for path, content in files.items():
        if provider == "github":
            for job in [*content.get("jobs", {}).values(), content.get("runs", {})]:
                for entry in job.get("steps", []):
                    yield f"{path}: {entry.get('name', '')}", entry.get("run", "").splitlines()
        elif path.endswith(".yml"):
            for name, job in (content[1] if isinstance(content, list) else content).items():
                for key in ("before_script", "script", "after_script"):
                    if isinstance(job, dict) and key in job:
                        yield f"{path}: {name}: {key}", graph.own(job[key])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_step_has_more_than_three_lines_of_shell(files: Read, provider: str, level: int) -> None:
    shell = dict(scripts(files(provider, level), provider))
    assert len(shell) > 2
    assert {name: lines for name, lines in shell.items() if len(lines) > 3} == {}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_script_has_text_that_somebody_else_chose(
    files: Read, provider: str, level: int
) -> None:
    for name, lines in scripts(files(provider, level), provider):
        for line in lines:
            assert not UNTRUSTED.search(line), f"{name}: {line}"
            # Not even what is harmless: in an environment variable it is never code.
            assert "${{" not in line, f"{name}: {line}"


@pytest.mark.parametrize(("provider", "most"), MOST_LINES.items())
def test_a_providers_files_are_few_lines(
    project: Callable[[int], Path], provider: str, most: int
) -> None:
    lines = [
        line
        for text in texts(project(2), provider).values()
        for line in text.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    print(f"{provider}: {len(lines)} lines")
    assert 100 < len(lines) <= most


def test_every_action_is_pinned_by_the_commit_of_its_tag(project: Callable[[int], Path]) -> None:
    pins = 0
    for path, text in texts(project(2), "github").items():
        for line in text.splitlines():
            if (uses := re.search(r"\buses: (\S+)(.*)", line)) is None or uses[1][:2] == "./":
                continue
            name, _, commit = uses[1].partition("@")
            pin = PINS["/".join(name.split("/")[:2])]  # of actions/cache/restore, actions/cache
            assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{path}: {line}"
            assert (commit, uses[2].strip()) == (pin["commit"], f"# {pin['tag']}"), path
            pins += 1
    assert pins > 20


def test_what_gitlab_fetches_has_a_version_and_uv_is_the_same(
    project: Callable[[int], Path], files: Read
) -> None:
    both = texts(project(2), "gitlab") | texts(project(2), "github")
    for path, text in both.items():
        for tool in re.findall(r"\buvx (\S+)", text):
            assert re.fullmatch(r"[\w-]+@\d+(\.\d+)+", tool), f"{path}: uvx {tool}"
    image = files("gitlab", 2)[".gitlab-ci.yml"][0]["spec"]["inputs"]["image"]["default"]
    pinned = re.search(r"^uv==(\S+) ", (project(2) / "requirements-uv.txt").read_text(), re.M)
    assert pinned
    assert re.fullmatch(rf".+:{re.escape(pinned[1])}-python3\.\d+-\w+", image)
    assert image == exports.settings.UV_IMAGE


def test_renovate_pins_the_image_of_gitlabs_jobs_and_finds_it_again(
    project: Callable[[int], Path],
) -> None:
    """Without a template it has nowhere to write the first digest, and gives up the branch."""
    (manager,) = json.loads((project(2) / ".gitlab/renovate.json").read_text())["customManagers"]
    (pattern,) = (text.replace("(?<", "(?P<") for text in manager["matchStrings"])
    text = (project(2) / ".gitlab-ci.yml").read_text("utf-8")
    name = (project(2) / ".gitlab-ci.yml").name
    assert any(re.search(p.strip("/"), name) for p in manager["managerFilePatterns"])
    before = re.search(pattern, text)
    assert before
    assert before["currentDigest"] is None
    digest = f"sha256:{'0' * 64}"
    template = manager["autoReplaceStringTemplate"]
    written = re.sub(r"\{\{#if newDigest\}\}(.*?)\{\{/if\}\}", r"\1", template)
    for field, value in {
        "depName": before["depName"],
        "newValue": before["currentValue"],
        "newDigest": digest,
    }.items():
        written = written.replace(f"{{{{{{{field}}}}}}}", value)
    after = re.search(pattern, text.replace(before[0], written))
    assert after
    assert after.groupdict() == before.groupdict() | {"currentDigest": digest}
    assert yaml.safe_load(f"{after[0]}") == {"default": f"{before[0].split()[1]}@{digest}"}


@pytest.mark.parametrize("level", LEVELS)
def test_a_workflow_may_nothing_that_its_jobs_do_not_ask_for(files: Read, level: int) -> None:
    for name, workflow in graph.workflows(files("github", level)).items():
        assert workflow["permissions"] == {}, name
        for job, about in workflow["jobs"].items():
            assert isinstance(about["permissions"], dict), f"{name}: {job}"
            if "pull_request" in workflow[True]:
                may = {what for what, how in about["permissions"].items() if how == "write"}
                assert may <= ({"pull-requests"} if job == "comment" else set())


@pytest.mark.parametrize("level", LEVELS)
def test_no_checkout_leaves_a_token_behind(files: Read, level: int) -> None:
    checkouts = [
        entry
        for workflow in graph.workflows(files("github", level)).values()
        for job in workflow["jobs"].values()
        for entry in job.get("steps", [])
        if entry.get("uses", "").startswith("actions/checkout@")
    ]
    assert checkouts
    assert all(entry["with"]["persist-credentials"] is False for entry in checkouts)


def test_no_request_fills_a_cache_that_others_read(files: Read, wanted: Table) -> None:
    for pipeline, trigger, tasks in graph.gitlab(files("gitlab", 2), wanted):
        for name, task in tasks.items():
            fills = task.variables["UV_CACHE_POLICY"] != "pull"
            assert not fills or (pipeline, trigger, name) == ("checks", "push", "test")
    jobs = graph.jobs_of(files("gitlab", 2))
    caches = {str(job["cache"]) for job in jobs.values() if job["cache"]}  # or none at all
    assert len(caches) == 1, "a job has a cache of its own"
    assert "'policy': '$UV_CACHE_POLICY'" in caches.pop()
    # A branch that is pushed has GitLab's own cache for what is not protected; ours reads only.
    rules = jobs["test"]["rules"]
    filled = [rule["if"] for rule in rules if rule.get("variables")]
    assert filled == ['$CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH']
    github = files("github", 2)
    assert "actions/cache@" not in str(github)  # it reads, and fills at the end of any job
    saving = [
        (name, job, entry["if"])
        for name, workflow in graph.workflows(github).items()
        for job, about in workflow["jobs"].items()
        for entry in about.get("steps", [])
        if entry.get("uses", "").startswith("actions/cache/save@")
    ]
    assert saving == [("checks", "test", f"{graph.DEFAULT} && steps.uv.outputs.cache-key")]


def test_what_a_schedule_starts_does_not_ask_the_event_about_the_repository(files: Read) -> None:
    # github/codeql-action#1211, docker/metadata-action#184: there is nothing of it in that event.
    flows = graph.workflows(files("github", 2))
    timed = {name for name, flow in flows.items() if "schedule" in flow[True]}
    assert timed == {"weekly", "monitor", "score", "drill", "audit"}
    verify = files("github", 2)[".github/actions/verify/action.yml"]
    assert "github.event." not in str(verify)
    for name in timed:
        conditions = [job["if"] for job in flows[name]["jobs"].values() if "if" in job]
        assert set(conditions) <= {graph.TIMED, "needs.verify.outputs.version != ''"}
        rest = str(flows[name]["jobs"]).replace(str(graph.TIMED), "")
        for condition in conditions:
            rest = rest.replace(repr(condition), "")
        assert "github.event.repository" not in rest, name
        assert "./.github/workflows/" not in str(flows[name]), name


def test_what_is_published_is_made_without_a_cache(files: Read) -> None:
    setup = files("github", 2)[".github/actions/setup/action.yml"]
    uv = files("github", 2)[".github/actions/uv/action.yml"]
    assert setup["inputs"]["cache"]["default"] == uv["inputs"]["cache"]["default"] == "false"
    assert setup["runs"]["steps"][0]["with"] == {"cache": "${{ inputs.cache }}"}
    (cached,) = [entry for entry in uv["runs"]["steps"] if "uses" in entry]
    assert cached["uses"].startswith("actions/cache/restore@")  # it only reads
    assert cached["if"] == "inputs.cache == 'true'"
    for name, workflow in graph.workflows(files("github", 2)).items():
        cached = [v for key, v in graph.walk(workflow) if key == "cache" and v != "false"]
        assert not cached or name in ("checks", "pipeline"), name


def test_a_plan_without_provenance_is_told_so_and_no_other_goes_unverified(files: Read) -> None:
    private = "steps.plan.outputs.visibility == 'private' && env.ML_PROVENANCE != 'on'"
    public = "(steps.plan.outputs.visibility != 'private' || env.ML_PROVENANCE == 'on')"
    known = "steps.package.outputs.pinned"
    verify = files("github", 2)[".github/actions/verify/action.yml"]["runs"]
    condition = step(verify, "gh attestation verify")["if"]
    # Without a version there is nothing to ask about; one a person may vouch for, by its digest.
    assert condition == f"{known} != '' && {known} != env.ML_UNATTESTED && {public}"
    warning = step(verify, "limited by your plan")
    assert warning["if"] == private
    assert "::warning::" in warning["run"]
    for name, workflow in graph.workflows(files("github", 2)).items():
        if "./.github/actions/verify" in str(workflow):
            assert set(workflow["env"]) == {"ML_PROVENANCE", "ML_UNATTESTED"}, name
    public = "(github.event.repository.visibility != 'private' || vars.ML_PROVENANCE == 'on')"
    (attest,) = graph.workflows(files("github", 2))["attest"]["jobs"].values()
    for entry in attest["steps"]:
        if "actions/attest@" in entry.get("uses", "") or "gh attestation" in entry.get("run", ""):
            assert entry["if"].endswith(f" && {public}")


@pytest.mark.parametrize("where", ["staging", "production"])
def test_what_changes_one_place_waits_for_its_turn(files: Read, where: str) -> None:
    for workflow in graph.workflows(files("github", 2)).values():
        for name, job in workflow["jobs"].items():
            if job.get("environment") == where:
                own = job.get("concurrency", workflow["concurrency"])
                assert own == {"group": where, "queue": "max"}, name
    jobs = graph.jobs_of(files("gitlab", 2))
    assert {n for n, job in jobs.items() if job.get("environment") == where} >= {where}
    for name, job in jobs.items():
        if job.get("environment") == where:
            assert job["resource_group"] == where, name
            assert not job.get("interruptible"), name


def test_the_picture_of_the_graph_is_of_this_table(tmp_path: Path) -> None:
    script = ROOT / "docs/images/pipelines.py"
    drawn = tmp_path / "pipelines.svg"
    subprocess.run([sys.executable, script, drawn], check=True)
    committed = (ROOT / "docs/images/pipelines.svg").read_text("utf-8")
    assert drawn.read_text("utf-8") == committed, f"run {script} docs/images/pipelines.svg"


def test_the_table_is_read_as_it_stands(wanted: Table) -> None:
    assert len(wanted.lines) == 31
    assert sorted(wanted.times.values()) == ["daily", "monthly", "nightly", "weekly"]
    assert wanted.touched == {"config", "data", "dvc.yaml", "src", "uv.lock"}
    train = {p: jobs for p, trigger, jobs in wanted.graph(2) if trigger == "weekly"}["train"]
    assert train["production"] == Row(frozenset({"staging"}), "production, approved", True, "train")


# What is exported for other providers


@pytest.fixture(scope="module")
def exported(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a project that was exported for a provider; shared, so tests change only copies."""

    @cache
    def exported(provider: str, level: int) -> Path:
        project = tmp_path_factory.mktemp(provider) / "project"
        shutil.copytree(render(level=level), project, symlinks=True)
        exports.export(project, provider)
        return project

    return exported


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("provider", ci_exports.PROVIDERS)
def test_what_is_exported_for_a_provider_has_the_same_graph_and_no_by_pass(
    exported: Callable[..., Path], provider: str, level: int
) -> None:
    project = exported(provider, level)
    files = ci_exports.read(provider, project)
    assert ci_exports.findings(provider, files, project, level) == []


def test_what_is_not_understood_of_a_pipeline_of_jenkins_is_not_passed_over() -> None:
    pipeline = "pipeline {\n options {\n }\n stages {\n stage('a') {\n %s\n }\n }\n }\n"
    whole = jenkinsfile.stages(jenkinsfile.parse(pipeline % "steps {\n sh 'a \\'b\\''\n }"))
    assert [(stage.name, stage.lines) for stage in whole] == [("a", ("a 'b'",))]
    for text, reason in {
        "steps { sh 'a' }": "a } is behind sh",
        'steps {\n sh "$X"\n }': "is not understood",
        "when {\n expression {\n false\n }\n }\n steps {\n }": "a runs when expression",
        "failFast true\n steps {\n }": "stage has failFast",
        "steps {\n }\n steps {\n }": "stage has something twice",
        "options {\n retry(2)\n }\n steps {\n }": "a has options that are not understood",
        "steps {\n }\n }": "a } is behind all blocks",
        "steps {\n": "the file ends within a block",
    }.items():
        with pytest.raises(ValueError, match=reason):
            jenkinsfile.stages(jenkinsfile.parse(pipeline % text))


# In the text of a file: what stands there, what somebody makes of it, and what is then found.
REGISTER = {
    "azure": ("dependsOn: train", "dependsOn: []"),
    "buildkite": ("depends_on: train", "depends_on: []"),
    "circleci": ("requires: [train]", "requires: []"),
    "forgejo": ("needs: train", "needs: []"),
    "gitea": ("needs: train", "needs: []"),
}
EXPORT_MUTATIONS: dict[str, tuple[str, str, str, str]] = {
    **{
        f"{provider}: register does not need the gate": (provider, old, new, "register has needs")
        for provider, (old, new) in REGISTER.items()
    },
    **{
        f"{provider}: the gate is left out": (
            provider,
            f"sh {folder}/ml run --only gate",
            "echo gate",
            "train has commands",
        )
        for provider, folder in {
            "azure": "orchestration/azure",
            "bitbucket": "orchestration/bitbucket",
            "buildkite": "orchestration/buildkite",
            "circleci": ".circleci",
            "forgejo": ".forgejo",
            "gitea": ".gitea",
            "jenkins": "orchestration/jenkins",
        }.items()
    },
    "azure: || true": ("azure", "--only gate", "--only gate || true", "made a success"),
    "azure: a script that continues": ("azure", "set -e", "true", "a script that continues"),
    "azure: the gate may fail": (
        "azure",
        "        displayName: Train\n",
        "        displayName: Train\n        continueOnError: true\n",
        "continueOnError",
    ),
    "azure: requests deploy": (
        "azure",
        "eq(variables['Build.SourceBranch'], 'refs/heads/main')",
        "ne(variables['Build.Reason'], 'Schedule')",
        "request: production is only in the files",
    ),
    "azure: nobody approves": (
        "azure",
        "dependsOn: approve",
        "dependsOn: staging",
        "production has env",
    ),
    "bitbucket: nobody approves": (
        "bitbucket",
        "trigger: manual",
        "trigger: automatic",
        "production has env",
    ),
    "bitbucket: any branch delivers": (
        "bitbucket",
        'test "$BITBUCKET_BRANCH" = main ||',
        'test "$BITBUCKET_BRANCH" = topic ||',
        "deliver on a branch: deliver is only in the files",
    ),
    "bitbucket: deployed before it is registered": (
        "bitbucket",
        "--target staging",
        "--target production",
        "staging has commands",
    ),
    "bitbucket: registered in after-script": (
        "bitbucket",
        "ml report\n",
        "ml register\n",
        "continues whatever happens",
    ),
    "buildkite: soft_fail": (
        "buildkite",
        "    label: Train\n",
        "    label: Train\n    soft_fail: true\n",
        "soft_fail",
    ),
    "buildkite: requests train": (
        "buildkite",
        "build.pull_request.id == null && build.branch == 'main'",
        "build.branch == 'topic'",
        "request: train is only in the files",
    ),
    "buildkite: nobody approves": (
        "buildkite",
        "depends_on: approve",
        "depends_on: staging",
        "production has environment",
    ),
    "circleci: nobody approves": (
        "circleci",
        "requires: [approve]",
        "requires: [staging]",
        "production has environment",
    ),
    "circleci: the gate is asked whatever happened": (
        "circleci",
        "name: package\n",
        "name: package\n          when: always\n",
        "train continues whatever happens",
    ),
    "circleci: any branch trains": (
        "circleci",
        "{equal: [main, << pipeline.git.branch >>]}]}",
        "{equal: [topic, << pipeline.git.branch >>]}]}",
        "push to a branch: register is only in the files",
    ),
    "forgejo: any branch delivers": (
        "forgejo",
        "if: github.ref == 'refs/heads/main'",
        "if: github.ref",
        "deliver on a branch: deliver is only in the files",
    ),
    "forgejo: registered whatever happened": (
        "forgejo",
        "name: The version is in the registry\n",
        "name: The version is in the registry\n        if: always()\n",
        "register continues whatever happens",
    ),
    "gitea: steps in another order": ("gitea", "--only train", "--only gate", "train has commands"),
    "jenkins: || true": ("jenkins", "--only gate", "--only gate || true", "made a success"),
    "jenkins: the gate may fail": (
        "jenkins",
        "sh 'sh orchestration/jenkins/ml run --only gate'",
        "catchError {\n sh 'sh orchestration/jenkins/ml run --only gate'\n }",
        "train: gate has the step catchError",
    ),
    "jenkins: nobody looks how the gate ended": (
        "jenkins",
        "sh 'sh orchestration/jenkins/ml run --only gate'",
        "sh script: 'sh orchestration/jenkins/ml run --only gate', returnStatus: true",
        "train: gate has the step sh",
    ),
    "jenkins: any branch trains": (
        "jenkins",
        "branch 'main'",
        "branch 'topic'",
        "push to a branch: register is only in the files",
    ),
    "jenkins: requests deploy": (
        "jenkins",
        "branch 'main'",
        "changeRequest()",
        "request: production is only in the files",
    ),
    "jenkins: nobody approves": (
        "jenkins",
        "            input {\n                message 'Deploy to production?'\n            }\n",
        "",
        "production has environment",
    ),
    "jenkins: a person is asked on every branch": (
        "jenkins",
        "                beforeInput true\n",
        "",
        "production asks a person about every branch",
    ),
    "jenkins: registered whatever happened": (
        "jenkins",
        "sh orchestration/jenkins/ml report",
        "sh orchestration/jenkins/ml register",
        "train continues whatever happens",
    ),
    "jenkins: deployed after a failure": (
        "jenkins",
        "always {",
        "failure {",
        "has post failure",
    ),
}


@pytest.mark.parametrize("what", EXPORT_MUTATIONS)
def test_what_differs_from_the_graph_in_exported_files_is_found(
    exported: Callable[..., Path], what: str
) -> None:
    provider, old, new, expected = EXPORT_MUTATIONS[what]
    project = exported(provider, 2)
    texts = ci_exports.texts(provider, project)
    assert any(old in text for text in texts.values())
    changed = {path: text.replace(old, new) for path, text in texts.items()}
    files = ci_exports.parsed(provider, changed)
    messages = ci_exports.findings(provider, files, project, 2)
    assert any(expected in message for message in messages), messages
