"""The registry as OCI artifacts: an image-layout folder, or any OCI registry by URL."""

from .registry import Oci, open_registry

__all__ = ["Oci", "open_registry"]
