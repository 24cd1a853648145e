"""The runtime as a package: what it reads of a project, and what it asks of `problem/`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import environments
import httpx
import polars as pl
import pytest
import releases
from conftest import ROOT, Project, Render, Rendered, git, once, run
from rung import update
from rung.template import read_answers, resolve_version

Module = Callable[[str], ModuleType]
RUNTIME = ROOT / "runtime/src/rung_runtime"
BEFORE = "0.2.0"  # the last release with the machinery in the user's package


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "answers",
    [
        {"level": 0, "ci": []},
        {"level": 1, "registry": "mlflow", "ci": ["gitlab"]},
        {"level": 2, "deployment": "kubernetes", "ci": ["github", "gitlab"]},
    ],
    ids=str,
)
def test_a_project_says_of_itself_what_was_answered(
    module: Module, render: Render, monkeypatch: pytest.MonkeyPatch, answers: dict[str, object]
) -> None:
    project = render(**answers)
    monkeypatch.chdir(project / "config")  # found from below, too
    answered = module("project").current()
    assert answered.package == "flight_delays"
    assert {"level": answered.level, "ci": list(answered.ci)} == {
        k: answers[k] for k in ("level", "ci")
    }
    assert answered.registry == answers.get("registry", "oci")
    assert answered.deployment == answers.get("deployment", "local")


def test_where_there_is_no_project_everything_is_there(module: Module, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert module("project").current() == module("project").Project()
    assert module("project").current().level == 2


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("levle = 1", "levle"),
        ("level = 3", "level is 3"),
        ("level = true", "level is True"),
        ("level = '1'", "level is '1'"),
        ("registry = 'e c r'", "registry is 'e c r'"),
        ("deployment = 1", "deployment is 1"),
        ("package = 'a-b'", "'a-b'"),
        ("package = 5", "package is 5"),
        ("ci = 'github'", "ci is 'github'"),
        ("ci = [1]", "ci is [1]"),
    ],
)
def test_a_key_or_value_that_is_not_known_is_told(
    module: Module, folder: Path, line: str, named: str
) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.rung]\n{line}\n")
    with pytest.raises(module("project").UsageError, match=re.escape(named)):
        module("project").current()


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("registry = 'ecr'", lambda module: module("registry").open_registry()),
        ("ci = ['jenkins']", lambda module: module("ci_platform").current_platform()),
        ("deployment = 'nomad'", lambda module: module("delivery").rehearsal_platform()),
    ],
)
def test_an_adapter_that_is_not_there_is_told_with_those_that_are(
    module: Module, folder: Path, line: str, use: Callable[[Module], object]
) -> None:
    (folder / "config").mkdir()
    shutil.copy(ROOT / "template/config/delivery.yaml", folder / "config")
    (folder / "pyproject.toml").write_text(f"[tool.rung]\n{line}\n")
    with pytest.raises(module("project").UsageError, match=r"no adapter .* use one of \w+, \w+"):
        use(module)


def test_an_adapter_of_ones_own_comes_by_an_entry_point(
    module: Module, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installed package has it: a module, and the metadata of a distribution."""
    (folder / "our_registry.py").write_text(
        "def open_registry(where):\n    return f'ours, at {where}'\n"
    )
    (folder / "ours-1.dist-info").mkdir()
    (folder / "ours-1.dist-info/METADATA").write_text("Name: ours\nVersion: 1\n")
    points = "[rung.adapters]\nregistry_ours = our_registry\nregistry_oci = our_registry\n"
    (folder / "ours-1.dist-info/entry_points.txt").write_text(points)
    (folder / "config").mkdir()
    (folder / "config/delivery.yaml").write_text("registry: here\n")
    (folder / "pyproject.toml").write_text("[tool.rung]\nregistry = 'ours'\n")
    monkeypatch.delenv("ML_REGISTRY", raising=False)
    assert "ours" not in module("adapters").names("registry")
    monkeypatch.syspath_prepend(folder)
    assert module("adapters").names("registry") == ["mlflow", "oci", "ours"]
    assert module("registry").open_registry() == "ours, at here"
    assert module("adapters").load("registry", "oci").__name__ == "our_registry"


def test_what_is_installed_is_read_once_however_often_an_adapter_is_loaded(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a file of each package, and a command opens the registry ten times."""
    adapters = module("adapters.loading")
    read = adapters.entry_points
    groups: list[str] = []

    def counted(*, group: str) -> object:
        groups.append(group)
        return read(group=group)

    monkeypatch.setattr(adapters, "entry_points", counted)
    monkeypatch.syspath_prepend("nowhere")  # another path than that of tests before
    for _ in range(3):
        adapters.load("registry", "oci")
        adapters.names("registry")
    assert groups == [adapters.GROUP]


def test_a_library_that_an_adapter_needs_and_is_missing_is_named(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("rung_runtime.oci_client", "rung_runtime.http_client")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    registry = module("adapters").load("registry", "oci")
    with pytest.raises(module("project").UsageError, match=r"needs httpx.* `uv sync`"):
        registry.open_registry("oci://registry.test/models")


def test_every_adapter_has_a_manifest_a_page_and_an_entry_in_the_index() -> None:
    """What follows from the manifests is not stale: choices, paths, extras, index."""
    folders = [path for path in (RUNTIME / "adapters").iterdir() if path.name != "__pycache__"]
    for folder in filter(Path.is_dir, folders):
        assert {"__init__.py", "adapter.toml", "README.md"} <= {p.name for p in folder.iterdir()}
    command = [sys.executable, str(ROOT / "copier/generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_extras_of_the_runtime_are_what_a_project_with_a_copy_requires(
    render: Render,
) -> None:
    about = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text())["project"]
    extras = about["optional-dependencies"]
    for level in (0, 1):
        project = tomllib.loads((render(level=level) / "pyproject.toml").read_text())
        served = {*about["dependencies"], *(extras["serve"] if level else [])}
        assert set(project["project"]["dependencies"]) == served
        names = ("train", "dvc", "http", "mlflow", "sign", "oci") if level else ("train",)
        trained = {requirement for name in names for requirement in extras[name]}
        group = set(project["dependency-groups"]["train"])
        assert group <= trained
        assert trained - group <= {"scipy>=1.17"}  # comes with scikit-learn


def test_a_table_that_is_none_is_told(module: Module, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool]\nrung = 1\n")
    with pytest.raises(module("project").UsageError, match="not a table"):
        module("project").current()


def test_rows_that_0_2_logged_are_read_with_those_of_now(module: Module, tmp_path: Path) -> None:
    """0.2 did not log what callers call their requests, by which labels of now may name them."""
    layout = module("prediction_log.layout")
    log = module("prediction_log")
    digest = f"sha256:{'0' * 64}"
    for day, own, theirs in ((1, "a", None), (2, "b", "theirs")):
        time = datetime(2026, 1, day)
        values = (own, theirs, 0, time, "v1", digest, 1.5)
        schema = layout.ANSWER_COLUMNS | {"prediction": pl.Float64()}
        frame = pl.DataFrame([values], schema, orient="row")
        if theirs is None:
            frame = frame.drop("client_request_id")
        name = f"date={time:%F}/120000_{layout.model_name('v1', digest)}_{own}.parquet"
        layout.write_file(str(tmp_path), name, frame)
    assert log.read(str(tmp_path)).collect()["client_request_id"].to_list() == [None, "theirs"]
    config = module("config")
    columns = {name: config.Column(type="number") for name in ("x", "y")}
    split = config.Split(by="stratified")
    data = config.Data(source="x.csv", target="y", task="regression", split=split, columns=columns)
    (tmp_path / "labels.csv").write_text("request_id,y\na,1\ntheirs,2\n")
    added = log.add_labels(tmp_path / "labels.csv", data, str(tmp_path))
    assert added == f"2 labels added to {tmp_path}"
    assert log.joined(str(tmp_path)).sort("time").collect()["truth"].to_list() == [1, 2]


@pytest.mark.slow  # a process that imports the command
@pytest.mark.parametrize("command", ["--help", "train"])
def test_a_project_that_says_nonsense_of_itself_is_a_sentence_and_exit_code_2(
    folder: Path, command: str
) -> None:
    (folder / "config").mkdir()
    (folder / "pyproject.toml").write_text("[tool.rung]\nlevel = 3\n")
    code = "from rung_runtime.cli import main\nmain()"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
    done = subprocess.run(
        [sys.executable, "-c", code, command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "ml: pyproject.toml: [tool.rung] level is 3: use one of 0, 1, 2\n"


@pytest.fixture
def churn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be in a project whose package is churn; return its problem/, which has one module."""
    (folder / "pyproject.toml").write_text("[tool.rung]\npackage = 'churn'\n")
    problem = folder / "src/churn/problem"
    problem.mkdir(parents=True)
    (problem / "features.py").write_text("def features(rows):\n    return 'by churn'\n")
    monkeypatch.syspath_prepend(folder / "src")
    yield problem
    for name in [name for name in sys.modules if name.partition(".")[0] == "churn"]:
        del sys.modules[name]


def test_the_projects_own_modules_are_called(module: Module, churn: Path) -> None:
    assert module("problem").features(None) == "by churn"
    assert module("problem").folder() == churn


def test_a_module_of_problem_that_is_missing_is_named(module: Module, churn: Path) -> None:
    with pytest.raises(module("project").UsageError, match=r"problem/data\.py is missing"):
        module("problem").load(Path("x.csv"), ",")


def test_what_a_module_of_problem_lacks_itself_is_its_own_error(
    module: Module, churn: Path
) -> None:
    wanted = {
        "import not_installed": r"imports not_installed, .*: run `uv add not_installed`",
        "from .helper import x": r"imports churn\.problem\.helper, which is not there",
    }
    for line, message in wanted.items():
        (churn / "schema.py").write_text(f"{line}\n")
        with pytest.raises(module("project").UsageError, match=message):
            module("problem").rules([])


def test_a_package_that_is_not_there_is_told(module: Module, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.rung]\npackage = 'nowhere'\n")
    with pytest.raises(module("project").UsageError, match=r"nowhere\.problem cannot be imported"):
        module("problem").folder()


def test_the_machinery_is_byte_for_byte_the_same_in_every_project(render: Render) -> None:
    """No Jinja, and no name of a package: what is linted and tested here is what people get."""
    source = ROOT / "runtime/src/rung_runtime"
    for answers in ({"level": 0, "package_name": "a"}, {"level": 2, "registry": "mlflow"}):
        runtime = render(**answers) / "src/rung_runtime"
        files = [path for path in runtime.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert path.read_bytes() == (source / path.relative_to(runtime)).read_bytes()
            assert path.suffix != ".jinja"


def test_all_python_of_the_package_that_comes_with_it_is_the_users(render: Render) -> None:
    package = render(level=2) / "src/flight_delays"
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    assert names == [f"problem/{name}.py" for name in ("data", "features", "model", "schema")]


def test_problem_imports_nothing_of_the_machinery() -> None:
    for path in (ROOT / "template/src/{{package_name}}/problem").glob("*.py"):
        assert "rung_runtime" not in path.read_text()
        assert "from ." not in path.read_text()


@pytest.mark.parametrize("template", ["report.html", "report.md"])
def test_a_report_is_made_of_the_documents_of_0_2(
    module: Module, folder: Path, template: str
) -> None:
    """`ml report` after an update, before the pipeline has run again; made by 0.2.0 itself."""
    shutil.copytree(ROOT / "tests/data/documents-0.2", folder / "artifacts")
    shutil.copytree(ROOT / "template/config", folder / "config")
    text = module("pipeline.report").render(template, module("config").load())
    assert "0.7133" in text  # ROC AUC
    assert "worst slice" in text  # a check: the verdict is on this evaluation


def test_a_verdict_on_an_earlier_evaluation_is_not_shown(module: Module, folder: Path) -> None:
    shutil.copytree(ROOT / "tests/data/documents-0.2", folder / "artifacts")
    shutil.copytree(ROOT / "template/config", folder / "config")
    metrics = folder / "artifacts/metrics.json"
    metrics.write_text(metrics.read_text() + "\n")
    text = module("pipeline.report").render("report.html", module("config").load())
    assert "Not judged yet" in text
    assert "worst slice" not in text


@pytest.mark.slow  # builds with uv's backend, from the index
def test_make_wheel_builds_the_runtime_reproducibly(tmp_path: Path) -> None:
    """From other folders, at other times, by another user's clock: the same bytes."""
    wheels = []
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("one", "two"):
        clone = tmp_path / name
        clone.mkdir()
        shutil.copy(ROOT / "Makefile", clone)
        for part in (".ci", "runtime"):
            shutil.copytree(ROOT / part, clone / part, ignore=ignored, copy_function=shutil.copy)
        done = run("make", "wheel", cwd=clone, home=tmp_path / "home")
        assert done.returncode == 0, done.stdout + done.stderr
        (wheel,) = (clone / "dist").glob("*.whl")
        assert done.stdout.splitlines()[-1] == f"dist/{wheel.name}"
        wheels.append(wheel)
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    inside = {n for n in ZipFile(wheels[0]).namelist() if n.startswith("rung_runtime/")}
    source = ROOT / "runtime/src"
    files = (path for path in source.rglob("*") if path.is_file())
    expected = {p.relative_to(source).as_posix() for p in files if p.parent.name != "__pycache__"}
    assert {name for name in inside if not name.endswith("/")} == expected


@pytest.mark.slow  # an environment of its own
def test_a_project_goes_to_a_runtime_as_package_and_back_and_trains_the_same_model(
    history: Path,
    rendered: Rendered,
    projects: Callable[[int], Project],
    run_folder: Path,
    tmp_path: Path,
    module: Module,
) -> None:
    installed = projects(0)
    project = shutil.copytree(rendered(releases.NOW, {"level": 0}), tmp_path / "project")
    shutil.copy(installed.path / "uv.lock", project)
    environments.lay(project, run_folder / "environments", *environments.EVERYTHING)
    settings = project / "config/model.yaml"
    settings.write_text(settings.read_text().replace("max_iter: 300", "max_iter: 30"))
    git(project, "init", "-q")

    def model() -> str:
        """Train, commit, and return the digest of the model."""
        shutil.rmtree(project / "artifacts", ignore_errors=True)
        done = run("uv", "run", "--quiet", "ml", "run", cwd=project, home=tmp_path / "home")
        assert done.returncode == 0, done.stdout + done.stderr
        git(project, "add", "-A")
        git(project, "commit", "-qm", "trained", "--allow-empty")
        return str(module("artifacts").digest(project / "artifacts/model.skops"))

    def change(runtime: str) -> None:
        known = read_answers(project)
        template = resolve_version(str(history), releases.NOW)
        update.merge_version(project, template, known, {"runtime": runtime})

    first = model()
    before = {path: (project / path).read_bytes() for path in git(project, "ls-files").split("\n")}
    change("package")
    assert [path.name for path in (project / "src").iterdir()] == ["flight_delays"]
    assert model() == first
    environment = project / ".venv/lib"
    assert list(environment.glob("*/site-packages/rung_runtime/cli/app.py"))
    checks = run("uv", "run", "--quiet", "mypy", cwd=project, home=tmp_path / "home")
    assert checks.returncode == 0, checks.stdout
    change("copied")
    assert model() == first
    after = {path: (project / path).read_bytes() for path in git(project, "ls-files").split("\n")}
    answers = ".copier-answers.yml"
    assert before.pop(answers).decode() in after[answers].decode()
    after.pop(answers)
    assert after == before


@pytest.mark.nightly  # the packages of level 1, with the runtime built from Git among them
def test_a_new_project_with_the_runtime_as_package_is_set_up_checked_and_run(
    rendered: Rendered, projects: Callable[[int], Project], run_folder: Path, tmp_path: Path
) -> None:
    installed = projects(1)
    answers = {"level": 1, "runtime": "package"}
    project = shutil.copytree(rendered(releases.NOW, answers), tmp_path / "project")
    ready = environments.ready(
        installed.path, run_folder / "environments", *environments.EVERYTHING
    )
    environments.link(ready, project / ".venv")
    shutil.copy(installed.path / "uv.lock", project)  # what the runtime requires is in it
    for command in (["uv", "lock"], ["make", "setup"], ["make", "check"], ["make", "run"]):
        done = run(*command, cwd=project, home=tmp_path / "home")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert [path.name for path in (project / "src").iterdir()] == ["flight_delays"]
    assert list((project / ".venv/lib").glob("*/site-packages/rung_runtime/cli/app.py"))
    assert json.loads((project / "artifacts/gate.json").read_text())["verdict"] == "passed"
    assert (project / "artifacts/model/manifest.json").is_file()


def python(folder: Path, code: str, *args: str, **environment: str) -> str:
    """Run code that can import the project's package and the runtime; return what it prints."""
    sources = os.pathsep.join([str(folder / "src"), str(ROOT / "runtime/src")])
    environment = os.environ | environment | {"PYTHONPATH": sources}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{args}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow  # an update, and two trainings in processes that import everything
def test_a_project_of_0_2_trains_the_same_model_before_and_after_its_update(
    history: Path, rendered: Rendered, tmp_path: Path, module: Module
) -> None:
    """On two threads: a model says so whatever trained it, and in 0.2 said how many there were."""
    answers = {"level": 0}
    project = shutil.copytree(rendered(f"v{BEFORE}", answers), tmp_path / "project")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "of 0.2")

    def train(module_of_steps: str) -> str:
        code = f"from {module_of_steps} import STEPS, perform\n"
        code += "for name in list(STEPS)[:4]: perform(name)"
        python(project, code, OMP_NUM_THREADS="2")
        digest = str(module("artifacts").digest(project / "artifacts/model.skops"))
        shutil.rmtree(project / "artifacts")
        return digest

    before = train("flight_delays.cli")
    known = read_answers(project)
    update.merge_version(project, resolve_version(str(history), releases.NOW), known, {})
    assert not (project / "src/flight_delays/cli.py").exists()
    assert train("rung_runtime.cli.app") == before


PIPELINE_OF_0_2 = """
from flights import registry
from flights.cli import STEPS, perform
registry.look()
for name in STEPS: perform(name)
registry.promote(registry.register().version)
"""
# Deploy, answer 120 rows, and tell what became of the first half; leave the rest for a test.
SERVICE_OF_0_2 = """
import json, time
from pathlib import Path
import polars as pl
from flights import delivery, inference
from flights.delivery import local
from flights.serving.batch import as_json
from flights.serving.log import add, read
delivery.deploy()
url, model = local.running()["url"], inference.opened()
holdout = pl.read_parquet("data/interim/holdout.parquet").head(120)
rows = as_json(model.read(holdout.select(*model.asked.columns)), model.asked)
answers = [delivery.ask(f"{url}/predict", {"rows": rows[n : n + 60]})[1] for n in (0, 60)]
while read("predictions").collect().height < 120: time.sleep(0.1)
for n, answer in enumerate(answers):
    half = holdout["delayed"].slice(n * 60, 60).cast(pl.String)
    labels = pl.DataFrame({"request_id": answer["request_id"], "row": range(60), "delayed": half})
    labels.write_csv(f"labels-{n}.csv")
add(Path("labels-0.csv"))
print(json.dumps({"url": url, "version": answers[0]["version"], "row": rows[0],
                  "prediction": answers[0]["predictions"][0]}))
"""
ML = "from rung_runtime.cli import main\nmain()"
# Another model, by the runtime of now, accepted beside the champion of 0.2.
PIPELINE = """
from rung_runtime import registry
from rung_runtime.cli.app import STEPS, perform
for name in STEPS: perform(name)
print(registry.register().version)
"""


@pytest.fixture(scope="session")
def ran_by_0_2(run_folder: Path) -> Path:
    """Return a project of 0.2.0 with a champion, made by its own code; for reading only."""

    def make(folder: Path) -> None:
        folder.mkdir()
        commit = releases.commit_of(BEFORE)
        names = ("config", "data", releases.PACKAGE.removeprefix("template/"))
        paths = [f"template/{name}" for name in names]
        archive = subprocess.check_output(["git", "-C", ROOT, "archive", commit, *paths])
        unpack = ["tar", "-x", "--strip-components=1", "-C", str(folder)]
        subprocess.run(unpack, input=archive, check=True)
        (folder / "src/{{package_name}}").rename(folder / "src/flights")
        (folder / "src/flights/registry/mlflow.py").unlink()  # it has the adapters it asked for
        (folder / "pyproject.toml").write_text("[tool.rung]\npackage = 'flights'\nlevel = 1\n")
        settings = folder / "config/model.yaml"
        settings.write_text(settings.read_text().replace("max_iter: 300", "max_iter: 30"))
        python(folder, PIPELINE_OF_0_2)

    return once(run_folder / "of-0.2", make)


@pytest.fixture
def of_0_2(ran_by_0_2: Path, folder: Path) -> Path:
    """Return a project of 0.2.0 with a champion, which is the current folder."""
    shutil.copytree(ran_by_0_2, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def served_by_0_2(of_0_2: Path, module: Module) -> Iterator[dict[str, Any]]:
    """Have 0.2.0 serve its champion, and take its code away, as an update does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = "registry: registry\nwatch: {seconds: 0.2}\nshadow: {latency_ratio: 1000}\n"
    settings += f"service: {{port: {port}, log_seconds: 0.3, drain_seconds: 1}}\n"
    (of_0_2 / "config/delivery.yaml").write_text(settings)
    (of_0_2 / "config/drift.yaml").write_text("window: {hours: 0, rows: 50}\n")
    try:
        served = json.loads(python(of_0_2, SERVICE_OF_0_2).splitlines()[-1])
        for path in (of_0_2 / "src/flights").iterdir():
            if path.name != "problem":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield served
    finally:
        module("adapters.target_local").Local().stop()


@pytest.mark.slow  # a pipeline of 0.2, in a process that imports everything
def test_a_registry_and_a_package_of_0_2_are_read(of_0_2: Path) -> None:
    predicted = pl.read_parquet("artifacts/predictions.parquet")["given"].to_list()
    shutil.rmtree(of_0_2 / "artifacts/model")
    code = """
import json
from pathlib import Path
import polars as pl
from rung_runtime import model_package, registry
champion = registry.current_champion()
assert [v.version for v in registry.open_registry().versions()] == [champion.version]
registry.open_registry().fetch(champion.version, Path("fetched"))
model = model_package.load_package(Path("fetched"), champion.digest)
rows = model.read(pl.read_parquet("data/interim/holdout.parquet"))
assert not model.failures(rows)
print(json.dumps(model.predict(rows).tolist()))
"""
    assert json.loads(python(of_0_2, code).splitlines()[-1]) == predicted


@pytest.mark.slow  # services, and a pipeline in processes that import everything
def test_a_service_its_folder_and_its_log_of_0_2_are_read_and_deployed_to(
    of_0_2: Path, served_by_0_2: dict[str, Any]
) -> None:
    """A service that was started before an update does not know packages of now: it is replaced."""
    url = served_by_0_2["url"]
    version = served_by_0_2["version"]
    assert f"{version} serves at {url} since " in python(of_0_2, ML, "status")
    assert f"{version} is serving already" in python(of_0_2, ML, "deploy")
    added = python(of_0_2, ML, "labels", "add", "labels-1.csv")
    assert added == "60 labels added to predictions\n"
    python(of_0_2, ML, "monitor")
    monitored = json.loads((of_0_2 / "artifacts/monitor.json").read_text())
    assert sum(window["rows"] for window in monitored["windows"]) + monitored["waiting"] == 120
    assert [window["performance"]["labels"] for window in monitored["windows"]] == [60, 60]

    settings = of_0_2 / "config/model.yaml"
    settings.write_text(settings.read_text().replace("max_iter: 30", "max_iter: 60"))
    new = python(of_0_2, PIPELINE).splitlines()[-1]
    assert new != version
    deployed = python(of_0_2, ML, "deploy")
    assert f"{new} serves" in deployed
    serving = httpx.get(f"{url}/version", trust_env=False).json()
    assert (serving["version"], serving["error"]) == (new, None)
    back = python(of_0_2, ML, "rollback")
    assert f"{version} serves again" in back
    answer = httpx.post(f"{url}/predict", json={"rows": [served_by_0_2["row"]]}, trust_env=False)
    expected = served_by_0_2["prediction"]["probabilities"]
    assert answer.json()["predictions"][0]["probabilities"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.nightly  # the same service; its supervisor has nothing to start again
def test_a_service_of_0_2_that_dies_after_the_update_is_started_by_the_code_of_now(
    of_0_2: Path, served_by_0_2: dict[str, Any]
) -> None:
    before = json.loads((of_0_2 / "service/supervisor.json").read_text())
    os.kill(before["service"], signal.SIGKILL)
    status = ""
    while "serves at" not in status:  # between two attempts of the supervisor, it lives
        code = "from rung_runtime.delivery import status\nprint(status())"
        with suppress(AssertionError):
            status = python(of_0_2, code)
    assert f"{served_by_0_2['version']} serves at {served_by_0_2['url']} since " in status
    assert json.loads((of_0_2 / "service/supervisor.json").read_text())["pid"] != before["pid"]
