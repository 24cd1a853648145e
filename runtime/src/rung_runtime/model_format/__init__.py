"""Model formats: how a fitted estimator becomes a file, and an estimator again, without pickle.

`choose` finds the adapter of what `problem/model.py` returned, and `file` writes and reads the one
file of a model. Whatever the library, that is an archive of skops: the estimator of another library
may be the last step of a pipeline or a member of a vote, and its own file, such as LightGBM's text,
is a file in the archive.
"""

from .choose import adapt
from .file import DEFAULT, Unsavable, formats, load, save, to_bytes
from .interface import ModelFormat

__all__ = ["DEFAULT", "ModelFormat", "Unsavable", "adapt", "formats", "load", "save", "to_bytes"]
