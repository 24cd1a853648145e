"""Projects to test: rendered in process, and installed once for all workers."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import durations
import environments
import httpx
import hypothesis
import leftovers
import pytest
import tables
import warm
import yaml
from filelock import FileLock
from rung.copier_cache import repeating_nothing
from rung.template import render as render_template
from rung.template import resolve_version
from time_limit import TimeLimit
from xdist.scheduler import LoadScopeScheduling

from copier import run_copy

# As the package does (docs/decisions/0010): else threads that wait take the other workers' time.
# OpenMP reads it when scikit-learn is imported, which is later than this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent
QUESTIONS: dict[str, dict[str, Any]] = {
    key: value
    for key, value in yaml.safe_load((ROOT / "copier.yml").read_text()).items()
    if not key.startswith("_")
}

Render = Callable[..., Path]
Rendered = Callable[[str, Mapping[str, object]], Path]


@dataclass(frozen=True)
class Project:
    """A rendered project with its environment installed; shared, so tests change only copies."""

    path: Path
    level: int
    package: str

    def ml(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the project's ml, in the project itself or in a copy of it."""
        program = str(self.path / ".venv/bin/ml")
        return self.python(warm.ML, program, *args, cwd=cwd)

    def python(
        self, code: str, *argv: str, cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program by the project's Python; argv begins with its name, as sys.argv does."""
        return self.start(code, *argv, cwd=cwd, **more).wait()

    def start(self, code: str, *argv: str, cwd: Path | None = None, **more: str) -> warm.Program:
        """Start a program by the project's Python, in a process that need not import so much."""
        env = environment(self.path.parent / "home", str(self.path / ".venv/bin"))
        # What `make setup` has installed in editable mode is the original's.
        env |= {"PYTHONPATH": str((cwd or self.path) / "src")} | more
        return warm.server(self.path).start(code, *argv, cwd=cwd or self.path, env=env)

    def run(
        self, *command: str, cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would who has the environment active.

        In a copy, the package is the copy's own: the environment knows the original's.
        """
        programs = str(self.path / ".venv/bin")
        home = self.path.parent / "home"
        own = {"PYTHONPATH": str(cwd / "src")} if cwd else {}
        return run(*command, cwd=cwd or self.path, home=home, first=programs, **own, **more)

    def copy(self, to: Path) -> Path:
        """Copy the project's files without environment and history; ml() runs them with cwd=to."""
        shutil.copytree(self.path, to, ignore=shutil.ignore_patterns(".venv", ".git"))
        git(to, "init", "-q")  # DVC asks for one
        return to


@dataclass(frozen=True)
class Copy:
    """A project's files, for one test to change, run by the environment of the original."""

    project: Project
    path: Path

    def ml(self, *args: str, exits: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run ml here, and see that it exits as said, if anything is said."""
        done = self.project.ml(*args, cwd=self.path)
        assert exits in (None, done.returncode), done.stdout + done.stderr
        return done

    def again(self, to: Path) -> Copy:
        """Copy the copy, with all that its pipeline has made."""
        return Copy(self.project, Path(shutil.copytree(self.path, to, symlinks=True)))

    def read(self, step: str) -> dict[str, Any]:
        """Give the document of a step."""
        document: dict[str, Any] = json.loads((self.path / EVERY[step]).read_text("utf-8"))
        return document

    @property
    def documents(self) -> dict[str, str]:
        """The path of each step's document, in the order of the pipeline."""
        return EVERY if self.project.level else DOCUMENTS


DOCUMENTS = {
    step: f"artifacts/{name}.json"
    for step, name in {
        "ingest": "ingest",
        "validate": "validation",
        "split": "split",
        "train": "training",
        "evaluate": "metrics",
        "gate": "gate",
        "package": "package",
    }.items()
}
# From level 1 the champion is compared with, before the gate.
EVERY = dict(list(DOCUMENTS.items())[:5]) | {"compare": "artifacts/comparison.json"} | DOCUMENTS


def digest(path: Path) -> str:
    """Give a file's digest as documents write it."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def run(
    *command: str, cwd: Path, home: Path, first: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with an empty home: no Git identity, no settings, but uv's warm cache."""
    env = environment(home, first) | more
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


# No test pulls the plug, and the disk takes as long for one file as the rest of many a test.
NO_FSYNC = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsync",
    "GIT_CONFIG_VALUE_0": "none",
}


@cache
def shared_settings() -> dict[str, str]:
    """Return what makes uv use its warm cache and this Python, and mypy what it knows already.

    mypy compares contents, so projects may share its cache, but not two that it checks at once.
    """
    settings = {
        "UV_CACHE_DIR": uv("cache", "dir"),
        "UV_PYTHON": str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")),
        "UV_NO_PROGRESS": "1",
    }
    if run_folder := os.environ.get(leftovers.MARK):  # unset in `make bench`
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        settings["MYPY_CACHE_DIR"] = str(Path(run_folder, f"mypy-{worker}"))
    return settings


def environment(home: Path, first: str = "") -> dict[str, str]:
    """Return an environment with an empty home, and with a folder first on the path."""
    home.mkdir(exist_ok=True)
    keep = {"PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    env = {k: v for k, v in os.environ.items() if k in keep or k.lower().endswith("_proxy")}
    path = [first, str(Path(uv()).parent), env["PATH"]]
    own = {"HOME": str(home), "PATH": os.pathsep.join(filter(None, path))}
    return env | own | NO_FSYNC | shared_settings()


def uv(*args: str) -> str:
    """Give the path of uv, or what it answers."""
    program = shutil.which("uv") or str(ROOT / ".tools/bin/uv")
    if not args:
        return program
    return subprocess.run(
        [program, *args], capture_output=True, text=True, check=True
    ).stdout.strip()


def git(cwd: Path, *args: str) -> str:
    """Run git as somebody."""
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "core.fsync=none"]
    result = subprocess.run(
        ["git", *who, *args], cwd=cwd, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def need(*programs: str, root: bool = False) -> None:
    """Leave a test out, and count it, where what it starts is missing and cannot be installed.

    Where it can be, by root on Debian, .ci/packages has installed it or has failed: so does this.
    """
    if root and os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [program for program in programs if not shutil.which(program)]:
        may_install = os.geteuid() == 0 and shutil.which("apt-get")
        message = f"needs {', '.join(missing)}: run .ci/packages"
        (pytest.fail if may_install else pytest.skip)(message)


# Of these files one worker runs all tests: what they share would be made by each anew.
CHAPTERS = (
    "test_compare.py",
    "test_delivery.py",
    "test_docs.py",
    "test_drift.py",
    "test_language.py",
    "test_leftovers.py",
    "test_report.py",
    "test_serving.py",
)
# Of these, the tests with one parameter share a host or a repository, which the first one makes.
PARTS = ("test_adopt.py", "test_stories.py")
# Tests of these take a minute and more, and begin first: else one worker would wait for them.
LONG = ("test_orchestrators.py", "test_rung_update.py", "test_update.py")


class Chapters(LoadScopeScheduling):  # type: ignore[misc]
    """Each test by itself, to whichever worker is free; but what shares a service or a host to one.

    What xdist 3.8 has for that, xdist_group, does nothing under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        for file in CHAPTERS:
            if f"{file}::" in nodeid:
                return file
        is_shared = any(f"{file}::" in nodeid for file in PARTS)
        return nodeid.rpartition("[")[2] if is_shared else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Chapters:
    """Name the scheduler."""
    return Chapters(config, log)


COLLECTED = pytest.StashKey[dict[str, bool]]()  # as `in_make_test` has it, of all files
TIERS = {"quick": {"slow", "nightly"}, "test": {"nightly"}, "nightly": set()}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the tiers of docs/testing.md: `pytest` without an option runs what `make test` does."""
    text = "which tests to run: quick (no installed project), test, nightly (all of them)"
    parser.addoption("--tier", choices=list(TIERS), default="test", help=text)
    text = "print at the end this many of the slowest tests, and what all took"
    parser.addoption("--slowest", type=int, default=0, metavar="N", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis draw the same in each run that a landing waits for, and anew in `nightly`."""
    os.fsync = lambda fd: None  # see NO_FSYNC; test_artifacts.py looks whether it is called
    for tier, count in {"quick": 20, "test": 50, "nightly": 300}.items():
        is_same = tier != "nightly"
        hypothesis.settings.register_profile(tier, max_examples=count, derandomize=is_same)
    hypothesis.settings.load_profile(config.getoption("tier"))
    config.pluginmanager.register(Failures(config))
    config.pluginmanager.register(durations.ProcessorTime())
    config.pluginmanager.register(TimeLimit(ROOT / "tests/hostile"))


class Failures:
    """Name each failure when it happens: a run is long, and its own account comes at its end."""

    def __init__(self, config: pytest.Config) -> None:
        """Remember where to write."""
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a line for a test that failed; the workers' reports come here, too."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal and "PYTEST_XDIST_WORKER" not in os.environ:
            reason = getattr(report.longrepr, "reprcrash", None)
            message = str(reason.message).partition("\n")[0] if reason else ""
            terminal.write_line(f"\nFAILED {report.nodeid}: {message[:200]}")


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """Give a warning a class that the process can import which collects those of all workers.

    It lacks the libraries that tests/libraries.py brings, and would give up the worker.
    """
    file = getattr(sys.modules.get(warning_message.category.__module__), "__file__", None)
    if file and not file.startswith((sys.prefix, sys.base_prefix, str(ROOT))):
        warning_message.message = UserWarning(str(warning_message.message))
        warning_message.category = UserWarning


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of higher tiers, and put the longest first."""
    if {item.path for item in items} >= set(ROOT.glob("tests/**/test_*.py")):
        config.stash[COLLECTED] = in_make_test(items)
    excluded = TIERS[config.getoption("tier")]
    deselected = [item for item in items if any(map(item.get_closest_marker, excluded))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        left_out = set(deselected)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.path.name not in LONG)
    gc.freeze()  # what is imported by now stays; to look through it takes a twentieth of all time
    gc.set_threshold(20_000, 20, 20)


def in_make_test(items: Iterable[pytest.Item]) -> dict[str, bool]:
    """Return file::function of what has a case that runs, and whether one is in `make test`."""
    tests: dict[str, bool] = {}
    for item in items:
        skips = item.iter_markers("skip"), item.iter_markers("skipif")
        if any(True for _ in skips[0]) or any(True in marker.args[:1] for marker in skips[1]):
            continue
        name = item.originalname if isinstance(item, pytest.Function) else item.name
        test = f"{item.path.name}::{name}"
        is_nightly = item.get_closest_marker("nightly") is not None
        tests[test] = tests.get(test, False) or not is_nightly
    return tests


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what tests recorded and what the run took; pytest's own closing line comes later."""
    stats = terminalreporter.stats.values()
    reports = [r for group in stats for r in group if isinstance(r, pytest.TestReport)]
    recorded = [
        f"{report.nodeid.rpartition('::')[2]}: {name}: {value}"
        for report in reports
        for name, value in (report.user_properties if report.when == "call" else ())
    ]
    if recorded:
        terminalreporter.section("what the tests recorded")
    for line in recorded:
        terminalreporter.write_line(line)
    if count := config.getoption("slowest"):
        terminalreporter.section("what the tests took")
        for line in durations.table(reports, time.monotonic() - STARTED, count):
            terminalreporter.write_line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """See to the marker `needs`."""
    for marker in item.iter_markers("needs"):
        need(*marker.args, **marker.kwargs)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark what this run starts; xdist starts its workers after this, and they inherit the mark."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # fixtures end, as after Ctrl-C
        os.environ[leftovers.MARK] = str(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what is left of it: where a run was interrupted, something may be."""
    if "PYTEST_XDIST_WORKER" not in os.environ and leftovers.MARK in os.environ:
        leftovers.end(Path(os.environ.pop(leftovers.MARK)))


def snapshot(to: Path) -> Path:
    """Copy what Git tracks or would track, as it is on the disk now."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        if name.startswith(("copier", "runtime/", "template/")) and (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            is_folder = (ROOT / name).is_dir()  # a link to one
            shutil.copy2(ROOT / name, to / name, follow_symlinks=not is_folder)
    return to


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this run have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Let the first worker that needs it make `folder/project`, and return that path."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "ready").exists():
            shutil.rmtree(folder / "project", ignore_errors=True)
            make(folder / "project")
            (folder / "ready").touch()
    return folder / "project"


def named_by(*facts: object) -> str:
    """Return a name for a folder that depends on facts alone."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


@pytest.fixture(scope="session")
def template(run_folder: Path) -> Path:
    """Return a copy of the working tree, uncommitted files included, without its history."""
    return once(run_folder / "template", snapshot)


@pytest.fixture(scope="session")
def render(template: Path, run_folder: Path) -> Iterator[Render]:
    """Render with answers, once for all workers; the result is for reading only."""
    listed: dict[Path, set[Path]] = {}

    def render(**answers: object) -> Path:
        folder = run_folder / "renders" / named_by(sorted(answers.items()))
        if folder / "project" not in listed:
            once(folder, lambda project: copy(template, project, answers))
            listed[folder / "project"] = set((folder / "project").rglob("*"))
        return folder / "project"

    yield render
    for project, names in listed.items():
        written = [path for path in project.rglob("*") if path not in names]
        assert not written, f"for reading only, and a test wrote into it: {written}"


@pytest.fixture(scope="session")
def sources(render: Render, run_folder: Path) -> Render:
    """Return a project's src/ to import from, in a copy: an import writes bytecode beside it."""

    def sources(**answers: object) -> Path:
        folder = run_folder / "sources" / named_by(sorted(answers.items()))
        return once(folder, lambda to: shutil.copytree(render(**answers), to)) / "src"

    return sources


@pytest.fixture(scope="session")
def history(run_folder: Path) -> Path:
    """Return the template with its releases, the working tree and a next version, each tagged."""
    import releases

    return once(run_folder / "history", releases.history)


@pytest.fixture(scope="session")
def rendered(history: Path, run_folder: Path) -> Rendered:
    """Render a version of it with answers, once for all workers; the result is for reading only."""

    def rendered(version: str, answers: Mapping[str, object]) -> Path:
        def make(project: Path) -> None:
            render_template(resolve_version(str(history), version), project, answers)

        return once(run_folder / "rendered" / named_by(version, sorted(answers.items())), make)

    return rendered


def copy(template: Path, to: Path, answers: Mapping[str, object], **options: Any) -> Path:
    """Render without trust. Copier ignores an answer to a question that is not there; we do not."""
    if unknown := set(answers) - set(QUESTIONS):
        raise LookupError(f"copier.yml asks no {', '.join(sorted(unknown))}")
    with repeating_nothing():
        run_copy(
            str(template),
            to,
            data=dict(answers),
            defaults=True,
            quiet=True,
            unsafe=False,
            **options,
        )
    return to


@pytest.fixture(scope="session")
def projects(template: Path, run_folder: Path) -> Callable[..., Project]:
    """Install a project by `make setup`, once for each level and all workers.

    Level 2 requires what level 1 does, so it gets the lock and the ready environment of that.
    """
    store = run_folder / "environments"

    def project(level: int) -> Project:
        folder = run_folder / f"project-{level}"
        folder.mkdir(exist_ok=True)
        made = Project(folder / "project", level, "flight_delays")
        with FileLock(folder / "lock"):
            if not (folder / "ready").exists():
                shutil.rmtree(made.path, ignore_errors=True)
                both: dict[str, object] = {"ci": ["github", "gitlab"]} if level == 2 else {}
                copy(template, made.path, {"level": level} | both)
                if level == 2:
                    shutil.copy(project(1).path / "uv.lock", made.path)
                    environments.lay(made.path, store, *environments.EVERYTHING)
                setup = made.run("make", "setup", UV_VENV_RELOCATABLE="1")
                assert setup.returncode == 0, setup.stdout + setup.stderr
                environments.ready(made.path, store, *environments.EVERYTHING)
                (folder / "ready").write_text(setup.stdout)
        return made

    return project


@pytest.fixture(scope="session")
def project(projects: Callable[..., Project]) -> Callable[..., Project]:
    """Return the installed projects; a module may have its own fixture of this name."""
    return projects


@pytest.fixture(scope="session")
def installed(projects: Callable[..., Project], run_folder: Path) -> Callable[..., dict[str, str]]:
    """Lay what a project of a level needs into a folder; return how uv gets to know the folder."""

    def installed(folder: Path, level: int = 0) -> dict[str, str]:
        store = run_folder / "environments"
        shutil.rmtree(folder, ignore_errors=True)
        everything = environments.ready(projects(level).path, store, *environments.EVERYTHING)
        environments.link(everything, folder)
        return {"UV_PROJECT_ENVIRONMENT": str(folder)}

    return installed


@pytest.fixture
def fresh(project: Callable[..., Project], tmp_path: Path) -> Callable[..., Copy]:
    """Give a new project's files, for this test to change."""

    def fresh(level: int = 0) -> Copy:
        return Copy(project(level), project(level).copy(tmp_path / f"fresh-{level}"))

    return fresh


@pytest.fixture(scope="session")
def ran(project: Callable[..., Project]) -> Callable[..., Copy]:
    """Bring data of a task into a project and run it, once for all workers; for reading only."""

    def ran(level: int, task: str) -> Copy:
        made = project(level)
        folder = made.path.parent / task
        folder.mkdir(exist_ok=True)
        copy = Copy(made, folder / "project")
        with FileLock(folder / "lock"):
            if not (folder / "ready").exists():
                shutil.rmtree(copy.path, ignore_errors=True)
                made.copy(copy.path)
                copy.ml(*tables.TASKS[task](folder).use, "--replace", exits=0)
                (folder / "ready").write_text(copy.ml("run", exits=0).stdout)
        return copy

    return ran


@pytest.fixture(scope="session")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make the template's `problem/` that of the package which the runtime falls back on.

    In a copy: an import writes bytecode beside what it imports.
    """
    source = tmp_path_factory.mktemp("problem")
    folder = shutil.copytree(
        ROOT / "template/src/{{package_name}}/problem",
        source / "model/problem",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    sys.path.insert(0, str(source))
    SHARED_FILES.update({path: path.read_bytes() for path in folder.glob("*.py")})
    yield folder
    sys.path.remove(str(source))


SHARED_FILES: dict[Path, bytes] = {}  # of `problem`, which each test of a worker imports


@pytest.fixture(autouse=True)
def shared_problem_stays() -> Iterator[None]:
    """Fail a test that changes `problem` for those that come after it."""
    yield
    changed = [path for path, content in SHARED_FILES.items() if path.read_bytes() != content]
    for path in changed:
        path.write_bytes(SHARED_FILES[path])
    assert not changed, "this test has to work in a copy of its own"


@pytest.fixture(scope="session")
def module(problem: Path) -> Callable[[str], ModuleType]:
    """Import modules of the runtime, by names such as cli, and of `problem/`, as problem.data."""

    def module(name: str) -> ModuleType:
        package = "model" if name.startswith("problem.") else "rung_runtime"
        return importlib.import_module(f"{package}.{name}")

    return module


@pytest.fixture(scope="session")
def mlflow_tables(module: Callable[[str], ModuleType], run_folder: Path) -> Path:
    """Return MLflow's database with its tables and nothing in them, to be copied.

    To make them takes a second, and MLflow does so wherever they are not.
    """

    def make(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            module("adapters.tracker_mlflow").client().search_experiments()

    return once(run_folder / "mlflow", make) / "mlflow.db"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's server, which stands in for S3."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    for key, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",  # pragma: allowlist secret
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(key, value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    store = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with suppress(httpx.TransportError):
                if httpx.put(f"{url}/bucket").status_code == 200:
                    break
            time.sleep(0.2)
        yield "s3://bucket"
    finally:
        store.terminate()
        store.wait()
