"""Adopted requirements that are compatible with the project's, relaxed as little as possible."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from ..certificates import certificate_hint, with_certificate_hint
from ..exceptions import RefusedError
from ..process import run
from ..progress import moving_line
from .indexes import PackageIndex

PINS = ("==", "===", "~=")
FLOORS = (">=", ">")
CUDA_PACKAGE = r'(?m)^name = "((?:nvidia|cuda)-[\w-]+)"$'
MANY_CUDA_PACKAGES = 3  # PyTorch requires some fifteen, which are gigabytes; XGBoost requires one
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Unresolved:
    """A requirement that is not adopted, and why."""

    requirement: Requirement
    reason: str


@dataclass
class Choice:
    """What a pyproject.toml is written with."""

    requirements: list[Requirement] = field(default_factory=list)
    unresolved: list[Unresolved] = field(default_factory=list)
    indexes: list[PackageIndex] = field(default_factory=list)


WritePyproject = Callable[[Choice], str]


@dataclass
class Resolution:
    """A pyproject.toml that can be locked, its lock, and what changed for it."""

    pyproject: str
    lock: bytes
    choice: Choice
    changes: list[str]


def resolve(
    folder: Path,
    wanted: Mapping[str, Requirement],
    write: WritePyproject,
    *,
    indexes: Sequence[PackageIndex] = (),
    without_cuda: Collection[str] = (),
    may_build: bool = True,
) -> Resolution:
    """Lock a project together with adopted requirements.

    First all as they are, from wheels. If that fails, one requirement after the other: as it is,
    with its pin as a floor, without a version, built from source; else it becomes a comment. An
    index that cannot be used is left out before that. A requirement that is relaxed must not bring
    CUDA.

    Args:
        folder: Where to lock; the versions of a uv.lock there are preferred.
        wanted: Requirements, by name.
        write: Returns the text of the pyproject.toml.
        indexes: Where else packages come from.
        without_cuda: The requirements that must not bring CUDA even as they are, by name.
        may_build: Whether the code of a package may be run to find out what it requires.

    Raises:
        RefusedError: Not even the project's own requirements can be locked.
    """
    resolver = Resolver(folder, write, Choice(indexes=[*indexes]))
    error = resolver.lock_with_indexes([*wanted.values()])
    brings_cuda = without_cuda and error is None and is_cuda(resolver.cuda_packages())
    if error is None and not brings_cuda:
        resolver.choice.requirements = [*wanted.values()]
    else:
        if base_error := resolver.lock_error([]):
            reason = with_certificate_hint(failure(base_error))
            raise RefusedError(f"uv lock failed, and nothing was changed: {reason}")
        without_wheel = [
            requirement
            for name, requirement in wanted.items()
            if not resolver.add_wheel(requirement, may_bring_cuda=name not in without_cuda)
        ]
        for requirement in without_wheel:
            resolver.add_source(requirement, may_build=may_build)
        resolver.lock_error(resolver.choice.requirements)
    text = write(resolver.choice)
    (folder / "pyproject.toml").write_text(text, "utf-8")
    lock = (folder / "uv.lock").read_bytes()
    return Resolution(text, lock, resolver.choice, resolver.changes)


@dataclass
class Resolver:
    """A folder in which requirements are tried, and what was chosen so far."""

    folder: Path
    write: WritePyproject
    choice: Choice
    changes: list[str] = field(default_factory=list)

    def lock_error(self, requirements: Sequence[Requirement], *options: str) -> str | None:
        """Lock the project with these requirements; return uv's message if that fails."""
        text = self.write(Choice([*requirements], [], self.choice.indexes))
        (self.folder / "pyproject.toml").write_text(text, "utf-8")
        with moving_line("Versions of all packages (uv lock)") as show:
            show(str(requirements[-1]) if requirements else "the project's own")
            result = run(["uv", "lock", "--quiet", *options], self.folder)
        return None if result.succeeded else result.error_text.strip() or result.reason

    def cuda_packages(self) -> set[str]:
        """Return the packages of CUDA in the lock."""
        return {*re.findall(CUDA_PACKAGE, (self.folder / "uv.lock").read_text("utf-8"))}

    def lock_with_indexes(self, requirements: Sequence[Requirement]) -> str | None:
        """Lock these requirements with as many of the indexes as can be used."""
        error = self.lock_error(requirements, "--no-build")
        while error and (unreachable := unreachable_indexes(error, self.choice.indexes)):
            self.leave_out(unreachable, error)
            error = self.lock_error(requirements, "--no-build")
        if error and self.choice.indexes and (base_error := self.lock_error([])):
            # Such as PyTorch's, which has old versions of much else, and which uv takes first.
            self.leave_out(self.choice.indexes, base_error)
            error = self.lock_error(requirements, "--no-build")
        return error

    def leave_out(self, indexes: Collection[PackageIndex], error: str) -> None:
        """Leave out indexes that cannot be used, and note how to add them."""
        reason = ". ".join(filter(None, (failure(error), certificate_hint(error))))
        self.changes += [
            f"{index.url} ({index.file}): not adopted ({reason}). Where uv can read it, "
            f"this adds it: uv add --group adopted PACKAGE --index {index.name}={index.url}"
            for index in indexes
        ]
        self.choice.indexes = [index for index in self.choice.indexes if index not in indexes]

    def add_wheel(self, requirement: Requirement, *, may_bring_cuda: bool) -> bool:
        """Choose the first variant of a requirement that can be installed from wheels.

        Returns:
            Whether there is one, even if it is not chosen as it brings CUDA.
        """
        for variant in relaxed_variants(requirement):
            known_cuda = self.cuda_packages()
            if self.lock_error([*self.choice.requirements, variant], "--no-build") is not None:
                continue
            is_relaxed = str(variant) != str(requirement)
            if is_cuda(self.cuda_packages() - known_cuda) and (is_relaxed or not may_bring_cuda):
                self.choice.unresolved.append(Unresolved(requirement, cuda_reason(requirement)))
                self.lock_error(self.choice.requirements)  # without CUDA in the lock
                return True
            self.choice.requirements.append(variant)
            if is_relaxed:
                self.changes.append(
                    f"{requirement} → {variant}: the original conflicts with the others"
                )
            return True
        return False

    def add_source(self, requirement: Requirement, *, may_build: bool) -> None:
        """Choose a requirement that has to be built from source, if it can be."""
        if not may_build:
            reason = "no wheel of it is compatible with the others"
            self.choice.unresolved.append(Unresolved(requirement, reason))
        elif self.lock_error([*self.choice.requirements, requirement]) is None:
            self.choice.requirements.append(requirement)
            self.changes.append(f"{requirement}: has no wheel, so it is built from source")
        else:
            reason = "no version of it is compatible with the others"
            self.choice.unresolved.append(Unresolved(requirement, reason))


def is_cuda(packages: Collection[str]) -> bool:
    """Check whether packages are CUDA as a whole, and not a single library of it."""
    return len(packages) >= MANY_CUDA_PACKAGES


def cuda_reason(requirement: Requirement) -> str:
    """Return why a requirement that brings CUDA is not adopted, and how to add it."""
    add = f"uv add --group adopted {requirement.name}"
    return (
        f"what this Python has a wheel of brings CUDA, which is gigabytes: {add} adds it all the "
        f"same, and {add} --index pytorch-cpu={CPU_INDEX} without CUDA, if it is PyTorch's"
    )


def unreachable_indexes(message: str, indexes: Sequence[PackageIndex]) -> list[PackageIndex]:
    """Return the indexes whose failure uv's message is about."""
    urls = re.findall(r"https?://[^\s`'\")]+", message)
    return [
        index for index in indexes if any(url.startswith(index.url.rstrip("/")) for url in urls)
    ]


def failure(message: str) -> str:
    """Return what uv could not do, and the reason at the end of its chain of causes, in a line."""
    causes = list[str]()
    for line in message.splitlines():
        if match := re.match(r"\s*(error|cause|Caused by|hint): (.*)", line):
            causes.append(match[2].strip())
        elif line.strip() and causes:
            causes[-1] += f" {line.strip()}"
    causes = [cause for cause in causes if not cause.startswith("Request failed after")]
    if not causes:
        return message.strip()
    first = causes[0].rstrip(".")
    last = causes[-1].rstrip(".")
    return first if first == last else f"{first}: {last}"


def floor(pin: Specifier) -> str | None:
    """Return the version of a pin for a floor: None if it is not a pin, or not of PEP 440."""
    if pin.operator not in PINS:
        return None
    try:
        return Version(pin.version.removesuffix(".*")).public  # a floor has no +cu111
    except InvalidVersion:
        return None


def relaxed_variants(requirement: Requirement) -> list[Requirement]:
    """Return a requirement, then with its pins as floors, then without a version."""
    pins = [*filter(None, map(floor, requirement.specifier))]
    floors = [str(item) for item in requirement.specifier if item.operator in FLOORS]
    with_floors = copy(requirement)
    with_floors.specifier = SpecifierSet(",".join([*floors, *(f">={pin}" for pin in pins)]))
    without_version = copy(requirement)
    without_version.specifier = SpecifierSet()
    variants = {str(item): item for item in (requirement, with_floors, without_version)}
    return list(variants.values())
