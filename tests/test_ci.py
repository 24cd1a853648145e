from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from programs import started

# What .ci/run sees to, and what every Debian has.
SYSTEM = {"apt-get", "bash", "dpkg", "dpkg-query", "env", "find", "git", "make", "mount", "python"}
SYSTEM |= {"python3", "sh", "tar", "umount"}
# What the environment brings, and uv itself, which .ci/with-uv brings.
ENVIRONMENT = {"act", "ml", "schemathesis", "uv"}
CHROMES = {"google-chrome"}  # in the place of chromium, where it is there


def installed() -> set[str]:
    """Read the programs that .ci/packages installs."""
    text = (ROOT / ".ci/packages").read_text()
    (table,) = re.findall(r"^done <<END\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    return {line.split()[0] for line in table.splitlines()}


def test_every_program_that_a_test_starts_is_installed() -> None:
    provided = installed() | SYSTEM | ENVIRONMENT | CHROMES
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
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"make": f"env >'{tmp_path}/environment'", "uv": "exit 2"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    env = unset | kept | {"PATH": path, "HOME": str(tmp_path)}
    command = ["bash", str(ROOT / ".ci/run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "environment").read_text().splitlines()
    assert set(unset) & {line.partition("=")[0] for line in lines} == set()
    assert {f"{name}={value}" for name, value in kept.items()} <= set(lines)
