from __future__ import annotations

import importlib
import os
import re
import subprocess
import warnings
from pathlib import Path

import pytest
from conftest import ROOT, pytest_warning_recorded
from programs import started

# What .ci/run sees to, and what every Debian has.
SYSTEM = {"apt-get", "bash", "cp", "dpkg", "dpkg-query", "env", "find", "git", "make", "mount"}
SYSTEM |= {"ldd", "python", "python3", "sh", "tar", "true", "umount", "unshare"}
# What the environment brings, and .ci/with-uv, which brings uv itself.
ENVIRONMENT = {"act", "ml", "rung", "schemathesis", "uv", "with-uv"}
LIBRARIES = {"airflow"}  # in an environment of its own, by tests/libraries.py
NIGHTLY = {"renovate"}  # by .ci/packages nightly
CHROMES = {"google-chrome"}  # in the place of chromium, where it is there
NOWHERE = {"no-such-program"}


def installed() -> set[str]:
    """Read the programs that .ci/packages installs."""
    text = (ROOT / ".ci/packages").read_text()
    (table,) = re.findall(r"^done <<END\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    return {line.split()[0] for line in table.splitlines()}


def test_every_program_that_a_test_starts_is_installed() -> None:
    provided = installed() | SYSTEM | ENVIRONMENT | LIBRARIES | NIGHTLY | CHROMES | NOWHERE
    missing = {
        program: files
        for program, files in started(ROOT / "tests").items()
        if program not in provided
    }
    assert not missing, "add them to .ci/packages, or name them above if every machine has them"


STARTS = {
    "list": "subprocess.run(['novel', '-v'])",
    "variable": "command = ['novel', *options]\nsubprocess.run(command + more)",
    "loop": "for command in (['sh'], ['novel']):\n    subprocess.Popen(command)",
    "helper": "def tool(*command):\n    subprocess.run(command)\ntool('novel', 'inspect')",
    "parameter": "def tool(a, b):\n    psutil.Popen([*b, *a])\ntool([], ['novel'])",
    "helpers": "def a(*it):\n    b(*it)\ndef b(*it):\n    subprocess.run(it)\na('novel')",
    "marker": "@pytest.mark.needs('sh', 'novel')\ndef test(): ...",
    "which": "NOVEL = shutil.which('novel')",
    "path": "subprocess.run([str(folder / 'novel')])",
}


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS)
def test_a_program_is_seen_however_it_is_started(tmp_path: Path, code: str) -> None:
    (tmp_path / "test_it.py").write_text(code)
    assert started(tmp_path)["novel"] == {"test_it.py"}


class Machine:
    """A folder with .ci/run, where each program that it starts is a stand-in that is recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for script in (".ci/run", ".ci/pythons"):
            self.write(script, (ROOT / script).read_text())
        self.write(".ci/packages", "#!/bin/sh\n")
        self.write(".ci/with-uv", '#!/bin/sh\nexec "$@"\n')
        self.program("git", "echo false")
        self.program("uv", 'case $* in *"python -c"*) echo 3.11 ;; esac')
        self.program("make", "env >environment")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def program(self, name: str, text: str) -> None:
        record = f'echo "{name} $*" >>"{self.folder}/started"'
        self.write(f"bin/{name}", f"#!/bin/sh\n{record}\n{text}\n")

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        known = {"PATH": path, "HOME": str(self.folder)}
        command = ["bash", str(self.folder / ".ci/run")]
        return subprocess.run(command, env=known | env, capture_output=True, text=True, check=False)

    @property
    def started(self) -> list[str]:
        return (self.folder / "started").read_text().splitlines()


def test_ci_runs_as_on_an_ordinary_machine(tmp_path: Path) -> None:
    """Settings that would hide a fault are unset; certificates, proxies and indexes stay."""
    unset = {
        "GIT_INDEX_FILE": "/nowhere",
        "NODE_OPTIONS": "--trace-warnings",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PYTEST_ADDOPTS": "-x",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/nowhere",
        "UV_OFFLINE": "1",
        "VIRTUAL_ENV": "/nowhere",
    }
    kept = {
        "GIT_SSL_CAINFO": "/certificates",
        "HTTPS_PROXY": "http://proxy.invalid",
        "NODE_EXTRA_CA_CERTS": "/certificates",
        "PIP_CERT": "/certificates",
        "PIP_INDEX_URL": "https://index.invalid",
        "RUNG_TRIALS": "3",
        "SSL_CERT_FILE": "/certificates",
        "UV_CACHE_DIR": "/cache",
        "UV_DEFAULT_INDEX": "https://index.invalid",
        "no_proxy": "localhost",
    }
    done = Machine(tmp_path).run(**unset, **kept)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "environment").read_text().splitlines()
    assert set(unset) & {line.partition("=")[0] for line in lines} == set()
    assert {f"{name}={value}" for name, value in kept.items()} <= set(lines)


def test_the_quick_tier_runs_on_the_other_pythons_and_its_failure_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run().returncode == 0
    tox = "uv run --no-sync tox run -e py312,py313"
    assert machine.started[-2:] == [tox, "make test"]
    machine.program("uv", 'case $* in *"python -c"*) echo 3.11 ;; *tox*) exit 1 ;; esac')
    done = machine.run()
    assert machine.started[-2:] == [tox, "make test"]
    assert done.returncode == 1
    assert done.stderr.endswith("The tests failed on another Python: see above.\n")


def test_a_failure_of_the_suite_is_one_of_ci(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.program("make", "exit 2")
    assert machine.run().returncode == 2


def test_ci_says_which_python_is_not_here_and_tests_none_twice(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    cases = '*"python -c"*) echo 3.12 ;; *"find"*3.13) exit 2 ;;'
    machine.program("uv", f"case $* in {cases} esac")
    done = machine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Python 3.13 is not on this machine: no test runs on it." in done.stdout
    assert not [command for command in machine.started if "tox" in command]


def test_a_warning_of_a_library_that_a_test_brings_is_one_that_all_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else xdist cannot read the worker's report, gives up the worker and ends the run."""
    (tmp_path / "brought_by_a_test.py").write_text("class Mismatch(UserWarning): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    mismatch = importlib.import_module("brought_by_a_test").Mismatch
    ours = {UserWarning: UserWarning, pytest.PytestWarning: pytest.PytestWarning}
    for category, seen in {mismatch: UserWarning, **ours}.items():
        recorded = warnings.WarningMessage(category("of versions"), category, "file", 1)
        pytest_warning_recorded(recorded)
        assert recorded.category is type(recorded.message) is seen
        assert str(recorded.message) == "of versions"
