"""Every tracker, target and CI platform keeps the contract of its slot; a broken one does not."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import libraries
import polars as pl
import pytest
from conftest import ROOT
from hosts.api import Api
from hosts.jobs import api, quoted, runner
from packages import package
from rung_runtime import UsageError
from rung_runtime.explanations import Explainer, Subject, explain, open_explainer
from rung_runtime.testing.adapters import (
    ExplainerContract,
    PlatformContract,
    RecordedRun,
    Release,
    TargetContract,
    TrackerContract,
    explained_subject,
)
from test_kubernetes import IMAGE, Cluster
from test_kubernetes import cluster as cluster

__all__ = ["api", "runner"]
Module = Callable[[str], ModuleType]


# --- trackers --------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in the folder of a project."""
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\npackage = "late_flights"\n')
    (tmp_path / "artifacts").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow  # MLflow's tables are made
class TestMlflow(TrackerContract):
    """MLflow, in a file."""

    @pytest.fixture
    def tracker(
        self,
        module: Module,
        project: Path,
        mlflow_tables: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Any:
        shutil.copy(mlflow_tables, project / "mlflow.db")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        return module("adapters.tracker_mlflow")

    @pytest.fixture
    def recorded(self, tracker: Any) -> Callable[[], list[RecordedRun]]:
        def curves(client: Any, run: Any) -> dict[str, list[float]]:
            points = {
                name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics
            }
            return {
                name: [point.value for point in sorted(history, key=lambda point: point.step)]
                for name, history in points.items()
            }

        def recorded() -> list[RecordedRun]:
            client = tracker.client()
            experiment = client.get_experiment_by_name("late_flights")
            runs = client.search_runs([experiment.experiment_id]) if experiment else []
            runs = sorted(runs, key=lambda run: run.info.start_time)
            return [
                RecordedRun(run.data.tags["verdict"], run.data.metrics, curves(client, run))
                for run in runs
            ]

        return recorded

    @pytest.fixture
    def unreachable(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        return lambda: monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


# --- explainers ------------------------------------------------------------------------------


class TestShapleyValues(ExplainerContract):
    """The one that is always there."""

    @pytest.fixture
    def open_explainer(self) -> Callable[[Subject], Explainer]:
        return built_in


def built_in(subject: Subject) -> Explainer:
    return open_explainer("shapley", subject)


class TestTheExplainerOfTheManual(ExplainerContract):
    """The one that docs/howto/explain.md shows."""

    @pytest.fixture
    def open_explainer(self) -> Any:
        page = (ROOT / "docs/howto/explain.md").read_text("utf-8")
        (code,) = re.findall("```python\n(.*?)```", page, re.DOTALL)
        names: dict[str, Any] = {}
        exec(code, names)
        return names["open_explainer"]


@pytest.fixture(scope="module")
def explainer_libraries() -> Iterator[None]:
    """Have `shap` and `lime` behind all that is installed here."""
    (packages,) = libraries.environment("shap>=0.51", "lime>=0.2.0.1").glob("lib/*/site-packages")
    sys.path.append(str(packages))
    yield
    sys.path.remove(str(packages))


@pytest.mark.nightly
class TestShap(ExplainerContract):
    """The library `shap`."""

    @pytest.fixture
    def open_explainer(self, explainer_libraries: None) -> Callable[[Subject], Explainer]:
        return lambda subject: open_explainer("shap", subject)

    def test_it_agrees_with_the_one_that_is_always_there(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        for task in ("binary", "multiclass", "regression"):
            subject = explained_subject(task)
            row = subject.background[:1].with_columns(pl.col("city").cast(pl.String))
            theirs = explain(open_explainer(subject), subject, row)
            ours = explain(built_in(subject), subject, row)
            assert theirs.base_value == pytest.approx(ours.base_value)
            largest = max(map(abs, ours.contributions.values()))
            for name, value in ours.contributions.items():
                assert theirs.contributions[name] == pytest.approx(value, abs=0.05 * largest)


@pytest.mark.nightly
class TestLime(ExplainerContract):
    """The library `lime`, which fits a linear model, and so is near at best."""

    tolerance = 0.1

    @pytest.fixture
    def open_explainer(self, explainer_libraries: None) -> Callable[[Subject], Explainer]:
        return lambda subject: open_explainer("lime", subject)


@pytest.mark.parametrize("name", ["shap", "lime"])
def test_a_library_of_an_explainer_that_is_missing_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (name, "lime.lime_base"):
        monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(UsageError, match=f"explainer {name} needs {name}.*uv sync"):
        open_explainer(name, explained_subject("binary"))


# --- CI platforms ----------------------------------------------------------------------------


class StandInJob:
    """A job of a pull request, whose platform is the stand-in of both APIs."""

    def __init__(self, name: str, server: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.api = server
        self.monkeypatch = monkeypatch

    def comments(self) -> list[str]:
        return self.api.comments

    def say(self, text: str) -> None:
        quoted(self.name, self.api, text)

    def trainings(self) -> int:
        return len(self.api.dispatched)

    def revoke(self) -> None:
        for variable in ("GITHUB_TOKEN", "GITLAB_TOKEN", "CI_JOB_TOKEN"):
            self.monkeypatch.setenv(variable, "another")

    def leave(self) -> None:
        for variable in ("GITHUB_ACTIONS", "CI_API_V4_URL"):
            self.monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", ["github", "gitlab"])
class TestPlatforms(PlatformContract):
    """GitHub and GitLab."""

    @pytest.fixture
    def detect(self, name: str, module: Module) -> Any:
        return module(f"adapters.ci_{name}").detect

    @pytest.fixture
    def job(
        self,
        name: str,
        runner: Callable[..., None],
        api: Api,
        monkeypatch: pytest.MonkeyPatch,
    ) -> StandInJob:
        runner(name)
        api.jobs = lambda: {"train": "success", "image": "skipped"}
        return StandInJob(name, api, monkeypatch)


# --- targets ---------------------------------------------------------------------------------

CONFIG = "service: {port: 0, log: '', drain_seconds: 1}\n"


@pytest.fixture(scope="module")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two packages."""
    folder = tmp_path_factory.mktemp("packages")
    return [package(module, folder / str(seed), seed=seed) for seed in range(2)]


class OnThisMachine(TargetContract):
    """What the targets of this machine are given: two packages, and one that is not there."""

    @pytest.fixture
    def releases(
        self, made: list[Path], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Release, ...]:
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime/src"))  # of the processes
        (project / "config").mkdir()
        (project / "config/delivery.yaml").write_text(CONFIG)
        models = project / "service/models"
        models.mkdir(parents=True)
        releases = []
        for path in made:
            manifest = json.loads((path / "manifest.json").read_text())
            (models / manifest["version"]).symlink_to(path)
            releases.append(Release(manifest["version"], manifest["package_digest"]))
        return tuple(releases)

    @pytest.fixture
    def unservable(self) -> Release:
        return Release("20260101-000000-00000000", f"sha256:{'0' * 64}")


@pytest.mark.slow  # services are started
class TestLocal(OnThisMachine):
    """The service of this machine, below its supervisor."""

    @pytest.fixture
    def open_target(
        self, releases: tuple[Release, ...], module: Module
    ) -> Iterator[Callable[[], Any]]:
        local = module("adapters.target_local").Local
        yield local
        local().stop()


@pytest.mark.slow  # services are started
class TestStaging(OnThisMachine):
    """The service that ends with the command."""

    keeps_serving = False

    @pytest.fixture
    def open_target(
        self,
        releases: tuple[Release, ...],
        module: Module,
        project: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[[], Any]:
        program = project / "bin/ml-serve"  # as it is in an environment that has the runtime
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nfrom rung_runtime.serving import main\nmain()\n")
        program.chmod(0o755)
        ephemeral = module("adapters.target_local.ephemeral")
        monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
        staging: Callable[[], Any] = ephemeral.Staging
        return staging


# What it does besides the stand-in of tests/test_kubernetes.py: `rollout undo`, pods of v3 that do
# not become ready, and a port that leads to a service of the version.
REMEMBERS = """
answers = here / "answers"
def version():
    pods = json.loads((answers / "get").read_text())
    return pods["spec"]["template"]["metadata"]["annotations"]["model-version"]
if asked[0] == "apply" and (answers / "get").exists():
    count = len(list(answers.glob("before-*")))
    (answers / f"before-{count}").write_text((answers / "get").read_text())
if asked[:2] == ["rollout", "undo"]:
    before = sorted(answers.glob("before-*"))
    if not before:
        sys.exit("error: no rollout history found")
    (answers / "get").write_text(before[-1].read_text())
    before[-1].unlink()
    sys.exit(0)
if asked[:2] == ["rollout", "status"] and version() == "v3":
    sys.exit("error: deployment exceeded its progress deadline")
"""


@pytest.mark.slow  # processes of the stand-in
@pytest.mark.needs("kubectl")
class TestKubernetes(TargetContract):
    """A cluster, which is a stand-in."""

    @pytest.fixture
    def open_target(self, cluster: Cluster, module: Module) -> Iterator[Callable[[], Any]]:
        kubernetes = module("adapters.target_kubernetes")
        script = (cluster.folder / "kubectl").read_text()
        head, separator, rest = script.partition('if asked[0] == "apply":')
        assert separator
        (cluster.folder / "kubectl").write_text(head + REMEMBERS + separator + rest)

        class Version(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pods = json.loads((cluster.folder / "answers/get").read_text())
                annotations = pods["spec"]["template"]["metadata"]["annotations"]
                body = json.dumps({"version": annotations["model-version"]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Version) as server:
            Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            forwarding = f"Forwarding from 127.0.0.1:{server.server_port} -> 8080"
            cluster.answers("port-forward", forwarding)
            yield lambda: kubernetes.open_target("production")
            server.shutdown()

    @pytest.fixture
    def releases(self) -> tuple[Release, Release]:
        return (
            Release("v1", "sha256:1", IMAGE),
            Release("v2", "sha256:2", IMAGE.replace("1", "2")),
        )

    @pytest.fixture
    def unservable(self) -> Release:
        return Release("v3", "sha256:3", IMAGE.replace("1", "3"))


# --- controls: a broken adapter fails each check ---------------------------------------------


def checks(contract: type) -> list[str]:
    return [name for name in vars(contract) if name.startswith("test_")]


def fails(contract: type, name: str, **available: Any) -> None:
    """Check that a test of a contract fails with what it is given."""
    check = getattr(contract(), name)
    arguments = {key: available[key] for key in inspect.signature(check).parameters}
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(**arguments)


@pytest.mark.parametrize("name", checks(TrackerContract))
def test_control_a_tracker_that_keeps_its_own_count_fails_each_check(
    name: str, project: Path
) -> None:
    runs = [RecordedRun("passed", {"roc_auc": 0.1})]

    def record() -> str:
        runs.append(RecordedRun("passed", {"roc_auc": 0.1}))
        return "recorded"

    broken = SimpleNamespace(prepare=lambda: None, record=record)
    fails(TrackerContract, name, tracker=broken, recorded=lambda: runs, unreachable=lambda: None)


class Careless:
    """A target that says yes to everything, and serves what it was given first."""

    name = " staging"
    promotes = True

    def __init__(self, url: str) -> None:
        self.url = url

    def check(self, image: str | None) -> None:
        """Accept anything."""

    def ensure_running(self) -> None:
        """Do nothing."""

    def desired_version(self) -> str:
        return "v0"

    def is_serving(self, version: str, digest: str) -> bool:
        return True

    def switch(self, version: str, digest: str) -> None:
        """Serve what is served already."""

    def restore(self, version: str | None, digest: str | None) -> None:
        """Serve what is served already."""

    @contextmanager
    def serving_url(self) -> Iterator[str]:
        yield self.url


@pytest.fixture
def always_v0() -> Iterator[str]:
    class Version(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"version": "v0"}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Version) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", checks(TargetContract))
def test_control_a_target_that_says_yes_to_everything_fails_each_check(
    name: str, always_v0: str
) -> None:
    releases = (Release("v1", "sha256:1"), Release("v2", "sha256:2"))
    target = {"open_target": lambda: Careless(always_v0), "releases": releases}
    fails(TargetContract, name, unservable=Release("v3", "sha256:3"), **target)


class Talkative:
    """A platform that writes a comment each time, and asks nobody whether it may."""

    name = ""
    workspace = Path("nowhere")

    def __init__(self, written: list[str], started: list[None]) -> None:
        self.written = written
        self.started = started

    def registry_prefix(self) -> str:
        return "https://GHCR.io/Team"

    def credentials(self) -> None:
        return None

    def jobs(self) -> dict[str, str]:
        return {}

    def comment(self, text: str, tail: str = "") -> None:
        self.written[:] = [*self.written, text + tail, text]

    def train(self) -> None:
        self.started += [None, None]

    def notice(self, text: str) -> None:
        sys.stdout.write(text)


@pytest.mark.parametrize("name", checks(PlatformContract))
def test_control_a_platform_that_writes_whatever_it_is_given_fails_each_check(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    started: list[None] = []
    job = SimpleNamespace(
        comments=lambda: written,
        say=written.append,
        trainings=lambda: len(started),
        revoke=lambda: None,
        leave=lambda: None,
    )
    fails(
        PlatformContract,
        name,
        detect=lambda: Talkative(written, started),
        job=job,
        capsys=capsys,
    )


def test_every_adapter_of_these_slots_has_its_class_here() -> None:
    text = Path(__file__).read_text("utf-8")
    for folder in sorted((ROOT / "runtime/src/rung_runtime/adapters").glob("*/adapter.toml")):
        slot, _, name = folder.parent.name.partition("_")
        if slot in ("tracker", "target", "ci"):
            assert re.search(rf'"{name}"|class Test{name.capitalize()}\(', text), folder.parent.name
