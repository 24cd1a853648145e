"""Image: a package → an image of the service with it, which answers as it does; `image.json`.

Built by docker where its daemon runs, else by buildah. A version's image is built once: the
registry has its digest from then on. That note is a claim: it counts if the image of that digest is
where images are pushed to, and its label names the package.

Nothing of the package is imported here. What it would answer is asked of a process of its own.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import RefusedError, UsageError, ci_platform, project, registry
from ..adapters.target_local.ephemeral import ephemeral_service, free_port
from ..artifacts import ARTIFACTS, PACKAGE, now, write_fields
from ..isolation import model as isolated
from ..model_package import verified_manifest
from ..serving.loaded_model import LoadedModel
from ..serving.metrics import Distributions
from ..settings import delivery
from .smoke import smoke_test

# The digest of the package that is in an image; its version has the standard's own label.
LABEL = "vnd.rung.package-digest"
PINNED = re.compile(r"(?P<name>[^\s@]+)@sha256:[0-9a-f]{64}")
NEEDED = ("Dockerfile", "pyproject.toml", "uv.lock", "README.md", "src", "config")


def image(version: str | None = None, push: bool = False) -> str:
    """Build the image of a registered version; without one, of the package in `artifacts/`.

    Args:
        push: Bring it to `images` of config/delivery.yaml, by default the platform's own registry.

    Returns:
        What it is called: NAME@sha256:DIGEST if it was pushed.

    Raises:
        UsageError: There is no builder, no such package, or no place to push to.
        RefusedError: It cannot be built, or does not answer as the package does.
    """
    store, begun = registry.open_registry(), now()
    found = registry.find(version) if version else None
    if push and not found:
        raise UsageError("name a version of `ml models`: what is pushed is registered first")
    engine, place = _engine(), _place(push)
    if push and found and (note := store.get(f"image-{found.version}")):
        reason = _is_no_image_of(engine, place, note, found)
        if reason is None:
            return note
        sys.stderr.write(f"ml: the image noted for {found}, {note}, {reason}: it is built anew\n")
    ARTIFACTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".image-", dir=ARTIFACTS) as folder:
        package = Path(folder, "artifacts/model")
        if found:
            registry.fetch_version(found, package)
        else:
            verified_manifest(PACKAGE)
            shutil.copytree(PACKAGE, package)
        manifest = verified_manifest(package)
        for name in NEEDED:
            (shutil.copytree if Path(name).is_dir() else shutil.copy)(name, Path(folder, name))
        tag = f"{place}:{manifest['version']}"
        options = [f"--build-arg=VERSION={manifest['version']}", f"--tag={tag}"]
        options.append(f"--label={LABEL}={manifest['package_digest']}")
        if engine == "buildah":
            # What docker does unasked: its format, for the health check, and steps that are kept.
            options += ["--format=docker", "--layers"]
        _run(engine, "build", *options, folder)
        with isolated.open_isolated(package, manifest["package_digest"]) as model:
            profile = json.loads((package / "profile.json").read_text("utf-8"))
            served = LoadedModel(model, profile, Distributions(profile, model.data))
            with _container(engine, tag) as url:
                answered = str(smoke_test(served, url)["parity"])
    if not push or not found:
        return tag
    pinned = _pushed(engine, place, tag)
    store.set(f"image-{found.version}", pinned)
    said = {"image": pinned, "version": found.version, "package_digest": found.digest}
    write_fields("image", said | {"parity": answered}, begun, found.data_digest, {})
    return pinned


def noted(version: str) -> str | None:
    """Return the image that the registry notes for a version, if it is one of its package.

    Nothing is built or pushed.

    Raises:
        UsageError: There is no builder to look into it with, or no such version.
        RefusedError: What is noted is no image of this package.
    """
    found = registry.find(version)
    note = registry.open_registry().get(f"image-{found.version}")
    if not note:
        return None
    if reason := _is_no_image_of(_engine(), _place(push=True), note, found):
        raise RefusedError(
            f"the image noted for {found}, {note}, {reason}: `ml image` builds it anew"
        )
    return note


def _is_no_image_of(engine: str, place: str, note: str, version: "registry.Version") -> str | None:
    """Return why what the registry notes is not an image of a version; None if it is one."""
    pinned = PINNED.fullmatch(note)
    if pinned is None:
        return "is not NAME@sha256:DIGEST"
    if pinned["name"] != place:
        return f"is not in {place}"
    plain = ["--tls-verify=false"] if engine == "buildah" and _is_local(place) else []
    try:
        with _logged_in(place) as login:
            _run(engine, "pull", *plain, note, **login)
        if engine == "docker":
            form = ["image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}']
        else:  # its templates know no function `json`
            form = ["inspect", "--type=image", "--format"]
            form.append(f'{{{{index .OCIv1.Config.Labels "{LABEL}"}}}}')
        digest = _run(engine, *form, note)
    except RefusedError as error:
        return f"cannot be inspected ({str(error).splitlines()[-1].strip()})"
    if not digest:
        return f"has no label {LABEL}"
    return None if digest == version.digest else f"has the package {digest!r}"


def _is_local(place: str) -> bool:
    """Tell whether images are pushed to this machine itself, where docker encrypts nothing."""
    return place.partition("/")[0].partition(":")[0] in ("localhost", "127.0.0.1")


@contextmanager
def _logged_in(place: str) -> Iterator[dict[str, str]]:
    """Yield the environment by which a builder is logged in to the platform's own registry."""
    host = place.partition("/")[0]
    with TemporaryDirectory() as folder:
        if own := ci_platform.registry_credentials(host):
            known = base64.b64encode(":".join(own).encode()).decode()
            file = Path(folder, "config.json")
            file.write_text(json.dumps({"auths": {host: {"auth": known}}}), "utf-8")
            yield {"DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": str(file)}
        else:
            yield {}


def _place(push: bool) -> str:
    at, wanted = ci_platform.current_platform(), os.environ.get("ML_IMAGES") or delivery().images
    if push and not wanted and at is None:
        raise UsageError("no place to push to: set `images` in config/delivery.yaml to HOST/NAME")
    return wanted or (
        f"{at.registry_prefix()}/service" if at else f"localhost/{project.current().package}"
    )


def _engine() -> str:
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
        if asked.returncode == 0:
            return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise UsageError("neither a docker daemon nor buildah is here: install one of them")


def _run(*command: str, **more: str) -> str:
    """What a builder prints.

    Raises:
        RefusedError: It failed.
    """
    done = subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise RefusedError(f"{' '.join(command[:2])} failed:\n  {said}")
    return done.stdout.strip()


@contextmanager
def _container(engine: str, tag: str) -> Iterator[str]:
    """Yield the address of the service of an image."""
    port = free_port()
    how = ["--network=host", "--env=ML_HOST=127.0.0.1", f"--env=ML_PORT={port}", "--env=ML_LOG="]
    if engine == "docker":
        with ephemeral_service(["docker", "run", "--rm", *how, tag], port, os.environ) as url:
            yield url
        return
    name = _run("buildah", "from", "--pull-never", tag)
    try:
        command = ["buildah", "run", *how, name, "--", "ml-serve", "/model"]
        with ephemeral_service(command, port, os.environ) as url:
            yield url
    finally:
        _run("buildah", "rm", name)


def _pushed(engine: str, place: str, tag: str) -> str:
    with _logged_in(place) as login, TemporaryDirectory() as folder:
        if engine == "docker":
            _run("docker", "push", tag, **login)
            return _run("docker", "inspect", "--format", "{{index .RepoDigests 0}}", tag)
        digest = Path(folder, "digest")
        how = [f"--digestfile={digest}"]
        if _is_local(place):
            how.append("--tls-verify=false")
        _run("buildah", "push", *how, tag, f"docker://{tag}", **login)
        return f"{place}@{digest.read_text('utf-8').strip()}"
