"""Names and sentences are those of the field, in the English of a native technical writer.

The words below are English, but as names they say nothing: each stood for many kinds of thing. The
tests read the syntax tree, and so find what is bound in a signature, a comprehension or a pattern:
in Python files, and in the blocks of Python that pages show.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

# Each name, and what to write instead.
VAGUE_NAMES = {
    "asked": "the noun: request, question, contract",
    "at": "index, row, location, platform",
    "came": "the noun: outcome, response",
    "found": "the noun of the result: match, entries, tables",
    "given": "X, y_pred, arguments, or what was passed",
    "of": "the noun of the thing",
    "one": "the noun of the item",
    "said": "message, document, annotations, stderr, or what it is",
    "told": "labelled, message, or what it is",
}
# Each pattern, and what a native writer says. Comparatives ("is no newer") are English.
COMPARATIVE = r"(?!(?:longer|more|less|better|worse|newer|older|larger|smaller)\b)"
UNENGLISH = {
    rf"(?<![Tt]here )\bis no {COMPARATIVE}": "is not a …",
    rf"(?<![Tt]here )\bare no {COMPARATIVE}": "are not …",
    r"\b[Tt](?:ell|ells|old) of\b": "describe, report",
    r"\b[Mm]end(?:s|ed)?\b": "fix",
    r"\bin no version\b": "no version is …",
    r"\bgoes? on\b": "continue",
}
# British spelling, with -ize: labelled, neighbour, judgement, recognize. What has another spelling
# for good is a key of a file or the value of one: `favorable`, `unrecognised`.
MISSPELT = re.compile(
    r"\b(?:recogni|organi|summari|normali|initiali|standardi|generali|speciali|minimi|maximi"
    r"|randomi|reali|regulari|visuali|prioriti|categori|synchroni|seriali|utili)s(?:e|es|ed|ing|ation)\b"
    r"|\b(?:label|cancel|model|travel|signal)(?:ed|ing|er)\b|\bmisspelled\b|\blearnt\b"
    r"|\b(?:behavi|hon|fav|rum|flav)or(?:s|ed)?\b|\bneighbor(?:hood|ing)?\b|\bjudgment",
    re.IGNORECASE,
)
NAMES_OF_OTHERS = {"neighborhood"}  # of columns that data have
# What these tests read: the product, what a project gets to edit, and the tests themselves.
FOLDERS = ("hooks", "runtime/src", "template", "tests")
PAGES = "pages"  # their blocks of Python

folders = pytest.mark.parametrize("folder", [*FOLDERS, PAGES])
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def modules(folder: str) -> list[Path]:
    """Return the Python files of a folder, but for this one, which quotes what is wrong."""
    files = [file for file in (ROOT / folder).rglob("*.py") if file != Path(__file__)]
    assert files, f"{folder} has no Python files"
    return sorted(files)


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def pages() -> list[Path]:
    """Return the pages that people read."""
    folders = ("docs", "ci", "template", "runtime/src")
    nested = [page for folder in folders for page in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *nested])


def blocks(page: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the code of each block of Python in a page."""
    for match in BLOCK.finditer(page):
        code = textwrap.dedent(match[2])
        # A branch to add to a chain of others.
        yield page.count("\n", 0, match.start(2)), re.sub(r"\Aelif\b", "if", code)


@cache
def trees(folder: str) -> list[tuple[str, int, ast.Module]]:
    """Return what a folder has, as a path, the lines before it in that file, and its tree."""
    if folder != PAGES:
        return [(str(file.relative_to(ROOT)), 0, parse(file)) for file in modules(folder)]
    shown = [
        (str(page.relative_to(ROOT)), line, ast.parse(code))
        for page in pages()
        for line, code in blocks(page.read_text("utf-8"))
    ]
    assert len(shown) > 20, "pages show less Python than they did"
    return shown


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each definition, parameter, variable, alias and capture."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield getattr(node, "lineno", 0), name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.MatchMapping(rest=str(name)):
                yield node.lineno, name


def packed_assignments(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each `a, b = x, y`: two statements on one line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            targets = node.targets[0]
            is_swap = ast.unparse(targets) == ast.unparse(ast.Tuple(node.value.elts[::-1]))
            if isinstance(targets, ast.Tuple) and not is_swap:
                yield node.lineno


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each literal: messages and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


def vague(source: str) -> list[str]:
    return [name for _, name in bound_names(ast.parse(source)) if name in VAGUE_NAMES]


def unenglish(text: str) -> list[str]:
    return [pattern for pattern in UNENGLISH if re.search(pattern, text)]


@folders
def test_names_say_what_they_hold(folder: str) -> None:
    wrong = [
        f"{path}:{before + line}: {name} (write {VAGUE_NAMES[name]})"
        for path, before, tree in trees(folder)
        for line, name in bound_names(tree)
        if name in VAGUE_NAMES
    ]
    assert not wrong, "\n".join(wrong)


@folders
def test_one_line_assigns_one_thing(folder: str) -> None:
    wrong = [
        f"{path}:{before + line}"
        for path, before, tree in trees(folder)
        for line in packed_assignments(tree)
    ]
    assert not wrong, "\n".join(wrong)


@folders
def test_messages_and_docstrings_are_english(folder: str) -> None:
    wrong = [
        f"{path}:{before + line}: {text[:80]} (write {UNENGLISH[pattern]})"
        for path, before, tree in trees(folder)
        for line, text in texts(tree)
        for pattern in unenglish(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_are_english() -> None:
    """All but what is over: decisions as they were made, and the changes of earlier releases."""
    wrong = []
    for page in pages():
        if page.parent.name == "decisions":
            continue
        text = page.read_text("utf-8")
        if page.name == "CHANGELOG.md":
            text = text.partition("\n## 0.")[0]
        wrong += [
            f"{page.relative_to(ROOT)}: {pattern} (write {UNENGLISH[pattern]})"
            for pattern in unenglish(" ".join(text.split()))
        ]
    assert not wrong, "\n".join(wrong)


def test_one_spelling() -> None:
    """In pages, comments, docstrings and messages, but for what is released."""
    files = [*pages(), *(ROOT / "template").rglob("*.jinja")]
    files += [file for folder in FOLDERS for file in modules(folder)]
    wrong = []
    for file in files:
        text = file.read_text("utf-8")
        if file.name == "CHANGELOG.md":
            text = text.partition("\n## 0.")[0]
        wrong += [
            f"{file.relative_to(ROOT)}: {match[0]}"
            for match in MISSPELT.finditer(text)
            if match[0] not in NAMES_OF_OTHERS
        ]
    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("said = 1", ["said"]),
        ("for at, (row, one) in rows: pass", ["at", "one"]),
        ("[x for found in y]", ["found"]),
        ("def f(of, *, told=1, **given): pass", ["of", "told", "given"]),
        ("def asked(): pass", ["asked"]),
        ("with open(p) as at: pass", ["at"]),
        ("if came := f(): pass", ["came"]),
        ("self.said: str = 1", ["said"]),
        ("match x:\n    case [one, *told]: pass", ["one", "told"]),
        ("import numpy as of", ["of"]),
        ("print(said, x.at, df.at[1])", []),  # a use, or somebody else's name
    ],
)
def test_a_vague_name_is_found_wherever_it_is_bound(source: str, names: list[str]) -> None:
    assert sorted(vague(source)) == sorted(names)


@pytest.mark.parametrize(
    ("source", "is_packed"),
    [
        ("a, b = 1, 2", True),
        ("a, b = b, a", False),
        ("a, b = pair()", False),
        ("a = 1, 2", False),
    ],
)
def test_two_values_in_one_assignment_are_found(source: str, is_packed: bool) -> None:
    assert bool([*packed_assignments(ast.parse(source))]) is is_packed


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("x is no folder: name one that is", True),
        ("v2 is no newer, and is no longer supported", False),
        ("What was there is told of in the report. It tells of nothing else.", True),
        ("mypy fails: mend it", True),
        ("x is not a directory, and there is no other", False),
    ],
)
def test_a_sentence_that_no_native_writer_writes_is_found(text: str, is_wrong: bool) -> None:
    assert bool(unenglish(text)) is is_wrong
