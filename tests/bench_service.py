"""Measure the service, next to two that people use: part of `make bench`.

All three serve one package with the same code: the features that it was trained with, then the
model. Only ours checks each row against the contract and writes each prediction down, so what is
compared errs against us. Theirs run as their documentation says: `mlflow models serve` without
another environment manager, BentoML with adaptive batching; each has one worker, as ours.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import polars as pl
import psutil
import yaml
from conftest import ROOT, Project, git, uv

HERE = Path(__file__).parent
CACHE = ROOT / ".tools/bench"
# Their own environments, with the very libraries that the model was trained with.
ENGINES = {"mlflow": "mlflow>=3.17,<4", "bentoml": "bentoml>=1.4,<2"}
SHARED = ["numpy", "onnxruntime", "polars", "pydantic", "pyyaml", "scikit-learn", "scipy", "skops"]
SHARED += ["typing-extensions"]
ROUNDS = 3
SECONDS = 8
BATCH = 1_000
EARLY = 50_000
LATE = 1_000_000
DEPLOYMENTS = 20
BULK_ROWS = 5_000_000
ALONE = 1_000  # requests, one after the other
BATCHES = 50
LUA = """
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
wrk.body = assert(io.open(os.getenv("BENCH_BODY"), "rb")):read("*a")
"""


class Measure(NamedTuple):
    """What was measured, and what it may be at most or must be at least."""

    what: str
    measured: float
    most: float = float("inf")
    least: float = float("-inf")

    @property
    def met(self) -> bool:
        """Whether the target is; without one it is."""
        return self.least <= self.measured <= self.most


Measures = list[Measure]


class Server(NamedTuple):
    """A process that answers a body at an address."""

    process: psutil.Popen
    url: str
    body: Path


def speed(project: Project, here: Path) -> Measures:
    """Compare one-row requests per second; then time them at half of our most."""
    require("wrk")
    known = ("ours", "constant", *ENGINES)
    names = dict(zip(known, ports(len(known)), strict=True))
    rows = rows_of(project.path)
    row = rows[:1]
    with ExitStack() as stack:
        servers = {}
        for name, port in names.items():
            say(f"starting {name}")
            servers[name] = stack.enter_context(started(name, project, row, port, here))
        measured: dict[str, list[float]] = {name: [] for name in servers}
        for turn in range(ROUNDS):
            for name, server in servers.items():
                measured[name].append(load(server, here))
            say(f"{turn + 1}: " + ", ".join(f"{n} {f[-1]:.0f}/s" for n, f in measured.items()))
        best = {name: max(rates) for name, rates in measured.items()}
        half = best["ours"] / 2
        paced = [pace(servers["ours"], half, SECONDS) for _ in range(ROUNDS)]
        failed = [run["failed"] for run in paced if run["failed"]]
        if failed:
            raise SystemExit(f"at {half:.0f} requests a second some failed: {failed}")
        calm = min(paced, key=lambda run: run["p99_ms"] / run["p50_ms"])
        bare = min(pace(servers["constant"], half, SECONDS)["p50_ms"] for _ in range(ROUNDS))
        alone = one_at_a_time(servers["ours"].url, servers["ours"].body.read_bytes(), ALONE)
        batch = json.dumps({"rows": (rows * (1 + BATCH // len(rows)))[:BATCH]}).encode()
        batches = one_at_a_time(servers["ours"].url, batch, BATCHES)
        parts = hot_path(project, servers["ours"].body)
    ratio = calm["p99_ms"] / calm["p50_ms"]
    rest = 1_000 * alone - sum(parts.values())
    return [
        Measure("one-row requests a second, 8 clients", round(best["ours"])),
        Measure(
            "the same ÷ an endpoint that answers a constant",
            best["ours"] / best["constant"],
            least=0.5,
        ),
        Measure("the same ÷ mlflow models serve", best["ours"] / best["mlflow"], least=60.0),
        Measure("the same ÷ BentoML", best["ours"] / best["bentoml"], least=5.0),
        Measure("at half of it: p50, ms", calm["p50_ms"], 2.0),
        Measure("the same of that endpoint, ms", bare),
        Measure("at half of it: p99 ÷ p50", ratio, 4.0),
        Measure("one request at a time: p50, ms", alone, 1.5),
        *(Measure(f"of which {name}, µs", round(spent)) for name, spent in parts.items()),
        Measure("of which HTTP and the way between threads, µs", round(rest)),
        Measure(f"batches of {BATCH:,} rows, rows a second", round(1_000 * BATCH / batches)),
    ]


def memory(project: Project, here: Path) -> Measures:
    """Compare the resident memory of the service after many predictions and after very many."""
    rows = rows_of(project.path)
    rows = (rows * (1 + BATCH // len(rows)))[:BATCH]
    (port,) = ports(1)
    resident = {}
    with started("ours", project, rows, port, here) as server:
        address = urlsplit(server.url)
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
        body = server.body.read_bytes()
        headers = {"Content-Type": "application/json"}
        for sent in range(BATCH, LATE + 1, BATCH):
            client.request("POST", address.path, body, headers)
            answer = client.getresponse()
            if answer.read() and answer.status != 200:
                raise SystemExit(f"a batch of {BATCH} was answered {answer.status}")
            if sent in (EARLY, LATE):
                time.sleep(6)  # what was logged is written every five seconds
                resident[sent] = server.process.memory_info().rss / 1e6
                say(f"{resident[sent]:.0f} MB after {sent:,} predictions")
    what = f"resident memory, {LATE:,} ÷ {EARLY:,} predictions"
    return [
        Measure(f"resident memory after {EARLY:,} predictions, MB", round(resident[EARLY])),
        Measure(what, resident[LATE] / resident[EARLY], 1.1),
    ]


def bulk(project: Project, here: Path) -> Measures:
    """Predict a large file of Parquet, and watch the memory of the process."""
    say(f"a file of {BULK_ROWS:,} rows")
    source = here / "bulk.parquet"
    to = here / "predicted.parquet"
    rows = pl.DataFrame(rows_of(project.path))
    repeats = -(-BULK_ROWS // len(rows))
    pl.concat([rows] * repeats, rechunk=False).head(BULK_ROWS).sample(
        fraction=1, shuffle=True, seed=0
    ).write_parquet(source)
    seconds = []
    peak = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        command = [project.path / ".venv/bin/ml", "predict", source, "--to", to]
        process = psutil.Popen(list(map(str, command)), cwd=project.path, stdout=subprocess.DEVNULL)
        most = 0
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                most = max(most, process.memory_info().rss)
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"ml predict ended with {process.returncode}")
        seconds.append(time.perf_counter() - began)
        peak.append(most / 1e6)
        say(f"{seconds[-1]:.0f} s, {peak[-1]:.0f} MB")
    if pl.scan_parquet(to).select(pl.len()).collect().item() != BULK_ROWS:
        raise SystemExit("there are other rows in the predictions than in the file")
    what = f"ml predict of {BULK_ROWS:,} rows of Parquet"
    return [
        Measure(f"{what}, rows a second", round(BULK_ROWS / min(seconds)), least=150_000),
        Measure(f"{what}, peak memory, MB", round(max(peak)), 1_500),
    ]


def deployments(project: Project, here: Path) -> Measures:
    """Deploy and roll back under load, and count the requests that failed."""
    (port,) = ports(1)
    change(project.path / "config/delivery.yaml", service={"port": port}, watch={"seconds": 1})
    done(project.ml("run"))
    done(project.ml("register"))
    done(project.ml("deploy"))
    url = f"http://127.0.0.1:{port}"
    try:
        first = served(url)
        change(project.path / "config/model.yaml", params={"max_iter": 280})  # nearly as good
        done(project.ml("run"))
        done(project.ml("register"))
        body = here / "deployed.json"
        # All kinds of rows: the shadow replays them.
        body.write_text("\n".join(json.dumps({"rows": [row]}) for row in rows_of(project.path)))
        command = [sys.executable, str(HERE / "paced.py"), f"{url}/predict", "100", "3600"]
        with body.open() as sent:
            paced = subprocess.Popen(command, stdin=sent, stdout=subprocess.PIPE, text=True)
        try:
            for turn in range(DEPLOYMENTS):
                done(project.ml("rollback" if turn % 2 else "deploy"))
                if (served(url) == first) != bool(turn % 2):
                    raise SystemExit(f"after {turn + 1} changes {served(url)} serves")
                say(f"{turn + 1} of {DEPLOYMENTS}: {served(url)} serves")
        finally:
            paced.terminate()  # it then says what it saw
            result = json.loads(paced.communicate(timeout=60)[0])
    finally:
        done(project.ml("stop"))
    say(
        f"{result['sent']:,} requests meanwhile, p99 {result['p99_ms']:.0f} ms; "
        f"{result['failed']} failed"
    )
    what = f"failed requests during {DEPLOYMENTS} deployments and rollbacks"
    return [Measure(what, sum(result["failed"].values()), 0)]


def environment(project: Project, here: Path) -> Measures:
    """Weigh what a service installs, and the image if one can be built here."""
    say("the environment of the service")
    sync = ["uv", "sync", "--locked", "--no-default-groups", "--no-editable"]
    target = here / "environment"
    sizes = []
    for more in ([], ["--compile-bytecode"]):
        done(project.run("env", f"UV_PROJECT_ENVIRONMENT={target}", *sync, *more))
        sizes.append(round(weigh(target)))
    return [
        Measure("service environment, MB", sizes[0], 450),
        Measure("the same with bytecode, MB", sizes[1]),
        *image(project.path, here),
    ]


def image(project: Path, here: Path) -> Measures:
    """Weigh the image, if buildah is here and may build."""
    import test_image

    if os.geteuid() != 0 or not shutil.which("buildah"):
        say("no image: it takes buildah, and root")
        return []
    say("the image")
    buildah = test_image.Buildah(here / "image")
    test_image.build(buildah, project)
    whole, base = (
        round(weigh(Path(buildah("mount", buildah("from", f"localhost/{name}")))))
        for name in ("service", "python")
    )
    return [Measure(f"image, MB, of which {base} are the base", whole)]


def one_at_a_time(url: str, body: bytes, count: int) -> float:
    """Send requests one after the other; return the median of milliseconds."""
    address = urlsplit(url)
    client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        client.request("POST", address.path, body, {"Content-Type": "application/json"})
        response = client.getresponse()
        if response.read() and response.status != 200:
            raise SystemExit(f"{url} answered {response.status}")
        times.append(time.perf_counter() - began)
    return 1_000 * sorted(times)[count // 2]


def hot_path(project: Project, body: Path) -> dict[str, float]:
    """Return the microseconds of each part of answering one row: see engines/hot_path.py."""
    command = [project.path / ".venv/bin/python", HERE / "engines/hot_path.py"]
    command += [project.path / "artifacts/model", body]
    output = subprocess.run(
        list(map(str, command)), cwd=project.path, capture_output=True, text=True, check=True
    ).stdout
    parts: dict[str, float] = json.loads(output)
    return parts


@contextmanager
def started(
    name: str, project: Project, rows: list[dict[str, Any]], port: int, here: Path
) -> Iterator[Server]:
    """Start a server of the project's package, wait until it answers rows, and end it."""
    body = here / f"{name}.json"
    env = os.environ | {
        "BENCH_MODEL": str(project.path / "artifacts/model"),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "true",
        "ML_LOG": str(here / "predictions"),
        "ML_PORT": str(port),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_WAIT_POLICY": "PASSIVE",  # as ours sets it: the fastest for all
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(project.path / "src"),
    }  # fmt: skip
    request: dict[str, Any] = {"rows": rows}
    if name == "ours":
        programs = project.path / ".venv/bin"
        path = "predict"
        command = [programs / "ml", "serve"]
        cwd = project.path
    elif name == "constant":
        programs = project.path / ".venv/bin"
        path = "predict"
        command = [programs / "python", HERE / "engines/constant.py", port]
        cwd = here
    elif name == "mlflow":
        programs = engine(name, project) / "bin"
        path = "invocations"
        request = {"dataframe_records": rows}
        (saved := here / "rows.json").write_text(json.dumps(rows))
        model = here / "mlflow-model"
        save = [programs / "python", HERE / "engines/mlflow_model.py", model, saved]
        subprocess.run(save, env=env, check=True, capture_output=True)
        command = [programs / "mlflow", "models", "serve", "-m", model, "-p", port]
        command += ["--env-manager", "local"]
        cwd = here
    else:
        programs = engine(name, project) / "bin"
        path = "predict"
        command = [programs / "bentoml", "serve", "bento:Rows", "-p", port]
        cwd = HERE / "engines"
    body.write_text(json.dumps(request))
    env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    url = f"http://127.0.0.1:{port}/{path}"
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen(
            list(map(str, command)), cwd=cwd, env=env, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for _ in range(120):
                if process.poll() is None and answers(url, body.read_bytes()):
                    break
                time.sleep(0.5)
            else:
                log.seek(0)
                raise SystemExit(f"{name} does not answer:\n{log.read()[-4000:]}")
            yield Server(process, url, body)
        finally:
            end(process)


def engine(name: str, project: Project) -> Path:
    """Make the environment of another server, unless it is there."""
    python = str(project.path / ".venv/bin/python")
    ask = (
        f"from importlib.metadata import version as v\nfor n in {SHARED}: print(f'{{n}}=={{v(n)}}')"
    )
    shared = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    wanted = [ENGINES[name], *shared.stdout.split()]
    folder = CACHE / name
    note = json.dumps(wanted)
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != note:
        say(f"installing {name} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        base = os.path.realpath(python)
        for command in (
            ["venv", "--quiet", "--python", base, str(folder)],
            ["pip", "install", "--quiet", "--python", str(folder / "bin/python"), *wanted],
        ):
            subprocess.run([uv(), *command], check=True)
        ready.write_text(note)
    return folder


def end(process: psutil.Popen) -> None:
    """End a process and all that it started, whatever of it still runs."""
    below: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        process.terminate()
        psutil.wait_procs([process], timeout=5)
    for running in [*below, process]:
        with suppress(psutil.NoSuchProcess):
            running.kill()
    process.wait()


def load(server: Server, here: Path) -> float:
    """Send as many requests as it takes from 8 clients; how many a second were answered."""
    (script := here / "post.lua").write_text(LUA)
    command = ["wrk", "-t1", "-c8", f"-d{SECONDS}s", "-s", str(script), server.url]
    env = os.environ | {"BENCH_BODY": str(server.body)}
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    if wrong := re.search(r".*(Non-2xx|Socket errors).*", output):
        raise SystemExit(f"{server.url}: {wrong[0].strip()}")
    match = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not match:
        raise SystemExit(f"wrk said what is not understood:\n{output}")
    return float(match[1])


def pace(server: Server, rate: float, seconds: float) -> dict[str, Any]:
    """Send requests at a constant rate from another process: see paced.py."""
    command = [sys.executable, str(HERE / "paced.py"), server.url, str(rate), str(seconds)]
    with server.body.open() as body:
        done = subprocess.run(command, stdin=body, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def rows_of(project: Path) -> list[dict[str, Any]]:
    """Give rows of the source as a client would send them: the features, no gaps in them."""
    package = project / "artifacts/model"
    contract = json.loads((package / "contract.json").read_text("utf-8"))
    features = json.loads((package / "signature.json").read_text("utf-8"))["inputs"]
    rows = pl.read_csv(project / contract["source"], separator=contract["separator"])
    return rows.select(list(features)).drop_nulls().head(BATCH).to_dicts()


def answers(url: str, body: bytes) -> bool:
    """Say whether it answers."""
    address = urlsplit(url)
    try:
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
        client.request("POST", address.path, body, {"Content-Type": "application/json"})
        return client.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def served(url: str) -> str:
    """Ask a service of ours for the version of its model."""
    client = http.client.HTTPConnection(str(urlsplit(url).hostname), urlsplit(url).port, timeout=10)
    client.request("GET", "/version")
    return str(json.load(client.getresponse())["version"])


def change(file: Path, **changes: dict[str, Any]) -> None:
    """Change keys of a file in config/, one level down."""
    content = yaml.safe_load(file.read_text())
    for key, values in changes.items():
        content[key] = (content.get(key) or {}) | values
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    git(file.parent.parent, "commit", "-q", "-a", "-m", f"bench: {', '.join(changes)}")


def ports(count: int) -> list[int]:
    """Give ports that nothing listens to."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def weigh(folder: Path) -> float:
    """Sum the sizes of a folder's files, in megabytes."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()) / 1e6


def require(program: str) -> None:
    """Stop where a program is missing."""
    if not shutil.which(program):
        raise SystemExit(f"{program} is missing: .ci/packages installs it")


def done(result: subprocess.CompletedProcess[str]) -> None:
    """Stop where a command of the project failed."""
    if result.returncode:
        raise SystemExit(f"{result.args} failed:\n{result.stdout}{result.stderr}")


def say(what: str) -> None:
    """Show progress."""
    print(f".. {what}", file=sys.stderr, flush=True)
