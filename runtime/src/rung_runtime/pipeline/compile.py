"""Compile: the model of a package → `model.onnx` beside it, if the graph predicts the same."""

from pathlib import Path

import polars as pl

from .. import UsageError, compiled
from ..artifacts import MODEL
from ..config import Config
from ..exceptions import describe
from ..model_package import estimate, load_estimator
from ..problem import features, trusted
from ..records import Compiled
from .ingest import inputs

FAILURES = (Exception, pl.exceptions.PanicException)  # of problem/, or of a library
MAX_ROWS = 20_000  # of the holdout that are compared


def compile_package(folder: Path, holdout: pl.DataFrame, config: Config) -> Compiled:
    """Write the compiled model of a package, unless it is not exactly the estimator's equal.

    Args:
        folder: The package, with its estimator.
        holdout: (n, …) typed rows that are compared, besides rows at the edges of the contract.
        config: With the contract.

    Returns:
        How it compares, or why there is none.
    """
    from ..compiled.convert import CannotCompile, compile_estimator
    from ..compiled.libraries import is_single_precision

    data = config.data
    fitted = load_estimator(folder / MODEL.name, trusted())
    rows = inputs(holdout.sample(min(holdout.height, MAX_ROWS), seed=0), data)
    try:
        frame = features(pl.concat([rows, compiled.edge_rows(rows, data)]))
    except FAILURES as error:
        return _without("problem/features.py", error)
    try:
        content = compile_estimator(fitted, frame, len(data.classes))
        graph = compiled.CompiledModel(content)
    except CannotCompile as error:
        return Compiled(is_compiled=False, reason=str(error))
    try:
        parity = compiled.check_parity(
            graph,
            lambda some: estimate(fitted, some, data).reshape(len(some), -1),
            frame,
            single_precision=is_single_precision(fitted),
        )
    except FAILURES as error:
        return _without("it", error)
    if not parity.holds:
        return Compiled(
            is_compiled=False,
            reason=f"the graph differs from the estimator by {parity.largest_difference:.1e}",
        )
    (folder / compiled.FILE).write_bytes(content)
    return Compiled(
        is_compiled=True, largest_difference=parity.largest_difference, rows=parity.rows
    )


def _without(what: str, error: BaseException) -> Compiled:
    """Return that nothing can be compared, as the rows of the holdout alone would not tell.

    Args:
        what: What failed at rows at the edges of the contract.
        error: How.
    """
    reason = str(error) if isinstance(error, UsageError) else describe(error)
    return Compiled(
        is_compiled=False,
        reason=f"{what} fails at a row that the contract allows, such as one with a gap: {reason}",
    )
