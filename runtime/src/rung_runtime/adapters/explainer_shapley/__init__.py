"""Shapley values by permutation: what each column adds to a prediction, in a random order.

The values of the row replace those of a row of the background one by one, and each column gets the
change of the prediction that its value brings; then once more in the reverse order. The mean of all
rows of the background, each with orders of its own, is an unbiased estimate of the Shapley values
of the game whose worth is the mean prediction over the background (Štrumbelj and Kononenko, 2014;
Lundberg and Lee, 2017, who call them SHAP values). With the reverse order it is exact where no more
than two columns interact. A column that the model does not use gets 0, and contributions add up to
the difference from the base value, however few the rows.

The whole model is explained, `problem/features.py` and what is fitted, so columns are those that a
caller sends: a category, a text or a time is one column, whatever is derived from it.
"""

import numpy as np

from ...explanations import (
    CHUNK_ROWS,
    PREDICTED_ROWS,
    Attribution,
    Explainer,
    Floats,
    Question,
    Subject,
)

SEED = 0


class ShapleyValues:
    """The explainer that is always there."""

    def __init__(
        self, subject: Subject, seed: int = SEED, predicted_rows: int = PREDICTED_ROWS
    ) -> None:
        """Draw orders of the columns for each row of the background: several if they cost little.

        Args:
            subject: The model.
            seed: Of the orders.
            predicted_rows: For an explanation, more or less.
        """
        rows, columns = subject.background.shape
        repeats = max(1, predicted_rows // (2 * columns * rows))
        self._starts = np.tile(np.arange(rows), repeats)  # the row of the background of each order
        orders = np.tile(np.arange(columns), (rows * repeats, 1))
        orders = np.random.default_rng(seed).permuted(orders, axis=1)
        self._ranks = np.argsort(orders, axis=1)  # (orders, columns), the place of each column

    def attribute(self, question: Question) -> Attribution:
        orders, columns = self._ranks.shape
        at_once = max(1, CHUNK_ROWS // (2 * columns))
        gains = [
            self._gains(question, slice(first, first + at_once))
            for first in range(0, orders, at_once)
        ]
        contributions = np.concatenate(gains).mean(axis=0)
        return Attribution(float(question.base_predictions.mean()), contributions)

    def _gains(self, question: Question, some: slice) -> Floats:
        """Return what each column adds in some orders: (orders, columns)."""
        ranks = self._ranks[some]
        starts = self._starts[some]
        orders, columns = ranks.shape
        sizes = np.arange(1, columns)  # how many values are the row's own, between none and all
        is_own = np.stack(
            [
                ranks[:, None] < sizes[:, None],
                ranks[:, None] >= columns - sizes[:, None],
            ],
            axis=1,
        )  # (orders, 2 directions, sizes, columns)
        codes = np.where(is_own, question.own, starts[:, None, None, None])
        between = question.ask(codes.reshape(-1, columns)).reshape(orders, 2, columns - 1)
        none = np.broadcast_to(question.base_predictions[starts, None, None], (orders, 2, 1))
        every = np.full((orders, 2, 1), question.prediction)
        steps = np.diff(np.concatenate([none, between, every], axis=2), axis=2)
        forward = np.take_along_axis(steps[:, 0], ranks, axis=1)
        backward = np.take_along_axis(steps[:, 1], columns - 1 - ranks, axis=1)
        gains: Floats = (forward + backward) / 2
        return gains


def open_explainer(subject: Subject) -> Explainer:
    """Return an explainer of a model."""
    return ShapleyValues(subject)
