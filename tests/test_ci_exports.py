"""What is exported for CI providers: their schemas accept it, and act runs that for Forgejo.

The graph in it is compared in test_graph.py. A script stands in for `ml` where only the provider's
behaviour is in question; one project runs for real.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import check_jsonschema
import ci_exports
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, Copy, Project, Render
from hosts import Host, Run
from hosts.fixtures import hosted
from rung import exports
from rung.exceptions import RefusedError, UsageError
from rung.exports.export import SYSTEMS, plain_yaml, systems
from rung.exports.jobs import read_facts
from rung.exports.settings import UV_IMAGE
from schema_keys import unknown_keys
from test_exports import EVERYTHING, STAGES
from test_pipelines_lint import actionlint, shellcheck

__all__ = ["hosted"]
SCHEMAS = {
    "azure": "azure-pipelines",
    "bitbucket": "bitbucket-pipelines",
    "buildkite": "buildkite",
    "circleci": "circle-ci",
    "forgejo": "github-workflows",
    "gitea": "github-workflows",
}
SETTINGS = """\
runner: big
secrets: [AWS_SECRET_ACCESS_KEY]
secret_group: release
"""
# One key of each file, as somebody who edits the template may misspell it.
TYPOS = {
    "azure": [("displayName:", "displayNam:"), ("timeoutInMinutes:", "timeoutMinutes:")],
    "bitbucket": [
        ("max-time:", "maxtime:"),
        ("deployment:", "deploymnt:"),
        ("trigger:", "triger:"),
    ],
    "buildkite": [("depends_on:", "depend_on:"), ("timeout_in_minutes:", "timeout_minutes:")],
    "circleci": [("serial-group:", "serial_group:"), ("no_output_timeout:", "timeout:")],
    "forgejo": [("timeout-minutes:", "timeout_minutes:"), ("needs:", "need:")],
    "gitea": [("timeout-minutes:", "timeout_minutes:"), ("needs:", "need:")],
}
# actionlint knows GitHub, which has no addresses there.
ADDRESS = re.compile(r'specifying action "https://github\.com/.* in invalid format')


@pytest.fixture
def exported(render: Render, tmp_path: Path) -> Callable[..., Path]:
    """Return a project of a level, exported for a provider with settings."""

    def exported(name: str, level: int = 2, settings: str = EVERYTHING + SETTINGS) -> Path:
        project = tmp_path / f"{name}-{level}"
        ignore = shutil.ignore_patterns("rung_runtime")  # which no export reads
        shutil.copytree(render(level=level), project, symlinks=True, ignore=ignore)
        (project / "config/export.yaml").write_text(settings)
        exports.export(project, name)
        return project

    return exported


def refused(name: str, project: Path) -> str:
    """Return what the provider's schema refuses."""
    files = [str(project / path) for path in ci_exports.read(name, project)]
    how = ["--regex-variant", "python", "--data-transform", "azure-pipelines"]
    command = [f"--builtin-schema=vendor.{SCHEMAS[name]}", *(how if name == "azure" else [])]
    done = CliRunner().invoke(check_jsonschema.main, [*command, *files])
    assert done.exit_code in (0, 1), done.output
    return done.output if done.exit_code else ""


def unknown(name: str, project: Path) -> list[str]:
    """Return the keys that the provider's schema does not name."""
    texts = [(project / path).read_text("utf-8") for path in ci_exports.read(name, project)]
    contents = [yaml.load(text, yaml.CBaseLoader) for text in texts]
    return [key for content in contents for key in unknown_keys(SCHEMAS[name], content)]


@pytest.mark.parametrize(
    "name",
    [
        # Its schema has half a megabyte.
        pytest.param(name, marks=[pytest.mark.slow] if name == "azure" else [])
        for name in ci_exports.YAML
    ],
)
def test_a_providers_schema_accepts_what_is_exported(
    exported: Callable[..., Path], name: str
) -> None:
    project = exported(name)
    assert refused(name, project) == ""
    assert unknown(name, project) == []


@pytest.mark.parametrize("name", ci_exports.YAML)
def test_a_key_that_a_provider_does_not_know_is_found(
    exported: Callable[..., Path], name: str
) -> None:
    project = exported(name)
    for target in ci_exports.read(name, project):
        text = (project / target).read_text("utf-8")
        for old, new in TYPOS[name]:
            if old in text:
                (project / target).write_text(text.replace(old, new, 1))
                assert unknown(name, project), f"{target}: {new}"
        (project / target).write_text(text)
        if target == ci_exports.AZURE or target.endswith(("train.yml", "pipeline.yml", "s.yml")):
            assert any(old in text for old, _ in TYPOS[name])


@pytest.mark.parametrize("name", ci_exports.PROVIDERS)
def test_exported_scripts_are_clean(
    exported: Callable[..., Path], name: str, tmp_path: Path
) -> None:
    project = exported(name)
    files = ci_exports.read(name, project)
    scripts = [project / systems()[name].files["ml.jinja"]]
    for event in ci_exports.EVENTS.values():
        for job, task in ci_exports.started(name, files, event).items():
            script = tmp_path / f"{job}.sh"
            script.write_text("\n".join(task.lines) + "\n")
            scripts += [script] if script not in scripts else []
    assert len(scripts) > 10
    assert shellcheck(*scripts, shell="sh") == []


@pytest.mark.nightly
@pytest.mark.slow
def test_actionlint_knows_all_but_the_addresses_of_actions(exported: Callable[..., Path]) -> None:
    project = exported("forgejo", settings="runner: ubuntu-latest\n")
    workflows = project / ".github/workflows"
    shutil.rmtree(workflows)
    shutil.copytree(project / ".forgejo/workflows", workflows)
    train = (workflows / "train.yml").read_text("utf-8")
    (workflows / "broken.yml").write_text(train.replace("needs: train", "needs: trein"))
    findings = [finding for finding in actionlint(project) if not ADDRESS.search(finding)]
    assert findings
    assert all("broken.yml" in finding and "trein" in finding for finding in findings)


def test_actions_are_pinned_by_the_commit_of_their_tag(exported: Callable[..., Path]) -> None:
    pins = yaml.safe_load((ROOT / "tests/data/action-pins-forgejo.yml").read_text("utf-8"))
    wanted = {f"{name}@{pin['commit']}  # {pin['tag']}" for name, pin in pins.items()}
    for name in ("forgejo", "gitea"):
        project = exported(name)
        texts = [(project / path).read_text("utf-8") for path in ci_exports.read(name, project)]
        used = re.findall(r"uses: (.*)", "".join(texts))
        assert {use.removeprefix("https://github.com/") for use in used} == wanted
        assert all(use.startswith("https://github.com/") for use in used)


def test_secrets_are_named_where_a_person_looks_and_requests_only_read(
    exported: Callable[..., Path],
) -> None:
    for name in ci_exports.YAML:
        project = exported(name)
        targets = list(ci_exports.read(name, project))
        texts = {target: (project / target).read_text("utf-8") for target in targets}
        comments = [line for line in "".join(texts.values()).splitlines() if line.startswith("#")]
        for secret in ("ML_REGISTRY ", "ML_REGISTRY_AUTH ", "AWS_SECRET_ACCESS_KEY."):
            assert any(secret in line for line in comments), name
    for name in ("azure", "forgejo", "gitea"):
        project = exported(name, 1)
        for content in ci_exports.read(name, project).values():
            for job in jobs_of(content):
                text = json.dumps(job)
                if "ML_BASE" in text:
                    assert "ML_REGISTRY_AUTH_READ" in text
                    assert not re.search(
                        r"(secrets\.|\$\()(ML_REGISTRY_AUTH|AWS_SECRET_\w+KEY)\b", text
                    )
                elif "pytest" in text or "mypy" in text:
                    assert "AUTH" not in text


def jobs_of(content: Any) -> list[Any]:
    """Return the jobs of a file of Azure or Forgejo."""
    if "stages" in content:
        return [job for stage in content["stages"] for job in stage["jobs"]]
    return list(content["jobs"].values())


def test_what_a_team_wrote_for_its_provider_is_never_overwritten_nor_added_to(
    render: Render, tmp_path: Path
) -> None:
    project = shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)
    own = project / ".circleci/config.yml"
    own.parent.mkdir()
    own.write_text("version: 2.1\n")
    with pytest.raises(RefusedError, match="not exported at all"):
        exports.export(project, "circleci")
    exports.refresh(project)
    assert [path.name for path in own.parent.iterdir()] == ["config.yml"]
    assert own.read_text() == "version: 2.1\n"


def test_an_update_keeps_the_files_of_a_provider_current(exported: Callable[..., Path]) -> None:
    project = exported("bitbucket")
    (project / "config/export.yaml").write_text("branch: trunk\n")
    exports.refresh(project)
    exports.export(project, "bitbucket", check=True)
    content = yaml.safe_load((project / "bitbucket-pipelines.yml").read_text())
    assert list(content["pipelines"]["branches"]) == ["trunk"]


@pytest.mark.parametrize("name", ci_exports.YAML)
def test_names_are_text_whatever_yaml_makes_of_them_and_files_are_clean(
    exported: Callable[..., Path], name: str
) -> None:
    settings = 'branch: "1.0"\nrunner: "7"\nsecret_group: "yes"\nmonitor_schedule: "@daily"\n'
    project = exported(name, settings=settings)
    for target in systems()[name].files.values():
        text = (project / target).read_text("utf-8")
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert [line for line in text.splitlines() if line != line.rstrip()] == []
        if target.endswith(".yml"):
            kinds = {type(value) for value in leaves(yaml.safe_load(text)) if value in (1.0, 7)}
            assert float not in kinds, target
            assert 7 not in leaves(yaml.safe_load(text))


def leaves(content: Any) -> Iterator[Any]:
    """Yield every key, and every value that is not a list or a mapping."""
    if isinstance(content, dict):
        yield from content
        content = list(content.values())
    if not isinstance(content, list):
        yield content
        return
    for value in content:
        yield from leaves(value)


def test_jobs_run_in_the_image_that_they_run_in_on_gitlab() -> None:
    files = (ROOT / "ci/gitlab/.gitlab-ci.yml").read_text("utf-8")
    assert f"default: {UV_IMAGE}\n" in files
    version = UV_IMAGE.partition(":")[2].partition("-")[0]
    assert f"version: {version}," in (SYSTEMS / "forgejo/macros.jinja").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sh ml run", "sh ml run"),
        ('echo "a: b"', '"echo \\"a: b\\""'),
        ("- x", '"- x"'),
        ("a # b", '"a # b"'),
        ("yes", '"yes"'),
        ("[1", '"[1"'),
    ],
)
def test_a_line_that_yaml_would_read_otherwise_is_quoted(text: str, expected: str) -> None:
    assert plain_yaml(text) == expected
    assert yaml.safe_load(f"- {expected}") == [text]


def test_a_registry_that_all_jobs_reach_need_not_be_named_again(
    exported: Callable[..., Path], render: Render, tmp_path: Path
) -> None:
    needed = exported("circleci", 1, "")
    assert "ML_REGISTRY is not set" in (needed / ".circleci/config.yml").read_text()
    delivery = needed / "config/delivery.yaml"
    delivery.write_text(re.sub("^registry: .*", "registry: oci://h.test/x", delivery.read_text()))
    delivery.write_text(
        delivery.read_text().replace("registry: registry", "registry: oci://h.test/x")
    )
    exports.export(needed, "circleci")
    assert "is not set" not in (needed / ".circleci/config.yml").read_text()
    served = tmp_path / "mlflow"
    shutil.copytree(render(level=1, registry="mlflow"), served, symlinks=True)
    exports.export(served, "azure")
    assert "MLFLOW_TRACKING_URI is not set" in (served / ci_exports.AZURE).read_text()
    delivery.write_text("[")
    with pytest.raises(UsageError, match=r"delivery.yaml is malformed"):
        read_facts(needed)
    delivery.write_text("registry: a\nregistry: oci://b.invalid/c\n")
    with pytest.raises(UsageError, match=r"malformed: the key registry is there twice .* line 2"):
        read_facts(needed)


def test_a_cluster_for_which_no_image_is_built_is_told(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(render(level=2, deployment="kubernetes"), project, symlinks=True)
    with pytest.raises(UsageError, match=r"export.yaml: last: deploy: a cluster needs an image"):
        exports.export(project, "azure")
    (project / "config/export.yaml").write_text("last: register\n")
    exports.export(project, "azure")


@pytest.mark.parametrize("codes", ["70 137 0", "1", "2", "3 3 3"])
def test_the_script_tries_again_what_neither_refused_nor_was_bad_input(
    exported: Callable[..., Path], codes: str, tmp_path: Path
) -> None:
    (tmp_path / "codes").write_text(codes)
    (tmp_path / "fake").write_text(
        'echo "$1" >> calls\ncode=$(cut -d" " -f"$(wc -l < calls)" ../codes)\nexit "$code"\n'
    )
    settings = "retries: 2\nretry_delay_seconds: 0\ncommand: [sh, ../fake]\n"
    project = exported("buildkite", 1, settings)
    script = ["sh", "orchestration/buildkite/ml", "train"]
    done = subprocess.run(script, cwd=project, check=False)
    ends = [int(code) for code in codes.split()]
    assert done.returncode == ends[-1]
    assert (project / "calls").read_text().splitlines() == ["train"] * len(ends)


def test_on_azure_a_secret_that_is_not_set_is_none_to_whatever_runs(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    project = exported("azure", 2, "secrets: [KEY, OTHER]\n")
    (project / "data/x.dvc").write_text("outs: []\n")
    fake = tmp_path / "bin/uv"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@: ${ML_REGISTRY_AUTH-none} ${KEY-none} ${OTHER-none}"\n')
    fake.chmod(0o755)
    text = (project / "orchestration/azure/azure-pipelines.yml").read_text("utf-8")
    (train,) = [job for job in jobs_of(yaml.safe_load(text)) if job.get("job") == "train"]
    steps = [step for step in train["steps"] if "KEY" in step.get("env", {})]
    assert len(steps) > 5
    ran = []
    for step in steps:
        unset = {"ML_REGISTRY_AUTH": "$(ML_REGISTRY_AUTH_READ)", "OTHER": "$(OTHER)"}
        env = os.environ | unset | {"KEY": "k", "PATH": f"{fake.parent}:{os.environ['PATH']}"}
        command = ["sh", "-c", step["script"]]
        done = subprocess.run(
            command, cwd=project, env=env, capture_output=True, text=True, check=False
        )
        ran += done.stdout.splitlines()
    assert ran[0].startswith("run --locked dvc pull: ")
    assert [line for line in ran if not line.endswith(": none k none")] == []


# Forgejo and Gitea, by act

FAKE = """\
#!/bin/sh
# ml and uv, as a stand-in: each call is a line of $FAKE/calls; $FAKE/ends says how it ends.
call="$GITHUB_JOB: $*"
echo "$call" >> "$FAKE/calls"
mkdir -p artifacts
echo "{}" > "artifacts/${1:-none}.json"
[ "$*" = "register --pinned" ] && echo "v1@sha256:00"
[ "$*" = run ] && echo "base: $(git rev-parse "$ML_BASE")" >&2
code=$(sed -n "s/^$call=//p" "$FAKE/ends" | cut -d' ' -f"$(grep -cxF "$call" "$FAKE/calls")")
[ "${code:-0}" = 0 ] || printf 'ml: the reason of %s:\\n  - second line\\n' "$*" >&2
exit "${code:-0}"
"""
QUICK = """\
retries: 2
retry_delay_seconds: 0
command: [sh, ml.sh]
schedule: "@weekly"
monitor_schedule: "@hourly"
"""


@pytest.fixture(params=["forgejo", pytest.param("gitea", marks=pytest.mark.nightly)])
def forge(
    request: pytest.FixtureRequest,
    hosted: Callable[..., Host],
    render: Render,
    tmp_path: Path,
) -> tuple[Host, Callable[..., list[str]]]:
    """Bring a project to a forge, with the script for `ml` and uv; and read what was called."""
    project = shutil.copytree(render(level=2), tmp_path / "project", symlinks=True)
    (project / "ml.sh").write_text(FAKE)
    (project / "uv.lock").touch()
    (project / "config/export.yaml").write_text(QUICK)
    exports.export(project, request.param)
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "ends").touch()
    (folder / "uv").write_text('#!/bin/sh\nexec sh ml.sh uv "$@"\n')
    (folder / "uv").chmod(0o755)
    host = hosted(request.param, project, variables={"ML_REGISTRY": "oci://h.test/models"})
    host.more["FAKE"] = str(folder)
    host.more["PATH"] = f"{folder}:{host.environment()['PATH']}"

    def calls(ends: str = "") -> list[str]:
        file = folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        (folder / "ends").write_text(ends)
        return [line for line in lines if ": uv" not in line]

    return host, calls


TRAIN = [*(f"train: run --only {stage}" for stage in STAGES), "train: report"]


@pytest.mark.slow
def test_a_forge_trains_a_change_up_to_what_a_person_starts(
    forge: tuple[Host, Callable[..., list[str]]],
) -> None:
    host, calls = forge
    calls("train: run --only validate=70 137 0\n")
    with host.without({"lint", "types", "test"}):
        run = host.push()
    assert run.ok, run.log
    assert calls() == [
        *TRAIN[:1],
        *TRAIN[1:2] * 3,
        *TRAIN[2:],
        "register: register --pinned",
        "staging: deploy v1@sha256:00 --target staging",
    ]
    run = host.by_hand("deliver", version="v1")
    assert run.ok, run.log
    assert calls() == ["deliver: deploy v1 --target production"]
    run = host.schedule("monitor")
    assert run.ok, run.log
    assert calls() == ["monitor: monitor", "retrain: retrain --last register"]


@pytest.mark.slow
def test_a_forge_ends_with_a_refusal_and_judges_requests_by_their_base(
    forge: tuple[Host, Callable[..., list[str]]],
) -> None:
    host, calls = forge
    calls("train: run --only gate=1 0\ncandidate: run=2 0\n")
    with host.without({"lint", "types", "test", "controls"}):
        run = host.push()
        assert (run.jobs["train"], run.jobs["register"]) == ("failure", "skipped")
        assert "the reason of run --only gate:" in run.logs["train"]
        assert calls("candidate: run=2 0\n") == [*TRAIN[:7], TRAIN[-1]]
        (host.project / "config/gate.yaml").write_text("# weaker\n")
        host.git("checkout", "-q", "-b", "topic")
        host.commit("Weaken the gate")
        request = host.propose("topic")
    assert (request.jobs["candidate"], request.jobs["rehearsal"]) == ("failure", "skipped")
    assert f"base: {host.main}" in request.logs["candidate"]
    assert calls() == ["candidate: run", "candidate: report"]


@pytest.mark.slow
def test_a_forge_refuses_poisoned_data_for_the_reason_of_ml_run(
    hosted: Callable[..., Host], project: Callable[[int], Project], tmp_path: Path
) -> None:
    ours = Copy(project(1), tmp_path / "project")
    project(1).copy(ours.path)
    source = ours.path / yaml.safe_load((ours.path / "config/data.yaml").read_text())["source"]
    header, _, rows = source.read_text().partition("\n")
    source.unlink()  # it is a link into the shared project
    source.write_text(f"{header}\n" + rows.replace("EWR", "XXX"))
    program = project(1).path / ".venv/bin/ml"
    (ours.path / "config/export.yaml").write_text(f"command: [{program}]\n")
    exports.export(ours.path, "forgejo")
    host = hosted("forgejo", ours.path, variables={"ML_REGISTRY": str(tmp_path / "registry")})
    with host.without({"lint", "types", "test"}):
        run: Run = host.push()
    assert run.jobs["train"] == "failure", run.log
    assert run.jobs["register"] == "skipped"
    refused = ours.ml("run", exits=1)
    reason = refused.stderr.strip().splitlines()[-1].strip()
    assert reason
    assert reason in run.logs["train"]
    assert run.artifacts
    assert (run.artifacts / "train/validation.json").exists()


@pytest.mark.nightly
@pytest.mark.slow
def test_a_real_project_trains_registers_and_deploys_on_a_forge(
    hosted: Callable[..., Host], project: Callable[[int], Project], tmp_path: Path
) -> None:
    ours = tmp_path / "project"
    project(1).copy(ours)
    program = project(1).path / ".venv/bin/ml"
    (ours / "config/export.yaml").write_text(f"command: [{program}]\n")
    exports.export(ours, "forgejo")
    registry = tmp_path / "registry"
    host = hosted("forgejo", ours, variables={"ML_REGISTRY": str(registry)})
    with host.without({"lint", "types", "test"}):
        run = host.push()
    assert run.ok, run.log
    assert run.jobs == dict.fromkeys(("train", "register", "production"), "success")
    env = {"ML_REGISTRY": str(registry), "PATH": "/usr/bin:/bin"}
    models = [str(program), "models"]
    done = subprocess.run(
        models, cwd=host.project, env=env, capture_output=True, text=True, check=True
    )
    assert "champion" in done.stdout


def flat(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the steps of a pipeline of Bitbucket, those of groups included."""
    groups = [step.get("parallel", [step]) for step in steps]
    return [
        step
        for group in groups
        for step in (group if isinstance(group, list) else group["steps"])
        if "step" in step
    ]


@pytest.mark.parametrize("level", [1, 2])
def test_the_login_that_registers_is_not_every_jobs(
    exported: Callable[..., Path], level: int
) -> None:
    """Bitbucket's deployment and Buildkite's queue have it, as a context of CircleCI does."""
    settings = "runner: big\nsecret_group: release\n"
    project = exported("bitbucket", level, settings)
    pipelines = yaml.safe_load((project / "bitbucket-pipelines.yml").read_text("utf-8"))[
        "pipelines"
    ]
    for steps in (pipelines["branches"]["main"], pipelines["custom"]["train"]):
        deployments = {step["step"]["name"]: step["step"].get("deployment") for step in flat(steps)}
        assert deployments["Register"] == "release"
        assert deployments["Train"] is None
        named = [*filter(None, deployments.values())]
        assert len(named) == len({*named})  # each may occur once in a pipeline
    project = exported("buildkite", level, settings)
    content = yaml.safe_load((project / "orchestration/buildkite/pipeline.yml").read_text("utf-8"))
    queues = {step["key"]: step["agents"]["queue"] for step in content["steps"] if "agents" in step}
    assert queues["register"] == "release"
    assert queues["train"] == "big"
