"""What CONTRIBUTING.md says about adding an export is all that it takes."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import test_exports
import test_orchestrators
from conftest import ROOT, Render
from rung import exports
from test_orchestrators import Orchestrator, export_with_script

BLOCK = re.compile(
    r"^   ```(?:toml|jinja)\n   (?:# |\{# )exports/(?P<place>\S+).*\n(?P<code>(?:.*\n)*?)^   ```$",
    re.M,
)


def walk() -> dict[str, str]:
    """Return the files that the section writes, by their paths in the folder of exports."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = page[page.index("\n## Add an export\n") : page.index("\n## What never changes\n")]
    return {
        match["place"]: "".join(
            line.removeprefix("   ") for line in match["code"].splitlines(keepends=True)
        )
        for match in BLOCK.finditer(section)
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Follow the section in a copy of the folder of exports, which `rung export` then reads."""
    module = importlib.import_module("rung.exports.export")
    copy = shutil.copytree(
        module.SYSTEMS, tmp_path / "exports", ignore=shutil.ignore_patterns("__pycache__")
    )
    for place, code in walk().items():
        (copy / place).parent.mkdir(exist_ok=True)
        (copy / place).write_text(code)
    monkeypatch.setattr(module, "SYSTEMS", copy)
    return copy


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    return shutil.copytree(render(level=1), tmp_path / "project", symlinks=True)


@pytest.fixture
def generate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the generator, which reads the copy."""
    spec = spec_from_file_location("generate", ROOT / "copier/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate", module)  # a dataclass looks for its module
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EXPORTS", folder)
    return module


@pytest.fixture
def run(folder: Path, project: Path, tmp_path: Path) -> tuple[Orchestrator, Callable[[str], Path]]:
    """Return what runs a training by GNU Make, and the project, exported for it."""
    (tmp_path / "home").mkdir()
    return Orchestrator("make", tmp_path / "home"), export_with_script(project, "make")


def test_the_walk_writes_one_folder() -> None:
    assert [*walk()] == ["make/export.toml", "make/graph.mk.jinja", "make/test.toml"]


def test_it_is_listed_and_what_it_writes_is_the_whole_graph(
    folder: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_exports.test_what_is_exported_is_the_whole_graph_with_its_settings(project, "make")
    test_exports.test_every_system_has_its_proof_and_is_listed(capsys)
    exports.list_systems()
    assert re.search(r"^make +GNU Make +live: make itself$", capsys.readouterr().out, re.M)


def test_the_pages_get_its_rows(generate: ModuleType) -> None:
    assert "| `make` | GNU Make | live: make itself | none |" in generate.exports()
    row = "| GNU Make | [`rung export make`](export.md) | live | make itself |"
    assert row in generate.systems()


# What issues and trials named: each has a row, whether it runs or not.
NAMED = """
Airflow, Argo, Dagster, Flyte, Kedro, Kubeflow, Luigi, Metaflow, MLRun, Prefect, Ray, ZenML,
GitHub, GitLab, Jenkins, CircleCI, Azure Pipelines, Buildkite, Bitbucket, Forgejo, Gitea,
SageMaker, Vertex AI, Azure ML, Polars, Dask, Spark, Ray Data, DuckDB, Daft,
MLflow, Weights & Biases, ClearML, Comet, TensorBoard, Aim, Neptune, Triton, KServe, BentoML,
LitServe, MLServer, TensorFlow Serving, TorchServe, Seldon, LightGBM, XGBoost, CatBoost, Keras
"""


def test_every_system_that_was_named_has_a_row_with_a_state_and_a_reason(
    generate: ModuleType,
) -> None:
    table = generate.systems()

    def has_a_row(name: str) -> bool:
        row = rf"^\| {re.escape(name)}\b[^|]*\|[^|]*\| [a-z -]+ \| [^|]{{3,}} \|$"
        return re.search(row, table, re.MULTILINE) is not None

    assert [name for name in map(str.strip, NAMED.split(",")) if not has_a_row(name)] == []


ROW = '[[system]]\ngroup = "{}"\nlabel = "{}"\nname = "make"\nstate = "{}"\nreason = "why"\n'


def test_a_row_without_a_folder_gives_way_to_one_with_a_folder(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "SYSTEMS", tmp_path / "systems.toml")
    (tmp_path / "systems.toml").write_text(
        ROW.format("orchestrator", "Make", "not yet") + ROW.format("ci", "Make CI", "not yet")
    )
    table = generate.systems()
    assert "| Make |" not in table
    assert "| GNU Make |" in table
    assert "| Make CI |  | not yet | why |" in table
    for group, state in (("orchestrator", "perhaps"), ("nowhere", "not yet")):
        (tmp_path / "systems.toml").write_text(ROW.format(group, "Make", state))
        with pytest.raises(ValueError, match=f"systems.toml: Make: {group}, {state}"):
            generate.systems()


def test_it_runs_as_every_other_one_does(
    run: tuple[Orchestrator, Callable[[str], Path]],
) -> None:
    test_orchestrators.test_every_node_runs_once_after_those_that_it_needs(*run)


@pytest.mark.parametrize("code", [1, 2])
def test_a_refusal_is_final_in_it(
    run: tuple[Orchestrator, Callable[[str], Path]], code: int
) -> None:
    test_orchestrators.test_a_node_that_refuses_ends_the_run_is_not_tried_again_and_says_why(
        *run, code
    )


def test_it_tries_again_what_may_succeed(run: tuple[Orchestrator, Callable[[str], Path]]) -> None:
    test_orchestrators.test_a_node_that_fails_otherwise_is_tried_again_as_often_as_is_configured(
        *run
    )
