"""On a runner, a version is made of what is committed: whatever ran before `ml register`."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import git
from rung_runtime import RefusedError

Module = Callable[[str], ModuleType]
TRACKED = ["config/data.yaml", "config/model.yaml", "config/gate.yaml", "dvc.lock", "src/a.py"]


@pytest.fixture
def checkout(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module, in a clean checkout whose documents are those of its commit."""
    own = module("registry.checkout")
    project = tmp_path / "project"
    for name in TRACKED:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(f"{name}\n")
    (project / ".gitignore").write_text("/artifacts/\n")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "all")
    monkeypatch.chdir(project)
    for name in ("ML_REGISTRY", "GITHUB_ACTIONS", "CI_API_V4_URL"):
        monkeypatch.delenv(name, raising=False)
    config = own.digest(*map(Path, TRACKED[:3]))
    documents = {
        name: SimpleNamespace(commit=git(project, "rev-parse", "HEAD"), config_digest=config)
        for name in own.STEPS
    }
    monkeypatch.setattr(own, "read_step", documents.__getitem__)
    monkeypatch.setattr(own, "documents", documents, raising=False)
    return own


def manifest(checkout: ModuleType) -> dict[str, Any]:
    code = {
        f"problem/{path.name}": path.read_bytes() for path in checkout.problem.folder().glob("*.py")
    }
    files = {n: f"sha256:{hashlib.sha256(text).hexdigest()}" for n, text in code.items()}
    return {"files": files | {"model.skops": "sha256:model"}}


def test_what_is_committed_is_registered(checkout: ModuleType) -> None:
    checkout.require_clean(manifest(checkout))
    Path("artifacts").mkdir()
    Path("artifacts/metrics.json").write_text("{}")  # which Git ignores
    Path("dvc.lock").write_text("as `ml run` left it")
    checkout.require_clean(manifest(checkout))


CHANGES: dict[str, Callable[[], object]] = {
    "src/a.py": lambda: Path("src/a.py").write_text("changed"),
    "config/gate.yaml": lambda: Path("config/gate.yaml").unlink(),
    "src/new.py": lambda: Path("src/new.py").write_text("new"),
    "sitecustomize.py": lambda: Path("sitecustomize.py").write_text("new"),
    "src/b.py": lambda: git(Path(), "mv", "src/a.py", "src/b.py"),
    ".gitignore": lambda: Path(".gitignore").write_text("*\n"),
    "src/ä b.py": lambda: Path("src/ä b.py").write_text("new"),
    "config/deep.py": lambda: shutil.copy("src/a.py", "config/deep.py"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_dirty_tree_is_refused_and_the_file_named(checkout: ModuleType, name: str) -> None:
    CHANGES[name]()
    with pytest.raises(checkout.RefusedError) as caught:
        checkout.require_clean(manifest(checkout))
    assert name in str(caught.value)


def test_a_staged_change_is_a_change(checkout: ModuleType) -> None:
    Path("src/a.py").write_text("changed")
    git(Path(), "add", "src/a.py")
    with pytest.raises(checkout.RefusedError, match=r"src/a\.py"):
        checkout.require_clean(manifest(checkout))


@pytest.mark.parametrize("step", ["train", "compare", "gate", "package"])
def test_a_document_of_a_dirty_tree_is_refused(checkout: ModuleType, step: str) -> None:
    checkout.documents[step].commit += "-dirty"
    with pytest.raises(checkout.RefusedError, match="differed from the commit"):
        checkout.require_clean(manifest(checkout))


@pytest.mark.parametrize("step", ["gate", "package"])
@pytest.mark.parametrize("change", [{"commit": "0" * 40}, {"commit": None}, {"config_digest": "x"}])
def test_a_verdict_on_another_commit_or_other_settings_is_refused(
    checkout: ModuleType, step: str, change: dict[str, Any]
) -> None:
    vars(checkout.documents[step]).update(change)
    with pytest.raises(checkout.RefusedError, match="ml run"):
        checkout.require_clean(manifest(checkout))


@pytest.mark.parametrize("change", ["another", "more", "less"])
def test_a_package_with_other_code_than_the_commit_is_refused(
    checkout: ModuleType, change: str
) -> None:
    made = manifest(checkout)
    name = "problem/more.py" if change == "more" else "problem/features.py"
    if change == "less":
        del made["files"][name]
    else:
        made["files"][name] = "sha256:another"
    with pytest.raises(checkout.RefusedError, match=name):
        checkout.require_clean(made)


def test_a_repository_that_git_does_not_open_is_not_taken_for_none(
    checkout: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another owner, in a container."""
    Path("src/a.py").write_text("changed")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", "/")
    Path(".git/config").write_text("[broken")
    with pytest.raises(checkout.UsageError, match="git"):
        checkout.require_clean(manifest(checkout))


def test_no_program_that_the_repository_names_is_started(
    checkout: ModuleType, tmp_path: Path
) -> None:
    program = tmp_path / "monitor"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    git(Path(), "config", "core.fsmonitor", str(program))
    checkout.require_clean(manifest(checkout))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("CI", "true", True), ("CI", "1", True), ("CI", "false", False), ("CI", "", False)],
)
def test_a_runner_is_known_by_what_all_of_them_set(
    checkout: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: bool
) -> None:
    monkeypatch.setenv(name, value)
    assert checkout.is_runner() is expected


@pytest.mark.parametrize("ci", ["true", ""])
def test_register_asks_for_it_on_a_runner_alone(
    checkout: ModuleType, module: Module, monkeypatch: pytest.MonkeyPatch, ci: str
) -> None:
    registration = module("registry.registration")
    monkeypatch.setenv("CI", ci)
    records = module("records")
    first = records.NotCompared(kind="first", champion=None)
    documents = {
        records.GateDocument: {"verdict": "passed", "model_digest": "m", "comparison": first},
        records.PackageDocument: {"package_digest": "p"},
        records.MetricsDocument: {"metric": "x", "metrics": {}},
    }
    made = {"package_digest": "p", "model_digest": "m", "files": {"gate.json": "g"}}
    monkeypatch.setattr(registration, "read", lambda kind: kind.model_construct(**documents[kind]))
    monkeypatch.setattr(registration, "digest", lambda _: "g")
    monkeypatch.setattr(module("model_package"), "verified_manifest", lambda _: made)
    Path("src/a.py").write_text("changed")
    if ci:
        with pytest.raises(RefusedError, match=r"src/a\.py"):
            registration.register()
    else:
        with pytest.raises(KeyError):  # it went on, to facts that are not here
            registration.register()
    assert subprocess.run(["git", "diff", "--quiet"], check=False).returncode == 1
