from __future__ import annotations

import ast
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml
from conftest import QUESTIONS, Render, git
from paths import CLASSES, ROOT, decides, table
from pathspec import PathSpec
from rung.pre_update import possible_files
from rung.template import Template

RUNTIME = ROOT / "runtime/src"
DEFAULTS: dict[str, object] = {"package_name": "flight_delays"}
LISTS = ("ci", "model_format")  # questions whose answer is a list
# Each choice that brings paths is missing from one of these.
LEFT_OUT: list[dict[str, object]] = [
    {"registry": "oci", "ci": ["github"]},
    {"registry": "mlflow", "ci": ["gitlab"]},
    {"runtime": "package"},
]


def every_choice() -> list[dict[str, object]]:
    """Return the answers of a few projects, which have every choice that brings paths."""
    choices: dict[str, list[str]] = {}
    for row in table():
        if row.answer and row.answer[1] not in choices.setdefault(row.answer[0], []):
            choices[row.answer[0]].append(row.answer[1])
    most = max(len(values) for name, values in choices.items() if name not in LISTS)
    return [
        {
            n: values if n in LISTS else values[min(k, len(values) - 1)]
            for n, values in choices.items()
        }
        for k in range(most)
    ]


def has(answers: dict[str, object], name: str, value: str) -> bool:
    """Tell whether a choice is among the answers; what is not answered has its default."""
    answer = answers.get(name, QUESTIONS[name]["default"])
    return value in answer if isinstance(answer, list) else answer == value


def files(project: Path) -> list[str]:
    return sorted(p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file())


def imported(file: Path) -> set[str]:
    """Return the dotted names that a file of the runtime imports, wherever it does."""
    package = file.relative_to(RUNTIME).parent.parts
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *([node.module] if node.module else [])])
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return names


def level_of(path: Path) -> int:
    row = decides(f"src/{path.relative_to(RUNTIME).as_posix()}", table(), DEFAULTS)
    assert row
    return row.level


# What decides nothing that passes, runs where a token is, or says who may what.
NEEDS_NO_OWNER = {
    "/.editorconfig",
    "/.gitignore",
    "/AGENTS.md",
    "/Makefile",
    "/README.md",
    "/data/raw/flights.csv",
    "/src/flight_delays/problem",
    "/tests/test_problem.py",
    "/tox.ini",
}


@pytest.mark.parametrize("ci", ["github", "gitlab"])
@pytest.mark.parametrize("runtime", ["copied", "package"])
def test_what_decides_or_runs_has_a_line_for_its_owners(ci: str, runtime: str) -> None:
    lines = (ROOT / "template/CODEOWNERS").read_text("utf-8").splitlines()
    owned = [line[2:] for line in lines if line.startswith("# /")]
    assert {line.split()[1] for line in owned} == {"@OWNER/TEAM"}
    spec = PathSpec.from_lines("gitignore", [line.split()[0] for line in owned])
    paths = {"/uv.lock"}  # which `make setup` writes
    for row in table():
        answers: dict[str, object] = {"ci": [ci], "runtime": runtime}
        if row.answer is None or row.answer[0] not in answers or has(answers, *row.answer):
            path = row.path.replace("{{ package_name }}", "flight_delays")
            paths.add(path.replace("{{ _copier_conf.answers_file }}", ".copier-answers.yml"))
    free = {path for path in paths if not spec.match_file(f"{path[1:]}/x")}
    assert free == NEEDS_NO_OWNER & paths


def test_no_module_imports_one_of_a_higher_level() -> None:
    """A project's type checker would miss it, and so would whoever runs that line."""
    levels = {}
    for file in RUNTIME.rglob("*.py"):
        module = file.parent if file.name == "__init__.py" else file.with_suffix("")
        levels[".".join(module.relative_to(RUNTIME).parts)] = (file, level_of(file))
    missing = [
        f"{name}, of level {level}, imports {other}"
        for name, (file, level) in levels.items()
        for other in imported(file)
        if other in levels and levels[other][1] > level
    ]
    assert len(levels) > 100
    assert not missing


def test_each_row_of_the_table_is_well_formed() -> None:
    rows = table()
    assert {row.kind for row in rows} <= set(CLASSES)
    assert {row.level for row in rows} <= {0, 1, 2}
    assert len({row.path for row in rows}) == len(rows)
    for row in rows:
        # A trailing slash would match files only below a folder, and leave the empty folder.
        assert row.path.startswith("/")
        assert not row.path.endswith("/")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_path_has_a_class(render: Render, level: int) -> None:
    for path in files(render(level=level)):
        row = decides(path, table(), DEFAULTS)
        assert row is not None, f"{path} has no row in copier/paths.yml"
        assert row.kind != "retired"
        assert row.level <= level


def test_an_exception_is_stricter_than_its_folder(render: Render) -> None:
    """Copier's patterns know no exception that would make a seed owned, or a level lower."""
    for path in files(render(level=2)):
        last = decides(path, table(), DEFAULTS)
        assert last is not None
        for row in table():
            if row != last and row.matches(path, DEFAULTS):
                assert row.kind == "owned"
                assert row.level <= last.level


@pytest.mark.slow
def test_every_row_matches_a_path_at_its_level_and_none_below(render: Render) -> None:
    rows = [row for row in table() if row.kind != "retired"]
    projects = every_choice()
    for level in (0, 1, 2):
        hit = [
            {decides(path, table(), DEFAULTS) for path in files(render(level=level, **answers))}
            for answers in projects
        ]
        for row in rows:
            matches = [
                row in deciding
                for answers, deciding in zip(projects, hit, strict=True)
                if not row.answer or has(answers, *row.answer)
            ]
            assert set(matches) == {level >= row.level}, f"{row.path} at level {level}"


@pytest.mark.slow
def test_a_project_has_only_the_adapters_that_were_asked_for(render: Render) -> None:
    rows = [row for row in table() if row.answer]
    assert rows
    for row in rows:
        assert row.answer is not None
        without = [answers for answers in LEFT_OUT if not has(answers, *row.answer)]
        assert without, f"each project has the answer of {row.path}"
        for answers in without:
            paths = files(render(level=2, **answers))
            assert not any(row.matches(path, DEFAULTS) for path in paths), row.path


def test_a_level_adds_whole_files(render: Render) -> None:
    """Few and short are the files that change with the level."""
    below = render(level=0)
    above = render(level=1)
    assert set(files(below)) <= set(files(above))
    changed = {f for f in files(below) if (below / f).read_bytes() != (above / f).read_bytes()}
    assert changed <= {".copier-answers.yml", "README.md", "pyproject.toml"}


def test_later_seeds_are_skipped_if_they_exist_and_retired_paths_never_written() -> None:
    spec = spec_from_file_location("generate", ROOT / "copier/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "generate", generate)  # a dataclass looks for its module
        spec.loader.exec_module(generate)
    rows = [("a", "seed", 0), ("b", "seed", 1), ("c", "owned", 2), ("d", "retired", 1)]
    table = "".join(f"- {{path: /{p}, class: {kind}, level: {n}}}\n" for p, kind, n in rows)
    settings = yaml.safe_load(generate.lists(table))
    assert settings["_exclude"][3:] == [
        "{% if _copier_operation == 'update' %}\n/a\n{% endif %}\n",
        "{% if level < 1 %}\n/b\n{% endif %}\n",
        "{% if level < 2 %}\n/c\n{% endif %}\n",
        "/d",
    ]
    assert settings["_skip_if_exists"] == ["/b"]


def test_what_a_link_to_a_folder_brings_is_among_what_an_update_may_write(tmp_path: Path) -> None:
    """An update saves the ignored files in these places: else it would overwrite them unseen."""
    for name in ("runtime/src/rt/gate.py", "ci/checks.yml", "template/Makefile.jinja"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "template/src").mkdir()
    (tmp_path / "template/src/rt").symlink_to("../../runtime/src/rt")
    (tmp_path / "template/checks.yml").symlink_to("../ci/checks.yml")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "-q", "-m", "one")
    template = Template(str(tmp_path), "HEAD", "v1")
    assert possible_files(template, "own") == {"Makefile", "checks.yml", "src/rt/gate.py"}
