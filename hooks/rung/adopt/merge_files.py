"""Files that a repository and the template both have, merged into one that holds both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

YOURS_COMMENT = "# Yours, from before the adoption."
EXCLUDED_COMMENT = "# Existing code is excluded from checks. Remove entries as you clean them up."
TEMPLATE_TARGETS_COMMENT = "# From the project's template: what is not defined above."
# What is merged line by line.
LINE_FILES = (".gitignore", ".gitattributes", ".dockerignore")
TARGETS = re.compile(r"^([A-Za-z0-9_][\w.%/ $(){}-]*?)\s*::?(?![=:])", re.MULTILINE)
LIST_INDENT = 2  # spaces before the items of `repos:` in the template's file


def decode_text(content: bytes) -> str:
    """Return a text with either kind of line end, with or without a byte order mark."""
    return content.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")


def encode_text(text: str) -> bytes:
    """Return the bytes of a text; those that were not UTF-8 come back as they were."""
    return text.encode("utf-8", "surrogateescape")


def merge_lines(ours: str, theirs: str) -> str:
    """Return the template's lines, then those of theirs that are not among them."""
    known = set(ours.splitlines())
    more = [line for line in theirs.splitlines() if line not in known or not line]
    return append_block(ours, YOURS_COMMENT, "\n".join(more).strip("\n"))


def merge_editorconfig(ours: str, theirs: str) -> str:
    """Return the template's sections, then theirs: the last one that matches a file wins."""
    sections = re.sub(r"(?mi)^root\s*=.*\n?", "", theirs)
    return append_block(ours, YOURS_COMMENT, sections.strip("\n"))


def append_block(first: str, comment: str, second: str) -> str:
    """Return a text followed by another, under a comment."""
    return f"{first.rstrip(chr(10))}\n\n{comment}\n{second}\n" if second else first


def merge_makefile(ours: str, theirs: str) -> tuple[str, list[str]]:
    """Merge two Makefiles.

    Returns:
        Theirs, then the template's targets that it does not define; and the names of those that
        it does.
    """
    defined = {name for targets in TARGETS.findall(theirs) for name in targets.split()}
    added = {}
    kept = []
    for rule in re.split(r"\n{2,}", ours.strip("\n")):
        target = re.search(r"(?m)^([a-z][\w-]*):(?!=)", rule)
        if target is None:
            continue
        if target[1] in defined:
            kept.append(target[1])
        else:
            added[target[1]] = re.sub(r"(?m)^\.PHONY.*\n", "", rule)
    if not added:
        return theirs, kept
    rules = "\n\n".join([f".PHONY: {' '.join(added)}", *added.values()])
    return append_block(theirs, TEMPLATE_TARGETS_COMMENT, rules), kept


def merge_pre_commit(ours: str, theirs: str | None, excluded: Sequence[str]) -> tuple[str, bool]:
    """Merge two pre-commit configurations; all hooks skip the existing files.

    Args:
        ours: The template's configuration.
        theirs: Theirs, if there is one.
        excluded: Regular expressions of the paths to skip.

    Returns:
        The template's hooks, then theirs; and whether theirs are in it.
    """
    their_config = read_mapping(theirs or "")
    patterns = list(excluded)
    if their_config.get("exclude"):
        patterns.append(f"(?:{their_config['exclude']})")
    if patterns:
        listed = " |\n".join(f"    {pattern}" for pattern in patterns)
        exclude = f"{EXCLUDED_COMMENT}\nexclude: |\n  (?x)^(\n{listed}\n  )\n\n"
        ours = re.sub(r"(?m)^(?=repos:)", lambda _: exclude, ours, count=1)
    if not theirs:
        return ours, True
    our_config = read_mapping(ours)
    sections = split_top_level(theirs)
    settings = "".join(
        text for key, text in sections.items() if key not in our_config and key != "repos"
    )
    repos = sections.get("repos", "repos:\n").partition("\n")[2].rstrip("\n")
    merged = append_block(ours, f"  {YOURS_COMMENT}", reindent(repos))
    if settings:
        merged = re.sub(r"(?m)^(?=repos:)", lambda _: settings, merged, count=1)
    expected = [*our_config.get("repos", []), *their_config.get("repos", [])]
    if not their_config or read_mapping(merged).get("repos") != expected:
        return ours, False
    return merged, True


def reindent(items: str) -> str:
    """Return the items of a YAML list with the indentation of the template's."""
    first = re.search(r"(?m)^( *)- ", items)
    shift = LIST_INDENT - len(first[1]) if first else 0
    if shift < 0:
        return re.sub(rf"(?m)^ {{{-shift}}}", "", items)
    return re.sub(r"(?m)^(?=.)", " " * shift, items)


def split_top_level(text: str) -> dict[str, str]:
    """Return the text of each top-level key of a YAML mapping."""
    parts = re.split(r"(?m)^(?=[A-Za-z_][\w-]*:)", text)
    return {part.partition(":")[0]: part for part in parts[1:]}


def read_mapping(text: str) -> dict[str, Any]:
    """Return a YAML mapping; an empty one if it cannot be read."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def keep_line_ends(names: Iterable[str]) -> str:
    """Return lines for .gitattributes that make Git leave the line ends of these files alone."""
    return "".join(f"{attribute_pattern(name)} -text\n" for name in names)


def attribute_pattern(name: str) -> str:
    """Return the pattern that matches just this path in gitattributes(5)."""
    pattern = "/" + re.sub(r"([\\*?\[])", r"\\\1", name)
    if not re.search(r'[\s"]', pattern):
        return pattern
    return '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'
