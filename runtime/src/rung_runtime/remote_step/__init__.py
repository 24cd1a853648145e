"""`ml step`: a node of the graph where nodes share no folder, such as a container of a cloud.

What a step needs comes from a place in an object store, and what it makes goes to another one.
`snapshot` is what is at such a place, `transfer` carries files and checks their digests, `step`
puts it together, and `attempts` tries again what failed by no fault of the data.
"""

from .attempts import run_attempts
from .step import perform_step

__all__ = ["perform_step", "run_attempts"]
