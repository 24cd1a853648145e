"""Explanations: which columns, as a caller sends them, a prediction comes from, and how far.

`background` is what a row is compared with, and `explainer` what every explainer promises. They are
adapters of the slot `explainer`, of which `shapley` is always there.
"""

from .background import PREDICTED_ROWS, background, background_size
from .explainer import (
    CHUNK_ROWS,
    Attribution,
    Explainer,
    Explanation,
    Floats,
    Question,
    Subject,
    TooLate,
    Unanswerable,
    explain,
    open_explainer,
)

__all__ = [
    "CHUNK_ROWS",
    "PREDICTED_ROWS",
    "Attribution",
    "Explainer",
    "Explanation",
    "Floats",
    "Question",
    "Subject",
    "TooLate",
    "Unanswerable",
    "background",
    "background_size",
    "explain",
    "open_explainer",
]
