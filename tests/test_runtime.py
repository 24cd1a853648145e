"""The runtime as a package: what it reads of a project, and what it asks of `problem/`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import releases
from conftest import ROOT, Render

Module = Callable[[str], ModuleType]


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
    said = module("project").current()
    assert said.package == "flight_delays"
    assert {"level": said.level, "ci": list(said.ci)} == {k: answers[k] for k in ("level", "ci")}
    assert said.registry == answers.get("registry", "oci")
    assert said.deployment == answers.get("deployment", "local")


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
        ("registry = 'ecr'", "oci, mlflow"),
        ("package = 'a-b'", "'a-b'"),
        ("package = 5", "package is 5"),
        ("ci = 'github'", "ci is 'github'"),
        ("ci = ['jenkins']", "github, gitlab"),
    ],
)
def test_a_key_or_value_that_is_not_known_is_told(
    module: Module, folder: Path, line: str, named: str
) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.rung]\n{line}\n")
    with pytest.raises(module("project").BadInput, match=re.escape(named)):
        module("project").current()


def test_a_table_that_is_none_is_told(module: Module, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool]\nrung = 1\n")
    with pytest.raises(module("project").BadInput, match="not a table"):
        module("project").current()


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
    with pytest.raises(module("project").BadInput, match=r"problem/data\.py is missing"):
        module("problem").load(Path("x.csv"), ",")


def test_what_a_module_of_problem_lacks_itself_is_its_own_error(
    module: Module, churn: Path
) -> None:
    (churn / "schema.py").write_text("import not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed"):
        module("problem").rules([])


def test_a_package_that_is_not_there_is_told(module: Module, folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.rung]\npackage = 'nowhere'\n")
    with pytest.raises(module("project").BadInput, match=r"nowhere\.problem cannot be imported"):
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


@pytest.mark.slow  # two trainings, in processes that import everything
def test_the_machinery_trains_the_same_model_as_that_of_0_2(folder: Path, module: Module) -> None:
    """With the same rows, configuration and `problem/`: an update changes no model."""
    commit = releases.released()["0.2.0"]
    releases.need("0.2.0", commit)
    names = ("config", "data", releases.PACKAGE.removeprefix("template/"))
    paths = [f"template/{name}" for name in names]
    archive = subprocess.check_output(["git", "-C", ROOT, "archive", commit, *paths])
    subprocess.run(["tar", "-x", "--strip-components=1"], input=archive, check=True)
    (folder / "src/{{package_name}}").rename(folder / "src/flights")
    shutil.rmtree(folder / "src/flights/__pycache__", ignore_errors=True)
    (folder / "src/flights/loop.py").unlink()  # level 0
    (folder / "pyproject.toml").write_text("[tool.rung]\npackage = 'flights'\nlevel = 0\n")
    sources = os.pathsep.join([str(folder / "src"), str(ROOT / "runtime/src")])
    digests = []
    for package in ("flights", "rung_runtime"):
        code = f"from {package}.cli import STEPS, perform\n"
        code += "for name in list(STEPS)[:4]: perform(name)"
        environment = os.environ | {"PYTHONPATH": sources}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        digests.append(module("documents").digest(folder / "artifacts/model.skops"))
        shutil.rmtree(folder / "artifacts")
    assert digests[0] == digests[1]
