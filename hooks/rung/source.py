"""Where the template comes from, which versions it has, and rendering it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import yaml
from packaging.version import InvalidVersion, Version

from . import BadInputError
from .tools import asks, git, plain

ANSWERS = ".copier-answers.yml"
PACKED = "rung"  # what answers name when the template came in a package, which has no address
PACKAGE_DATA = Path(__file__).parent / "source"
LEVELS = (0, 1, 2)


@dataclass(frozen=True)
class Source:
    """A template at one commit, or as a package brings it."""

    url: str  # as Copier is given it, and as a project's answers keep it
    commit: str | None  # None: from a package
    name: str  # the version, or what `git describe` calls the commit

    @property
    def path(self) -> str:
        """What Copier copies from."""
        return self.url if self.commit else str(PACKAGE_DATA)


def own() -> Source:
    """Give the template that this command came with.

    It is the address that uvx or pip was given, if that has a history; else the package's data,
    of which a project cannot be updated until it is told an address.
    """
    direct = json.loads(distribution("rung").read_text("direct_url.json") or "{}")
    if commit := direct.get("vcs_info", {}).get("commit_id"):
        return found(addressed(direct["url"]), commit)
    folder = Path(url2pathname(urlsplit(direct.get("url", "")).path))
    if "dir_info" in direct and is_repository(folder):
        return found(str(folder), "HEAD")
    return Source(PACKED, None, f"v{version('rung')}")


def addressed(url: str) -> str:
    """Give an address in the form by which Copier knows that Git is to fetch it."""
    if Path(url).expanduser().exists():
        return str(Path(url).expanduser().resolve())
    known = ("git@", "git+", "gh:", "gl:", "https://github.com/", "https://gitlab.com/")
    return url if url.startswith(known) or url.endswith(".git") else f"git+{url}"


def is_repository(folder: Path) -> bool:
    """Tell whether this is the top of a Git work tree."""
    return folder.is_dir() and asks(folder, "rev-parse", "HEAD") and (folder / ".git").exists()


def found(url: str, ref: str | None = None) -> Source:
    """Find a version of a template; without a ref its newest release, or HEAD if it has none.

    Raises:
        BadInputError: It cannot be reached, or has no such version.
    """
    folder = history(url)
    wanted = ref or newest(git(folder, "tag", "--list").splitlines()) or "HEAD"
    if not asks(folder, "rev-parse", "-q", "--verify", f"{wanted}^{{commit}}"):
        raise BadInputError(f"{url} has no version {wanted}: `git ls-remote {url}` lists them")
    commit = git(folder, "rev-parse", f"{wanted}^{{commit}}")
    return Source(url, commit, git(folder, "describe", "--tags", "--always", commit))


def newest(tags: list[str]) -> str | None:
    """Give the newest release of these tags, as Copier orders them."""
    known = {}
    for tag in tags:
        try:
            known[tag] = Version(tag)
        except InvalidVersion:
            continue
    return max(
        (t for t in known if not known[t].is_prerelease), key=known.__getitem__, default=None
    )


def history(url: str) -> Path:
    """Give a folder where Git knows the template's commits; a remote one is fetched for it, once.

    Raises:
        BadInputError: It cannot be reached.
    """
    return Path(url) if is_repository(Path(url)) else Path(fetched(url).name, "template")


@cache
def fetched(url: str) -> TemporaryDirectory[str]:
    """Fetch a template's history into a folder that goes with this process."""
    address = url.removeprefix("git+")
    for short, host in {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}.items():
        address = re.sub(f"^{short}/?", host, address)
    folder = TemporaryDirectory(prefix="rung-")
    never = {"GIT_TERMINAL_PROMPT": "0"}
    git(Path(folder.name), "clone", "--quiet", "--bare", "--", address, "template", **never)
    return folder


def changes(source: Source, before: str | None) -> str:
    """Give what the changelog says between a version that a project has and this one.

    Args:
        source: The version.
        before: What the project's answers call the one that it has.
    """
    if source.commit is None:
        return ""
    folder = history(source.url)
    if not asks(folder, "cat-file", "-e", f"{source.commit}:CHANGELOG.md"):
        return ""
    new = git(folder, "show", f"{source.commit}:CHANGELOG.md").splitlines()
    old: set[str] = set()
    if before and asks(folder, "cat-file", "-e", f"{before}:CHANGELOG.md"):
        old = set(git(folder, "show", f"{before}:CHANGELOG.md").splitlines())
    # The sections that were not there, and of one that was, such as Unreleased, its new lines.
    kept: list[str] = []
    for line in new[next((n for n, text in enumerate(new) if text.startswith("## ")), len(new)) :]:
        heading = line.startswith("#")
        if heading:
            depth = len(line) - len(line.lstrip("#"))
            while kept and kept[-1].startswith("#" * depth):
                kept.pop()  # nothing new was under it
            kept.append(line)
        elif line.strip() and line not in old:
            kept.append(line)
    while kept and kept[-1].startswith("#"):
        kept.pop()
    return "\n".join(kept)


def behind(source: Source, before: str) -> bool:
    """Tell whether a version is newer than the one that a project has.

    Raises:
        BadInputError: The template does not know the project's version.
    """
    if source.commit is None:
        raise BadInputError(
            "a template from a package has no history: name its address, --template"
        )
    folder = history(source.url)
    if not asks(folder, "rev-parse", "-q", "--verify", f"{before}^{{commit}}"):
        raise BadInputError(
            f"{source.url} does not know the version {before} that {ANSWERS} names: "
            "name the template's address with --template"
        )
    return not asks(folder, "merge-base", "--is-ancestor", source.commit, f"{before}^{{commit}}")


def render(
    source: Source,
    to: Path,
    data: Mapping[str, Any],
    *,
    ask: bool = False,
    likely: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Render a project into a folder, and give its answers.

    Args:
        source: The template.
        to: The folder, which is empty.
        data: Answers, by the names of questions.
        ask: Ask the other questions in the terminal; else each has its default.
        likely: Defaults that are better than the template's.

    Raises:
        BadInputError: An answer is refused, or there is no terminal to ask in.
    """
    from copier import run_copy

    if ask and not sys.stdin.isatty():
        said = "there is no terminal to ask in: add --defaults, and --data NAME=VALUE for others"
        raise BadInputError(said)
    with told():
        run_copy(
            source.path,
            to,
            data=dict(data),
            user_defaults=dict(likely),
            defaults=not ask,
            quiet=True,
            unsafe=False,
            vcs_ref=source.commit,
        )
    file = to / ANSWERS
    if source.commit is None:
        text = re.sub(r"(?m)^_src_path: .*$", f"_src_path: {PACKED}", file.read_text("utf-8"))
        text = text.replace("_src_path:", f"_commit: {source.name}\n_src_path:", 1)
        file.write_text(text, "utf-8")
    return answers(to)


@contextmanager
def told() -> Iterator[None]:
    """Turn what Copier refuses into a sentence, and keep Git's settings out of its way.

    Raises:
        BadInputError: Copier refused.
    """
    from copier.errors import CopierAnswersInterrupt, CopierError

    try:
        with plain():
            yield
    except CopierAnswersInterrupt:
        raise KeyboardInterrupt from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError, AssertionError):
        said = "a folder stands where the template has a file, or a file where it has a folder"
        raise BadInputError(f"{said}: rename it, then try again") from None
    except (CopierError, ValueError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise BadInputError(said) from None


def files(folder: Path) -> set[str]:
    """Name the files under a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def answers(project: Path) -> dict[str, Any]:
    """Read a project's answers.

    Raises:
        BadInputError: There are none, or they cannot be read.
    """
    try:
        read = yaml.safe_load((project / ANSWERS).read_text("utf-8"))
    except FileNotFoundError:
        said = f"{project} is no project of this template: it has no {ANSWERS}; see `rung adopt`"
        raise BadInputError(said) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise BadInputError(f"{project / ANSWERS} cannot be read ({said}): restore it") from None
    if not isinstance(read, dict) or not {"_src_path", "_commit"} <= set(read):
        raise BadInputError(f"{project / ANSWERS} lacks _src_path or _commit: restore it") from None
    return read | {"_src_path": str(read["_src_path"]), "_commit": str(read["_commit"])}


def questions(source: Source) -> dict[str, dict[str, Any]]:
    """Read a template's questions."""
    if source.commit is None:
        text = (PACKAGE_DATA / "copier.yml").read_text("utf-8")
    else:
        text = git(history(source.url), "show", f"{source.commit}:copier.yml")
    read = yaml.safe_load(text)
    return {name: about for name, about in read.items() if not name.startswith("_")}


def parsed(said: list[str], source: Source) -> dict[str, Any]:
    """Read answers that were given as NAME=VALUE; a list as NAME=[A,B] or NAME=A,B.

    Raises:
        BadInputError: No question has that name, which Copier would ignore.
    """
    asked, data = questions(source) if said else {}, dict[str, Any]()
    for one in said:
        name, equals, value = one.partition("=")
        if not equals or name not in asked:
            raise BadInputError(f"--data {one}: give NAME=VALUE, NAME one of {', '.join(asked)}")
        if asked[name].get("multiselect"):
            data[name] = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
        else:
            number = asked[name]["type"] == "int" and value.isdecimal()
            data[name] = int(value) if number else value
    return data
