"""What of a project does not work because a repository keeps a file of its own, and what helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping

from .merge_files import read_mapping

GITLAB = ".gitlab-ci.yml"
GITLAB_BESIDE = ".gitlab-ci.rung.yml"
GITLAB_STAGES = ("build", "test", "deploy")  # if a file names none
# What `make TARGET` does in a project.
TARGETS = {
    "setup": "uv sync --locked && uv run pre-commit install",
    "lint": "uv run ruff check && uv run ruff format --check",
    "types": "uv run mypy",
    "test": "uv run pytest",
    "run": "uv run ml run",
}
CHECK_TARGETS = ("lint", "types", "test")
ALL_CHECKS = " && ".join(TARGETS[target] for target in CHECK_TARGETS)
# What a higher level adds, where a repository often has one.
LEVEL_1_FILES = ("Dockerfile", "dvc.yaml", ".dvc/config")


def kept_file_note(own_name: str, name: str, commit: str, text: str, level: int) -> str:
    """Return what it means that a repository keeps a file, and how to have the template's, too.

    Args:
        own_name: The repository's path.
        name: The template's path.
        commit: The commit that has the template's files.
        text: The content of the repository's file.
        level: The project's level.
    """
    show = f"git show {commit}:{name}"
    if name == GITLAB:
        how = child_pipeline(text)
        if level:
            where = "Settings, CI/CD, CI/CD configuration file"
            how = f"choose it in GitLab: {where}: {GITLAB_BESIDE}"
        return (
            f"{own_name}: yours stays, so GitLab runs none of the project's pipelines. "
            f"To have them: {show} > {GITLAB_BESIDE}, and {how}"
        )
    if name == "tox.ini":
        return (
            f"{own_name}: yours stays, so tox does not run the project's checks. "
            f"To have them: {show} > tox.rung.ini, and uv run tox -c tox.rung.ini"
        )
    if name == ".pre-commit-config.yaml":
        return (
            f"{own_name}: yours stays, as it could not be merged, so no hook of the project runs. "
            f"To have them: add the `- repo: local` that {show} shows to your `repos:`"
        )
    return f"{own_name}: yours; to see the template's: {show}"


def child_pipeline(text: str) -> str:
    """Return the sentence with the job that runs the project's pipelines from a .gitlab-ci.yml."""
    without_tags = re.sub(r"!reference\b", "", text)
    stages = read_mapping(without_tags).get("stages") or GITLAB_STAGES
    stage = "test" if "test" in stages else stages[0]
    job = (
        f"rung: {{stage: {stage}, trigger: {{include: {GITLAB_BESIDE}, strategy: depend}}, "
        "rules: [{if: $CI_COMMIT_BRANCH}]}"
    )
    return f"add this job to yours: {job}"


def kept_targets_note(own_name: str, targets: Collection[str]) -> str:
    """Return what to run instead of the template's targets that a Makefile has its own of."""
    commands = [
        f"{TARGETS[target]} (instead of make {target})" for target in targets if target in TARGETS
    ]
    note = f"{own_name}: your own targets are kept: {', '.join(targets)}"
    return f"{note}; of the project: {', '.join(commands)}" if commands else note


def check_command(targets: Collection[str]) -> str:
    """Return what runs the project's checks beside a Makefile that has these targets of its own."""
    is_shadowed = not {"check", *CHECK_TARGETS}.isdisjoint(targets)
    return ALL_CHECKS if is_shadowed else "make check"


def moved_pipeline_note(moved: Mapping[str, str]) -> list[str]:
    """Return how to run a DVC pipeline that has made room for the project's."""
    new_name = moved.get("dvc.yaml")
    if new_name is None:
        return []
    return [
        f"{new_name}: DVC runs only files called dvc.yaml: mkdir pipeline && git mv {new_name} "
        "pipeline/dvc.yaml, add `wdir: ..` to its stages, then uv run dvc repro pipeline/dvc.yaml"
    ]


def later_clashes(names: Collection[str], rendered: Collection[str]) -> list[str]:
    """Return a sentence if the repository has files that a higher level brings."""
    clashing = [name for name in LEVEL_1_FILES if name in names and name not in rendered]
    if not clashing:
        return []
    return [f"{', '.join(clashing)}: yours; level 1 brings its own, so rename it before `rung up`"]


def uninstalled_packages(names: Collection[str], metadata: Collection[str]) -> list[str]:
    """Return a sentence on packages at the top that were installed, and are not any more.

    Args:
        names: The repository's files.
        metadata: Those of its files that said how to install it.
    """
    packages = sorted(
        name.removesuffix("__init__.py")
        for name in names
        if re.fullmatch(r"(?!tests?/|docs/|src/)[^/]+/__init__\.py", name)
    )
    if not packages or not metadata:
        return []
    module = packages[0].rstrip("/")
    return [
        f"{', '.join(packages)}: not installed any more, as only src/ is. Run your code from the "
        f"top, as in uv run python -m {module}.MODULE, or with PYTHONPATH=."
    ]


def absent_tables(tables: Collection[str], names: Collection[str]) -> list[str]:
    """Return how to get each table of which only a pointer is here.

    Args:
        tables: Their paths.
        names: All files of the repository.
    """
    return [
        f"{name}: only a pointer to it is here, so it was not looked at: get it "
        f"({'dvc pull' if f'{name}.dvc' in names else 'git lfs pull, git annex get or dvc pull'}), "
        f"then uv run ml data use {shlex.quote(name)} --target COLUMN"
        for name in tables
    ]


def own_tests(pytest_options: Collection[str]) -> list[str]:
    """Return how to run the tests that the project's pytest ignores.

    Args:
        pytest_options: What was added to the options of pytest.
    """
    prefix = "--ignore="
    ignored = [option for option in pytest_options if option.startswith(prefix)]
    if not ignored:
        return []
    paths = " ".join(option.removeprefix(prefix) for option in ignored)
    return [
        f"your own tests are not among the project's: uv run pytest -o addopts= {paths} runs them, "
        "and without its --ignore in pyproject.toml, so does make check"
    ]


def shadowing_modules(names: Collection[str], required: Collection[str]) -> list[str]:
    """Return a sentence for each module of a repository's that hides one that the project imports.

    Args:
        names: The repository's files.
        required: The top-level modules that the project's code imports.
    """
    hiding = dict[str, str]()
    for name in names:
        match = re.fullmatch(r"((?:src/)?(\w+))(/__init__)?\.pyi?", name)
        if match and match[2] in required:
            hiding[match[2]] = name
    return [
        f"{name} hides {module}, which the project imports, from mypy: rename it, or make types "
        "and the hook before a push fail"
        for module, name in hiding.items()
    ]
