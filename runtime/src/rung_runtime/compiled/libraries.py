"""From the models of LightGBM, XGBoost and CatBoost to trees of a graph.

They are read from what each library writes itself, and no library is imported here. An adapter of a
model format (`model_format`) has the library's own model under `model_`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from onnx import TensorProto

from .graph import Graph, Trees

EXPONENTIAL = ("poisson", "gamma", "tweedie")
LIGHTGBM_VALUES = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
XGBOOST_VALUES = ("squarederror", "absoluteerror", "pseudohubererror", "squaredlogerror")

CATBOOST_GAP = -1  # the category of what is missing


class NotReadable(Exception):
    """A model has a part that cannot be read, for the reason given."""


class Split(NamedTuple):
    """A node of a tree: which rows go to its first child."""

    feature: int
    threshold: float  # at most which a number goes there
    codes: Sequence[int] | None  # instead: the codes of a category that do
    missing_is_true: bool
    children: tuple["Split | float", "Split | float"]


Node = Split | float


def library_of(fitted: Any) -> str:
    """Return the library of an estimator; "" if it is none of these."""
    library = getattr(fitted, "library", None) or type(fitted).__module__.partition(".")[0]
    return library if library in _READERS else ""


def is_single_precision(fitted: Any) -> bool:
    """Check whether an estimator, or a part of it, adds up numbers in single precision."""
    parts = [part for _, part in getattr(fitted, "steps", [])]
    parts += getattr(fitted, "estimators_", [])
    is_single = library_of(fitted) == "xgboost" or getattr(fitted, "is_single_precision", False)
    return bool(is_single) or any(map(is_single_precision, parts))


def add_library_model(
    fitted: Any, graph: Graph, matrix: str, codes: Mapping[int, int] | None = None
) -> str:
    """Add a model. Returns probabilities, (n, classes), or values, (n, 1).

    Args:
        fitted: An estimator whose `library_of` is not empty.
        matrix: (n, columns) numbers; categories as their place in their list.
        codes: How many categories the columns have, by position, that have any.

    Raises:
        NotReadable: It has a part that there is no graph for.
    """
    return _READERS[library_of(fitted)](fitted, graph, matrix, codes or {})


def _lightgbm(fitted: Any, graph: Graph, matrix: str, _: Mapping[int, int]) -> str:
    model = getattr(fitted, "model_", None) or fitted.booster_
    content = model.dump_model()
    trees = Trees(content["num_tree_per_iteration"])
    for number, tree in enumerate(content["tree_info"]):
        _add(trees, _lightgbm_node(tree["tree_structure"]), number % trees.outputs)
    raw = trees.add_to(graph, matrix)
    if content["average_output"]:
        iterations = len(content["tree_info"]) / trees.outputs
        raw = graph.add("Div", raw, graph.constant([iterations]))
    name, *options = content["objective"].split()
    if name == "multiclass":
        return graph.probabilities(raw, trees.outputs)
    if name in ("binary", "cross_entropy", "multiclassova"):
        slopes = [float(option.partition(":")[2]) for option in options if "sigmoid:" in option]
        raw = graph.add("Mul", raw, graph.constant(slopes or [1.0]))
        if name == "multiclassova":
            return graph.add("Sigmoid", raw)
        return (
            graph.probabilities(raw, 1)
            if hasattr(fitted, "classes_")
            else graph.add("Sigmoid", raw)
        )
    if name in EXPONENTIAL:
        return graph.add("Exp", raw)
    if name in LIGHTGBM_VALUES and not options:
        return raw
    raise NotReadable(f"objective {content['objective']!r} of LightGBM has no compiled form")


def _lightgbm_node(node: dict[str, Any]) -> Node:
    if "leaf_coeff" in node:
        raise NotReadable("linear trees of LightGBM have no compiled form")
    if "leaf_value" in node:
        return float(node["leaf_value"])
    children = (_lightgbm_node(node["left_child"]), _lightgbm_node(node["right_child"]))
    if node["decision_type"] == "==":
        codes = [int(code) for code in node["threshold"].split("||")]
        return Split(node["split_feature"], 0.0, codes, False, children)
    threshold = float(node["threshold"])
    if node["missing_type"] == "Zero":
        raise NotReadable("zero_as_missing of LightGBM has no compiled form")
    # Without gaps in training, one counts as 0.
    missing_is_true = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
    return Split(node["split_feature"], threshold, None, missing_is_true, children)


def _xgboost(fitted: Any, graph: Graph, matrix: str, _: Mapping[int, int]) -> str:
    model = getattr(fitted, "model_", None) or fitted.get_booster()
    params = getattr(fitted, "estimator", fitted).get_params()
    if not np.isnan(params["missing"]):
        raise NotReadable(f"XGBoost with missing={params['missing']} has no compiled form")
    learner = json.loads(bytes(model.save_raw("json")))["learner"]
    booster = learner["gradient_booster"]
    for kind in (params["booster"], booster["name"]):  # 3.4 calls its dart gbtree, too
        if kind not in (None, "gbtree"):
            raise NotReadable(f"{kind} of XGBoost has no compiled form")
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    trees = Trees(outputs)
    for tree, output in zip(booster["model"]["trees"], booster["model"]["tree_info"], strict=True):
        _add(trees, _xgboost_node(tree, _xgboost_codes(tree), 0), output)
    base = np.ravel(json.loads(learner["learner_model_param"]["base_score"])).astype(np.float32)
    kind, _, name = learner["objective"]["name"].partition(":")
    raw = trees.add_to(graph, _in_single_precision(graph, matrix))

    def shifted(margin: Any) -> str:
        return graph.add("Add", raw, graph.constant(margin))

    base = base.astype(np.float64)
    if kind == "multi":
        return graph.probabilities(shifted(base), outputs)
    if name == "logistic":
        log_odds = shifted(np.log(base / (1 - base)))
        is_classifier = hasattr(fitted, "classes_")
        return graph.probabilities(log_odds, 1) if is_classifier else graph.add("Sigmoid", log_odds)
    if name in EXPONENTIAL:
        return graph.add("Exp", shifted(np.log(base)))
    if name in XGBOOST_VALUES:
        return shifted(base)
    raise NotReadable(f"objective {kind}:{name} of XGBoost has no compiled form")


def _xgboost_codes(tree: dict[str, Any]) -> dict[int, list[int]]:
    """Return, by the node of a split by a category, the codes that go to its second child."""
    segments = zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    )
    return {node: tree["categories"][start : start + size] for node, start, size in segments}


def _xgboost_node(tree: dict[str, Any], codes: dict[int, list[int]], node: int) -> Node:
    if tree["tree_param"]["size_leaf_vector"] not in ("0", "1"):
        raise NotReadable("several targets have no compiled form")
    condition = np.float32(tree["split_conditions"][node])
    if tree["left_children"][node] < 0:
        return float(condition)
    left = _xgboost_node(tree, codes, tree["left_children"][node])
    right = _xgboost_node(tree, codes, tree["right_children"][node])
    feature = tree["split_indices"][node]
    goes_left = bool(tree["default_left"][node])
    if node in codes:
        return Split(feature, 0.0, codes[node], not goes_left, (right, left))
    # It goes left below the condition: at most at the number before it.
    threshold = float(np.nextafter(condition, np.float32(-np.inf)))
    return Split(feature, threshold, None, goes_left, (left, right))


def _catboost(fitted: Any, graph: Graph, matrix: str, codes: Mapping[int, int]) -> str:
    model = getattr(fitted, "model_", None) or fitted
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        content = json.loads(path.read_text("utf-8"))
    if "oblivious_trees" not in content:
        raise NotReadable("trees of CatBoost that are not symmetric have no compiled form")
    scale, biases = content["scale_and_bias"]
    trees = Trees(len(biases))
    reader = _CatBoostReader(model, content["features_info"], codes)
    for number, tree in enumerate(content["oblivious_trees"]):
        splits = [
            reader.read(split, number, level) for level, split in enumerate(tree["splits"] or [])
        ]
        for output in range(trees.outputs):
            leaves = tree["leaf_values"][output :: trees.outputs]
            _add(trees, _catboost_node(splits, leaves), output)
    raw = trees.add_to(graph, _in_single_precision(graph, matrix))
    raw = graph.add("Mul", raw, graph.constant([float(scale)]))
    raw = graph.add("Add", raw, graph.constant(biases))
    if hasattr(fitted, "predict_proba"):
        return graph.probabilities(raw, trees.outputs)
    loss = str(content["model_info"]["params"]["loss_function"]["type"]).lower()
    return graph.add("Exp", raw) if loss in EXPONENTIAL else raw


class _CatBoostReader:
    """Reads the splits of CatBoost.

    It names a category by a hash, or by a statistic of training. Which categories a split is true
    for, the model itself is asked: each goes through all trees once.
    """

    def __init__(self, model: Any, info: dict[str, Any], codes: Mapping[int, int]) -> None:
        self._numbers = {item["feature_index"]: item for item in info.get("float_features", [])}
        categories = info.get("categorical_features", [])
        self._places = {item["feature_index"]: item["flat_feature_index"] for item in categories}
        self._leaves = {
            place: model.calc_leaf_indexes(_probe(place, codes, width=_width(info)))
            for place in self._places.values()
        }
        # All borders and categories that splits may be about are numbered, statistics last.
        numbers = self._numbers.values()
        first = sum(len(item["borders"]) for item in numbers)
        first += sum(len(item.get("values", [])) for item in categories)
        statistics = [item for item in info.get("ctrs", []) for _ in item["borders"]]
        self._statistics = dict(enumerate(statistics, first))

    def read(self, split: dict[str, Any], tree: int, level: int) -> Split:
        """Return a split without its children; the first one is for what it is false for."""
        if split["split_type"] == "FloatFeature":
            number = self._numbers[split["float_feature_index"]]
            border = float(np.float32(split["border"]))
            is_below = number["nan_value_treatment"] != "AsTrue"
            return Split(number["flat_feature_index"], border, None, is_below, (0.0, 0.0))
        place = self._places[self._category(split)]
        is_true = self._leaves[place][:, tree] >> level & 1 == 1
        gap_is_false = not is_true[-1]
        codes = np.flatnonzero(~is_true[:-1]).tolist()
        return Split(place, 0.0, codes or [CATBOOST_GAP], gap_is_false, (0.0, 0.0))

    def _category(self, split: dict[str, Any]) -> int:
        if split["split_type"] == "OneHotFeature":
            return int(split["cat_feature_index"])
        elements = self._statistics[split["split_index"]]["elements"]
        if len(elements) != 1 or "cat_feature_index" not in elements[0]:
            raise NotReadable(
                "CatBoost's statistics of several columns together have no compiled form: "
                "max_ctr_complexity=1 does without"
            )
        return int(elements[0]["cat_feature_index"])


def _width(info: dict[str, Any]) -> int:
    features = [*info.get("float_features", []), *info.get("categorical_features", [])]
    return 1 + max(int(item["flat_feature_index"]) for item in features)


def _probe(place: int, codes: Mapping[int, int], width: int) -> pl.DataFrame:
    """Return a row for each code of a category, and one for a gap, as an adapter writes them."""
    count = codes[place]
    columns = {
        str(position): pl.repeat(
            0, count + 1, dtype=pl.Int32 if position in codes else pl.Float64, eager=True
        )
        for position in range(width)
    }
    columns[str(place)] = pl.Series([*range(count), CATBOOST_GAP], dtype=pl.Int32)
    return pl.DataFrame(columns)


def _catboost_node(splits: list[Split], leaves: list[float]) -> Node:
    """Return a symmetric tree: at each of its levels all nodes have one split.

    Args:
        leaves: (2 ** levels,) values; the last split decides on the half.
    """
    if not splits:
        return float(leaves[0])
    half = len(leaves) // 2
    below = _catboost_node(splits[:-1], leaves[:half])
    above = _catboost_node(splits[:-1], leaves[half:])
    return splits[-1]._replace(children=(below, above))


def _in_single_precision(graph: Graph, matrix: str) -> str:
    """Return the numbers as a library sees them that keeps them in single precision."""
    single = graph.add("Cast", matrix, to=TensorProto.FLOAT)
    return graph.add("Cast", single, to=TensorProto.DOUBLE)


def _add(trees: Trees, root: Node, output: int) -> None:
    """Add a tree."""
    if not isinstance(root, Split):
        trees.constant[output] += root
        return
    first = trees.begin()
    nodes = list(_walk(root))
    index_of = {id(node): first + number for number, node in enumerate(nodes)}
    for node in nodes:
        missing = node.missing_is_true
        if node.codes is None:
            index = trees.split(node.feature, node.threshold, missing_is_true=missing)
        else:
            index = trees.split_categories(node.feature, node.codes, missing_is_true=missing)
        for if_true, child in zip((True, False), node.children, strict=True):
            if isinstance(child, Split):
                trees.connect(index, if_true=if_true, child=index_of[id(child)])
            else:
                trees.connect_leaf(index, if_true=if_true, output=output, value=child)


def _walk(root: Split) -> Iterator[Split]:
    """Yield all splits of a tree, its root first."""
    yield root
    for child in root.children:
        if isinstance(child, Split):
            yield from _walk(child)


_READERS: dict[str, Callable[[Any, Graph, str, Mapping[int, int]], str]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
}
