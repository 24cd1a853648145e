"""One step: bring what it needs, run it if it is stale, and leave what it made.

A stage of dvc.yaml runs as `ml run --only` runs it. DVC knows whether it is stale, by what the last
run of it left at its place; its documents are those that `ml run` leaves in one folder.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer

from .. import RefusedError, UsageError, adapters, config
from ..artifacts import ARTIFACTS, DOCUMENTS, PACKAGE, digest, now
from .lasting import require_lasting
from .snapshot import (
    Damaged,
    Manifest,
    Place,
    StoredOutput,
    is_output,
    merged,
    open_place,
    read_manifest,
    require_manifest,
    require_own_paths,
    write_manifest,
)
from .transfer import copy, download, files_of, remove_others, upload, verify

SOURCE = "source"  # the step that only brings the source of config/data.yaml to a place
PAGE = (ARTIFACTS / "monitor.html").as_posix()

Inherited = Mapping[str, tuple[Place, StoredOutput]]


class Node(NamedTuple):
    """A step, and what it has to do with the files of the project."""

    name: str
    needs: set[str]  # files and folders that it reads
    makes: set[str]  # files and folders that it makes
    known: set[str]  # those that any step makes, and the source
    source: str  # of config/data.yaml
    is_stage: bool


def perform_step(
    name: str,
    inputs: Sequence[str],
    output: str,
    start: Path,
    run: Callable[[str], None],
    last_step: str = "deploy",
) -> str:
    """Perform a step whose inputs and outputs are elsewhere.

    Args:
        name: A stage of dvc.yaml, `source`, `register`, `deploy`, `monitor` or `retrain`.
        inputs: The places of the steps that it comes after.
        output: The place for what it makes.
        start: The folder that paths are relative to.
        run: Runs it in this folder, as if there were no other place.
        last_step: What a training ends with that the step `retrain` starts.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: A place or a file of it is missing, damaged or unusable; or as the step.
        RefusedError: As the step; or a step that it comes after refused.
    """
    source = config.load().data.source
    node = _find_node(name, source)
    require_lasting(name, last_step)
    places = [open_place(uri, start) for uri in inputs]
    target = open_place(output, start)
    if target.uri in {place.uri for place in places}:
        raise UsageError(f"{target.uri} cannot be both --in and --out: each step has its own place")
    manifests = [(place, require_manifest(place)) for place in places]
    for place, manifest in manifests:
        require_own_paths(manifest, place, node.known)
    inherited = merged(manifests)
    _require_same_source(source, inherited)
    if name == SOURCE and not Path(source).is_file():
        raise UsageError(f"{source} is missing: put the file there that {target.uri} is to have")
    needed = _bring(node, inherited)
    inputs_given = {
        path: inherited[path][1].digest for path in needed if is_output(path, node.needs)
    }
    last = _restore(node, target, inputs_given)
    documents = _document_digests()
    refused: RefusedError | None = None
    try:
        run(name)
    except RefusedError as error:
        refused = error
    changed = {path for path, sha in _document_digests().items() if documents.get(path) != sha}
    files, uploaded = _leave(node, target, inherited, last, changed, is_refused=bool(refused))
    manifest = Manifest(
        step=name,
        outcome="refused" if refused else "done",
        reason=str(refused or ""),
        written=now(),
        inputs=inputs_given,
        files=files,
        lock=_dvc().lock_entry(name) if node.is_stage and not refused else None,
    )
    if last is None or manifest.model_copy(update={"written": last.written}) != last:
        write_manifest(target, manifest)
    if refused:
        raise refused
    return f"{name}: {target.uri} has {len(files)} files, {uploaded} of them new"


def _dvc() -> Any:
    return adapters.load("pipeline", "dvc")


def _find_node(name: str, source: str) -> Node:
    """Return what a step reads and makes.

    Raises:
        UsageError: There is no such step.
    """
    stages = _dvc().read_stages()
    outputs = {path for stage in stages.values() for path in stage.outputs}
    documents = {step: path.as_posix() for step, path in DOCUMENTS.items()}
    known = outputs | {*documents.values(), PAGE, source}
    if name in stages:
        makes = set(stages[name].outputs)
        if source in stages[name].inputs:  # so that later steps, and other machines, have it
            makes.add(source)
        return Node(name, set(stages[name].inputs), makes, known, source, is_stage=True)
    reads_and_makes: dict[str, tuple[set[str], set[str]]] = {
        SOURCE: (set(), {source}),
        "register": ({PACKAGE.as_posix()}, set()),
        "deploy": (set(), {documents["deploy"]}),
        "monitor": (set(), {documents["drift"], documents["monitor"], PAGE}),
        "retrain": ({source}, outputs | {documents["deploy"]}),
    }
    if name not in reads_and_makes:
        names = ", ".join([*stages, *reads_and_makes])
        raise UsageError(f"there is no step {name}: use one of {names}")
    return Node(name, *reads_and_makes[name], known, source, is_stage=False)


def _require_same_source(source: str, inherited: Inherited) -> None:
    """Check that a source that is here already is the one that the steps before have read.

    Raises:
        UsageError: It is another one.
    """
    file = Path(source)
    if source in inherited and file.is_file():
        place, stored = inherited[source]
        if digest(file) != stored.digest:
            raise UsageError(
                f"{source} is not the one that {place.uri} was made from: run `ml step"
                f" {stored.step}` with this one, or leave it out of the image"
            )


def _bring(node: Node, inherited: Inherited) -> list[str]:
    """Bring what a step reads, and the documents of those before it; return the files."""
    documents = {path.as_posix() for path in DOCUMENTS.values()}
    needed = sorted(path for path in inherited if path in documents or is_output(path, node.needs))
    for path in needed:
        download(path, *inherited[path])
    _remove_others(node, set(needed))
    return needed


def _remove_others(node: Node, files: set[str]) -> None:
    """Remove from folders of outputs what does not belong to those files."""
    for folder in node.known:
        if Path(folder).is_dir() and any(is_output(path, {folder}) for path in files):
            remove_others(folder, files)


def _restore(node: Node, target: Place, inputs: Mapping[str, str]) -> Manifest | None:
    """Bring what the last run of a step left, if it had the same inputs and all of it is whole.

    Returns:
        Its manifest; None: the step runs.
    """
    try:
        last = read_manifest(target)
        if last is None or last.outcome == "refused":
            return None
        if last.step != node.name or last.inputs != inputs:
            return None
        require_own_paths(last, target, node.known)
        own = {path for path, stored in last.files.items() if stored.step == node.name}
        for path in sorted(own):
            if path == node.source:  # read and not made: what is here now counts
                verify(path, target, last.files[path])
            else:
                download(path, target, last.files[path])
        _remove_others(node, own)
        if node.is_stage:
            _restore_lock_entry(node, target, last)
    except Damaged as error:
        typer.echo(f"{node.name} runs again, as its last output cannot be used: {error}", err=True)
        return None
    return last


def _restore_lock_entry(node: Node, target: Place, last: Manifest) -> None:
    """Let DVC know what the last run of a stage was.

    Raises:
        Damaged: What the manifest has of it is not what DVC wrote.
    """
    try:
        _dvc().restore_lock_entry(node.name, last.lock)
    except UsageError as error:
        raise Damaged(f"{target.uri}.json: {error}") from None


def _document_digests() -> dict[str, str]:
    return {path.as_posix(): digest(path) for path in DOCUMENTS.values() if path.is_file()}


def _leave(
    node: Node,
    target: Place,
    inherited: Inherited,
    last: Manifest | None,
    changed: set[str],
    *,
    is_refused: bool,
) -> tuple[dict[str, StoredOutput], int]:
    """Upload what a step made, and what it was given from elsewhere.

    Args:
        changed: The documents that it has written.
        is_refused: Whether only that is to be kept: the rest may be of an earlier run.

    Returns:
        The files of the new snapshot, and how many were uploaded.

    Raises:
        UsageError: A file cannot be carried.
    """
    before = {}
    if last:
        before = {path: file for path, file in last.files.items() if file.step == node.name}
    own = set(changed)
    if not is_refused:
        own |= {path for output in node.makes for path in files_of(output)}
        own |= {path for path in before if Path(path).is_file()}
    files: dict[str, StoredOutput] = {}
    uploaded = 0
    for path in sorted(own):
        if not is_output(path, node.known):
            raise UsageError(f"{path!r} cannot be carried: name it in plain characters")
        if path in inherited and digest(Path(path)) == inherited[path][1].digest:
            continue  # such as the source, which an earlier step brought
        if path in before and digest(Path(path)) == before[path].digest:
            files[path] = before[path]
            continue
        files[path] = upload(path, target, node.name)
        uploaded += 1
    for path, (place, stored) in inherited.items():
        if path in files:
            continue
        if place.folder != target.folder:
            copy(path, place, stored, target)
        files[path] = stored
    return dict(sorted(files.items())), uploaded
