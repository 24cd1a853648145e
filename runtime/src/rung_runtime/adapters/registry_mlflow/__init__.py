"""The registry as MLflow's own: one registered model, of which each version is a package.

It is where `tracker_mlflow.tracking_uri` leads. The files of a version are the artifacts of a run.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import RefusedError, UsageError, ci_platform
from ...registry import EnsureLease, Version, file_lock, lease, staged_download
from ..tracker_mlflow import client, experiment, tracking_uri, without_password

if TYPE_CHECKING:
    from ...model_package import Manifest

PACKAGE = "package"


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Raise what MLflow or its database could not do as a sentence.

    Raises:
        UsageError: It could not.
    """
    try:
        yield
    except (UsageError, RefusedError):
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, requests, the disk
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"the registry {without_password()}: {without_password(reason)}") from None


class Mlflow:
    """See `Registry`."""

    def __init__(self, name: str):
        self.name = re.sub(r"[^\w.-]+", "-", name)
        self.notes = f"{self.name}-notes"
        with errors_in_words():
            self.client = client()

    def push(self, folder: Path, manifest: "Manifest", facts: dict[str, str]) -> None:
        from ...model_package import verified_manifest

        version = manifest["version"]
        with errors_in_words():
            existing = self._numbers().get(version)
            if existing and existing.tags["package_digest"] != manifest["package_digest"]:
                raise RefusedError(
                    f"{version} is in {without_password()} already, as another package"
                )
            if existing:
                return
            self._create(self.name)
            run = self.client.create_run(experiment(self.client, f"{self.name}-registry"))
            self.client.log_artifacts(run.info.run_id, str(folder), PACKAGE)
            if verified_manifest(folder) != manifest:
                raise UsageError(f"{folder}/ has changed: run `ml register` again")
            tags = facts | {
                "version": version,
                "created": manifest["created"],
                "package_digest": manifest["package_digest"],
                "model_digest": manifest["model_digest"],
            }
            source = f"{run.info.artifact_uri}/{PACKAGE}"
            self.client.set_terminated(run.info.run_id)
            # With its tags in one step, and last: before it there is no version.
            self.client.create_model_version(self.name, source, run.info.run_id, tags=tags)

    def names(self) -> list[str]:
        with errors_in_words():
            return sorted(self._numbers())

    def version(self, name: str) -> Version | None:
        with errors_in_words():
            numbered = self._numbers().get(name)
            return _version(numbered.tags) if numbered else None

    def versions(self, newest: int | None = None) -> list[Version]:
        with errors_in_words():
            return [_version(numbered.tags) for _, numbered in sorted(self._numbers().items())]

    def fetch(self, version: str, to: Path) -> Path:
        with errors_in_words():
            numbered = self._numbers().get(version)
            if numbered is None:
                raise UsageError(
                    f"{without_password()} has no version {version}: `ml models` lists them"
                )
            with staged_download(to, _version(numbered.tags)) as new:
                artifacts = self.client.download_artifacts(
                    numbered.run_id, PACKAGE, str(new.parent)
                )
                for path in Path(artifacts).iterdir():
                    path.rename(new / path.name)
        return to

    # Notes are tags of a model of their own: those of its version 1, as they may be long.

    def get(self, note: str) -> str | None:
        with errors_in_words():
            tags: dict[str, str] = _tags(self.client.get_model_version, self.notes, "1")
        return (tags or {}).get(note)

    def set(self, note: str, text: str) -> None:
        with errors_in_words():
            if _tags(self.client.get_model_version, self.notes, "1") is None:
                self._create(self.notes)
                self.client.create_model_version(self.notes, f"notes:{self.name}")
            self.client.set_model_version_tag(self.notes, "1", note, text)

    def alias(self, name: str) -> str | None:
        with errors_in_words():
            tags = _tags(self.client.get_model_version_by_alias, self.name, name)
        return tags["version"] if tags else None

    def point(self, name: str, version: str) -> None:
        with errors_in_words():
            number = self._numbers()[version].version
            self.client.set_registered_model_alias(self.name, name, number)

    def lock(self) -> AbstractContextManager[EnsureLease]:
        uri = tracking_uri()
        if uri.startswith("sqlite:///"):
            return file_lock(Path(f"{uri.removeprefix('sqlite:///')}.lock"))
        return lease(self)

    def _create(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _numbers(self) -> dict[str, Any]:
        """Return MLflow's numbered versions by ours; of two pushed at once, the first."""
        numbered: dict[str, Any] = {}
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name='{self.name}'", page_token=token)
            for version in page:
                if "version" in version.tags:
                    numbered[version.tags["version"]] = version
            if not page.token:
                return numbered
            token = page.token


def open_registry(name: str) -> Mlflow:
    """Open the registered model of a name.

    Raises:
        UsageError: It would be a file of a runner, which ends with the job.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and ci_platform.current_platform():
        raise UsageError("a runner keeps no files: set MLFLOW_TRACKING_URI to a server of MLflow")
    return Mlflow(name)


def _tags(get: Callable[[str, str], Any], model: str, version: str) -> Any:
    """Return the tags of a version that MLflow gets by its number or alias; None without one."""
    from mlflow.exceptions import MlflowException

    try:
        return get(model, version).tags
    except MlflowException as error:
        # An alias that is not there is an invalid parameter.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _version(tags: dict[str, str]) -> Version:
    names = ("version", "package_digest", "model_digest", "created")
    version, digest, model_digest, created = (tags[name] for name in names)
    facts = {name: tag for name, tag in tags.items() if name not in names}
    return Version(version, digest, model_digest, created, facts)
