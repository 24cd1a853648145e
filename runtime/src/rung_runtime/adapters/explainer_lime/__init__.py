"""LIME by the library `lime`: a weighted linear model of the neighbourhood of a row.

As LIME does with the words of a text, a column is either the row's own or hidden; a hidden one has
the value of a row of the background.
"""

from typing import Any

import numpy as np

from ...explanations import Attribution, Explainer, Floats, Question, Subject

SEED = 0
NEIGHBOURS = 5_000  # as many as the library takes for a table
KERNEL_WIDTH = 25.0  # of distances from 0 to 100: the library's own for texts


class Lime:
    """The linear model of LIME."""

    def __init__(self, subject: Subject) -> None:
        from lime.lime_base import LimeBase

        self._linear: Any = LimeBase(_proximity, random_state=SEED)

    def attribute(self, question: Question) -> Attribution:
        columns = len(question.subject.columns)
        random = np.random.default_rng(SEED)
        hidden = random.integers(1, columns, NEIGHBOURS, endpoint=True)
        ranks = random.permuted(np.tile(np.arange(columns), (NEIGHBOURS, 1)), axis=1)
        is_own = ranks >= hidden[:, None]
        is_own[0] = True  # the row itself, which the library expects first
        background = random.integers(0, question.own, (NEIGHBOURS, columns))
        y_pred = question.ask(np.where(is_own, question.own, background))
        share = is_own.mean(axis=1)
        distances = 100 * (1 - np.sqrt(share))  # of cosines to the row itself
        intercept, weights, _, _ = self._linear.explain_instance_with_data(
            is_own.astype(float), y_pred[:, None], distances, 0, columns, feature_selection="none"
        )
        contributions = np.zeros(columns)
        for column, weight in weights:
            contributions[column] = weight
        return Attribution(float(intercept), contributions)


def _proximity(distances: Floats) -> Floats:
    weights: Floats = np.sqrt(np.exp(-(distances**2) / KERNEL_WIDTH**2))
    return weights


def open_explainer(subject: Subject) -> Explainer:
    """Return an explainer of a model.

    Raises:
        ModuleNotFoundError: `lime` is not installed.
    """
    return Lime(subject)
