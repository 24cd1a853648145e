"""The command `rung adopt`: a branch on which the repository is a project."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .. import lock
from ..console import bullets, confirm, echo
from ..exceptions import RefusedError, UsageError
from ..git import (
    UNTRUSTED_CONFIG,
    git,
    git_config,
    pinned_git_config,
    untrusted_git_config,
)
from ..template import Template, list_files, render
from . import (
    detect,
    detect_target,
    git_merge,
    merge_files,
    notebooks,
    own_files,
    plan,
    pyproject,
    report,
    requirements,
    resolve,
    without_git,
)
from .data import onboard_data
from .files import read_bytes
from .indexes import PackageIndex, pip_indexes
from .merge_files import decode_text, encode_text
from .plan import Adoption
from .repository import Repository, inspect

PRE_COMMIT = ".pre-commit-config.yaml"
PYPROJECT = "pyproject.toml"


def adopt(
    folder: Path,
    template: Template,
    data: Mapping[str, Any],
    *,
    ask: bool,
    yes: bool,
    pretend: bool,
    file: str | None = None,
    column: str | None = None,
) -> None:
    """Turn a folder into a project: on a branch, or beside its files if it is not in Git.

    Args:
        folder: The top of a repository, or a folder that is not in one.
        template: The template.
        data: Answers, by question.
        ask: Ask the other questions, with guesses as defaults.
        yes: Do not ask for confirmation.
        pretend: Only show what would be done.
        file: The data to use; by default it is guessed.
        column: The target; by default it is guessed.

    Raises:
        UsageError: The folder cannot be adopted; nothing was changed.
        RefusedError: Something could not be done, and the reason was printed.
    """
    # Of what a repository's own settings run, only filters are needed, to write files.
    own_settings = untrusted_git_config(folder) if pretend else git_config(UNTRUSTED_CONFIG)
    with ExitStack() as settings:
        settings.enter_context(own_settings)
        repository = inspect(folder)
        settings.enter_context(pinned_git_config())
        guesses = guess_answers(repository, template, data)
        with TemporaryDirectory(prefix="rung-") as temporary:
            rendered = Path(temporary, "render")
            answers = render(template, rendered, data, ask=ask, likely=guesses)
            adoption = build_plan(
                repository,
                rendered,
                str(answers["package_name"]),
                file=file,
                column=column,
                lock_folder=Path(temporary, "lock"),
                may_build=not pretend,
            )
            description = adoption.files.describe(repository.names, in_git=repository.in_git)
            echo(f"\n{description}\n")
            if pretend:
                if repository.in_git:
                    add_kept_files(repository, adoption, "COMMIT", int(answers["level"]))
                echo(f"{report.format_report(adoption.sections)}\n\nNothing was changed.")
                return
            if ask and not yes:
                if settings_of_uv := lock.personal_settings(Path(temporary, "lock")):
                    echo(f"{settings_of_uv}\n")  # else with the report
                if not confirm():
                    raise RefusedError("nothing was changed")
            if repository.in_git:
                commit_merge(repository, template, rendered, adoption, answers)
            else:
                without_git.write_files(folder, rendered, adoption.files, adoption.contents)
                clashes = without_git.describe_clashes(adoption.files)
                adoption.sections[report.IN_BOTH] = clashes
                adoption.sections[report.NEXT] = report.next_steps_without_git()
        problem = onboard_data(repository, adoption)
    if problem:
        adoption.sections[report.TO_DO].insert(0, problem)
    echo(f"\n{report.format_report(adoption.sections)}")
    if problem:
        raise RefusedError(f"adopted, with one problem: {problem}")


def guess_answers(
    repository: Repository, template: Template, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Guess answers, and print those that were not given, with their reasons."""
    remotes = git(repository.folder, "remote", "-v") if repository.in_git else ""
    reserved = reserved_names(template)
    guesses = detect.detect_answers(repository.folder, repository.names, remotes, reserved)
    echo("Guessed:")
    for name, guess in guesses.items():
        if name not in data:
            value = ", ".join(guess.value) if isinstance(guess.value, list) else guess.value
            echo(f"  {name}: {value} ({guess.reason})")
    return {name: guess.value for name, guess in guesses.items()}


def reserved_names(template: Template) -> set[str]:
    """Return the names that a project's package must not have."""
    strings = re.findall(r'"""(.*?)"""', template.read("copier/names.jinja"), re.DOTALL)
    return set(re.findall(r"\w+", "".join(strings)))


def build_plan(
    repository: Repository,
    rendered: Path,
    package: str,
    *,
    file: str | None,
    column: str | None,
    lock_folder: Path,
    may_build: bool,
) -> Adoption:
    """Decide everything: each file, the requirements, the lock, the data, the report.

    Args:
        repository: The repository.
        rendered: The rendered project.
        package: Its package.
        file: The data that a person named.
        column: The target that a person named.
        lock_folder: Where to try which requirements can be locked.
        may_build: Whether a package without a wheel may be built, which runs its code.

    Raises:
        UsageError: Something is in the way of a file of the project's.
        RefusedError: The project's requirements cannot be locked.
    """
    ours = {name: (rendered / name).read_bytes() for name in sorted(list_files(rendered))}
    theirs = {name: repository.read(name) for name in plan.clashing_files(repository.names, ours)}
    files = plan.plan_files(ours, theirs, repository.names, repository.crlf_files())
    written = [*ours] if repository.in_git else [*without_git.target_paths(files)]
    require_free_paths(repository, written, package)
    existing = existing_paths(repository, files)
    excluded = plan.tool_exclusions(existing, ours, package)
    code = [*notebooks.parse_code(repository.folder, repository.names)]
    adoption = Adoption(files, dict(files.merged))
    adoption.sections[report.TO_DO] = choose_data(repository, adoption, code, file, column)
    adoption.sections["Requirements that changed"] = merge_requirements(
        repository,
        adoption,
        decode_text(ours[PYPROJECT]),
        excluded,
        lock_folder,
        imported=notebooks.imported_modules(code),
        may_build=may_build,
    )
    if PRE_COMMIT not in files.kept:
        own = decode_text(theirs[PRE_COMMIT]) if PRE_COMMIT in theirs else None
        hooks = decode_text(ours[PRE_COMMIT])
        text, _ = merge_files.merge_pre_commit(hooks, own, excluded["hooks"])
        adoption.contents[PRE_COMMIT] = encode_text(text)
    metadata = [name for name in ("setup.py", "setup.cfg", PYPROJECT) if name in repository.names]
    adoption.sections[report.TO_DO] += [
        *own_files.shadowing_modules(existing, imported_by(ours)),
        *(
            f"{name} is a link that leads out of the repository: to use it, --file {name}"
            for name in repository.linked_tables
        ),
        *own_files.absent_tables(repository.absent_tables, repository.names),
    ]
    existing_code = [name for name in existing if name.endswith(plan.CODE)]
    adoption.sections |= {
        "Your code, and where in the project it belongs": [
            *own_files.uninstalled_packages(repository.names, metadata),
            *own_files.own_tests(excluded["pytest"]),
            *notebooks.suggest_places(code, package),
        ],
        report.IN_BOTH: [
            *files.describe_moves(),
            *own_files.moved_pipeline_note(files.moved),
            *own_files.later_clashes(repository.names, ours),
            *files.notes,
        ],
        f"Skipped by ruff, mypy, pytest and the hooks until you remove it from {PYPROJECT} and "
        f"{PRE_COMMIT}": plan.covering_paths(existing_code, ours),
        "Python": python_note(repository.folder),
    }
    return adoption


def imported_by(rendered: Mapping[str, bytes]) -> set[str]:
    """Return the top-level modules that a rendered project imports, except for its own."""
    statement = r"(?m)^\s*(?:from|import)\s+(\w+)"
    code = [decode_text(text) for name, text in rendered.items() if name.endswith(".py")]
    own = {name.split("/")[1] for name in rendered if name.startswith("src/")}
    return {module for text in code for module in re.findall(statement, text)} - own


def existing_paths(repository: Repository, files: plan.FilePlan) -> list[str]:
    """Return the paths that existing files have in the project; a submodule ends with a slash."""
    names = (*repository.names, *repository.untracked)
    paths = [files.moved.get(name, name) for name in names]
    return [f"{path}/" if (repository.folder / path).is_dir() else path for path in paths]


def python_note(folder: Path) -> list[str]:
    """Return a sentence if a repository requires a Python that is too old for a project."""
    python = detect.required_python(folder)
    if python is None or not detect.is_too_old(str(python.value)):
        return []
    return [f"{python.reason} asks for {python.value}; a project needs 3.11 or newer"]


def require_free_paths(repository: Repository, paths: Sequence[str], package: str) -> None:
    """Check that nothing is in the way of the project's files.

    Raises:
        UsageError: Something is; the message lists all of it.
    """
    tracked = repository.names if repository.in_git else None
    obstacles = plan.find_obstacles(repository.folder, paths, tracked)
    if any(name.startswith("src/rung_runtime/") for name in repository.names):
        obstacles.append("src/rung_runtime/ is where the machinery goes: rename yours")
    if any(name.startswith(f"src/{package}/") for name in repository.names):
        obstacles.append(
            f"src/{package}/ exists: choose another package name, --data package_name=NAME"
        )
    if obstacles:
        raise UsageError(
            f"{repository.folder} cannot be adopted yet:{bullets(obstacles)}\nNothing was written"
        )


def merge_requirements(
    repository: Repository,
    adoption: Adoption,
    ours: str,
    excluded: Mapping[str, Sequence[str]],
    lock_folder: Path,
    *,
    imported: Collection[str],
    may_build: bool,
) -> list[str]:
    """Merge the requirements into the project's pyproject.toml, and lock it.

    Args:
        repository: The repository.
        adoption: The plan, which gets pyproject.toml and uv.lock.
        ours: The rendered project's pyproject.toml.
        excluded: What ruff, mypy and pytest skip, by tool.
        lock_folder: Where to try which requirements can be locked.
        imported: The top-level modules that the repository's code imports.
        may_build: Whether a package without a wheel may be built, which runs its code.

    Returns:
        A sentence for each requirement that changed, and for what was not adopted.

    Raises:
        RefusedError: The project's own requirements cannot be locked.
    """
    collected = requirements.collect(repository.folder, repository.names, imported)
    declared = requirements.declared_requirements(ours)
    notes = collected.notes
    wanted = {name: item for name, item in collected.by_name.items() if name not in declared}
    for name, requirement in collected.by_name.items():
        if name in declared and str(requirement.specifier):
            compatible = requirements.are_compatible(requirement, declared[name])
            verdict = "the project needs" if compatible else "conflicts with"
            source = collected.files[name]
            notes.append(f"{requirement} ({source}): {verdict} {declared[name]}, which is kept")
    for own_name, name in adoption.files.kept.items():
        if name == "README.md":
            ours = ours.replace('readme = "README.md"', f'readme = "{own_name}"')
    in_both = PYPROJECT in adoption.files.in_both
    theirs = decode_text(repository.read(PYPROJECT)) if in_both else ""
    required_python = detect.required_python(repository.folder)
    python = str(required_python.value) if required_python else ""
    lock_folder.mkdir()
    request = python_request(repository, adoption.files)
    is_pinned = bool(request) and python == request.decode("utf-8", "replace").strip()
    if request:
        (lock_folder / plan.PYTHON_VERSION).write_bytes(request)
    if "uv.lock" in repository.names:
        (lock_folder / "uv.lock").write_bytes(repository.read("uv.lock"))

    def write_pyproject(choice: resolve.Choice) -> str:
        text, _ = pyproject.merge_pyproject(ours, theirs, python, excluded, choice)
        return text

    try:
        resolution = resolve.resolve(
            lock_folder,
            wanted,
            write_pyproject,
            indexes=collected.indexes,
            without_cuda=() if collected.has_cuda else collected.from_conda,
            may_build=may_build,
        )
    except RefusedError as error:
        if required_python and (pyproject.newer_python(python) or is_pinned):
            raise RefusedError(
                f"{error} ({required_python.reason} asks for Python {python})"
            ) from None
        raise
    adoption.contents[PYPROJECT] = encode_text(resolution.pyproject)
    adoption.contents["uv.lock"] = resolution.lock
    adoption.sections[report.TO_DO] += personal_index_notes(lock_folder)
    adoption.sections[report.TO_DO] += [
        f"{item.requirement} is a comment in {PYPROJECT}: {item.reason}"
        for item in resolution.choice.unresolved
    ]
    notes += [
        f"packages come from {index.url}, too ({index.file})" for index in resolution.choice.indexes
    ]
    notes += resolution.changes
    _, dropped = pyproject.merge_pyproject(ours, theirs, python, excluded, resolve.Choice())
    if dropped:
        notes.append(f"not adopted from your {PYPROJECT}: {', '.join(dropped)}")
    return notes


def python_request(repository: Repository, files: plan.FilePlan) -> bytes:
    """Return the .python-version that the project will have, which uv follows; else nothing."""
    name = plan.PYTHON_VERSION
    if name in files.moved:
        return b""
    if name in repository.names:
        return repository.read(name)
    return read_bytes(repository.folder, name)


def personal_index_notes(locked: Path) -> list[str]:
    """Return a sentence for each setting and index of a person's own that pipelines lack.

    Args:
        locked: The folder with the pyproject.toml and uv.lock of the project.
    """
    declared = (locked / "pyproject.toml").read_text("utf-8")
    notes = []
    for url, place in pip_indexes().items():
        if url.rstrip("/") not in declared:
            name = PackageIndex("extra", url, place).name
            notes.append(
                f"{place} names the index {url}, which neither uv nor pipelines read: if a package "
                f"comes from it, uv add --group adopted PACKAGE --index {name}={url}"
            )
    if settings := lock.personal_settings(locked):
        notes.insert(0, settings)
    return notes


def choose_data(
    repository: Repository,
    adoption: Adoption,
    code: Sequence[notebooks.CodeUnit],
    file: str | None,
    column: str | None,
) -> list[str]:
    """Choose the data and the target, and print them.

    Args:
        repository: The repository.
        adoption: The plan, which gets data and target.
        code: The repository's code.
        file: The data that a person named.
        column: The target that a person named.

    Returns:
        What is not known, if anything.
    """
    folder = repository.folder
    data_file, target = detect_target.select_data(
        folder, repository.tables, code, file, column, repository.names
    )
    adoption.data_file = data_file
    adoption.target = str(target.value) if target else None
    command = report.data_use_command(adoption.data_file, adoption.target)
    if not data_file:
        return [f"no table was found: {command}"]
    if not target:
        return [f"no target column was found: {command}"]
    echo(f"  data: {data_file}\n  target: {target.value} ({target.reason})")
    return []


def add_kept_files(repository: Repository, adoption: Adoption, commit: str, level: int) -> None:
    """Add to the report what it means that the repository keeps some of its files.

    Args:
        repository: The repository.
        adoption: The plan.
        commit: The commit that has the template's files.
        level: The project's level.
    """
    for own_name, name in adoption.files.kept.items():
        text = decode_text(repository.read(own_name))
        note = own_files.kept_file_note(own_name, name, commit, text, level)
        adoption.sections[report.IN_BOTH].append(note)


def commit_merge(
    repository: Repository,
    template: Template,
    rendered: Path,
    adoption: Adoption,
    answers: Mapping[str, Any],
) -> None:
    """Commit the merge of repository and rendered project on a new branch, and check it out.

    Args:
        repository: The repository.
        template: The template.
        rendered: The rendered project.
        adoption: What was decided; its report gets the next steps.
        answers: The project's answers.
    """
    folder = repository.folder
    files = adoption.files
    message = f"{answers['project_name']}, as Rung {template.version} renders it"
    orphan = git_merge.commit_orphan(folder, rendered, message)
    add_kept_files(repository, adoption, orphan[:9], int(answers["level"]))
    check = own_files.check_command(files.kept_targets)
    adoption.sections[report.NEXT] = report.next_steps(repository.base, check)
    text = report.format_report(adoption.sections)
    commit = git_merge.create_merge(
        folder,
        orphan,
        added=files.added,
        moved=files.moved,
        written=adoption.contents,
        message=f"Adopt Rung {template.version}\n\n{text}\n",
    )
    git_merge.switch_to_new_branch(folder, report.BRANCH, commit)
