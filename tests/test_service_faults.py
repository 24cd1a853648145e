"""What happens to the service, and what callers of other makes do to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import pytest
from conftest import ROOT, Render
from packages import Server, package, variant

pytestmark = pytest.mark.slow
Module = Callable[[str], ModuleType]
FLIGHTS = ROOT / "template/data/raw/flights.csv"
Start = Callable[..., Server]


@pytest.fixture(scope="session")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a package of the example."""
    return package(module, tmp_path_factory.mktemp("package") / "model")


@pytest.fixture
def start(sources: Render, made: Path, tmp_path: Path) -> Iterator[Start]:
    """Start services, and end those that the test did not."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        folder = tmp_path / f"serve-{len(servers)}"
        servers.append(Server(sources(level=1), made, folder, **options))
        assert servers[-1].ready(), (folder / "output.log").read_text()
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """Rows as a caller has them."""
    return pl.read_csv(FLIGHTS, n_rows=400).drop("delayed").to_dicts()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but not for ever."""
    for _ in range(3_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("what was waited for has not happened in a minute")


class Callers:
    """Send one row after another, on connections that are kept alive, until told to stop."""

    def __init__(self, server: Server, row: dict[str, Any], number: int = 6) -> None:
        self.url = server.url
        self.row = row
        self.over = threading.Event()
        self.statuses: Counter[str] = Counter()
        self.answered: list[tuple[float, str]] = []
        self.threads = [threading.Thread(target=self._call) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def _call(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self.over.is_set():
                try:
                    answer = client.post(f"{self.url}/predict", json={"rows": self.row})
                except httpx.ConnectError:
                    self.statuses["no connection"] += 1
                    return
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1
                    continue
                self.statuses[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    self.answered.append((time.time(), answer.json()["request_id"]))

    def wait(self, answers: int) -> None:
        """Wait until so many more requests have been answered."""
        enough = len(self.answered) + answers
        wait_until(lambda: len(self.answered) >= enough)

    def stop(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


# --- ends ------------------------------------------------------------------------------------


def test_sigterm_loses_no_request_and_no_prediction(
    start: Start, module: Module, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """As below a supervisor, which holds the socket until the next service has it."""
    log = str(tmp_path / "log")
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listening:
        server = start(log_seconds=60.0, log=log, listening=listening)
        callers = Callers(server, rows[0])
        callers.wait(200)
        server.process.terminate()
        draining = False
        while server.process.poll() is None:
            try:
                answer = httpx.get(f"{server.url}/readyz", timeout=0.5)
                draining |= answer.status_code == 503 and answer.headers["connection"] == "close"
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        assert server.process.returncode == 0
        before = callers.statuses.total()
        again = start(log_seconds=60.0, log=log, listening=listening)
        callers.wait(200)
        callers.stop()
        assert again.stop() == 0
    assert draining
    assert set(callers.statuses) == {"200"}, callers.statuses
    assert callers.statuses.total() > before > 0
    logged = module("prediction_log").read(log).collect()["request_id"].to_list()
    assert sorted(logged) == sorted(name for _, name in callers.answered)


def test_kill_loses_at_most_the_seconds_of_the_log(
    start: Start, module: Module, rows: list[dict[str, Any]]
) -> None:
    server = start(log_seconds=2.0)
    callers = Callers(server, rows[0], number=2)
    log = module("prediction_log")
    wait_until(lambda: log.read(server.log).collect().height > 0)
    callers.wait(50)  # whose rows wait to be written
    killed = time.time()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    callers.stop()
    logged = set(log.read(server.log).collect()["request_id"])
    lost = [time_answered for time_answered, name in callers.answered if name not in logged]
    assert logged
    assert lost, "the control: something was waiting to be written"
    assert min(lost) > killed - 2.0


def test_the_disk_is_full_and_nobody_notices(
    start: Start, module: Module, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("no folder can be made here")
    server = start(log=str(log), log_seconds=0.5)
    for n in range(20):
        answer = httpx.post(f"{server.url}/predict", json={"rows": rows[n]})
        assert answer.status_code == 200

    def is_kept() -> bool:
        metrics = httpx.get(f"{server.url}/metrics").text
        has_failed = "ml_log_failures_total 0.0" not in metrics
        return has_failed and "ml_log_waiting_rows 20.0" in metrics

    wait_until(is_kept)
    log.unlink()
    wait_until(lambda: module("prediction_log").read(str(log)).collect().height == 20)


@pytest.mark.parametrize("is_ready", ["imports", "the model"])
def test_sigterm_while_it_loads_ends_it_at_once_with_exit_code_0(
    module: Module, made: Path, tmp_path: Path, is_ready: str
) -> None:
    """A container's first process would not even get the signal that it has not asked for."""
    wait = "import pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(600)\n"
    slow = tmp_path / "package"
    variant(module, made, slow, {"problem/features.py": wait})
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\npackage = "flight_delays"\n')
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("service: {port: 0, log: ''}\n")
    code = "import sys\nfrom rung_runtime.serving import main\n"
    if is_ready == "imports":  # the first of them waits
        (tmp_path / "polars.py").write_text(wait)
    command = [sys.executable, "-c", f"{code}sys.argv[1:] = [{str(slow)!r}]\nmain()"]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "runtime/src")])
    log = tmp_path / "output.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            stdout=output,
            stderr=output,
        )
    try:
        while not (tmp_path / "loading").exists():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()


def test_it_listens_to_both_kinds_of_addresses(start: Start, rows: list[dict[str, Any]]) -> None:
    """On a machine without IPv6, to the one that there is."""
    server = start(host="::", log="")
    port = server.url.rsplit(":", 1)[1]
    hosts = ["127.0.0.1"]
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        hosts.append("[::1]")
    for host in hosts:
        answer = httpx.post(f"http://{host}:{port}/predict", json=rows[0])
        assert answer.status_code == 200, host


# --- too much --------------------------------------------------------------------------------


def test_a_pile_of_requests_is_refused_at_once_and_takes_no_memory(
    start: Start, rows: list[dict[str, Any]]
) -> None:
    server = start(queue_rows=400, log="")
    process = psutil.Process(server.process.pid)
    body = {"rows": (rows * 3)[:300]}
    for _ in range(20):
        httpx.post(f"{server.url}/predict", json=body, timeout=30)
    before = process.memory_info().rss
    statuses = Counter[int]()
    slow = []

    def flood() -> None:
        with httpx.Client(timeout=60) as client:
            for _ in range(25):
                began = time.monotonic()
                answer = client.post(f"{server.url}/predict", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code == 503:
                    assert answer.headers["retry-after"] == "1"
                    slow.append(time.monotonic() - began)

    threads = [threading.Thread(target=flood) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}
    assert statuses[200] > 10
    assert sorted(slow)[len(slow) // 2] < 2
    assert process.memory_info().rss < before + 150e6
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_callers_who_send_a_byte_a_second_hold_up_nobody(
    start: Start, rows: list[dict[str, Any]]
) -> None:
    server = start(log="")
    port = int(server.url.rsplit(":", 1)[1])
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    for caller in slow:
        caller.sendall(head + b'{"rows"')
    began = time.monotonic()
    for n in range(20):
        assert httpx.post(f"{server.url}/predict", json={"rows": rows[n]}).status_code == 200
    assert time.monotonic() - began < 10
    for caller in slow:
        caller.close()
    assert "exception" not in (server.cwd / "output.log").read_text().lower()


def test_memory_stays_as_it_is(start: Start, rows: list[dict[str, Any]]) -> None:
    """The million of `make bench` in small: what grows with every row would show."""
    server = start(log_seconds=0.5)
    process = psutil.Process(server.process.pid)
    sizes = []
    with httpx.Client(timeout=60) as client:
        for _ in range(8):
            for _ in range(12):
                answer = client.post(f"{server.url}/predict", json={"rows": (rows * 3)[:1000]})
                assert answer.status_code == 200
            sizes.append(process.memory_info().rss)
    assert sizes[-1] < 1.1 * sizes[2], sizes


# --- callers of other makes ------------------------------------------------------------------


def test_schemathesis_finds_no_fault(
    start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    nightly = request.config.getoption("tier") == "nightly"
    server = start(max_megabytes=0.1, explain_seconds=0.05)  # of hundreds that are not the point
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance"
    )
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program
    command = [program, "run", f"{server.url}/openapi.json", "--checks", checks]
    if not nightly:  # the other phase sends hundreds of requests, the same each time
        command += ["--phases", "examples,fuzzing"]
    command += ["--max-examples", "60" if nightly else "20", "--seed", "1", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    metrics = httpx.get(f"{server.url}/metrics").text
    lines = [line for line in metrics.splitlines() if line.startswith("ml_requests_total")]
    assert any('status="200"' in line for line in lines), "the control: some rows were answered"
    assert any('status="422"' in line for line in lines)
    assert not any('status="5' in line for line in lines)


def test_tritonclient_is_answered(start: Start, rows: list[dict[str, Any]]) -> None:
    from tritonclient import http  # type: ignore[import-untyped]

    server = start()
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    name = "flight_delays"
    assert client.is_model_ready(name)
    described = client.get_model_metadata(name)
    expected = httpx.post(f"{server.url}/predict", json={"rows": rows[:9]}).json()["predictions"]
    dtypes = {"BYTES": object, "INT64": np.int64, "FP64": np.float64}
    for binary in (True, False):
        inputs = []
        for tensor in described["inputs"]:
            values = [row[tensor["name"]] for row in rows[:9]]
            data = np.array(values, dtypes[tensor["datatype"]]).reshape(9, 1)
            inputs.append(http.InferInput(tensor["name"], [9, 1], tensor["datatype"]))
            inputs[-1].set_data_from_numpy(data, binary_data=binary)
        requested = [
            http.InferRequestedOutput("probabilities", binary_data=binary),
            http.InferRequestedOutput("prediction", binary_data=binary),
        ]
        for outputs in (requested, None):
            result = client.infer(name, inputs, outputs=outputs, request_id="7")
            assert result.get_response()["id"] == "7"
            shares = [list(prediction["probabilities"].values()) for prediction in expected]
            assert result.as_numpy("probabilities").tolist() == shares
            named = [
                value.decode() if isinstance(value, bytes) else value
                for value in result.as_numpy("prediction").tolist()
            ]
            assert named == [prediction["prediction"] for prediction in expected]
    with pytest.raises(http.InferenceServerException, match="missing column"):
        client.infer(name, inputs[:3])


def test_an_object_store_can_be_the_log(
    start: Start, module: Module, made: Path, rows: list[dict[str, Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """moto's server stands in for S3."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    store = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",  # pragma: allowlist secret
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    try:
        for _ in range(200):
            try:
                if httpx.put(f"{url}/bucket").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        log = "s3://bucket/predictions"
        labels = module("prediction_log")
        assert labels.read(log).collect().is_empty()
        server = start(log=log, log_seconds=0.5)
        names = {}
        for n in range(10):
            ids = {"X-Request-Id": f"r{n}"}
            answer = httpx.post(f"{server.url}/predict", json={"rows": rows[n]}, headers=ids)
            names[f"r{n}"] = answer.json()["request_id"]
            time.sleep(0.1)  # so that there are several files
        assert server.stop() == 0
        logged = labels.read(log).collect()
        assert dict(logged.select("client_request_id", "request_id").iter_rows()) == names
        data = module("model_package").load_package(made).data
        lines = f"request_id,delayed\n{names['r1']},true\nr2,false\n"  # ours, and the caller's
        (tmp_path / "labels.csv").write_text(lines)
        assert "2 labels" in labels.add_labels(tmp_path / "labels.csv", data, log)
        truth = labels.joined(log).sort("client_request_id").collect()["truth"]
        assert truth.to_list()[:4] == [None, "true", "false", None]
        digest = json.loads((made / "manifest.json").read_text())["model_digest"]
        assert labels.read(log, model_digest=digest).collect().height == 10
    finally:
        store.terminate()
        store.wait()
