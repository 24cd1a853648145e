"""The builder of images: docker where its daemon runs, else buildah."""

import base64
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from .. import RefusedError, UsageError, ci_platform, process
from ..adapters.target_local.ephemeral import ephemeral_service, free_port

Engine = Literal["docker", "buildah"]


def find_engine() -> Engine:
    """Return the builder of this machine.

    Raises:
        UsageError: There is none.
    """
    if shutil.which("docker") and process.run(["docker", "info"]).succeeded:
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise UsageError("neither a docker daemon nor buildah is available: install one of them")


def run_builder(*command: str, **environment: str) -> str:
    """Return what a builder prints.

    Raises:
        RefusedError: It failed.
    """
    return process.run(command, env=environment).output_or(RefusedError).strip()


def build(engine: Engine, folder: str, tag: str, label: str, arguments: Mapping[str, str]) -> None:
    """Build the image of a folder with a Dockerfile, whose arguments are given by name.

    Raises:
        RefusedError: It cannot be built.
    """
    options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--tag={tag}", f"--label={label}"]
    if engine == "buildah":
        # What docker does unasked: its format, for the health check, and steps that are kept.
        options += ["--format=docker", "--layers"]
    run_builder(engine, "build", *options, folder)


def push(engine: Engine, repository: str, tag: str) -> str:
    """Push an image, and return its name there, NAME@sha256:DIGEST.

    Raises:
        RefusedError: The registry refuses it.
    """
    with registry_login(repository) as login, TemporaryDirectory() as folder:
        if engine == "docker":
            run_builder("docker", "push", tag, **login)
            return run_builder("docker", "inspect", "--format", "{{index .RepoDigests 0}}", tag)
        digest_file = Path(folder, "digest")
        options = [f"--digestfile={digest_file}", *plain_options(engine, repository)]
        run_builder("buildah", "push", *options, tag, f"docker://{tag}", **login)
        return f"{repository}@{digest_file.read_text('utf-8').strip()}"


def read_label(engine: Engine, repository: str, image: str, label: str) -> str:
    """Pull an image, and return one of its labels; empty if it does not have it.

    Raises:
        RefusedError: It cannot be pulled.
    """
    with registry_login(repository) as login:
        run_builder(engine, "pull", *plain_options(engine, repository), image, **login)
    if engine == "docker":
        template = f'{{{{index .Config.Labels "{label}"}}}}'
        return run_builder("docker", "image", "inspect", "--format", template, image)
    # The templates of buildah do not have the function `json`.
    template = f'{{{{index .OCIv1.Config.Labels "{label}"}}}}'
    return run_builder("buildah", "inspect", "--type=image", "--format", template, image)


def plain_options(engine: Engine, repository: str) -> list[str]:
    """Return what has buildah reach a registry of this machine, which docker does unencrypted."""
    host = repository.partition("/")[0].partition(":")[0]
    is_local = host in ("localhost", "127.0.0.1")
    return ["--tls-verify=false"] if engine == "buildah" and is_local else []


@contextmanager
def registry_login(repository: str) -> Iterator[dict[str, str]]:
    """Yield the environment in which a builder is logged in to the platform's own registry."""
    host = repository.partition("/")[0]
    with TemporaryDirectory() as folder:
        credentials = ci_platform.registry_credentials(host)
        if credentials is None:
            yield {}
            return
        encoded = base64.b64encode(":".join(credentials).encode()).decode()
        file = Path(folder, "config.json")
        file.write_text(json.dumps({"auths": {host: {"auth": encoded}}}), "utf-8")
        yield {"DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": str(file)}


@contextmanager
def container(engine: Engine, tag: str) -> Iterator[str]:
    """Start a container of an image of the service, and yield its address.

    Raises:
        RefusedError: The service does not start.
    """
    port = free_port()
    options = [
        "--network=host",
        "--env=ML_HOST=127.0.0.1",
        f"--env=ML_PORT={port}",
        "--env=ML_LOG=",
    ]
    if engine == "docker":
        command = ["docker", "run", "--rm", *options, tag]
        with ephemeral_service(command, port, os.environ) as url:
            yield url
        return
    name = run_builder("buildah", "from", "--pull-never", tag)
    try:
        command = ["buildah", "run", *options, name, "--", "ml-serve", "/model"]
        with ephemeral_service(command, port, os.environ) as url:
            yield url
    finally:
        run_builder("buildah", "rm", name)
