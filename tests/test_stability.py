"""What is public keeps working: docs/stability.md, compared with the last release."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import releases
import yaml
from conftest import ROOT
from jsonschema import Draft202012Validator
from pydantic import AliasChoices, BaseModel

Module = Callable[[str], ModuleType]
RELEASE = releases.newest()


@pytest.fixture(scope="session")
def last(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Module, Path]]:
    """Import modules of the last release under a name of their own; and the release's files."""
    commit = releases.commit_of(RELEASE)
    folder = tmp_path_factory.mktemp("release")
    paths = ["template", releases.RUNTIME]
    packed = subprocess.check_output(["git", "-C", ROOT, "archive", commit, *paths])
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    (folder / releases.RUNTIME).rename(folder / "last_release")
    (folder / releases.PACKAGE / "problem").rename(folder / "last_problem")
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"last_release.{name}".rstrip(".")), folder
    sys.path.remove(str(folder))


def settings(*modules: ModuleType) -> dict[str, type[BaseModel]]:
    """Return the classes of settings that modules define."""
    return {
        name: kind
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, BaseModel)
        and kind.__module__ == module.__name__
    }


CONFIG = [
    f"config.{name}"
    for name in (
        *("files", "data", "model", "gate", "fairness", "pipeline", "delivery", "drift"),
        *("scale", "tune"),
    )
]


def released(last: tuple[Module, Path], *names: str) -> list[str]:
    """Return those of some modules that the last release has."""
    package = last[1] / "last_release"
    paths = {name: package / name.replace(".", "/") for name in names}
    return [
        name
        for name, path in paths.items()
        if path.is_dir() or path.with_name(f"{path.name}.py").is_file()
    ]


def test_every_module_of_settings_is_compared() -> None:
    folder = ROOT / releases.RUNTIME / "config"
    there = {f"config.{path.stem}" for path in folder.glob("*.py")}
    assert there - set(CONFIG) == {"config.__init__", "config.edit"}  # which have no settings


def test_no_key_of_config_goes_and_none_is_asked_for_that_was_not(
    module: Module, last: tuple[Module, Path]
) -> None:
    now = settings(*map(module, CONFIG))
    for kind, model in settings(*map(last[0], released(last, *CONFIG))).items():
        fields = now[kind].model_fields
        names = read_names(now[kind])
        assert set(read_names(model)) <= set(names)
        known = {names[key] for key in model.model_fields}
        assert not [key for key in set(fields) - known if fields[key].is_required()]
        for key, field in model.model_fields.items():
            assert fields[names[key]].is_required() <= field.is_required(), f"{kind}.{key}"


def read_names(record: type[BaseModel]) -> dict[str, str]:
    """Return each name that a key of a record is read by, and its name now."""
    names = {name: name for name in record.model_fields}
    for name, field in record.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice): name for choice in field.validation_alias.choices}
    return names


def test_each_earlier_name_of_a_key_is_in_the_table_of_names_that_changed(module: Module) -> None:
    page = (ROOT / "docs/stability.md").read_text("utf-8")
    table = page.partition("## Names that changed")[2].partition("## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `config/")]
    count = 0
    for file in CONFIG:
        for record in settings(module(file)).values():
            for earlier, name in read_names(record).items():
                if earlier != name:
                    count += 1
                    stem = file.partition(".")[2]
                    cells = [row for row in rows if f"`config/{stem}.yaml`" in row[1]]
                    assert [
                        row for row in cells if f"`{earlier}" in row[2] and f"`{name}" in row[3]
                    ]
    assert count >= len(rows)


def test_files_in_config_of_the_last_release_are_read(
    module: Module, last: tuple[Module, Path]
) -> None:
    config, delivery, drift = map(module, ("config", "config.delivery", "config.drift"))
    folder = last[1] / "template"
    for path, kind in (
        (config.DATA, config.Data),
        (config.MODEL, config.Model),
        (config.GATE, config.Gate),
        (delivery.DELIVERY, delivery.Delivery),
        (drift.DRIFT, drift.Drift),
    ):
        written = yaml.safe_load((folder / path).read_text("utf-8"))
        read = config.read(folder / path, kind).model_dump()
        names = read_names(kind)
        assert {names[key] for key in written} <= read.keys()


def test_a_contract_of_the_last_release_means_the_same(
    module: Module, last: tuple[Module, Path]
) -> None:
    """As a package has it: every key, under the name that it had then."""
    config = last[0]("config")
    columns = {
        "x": config.Column(type="category", categories=["a"], open=True),
        "y": config.Column(type="number", nullable=True),
    }
    before = config.Data(
        source="data/raw/x.csv",
        gaps=["", "NA"],
        target="y",
        task="regression",
        split=config.Split(by="stratified"),
        columns=columns,
        left_out={"z": "constant"},
    )
    for read in (
        module("config").Data.model_validate_json(before.model_dump_json()),
        module("config").Data.model_validate(before.model_dump()),
    ):
        assert read.missing_values == ["", "NA"]
        assert read.ignored == {"z": "constant"}
        assert read.columns["x"].allow_unknown
        assert not read.columns["y"].allow_unknown
        names = read_names(type(read))
        assert all(
            getattr(read, names[key]) == getattr(before, key)
            for key in type(before).model_fields
            if key not in ("columns", "split")
        )


def parameters(app: Any) -> dict[str, set[str]]:
    """Return the commands of a typer application, with the parameters that each must be given."""
    from typer.main import get_command

    named = {}
    todo = [("", get_command(app))]
    while todo:
        prefix, group = todo.pop()
        for name, command in getattr(group, "commands", {}).items():
            todo.append((f"{prefix}{name} ", command))
            named[f"{prefix}{name}"] = {p.name for p in command.params if p.required}
            named[f"{prefix}{name} (all)"] = {p.name for p in command.params}
    return named


def test_no_command_of_ml_goes_or_asks_for_more(module: Module, last: tuple[Module, Path]) -> None:
    before = parameters(last[0]("cli.app").app)
    now = parameters(module("cli.app").app)
    for name, names in before.items():
        if name.endswith("(all)"):
            assert names <= now[name], name
        else:
            assert now[name] <= names, name


def test_no_command_or_option_of_rung_goes(last: tuple[Module, Path]) -> None:
    commit = releases.commit_of(RELEASE)
    text = subprocess.check_output(["git", "-C", ROOT, "show", f"{commit}:hooks/rung/cli.py"])
    before = ast.parse(text)
    now = ast.parse((ROOT / "hooks/rung/cli.py").read_text())
    assert switches(before)
    assert switches(before) <= switches(now)


def switches(tree: ast.Module) -> set[str]:
    """Return the commands and options that plumbum's decorators name."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = (call for call in calls if getattr(call.func, "attr", "") in ("subcommand", "switch"))
    every = [call.args for call in named]
    flags = ("SwitchAttr", "Flag")
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    every += [call.args for call in calls if getattr(call.func, "attr", "") in flags]
    return {
        constant.value
        for args in every
        for arg in args[:1]
        for constant in ast.walk(arg)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def test_documents_of_the_last_release_are_valid_and_no_field_goes(
    last: tuple[Module, Path],
) -> None:
    before = json.loads((last[1] / "last_release/documents.schema.json").read_text())
    now = json.loads((releases.ROOT / releases.RUNTIME / "documents.schema.json").read_text())
    for step, old in before["$defs"].items():
        assert set(old.get("properties", {})) <= set(now["$defs"][step].get("properties", {}))
    for version in ("0.2", "0.3"):
        steps = set()
        for path in sorted((ROOT / f"tests/data/documents-{version}").glob("*.json")):
            if path.name == "champion.json":  # which version that was: no document
                continue
            document = json.loads(path.read_text())
            Draft202012Validator({**now, "$ref": f"#/$defs/{document['step']}"}).validate(document)
            steps.add(document["step"])
        assert len(steps) == 11


def test_a_registry_a_package_and_a_log_of_0_3_are_read(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made by 0.3.0 itself: see tests/data/documents-0.3. Those of 0.2 are in test_runtime.py."""
    project = shutil.copytree(ROOT / "tests/data/documents-0.3/project", tmp_path / "project")
    monkeypatch.chdir(project)
    answers = json.loads((project / "answers.json").read_text("utf-8"))
    registry = module("registry")
    package = module("model_package")
    champion = registry.current_champion()
    assert champion.version == answers["version"]
    assert [version.version for version in registry.open_registry().versions()] == [
        champion.version
    ]
    fetched = registry.fetch_version(champion, project / "fetched")
    model = package.load_package(fetched, champion.digest)
    rows = module("serving.rows").frame_from_rows(answers["rows"], model.request_contract)
    typed = model.read(rows)
    assert not model.failures(typed)
    predicted = model.answers(model.predict(typed))
    for row, expected in zip(predicted, answers["predictions"], strict=True):
        assert row["prediction"] == expected["prediction"]
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-12)
    log = module("prediction_log")
    logged = log.joined("predictions", model_digest=model.digest).sort("time", "row").collect()
    assert (logged.height, logged["truth"].count()) == (400, 300)
    last = [row["probabilities"]["true"] for row in answers["predictions"]]
    assert logged["p:true"].tail(20).to_list() == last
    (project / "more.csv").write_text("request_id,row,delayed\nrequest-300,0,true\n")
    assert "without" not in log.add_labels(project / "more.csv", model.data, "predictions")
    assert log.joined("predictions").collect()["truth"].count() == 301


@pytest.mark.parametrize("name", ["data", "schema", "features", "model"])
def test_modules_of_problem_of_the_last_release_are_called_as_before(
    module: Module, last: tuple[Module, Path], name: str
) -> None:
    protocol = getattr(module("problem"), f"{name.capitalize()}Module")
    written = importlib.import_module(f"last_problem.{name}")
    functions = {
        key: function
        for key, function in vars(protocol).items()
        if inspect.isfunction(function) and not key.startswith("_")
    }
    assert functions
    for key, function in functions.items():
        arguments = list(inspect.signature(function).parameters)[1:]  # without self
        inspect.signature(getattr(written, key)).bind(*arguments)
    for key in getattr(protocol, "__annotations__", {}):
        assert hasattr(written, key)


def test_tool_rung_of_the_last_release_is_read_and_means_the_same(
    module: Module, last: tuple[Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = last[0]("project")
    now = module("project")
    assert set(before.LEVELS) <= set(now.LEVELS)
    for slot, choices in (("registry", ["mlflow", "oci"]), ("target", ["kubernetes", "local"])):
        assert set(last[0]("adapters").names(slot)) == set(choices)
        assert set(choices) <= set(module("adapters").names(slot))
    for number, level in enumerate(before.LEVELS):
        written = {"package": "ours", "level": level, "ci": list(before.PLATFORMS[:number])}
        written |= {"registry": "mlflow", "deployment": "kubernetes"}
        assert written.keys() == {field.name for field in dataclasses.fields(before.Project)}
        folder = tmp_path / str(level)
        folder.mkdir()
        lines = [f"{key} = {json.dumps(value)}" for key, value in written.items()]
        (folder / "pyproject.toml").write_text("\n".join(["[tool.rung]", *lines, ""]))
        monkeypatch.chdir(folder)
        for field in dataclasses.fields(before.Project):
            assert getattr(now.current(), field.name) == getattr(before.current(), field.name)
        assert now.current().has_loop == before.current().has_loop


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (lambda errors: errors.RefusedError("no"), 1),
        (lambda errors: errors.UsageError("what?"), 2),
        (lambda _: OSError(28, "no space left", "x"), 2),
        (lambda _: ArithmeticError("a bug"), 70),
        (None, 0),
    ],
)
def test_exit_codes_of_ml_say_what_they_said(
    module: Module,
    last: tuple[Module, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[ModuleType], Exception] | None,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ml"])
    for source in (last[0], module):
        application = source("cli.app")
        raised = error(source("exceptions")) if error else SystemExit(0)
        monkeypatch.setattr(application, "app", Mock(side_effect=raised))
        with pytest.raises(SystemExit) as ended:
            application.main()
        assert ended.value.code == code


def test_exit_codes_of_rung_say_what_they_said() -> None:
    before: dict[str, Any] = {"__name__": "before"}
    exec(releases.last("hooks/rung/exceptions.py"), before)  # of this repository's history
    now = importlib.import_module("rung.exceptions")
    codes = {name: before[name].exit_code for name in ("UsageError", "RefusedError")}
    assert codes == {"UsageError": 2, "RefusedError": 1}
    assert codes == {name: getattr(now, name).exit_code for name in codes}


def own_names(source: ModuleType) -> dict[str, Any]:
    """Return the public functions and classes that a module, or a package's modules, define."""
    return {
        name: value
        for name, value in vars(source).items()
        if not name.startswith("_")
        and f"{getattr(value, '__module__', '')}.".startswith(f"{source.__name__}.")
    }


def must_be_given(source: ModuleType, contract: str) -> set[str]:
    """Return the fixtures that a class which inherits a contract has to give."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(vars(source)[contract]) or source))
    (described,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == contract
    )
    return {
        function.name
        for function in described.body
        if isinstance(function, ast.FunctionDef)
        and any("NotImplementedError" in ast.unparse(line) for line in function.body)
    }


def test_names_of_testing_stay_and_a_contract_asks_for_no_more_fixtures(
    module: Module, last: tuple[Module, Path]
) -> None:
    testing = last[1] / "last_release/testing"
    there = [path.stem for path in (*testing.glob("[!_]*.py"), *testing.glob("[!_]*/"))]
    contracts = 0
    for name in there:
        sources = (last[0](f"testing.{name}"), module(f"testing.{name}"))
        before, now = map(own_names, sources)
        assert before.keys() <= now.keys()
        for key in filter(lambda key: key.endswith("Contract"), before):
            contracts += 1
            fixtures, wanted = (must_be_given(source, key) for source in sources)
            assert fixtures
            assert wanted <= fixtures
            assert {n for n in vars(before[key]) if n[:1] != "_"} <= set(vars(now[key]))
    assert sorted(there) == ["adapters", "controls", "registry"]
    assert contracts == 4


PROTOCOLS = {
    "adapters": "Tracker",
    "ci_platform": "Platform",
    "delivery.target": "Target",
    "engines": "Engine",
    "explanations": "Explainer",
    "model_format": "ModelFormat",
    "registry": "Registry",
}
OPTIONAL = {"record_trials"}  # as their docstrings say


def test_an_adapter_of_your_own_for_the_last_release_has_all_that_is_called(
    module: Module, last: tuple[Module, Path]
) -> None:
    compared = {PROTOCOLS[place] for place in released(last, *PROTOCOLS)}
    assert compared == {"Tracker", "Platform", "Target", "Registry"}  # others came later
    for place in released(last, *PROTOCOLS):
        now = functions(getattr(module(place), PROTOCOLS[place]))
        before = functions(getattr(last[0](place), PROTOCOLS[place]))
        assert set(now) - OPTIONAL <= set(before)
        for name in set(now) & set(before):
            parameters = list(inspect.signature(now[name]).parameters)
            inspect.signature(before[name]).bind(*parameters)


def functions(protocol: type) -> dict[str, Any]:
    """Return the public functions of a protocol."""
    return {
        name: value
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
