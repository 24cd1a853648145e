"""Image: a package → an image of the service with it, which answers as it does; `image.json`.

A version's image is built once: the registry has its digest from then on. That note is a claim: it
counts if the image of that digest is where images are pushed to, and its label names the package.

Nothing of the package is imported here, nor by the build: whoever builds an image may hold a token
that writes. What it would answer is asked of a process of its own, and so is whether it does
without the libraries that the Dockerfile would leave out.
"""

import os
import re
import shutil
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import RefusedError, UsageError, ci_platform, project, registry
from ..artifacts import ARTIFACTS, PACKAGE, now, write
from ..config.delivery import load_delivery
from ..model_package import verified_manifest
from ..records import ImageDocument
from . import base_images, builder, sbom
from .builder import Engine
from .service_folder import open_apart
from .smoke import smoke_test

# The digest of the package that is in an image; its version has the standard's own label.
LABEL = "vnd.rung.package-digest"
PINNED = re.compile(r"(?P<name>[^\s@]+)@sha256:[0-9a-f]{64}")
# The argument that has a build ask the model nothing. The Dockerfile of an older project lacks it.
CHECK = re.compile(r"^ARG CHECK\b", re.MULTILINE)
BUILD_CONTEXT = ("Dockerfile", "pyproject.toml", "uv.lock", "README.md", "src", "config")
UV = "requirements-uv.txt"  # which the Dockerfile of an older project does not ask for


def image(version: str | None = None, push: bool = False) -> str:
    """Build the image of a registered version; without one, of the package in `artifacts/`.

    Args:
        push: Push it to `images` of config/delivery.yaml, by default the platform's own registry.

    Returns:
        Its name: NAME@sha256:DIGEST if it was pushed.

    Raises:
        UsageError: There is no builder, no such package, or no place to push to.
        RefusedError: It cannot be built, or does not answer as the package does.
    """
    store = registry.open_registry()
    started = now()
    registered = registry.find(version) if version else None
    if push and not registered:
        raise UsageError("name a version of `ml models`: what is pushed is registered first")
    engine = builder.find_engine()
    repository = _repository(push)
    if push and registered and (note := store.get(f"image-{registered.version}")):
        problem = mismatch(engine, repository, note, registered)
        if problem is None:
            return note
        sys.stderr.write(
            f"ml: the image noted for {registered}, {note}, {problem}: it is built anew\n"
        )
    if base := base_images.unpinned():
        sys.stderr.write(f"ml: the base image {base} is not pinned by digest: `ml pin` pins it\n")
    ARTIFACTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".image-", dir=ARTIFACTS) as folder:
        package = Path(folder, "artifacts/model")
        if registered:
            registry.fetch_version(registered, package)
        else:
            verified_manifest(PACKAGE)
            shutil.copytree(PACKAGE, package)
        manifest = verified_manifest(package)
        _copy_build_context(Path(folder))
        tag = f"{repository}:{manifest['version']}"
        label = f"{LABEL}={manifest['package_digest']}"
        arguments = build_arguments(package, manifest["package_digest"])
        arguments["VERSION"] = manifest["version"]
        builder.build(engine, folder, tag, label, arguments)
        parity = _check_container(engine, tag, package, manifest["package_digest"])
    if not push or not registered:
        return tag
    pinned = builder.push(engine, repository, tag)
    store.set(f"image-{registered.version}", pinned)
    document = ImageDocument(
        image=pinned,
        version=registered.version,
        package_digest=registered.digest,
        parity=parity,
    )
    write(document, started=started, data_digest=registered.data_digest, inputs={})
    return pinned


def noted(version: str) -> str | None:
    """Return the image that the registry has noted for a version, if it has its package in it.

    Nothing is built or pushed.

    Raises:
        UsageError: There is no builder to look into it with, or no such version.
        RefusedError: What is noted is not an image of this package.
    """
    registered = registry.find(version)
    note = registry.open_registry().get(f"image-{registered.version}")
    if not note:
        return None
    if problem := mismatch(builder.find_engine(), _repository(push=True), note, registered):
        raise RefusedError(
            f"the image noted for {registered}, {note}, {problem}: `ml image` builds it anew"
        )
    return note


def mismatch(engine: Engine, repository: str, note: str, version: "registry.Version") -> str | None:
    """Return why what the registry has noted is not an image of a version; None if it is one."""
    pinned = PINNED.fullmatch(note)
    if pinned is None:
        return "is not NAME@sha256:DIGEST"
    if pinned["name"] != repository:
        return f"is not in {repository}"
    try:
        digest = builder.read_label(engine, repository, note, LABEL)
    except RefusedError as error:
        return f"cannot be inspected ({str(error).splitlines()[-1].strip()})"
    if not digest:
        return f"has no label {LABEL}"
    return None if digest == version.digest else f"has the package {digest!r}"


def build_arguments(package: Path, package_digest: str) -> dict[str, str]:
    """Return the arguments of the Dockerfile with which a build runs no code of a package.

    It is a Dockerfile of the project's: it may be older, or another one.
    """
    dockerfile = sbom.DOCKERFILE.read_text("utf-8")
    if not CHECK.search(dockerfile):
        if "ml-serve --check" in dockerfile:
            sys.stderr.write(
                "ml: this Dockerfile imports the model while it is built: `rung update` brings one"
                " that does not\n"
            )
        return {}
    if answers_without(package, package_digest, sbom.left_out()):
        return {"CHECK": "no"}
    return {"CHECK": "no", "WITHOUT": ""}


def answers_without(package: Path, package_digest: str, requirements: Collection[str]) -> bool:
    """Check whether a package answers where some requirements are not installed.

    It is asked in a process that cannot import them.
    """
    if not requirements:
        return True
    from ..serving.loaded_model import ask_at_edges

    modules = import_names(requirements)
    try:
        with open_apart(package, package_digest, without=modules) as loaded:
            ask_at_edges(loaded)
    except Exception:  # of problem/, or of a library that is absent
        return False
    return True


def import_names(requirements: Collection[str]) -> list[str]:
    """Return the modules that only these of the installed requirements have."""
    names = {_canonical(name) for name in requirements}
    owners = metadata.packages_distributions()
    return [module for module, own in owners.items() if {_canonical(name) for name in own} <= names]


def _canonical(name: str) -> str:
    """Return the one way to write the name of a requirement, as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_container(engine: Engine, tag: str, package: Path, package_digest: str) -> str:
    """Check that a container answers as the package does, and return what was compared."""
    with open_apart(package, package_digest) as loaded, builder.container(engine, tag) as url:
        return str(smoke_test(loaded, url)["parity"])


def _copy_build_context(folder: Path) -> None:
    # Bytecode names when its source was checked out: with it, no layer could be used again.
    no_bytecode = shutil.ignore_patterns("__pycache__")
    for name in (*BUILD_CONTEXT, *([UV] if Path(UV).exists() else [])):
        if Path(name).is_dir():
            shutil.copytree(name, folder / name, ignore=no_bytecode)
        else:
            shutil.copy(name, folder / name)


def _repository(push: bool) -> str:
    """Return HOST/NAME under which images are kept.

    Raises:
        UsageError: There is none to push to.
    """
    platform = ci_platform.current_platform()
    configured = os.environ.get("ML_IMAGES") or load_delivery().images
    if configured:
        return configured
    if platform:
        return f"{platform.registry_prefix()}/service"
    if push:
        raise UsageError("no place to push to: set `images` in config/delivery.yaml to HOST/NAME")
    return f"localhost/{project.current().package}"
