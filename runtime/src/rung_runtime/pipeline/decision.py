"""The probability from which it pays to act, given what the two errors cost; and what it saves."""

import numpy as np

from ..config import Costs, Gate
from ..records import CostPerRow, Decision, Interval, Outcomes
from .intervals import bootstrap, effective_rows
from .metrics import Floats


def decision(
    y_train: Floats, p_train: Floats, y_true: Floats, p_pred: Floats, costs: Costs, gate: Gate
) -> Decision:
    """Choose a threshold on rows of the training part, and judge it on the holdout.

    Args:
        y_train: (m,) class indices of training rows.
        p_train: (m,) their probability of the positive class, each by a model that was trained
            without the row.
        y_true: (n,) class indices of the holdout.
        p_pred: (n,) the model's probability of the positive class.
        costs: Of the two errors.
        gate: Confidence and resamples of the interval.

    Returns:
        `threshold`, the costs, the four counts of the holdout, under `cost` what a row costs with
        the model, by never acting and by always acting, and under `worth` what the model saves of
        the cheaper of these two, a row: negative, if it is better not to use it.
    """
    threshold = cheapest(y_train, p_train, costs)
    positive = y_true == 1
    acts = p_pred >= threshold
    never = np.where(positive, costs.false_negative, 0.0)
    always = np.where(positive, 0.0, costs.false_positive)
    with_model = np.where(acts, always, never)
    # Which of the two is cheaper is read from the training rows, as the threshold is.
    share = float((y_train == 1).mean())
    never_is_cheaper = share * costs.false_negative <= (1 - share) * costs.false_positive
    saved = (never if never_is_cheaper else always) - with_model
    (worth,) = bootstrap(
        lambda rows: [float(saved[rows].mean())], len(saved), gate, effective_rows(y_true, 2)
    )
    return Decision(
        threshold=threshold,
        false_positive=costs.false_positive,
        false_negative=costs.false_negative,
        counts=Outcomes(
            true_positive=int((acts & positive).sum()),
            false_positive=int((acts & ~positive).sum()),
            false_negative=int((~acts & positive).sum()),
            true_negative=int((~acts & ~positive).sum()),
        ),
        cost=CostPerRow(
            model=float(with_model.mean()),
            never=float(never.mean()),
            always=float(always.mean()),
        ),
        against="never" if never_is_cheaper else "always",
        worth=Interval(**worth),
    )


def cheapest(y_true: Floats, probability: Floats, costs: Costs) -> float:
    """Return the threshold with the lowest cost of these rows.

    It lies in the middle between two probabilities. Of equally cheap ones it is the one that is
    closest to what would be right if the probabilities were exact: false_positive ÷
    (false_positive + false_negative) (Elkan, The foundations of cost-sensitive learning, 2001).
    """
    order = np.argsort(-probability, kind="stable")
    falling = probability[order]
    positive = y_true[order] == 1
    # The cost of acting on the first k rows, k = 0 … n.
    gained = np.where(positive, -costs.false_negative, costs.false_positive)
    cost = np.concatenate([[0.0], np.cumsum(gained)])
    bounds = np.concatenate([[1.0], falling, [0.0]])
    middles = (bounds[:-1] + bounds[1:]) / 2
    middles[0] = max(middles[0], np.nextafter(falling[0], 2))  # beyond a 1, to act on no row
    # Rows with one probability are acted on together.
    allowed = np.concatenate([[True], falling[:-1] > falling[1:], [True]])
    exact = costs.false_positive / (costs.false_positive + costs.false_negative)
    best = allowed & (cost <= cost[allowed].min() + 1e-9)
    return float(min(middles[best], key=lambda middle: abs(middle - exact)))
