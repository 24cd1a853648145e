"""What `rung export` writes is the project's graph, and nobody's edits are lost."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render
from rung import exports
from rung.exceptions import RefusedError, UsageError
from rung.exports.export import (
    SYSTEMS,
    class_name,
    groovy_text,
    is_untouched,
    render,
    sealed,
    systems,
)
from rung.exports.graph import Node, read_graph, step_arguments
from rung.exports.settings import Resources, Settings, read_settings

STAGES = ["ingest", "validate", "split", "train", "evaluate", "compare", "gate", "package"]
EVERYTHING = """\
name: nightly_scores
schedule: "15 2 * * 1"
monitor_schedule: "@hourly"
retries: 3
retry_delay_seconds: 5
image: registry.test/project:1
volume: project
resources: {default: {cpu: 500m, memory: 1Gi}, train: {cpu: "4", memory: 8Gi}}
state: s3://bucket/state
role: arn:aws:iam::123456789012:role/pipelines
compute: cluster
environment: {ML_REGISTRY: "oci://registry.test/models"}
"""
NEEDED = """\
image: registry.test/x:1
volume: project
state: s3://bucket/state
role: arn:aws:iam::123456789012:role/pipelines
"""
NAMES = list(systems())
PYTHON = [
    name
    for name, system in systems().items()
    if any(path.endswith(".py") for path in system.files.values())
]
CLOUDS = [name for name, system in systems().items() if system.kind == "cloud"]


@pytest.fixture
def project(request: pytest.FixtureRequest, render: Render, tmp_path: Path) -> Path:
    is_for_cloud = any(name in request.node.name for name in CLOUDS)  # where none serves itself
    rendered = render(level=1, deployment="kubernetes") if is_for_cloud else render(level=1)
    ignore = shutil.ignore_patterns("rung_runtime")  # which no export reads
    return shutil.copytree(rendered, tmp_path / "project", symlinks=True, ignore=ignore)


def test_the_graph_is_that_of_dvc_and_then_delivery(project: Path) -> None:
    graph = read_graph(project)
    assert [node.name for node in graph.training] == [*STAGES, "register", "deploy"]
    before = [node.name for node in graph.training][:-1]
    assert [node.after for node in graph.training] == [(), *((name,) for name in before)]
    assert graph.training[3].arguments == ("run", "--only", "train")
    assert graph.training[-1].arguments == ("deploy",)
    assert [node.after for node in graph.monitoring] == [(), ("monitor",)]
    assert graph.monitoring[-1].arguments == ("retrain",)
    register = read_graph(project, "register")
    assert [node.name for node in register.training][-1] == "register"
    assert register.monitoring[-1].arguments == ("retrain", "--last", "register")
    assert [node.name for node in read_graph(project, "package").training] == STAGES


def test_a_project_with_a_cluster_deploys_to_it_and_only_registers_what_an_alarm_trains(
    render: Render,
) -> None:
    project = render(level=1, deployment="kubernetes")
    graph = read_graph(project)
    assert graph.training[-1].arguments == ("deploy", "--target", "production")
    assert graph.monitoring[-1].arguments == ("retrain", "--last", "register")
    graph = read_graph(project, "package")
    assert graph.monitoring[-1].arguments == ("retrain", "--last", "package")


def test_a_stage_of_ones_own_is_part_of_it_where_its_files_are_needed(project: Path) -> None:
    file = project / "dvc.yaml"
    stages = yaml.safe_load(file.read_text())
    stages["stages"]["enrich"] = {
        "cmd": "python enrich.py",
        "deps": ["data/interim/rows.parquet"],
        "outs": [{"data/interim/more.parquet": {"persist": True}}],
    }
    stages["stages"]["train"]["deps"].append("data/interim/more.parquet")
    file.write_text(yaml.safe_dump(stages, sort_keys=False))
    nodes = {node.name: node for node in read_graph(project).training}
    assert nodes["enrich"].after == ("ingest",)
    assert set(nodes["train"].after) == {"split", "enrich"}
    names = list(nodes)
    assert names.index("ingest") < names.index("enrich") < names.index("train")
    assert nodes["register"].after == ("package",)
    stages["stages"]["plot"] = {"cmd": "python plot.py", "deps": ["artifacts/gate.json"]}
    file.write_text(yaml.safe_dump(stages, sort_keys=False))
    nodes = {node.name: node for node in read_graph(project).training}
    assert set(nodes["register"].after) == {"package", "plot"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stages: [", "is malformed"),
        ("stages: {a: {}}\nstages: {b: {}}", "is malformed: the key stages is there twice"),
        ("[]", "is malformed"),
        ("stages: {a: {deps: [x], outs: [x]}}", "a cycle: a → a"),
        ('stages: {"x; touch y": {}}', "the stage 'x; touch y' cannot be a node elsewhere"),
        ('stages: {"x\\nretry: x": {}}', r"the stage 'x\\nretry: x' cannot be a node"),
        ("stages: {1: {}}", "the stage 1 cannot be a node elsewhere"),
        ("stages: {on: {}}", "the stage True cannot be a node elsewhere"),
        ("stages: {--help: {}}", "the stage '--help' cannot be a node"),
        ("stages: {a: {foreach: [1], do: {cmd: x}}}", "a has foreach, which no other system"),
        ("stages: {a: {cmd: x, deps: ['${raw}/a.csv']}}", "is malformed: 'raw'"),
        ("vars: [nowhere.yaml]\nstages: {a: {}}", "is malformed: .*No such file.*nowhere"),
        ("stages: {a: {matrix: {n: [1]}, cmd: x}}", "a has matrix, which no other system"),
        ("stages: {a: {}, monitor: {}}", "monitor is the name of a command of ml"),
    ],
)
def test_stages_that_cannot_be_read_are_told_with_their_file(
    project: Path, text: str, reason: str
) -> None:
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(UsageError, match=f"dvc.yaml.*{reason}"):
        read_graph(project)


@pytest.mark.parametrize(
    ("made", "read"),
    [
        ({"outs": ["data/more/rows.parquet"]}, {"deps": ["data/more"]}),
        ({"outs": [{"data/more/": {"cache": False}}]}, {"deps": ["./data/more/rows.parquet"]}),
        ({"metrics": [{"more.json": {"cache": False}}]}, {"deps": ["more.json"]}),
        ({"plots": ["more.json"]}, {"deps": ["more.json"]}),
        ({"outs": ["data/more"]}, {"wdir": "data", "deps": ["more"]}),
        ({"outs": ["${more}/rows.parquet"]}, {"deps": ["data/more"]}),
        ({"outs": ["data/more"]}, {"deps": ["${where.more}/rows.parquet"]}),
        ({"wdir": "data", "outs": ["../more"]}, {"deps": [{"more": {}}]}),
    ],
)
def test_a_stage_comes_after_what_makes_its_files_however_they_are_named(
    project: Path, made: dict[str, object], read: dict[str, object]
) -> None:
    stages = {"b": read, "a": made, "c": {"outs": ["data/moreover"]}}
    (project / "params.yaml").write_text("more: data/more\nwhere: {more: nowhere}\n")
    (project / "config/places.json").write_text('{"where": {"more": "data/more"}, "more": 1}')
    pipeline = {"vars": ["config/places.json:where", {"less": 1}], "stages": stages}
    (project / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    nodes = {node.name: node.after for node in read_graph(project).training}
    assert (nodes["a"], nodes["b"], nodes["c"]) == ((), ("a",), ())


def test_resources_are_for_nodes_that_there_are(project: Path) -> None:
    (project / "config/export.yaml").write_text("resources: {trian: {cpu: '8'}}\n")
    with pytest.raises(UsageError, match="resources: there is no node trian: use one of default"):
        exports.export(project, "airflow")
    settings = "last: package\nresources: {default: {}, deploy: {}, train: {}, monitor: {}}\n"
    (project / "config/export.yaml").write_text(settings)
    exports.export(project, "airflow")


@pytest.mark.parametrize("link", ["bitbucket-pipelines.yml", "orchestration/bitbucket"])
def test_nothing_is_exported_through_a_link_that_leads_out_of_the_project(
    project: Path, tmp_path: Path, link: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if link.startswith("orchestration"):
        elsewhere.mkdir()
    (project / link).parent.mkdir(exist_ok=True)
    (project / link).symlink_to(elsewhere)
    with pytest.raises(UsageError, match=rf"{link}.* leads out of the project by a link"):
        exports.export(project, "bitbucket")
    assert not elsewhere.exists() or not list(elsewhere.iterdir())
    assert not (project / "orchestration/bitbucket/ml").exists()


def test_an_export_that_is_killed_leaves_no_half_of_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports.export(project, "airflow")
    (project / "config/export.yaml").write_text("retries: 7\n")
    write_text = Path.write_text

    def killed(path: Path, text: str, encoding: str) -> int:
        write_text(path, text[:100], encoding)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            exports.export(project, "airflow")
    exports.export(project, "airflow")
    exports.export(project, "airflow", check=True)


@pytest.mark.parametrize("name", ["ML_BASE", "VERSION", "ML_REGISTRY"])
def test_a_secret_has_not_the_name_of_a_variable_of_jobs(project: Path, name: str) -> None:
    (project / "config/export.yaml").write_text(f"secrets: [{name}]\n")
    with pytest.raises(UsageError, match=f"secrets: {name} is set by the jobs themselves"):
        exports.export(project, "forgejo")


def test_a_secret_is_named_once_however_often_it_is_listed(project: Path) -> None:
    (project / "config/export.yaml").write_text("secrets: [KEY, ML_REGISTRY_AUTH, KEY]\n")
    exports.export(project, "forgejo")
    text = (project / ".forgejo/workflows/train.yml").read_text()
    train = text[text.index("  train:") : text.index("    steps:")]
    assert (train.count(" ML_REGISTRY_AUTH:"), train.count(" KEY:")) == (1, 1)


def test_what_starts_ml_is_quoted_where_a_shell_reads_it(project: Path) -> None:
    (project / "config/export.yaml").write_text('command: [env, "A=$(id) b", ml]\n')
    exports.export(project, "forgejo")
    assert "timeout 120m env 'A=$(id) b' ml " in (project / ".forgejo/ml").read_text()


def test_a_package_that_python_cannot_import_is_no_file_name(project: Path) -> None:
    file = project / "pyproject.toml"
    text = file.read_text().replace('package = "flight_delays"', 'package = "../../x"')
    file.write_text(text)
    with pytest.raises(UsageError, match=r"\[tool.rung\] has a package '../../x'"):
        exports.export(project, "airflow")


def test_a_project_without_stages_is_told_when_it_gets_them(render: Render) -> None:
    with pytest.raises(UsageError, match="comes with level 1, by `rung up`"):
        exports.export(render(level=0), "airflow")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("retries: -1", "retries: "),
        ("schedule: daily", "schedule: this is not five fields of cron, or one of @hourly, "),
        ("schedule: 61 * * * *", "schedule: the minute '61' is not what cron reads: 0 to 59"),
        ("schedule: 0 9-25 * * *", "schedule: the hour '9-25' is not"),
        ("schedule: 0 9 * * 5-1", "schedule: the weekday '5-1' is not .*: 0 to 6 or sun to sat"),
        ("schedule: '*/0 * * * *'", r"schedule: the minute '\*/0' is not"),
        (
            "schedule: 0 9 * jun,july *",
            "schedule: the month 'july' is not .*: 1 to 12 or jan to dec",
        ),
        ("schedle: x", "schedle: there is no such key: use one of name, schedule, "),
        (
            "resources: {train: {gpu: 1}}",
            "train.gpu: there is no such key: use one of cpu, memory, ",
        ),
        ("name: Not A Name", "name: "),
        ("resources: {train: {cpu: lots}}", r"resources.train.cpu: "),
        ("retries: [", "is not YAML"),
        ("retries: 1\nname: a\nretries: 2", "the key retries is there twice .*line 3"),
        ("resources: {train: {cpu: 1, cpu: 2}}", "the key cpu is there twice"),
        ("[]", "(?<=yaml): this must be keys with values"),
        ("resources: []", "resources: this must be keys with values"),
        ("state: bucket/state", "state: "),
        ("state: s3://me:secret@bucket/state", "state: "),
        ("state: s3://bucket/state; rm -rf /", "state: "),
        ("environment: {A-B: x}", "environment.A-B"),
        ("role: admin", "role: "),
        ("image: 'x\"; import os'", "image: "),
        ("volume: 'x: y'", "volume: "),
        ("schedule: '0 0 * * \"}'", "schedule: the weekday .* is not what cron reads"),
        ("resources: {train: {disk: 30}}", "resources.train.disk: "),
    ],
)
def test_a_setting_that_is_wrong_is_named(project: Path, text: str, reason: str) -> None:
    (project / "config/export.yaml").write_text(text)
    with pytest.raises(UsageError, match=f"config/export.yaml.*{reason}"):
        read_settings(project)


@pytest.mark.parametrize(
    "schedule", ["@daily", "*/15 0-6,22 1,15 * *", "5 4 * JAN-mar mon-fri", "0 0 31 12 0"]
)
def test_what_cron_reads_is_a_schedule(schedule: str) -> None:
    assert Settings(schedule=schedule).schedule == schedule


def test_a_number_needs_no_quotes_where_kubernetes_takes_a_text(project: Path) -> None:
    text = "resources: {train: {cpu: 4, memory: 1000}}\nenvironment: {ML_MAX_ROWS: 100}\n"
    (project / "config/export.yaml").write_text(text)
    settings = read_settings(project)
    assert settings.resources == {"train": Resources(cpu="4", memory="1000")}
    assert settings.environment == {"ML_MAX_ROWS": "100"}


@pytest.mark.parametrize(
    ("cpu", "memory", "cores", "memory_bytes"),
    [
        ("500m", "1Gi", 0.5, 2**30),
        ("4", "8G", 4, 8 * 10**9),
        ("1.5", "300", 1.5, 300),
        ("2", "20Ki", 2, 20 * 1024),
    ],
)
def test_resources_are_numbers_for_systems_that_want_them(
    cpu: str, memory: str, cores: float, memory_bytes: int
) -> None:
    resources = Resources(cpu=cpu, memory=memory)
    assert resources.cores == cores
    assert resources.memory_bytes == memory_bytes


def test_no_settings_are_the_defaults(project: Path) -> None:
    assert read_settings(project) == Settings()
    (project / "config/export.yaml").write_text("# all of it is optional\n")
    assert read_settings(project) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_is_the_whole_graph_with_its_settings(project: Path, name: str) -> None:
    (project / "config/export.yaml").write_text(EVERYTHING)
    exports.export(project, name)
    exports.export(project, name, check=True)
    files = render(project, systems()[name])
    assert files
    whole = "".join((project / file.path).read_text() for file in files)
    for node in (*STAGES, "register", "deploy", "monitor", "retrain"):
        assert re.search(rf"\b{node}\b", whole), node
    is_ci = systems()[name].kind == "ci"
    if systems()[name].schedules:
        assert "15 2 * * 1" in whole
        assert "@hourly" in whole or (is_ci and "0 * * * *" in whole)
    if not is_ci:  # where a person names the job
        assert all("nightly_scores" in str(file.path) for file in files)


# What train asks for and what all others do, as each system writes it.
ASKED = {
    "argo": ("memory: 8Gi", "memory: 1Gi"),
    "flyte": ('"train": ("4", "8Gi")', '"gate": ("500m", "1Gi")'),
    "kfp": ('"train": ("4", "8Gi")', '"gate": ("500m", "1Gi")'),
    "ray": ('"train": {"num_cpus": 4.0, "memory": 8589934592}', '"gate": {"num_cpus": 0.5'),
    "sagemaker": ('"ml.m5.xlarge"', '"ml.t3.medium"'),
    "vertex": ('"train": ("4", "8Gi")', '"gate": ("500m", "1Gi")'),
    "zenml": ('"train": (4.0, "8GiB")', '"gate": (0.5, "1GiB")'),
}


def test_nodes_ask_for_the_resources_of_the_settings(project: Path) -> None:
    (project / "config/export.yaml").write_text(EVERYTHING + "last: register\n")
    for name, texts in ASKED.items():
        whole = "".join(file.text for file in render(project, systems()[name]))
        for text in texts:
            assert text in whole, f"{name}: {text}"
    for name, system in systems().items():
        templates = "".join(file.read_text() for file in system.folder.glob("*.jinja"))
        assert ("resources_of" in templates) is (name in {*ASKED, "azureml"}), name


@pytest.mark.parametrize("name", PYTHON)
def test_exported_python_is_clean_as_a_projects_own_code_is(project: Path, name: str) -> None:
    """Its first lines keep a team's own formatter from changing it; it is clean without them."""
    (project / "config/export.yaml").write_text(EVERYTHING)
    exports.export(project, name)
    for file in (project / "orchestration" / name).rglob("*.py"):
        text = file.read_text()
        assert text.startswith("# ruff: noqa\n# fmt: off\n")
        file.write_text(text.removeprefix("# ruff: noqa\n# fmt: off\n"))
    for command in (["check"], ["format", "--check", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "orchestration"]
        done = subprocess.run(ruff, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_is_stale_as_soon_as_the_graph_or_a_setting_changes(project: Path) -> None:
    exports.export(project, "dagster")
    (project / "config/export.yaml").write_text("retries: 7\n")
    with pytest.raises(RefusedError, match=r"flight_delays.py is stale: run `rung export dagster`"):
        exports.export(project, "dagster", check=True)
    exports.export(project, "dagster")
    exports.export(project, "dagster", check=True)
    (project / "config/export.yaml").write_text("last: package\n")
    with pytest.raises(RefusedError, match="is stale"):
        exports.export(project, "dagster", check=True)


def test_a_file_that_is_missing_is_not_current(project: Path) -> None:
    with pytest.raises(RefusedError, match="is missing"):
        exports.export(project, "luigi", check=True)


def test_a_check_of_no_system_in_particular_is_one_of_all_that_were_exported(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.check_all(project)
    assert "the project has no exported files" in capsys.readouterr().out
    exports.export(project, "luigi")
    exports.export(project, "circleci")
    exports.check_all(project)
    assert "The files for CircleCI, Luigi are current." in capsys.readouterr().out
    (project / "config/export.yaml").write_text("retries: 7\n")
    with pytest.raises(RefusedError, match=r"(?s)rung export circleci`.*rung export luigi`"):
        exports.check_all(project)


def test_a_graph_that_is_called_otherwise_is_not_there_twice(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("metaflow", "kedro", "airflow")
    for name in names:
        exports.export(project, name)
    copy = project / "orchestration/airflow/ours.py"
    exported = (project / "orchestration/airflow/flight_delays.py").read_text()
    copy.write_text(exported.replace("PROJECT", "ROOT"))
    (project / "config/export.yaml").write_text("name: nightly\n")
    with pytest.raises(RefusedError, match=r"airflow/flight_delays\.py is not needed"):
        exports.export(project, "airflow", check=True)
    exports.export(project, "airflow")
    exports.refresh(project)  # as an update does
    exports.check_all(project)
    folder = project / "orchestration"
    left = {path.name for path in folder.glob("*/*")}
    assert left == {"nightly.py", "nightly_monitor.py", "nightly", "ours.py"}
    assert not [path for path in folder.rglob("*") if "flight_delays" in path.name]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n# ours\n",
        lambda text: text.replace("PROJECT =", "ROOT ="),
        lambda text: "# written by hand\n",
        lambda text: "",
    ],
)
def test_a_file_that_somebody_edited_is_refused_and_never_overwritten(
    project: Path, edit: object, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.export(project, "prefect")
    file = project / "orchestration/prefect/flight_delays.py"
    assert callable(edit)
    file.write_text(edit(file.read_text()))
    edited = file.read_bytes()
    (project / "config/export.yaml").write_text("retries: 7\n")
    for check in (False, True):
        with pytest.raises(RefusedError, match=r"edited"):
            exports.export(project, "prefect", check=check)
    exports.refresh(project)  # as an update does
    assert "was edited, and stays as it is" in capsys.readouterr().out
    assert file.read_bytes() == edited


def test_an_update_brings_up_to_date_what_was_exported_and_nothing_else(project: Path) -> None:
    exports.export(project, "airflow")
    (project / "config/export.yaml").write_text("retries: 7\n")
    exports.refresh(project)
    exports.export(project, "airflow", check=True)
    assert [path.name for path in (project / "orchestration").iterdir()] == ["airflow"]


def test_an_update_names_what_cannot_be_exported_any_more(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.export(project, "airflow")
    file = project / "orchestration/airflow/flight_delays.py"
    before = file.read_text()
    (project / "config/export.yaml").write_text("resources: {trian: {cpu: '8'}}\n")
    exports.refresh(project)
    assert file.read_text() == before
    assert "The files for Airflow stay as they are: config/export.yaml: resources: there is no" in (
        " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.parametrize("level", [0, 1])
def test_an_update_of_a_project_that_exported_nothing_does_nothing(
    render: Render, level: int
) -> None:
    exports.refresh(render(level=level))


def test_line_ends_of_windows_are_no_edit(project: Path) -> None:
    exports.export(project, "luigi")
    file = project / "orchestration/luigi/flight_delays.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    exports.export(project, "luigi", check=True)


def test_a_digest_covers_every_character() -> None:
    text = sealed(f"a\nsha256:{'0' * 64}\nb\n")
    assert is_untouched(text)
    assert not is_untouched(text.replace("b", "c"))
    assert not is_untouched(text.replace("sha256:", "sha256: "))
    assert not is_untouched("")
    with pytest.raises(ValueError, match="no place"):
        sealed("a")


def test_a_system_that_there_is_not_is_named_with_those_that_there_are(project: Path) -> None:
    with pytest.raises(UsageError, match=r"no export airflw: use one of airflow, "):
        exports.export(project, "airflw")


def test_every_system_has_its_proof_and_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    exports.list_systems()
    listed = capsys.readouterr().out
    for name, system in systems().items():
        row = rf"^{name} +{re.escape(system.label)} +{system.proof}: \S"
        assert re.search(row, listed, re.MULTILINE)
        assert system.proof in ("live", "validated", "stand-in")
        assert system.kind in ("orchestrator", "cloud", "ci")
        for template in system.files:  # its own, or one that systems share
            assert any((folder / template).is_file() for folder in (system.folder, SYSTEMS))


def test_a_setting_that_a_system_needs_is_asked_for(project: Path) -> None:
    with pytest.raises(UsageError, match="does not set image and volume, which Argo Workflows"):
        exports.export(project, "argo")
    assert not (project / "orchestration").exists()


def test_groovy_finds_nothing_of_its_own_in_a_text() -> None:
    assert groovy_text("echo '$A' \\n") == r"'echo \'$A\' \\n'"
    assert groovy_text("a\nb") == "'''a\nb'''"


def test_names_become_names_of_classes() -> None:
    assert class_name("flight_delays") == "FlightDelays"


# --- where nodes share no folder -----------------------------------------------------------------


def test_nodes_that_share_no_folder_have_places_for_what_they_leave(project: Path) -> None:
    graph = read_graph(project)
    settings = Settings(state="s3://bucket/state", source_in_state=True, retries=1)
    ends = ["--retries", "1", "--retry-delay", "60", "--timeout", "120"]

    def arguments(node: Node) -> list[str]:
        words = step_arguments(node, graph, settings)
        assert words[-len(ends) :] == ends
        return words[: -len(ends)]

    state = "s3://bucket/state"
    first, second, *_ = graph.training
    monitor, retrain = graph.monitoring
    assert arguments(first) == [
        *("step", "ingest", "--in", f"{state}/source", "--out", f"{state}/ingest")
    ]
    assert arguments(second) == [
        *("step", "validate", "--in", f"{state}/ingest", "--out", f"{state}/validate")
    ]
    assert arguments(monitor) == ["step", "monitor", "--out", f"{state}/monitor"]
    assert arguments(retrain) == [
        *("step", "retrain", "--in", f"{state}/source", "--out", f"{state}/retrain")
    ]
    graph = read_graph(project, "register")
    assert arguments(graph.monitoring[-1])[:4] == ["step", "retrain", "--last", "register"]


@pytest.mark.parametrize("name", CLOUDS)
def test_a_service_that_would_end_with_its_node_is_not_exported(
    render: Render, tmp_path: Path, name: str
) -> None:
    project = shutil.copytree(render(level=1), tmp_path / "local", symlinks=True)
    (project / "config/export.yaml").write_text(NEEDED)
    with pytest.raises(UsageError, match="would end with it: set `last: register`"):
        exports.export(project, name)
    (project / "config/export.yaml").write_text(f"{NEEDED}last: register\n")
    exports.export(project, name)


@pytest.mark.parametrize(
    ("resources", "instance"),
    [
        ({}, "ml.t3.medium"),
        ({"memory": "8Gi"}, "ml.m5.large"),
        ({"cpu": "3500m"}, "ml.m5.xlarge"),
        ({"memory": "9G"}, "ml.m5.xlarge"),
        ({"cpu": "96", "memory": "384Gi"}, "ml.m5.24xlarge"),
        ({"cpu": "4", "instance": "ml.g5.xlarge"}, "ml.g5.xlarge"),
    ],
)
def test_sagemaker_gets_the_smallest_machine_that_suffices(
    resources: dict[str, str], instance: str
) -> None:
    assert Resources(**resources).sagemaker_instance == instance


def test_no_machine_that_suffices_is_told() -> None:
    with pytest.raises(UsageError, match=r"no ml\.m5 machine has 1 CPU and 999Gi: set instance"):
        _ = Resources(memory="999Gi").sagemaker_instance


def test_a_schedule_of_azureml_that_there_is_no_longer_is_removed_unless_it_was_edited(
    project: Path,
) -> None:
    settings = project / "config/export.yaml"
    folder = project / "orchestration/azureml"
    settings.write_text(f'{NEEDED}schedule: "15 2 * * 1"\nmonitor_schedule: "@daily"\n')
    exports.export(project, "azureml")
    monitor = folder / "flight_delays_monitor_schedule.yaml"
    assert 'expression: "0 0 * * *" # @daily' in monitor.read_text()
    (folder / "flight_delays_schedule.yaml").write_text("# ours")
    settings.write_text(NEEDED)
    with pytest.raises(RefusedError, match=r"monitor_schedule\.yaml is not needed"):
        exports.export(project, "azureml", check=True)
    exports.export(project, "azureml")
    exports.export(project, "azureml", check=True)
    assert sorted(file.name for file in folder.iterdir()) == [
        *("flight_delays.yaml", "flight_delays_monitor.yaml", "flight_delays_schedule.yaml")
    ]


def sagemaker_definitions(project: Path) -> dict[str, Any]:
    """Export for SageMaker; return the definitions, by the name of their file."""
    (project / "config/export.yaml").write_text(EVERYTHING)
    exports.export(project, "sagemaker")
    files = sorted((project / "orchestration/sagemaker").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def test_sagemakers_own_models_of_its_api_accept_each_step_and_no_typo(project: Path) -> None:
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model("CreateProcessingJob").input_shape

    def problems(arguments: dict[str, Any]) -> str:
        report = ParamValidator().validate({"ProcessingJobName": "x"} | arguments, shape)
        return str(report.generate_report())

    definitions = sagemaker_definitions(project)
    assert definitions.keys() == {"nightly_scores", "nightly_scores_monitor"}
    steps = [step for definition in definitions.values() for step in definition["Steps"]]
    assert len(steps) == len(STAGES) + 4
    for step in steps:
        assert problems(step["Arguments"]) == ""
        words = step["Arguments"]["AppSpecification"]["ContainerEntrypoint"]
        assert len(words) <= 100
        assert all(len(word) <= 256 for word in words)
        assert re.fullmatch(r"[A-Za-z0-9-_]{1,64}", step["Name"])
        assert problems(step["Arguments"] | {"RolArn": "x"}) != ""
    train = {step["Name"]: step for step in steps}["train"]
    assert train["DependsOn"] == ["split"]
    cluster = train["Arguments"]["ProcessingResources"]["ClusterConfig"]
    assert cluster["InstanceType"] == "ml.m5.xlarge"
    assert train["Arguments"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 4 * 7_200 + 15}
    assert train["Arguments"]["Environment"] == {"ML_REGISTRY": "oci://registry.test/models"}
    assert train["RetryPolicies"][0]["MaxAttempts"] == 3


def test_sagemakers_api_takes_the_definitions(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto stands in for it."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("sagemaker", region_name="eu-west-1")
        for name, definition in sagemaker_definitions(project).items():
            client.create_pipeline(
                PipelineName=name.replace("_", "-"),
                ClientRequestToken="x" * 32,
                PipelineDefinition=json.dumps(definition),
                RoleArn="arn:aws:iam::123456789012:role/pipelines",
            )
        assert len(client.list_pipelines()["PipelineSummaries"]) == 2
