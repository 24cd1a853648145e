"""Explanations: which columns, as a caller sends them, a prediction comes from, and how far.

`background` is what a row is compared with, `explainer` what every explainer promises, `shapley`
the one that is always there. Others are adapters of the slot `explainer`.
"""

from .background import background, background_size
from .explainer import (
    BUILT_IN,
    Attribution,
    Explainer,
    Explanation,
    Question,
    Subject,
    TooLate,
    explain,
    open_explainer,
)

__all__ = [
    "BUILT_IN",
    "Attribution",
    "Explainer",
    "Explanation",
    "Question",
    "Subject",
    "TooLate",
    "background",
    "background_size",
    "explain",
    "open_explainer",
]
