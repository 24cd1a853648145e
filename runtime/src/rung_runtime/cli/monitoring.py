"""The commands that monitor what serves, and train again."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from .. import UsageError
from .parts import START, load_part
from .pipeline import run

OUTCOMES = {
    "package": "a package was made",
    "register": "a version was registered",
    "deploy": "trained",
}


def monitor() -> None:
    """Check recent predictions, and decide whether to retrain.

    Judged are drift, violations of the contract, performance, and the age of the champion.
    """
    if not _unserved():
        typer.echo(load_part("monitoring").monitor())


def retrain(
    again: Annotated[
        str | None, Option(help="An alarm whose training was killed or failed.")
    ] = None,
    dispatch: Annotated[
        bool, Option("--dispatch", help="On a runner: have the platform start the pipeline.")
    ] = False,
    last: Annotated[
        Literal["package", "register", "deploy"],
        Option(help="What the training ends with, if a person deploys it."),
    ] = "deploy",
) -> None:
    """Run, register and deploy, if the monitor decided to.

    Each alarm leads to one training.
    """
    if dispatch and last != "deploy":
        raise UsageError(
            "--dispatch and --last exclude each other: the pipeline has an end of its own"
        )
    if dispatch and _unserved():
        return
    train = partial(_train, last)
    outcome = OUTCOMES[last]
    if dispatch:
        train = load_part("ci_platform").require_platform().train
        outcome = "a training was started"
    typer.echo(load_part("monitoring").retrain(train, again, outcome))


def add_labels(
    file: Annotated[Path, Argument(help="CSV or Parquet: request_id or the keys, and the target.")],
) -> None:
    """Record what really happened, for `ml monitor` to compare."""
    typer.echo(load_part("prediction_log").add_labels(START / file))


def _train(last: str) -> None:
    run()
    if last == "package":
        return
    registry = load_part("registry")
    champion = registry.current_champion()
    new = registry.register()
    if champion == new:
        typer.echo(f"the run produced {new} again: `ml data add` brings more rows to learn from")
    if last == "register":
        typer.echo(f"registered {new}: `ml deploy {new.version}` brings it into service")
        return
    typer.echo(load_part("delivery").deploy(new.reference, None))


def _unserved() -> bool:
    """Check whether this is a runner with no service, and so no log; if so, show a notice."""
    delivery = load_part("delivery")
    log = load_part("config.delivery").load_delivery().service.log
    if "://" in log:
        return False
    platform = delivery.rehearsal_platform()
    if platform is None:
        return False
    platform.notice(f"Nothing is monitored, as nothing serves here. {delivery.OWN_MACHINE_HINT}")
    return True
