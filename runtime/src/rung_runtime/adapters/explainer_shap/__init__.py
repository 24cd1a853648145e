"""SHAP values by the library `shap`, over the columns of the contract.

A row is a row of codes for the library, each of which says which row a value comes from; so it
explains categories, gaps, texts and times that it could not read.
"""

from typing import Any

import numpy as np

from ...explanations import PREDICTED_ROWS, Attribution, Explainer, Floats, Question, Subject

SEED = 0


class PermutationExplainer:
    """The library's explainer of that name."""

    def __init__(self, subject: Subject) -> None:
        import shap

        rows, columns = subject.background.shape
        codes = np.tile(np.arange(rows, dtype=float)[:, None], (1, columns))
        self._masker = shap.maskers.Independent(codes, max_samples=rows)
        self._kind: Any = shap.PermutationExplainer
        orders = max(1, PREDICTED_ROWS // (2 * columns * rows))
        self._evaluations = orders * (2 * columns + 1)

    def attribute(self, question: Question) -> Attribution:
        def predict(codes: Floats) -> Floats:
            return question.ask(np.asarray(codes, dtype=np.int64))

        row = np.full((1, len(question.subject.columns)), float(question.own))
        state = np.random.get_state()  # which the library sets, and does not put back
        try:
            explainer = self._kind(predict, self._masker, seed=SEED)
            values = explainer(row, max_evals=self._evaluations, silent=True)
        finally:
            np.random.set_state(state)
        return Attribution(float(values.base_values[0]), np.asarray(values.values[0], dtype=float))


def open_explainer(subject: Subject) -> Explainer:
    """Return an explainer of a model.

    Raises:
        ModuleNotFoundError: `shap` is not installed.
    """
    return PermutationExplainer(subject)
