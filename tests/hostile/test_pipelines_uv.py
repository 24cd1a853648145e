"""uv comes by the hashes of requirements-uv.txt: GitHub's runners, and the image of the service."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import graph
import pytest
from conftest import ROOT, Render

PINNED = ROOT / "template/requirements-uv.txt"
RUNS_UV = re.compile(r"\b(uv|uvx) ")
LEVELS = [0, 1, 2]
# How Renovate's manager pip_requirements knows a file, and a requirement in it that has hashes:
# defaultConfig in its index.ts, dependencyAndHashPattern in its artifacts.ts.
FILES = re.compile(r"(^|/)[\w-]*requirements([-._]\w+)?\.(txt|pip)$")
HASHED = re.compile(r"^\s*(?P<constraint>uv(?:\s*\[[^\]]+\])?\s*==.*?\S)\s+--hash=", re.M)


@pytest.fixture(scope="module")
def project(render: Render) -> Callable[[int], Path]:
    return lambda level: render(level=level, ci=["github", "gitlab"])


def version() -> str:
    match = re.search(r"^uv==(\S+) \\$", PINNED.read_text("utf-8"), re.M)
    assert match
    return match[1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_job_on_github_that_runs_uv_has_it_by_its_hash(
    project: Callable[[int], Path], level: int
) -> None:
    github, _ = graph.read(project(level))
    brings = {"./.github/actions/uv", "./.github/actions/setup"}
    running = 0
    for name, flow in graph.workflows(github).items():
        for job, about in flow["jobs"].items():
            is_there = False
            for step in about.get("steps", []):
                is_there = is_there or step.get("uses") in brings
                if RUNS_UV.search(step.get("run", "")):
                    running += 1
                    assert is_there, f"{name}.{job}"
    assert running >= 3
    assert "setup-uv" not in str(github)
    (install, *_) = github[".github/actions/uv/action.yml"]["runs"]["steps"]
    assert "if" not in install
    assert install["run"] == "bash .github/actions/uv/install"
    if level:
        first = github[".github/actions/setup/action.yml"]["runs"]["steps"][0]
        assert first["uses"] == "./.github/actions/uv"


def test_no_other_file_of_a_project_has_uvs_version_or_its_hashes(
    project: Callable[[int], Path],
) -> None:
    """But for the tag of the image of GitLab's jobs, which Renovate pins by digest."""
    here = project(2)
    hashes = re.findall(r"sha256:([0-9a-f]{64})", PINNED.read_text("utf-8"))
    assert len(hashes) == len(set(hashes)) > 10  # machines of each kind
    for path in here.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.name == PINNED.name:
            continue
        text = path.read_text("utf-8", errors="replace")
        assert not any(digest in text for digest in hashes), path
        assert f"uv=={version()}" not in text, path
        assert f" {version()}" not in text or path.suffix not in (".yml", ".yaml"), path


def test_renovate_knows_uvs_file_and_its_hashes() -> None:
    """It has hashin write the hashes of a new version for each line that this pattern finds."""
    assert FILES.search(PINNED.name)
    text = PINNED.read_text("utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("uv")]
    assert line.split(" \\")[0] == f"uv=={version()}"  # what it reads as the requirement
    match = HASHED.search(text.replace("\\\n", ""))
    assert match
    assert match["constraint"] == f"uv=={version()}"
    for name in (".github", ".gitlab"):  # one file: it is not turned off there
        assert (ROOT / f"template/{name}/renovate.json").resolve().parent.name == "github"
    assert "enabledManagers" not in (ROOT / "ci/github/renovate.json").read_text("utf-8")


def wheel(folder: Path) -> str:
    """Write a wheel that says it is uv, and return its hash."""
    folder.mkdir()
    path = folder / f"uv-{version()}-py3-none-any.whl"
    info = f"uv-{version()}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"uv-{version()}.data/scripts/uv", "#!/bin/sh\necho another uv\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: uv\nVersion: {version()}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(
    project: Path, tmp_path: Path, wheels: Path | None = None, programs: Sequence[str] = ("pip",)
) -> subprocess.CompletedProcess[str]:
    """Run the script of the action uv as a runner does.

    Args:
        project: Whose script it is.
        tmp_path: Where it runs, and where requirements-uv.txt is.
        wheels: The only place where there are wheels; None: the index.
        programs: What the machine has: pip, uv.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    python = folder / "python3"
    refuses = "" if "pip" in programs else '[ "$*" != "-m pip --version" ] || exit 1\n'
    python.write_text(f'#!/bin/sh\n{refuses}exec "{base_python()}" "$@"\n')
    python.chmod(0o755)
    if "uv" in programs:
        uv = shutil.which("uv")
        assert uv
        (folder / "uv").symlink_to(uv)
    (tmp_path / "temp").mkdir()
    of_the_machine = re.compile(r"PIP_.*|UV_.*INDEX.*|UV_SYSTEM_CERTS|SSL_CERT.*|.*_proxy", re.I)
    env = {name: text for name, text in os.environ.items() if of_the_machine.fullmatch(name)}
    env |= {
        "PATH": f"{folder}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_PATH": str(tmp_path / "path"),
    }
    if wheels:
        env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
        env |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels)}
    return subprocess.run(
        ["bash", str(project / ".github/actions/uv/install")],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def base_python() -> str:
    """Return a Python that has pip."""
    for python in ("/usr/bin/python3", str(Path(sys.base_prefix, "bin/python3"))):
        result = subprocess.run(
            [python, "-m", "pip", "--version"], capture_output=True, check=False
        )
        if result.returncode == 0:
            return python
    pytest.skip("needs a Python with pip")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["pip", "uv"])
@pytest.mark.parametrize("has_hashes", [True, False])
def test_another_uv_is_refused_and_not_on_the_path(
    project: Callable[[int], Path], tmp_path: Path, program: str, has_hashes: bool
) -> None:
    wheel(tmp_path / "wheels")
    text = PINNED.read_text("utf-8") if has_hashes else f"uv=={version()}\n"
    (tmp_path / PINNED.name).write_text(text, "utf-8")
    done = install(project(0), tmp_path, tmp_path / "wheels", [program])
    assert done.returncode != 0
    reason = "do not match the hashes|hash mismatch for `uv==" if has_hashes else "hashes|--hash"
    assert re.search(reason, done.stderr, re.I), done.stderr
    assert not (tmp_path / "path").exists()
    assert not list((tmp_path / "temp").rglob("bin"))


@pytest.mark.slow
@pytest.mark.parametrize("program", ["pip", "uv"])
def test_a_machine_with_pip_or_uv_gets_the_uv_that_is_pinned_and_nothing_else_on_its_path(
    project: Callable[[int], Path], tmp_path: Path, program: str
) -> None:
    digest = wheel(tmp_path / "wheels")
    (tmp_path / PINNED.name).write_text(f"uv=={version()} --hash=sha256:{digest}\n", "utf-8")
    done = install(project(0), tmp_path, tmp_path / "wheels", [program])
    assert done.returncode == 0, done.stderr
    folder = Path((tmp_path / "path").read_text().strip())
    assert [path.name for path in folder.iterdir()] == ["uv"]  # no python, which uv would take
    assert (folder / "uv").read_text() == "#!/bin/sh\necho another uv\n"


def test_a_machine_without_both_is_told_what_to_install(
    project: Callable[[int], Path], tmp_path: Path
) -> None:
    done = install(project(0), tmp_path, programs=[])
    assert done.returncode == 1
    assert done.stdout.startswith("::error::This machine has neither pip for python3 nor uv")
    assert not (tmp_path / "path").exists()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["pip", pytest.param("uv", marks=pytest.mark.nightly)])
def test_the_uv_of_the_index_has_one_of_these_hashes(
    project: Callable[[int], Path], tmp_path: Path, program: str
) -> None:
    shutil.copy(PINNED, tmp_path)
    done = install(project(0), tmp_path, programs=[program])
    assert done.returncode == 0, done.stderr
    uv = Path((tmp_path / "path").read_text().strip(), "uv")
    line = subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout
    assert line.split()[1] == version()
