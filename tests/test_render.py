from __future__ import annotations

import ast
import io
import itertools
import keyword
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import QUESTIONS, ROOT, Render, copy
from test_paths import files

LEVELS = [0, 1, 2]
CI: list[list[str]] = [[], ["github"], ["gitlab"], ["github", "gitlab"]]
NAMES: list[dict[str, str]] = [
    {},
    {"package_name": "a"},
    {"package_name": "a_name_as_long_as_they_may_get"},  # 30 characters
    {
        "project_name": "Überfällige Züge (S-Bahn): vor_her, & nach+1",
        "description": "Sagt's voraus: wie spät? 100 % 'sicher' - # nein; {}".replace("{}", "[x]"),
    },
]
# A report's own template and a format string have braces too; only ours name an answer.
JINJA = rf"\{{[{{%][^}}%]*\b({'|'.join(QUESTIONS)}|_copier_\w+)\b"


def tier(level: int, row: int, column: int) -> list[pytest.MarkDecorator]:
    """Have each answer once in `make quick`, each pair in `make test`, all in `make nightly`."""
    if level != (row + column) % len(LEVELS):
        return [pytest.mark.nightly]
    return [] if row == column else [pytest.mark.slow]


COMBINATIONS = [
    pytest.param({"level": level, "ci": ci, **names}, marks=tier(level, row, column))
    for level, (row, ci), (column, names) in itertools.product(
        LEVELS, enumerate(CI), enumerate(NAMES)
    )
]
ADAPTERS = [
    {"level": 1, "registry": registry, "deployment": deployment}
    for registry, deployment in itertools.product(["oci", "mlflow"], ["local", "kubernetes"])
] + [
    {"level": 2, "ci": ["github", "gitlab"]},
    {"level": 1, "explainer": "lime"},
    {"level": 1, "engine": "dask"},
    {"level": 0, "model_format": ["skops", "lightgbm", "xgboost", "catboost", "torch", "keras"]},
]


def test_there_is_nothing_that_needs_trust() -> None:
    settings = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert not {"_tasks", "_jinja_extensions", "_migrations"} & set(settings)
    assert settings["_envops"]["undefined"] == "jinja2.StrictUndefined"


def test_defaults_are_enough(render: Render) -> None:
    answers = yaml.safe_load((render() / ".copier-answers.yml").read_text())
    later = {"registry", "deployment"}  # asked from level 1
    assert {key for key in answers if not key.startswith("_")} == set(QUESTIONS) - later
    assert answers["package_name"] == "flight_delays"
    assert answers["level"] == 0
    assert answers["ci"] == ["github"]


def test_every_question_explains_itself_and_has_a_default() -> None:
    questions = [
        "project_name",
        "package_name",
        "description",
        "level",
        "ci",
        "registry",
        "deployment",
    ]
    hidden = ["runtime", "model_format", "explainer", "engine"]  # not asked
    assert list(QUESTIONS) == [*questions, *hidden]
    for question in QUESTIONS.values():
        assert "default" in question
        assert question["help"].rstrip().endswith(("?", "."))


def test_level_2_adds_whole_files_and_changes_the_delivery_alone(render: Render) -> None:
    both = ["github", "gitlab"]
    below = render(level=1, ci=both)
    above = render(level=2, ci=both)
    assert set(files(below)) < set(files(above))
    changed = {f for f in files(below) if (below / f).read_bytes() != (above / f).read_bytes()}
    deliver = {".github/workflows/deliver.yml", ".gitlab/deliver.yml"}
    assert changed == {".copier-answers.yml", "pyproject.toml", *deliver}


def test_a_project_without_providers_has_no_pipelines(render: Render) -> None:
    names = files(render(level=2, ci=[]))
    assert not [name for name in names if name.startswith((".github", ".gitlab"))]
    assert "Pipelines" not in (render(level=2, ci=[]) / "README.md").read_text()


class GitLab(yaml.CSafeLoader):
    """YAML with GitLab's own tag."""


GitLab.add_constructor("!reference", lambda _, node: [part.value for part in node.value])


def test_an_unknown_answer_is_refused(render: Render) -> None:
    with pytest.raises(LookupError, match="colour"):
        render(colour="red")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *(
            ("project_name", x)
            for x in ["", " x", "x ", "1st", '"x"', "a\\b", "a\nb", "<b>", "x" * 61]
        ),
        *(("project_name", x) for x in ["{{ x }}", "a`b", "$(x)"]),
        *(("package_name", x) for x in ["", "A", "é", "1a", "a-b", "a b", "_a", "a_", "a__b"]),
        *(("package_name", x) for x in ["class", "match", "json", "ml", "tests", "src", "polars"]),
        *(("package_name", x) for x in ["a\n", "x" * 31]),
        *(("description", x) for x in ["", " x", 'say "x"', "a\\b", "a\nb", "a\tb", "x" * 201]),
        *(("description", x) for x in ["a\u2028b", "a\u0085b", "<b>", "{{ x }}", "`x`"]),
        ("level", 3),
        ("level", -1),
        ("level", "one"),
        ("ci", ["jenkins"]),
        ("registry", "npm"),
        ("deployment", "ftp"),
    ],
)
def test_an_invalid_answer_is_refused_before_a_file_is_written(
    template: Path, tmp_path: Path, question: str, answer: object
) -> None:
    with pytest.raises(ValueError, match=r"."):
        copy(template, tmp_path / "project", {question: answer})
    assert not (tmp_path / "project").exists()


def test_no_package_hides_a_module_of_python() -> None:
    taken = (ROOT / "copier/names.jinja").read_text().split('"""')[1].split()
    public = {n for n in sys.stdlib_module_names if n.islower() and not n.startswith("_")}
    assert public <= set(taken)
    assert set(keyword.kwlist) - {"False", "None", "True"} <= set(taken)


@pytest.mark.parametrize(
    ("project", "package"),
    [
        ("Churn, 2nd try", "churn_2nd_try"),
        ("Statistics", "project_statistics"),
        ("ML", "project_ml"),
        ("Lambda", "project_lambda"),
        ("Ü", "project_one"),
        ("A" * 60, "a" * 24),
        ("É2", "project_2"),
    ],
)
def test_every_project_name_gives_a_valid_package_name(
    render: Render, project: str, package: str
) -> None:
    assert (render(project_name=project) / "src" / package).is_dir()


def test_an_undefined_name_in_the_template_fails(template: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(template, tmp_path / "template")
    (broken / "template/undefined.txt.jinja").write_text("{{ pakage_name }}\n")
    with pytest.raises(Exception, match="pakage_name"):
        copy(broken, tmp_path / "project", {})


@cache  # most files are the same in all combinations
def parse(suffix: str, text: str) -> None:
    """Read a file as what reads it does, which raises where it cannot."""
    match suffix:
        case ".toml":
            tomllib.loads(text)
        case ".yaml" | ".yml":
            list(yaml.load_all(text, GitLab))
        case ".py":
            ast.parse(text)


@pytest.mark.parametrize("answers", [*COMBINATIONS, *ADAPTERS], ids=str)
def test_every_combination_renders_and_parses(render: Render, answers: dict[str, object]) -> None:
    project = render(**answers)
    package = yaml.safe_load((project / ".copier-answers.yml").read_text())["package_name"]
    assert (project / "src" / package / "problem").is_dir()
    for name in files(project):
        text = (project / name).read_bytes().decode()
        path = Path(name)
        assert "{{" not in name
        assert not re.search(JINJA, text), f"{name} has unrendered Jinja"
        parse(path.suffix, text)
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert metadata["description"] == answers.get(
        "description", QUESTIONS["description"]["default"]
    )
    serve = {"ml-serve": "rung_runtime.serving:main"} if answers["level"] else {}
    assert metadata["scripts"] == {"ml": "rung_runtime.cli:main"} | serve


@pytest.mark.parametrize("names", NAMES, ids=str)
@pytest.mark.parametrize("level", [0, 1])
def test_rendered_python_and_yaml_are_clean_under_every_name(
    render: Render, level: int, names: dict[str, str]
) -> None:
    clean(render(level=level, **names))


@pytest.mark.parametrize("answers", ADAPTERS, ids=str)
def test_rendered_python_and_yaml_are_clean_with_every_adapter(
    render: Render, answers: dict[str, object]
) -> None:
    clean(render(**answers))


@pytest.mark.parametrize("runtime", ["copied", "package"])
def test_a_project_has_the_explainer_that_was_chosen_and_its_library(
    render: Render, runtime: str
) -> None:
    project = render(level=1, runtime=runtime, explainer="lime")
    content = tomllib.loads((project / "pyproject.toml").read_text())
    assert content["tool"]["rung"]["explainer"] == "lime"
    required = " ".join(content["project"]["dependencies"])
    assert re.search(r"\blime>=" if runtime == "copied" else r"\[serve,lime\]", required)
    adapters = project / "src/rung_runtime/adapters"
    folders = {path.name for path in adapters.glob("explainer_*")}
    assert folders == ({"explainer_shapley", "explainer_lime"} if runtime == "copied" else set())


@pytest.mark.parametrize(("engine", "library"), [("dask", "distributed"), ("spark", "pyspark")])
@pytest.mark.parametrize("runtime", ["copied", "package"])
def test_a_project_has_the_engine_that_was_chosen_and_its_library_where_it_trains(
    render: Render, runtime: str, engine: str, library: str
) -> None:
    project = render(level=1, runtime=runtime, engine=engine)
    content = tomllib.loads((project / "pyproject.toml").read_text())
    assert content["tool"]["rung"]["engine"] == engine
    required = " ".join(content["dependency-groups"]["train"])
    assert re.search(
        rf"\b{library}\b.*>=" if runtime == "copied" else rf"\[.*\b{engine}\b", required
    )
    folders = {path.name for path in (project / "src/rung_runtime/adapters").glob("engine_*")}
    assert folders == ({"engine_polars", f"engine_{engine}"} if runtime == "copied" else set())


@pytest.mark.parametrize("engine", ["dask", "spark"])
def test_the_types_of_an_engines_library_decide_nothing_where_it_is_installed(
    render: Render, engine: str
) -> None:
    project = render(level=1, engine=engine)
    content = tomllib.loads((project / "pyproject.toml").read_text())
    required = [
        requirement.split(">=")[0].split("[")[0]
        for requirement in content["project"]["dependencies"]
        + content["dependency-groups"]["train"]
    ]
    known = {name.replace("-", "_") for name in required} | sys.stdlib_module_names
    skipped = {
        module.removesuffix(".*")
        for override in content["tool"]["mypy"]["overrides"]
        if override.get("follow_imports") == "skip"
        for module in override["module"]
    }
    known -= {"distributed", "pyspark"}
    imported = set()
    for file in (project / f"src/rung_runtime/adapters/engine_{engine}").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    assert imported - known
    assert imported - known <= skipped


def clean(project: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    yamllint = [sys.executable, "-m", "yamllint", "--strict", "-d"]
    deploy = ["deploy"] if (project / "deploy").exists() else []
    # A list of categories is as long as the data has it, and a query is one line.
    length = "line-length: {max: 120, ignore: [config/data.yaml, deploy/alerts.yaml]}"
    rules = f"{{extends: default, rules: {{document-start: disable, {length}}}}}"
    for command in (
        [*ruff, "check", "--no-cache", "."],
        [*ruff, "format", "--no-cache", "--check", "."],
        [*yamllint, rules, "config", ".pre-commit-config.yaml", *deploy],
    ):
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_what_hooks_say_fits_into_a_line_of_a_terminal(render: Render) -> None:
    """Beside a name, pre-commit has 30 columns: for dots, and for "(no files to check)Skipped"."""
    config = yaml.safe_load((render(level=0) / ".pre-commit-config.yaml").read_text())
    for hook in config["repos"][0]["hooks"]:
        assert len(hook["name"]) <= 50, hook["name"]


def test_our_environment_has_what_a_project_requires(render: Render) -> None:
    """Else a test in process would call the package with other floors than a project has."""
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["project"]
    project = tomllib.loads((render(level=1) / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    assert sorted(ours) == sorted(project["project"]["dependencies"] + groups["train"])


def test_no_file_is_binary_and_every_line_ends_with_lf(render: Render) -> None:
    project = render(level=2)
    for name in files(project):
        content = (project / name).read_bytes()
        assert b"\0" not in content, name
        assert b"\r" not in content, name
        assert not content or content.endswith(b"\n"), name
        assert not (project / name).is_symlink()


def test_no_folder_is_empty(render: Render) -> None:
    for level in LEVELS:
        project = render(level=level)
        assert not [p for p in project.rglob("*") if p.is_dir() and not list(p.iterdir())]


@pytest.mark.parametrize(("level", "most"), [(0, 25), (1, 45), (2, 48)])
def test_a_project_has_few_files_that_are_its_owners_to_read(
    render: Render, record_property: Callable[[str, object], None], level: int, most: int
) -> None:
    """The lines of the machinery have no limit and are printed (docs/decisions/0035)."""
    project = render(level=level)
    own = [name for name in files(project) if not is_machinery(name)]
    counts = f"{len(own)} files to read, {machinery(project):,} lines of machinery"
    record_property(f"level {level}", counts)
    assert len(own) <= most, own


def is_machinery(name: str) -> bool:
    """Tell whether a file belongs to the runtime."""
    return name.startswith("src/rung_runtime/")


def machinery(project: Path) -> int:
    """Count the lines of the runtime's code."""
    sources = [n for n in files(project) if is_machinery(n) and n.endswith(".py")]
    return sum(len(code((project / name).read_text())) for name in sources)


@cache
def code(text: str) -> set[int]:
    """Find the lines with code: no blank lines, no comments, no docstrings."""
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for t in tokens if t.type not in nothing for n in range(t.start[0], t.end[0] + 1)}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    holders = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    first = [node.body[0] for node in holders if ast.get_docstring(node)]
    docs = {n for node in first for n in range(node.lineno, (node.end_lineno or 0) + 1)}
    return lines - docs - {len(text.splitlines()) + 1}


def test_a_render_reads_no_clock_and_no_path_of_the_machine(
    template: Path, render: Render, tmp_path: Path
) -> None:
    again = copy(template, tmp_path / "elsewhere", {"level": 1})
    once = render(level=1)
    assert files(again) == files(once)
    assert all((again / f).read_bytes() == (once / f).read_bytes() for f in files(once))


FOLDER_OF_ADAPTERS = ROOT / "runtime/src/rung_runtime/adapters"
FORMATS = sorted(path.parent for path in FOLDER_OF_ADAPTERS.glob("model_format_*/adapter.toml"))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_a_model_format_brings_what_its_manifest_requires(render: Render, folder: Path) -> None:
    manifest = tomllib.loads((folder / "adapter.toml").read_text("utf-8"))
    name = manifest["name"]
    chosen = ["skops"] if name == "skops" else ["skops", name]
    copied = render(level=1, model_format=chosen)
    text = (copied / "pyproject.toml").read_text("utf-8")
    assert (copied / "src/rung_runtime/adapters" / folder.name).is_dir()
    table = tomllib.loads(text)
    requirements = [*table["project"]["dependencies"], *table["dependency-groups"]["train"]]
    assert set(manifest["requires"]) <= {item.partition(";")[0].strip() for item in requirements}
    package = render(level=1, model_format=chosen, runtime="package")
    table = tomllib.loads((package / "pyproject.toml").read_text("utf-8"))
    requirements = [*table["project"]["dependencies"], *table["dependency-groups"]["train"]]
    extras = re.findall(r"[\w]+", " ".join(re.findall(r"rung-runtime\[(.+?)\]", str(requirements))))
    assert name == "skops" or name in extras
