"""Target `kubernetes`: `deploy/staging` or `deploy/production`, applied with an image's digest.

The image has the model in it. Which version that is stands beside it, as an annotation of the pods:
what `kubectl rollout undo` brings back brings its own along.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from ... import RefusedError, UsageError, settings

DEPLOY, NOTE = Path("deploy"), "model-version"
PATIENCE = "5m"  # more than progressDeadlineSeconds, so that the cluster says it first


class Kubernetes:
    """See `delivery.Target`.

    Args:
        overlay: A folder of `deploy/`. Only what reaches production becomes champion.
        image: NAME@sha256:DIGEST of an image with the model that is deployed.
    """

    def __init__(self, overlay: str = "production", image: str | None = None) -> None:
        self.name, self.promotes = f"kubernetes/{overlay}", overlay == "production"
        self.folder, self.image = (
            DEPLOY / overlay,
            image or os.environ.get("ML_IMAGE") or settings.delivery().image,
        )
        if not (self.folder / "kustomization.yaml").exists():
            raise UsageError(f"{self.folder}/ is no overlay: name another one of {DEPLOY}/")
        drawn = yaml.safe_load_all(_kubectl("kustomize", str(self.folder)))
        meta = {found["kind"]: found["metadata"] for found in drawn if found}
        space = meta["Deployment"].get("namespace", "default")
        self.inside = f"--namespace={space}"
        self.pods, self.service = (
            f"{k.lower()}/{meta[k]['name']}" for k in ("Deployment", "Service")
        )

    def check(self, image: str | None) -> None:
        if image and not os.environ.get("ML_IMAGE"):
            self.image = image
        if not re.fullmatch(r"[^\s@]+@sha256:[0-9a-f]{64}", self.image):
            said = f"image: {self.image or 'none'} is not NAME@sha256:DIGEST"
            raise UsageError(f"{said}: set ML_IMAGE, or `image` in {settings.DELIVERY}")

    def ensure(self) -> None:
        """Pods are started again by the cluster."""

    def asked(self) -> str | None:
        return self._found()[0]

    def serves(self, version: str, digest: str) -> bool:
        return self._found() == (version, self.image)

    def switch(self, version: str, digest: str) -> None:
        """Apply the overlay with the image, and wait for its pods to be ready.

        Raises:
            RefusedError: The cluster refuses it, or they do not become ready.
        """
        if self._found() != (version, self.image or self._found()[1]):
            self.check(None)
            name, _, pinned = self.image.partition("@")
            image = {"name": "model-service", "newName": name, "digest": pinned}
            with TemporaryDirectory(prefix=".release-", dir=DEPLOY) as folder:
                release = {"resources": [f"../{self.folder.name}"], "images": [image]}
                release |= {"commonAnnotations": {NOTE: version}}
                text = yaml.safe_dump(release)
                Path(folder, "kustomization.yaml").write_text(text, "utf-8")
                _kubectl("apply", "-k", folder)
        self._wait()

    def undo(self, version: str | None, digest: str | None) -> None:
        """Have the pods of before back; the first ones stay, as nothing was before them."""
        with nullcontext() if version else suppress(RefusedError):
            _kubectl("rollout", "undo", self.pods, self.inside)
            self._wait()

    @contextmanager
    def opened(self) -> Iterator[str]:
        command = ["kubectl", "port-forward", self.service, self.inside, ":80"]
        with subprocess.Popen(command, stdout=-1, stderr=subprocess.STDOUT, text=True) as process:
            try:
                said = process.stdout.readline() if process.stdout else ""
                if not (port := re.search(r"127\.0\.0\.1:(\d+)", said)):
                    raise RefusedError(
                        f"{self.service} cannot be reached: {said.strip() or 'no answer'}"
                    )
                yield f"http://127.0.0.1:{port[1]}"
            finally:
                process.terminate()

    def _found(self) -> tuple[str | None, str | None]:
        """Version and image of the pods that should run."""
        text = _kubectl("get", self.pods, self.inside, "--ignore-not-found", "--output=json")
        if not text.strip():
            return None, None
        pods = json.loads(text)["spec"]["template"]
        notes = pods["metadata"].get("annotations", {})
        return notes.get(NOTE), pods["spec"]["containers"][0]["image"]

    def _wait(self) -> None:
        _kubectl("rollout", "status", self.pods, self.inside, f"--timeout={PATIENCE}")


def _kubectl(*args: str) -> str:
    """What kubectl prints.

    Raises:
        UsageError: There is no kubectl.
        RefusedError: It failed.
    """
    try:
        done = subprocess.run(["kubectl", *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError("kubectl is not on the PATH: install it") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise RefusedError(f"kubectl {' '.join(args[:2])}: {said}")
    return done.stdout


def opened(overlay: str) -> Kubernetes:
    """Return the target of an overlay of `deploy/`."""
    return Kubernetes(overlay)
