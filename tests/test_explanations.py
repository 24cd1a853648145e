"""Explanations are right: compared with exact values, known truth, and what may be disclosed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from itertools import combinations
from math import factorial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from packages import package
from rung_runtime import project
from rung_runtime.config import Config, Data, Gate, Model
from rung_runtime.config.delivery import Service
from rung_runtime.explanations import (
    Question,
    Subject,
    Unanswerable,
    background,
    background_size,
    explain,
    open_explainer,
)
from rung_runtime.pipeline import explain as explain_step
from rung_runtime.pipeline.explain import Evaluated
from rung_runtime.pipeline.ingest import inputs
from rung_runtime.pipeline.private import public
from rung_runtime.pipeline.profiles import summary
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

Module = Callable[[str], ModuleType]
SEED = 20261127
ROWS = 3_000
MOST_ERROR = 0.05  # of a contribution, relative to the largest one of the row


def contract(columns: int, task: str) -> Data:
    names = {f"x{number}": {"type": "number", "nullable": True} for number in range(columns)}
    content = {"source": "x.csv", "target": "y", "split": {"by": "stratified"}, "task": task}
    content |= {"classes": ["no", "yes"] if task == "binary" else []}
    return Data.model_validate(content | {"columns": names | {"y": {"type": "number"}}})


def drawn(seed: int, columns: int) -> pl.DataFrame:
    """Draw rows with gaps."""
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    values = random.normal(size=(ROWS, columns))
    values[random.random((ROWS, columns)) < 0.05] = np.nan
    rows = pl.DataFrame(values, [f"x{number}" for number in range(columns)], orient="row")
    return rows.fill_nan(None)


def subject_of(fitted: Any, rows: pl.DataFrame, task: str) -> Subject:
    data = contract(rows.width, task).for_predicting()
    profile = {column.name: summary(column) for column in rows.get_columns()}
    drawn_rows = background(profile, data, background_size(rows.width))
    predict = fitted.predict_proba if task == "binary" else fitted.predict
    return Subject(lambda rows: np.asarray(predict(rows.to_numpy())), drawn_rows, data)


def exact(subject: Subject, row: pl.DataFrame) -> NDArray[np.float64]:
    """Return Shapley values by their definition, over all coalitions of columns."""
    question = Question(subject, row)
    count = len(subject.columns)
    numbers = np.arange(subject.background.height)

    def worth(members: frozenset[int]) -> float:
        codes = np.tile(numbers[:, None], (1, count))
        codes[:, list(members)] = question.own
        return float(question.ask(codes).mean())

    coalitions = [
        frozenset(c) for size in range(count + 1) for c in combinations(range(count), size)
    ]
    worths = {members: worth(members) for members in coalitions}
    values = np.zeros(count)
    for column in range(count):
        for members in coalitions:
            if column not in members:
                size = len(members)
                weight = factorial(size) * factorial(count - size - 1) / factorial(count)
                values[column] += weight * (worths[members | {column}] - worths[members])
    return values


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_contributions_are_shapley_values(task: str) -> None:
    """Of boosted trees in which three columns interact; the errors of ten rows are printed."""
    columns = 6
    rows = drawn(SEED, columns)
    x = rows.fill_null(0).to_numpy()
    signal = x[:, 0] * x[:, 1] * (1 + x[:, 2]) + x[:, 3]
    kind = HistGradientBoostingClassifier if task == "binary" else HistGradientBoostingRegressor
    y = signal > 0 if task == "binary" else signal
    subject = subject_of(kind(max_iter=40, random_state=0).fit(rows.to_numpy(), y), rows, task)
    explainer = open_explainer("shapley", subject)
    errors = []
    for number in range(10):
        row = rows[number : number + 1]
        expected = exact(subject, row)
        contributions = list(explain(explainer, subject, row).contributions.values())
        errors.append(np.abs(contributions - expected).max() / np.abs(expected).max())
    print(f"largest error {max(errors):.4f}, mean {np.mean(errors):.4f} of the largest value")
    assert max(errors) <= MOST_ERROR, errors


def test_contributions_are_exact_where_no_more_than_two_columns_interact() -> None:
    columns = 5
    rows = drawn(SEED, columns).fill_null(0)

    class Pairs:
        def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
            return 3 * x[:, 0] * x[:, 1] + x[:, 2] ** 2 - x[:, 0] * x[:, 3]

    subject = subject_of(Pairs(), rows, "regression")
    explanation = explain(open_explainer("shapley", subject), subject, rows[:1])
    values = list(explanation.contributions.values())
    # The rows of the background differ, and each has an order of its own.
    assert values == pytest.approx(exact(subject, rows[:1]), abs=1e-9)
    assert explanation.remainder == 0


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_columns_that_a_model_uses_are_ranked_first(task: str) -> None:
    """Three of ten, in the order of their weights."""
    rows = drawn(SEED, 10)
    x = rows.fill_null(0).to_numpy()
    signal = 4 * x[:, 7] + 2 * x[:, 2] - x[:, 5]
    kind = HistGradientBoostingClassifier if task == "binary" else HistGradientBoostingRegressor
    y = signal > 0 if task == "binary" else signal
    fitted = kind(max_iter=60, random_state=0).fit(rows.to_numpy(), y)
    subject = subject_of(fitted, rows, task)
    explainer = open_explainer("shapley", subject)
    sizes = np.zeros(10)
    for number in range(30):
        explanation = explain(explainer, subject, rows[number : number + 1])
        sizes += np.abs(list(explanation.contributions.values()))
    assert np.argsort(-sizes)[:3].tolist() == [7, 2, 5]
    assert np.sort(sizes)[-4] < 0.2 * np.sort(sizes)[-3]


# --- the background --------------------------------------------------------------------------


def a_profile(values: pl.Series) -> dict[str, Any]:
    return {values.name: summary(values.str.len_chars() if values.name == "text" else values)}


def test_a_background_has_the_distribution_of_each_column() -> None:
    random = np.random.default_rng(SEED)
    n = 10_000
    letters = pl.Enum(["a", "b", "c"])
    times = pl.Series("datetime", random.integers(0, 10**9, n)).cast(pl.Int64)
    columns = {
        "number": pl.Series("number", random.exponential(size=n)),
        "integer": pl.Series("integer", random.integers(0, 7, n)),
        "boolean": pl.Series("boolean", random.random(n) < 0.3),
        "category": pl.Series("category", random.choice(["a", "b"], n, p=[0.75, 0.25]), letters),
        "text": pl.Series("text", ["the secret of a person"] * n),
        "datetime": pl.from_epoch(times, "s").cast(pl.Datetime("us")),
    }
    gap = pl.Series(random.random(n) < 0.25)
    frame = pl.DataFrame(columns).with_columns(pl.when(~gap).then(pl.col("number")).alias("number"))
    kinds = {name: {"type": name} for name in columns}
    kinds["category"]["categories"] = ["a", "b", "c"]  # type: ignore[assignment]
    content = {"source": "x", "target": "y", "task": "regression", "split": {"by": "stratified"}}
    data = Data.model_validate(content | {"columns": kinds | {"y": {"type": "number"}}})
    profile: dict[str, Any] = {}
    for column in frame.get_columns():
        profile |= a_profile(column)
    rows = background(profile, data, 128)
    assert rows.height == 128
    assert rows["number"].null_count() == 32
    assert rows["number"].median() == pytest.approx(frame["number"].median(), rel=0.05)
    assert rows["integer"].dtype == pl.Int64
    assert rows["integer"].mean() == pytest.approx(3, abs=0.1)
    assert rows["boolean"].sum() == pytest.approx(0.3 * 128, abs=2)
    assert (rows["category"] == "a").sum() == 96
    assert rows["category"].dtype == letters
    assert rows["datetime"].dtype == pl.Datetime("us")
    assert rows["text"].unique().to_list() == [""]
    assert rows.equals(background(profile, data, 128))


def test_a_column_that_was_never_filled_is_a_gap_in_the_background() -> None:
    rows = drawn(SEED, 1).with_columns(x0=pl.lit(None, pl.Float64))
    profile = {"x0": summary(rows["x0"])}
    assert background(profile, contract(1, "binary"), 40)["x0"].null_count() == 40


def test_a_model_of_one_column_is_explained_by_it() -> None:
    rows = drawn(SEED, 1).fill_null(0)

    class Twice:
        def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
            return 2 * x[:, 0]

    subject = subject_of(Twice(), rows, "regression")
    explanation = explain(open_explainer("shapley", subject), subject, rows[:1])
    expected = 2 * rows["x0"][0] - explanation.base_value
    assert explanation.contributions["x0"] == pytest.approx(expected)


def test_a_prediction_that_is_not_a_number_is_told() -> None:
    rows = drawn(SEED, 2).fill_null(1)

    class Ratio:
        def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
            return x[:, 0] / (x[:, 1] * 0)

    subject = subject_of(Ratio(), rows, "regression")
    with np.errstate(all="ignore"), pytest.raises(Unanswerable, match="not a number"):
        explain(open_explainer("shapley", subject), subject, rows[:1])


# --- the report ------------------------------------------------------------------------------


PLACES = ["Oslo", "Rome"]
SECRET = "the secret of a person"


class Evaluation(NamedTuple):
    """A model that uses `x7`, `x2`, `x5` and `place` of twelve columns, and its configuration."""

    evaluated: Evaluated
    config: Config


def evaluation(module: Module, task: str, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    rows = drawn(SEED, 10).with_columns(
        place=pl.Series(np.random.default_rng(SEED).choice(PLACES, ROWS)),
        note=pl.lit(SECRET),
    )
    x = rows.select(f"x{number}" for number in range(10)).fill_null(0).to_numpy()
    signal = 4 * x[:, 7] + 2 * x[:, 2] - x[:, 5] + (rows["place"] == "Rome").to_numpy()
    names = {"binary": ["no", "yes"], "multiclass": ["low", "middle", "high"]}.get(task, [])
    codes = np.digitize(signal, {2: [0], 3: [-2, 2], 0: []}[len(names)])
    target: dict[str, Any] = {"type": "number"}
    if names:
        rows = rows.with_columns(y=pl.Series([names[code] for code in codes]))
        target = {"type": "category", "categories": names}
    else:
        rows = rows.with_columns(y=pl.Series(signal))
    columns: dict[str, Any] = {f"x{number}": {"type": "number"} for number in range(10)}
    columns |= {"place": {"type": "category", "categories": PLACES}, "note": {"type": "text"}}
    content: dict[str, Any] = {"source": "x.csv", "target": "y", "task": task, "classes": names}
    content |= {"split": {"by": "stratified"}, "columns": columns | {"y": target}}
    data = Data.model_validate(content)

    def features(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.drop("note").with_columns(pl.col("place").to_physical())

    monkeypatch.setattr(explain_step, "features", features)
    kind = HistGradientBoostingClassifier if names else HistGradientBoostingRegressor
    matrix = features(inputs(rows, data))
    fitted = kind(max_iter=40, random_state=0).fit(matrix, codes if names else signal)
    y_pred = fitted.predict_proba(matrix) if names else fitted.predict(matrix)
    metric = "log_loss" if names else "rmse"
    gate = Gate(metric=metric, thresholds={metric: 1.0})
    config = Config(data=data, gate=gate, model=Model())
    return Evaluation(Evaluated(fitted, rows, rows, y_pred), config)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a project whose column `place` is private, and which has a model."""
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    Path("artifacts/model.skops").write_bytes(b"model")
    Path("config").mkdir()
    Path("config/delivery.yaml").write_text("service: {private: [place]}")


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_report_explains_the_model_and_rows_of_the_holdout(
    module: Module, in_project: None, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that the model uses come first, rows add up, and nothing private is shown."""
    evaluated, config = evaluation(module, task, monkeypatch)
    document = explain_step.explanations(evaluated, config)
    assert document.reason is None
    assert [column.column for column in document.columns][:3] == ["x7", "x2", "x5"]
    assert "place" not in [column.column for column in document.columns]
    unused = {column.column: column.mean for column in document.columns}["note"]
    assert unused == pytest.approx(0, abs=1e-12)
    assert [example.which for example in document.examples] == ["highest", "lowest", "worst"]
    for example in document.examples:
        assert "place" not in [part.column for part in example.contributions]
        assert example.private
        total = example.base_value + example.private
        total += sum(part.contribution for part in example.contributions)
        assert total == pytest.approx(example.predicted, abs=1e-9)
    assert SECRET not in document.model_dump_json()
    assert PLACES[1] not in document.model_dump_json()


def test_a_column_that_has_become_private_is_not_in_the_next_report(
    module: Module, in_project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = explain_step.explanations(*evaluation(module, "binary", monkeypatch))
    shown = public(document, {"place", "x7"})
    assert "x7" not in shown.model_dump_json()
    for before, after in zip(document.examples, shown.examples, strict=True):
        (hidden,) = [part.contribution for part in before.contributions if part.column == "x7"]
        assert after.private == pytest.approx((before.private or 0) + hidden)


def test_a_model_that_fails_on_mixed_rows_is_evaluated_and_the_report_says_why(
    module: Module, in_project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated, config = evaluation(module, "binary", monkeypatch)

    def fails(rows: pl.DataFrame) -> pl.DataFrame:
        raise ZeroDivisionError("seats")

    monkeypatch.setattr(explain_step, "features", fails)
    document = explain_step.explanations(evaluated, config)
    assert not document.columns
    assert not document.examples
    assert document.reason == (
        "the model cannot answer rows of mixed values: ZeroDivisionError: seats"
    )


def test_a_model_that_is_too_slow_is_evaluated_and_the_report_says_so(
    module: Module, in_project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_step, "MAX_SECONDS", -1.0)
    document = explain_step.explanations(*evaluation(module, "binary", monkeypatch))
    assert document.reason
    assert "would take more than" in document.reason


# --- the service -----------------------------------------------------------------------------

FLIGHTS = pl.read_csv(ROOT / "template/data/raw/flights.csv", n_rows=3).drop("delayed").to_dicts()


@pytest.fixture(scope="module")
def loaded(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example's model, loaded."""
    folder = package(module, tmp_path_factory.mktemp("package") / "model")
    return module("serving.loaded_model").load(folder)


def respond(
    served: Any,
    requests: Callable[[httpx.AsyncClient], Awaitable[Any]],
    **settings: Any,
) -> Any:
    """Send requests to a service in this process, which has a minute for each explanation."""
    from rung_runtime.serving import create_app

    app = create_app(served, Service(log="", **({"explain_seconds": 60.0} | settings)))

    async def run() -> Any:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client,
        ):
            return await requests(client)

    return asyncio.run(run())


async def explained(client: httpx.AsyncClient, rows: Any = FLIGHTS[0], say: str = "true") -> Any:
    answer = await client.post("/predict", params={"explain": say}, json={"rows": rows})
    return answer.json()["predictions"] if answer.status_code == 200 else answer


def with_model(loaded: Any, predict: Callable[[Any, pl.DataFrame], Any]) -> Any:
    """Return a loaded model that predicts otherwise."""
    kind = type(loaded.model)
    model = copy(loaded.model)
    object.__setattr__(model, "__class__", type(kind.__name__, (kind,), {"predict": predict}))
    return replace(loaded, model=model)


def test_a_request_can_ask_which_columns_its_predictions_come_from(loaded: Any) -> None:
    async def requests(client: httpx.AsyncClient) -> Any:
        plain = (await client.post("/predict", json={"rows": FLIGHTS})).json()["predictions"]
        return plain, await explained(client, FLIGHTS), await explained(client, FLIGHTS, "false")

    plain, predictions, not_explained = respond(loaded, requests)
    assert not_explained == plain
    base_values = set()
    for prediction, alone in zip(predictions, plain, strict=True):
        explanation = prediction.pop("explanation")
        assert prediction == alone
        assert explanation["class"] == "true"
        assert list(explanation["contributions"]) == loaded.model.data.features
        total = explanation["base_value"] + sum(explanation["contributions"].values())
        assert total == pytest.approx(alone["probabilities"]["true"], abs=1e-9)
        assert explanation.keys() == {"class", "base_value", "contributions"}
        base_values.add(explanation["base_value"])
    assert len(base_values) == 1


def test_private_columns_are_not_in_an_explanation_and_it_adds_up(loaded: Any) -> None:
    (whole,) = respond(loaded, explained)
    (prediction,) = respond(loaded, explained, private=["dest", "carrier"])
    hidden = [whole["explanation"]["contributions"].pop(name) for name in ("dest", "carrier")]
    assert prediction["explanation"].pop("private") == pytest.approx(sum(hidden))
    assert prediction == whole


def test_a_prediction_comes_without_the_explanation_that_is_not_ready_in_time(loaded: Any) -> None:
    """And whoever asks for predictions meanwhile does not wait for it."""
    release = threading.Event()

    def predict(self: Any, rows: pl.DataFrame) -> Any:
        if threading.current_thread().name == "explaining":
            release.wait(20)
        return super(type(self), self).predict(rows)

    async def requests(client: httpx.AsyncClient) -> Any:
        waiting = asyncio.create_task(explained(client))
        await asyncio.sleep(0.05)
        others = [await client.post("/predict", json={"rows": FLIGHTS}) for _ in range(3)]
        assert not release.is_set()
        (prediction,) = await waiting
        release.set()
        return others, prediction

    others, prediction = respond(with_model(loaded, predict), requests, explain_seconds=0.5)
    assert [answer.status_code for answer in others] == [200, 200, 200]
    assert prediction["prediction"] in ("true", "false")
    assert prediction["explanation"] is None
    reason = "not ready within 0.5 s (service.explain_seconds)"
    assert prediction["explanation_error"] == reason


def test_after_one_that_was_too_late_explanations_go_on(loaded: Any) -> None:
    release = threading.Event()

    def predict(self: Any, rows: pl.DataFrame) -> Any:
        if threading.current_thread().name == "explaining":
            release.wait(20)
        return super(type(self), self).predict(rows)

    async def requests(client: httpx.AsyncClient) -> Any:
        late = await explained(client)
        release.set()
        while True:
            (prediction,) = await explained(client)
            if prediction["explanation"]:
                return late

    (late,) = respond(with_model(loaded, predict), requests, explain_seconds=0.3)
    assert late["explanation"] is None


def test_the_first_rows_of_a_request_are_explained(loaded: Any) -> None:
    predictions = respond(loaded, lambda client: explained(client, FLIGHTS), explain_rows=2)
    assert [bool(prediction["explanation"]) for prediction in predictions] == [True, True, False]
    assert predictions[2]["explanation_error"] == (
        "not one of the first 2 rows (service.explain_rows)"
    )


def test_explanations_can_be_switched_off(loaded: Any) -> None:
    (prediction,) = respond(loaded, explained, explain_seconds=0)
    assert prediction["explanation"] is None
    assert "off" in prediction["explanation_error"]


def test_code_that_fails_on_rows_that_never_were_leaves_the_prediction(loaded: Any) -> None:
    def predict(self: Any, rows: pl.DataFrame) -> Any:
        if len(rows) > 1:
            raise ZeroDivisionError("seats")
        return super(type(self), self).predict(rows)

    (prediction,) = respond(with_model(loaded, predict), explained)
    assert prediction["prediction"] in ("true", "false")
    assert "cannot answer rows with some of its values" in prediction["explanation_error"]
    assert "seats" not in prediction["explanation_error"]  # which may be of other people's rows


@pytest.mark.parametrize("say", ["", "yes", "1", "True"])
def test_explain_is_true_or_false(loaded: Any, say: str) -> None:
    answer = respond(loaded, lambda client: explained(client, say=say))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["reason"].startswith("explain is not true or false")


def test_openapi_and_metrics_tell_of_explanations(loaded: Any) -> None:
    async def requests(client: httpx.AsyncClient) -> Any:
        await explained(client, FLIGHTS)
        return (await client.get("/openapi.json")).json(), (await client.get("/metrics")).text

    document, metrics = respond(loaded, requests, explain_rows=2)
    (parameter,) = document["paths"]["/predict"]["post"]["parameters"]
    assert parameter["name"] == "explain"
    schemas = document["components"]["schemas"]
    assert "contributions" in schemas["Explanation"]["properties"]
    assert "explanation" in schemas["Prediction"]["properties"]
    assert 'ml_explanations_total{outcome="explained"} 2.0' in metrics
    assert 'ml_explanations_total{outcome="missing"} 1.0' in metrics


def test_an_explainer_that_is_not_there_is_told_and_the_prediction_comes(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "current", lambda: project.Project(explainer="crystal_ball"))
    (prediction,) = respond(replace(loaded), explained)
    assert prediction["explanation"] is None
    assert "there is no adapter of that name" in prediction["explanation_error"]
