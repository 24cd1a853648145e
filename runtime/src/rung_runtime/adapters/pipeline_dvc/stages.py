"""The stages of dvc.yaml as DVC reads them, and the entry that dvc.lock has of each."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ... import UsageError
from ...atomic_file import atomic_write
from .repro import open_repo

FILE = Path("dvc.yaml")
LOCK = Path("dvc.lock")


class Stage(NamedTuple):
    """What a stage reads and makes: files and folders, relative to the project, with slashes."""

    inputs: list[str]
    outputs: list[str]


def read_stages() -> dict[str, Stage]:
    """Return the stages of the project by name, their variables resolved.

    Raises:
        UsageError: dvc.yaml is malformed, or a stage makes a file outside of the project.
    """
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]

    stages = {}
    try:
        with open_repo() as repo:
            for stage in repo.index.stages:
                if name := getattr(stage, "name", None):  # else a file that `dvc add` tracks
                    inputs = [_relative(repo, item) for item in stage.deps]
                    outputs = [_relative(repo, item) for item in stage.outs]
                    stages[name] = Stage([*filter(None, inputs)], outputs)
    except DvcException as error:
        raise UsageError(f"{FILE} cannot be read: {' '.join(str(error).split())}") from None
    for name, stage in stages.items():
        if "" in stage.outputs:
            raise UsageError(
                f"{FILE}: {name} makes a file outside of the project, which cannot be carried"
            )
    return stages


def _relative(repo: Any, item: Any) -> str:
    """Return the path of an input or output in the project; "" if it is not in it."""
    if item.protocol != "local" or not item.is_in_repo:
        return ""
    return Path(item.fs_path).relative_to(repo.root_dir).as_posix()


def lock_entry(name: str) -> dict[str, Any] | None:
    """Return what dvc.lock has of a stage."""
    entry: dict[str, Any] | None = _read_lock()["stages"].get(name)
    return entry


def restore_lock_entry(name: str, entry: dict[str, Any] | None) -> None:
    """Write what dvc.lock has of a stage, whose outputs are here; None: nothing.

    They are put into DVC's cache, too: to DVC, one that is not there is an output that changed.

    Raises:
        UsageError: DVC cannot read the entry, which is left out then.
    """
    from dvc.exceptions import DvcException

    _write_lock_entry(name, entry)
    if entry is None:
        return
    try:
        with open_repo() as repo, repo.lock:
            for output in repo.stage.load_one(name=name).outs:
                if output.use_cache and output.exists:
                    output.save()
                    output.commit()
    except DvcException as error:
        _write_lock_entry(name, None)
        reason = " ".join(str(error).split())
        raise UsageError(f"its entry of {LOCK} cannot be used: {reason}") from None


def _write_lock_entry(name: str, entry: dict[str, Any] | None) -> None:
    content = _read_lock()
    if content["stages"].get(name) == entry:
        return
    content["stages"].pop(name, None)
    if entry is not None:
        content["stages"][name] = entry
    with atomic_write(LOCK) as new:
        new.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


def check_lock() -> None:
    """Check that DVC can read dvc.lock; an empty one is removed, as it records nothing.

    `dvc repro` leaves it empty if it is killed while it writes it.

    Raises:
        UsageError: It has a merge conflict, or is not what DVC writes.
    """
    if not LOCK.exists():
        return
    content = LOCK.read_text("utf-8", "replace")
    if "\n<<<<<<< " in f"\n{content}":
        raise UsageError(f"{LOCK} has a merge conflict: take either side of it, and run `ml run`")
    if not content.strip("\0 \n"):  # zeros are what a loss of power leaves
        LOCK.unlink()
    _read_lock()


def _read_lock() -> dict[str, Any]:
    """Read dvc.lock.

    Raises:
        UsageError: It is not what DVC writes.
    """
    if not LOCK.exists():
        return {"schema": "2.0", "stages": {}}
    try:
        content: dict[str, Any] = dict(yaml.safe_load(LOCK.read_text("utf-8")))
        return {"schema": content["schema"]} | content | {"stages": dict(content["stages"])}
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        raise UsageError(f"{LOCK} is malformed: delete it, and each stage runs again") from None
