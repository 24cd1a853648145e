"""The image: built and started for real, by buildah, over a base of this machine's own packages.

Nothing is pulled: the base is the files of the Debian packages that Python and pip need.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import packages
import psutil
import pytest
from bench_service import end, rows_of
from conftest import ROOT, Copy, copy, run
from filelock import FileLock

pytestmark = [
    pytest.mark.slow,  # and root, for buildah's isolation by chroot
    pytest.mark.needs("buildah", "dpkg-query", "/usr/bin/python3", "tar", root=True),
]
PACKAGES = ["python3", "python3-pip", "ca-certificates", "coreutils", "findutils", "dash", "bash"]
TRAINING = ["alembic", "cryptography", "dvc", "mlflow", "pandera", "pytest", "ruff", "sqlalchemy"]
CONFIGURED = re.compile(r"(PIP|UV)_.*(INDEX|FIND_LINKS|HOST|TIMEOUT|CERT|TLS)|SSL_CERT_.*|.*_PROXY")


@dataclass(frozen=True)
class Buildah:
    """A store of images that is this test's own, with the machine's leave to use any image."""

    folder: Path
    driver: str = "vfs"  # works everywhere, and copies everything

    def command(self, *args: str) -> list[str]:
        store = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        return ["buildah", *store, "--storage-driver", self.driver, *args]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HOME": str(self.folder / "home")}

    def __call__(self, *args: str) -> str:
        done = subprocess.run(
            self.command(*args), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{args}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()


def overlays(folder: Path) -> bool:
    """Check whether a folder can be mounted over another: if not, each layer is a copy."""
    for name in ("lower", "upper", "work", "both"):
        (folder / name).mkdir()
    options = "lowerdir=lower,upperdir=upper,workdir=work"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, "both"]
    if subprocess.run(mount, cwd=folder, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", "both"], cwd=folder, check=True)
    return True


@pytest.fixture(scope="session")
def image(
    ran: Callable[[int, str], Copy], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Buildah, str]]:
    """Build the image of a project that has run, once for all workers; the name of a container."""
    copy = ran(1, "binary")
    driver = "overlay" if overlays(tmp_path_factory.mktemp("overlay")) else "vfs"
    buildah = Buildah(copy.path.parent / "image", driver)
    with FileLock(copy.path.parent / "image.lock"):
        if not (buildah.folder / "ready").exists():
            shutil.rmtree(buildah.folder, ignore_errors=True)
            build(buildah, copy.path)
            (buildah.folder / "ready").touch()
        container = buildah("from", "localhost/service")
    yield buildah, container
    buildah("rm", container)


def build(buildah: Buildah, project: Path, *volumes: Path) -> None:
    """Build the image of a project, and the base that it stands on; volumes are there to read."""
    buildah.folder.mkdir()
    base(buildah)
    options = ["--isolation", "chroot", "--format", "docker", "--tag", "localhost/service"]
    options += ["--build-arg", "PYTHON=localhost/python", "--build-arg", "VERSION=1.2.3"]
    for config in ("/etc/pip.conf", "/etc/uv", "/etc/xdg/uv", *map(str, volumes)):
        if Path(config).exists():
            options += ["--volume", f"{config}:{config}:ro"]
    buildah("bud", *options, str(project))


def base(buildah: Buildah) -> None:
    """Make an image of Python and pip as this machine has them, and of how it reaches PyPI."""
    policy = buildah.folder / "home/.config/containers/policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    listed = subprocess.run(
        ["dpkg", "-L", *closure(PACKAGES)], capture_output=True, text=True, check=True
    ).stdout
    unread = re.compile(r"/\.|[^/]|/usr/share/(doc|man|locale|info)/")
    files = sorted({line for line in listed.splitlines() if not unread.match(line)})
    pack = ["tar", "-cf", "-", "-C", "/", "--no-recursion", "--ignore-failed-read", "-T", "-"]
    packed = subprocess.run(pack, input="\n".join(files).encode(), capture_output=True, check=True)
    unpack = ["tar", "-xf", "-", "-C", str(root), "--keep-directory-symlink"]
    subprocess.run(unpack, input=packed.stdout, check=True)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "usr/bin/python").symlink_to("python3")
    for name in ("proc", "sys", "dev", "tmp", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copytree("/etc/ssl/certs", root / "etc/ssl/certs", dirs_exist_ok=True)
    # Debian's pip asks for this, which the official images do without.
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
    variables |= {k: v for k, v in os.environ.items() if CONFIGURED.fullmatch(k.upper())}
    environment = [
        word for name, value in variables.items() for word in ("--env", f"{name}={value}")
    ]
    buildah("config", *environment, container)
    buildah("commit", "--rm", container, "localhost/python")


def closure(packages: list[str]) -> set[str]:
    """Name installed packages with all that they depend on."""
    shown = "${Package}\t${Depends}, ${Pre-Depends}\t${Provides}\n"
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", shown], capture_output=True, text=True, check=True
    ).stdout
    depends: dict[str, list[list[str]]] = {}
    provided: dict[str, str] = {}
    for package, needs, provides in (line.split("\t") for line in listed.splitlines()):
        depends[package] = [names(choice.split("|")) for choice in needs.split(",")]
        provided |= dict.fromkeys(names(provides.split(",")), package)
    closed: set[str] = set()
    todo = list(packages)
    while todo:
        package = todo.pop()
        if package in depends and package not in closed:
            closed.add(package)
            for choice in depends[package]:
                known = (n if n in depends else provided.get(n) for n in choice)
                todo += list(filter(None, known))[:1]
    return closed


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[:(\[ ]", requirement.strip())[0] for requirement in requirements]


@contextmanager
def running(
    buildah: Buildah, container: str, *options: str
) -> Iterator[tuple[psutil.Popen, psutil.Process, str]]:
    """Start the container as its image says; buildah, the service in it, and its address."""
    config = described(buildah)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = ["run", "--isolation", "chroot", "--env", f"ML_PORT={port}", *options, container, "--"]
    log = buildah.folder / f"{container}-{port}.log"
    with log.open("w") as output:
        process = psutil.Popen(
            buildah.command(*run, *config["Entrypoint"], *config["Cmd"]),
            env=buildah.environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                assert process.poll() is None, log.read_text()
                if ready(url):
                    break
                time.sleep(0.1)
            else:
                pytest.fail(f"not ready after 30 s:\n{log.read_text()}")
            (service,) = [c for c in process.children(recursive=True) if not c.children()]
            yield process, service, url
        finally:
            end(process)


def ready(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{url}/readyz", timeout=5).status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def described(buildah: Buildah) -> dict[str, Any]:
    """Give the configuration that a container runtime would start the image with."""
    image = json.loads(buildah("inspect", "--type", "image", "localhost/service"))
    config: dict[str, Any] = image["Docker"]["config"]
    return config


def python(buildah: Buildah, container: str, code: str) -> str:
    return buildah("run", "--isolation", "chroot", container, "--", "python", "-c", code)


def test_the_image_serves_its_model_as_nobody_and_ends_when_told(
    image: tuple[Buildah, str], ran: Callable[[int, str], Copy]
) -> None:
    buildah, container = image
    copy = ran(1, "binary")
    row = rows_of(copy.path)[0]
    with running(buildah, container) as (process, service, url):
        assert service.uids().real == service.uids().effective == 10001
        body = json.dumps({"rows": [row]}).encode()
        request = urllib.request.Request(
            f"{url}/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answered:
            answer = json.load(answered)
        manifest = json.loads((copy.path / "artifacts/model/manifest.json").read_text())
        offline = json.loads(copy.ml("predict", "--json", json.dumps(row), exits=0).stdout)
        assert answer["version"] == manifest["version"]
        assert answer["predictions"][0]["prediction"] == offline["prediction"]
        service.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_image_serves_and_logs_as_any_user_of_group_0(
    image: tuple[Buildah, str], ran: Callable[[int, str], Copy]
) -> None:
    """As on OpenShift, which chooses a user that no file of the image knows; in one volume."""
    row = rows_of(ran(1, "binary").path)[0]
    for user in (10_001, 1_000_650_000):
        options = ("--user", f"{user}:0", "--env", "ML_LOG_SECONDS=0.2")
        with running(*image, *options) as (_process, service, url):
            assert (service.uids().effective, service.gids().effective) == (user, 0)
            body = json.dumps(row).encode()
            request = urllib.request.Request(f"{url}/predict", body)
            assert json.load(urllib.request.urlopen(request, timeout=30))["predictions"]
            metrics = ""
            while "ml_log_written_rows_total 1.0" not in metrics:
                metrics = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
                assert "ml_log_failures_total 0.0" in metrics
                time.sleep(0.1)


def test_the_service_writes_nothing_outside_its_volume(image: tuple[Buildah, str]) -> None:
    buildah, container = image
    root = Path(buildah("mount", container))
    (marker := buildah.folder / "marker").touch()
    with running(buildah, container) as (process, service, _):
        service.send_signal(signal.SIGTERM)
        process.wait(30)
    find = ["find", str(root), "-xdev", "-newer", str(marker), "-type", "f"]
    written = subprocess.run(find, capture_output=True, text=True, check=True).stdout
    assert not written


def test_the_image_has_no_dependency_of_training_nor_of_a_compiled_estimator(
    image: tuple[Buildah, str],
) -> None:
    buildah, container = image
    ask = "import importlib.util as of; print([n for n in {} if of.find_spec(n)])"
    estimator_libraries = ["joblib", "scipy", "skops", "sklearn"]
    importable = python(
        buildah, container, ask.format([*TRAINING, *estimator_libraries, "fastapi"])
    )
    assert importable == "['fastapi']"


def test_the_image_says_what_it_is(image: tuple[Buildah, str]) -> None:
    config = described(image[0])
    assert config["User"] == "10001:0"
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_the_image_knows_when_it_is_not_well(image: tuple[Buildah, str]) -> None:
    buildah, container = image
    check = described(buildah)["Healthcheck"]["Test"][1:]
    with running(buildah, container) as (_process, _service, url):
        port = url.rpartition(":")[2]
        run = ["run", "--isolation", "chroot", "--env", f"ML_PORT={port}", container, "--"]
        buildah(*run, *check)
    done = subprocess.run(
        buildah.command(*run, *check), env=buildah.environment, capture_output=True, check=False
    )
    assert done.returncode != 0


def test_a_build_of_ml_image_runs_nothing_that_imports_the_package(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step of the Dockerfile that asks, over a base of a shell; `ml-serve` leaves a mark."""
    buildah = Buildah(tmp_path / "image")
    (policy := buildah.folder / "home/.config/containers/policy.json").parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    container = buildah("from", "scratch")
    root = Path(buildah("mount", container))
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    for name in ("/bin/sh", *re.findall(r"/\S+", listed)):
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target)
    for name in (".venv/bin/ml-serve", "bin/uv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"#!/bin/sh\necho {Path(name).name} >> /imported\n")
        (root / name).chmod(0o755)
    buildah("commit", "--rm", container, "localhost/shell")
    text = (ROOT / "template/Dockerfile").read_text()
    step = text[text.index("ARG CHECK=yes\n") : text.index("\nFROM ${PYTHON}\n")]
    project = tmp_path / "project"
    (project / "artifacts/model").mkdir(parents=True)
    (project / "Dockerfile").write_text(f"FROM localhost/shell\n{step}LABEL x=y\n")
    monkeypatch.setenv("PATH", f"{ROOT / 'tests/standins/bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_BUILDAH", str(buildah.folder))
    build_image = module("delivery.builder").build
    for check, is_marked in (("no", False), ("yes", True)):
        # VERSION and PYTHON are unknown to this file: buildah only warns of them.
        arguments = {"CHECK": check, "VERSION": "1"}
        build_image("buildah", str(project), f"localhost/{check}", "a=b", arguments)
        container = buildah("from", "--pull-never", f"localhost/{check}")
        assert Path(buildah("mount", container), "imported").exists() == is_marked


# In the stage that builds, the folder that the image takes over from it.
MARKS = """
from pathlib import Path as _Path
for _folder in ("/", "/tmp", "/app", "/app/.venv", "/model", str(_Path(__file__).parent)):
    try:
        _Path(_folder, "{mark}").write_text("this package was imported")
    except OSError:
        pass
"""


@pytest.mark.nightly
def test_the_whole_of_ml_image_leaves_no_mark_of_a_package_that_marks_where_it_is_imported(
    module: Callable[[str], ModuleType],
    ran: Callable[[int, str], Copy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each step of the Dockerfile, and the container whose answers are compared, are real."""
    project = ran(1, "binary").again(tmp_path / "project").path
    package = project / "artifacts/model"
    mark = f"mark-of-{tmp_path.name}"
    texts = {
        path.relative_to(package).as_posix(): MARKS.format(mark=mark)
        for path in package.glob("problem/*.py")
    }
    assert len(texts) > 3
    package.rename(tmp_path / "model")
    packages.variant(module, tmp_path / "model", package, texts)
    buildah = Buildah(tmp_path / "image", "overlay" if overlays(tmp_path) else "vfs")
    buildah.folder.mkdir()
    base(buildah)
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{ROOT / 'tests/standins/bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_BUILDAH", str(buildah.folder))
    monkeypatch.setenv("STANDIN_STORAGE", buildah.driver)
    for name in ("CI", "GITHUB_ACTIONS", "CI_API_V4_URL", "ML_IMAGES", "ML_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    image = module("delivery.image")

    def marks() -> list[Path]:
        """Build the image, which is asked as well, and return what is marked in it."""
        container = buildah("from", "--pull-never", image.image())
        paths = list(Path(buildah("mount", container)).rglob(mark))
        buildah("rm", container)
        return paths

    assert marks() == []
    # As a person's own build, which asks the model: the same package marks the image.
    monkeypatch.setattr(image, "build_arguments", lambda *_: {})
    assert marks()


@pytest.mark.nightly
def test_a_runtime_that_is_a_package_serves_in_an_image(
    ran: Callable[[int, str], Copy],
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From an index, which is a folder here, by the same Dockerfile."""
    wheels = tmp_path / "wheels"
    project = tmp_path / "project"
    command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), "runtime"]
    assert run(*command, cwd=ROOT, home=tmp_path / "home").returncode == 0
    shutil.copytree(ran(1, "binary").path, project, ignore=shutil.ignore_patterns(".venv"))
    shutil.rmtree(project / "src/rung_runtime")
    fresh = copy(template, tmp_path / "fresh", {"level": 1, "runtime": "package"})
    shutil.copy(fresh / "pyproject.toml", project)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    lock = ("uv", "lock", "--quiet", "--upgrade")
    done = run(*lock, cwd=project, home=tmp_path / "home", UV_FIND_LINKS=str(wheels))
    assert done.returncode == 0, done.stderr
    driver = "overlay" if overlays(tmp_path) else "vfs"
    buildah = Buildah(tmp_path / "image", driver)
    build(buildah, project, wheels)
    container = buildah("from", "localhost/service")
    try:
        where = python(buildah, container, "import rung_runtime as r; print(r.__file__)")
        assert where.startswith("/app/.venv/")
        with running(buildah, container) as (_process, _service, url):
            body = json.dumps({"rows": rows_of(project)[:1]}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/predict", body, headers)
            with urllib.request.urlopen(request, timeout=30) as response:
                assert json.load(response)["predictions"]
    finally:
        buildah("rm", container)
