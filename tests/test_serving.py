"""The service, in process and over HTTP: what it answers, refuses, and writes down."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from conftest import ROOT, Render
from packages import Server, package

pytestmark = pytest.mark.slow  # no project is installed, but a service is started
Module = Callable[[str], ModuleType]
FLIGHTS = ROOT / "template/data/raw/flights.csv"


@pytest.fixture(scope="session")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a package of the example."""
    return package(module, tmp_path_factory.mktemp("package") / "model")


@pytest.fixture(scope="session")
def model(module: Module, made: Path) -> Any:
    """Return the package, opened."""
    return module("model_package").load_package(made)


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Rows as a caller has them."""
    return pl.read_csv(FLIGHTS, n_rows=400).drop("delayed").to_dicts()


@pytest.fixture(scope="session")
def server(
    sources: Render, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Serve the package."""
    service = Server(sources(level=1), made, tmp_path_factory.mktemp("serve"), max_megabytes=1.0)
    assert service.ready(), (service.cwd / "output.log").read_text()
    yield service
    service.stop()


def ask(server: Server, body: Any, **options: Any) -> httpx.Response:
    """Send rows, or whatever it is."""
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return httpx.post(f"{server.url}/predict", content=content, timeout=60, **options)


def model_arguments(model: Any) -> dict[str, Any]:
    """Return what a model was made with, rather than what it has computed since."""
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


# --- answers ---------------------------------------------------------------------------------


def test_it_answers_what_the_model_answers_here(
    server: Server, module: Module, model: Any, rows: list[dict[str, Any]]
) -> None:
    table = pl.read_csv(FLIGHTS, infer_schema=False, n_rows=400)
    message = module("serving").check_parity(server.url, table, model)
    assert "400 rows" in message
    expected = model.answers(model.predict(model.read(table)))
    document = ask(server, {"rows": rows}).json()
    assert (document["version"], document["model_digest"]) == (model.version, model.digest)
    assert document["predictions"] == expected
    assert ask(server, {"rows": rows[7]}).json()["predictions"] == [expected[7]]


def test_parity_sees_a_transform_that_differs_a_little(
    server: Server, module: Module, model: Any
) -> None:
    """The control: what differs here by a thousandth must not pass."""
    table = pl.read_csv(FLIGHTS, infer_schema=False, n_rows=400)

    class Perturbed(type(model)):  # type: ignore[misc]
        def predict(self, rows: pl.DataFrame) -> Any:
            return super().predict(rows.with_columns(pl.col("temperature_f") * 1.05))

    other = Perturbed(**model_arguments(model))
    with pytest.raises(module("exceptions").RefusedError, match=r"row \d+: .* the model here"):
        module("serving").check_parity(server.url, table, other)
    stranger = dataclasses.replace(model, manifest=model.manifest | {"model_digest": "x"})
    with pytest.raises(module("exceptions").RefusedError, match="another model"):
        module("serving").check_parity(server.url, table, stranger)
    for url in ("foo", "http://127.0.0.1:1", f"{server.url}/metrics"):
        with pytest.raises(module("exceptions").RefusedError, match=url):
            module("serving").check_parity(url, table, model)


def test_each_request_has_an_id_of_the_services_and_its_callers_is_kept_beside(
    server: Server, rows: list[dict[str, Any]]
) -> None:
    body = {"rows": rows[0]}
    ids = set()
    for own in ("order-17", "order-17", "ml-check.x", "a b", "x" * 65, '"', ""):
        answer = ask(server, body, headers={"X-Request-Id": own})
        ids.add(answer.json()["request_id"])
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        kept = own if re.fullmatch("[a-z0-9.-]{1,64}", own) else None
        assert answer.headers.get("x-client-request-id") == kept
    assert len(ids) == 7
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in ids)


def test_what_is_asked_at_once_is_answered_each_to_its_own(
    server: Server, model: Any, rows: list[dict[str, Any]]
) -> None:
    expected = model.answers(model.predict(model.read(pl.DataFrame(rows))))
    bad = rows[0] | {"carrier": "??"}

    def send(n: int) -> tuple[int, httpx.Response]:
        return n, ask(server, {"rows": bad if n % 5 == 0 else rows[n]})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(200)))
    for n, answer in answers:
        if n % 5 == 0:
            assert answer.status_code == 422
            fault = {"row": 0, "column": "carrier", "reason": "new category: ??"}
            assert answer.json()["detail"] == [fault]
        else:
            assert answer.json()["predictions"] == [expected[n]]


# --- refusals --------------------------------------------------------------------------------

BAD_VALUES = [
    ("seats", "a lot", "not of type number"),
    ("seats", True, "not of type number"),
    ("seats", [1], "not a single value"),
    ("seats", {}, "not a single value"),
    ("seats", 801, "above 800"),
    ("seats", -1e300, "below 0"),
    ("seats", 10**400, "above 800|not of type"),
    ("flight", 1.5, "not of type integer"),
    ("flight", 10**30, "not of type integer"),
    ("flight", None, "null"),
    ("carrier", "\ud800", "new category"),
    ("carrier", 5, "new category"),
    ("carrier", "U\0A", "new category"),
    ("scheduled_departure", "yesterday", "not of type datetime"),
    ("scheduled_departure", 0, "not of type datetime"),
]


@pytest.mark.parametrize(("column", "value", "reason"), BAD_VALUES, ids=str)
def test_a_bad_value_is_named_with_row_column_and_reason(
    server: Server, rows: list[dict[str, Any]], column: str, value: Any, reason: str
) -> None:
    answer = ask(server, {"rows": [rows[0], rows[1] | {column: value}, rows[2]]})
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["detail"]
    assert (fault["row"], fault["column"]) == (1, column)
    assert re.match(reason, fault["reason"])
    assert len(answer.content) < 1_000


def test_columns_are_those_of_the_contract(server: Server, rows: list[dict[str, Any]]) -> None:
    short = {name: value for name, value in rows[0].items() if name != "seats"}
    (fault,) = ask(server, {"rows": [rows[1], short]}).json()["detail"]
    assert fault == {"row": 1, "column": "seats", "reason": "missing column"}
    (fault,) = ask(server, {"rows": rows[0] | {"colour": "red"}}).json()["detail"]
    assert fault == {"row": 0, "column": None, "reason": "unknown column: colour"}
    # The contract knows the target, so a row may have it; it changes nothing.
    predictions = ask(server, {"rows": rows[0] | {"delayed": True}}).json()["predictions"]
    assert predictions == ask(server, {"rows": rows[0]}).json()["predictions"]
    many = ask(server, {"rows": [{f"column {n}": n} for n in range(500)]})
    assert many.status_code == 422
    assert len(many.content) < 10_000


def test_a_rule_of_ones_own_is_told_by_its_name(server: Server, rows: list[dict[str, Any]]) -> None:
    response = ask(server, {"rows": rows[0] | {"origin": "JFK", "dest": "JFK"}})
    assert response.status_code == 422, response.text
    (fault,) = response.json()["detail"]
    assert fault["reason"] == "a flight goes somewhere else"


NO_REQUESTS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"rows"',
    b"{}",
    b'{"rows": []}',
    b'{"rows": [1]}',
    b'{"rows": "x"}',
    b'{"rows": [[]]}',
    b'{"rows": [{}]}',
    b"\xff\xfe\xfd",
    b'{"rows": {"\\ud800": 1}}',
    b'{"rows": ' + b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"rows": [' + b"9" * 5_000 + b"]}",
    b"\x00" * 100,
]


@pytest.mark.parametrize("body", NO_REQUESTS, ids=lambda body: repr(body[:30]))
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "image/png", "nonsense"])
def test_what_is_no_request_is_told_so(server: Server, body: bytes, kind: str) -> None:
    answer = ask(server, body, headers={"Content-Type": kind})
    deep = body.count(b"[") + body.count(b"{") > 10_000  # more values than a request may have
    assert answer.status_code == (413 if deep else 422), answer.text
    assert answer.json()["detail"][0]["reason"]
    assert len(answer.content) < 10_000


def test_the_other_rows_of_a_request_do_not_change_what_a_value_means(
    module: Module, model: Any, rows: list[dict[str, Any]]
) -> None:
    """Each value alone, and below and above every other: read, or not, all the same."""
    serving_rows = module("serving.rows")
    values = [1, 1.0, 2.5, True, "1", "1.0", "x", None, 10**25, math.nan, math.inf, 1e300, "\udc00"]

    def read(column: str, column_values: list[Any]) -> list[Any]:
        table = [rows[0] | {column: value} for value in column_values]
        typed = model.read(serving_rows.frame_from_rows(table, model.request_contract))
        faults = {row for failure in model.failures(typed) for row in failure["rows"]}
        good = [row for n, row in enumerate(table) if n not in faults]
        # With a fault, a column stays as it came: values are compared without.
        values = iter(
            model.read(serving_rows.frame_from_rows(good, model.request_contract))[column]
            if good
            else []
        )
        return ["fault" if n in faults else next(values) for n in range(len(column_values))]

    for column in ("seats", "flight", "carrier", "dest", "scheduled_departure"):
        alone = {n: read(column, [value])[0] for n, value in enumerate(values)}
        for n, k in itertools.product(alone, alone):
            both = read(column, [values[n], values[k]])
            expected = [alone[n], alone[k]]
            assert ("fault" in both) == ("fault" in expected)
            for paired, before in zip(both, expected, strict=True):
                assert before in ("fault", paired), (column, values[n], values[k])


def test_too_much_is_refused_before_it_is_read(server: Server, rows: list[dict[str, Any]]) -> None:
    assert ask(server, {"rows": rows * 3}).status_code == 413
    assert ask(server, b" " * 1_100_000).status_code == 413
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 100_000
            yield b" " * 100_000

    assert httpx.post(f"{server.url}/predict", content=endless()).status_code == 413
    assert ask(server, {"rows": rows[0]}).status_code == 200


def test_what_is_too_much_for_the_queue_is_told_to_come_again(
    module: Module, made: Path, rows: list[dict[str, Any]]
) -> None:
    serving = module("serving")
    settings = module("config.delivery")
    served = module("serving.loaded_model").load(made)
    app = serving.create_app(served, settings.Service(log="", queue_rows=3))
    release = threading.Event()
    predict = type(served.model).predict

    class Slow(type(served.model)):  # type: ignore[misc]
        def predict(self, rows: pl.DataFrame) -> Any:
            release.wait(20)
            return predict(self, rows)

    object.__setattr__(served, "model", Slow(**model_arguments(served.model)))

    async def run() -> tuple[list[httpx.Response], float]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            body = {"rows": rows[0]}
            waiting = [asyncio.create_task(client.post("/predict", json=body)) for _ in range(3)]
            await asyncio.sleep(0.2)
            began = time.monotonic()
            refused = await client.post("/predict", json=body)
            took = time.monotonic() - began
            release.set()
            return [*await asyncio.gather(*waiting), refused], took

    (*answered, refused), took = asyncio.run(run())
    assert [answer.status_code for answer in answered] == [200, 200, 200]
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert took < 1


def test_code_of_the_user_that_fails_on_a_row_fails_this_row_alone(
    module: Module, made: Path, rows: list[dict[str, Any]]
) -> None:
    served = module("serving.loaded_model").load(made)

    class Fragile(type(served.model)):  # type: ignore[misc]
        def predict(self, rows: pl.DataFrame) -> Any:
            if (rows["seats"] == 77).any():
                raise ZeroDivisionError("seats")
            y_pred = super().predict(rows)
            return np.where((rows["seats"] == 78).to_numpy()[:, None], np.nan, y_pred)

    object.__setattr__(served, "model", Fragile(**model_arguments(served.model)))
    app = module("serving").create_app(served, module("config.delivery").Service(log=""))

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            seats = [50, 77, 60, 78, 55, 56]
            bodies = [{"rows": rows[0] | {"seats": n}} for n in seats]
            return await asyncio.gather(*(client.post("/predict", json=b) for b in bodies))

    answers = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200, 422, 200, 422, 200, 200]
    assert "ZeroDivisionError" in answers[1].text
    assert "not a number" in answers[3].text


@pytest.mark.parametrize("is_quick", [False, True], ids=["the thread", "the event loop"])
def test_a_bug_of_ours_leaves_nobody_waiting_for_ever(
    module: Module,
    made: Path,
    rows: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    is_quick: bool,
) -> None:
    batcher = module("serving.batcher")
    loaded = module("serving.loaded_model").load(made)
    app = module("serving").create_app(loaded, module("config.delivery").Service(log=""))
    app.state.api.batcher.quick = loaded if is_quick else None

    def fails_with(function: Any) -> Any:
        def fails(rows: list[dict[str, Any]], *more: Any) -> Any:
            if rows[0]["seats"] == 77:
                raise pl.exceptions.PanicException("of Polars, which is not an Exception")
            return function(rows, *more)

        return fails

    reader = loaded.reader
    monkeypatch.setattr(batcher, "shape_faults", fails_with(batcher.shape_faults))
    monkeypatch.setattr(reader, "plain_values", fails_with(reader.plain_values))

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=20) as client,
        ):
            bodies = [{"rows": rows[0] | {"seats": seats}} for seats in (77, 50)]
            requests = [client.post("/predict", json=body) for body in bodies]
            return [(await asyncio.wait_for(request, 20)).status_code for request in requests]

    assert asyncio.run(run()) == [422, 200]


# --- the Open Inference Protocol -------------------------------------------------------------


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as a tensor a column."""
    kinds = {str: "BYTES", int: "INT64", float: "FP64"}
    return [
        {
            "name": name,
            "datatype": kinds.get(type(rows[0][name]), "FP64"),
            "shape": [len(rows)] if n % 2 else [len(rows), 1],
            "data": [row[name] if n % 2 else [row[name]] for row in rows],
        }
        for n, name in enumerate(rows[0])
    ]


def test_tensors_are_answered_as_rows_are(server: Server, rows: list[dict[str, Any]]) -> None:
    expected = ask(server, {"rows": rows[:20]}).json()["predictions"]
    base = f"{server.url}/v2/models/flight_delays"
    described = httpx.get(base).json()
    version = described["versions"][0]
    assert [item["name"] for item in described["inputs"]] == list(rows[0])
    for path in (f"{base}/infer", f"{base}/versions/{version}/infer"):
        answer = httpx.post(path, json={"id": "7", "inputs": tensors(rows[:20])}).json()
        assert (answer["id"], answer["model_version"]) == ("7", version)
        named, shares = answer["outputs"]
        assert named["data"] == [item["prediction"] for item in expected]
        assert shares["shape"] == [20, 2]
        assert shares["data"] == [p for item in expected for p in item["probabilities"].values()]
    only = {"inputs": tensors(rows[:2]), "outputs": [{"name": "prediction"}]}
    answer = httpx.post(f"{base}/infer", json=only).json()
    assert [output["name"] for output in answer["outputs"]] == ["prediction"]


def test_a_model_or_version_that_is_not_there_is_not_found(server: Server) -> None:
    for path in ("x", "x/ready", "flight_delays/versions/1", "flight_delays/versions/1/ready"):
        answer = httpx.get(f"{server.url}/v2/models/{path}")
        assert answer.status_code == 404
        assert "flight_delays" in answer.json()["error"]
    for path in ("live", "ready"):
        assert httpx.get(f"{server.url}/v2/health/{path}").status_code == 200
    assert httpx.get(f"{server.url}/v2/models/flight_delays/ready").json()["ready"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": 3},
        {"inputs": [{}]},
        {"inputs": [{"name": "seats", "datatype": "FP64", "shape": [2], "data": [1.0]}]},
        {"inputs": [{"name": "seats", "datatype": "FP64", "shape": [1], "data": {"a": 1}}]},
        {"inputs": [{"name": [], "datatype": "FP64", "shape": [1], "data": [1.0]}]},
        {"inputs": [{"name": 5, "datatype": "FP64", "shape": [1], "data": [1.0]}]},
        {"inputs": [{"name": None, "datatype": "FP64", "shape": [1], "data": [1.0]}]},
        {"parameters": 7},
        {"parameters": {"binary_data_output": True}, "outputs": 7},
        {"outputs": [{"name": "colour"}]},
        {"outputs": [{"name": "prediction", "parameters": 1}]},
    ],
    ids=str,
)
def test_tensors_that_make_no_sense_are_told_so(
    server: Server, rows: list[dict[str, Any]], change: dict[str, Any]
) -> None:
    body = {"inputs": tensors(rows[:1])} | change
    answer = httpx.post(f"{server.url}/v2/models/flight_delays/infer", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5_000, b"-1"])
def test_a_length_of_the_json_that_is_none_is_no_error_of_ours(
    server: Server, rows: list[dict[str, Any]], length: bytes
) -> None:
    url = f"{server.url}/v2/models/flight_delays/infer"
    headers = {b"Inference-Header-Content-Length": length}
    answer = httpx.post(url, json={"inputs": tensors(rows[:1])}, headers=headers)
    assert answer.status_code == 200, answer.text


def test_bytes_after_the_json_that_are_damaged_are_told_so(
    server: Server, rows: list[dict[str, Any]]
) -> None:
    url = f"{server.url}/v2/models/flight_delays/infer"
    for kind in ("BYTES", "FP64", "BOOL", "FP7", ""):
        for many in (-1, 3, 8, 10**9, "x", None):
            tensor = {"name": "seats", "datatype": kind, "shape": [1]}
            head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": many}}]})
            for length in (len(head), 5, 10**12, -1, "x"):
                headers = {"Inference-Header-Content-Length": str(length)}
                answer = httpx.post(url, content=head.encode() + b"\xff" * 8, headers=headers)
                assert answer.status_code == 400


# --- the log ---------------------------------------------------------------------------------


@pytest.fixture
def keep(module: Module, made: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a log, and say what it is fed with."""
    served = module("serving.loaded_model").load(made)
    table = pl.read_csv(FLIGHTS, infer_schema=False, n_rows=400)
    typed = served.model.read(table)
    y_pred = served.model.predict(typed)

    def keep(**options: Any) -> tuple[Any, Callable[[int, str], None]]:
        settings = (
            module("config.delivery").Service(log=str(tmp_path / "log")).model_copy(update=options)
        )
        log = module("prediction_log").PredictionLog(settings)

        def add(n: int, name: str = "r") -> None:
            request = module("prediction_log.writer").LoggedRequest(name, n)
            log.add(served, [request], [{}] * n, typed.head(n), y_pred[:n])

        return log, add

    return keep


def test_the_log_has_every_prediction_with_all_that_made_it(
    server: Server, module: Module, model: Any, rows: list[dict[str, Any]]
) -> None:
    began = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=1)
    requests = {}
    answers = {}
    for n in range(30):
        sent = rows[n : n + 1 + n % 3]
        answer = ask(server, {"rows": sent}, headers={"X-Request-Id": f"log-{n}"}).json()
        requests[answer["request_id"]] = sent
        answers[answer["request_id"]] = answer["predictions"]
    time.sleep(1.5)
    read = module("prediction_log").read
    logged = read(server.log, since=began, model_digest=model.digest).collect()
    for name, sent in requests.items():
        mine = logged.filter(pl.col("request_id") == name).sort("row")
        assert mine["row"].to_list() == list(range(len(sent)))
        assert mine["prediction"].to_list() == [a["prediction"] for a in answers[name]]
        shares = mine.select("p:false", "p:true").rows()
        assert shares == [tuple(a["probabilities"].values()) for a in answers[name]]
        typed = model.read(pl.DataFrame(sent))
        assert mine.select(f"x:{n}" for n in typed.columns).rows() == typed.rows()
        assert set(mine["version"]) == {model.version}
        assert mine["client_request_id"].n_unique() == 1
    assert read(server.log, since=datetime(2100, 1, 1)).collect().is_empty()
    assert read(server.log, model_digest="sha256:0").collect().is_empty()


def test_refused_rows_are_counted_by_column_and_rule(
    server: Server, module: Module, rows: list[dict[str, Any]]
) -> None:
    def counted() -> int:
        files = Path(server.log).glob("refused/date=*/*.parquet")
        tables = [pl.read_parquet(path) for path in files]
        rule = (pl.col("column") == "wind_speed") & (pl.col("rule") == "above 85")
        return int(pl.concat(tables).filter(rule)["rows"].sum()) if tables else 0

    before = counted()
    ask(server, {"rows": [row | {"wind_speed": 99.5} for row in rows[:9]]})
    time.sleep(1.5)
    assert counted() == before + 9


def test_a_log_that_is_not_there_reads_as_empty(module: Module, tmp_path: Path) -> None:
    log = module("prediction_log")
    for rows in (log.read(str(tmp_path / "no")), log.joined(str(tmp_path / "no"))):
        assert rows.collect().is_empty()
        assert {"request_id", "row", "time", "prediction"} <= set(rows.collect_schema().names())


def test_columns_can_be_left_out_and_old_files_still_have_them(
    keep: Callable[..., Any], module: Module
) -> None:
    for private in ([], ["seats", "origin"]):
        log, add = keep(private=private)
        add(5)
        log.close()
    rows = module("prediction_log").read(log.location).collect()
    assert rows.height == 10
    assert rows["x:seats"].null_count() == rows["x:origin"].null_count() == 5
    # A half-written file is none.
    (next(Path(log.location).glob("date=*")) / ".x.parquet.new").write_bytes(b"PAR1")
    assert module("prediction_log").read(log.location).collect().height == 10


def test_a_log_that_cannot_be_written_is_kept_up_to_a_bound(
    keep: Callable[..., Any], tmp_path: Path, module: Module
) -> None:
    log, add = keep(log_rows=1_000)
    blocked = tmp_path / "log"
    blocked.write_text("a file is in the way")
    for n in range(30):
        add(100, f"r{n}")
        if n % 3 == 0:
            log.write()
    log.write()
    assert (log.waiting_rows, log.dropped_rows, log.written_rows) == (1_000, 2_000, 0)
    assert log.failures > 0
    assert log.error
    assert log.lag() > 0
    blocked.unlink()
    log.close()
    assert (log.waiting_rows, log.written_rows) == (0, 1_000)
    rows = module("prediction_log").read(log.location).collect()
    assert set(rows["request_id"]) == {f"r{n}" for n in range(20, 30)}, "the newest are kept"


def test_labels_are_joined_by_request_and_the_last_word_counts(
    keep: Callable[..., Any], module: Module, made: Path, tmp_path: Path
) -> None:
    labels = module("prediction_log")
    data = module("model_package").load_package(made).data
    log, add = keep()
    add(3, "a")
    add(1, "b")
    log.close()
    file = tmp_path / "labels.csv"
    file.write_text("request_id,row,delayed\na,0,true\na,2,False\nzz,0,true\n")
    assert "3 labels" in (message := labels.add_labels(file, data, log.location))
    assert "1 of them" in message
    assert "zz" in message
    file.write_text("request_id,delayed\na,false\nb,TRUE\n")
    assert "without" not in labels.add_labels(file, data, log.location)
    rows = labels.joined(log.location).sort("request_id", "row").collect()
    assert rows["truth"].to_list() == ["false", None, "false", "true"]
    for text, reason in (
        ("request_id,row\na,0\n", "lacks delayed"),
        ("delayed\ntrue\n", "request_id"),
        ("request_id,delayed\na,maybe\n", "'maybe' is not a delayed"),
        ("request_id,delayed\na,\n", "is not a delayed"),
        ("request_id,row,delayed\na,x,true\n", "row"),
    ):
        file.write_text(text)
        with pytest.raises(module("exceptions").UsageError, match=reason):
            labels.add_labels(file, data, log.location)
    assert labels.joined(log.location).collect()["truth"].null_count() == 1


def test_labels_are_joined_by_the_keys_of_the_contract(
    module: Module, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    folder = package(module, tmp_path / "model", keys=["flight", "scheduled_departure"])
    served = module("serving.loaded_model").load(folder)
    assert "flight" not in served.model.request_contract.columns
    settings = module("config.delivery").Service(log=str(tmp_path / "log"))
    app = module("serving").create_app(served, settings)
    bare = {k: v for k, v in rows[1].items() if k != "flight"}  # a caller without the key

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            for body in (rows[:3], [bare]):
                assert (await client.post("/predict", json={"rows": body})).status_code == 200

    asyncio.run(run())
    labels = module("prediction_log")
    truth = pl.DataFrame(rows[:2]).select("flight", "scheduled_departure")
    truth.with_columns(delayed=pl.lit("true")).write_csv(tmp_path / "labels.csv")
    assert "without" not in labels.add_labels(
        tmp_path / "labels.csv", served.model.data, settings.log
    )
    joined = labels.joined(settings.log).sort("request_id", "row").collect()
    assert joined["truth"].null_count() == 2
    assert joined.filter(pl.col("truth") == "true")["k:flight"].to_list() == [
        str(row["flight"]) for row in rows[:2]
    ]


# --- what operations ask for -----------------------------------------------------------------


def test_metrics_tell_what_was_asked_and_answered(
    server: Server, made: Path, model: Any, rows: list[dict[str, Any]]
) -> None:
    def samples() -> dict[str, float]:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    before = samples()
    ask(server, {"rows": [row | {"dest": "ZZZ", "seats": None} for row in rows[:7]]})
    ask(server, {"rows": 1})
    after = samples()

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more('ml_requests_total{route="/predict",status="200"}') == 1
    assert more('ml_requests_total{route="/predict",status="422"}') == 1
    assert more('ml_request_seconds_count{route="/predict"}') == 2
    assert more("ml_rows_total") == 7
    assert more('ml_feature_category_total{category="(other)",feature="dest"}') == 7
    assert more('ml_feature_category_total{category="(gap)",feature="seats"}') == 7
    assert more('ml_feature_count{feature="seats"}') == 0
    assert more('ml_feature_count{feature="distance"}') == 7
    assert more('ml_prediction_count{of="prediction"}') == 7
    edge = json.loads((made / "profile.json").read_text())["columns"]["distance"]
    bucket = f'ml_feature_bucket{{feature="distance",le="{edge["percentiles"][50]:.1f}"}}'
    assert more(bucket) == sum(row["distance"] <= edge["percentiles"][50] for row in rows[:7])
    info = f'ml_model_info{{model_digest="{model.digest}",version="{model.version}"}}'
    assert after[info] == 1
    assert after["ml_model_age_seconds"] > 0
    assert after["ml_queue_rows"] == 0


def test_openapi_has_an_example_that_is_answered(server: Server) -> None:
    described = httpx.get(f"{server.url}/openapi.json").json()
    content = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert ask(server, content["example"]).status_code == 200
    row = described["components"]["schemas"]["Row"]
    assert ask(server, {"rows": row["example"]}).status_code == 200
    seats = row["properties"]["seats"]
    carrier = row["properties"]["carrier"]
    assert seats == {"type": ["number", "null"], "minimum": 0, "maximum": 800}
    assert "WN" in carrier["enum"]
    assert re.match(row["properties"]["scheduled_departure"]["pattern"], "2013-01-02T03:04")


def test_a_model_is_replaced_while_it_serves(
    sources: Render, module: Module, made: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    other = package(module, tmp_path / "other", seed=3)
    desired = tmp_path / "serve/service/desired.json"

    def want(folder: Path, version: str) -> None:
        desired.parent.mkdir(parents=True, exist_ok=True)
        new = desired.with_suffix(".new")
        new.write_text(json.dumps({"folder": str(folder), "version": version, "previous": None}))
        new.replace(desired)

    first, second = (json.loads((f / "manifest.json").read_text()) for f in (made, other))
    want(made, first["version"])
    server = Server(sources(level=1), None, tmp_path / "serve")
    assert server.ready(), (server.cwd / "output.log").read_text()
    failed = []
    versions = set()
    over = threading.Event()

    def load() -> None:
        with httpx.Client() as client:
            while not over.is_set():
                answer = client.post(f"{server.url}/predict", json={"rows": rows[0]})
                if answer.status_code != 200:
                    failed.append(answer.text)
                versions.add(answer.json().get("version"))

    def serves(manifest: dict[str, Any]) -> bool:
        document: dict[str, Any] = {}
        for _ in range(200):
            document = httpx.get(f"{server.url}/version").json()
            if document["version"] == manifest["version"]:
                break
            time.sleep(0.1)
        return document["package_digest"] == manifest["package_digest"] and not document["error"]

    callers = [threading.Thread(target=load) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        want(other, second["version"])
        assert serves(second)
        want(tmp_path / "nothing", "20000101-000000-00000000")
        for _ in range(100):
            if error := httpx.get(f"{server.url}/version").json()["error"]:
                break
            time.sleep(0.1)
        assert "20000101" in error
        assert "holds no model" in error
        want(made, first["version"])
        assert serves(first)
    finally:
        over.set()
        for caller in callers:
            caller.join()
        code = server.stop()
    assert not failed
    assert versions == {first["version"], second["version"]}
    assert code == 0


def test_a_service_without_a_model_says_so(module: Module, tmp_path: Path) -> None:
    serving = module("serving")
    settings = module("config.delivery").Service(port=0)
    with pytest.raises(module("exceptions").UsageError, match="holds no model"):
        serving.serve(tmp_path, settings)
    with pytest.raises(module("exceptions").UsageError, match="names no package"):
        serving.serve(None, settings)


@pytest.mark.parametrize(
    "document", ["", "{", "[]", "7", "{}", '{"folder": 7}', '{"folder": null}']
)
def test_a_desired_package_that_is_not_named_is_told(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("service").mkdir()
    Path("service/desired.json").write_text(document)
    with pytest.raises(module("exceptions").UsageError, match="names no package: run `ml deploy`"):
        module("serving.desired").load_desired()


def test_a_port_that_is_taken_is_told(module: Module, made: Path) -> None:
    serving = module("serving")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = module("config.delivery").Service(port=taken.getsockname()[1])
        with pytest.raises(module("exceptions").UsageError, match=r"service\.port"):
            serving.serve(made, settings)
