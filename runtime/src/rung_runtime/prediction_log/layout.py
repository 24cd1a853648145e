"""The layout of a log: which files it has, and the columns of each.

    date=2026-01-31/TIME_VERSION-MODEL_RANDOM.parquet   answered rows
    refused/date=…/TIME_all_RANDOM.parquet              refused rows, counted
    labels/ids_TIME_RANDOM.parquet                      labels by request ID and row
    labels/keys_TIME_RANDOM.parquet                     labels by the contract's keys

A log is a folder, or the URL of an object store, whose login is in its usual variables.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from stat import S_IMODE
from typing import Any

import polars as pl

from .. import UsageError
from ..artifacts import write_rows

CHECK_PREFIX = "ml-check."  # of the ID of a request that is answered, and not logged
TIME = pl.Datetime("us")  # UTC, without a zone
# The columns of every answered row. Others follow: `prediction`, `p:CLASS` (a probability),
# `x:FEATURE` and `k:KEY`.
ANSWER_COLUMNS: dict[str, pl.DataType] = {
    "request_id": pl.String(),
    "client_request_id": pl.String(),  # what the caller calls it; null if nothing
    "row": pl.Int32(),
    "time": TIME,
    "version": pl.String(),
    "model_digest": pl.String(),
}
REFUSED_COLUMNS: dict[str, pl.DataType] = {
    "time": TIME,
    "version": pl.String(),
    "column": pl.String(),
    "rule": pl.String(),
    "rows": pl.Int64(),
}


def is_remote(log: str) -> bool:
    """Return whether a log is in an object store."""
    return "://" in log


def remote_path(log: str, name: str) -> str:
    """Return the URL of a file of a log in an object store."""
    return f"{log.rstrip('/')}/{name}"


def write_file(log: str, name: str, frame: pl.DataFrame) -> None:
    """Write a file of a log, whole or not at all."""
    if is_remote(log):
        frame.write_parquet(remote_path(log, name))
    else:
        path = Path(log) / name
        _make_folder(path.parent)
        write_rows(frame, path)


def _make_folder(folder: Path) -> None:
    """Make a folder as the one above it is: who may write to a log may write to each of its days.

    A volume outlives the user that a service ran as, and a umask would shut the next one out.
    """
    if folder.exists():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # another service was first
        folder.mkdir()
        with suppress(PermissionError):  # of a file system that has no permissions
            folder.chmod(S_IMODE(folder.parent.stat().st_mode))


def scan_files(
    log: str,
    pattern: str,
    since: datetime | None = None,
    columns: Mapping[str, pl.DataType] | None = None,
) -> pl.LazyFrame | None:
    """Return the rows of files of one kind; None if there are no files.

    Args:
        pattern: The pattern of their names, as `Path.glob` understands it.
        since: Leave out files of earlier days. An object store has all of them read.
        columns: Columns that a file may lack, as those of an earlier release do: null there.

    Raises:
        UsageError: The log cannot be read.
    """
    if is_remote(log):
        files = [remote_path(log, pattern)]
    else:
        first_day = f"date={since:%F}" if since else ""
        paths = [path for path in Path(log).glob(pattern) if path.parent.name >= first_day]
        files = sorted(str(path) for path in paths)
    if not files:
        return None
    scan = partial(
        pl.scan_parquet,
        files,
        glob=is_remote(log),
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
    )
    rows = scan()
    try:
        schema = dict(rows.collect_schema())  # of the first file
    except (pl.exceptions.PolarsError, OSError) as error:
        if "expanded paths were empty" in str(error):
            return None
        raise UsageError(f"{log} cannot be read: {str(error).splitlines()[0]}") from None
    full = schema | {name: kind for name, kind in (columns or {}).items() if name not in schema}
    return rows if full == schema else scan(schema=full)


def model_name(version: str, model_digest: str) -> str:
    """Return what the names of a model's files have in them."""
    return f"{version}-{short_digest(model_digest)}"


def short_digest(digest: str) -> str:
    """Return the first eight characters of a digest."""
    return digest.removeprefix("sha256:")[:8]


def json_text(value: Any) -> str | None:
    """Return a JSON value as a CSV file would have it, and always as text that can be written."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    # Half of a surrogate pair becomes U+FFFD.
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
