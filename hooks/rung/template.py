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

from .exceptions import UsageError
from .git import git, git_succeeds, pinned_git_config
from .process import run
from .yaml_files import read_yaml

ANSWERS = ".copier-answers.yml"
PACKAGED = "rung"  # the address in the answers if the template came in a package, which has none
PACKAGE_DATA = Path(__file__).parent / "source"
LEVELS = (0, 1, 2)


@dataclass(frozen=True)
class Template:
    """The template at one commit, or as a package contains it."""

    url: str  # as Copier takes it, and as a project's answers keep it
    commit: str | None  # None: from a package
    version: str  # the release, or what `git describe` calls the commit

    @property
    def copier_path(self) -> str:
        """What Copier copies from."""
        return self.url if self.commit else str(PACKAGE_DATA)

    def read(self, path: str) -> str:
        """Return the text of one of the template's files."""
        if self.commit is None:
            return (PACKAGE_DATA / path).read_text("utf-8")
        return git(history(self.url), "show", f"{self.commit}:{path}")

    def has(self, path: str) -> bool:
        """Check whether the template's history has a file at this version."""
        return git_succeeds(history(self.url), "cat-file", "-e", f"{self.commit}:{path}")


def bundled_template() -> Template:
    """Return the template that this command was installed from.

    It is the address that uvx or pip installed from if that has a history, else the package's data.
    A project of the latter cannot be updated until `--template` names an address.
    """
    direct_url = json.loads(distribution("rung").read_text("direct_url.json") or "{}")
    if commit := direct_url.get("vcs_info", {}).get("commit_id"):
        return resolve_version(normalize_url(direct_url["url"]), commit)
    folder = Path(url2pathname(urlsplit(direct_url.get("url", "")).path))
    if "dir_info" in direct_url and is_repository(folder):
        return resolve_version(str(folder), "HEAD")
    return Template(PACKAGED, None, f"v{version('rung')}")


def normalize_url(url: str) -> str:
    """Return an address in the form by which Copier recognizes a Git repository."""
    if Path(url).expanduser().exists():
        return str(Path(url).expanduser().resolve())
    prefixes = ("git@", "git+", "gh:", "gl:", "https://github.com/", "https://gitlab.com/")
    return url if url.startswith(prefixes) or url.endswith(".git") else f"git+{url}"


def is_repository(folder: Path) -> bool:
    """Check whether a folder is the top of a Git work tree that has a commit."""
    return (
        folder.is_dir() and git_succeeds(folder, "rev-parse", "HEAD") and (folder / ".git").exists()
    )


def resolve_version(url: str, ref: str | None = None) -> Template:
    """Return a version of a template.

    Args:
        url: Its address.
        ref: A tag, branch or commit; by default the newest release, or HEAD if there is none.

    Raises:
        UsageError: The address cannot be reached, or has no such version.
    """
    if ref is not None and not ref.strip():
        raise UsageError("--to is empty: name a tag, branch or commit")
    repository = history(url)
    ref = ref or newest_release(git(repository, "tag", "--list").splitlines()) or "HEAD"
    is_range = ref.startswith("^")
    if is_range or not git_succeeds(repository, "rev-parse", "-q", "--verify", f"{ref}^{{commit}}"):
        raise UsageError(f"{url} has no version {ref}: `git ls-remote {url}` lists them")
    commit = git(repository, "rev-parse", f"{ref}^{{commit}}")
    return Template(url, commit, git(repository, "describe", "--tags", "--always", commit))


def newest_release(tags: list[str]) -> str | None:
    """Return the newest release among tags, as Copier orders them."""
    releases = {}
    for tag in tags:
        try:
            parsed = Version(tag)
        except InvalidVersion:
            continue
        if not parsed.is_prerelease:
            releases[tag] = parsed
    return max(releases, key=releases.__getitem__, default=None)


def history(url: str) -> Path:
    """Return a repository with the template's commits; a remote one is cloned once per process.

    Raises:
        UsageError: The address cannot be reached.
    """
    return Path(url) if is_repository(Path(url)) else Path(clone(url).name, "template")


@cache
def clone(url: str) -> TemporaryDirectory[str]:
    """Clone a template's history into a folder that is deleted when this process ends."""
    address = url.removeprefix("git+")
    for prefix, host in {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}.items():
        address = re.sub(f"^{prefix}/?", host, address)
    folder = TemporaryDirectory(prefix="rung-")
    command = ("git", "clone", "--quiet", "--bare", "--", address, "template")
    result = run(command, Path(folder.name), env={"GIT_TERMINAL_PROMPT": "0"})
    if not result.succeeded:
        raise UsageError(f"the template {url} cannot be read: {result.reason}")
    return folder


def changelog_since(template: Template, installed: str | None) -> str:
    """Return what the changelog has in this version and not in the one that a project has.

    Args:
        template: The version.
        installed: The project's version, as its answers name it.
    """
    path = "CHANGELOG.md"
    if template.commit is None or not template.has(path):
        return ""
    known_lines: set[str] = set()
    if installed:
        before = Template(template.url, installed, installed)
        if before.has(path):
            known_lines = set(before.read(path).splitlines())
    lines = template.read(path).splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("## ")), len(lines))
    # The sections that are new, and of one that is not, such as Unreleased, its new lines.
    new: list[str] = []
    for line in lines[start:]:
        if line.startswith("#"):
            depth = len(line) - len(line.lstrip("#"))
            while new and new[-1].startswith("#" * depth):
                new.pop()  # nothing new stands under it
            new.append(line)
        elif line.strip() and line not in known_lines:
            new.append(line)
    while new and new[-1].startswith("#"):
        new.pop()
    return "\n".join(new)


def is_newer(template: Template, installed: str) -> bool:
    """Check whether a version is newer than the one that a project has.

    Raises:
        UsageError: The template's history does not have the project's version.
    """
    if template.commit is None:
        raise UsageError("a template from a package has no history: add --template URL")
    repository = history(template.url)
    if not git_succeeds(repository, "rev-parse", "-q", "--verify", f"{installed}^{{commit}}"):
        raise UsageError(
            f"{template.url} has no version {installed}, which {ANSWERS} names: "
            "give the template's address with --template URL"
        )
    ancestor = ("merge-base", "--is-ancestor", template.commit, f"{installed}^{{commit}}")
    return not git_succeeds(repository, *ancestor)


def render(
    template: Template,
    destination: Path,
    data: Mapping[str, Any],
    *,
    ask: bool = False,
    likely: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Render a project into an empty folder, and return its answers.

    Args:
        template: The template.
        destination: The folder.
        data: Answers, by question.
        ask: Ask the other questions in the terminal; otherwise each takes its default.
        likely: Defaults that are better than the template's, by question.

    Raises:
        UsageError: An answer is invalid, or there is no terminal to ask in.
    """
    from copier import run_copy

    if ask and not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask in: add --defaults, and --data NAME=VALUE for an answer "
            "of your own"
        )
    with copier_errors():
        run_copy(
            template.copier_path,
            destination,
            data=dict(data),
            user_defaults=dict(likely),
            defaults=not ask,
            quiet=True,
            unsafe=False,
            vcs_ref=template.commit,
        )
    if template.commit is None:
        file = destination / ANSWERS
        text = re.sub(r"(?m)^_src_path: .*$", f"_src_path: {PACKAGED}", file.read_text("utf-8"))
        text = text.replace("_src_path:", f"_commit: {template.version}\n_src_path:", 1)
        file.write_text(text, "utf-8")
    return read_answers(destination)


@contextmanager
def copier_errors() -> Iterator[None]:
    """Turn Copier's errors into sentences, and keep a person's Git settings out of its way.

    Raises:
        UsageError: Copier refused.
    """
    from copier.errors import CopierAnswersInterrupt, CopierError

    from .copier_cache import repeating_nothing

    try:
        with pinned_git_config(), repeating_nothing():
            yield
    except CopierAnswersInterrupt:
        raise KeyboardInterrupt from None
    except (FileExistsError, IsADirectoryError, NotADirectoryError, AssertionError):
        raise UsageError(
            "a directory stands where the template has a file, or a file where it has a directory: "
            "rename it, then try again"
        ) from None
    except (CopierError, ValueError) as error:
        raise UsageError(" ".join(str(error).split()).rstrip(".")) from None


def list_files(folder: Path) -> set[str]:
    """Return the paths of all files under a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_answers(project: Path) -> dict[str, Any]:
    """Return a project's answers.

    Raises:
        UsageError: There are none, or they cannot be read.
    """
    file = project / ANSWERS
    try:
        content = read_yaml(file)
    except FileNotFoundError:
        raise UsageError(
            f"{project} is not a project of this template, as it has no {ANSWERS}: see `rung adopt`"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{file} cannot be read ({reason}): restore it") from None
    if not isinstance(content, dict) or not {"_src_path", "_commit"} <= set(content):
        raise UsageError(f"{file} lacks _src_path or _commit: restore it")
    # YAML reads a version such as 0.1 as a number.
    as_text = {key: str(content[key]) for key in ("_src_path", "_commit")}
    return content | as_text


def read_questions(template: Template) -> dict[str, dict[str, Any]]:
    """Return a template's questions, by name."""
    content = yaml.safe_load(template.read("copier.yml"))
    return {name: question for name, question in content.items() if not name.startswith("_")}


def parse_answers(options: list[str], template: Template) -> dict[str, Any]:
    """Return the answers in options of the form NAME=VALUE; a list is NAME=[A,B] or NAME=A,B.

    Raises:
        UsageError: There is no such question; Copier itself would ignore the answer.
    """
    if not options:
        return {}
    questions = read_questions(template)
    answers = dict[str, Any]()
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in questions:
            names = ", ".join(questions)
            raise UsageError(f"--data {option}: give NAME=VALUE, where NAME is one of {names}")
        question = questions[name]
        if question.get("multiselect"):
            parts = (part.strip() for part in value.strip("[]").split(","))
            answers[name] = [part for part in parts if part]
        elif question["type"] == "int":
            if not value.isdecimal():
                raise UsageError(f"--data {option}: {name} is a whole number")
            answers[name] = int(value)
        else:
            answers[name] = value
    return answers
