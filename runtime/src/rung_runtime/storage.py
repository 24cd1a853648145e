"""Where files are: a folder, or a place in an object store, whose login is in its usual variables.

A file appears whole or not at all: in a folder it is renamed into its place, and an object store
shows an object once all of it has arrived.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from . import UsageError
from .atomic_file import atomic_write
from .prediction_log.layout import is_remote, remote_path

if TYPE_CHECKING:
    import polars as pl

HIDDEN = (".", "_")  # how names begin that are not data, such as _SUCCESS or _delta_log
PIECE_BYTES = 5 << 20  # of a file that is read or written piece by piece
MAX_PIECES = 9_000  # of an upload; S3 allows 10,000
MAX_UPLOADS = 4  # pieces at a time, which are in memory
SECRET = re.compile(r"SECRET|KEY|TOKEN|PASSWORD|SAS|CREDENTIAL|CONNECTION_STRING")  # in variables
MIN_SECRET_CHARACTERS = 8  # shorter values, such as "test", would mask ordinary words


class StoredFile(NamedTuple):
    """A file, and what tells it from another one of its name without reading it."""

    name: str  # its path below the place, with slashes
    size: int
    stamp: str  # when it was changed; in an object store its ETag


class Storage(Protocol):
    """A place with files."""

    location: str  # as it was named

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files below a folder, in the order of their names."""

    def skipped(self) -> Iterator[str]:
        """Yield the names of what `files` passes over, each with what it is."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

    def write_rows(
        self, name: str, rows: "pl.LazyFrame", metadata: dict[str, str] | None = None
    ) -> None:
        """Write a Parquet file, whole or not at all, without holding all rows in memory."""

    def find(self, name: str) -> StoredFile | None:
        """Return a file; None if there is none."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def path(self, name: str) -> str:
        """Return what Polars reads a file by."""

    def download(self, name: str, to: Path) -> Path:
        """Return a file of this machine with the content of a file."""

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, piece by piece.

        Raises:
            FileNotFoundError: There is none.
        """

    def upload(self, name: str, pieces: Iterable[bytes], size: int) -> None:
        """Write a file of that size piece by piece, whole or not at all; two may at once."""


class Folder:
    """A folder of this machine."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.root = Path(location)

    def __reduce__(self) -> tuple[type["Folder"], tuple[str]]:
        """Be sent to another process, whose current folder is another one."""
        return Folder, (str(self.root.resolve()),)

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        for path in sorted((self.root / prefix).rglob("*")):
            if file := self.find(path.relative_to(self.root).as_posix()):
                yield file

    def skipped(self) -> Iterator[str]:
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_dir():
                if path.is_symlink():  # which may lead back to where it lies
                    yield f"{name} (a link to a folder)"
                elif not os.access(path, os.R_OK | os.X_OK):
                    yield f"{name} (a folder that cannot be read)"
            elif path.is_symlink() and not path.exists():
                yield f"{name} (a link to nothing)"
            elif not path.is_file():
                yield f"{name} (not a regular file)"

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        with atomic_write(self.root / name) as new:
            new.write_bytes(content)

    def write_rows(
        self, name: str, rows: "pl.LazyFrame", metadata: dict[str, str] | None = None
    ) -> None:
        with atomic_write(self.root / name) as new, _told(self.path(name)):
            rows.sink_parquet(new, metadata=metadata)

    def find(self, name: str) -> StoredFile | None:
        path = self.root / name
        if not path.is_file():
            return None
        status = path.stat()
        return StoredFile(name, status.st_size, str(status.st_mtime_ns))

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def download(self, name: str, to: Path) -> Path:
        return self.root / name

    def stream(self, name: str) -> Iterator[bytes]:
        with (self.root / name).open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def upload(self, name: str, pieces: Iterable[bytes], size: int) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".new", delete=False) as file:
            new = Path(file.name)
            try:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)


class ObjectStore:
    """A place in an object store."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.obstore = require("obstore")
        # Read from the environment, as Polars does.
        self.store = require("obstore.store").from_url(location)

    def __reduce__(self) -> tuple[type["ObjectStore"], tuple[str]]:
        """Be sent to another process, which has variables with the login of its own."""
        return ObjectStore, (self.location,)

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        entries: list[dict[str, Any]] = []
        with _reached(self.location):
            for page in self.obstore.list(self.store, prefix or None):
                entries += page
        for entry in sorted(entries, key=lambda entry: str(entry["path"])):
            yield _stored(entry)

    def skipped(self) -> Iterator[str]:
        return iter(())

    def find(self, name: str) -> StoredFile | None:
        with suppress(FileNotFoundError), _reached(self.path(name), may_be_missing=True):
            return _stored(self.obstore.head(self.store, name))
        return None

    def read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError), _reached(self.path(name), may_be_missing=True):
            return bytes(self.obstore.get(self.store, name).bytes())
        return None

    def write(self, name: str, content: bytes) -> None:
        with _reached(self.path(name)):
            self.obstore.put(self.store, name, content)

    def write_rows(
        self, name: str, rows: "pl.LazyFrame", metadata: dict[str, str] | None = None
    ) -> None:
        with _told(self.path(name)):
            rows.sink_parquet(self.path(name), metadata=metadata)

    def delete(self, name: str) -> None:
        if self.find(name):
            with _reached(self.path(name)):
                self.obstore.delete(self.store, name)

    def path(self, name: str) -> str:
        return remote_path(self.location, name)

    def download(self, name: str, to: Path) -> Path:
        path = to / PurePosixPath(name).name
        with path.open("wb") as file, _reached(self.path(name)):
            file.writelines(self.stream(name))
        return path

    def stream(self, name: str) -> Iterator[bytes]:
        with _reached(self.path(name), may_be_missing=True):
            yield from self.obstore.get(self.store, name).stream()

    def upload(self, name: str, pieces: Iterable[bytes], size: int) -> None:
        piece_bytes = max(PIECE_BYTES, size // MAX_PIECES)
        with _reached(self.path(name)):
            self.obstore.put(
                self.store,
                name,
                iter(pieces),
                use_multipart=size > piece_bytes,
                chunk_size=piece_bytes,
                max_concurrency=MAX_UPLOADS,
            )


@contextmanager
def _reached(url: str, may_be_missing: bool = False) -> Iterator[None]:
    """Tell in a sentence what an object store answers, if not what it was asked for.

    Args:
        may_be_missing: Whether FileNotFoundError is an answer, too.

    Raises:
        UsageError: It cannot be reached, or refuses.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # obstore's own, of which it publishes no common type
        if may_be_missing and isinstance(error, FileNotFoundError):
            raise
        reason = without_secrets(str(error).partition("\n")[0])[:300]
        raise UsageError(f"{without_secrets(url)} cannot be used: {reason}") from None


def without_secrets(text: str) -> str:
    """Return a text without what may log somebody in: user info and queries of URLs, variables."""
    text = re.sub(r"(\w://)[^/@\s]*@", r"\1", text)
    text = re.sub(r"(\w://[^\s?\"']*)\?[^\s\"')]*", r"\1", text)
    for name, value in os.environ.items():
        if SECRET.search(name.upper()) and len(value) >= MIN_SECRET_CHARACTERS:
            text = text.replace(value, "…")
    return text


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Tell in a sentence why a file cannot be written.

    Raises:
        UsageError: It cannot.
    """
    import polars as pl

    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"{path} cannot be written: {str(error).splitlines()[0]}") from None


def _stored(entry: dict[str, Any]) -> StoredFile:
    stamp = entry["e_tag"] or entry["last_modified"]
    return StoredFile(entry["path"], entry["size"], str(stamp))


def normalized(location: str) -> str:
    """Return the one way to write a place: `NM` for `NM/` and `./NM`, a path for a `file://` URL.

    A path below the present folder is relative to it, without links; others are absolute.
    """
    if is_remote(location):
        url = urlsplit(location)
        if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
            return location.rstrip("/")
        location = unquote(url.path)
    path = Path(location).resolve()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def open_storage(location: str) -> Storage:
    """Return the folder or the place in an object store that is called so.

    Raises:
        UsageError: It is a URL of an unknown kind, or the library for object stores is missing.
    """
    if not is_remote(location):
        return Folder(location)
    require("obstore")
    with _reached(location):
        return ObjectStore(location)


def require(module: str) -> Any:
    """Import a library that only some sources and sinks need.

    Raises:
        UsageError: It is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        name = module.partition(".")[0]
        needs = {"obstore": "object stores need", "deltalake": "Delta tables need"}[name]
        raise UsageError(f"{needs} {name}: uv add --group train {name}") from None


def is_hidden(name: str) -> bool:
    """Check whether a file, or a folder above it, is not meant as data."""
    return any(part.startswith(HIDDEN) for part in PurePosixPath(name).parts)
