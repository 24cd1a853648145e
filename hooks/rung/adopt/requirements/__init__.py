"""The requirements of a repository, from whichever file has them, as PEP 508 writes them."""

from .collect import collect
from .collected import CollectedRequirements
from .compare import are_compatible, declared_requirements

__all__ = ["CollectedRequirements", "are_compatible", "collect", "declared_requirements"]
