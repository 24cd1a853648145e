"""Deployment on one machine: whoever is killed, and whatever is wrong with a model, one serves."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psutil
import pytest
import tables
import warm
from conftest import Copy
from filelock import FileLock
from rung_runtime.adapters.target_local import supervisor
from rung_runtime.delivery.service_folder import SERVICE
from rung_runtime.model_package import reply

slow = pytest.mark.slow
DELIVERY = """\
registry: registry
service: {{port: {port}, log_seconds: 0.3, drain_seconds: 5}}
shadow: {{requests: 80, latency_ratio: 3}}
watch: {{seconds: {seconds}}}
"""
STAGES = ["fetch", "shadow", "promote", "switch", "smoke", "watch"]

# A package with a change to the code that it carries, registered as one that was compared with the
# champion of now: training one for each test would take minutes.
MAKE = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from tempfile import mkdtemp
from rung_runtime import registry
from rung_runtime.artifacts import digest
from rung_runtime.model_package import package_digest
file, old, new = json.loads(sys.argv[1])
folder = copytree("artifacts/model", Path(mkdtemp(), "model"))
manifest = json.loads((folder / "manifest.json").read_text())
text = (folder / file).read_text()
assert old in text
(folder / file).write_text(text.replace(old, new, 1))
(folder / "MODEL_CARD.md").write_text(folder.as_posix())  # no two are alike
manifest["files"] = {name: digest(folder / name) for name in manifest["files"]}
whole = manifest["package_digest"] = package_digest(manifest["files"])
manifest["version"] = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{whole[7:15]}"
manifest["created"] = datetime.now(UTC).isoformat()
(folder / "manifest.json").write_text(json.dumps(manifest))
store, champion = registry.open_registry(), registry.current_champion()
facts = store.versions()[0].facts | {"compared_with": champion.digest if champion else "first"}
store.push(folder, manifest, facts)
print(manifest["version"])
"""
SAME = ("MODEL_CARD.md", "", "")
CODE = ("problem/features.py", "    return ")
SLOW = (*CODE, "    __import__('time').sleep(0.2)\n    return ")
SHIFTED = (*CODE, "    rows = rows.clear(len(rows))\n    return ")
POISONED = "raise ArithmeticError('poisoned')\n    return "
FAILING = (*CODE, f"    {POISONED}")
# Good until a file appears: what only shows under real load.
FRAGILE = (*CODE, f"    if __import__('pathlib').Path('trouble').exists():\n        {POISONED}")


@dataclass
class Loop:
    """A project with a model in service."""

    copy: Copy

    @property
    def path(self) -> Path:
        return self.copy.path

    def ml(self, *args: str, exits: int | None = 0) -> str:
        done = self.copy.ml(*args)
        assert exits in (None, done.returncode), done.stdout + done.stderr
        return done.stdout + done.stderr

    def made(self, change: tuple[str, str, str] = SAME) -> str:
        """Register another package, and give its version."""
        done = self.copy.project.python(MAKE, "-c", json.dumps(change), cwd=self.path)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def deploying(self, version: str) -> Iterator[warm.Program]:
        """Start a deployment; what is left of it at the end is killed."""
        deployer = self.copy.project.start(warm.ML, "ml", "deploy", version, cwd=self.path)
        try:
            yield deployer
        finally:
            deployer.kill()

    def reaches(self, version: str, *stages: str) -> None:
        """Wait for a deployment to be in one of these stages."""
        wait(lambda: (d := self.deployment)["version"] == version and d["stage"] in stages, 180)

    @property
    def deployment(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / "artifacts/deployment.json").read_text())
        return document

    @property
    def running(self) -> dict[str, Any]:
        """The supervisor's own words."""
        supervisor: dict[str, Any] = json.loads((self.path / "service/supervisor.json").read_text())
        return supervisor

    @property
    def champion(self) -> str:
        lines = self.ml("models").splitlines()
        (line,) = [line for line in lines if "champion" in line]
        return next(word for word in line.split() if word[:8].isdigit())

    def answers(self, path: str = "/version", body: Any = None, seconds: float = 30) -> Any:
        """Ask as a patient caller does."""
        url = urlsplit(self.running["url"])
        until = time.monotonic() + seconds
        while True:
            try:
                caller = http.client.HTTPConnection(str(url.hostname), url.port, timeout=seconds)
                text = None if body is None else json.dumps(body)
                caller.request("POST" if text else "GET", path, text)
                answer = caller.getresponse()
                assert answer.status == 200, answer.read()
                return json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < until, "nobody answers"
                time.sleep(0.05)

    @property
    def serves(self) -> str:
        return str(self.answers()["version"])

    def kills(self, *who: str) -> None:
        """Kill supervisor or service as no program can see coming."""
        processes = self.running
        for name in who:
            with suppress(ProcessLookupError):
                os.kill(processes["pid" if name == "supervisor" else "service"], signal.SIGKILL)

    @property
    def row(self) -> dict[str, Any]:
        """A row that any model here answers."""
        paths = self.answers("/openapi.json")["paths"]["/predict"]["post"]["requestBody"]
        rows: list[dict[str, Any]] = paths["content"]["application/json"]["example"]["rows"]
        return rows[0]


def wait(until: Callable[[], object], seconds: float = 60) -> None:
    """Look again and again, but not for ever."""
    end = time.monotonic() + seconds
    while True:
        with suppress(LookupError, OSError, ValueError):
            if until():
                return
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


def lives(process: int) -> bool:
    """Tell whether there is such a process, and not only what nobody has asked after."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.fixture(scope="module")
def loop(
    ran: Callable[..., Copy],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loop]:
    """Give a service with a first model, for all tests of a worker."""
    service = Loop(ran(1, "binary").again(tmp_path_factory.mktemp("loop") / "project"))
    (service.path / "config/delivery.yaml").write_text(DELIVERY.format(port=0, seconds=1))
    service.ml("register")
    service.ml("deploy")
    rows = pl.read_csv(tables.FLIGHTS, n_rows=180).drop("delayed").to_dicts()
    for first in (0, 60, 120):  # so that there is a log to replay
        service.answers("/predict", {"rows": rows[first : first + 60]})
    yield service
    service.ml("stop", exits=None)


class Load:
    """Callers who keep their connections and ask without a pause."""

    def __init__(self, loop: Loop, callers: int = 2) -> None:
        url = urlsplit(loop.running["url"])
        self.to = (str(url.hostname), url.port)
        self.body = json.dumps({"rows": [loop.row]})
        self.answered: list[str] = []
        self.failed: list[str] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def _call(self) -> None:
        caller = http.client.HTTPConnection(*self.to, timeout=30)
        while not self.ended.is_set():
            try:
                caller.request("POST", "/predict", self.body)
                answer = caller.getresponse()
                document = json.loads(answer.read())
                if answer.status == 200:
                    self.answered.append(document["version"])
                else:
                    self.failed.append(f"{answer.status} {document}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                caller.close()
            time.sleep(0.005)

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Scores:
    """A model of one number, in the place of a package."""

    def __init__(self, package: ModuleType, slope: float, column: str = "x") -> None:
        columns = {column: package.Column(type="number")}
        facts: dict[str, Any] = {"columns": columns, "gaps": [""], "decimal": ".", "classes": []}
        self.data = self.request_contract = package.Data.model_construct(task="regression", **facts)
        self.slope = slope
        self.column = column
        self.model = self
        self.example = {column: 0.5}
        self.profile: dict[str, Any] = {}

    def read(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select(self.column)

    def failures(self, rows: pl.DataFrame) -> list[str]:
        return ["null"] if rows[self.column].null_count() else []

    def predict(self, rows: pl.DataFrame) -> Any:
        return (rows[self.column] * self.slope).to_numpy()

    def reply(self, rows: pl.DataFrame, tries: int) -> Any:
        return reply(self, rows, tries)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def package(module: Callable[[str], ModuleType]) -> Callable[[str], ModuleType]:
    """Import modules of the runtime."""
    return module


@pytest.fixture
def shadowed(
    package: Callable[[str], ModuleType], tmp_path: Path
) -> Callable[..., tuple[dict[str, Any], str | None]]:
    """Give a function: what the shadow says of two models and a log, and why it refuses."""

    def shadowed(
        new: Scores, old: Scores | None, log: pl.DataFrame | None = None, **service: Any
    ) -> tuple[dict[str, Any], str | None]:
        if log is not None:
            now = datetime.now(UTC).replace(tzinfo=None)
            folder = tmp_path / f"date={now:%F}"
            folder.mkdir()
            whole = log.with_columns(time=pl.lit(now), version=pl.lit("v1"))
            whole.write_parquet(folder / "000000_v1_0.parquet")
        settings = package("config.delivery")
        kept = settings.Service(log=str(tmp_path), **service)
        wanted = settings.Delivery(service=kept, shadow=settings.Shadow(latency_ratio=1e6))
        document: dict[str, Any] = {}
        try:
            package("delivery.shadow").shadow(new, old, wanted, document)
        except package("exceptions").RefusedError as refused:
            return document, str(refused)
        return document, None

    return shadowed


Shadowed = Callable[..., tuple[dict[str, Any], str | None]]


def logged(values: list[float | None], each: int = 1) -> pl.DataFrame:
    """A log of requests of so many rows each."""
    names = [f"r{index // each}" for index in range(len(values))]
    return pl.DataFrame({"request_id": names, "x:x": values}, {"request_id": str, "x:x": float})


@slow
def test_shift_is_judged_on_enough_rows(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    old, new = (Scores(package("config"), slope) for slope in (1.0, 2.0))
    document, refused = shadowed(new, old, logged([i / 99 for i in range(100)], each=2))
    assert (document["requests"], document["rows"], document["errors"]) == (50, 100, 0)
    assert document["shift"] == pytest.approx(0.5 / 0.9, abs=0.01)  # of the champion's range
    assert document["agreement"] == pytest.approx(1)
    assert refused is not None
    assert "its predictions are 0.56 away" in refused


def test_shift_of_a_few_rows_is_told_but_not_judged(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    old, new = (Scores(package("config"), slope) for slope in (1.0, 2.0))
    document, refused = shadowed(new, old, logged([1.0, 2.0, 3.0]))
    assert document["shift"] > 0.4
    assert refused is None


def test_requests_that_the_champion_cannot_answer_do_not_count(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    models = [Scores(package("config"), 1.0) for _ in range(2)]
    document, refused = shadowed(*models, logged([1.0, None, 3.0]))
    assert (document["requests"], document["errors"], refused) == (2, 0, None)


def test_a_column_that_callers_do_not_send_yet_is_an_error(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    old = Scores(package("config"), 1.0)
    new = Scores(package("config"), 1.0, column="y")
    document, refused = shadowed(new, old, logged([1.0, 2.0]))
    assert (document["requests"], document["errors"]) == (2, 2)
    assert refused is not None
    assert "2 of 2 requests fail" in refused


def test_an_answer_that_is_no_number_is_an_error(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    old = Scores(package("config"), 1.0)
    new = Scores(package("config"), float("nan"))
    document, refused = shadowed(new, old, logged([1.0, 2.0]))
    assert (document["requests"], document["errors"]) == (2, 2)
    assert refused is not None


def test_private_columns_are_asked_with_a_common_value(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    models = [Scores(package("config"), 1.0, column="y") for _ in range(2)]
    document, refused = shadowed(*models, logged([1.0, 2.0]), private=["y"])
    assert (document["requests"], document["errors"], refused) == (2, 0, None)
    assert document["note"] == "private, so sent with a common value: y"


@pytest.mark.parametrize(("slow_at_first", "ratio"), [(True, 1), (False, 100)])
def test_a_candidate_that_a_busy_machine_slowed_down_is_measured_again(
    package: Callable[[str], ModuleType], slow_at_first: bool, ratio: float
) -> None:
    module = package("delivery.shadow")
    new, old = (Scores(package("config"), 1.0) for _ in range(2))
    calls: list[int] = []

    def slow(rows: pl.DataFrame, tries: int) -> Any:
        calls.append(tries)
        is_slow = len(calls) < 3 or not slow_at_first
        return reply(new, rows, tries)._replace(seconds=1.0 if is_slow else 0.01)  # type: ignore[arg-type]

    new.reply = slow  # type: ignore[method-assign]
    old.reply = lambda rows, tries: reply(old, rows, tries)._replace(seconds=0.01)  # type: ignore[method-assign,arg-type]
    errors, replay = module._replay(new, old, [pl.DataFrame({"x": [1.0]})], 3.0)
    assert errors == 0
    assert replay.seconds[0, 0] / replay.seconds[0, 1] == pytest.approx(ratio)
    assert len(calls) == (3 if slow_at_first else module.MAX_ROUNDS)


def test_without_a_log_the_commonest_row_is_asked(
    package: Callable[[str], ModuleType], shadowed: Shadowed
) -> None:
    models = [Scores(package("config"), 1.0) for _ in range(2)]
    document, refused = shadowed(*models)
    assert (document["requests"], document["rows"], refused) == (1, 1, None)
    assert "no request is logged" in document["note"]
    document, refused = shadowed(models[0], None)
    assert (document, refused) == ({"note": "the first model has no champion beside it"}, None)


def stages_shown(output: str) -> list[str]:
    """Return the stages that a command has shown the end of."""
    return [line.split()[1] for line in output.splitlines() if line.startswith("✓")]


@slow
def test_a_deployed_model_serves_and_is_champion(loop: Loop) -> None:
    first = loop.serves
    version = loop.made()
    output = loop.ml("deploy")
    assert stages_shown(output) == STAGES
    assert loop.serves == loop.champion == version
    document = loop.deployment
    assert (document["verdict"], document["stage"], document["previous"]) == (
        "deployed",
        "done",
        first,
    )
    assert document["shadow"]["requests"] >= 1
    assert document["shadow"]["errors"] == 0
    assert document["shadow"]["shift"] == 0
    assert document["smoke"]["package_digest"] == loop.answers()["package_digest"]
    assert version in output
    assert "is serving already" in loop.ml("deploy")
    assert "answers as the model does" in loop.ml("smoke")
    output = loop.ml("rollback")
    assert first in output
    assert stages_shown(output) == [stage for stage in STAGES if stage != "shadow"]
    assert loop.serves == loop.champion == first
    if sys.platform == "linux":  # it has given up what would let it look into a deployer
        status = Path(f"/proc/{loop.running['service']}/status").read_text()
        assert "NoNewPrivs:\t1" in status


ATTACK = """
import os as _os
reached = []
for name, attack in {{
    "token": lambda: _os.environ["GITHUB_TOKEN"],
    "parent": lambda: open(f"/proc/{{_os.getppid()}}/environ", "rb").read(),
    "socket": lambda: __import__("socket").socket(),
    "project": lambda: open({path!r} + "/service/desired.json").read(),
    "config": lambda: open({path!r} + "/config/gate.yaml", "a"),
}}.items():
    try:
        attack()
        reached.append(name)
    except (OSError, LookupError):
        pass
raise ArithmeticError(f"reached {{reached}}")
"""


@slow
@pytest.mark.parametrize("command", ["deploy", "smoke"])
def test_what_is_deployed_reaches_nothing_of_the_deployer(loop: Loop, command: str) -> None:
    """It runs there before it serves: for the shadow, and for what the service has to answer."""
    before = loop.serves
    attack = ATTACK.format(path=str(loop.path))
    hostile = loop.made(("problem/features.py", "import polars as pl", f"{attack}\nimport polars"))
    done = loop.copy.project.python(
        warm.ML, "ml", command, hostile, cwd=loop.path, GITHUB_TOKEN="secret-of-the-job"
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "ArithmeticError: reached []" in done.stderr
    assert loop.serves == loop.champion == before


@slow
def test_staging_serves_for_a_moment_and_changes_nothing(loop: Loop) -> None:
    first = loop.serves
    version = loop.made()
    before = loop.running
    output = loop.ml("deploy", "--target", "staging")
    assert f"{version} passed local/staging" in output
    assert (loop.deployment["verdict"], loop.deployment["target"]) == ("deployed", "local/staging")
    assert loop.deployment["smoke"]["url"] != before["url"]
    assert loop.serves == loop.champion == first
    assert loop.running == before
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{loop.deployment['smoke']['url']}/readyz", timeout=5)
    loop.ml("deploy")
    assert f"{first} passed local/staging, after {version}" in loop.ml(
        "rollback", "--target", "staging"
    )
    assert f"{version} passed" in loop.ml("deploy", "champion", "--target", "staging")
    assert loop.serves == loop.champion == version


@slow
def test_a_model_that_fails_in_staging_is_refused(loop: Loop) -> None:
    first = loop.serves
    version = loop.made(FAILING)
    assert "requests fail" in loop.ml("deploy", version, "--target", "staging", exits=1)
    assert loop.serves == loop.champion == first


@slow
def test_on_a_runner_that_keeps_nothing_a_deployment_says_that_it_was_a_rehearsal(
    loop: Loop,
) -> None:
    project = loop.copy.project
    for workspace, rehearsed in ((loop.path, True), (loop.path.parent, False)):
        job = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_REPOSITORY": "team/project",
            "ML_REGISTRY": "registry",
        }
        version = loop.made()
        done = project.python(warm.ML, "ml", "deploy", version, cwd=loop.path, **job)
        assert done.returncode == 0, done.stderr
        assert ("::notice::This was a rehearsal" in done.stdout) == rehearsed
        done = project.python(warm.ML, "ml", "monitor", cwd=loop.path, **job)
        assert done.returncode == 0, done.stderr
        assert ("::notice::Nothing is monitored" in done.stdout) == rehearsed


@slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (FAILING, "requests fail that the champion answers"),
        (SLOW, "times as long as the champion"),
        (SHIFTED, "in another order than the champion"),
    ],
)
def test_a_worse_model_is_refused_in_the_shadow(
    loop: Loop, change: tuple[str, str, str], reason: str
) -> None:
    before = loop.serves
    worse = loop.made(change)
    assert reason in loop.ml("deploy", worse, exits=1)
    assert loop.deployment["verdict"] == "refused"
    assert loop.deployment["stage"] == "shadow"
    assert loop.serves == loop.champion == before
    assert reason in loop.ml("status")


@slow
def test_a_worse_model_that_was_promoted_by_hand_meets_the_shadow_too(loop: Loop) -> None:
    before = loop.serves
    worse = loop.made(FAILING)
    loop.ml("promote", worse)
    assert loop.champion == worse
    assert "refused in the shadow" in loop.ml("deploy", worse, exits=1)
    assert loop.serves == loop.champion == before


@slow
def test_a_model_that_fails_while_it_is_watched_is_taken_back(loop: Loop) -> None:
    before = loop.serves
    worse = loop.made(FRAGILE)
    trouble = loop.path / "trouble"
    row = loop.row
    (loop.path / "config/delivery.yaml").write_text(DELIVERY.format(port=0, seconds=20))
    try:
        with loop.deploying(worse) as deployer:
            loop.reaches(worse, "watch")
            trouble.touch()
            for _ in range(5):  # a single one may be an accident
                with pytest.raises(AssertionError, match="the model cannot answer"):
                    loop.answers("/predict", {"rows": [row]})
            ended = deployer.wait(timeout=60)
            assert ended.returncode == 1, ended.stderr
    finally:
        trouble.unlink(missing_ok=True)
        (loop.path / "config/delivery.yaml").write_text(DELIVERY.format(port=0, seconds=1))
    assert "was rolled back" in ended.stderr
    assert loop.deployment["verdict"] == "rolled_back"
    assert 2 <= loop.deployment["watch"]["errors"] <= 5
    assert loop.deployment["watch"]["verdict"] == "failed"
    assert loop.serves == loop.champion == before


@slow
def test_smoke_tells_another_model_from_the_champion(loop: Loop) -> None:
    serving = loop.serves
    other = loop.made()
    loop.ml("promote", other)  # behind the service's back
    output = loop.ml("smoke", exits=1)
    assert f"serves {serving}, not {other}" in output
    assert other in loop.ml("status")  # which says what to do
    loop.ml("rollback", exits=None)
    assert loop.serves == loop.champion == serving
    assert "answers as the model does" in loop.ml("smoke")


# The service may die with the deployer at each stage, too: make test has two of these.
KILLS: list[tuple[str, tuple[str, ...]]] = [(stage, ("deployer",)) for stage in STAGES]
KILLS += [(stage, ("deployer", "service")) for stage in ("shadow", "switch")]
MORE_KILLS = [(stage, ("deployer", "service")) for stage in ("fetch", "promote", "smoke", "watch")]


@slow
@pytest.mark.parametrize(
    ("stage", "who"),
    [*KILLS, *(pytest.param(*case, marks=pytest.mark.nightly) for case in MORE_KILLS)],
    ids=lambda part: part if isinstance(part, str) else " and ".join(part),
)
def test_a_killed_deployment_is_finished_or_undone(
    loop: Loop, stage: str, who: tuple[str, ...]
) -> None:
    for _ in range(5):  # on a busy machine, a stage of some milliseconds may pass unseen
        before = loop.serves
        new = loop.made()
        with loop.deploying(new) as deployer:
            loop.reaches(new, stage, "done")
            deployer.kill()
            loop.kills(*who[1:])
            deployer.wait()
        if loop.deployment["verdict"] == "running":
            break
    assert loop.serves in (before, new)
    assert loop.deployment["verdict"] == "running"
    status = loop.ml("status")
    assert f"killed in its stage {stage}" in status
    assert loop.deployment["verdict"] == "repaired"
    assert loop.serves == loop.champion
    assert loop.serves in (before, new)
    if stage in ("fetch", "shadow"):
        assert loop.serves == before
    if stage in ("smoke", "watch"):
        assert loop.serves == new
    assert not list((loop.path / "service/models").glob(".*"))
    assert "killed" not in loop.ml("status")


@slow
def test_a_champion_whose_deployer_died_before_the_switch_is_taken_back(loop: Loop) -> None:
    before = loop.serves
    new = loop.made()
    with loop.deploying(new) as deployer:
        loop.reaches(new, "shadow")
        deployer.kill()
        deployer.wait()
    loop.ml("promote", new)  # the last that it did, a moment later
    assert loop.champion == new
    assert "undone" in loop.ml("status")
    assert loop.serves == loop.champion == before


@slow
@pytest.mark.parametrize("stage", ["shadow", "switch", "watch"])
def test_a_deployment_survives_the_death_of_the_service(loop: Loop, stage: str) -> None:
    new = loop.made()
    with loop.deploying(new) as deployer:
        loop.reaches(new, stage)
        loop.kills("service")
        ended = deployer.wait(timeout=90)
    assert ended.returncode == 0, ended.stderr
    assert loop.serves == loop.champion == new


@slow
def test_whoever_dies_is_started_again_and_callers_wait(loop: Loop) -> None:
    version = loop.serves
    for who in (["service"], ["supervisor"], ["service"], ["supervisor"], ["supervisor"]):
        before = loop.running
        loop.kills(*who)
        assert loop.serves == version
        wait(
            lambda before=before, who=who: all(  # type: ignore[misc]
                loop.running[key] != before[key] and lives(loop.running[key])
                for key in ("pid" if name == "supervisor" else "service" for name in who)
            )
        )
    loop.kills("supervisor", "service")
    wait(lambda: not lives(loop.running["service"]))
    assert version in loop.ml("status")
    assert loop.serves == version


def test_a_dead_supervisor_is_never_taken_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SERVICE.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", ""]
    ) as dead:  # a zombie, as all are in a container without an init
        wait(lambda: not lives(dead.pid))
        record = {"pid": dead.pid, "service": dead.pid, "port": 1, "url": "of before", "code": "c"}
        supervisor.write_json(supervisor.RUNNING, record)
        assert supervisor.running() is None
        with FileLock(supervisor.LOCK):  # the next one, which has not written anything yet
            assert supervisor.running() is None
            supervisor.write_json(supervisor.RUNNING, record | {"pid": os.getpid()})
            assert supervisor.running() == record | {"pid": os.getpid()}


@slow
@pytest.mark.parametrize("rounds", [4, pytest.param(10, marks=pytest.mark.nightly)])
def test_no_request_fails_during_deployments_and_rollbacks(loop: Loop, rounds: int) -> None:
    first = loop.serves
    second = loop.made()
    config = loop.path / "config/delivery.yaml"
    brief = DELIVERY.format(port=0, seconds=0.2).replace("requests: 80", "requests: 5")
    config.write_text(brief)
    switch = "import sys\nfrom rung_runtime import delivery\n"
    switch += f"for _ in range({rounds}): delivery.deploy(sys.argv[1]), delivery.rollback()"
    with Load(loop) as load:
        done = loop.copy.project.python(switch, "-c", second, cwd=loop.path)
    config.write_text(DELIVERY.format(port=0, seconds=1))
    assert done.returncode == 0, done.stderr
    assert not load.failed
    assert set(load.answered) == {first, second}
    moves = sum(a != b for a, b in zip(load.answered, load.answered[1:], strict=False))
    assert moves >= 2 * rounds, moves
    assert loop.serves == loop.champion == first


@slow
def test_one_deployer_at_a_time(loop: Loop) -> None:
    new = loop.made()
    with loop.deploying(new) as deployer:
        loop.reaches(new, "fetch")
        assert "is held by another command" in loop.ml("deploy", exits=2)
        ended = deployer.wait(timeout=90)
    assert ended.returncode == 0, ended.stderr


@slow
def test_a_port_that_is_taken_is_told_of(ran: Callable[..., Copy], tmp_path: Path) -> None:
    alone = Loop(ran(1, "binary").again(tmp_path / "project"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (alone.path / "config/delivery.yaml").write_text(DELIVERY.format(port=port, seconds=1))
        alone.ml("register")
        output = alone.ml("deploy", exits=2)
    assert f"127.0.0.1:{port} cannot be listened to" in output
    assert "service.port" in output
    assert not (alone.path / "service/desired.json").exists()


@slow
def test_stop_ends_it_and_deploy_starts_it_again(loop: Loop) -> None:
    version = loop.serves
    before = loop.running
    assert "has ended" in loop.ml("stop")
    wait(lambda: not lives(before["pid"]) and not lives(before["service"]), 5)
    assert "nothing is deployed" in loop.ml("status")
    assert "no service was running" in loop.ml("stop")
    loop.ml("deploy", version)
    assert loop.serves == loop.champion == version


@slow
def test_a_config_that_is_broken_does_not_keep_the_service_from_starting_again(loop: Loop) -> None:
    version = loop.serves
    config = loop.path / "config/delivery.yaml"
    good = config.read_text()
    before = loop.running["service"]
    config.write_text(good + "\nbad: [\n")
    try:
        loop.kills("service")
        assert loop.serves == version
        assert loop.running["service"] != before
    finally:
        config.write_text(good)


@slow
def test_a_private_column_that_is_misspelt_is_told_and_nothing_changes(loop: Loop) -> None:
    version = loop.serves
    config = loop.path / "config/delivery.yaml"
    good = config.read_text()
    new = loop.made()
    config.write_text(good.replace("log_seconds: 0.3", "log_seconds: 0.3, private: [seatz]", 1))
    try:
        output = loop.ml("deploy", new, exits=2)
    finally:
        config.write_text(good)
    assert "seatz" in output
    assert loop.serves == loop.champion == version
