"""`ml step`: one node of the graph, where nodes share no folder."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from .. import UsageError
from .parts import START

Last = Literal["package", "register", "deploy"]


def step(
    name: Annotated[str, Argument(help="A stage of dvc.yaml, register, deploy, monitor, …")],
    output: Annotated[str, Option("--out", metavar="URI", help="The place for what it makes.")],
    inputs: Annotated[
        list[str] | None,
        Option("--in", metavar="URI", help="The place of a step before it; repeatable."),
    ] = None,
    retries: Annotated[
        int, Option(min=0, max=20, help="How often it is tried again, if not refused.")
    ] = 0,
    retry_delay: Annotated[float, Option(min=0, help="Seconds before that.")] = 60,
    timeout: Annotated[float, Option(min=0, help="Minutes of an attempt; 0: no limit.")] = 0,
    last: Annotated[Last, Option(help="Of retrain: what the training ends with.")] = "deploy",
) -> None:
    """Run one step whose inputs and outputs are in an object store.

    What is not stale does not run. A place is s3://, gs://, az://, file:// or a path.
    """
    from ..remote_step import perform_step, run_attempts

    if last != "deploy" and name != "retrain":
        raise UsageError(f"--last is for the step retrain, and not for {name}: leave it out")
    if retries or timeout:
        # An attempt does not supervise another one: it has neither retries nor a timeout.
        options = [
            f"--out={output}",
            *(f"--in={place}" for place in inputs or ()),
            f"--last={last}",
        ]
        arguments = ["step", *options, "--", name]
        sys.exit(run_attempts(name, arguments, START, retries, retry_delay, timeout))
    run = partial(_run, last=last)
    typer.echo(perform_step(name, inputs or (), output, START, run, last))


def _run(name: str, last: Last) -> None:
    """Run a step in this folder."""
    from .app import STEPS
    from .delivery import deploy
    from .monitoring import monitor, retrain
    from .pipeline import run_only
    from .registry import register

    commands: dict[str, Callable[[], None]] = {
        "register": register,
        "deploy": partial(deploy, target="production"),  # the cluster's
        "monitor": monitor,
        "retrain": partial(retrain, last=last),
        "source": lambda: None,
    }
    if name in commands and name not in STEPS:
        commands[name]()
        return
    has_tracker = bool(os.environ.get("MLFLOW_TRACKING_URI"))
    run_only(name, is_recorded=has_tracker)
    if name == "package" and not has_tracker:
        typer.echo(
            "tracking: not recorded, as mlflow.db would end with this step: MLFLOW_TRACKING_URI"
            " names a server"
        )
