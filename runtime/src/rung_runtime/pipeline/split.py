"""Split: validated rows → train and holdout. Refuses a split that leaves a side without rows.

The side of a row never depends on its target: it follows from time, from the row's group, or from
which row it is (see `identity`). Rows of a group, and rows of an instant, stay together.
"""

from operator import itemgetter

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import RefusedError, UsageError
from ..artifacts import (
    DOCUMENTS,
    HOLDOUT,
    IDENTITY,
    ROWS,
    SIDES,
    TRAIN,
    read,
    step_record,
    write_rows,
)
from ..config import DATA, Config, Data
from ..records import SplitDocument, ValidationDocument
from .identity import Numbers, identifying, identities, shuffled

SLACK = 0.015  # the holdout's share may be off by as much, so that rows in place keep their side
TRIES = 20  # salts, until each class is on both sides
Side = NDArray[np.bool_]


def step(config: Config) -> str:
    with step_record("split", ROWS, DOCUMENTS["validate"], IDENTITY, DATA) as record:
        if read(ValidationDocument).verdict != "passed":
            raise RefusedError("the rows were refused: see artifacts/validation.json")
        rows = pl.read_parquet(ROWS)
        identity = pl.read_parquet(IDENTITY).to_series()
        held = sides(rows, config.data, identity)
        train = rows.filter(~held)
        holdout = rows.filter(held)
        write_rows(train, TRAIN)
        write_rows(holdout, HOLDOUT)
        write_rows(pl.DataFrame({"identity": identity, "held": held}), SIDES)
        record.document = SplitDocument(
            by=config.data.split.by,
            train=train.height,
            holdout=holdout.height,
            without_target=held.null_count(),
        )
    how = {"stratified": "at random"}.get(config.data.split.by, f"by {config.data.split.by}")
    return f"{train.height:,} rows to train on, {holdout.height:,} held out {how}"


def split(
    rows: pl.DataFrame, data: Data, identity: pl.Series | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide the rows that have a target into train and holdout, each in its original order.

    Args:
        rows: (n, …) typed rows.
        identity: (n,) of these rows, as the source has them; without, that of the typed rows.

    Raises:
        UsageError: A side would be empty, or the holdout would lack all classes but one.
    """
    held = sides(rows, data, identity)
    return rows.filter(~held), rows.filter(held)


def sides(rows: pl.DataFrame, data: Data, identity: pl.Series | None = None) -> pl.Series:
    """Return (n,) whether a row is held out, null for one without a target. As `split`."""
    known = rows[data.target].is_not_null()
    if identity is None:
        identity = identities(rows, identifying(data))
    labelled = rows.filter(known)
    numbers = identity.filter(known)
    if data.split.by == "time":
        held = _newest(labelled[data.split.column or ""], data.split.holdout)
    elif data.split.by == "group":
        held = _groups(labelled[data.split.column or ""], data.split.holdout, data.split.seed)
    else:
        held = _random(labelled[data.target], numbers, data)
    where = f"{DATA}: split: by {data.split.by}"
    if held.all() or not held.any():
        raise UsageError(f"{where} leaves one side without rows; choose another")
    if data.task != "regression":
        classes = labelled[data.target].filter(pl.Series(held)).unique()
        if len(classes) < 2:
            column = f" {data.split.column!r}" if data.split.column else ""
            raise UsageError(
                f"{where}{column} leaves only rows of {str(classes[0])!r} in the holdout, which"
                " can judge no model; choose another split"
            )
    codes = np.full(rows.height, -1, dtype=np.int8)
    codes[known.to_numpy()] = held
    side = pl.Series("held", codes)
    return side.to_frame().select(pl.when(side >= 0).then(side == 1).alias("held")).to_series()


def _newest(when: pl.Series, share: float) -> Side:
    """Hold out the newest: of the instants to begin at, the one that comes nearest to the share."""
    counts = when.value_counts().drop_nulls().sort(when.name)
    newer = counts["count"].reverse().cum_sum().reverse().to_numpy() / len(when)
    begin = counts.to_series(0)[int(np.abs(newer - share).argmin())]
    if len(counts) > 1 and begin == counts.to_series(0)[0]:
        begin = counts.to_series(0)[1]
    side: Side = (when >= begin).fill_null(False).to_numpy()
    return side


def _groups(groups: pl.Series, share: float, seed: int) -> Side:
    """Hold out whole groups, drawn by a hash of their name, up to the share."""
    counts = groups.alias("group").cast(pl.String).value_counts()
    order = shuffled(identities(counts, ["group"]), _salt(seed, 0))
    counts = counts.with_columns(order=pl.Series(order)).sort("order")
    wanted = share * len(groups)
    held = 0
    names: list[str | None] = []
    for name, count, _ in counts.iter_rows():
        if held >= wanted - SLACK * len(groups):
            break
        # A large group would take the holdout far beyond its share; a later one may fit.
        if held + count <= wanted + max(SLACK * len(groups), wanted / 4):
            names.append(name)
            held += count
    if not names:  # all are large
        names.append(counts.sort("count", maintain_order=True)["group"][0])
    text = groups.cast(pl.String)
    return text.is_in(names, nulls_equal=True).to_numpy()


def _random(target: pl.Series, identity: pl.Series, data: Data) -> Side:
    """Hold out rows by a hash of their identity; of some salts the first that parts no class."""
    counts = target.alias("class").value_counts()
    repeated: list[object] = []
    if data.task != "regression":
        repeated = counts.filter(counts["count"] > 1)["class"].to_list()
    tried: list[tuple[int, Side]] = []
    for attempt in range(TRIES):
        held = _lowest(shuffled(identity, _salt(data.split.seed, attempt)), data.split.holdout)
        sides = [target.filter(pl.Series(side)).unique() for side in (held, ~held)]
        missing = sum(name not in side for side in map(set, sides) for name in repeated)
        tried.append((missing, held))
        if not missing:
            break
    return min(tried, key=itemgetter(0))[1]


def _lowest(numbers: Numbers, share: float) -> Side:
    """Hold out what hashes to the lowest share, or the bound of ± SLACK that is nearest to it.

    A bound on the hash, not on the count, keeps each row's side while others come.
    """
    n = len(numbers)
    below = int((numbers < np.uint64(share * 2**64)).sum())
    least = int(np.ceil(n * (share - SLACK)))
    most = int(n * (share + SLACK))
    count = int(np.clip(below, max(1, least), max(1, most)))
    held = np.zeros(n, dtype=bool)
    held[np.argsort(numbers, kind="stable")[:count]] = True
    return held


def _salt(seed: int, attempt: int) -> bytes:
    return seed.to_bytes(8, "big", signed=True) + attempt.to_bytes(8, "big")
