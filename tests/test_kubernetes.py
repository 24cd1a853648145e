"""Kubernetes: the manifests keep their schema and what they promise; kubectl is asked in order.

There is no cluster: `kubectl` is the real one for what it draws, and a stand-in for all else, which
records what it is asked and plays the answers that a test wrote down.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml
from conftest import Copy, Render
from test_delivery import DELIVERY, Loop

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.needs("kubectl")
OVERLAYS = ["base", "staging", "production"]
OLDEST = "1.31"
NEWEST = "1.37"
IMAGE = "registry.example/team/model@sha256:" + "1" * 64

# Answers come from the folder `answers`: a file for each subcommand, `fails` in its first line.
STAND_IN = """#!{python}
# A stand-in for kubectl: records, and plays what the test wrote down. What is applied, is got.
import json, os, pathlib, subprocess, sys, time, yaml
here, asked = pathlib.Path({folder!r}), sys.argv[1:]
if asked[0] == "kustomize":
    os.execv({kubectl!r}, ["kubectl", *asked])
with (here / "asked").open("a") as file:
    file.write(" ".join(asked) + "\\n")
if asked[0] == "apply":
    drawn = subprocess.run([{kubectl!r}, "kustomize", asked[2]], capture_output=True, check=True)
    (here / "applied.yaml").write_bytes(drawn.stdout)
    pods = [d for d in yaml.safe_load_all(drawn.stdout) if d["kind"] == "Deployment"]
    (here / "answers" / "get").write_text(json.dumps(pods[0]))
name = "-".join(asked[:2]) if asked[0] == "rollout" else asked[0]
answer = here / "answers" / name
text = answer.read_text() if answer.exists() else ""
if text.startswith("fails"):
    sys.exit(text.removeprefix("fails "))
print(text, flush=True)
if asked[0] == "port-forward":
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def kubernetes(module: Callable[[str], ModuleType]) -> ModuleType:
    """Import the target."""
    return module("adapters.target_kubernetes")


class Cluster:
    """The stand-in, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "answers").mkdir(parents=True)
        script = STAND_IN.format(python=sys.executable, folder=str(folder), kubectl=KUBECTL)
        (folder / "kubectl").write_text(script)
        (folder / "kubectl").chmod(0o755)

    def answers(self, subcommand: str, text: str) -> None:
        (self.folder / "answers" / subcommand).write_text(text)

    def runs(self, version: str, image: str) -> None:
        """Say which pods there are."""
        container = {"name": "service", "image": image}
        pods = {"metadata": {"annotations": {"model-version": version}}}
        pods["spec"] = {"containers": [container]}  # type: ignore[dict-item]
        self.answers("get", json.dumps({"spec": {"template": pods}}))

    @property
    def commands(self) -> list[str]:
        """The commands, but for those that only look."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if not line.startswith("get ")]


@pytest.fixture
def cluster(tmp_path: Path, render: Render, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Give a stand-in that is first on the PATH, in a copy of a project."""
    project = tmp_path / "project"
    shutil.copytree(render(level=1, deployment="kubernetes", package_name="in_cluster"), project)
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{tmp_path / 'cluster'}{os.pathsep}{os.environ['PATH']}")
    return Cluster(tmp_path / "cluster")


def drawn(project: Path, overlay: str) -> dict[str, dict[str, Any]]:
    """Draw an overlay with the real kubectl."""
    text = os.popen(f"{KUBECTL} kustomize {project}/deploy/{overlay}").read()
    return {manifest["kind"]: manifest for manifest in yaml.load_all(text, yaml.CSafeLoader)}


@pytest.mark.parametrize("kubernetes_version", [OLDEST, NEWEST])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_keep_the_schema_of_kubernetes(
    render: Render, overlay: str, kubernetes_version: str
) -> None:
    manifests = drawn(render(level=1, deployment="kubernetes"), overlay)
    assert len(manifests) == 6
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, kubernetes_version, strict=True)


def test_control_a_misspelt_key_breaks_the_schema(render: Render) -> None:
    deployment = drawn(render(level=1, deployment="kubernetes"), "production")["Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_nothing_but_serve(render: Render, overlay: str) -> None:
    manifests = drawn(render(level=1, deployment="kubernetes"), overlay)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    # The Dockerfile's user, or one that the cluster chooses.
    assert {"runAsUser", "runAsGroup", "fsGroup"}.isdisjoint(pod["securityContext"])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/tmp", "/app/predictions"}
    assert all("emptyDir" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_asked_sized_and_given_time_to_end(
    render: Render, module: Callable[[str], ModuleType], overlay: str
) -> None:
    manifests = drawn(render(level=1, deployment="kubernetes"), overlay)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/healthz"
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    paused = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drains = module("config.delivery").Service().drain_seconds
    assert pod["terminationGracePeriodSeconds"] > paused + drains
    assert manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        chosen = manifests[kind]["spec"][key]["matchLabels"]
        assert chosen
        assert chosen.items() <= labels.items()


def test_only_pinned_images_are_deployed(
    kubernetes: ModuleType, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = "registry.example/team/model:latest"
    with pytest.raises(kubernetes.UsageError, match="is not NAME@sha256:DIGEST"):
        kubernetes.Kubernetes("production", tag).check(None)
    kubernetes.Kubernetes("production", IMAGE).check(None)
    # The registry's image of a version goes before the configuration, ML_IMAGE before both.
    target = kubernetes.Kubernetes("production", tag)
    target.check(IMAGE)
    assert target.image == IMAGE
    monkeypatch.setenv("ML_IMAGE", other := IMAGE.replace("team", "other"))
    target = kubernetes.Kubernetes("production")
    target.check(IMAGE)
    assert target.image == other
    with pytest.raises(kubernetes.UsageError, match="is not an overlay"):
        kubernetes.Kubernetes("nowhere", IMAGE)


def test_a_switch_applies_the_digest_and_waits(kubernetes: ModuleType, cluster: Cluster) -> None:
    target = kubernetes.Kubernetes("production", IMAGE)
    assert target.desired_version() is None
    target.switch("v2", "sha256:2")
    applied, waited = cluster.commands
    # From Python 3.12 on the path is absolute.
    assert re.match(r"apply -k (/.*/)?deploy/\.release-", applied)
    assert waited.startswith("rollout status deployment/model-service --namespace=production")
    assert "--timeout=" in waited
    assert not list(Path("deploy").glob(".release-*"))
    documents = {
        manifest["kind"]: manifest
        for manifest in yaml.safe_load_all((cluster.folder / "applied.yaml").read_text())
    }
    pods = documents["Deployment"]["spec"]["template"]
    assert pods["spec"]["containers"][0]["image"] == IMAGE
    assert pods["metadata"]["annotations"]["model-version"] == "v2"


def test_what_runs_is_not_applied_again(kubernetes: ModuleType, cluster: Cluster) -> None:
    cluster.runs("v2", IMAGE)
    target = kubernetes.Kubernetes("production", IMAGE)
    assert target.desired_version() == "v2"
    assert target.is_serving("v2", "sha256:2")
    target.switch("v2", "sha256:2")
    assert [line.split()[0] for line in cluster.commands] == ["rollout"]
    cluster.runs("v2", IMAGE.replace("1", "3"))  # the same model, in an image that was built anew
    assert not target.is_serving("v2", "sha256:2")
    target.switch("v2", "sha256:2")
    assert [line.split()[0] for line in cluster.commands] == ["rollout", "apply", "rollout"]


def test_pods_that_do_not_become_ready_are_told_of(
    kubernetes: ModuleType, cluster: Cluster
) -> None:
    cluster.answers(
        "rollout-status", 'fails error: deployment "model-service" exceeded its deadline'
    )
    target = kubernetes.Kubernetes("staging", IMAGE)
    assert not target.promotes
    message = "^kubectl rollout status failed: .*exceeded its deadline"
    with pytest.raises(kubernetes.RefusedError, match=message):
        target.switch("v2", "sha256:2")


def test_undo_brings_the_pods_of_before_back(kubernetes: ModuleType, cluster: Cluster) -> None:
    target = kubernetes.Kubernetes("production", IMAGE)
    target.restore("v1", "sha256:1")
    assert [line.split()[1] for line in cluster.commands] == ["undo", "status"]
    cluster.answers("rollout-undo", "fails error: no rollout history found")
    target.restore(None, None)  # of a first deployment there is nothing to go back to
    with pytest.raises(kubernetes.RefusedError, match="no rollout history"):
        target.restore("v1", "sha256:1")


def test_the_service_is_reached_through_a_port_forward(
    kubernetes: ModuleType, cluster: Cluster
) -> None:
    class Version(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"version": "v2"}')

    with HTTPServer(("127.0.0.1", 0), Version) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        cluster.answers("port-forward", f"Forwarding from 127.0.0.1:{server.server_port} -> 8080")
        ask = importlib.import_module("rung_runtime.http_client").http_json
        with kubernetes.Kubernetes("staging", IMAGE).serving_url() as url:
            assert ask(f"{url}/version") == (200, {"version": "v2"})
        server.shutdown()
    assert cluster.commands == ["port-forward service/model-service --namespace=staging :80"]
    cluster.answers("port-forward", "fails error: services not found")
    target = kubernetes.Kubernetes("staging", IMAGE)
    with pytest.raises(kubernetes.RefusedError, match="services not found"), target.serving_url():
        pass


@pytest.mark.slow
def test_the_flow_promotes_what_the_cluster_serves_and_takes_back_what_it_does_not(
    ran: Callable[..., Copy],
    render: Render,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pods, as far as callers see, are a local service that a port-forward leads to."""
    loop = Loop(ran(1, "binary").again(tmp_path / "project"))
    cluster = Cluster(tmp_path / "cluster")
    source = render(level=1, deployment="kubernetes")
    for name in ("deploy", "src/rung_runtime/adapters/target_kubernetes"):
        shutil.copytree(source / name, loop.path / name, dirs_exist_ok=True)
    about = loop.path / "pyproject.toml"
    local = 'deployment = "local"'
    assert local in about.read_text()
    about.write_text(about.read_text().replace(local, 'deployment = "kubernetes"'))
    text = DELIVERY.format(port=0, seconds=1) + f"image: {IMAGE}\n"
    (loop.path / "config/delivery.yaml").write_text(text)
    monkeypatch.setenv("PATH", f"{cluster.folder}{os.pathsep}{os.environ['PATH']}")
    loop.ml("register")
    loop.ml("deploy")
    first = loop.serves
    forwarded = loop.running["url"].removeprefix("http://")
    cluster.answers("port-forward", f"Forwarding from {forwarded} -> 8080")
    try:
        loop.ml("deploy", first, "--target", "kubernetes")
        assert loop.deployment["verdict"] == "deployed"
        assert loop.deployment["target"] == "kubernetes/production"
        assert [line.split()[0] for line in cluster.commands] == [
            "apply",
            "rollout",
            "port-forward",
        ]
        assert "is serving already" in loop.ml("deploy", first, "--target", "kubernetes")

        other = loop.made()  # which the local service does not serve
        output = loop.ml("deploy", other, "--target", "kubernetes", exits=1)
        assert f"serves {first}, not {other}" in output
        assert loop.deployment["verdict"] == "rolled_back"
        assert [" ".join(line.split()[:2]) for line in cluster.commands[-2:]] == [
            "rollout undo",
            "rollout status",
        ]
        assert loop.champion == first

        refused = cluster.folder / "answers/rollout-status"
        refused.write_text("fails error: exceeded its progress deadline")
        output = loop.ml("deploy", loop.made(), "--target", "kubernetes", exits=1)
        assert "exceeded its progress deadline" in output
        assert loop.champion == first
    finally:
        loop.ml("stop", exits=None)
