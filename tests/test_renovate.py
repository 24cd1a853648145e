"""Renovate itself reads a project, and says what it finds where, and what it would write.

It runs without a platform, as `--platform=local`. Its sources of versions cannot be reached from
here; of images, Debian's registry on loopback is one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, Render, git, need
from hosts import registry as docker_registry

PROGRAM = ROOT / ".tools/renovate/node_modules/.bin"
USES = re.compile(
    r"uses: (?P<action>[\w.-]+/[\w./-]+)@(?P<commit>[0-9a-f]{40})  # (?P<tag>v[\d.]+)$"
)
SCHEMES = ("http", "https")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,  # half a gigabyte of packages
    pytest.mark.needs("npm"),
]


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    """Return a project of level 2 on both platforms, as it is in a team's repository."""
    folder = tmp_path / "project"
    shutil.copytree(render(level=2, ci=["github", "gitlab"]), folder, symlinks=True)
    answers = folder / ".copier-answers.yml"
    kept = [line for line in answers.read_text().splitlines() if not line.startswith("_")]
    source = ["_src_path: https://git.example/rung", "_commit: v0.3.0"]
    answers.write_text("\n".join([*kept, *source, ""]))
    (folder / "uv.lock").write_text('version = 1\nrequires-python = ">=3.11"\n')
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def renovate(project: Path, dry_run: str, **settings: Any) -> Iterator[dict[str, Any]]:
    """Run Renovate and yield the lines of its log."""
    need("npm")
    if not (PROGRAM / "renovate").exists():
        pytest.fail("needs Renovate: run .ci/packages nightly")
    own = project.parent / "config.json"
    own.write_text(json.dumps(settings))
    env = {
        "PATH": f"{PROGRAM}:/usr/bin:/bin",
        "HOME": str(project.parent),
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
        "RENOVATE_BASE_DIR": str(project.parent / "renovate"),
        "RENOVATE_CONFIG_FILE": str(own),
    }
    command = [str(PROGRAM / "renovate"), "--platform=local", f"--dry-run={dry_run}"]
    done = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for line in done.stdout.splitlines():
        entry = json.loads(line)
        assert entry["level"] < 50, line
        yield entry


def test_renovate_finds_each_pin_of_a_project(project: Path) -> None:
    (extracted,) = [
        entry["packageFiles"]
        for entry in renovate(project, "extract")
        if "packageFiles" in entry and "msg" in entry
    ]
    by_file = {
        (manager, about["packageFile"]): about["deps"]
        for manager, files in extracted.items()
        for about in files
    }

    def pins(manager: str, file: str) -> list[tuple[str, str]]:
        return [(dep["depName"], dep["currentValue"]) for dep in by_file[manager, file]]

    assert pins("dockerfile", "Dockerfile") == [("python", "3.11-slim")] * 2
    for dep in by_file["dockerfile", "Dockerfile"]:  # so that it can write the first digest
        assert dep["autoReplaceStringTemplate"].startswith("ARG PYTHON=python:")
        assert "@{{newDigest}}" in dep["autoReplaceStringTemplate"]
    image = re.search(r"default: (\S+/uv):(\S+)", (project / ".gitlab-ci.yml").read_text())
    assert image
    assert pins("regex", ".gitlab-ci.yml") == [(image[1], image[2])]
    requirements = (project / "requirements-uv.txt").read_text()
    version = re.search(r"^uv(==\S+)", requirements, re.M)
    assert version
    assert pins("pip_requirements", "requirements-uv.txt") == [("uv", version[1])]
    assert pins("copier", ".copier-answers.yml") == [("https://git.example/rung", "v0.3.0")]
    (packages,) = [f for f in extracted["pep621"] if f["packageFile"] == "pyproject.toml"]
    assert packages["lockFiles"] == ["uv.lock"]
    assert {"polars", "ruff", "sigstore", "copier"} <= {
        dep["packageName"] for dep in packages["deps"]
    }
    actions = 0
    for path in sorted((project / ".github").rglob("*.yml")):
        wanted = [
            match.groups() for line in path.read_text().splitlines() if (match := USES.search(line))
        ]
        name = path.relative_to(project).as_posix()
        assert wanted == [
            (dep["replaceString"].partition("@")[0], dep["currentDigest"], dep["currentValue"])
            for dep in by_file.get(("github-actions", name), [])
            if dep.get("depType") == "action"
        ], name
        actions += len(wanted)
    assert actions > 20


def test_renovate_proposes_the_digest_of_each_image_and_has_where_to_write_it(
    project: Path, tmp_path: Path, module: Callable[[str], ModuleType]
) -> None:
    """Of a real registry; that a hosted platform gets the request is not what runs here."""
    client = module("oci_client")
    with docker_registry.serving(tmp_path) as address:
        tags = {"python": "3.11-slim", "astral-sh/uv": "0.13.8-python3.13-trixie"}
        digests = {
            name: docker_registry.push_index(client, address, name, tag)
            for name, tag in tags.items()
        }
        # A team's own rules, of where its images are. All else is as the template has it.
        file = project / ".github/renovate.json"
        settings = json.loads(file.read_text()) | {"osvVulnerabilityAlerts": False}
        settings["packageRules"] = [
            *settings.get("packageRules", []),
            {"matchPackageNames": ["python"], "registryUrls": [f"http://{address}"]},
            {
                "matchPackageNames": ["ghcr.io/astral-sh/uv"],
                "overridePackageName": f"{address}/astral-sh/uv",
            },
        ]
        file.write_text(json.dumps(settings))
        hosts = [
            {"matchHost": f"{scheme}://{address}", "insecureRegistry": True} for scheme in SCHEMES
        ]
        log = renovate(
            project, "lookup", hostRules=hosts, enabledManagers=["dockerfile", "custom.regex"]
        )
        (proposed,) = [e["config"] for e in log if e.get("msg") == "packageFiles with updates"]
    for manager, name in (("dockerfile", "python"), ("regex", "astral-sh/uv")):
        (about,) = proposed[manager]
        for dep in about["deps"]:
            (update,) = [u for u in dep["updates"] if u["updateType"] == "pinDigest"]
            assert update["newDigest"] == digests[name]
            assert not update.get("pendingChecks"), "it is proposed, and not held back"
            assert update["newValue"] == tags[name]
            file = project / about["packageFile"]
            assert file.read_text().count(dep["replaceString"]) == 1
            assert "newDigest" in (about | dep)["autoReplaceStringTemplate"]


def test_renovate_proposes_a_newer_version_of_the_template(project: Path, tmp_path: Path) -> None:
    """Tags of Git have no dates that it knows."""
    template = tmp_path / "template"
    template.mkdir()
    git(template, "init", "-q", "-b", "main")
    for version in ("v0.3.0", "v0.4.0"):
        git(template, "commit", "-q", "--allow-empty", "-m", version)
        git(template, "tag", version)
    answers = project / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace("https://git.example/rung", template.as_uri()))
    file = project / ".github/renovate.json"
    settings = json.loads(file.read_text()) | {"osvVulnerabilityAlerts": False}
    file.write_text(json.dumps(settings))
    log = renovate(project, "lookup", enabledManagers=["copier"])
    (proposed,) = [e["config"] for e in log if e.get("msg") == "packageFiles with updates"]
    ((dep,),) = [about["deps"] for about in proposed["copier"]]
    (update,) = dep["updates"]
    assert update["newValue"] == "v0.4.0"
    assert not update.get("pendingChecks"), "it is proposed, and not held back"
