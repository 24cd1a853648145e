"""The commands of the registry: versions, their signatures, and what is taken out of it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from typer import Argument, Option

from .. import UsageError
from .parts import START, Version, load_part


def register(
    pinned: Annotated[bool, Option("--pinned", help="Print VERSION@sha256:DIGEST.")] = False,
) -> None:
    """Add the accepted package to the registry; print its version."""
    version = load_part("registry").register()
    typer.echo(version.reference if pinned else version.version)


def resolve(
    version: Annotated[
        str | None, Argument(help="A version, a part of one, champion, or previous.")
    ] = None,
    optional: Annotated[
        bool, Option("--optional", help="Where there is no champion yet, print nothing.")
    ] = False,
) -> None:
    """Print VERSION@sha256:DIGEST, which names one exact package."""
    registry = load_part("registry")
    if version == registry.CHAMPION and registry.current_champion() is None:
        if optional:
            return
        raise UsageError("there is no champion yet: `ml deploy` makes one")
    typer.echo(registry.find(version).reference)


def models() -> None:
    """List registered versions: metrics, lineage, the champion."""
    load_part("registry").print_versions()


def fetch(
    version: Annotated[
        str, Argument(help="A version, a part of one, champion, or VERSION@sha256:DIGEST.")
    ],
    to: Annotated[Path, Option(help="Where to put it: a new folder, or one that has a package.")],
) -> None:
    """Download a package from the registry, and verify it."""
    registry = load_part("registry")
    folder = START / to
    registry.require_replaceable(folder)
    typer.echo(registry.fetch_version(registry.find(version), folder))


def promote(version: Version = None) -> None:
    """Make a version, by default the newest, the champion."""
    typer.echo(load_part("registry").promote(version))


def sign(
    version: Annotated[str, Argument(help="A version, a part of one, or champion.")],
    key: Annotated[
        Path | None, Option(help="A private key, PEM; ML_SIGNING_PASSWORD unlocks it.")
    ] = None,
    bundle: Annotated[Path | None, Option(help="A signature that was made elsewhere.")] = None,
    unsigned: Annotated[
        Path | None, Option(help="Sign nothing: write what is to be signed to this folder.")
    ] = None,
) -> None:
    """Sign a registered version, as OpenSSF Model Signing does."""
    signature = load_part("registry.signature")
    if sum(option is not None for option in (key, bundle, unsigned)) != 1:
        raise UsageError("name one of --key, --bundle and --unsigned")
    if unsigned:
        typer.echo(signature.write_unsigned(version, START / unsigned))
    else:
        typer.echo(signature.sign(version, key and START / key, bundle and START / bundle))


def verify(
    version: Annotated[str, Argument(help="A version, a part of one, or champion.")],
    key: Annotated[
        Path | None,
        Option(help="A public key, PEM; by default, signed_by in config/delivery.yaml."),
    ] = None,
) -> None:
    """Check that a registered version is what was signed."""
    typer.echo(load_part("registry.signature").verify(version, key and START / key))


def export_onnx(
    to: Annotated[Path, Option(help="A folder, new or empty.")],
    version: Annotated[
        str | None, Argument(help="A version in the registry; without it the last `ml run`'s.")
    ] = None,
) -> None:
    """Write a compiled model, and what it takes and returns, for any runtime of ONNX."""
    export = load_part("compiled.export").export
    if version is None:
        typer.echo(export(load_part("artifacts").PACKAGE, START / to))
        return
    registry = load_part("registry")
    with TemporaryDirectory(prefix="ml-export-") as folder:
        package = registry.fetch_version(registry.find(version), Path(folder, "package"))
        typer.echo(export(package, START / to))
