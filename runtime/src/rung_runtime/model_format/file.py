"""The file of a model: an archive of skops, the same bytes for the same model.

It holds no pickle, no time, and no name of the project: a class of `problem/` is that of the
package that the file lies in.
"""

import io
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from .. import UsageError, project
from ..atomic_file import atomic_write
from .choose import available
from .limits import SCHEMA, TooLarge, allowed, parsed_size, require_bounded

THREADS = {"n_threads", "_n_threads"}  # attributes of gradient boosting and of k-means
NOTED_THREADS = (
    2  # any number would do; with this one, digests made on two cores stay what they were
)
DEFAULT = "skops"  # the format of a package whose manifest names none
ADAPTER = re.compile(r"\brung_runtime\.adapters\.model_format_(\w+)\.")


class Unsavable(Exception):
    """A model cannot be written."""


def to_bytes(fitted: Any) -> bytes:
    """Return the file of a model, less what differs from run to run.

    Memory addresses and random names of files become numbers in the order of their first use; the
    time of day becomes the first that a zip file knows; and how many threads there were, which
    scikit-learn notes, becomes `NOTED_THREADS`.

    Raises:
        Unsavable: A part of it cannot be written.
    """
    import skops.io  # in functions: it imports all of scikit-learn

    try:
        with _threads_as_everywhere():
            content = skops.io.dumps(fitted)
    except Exception as error:  # of many types, RecursionError among them (skops#195)
        raise Unsavable(f"{type(error).__name__}: {error}".partition("\n")[0]) from error
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        schema = source.read(SCHEMA).decode()
        names: dict[str, str] = {}
        suffixes = _suffixes(schema)
        # An object that is mentioned twice, as a member of a vote is, would have its file twice.
        firsts: dict[bytes, str] = {}
        for name in suffixes:
            first = firsts.setdefault(source.read(name), name)
            schema = schema.replace(f'"{name}"', f'"{first}"')

        def rename(name: str, number: str) -> str:
            return number + suffixes.get(name, name.removeprefix(PurePosixPath(name).stem))

        def renumber(match: re.Match[str]) -> str:
            number = names.setdefault(PurePosixPath(match[2]).stem, str(len(names)))
            return match[1] + rename(match[2], number)

        schema = re.sub(r'("__id__": |"file": ")([^",}\s]+)', renumber, schema)
        schema = _move_classes(schema, _problem(), "problem")
        files = {SCHEMA: schema.encode()}
        for name in source.namelist():
            stem = PurePosixPath(name).stem
            if stem in names:
                files[rename(name, names[stem])] = source.read(name)
            elif name not in suffixes:
                files.setdefault(name, source.read(name))
        packed = _archive(files, zipfile.ZIP_DEFLATED)
        unpacked = sum(map(len, files.values())) - len(files[SCHEMA]) + parsed_size(files[SCHEMA])
        # What is nearly all zeros: as it is, so that `load` does not take it for an attack.
        return packed if unpacked <= allowed(len(packed)) else _archive(files, zipfile.ZIP_STORED)


@contextmanager
def _threads_as_everywhere() -> Iterator[None]:
    """Have estimators of scikit-learn say that they were trained with `NOTED_THREADS`."""
    from sklearn.base import BaseEstimator

    state_of = BaseEstimator.__getstate__

    def state_anywhere(self: Any) -> dict[str, Any]:
        state: dict[str, Any] = state_of(self)
        if not type(self).__module__.startswith("sklearn."):  # others may mean something by it
            return state
        return state | dict.fromkeys(state.keys() & THREADS, NOTED_THREADS)

    BaseEstimator.__getstate__ = state_anywhere
    try:
        yield
    finally:
        BaseEstimator.__getstate__ = state_of


def _archive(files: dict[str, bytes], compression: int) -> bytes:
    """Return an archive, the same for the same files."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as target:
        for name, part in sorted(files.items()):
            target.writestr(zipfile.ZipInfo(name), part, compression)
    return result.getvalue()


def save(fitted: Any, path: Path) -> None:
    """Write a model: see `to_bytes`.

    Raises:
        Unsavable: A part of it cannot be written.
    """
    content = to_bytes(fitted)
    with atomic_write(path) as new:
        new.write_bytes(content)


def load(path: Path, trusted: Collection[str], *, problem: str | None = None) -> Any:
    """Read a model.

    Args:
        path: A file that `save` wrote, now or in an earlier release.
        trusted: The types that the file may hold, besides those of scikit-learn and of adapters.
        problem: The name that the `problem/` of the model was imported by; None: the project's.

    Raises:
        UsageError: The file is damaged, or would fill the memory, or holds another type, or a
            library is not installed.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    problem = problem or _problem()
    # The file has the classes of `problem/` without the name of the project.
    types = [re.sub(r"^\w+\.problem\.", f"{problem}.", name) for name in trusted]
    for adapter in available().values():
        types += adapter.TRUSTED
    content = path.read_bytes()
    try:
        require_bounded(content)
        return skops.io.loads(_with_classes_of(content, problem), trusted=types)
    except TooLarge as error:
        raise UsageError(
            f"{path} is not loaded: {error}; no model that `ml train` wrote is like that"
        ) from None
    except UntrustedTypesFoundException as error:
        missing = ADAPTER.search(str(error))
        if missing and missing[1] not in available():
            raise UsageError(
                f"{path} holds a model of {missing[1]}, for which there is no adapter here: "
                f"run `rung add model_format {missing[1]}`"
            ) from None
        raise UsageError(
            f"{path} holds types that problem/model.py does not trust: {error}"
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} needs {error.name}, which is not installed: run `uv sync`"
        ) from None
    except Exception as error:  # of what anybody may have written
        if isinstance(error, OSError) and "shared object" in str(error):
            raise UsageError(f"{path} needs a library of the system: {error}") from None
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is damaged ({reason}): run `ml train` again") from None


def formats(path: Path) -> list[str]:
    """Return the names of the adapters that a model needs, `skops` if it needs no other.

    Args:
        path: A file that `save` wrote.
    """
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(archive.read(SCHEMA))
    types = {node["type"] for node in _nodes(schema)}
    names = [name for name, adapter in available().items() if types & {*adapter.TRUSTED}]
    return names or [DEFAULT]


def _suffixes(schema: str) -> dict[str, str]:
    """Return by which suffix the files of libraries in an archive are known, by their names."""
    suffixes: dict[str, str] = {}
    for adapter in available().values():
        modules = {name.rpartition(".")[0] for name in adapter.TRUSTED}
        if not any(f'"{module}"' in schema for module in modules):
            continue
        for node in _nodes(json.loads(schema)):
            if node["type"] in adapter.TRUSTED:
                state = node["content"]["content"]
                files = [item["file"] for item in state.values() if "file" in item]
                suffixes |= dict.fromkeys(files, adapter.SUFFIX)
    return suffixes


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in the tree of an archive, with its `type`, `module.Class`."""
    if isinstance(node, list):
        for item in node:
            yield from _nodes(item)
    elif isinstance(node, dict):
        # A dictionary of the model, such as the words of a text, may have a key of that name.
        if isinstance(node.get("__module__"), str) and isinstance(node.get("__class__"), str):
            yield node | {"type": f"{node['__module__']}.{node['__class__']}"}
        for item in node.values():
            yield from _nodes(item)


def _problem() -> str:
    return f"{project.current().package}.problem"


def _move_classes(schema: str, package: str, to: str) -> str:
    """Return the tree of an archive with classes of another package."""
    pattern = rf'("__module__": "){re.escape(package)}(?=\.)'
    return re.sub(pattern, lambda match: match[1] + to, schema)


def _with_classes_of(content: bytes, problem: str) -> bytes:
    """Return an archive whose classes of `problem/` are those of a package."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        old = source.read(SCHEMA).decode()
        new = _move_classes(old, "problem", problem)
        if new == old:
            return content
        result = io.BytesIO()
        with zipfile.ZipFile(result, "w") as target:
            for name in source.namelist():
                target.writestr(name, new if name == SCHEMA else source.read(name))
    return result.getvalue()
