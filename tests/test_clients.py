"""What ordinary callers send, and what hostile ones do, to the application in process."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import polars as pl
import pytest
import uvicorn
from conftest import ROOT
from packages import package

Module = Callable[[str], ModuleType]
Send = Callable[..., httpx.Response]
FLIGHTS = ROOT / "template/data/raw/flights.csv"
MODEL = "/v2/models/{}/infer"


@pytest.fixture(scope="module")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(module, tmp_path_factory.mktemp("package") / "model")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return pl.read_csv(FLIGHTS, n_rows=20).drop("delayed").to_dicts()


class Service:
    """The application, with an event loop of its own."""

    def __init__(self, module: Module, folder: Path, **settings: Any) -> None:
        """Start it; `close` ends it, with its log written."""
        loaded = module("serving.loaded_model").load(folder)
        service = module("config.delivery").Service(**({"log": ""} | settings))
        self.app = module("serving").create_app(loaded, service)
        self.api = self.app.state.api
        self.name = module("serving.open_inference").NAME
        self.runner = asyncio.Runner()
        self.lifespan = self.app.router.lifespan_context(self.app)
        self.runner.run(self.lifespan.__aenter__())

    def __call__(
        self, method: str, path: str, peer: str = "203.0.113.5", **options: Any
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, **options)

        return self.runner.run(send())

    def predict(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self("POST", "/predict", content=content, **options)

    def infer(self, body: Any, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self("POST", MODEL.format(self.name), content=content, **options)

    def close(self) -> None:
        self.runner.run(self.lifespan.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def shared(module: Module, made: Path) -> Iterator[Service]:
    """Start a service with the defaults, but for the log."""
    service = Service(module, made)
    yield service
    service.close()


@pytest.fixture
def serve(module: Module, made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start services with settings, and a key or more in the environment."""
    services: list[Service] = []

    def serve(key: str | None = None, folder: Path = made, **settings: Any) -> Service:
        if key is not None:
            monkeypatch.setenv("ML_API_KEY", key)
        services.append(Service(module, folder, **settings))
        return services[-1]

    yield serve
    for service in services:
        service.close()


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as a tensor a column."""
    kinds = {str: "BYTES", int: "INT64"}
    return [
        {
            "name": name,
            "datatype": kinds.get(type(value), "FP64"),
            "shape": [len(rows)],
            "data": [row[name] for row in rows],
        }
        for name, value in rows[0].items()
    ]


# --- too much ----------------------------------------------------------------------------------


def binary(name: str, datatype: str, shape: list[Any], data: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request with one binary tensor, and its headers."""
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    tensor |= {"parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "status"),
    [
        ("BOOL", [4_900_000], bytes(4_900_000), 413),
        ("BOOL", [4_900_000, 1], bytes(4_900_000), 413),
        ("FP64", [600_000], bytes(4_800_000), 413),
        ("BYTES", [1_000_000], struct.pack("<I", 0) * 1_000_000, 413),
        ("BOOL", [1], bytes(4_900_000), 400),
        ("FP64", [1_000], bytes(4_800_000), 400),
        ("BYTES", [10], struct.pack("<I", 0) * 1_000_000, 400),
        ("BOOL", [-1], bytes(4_900_000), 400),
        ("BOOL", ["x"], bytes(4_900_000), 400),
        ("BOOL", [True], bytes(4_900_000), 400),
        ("BOOL", [1e300], bytes(4_900_000), 400),
        ("BOOL", [None], bytes(4_900_000), 400),
    ],
)
def test_a_tensor_of_millions_is_refused_before_its_values_are_made(
    shared: Service,
    module: Module,
    monkeypatch: pytest.MonkeyPatch,
    datatype: str,
    shape: list[Any],
    data: bytes,
    status: int,
) -> None:
    """At most as many values as a request may have rows ever become objects."""
    parts = module("serving.open_inference")
    read = []
    texts = parts._unpack_texts
    monkeypatch.setattr(parts.np, "frombuffer", lambda data, _: read.append(len(data)))
    monkeypatch.setattr(parts, "_unpack_texts", lambda data, size: texts(data, min(size, 1_000)))
    body, headers = binary("seats", datatype, shape, data)
    answer = shared.infer(body, headers=headers)
    assert answer.status_code == status, answer.text
    assert not read
    assert len(answer.content) < 3_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [' + b"{}," * 1_500_000 + b"{}]}",
        b"[" + b"0," * 2_400_000 + b"0]",
        b'{"inputs": [{"name": "a", "shape": [1], "data": [' + b"1," * 2_400_000 + b"1]}]}",
        b"[" * 4_900_000,
        b'{"a":' * 900_000,
        b'{"rows": [' + b'{"a":"x"},' * 480_000 + b"{}]}",
        b'["' + b'","' * 1_600_000 + b'"]',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_json_of_more_values_than_a_request_may_have_is_not_parsed(
    shared: Service, module: Module, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(module("serving.pieces"), "parse", parsed.append)
    assert shared.predict(body).status_code == 413
    assert shared.infer(body).status_code == 413
    assert not parsed


def test_large_texts_are_not_taken_for_many_values(
    shared: Service, rows: list[dict[str, Any]], module: Module
) -> None:
    """The control: a text may hold what looks like a document, and backslashes at any place."""
    for text in ("[{,}]" * 900_000, '\\"' * 1_000_000, "\\" * 2_000_000, '","' * 900_000):
        answer = shared.predict({"rows": rows[0] | {"carrier": text}})
        assert answer.status_code == 422, answer.text
        assert "new category" in answer.text
    many = [rows[0] | {"scheduled_departure": rows[0]["scheduled_departure"]}] * 1_000
    assert shared.predict({"rows": many}).status_code == 200
    contract = shared.api.model.request_contract
    at_once = module("serving.pieces").at_once
    parse_json = module("serving.rows").parse_json
    limit = module("serving.rows").max_values
    spaced = json.dumps({"rows": many}, indent=4).encode()
    document = at_once(parse_json(spaced, limit(contract, 1_000)))
    assert len(document["rows"]) == 1_000


@pytest.mark.parametrize("rest", [b'\\"', b"\\", b"x", b'\\\\\\"'], ids=repr)
def test_no_byte_of_a_text_that_never_ends_is_looked_at_twice(module: Module, rest: bytes) -> None:
    """Else a body of 5 MB would take minutes: one token of it reaches to its end."""
    body = b',"' + rest * 10_000
    spans = [token.span() for token in module("serving.rows").TOKENS.finditer(body)]
    assert spans == [(0, 1), (1, len(body))]


def test_stalled_bodies_keep_nobody_who_sends_a_few_rows_from_an_answer(
    shared: Service, rows: list[dict[str, Any]]
) -> None:
    """Nine bodies of 4.5 MB that never end: those of one caller take half of what there is."""
    reader = shared.api.bodies

    async def run() -> tuple[list[int], list[int]]:
        over = asyncio.Event()

        async def stalled() -> Any:
            for _ in range(45):
                yield b" " * 100_000
            await over.wait()

        async def post(peer: str, content: Any) -> int:
            transport = httpx.ASGITransport(shared.app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return (await client.post("/predict", content=content)).status_code

        attacks = [asyncio.create_task(post("203.0.113.9", stalled())) for _ in range(9)]
        await asyncio.sleep(0.5)
        held = reader.bytes_in_memory
        assert 0 < held <= 20_000_000
        one_row = json.dumps({"rows": rows[0]}).encode()
        large = json.dumps({"rows": rows[:1]}).encode().ljust(4_000_000)
        honest = [await post(peer, one_row) for peer in ("203.0.113.9", "198.51.100.1")]
        honest.append(await post("198.51.100.1", large))
        over.set()
        return honest, await asyncio.gather(*attacks)

    honest, attacks = shared.runner.run(run())
    assert honest == [200, 200, 200]
    assert sorted(set(attacks)) == [422, 503]
    assert (reader.bytes_in_memory, dict(reader.by_client)) == (0, {})


def test_a_row_of_very_many_columns_has_few_faults(shared: Service) -> None:
    row = {f"column {n}": 0 for n in range(5_000)}
    answer = shared.predict({"rows": [row] * 3})
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == 50


def test_metrics_that_many_ask_for_at_once_are_made_once(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    text = shared.api.metrics.text

    def counted() -> Any:
        made.append(1)
        return text()

    monkeypatch.setattr(shared.api.metrics, "text", counted)

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(shared.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await asyncio.gather(*(client.get("/metrics") for _ in range(20)))

    answers = shared.runner.run(run())
    assert {answer.status_code for answer in answers} == {200}
    assert len(made) < 5


# --- encodings and methods -----------------------------------------------------------------------


def test_a_body_of_gzip_is_read(shared: Service, rows: list[dict[str, Any]]) -> None:
    body = json.dumps({"rows": rows}).encode()
    plain = shared.predict(body).json()["predictions"]
    for encoding in ("gzip", "GZIP", "x-gzip", "identity"):
        sent = body if encoding == "identity" else gzip.compress(body)
        answer = shared.predict(sent, headers={"Content-Encoding": encoding})
        assert answer.json()["predictions"] == plain, encoding
    large = json.dumps({"rows": rows * 50}).encode()
    assert len(large) > 200_000
    zipped = {"Content-Encoding": "gzip"}
    assert shared.predict(gzip.compress(large), headers=zipped).status_code == 200
    packed = gzip.compress(json.dumps({"inputs": tensors(rows)}).encode())
    assert shared.infer(packed, headers=zipped).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(bytes(50_000_000), 1), 413),
        (gzip.compress(b" " * 5_000_001), 413),
        (gzip.compress(b'{"rows": 1}')[:-5], 422),
        (gzip.compress(b"{}") + b"more", 422),
        (gzip.compress(b"{}") * 2, 422),
        (b'{"rows": 1}', 422),
        (b"", 422),
        (b"\x1f\x8b", 422),
    ],
    ids=["a bomb", "one byte more", "cut short", "a tail", "two", "plain", "empty", "a start"],
)
def test_gzip_that_is_damaged_or_holds_too_much_is_refused(
    shared: Service, body: bytes, status: int
) -> None:
    answer = shared.predict(body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == status
    assert "gzip" in answer.text or "MB" in answer.text


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "nonsense"])
def test_another_encoding_is_told_which_is_read(shared: Service, encoding: str) -> None:
    for answer in (
        shared.predict(b"{}", headers={"Content-Encoding": encoding}),
        shared.infer(b"{}", headers={"Content-Encoding": encoding}),
    ):
        assert answer.status_code == 415
        assert answer.headers["accept-encoding"] == "gzip"
        assert "gzip" in answer.text


PROBES = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/version", "/metrics"]


@pytest.mark.parametrize("path", PROBES)
def test_probes_may_be_sent_with_head_and_with_a_slash_at_the_end(
    shared: Service, path: str
) -> None:
    for method, name in (("HEAD", path), ("GET", f"{path}/"), ("HEAD", f"{path}/")):
        answer = shared(method, name)
        assert answer.status_code == 200, (method, name)


def test_no_path_redirects_to_another_scheme(shared: Service, rows: list[dict[str, Any]]) -> None:
    answer = shared("POST", "/predict/", json={"rows": rows[0]})
    assert answer.status_code == 200
    assert shared("POST", f"{MODEL.format(shared.name)}/", json={}).status_code == 400
    for path in ("/nothing/", "//", "/predict//", "/v2/"):
        assert shared("GET", path).status_code in (200, 404, 405), path


# --- bodies ------------------------------------------------------------------------------------


def test_parameters_that_are_null_are_as_if_there_were_none(
    shared: Service, rows: list[dict[str, Any]]
) -> None:
    inputs = [tensor | {"parameters": None} for tensor in tensors(rows[:2])]
    outputs = [{"name": "prediction", "parameters": None}]
    body = {"id": None, "parameters": None, "inputs": inputs, "outputs": outputs}
    answer = shared.infer(body)
    assert answer.status_code == 200, answer.text
    assert shared.infer(body | {"outputs": None}).status_code == 200
    others: list[Any] = [7, [], "x", False]
    for wrong in others:
        assert shared.infer(body | {"parameters": wrong}).status_code == 400
        assert shared.infer({"inputs": [inputs[0] | {"parameters": wrong}]}).status_code == 400


def test_a_row_may_be_the_whole_body(shared: Service, rows: list[dict[str, Any]]) -> None:
    wrapped = shared.predict({"rows": rows}).json()["predictions"]
    assert shared.predict(rows[3]).json()["predictions"] == wrapped[3:4]
    assert shared.predict(rows).json()["predictions"] == wrapped
    (fault,) = shared.predict(rows[0] | {"seats": "a lot"}).json()["detail"]
    assert (fault["row"], fault["column"]) == (0, "seats")
    empty: list[Any] = [{}, [], {"rows": []}, {"rows": None}, {"rows": {}}, [1], "x"]
    for body in empty:
        assert shared.predict(body).status_code == 422, body


def test_a_row_with_a_column_called_rows_is_not_taken_for_a_list(module: Module) -> None:
    config = module("config")
    parts = module("serving.rows")
    contract = config.Data.model_construct(
        columns={"rows": config.Column(type="number"), "x": config.Column(type="number")},
        ignored={},
    )
    for body in (b'{"rows": 5, "x": 1}', b'{"rows": {"rows": 5, "x": 1}}'):
        rows = module("serving.pieces").at_once(parts.parse_rows(body, contract, 10))
        assert rows == [{"rows": 5, "x": 1}]


TIMES = [
    "2013-03-15T18:15:00",
    "2013-03-15T18:15:00Z",
    "2013-03-15t18:15:00z",
    "2013-03-15 18:15",
    "2013-03-15T18:15Z",
    "2013-03-15T18:15:00.000Z",
    "2013-03-15T20:15:00+02:00",
    "2013-03-15T13:15-0500",
    "2013-03-15T18:15:00.123456789+00:00",
    " 2013-03-15T18:15:00Z ",
]


@pytest.mark.parametrize("text", TIMES)
def test_a_time_may_have_seconds_and_an_offset(
    shared: Service, rows: list[dict[str, Any]], text: str, module: Module
) -> None:
    row = rows[0] | {"scheduled_departure": "2013-03-15T18:15"}
    expected = shared.predict(row).json()["predictions"]
    answer = shared.predict({"rows": [row | {"scheduled_departure": text}, row]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][:1] == expected
    frame = module("serving.rows").frame_from_rows(
        [row | {"scheduled_departure": text}], shared.api.model.request_contract
    )
    (time_read,) = shared.api.model.read(frame)["scheduled_departure"]
    assert time_read.replace(microsecond=0) == datetime(2013, 3, 15, 18, 15)


def test_the_seconds_of_a_time_are_kept(
    shared: Service, rows: list[dict[str, Any]], module: Module
) -> None:
    row = rows[0] | {"scheduled_departure": "2013-03-15T18:15:30.25Z"}
    parts = module("serving.rows")
    frame = parts.frame_from_rows([row], shared.api.model.request_contract)
    (read,) = shared.api.model.read(frame)["scheduled_departure"]
    assert read == datetime(2013, 3, 15, 18, 15, 30, 250_000)


@pytest.mark.parametrize("text", ["yesterday", "2013-02-30T10:00:00Z", "15/03/2013", "2013"])
def test_a_time_that_cannot_be_read_is_told_how_to_write_it(
    shared: Service, rows: list[dict[str, Any]], text: str
) -> None:
    """And only that one: the time beside it is read, although its form is not the contract's."""
    good = rows[0] | {"scheduled_departure": "2013-03-15T18:15:00Z"}
    answer = shared.predict({"rows": [good, rows[0] | {"scheduled_departure": text}]})
    (fault,) = answer.json()["detail"]
    assert (fault["row"], fault["column"]) == (1, "scheduled_departure")
    (form,) = shared.api.model.request_contract.columns["scheduled_departure"].formats
    assert f"({form} or 2013-01-31T18:15:00Z): {text}" in fault["reason"]


# --- ids, labels, checks -------------------------------------------------------------------------


def test_one_label_labels_one_row_however_often_a_caller_uses_an_id(
    serve: Any, module: Module, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    service = serve(log=log)
    twice = [service.predict(rows[n], headers={"X-Request-Id": "again"}) for n in range(3)]
    once = service.predict({"rows": rows[:2]}, headers={"X-Request-Id": "order-17"})
    by_id = service.infer({"id": "tensor-1", "inputs": tensors(rows[:1])})
    service.runner.run(asyncio.to_thread(service.api.log.write))
    labels = module("prediction_log")
    file = tmp_path / "labels.csv"
    data = service.api.model.data

    def add(*lines: str) -> str:
        file.write_text("\n".join(["request_id,row,delayed", *lines, ""]))
        message: str = labels.add_labels(file, data, log)
        return message

    with pytest.raises(module("exceptions").UsageError, match="3 logged rows have request_id"):
        add("again,0,true")
    own = twice[1].json()["request_id"]
    message = add(f"{own},0,true", "order-17,1,false", "tensor-1,0,true", "unknown,0,true")
    assert "4 labels" in message
    assert "1 of them without" in message
    labelled = labels.joined(log).filter(pl.col("truth").is_not_null()).collect()
    truths = {(name, row): truth for name, row, truth in
             labelled.select("request_id", "row", "truth").iter_rows()}  # fmt: skip
    assert truths == {
        (own, 0): "true",
        (once.json()["request_id"], 1): "false",
        (by_id.headers["x-request-id"], 0): "true",
    }
    assert by_id.json()["id"] == "tensor-1"


def test_only_who_knows_the_secret_is_not_logged(
    serve: Any, module: Module, rows: list[dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("service").mkdir()
    service = serve(log="log")
    secret = Path("service/check-token")
    assert secret.stat().st_mode & 0o777 == 0o600
    header = module("serving.check_token").HEADER
    for sent in (
        {"X-Request-Id": "ml-check.x"},
        {"X-Request-Id": secret.read_text()},
        {header: "x"},
        {header: ""},
        {header: "\xe9".encode()},
    ):
        assert service.predict(rows[0], headers=sent).status_code == 200
    check = service.predict(rows[0], headers={header: secret.read_text()})
    service.runner.run(asyncio.to_thread(service.api.log.write))
    logged = module("prediction_log").read("log").collect()["request_id"]
    assert len(logged) == 5
    assert check.json()["request_id"] not in logged
    assert secret.read_text() not in check.text


def test_a_service_without_a_secret_logs_every_request(
    serve: Any, module: Module, rows: list[dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    service = serve(log="log")
    for value in ("", "None", "x"):
        service.predict(rows[0], headers={module("serving.check_token").HEADER: value})
    service.runner.run(asyncio.to_thread(service.api.log.write))
    assert module("prediction_log").read("log").collect().height == 3
    assert not Path("service").exists()


def test_private_columns_have_no_value_in_any_answer(
    serve: Any, module: Module, rows: list[dict[str, Any]]
) -> None:
    private = ["seats", "carrier", "scheduled_departure", "distance"]
    service = serve(private=private)
    assert service.predict({"rows": rows}).status_code == 200
    metrics = service("GET", "/metrics").text
    assert 'feature="dest"' in metrics
    assert [name for name in private if f'feature="{name}"' in metrics] == []
    document = service("GET", "/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    row = document["components"]["schemas"]["Row"]
    example = service.api.batcher.loaded.example
    for shown in (row["example"], content["example"]["rows"][0]):
        assert shown.keys() == example.keys()
        assert all(shown[name] != example[name] for name in private)
        assert shown["dest"] == example["dest"]
    assert row["properties"]["seats"] == {"type": ["number", "null"]}
    assert row["properties"]["carrier"] == {"type": "string"}
    assert "EWR" in json.dumps(row["properties"]["origin"])


# --- who may ask ---------------------------------------------------------------------------------

CLOSED = [
    ("POST", "/predict"),
    ("POST", "/predict/"),
    ("POST", "/v2/models/x/infer"),
    ("POST", "/v2/models/x/versions/1/infer"),
    ("GET", "/openapi.json"),
    ("GET", "/v2/models/x"),
    ("GET", "/nothing"),
    ("GET", "//predict"),
    ("HEAD", "/openapi.json"),
    ("OPTIONS", "/predict"),
]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_with_keys_nothing_is_told_to_callers_without_one(
    serve: Any, method: str, path: str
) -> None:
    service = serve(key="first-key, second-key")
    wrong: list[Any] = [
        {},
        bearer("third-key"),
        bearer(""),
        bearer("first-key, second-key"),
        bearer("first"),
    ]
    wrong += [{"Authorization": "first-key"}, {"Authorization": "Basic first-key"}]
    wrong += [{"X-Forwarded-User": "ann"}, {"Authorization": b"Bearer \xff"}]
    for headers in wrong:
        answer = service(method, path, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("first-key", "second-key"):
        assert service(method, path, headers=bearer(key)).status_code != 401
    assert service("GET", "/healthz").status_code == 200


def test_probes_and_metrics_need_no_key(serve: Any, rows: list[dict[str, Any]]) -> None:
    service = serve(key="a-key")
    for path in [*PROBES, "/v2", f"/v2/models/{service.name}/ready"]:
        assert service("GET", path).status_code == 200, path
    assert service.predict(rows[0], headers={"authorization": "bearer a-key"}).status_code == 200
    assert service.infer({}).json()["error"]
    assert service.predict({}).json()["detail"][0]["reason"]


@pytest.mark.parametrize("key", ["", " ", ",", " , "])
def test_a_key_that_is_empty_lets_nobody_in_and_is_told(
    serve: Any, module: Module, key: str
) -> None:
    with pytest.raises(module("exceptions").UsageError, match="ML_API_KEY is set and empty"):
        serve(key=key)


def test_a_header_counts_only_from_the_proxies_that_are_named(
    serve: Any, module: Module, rows: list[dict[str, Any]]
) -> None:
    service = serve(user_header="X-Forwarded-User", proxies=["10.0.0.0/8", "192.0.2.7", "::1"])
    known = {"X-Forwarded-User": "ann"}
    for peer, headers, status in (
        ("10.1.2.3", known, 200),
        ("192.0.2.7", known, 200),
        ("::ffff:10.1.2.3", known, 200),
        ("::1", known, 200),
        ("192.0.2.8", known, 401),
        ("203.0.113.5", known | {"X-Forwarded-For": "10.1.2.3"}, 401),
        ("10.1.2.3", {}, 401),
        ("10.1.2.3", {"X-Forwarded-User": ""}, 401),
        ("unix", known, 401),
    ):
        assert service.predict(rows[0], peer=peer, headers=headers).status_code == status, peer
    for settings, match in (
        ({"user_header": "X-User"}, "anybody could send it"),
        ({"proxies": ["proxy.example"]}, "'proxy.example' is not an address or a network"),
    ):
        with pytest.raises(module("exceptions").UsageError, match=match):
            serve(**settings)


def test_callers_behind_a_named_proxy_take_turns_each_for_itself(
    serve: Any, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(proxies=["10.0.0.1"])
    callers = []
    ask = service.api.batcher.ask

    def recording_ask(
        name: str, waiting_rows: Any, client: str, *more: Any
    ) -> Coroutine[Any, Any, Any]:
        callers.append(client)
        answer: Coroutine[Any, Any, Any] = ask(name, waiting_rows, client, *more)
        return answer

    monkeypatch.setattr(service.api.batcher, "ask", recording_ask)
    forged = {"X-Forwarded-For": "198.51.100.1, 198.51.100.2"}
    for peer in ("10.0.0.1", "::ffff:10.0.0.1", "203.0.113.5", "2001:db8::1:2", "2001:db8::9:9"):
        assert service.predict(rows[0], peer=peer, headers=forged).status_code == 200
    assert callers == ["198.51.100.2", "198.51.100.2", "203.0.113.5", "2001:db8::", "2001:db8::"]


def test_only_the_names_that_are_set_reach_it_and_every_address_does(
    serve: Any, shared: Service
) -> None:
    service = serve(hosts=["model.example.com", "*.internal"])
    for host, status in (
        ("model.example.com", 200),
        ("model.example.com:8080", 200),
        ("a.internal", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("10.1.2.3", 200),
        ("evil.example", 400),
        ("model.example.com.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("[::1].evil.example", 400),
        ("", 400),
    ):
        assert service("GET", "/version", headers={"Host": host}).status_code == status, host
        assert shared("GET", "/version", headers={"Host": host}).status_code == 200


def test_the_name_that_it_listens_at_reaches_it(serve: Any) -> None:
    service = serve(host="localhost", hosts=["model.example.com"])
    for host, status in (("localhost:8080", 200), ("model.example.com", 200), ("evil", 400)):
        assert service("GET", "/version", headers={"Host": host}).status_code == status, host


@pytest.mark.parametrize("name", ["a*", "*a", "*.a.*", "a.*.b"])
def test_a_pattern_that_matches_no_name_is_told(serve: Any, module: Module, name: str) -> None:
    with pytest.raises(module("exceptions").UsageError, match=r"service.hosts: .* is not a name"):
        serve(hosts=[name])


@pytest.mark.parametrize("host", ["localhost:8080", "10.42.0.7:8080", "model", "evil.example", ""])
def test_a_probe_is_answered_under_any_name_and_tells_nothing_else(serve: Any, host: str) -> None:
    service = serve(hosts=["model.example.com"])
    for path in PROBES[:4]:
        for method in ("GET", "HEAD"):
            answer = service(method, path, headers={"Host": host})
            assert answer.status_code == 200, path
        body = service("GET", path, headers={"Host": host}).json()
        assert body in ({"status": "alive"}, {"status": "ready"}, {"live": True}, {"ready": True})
    if not host.startswith("10."):
        for path in ("/version", "/metrics", "/v2", f"/v2/models/{service.name}/ready"):
            assert service("GET", path, headers={"Host": host}).status_code == 400, path


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "127.0.0.1"])
def test_the_images_health_check_finds_a_service_with_names_well(serve: Any, host: str) -> None:
    """With its own code, over a real socket, as Docker runs it."""
    dockerfile = (ROOT / "template/Dockerfile").read_text().replace("\\\n", "")
    check = re.search(r"^HEALTHCHECK .* CMD (\[.+\])$", dockerfile, re.MULTILINE)
    assert check
    command = [sys.executable, *json.loads(check[1])[1:]]
    service = serve(hosts=["model.example.com"])
    config = uvicorn.Config(service.app, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        env = {"ML_HOST": host, "ML_PORT": port}
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert subprocess.run(command, env=env, check=False).returncode == 0
            service.api.draining = True
            assert subprocess.run(command, env=env, check=False).returncode == 1
        finally:
            server.should_exit = True
            thread.join(30)


def test_pages_of_other_origins_may_call_it_only_if_they_are_named(
    serve: Any, shared: Service, rows: list[dict[str, Any]]
) -> None:
    headers = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    service = serve(key="a-key", origins=["https://app.example.com"])
    preflight = service("OPTIONS", "/predict", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
    answer = service.predict(rows[0], headers=bearer("a-key") | headers)
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    stranger = service("OPTIONS", "/predict", headers=headers | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    assert (
        "access-control-allow-origin" not in shared("OPTIONS", "/predict", headers=headers).headers
    )


def test_the_command_of_a_container_imports_no_library_before_it_can_be_told_to_end() -> None:
    code = (
        "import sys, rung_runtime.serving as s; s.main\n"
        "slow = {'fastapi', 'numpy', 'polars', 'pydantic', 'sklearn', 'uvicorn'}\n"
        "print(slow & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": str(ROOT / "runtime/src")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_many_callers_at_once_are_answered_each_to_its_own(shared: Service) -> None:
    """Good rows, rows that break each kind of rule, and large requests, all at the same time."""
    rows = pl.read_csv(FLIGHTS, n_rows=400).drop("delayed").to_dicts()
    expected = shared.predict({"rows": rows}).json()["predictions"]
    changes: dict[str | None, dict[str, Any]] = {
        None: {},
        "new category": {"carrier": "??"},
        "above 800": {"seats": 801},
        "not of type integer": {"flight": "many"},
        "missing column": {"flight": ...},
        "unknown column": {"colour": "red"},
        "a flight goes somewhere else": {"origin": "JFK", "dest": "JFK"},
    }
    kinds = list(changes)

    def body(n: int) -> list[dict[str, Any]]:
        sent = rows[n : n + (90 if n % 10 == 0 else 1)]
        row = sent[0] | changes[kinds[n % len(kinds)]]
        return [{k: v for k, v in row.items() if v is not ...}, *sent[1:]]

    async def send(client: httpx.AsyncClient, n: int) -> httpx.Response:
        return await client.post("/predict", json={"rows": body(n)})

    async def send_all() -> list[httpx.Response]:
        async with AsyncExitStack() as stack:
            clients = []
            for host in range(8):
                transport = httpx.ASGITransport(shared.app, client=(f"203.0.113.{host}", 1))
                client = httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60)
                clients.append(await stack.enter_async_context(client))
            return await asyncio.gather(*(send(clients[n % 8], n) for n in range(280)))

    for n, answer in enumerate(shared.runner.run(send_all())):
        kind = kinds[n % len(kinds)]
        if kind is None:
            assert answer.json()["predictions"] == expected[n : n + len(body(n))], n
        else:
            assert answer.status_code == 422, (n, kind, answer.text)
            assert [fault["reason"].partition(":")[0] for fault in answer.json()["detail"]] == [
                kind
            ]


def test_metrics_take_a_part_of_the_time_only_and_are_never_old(
    shared: Service, rows: list[dict[str, Any]], module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    api = module("serving.api")
    sleep = asyncio.sleep

    async def waited(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(shared.api, "_metrics_due", 0.0)
    monkeypatch.setattr(api.asyncio, "sleep", waited)
    # So long that the second request comes before its end on a busy machine, too.
    monkeypatch.setattr(api, "METRICS_PAUSE", 100_000)
    counts = []
    for _ in range(2):
        assert shared.predict({"rows": rows[0]}).status_code == 200
        line = re.search(r"^ml_rows_total (.+)$", shared("GET", "/metrics").text, re.MULTILINE)
        counts.append(float(line[1]) if line else 0)
    assert counts[1] == counts[0] + 1
    before, after = [seconds for seconds in waits if seconds]
    assert before < 0 < after


def test_those_who_waited_for_metrics_are_answered_one_by_one(shared: Service) -> None:
    """Hundreds of responses in one go of the event loop would hold up everybody else."""
    turns: list[int] = []

    async def ask_all() -> None:
        turn = 0

        async def ask() -> None:
            await shared.api.metrics_text()
            turns.append(turn)

        waiting = [asyncio.create_task(ask()) for _ in range(50)]
        while not all(task.done() for task in waiting):
            turn += 1
            await asyncio.sleep(0)

    shared.runner.run(ask_all())
    assert len(set(turns)) == 50


def test_whoever_is_refused_does_not_wait_for_the_log(shared: Service) -> None:
    log = shared.api.log
    answers = []
    with log.lock:  # as while a large batch is put into tables
        caller = threading.Thread(target=lambda: answers.append(shared.predict({"rows": {"a": 1}})))
        caller.start()
        caller.join(30)
        assert [answer.status_code for answer in answers] == [422]
