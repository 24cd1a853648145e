"""The pages and the code name the same commands, settings, documents, adapters and files."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from pydantic import BaseModel
from rung.cli import Rung
from rung.console import BUG, INTERRUPTED
from rung.exceptions import RefusedError, UsageError
from typer.testing import CliRunner

Module = Callable[[str], ModuleType]

REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
RUNTIME = ROOT / "runtime/src/rung_runtime"
PAGES = {
    page: page.read_text("utf-8")
    for page in sorted(
        [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/*.md"),
            ROOT / "ci/README.md",
            ROOT / "template/AGENTS.md",
            ROOT / "template/README.md.jinja",
        ]
    )
    if page.name != "CHANGELOG.md"  # it tells of what was
}


def snippets(text: str) -> Iterator[str]:
    """Yield what is set as code: lines of blocks, and spans within a paragraph."""
    fences = r"^```.*?\n(.*?)^```"
    for block in re.findall(fences, text, re.M | re.S):
        yield from block.splitlines()
    for paragraph in re.sub(fences, "", text, flags=re.M | re.S).split("\n\n"):
        yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", paragraph))


def section(title: str) -> str:
    """Return the text of a section of the reference, with its subsections."""
    level = re.search(rf"^(#+) {re.escape(title)}$", REFERENCE, re.M)
    assert level, title
    rest = REFERENCE[level.end() :]
    end = re.search(rf"^#{{1,{len(level[1])}}} ", rest, re.M)
    return rest[: end.start()] if end else rest


def commands_of_ml(module: Module) -> dict[str, set[str]]:
    """Return every command with its options."""
    from typer.main import get_command

    commands: dict[str, set[str]] = {}
    todo: list[tuple[str, Any]] = [("", get_command(module("cli.app").app))]
    while todo:
        prefix, group = todo.pop()
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                todo.append((f"{name} ", command))
            else:
                options = [option for parameter in command.params for option in parameter.opts]
                commands[prefix + name] = {o for o in options if o.startswith("--")} - {"--help"}
    return commands


def test_the_summary_of_each_command_fits_on_its_line(module: Module) -> None:
    app = module("cli.app").app
    for group in ((), ("data",), ("labels",)):
        result = CliRunner().invoke(app, [*group, "--help"], terminal_width=80)
        assert result.exit_code == 0
        _usage, *lines = result.output.splitlines()
        cut = [line for line in lines if line.endswith("...")]
        assert not cut, "\n".join(cut)


def commands_of_rung() -> dict[str, set[str]]:
    """Return every command with its options, inherited ones included."""
    commands = dict[str, set[str]]()
    options_of = dict[str, set[str]]()
    for node in ast.parse((ROOT / "hooks/rung/cli.py").read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        options = set[str]()
        for base in node.bases:
            options |= options_of.get(ast.unparse(base), set())
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and call.args:
                name = getattr(call.func, "attr", "")
                if name in ("SwitchAttr", "Flag", "switch", "autoswitch"):
                    spelled = ast.literal_eval(call.args[0])
                    options |= {spelled} if isinstance(spelled, str) else set(spelled)
        options_of[node.name] = {option for option in options if option.startswith("--")}
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):  # Rung.subcommand("new")
                commands[str(ast.literal_eval(decorator.args[0]))] = options_of[node.name]
    return commands


def test_every_command_and_option_of_ml_is_in_the_reference(module: Module) -> None:
    commands = commands_of_ml(module)
    assert len(commands) > 30
    missing = [
        f"ml {name} {word}".strip()
        for name, options in commands.items()
        for word in ["", *sorted(options)]
        if (word or f"`ml {name}") not in REFERENCE
    ]
    assert missing == []


def test_every_command_and_option_of_ml_that_a_page_shows_exists(module: Module) -> None:
    commands = commands_of_ml(module)
    groups = {name.split()[0] for name in commands if " " in name}
    wrong = []
    shown = 0
    for page, text in PAGES.items():
        for snippet in snippets(text):
            for command in re.findall(r"(?:^|\$ |uv run |; |&& )ml ([a-z][^|;&#`]*)", snippet):
                words = command.split()
                name = " ".join(words[: 1 + (words[0] in groups and len(words) > 1)])
                options = {re.sub(r"=.*", "", word).strip("[]") for word in words}
                options = {option for option in options if re.fullmatch(r"--[a-z-]+", option)}
                shown += 1
                unknown = sorted(options - commands.get(name, set()) - {"--help"})
                if name not in commands and name not in groups:
                    wrong.append(f"{page.relative_to(ROOT)}: ml {name}")
                wrong += [f"{page.relative_to(ROOT)}: ml {name} {option}" for option in unknown]
    assert shown > 200
    assert wrong == []


def test_every_command_of_rung_is_in_the_reference_and_no_other() -> None:
    commands = commands_of_rung()
    assert {"new", "adopt", "update", "up", "add"} <= set(commands)
    table = section("The command `rung`")
    assert set(re.findall(r"^\| `rung (\w+)", table, re.M)) == set(commands)
    for name, options in commands.items():
        missing = {option for option in options if option not in table}
        assert not missing, (name, missing)
    wrong = []
    for page, text in PAGES.items():
        for snippet in snippets(text):
            for command in re.findall(r"(?:^|\$ |URL )rung ([a-z]+[^|;&#`]*)", snippet):
                words = command.split()
                options = {re.sub(r"=.*", "", word) for word in words if word.startswith("--")}
                known = commands.get(words[0])
                if known is None or not options <= known | {"--help"}:
                    wrong.append(f"{page.relative_to(ROOT)}: rung {command}")
    assert wrong == []


def test_every_exit_code_that_a_page_names_is_in_the_table(module: Module) -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.M)}
    code = "".join((RUNTIME / f"cli/{name}.py").read_text("utf-8") for name in ("app", "start"))
    names = r"(?:\bleave\(|^BUG = |^CLOSED_PIPE = )"
    assert table == {0, *map(int, re.findall(rf"{names}(\d+)", code, re.MULTILINE))}
    for page, text in PAGES.items():
        named = {int(number) for number in re.findall(r"exit code (\d+)", text)}
        assert named <= table, page


def test_the_exit_codes_of_rung_are_in_the_table_and_with_the_command() -> None:
    codes = {0, UsageError.exit_code, RefusedError.exit_code, BUG, INTERRUPTED}
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.M)}
    assert codes <= table
    text = section("The command `rung`").partition("|")[0]
    assert {code for code in codes if re.search(rf"\b{code}\b", text)} == codes
    assert {code for code in codes if f" {code} " in Rung.DESCRIPTION_MORE} == codes


def keys(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """Return the keys of a record, as a file has them, with the record that is below each."""
    return {
        field.alias or name: nested(field.annotation) for name, field in model.model_fields.items()
    }


def nested(annotation: Any) -> type[BaseModel] | None:
    """Return the record that an annotation holds, directly or in a mapping or union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [nested(part) for part in getattr(annotation, "__args__", ())]
    return next((part for part in inner if part), None)


@pytest.mark.parametrize("name", ["data", "model", "gate", "delivery", "drift", "scale"])
def test_every_setting_is_in_the_reference_and_no_other(name: str, module: Module) -> None:
    model = getattr(module(f"config.{name}"), name.capitalize())
    text = section(f"config/{name}.yaml")
    expected = set(keys(model))
    for below in keys(model).values():
        # What costs have stands in their own row.
        if below is not None and below.__name__ != "Costs":
            expected |= set(keys(below))
    tables = {
        key
        for row in re.findall(r"^\| (`[^|]+) \|", text, re.M)
        for key in re.findall(r"`(\w+)`", row)
    }
    inline = set(re.findall(r"`(\w+)`", text)) - tables
    assert expected - tables <= inline, "not in the reference"
    assert tables <= expected, "not a key"


def test_every_document_is_in_the_reference_and_every_one_named_exists(module: Module) -> None:
    documents = {path.name for path in module("artifacts").DOCUMENTS.values()}
    made = documents | {path.name for path in module("artifacts").MADE_BY}
    text = section("Documents") + section("Commands") + section("Monitoring")
    assert {name for name in documents if f"{name}`" not in text} == set()
    code = "\n".join(path.read_text("utf-8") for path in RUNTIME.rglob("*.py"))
    for page, content in PAGES.items():
        named = set(re.findall(r"`artifacts/(\w+\.\w+)`", content))
        assert {name for name in named - made if name not in code} == set(), page


def test_every_adapter_is_named_and_every_one_named_exists() -> None:
    adapters = {path.parent.name for path in RUNTIME.glob("adapters/*/adapter.toml")}
    assert len(adapters) >= 8
    page = PAGES[ROOT / "docs/adapters.md"]
    for name in adapters:
        manifest = tomllib.loads((RUNTIME / f"adapters/{name}/adapter.toml").read_text("utf-8"))
        assert f"| {manifest['slot']} | [{manifest['name']}](" in page, name
    slots = {name.split("_")[0] for name in adapters}
    for page_path, text in PAGES.items():
        named = set(re.findall(rf"adapters/((?:{'|'.join(slots)})_\w+)", text))
        example = {"registry_shelf"}
        assert named - example <= adapters, page_path


def test_every_variable_of_ml_that_the_code_reads_is_named_and_the_other_way_round() -> None:
    code = "\n".join(path.read_text("utf-8") for path in RUNTIME.rglob("*.py"))
    kit = [path for path in (ROOT / "ci").rglob("*") if path.is_file() and path.suffix != ".md"]
    pipelines = "\n".join(path.read_text("utf-8") for path in kit)
    read = set(re.findall(r"\bML_[A-Z_]*[A-Z]\b", code))
    named = set(re.findall(r"\bML_[A-Z_]*[A-Z]\b", "\n".join(PAGES.values())))
    service = set(re.findall(r"^\| `(\w+)` ", section("config/delivery.yaml"), re.M))
    of_service = {f"ML_{key.upper()}" for key in service}
    unknown = {name for name in named - read - of_service if name not in pipelines}
    assert unknown == set(), "nothing reads it"
    assert read - named - {"ML_STEP_RUNNER"} == set(), "no page names it"  # one that it sets itself


def test_every_file_that_a_page_names_is_in_this_repository_or_in_a_project(
    render: Callable[..., Path],
) -> None:
    project = render(level=2, ci=["github", "gitlab"], deployment="kubernetes")
    package = next(path for path in (project / "src").iterdir() if path.name != "rung_runtime")
    places = [ROOT, ROOT / "docs", project, package, RUNTIME, RUNTIME.parent, RUNTIME.parents[1]]
    tops = "src|config|docs|tests|ci|hooks|runtime|template|copier|deploy|problem|adapters"
    path = re.compile(rf"((?:{tops}|\.github|\.gitlab|\.ci)/[\w./<>{{}}-]*)")
    missing = []
    count = 0
    for page, text in PAGES.items():
        for snippet in snippets(text):
            for name in path.findall(snippet) if path.match(snippet) else []:
                if (
                    re.search(
                        r"[A-Z]{3,}|\.\.\.|registry_shelf|config/(export|scale|tune)\.yaml", name
                    )
                    or snippet != name
                ):
                    continue  # a placeholder, more than a path, or a team's own
                name = re.sub(r"<package>|\{\{ ?package_name ?\}\}", package.name, name).rstrip("/")
                count += 1
                if not any((place / name).exists() for place in places):
                    missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert count > 200
    assert missing == []
