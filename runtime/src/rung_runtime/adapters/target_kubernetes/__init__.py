"""Target `kubernetes`: `deploy/staging` or `deploy/production`, applied with an image's digest.

The image has the model in it. Its version is an annotation of the pods, so that `kubectl rollout
undo` brings back the version along with the image.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import yaml

from ... import RefusedError, UsageError
from ...config.delivery import DELIVERY, load_delivery
from ...process import run

DEPLOY = Path("deploy")
VERSION_ANNOTATION = "model-version"
ROLLOUT_TIMEOUT = "5m"  # more than progressDeadlineSeconds, so that the cluster reports it first
PINNED_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
FORWARDED_PORT = re.compile(r"127\.0\.0\.1:(\d+)")


class Pods(NamedTuple):
    """What the pods of the deployment should run."""

    version: str | None
    image: str | None


class Kubernetes:
    """See `delivery.Target`.

    Args:
        overlay: A folder of `deploy/`. Only what reaches production becomes champion.
        image: NAME@sha256:DIGEST of an image with the model that is deployed.
    """

    def __init__(self, overlay: str = "production", image: str | None = None) -> None:
        self.name = f"kubernetes/{overlay}"
        self.promotes = overlay == "production"
        self.folder = DEPLOY / overlay
        self.image = image or os.environ.get("ML_IMAGE") or load_delivery().image
        if not (self.folder / "kustomization.yaml").exists():
            raise UsageError(f"{self.folder}/ is not an overlay: name another one of {DEPLOY}/")
        manifests = yaml.safe_load_all(_kubectl("kustomize", str(self.folder)))
        metadata = {manifest["kind"]: manifest["metadata"] for manifest in manifests if manifest}
        namespace = metadata["Deployment"].get("namespace", "default")
        self.namespace = f"--namespace={namespace}"
        self.pods = f"deployment/{metadata['Deployment']['name']}"
        self.service = f"service/{metadata['Service']['name']}"

    def check(self, image: str | None) -> None:
        if image and not os.environ.get("ML_IMAGE"):
            self.image = image
        if not PINNED_IMAGE.fullmatch(self.image):
            raise UsageError(
                f"image: {self.image or 'none'} is not NAME@sha256:DIGEST: set ML_IMAGE, or "
                f"`image` in {DELIVERY}"
            )

    def ensure_running(self) -> None:
        """Do nothing: the cluster starts pods again."""

    def desired_version(self) -> str | None:
        return self._desired_pods().version

    def is_serving(self, version: str, digest: str) -> bool:
        return self._desired_pods() == Pods(version, self.image)

    def switch(self, version: str, digest: str) -> None:
        """Apply the overlay with the image, and wait for its pods to be ready.

        Raises:
            RefusedError: The cluster refuses it, or they do not become ready.
        """
        pods = self._desired_pods()
        if pods != Pods(version, self.image or pods.image):
            self.check(None)
            self._apply(version)
        self._wait()

    def restore(self, version: str | None, digest: str | None) -> None:
        """Have the previous pods back; the first ones stay, as there were none before them."""
        with nullcontext() if version else suppress(RefusedError):
            _kubectl("rollout", "undo", self.pods, self.namespace)
            self._wait()

    @contextmanager
    def serving_url(self) -> Iterator[str]:
        command = ["kubectl", "port-forward", self.service, self.namespace, ":80"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                port = FORWARDED_PORT.search(line)
                if port is None:
                    reason = line.strip() or "no answer"
                    raise RefusedError(f"{self.service} cannot be reached: {reason}")
                yield f"http://127.0.0.1:{port[1]}"
            finally:
                process.terminate()

    def _apply(self, version: str) -> None:
        """Apply the overlay with the image and its version."""
        name, _, digest = self.image.partition("@")
        kustomization = {
            "resources": [f"../{self.folder.name}"],
            "images": [{"name": "model-service", "newName": name, "digest": digest}],
            "commonAnnotations": {VERSION_ANNOTATION: version},
        }
        with TemporaryDirectory(prefix=".release-", dir=DEPLOY) as folder:
            text = yaml.safe_dump(kustomization)
            Path(folder, "kustomization.yaml").write_text(text, "utf-8")
            _kubectl("apply", "-k", folder)

    def _desired_pods(self) -> Pods:
        """Return the version and the image of the pods that should run."""
        text = _kubectl("get", self.pods, self.namespace, "--ignore-not-found", "--output=json")
        if not text.strip():
            return Pods(None, None)
        template = json.loads(text)["spec"]["template"]
        annotations = template["metadata"].get("annotations", {})
        image = template["spec"]["containers"][0]["image"]
        return Pods(annotations.get(VERSION_ANNOTATION), image)

    def _wait(self) -> None:
        _kubectl("rollout", "status", self.pods, self.namespace, f"--timeout={ROLLOUT_TIMEOUT}")


def _kubectl(*arguments: str) -> str:
    """Return what kubectl prints.

    Raises:
        UsageError: There is no kubectl.
        RefusedError: It failed.
    """
    return run(["kubectl", *arguments]).output_or(RefusedError)


def open_target(overlay: str) -> Kubernetes:
    """Return the target of an overlay of `deploy/`."""
    return Kubernetes(overlay)
