"""LightGBM on the workers of a Dask cluster, by `lightgbm.dask`.

Each worker finds the bins of some columns by its own rows, and all add up their histograms. So a
model differs a little from one that is trained on one machine, and with the number of workers.
"""

import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import UsageError
from ...model_format.library import Floats

if TYPE_CHECKING:
    from . import LightGBM

# LightGBM's names of params that a cluster cannot follow, and why; some only with some values.
STOPPING = ("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change")
LINEAR = ("linear_tree", "linear_trees")
LEARNER = ("tree_learner", "tree", "tree_type", "tree_learner_type")
MONOTONE = ("monotone_constraints_method", "monotone_constraining_method", "mc_method")
REFUSED = {
    **dict.fromkeys(STOPPING, "needs rows to stop by, which a worker does not have"),
    **dict.fromkeys(LINEAR, "would train on the rows of one worker alone"),
    **dict.fromkeys(LEARNER, "decides how workers share the work, which is by rows"),
    **dict.fromkeys(MONOTONE, "needs all columns, of which a worker has some"),
}
ALLOWED = ("basic", "data", "data_parallel", "voting", "voting_parallel")
MULTICLASS = ("multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr")
# Lines of a model that say which machines it was trained on, and what they are on one machine.
MACHINES = {
    "machines": "",
    "num_machines": "1",
    "local_listen_port": "12400",
    "num_threads": "0",
    "time_out": "120",
    "tree_learner": "serial",
}
LOST = re.compile(r"[Ss]ocket|[Cc]onnect")  # in what LightGBM says once a worker has gone
TIMEOUT_MINUTES = 10  # that a worker waits for one that has gone without a word; LightGBM: 120


def require_distributable(model: "LightGBM") -> None:
    """Check whether workers can train as one machine would.

    Raises:
        ValueError: A param is in the way.
    """
    params = model.estimator.get_params()
    for name, value in params.items():
        if name in REFUSED and value and value not in ALLOWED:
            raise ValueError(
                f"params: {name}: {value} {REFUSED[name]}: leave it out, or leave out engine"
            )
    model.__getstate__()  # whose values are plain, so that a model can be saved


def class_weights(
    model: "LightGBM", classes: NDArray[np.int64], counts: NDArray[np.int64]
) -> Floats | None:
    """Return (classes,) the weight of a row of each class; None: rows have none.

    Args:
        model: With the params.
        classes: (classes,) as the params name them.
        counts: (classes,) how many rows of each there are, on all workers together.
    """
    weights = model.estimator.get_params()["class_weight"]
    if weights is None:
        return None
    if weights == "balanced":
        return np.asarray(counts.sum() / (len(counts) * counts), dtype=float)
    return np.array([weights.get(kind, 1.0) for kind in classes.tolist()], dtype=float)


def train(
    model: "LightGBM", client: Any, X: Any, y: Any, sample_weight: Any, categories: list[int]
) -> bytes:
    """Return the file of a model that the workers of a cluster train.

    Args:
        model: With the params, and the classes if it is a classifier.
        client: Of the cluster.
        X: A `dask.array` of (n, columns) numbers; its blocks are on the workers.
        y: Of (n,) values or codes of classes, in the same blocks.
        sample_weight: Of (n,) weights, in the same blocks; None: rows have none.
        categories: The positions of the columns that hold codes.

    Raises:
        UsageError: pandas is not installed.
    """
    import lightgbm

    try:
        import pandas  # type: ignore[import-untyped]  # noqa: F401  # which `fit` asks for
    except ModuleNotFoundError:
        raise UsageError(
            "lightgbm.dask needs pandas, which is not installed: run `uv add --group train pandas`"
        ) from None
    from lightgbm.dask import DaskLGBMRegressor

    logger = logging.getLogger("lightgbm")
    logger.setLevel(logging.ERROR)  # warnings are of params that are not the user's
    lightgbm.register_logger(logger)
    params = model.unfitted().get_params()
    for name in ("class_weight", "n_jobs"):  # in the weights of rows; as many as a worker has
        params.pop(name)
    params.setdefault("time_out", TIMEOUT_MINUTES)
    classes = getattr(model, "classes_", None)
    if classes is not None and len(classes) > 2:
        if params["objective"] not in MULTICLASS:
            params["objective"] = "multiclass"
        params["num_class"] = len(classes)
    elif classes is not None and params["objective"] is None:
        params["objective"] = "binary"
    # A classifier of it would take the classes of a worker's rows for all classes.
    fitted = DaskLGBMRegressor(client=client, **params)
    fitted.fit(X, y, sample_weight=sample_weight, categorical_feature=categories)
    text: str = fitted.booster_.model_to_string()
    return without_machines(text).encode()


def without_machines(text: str) -> str:
    """Return a model's text without the addresses of the machines that it was trained on."""
    for name, value in MACHINES.items():
        text = re.sub(rf"^\[{name}: [^]\n]*\]$", f"[{name}: {value}]", text, flags=re.MULTILINE)
    return text
