"""Labels: what really happened, which is known later than the prediction."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import polars as pl

from .. import UsageError
from ..config import DATA, Data
from ..config import read as read_config
from ..config.delivery import load_delivery
from ..pipeline.ingest import read as read_file
from ..pipeline.ingest import typed as typed_rows
from .layout import TIME, write_file
from .reader import read

MAX_NAMED = 3  # rows without a prediction that the message names


def add_labels(file: Path, data: Data | None = None, log: str | None = None) -> str:
    """Add labels to a log, from a file with `request_id` (and `row`), or the contract's keys.

    Args:
        file: CSV or Parquet, with the target.
        data: The contract; None: that of `config/`.
        log: The log; None: that of `config/`.

    Returns:
        A sentence that says how many match no prediction so far.

    Raises:
        UsageError: The file cannot be read, or lacks a column, or a label is not one of the
            contract.
    """
    data = data or read_config(DATA, Data)
    log = load_delivery().service.log if log is None else log
    if not log:
        raise UsageError("config/delivery.yaml, service.log: there is no log to add labels to")
    rows = read_file(file, data.separator)
    has_ids = "request_id" in rows.columns
    keys = ["request_id"] if has_ids else data.keys
    _require_columns(file, rows, [*(keys or ["request_id"]), data.target])
    y_true = _read_target(file, rows, data)
    labels = _request_rows(file, rows) if has_ids else _contract_keys(rows, keys)
    by = labels.columns
    now = datetime.now(UTC).replace(tzinfo=None)
    labels = labels.with_columns(y_true.alias("truth"), pl.lit(now).cast(TIME).alias("told"))
    if has_ids:
        labels = _with_own_ids(file, labels, log)
    logged = pl.concat([labels.lazy().select(by).clear(), read(log)], how="diagonal")
    unmatched = labels.join(logged.select(by).collect(), on=by, how="anti")
    kind = "ids" if has_ids else "keys"
    try:
        write_file(log, f"labels/{kind}_{now:%Y%m%d%H%M%S%f}_{uuid4().hex[:8]}.parquet", labels)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{log} cannot be written: {str(error).splitlines()[0]}") from None
    message = f"{len(labels):,} labels added to {log}"
    if unmatched.is_empty():
        return message
    examples = ", ".join(map(str, unmatched.select(by).rows()[:MAX_NAMED]))
    return f"{message}, {len(unmatched):,} of them without a logged prediction so far: {examples}"


def _require_columns(file: Path, rows: pl.DataFrame, required: list[str]) -> None:
    missing = sorted(set(required) - set(rows.columns))
    if missing:
        listed = ", ".join(missing)
        raise UsageError(f"{file} lacks {listed}: give request_id or all keys, and the target")


def _read_target(file: Path, rows: pl.DataFrame, data: Data) -> pl.Series:
    """Return the labels: names of classes, or numbers.

    Raises:
        UsageError: One is missing, or the contract does not allow it.
    """
    y_true = typed_rows(rows.select(data.target), data)[data.target].cast(pl.String)
    if data.task == "regression":
        y_true = y_true.cast(pl.Float64, strict=False)
    is_valid = y_true.is_in(data.classes) if data.classes else y_true.is_not_null()
    invalid = rows[data.target].filter(~is_valid.fill_null(False))
    if len(invalid):
        raise UsageError(f"{file}: {invalid[0]!r} is not a {data.target} of the contract")
    return y_true


def _request_rows(file: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the request ID and the row of each label; without `row`, it is the first."""
    row = rows["row"] if "row" in rows.columns else pl.repeat(0, len(rows), eager=True)
    labels = rows.select(pl.col("request_id").cast(pl.String))
    labels = labels.with_columns(row.cast(pl.Int32, strict=False).alias("row"))
    if labels["row"].has_nulls():
        raise UsageError(f"{file}: a row is not a whole number: they count from 0 in a request")
    return labels


def _with_own_ids(file: Path, labels: pl.DataFrame, log: str) -> pl.DataFrame:
    """Replace IDs that callers gave their requests with those of the service.

    Raises:
        UsageError: Several requests have an ID: a label is that of one row.
    """
    by = ["request_id", "row"]
    logged = read(log)
    wanted = labels.lazy().select(by)
    if "client_request_id" not in logged.collect_schema().names():
        return labels
    own = logged.join(wanted, on=by, how="semi").group_by(by).len()
    columns = {"client_request_id": "request_id", "request_id": "own_id"}
    theirs = logged.select("client_request_id", "request_id", "row").rename(columns)
    theirs = theirs.join(wanted, on=by, how="semi").join(own, on=by, how="anti")
    matches = theirs.group_by(by).agg(pl.len(), pl.first("own_id")).collect()
    several = pl.concat([own.collect(), matches.select(*by, "len")]).filter(pl.col("len") > 1)
    if len(several):
        name, _, count = several.row(0)
        raise UsageError(
            f"{file}: {count:,} logged rows have request_id {name!r}: a label is that of one row;"
            " name it by the request_id of the service's answer"
        )
    labels = labels.join(matches.drop("len"), on=by, how="left", maintain_order="left")
    labels = labels.with_columns(pl.coalesce("own_id", "request_id").alias("request_id"))
    return labels.drop("own_id")


def _contract_keys(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Return the values of the contract's keys, as the log has them."""
    return rows.select(pl.col(key).cast(pl.String).alias(f"k:{key}") for key in keys)
