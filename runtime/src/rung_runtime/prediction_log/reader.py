"""Reading a log: predictions, with or without their labels, and what was refused."""

from datetime import datetime
from pathlib import Path

import polars as pl

from .layout import (
    ANSWER_COLUMNS,
    REFUSED_COLUMNS,
    TIME,
    is_remote,
    model_name,
    scan_files,
    short_digest,
)

LABEL_COLUMNS = ("truth", "told")


def read(log: str, since: datetime | None = None, model_digest: str | None = None) -> pl.LazyFrame:
    """Return the predictions of a log.

    Args:
        log: A folder or an object store's URL, as in `config/delivery.yaml`.
        since: UTC without a zone; earlier predictions are left out.
        model_digest: The model whose predictions are wanted; None: all.

    Returns:
        The columns of the files, those of all models together; without files, the columns that
        every prediction has.

    Raises:
        UsageError: The object store does not answer.
    """
    models = _logged_models(log)
    if model_digest is not None:
        models = {name for name in models if name.endswith(f"-{short_digest(model_digest)}")}
    # All files of a model have the same columns, but for those that became private in between.
    frames = []
    for name in sorted(models):
        frame = scan_files(log, f"date=*/*_{name}_*.parquet", since, ANSWER_COLUMNS)
        if frame is not None:
            frames.append(frame)
    if not frames:
        frames = [pl.LazyFrame(schema=ANSWER_COLUMNS | {"prediction": pl.String()})]
    rows = pl.concat(frames, how="diagonal_relaxed")
    if since is not None:
        rows = rows.filter(pl.col("time") >= since)
    if model_digest is not None:
        rows = rows.filter(pl.col("model_digest") == model_digest)
    return rows


def _logged_models(log: str) -> set[str]:
    """Return the names of all models that a log has files of."""
    if not is_remote(log):
        return {path.stem.split("_")[1] for path in Path(log).glob("date=*/*_*_*.parquet")}
    rows = scan_files(log, "date=*/*.parquet")
    if rows is None:
        return set()
    models = rows.select("version", "model_digest").unique().collect()
    return {model_name(version, digest) for version, digest in models.rows()}


def joined(
    log: str,
    since: datetime | None = None,
    model_digest: str | None = None,
    *,
    arrival: bool = False,
) -> pl.LazyFrame:
    """Return what `read` returns, and the label of each row.

    Args:
        arrival: Add when the label was added, as `told`.

    Returns:
        The label is `truth`: the last one that was added, null if there is none.
    """
    rows = read(log, since, model_digest)
    names = set(rows.collect_schema().names())
    rows = rows.with_columns(pl.lit(None).alias("truth"), pl.lit(None).cast(TIME).alias("told"))
    for kind in ("ids", "keys"):
        labels = scan_files(log, f"labels/{kind}_*.parquet")
        if labels is None:
            continue
        by = [name for name in labels.collect_schema().names() if name not in LABEL_COLUMNS]
        if names.issuperset(by):
            rows = _join_labels(rows, labels, by)
    return rows if arrival else rows.drop("told")


def _join_labels(rows: pl.LazyFrame, labels: pl.LazyFrame, by: list[str]) -> pl.LazyFrame:
    """Replace each row's label with a later one."""
    last = labels.sort("told").unique(by, keep="last", maintain_order=True)
    rows = rows.join(last, on=by, how="left", maintain_order="left")
    is_later = pl.col("told").is_null() | (pl.col("told_right") > pl.col("told"))
    rows = rows.with_columns(
        pl.when(is_later).then(f"{name}_right").otherwise(name).alias(name)
        for name in LABEL_COLUMNS
    )
    return rows.drop(f"{name}_right" for name in LABEL_COLUMNS)


def refused(log: str) -> pl.LazyFrame:
    """Return how many `rows` were refused, by `time`, `version`, `column` and `rule`."""
    rows = scan_files(log, "refused/date=*/*.parquet")
    if rows is None:
        return pl.LazyFrame(schema=REFUSED_COLUMNS)
    return rows
