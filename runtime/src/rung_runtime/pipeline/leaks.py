"""Leaks: what the model could know of the holdout, or of the target, that it will not know in use.

Each finding is a number that the gate refuses when it is not 0. Equal rows are no leak as such:
where columns are few and coarse, rows of different people are equal, as they will be in use.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import ColumnType, Data, Task

DIGITS = 4  # significant ones, in which values are nearly equal
COARSE = 20  # distinct values, at most, of a column whose combinations are counted as they are
BY_CHANCE = 0.05  # rows equal to it that a row may expect, and still be a copy
LEAST = 0.01  # of the holdout: fewer copies change no metric
ALONE = 0.99  # ROC AUC, or R² of ranks, of one column
RARE, RARE_ALONE = 0.05, 0.5  # below such a share of positives: average precision of one column
CELLS = 20  # values, at least, of a column that may encode the target
EXACT = 0.2  # of its standard deviation, that it may be away from what it encodes
Floats = NDArray[np.float64]


def leaks(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data, y_pred: Floats | None = None
) -> dict[str, int]:
    """Count what training knows of the holdout.

    Args:
        train: (n, …) typed rows.
        holdout: (m, …) typed rows.
        y_pred: (m, classes) probabilities or (m,) values that the model predicts for the holdout.

    Returns:
        `rows` of the holdout that are copies of training rows; of a split by group or time, rows
        that share a `groups` or are not in the `future`; `encodings`, columns that were made of
        the target of all rows, the holdout's included.
    """
    column = data.split.column or ""
    found = {"rows": copies(train, holdout, data, y_pred)}
    if data.split.by == "group":
        shared = holdout[column].is_in(train[column].implode(), nulls_equal=True)
        found["groups"] = int(shared.sum())
    if data.split.by == "time":
        found["future"] = int((holdout[column] <= train[column].max()).sum())
    found["encodings"] = len(encodings(train, holdout, data))
    return found


def copies(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data, y_pred: Floats | None = None
) -> int:
    """Count rows of the holdout that equal a training row beyond what their columns explain.

    Rows with equal keys are the same row. Else a copy has the values of a training row in every
    feature and in the target, to four digits, although so equal a row was not to be expected: by
    the training rows' share of the same combination of coarse columns, times that of each fine
    value. Where the target follows from the features, equal features explain equal targets; so
    many are not counted: as many as the model gets right among the rows that have no equal.

    Returns:
        Their number; 0 if it is below a hundredth of the holdout, which changes no metric.
    """
    if data.keys:
        same = holdout.select(data.keys).join(train.select(data.keys), on=data.keys, how="semi")
        if same.height:
            return same.height
    names = [name for name in data.features if name in train.columns]
    table = pl.concat([train.select(*names, data.target), holdout.select(*names, data.target)])
    table = pl.DataFrame([_rounded(table[name]) for name in table.columns])
    before, after = table.head(train.height), table.tail(holdout.height)
    equal = after.select(names).hash_rows().is_in(before.select(names).hash_rows().implode())
    if not equal.any():
        return 0
    coarse = [name for name in names if before[name].n_unique() <= COARSE]
    expected = np.full(holdout.height, float(train.height))
    if coarse:
        expected *= _share(before.select(coarse), after.select(coarse))
    for name in (name for name in names if name not in coarse):
        # Less the row that it equals, which would explain itself.
        share = _share(before.select(name), after.select(name)) - 1 / train.height
        expected *= np.maximum(share, 0)
    unlikely = equal.to_numpy() & (expected < BY_CHANCE)
    twins = _share(before.select(names), after.select(names))
    explained = _explained(before, after, data, y_pred, ~equal.to_numpy())
    if not unlikely.any():
        return 0
    # Of the training rows that equal a row, the share that have its target as well.
    agreement = float(np.mean(_share(before, after)[unlikely] / twins[unlikely]))
    cells = after.select(names).filter(pl.Series(unlikely)).n_unique()
    if agreement <= explained + 3 * (explained * (1 - explained) / cells) ** 0.5:
        return 0
    beyond = round((agreement - explained) / max(1 - explained, 1e-9) * int(unlikely.sum()))
    return beyond if beyond >= max(3.0, LEAST * holdout.height) else 0


def _rounded(values: pl.Series) -> pl.Series:
    return values.round_sig_figs(DIGITS) if values.dtype.is_float() else values


def _share(before: pl.DataFrame, after: pl.DataFrame) -> Floats:
    """Return, for each row of `after`, the share of rows of `before` that equal it."""
    counts = before.hash_rows().alias("hash").value_counts()
    hashes = after.hash_rows().alias("hash").to_frame()
    shares = hashes.join(counts, on="hash", how="left", maintain_order="left")["count"]
    return (shares.fill_null(0) / before.height).to_numpy()


def _explained(
    before: pl.DataFrame,
    after: pl.DataFrame,
    data: Data,
    y_pred: Floats | None,
    alone: NDArray[np.bool_],
) -> float:
    """Return how often equal features come with an equal target, in rows that are no copies."""
    chance = float(_share(before.select(data.target), after.select(data.target)).mean())
    if y_pred is None or data.task == "regression" or alone.sum() < 30:
        return chance
    classes = np.array(data.classes)
    named = classes[y_pred[alone].argmax(axis=1)]
    right = after[data.target].cast(pl.String).to_numpy()[alone] == named
    return max(chance, float(right.mean()))


def encodings(train: pl.DataFrame, holdout: pl.DataFrame, data: Data) -> list[str]:
    """Name the columns that hold the mean target of a category, the holdout's rows included.

    Rows with one value of such a column are one category. The column is the mean over all rows,
    smoothed or not, to a fifth of its standard deviation, and half as far from it as from the
    mean over training rows alone.
    """
    found = []
    for name in data.features:
        if data.columns[name].type != "number" or name not in train.columns:
            continue
        if any(
            _follows(train[name], train_y, holdout[name], holdout_y)
            for train_y, holdout_y in _indicators(train, holdout, data)
        ):
            found.append(name)
    return found


def _indicators(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data
) -> list[tuple[pl.Series, pl.Series]]:
    pair = train[data.target], holdout[data.target]
    if data.task == "regression":
        return [(pair[0].cast(pl.Float64), pair[1].cast(pl.Float64))]
    texts = [side.cast(pl.String) for side in pair]
    return [
        ((texts[0] == name).cast(pl.Float64), (texts[1] == name).cast(pl.Float64))
        for name in (data.classes[1:2] if data.task == "binary" else data.classes[:10])
    ]


def _follows(x: pl.Series, y: pl.Series, x_held: pl.Series, y_held: pl.Series) -> bool:
    def means(values: pl.Series, target: pl.Series) -> pl.DataFrame:
        frame = pl.DataFrame({"x": values, "y": target}).drop_nulls()
        return frame.group_by("x").agg(pl.col("y").mean(), n=pl.len())

    both = means(x, y).join(means(x_held, y_held), on="x", suffix=" held").sort("x")
    if both.height < CELLS or both.height > 0.5 * len(x):
        return False
    encoded, before, count = (both[name].to_numpy() for name in ("x", "y", "n"))
    held = both["n held"].to_numpy()
    overall = (count * before + held * both["y held"].to_numpy()) / (count + held)
    known = _distance(encoded, before, count)
    whole = _distance(encoded, overall, count + held)
    return whole <= EXACT * float(encoded.std()) and whole <= known / 2


def _distance(encoded: Floats, mean: Floats, count: Floats) -> float:
    """Return how far values are from means that are drawn to the grand mean.

    That is (n · mean + k · grand) / (n + k) with the k that fits best (Micci-Barreca, SIGKDD
    Explorations 3, 2001), or all by one share, as categories with equal means have one value; the
    root of the mean square.
    """
    grand = float(np.average(mean, weights=count))
    away = encoded - grand
    square = float((away**2).sum())
    smoothing = max(0.0, float((count * (mean - encoded) * away).sum()) / square) if square else 0.0
    drawn = (count * mean + smoothing * grand) / (count + smoothing)
    centred = mean - grand
    spread = float((centred**2).sum())
    shared = grand + centred * (float((centred * away).sum()) / spread if spread else 0.0)
    return min(float(((guess - encoded) ** 2).mean() ** 0.5) for guess in (drawn, shared))


def alone(rows: pl.DataFrame, data: Data) -> list[str]:
    """Name the features that predict the target almost alone: leaks, unless known in time."""
    known = rows.filter(rows[data.target].is_not_null())
    columns = {
        name: by_itself(known[name], data.columns[name].type)
        for name in data.features
        if name in known.columns and name != data.time
    }
    return telltales(columns, known[data.target], data.task)


def by_itself(values: pl.Series, kind: ColumnType) -> pl.Series:
    """Return what `telltales` looks at: of a text only whether there is one.

    Nearly every text is different, so that equal ones tell nothing; but a reason for leaving is
    written down for those who left.
    """
    return values.is_not_null() if kind == "text" else values


def telltales(columns: dict[str, pl.Series], target: pl.Series, task: Task) -> list[str]:
    """Name the columns of which each alone predicts the target, on 50,000 rows at most.

    Classes: from the share of each class among the rows with an equal value (of a number: with one
    of 100 equally frequent ranges), of the other half of the rows; the ROC AUC of these shares,
    averaged over classes by frequency, or where positives are rare their average precision.
    Numbers: R² of the target's ranks, from the two neighbours by the column's order.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    # Shuffled, so that equal values do not bring in the order of the file.
    order = np.random.default_rng(0).permutation(len(target))[:50_000]
    found = []
    if task == "regression":
        ranks = target.gather(order).cast(pl.Float64).rank().to_numpy()
        spread = ((ranks - ranks.mean()) ** 2).sum()
        for name, values in columns.items():
            guess = _neighbours(values.gather(order), ranks)
            if spread and 1 - ((ranks - guess) ** 2).sum() / spread > ALONE:
                found.append(name)
        return found
    labels = target.gather(order).cast(pl.String)
    counts = labels.value_counts(sort=True)
    classes = counts.to_series(0).to_list()
    rarest = int((labels == classes[-1]).sum())
    if len(classes) == 2:
        classes = classes[1:]
    rare = task == "binary" and rarest < RARE * len(labels)
    weights = [float((labels == name).sum()) for name in classes]
    for name, values in columns.items():
        bins = _bins(values.gather(order))
        scores = []
        for label in classes:
            y_true = (labels == label).cast(pl.Float64).to_numpy()
            shares = _shares(bins, y_true)
            if not 0 < y_true.sum() < len(y_true):
                continue
            by_rank = roc_auc_score(y_true, shares)
            precise = rare and average_precision_score(y_true, shares) > RARE_ALONE
            scores.append(1.0 if precise else by_rank)
        if scores and np.average(scores, weights=weights[: len(scores)]) > ALONE:
            found.append(name)
    return found


def _bins(values: pl.Series) -> NDArray[np.int64]:
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        if values.n_unique() > 100:
            ranks = values.rank("average")
            values = (ranks * 100 / (len(values) + 1)).floor()
        return values.cast(pl.Float64).fill_null(-1.0).rank("dense").cast(pl.Int64).to_numpy()
    return values.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy()


def _shares(bins: NDArray[np.int64], y_true: Floats) -> Floats:
    """Return, for each row, the share of positives among equal rows of the other half."""
    half = np.arange(len(bins)) % 2
    shares = np.empty(len(bins))
    for side in (0, 1):
        other = half != side
        total = np.bincount(bins[other], minlength=bins.max() + 1)
        hits = np.bincount(bins[other], y_true[other], minlength=bins.max() + 1)
        # One more row that is as all are, so that an empty range says nothing.
        mean = (hits + y_true[other].mean()) / (total + 1)
        shares[~other] = mean[bins[~other]]
    return shares


def _neighbours(values: pl.Series, ranks: Floats) -> Floats:
    """Return, for each row, the mean rank of its neighbours in the order of a column."""
    if values.dtype == pl.String or values.dtype == pl.Boolean:
        places = values.cast(pl.String).fill_null("")
        frame = pl.DataFrame({"value": places, "rank": ranks})
        total = pl.col("rank").sum().over("value") - pl.col("rank")
        count = pl.len().over("value") - 1
        mean = float(ranks.mean())
        others = pl.when(count > 0).then(total / count).otherwise(mean)
        return frame.select(others).to_series().to_numpy()
    dense = values.rank("dense").fill_null(0).to_numpy()
    order = np.argsort(dense, kind="stable")
    sorted_ranks = ranks[order]
    padded = np.concatenate([[sorted_ranks[0]], sorted_ranks, [sorted_ranks[-1]]])
    guess = np.empty(len(ranks))
    guess[order] = (padded[:-2] + padded[2:]) / 2
    return guess
