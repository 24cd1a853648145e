"""The commands of level 1: tracking, registry, service, deployment, monitoring, retraining."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from typer import Argument, Option

from . import BadInput, Refused

START = Path.cwd()
labels_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What really happened.")
Version = Annotated[str | None, Argument(help="A version, or a part of one that only it has.")]


def add(app: typer.Typer, data_app: typer.Typer) -> None:
    """Give `ml` these commands."""
    for command in (
        track, register, models, promote, rollback, serve, parity, deploy, smoke, status, stop,
        monitor, retrain,
    ):  # fmt: skip
        app.command()(command)
    labels_app.command("add")(add_labels)
    app.add_typer(labels_app, name="labels")
    data_app.command("add")(add_data)


def _load(name: str) -> ModuleType:
    """Import a part, heavy as it may be."""
    return import_module(f".{name}", __package__)


def run() -> None:
    """Run what is stale of the pipeline, and record the run, passed or refused."""
    _load("registry").look()  # a new champion makes the comparison stale
    try:
        _repro()
    finally:
        typer.echo(_load("tracking").record())


def _repro() -> None:
    """`dvc repro`, ended as the step that ended it.

    Raises:
        Refused, BadInput, SystemExit: The step did, and has said why.
    """
    command, scripts = [sys.executable, "-m", "dvc", "repro"], Path(sys.executable).parent
    # The stages say `ml`, which is on the PATH only where the environment is active.
    env = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        said = ""
        for line in process.stderr or ():
            sys.stderr.write(line)
            said += line
    if process.returncode:
        code = re.search(r"exited with (\d+)", said)
        ends: dict[str, type[Exception]] = {"1": Refused, "2": BadInput}
        if code and code[1] not in ends:
            sys.exit(int(code[1]))
        raise ends[code[1] if code else "2"]("a step ended it, as said above")


def track() -> None:
    """Record the last run with MLflow, if it is not yet."""
    typer.echo(_load("tracking").record())


def register() -> None:
    """Put the package that passed into the registry."""
    typer.echo(_load("registry").register().version)


def models() -> None:
    """List the versions in the registry, with metrics, lineage and aliases."""
    _load("registry").show()


def promote(version: Version = None) -> None:
    """Make a version, the newest if none is named, the champion."""
    typer.echo(_load("registry").promote(version))


def rollback(to: Annotated[str | None, Option(help="A champion of before.")] = None) -> None:
    """Return to the champion before, in the registry and in the service."""
    typer.echo(_load("delivery").rollback(to))


def serve(
    package: Annotated[Path, Option(help="The folder of a package.")] = Path("artifacts/model"),
    port: Annotated[int | None, Option(help="Instead of the one in delivery.yaml.")] = None,
) -> None:
    """Serve a package in this terminal; `ml deploy` serves the champion in the background."""
    settings = _load("settings").delivery().service
    changed = settings if port is None else settings.model_copy(update={"port": port})
    _load("serving").serve(START / package, changed)
