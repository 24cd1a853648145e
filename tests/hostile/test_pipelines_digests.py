"""What was verified is what is deployed: by digest, from the job that verified it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import graph
import pytest
from conftest import ROOT, Render
from graph import Files

LEVELS = [1, 2]
NEEDED = {"VERSION": "version", "ML_CHAMPION": "champion", "PREVIOUS": "previous"}
REFERENCE = f"20260101-000000-aaaaaaaa@sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def files(render: Render) -> Callable[[int], tuple[Files, Files]]:
    return lambda level: graph.read(render(level=level, ci=["github", "gitlab"]))


Read = Callable[[int], tuple[Files, Files]]


@pytest.mark.parametrize("level", LEVELS)
def test_what_github_deploys_is_what_verify_put_out(files: Read, level: int) -> None:
    github, _ = files(level)
    seen = set()
    for name, flow in graph.workflows(github).items():
        for job, about in flow["jobs"].items():
            for step in about.get("steps", []):
                for variable in re.findall(r'ml \w+ [^>\n]*?"\$([A-Z]\w+)"', step.get("run", "")):
                    wanted = f"${{{{ needs.verify.outputs.{NEEDED[variable]} }}}}"
                    assert step["env"][variable] == wanted, f"{name}.{job}"
                    assert "verify" in graph.listed(about["needs"]), f"{name}.{job}"
                    seen.add(name)
            assert "inputs." not in str(about.get("steps")) or job == "verify" or name == "attest"
    more = {"rollback", "drill"} if level == 2 else set()
    assert seen == {"deliver", "score", *more}


@pytest.mark.parametrize("level", LEVELS)
def test_what_gitlab_deploys_comes_by_a_file_that_no_variable_overrides(
    files: Read, level: int
) -> None:
    """A variable of the pipeline goes before those of a dotenv report; before a file none does."""
    _, gitlab = files(level)
    jobs = graph.jobs_of(gitlab)
    deploying = set()
    for name, job in jobs.items():
        script = graph.own(job.get("script", []))
        uses = [n for n, line in enumerate(script) if re.search(r'ml \w+ .*?"\$\w+"', line)]
        if not uses or name[0] == ".":
            continue
        deploying.add(name)
        read = [n for n, line in enumerate(script) if line.startswith(". artifacts/verified.env")]
        assert read, name
        assert read[0] < uses[0], name
        needs = {need if isinstance(need, str) else need["job"] for need in job["needs"]}
        assert [need for need in needs if need.startswith("verify")], name
    more = {"build", "staging", "rollback", "drill"} if level == 2 else set()
    assert deploying == {"production", "score", *more}
    for name, job in jobs.items():
        assert "dotenv" not in str(job.get("artifacts", "")), name


def test_the_signature_of_a_model_that_is_made_is_the_one_that_is_asked_for(files: Read) -> None:
    github, _ = files(2)
    kind = "https://model_signing/signature/v1.0"
    steps = graph.workflows(github)["attest"]["jobs"]["attest"]["steps"]
    (signing,) = [step for step in steps if step.get("with", {}).get("predicate-type") == kind]
    assert signing["with"]["subject-path"] == "signing/subject/*"
    assert "artifact" in str(graph.workflows(github)["train"]["jobs"]["register"]["steps"][-1])
    action = github[".github/actions/verify/action.yml"]["runs"]["steps"]
    (verification,) = [step["run"] for step in action if kind in step.get("run", "")]
    # Only what 0.2 attested, as train.yml, may do without.
    last = verification.splitlines()[-1]
    assert "/train.yml" in last.split(" || ")[0]
    assert "/attest.yml" in last.split(" || ")[1]
    assert "artifacts/signing/subject/" in last.split(" || ")[1]


@pytest.mark.parametrize("level", LEVELS)
def test_verifying_imports_nothing_and_holds_no_token_that_writes(files: Read, level: int) -> None:
    github, gitlab = files(level)
    for name, flow in graph.workflows(github).items():
        for job, about in flow["jobs"].items():
            if job == "verify":
                assert set(about["permissions"].values()) == {"read"}, name
    action = github[".github/actions/verify/action.yml"]["runs"]["steps"]
    used = re.findall(r"\bml (\w+)", " ".join(step.get("run", "") for step in action))
    assert used == ["resolve", "fetch", "sign", "image"]
    assert 'ml sign "$pinned" --unsigned' in str(action)  # signs nothing, and imports nothing
    assert "--noted" in str(action)  # which builds nothing
    script = (ROOT / "ci/gitlab/.gitlab/verify").read_text("utf-8")
    assert re.findall(r"uv run ml (\w+)", script) == [
        "resolve",
        "resolve",
        "fetch",
        "image",
    ]
    for name, job in graph.jobs_of(gitlab).items():
        if name.startswith("verify"):
            run = [line for line in graph.own(job["script"]) if "register.env" not in line]
            # Which model scores is read from config/ alone.
            run = [line for line in run if line != "model=$(uv run ml score --print-model)"]
            assert all(line.startswith("sh .gitlab/verify ") for line in run), name


def test_an_image_counts_only_with_the_package_that_it_was_attested_with(files: Read) -> None:
    github, gitlab = files(2)
    (attest,) = graph.workflows(github)["attest"]["jobs"].values()
    lines = [line for step in attest["steps"] for line in step.get("run", "").splitlines()]
    (verification,) = (line for line in lines if line.startswith("gh attestation verify"))
    assert 'attest.yml" --deny-self-hosted-runners' in verification
    assert any(line.startswith("grep ") and '"$PACKAGE" attested' in line for line in lines)
    made = graph.workflows(github)["deliver"]["jobs"]
    assert made["attest-image"]["with"]["package"] == "${{ needs.verify.outputs.version }}"
    assert "attest-image" in made["staging"]["needs"]
    build = graph.own(graph.jobs_of(gitlab)["build"]["script"])
    signed = next(line for line in build if "artifacts/image.env" in line)
    assert "VERSION" in signed
    assert "ML_IMAGE" in signed


@pytest.mark.slow  # the script of a job, several times
def test_a_model_that_nobody_signed_is_refused_unless_it_is_of_0_2(
    files: Read, tmp_path: Path
) -> None:
    action = files(2)[0][".github/actions/verify/action.yml"]["runs"]["steps"]
    (verification,) = [step["run"] for step in action if "model_signing" in step.get("run", "")]
    standins = ROOT / "tests/standins"
    (tmp_path / "statements").mkdir()
    (tmp_path / "artifacts/verified/v1").mkdir(parents=True)
    (tmp_path / "artifacts/verified/v1/manifest.json").write_text("{}")
    (tmp_path / "artifacts/signing/subject").mkdir(parents=True)
    (tmp_path / "artifacts/signing/subject/v1").write_bytes(b"digests of files")
    (tmp_path / "artifacts/signing/predicate.json").write_text('{"resources": []}')
    env = {
        "PATH": f"{standins / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "STANDINS": str(standins),
        "STANDIN_PYTHON": sys.executable,
        "STANDIN_ATTESTATIONS": str(tmp_path / "statements"),
        "STANDIN_REF": "refs/heads/main",
        "STANDIN_RUN": str(tmp_path),
        "GITHUB_JOB": "attest",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_REPOSITORY": "team/project",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_SHA": "0" * 40,
        "GH_TOKEN": "of the job",
        "PINNED": "v1@sha256:0",
        "REF": "refs/heads/main",
    }

    def attest(workflow: str, subject: str, **more: str) -> None:
        job = {"permissions": "write-all", "workflow": f".github/workflows/{workflow}"}
        (tmp_path / "jobs.json").write_text(json.dumps({"attest": job}))
        empty = dict.fromkeys(("SUBJECT_NAME", "SUBJECT_DIGEST", "SUBJECT_CHECKSUMS"), "")
        command = [sys.executable, str(standins / "attestations.py"), "attest"]
        more = empty | more | {"SUBJECT_PATH": subject}
        subprocess.run(command, cwd=tmp_path, env=env | more, check=True, capture_output=True)

    def verified() -> bool:
        command = ["bash", "-eo", "pipefail", "-c", verification]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
        return done.returncode == 0

    manifest = "artifacts/verified/v1/manifest.json"
    kind = "https://model_signing/signature/v1.0"
    signature = {"PREDICATE_TYPE": kind, "PREDICATE_PATH": "artifacts/signing/predicate.json"}
    assert not verified()
    attest("attest.yml", manifest)
    assert not verified(), "it has provenance, and no signature of the model"
    attest("train.yml", "artifacts/signing/subject/*", **signature)
    assert not verified(), "another workflow signed it"
    attest("attest.yml", "artifacts/signing/subject/*", **signature)
    assert verified()
    (tmp_path / "artifacts/signing/subject/v1").write_bytes(b"digests of other files")
    assert not verified(), "the signature is of other files"
    attest("train.yml", manifest)
    assert verified(), "0.2 attested it, as train.yml"


# The scripts of GitLab, run


class Elsewhere:
    """Two servers: GitLab, which points at the other for downloads; and the other."""

    def __init__(self) -> None:
        self.bundle = b"a bundle"
        self.requests: dict[str, list[dict[str, str]]] = {"gitlab": [], "other": []}

    @contextmanager
    def serving(self) -> Iterator[str]:
        other = self._server("other", None)
        gitlab = self._server("gitlab", f"http://localhost:{other.server_port}/bundle")
        try:
            yield f"http://127.0.0.1:{gitlab.server_port}"
        finally:
            gitlab.shutdown()
            other.shutdown()

    def _server(self, name: str, to: str | None) -> http.server.ThreadingHTTPServer:
        here = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                here.requests[name].append(dict(self.headers))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(302 if to else 200)
                if to:
                    self.send_header("Location", to)
                body = b"" if to else here.bundle
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def script(folder: Path, name: str, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a script of .gitlab in a folder where uv is a stand-in that only writes down its call."""
    (folder / ".gitlab").mkdir(exist_ok=True)
    for file in ("provenance", "verify"):
        shutil.copy(ROOT / "ci/gitlab/.gitlab" / file, folder / ".gitlab" / file)
    uv = folder / "bin/uv"
    uv.parent.mkdir(exist_ok=True)
    uv.write_text(
        f'#!/bin/sh\necho "$*" >> "{folder}/calls"\n'
        'case "$*" in\n'
        '*"ml resolve"*) echo "$RESOLVES" ;;\n'
        '*"ml image"*) echo "$NOTED" ;;\n'
        '*"ml fetch"*) eval "to=\\${$#}"; mkdir -p "$to"; echo "{}" > "$to/manifest.json" ;;\n'
        "esac\n"
    )
    uv.chmod(0o755)
    env = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "ML_PROVENANCE": "on",
        "CI_API_V4_URL": "http://127.0.0.1:9/api/v4",
        "CI_PROJECT_ID": "1",
        "CI_PROJECT_URL": "https://gitlab.example.invalid/a/b",
        "CI_SERVER_URL": "https://gitlab.example.invalid",
        "CI_DEFAULT_BRANCH": "main",
        "CI_JOB_TOKEN": "secret-of-the-job",
        "PIPELINE": "train",
        "CI_PIPELINE_SOURCE": "push",
        "CI_COMMIT_SHA": "0" * 40,
        "CI_JOB_URL": "https://gitlab.example.invalid/a/b/-/jobs/1",
        **more,
    }
    command = ["sh", f".gitlab/{name}", *argv]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.needs("curl")
def test_gitlabs_token_never_follows_a_redirect(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("what was made")
    elsewhere = Elsewhere()
    with elsewhere.serving() as url:
        done = script(tmp_path, "provenance", "verify", "file", CI_API_V4_URL=url)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "file.sigstore.json").read_bytes() == elsewhere.bundle
        (first,) = elsewhere.requests["gitlab"]
        (second,) = elsewhere.requests["other"]
        assert first["JOB-TOKEN"] == "secret-of-the-job"
        assert "secret-of-the-job" not in str(second)
        # What is to be kept is never sent to where somebody points.
        (tmp_path / "file.sigstore.json").write_text("a bundle")
        done = script(tmp_path, "provenance", "attest", "file", CI_API_V4_URL=url)
        assert done.returncode == 1
        assert "is not kept" in done.stdout
        assert len(elsewhere.requests["other"]) == 1


PLAIN = [
    "http://git.example.invalid/api/v4",
    "http://127.0.0.1.example.invalid:80/",
    "http://127.0.0.1:80@git.example.invalid/",
    "http://git.example.invalid/,git.example.invalid,",
    "HTTP://x/",
]


@pytest.mark.needs("curl")
@pytest.mark.parametrize("url", PLAIN)
@pytest.mark.parametrize("what", ["attest", "verify"])
def test_gitlabs_token_does_not_travel_in_clear(tmp_path: Path, url: str, what: str) -> None:
    (tmp_path / "file").write_text("what was made")
    done = script(
        tmp_path, "provenance", what, "file", CI_API_V4_URL=url, ML_PLAIN_HTTP="a.invalid"
    )
    assert done.returncode == 1
    assert "The job's token is sent encrypted only: give" in done.stdout
    assert not (tmp_path / "calls").exists()
    # To a host that somebody has named it goes: here nobody answers there.
    named = {"CI_API_V4_URL": "http://127.0.0.2:9", "ML_PLAIN_HTTP": "a.invalid,127.0.0.2"}
    done = script(tmp_path, "provenance", "verify", "file", **named)
    assert "No pipeline of the default branch attested file" in done.stdout


@pytest.mark.parametrize("url", PLAIN)
def test_the_token_of_the_schedules_does_not_travel_in_clear(url: str) -> None:
    def run(**more: str) -> str:
        env = {"PATH": os.environ["PATH"], "GITLAB_TOKEN": "secret", "CI_PROJECT_PATH": "a/b"}
        command = ["python3", str(ROOT / "ci/gitlab/.gitlab/schedules")]
        done = subprocess.run(command, env=env | more, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return done.stderr

    assert "schedules: GITLAB_TOKEN is sent encrypted only" in run(CI_API_V4_URL=url)
    named = run(CI_API_V4_URL="http://127.0.0.2:9", ML_PLAIN_HTTP="a.invalid,127.0.0.2")
    assert "cannot be asked" in named


@pytest.mark.parametrize(
    ("protocol", "host", "named", "is_sent"),
    [
        ("https", "git.example", "", True),
        ("http", "git.example", "", False),
        ("http", "git.example", "a.example,git", False),
        ("http", "git.example", "a.example,git.example", True),
        ("http", "localhost", "", True),
        ("", "", "", False),
    ],
)
def test_the_token_that_proposes_an_update_does_not_travel_in_clear(
    files: Read, protocol: str, host: str, named: str, is_sent: bool
) -> None:
    before = graph.own(graph.jobs_of(files(1)[1])["propose"]["before_script"])
    (check,) = (line for line in before if "CI_SERVER_PROTOCOL" in line)
    variables = {"CI_SERVER_PROTOCOL": protocol, "CI_SERVER_HOST": host, "ML_PLAIN_HTTP": named}
    command = ["bash", "-eo", "pipefail", "-c", check]
    env = {"PATH": os.environ["PATH"]} | {name: text for name, text in variables.items() if text}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is is_sent
    assert ("GITLAB_TOKEN is sent encrypted only" in done.stdout) is not is_sent


@pytest.mark.needs("curl")
def test_an_image_of_jobs_that_is_not_pinned_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("what was made")
    image = "ghcr.io/astral-sh/uv:0.13.8-python3.13-trixie"
    for provenance in ("on", "off"):
        more = {"CI_JOB_IMAGE": image, "ML_PROVENANCE": provenance}
        done = script(tmp_path, "provenance", "attest", "file", **more)
        assert done.stderr.count(f"The image of this job, {image}, is not pinned by digest") == 1
        done = script(tmp_path, "provenance", "verify", "file", **more)
        assert "pinned" not in done.stderr
    for pinned in (f"{image}@sha256:{'0' * 64}", ""):
        done = script(tmp_path, "provenance", "attest", "file", CI_JOB_IMAGE=pinned)
        assert "pinned" not in done.stderr


@pytest.mark.needs("curl")
def test_what_no_pipeline_attested_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("what nobody made")
    done = script(tmp_path, "provenance", "verify", "file")
    assert done.returncode == 1
    assert "No pipeline of the default branch attested file: it is refused." in done.stdout


@pytest.mark.needs("curl")
def test_a_version_that_is_not_attested_is_in_no_file_for_the_jobs_that_follow(
    tmp_path: Path,
) -> None:
    done = script(tmp_path, "verify", "VERSION", "champion", RESOLVES=REFERENCE)
    assert done.returncode != 0
    assert not (tmp_path / "artifacts/verified.env").exists()
    assert f"fetch {REFERENCE} " in (tmp_path / "calls").read_text()


def test_one_that_a_person_vouches_for_is_named_by_its_digest(tmp_path: Path) -> None:
    vouched = {"RESOLVES": REFERENCE, "ML_UNATTESTED": REFERENCE}
    assert script(tmp_path, "verify", "VERSION", "champion", **vouched).returncode == 0
    assert (tmp_path / "artifacts/verified.env").read_text() == (
        f"export VERSION='{REFERENCE}' VERSION_IMAGE=''\n"
    )
    other = vouched | {"ML_UNATTESTED": REFERENCE.replace("0" * 64, "1" * 64)}
    assert script(tmp_path, "verify", "VERSION", "champion", **other).returncode != 0


def test_no_champion_yet_is_an_empty_variable(tmp_path: Path) -> None:
    done = script(tmp_path, "verify", "ML_CHAMPION", "champion", "--optional", RESOLVES="")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "artifacts/verified.env").read_text() == (
        "export ML_CHAMPION='' ML_CHAMPION_IMAGE=''\n"
    )
    assert "resolve champion --optional" in (tmp_path / "calls").read_text()


def test_the_token_of_the_schedules_follows_no_redirect(tmp_path: Path) -> None:
    elsewhere = Elsewhere()
    with elsewhere.serving() as url:
        env: dict[str, Any] = {"PATH": os.environ["PATH"], "CI_API_V4_URL": url}
        env |= {"GITLAB_TOKEN": "secret-of-the-project", "CI_PROJECT_PATH": "a/b"}
        path = ROOT / "ci/gitlab/.gitlab/schedules"
        done = subprocess.run(
            ["python3", str(path)],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "302" in done.stderr
    assert elsewhere.requests["other"] == []


IMAGE = f"registry.example.invalid/service@sha256:{'2' * 64}"


@pytest.mark.needs("curl")
def test_the_image_that_a_cluster_runs_is_one_that_was_attested_with_its_package(
    tmp_path: Path,
) -> None:
    (tmp_path / "deploy/base").mkdir(parents=True)
    more = {"RESOLVES": REFERENCE, "NOTED": IMAGE}
    elsewhere = Elsewhere()
    with elsewhere.serving() as url:
        done = script(
            tmp_path, "verify", "VERSION", "previous", "--image", CI_API_V4_URL=url, **more
        )
    assert done.returncode == 0, done.stderr
    assert len(elsewhere.requests["other"]) == 2  # for the package, and for the image with it
    line = (tmp_path / "artifacts/verified.env").read_text()
    assert line == f"export VERSION='{REFERENCE}' VERSION_IMAGE='{IMAGE}'\n"
    env = (tmp_path / "artifacts/image.env").read_text()
    # Byte for byte what job build has signed: it is found again by its digest.
    build = (ROOT / "ci/gitlab/.gitlab/deliver-2.yml").read_text("utf-8")
    form = re.search(r'printf "(.*?)" "\$VERSION" "\$image" > artifacts/image.env', build)
    assert form
    assert env == form[1].replace("\\n", "\n") % (REFERENCE, IMAGE)
