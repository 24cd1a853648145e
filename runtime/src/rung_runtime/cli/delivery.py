"""The commands of level 1: those of delivery are here, the others beside it."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from .. import UsageError, project
from .data import add_data
from .images import image, pin, sbom
from .monitoring import add_labels, monitor, retrain
from .partitioned import features
from .parts import START, Target, Version, load_part
from .pipeline import run, run_only, track
from .registry import export_onnx, fetch, models, promote, register, resolve, sign, verify
from .review import comment, show_controls
from .score import score
from .step import step

__all__ = ["add", "run", "run_only"]

export_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Take a model to another system."
)
labels_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Record what really happened."
)


def add(app: typer.Typer, data_app: typer.Typer) -> None:
    """Give `ml` these commands."""
    for command in (
        track, register, resolve, models, fetch, promote, rollback, serve, parity, deploy, smoke,
        features, score, status, step, stop, monitor, retrain, comment, sign, verify,
        sbom, pin,
    ):  # fmt: skip
        app.command()(command)
    app.command("controls")(show_controls)
    if project.current().level >= 2:
        app.command()(image)
    labels_app.command("add")(add_labels)
    export_app.command("onnx")(export_onnx)
    app.add_typer(export_app, name="export")
    app.add_typer(labels_app, name="labels")
    data_app.command("add")(add_data)


def deploy(
    version: Version = None,
    target: Annotated[
        str | None, Option(help="local, or kubernetes if the project has it.")
    ] = None,
) -> None:
    """Deploy a version, by default the newest.

    The stages are fetch, shadow, promote, switch, smoke and watch. If one fails, the previous
    model serves again.
    """
    typer.echo(load_part("delivery").deploy(version, target))


def rollback(
    to: Annotated[
        str | None, Option(help="An earlier champion, or its VERSION@sha256:DIGEST.")
    ] = None,
    target: Target = None,
) -> None:
    """Return to the previous champion, in registry and service."""
    typer.echo(load_part("delivery").rollback(to, target))


def serve(
    package: Annotated[Path | None, Option(help="A package other than artifacts/model.")] = None,
    port: Annotated[
        int | None,
        Option(min=0, max=65_535, help="A port other than that in config/delivery.yaml."),
    ] = None,
) -> None:
    """Serve a package in this terminal, until Ctrl-C.

    `ml deploy` serves the champion in the background.
    """
    load_part("serving.main").limit_threads()
    settings = load_part("config.delivery").load_delivery().service
    changed = settings if port is None else settings.model_copy(update={"port": port})
    folder = START / package if package else load_part("artifacts").PACKAGE
    load_part("serving").serve(folder, changed)


def parity(
    file: Annotated[Path | None, Argument(help="Rows to send; by default, the holdout.")] = None,
    url: Annotated[
        str | None, Option(help="The address of the service; by default, the local one.")
    ] = None,
) -> None:
    """Check that the service answers as the champion does here."""
    import polars as pl

    from .. import artifacts, model_package, registry, serving
    from ..adapters import target_local as local
    from ..config.delivery import load_delivery
    from ..pipeline import ingest

    champion = registry.current_champion()
    service = load_delivery().service
    if champion is None:
        raise UsageError("there is no champion yet: `ml deploy` makes one")
    registry.require_expected(champion)
    folder = artifacts.ARTIFACTS / "champion" / champion.version
    model = model_package.load_package(registry.fetch_version(champion, folder), champion.digest)
    if file:
        rows = ingest.read(START / file, model.data.separator)
    else:
        artifacts.verified_digest(artifacts.HOLDOUT)
        rows = pl.read_parquet(artifacts.HOLDOUT)
    running = local.running()
    local_url = running["url"] if running else f"http://{service.host}:{service.port}"
    address = url or local_url
    typer.echo(serving.check_parity(address.rstrip("/"), rows, model))


def smoke(
    version: Annotated[str | None, Argument(help="A version other than the champion.")] = None,
    url: Annotated[str | None, Option(help="The address of the service.")] = None,
) -> None:
    """Check that the service answers as its model does."""
    typer.echo(load_part("delivery").smoke(url, version))


def status(target: Target = None) -> None:
    """Show what serves; finish or undo a killed deployment."""
    typer.echo(load_part("delivery").status(target))


def stop() -> None:
    """Stop the local service, after the requests that it has."""
    typer.echo(load_part("delivery").stop())
