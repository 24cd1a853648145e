"""`ml image` says what it needs; building itself is in the stories of test_stories.py."""

from __future__ import annotations

import ast
import json
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import packages
import pytest
from conftest import ROOT, Render

NONE = SimpleNamespace(version="20260101-000000-aaaaaaaa", digest="sha256:" + "0" * 64)


@pytest.fixture
def image(
    module: Callable[[str], ModuleType],
    render: Render,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ModuleType:
    """The module, in a copy of a level-2 project, where the PATH has no builder."""
    project = render(level=2, ci=["github", "gitlab"])
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL", "ML_IMAGES", "ML_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return module("delivery.image")


def program(folder: Path, name: str, text: str) -> None:
    """Put a stand-in of a builder on the PATH."""
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_without_docker_and_buildah_it_says_so(image: ModuleType) -> None:
    with pytest.raises(image.UsageError, match="install one of them"):
        image.image()


def test_a_docker_whose_daemon_is_down_is_no_builder(image: ModuleType, tmp_path: Path) -> None:
    program(tmp_path, "docker", "exit 1")
    with pytest.raises(image.UsageError, match="install one of them"):
        image.image()
    program(tmp_path, "buildah", "exit 0")
    assert image.builder.find_engine() == "buildah"
    program(tmp_path, "docker", "exit 0")
    assert image.builder.find_engine() == "docker"


def test_what_is_pushed_is_registered_first(image: ModuleType) -> None:
    with pytest.raises(image.UsageError, match="name a version"):
        image.image(push=True)


@pytest.mark.parametrize("engine", ["docker", "buildah"])
def test_a_version_that_has_an_image_is_not_built_again(
    image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    pinned = f"registry.example/service@sha256:{'1' * 64}"
    program(
        tmp_path, engine, f"case $1 in image | inspect) echo {NONE.digest};; build) exit 1;; esac"
    )
    monkeypatch.setenv("ML_IMAGES", "registry.example/service")
    monkeypatch.setattr(image.registry, "find", lambda _: NONE)
    image.registry.open_registry().set(f"image-{NONE.version}", pinned)
    assert image.image(NONE.version, push=True) == pinned
    assert not Path("artifacts/image.json").exists()  # by which a pipeline knows what it built


def test_a_base_image_without_a_digest_is_named(
    image: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path, "buildah", "exit 0")
    dockerfile = Path("Dockerfile")
    for digest, is_named in (("", True), (f"@sha256:{'1' * 64}", False)):
        line = f"ARG PYTHON=python:3.11-slim{digest}"
        assert "ARG PYTHON=python:3.11-slim\n" in dockerfile.read_text()
        dockerfile.write_text(dockerfile.read_text().replace("ARG PYTHON=python:3.11-slim", line))
        with pytest.raises(image.UsageError, match="holds no model"):
            image.image()
        message = "python:3.11-slim is not pinned by digest"
        assert (message in capsys.readouterr().err) == is_named


def test_without_a_place_nothing_is_pushed(
    image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "buildah", "exit 0")
    monkeypatch.setattr(image.registry, "find", lambda _: NONE)
    with pytest.raises(image.UsageError, match="set `images`"):
        image.image(NONE.version, push=True)


def test_a_build_that_fails_is_refused_with_its_last_lines(
    image: ModuleType, tmp_path: Path
) -> None:
    program(tmp_path, "buildah", "echo no space left >&2; exit 125")
    with pytest.raises(image.RefusedError, match=r"^buildah build \. failed: no space left$"):
        image.builder.run_builder("buildah", "build", ".")


def test_what_is_built_does_not_depend_on_when_it_was_checked_out(
    image: ModuleType, tmp_path: Path
) -> None:
    """Bytecode has the time of its source in it; a layer of other bytes is built and sent anew."""
    bytecode = Path("src/rung_runtime/__pycache__/stamp.cpython-311.pyc")
    bytecode.parent.mkdir(exist_ok=True)
    bytecode.write_bytes(b"compiled")
    Path("uv.lock").touch()
    (tmp_path / "context").mkdir()
    image._copy_build_context(tmp_path / "context")
    assert (tmp_path / "context/src/rung_runtime/stamp.py").exists()
    assert not (tmp_path / "context" / bytecode).exists()


def test_what_changes_with_each_model_comes_last_in_its_image() -> None:
    lines = (ROOT / "template/Dockerfile").read_text().rpartition("\nFROM ")[2].splitlines()
    last = ("ARG VERSION", "LABEL ", "COPY config/", "COPY artifacts/")
    steps = [line for line in lines if line.partition(" ")[0].isupper()]
    assert [step.startswith(last) for step in steps[-4:]] == [True] * 4
    assert not [step for step in steps[:-4] if step.startswith(last) or "VERSION" in step]


@pytest.mark.parametrize(
    ("check", "answers", "expected"),
    [
        ("no", False, []),  # `ml image` knows
        ("yes", True, ["ml-serve --check /model"]),
        ("yes", False, ["ml-serve --check /model", "uv sync --locked --no-default-groups"]),
    ],
)
def test_a_build_imports_the_model_only_where_it_is_told_to(
    tmp_path: Path, check: str, answers: bool, expected: list[str]
) -> None:
    """The line of the Dockerfile, run by a shell as a build runs it, with stand-ins of programs."""
    dockerfile = (ROOT / "template/Dockerfile").read_text().replace("\\\n", " ")
    (default,) = re.findall(r"^ARG CHECK=(.*)$", dockerfile, re.MULTILINE)
    assert default == "yes"
    (line,) = re.findall(r"^RUN (.*ml-serve --check.*)$", dockerfile, re.MULTILINE)
    for name, code in ((".venv/bin/ml-serve", 0 if answers else 1), ("bin/uv", 0)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> ran\nexit {code}\n')
        path.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "CHECK": check}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, check=True)
    ran = (tmp_path / "ran").read_text().splitlines() if (tmp_path / "ran").exists() else []
    assert len(ran) == len(expected)
    assert all(line.startswith(start) for line, start in zip(ran, expected, strict=True))


def test_no_library_of_training_or_serving_is_hidden_from_a_package_that_is_asked(
    image: ModuleType,
) -> None:
    left_out = image.sbom.left_out()
    assert {"scikit-learn", "scipy", "skops", "joblib", "narwhals"} == left_out
    hidden = set(image.import_names(left_out))
    assert {"sklearn", "scipy", "skops", "joblib", "narwhals"} <= hidden
    assert not hidden & {"numpy", "onnxruntime", "polars", "pydantic", "rung_runtime"}


@pytest.fixture(scope="module")
def made(module: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a package that was compiled, and one that was not."""
    folder = tmp_path_factory.mktemp("made")
    for is_compiled in (True, False):
        packages.package(module, folder / str(is_compiled), is_compiled=is_compiled)
    return folder


@pytest.mark.slow  # a process for each, as `ml image` has
@pytest.mark.parametrize(
    ("is_compiled", "line", "expected"),
    [
        (True, "", {"CHECK": "no"}),
        (False, "", {"CHECK": "no", "WITHOUT": ""}),
        (True, "import sklearn\n", {"CHECK": "no", "WITHOUT": ""}),
    ],
    ids=["compiled", "an estimator", "features that import it"],
)
def test_an_image_gets_the_libraries_of_an_estimator_if_the_package_asks_for_them(
    made: Path,
    image: ModuleType,
    module: Callable[[str], ModuleType],
    tmp_path: Path,
    is_compiled: bool,
    line: str,
    expected: dict[str, str],
) -> None:
    texts = {"problem/features.py": line}
    package = packages.variant(module, made / str(is_compiled), tmp_path / "model", texts)
    assert image.build_arguments(tmp_path / "model", package["package_digest"]) == expected


@pytest.mark.parametrize(
    ("dockerfile", "is_named"),
    [
        ("FROM x\nRUN .venv/bin/ml-serve --check /model || uv sync\n", True),  # that of 0.3
        ("FROM x\nCOPY artifacts/model /model\n", False),  # one that a project has written
    ],
)
def test_an_older_dockerfile_is_built_as_it_is_and_named_if_it_imports_the_model(
    image: ModuleType, capsys: pytest.CaptureFixture[str], dockerfile: str, is_named: bool
) -> None:
    Path("Dockerfile").write_text(dockerfile)
    assert image.build_arguments(Path("nowhere"), "sha256:0") == {}
    message = "imports the model while it is built: `rung update` brings one that does not"
    assert (message in capsys.readouterr().err) == is_named


@pytest.mark.parametrize("engine", ["docker", "buildah"])
def test_a_jobs_token_goes_to_its_platforms_registry_alone(
    image: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """A stand-in of the builder writes down which logins it was given."""
    seen = tmp_path / "seen"
    digest = "sha256:" + "2" * 64
    program(
        tmp_path,
        engine,
        f'[ -z "$DOCKER_CONFIG" ] || /bin/cat "$DOCKER_CONFIG/config.json" > {seen}\n'
        f'for word; do case $word in --digestfile=*) echo {digest} > "${{word#*=}}";; esac; done\n'
        f"echo registry.example/x@{digest}",
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/project")
    monkeypatch.setenv("GITHUB_TOKEN", "secret-of-the-job")
    image.builder.push(engine, "harbor.example/x", "harbor.example/x:1")
    assert not seen.exists()
    pushed = image.builder.push(
        engine, "ghcr.io/team/project/service", "ghcr.io/team/project/service:1"
    )
    assert pushed.endswith(digest)
    assert list(json.loads(seen.read_text())["auths"]) == ["ghcr.io"]


RUNTIME = ROOT / "runtime/src/rung_runtime"
OF_TRAINING = {
    "alembic",
    "cryptography",
    "dvc",
    "httpx",
    "mlflow",
    "pandera",
    "requests",
    "sqlalchemy",
    "stamina",
}


def test_a_service_starts_without_the_libraries_of_training() -> None:
    """What its modules import at their top, types apart: the image has no other library."""
    starts = ("serving/__init__.py", "serving/app.py", "serving/parity.py", "model_package.py")
    known = set[Path]()
    todo = {RUNTIME / name for name in starts}
    while todo:
        known |= todo
        imported = set[Path]()
        for path in todo:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.level:
                    base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                    imported |= {base.with_suffix(".py"), base / "__init__.py"}
                    imported |= {base / f"{name.name}.py" for name in node.names}
                elif isinstance(node, ast.ImportFrom | ast.Import):
                    names = [name.name for name in node.names]
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
                    libraries = {name.partition(".")[0] for name in names}
                    assert not libraries & OF_TRAINING, path.name
        # A module is imported after the packages that it is in.
        packages = {
            folder / "__init__.py"
            for path in imported
            for folder in path.parents
            if folder.is_relative_to(RUNTIME)
        }
        todo = {path for path in imported | packages if path.is_file()} - known
    modules = {path.relative_to(RUNTIME).as_posix() for path in known}
    assert {"serving/batcher.py", "serving/server.py", "prediction_log/writer.py"} <= modules
    assert {"prediction_log/__init__.py", "model_package.py", "config/delivery.py"} <= modules
