"""What is exported for clouds runs: each node in a folder of its own, with an object store between.

The clouds themselves cannot run here. Their own libraries accept the files, and the commands of the
nodes run in order, as a cloud would start them, with what stands in for the cloud's object store.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx
import libraries
import obstore
import polars as pl
import pytest
import tables
import yaml
from conftest import EVERY, ROOT, Copy, Project, Render, environment
from object_stores import azure_container, google_bucket
from rung import exports
from rung.exports.export import systems
from test_exports import CLOUDS, EVERYTHING, STAGES
from test_kubernetes import IMAGE, Cluster

__all__ = ["azure_container", "google_bucket"]

pytestmark = pytest.mark.slow
# What is not in a repository, and so in no image that is made from it.
NOT_CODE = ("artifacts", "interim", "cache", "tmp", "dvc.lock", "mlflow.db", "mlartifacts", ".git")
# What differs between two runs of the same: times, durations, and what these are in.
VOLATILE = {
    "arguments", "commit", "digest", "ended", "executor", "inputs", "started",
    "latency_ms", "package_digest", "version", "yardstick_ms",
    "MODEL_CARD.md", "gate.json", "lineage.json", "metrics.json",
}  # fmt: skip


@dataclass(frozen=True)
class CloudNode:
    """What a cloud starts in a container, and after which others."""

    name: str
    command: list[str]
    after: list[str]


def nodes_of(name: str, project: Path) -> list[CloudNode]:
    """Return the nodes of an exported training in their order."""
    file = next((project / "orchestration" / name).glob(f"*s{Path(entry(name)).suffix}"))
    nodes = {node.name: node for node in READERS[name](file)}
    order = TopologicalSorter({node.name: node.after for node in nodes.values()}).static_order()
    return [nodes[node] for node in order]


def entry(name: str) -> str:
    return next(iter(systems()[name].files.values()))


def sagemaker_nodes(file: Path) -> list[CloudNode]:
    steps = json.loads(file.read_text())["Steps"]
    return [
        CloudNode(
            step["Name"],
            step["Arguments"]["AppSpecification"]["ContainerEntrypoint"],
            step["DependsOn"],
        )
        for step in steps
    ]


def azureml_nodes(file: Path) -> list[CloudNode]:
    jobs = yaml.safe_load(file.read_text())["jobs"]
    nodes = []
    for name, job in jobs.items():
        done = file.parent / "done" / name
        done.mkdir(parents=True)
        command = job["command"].replace("${{outputs.done}}", str(done))
        assert "${{" not in command
        nodes.append(CloudNode(name, ["bash", "-c", command], list(job.get("inputs", {}))))
    return nodes


def vertex_nodes(file: Path) -> list[CloudNode]:
    python = libraries.environment(*systems()["vertex"].requires) / "bin/python"
    subprocess.run([str(python), str(file)], check=True, capture_output=True)
    pipeline = json.loads(file.with_suffix(".json").read_text())
    executors = pipeline["deploymentSpec"]["executors"]
    nodes = []
    for name, task in pipeline["root"]["dag"]["tasks"].items():
        label = pipeline["components"][task["componentRef"]["name"]]["executorLabel"]
        command = executors[label]["container"]["command"]
        nodes.append(CloudNode(name, command, task.get("dependentTasks", [])))
    return nodes


READERS: dict[str, Callable[[Path], list[CloudNode]]] = {
    "azureml": azureml_nodes,
    "sagemaker": sagemaker_nodes,
    "vertex": vertex_nodes,
}


@dataclass
class Cloud:
    """A project that was exported, and an object store."""

    reference: Copy  # the same project in one folder
    code: Path
    top: Path
    variables: dict[str, str]

    def start(self, node: CloudNode) -> subprocess.CompletedProcess[str]:
        """Run a node in a new folder that has the code alone."""
        folder = self.folder(node.name)
        env = self.environment(folder)
        return subprocess.run(
            node.command, cwd=self.top.parent, env=env, capture_output=True, text=True, check=False
        )

    def folder(self, name: str) -> Path:
        """Return a new folder with the code alone."""
        folder = self.top / f"{name}-{len(list(self.top.iterdir()))}"
        shutil.copytree(self.code, folder)
        return folder

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables of a container with that folder."""
        env = environment(self.top.parent / "home", str(self.reference.project.path / ".venv/bin"))
        env |= self.variables | {"PROJECT": str(folder)}
        env["PYTHONPATH"] = f"{folder / 'src'}:{self.top.parent / 'more'}"
        return env


@pytest.fixture
def store(request: pytest.FixtureRequest, name: str) -> str:
    """Return a bucket in the object store of a cloud."""
    stores = {"vertex": "google_bucket", "azureml": "azure_container"}
    place: str = request.getfixturevalue(stores.get(name, "bucket"))
    return place


@pytest.fixture
def cloud(project: Callable[[int], Project], store: str, tmp_path: Path) -> Cloud:
    reference = Copy(project(1), project(1).copy(tmp_path / "reference"))
    code = shutil.copytree(
        reference.path, tmp_path / "code", ignore=shutil.ignore_patterns(*NOT_CODE)
    )
    (tmp_path / "nodes").mkdir()
    more = tmp_path / "more"  # obstore, which `uv add` would bring
    more.mkdir()
    (more / "obstore").symlink_to(Path(obstore.__file__).parent)
    ml = reference.project.path / ".venv/bin/ml"
    (code / "config/export.yaml").write_text(
        f"command: [{ml}]\nlast: register\nretries: 1\nretry_delay_seconds: 0\n"
        f"image: registry.test/project:1\nstate: {store}/state\n"
        "role: arn:aws:iam::123456789012:role/pipelines\n"
    )
    names = [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]
    variables = {name: os.environ[name] for name in names}
    variables["ML_REGISTRY"] = str(tmp_path / "registry")
    return Cloud(reference, code, tmp_path / "nodes", variables)


def differences(ours: Any, theirs: Any, where: str) -> list[str]:
    """Name what differs between two documents, but for what two runs never have in common."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if ours.get("id") == theirs.get("id") == "latency":  # the check of the gate
            return []
        keys = sorted({*ours, *theirs} - VOLATILE)
        pairs = [(ours.get(key), theirs.get(key), f"{where}.{key}") for key in keys]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        both = enumerate(zip(ours, theirs, strict=True))
        pairs = [(*items, f"{where}[{number}]") for number, items in both]
    else:
        return [] if ours == theirs else [f"{where}: {ours!r:.80} and {theirs!r:.80}"]
    return [difference for pair in pairs for difference in differences(*pair)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "sagemaker" else pytest.mark.nightly)
        for name in CLOUDS
    ],
)
def test_nodes_that_share_nothing_leave_what_ml_run_leaves(
    cloud: Cloud, store: str, name: str, module: Callable[[str], Any], tmp_path: Path
) -> None:
    ran = cloud.reference.project.run("ml", "run", cwd=cloud.reference.path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    exports.export(cloud.code, name)
    nodes = nodes_of(name, cloud.code)
    assert [node.name for node in nodes] == [*STAGES, "register"]
    for node in nodes:
        done = cloud.start(node)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "files, 0 of them new" in done.stdout  # `ml register` makes none
    # All of it is in the last snapshot.
    place = module("remote_step.snapshot").open_place(f"{store}/state/register", tmp_path)
    manifest = module("remote_step.snapshot").read_manifest(place)
    last = Copy(cloud.reference.project, shutil.copytree(cloud.code, tmp_path / "last"))
    for path, stored in manifest.files.items():
        file = last.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(place.storage.read(stored.object_name))
    last.ml("report", exits=0)  # reads each document, and checks its digest
    different = [
        difference
        for step in EVERY
        for difference in differences(last.read(step), cloud.reference.read(step), step)
    ]
    assert different == []
    model = "artifacts/model.skops"
    assert last.read("train")["outputs"][model] == cloud.reference.read("train")["outputs"][model]
    assert (tmp_path / "registry").is_dir()
    # What is not stale does not run again.
    train = nodes[STAGES.index("train")]
    done = cloud.start(train)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stage 'train' didn't change, skipping" in done.stdout + done.stderr
    assert "0 of them new" in done.stdout
    # Poisoned data is refused, once, for the reason that `ml run` gives.
    source = cloud.code / yaml.safe_load((cloud.code / "config/data.yaml").read_text())["source"]
    header, _, rows = source.read_text().partition("\n")
    source.write_text(f"{header}\n{rows.replace('EWR', 'XXX')}")
    assert cloud.start(nodes[0]).returncode == 0
    refused = cloud.start(nodes[1])
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "tried again" not in refused.stderr
    shutil.copy(source, last.path / source.relative_to(cloud.code))
    reason = last.ml("run", exits=1).stderr.strip().splitlines()[-1].strip()
    assert reason
    assert reason in refused.stderr


def document(module: Callable[[str], Any], place: str, path: str) -> Any:
    """Return a document that is in a snapshot."""
    snapshot = module("remote_step.snapshot")
    opened = snapshot.open_place(place, Path.cwd())
    stored = snapshot.read_manifest(opened).files[path]
    return json.loads(opened.storage.read(stored.object_name))


@contextmanager
def serving(cloud: Cloud, version: str) -> Iterator[str]:
    """Serve a version from the registry, as the pods of a cluster would."""
    folder = cloud.folder("pods")
    env = cloud.environment(folder)
    ml = str(cloud.reference.project.path / ".venv/bin/ml")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fetch = [ml, "fetch", version, "--to", "artifacts/model"]
    subprocess.run(fetch, cwd=folder, env=env, check=True, capture_output=True)
    service = subprocess.Popen([ml, "serve", "--port", str(port)], cwd=folder, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert service.poll() is None
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            time.sleep(0.2)
        yield url
    finally:
        service.terminate()
        service.wait()


@pytest.mark.nightly
@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("name", ["sagemaker"])
def test_nodes_deploy_to_a_cluster_and_what_its_pods_log_leads_to_another_training(
    cloud: Cloud,
    store: str,
    name: str,
    render: Render,
    module: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """A recorded kubectl stands in for the cluster, and a service of this machine for its pods."""
    cluster = Cluster(tmp_path / "cluster")
    with_cluster = render(level=1, deployment="kubernetes")
    for path in ("deploy", "src/rung_runtime/adapters/target_kubernetes"):
        shutil.copytree(with_cluster / path, cloud.code / path, dirs_exist_ok=True)
    about = cloud.code / "pyproject.toml"
    local = 'deployment = "local"'
    assert local in about.read_text()
    about.write_text(about.read_text().replace(local, 'deployment = "kubernetes"'))
    (cloud.code / "config/delivery.yaml").write_text(
        f"service: {{log: {store}/predictions, log_seconds: 0.3}}\nwatch: {{seconds: 1}}\n"
        f"image: {IMAGE}\n"
    )
    (cloud.code / "config/drift.yaml").write_text(
        "window: {hours: 0, rows: 50}\nmax_age_days: 0.00001\n"
    )
    settings = cloud.code / "config/export.yaml"
    settings.write_text(settings.read_text().replace("last: register\n", ""))
    exports.export(cloud.code, name)
    *nodes, deploy = nodes_of(name, cloud.code)
    assert deploy.name == "deploy"
    for node in nodes:
        done = cloud.start(node)
        assert done.returncode == 0, done.stdout + done.stderr
    version = document(module, f"{store}/state/register", "artifacts/model/manifest.json")
    programs = f"{cluster.folder}{os.pathsep}{cloud.environment(cloud.code)['PATH']}"
    cloud.variables["PATH"] = programs
    with serving(cloud, version["version"]) as url:
        cluster.answers("port-forward", f"Forwarding from {url.removeprefix('http://')} -> 8080")
        done = cloud.start(deploy)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = pl.read_csv(tables.FLIGHTS, n_rows=120).drop("delayed").to_dicts()
        for first in (0, 60):
            answer = httpx.post(f"{url}/predict", json={"rows": rows[first : first + 60]})
            assert answer.status_code == 200
    assert [line.split()[0] for line in cluster.commands] == ["apply", "rollout", "port-forward"]
    deployment = document(module, f"{store}/state/deploy", "artifacts/deployment.json")
    assert (deployment["verdict"], deployment["target"]) == ("deployed", "kubernetes/production")
    assert deployment["version"] == version["version"]

    file = cloud.code / f"orchestration/{name}/{exports.graph_name(cloud.code)}_monitor.json"
    monitor, retrain = sagemaker_nodes(file)
    done = cloud.start(monitor)
    assert done.returncode == 0, done.stdout + done.stderr
    judged = document(module, f"{store}/state/monitor", "artifacts/monitor.json")
    assert judged["decision"] == "retrain"
    assert judged["alarm"].startswith("age-")
    assert sum(window["rows"] for window in judged["windows"]) == 1 + 120  # one of the smoke test
    done = cloud.start(retrain)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" for {judged['alarm']}" in done.stdout
    assert "nothing to do" not in done.stdout
    done = cloud.start(retrain)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"nothing to do: {judged['alarm']}" in done.stdout


@pytest.fixture
def exported(render: Render, tmp_path: Path) -> Callable[[str], Path]:
    """Export a project with every setting, and return the folder of the files."""

    def exported(name: str) -> Path:
        project = shutil.copytree(render(level=1, deployment="kubernetes"), tmp_path / "project")
        (project / "config/export.yaml").write_text(EVERYTHING)
        exports.export(project, name)
        return project / "orchestration" / name

    return exported


@pytest.mark.nightly
def test_azures_library_accepts_what_is_exported_and_no_typo(
    exported: Callable[[str], Path],
) -> None:
    folder = exported("azureml")
    python = libraries.environment("azure-ai-ml>=1.35") / "bin/python"

    def validate(name: str) -> str:
        script = [str(python), str(ROOT / "tests/engines/azureml_validate.py"), str(folder / name)]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        return done.stdout.strip()  # stderr has what is experimental there

    names = ["", "_monitor", "_schedule", "_monitor_schedule"]
    for name in names:
        assert validate(f"nightly_scores{name}.yaml") == "accepted", name
    pipeline = folder / "nightly_scores.yaml"
    text = pipeline.read_text()
    for name, job in yaml.safe_load(text)["jobs"].items():  # which it does not check
        for before, binding in job.get("inputs", {}).items():
            assert binding["path"] == f"${{{{parent.jobs.{before}.outputs.done}}}}", name
    for old, new in (
        ("environment_variables", "environment_variable"),
        ("type: command", "type: comand"),
        ("timeout: ", "timeout: soon "),
    ):
        assert old in text
        pipeline.write_text(text.replace(old, new))
        assert validate(pipeline.name) != "accepted", new


@pytest.mark.nightly
def test_vertexs_client_loads_what_is_compiled(exported: Callable[[str], Path]) -> None:
    folder = exported("vertex")
    nodes = vertex_nodes(folder / "nightly_scores.py")
    assert {node.name for node in nodes} == {*STAGES, "register", "deploy"}
    python = libraries.environment("google-cloud-aiplatform[pipelines]>=1.160") / "bin/python"
    script = [str(python), str(ROOT / "tests/engines/vertex_load.py")]
    file = folder / "nightly_scores.json"
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == sorted(node.name for node in nodes), done.stderr
    file.write_text(file.read_text().replace("pipelineInfo", "pipelineInf"))
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
