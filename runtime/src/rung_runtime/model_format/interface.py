"""What the module of a model format has."""

from collections.abc import Collection
from typing import Any, Protocol


class ModelFormat(Protocol):
    """The adapter of a library: which estimators are its, and what stands for them in a project.

    Importing the module imports nothing of the library, which may not be installed.

    What `adapt` returns is saved by its own `__getstate__`, as plain values and bytes (the file of
    the library), and read by its `__setstate__`, which gets what anybody may have written. So it
    must not run code from it, or name a type that it has not listed itself. Equal models give
    equal states: what differs from run to run, such as a time, is left out. The digest of a model
    is that of its file.
    """

    TRUSTED: Collection[str]  # the types of the adapter that a file may hold, as `module.Class`
    SUFFIX: str  # of the library's own file in the archive, such as `.txt`

    def owns(self, estimator: Any) -> bool:
        """Check whether an estimator is of the library, by its type alone."""

    def adapt(self, estimator: Any) -> Any:
        """Return an unfitted estimator that learns as this one does.

        It takes what `features` returns, a frame of numbers and categories with gaps, or a matrix
        from a step before it; and it can be saved.
        """
