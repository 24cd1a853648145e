"""Files that a repository and the template both have, made into one that holds both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

MARK = "# Yours, from before."
LEFT = "# What was there before is left as it is: take out what you have tidied."
# What is merged line by line.
BY_LINES = (".gitignore", ".gitattributes", ".dockerignore")
TARGETS = re.compile(r"^([A-Za-z0-9_][\w.%/ $(){}-]*?)\s*::?(?![=:])", re.MULTILINE)


def decoded(content: bytes) -> str:
    """Read a text of either kind of line end, with or without a BOM."""
    return content.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")


def encoded(words: str) -> bytes:
    """Write a text; what was no UTF-8 is as it was."""
    return words.encode("utf-8", "surrogateescape")


def lines(ours: str, theirs: str) -> str:
    """Give the template's lines, then theirs that are not among them."""
    known = set(ours.splitlines())
    more = [line for line in theirs.splitlines() if line not in known or not line]
    return block(ours, MARK, "\n".join(more).strip("\n"))


def editorconfig(ours: str, theirs: str) -> str:
    """Give the template's sections, then theirs: the last that fits a file decides."""
    more = re.sub(r"(?mi)^root\s*=.*\n?", "", theirs)
    return block(ours, MARK, more.strip("\n"))


def block(first: str, comment: str, more: str) -> str:
    """Put a text after another, under a comment."""
    return f"{first.rstrip(chr(10))}\n\n{comment}\n{more}\n" if more else first


def makefile(ours: str, theirs: str) -> tuple[str, list[str]]:
    """Give theirs, then the template's targets that it does not define; and name those it does."""
    defined = {name for found in TARGETS.findall(theirs) for name in found.split()}
    added, own = {}, []
    for rule in re.split(r"\n{2,}", ours.strip("\n")):
        if found := re.search(r"(?m)^([a-z][\w-]*):(?!=)", rule):
            if found[1] in defined:
                own.append(found[1])
            else:
                added[found[1]] = re.sub(r"(?m)^\.PHONY.*\n", "", rule)
    if not added:
        return theirs, own
    rules = "\n\n".join([f".PHONY: {' '.join(added)}", *added.values()])
    return block(theirs, "# From the project's template: what is not defined above.", rules), own


def pre_commit(ours: str, theirs: str | None, left_out: Sequence[str]) -> tuple[str, bool]:
    """Give the template's hooks, then theirs; all leave out what was there before.

    Args:
        ours: The template's configuration.
        theirs: Theirs, if there is one.
        left_out: Regular expressions of paths.

    Returns:
        The configuration, and whether theirs is in it.
    """
    sections = top_level(theirs or "")
    own = read(theirs or "")
    patterns = [*left_out, *([f"(?:{own['exclude']})"] if own.get("exclude") else [])]
    head = ""
    if patterns:
        listed = " |\n".join(f"    {pattern}" for pattern in patterns)
        head = f"{LEFT}\nexclude: |\n  (?x)^(\n{listed}\n  )\n\n"
    ours = re.sub(r"(?m)^(?=repos:)", lambda _: head, ours, count=1)
    if not theirs:
        return ours, True
    known = read(ours)
    more = "".join(part for name, part in sections.items() if name not in known and name != "repos")
    repos = sections.get("repos", "repos:\n").partition("\n")[2].rstrip("\n")
    first = re.search(r"(?m)^( *)- ", repos)
    shift = 2 - len(first[1]) if first else 0
    if shift < 0:
        repos = re.sub(rf"(?m)^ {{{-shift}}}", "", repos)
    elif shift:
        repos = re.sub(r"(?m)^(?=.)", " " * shift, repos)
    both = block(ours, f"  {MARK}", repos)
    both = re.sub(r"(?m)^(?=repos:)", lambda _: more, both, count=1) if more else both
    wanted = [*known.get("repos", []), *own.get("repos", [])]
    if not own or read(both).get("repos") != wanted:
        return ours, False
    return both, True


def top_level(text: str) -> dict[str, str]:
    """Split YAML into the text of each top-level key."""
    parts = re.split(r"(?m)^(?=[A-Za-z_][\w-]*:)", text)
    return {part.partition(":")[0]: part for part in parts[1:]}


def read(text: str) -> dict[str, Any]:
    """Read YAML that is a mapping; what cannot be read is empty."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def bytes_kept(names: Iterable[str]) -> str:
    """Give lines for .gitattributes by which Git leaves these files' line ends alone."""
    return "".join(f"{quoted(name)} -text\n" for name in names)


def quoted(name: str) -> str:
    """Write a path as gitattributes(5) has one that is no pattern."""
    pattern = "/" + re.sub(r"([\\*?\[])", r"\\\1", name)
    if not re.search(r'[\s"]', pattern):
        return pattern
    return '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'
