"""How the runtime is built: what a package exports, who speaks HTTP, and what has no type."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

RUNTIME = ROOT / "runtime/src/rung_runtime"
# JSON whose form others decide. Everything else has a type.
JSON_OF_OTHERS = {
    "artifacts.py": 1,  # a document while it is sealed
    "delivery/sbom.py": 1,  # documents of a package, of any version
    "delivery/service_folder.py": 2,  # what another process left
    "registry/model_signing.py": 2,  # a bundle of Sigstore's and its statement
}
TYPED = ("pipeline", "delivery", "monitoring", "registry", "artifacts.py")
# Statements of an `__init__.py` besides a docstring, imports and constants, and why.
STATEMENTS = {
    "__init__.py": {"os.environ.setdefault"},  # before a library reads it
    "serving/__init__.py": {"__getattr__"},  # exports what `main` must not wait for
    "testing/__init__.py": {"pytest.register_assert_rewrite"},  # before its modules are imported
}
# Who starts a program and does not wait for its end as `process.run` does, and why.
PROCESSES = {
    "process.py",
    "adapters/target_kubernetes/__init__.py",  # kubectl forwards a port for as long as it is used
    "adapters/target_local/ephemeral.py",  # a service that is asked, and then ended
    "adapters/target_local/supervisor.py",  # a service and its guard, which outlive their parent
    "isolation/model.py",  # confined, in a session of its own, and talked with through a pipe
    "isolation/pipe.py",  # talks with it
    "remote_step/attempts.py",  # its group gets the signals of its parent, and is ended as a whole
}
WAITING = {"run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
SHELLS = {"system", "popen", "spawnl", "spawnv", "spawnvp", "posix_spawn", "posix_spawnp"}
# Who may import a library, so that what it takes to use it well is in one place.
IMPORTED_BY = {
    "httpx": {"http_client/client.py", "http_client/response.py"},
    "stamina": {"http_client/client.py"},
    "subprocess": PROCESSES,
    "urllib.request": {"serving/parity.py"},
    "http.client": {"serving/parity.py"},
    "uvicorn": {"serving/server.py", "serving/connections.py", "serving/front.py"},
    "uvicorn.protocols": {"serving/connections.py"},
    "uvicorn.server": set(),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module of the runtime, by its path."""
    for path in sorted(RUNTIME.rglob("*.py")):
        yield path.relative_to(RUNTIME).as_posix(), path


def imported(tree: ast.Module) -> set[str]:
    """Return the modules that a module may import, wherever it does."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def statements(tree: ast.Module) -> set[str]:
    """Return what a module does and defines besides a docstring, imports and constants."""
    others = set()
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and not number:
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            others.add(ast.unparse(node.value.func))
        else:
            others.add(getattr(node, "name", type(node).__name__))
    return others


def test_a_package_only_exports_but_for_a_small_adapter() -> None:
    for name, path in modules():
        if path.name != "__init__.py" or (path.parent / "adapter.toml").is_file():
            continue
        tree = ast.parse(path.read_text("utf-8"))
        assert statements(tree) == STATEMENTS.get(name, set()), name


def test_a_library_that_takes_care_is_imported_in_its_own_place() -> None:
    importers: dict[str, set[str]] = {library: set() for library in IMPORTED_BY}
    for name, path in modules():
        names = imported(ast.parse(path.read_text("utf-8")))
        for library, places in importers.items():
            if any(f"{module}.".startswith(f"{library}.") for module in names):
                places.add(name)
    assert importers == IMPORTED_BY


def started(source: str) -> list[str]:
    """Return the calls of a module that start a program, and wait for its end or for nothing."""
    modules: dict[str, str] = {}
    calls = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {"subprocess": WAITING, "os": SHELLS}.get(node.module or "", set())
            calls += [alias.name for alias in node.names if alias.name in names]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if node.attr in {"subprocess": WAITING, "os": SHELLS}.get(module, set()):
                calls.append(ast.unparse(node))
    return calls


def test_one_function_runs_programs_in_the_runtime_and_one_in_rung() -> None:
    calls = {}
    for folder in (RUNTIME, ROOT / "hooks/rung"):
        for path in folder.rglob("*.py"):
            if here := started(path.read_text("utf-8")):
                calls[path.relative_to(ROOT).as_posix()] = here
    assert calls == {"runtime/src/rung_runtime/process.py": ["subprocess.run"]}
    importers = {
        path.name
        for path in (ROOT / "hooks/rung").rglob("*.py")
        if "subprocess" in imported(ast.parse(path.read_text("utf-8")))
    }
    assert importers == {"process.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['git'])",
        "import subprocess as sp\nsp.check_output(['git'])",
        "from subprocess import run\nrun(['git'])",
        "def late():\n    import os\n    os.system('git')",
    ],
)
def test_a_new_place_that_runs_a_program_is_found(source: str) -> None:
    assert started(source)


def test_what_has_no_type_is_json_of_others() -> None:
    untyped = {}
    for name, path in modules():
        count = path.read_text("utf-8").count("dict[str, Any]")
        if count and name.startswith(TYPED):
            untyped[name] = count
    assert untyped == JSON_OF_OTHERS


def test_what_a_project_imports_of_the_tests_has_every_test_of_their_modules() -> None:
    for name in ("controls", "adapters"):
        package = importlib.import_module(f"rung_runtime.testing.{name}")
        for path in (RUNTIME / "testing" / name).glob("[!_]*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            public = {name for name in defined if not name.startswith("_")}
            assert public <= {*package.__all__}, path.name
