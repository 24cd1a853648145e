"""Files from a place into the project and back, with their digests checked on the way."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

from .. import UsageError
from ..artifacts import digest
from .snapshot import Damaged, Place, StoredOutput

PIECE_BYTES = 1 << 20


class HashedPieces:
    """Passes pieces of a file on, and computes the digest of what was passed on."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces
        self.size = 0
        self.total = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.total.update(piece)
            self.size += len(piece)
            yield piece

    @property
    def digest(self) -> str:
        """Return the digest so far, as `sha256:…`."""
        return f"sha256:{self.total.hexdigest()}"


def _verified(path: str, place: Place, stored: StoredOutput) -> Iterator[bytes]:
    """Yield the content of a file at a place; at its end, it is known to be what was written.

    Raises:
        Damaged: It is missing, or another content.
    """
    where = f"{path} at {place.uri} ({place.folder}/{stored.object_name})"
    pieces = HashedPieces(place.storage.stream(stored.object_name))
    try:
        for piece in pieces:
            if pieces.size > stored.size:  # before all of it has filled the disk
                break
            yield piece
    except FileNotFoundError:
        raise Damaged(f"{where} is missing: run `ml step {stored.step}` again") from None
    if (pieces.size, pieces.digest) != (stored.size, stored.digest):
        raise Damaged(
            f"{where} is not what `ml step {stored.step}` wrote: its digest is another one; run"
            " that step again"
        )


def download(path: str, place: Place, stored: StoredOutput) -> None:
    """Bring a file into the project, whole or not at all.

    Raises:
        Damaged: It is missing at the place, or another content.
        UsageError: Its folder is a link that leads out of the project.
    """
    target = Path(path)
    if target.is_file() and not target.is_symlink() and digest(target) == stored.digest:
        return
    require_in_project(target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=target.parent, prefix=".", suffix=".new", delete=False) as file:
        new = Path(file.name)
        try:
            file.writelines(_verified(path, place, stored))
            file.close()
            new.chmod(0o644)
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)


def verify(path: str, place: Place, stored: StoredOutput) -> None:
    """Check a file at a place, and keep nothing of it.

    Raises:
        Damaged: It is missing, or another content.
    """
    for _ in _verified(path, place, stored):
        pass


def copy(path: str, source: Place, stored: StoredOutput, target: Place) -> None:
    """Copy a file that the project does not need from one folder of places to another.

    Raises:
        Damaged: It is missing, or another content.
    """
    target.storage.upload(stored.object_name, _verified(path, source, stored), stored.size)


def upload(path: str, place: Place, step: str) -> StoredOutput:
    """Bring a file of the project to a place.

    Raises:
        UsageError: It changed meanwhile, is not a file, or leads out of the project.
    """
    file = Path(path)
    require_in_project(file)
    stored = StoredOutput(digest=digest(file), size=file.stat().st_size, step=step)
    place.storage.upload(stored.object_name, _unchanged(file, place, stored), stored.size)
    there = place.storage.find(stored.object_name)
    if there is None or there.size != stored.size:
        raise UsageError(f"{place.uri} has not kept all of {path}: run the step again")
    return stored


def _unchanged(file: Path, place: Place, stored: StoredOutput) -> Iterator[bytes]:
    """Yield the content of a file, the last piece only once all of it is known to be as it was.

    So nothing else ever gets the name of that content, which other snapshots may have, too.

    Raises:
        UsageError: It changed meanwhile.
    """
    pieces = HashedPieces(_read(file))
    last = b""
    for piece in pieces:
        yield last
        last = piece
    if (pieces.size, pieces.digest) != (stored.size, stored.digest):
        raise UsageError(f"{file} changed while it was uploaded to {place.uri}: run the step again")
    yield last


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece


def require_in_project(path: Path) -> None:
    """Check that a path does not lead out of the project by a link.

    Raises:
        UsageError: It does.
    """
    if not path.resolve().is_relative_to(Path.cwd().resolve()):
        raise UsageError(f"{path} is a link that leads out of the project: put a file there")


def files_of(output: str) -> list[str]:
    """Return the files that an output consists of: itself, or those in its folder.

    Raises:
        UsageError: There is something else, such as a link to a folder.
    """
    top = Path(output)
    if top.is_file():
        return [output]
    files: list[str] = []
    for folder, folders, names in os.walk(top):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        odd = [name for name in names if not Path(folder, name).is_file()]
        if others := links + odd:
            raise UsageError(f"{Path(folder, others[0])} is not a file: only files are carried")
        files += [Path(folder, name).as_posix() for name in names]
    return sorted(files)


def remove_others(output: str, files: set[str]) -> None:
    """Remove the files of an output's folder that a snapshot does not have."""
    for path in files_of(output):
        if path not in files:
            Path(path).unlink()
