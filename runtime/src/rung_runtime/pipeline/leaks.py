"""Leaks: what the model could know of the holdout, or of the target, that it will not know in use.

Each count is a number that the gate refuses when it is not 0. Equal rows are not a leak as such:
where columns are few and coarse, rows of different people are equal, as they will be in use.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import ColumnType, Data, Task

Floats = NDArray[np.float64]

SIGNIFICANT_DIGITS = 4  # in which values are nearly equal
MAX_COARSE_VALUES = 20  # of a column whose combinations with others are counted as they are
MAX_EXPECTED_TWINS = 0.05  # equal rows that chance may explain, for a row to be a copy
MIN_COPIED_SHARE = 0.01  # of the holdout: fewer copies change no metric
MIN_COPIES = 3.0
MIN_DISTINCT_ROWS = 30  # without an equal, to measure how often the model is right
PREDICTS_ALONE = 0.99  # ROC AUC, or R² of ranks, of one column
RARE_SHARE = 0.05  # of positives, below which average precision is looked at, too
RARE_PREDICTS_ALONE = 0.5  # average precision of one column
MIN_ENCODED_VALUES = 20  # of a column that may encode the target
MAX_ENCODING_ERROR = 0.2  # of its standard deviation, from what it encodes
MAX_TELLTALE_ROWS = 50_000
RANGES = 100  # of equally frequent numbers


def leaks(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data, y_pred: Floats | None = None
) -> dict[str, int]:
    """Count what training knows of the holdout.

    Args:
        train: (n, …) typed rows.
        holdout: (m, …) typed rows.
        data: Their contract.
        y_pred: (m, classes) probabilities or (m,) values that the model predicts for the holdout.

    Returns:
        `rows` of the holdout that are copies of training rows; of a split by group or time, rows
        that share a `groups` or are not in the `future`; `encodings`, columns that were made from
        the target of all rows, the holdout's included.
    """
    column = data.split.column or ""
    counts = {"rows": copies(train, holdout, data, y_pred)}
    if data.split.by == "group":
        is_shared = holdout[column].is_in(train[column].implode(), nulls_equal=True)
        counts["groups"] = int(is_shared.sum())
    if data.split.by == "time":
        counts["future"] = int((holdout[column] <= train[column].max()).sum())
    counts["encodings"] = len(encodings(train, holdout, data))
    return counts


def copies(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data, y_pred: Floats | None = None
) -> int:
    """Count rows of the holdout that equal a training row beyond what their columns explain.

    Rows with equal keys are the same row. Else a copy has the values of a training row in every
    feature and in the target, to four digits, although so equal a row was not to be expected: by
    the training rows' share of the same combination of coarse columns, times that of each fine
    value. Where the target follows from the features, equal features explain equal targets; as
    many as the model gets right among the rows that have no equal are therefore not counted.

    Returns:
        Their number; 0 if it is below a hundredth of the holdout, which changes no metric.
    """
    if data.keys:
        same = holdout.select(data.keys).join(train.select(data.keys), on=data.keys, how="semi")
        if same.height:
            return same.height
    names = [name for name in data.features if name in train.columns]
    table = pl.concat([train.select(*names, data.target), holdout.select(*names, data.target)])
    table = pl.DataFrame({name: _round(table[name]) for name in table.columns})
    rounded_train = table.head(train.height)
    rounded_holdout = table.tail(holdout.height)
    train_features = rounded_train.select(names)
    holdout_features = rounded_holdout.select(names)
    train_hashes = train_features.hash_rows().implode()
    has_twin = holdout_features.hash_rows().is_in(train_hashes).to_numpy()
    if not has_twin.any():
        return 0
    is_unlikely = has_twin & (
        _expected_twins(train_features, holdout_features) < MAX_EXPECTED_TWINS
    )
    if not is_unlikely.any():
        return 0
    twins = _share(train_features, holdout_features)
    explained = _explained_agreement(rounded_train, rounded_holdout, data, y_pred, ~has_twin)
    # Of the training rows that equal a row, the share that have its target as well.
    equal_targets = _share(rounded_train, rounded_holdout)
    agreement = float(np.mean(equal_targets[is_unlikely] / twins[is_unlikely]))
    cells = holdout_features.filter(pl.Series(is_unlikely)).n_unique()
    if agreement <= explained + 3 * (explained * (1 - explained) / cells) ** 0.5:
        return 0
    excess = (agreement - explained) / max(1 - explained, 1e-9)
    copied = round(excess * int(is_unlikely.sum()))
    return copied if copied >= max(MIN_COPIES, MIN_COPIED_SHARE * holdout.height) else 0


def _round(values: pl.Series) -> pl.Series:
    return values.round_sig_figs(SIGNIFICANT_DIGITS) if values.dtype.is_float() else values


def _expected_twins(train: pl.DataFrame, holdout: pl.DataFrame) -> Floats:
    """Return, for each row of the holdout, how many training rows would equal it by chance."""
    coarse = [name for name in train.columns if train[name].n_unique() <= MAX_COARSE_VALUES]
    expected = np.full(holdout.height, float(train.height))
    if coarse:
        expected *= _share(train.select(coarse), holdout.select(coarse))
    for name in train.columns:
        if name not in coarse:
            # Less the row that it equals, which would explain itself.
            share = _share(train.select(name), holdout.select(name)) - 1 / train.height
            expected *= np.maximum(share, 0)
    return expected


def _share(train: pl.DataFrame, holdout: pl.DataFrame) -> Floats:
    """Return, for each row of the holdout, the share of training rows that equal it."""
    counts = train.hash_rows().alias("hash").value_counts()
    hashes = holdout.hash_rows().alias("hash").to_frame()
    shares = hashes.join(counts, on="hash", how="left", maintain_order="left")["count"]
    return (shares.fill_null(0) / train.height).to_numpy()


def _explained_agreement(
    train: pl.DataFrame,
    holdout: pl.DataFrame,
    data: Data,
    y_pred: Floats | None,
    has_no_twin: NDArray[np.bool_],
) -> float:
    """Return how often equal features come with an equal target, in rows that are not copies."""
    by_chance = float(_share(train.select(data.target), holdout.select(data.target)).mean())
    if y_pred is None or data.task == "regression" or has_no_twin.sum() < MIN_DISTINCT_ROWS:
        return by_chance
    classes = np.array(data.classes)
    predicted = classes[y_pred[has_no_twin].argmax(axis=1)]
    is_right = holdout[data.target].cast(pl.String).to_numpy()[has_no_twin] == predicted
    return max(by_chance, float(is_right.mean()))


def encodings(train: pl.DataFrame, holdout: pl.DataFrame, data: Data) -> list[str]:
    """Return the columns that hold the mean target of a category, the holdout's rows included.

    Rows with one value of such a column are one category. The column is the mean over all rows,
    smoothed or not, to a fifth of its standard deviation, and half as far from it as from the
    mean over training rows alone.
    """
    encoding = []
    for name in data.features:
        if data.columns[name].type != "number" or name not in train.columns:
            continue
        if any(
            _follows(train[name], train_y, holdout[name], holdout_y)
            for train_y, holdout_y in _indicators(train, holdout, data)
        ):
            encoding.append(name)
    return encoding


def _indicators(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data
) -> list[tuple[pl.Series, pl.Series]]:
    """Return the targets of both sides as numbers: themselves, or whether each is a class."""
    train_y = train[data.target]
    holdout_y = holdout[data.target]
    if data.task == "regression":
        return [(train_y.cast(pl.Float64), holdout_y.cast(pl.Float64))]
    train_classes = train_y.cast(pl.String)
    holdout_classes = holdout_y.cast(pl.String)
    return [
        ((train_classes == name).cast(pl.Float64), (holdout_classes == name).cast(pl.Float64))
        for name in (data.classes[1:2] if data.task == "binary" else data.classes[:10])
    ]


def _follows(
    train_x: pl.Series, train_y: pl.Series, holdout_x: pl.Series, holdout_y: pl.Series
) -> bool:
    """Check whether a column follows the mean of a target over all rows, not over training rows."""

    def means(values: pl.Series, target: pl.Series) -> pl.DataFrame:
        frame = pl.DataFrame({"x": values, "y": target}).drop_nulls()
        return frame.group_by("x").agg(pl.col("y").mean(), n=pl.len())

    table = means(train_x, train_y).join(means(holdout_x, holdout_y), on="x", suffix=" holdout")
    table = table.sort("x")
    if table.height < MIN_ENCODED_VALUES or table.height > 0.5 * len(train_x):
        return False
    encoded = table["x"].to_numpy()
    train_means = table["y"].to_numpy()
    train_rows = table["n"].to_numpy()
    holdout_rows = table["n holdout"].to_numpy()
    holdout_sums = holdout_rows * table["y holdout"].to_numpy()
    all_rows = train_rows + holdout_rows
    means_of_all = (train_rows * train_means + holdout_sums) / all_rows
    from_train = _distance(encoded, train_means, train_rows)
    from_all = _distance(encoded, means_of_all, all_rows)
    return from_all <= MAX_ENCODING_ERROR * float(encoded.std()) and from_all <= from_train / 2


def _distance(encoded: Floats, mean: Floats, count: Floats) -> float:
    """Return how far values are from means that are drawn to the grand mean.

    That is (n · mean + k · grand) / (n + k) with the k that fits best (Micci-Barreca, SIGKDD
    Explorations 3, 2001), or all by the same share, as categories with equal means have one value;
    the root of the mean square.
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


def features_that_predict_alone(rows: pl.DataFrame, data: Data) -> list[str]:
    """Return the features that predict the target almost alone: leaks, unless known in time."""
    known = rows.filter(rows[data.target].is_not_null())
    columns = {
        name: visible_values(known[name], data.columns[name].type)
        for name in data.features
        if name in known.columns and name != data.time
    }
    return predict_alone(columns, known[data.target], data.task)


def visible_values(values: pl.Series, kind: ColumnType) -> pl.Series:
    """Return what `predict_alone` looks at: of a text only whether there is one.

    Nearly every text is different, so that equal ones prove nothing; but a reason for leaving is
    written down for those who left.
    """
    return values.is_not_null() if kind == "text" else values


def predict_alone(columns: dict[str, pl.Series], target: pl.Series, task: Task) -> list[str]:
    """Return the columns each of which predicts the target alone, on 50,000 rows at most.

    Classes: from the share of each class among the rows with an equal value (of a number: with one
    of 100 equally frequent ranges), of the other half of the rows; the ROC AUC of these shares,
    averaged over classes by frequency, or where positives are rare their average precision.
    Numbers: R² of the target's ranks, from the two neighbours by the column's order.
    """
    # Shuffled, so that equal values do not bring in the order of the file.
    order = np.random.default_rng(0).permutation(len(target))[:MAX_TELLTALE_ROWS]
    shuffled_columns = {name: values.gather(order) for name, values in columns.items()}
    if task == "regression":
        return _predict_ranks_alone(shuffled_columns, target.gather(order))
    return _predict_classes_alone(shuffled_columns, target.gather(order).cast(pl.String), task)


def _predict_ranks_alone(columns: dict[str, pl.Series], target: pl.Series) -> list[str]:
    ranks = target.cast(pl.Float64).rank().to_numpy()
    spread = ((ranks - ranks.mean()) ** 2).sum()
    if not spread:
        return []
    telltales = []
    for name, values in columns.items():
        guess = _neighbours(values, ranks)
        if 1 - ((ranks - guess) ** 2).sum() / spread > PREDICTS_ALONE:
            telltales.append(name)
    return telltales


def _predict_classes_alone(
    columns: dict[str, pl.Series], labels: pl.Series, task: Task
) -> list[str]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    counts = labels.value_counts(sort=True)
    classes = counts.to_series(0).to_list()
    rarest_rows = int((labels == classes[-1]).sum())
    if len(classes) == 2:
        classes = classes[1:]
    is_rare = task == "binary" and rarest_rows < RARE_SHARE * len(labels)
    weights = [float((labels == name).sum()) for name in classes]
    telltales = []
    for name, values in columns.items():
        bins = _bins(values)
        scores = []
        for label in classes:
            y_true = (labels == label).cast(pl.Float64).to_numpy()
            shares = _shares(bins, y_true)
            if not 0 < y_true.sum() < len(y_true):
                continue
            score = roc_auc_score(y_true, shares)
            if is_rare and average_precision_score(y_true, shares) > RARE_PREDICTS_ALONE:
                score = 1.0
            scores.append(score)
        if scores and np.average(scores, weights=weights[: len(scores)]) > PREDICTS_ALONE:
            telltales.append(name)
    return telltales


def _bins(values: pl.Series) -> NDArray[np.int64]:
    """Return a number for each row, equal for equal values or for numbers in the same range."""
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        if values.n_unique() > RANGES:
            ranks = values.rank("average")
            values = (ranks * RANGES / (len(values) + 1)).floor()
        return values.cast(pl.Float64).fill_null(-1.0).rank("dense").cast(pl.Int64).to_numpy()
    return values.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64).to_numpy()


def _shares(bins: NDArray[np.int64], y_true: Floats) -> Floats:
    """Return, for each row, the share of positives among equal rows of the other half."""
    half = np.arange(len(bins)) % 2
    shares = np.empty(len(bins))
    for side in (0, 1):
        other = half != side
        rows = np.bincount(bins[other], minlength=bins.max() + 1)
        positives = np.bincount(bins[other], y_true[other], minlength=bins.max() + 1)
        # One more row that is as all are, so that an empty range says nothing.
        mean = (positives + y_true[other].mean()) / (rows + 1)
        shares[~other] = mean[bins[~other]]
    return shares


def _neighbours(values: pl.Series, ranks: Floats) -> Floats:
    """Return, for each row, the mean rank of its neighbours in the order of a column."""
    if values.dtype == pl.String or values.dtype == pl.Boolean:
        words = values.cast(pl.String).fill_null("")
        frame = pl.DataFrame({"value": words, "rank": ranks})
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
