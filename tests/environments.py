"""Ready environments: installed and compiled once for all tests, then laid into projects as links.

`uv sync` of a cached lock takes a second, but every job would then compile the modules that it
imports anew, which costs more than all else that it does. Here an environment is made once for each
lock, Python and choice of groups, with the bytecode of what a project imports (to compile all that
is installed would take a minute); a project gets a copy by hard links, in which `uv sync` finds
everything but the project itself. Only the standard library is imported, since the
stand-in of uv runs this file in every job:

    python environments.py STORE run --locked --only-group dev pre-commit …
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PYTHON = os.environ.get("UV_PYTHON") or str(
    Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
)
FETCHED = Path(__file__).resolve().parents[1] / ".tools/bin/uv"  # by .ci/with-uv
EVERYTHING = ("--all-groups",)
WITH_A_VALUE = ("--group", "--no-group", "--only-group", "--extra")
ALONE = ("--all-groups", "--no-default-groups", "--all-extras", "--no-dev", "--only-dev")


def lay(project: Path, store: Path, *choice: str) -> None:
    """Put a complete environment into a project that has a lock but no environment yet.

    Args:
        project: The folder with `uv.lock`; gets `.venv`, without the project's own package.
        store: Where ready environments are kept; several processes may use it at once.
        choice: The groups, as options of uv: `--all-groups`, `--only-group`, `dev`, …
    """
    lock = project / "uv.lock"
    if lock.exists() and not (project / ".venv").exists():
        link(ready(project, store, *choice), project / ".venv")


def ready(project: Path, store: Path, *choice: str) -> Path:
    """Return the environment of a lock and of groups, made if it is not there yet.

    A project that is installed already, in an environment that can be moved, gives its own.
    """
    settings = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    groups = [settings.get("dependency-groups"), settings.get("tool", {}).get("uv")]
    parts = [(project / "uv.lock").read_text("utf-8"), repr(groups), PYTHON, *choice]
    key = hashlib.sha256("\0".join(parts).encode())
    folder = store / key.hexdigest()[:16]
    with locked(store / f"{folder.name}.lock"):
        if not folder.exists():
            making = store / f"{folder.name}.making"
            shutil.rmtree(making, ignore_errors=True)
            if choice == EVERYTHING and movable(project / ".venv"):
                link(project / ".venv", making)
            elif choice == EVERYTHING:
                uv(project, making, "venv", "--quiet", "--relocatable", str(making))
            else:  # taking packages out is cheaper than compiling the others again
                link(ready(project, store, *EVERYTHING), making)
            uv(project, making, "sync", "--quiet", "--locked", "--no-install-project", *choice)
            if choice == EVERYTHING:
                import_all(project, making)
                drop_what_nothing_imports(making)
            making.rename(folder)
    return folder


def movable(environment: Path) -> bool:
    """Check whether an environment works wherever it is copied to."""
    settings = environment / "pyvenv.cfg"
    return settings.exists() and "relocatable = true" in settings.read_text("utf-8")


def uv(project: Path, environment: Path, *args: str) -> None:
    """Run uv in a project, with its environment elsewhere."""
    env = os.environ | {"UV_PROJECT_ENVIRONMENT": str(environment), "UV_PYTHON": PYTHON}
    env.pop("STANDIN_ENVIRONMENTS", None)
    program = env.get("STANDIN_UV") or shutil.which("uv") or str(FETCHED)
    command = [program, *args]
    subprocess.run(command, cwd=project, env=env, check=True, capture_output=True)


def import_all(project: Path, environment: Path) -> None:
    """Have the modules that a project imports compiled, as far as they can be imported."""
    command = [environment / "bin/python", Path(__file__).with_name("warm.py")]
    source = project / "src"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([*command, "--import", source], env=env, capture_output=True, check=False)


def drop_what_nothing_imports(environment: Path) -> None:
    """Remove the tests and C headers of libraries, a quarter of all files that a copy links."""
    for name in ("test", "tests", "include"):
        for folder in sorted(environment.glob(f"lib/python*/site-packages/*/**/{name}")):
            compiled = {path.name.partition(".")[0] for path in folder.rglob("*.pyc")}
            if compiled <= {"__init__"}:
                shutil.rmtree(folder)


def link(source: Path, target: Path) -> None:
    """Copy a folder by hard links; tools replace files in an environment, and never edit them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-al", str(source), str(target)], check=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def chosen(command: Sequence[str]) -> tuple[str, ...] | None:
    """Return the groups that a command of uv asks for, or None if it installs nothing."""
    if not command or command[0] not in ("sync", "run"):
        return None
    choice: list[str] = []
    words = iter(command[1:])
    for word in words:
        if word == "--no-sync" or (not word.startswith("-") and command[0] == "sync"):
            return None
        if not word.startswith("-"):
            break  # what follows is the program that `uv run` starts
        if word in WITH_A_VALUE:
            choice += [word, next(words)]
        elif word in ALONE:
            choice.append(word)
    return tuple(choice)


if __name__ == "__main__":
    groups = chosen(sys.argv[2:])
    if groups is not None:
        with suppress(subprocess.CalledProcessError):  # the real uv, which runs next, says why
            lay(Path.cwd(), Path(sys.argv[1]), *groups)
