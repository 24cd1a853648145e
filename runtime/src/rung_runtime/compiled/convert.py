"""From fitted estimators to graphs.

Fitted trees are read from private attributes of scikit-learn, here and nowhere else. What cannot
be read any more, or is not known here, cannot be compiled; what is read wrongly fails the check of
parity (`parity.py`). Either way the estimator itself serves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeCV,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)
from sklearn.utils.validation import check_array

from .columns import Columns
from .graph import Graph, Trees
from .libraries import NotReadable, add_library_model, library_of
from .model import COLUMNS

BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
FORESTS = (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
SINGLE_TREES = (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)
LINEAR_REGRESSIONS = (ElasticNet, Lasso, LinearRegression, Ridge, RidgeCV)
VOTING = (VotingClassifier, VotingRegressor)
NO_CHILD = -1  # in a tree of scikit-learn
MAX_SPLITS = 500_000  # of a forest: a file of some 30 MB


class CannotCompile(Exception):
    """There is no graph for an estimator, for the reason given."""


class _Rows:
    """The matrix that a graph takes, with what its columns are."""

    def __init__(self, name: str, columns: Columns) -> None:
        self.name = name
        self.columns = columns

    def positions(self, chosen: Any) -> list[int]:
        """Return the positions of columns that a transformer names, masks or counts."""
        names = self.columns.names
        if isinstance(chosen, slice):
            return list(range(len(names)))[chosen]
        values = np.asarray(chosen)
        if values.dtype == bool:
            return np.flatnonzero(values).tolist()
        return [names.index(value) if isinstance(value, str) else int(value) for value in chosen]

    def code_counts(self) -> dict[int, int]:
        """Return how many categories a column has, by position, of those that have any."""
        categories = self.columns.categories
        return {
            position: len(categories[name])
            for position, name in enumerate(self.columns.names)
            if name in categories
        }

    def is_category(self, position: int) -> bool:
        """Check whether a column has categories."""
        return self.columns.names[position] in self.columns.categories


def compile_estimator(fitted: Any, frame: pl.DataFrame, classes: int) -> bytes:
    """Return the graph of an estimator, as a file has it.

    Args:
        fitted: The estimator.
        frame: What it was fitted on, or some rows of it.
        classes: How many classes the contract has; 0 for a regression.

    Raises:
        CannotCompile: It is of a type, or has a part, that there is no graph for.
    """
    try:
        columns = Columns.of_frame(frame)
        graph = Graph()
        output = _predictions(fitted, graph, _Rows("rows", columns))
        if classes and list(fitted.classes_) != list(range(classes)):
            output = _spread(graph, output, list(fitted.classes_), classes)
        return graph.to_bytes(
            output, len(columns.names), classes or 1, {COLUMNS: columns.to_json()}
        )
    except CannotCompile:
        raise
    except NotReadable as error:
        raise CannotCompile(str(error)) from None
    except Exception as error:  # of what scikit-learn has changed, or of an estimator of yours
        message = str(error).partition("\n")[0]
        raise CannotCompile(f"{type(error).__name__}: {message}") from error


def _spread(graph: Graph, output: str, known: Sequence[int], classes: int) -> str:
    """Return probabilities of all classes: 0 of those that training lacked."""
    places = np.zeros((len(known), classes))
    places[np.arange(len(known)), known] = 1.0
    return graph.add("MatMul", output, graph.constant(places))


def _predictions(fitted: Any, graph: Graph, rows: _Rows) -> str:
    """Add an estimator. Returns probabilities, (n, classes it knows), or values, (n, 1)."""
    if type(fitted) in VOTING:
        return _voting(fitted, graph, rows)
    if library_of(fitted):
        return add_library_model(fitted, graph, rows.name, rows.code_counts())
    if type(fitted) in BOOSTED:
        return _boosted(fitted, graph, rows)
    if type(fitted) is Pipeline:
        matrix: str | None = None
        for _, step in fitted.steps[:-1]:
            matrix = _transform(step, graph, rows, matrix)
        return _model(fitted.steps[-1][1], graph, rows, matrix)
    return _model(fitted, graph, rows, None)


def _model(fitted: Any, graph: Graph, rows: _Rows, matrix: str | None) -> str:
    """Add an estimator of a matrix: what a pipeline computed, or the rows themselves."""
    if hasattr(fitted, "add_to_graph"):  # of an adapter
        return str(fitted.add_to_graph(graph, rows.name if matrix is None else matrix))
    if type(fitted) in BOOSTED and matrix is None:
        return _boosted(fitted, graph, rows)
    if library_of(fitted):
        if matrix is None:
            return add_library_model(fitted, graph, rows.name, rows.code_counts())
        return add_library_model(fitted, graph, matrix)
    convert = _MODELS.get(type(fitted))
    if convert is None:
        raise CannotCompile(f"{type(fitted).__name__} has no compiled form")
    if matrix is None:
        if rows.columns.categories:
            raise CannotCompile(f"{type(fitted).__name__} of categories has no compiled form")
        matrix = rows.name
    return convert(fitted, graph, matrix)


def _voting(fitted: Any, graph: Graph, rows: _Rows) -> str:
    if getattr(fitted, "voting", "soft") != "soft":
        raise CannotCompile("a vote of classes has no compiled form")
    parts = [_predictions(part, graph, rows) for part in fitted.estimators_]
    weights = fitted._weights_not_none or [1.0] * len(parts)
    return graph.mean(parts, weights)


def _boosted(fitted: Any, graph: Graph, rows: _Rows) -> str:
    matrix = rows.name
    if fitted._preprocessor is not None:  # it has categories, and puts them first
        matrix = _column_transformer(fitted._preprocessor, graph, rows)
    trees = Trees(fitted.n_trees_per_iteration_)
    for iteration in fitted._predictors:
        for output, predictor in enumerate(iteration):
            _add_boosted_tree(trees, predictor, output)
    baseline = np.ravel(fitted._baseline_prediction)
    raw = graph.add("Add", trees.add_to(graph, matrix), graph.constant(baseline))
    if isinstance(fitted, HistGradientBoostingClassifier):
        return graph.probabilities(raw, trees.outputs)
    link = type(fitted._loss.link).__name__
    if link == "IdentityLink":
        return raw
    if link == "LogLink":
        return graph.add("Exp", raw)
    raise CannotCompile(f"a loss with {link} has no compiled form")


def _add_boosted_tree(trees: Trees, predictor: Any, output: int) -> None:
    nodes = predictor.nodes
    if nodes[0]["is_leaf"]:
        trees.constant[output] += nodes[0]["value"]
        return
    first = trees.begin()
    splits = np.flatnonzero(nodes["is_leaf"] == 0)
    index_of = {int(position): first + index for index, position in enumerate(splits)}
    for position in splits:
        node = nodes[position]
        missing_is_true = bool(node["missing_go_to_left"])
        if node["is_categorical"]:
            codes = _codes_of_bitset(predictor.raw_left_cat_bitsets[node["bitset_idx"]])
            split = trees.split_categories(
                int(node["feature_idx"]), codes, missing_is_true=missing_is_true
            )
        else:
            split = trees.split(
                int(node["feature_idx"]),
                float(node["num_threshold"]),
                missing_is_true=missing_is_true,
            )
        for if_true, child in ((True, int(node["left"])), (False, int(node["right"]))):
            if nodes[child]["is_leaf"]:
                value = float(nodes[child]["value"])
                trees.connect_leaf(split, if_true=if_true, output=output, value=value)
            else:
                trees.connect(split, if_true=if_true, child=index_of[child])


def _codes_of_bitset(words: NDArray[np.uint32]) -> list[int]:
    """Return the codes in a set of 256, which is stored as eight words of 32 bits."""
    return [code for code in range(256) if words[code // 32] >> np.uint32(code % 32) & 1]


def _forest(fitted: Any, graph: Graph, matrix: str) -> str:
    members = [fitted] if type(fitted) in SINGLE_TREES else fitted.estimators_
    outputs = len(fitted.classes_) if hasattr(fitted, "classes_") else 1
    if members[0].tree_.n_outputs != 1:
        raise CannotCompile("several targets have no compiled form")
    splits = outputs * sum(member.tree_.node_count // 2 for member in members)
    if splits > MAX_SPLITS:
        raise CannotCompile(f"its trees have {splits:,} splits, and the limit is {MAX_SPLITS:,}")
    trees = Trees(outputs)
    for member in members:
        _add_tree(trees, member.tree_, len(members))
    # Its trees compare numbers in single precision with thresholds in double precision.
    single = graph.add("Cast", matrix, to=TensorProto.FLOAT)
    double = graph.add("Cast", single, to=TensorProto.DOUBLE)
    return trees.add_to(graph, double)


def _add_tree(trees: Trees, tree: Any, members: int) -> None:
    values = tree.value[:, 0, :] / members
    if tree.children_left[0] == NO_CHILD:
        trees.constant += values[0]
        return
    # A leaf of ONNX has one output, so that each output needs a tree of its own.
    for output in range(trees.outputs):
        first = trees.begin()
        splits = np.flatnonzero(tree.children_left != NO_CHILD)
        index_of = {int(position): first + index for index, position in enumerate(splits)}
        missing = tree.missing_go_to_left
        for position in splits:
            split = trees.split(
                int(tree.feature[position]),
                float(tree.threshold[position]),
                missing_is_true=bool(missing[position]),
            )
            children = (
                (True, int(tree.children_left[position])),
                (False, int(tree.children_right[position])),
            )
            for if_true, child in children:
                if tree.children_left[child] == NO_CHILD:
                    value = float(values[child, output])
                    trees.connect_leaf(split, if_true=if_true, output=output, value=value)
                else:
                    trees.connect(split, if_true=if_true, child=index_of[child])


def _logistic(fitted: Any, graph: Graph, matrix: str) -> str:
    raw = graph.linear(matrix, fitted.coef_.T, fitted.intercept_)
    return graph.probabilities(raw, len(fitted.coef_))


def _linear(fitted: Any, graph: Graph, matrix: str) -> str:
    weights = np.atleast_2d(fitted.coef_)
    if len(weights) != 1:
        raise CannotCompile("several targets have no compiled form")
    return graph.linear(matrix, weights.T, fitted.intercept_)


_MODELS: dict[type, Callable[[Any, Graph, str], str]] = {
    LogisticRegression: _logistic,
    **dict.fromkeys(LINEAR_REGRESSIONS, _linear),
    **dict.fromkeys(FORESTS, _forest),
    **dict.fromkeys(SINGLE_TREES, _forest),
}


def _transform(step: Any, graph: Graph, rows: _Rows, matrix: str | None) -> str:
    """Add a transformer of a matrix, or of the rows themselves."""
    if type(step) is ColumnTransformer and matrix is None:
        return _column_transformer(step, graph, rows)
    if matrix is None:
        if rows.columns.categories:
            raise CannotCompile(f"{type(step).__name__} of categories has no compiled form")
        matrix = rows.name
    return _transform_numbers(step, graph, matrix)


def _column_transformer(fitted: ColumnTransformer, graph: Graph, rows: _Rows) -> str:
    blocks = []
    for _, transformer, chosen in fitted.transformers_:
        positions = rows.positions(chosen)
        if not positions or (isinstance(transformer, str) and transformer == "drop"):
            continue
        if any(rows.is_category(position) for position in positions):
            blocks += _encode(transformer, graph, rows, positions)
        else:
            selected = graph.select(rows.name, positions)
            blocks.append(_transform_numbers(transformer, graph, selected))
    if not blocks:
        raise CannotCompile("a transformer without columns has no compiled form")
    return graph.concat(blocks)


def _encode(encoder: Any, graph: Graph, rows: _Rows, positions: list[int]) -> list[str]:
    """Add an encoder of categories: of each, what it returns is looked up in a table."""
    if type(encoder) not in (OneHotEncoder, OrdinalEncoder):
        raise CannotCompile(f"{type(encoder).__name__} of categories has no compiled form")
    names = [rows.columns.names[position] for position in positions]
    if not all(name in rows.columns.categories for name in names):
        raise CannotCompile("categories among numbers have no compiled form")
    categories = {name: rows.columns.categories[name] for name in names}
    longest = max(map(len, categories.values()))
    frame = pl.DataFrame(
        {
            name: pl.Series(known + [None] * (longest + 1 - len(known)), dtype=pl.Enum(known))
            for name, known in categories.items()
        }
    )
    encoded = encoder.transform(frame)
    encoded = encoded.toarray() if hasattr(encoded, "toarray") else np.asarray(encoded)
    ends = np.cumsum(_widths(encoder, len(names)))
    if ends[-1] != encoded.shape[1]:
        raise CannotCompile("an encoder of categories has more columns than it says")
    blocks = []
    for position, name, end, width in zip(
        positions, names, ends, _widths(encoder, len(names)), strict=True
    ):
        if width:
            table = encoded[[*range(len(categories[name])), longest], end - width : end]
            blocks.append(graph.look_up(graph.select(rows.name, [position]), table))
    return blocks


def _widths(encoder: Any, columns: int) -> list[int]:
    """Return how many columns an encoder makes of each."""
    if type(encoder) is OrdinalEncoder:
        return [1] * columns
    infrequent = getattr(encoder, "infrequent_categories_", [None] * columns)
    dropped = encoder.drop_idx_
    widths = []
    for index, categories in enumerate(encoder.categories_):
        rare = infrequent[index]
        width = len(categories) if rare is None else len(categories) - len(rare) + 1
        has_dropped = dropped is not None and dropped[index] is not None
        widths.append(width - has_dropped)
    return widths


def _transform_numbers(step: Any, graph: Graph, matrix: str) -> str:
    """Add a transformer of a matrix of numbers."""
    if isinstance(step, str) and step == "passthrough":
        return matrix
    if type(step) is Pipeline:
        for _, part in step.steps:
            matrix = _transform_numbers(part, graph, matrix)
        return matrix
    if type(step) is SimpleImputer and not step.add_indicator:
        if not _is_nan(step.missing_values):  # which the rows of the holdout may lack
            raise CannotCompile(
                f"an imputer of {step.missing_values!r} and not of gaps has no compiled form"
            )
        statistics = np.asarray(step.statistics_, dtype=np.float64)
        if np.isnan(statistics).any() and not step.keep_empty_features:
            raise CannotCompile("an imputer that leaves columns out has no compiled form")
        return graph.replace_missing(matrix, np.nan_to_num(statistics))
    if type(step) is StandardScaler:
        if step.with_mean:
            matrix = graph.add("Sub", matrix, graph.constant(step.mean_))
        if step.with_std:
            matrix = graph.add("Div", matrix, graph.constant(step.scale_))
        return matrix
    if isinstance(step, SelectorMixin):
        return graph.select(matrix, np.flatnonzero(step.get_support()).tolist())
    if type(step) is TfidfTransformer:
        return _tfidf(step, graph, matrix)
    if type(step) is FunctionTransformer and getattr(step.func, "func", None) is check_array:
        return matrix  # how boosted trees take their numbers
    raise CannotCompile(f"{type(step).__name__} has no compiled form")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _tfidf(step: TfidfTransformer, graph: Graph, matrix: str) -> str:
    if step.norm not in (None, "l2"):
        raise CannotCompile(f"TF-IDF with norm {step.norm} has no compiled form")
    if step.sublinear_tf:
        unit = graph.constant([1.0])
        is_there = graph.add("Greater", matrix, graph.constant([0.0]))
        logs = graph.add("Log", graph.add("Where", is_there, matrix, unit))
        matrix = graph.add("Where", is_there, graph.add("Add", logs, unit), graph.constant([0.0]))
    if step.use_idf:
        matrix = graph.add("Mul", matrix, graph.constant(step.idf_))
    if step.norm == "l2":
        axes = graph.constant([1], np.int64)
        squares = graph.add("ReduceSum", graph.add("Mul", matrix, matrix), axes, keepdims=1)
        length = graph.add("Sqrt", squares)
        is_empty = graph.add("Equal", length, graph.constant([0.0]))
        length = graph.add("Where", is_empty, graph.constant([1.0]), length)
        matrix = graph.add("Div", matrix, length)
    return matrix
