"""Image: a package → an image of the service with it, which answers as it does; `image.json`.

Built by docker where its daemon runs, else by buildah. A version's image is built once: the
registry has its digest from then on.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import BadInput, Refused, forge, registry
from ..documents import ARTIFACTS, PACKAGE, now, write
from ..inference import verified
from ..serving.batch import load
from ..settings import delivery
from . import smoke_test
from .staging import free_port, started

NEEDED = ("Dockerfile", "pyproject.toml", "uv.lock", "README.md", "src", "config")


def image(version: str | None = None, push: bool = False) -> str:
    """Build the image of a registered version; without one, of the package in `artifacts/`.

    Args:
        push: Bring it to `images` of config/delivery.yaml, by default the platform's own registry.

    Returns:
        What it is called: NAME@sha256:DIGEST if it was pushed.

    Raises:
        BadInput: There is no builder, no such package, or no place to push to.
        Refused: It cannot be built, or does not answer as the package does.
    """
    store, begun = registry.opened(), now()
    found = registry.find(version) if version else None
    if push and not found:
        raise BadInput("name a version of `ml models`: what is pushed is registered first")
    if push and found and (before := store.get(f"image-{found.version}")):
        return before
    engine, place = _engine(), _place(push)
    ARTIFACTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".image-", dir=ARTIFACTS) as folder:
        package = Path(folder, "artifacts/model")
        if found:
            store.fetch(found.version, package)
        else:
            verified(PACKAGE)
            shutil.copytree(PACKAGE, package)
        for name in NEEDED:
            (shutil.copytree if Path(name).is_dir() else shutil.copy)(name, Path(folder, name))
        served = load(package)
        tag = f"{place}:{served.model.version}"
        options = [f"--build-arg=VERSION={served.model.version}", f"--tag={tag}"]
        # What docker does unasked: its format, for the health check, and steps that are kept.
        options += ["--format=docker", "--layers"] * (engine == "buildah")
        _run(engine, "build", *options, folder)
        with _container(engine, tag) as url:
            answered = str(smoke_test(served, url)["parity"])
    if not push or not found:
        return tag
    pinned = _pushed(engine, place, tag)
    store.set(f"image-{found.version}", pinned)
    said = {"image": pinned, "version": found.version, "package_digest": found.digest}
    write("image", said | {"parity": answered}, begun, found.facts["data_digest"], {})
    return pinned


def _place(push: bool) -> str:
    at, wanted = forge.here(), os.environ.get("ML_IMAGES") or delivery().images
    if push and not wanted and at is None:
        raise BadInput("no place to push to: set `images` in config/delivery.yaml to HOST/NAME")
    return wanted or (f"{at.place()}/service" if at else f"localhost/{__package__.split('.')[0]}")


def _engine() -> str:
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
        if asked.returncode == 0:
            return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise BadInput("neither a docker daemon nor buildah is here: install one of them")


def _run(*command: str, **more: str) -> str:
    """What a builder prints.

    Raises:
        Refused: It failed.
    """
    done = subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise Refused(f"{' '.join(command[:2])} failed:\n  {said}")
    return done.stdout.strip()


@contextmanager
def _container(engine: str, tag: str) -> Iterator[str]:
    """Yield the address of the service of an image."""
    port = free_port()
    how = ["--network=host", "--env=ML_HOST=127.0.0.1", f"--env=ML_PORT={port}", "--env=ML_LOG="]
    if engine == "docker":
        with started(["docker", "run", "--rm", *how, tag], port) as url:
            yield url
        return
    name = _run("buildah", "from", "--pull-never", tag)
    try:
        command = ["buildah", "run", *how, name, "--", "ml-serve", "/model"]
        with started(command, port) as url:
            yield url
    finally:
        _run("buildah", "rm", name)


def _pushed(engine: str, place: str, tag: str) -> str:
    host, at = place.partition("/")[0], forge.here()
    with TemporaryDirectory() as folder:
        more = {}
        if at and at.place().partition("/")[0] == host and (own := at.credentials()):
            known = base64.b64encode(":".join(own).encode()).decode()
            file = Path(folder, "config.json")
            file.write_text(json.dumps({"auths": {host: {"auth": known}}}), "utf-8")
            more = {"DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": str(file)}
        if engine == "docker":
            _run("docker", "push", tag, **more)
            return _run("docker", "inspect", "--format", "{{index .RepoDigests 0}}", tag)
        plain, digest = host.partition(":")[0] in ("localhost", "127.0.0.1"), Path(folder, "digest")
        how = [f"--digestfile={digest}"]
        how += ["--tls-verify=false"] * plain  # as docker does, on this machine itself
        _run("buildah", "push", *how, tag, f"docker://{tag}", **more)
        return f"{place}@{digest.read_text('utf-8').strip()}"
