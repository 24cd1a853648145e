"""`ml pin` asks a registry what a tag names, and writes its digest in the owner's line alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT
from hosts import registry as docker_registry
from rung_runtime import UsageError
from standins.registry import Registry, Request, Response, error, serving, sha

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TEMPLATE = {
    "Dockerfile": (ROOT / "template/Dockerfile").read_bytes(),
    ".gitlab-ci.yml": (ROOT / "ci/gitlab/.gitlab-ci.yml").read_bytes(),
}
IN_TEMPLATE = {
    "Dockerfile": b"python:3.11-slim",
    ".gitlab-ci.yml": b"ghcr.io/astral-sh/uv:0.13.8-python3.13-trixie",
}
WRITTEN = {
    "Dockerfile": b"ARG PYTHON=",
    ".gitlab-ci.yml": b"      default: ",
}


@pytest.fixture
def images(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Import the module, in an empty folder of a person without a login."""
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY_AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-login"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    imported = module("delivery.base_images")
    monkeypatch.setattr(module("oci_client.connection"), "sleep", lambda _: None)
    return imported


@pytest.fixture
def hub() -> Iterator[Registry]:
    """Serve a registry that gives a token to everybody who asks, as Docker Hub does."""

    def answer(request: Request) -> Response | None:
        if request.path.startswith("/token"):
            return Response(200, {}, json.dumps({"token": "everybody"}).encode())
        if request.authorization == "Bearer everybody":
            return None
        realm = f'Bearer realm="http://{registry.address}/token",service="hub"'
        return error(401, "UNAUTHORIZED", "authentication required", **{"WWW-Authenticate": realm})

    with serving(Registry(answers=answer)) as registry:
        yield registry


def index(number: int, kind: str = INDEX) -> bytes:
    """Return an index of images for two kinds of machine."""
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": f"sha256:{number:064}",
            "size": 7,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture in ("amd64", "arm64")
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


def write(registry: Registry) -> dict[str, str]:
    """Write the template's files with images of a registry, and return these."""
    names = {"Dockerfile": "library/python:3.11-slim", ".gitlab-ci.yml": "astral-sh/uv:0.13"}
    for file, name in names.items():
        image = f"{registry.address}/{name}".encode()
        old = WRITTEN[file] + IN_TEMPLATE[file]
        Path(file).write_bytes(TEMPLATE[file].replace(old, WRITTEN[file] + image))
        registry.manifests[tuple(name.split(":"))] = index(1)  # type: ignore[index]
    return {file: f"{registry.address}/{name}" for file, name in names.items()}


def read() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path().iterdir())}


def test_the_template_has_its_images_where_they_are_looked_for(images: ModuleType) -> None:
    for file, content in TEMPLATE.items():
        Path(file).write_bytes(content)
        place = images.find_place(file)
        assert place.written.encode() == IN_TEMPLATE[file]
        assert content.count(WRITTEN[file] + IN_TEMPLATE[file]) == 1
        assert images.unpinned(file) == place.written


def test_the_digest_of_a_tag_is_written_and_moves_with_it_and_nothing_else_does(
    images: ModuleType, hub: Registry
) -> None:
    named = write(hub)
    before = read()
    first = sha(index(1))
    lines = images.pin()
    assert lines == [
        f"{file}: {image}@{first}, until now without a digest" for file, image in named.items()
    ]
    assert read() == {
        file: content.replace(named[file].encode(), f"{named[file]}@{first}".encode())
        for file, content in before.items()
    }
    pinned = read()
    assert images.pin() == [f"{file}: {name}@{first}, as before" for file, name in named.items()]
    assert read() == pinned
    assert images.unpinned() is None
    # The tag has moved.
    hub.manifests["library/python", "3.11-slim"] = index(2)
    line, _ = images.pin()
    assert line == f"Dockerfile: {named['Dockerfile']}@{sha(index(2))}, until now {first}"
    assert read()["Dockerfile"] == pinned["Dockerfile"].replace(
        first.encode(), sha(index(2)).encode()
    )
    (document, *_) = yaml.compose_all(read()[".gitlab-ci.yml"].decode())
    assert document is not None


def test_a_registry_is_asked_for_the_index_and_nobody_elses_digest_is_believed(
    images: ModuleType, hub: Registry
) -> None:
    write(hub)
    images.pin("Dockerfile")
    (request,) = [r for r in hub.requests if "/manifests/" in r.path and r.authorization]
    assert request.headers["Accept"].split(", ")[0] == INDEX
    before = read()
    answer = hub.answers
    for headers, body, message in (
        ({"Docker-Content-Digest": sha(b"another")}, index(3), "is not sha256:"),
        ({}, index(3, "application/vnd.docker.distribution.manifest.v1+prettyjws"), "not an image"),
        ({}, b"[]", "is malformed"),
        ({"Content-Type": "text/html"}, b"<html>", "is malformed"),
    ):
        hub.answers = lambda _, h=headers, b=body: Response(200, h, b)  # type: ignore[misc]
        with pytest.raises(UsageError, match=message):
            images.pin()
        assert read() == before
    hub.answers = answer
    hub.manifests["library/python", "3.11-slim"] = index(4, MANIFEST)
    (line,) = images.pin("Dockerfile")
    assert line.endswith("(an image for one kind of machine only)")


def test_what_no_registry_tells_changes_no_file(images: ModuleType, hub: Registry) -> None:
    """Not even the first of two, whose registry has told."""
    named = write(hub)
    before = read()
    del hub.manifests["astral-sh/uv", "0.13"]
    with pytest.raises(UsageError) as refused:
        images.pin()
    assert str(refused.value).startswith(f".gitlab-ci.yml: {hub.address} has no")
    assert named[".gitlab-ci.yml"] in str(refused.value)
    assert read() == before
    hub.answers = lambda _: error(403, "DENIED", "not yours")
    with pytest.raises(UsageError, match=r"Dockerfile: .* refuses: 403 .*: DENIED: not yours"):
        images.pin()
    port = docker_registry.free_port()
    for content in before.values():
        assert hub.address.encode() in content
    for file, content in before.items():
        Path(file).write_bytes(content.replace(hub.address.encode(), b"localhost:%d" % port))
    before = read()
    with pytest.raises(UsageError, match=r"does not answer: .*Nothing was changed$"):
        images.pin()
    assert read() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Dockerfile", b"ARG PYTHON=", b"ARG IMAGE=", "has no line ARG PYTHON=IMAGE"),
        ("Dockerfile", b"ARG PYTHON=", b"ARG PYTHON=a:1\nARG PYTHON=", "has more than one line"),
        ("Dockerfile", b"python:3.11-slim\n\n", b"python\n\n", "python is not an image with its"),
        ("Dockerfile", b"=python:3.11-slim\n", b"=${BASE}:1\n", r"\$\{BASE\}:1 is not an image"),
        ("Dockerfile", b"3.11-slim\n\n", b"3@sha256:1\n\n", "is not an image with its tag"),
        ("Dockerfile", b"ARG PYTHON", b"\xff\nARG PYTHON", "is not UTF-8"),
        (".gitlab-ci.yml", b"default: ghcr", b"value: ghcr", "has no spec: inputs: image: default"),
        (".gitlab-ci.yml", b"    image:", b"    container:", "has no spec: inputs: image: default"),
        (".gitlab-ci.yml", b"default: ghcr.io", b"default: $CI_REGISTRY", "not an image with its"),
        (".gitlab-ci.yml", b"spec:", b"spec: [", "has no spec: inputs: image: default"),
        (".gitlab-ci.yml", b"spec:", b"[" * 10_000, "has no spec: inputs: image: default"),
    ],
)
def test_a_line_that_the_owner_has_made_another_is_a_sentence(
    images: ModuleType, file: str, old: bytes, new: bytes, message: str
) -> None:
    """No registry is asked: there is none in this test."""
    for name, content in TEMPLATE.items():
        changed = content.replace(old, new, 1) if name == file else content
        assert (changed == content) == (name != file)
        Path(name).write_bytes(changed)
    before = read()
    other = next(name for name in TEMPLATE if name != file)
    with pytest.raises(UsageError, match=message) as refused:
        images.pin()
    assert read() == before
    if "UTF-8" not in message:
        assert f"by hand, and the other one by `ml pin {other}`" in str(refused.value)


def test_where_nothing_names_a_base_image_there_is_nothing_to_pin(images: ModuleType) -> None:
    for file, message in (
        (None, "there is no Dockerfile and no .gitlab-ci.yml here"),
        ("Dockerfile", "there is no Dockerfile here"),
        ("Makefile", "Makefile names no base image: use Dockerfile or .gitlab-ci.yml"),
    ):
        with pytest.raises(UsageError, match=message):
            images.pin(file)


def test_an_owners_way_of_writing_stays(images: ModuleType, hub: Registry) -> None:
    """Line ends, quotes, a file that is a link, and its mode."""
    named = write(hub)
    Path("docker").mkdir()
    text = f'# ä\r\narg  PYTHON="{named["Dockerfile"]}"\r\nFROM ${{PYTHON}}\r\n'
    Path("docker/of-ours").write_bytes(text.encode())
    Path("docker/of-ours").chmod(0o640)
    Path("Dockerfile").unlink()
    Path("Dockerfile").symlink_to("docker/of-ours")
    gitlab = (
        f"# 𝄞 ä\nspec: {{inputs: {{image: {{default: '{named['.gitlab-ci.yml']}'}}}}}}\n---\na: 1\n"
    )
    Path(".gitlab-ci.yml").write_bytes(gitlab.encode())
    images.pin()
    assert Path("Dockerfile").is_symlink()
    assert Path("docker/of-ours").stat().st_mode & 0o777 == 0o640
    digest = sha(index(1))
    for file, before in (("docker/of-ours", text), (".gitlab-ci.yml", gitlab)):
        name = named[".gitlab-ci.yml" if "gitlab" in file else "Dockerfile"]
        assert Path(file).read_bytes() == before.replace(name, f"{name}@{digest}").encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python:3.11-slim", ("docker.io", "library/python", "3.11-slim", "")),
        ("bitnami/python:3", ("docker.io", "bitnami/python", "3", "")),
        ("ghcr.io/astral-sh/uv:0.13", ("ghcr.io", "astral-sh/uv", "0.13", "")),
        ("localhost:5000/python:3", ("localhost:5000", "python", "3", "")),
        (f"python:3@sha256:{'a' * 64}", ("docker.io", "library/python", "3", f"sha256:{'a' * 64}")),
        ("localhost:5000/python", None),
        ("python", None),
        (f"python@sha256:{'a' * 64}", None),
        ("python:", None),
        ("https://ghcr.io/x:1", None),
        ("user:pass@ghcr.io/x:1", None),
        ("localhost/x:1", None),  # of this machine, never somebody's on Docker Hub
        ("python:3 AS build", None),
        ("", None),
    ],
)
def test_an_image_is_read_as_docker_reads_it(
    images: ModuleType, text: str, expected: tuple[str, ...] | None
) -> None:
    image = images.Image.parse(text)
    assert (image and (image.host, image.name, image.tag, image.digest)) == expected


@pytest.mark.slow
@pytest.mark.needs("skopeo", "docker-registry")
def test_a_real_registry_has_the_digest_that_is_written(
    images: ModuleType, tmp_path: Path, module: Callable[[str], ModuleType]
) -> None:
    """An index of two images is pushed, pinned, asked for by skopeo, and pushed anew."""
    with docker_registry.serving(tmp_path) as address:
        image = f"{address}/library/python:3.11-slim"
        Path("Dockerfile").write_text(f"ARG PYTHON={image}\n")
        digests = []
        for author in ("before", "after"):
            client = module("oci_client")
            pushed = docker_registry.push_index(
                client, address, "library/python", "3.11-slim", author
            )
            (message,) = images.pin()
            assert message.startswith(f"Dockerfile: {image}@{pushed}, until now ")
            name = f"docker://{images.find_place('Dockerfile').written.replace(':3.11-slim', '')}"
            command = ["skopeo", "inspect", "--raw", "--tls-verify=false", name]
            raw = subprocess.run(command, capture_output=True, text=True, check=True)
            assert len(json.loads(raw.stdout)["manifests"]) == 2
            assert sha(raw.stdout.encode()) == pushed
            digests.append(pushed)
        assert len(set(digests)) == 2
        assert images.pin() == [f"Dockerfile: {image}@{digests[1]}, as before"]
