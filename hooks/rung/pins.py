"""Pins that a team's Renovate has moved, where the template has changed the same lines.

A pin is a version, commit or digest of something that others publish. The newer of two wins, and an
action that the template no longer uses takes its pin along: nobody has to read such a conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory

from .git import git, git_bytes, split_nul
from .process import run

# An action's commit with its tag, and the version that an action is to install.
ACTION = re.compile(rb"(?<=@)[0-9a-f]{40}([\"']?)(\s+#\s*v?[\w.]+)?")
INPUT = re.compile(rb"(?<=with: \{version: )[\d.]+")
# The tag of a base image and its digest; a requirement and its hashes.
IMAGE = re.compile(
    rb"(?<![^\s=])(?P<name>(?:[\w.-]+(?::\d+)?/)*[\w.-]+):[\w.-]+(@sha256:[0-9a-f]{64})?$"
)
REQUIREMENT = re.compile(rb"(?<=^uv==)[\d.]+")
HASH = re.compile(rb"(?<=--hash=sha256:)[0-9a-f]{64}")
IMAGE_LINE = re.compile(rb"\s*(ARG PYTHON=|default: )")
NUMBERS = re.compile(rb"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Line:
    """A line, and what it is without its pins."""

    text: bytes
    masked: bytes

    @property
    def key(self) -> bytes:
        """What lines with the same pin have in common, wherever they stand."""
        return self.masked.strip()

    @property
    def is_of_an_action(self) -> bool:
        """Whether it goes when the template no longer uses the action."""
        return bool(ACTION.search(self.text) or INPUT.search(self.text))

    @property
    def versions(self) -> list[tuple[int, ...]]:
        """The version numbers in it."""
        return [tuple(map(int, number.split(b"."))) for number in NUMBERS.findall(self.text)]

    def with_pin(self, line: Line) -> Line:
        """Return this line with the pin of another one that has the same key."""
        start = len(self.text) - len(self.text.lstrip())
        end = len(self.text.rstrip())
        return Line(self.text[:start] + line.text.strip() + self.text[end:], self.masked)


def lines(content: bytes) -> list[Line]:
    """Split a file into its lines."""
    return [Line(text, _mask(text)) for text in content.split(b"\n")]


def _mask(text: bytes) -> bytes:
    for pattern in (INPUT, REQUIREMENT, HASH):
        text = pattern.sub(b"?", text)
    if IMAGE_LINE.match(text):
        text = IMAGE.sub(rb"\g<name>:?", text)
    return ACTION.sub(rb"?\1", text)


def merge(base: bytes, team: bytes, template: bytes) -> bytes | None:
    """Merge a file in which a team has moved pins, and perhaps more; None if it still conflicts."""
    if HASH.search(base):  # of several lines, which belong together
        if _without_repeats(base) == _without_repeats(team) == _without_repeats(template):
            return team if _versions(team) > _versions(template) else template
        return None
    base_lines = lines(base)
    team_lines = lines(team)
    moved = dict[int, Line]()  # by the line of the team's file
    for base_index, team_index in _pairs(base_lines, team_lines):
        if base_lines[base_index].text != team_lines[team_index].text:
            moved[team_index] = base_lines[base_index]
    if not moved:
        return None
    before = [moved.get(index, line) for index, line in enumerate(team_lines)]
    merged = _merge_file(base, b"\n".join(line.text for line in before), template)
    if merged is None:
        return None
    newest = dict[bytes, Line]()
    for index in moved:
        line = team_lines[index]
        if line.key not in newest or line.versions > newest[line.key].versions:
            newest[line.key] = line
    replaced = {line.text.strip() for line in moved.values()}
    result = lines(merged)
    used = set[bytes]()
    for index, line in enumerate(result):
        if pin := newest.get(line.key):
            used.add(line.key)
            if line.text.strip() in replaced or pin.versions >= line.versions:
                result[index] = line.with_pin(pin)
    if not all(line.is_of_an_action for key, line in newest.items() if key not in used):
        return None
    return b"\n".join(line.text for line in result)


def _pairs(old: list[Line], new: list[Line]) -> Iterator[tuple[int, int]]:
    """Yield which lines of two files are the same but for their pins."""
    matcher = SequenceMatcher(
        None, [line.masked for line in old], [line.masked for line in new], autojunk=False
    )
    for start, other, size in matcher.get_matching_blocks():
        for offset in range(size):
            yield start + offset, other + offset


def _without_repeats(content: bytes) -> list[bytes]:
    """Return a file without pins; a list of hashes is one line, however long it is."""
    masked = [line.masked.rstrip(b" \\\r") for line in lines(content)]
    return [text for index, text in enumerate(masked) if not index or text != masked[index - 1]]


def _versions(content: bytes) -> list[tuple[int, ...]]:
    return [version for line in lines(content) for version in line.versions]


def _merge_file(base: bytes, team: bytes, template: bytes) -> bytes | None:
    with TemporaryDirectory(prefix="rung-") as folder:
        files = []
        for name, content in (("team", team), ("base", base), ("template", template)):
            files.append(Path(folder, name))
            files[-1].write_bytes(content)
        result = run(["git", "merge-file", "-p", *map(str, files)], Path(folder))
    return result.stdout if result.returncode == 0 else None


def resolve(project: Path) -> list[str]:
    """Resolve the conflicts of an update that are about pins alone.

    Returns:
        The files that have no conflict any more.
    """
    stages = dict[str, dict[str, str]]()
    for entry in split_nul(git(project, "ls-files", "-u", "-z")):
        about, name = entry.split("\t", 1)
        _, blob, stage = about.split()
        stages.setdefault(name, {})[stage] = blob
    resolved = []
    for name, blobs in stages.items():
        if set(blobs) != {"1", "2", "3"} or (project / name).is_symlink():
            continue
        base, team, template = (
            git_bytes(project, "cat-file", "blob", blobs[stage]) for stage in "123"
        )
        merged = merge(base, team, template)
        if merged is not None:
            (project / name).write_bytes(merged)
            git(project, "reset", "--quiet", "--", name)
            resolved.append(name)
    return resolved
