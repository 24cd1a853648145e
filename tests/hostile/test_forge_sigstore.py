"""A model that a pipeline of GitLab signed without a key is deployed only as it was signed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, uv
from standins.sigstore import Sigstore

SERVER = "https://gitlab.example"
MODEL = "https://model_signing/signature/v1.0"
VERSION = "20260101-120001-aaaaaaaa"
FILES = {
    "manifest.json": b'{"version": "1"}',
    "model.skops": b"model " * 1_000,
    "problem/features.py": b"def features(): ...\n",
    "problem.md": b"sorts between problem/ and its files",
}


class Packages:
    """The generic package registry of a project."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    @contextmanager
    def serving(self) -> Iterator[str]:
        files = self.files

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(201, b"{}")

            def do_GET(self) -> None:
                known = self.path in files
                self.answer(200 if known else 404, files.get(self.path, b""))

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()

    def address(self, name: str) -> str:
        """The address of what is kept of the one package."""
        (path,) = [path for path in self.files if path.endswith(f"/{name}.json")]
        return path


def programs() -> list[str]:
    """The requirements of the group `sign`, as a project gets them."""
    text = (ROOT / "template/pyproject.toml.jinja").read_text("utf-8")
    group = re.search(r"\nsign = \[(.*?)\n\]", text, re.DOTALL)
    assert group
    return re.findall(r'"([^"]+)"', group[1])


class Project:
    """A project on GitLab: its jobs, its package registry, and a Sigstore of its own."""

    def __init__(self, path: Path, url: str, packages: Packages, sigstore: Sigstore | None):
        self.path = path
        self.packages = packages
        self.sigstore = sigstore
        standins = ROOT / "tests/standins"
        (path / ".gitlab").mkdir()
        (path / "statements").mkdir()
        shutil.copy(ROOT / "ci/gitlab/.gitlab/provenance", path / ".gitlab/provenance")
        programs_of = standins / "bin"
        if sigstore:
            programs_of = path / "bin"
            programs_of.mkdir()
            requirements = " ".join(f"--with '{requirement}'" for requirement in programs())
            (programs_of / "uv").write_text(
                f'#!/bin/sh\nshift 4\nexec {uv()} run --quiet --no-project {requirements} "$@"\n'
            )
            (programs_of / "uv").chmod(0o755)
            sigstore.trust(path / "trust.json")
        else:
            (path / "trust.json").write_text("{}")
        self.env = os.environ | {
            "PATH": f"{programs_of}{os.pathsep}{os.environ['PATH']}",
            "STANDINS": str(standins),
            "STANDIN_PYTHON": sys.executable,
            "STANDIN_ATTESTATIONS": str(path / "statements"),
            "GITLAB_CI": "true",
            "ML_PROVENANCE": "on",
            "ML_SIGSTORE": "trust.json",
            "CI_API_V4_URL": url,
            "CI_PROJECT_ID": "1",
            "CI_SERVER_URL": SERVER,
            "CI_DEFAULT_BRANCH": "main",
            "CI_JOB_TOKEN": "of the job",
            "PIPELINE": "train",
            "CI_PIPELINE_SOURCE": "push",
            "CI_COMMIT_SHA": "0" * 40,
            "CI_JOB_URL": f"{SERVER}/team/project/-/jobs/1",
        }
        for name in ("model", f"verified/{VERSION}"):
            self.write(path / "artifacts" / name)

    def write(self, folder: Path) -> Path:
        """Write the package, as it was made, to a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def run(
        self, *command: str, project: str = "team/project", branch: str = "main"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a job of a project, which has an identity."""
        config = f"{SERVER[8:]}/{project}//.gitlab-ci.yml@refs/heads/{branch}"
        more = {
            "CI_PROJECT_PATH": project,
            "CI_PROJECT_URL": f"{SERVER}/{project}",
            "CI_COMMIT_BRANCH": branch,
            "SIGSTORE_ID_TOKEN": "a token",
        }
        if self.sigstore:
            more["SIGSTORE_ID_TOKEN"] = self.sigstore.token(ci_config_ref_uri=config)
        return subprocess.run(
            command, cwd=self.path, env=self.env | more, capture_output=True, text=True, check=False
        )

    def attest(self, **job: str) -> None:
        """Do what job attest does."""
        path = "artifacts/model/manifest.json"
        done = self.run("sh", ".gitlab/provenance", "attest", path, **job)
        assert done.returncode == 0, done.stdout + done.stderr

    def refusal(self) -> str:
        """Return why job verify refuses the package that lies in artifacts/verified; or nothing."""
        path = f"artifacts/verified/{VERSION}/manifest.json"
        done = self.run("sh", ".gitlab/provenance", "verify", path)
        return done.stdout + done.stderr if done.returncode else ""

    def in_place(self, name: str, **job: str) -> None:
        """Put there what another job signs of the same package, as whoever can write there may."""
        good = dict(self.packages.files)
        self.attest(**job)
        self.packages.files.update(good | {name: self.packages.files[name]})


@pytest.fixture(params=["stand-ins", pytest.param("the real programs", marks=pytest.mark.nightly)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    packages = Packages()
    with packages.serving() as url:
        if request.param == "stand-ins":
            yield Project(tmp_path, url, packages, None)
        else:
            with Sigstore(SERVER).serving() as sigstore:
                yield Project(tmp_path, url, packages, sigstore)


@pytest.mark.slow  # the scripts of jobs, several times
@pytest.mark.needs("curl")
def test_gitlab_signs_each_file_of_a_model_and_deploys_nothing_else(project: Project) -> None:
    assert "No pipeline of the default branch attested" in project.refusal()
    project.attest()
    assert project.refusal() == ""
    # What it signed is of the format, with each file under its name.
    bundle = json.loads(project.packages.files[project.packages.address("signature")])
    assert MODEL in json.dumps(bundle) or project.sigstore
    if project.sigstore:
        (statement,) = (s for s in project.sigstore.entries if s["predicateType"] == MODEL)
        assert {
            resource["name"]: resource["digest"] for resource in statement["predicate"]["resources"]
        } == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    folder = project.path / f"artifacts/verified/{VERSION}"
    changes: list[Callable[[], object]] = [
        lambda: (folder / "model.skops").write_bytes(b"another model"),
        lambda: (folder / "problem/features.py").rename(folder / "problem/more.py"),
        lambda: (folder / ".gitignore").write_text("which other signers pass over"),
        lambda: (folder / "problem.md").unlink(),
    ]
    for change in changes:
        change()
        assert "erification failed" in project.refusal()
        project.write(folder)
    assert project.refusal() == ""


@pytest.mark.slow  # the scripts of jobs, several times
@pytest.mark.needs("curl")
def test_a_model_that_another_job_signed_is_refused(project: Project) -> None:
    project.attest()
    good = dict(project.packages.files)
    signature = project.packages.address("signature")
    bundle = project.packages.address("bundle")
    jobs = [{"project": "somebody/project"}, {"branch": "theirs"}]
    for name, job in [(signature, jobs[0]), (signature, jobs[1]), (bundle, jobs[0])]:
        project.in_place(name, **job)
        assert project.packages.files[name] != good[name]
        assert project.refusal() != "", f"{name} by a job of {job}"
        project.packages.files.update(good)
    assert project.refusal() == ""
    # Whoever can write there can delete: that is no way around it.
    del project.packages.files[signature]
    assert "which was made when it was attested, is gone: it is refused" in project.refusal()


@pytest.mark.needs("curl")
def test_a_version_that_was_attested_before_there_were_signatures_needs_none(
    project: Project,
) -> None:
    project.attest()
    (project.path / "predicate.json").write_text(
        json.dumps(
            {
                "buildDefinition": {"buildType": "b", "externalParameters": {}},
                "runDetails": {"builder": {"id": SERVER}},
            }
        )
    )
    path = project.path / "artifacts/model/manifest.json"
    command = "uv run --locked --only-group sign sigstore --trust-config trust.json attest"
    command += " --overwrite --predicate predicate.json --predicate-type"
    done = project.run(*command.split(), "https://slsa.dev/provenance/v1", str(path))
    assert done.returncode == 0, done.stderr
    content = path.with_name("manifest.json.sigstore.json").read_bytes()
    project.packages.files[project.packages.address("bundle")] = content
    del project.packages.files[project.packages.address("signature")]
    assert project.refusal() == ""


@pytest.mark.slow  # the scripts of jobs, several times
@pytest.mark.needs("curl")
def test_a_bill_of_materials_is_attested_of_the_image_by_its_digest(project: Project) -> None:
    shutil.copy(ROOT / "ci/gitlab/.gitlab/sbom", project.path / ".gitlab/sbom")
    folder = project.path / "artifacts"
    materials = {"bomFormat": "CycloneDX", "components": [{"name": "what it is made of, ü"}]}
    (folder / "sbom.json").write_text(json.dumps(materials))
    attest = ["sh", ".gitlab/provenance", "attest", "artifacts/image.env", "artifacts/sbom.json"]
    # What names no image by its digest, and what a shell would run, is refused.
    for image in ("registry.gitlab.example/team/project:latest", f"$(id)@sha256:{'a' * 64}' ls '"):
        (folder / "image.env").write_text(f"export VERSION='v'\nexport ML_IMAGE='{image}'\n")
        done = project.run(*attest)
        assert done.returncode != 0
        assert "names no image by its digest" in done.stderr
    name = "registry.gitlab.example/team/project/service"
    value = "a" * 64
    (folder / "image.env").write_text(
        f"export VERSION='v@sha256:0'\nexport ML_IMAGE='{name}@sha256:{value}'\n"
    )
    done = project.run(*attest)
    assert done.returncode == 0, done.stderr
    path = project.packages.address("sbom")
    assert f"/provenance/{value}/" in path
    (folder / "bundle.json").write_bytes(project.packages.files[path])
    verify = "uv run --locked --only-group sign sigstore --trust-config trust.json verify identity"
    verify += f" --bundle artifacts/bundle.json --cert-oidc-issuer {SERVER} --cert-identity"
    identity = f"{SERVER}/team/project//.gitlab-ci.yml@refs/heads/main"
    done = project.run(*verify.split(), identity, f"sha256:{value}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predicate"] == materials
    assert project.run(*verify.split(), identity, f"sha256:{'b' * 64}").returncode != 0


@pytest.mark.needs("curl")
def test_an_address_of_ones_own_sigstore_still_attests_and_says_what_it_cannot(
    tmp_path: Path,
) -> None:
    packages = Packages()
    with packages.serving() as url:
        project = Project(tmp_path, url, packages, None)
        project.env["ML_SIGSTORE"] = "https://sigstore.example"
        path = "artifacts/model/manifest.json"
        done = project.run("sh", ".gitlab/provenance", "attest", path)
        assert done.returncode == 0, done.stderr
        assert "for that, ML_SIGSTORE has to be a file" in done.stdout
        assert project.refusal() == ""
        assert not [name for name in packages.files if "signature" in name]
