"""A champion is scored where its code can only answer: no token, no network, no file of ours.

The attacks run in a package's own code, in a real process with the kernel's own means. What each of
them reached comes back in the message of an exception, the one way out that a package has.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import packages
import polars as pl
import pytest
from rung_runtime import RefusedError, UsageError

Module = Callable[[str], ModuleType]
FEATURES = "problem/features.py"
PLANTED = "glpat-of-the-job"
ATTACKS = """
import ctypes, os, signal, socket, subprocess, sys
from pathlib import Path

def attempt(attack):
    try:
        attack()
        return True
    except BaseException:
        return False

def connect(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as own:
        own.settimeout(2)
        own.connect(address)

def looking(path):
    return path.read_bytes().decode(errors="replace").count(PLANTED) or 1 / 0

def child():
    code = f"open({str(PROJECT / 'src/child.py')!r}, 'w').write('x')"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True) and ""

def everywhere():
    return [k for k, v in os.environ.items() if PLANTED in v][0]

def io_uring():
    libc = ctypes.CDLL(None, use_errno=True)
    return "a ring" if libc.syscall(425, 8, ctypes.create_string_buffer(120)) >= 0 else 1 / 0

def truncate():
    libc = ctypes.CDLL(None, use_errno=True)
    return "cut" if libc.truncate(str(PROJECT / "src/model.py").encode(), 0) == 0 else 1 / 0

attacks = {
    "write": lambda: (PROJECT / "src/model.py").write_text("evil") and "",
    "create": lambda: (PROJECT / "src/new.py").write_text("evil") and "",
    "remove": lambda: (PROJECT / "artifacts/metrics.json").unlink(),
    "link": lambda: os.symlink(PROJECT, PROJECT / "artifacts/link"),
    "truncate": truncate,
    "temporary": lambda: (PROJECT.parent / "outside").write_text("evil") and "",
    "child": child,
    "home": lambda: looking(PROJECT / "home/.docker/config.json"),
    "git": lambda: looking(PROJECT / ".git/config"),
    "environment": everywhere,
    "parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb").close(),
    "kill": lambda: os.kill(os.getppid(), signal.SIGCONT),
    "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", PORT)),
    "unix": lambda: connect(socket.AF_UNIX, str(PROJECT / "docker.sock")),
    "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "io_uring": io_uring,
    "rename": lambda: (PROJECT / "src").rename(PROJECT / "gone") and "",
}
"""


@pytest.fixture(scope="session")
def good(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packages.package(module, tmp_path_factory.mktemp("good") / "model")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with what a champion would like to change, and secrets in reach."""
    folder = tmp_path / "project"
    for name in (
        "src/model.py",
        "artifacts/metrics.json",
        ".git/config",
        "home/.docker/config.json",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PLANTED)
    for name in ("GITHUB_TOKEN", "CI_JOB_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOMETHING_NEW", "ML_X"):
        monkeypatch.setenv(name, PLANTED)
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder


@contextmanager
def isolated(
    module: Module, good: Path, to: Path, code: str, file: str = FEATURES
) -> Iterator[Any]:
    """Open a package with code of an attacker's before its own."""
    made = packages.variant(module, good, to / "package", {file: code})
    opened = module("isolation.model").open_isolated
    with opened(to / "package", made["package_digest"]) as model:
        yield model


def rows(module: Module, good: Path, count: int = 50) -> pl.DataFrame:
    """Return typed rows of the example."""
    inference = module("model_package")
    ingest = module("pipeline.ingest")
    source = ingest.read(packages.ROOT / "template/data/raw/flights.csv", ",").head(count)
    typed: pl.DataFrame = inference.load_package(good).read(source)
    return typed


def confined(module: Module, good: Path) -> bool:
    """Check whether this machine's kernel has what confinement needs."""
    manifest = json.loads((good / "manifest.json").read_text())
    with module("isolation.model").open_isolated(good, manifest["package_digest"]) as model:
        return not model.unconfined


@contextmanager
def listeners(project: Path) -> Iterator[int]:
    """Listen to a port and to a socket in the project, as docker's daemon does."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(project / "docker.sock"))
        unix.listen()
        yield tcp.getsockname()[1]


@pytest.mark.slow
def test_an_isolated_package_answers_what_it_answers_here(
    module: Module, good: Path, project: Path
) -> None:
    typed = rows(module, good)
    here = module("model_package").load_package(good)
    recipe = module("pipeline.recipes").Recipe(here.fitted, here.features, here.request_contract)
    out_of_fold = module("pipeline.recipes").out_of_fold
    source = module("pipeline.ingest").typed(
        module("pipeline.ingest")
        .read(packages.ROOT / "template/data/raw/flights.csv", ",")
        .head(400),
        here.data,
    )
    y_true, (expected,) = out_of_fold([recipe], source, here.data)
    digest = here.manifest["package_digest"]
    for name in [name for name in sys.modules if digest[-12:] in name]:
        del sys.modules[name]
    with module("isolation.model").open_isolated(good, digest) as model:
        assert not [name for name in sys.modules if digest[-12:] in name]
        assert np.array_equal(model.predict(typed), here.predict(typed))
        assert model.failures(typed) == here.failures(typed)
        broken = typed.with_columns(pl.lit(None).cast(pl.Float64).alias("distance_km"))
        assert model.failures(broken) == here.failures(broken)
        nowhere = broken.with_columns(
            pl.when(pl.int_range(pl.len()) % 7 == 3).then("origin").otherwise("dest").alias("dest")
        )
        assert "a flight goes somewhere else" in str(here.all_failures(nowhere))
        for judged in (broken, nowhere, nowhere.drop("seats"), nowhere.clear()):
            assert model.all_failures(judged) == here.all_failures(judged)
        assert np.array_equal(model.out_of_fold(source, here.data, len(y_true)), expected)
        assert (model.version, model.digest, model.data) == (here.version, here.digest, here.data)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="by Linux' own means")
def test_what_a_champion_tries_reaches_nothing(
    module: Module, good: Path, project: Path, tmp_path: Path
) -> None:
    if not confined(module, good):
        pytest.skip(f"{platform.release()} has no Landlock, or no seccomp")
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    tell = "reached = [name for name, attack in attacks.items() if attempt(attack)]\n"
    tell += "raise KeyError(f'{len(attacks)} tried, reached {reached}')\n"
    with listeners(project) as port:
        code = f"from pathlib import Path\nPLANTED = {PLANTED!r}\nPORT = {port}\n"
        code += f"PROJECT = Path({str(project)!r})\n{ATTACKS}\n{tell}"
        with (
            pytest.raises(UsageError) as caught,
            isolated(module, good, tmp_path, code),
        ):
            pass
    assert "18 tried, reached []" in str(caught.value)
    after = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert after == before
    assert not (tmp_path / "outside").exists()


PLAIN = """
import ctypes, subprocess, sys
from rung_runtime.isolation import confinement

# As one who is not root: no capability, and none to be had.
libc = ctypes.CDLL(None)
libc.prctl(confinement.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
confinement._drop_capabilities(libc)
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode)
"""
LOOKING = """
import os, socket, sys
from pathlib import Path
from rung_runtime.isolation.confinement import keep_out

reason = keep_out() if sys.argv[1] == "service" else ""
if reason:
    sys.exit(reason)
parent = Path(f"/proc/{os.getppid()}")
looks = {
    "environ": lambda: (parent / "environ").read_bytes(),
    "maps": lambda: (parent / "maps").read_bytes(),
    "mem": lambda: (parent / "mem").open("rb").close(),
    "cwd": lambda: (parent / "cwd").readlink(),
    "fd": lambda: (parent / "fd/1").readlink(),
}
reached = []
for name, look in looks.items():
    try:
        look()
        reached.append(name)
    except PermissionError:
        pass
print(reached)
# What a service does otherwise, it still does.
Path("one").mkdir()
Path("two").mkdir()
Path("one/log").write_text("x")
Path("one/log").rename("two/log")
socket.create_server(("127.0.0.1", 0)).close()
assert "Name" in Path("/proc/self/status").read_text()
print("it serves")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="by Linux' own means")
@pytest.mark.parametrize("role", ["service", "another"])
@pytest.mark.parametrize("user", ["this one", "a plain one"])
def test_a_service_does_not_look_into_the_process_that_deployed_it(
    tmp_path: Path, role: str, user: str
) -> None:
    first = [sys.executable, "-c", *([PLAIN] if user == "a plain one" else [])]
    done = subprocess.run(
        [*first, LOOKING, role],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(packages.ROOT / "runtime/src")},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Landlock" in done.stderr and role == "service":
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    reached, serves = done.stdout.splitlines()
    assert serves == "it serves"
    # As another process of the same user, it would look into all of them.
    assert (reached == "[]") == (role == "service"), reached


# What a package does instead of predicting so many rows, and what is told of it.
FAILURES = [
    ("return np.zeros((2, 1))", "another shape"),
    ("raise ValueError('first\\n::error::second')", "ValueError: first"),
    ("raise ValueError('::set-output ' + chr(27) + '[2J' + 'x' * 9_999)", "ValueError: ::set"),
    ("raise SystemExit(0)", "SystemExit"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("os._exit(0)", "has ended"),
]


@pytest.mark.slow
def test_an_answer_that_is_none_is_a_package_that_fails(
    module: Module, good: Path, project: Path, tmp_path: Path
) -> None:
    package = module("model_package").__name__.partition(".")[0]
    code = f"import os, numpy as np, {package}.model_package as inference\n"
    code += "def predict(fitted, rows, *_):\n"
    for count, (does, _) in enumerate(FAILURES, 1):
        code += f"    if rows.height == {count}:\n        {does}\n"
    code += "inference.predict = predict\n"
    typed = rows(module, good)
    with isolated(module, good, tmp_path, code) as model:
        for count, (_, reason) in enumerate(FAILURES, 1):
            with pytest.raises(module("isolation.model").PackageError, match=reason) as caught:
                model.predict(typed.head(count))
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) <= 200


@pytest.mark.slow
def test_a_package_that_never_answers_is_given_up_and_named(
    module: Module, good: Path, project: Path, tmp_path: Path
) -> None:
    package = module("model_package").__name__.partition(".")[0]
    code = f"import time, {package}.model_package as inference\n"
    code += "inference.predict = lambda *_: time.sleep(3600)\n"
    typed = rows(module, good)
    error = module("isolation.model").PackageError
    with isolated(module, good, tmp_path, code) as model:
        hurried = replace(model, max_seconds=0.5)
        with pytest.raises(error, match=r"did not answer within 0\.5 seconds"):
            hurried.predict(typed)
        with pytest.raises(error, match="was killed, for too much time or memory"):
            hurried.predict(typed)
        assert hurried.reply(typed, 3).predictions is None


def answering(line: bytes) -> Any:
    """Return a process that has answered so."""

    class Process:
        stdin = Path(os.devnull).open("wb")  # noqa: SIM115

        def __init__(self) -> None:
            read, write = os.pipe()
            self.stdout = os.fdopen(read, "rb")
            self.returncode = 0
            self.poll = lambda: 0
            self.pid = 2**30  # which no process can have
            threading.Thread(target=lambda: os.fdopen(write, "wb").write(line)).start()

    return Process()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b'{"bytes": -1}\n',
        b'{"bytes": 1e99}\n',
        b'{"bytes": "many"}\n',
        b'{"bytes": 99999999999999}\n',
        b'{"shape": [50, 2]}\n',
        b'{"bytes": 800, "shape": [2, 50]}\n' + b"x" * 800,
        b'{"bytes": 800, "shape": [50, 2]}\n' + b"x" * 10,
        b"[" * 100_000 + b"\n",
        b'{"failures": 7, "bytes": 0}\n',
        b'{"failures": [{"column": 1, "rule": "x", "kind": "null"}], "bytes": 0}\n',
        b'{"failures": [{"column": "a", "rule": "x"}], "bytes": 0}\n',
        b'{"failures": [{"column": "a", "rule": 1, "kind": "null"}], "bytes": 0}\n',
        b'{"failures": [{"column": "a", "rule": "x", "kind": "other"}], "bytes": 0}\n',
        b'{"failures": [{"column": "a", "rule": "x", "kind": ["null"]}], "bytes": 0}\n',
        b'{"failures": [{"column": "a", "rule": "x", "kind": "custom"}], "bytes": 0}\n',
        b'{"failures": [{"column": null, "rule": "x", "kind": "type"}], "bytes": 0}\n',
        b'{"rules": ["x"], "bytes": 0}\n',
        b'{"rules": [7], "bytes": 7}\n1234567',
    ],
)
def test_what_a_package_writes_into_the_pipe_is_numbers_or_nothing(
    module: Module, good: Path, line: bytes
) -> None:
    own = module("isolation.model")
    here = module("model_package").load_package(good)
    for ask in ("predict", "failures", "all_failures"):
        model = own.IsolatedModel(
            here.manifest, here.data, here.request_contract, None, None, None, answering(line), ""
        )
        with pytest.raises(own.PackageError):
            getattr(model, ask)(rows(module, good))


@pytest.mark.parametrize("seconds", ["NaN", "0", "-1", "1e9", "1" + "0" * 400])
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_reply_that_could_not_have_been_is_none(
    module: Module, good: Path, seconds: str, value: float
) -> None:
    own = module("isolation.model")
    here = module("model_package").load_package(good)
    sent = rows(module, good)
    shape = (sent.height, len(here.data.classes))
    content = np.full(shape, value).tobytes()
    facts = f'"seconds": {seconds if value == 0.5 else 1e-9}, "shape": {list(shape)}'
    line = f'{{{facts}, "bytes": {len(content)}}}\n'.encode() + content
    model = own.IsolatedModel(
        here.manifest, here.data, here.request_contract, None, None, None, answering(line), ""
    )
    reply = model.reply(sent)
    assert reply.predictions is None
    assert 0 < reply.seconds < 60


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["answers", "fails"])
def test_where_nothing_confines_it_a_runner_refuses_a_champion_that_changed_the_project(
    module: Module,
    good: Path,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
) -> None:
    """As on a kernel without Landlock: there the process may write, and is found out."""
    broken = tmp_path / "lib/sitecustomize.py"
    broken.parent.mkdir()
    name = module("isolation").__name__
    broken.write_text(
        f"import {name}.confinement as own\nown.confine = lambda *_: 'this is a test'\n"
    )
    monkeypatch.syspath_prepend(str(broken.parent))
    monkeypatch.setenv("CI", "true")
    names = ["src/model.py", ".git/hooks/pre-commit", "src/__pycache__/model.cpython-311.pyc"]
    for name in names:
        (project / name).parent.mkdir(exist_ok=True)
    (project / "artifacts/champion").mkdir()
    code = f"for name in {names}: open({str(project)!r} + '/' + name, 'a').write('evil')\n"
    if ends == "fails":  # which alone would be a champion that is gone
        code += "raise ValueError('nothing to see')\n"
    ours = project / "artifacts/champion/fetched"
    with (
        pytest.raises(RefusedError) as caught,
        isolated(module, good, tmp_path, code),
    ):
        ours.write_text("a copy of the best champion so far")
    assert "this is a test" in str(caught.value)
    assert str(caught.value).endswith(f"changed: {', '.join(sorted(names))}")


# --- the process and its folder -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "its process has ended"),
        ("kill -9 $$", "its process was killed, for too much time or memory"),
        ("echo nonsense; exec sleep 600", "what it sends is not a response"),
    ],
)
def test_a_process_that_has_ended_keeps_its_number_until_its_group_was_killed(
    module: Module, script: str, reason: str
) -> None:
    """Another group may have the number of one that was waited for, and would be killed."""
    pipe = module("isolation.pipe")
    with subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        with pytest.raises(pipe.ProcessEndedError, match=reason):
            pipe.read_response(process)
        assert process.returncode is None
        # Of one that was waited for, this is a ChildProcessError.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert pipe.exit_code(process) == (3 if script == "exit 3" else -9)


OWNER = """
import sys, time
from pathlib import Path
from {module}.folder import temporary_home
with temporary_home(Path(sys.argv[1])) as home:
    (home / "package").mkdir()
    print(home, flush=True)
    time.sleep(600)
"""


def test_the_folder_of_a_command_that_was_killed_is_removed_by_the_next_one_and_no_other_is(
    module: Module, tmp_path: Path
) -> None:
    code = OWNER.format(module=module("isolation").__name__)
    # A link is not followed, and who made an empty folder may be about to lock it.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    (tmp_path / "ml-process-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ml-process-made-now").mkdir()
    before = {"elsewhere", "ml-process-link", "ml-process-made-now"}
    owners = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        killed, running = (
            Path(str(owner.stdout and owner.stdout.readline()).strip()) for owner in owners
        )
        owners[0].kill()
        owners[0].wait()
        assert (killed / "package").exists()
        with module("isolation.folder").temporary_home(tmp_path) as home:
            assert {path.name for path in tmp_path.iterdir()} == before | {running.name, home.name}
        assert not home.exists()
        assert (running / "package").exists()
        assert (tmp_path / "elsewhere/file").exists()
    finally:
        for owner in owners:
            owner.kill()
            owner.wait()


@pytest.mark.slow
def test_a_package_that_is_opened_removes_what_a_killed_command_left(
    module: Module, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ml-process-left/package").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    digest = json.loads((good / "manifest.json").read_text())["package_digest"]
    with module("isolation.model").open_isolated(good, digest):
        (used,) = tmp_path.glob("ml-*")
        assert (used / "package/manifest.json").exists()
    assert not list(tmp_path.iterdir())


# --- environment -------------------------------------------------------------------------------

TOKENS = [
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_RUNTIME_TOKEN",
    "CI_JOB_TOKEN",
    "CI_REGISTRY_PASSWORD",
    "CI_JOB_JWT_V2",
    "SIGSTORE_ID_TOKEN",
    "GITLAB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "DOCKER_AUTH_CONFIG",
    "MLFLOW_TRACKING_PASSWORD",
    "DVC_S3_KEY",
    "ML_REGISTRY",
    "ML_JOBS",
    "UV_INDEX_PRIVATE_PASSWORD",
    "HTTPS_PROXY",
    "POLARS_CLOUD_ACCESS_TOKEN",
    "SSH_AUTH_SOCK",
    "KUBECONFIG",
    "A_TOKEN_OF_TOMORROW",
    "ml_port",
]


OF_A_PLATFORM = [
    "ACTIONS_CACHE_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "CIRCLE_TOKEN",
    "CI_DEPENDENCY_PROXY_PASSWORD",
    "CI_DEPLOY_PASSWORD",
    "CI_JOB_JWT",
    "CI_JOB_JWT_V2",
    "CI_JOB_TOKEN",
    "CI_REGISTRY_PASSWORD",
    "CI_REPOSITORY_URL",
    "DOCKER_AUTH_CONFIG",
    "FORGEJO_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GH_TOKEN",
    "GITEA_TOKEN",
    "GITHUB_TOKEN",
    "GITLAB_TOKEN",
    "ML_REGISTRY_AUTH",
    "SIGSTORE_ID_TOKEN",
    "SYSTEM_ACCESSTOKEN",
    "VAULT_ID_TOKEN",
]


@pytest.mark.parametrize("name", OF_A_PLATFORM)
def test_no_setting_hands_a_token_of_the_platform_to_the_service(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "config").mkdir()
    path = tmp_path / "config/delivery.yaml"
    path.write_text(f"service: {{variables: [AWS_SECRET_ACCESS_KEY, {name}]}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "1")
    delivery = module("config.delivery")
    with pytest.raises(UsageError, match=rf"service\.variables: {name} is a token .*: take it out"):
        delivery.load_delivery()
    assert name not in delivery.service_environment()
    # Nor one of the environment, which overrides the file.
    path.write_text("service: {port: 8080}\n")
    monkeypatch.setenv("ML_VARIABLES", f"[{name}]")
    with pytest.raises(UsageError, match=name):
        delivery.load_delivery()
    assert name not in delivery.service_environment()


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
        "CI_COMMIT_SHA",
        "GITHUB_SHA",
        "HTTPS_PROXY",
    ],
)
def test_what_a_service_may_need_is_no_token_of_the_platform(module: Module, name: str) -> None:
    assert not module("isolation.environment").is_platform_token(name)


@pytest.mark.parametrize("target", ["local", "local/staging"])
def test_a_service_gets_no_token_and_no_key(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("service: {variables: [ALLOWED, MISSING]}\n")
    (tmp_path / "service").mkdir()
    monkeypatch.chdir(tmp_path)
    plain = {"ALLOWED", "ML_PORT", "LC_ALL", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
    for name in [*TOKENS, *plain]:
        monkeypatch.setenv(name, "1")

    class StartedError(Exception):
        """Carries the environment that a process would get."""

    def start(*_: Any, env: dict[str, str], **__: Any) -> None:
        raise StartedError(env)

    monkeypatch.setattr(subprocess, "Popen", start)
    staging = module("adapters.target_local.ephemeral").ephemeral_service
    starts = {
        "local": lambda: module("adapters.target_local.supervisor").start_process("serve"),
        "local/staging": lambda: staging(["ml-serve"], 1).__enter__(),
    }
    with pytest.raises(StartedError) as caught:
        starts[target]()
    (env,) = caught.value.args
    assert not set(TOKENS) & set(env)
    assert plain | {"PATH"} <= set(env)
    assert "MISSING" not in env
