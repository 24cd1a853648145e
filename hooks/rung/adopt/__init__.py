"""`rung adopt`: turn an existing repository into a project without losing a byte."""

from .adoption import adopt

__all__ = ["adopt"]
