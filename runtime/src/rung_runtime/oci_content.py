"""What an OCI registry keeps: types of media, digests, and how large it may be."""

import hashlib
import re

from .exceptions import UsageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
BYTES = "application/octet-stream"
# What Docker called them first; Docker Hub has both.
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_FILE = 2 * 2**30  # bytes


class UnknownMediaType(UsageError):
    """The registry takes no manifest of this type, and perhaps one of another."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes, as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
