"""Attacks on the model that was packaged: how easily an answer flips, and what it gives away.

They are those of IBM's Adversarial Robustness Toolbox (ART), which no project requires: `ml check`
says how to run with it. They decide on nothing; a person reads what they found.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError, progress
from ..artifacts import (
    HOLDOUT,
    MODEL,
    PACKAGE,
    TRAIN,
    digest,
    now,
    read,
    verified_digest,
    write,
)
from ..compiled.model import CompiledModel
from ..config import Config
from ..model_package import load_estimator, load_package, predict
from ..problem import features, trusted
from ..records import (
    Interval,
    MetricsDocument,
    MovedColumn,
    PackageDocument,
    PrivacyDocument,
    RobustnessDocument,
)
from .formatting import ends, short
from .ingest import inputs, labels
from .metrics import Floats
from .resampling import Resampler

# ART's modules, imported by name, as type checkers of a project know nothing of them.
CLASSIFIERS = "art.estimators.classification"
EVASION = "art.attacks.evasion"
MEMBERSHIP = "art.attacks.inference.membership_inference"
COMMAND = "uv run --with 'adversarial-robustness-toolbox>=1.20' ml check"
MIN_VALUES = 3  # of an input that is a number: one with fewer is an answer, such as yes or no
TOP_COLUMNS = 3
# Of HopSkipJump, for each row: steps, and predictions in each.
STEPS = 30
PREDICTIONS = 1_000
MAX_MEMBERS = 2_000  # rows of either side of the split for membership inference
MIN_MEMBERS = 40


def check_robustness(config: Config, rows: int) -> str:
    """Write `artifacts/robustness.json`: by how little rows of the holdout must change.

    Args:
        config: Of the project.
        rows: How many to attack.

    Returns:
        What was found, in words.

    Raises:
        UsageError: ART is missing; the package has no compiled model, or predicts no classes; or no
            input is a number.
    """
    require_art("robustness")
    if config.data.task == "regression":
        raise UsageError("a regression has no answer that could flip: there is nothing to attack")
    started = now()
    digests = {str(path): verified_digest(path) for path in (TRAIN, HOLDOUT)}
    package = read(PackageDocument)
    model = load_package(PACKAGE, package.package_digest)
    if model.compiled is None:
        raise UsageError("the package has no compiled model to attack: its report says why")

    def matrix(table: pl.DataFrame) -> Floats:
        assert model.compiled is not None
        return model.compiled.columns.matrix(model.features(inputs(table, model.data)))

    holdout = pl.read_parquet(HOLDOUT)
    chosen = np.random.default_rng(0).permutation(holdout.height)[:rows]
    with progress.stages():
        progress.begin("robustness")
        document = robustness(
            model.compiled,
            matrix(pl.read_parquet(TRAIN)),
            matrix(holdout[np.sort(chosen)]),
            package.package_digest,
        )
        progress.report(f"{document.flipped} of {document.rows} rows flipped")
    data_digest = package.data_digest
    write(document, started=started, data_digest=data_digest, inputs=digests)
    return robustness_text(document)


def robustness(
    model: CompiledModel, known: Floats, rows: Floats, package_digest: str
) -> RobustnessDocument:
    """Attack rows one by one, each moved in its numbers alone (HopSkipJump).

    Chen, Jordan and Wainwright, HopSkipJumpAttack: a query-efficient decision-based attack, IEEE
    Symposium on Security and Privacy, 2020. It asks for answers only, as a caller can.

    Args:
        model: That is attacked.
        known: (m, inputs) of training rows, whose spread is the unit, and whose range is kept.
        rows: (n, inputs) to attack.
        package_digest: Of the package that the model is of.

    Raises:
        UsageError: No input is a number that varies.
    """
    movable = [
        position
        for position, name in enumerate(model.columns.names)
        if name not in model.columns.categories
        and len(np.unique(_defined(known[:, position]))) >= MIN_VALUES
    ]
    if not movable:
        raise UsageError("no input of the model is a number that varies: there is nothing to move")
    distances = []
    most = Counter[str]()
    for number, row in enumerate(rows):
        progress.report(f"row {number + 1} of {len(rows)}")
        moved = _shortest_move(model, known, row, movable)
        if moved is None:
            continue
        distances.append(float(np.linalg.norm(moved)))
        present = [position for position in movable if np.isfinite(row[position])]
        most[model.columns.names[present[int(np.abs(moved).argmax())]]] += 1
    percentiles = np.percentile(distances, [10, 50, 90]).tolist() if distances else [0.0] * 3
    return RobustnessDocument(
        package_digest=package_digest,
        attack="HopSkipJump",
        rows=len(rows),
        flipped=len(distances),
        inputs_moved=[model.columns.names[position] for position in movable],
        distances=dict(zip(("10 %", "50 %", "90 %"), percentiles, strict=True)),
        moved_most=[
            MovedColumn(column=name, rows=count) for name, count in most.most_common(TOP_COLUMNS)
        ],
    )


def _shortest_move(
    model: CompiledModel, known: Floats, row: Floats, movable: list[int]
) -> Floats | None:
    """Return how far each number of a row moved to another answer, in standard deviations.

    Numbers that are missing stay so. None: no other answer was found.
    """
    present = [position for position in movable if np.isfinite(row[position])]
    if not present:
        return None
    values = known[:, present]
    middle = np.nanmean(values, axis=0)
    spread = np.nanstd(values, axis=0)
    low = np.nanmin(values, axis=0)
    high = np.nanmax(values, axis=0)

    def answers(standardized: NDArray[Any]) -> Floats:
        table = np.tile(row, (len(standardized), 1))
        table[:, present] = np.clip(standardized * spread + middle, low, high)
        return model.predict_matrix(table)

    start = ((row[present] - middle) / spread)[None]
    bounds = (((low - middle) / spread).min(), ((high - middle) / spread).max())
    (end,) = _hop_skip_jump(answers, start, bounds)
    before, after = answers(np.stack([start[0], end])).argmax(axis=1)
    if before == after:
        return None
    reached = np.clip(end * spread + middle, low, high)
    return np.asarray((reached - row[present]) / spread)


def _hop_skip_jump(
    answers: Callable[[NDArray[Any]], Floats], start: Floats, bounds: tuple[float, float]
) -> Floats:
    """Return rows near those of (n, numbers) that are answered otherwise, if ART finds any."""
    with _quiet_art():
        np.random.seed(0)  # ART draws from the global generator
        classifier = import_module(CLASSIFIERS).BlackBoxClassifier(
            answers, (start.shape[1],), answers(start).shape[1], clip_values=bounds
        )
        attack = import_module(EVASION).HopSkipJump(
            classifier,
            max_iter=STEPS,
            max_eval=PREDICTIONS,
            init_eval=PREDICTIONS // 4,
            verbose=False,
        )
        moved: Floats = attack.generate(start.astype(np.float32)).astype(np.float64)
    return moved


def robustness_text(document: RobustnessDocument) -> str:
    """Return what an attack found, in words."""
    rows = f"{document.flipped} of {document.rows} rows"
    moved = f"{len(document.inputs_moved)} numbers"
    if not document.flipped:
        return (
            f"HopSkipJump found another answer for none of {document.rows} rows by moving {moved}"
        )
    near, middle, far = (short(distance) for distance in document.distances.values())
    most = ", ".join(f"{part.column} (in {part.rows})" for part in document.moved_most)
    return "\n  ".join(
        [
            f"HopSkipJump found another answer for {rows} by moving {moved} of each:",
            f"half of them within {middle} standard deviations (a tenth within {near}, nine in ten "
            f"within {far})",
            f"moved most: {most}",
            "categories and missing values stayed as they were, and each number moved by itself "
            "within the range of the training rows; a stronger attack may find shorter ways",
        ]
    )


def check_privacy(config: Config) -> str:
    """Write `artifacts/privacy.json`: how well answers tell which rows the model was trained on.

    Raises:
        UsageError: ART is missing, the model predicts no classes, or there are too few rows.
    """
    require_art("privacy")
    if config.data.task == "regression":
        raise UsageError("ART's black-box attack takes classes: there is none on a regression")
    started = now()
    digests = {str(path): verified_digest(path) for path in (MODEL, TRAIN, HOLDOUT)}
    fitted = load_estimator(MODEL, trusted())
    train, holdout = (_sample(pl.read_parquet(path)) for path in (TRAIN, HOLDOUT))
    size = min(train.height, holdout.height)
    if size < MIN_MEMBERS:
        raise UsageError(f"{size} rows on a side of the split are too few for this attack")
    with progress.stages():
        progress.begin("privacy")
        rows = pl.concat([train[:size], holdout[:size]])
        y_pred = predict(fitted, rows, config.data, features)
        document = membership(y_pred, labels(rows, config.data), size, config, digest(MODEL))
        progress.report(f"ROC AUC {short(document.roc_auc.value)}")
    data_digest = read(MetricsDocument).data_digest
    write(document, started=started, data_digest=data_digest, inputs=digests)
    return privacy_text(document, config.data.split.by == "time")


def membership(
    y_pred: Floats, y_true: NDArray[np.int64], members: int, config: Config, model_digest: str
) -> PrivacyDocument:
    """Let an attack learn from half of the rows which were trained on, and judge it on the rest.

    It sees a row's probabilities and its true class (Shokri, Stronati, Song and Shmatikov,
    Membership inference attacks against machine learning models, 2017).

    Args:
        y_pred: (2 · members, classes) of rows that were trained on, then of as many that were not.
        y_true: (2 · members,) class indices.
        members: How many were.
        config: With the gate's confidence and resamples.
        model_digest: Of the model.
    """
    index = np.arange(2 * members, dtype=np.float32)[:, None]  # a row stands for its number
    half = members // 2
    seen = slice(0, half)
    unseen = slice(members, members + half)
    with _quiet_art():
        np.random.seed(0)  # ART draws from the global generator
        classifier = import_module(CLASSIFIERS).BlackBoxClassifier(
            lambda numbers: y_pred[np.asarray(numbers)[:, 0].astype(int)], (1,), y_pred.shape[1]
        )
        attack = import_module(MEMBERSHIP).MembershipInferenceBlackBox(
            classifier, attack_model_type="gb"
        )
        attack.fit(index[seen], y_true[seen], index[unseen], y_true[unseen])
        rest = np.r_[half:members, members + half : 2 * members]
        guess = attack.infer(index[rest], y_true[rest], probabilities=True).reshape(-1)
    is_member = (rest < members).astype(np.int64)
    resampler = Resampler(is_member, "roc_auc", 2, config.gate)
    area = resampler.score("roc_auc", np.column_stack([1 - guess, guess]))
    guessed = guess > 0.5
    return PrivacyDocument(
        model_digest=model_digest,
        attack="MembershipInferenceBlackBox, gradient boosting",
        rows=len(rest),
        roc_auc=Interval(**area.interval(config.gate.confidence)),
        advantage=float(guessed[is_member == 1].mean() - guessed[is_member == 0].mean()),
    )


def privacy_text(document: PrivacyDocument, is_split_by_time: bool) -> str:
    """Return what an attack found, in words."""
    area = document.roc_auc
    lines = [
        f"from a row's probabilities and its class, an attack tells rows of the training from "
        f"others with a ROC AUC of {short(area.value)} ({ends(area)}); 0.5 is a guess",
        f"its guesses are right {short(100 * (0.5 + document.advantage / 2))} % of the time, of "
        f"{document.rows:,} rows, half of which were trained on",
    ]
    if is_split_by_time:
        lines.append(
            "the split is by time, so this may also tell old rows from new ones: it is an upper "
            "bound"
        )
    return "\n  ".join(lines)


def require_art(name: str) -> None:
    """Check that ART can be imported.

    Raises:
        UsageError: It is not installed.
    """
    try:
        with _quiet_art():
            import_module(CLASSIFIERS)
    except ImportError:
        raise UsageError(
            f"this check needs ART, which no project requires: run `{COMMAND} {name}`"
        ) from None


@contextmanager
def _quiet_art() -> Iterator[None]:
    """Leave out what ART says of frameworks that are not installed."""
    logging.getLogger("art").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sample(rows: pl.DataFrame) -> pl.DataFrame:
    chosen = np.random.default_rng(0).permutation(rows.height)[:MAX_MEMBERS]
    return rows[chosen]


def _defined(values: Floats) -> Floats:
    return values[np.isfinite(values)]
