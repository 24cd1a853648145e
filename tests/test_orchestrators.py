"""Exported graphs run in the real orchestrators: order, refusals, retries, reasons.

A script stands in for `ml` where only the orchestrator's behaviour is in question: it writes down
how it was called, and ends as it is told to. One project runs for real. Of Kubeflow, whose nodes
are containers, the compiler is real, and what runs the compiled nodes stands in for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import ci_exports
import libraries
import pytest
import yaml
from conftest import ROOT, Copy, Project, Render
from rung import exports
from rung.exports.export import SYSTEMS, systems
from rung.exports.graph import read_graph
from test_exports import EVERYTHING, STAGES

pytestmark = pytest.mark.slow
SCRIPT = """\
#!/bin/sh
# ml, as a stand-in: each call is a line of calls.txt; ends.txt says how it ends, call by call.
echo "$*" >> calls.txt
count=$(grep -cxF "$*" calls.txt)
code=$(sed -n "s/^$*=//p" ends.txt | cut -d' ' -f"$count")
[ "${code:-0}" = 0 ] || printf 'ml: the reason of %s:\\n  - second line\\n' "$*" >&2
exit "${code:-0}"
"""
SETTINGS = """\
retries: 2
retry_delay_seconds: 0
command: [sh, ml.sh]
last: register
image: registry.test/project:1
volume: project
"""
# One that a team has added to its dvc.yaml.
OWN_STAGE = """\
stages:
  note:
    cmd: echo noted > artifacts/note.txt
    deps: [config/data.yaml]
    outs: [artifacts/note.txt]
"""
ALL = [*(f"run --only {stage}" for stage in STAGES), "register"]


@dataclass
class Run:
    """A graph that an orchestrator has run."""

    ok: bool
    log: str
    calls: list[str] = field(default_factory=list)


@dataclass
class Orchestrator:
    """An orchestrator in an environment of its own, started as its `test.toml` says.

    Attributes:
        name: Of its folder.
        home: Where it may keep its own files.
    """

    name: str
    home: Path

    def run(self, project: Path) -> Run:
        """Run the training of a project that was exported for it."""
        with TemporaryDirectory(prefix="o") as short:
            return self.run_with(project, short)

    def run_with(self, project: Path, short: str) -> Run:
        """The same, with a folder whose path is short enough for sockets."""
        system = systems()[self.name]
        how = tomllib.loads((system.folder / "test.toml").read_text("utf-8"))
        file = project / exports.render(project, system)[0].path
        places = {
            "file": str(file),
            "folder": str(file.parent),
            "name": exports.graph_name(project),
            "home": str(self.home),
            "short": short,
            "tests": str(ROOT / "tests"),
        }
        own = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        env = {name: value for name, value in os.environ.items() if name not in own}
        env["HOME"] = str(self.home)
        for name, value in how.get("environment", {}).items():
            env[name] = value.format(**places)
        folder = Path(how.get("cwd", ".").format(**places))
        before = self.command(how["before"], places) if "before" in how else []
        if before and not any(self.home.iterdir()):
            subprocess.run(before, env=env, capture_output=True, check=True)
        done = subprocess.run(
            self.command(how["command"], places),
            cwd=project / folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        calls = project / "calls.txt"
        called = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return Run(done.returncode == 0, done.stdout, called)

    def command(self, words: list[str], places: dict[str, str]) -> list[str]:
        """Return a command of its `test.toml`, with the program of its own environment."""
        program, *arguments = [word.format(**places) for word in words]
        requires = systems()[self.name].requires
        if requires:
            program = str(libraries.environment(*requires) / "bin" / program)
        return [program, *arguments]


def runnable(*nightly: str) -> Sequence[object]:
    """Return the systems that are run here; slow ones, and those that are named, run at night."""
    params = []
    for file in sorted(SYSTEMS.glob("*/test.toml")):
        is_nightly = tomllib.loads(file.read_text("utf-8")).get("nightly", False)
        is_nightly |= file.parent.name in nightly
        params.append(
            pytest.param(file.parent.name, marks=[pytest.mark.nightly] if is_nightly else [])
        )
    return params


@pytest.fixture(scope="module", params=runnable())
def orchestrator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Orchestrator:
    return Orchestrator(request.param, tmp_path_factory.mktemp(request.param))


def export_with_script(project: Path, name: str) -> Callable[[str], Path]:
    """Export a project whose `ml` is the script; return what tells it how to end."""
    (project / "ml.sh").write_text(SCRIPT)
    (project / "config/export.yaml").write_text(SETTINGS)
    exports.export(project, name)

    def exported(ends: str) -> Path:
        (project / "ends.txt").write_text(ends)
        return project

    return exported


@pytest.fixture
def exported(orchestrator: Orchestrator, render: Render, tmp_path: Path) -> Callable[[str], Path]:
    project = shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)
    return export_with_script(project, orchestrator.name)


def test_every_node_runs_once_after_those_that_it_needs(
    orchestrator: Orchestrator, exported: Callable[[str], Path]
) -> None:
    project = exported("")
    run = orchestrator.run(project)
    assert run.ok, run.log
    assert run.calls == ALL
    exports.export(project, orchestrator.name, check=True)  # running it has changed no file


def test_a_stage_of_a_teams_own_that_no_other_stage_needs_runs_before_the_registration(
    orchestrator: Orchestrator, render: Render, tmp_path: Path
) -> None:
    project = shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)
    stages = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(stages.replace("stages:\n", OWN_STAGE, 1))
    run = orchestrator.run(export_with_script(project, orchestrator.name)(""))
    assert run.ok, run.log
    assert sorted(run.calls) == sorted([*ALL, "run --only note"])
    assert run.calls[-1] == "register"


@pytest.mark.parametrize("code", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_node_that_refuses_ends_the_run_is_not_tried_again_and_says_why(
    orchestrator: Orchestrator, exported: Callable[[str], Path], code: int
) -> None:
    run = orchestrator.run(exported(f"run --only gate={code} 0 0\n"))
    assert not run.ok, run.log
    assert run.calls == ALL[: ALL.index("run --only gate") + 1]
    assert "the reason of run --only gate:" in run.log
    assert "- second line" in run.log


def test_a_node_that_fails_otherwise_is_tried_again_as_often_as_is_configured(
    orchestrator: Orchestrator, exported: Callable[[str], Path]
) -> None:
    run = orchestrator.run(exported("run --only validate=70 137 0\nregister=3 3 3 0\n"))
    assert not run.ok, run.log
    expected = [*ALL[:1], *ALL[1:2] * 3, *ALL[2:-1], *ALL[-1:] * 3]
    assert run.calls == expected


@pytest.mark.parametrize("orchestrator", runnable("kfp"), indirect=True, scope="module")
def test_a_real_project_is_trained_registered_and_its_poisoned_data_refused_as_by_ml_run(
    orchestrator: Orchestrator, project: Callable[[int], Project], tmp_path: Path
) -> None:
    copy = Copy(project(1), tmp_path / "project")
    project(1).copy(copy.path)
    ml = f"command: [{project(1).path / '.venv/bin/ml'}]"
    settings = SETTINGS.replace("command: [sh, ml.sh]", ml)
    (copy.path / "config/export.yaml").write_text(settings)
    exports.export(copy.path, orchestrator.name)
    first = orchestrator.run(copy.path)
    assert first.ok, first.log
    copy.ml("models", exits=0)
    copy.ml("report", exits=0)  # reads each document, and checks its digest
    again = orchestrator.run(copy.path)
    assert again.ok, again.log
    for stage in STAGES:
        assert f"Stage '{stage}' didn't change, skipping" in again.log
    source = copy.path / yaml.safe_load((copy.path / "config/data.yaml").read_text())["source"]
    header, _, rows = source.read_text().partition("\n")
    source.unlink()  # it is a link into the shared project
    source.write_text(f"{header}\n" + rows.replace("EWR", "XXX"))
    poisoned = orchestrator.run(copy.path)
    assert not poisoned.ok, poisoned.log
    refused = copy.ml("run", exits=1)
    reason = refused.stderr.strip().splitlines()[-1].strip()
    assert reason
    assert reason in poisoned.log


@dataclass
class Jenkins:
    """A project that was exported for Jenkins, whose steps Groovy runs by a stand-in.

    The script stands in for every command of the project.
    """

    project: Path
    programs: Path

    def build(self, *build: str, ends: str = "", kind: str = "") -> Run:
        """Build a branch, or a request to change one."""
        (self.project / "ends.txt").write_text(ends)
        (self.project / "calls.txt").unlink(missing_ok=True)
        shim = str(ROOT / "tests/engines/jenkins.groovy")
        env = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "VERSION": "v1"}
        done = subprocess.run(
            ["groovy", shim, f"orchestration/jenkins/Jenkinsfile{kind}", *build],
            cwd=self.project, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return Run(
            done.returncode == 0, done.stdout, (self.project / "calls.txt").read_text().splitlines()
        )


@pytest.fixture
def jenkins(render: Render, tmp_path: Path) -> Jenkins:
    project = shutil.copytree(render(level=2), tmp_path / "project", symlinks=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("uv", "git"):
        (programs / name).write_text(f'#!/bin/sh\nexec sh ml.sh {name} "$@"\n')
        (programs / name).chmod(0o755)
    (project / "artifacts").mkdir()
    (project / "ml.sh").write_text(SCRIPT)
    settings = SETTINGS.replace("last: register\n", 'schedule: "15 2 * * 1"\n')
    (project / "config/export.yaml").write_text(settings)
    exports.export(project, "jenkins")
    return Jenkins(project, programs)


CHECKS = [
    "uv run --locked --only-group dev pre-commit run --all-files --show-diff-on-failure",
    "uv run --locked --all-groups mypy",
    "uv run --locked --all-groups pytest --cov --cov-report=term",
]
BUILDS = {
    "push": (["main"], ""),
    "push to a branch": (["topic"], ""),
    "request": (["PR-7", "main"], ""),
    "deliver": (["main"], ".deliver"),
    "monitor": (["main"], ".monitor"),
}


@pytest.mark.needs("groovy")
def test_jenkins_runs_for_each_event_what_the_graph_test_reads_in_its_files(
    jenkins: Jenkins,
) -> None:
    files = ci_exports.read("jenkins", jenkins.project)
    runs = {event: jenkins.build(*build, kind=kind) for event, (build, kind) in BUILDS.items()}
    for event, run in runs.items():
        assert run.ok, run.log
        scripts = [json.loads(text) for text in re.findall("^sh: (.*)$", run.log, re.MULTILINE)]
        ran = [line.strip() for script in scripts for line in script.strip().splitlines()]
        tasks = ci_exports.started("jenkins", files, ci_exports.EVENTS[event])
        assert ran == [line for task in tasks.values() for line in task.lines], event
        is_approved = any(task.environment.endswith("approved") for task in tasks.values())
        assert ("approved: " in run.log) is is_approved, event
    assert runs["push"].calls == [
        *CHECKS, *ALL[:-1], "report", "register --pinned",
        "deploy  --target staging", "deploy  --target production",
    ]  # fmt: skip
    assert "cron: 15 2 * * 1" in runs["push"].log
    assert runs["push to a branch"].calls == CHECKS
    assert runs["request"].calls[3:7] == [
        "uv run --locked --all-groups pytest tests/test_controls.py",
        "git fetch --quiet origin main",
        "run",
        "report",
    ]
    assert runs["deliver"].calls == ["deploy v1 --target production"]
    assert runs["monitor"].calls == ["monitor", "retrain --last register"]


@pytest.mark.needs("groovy")
def test_jenkins_ends_with_a_refusal_and_tries_again_what_failed_otherwise(
    jenkins: Jenkins,
) -> None:
    run = jenkins.build("main", ends="run --only validate=70 0\nrun --only gate=1 0 0\n")
    assert not run.ok, run.log
    expected = [*ALL[:2], *ALL[1 : ALL.index("run --only gate") + 1]]
    assert run.calls == [*CHECKS, *expected, "report"]
    assert "the reason of run --only gate:" in run.log
    assert "archived: artifacts/*.json" in run.log


def test_what_is_exported_for_argo_is_valid_and_has_no_key_that_it_does_not_know(
    render: Render, tmp_path: Path
) -> None:
    project = shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)
    (project / "config/export.yaml").write_text(EVERYTHING)
    exports.export(project, "argo")
    file = project / "orchestration/argo/nightly_scores.yaml"
    python = libraries.environment("hera>=7.1", "pyyaml>=6.0.3") / "bin/python"

    def validate() -> subprocess.CompletedProcess[str]:
        script = [str(python), str(ROOT / "tests/engines/hera_validate.py"), str(file)]
        return subprocess.run(script, capture_output=True, text=True, check=False)

    done = validate()
    assert done.stdout.splitlines() == [
        "WorkflowTemplate nightly-scores",
        "CronWorkflow nightly-scores",
        "WorkflowTemplate nightly-scores-monitor",
        "CronWorkflow nightly-scores-monitor",
    ], done.stderr
    text = file.read_text()
    for old, new in (("entrypoint:", "entrypont:"), ("limit: 3", "limits: 3"), ("dag:", "dags:")):
        file.write_text(text.replace(old, new))
        assert "unknown keys" in validate().stderr


@pytest.mark.nightly
def test_what_a_flyte_cluster_gets_has_order_resources_schedules_and_the_projects_volume(
    render: Render, tmp_path: Path
) -> None:
    project = shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)
    (project / "config/export.yaml").write_text(EVERYTHING)
    exports.export(project, "flyte")
    programs = libraries.environment(*systems()["flyte"].requires) / "bin"
    env = {**os.environ, "HOME": str(tmp_path)}
    package = tmp_path / "package.tgz"
    pack = ["--pkgs", "nightly_scores", "package", "--source", "orchestration/flyte"]
    for program, *arguments in (
        ["pyflyte", *pack, "--image", "registry.test/project:1", "--output", str(package)],
        ["python", str(ROOT / "tests/engines/flyte_package.py"), str(package)],
    ):
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, cwd=project, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(done.stdout)
    (task,) = content["tasks"].values()
    pod = task["k8sPod"]["podSpec"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "project"}
    assert pod["containers"][0]["image"] == "registry.test/project:1"
    nodes = content["workflows"]["nightly_scores.training"]
    names = [*STAGES, "register", "deploy"]
    assert [node["name"] for node in nodes] == names
    assert [node["after"] for node in nodes] == [[], *([name] for name in names[:-1])]
    requests = {node["name"]: node["requests"] for node in nodes}
    assert requests["train"] == {"CPU": "4", "MEMORY": "8Gi"}
    assert requests["gate"] == {"CPU": "500m", "MEMORY": "1Gi"}
    for plan, cron in (("nightly_scores", "15 2 * * 1"), ("nightly_scores_monitor", "@hourly")):
        about = content["plans"][plan]
        assert about["entityMetadata"]["schedule"]["cronSchedule"] == {"schedule": cron}
        assert about["concurrencyPolicy"]["max"] == 1


def test_the_graph_that_runs_is_the_one_that_was_read(render: Render) -> None:
    """What stands above for the order is that of the project."""
    graph = read_graph(render(level=1), "register")
    assert [" ".join(node.arguments) for node in graph.training] == ALL
