"""The commands that pin base images, make the image of a version, and its bill of materials."""

from typing import Annotated

import typer
from typer import Argument, Option

from .. import UsageError
from .parts import Version, load_part


def image(
    version: Version = None,
    push: Annotated[bool, Option("--push", help="Push it to the image registry.")] = False,
    noted: Annotated[
        bool, Option("--noted", help="Print the image that the version has; build none.")
    ] = False,
) -> None:
    """Build the image of a version, once, and check its answers."""
    images = load_part("delivery.image")
    if not noted:
        typer.echo(images.image(version, push))
    elif push or version is None:
        raise UsageError("--noted prints the image that a version has: name one, without --push")
    elif image_digest := images.noted(version):
        typer.echo(image_digest)


def pin(
    file: Annotated[
        str | None, Argument(help="Dockerfile or .gitlab-ci.yml; by default, both.")
    ] = None,
) -> None:
    """Write the digests that base images have now."""
    for line in load_part("delivery.base_images").pin(file):
        typer.echo(line)


def sbom(version: Version = None) -> None:
    """Write artifacts/sbom.json, a CycloneDX bill of materials."""
    typer.echo(load_part("delivery.sbom").sbom(version))
