"""What commands share: some of their arguments, and how a part of the runtime is imported."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

from typer import Argument, Option

START = Path.cwd()
Version = Annotated[
    str | None,
    Argument(help="A version, a unique part of one, or VERSION@sha256:DIGEST."),
]
Target = Annotated[
    str | None, Option(help="local; with Kubernetes, kubernetes/production or kubernetes/staging.")
]


def load_part(name: str) -> ModuleType:
    """Import a part of the runtime, heavy as it may be."""
    return import_module(f"..{name}", __package__)
