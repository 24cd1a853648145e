"""Split: validated rows → train and holdout. Refuses a split that leaves a side without rows.

Equal rows, rows of a group and rows of an instant are never parted. The same rows are split the
same way; in a split by hash a row nearly always keeps its side when others come.
"""

from hashlib import blake2b

import polars as pl

from .. import BadInput, Refused
from ..config import DATA, Config, Data
from ..documents import DOCUMENTS, HOLDOUT, ROWS, TRAIN, document, read, write_rows


def step(config: Config) -> str:
    with document("split", ROWS, DOCUMENTS["validate"], DATA) as said:
        if read("validate")["verdict"] != "passed":
            raise Refused("the rows were refused: see artifacts/validation.json")
        rows = pl.read_parquet(ROWS)
        parts = split(rows, config.data)
        for part, path in zip(parts, (TRAIN, HOLDOUT), strict=True):
            write_rows(part, path)
        train, holdout = (part.height for part in parts)
        said |= {"by": config.data.split.by, "train": train, "holdout": holdout}
        said["without_target"] = rows.height - train - holdout
    how = {"stratified": "at random, stratified"}.get(config.data.split.by, f"by {said['by']}")
    return f"{train:,} rows to train on, {holdout:,} held out {how}"


def split(rows: pl.DataFrame, data: Data) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the rows that have a target into train and holdout, each in the order of before.

    Raises:
        BadInput: A side would be empty.
    """
    rows, how = rows.filter(rows[data.target].is_not_null()), data.split
    part = rows[data.target if how.column is None else how.column].alias("of")
    if how.by == "time":
        held = part >= part.sort().slice(int(rows.height * (1 - how.holdout))).first()
    elif how.by == "group":
        groups = part.value_counts()
        groups = groups.with_columns(hash=_hash(groups.select("of"), how.seed)).sort("hash")
        before = groups["count"].cum_sum() - groups["count"]
        chosen = groups.filter(before < how.holdout * rows.height)["of"]
        held = part.is_in(chosen.implode(), nulls_equal=True)
    else:
        # A regression is stratified by tenths of its target. The last hash that is held out
        # decides, so that equal rows, which share a hash, stay together.
        tenths = part.rank("min") * 10 // (rows.height + 1)
        strata = (tenths if data.task == "regression" else part).to_frame()
        count = (pl.len() * how.holdout).round().clip(1).cast(pl.Int64)
        last = pl.col("hash").sort().gather(count - 1).first().over("of")
        hashed = strata.with_columns(hash=_hash(rows, how.seed))
        held = hashed.select(pl.col("hash") <= last).to_series()
    train, holdout = rows.filter(~held), rows.filter(held)
    if train.is_empty() or holdout.is_empty():
        raise BadInput(f"{DATA}: split: by {how.by} leaves one side without rows; choose another")
    return train, holdout


def _hash(rows: pl.DataFrame, seed: int) -> pl.Series:
    """A number for each row, by its values and the seed alone, the same in every Polars version."""
    text = pl.concat_str(pl.all().cast(pl.String).fill_null("\0"), separator="\x1f")
    salt = seed.to_bytes(8, "big", signed=True)
    lines = rows.select(text).to_series()
    hashed = (blake2b(line.encode(), digest_size=7, salt=salt) for line in lines)
    return pl.Series([int.from_bytes(found.digest(), "big") for found in hashed], dtype=pl.Int64)
