"""Curves: the points of the report's plots, thinned to what a picture can show."""

from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from ..records import Curve
from .metrics import Floats

MAX_SCATTER_POINTS = 400
MAX_CURVE_POINTS = 120


def curves(y_true: Floats, y_pred: Floats) -> dict[Curve, list[Any]]:
    """Return the points of each plot, by its title.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.

    Returns:
        Of a regression, predicted and actual values; of classes, the confusion matrix, and of two
        classes that both occur, the ROC curve and precision over recall.
    """
    if y_pred.ndim == 1:
        return {"predicted and actual": _thin(y_pred, y_true, MAX_SCATTER_POINTS)}
    plots: dict[Curve, list[Any]] = {}
    if y_pred.shape[1] == 2 and len(np.unique(y_true)) == 2:
        false_positive_rate, true_positive_rate, _ = roc_curve(y_true, y_pred[:, 1])
        precision, recall, _ = precision_recall_curve(y_true, y_pred[:, 1])
        plots["roc"] = _thin(false_positive_rate, true_positive_rate, MAX_CURVE_POINTS)
        plots["precision and recall"] = _thin(recall, precision, MAX_CURVE_POINTS)
    confusion = confusion_matrix(y_true, y_pred.argmax(axis=1), labels=range(y_pred.shape[1]))
    return plots | {"confusion": confusion.tolist()}


def _thin(x: Floats, y: Floats, max_points: int) -> list[Any]:
    """Return at most so many of the points, evenly spaced in their order."""
    index = np.unique(np.linspace(0, len(x) - 1, max_points).astype(int))
    return list(np.column_stack([x, y])[index].tolist())
